//! Passwords for registries, where `docker login` and its like have put them.

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::reference::DOCKER_HUB;

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password, or a token in its place.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where the password is, for when a registry wants to know who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// There is none.
    Nobody,
    /// Here.
    Known(Credentials),
    /// In Docker's config file, or with the helper that it names. It is looked for when it is needed, and not before.
    OfDocker,
}

/// Why it is not known with which password to ask.
#[derive(Debug, thiserror::Error)]
#[error("Docker's config file has no password for {registry} that can be used: {why}")]
pub struct CredentialsError {
    registry: String,
    why: String,
}

impl Credentials {
    /// Returns what Docker's config file, or the helper that it names, has for a registry; nothing if it has none.
    pub fn find(registry: &str) -> Result<Option<Self>, CredentialsError> {
        // Docker Hub is kept under the name that it had at first.
        let kept = if DOCKER_HUB.contains(&registry) { "https://index.docker.io/v1/" } else { registry };
        let failed = |why: String| CredentialsError { registry: registry.to_owned(), why };
        match docker_credential::get_credential(kept) {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some(Self { user, password })),
            Ok(DockerCredential::IdentityToken(_)) => {
                Err(failed("it is an identity token, not a password".to_owned()))
            }
            // There is no file, or nothing in it; a broken one is not told apart.
            Err(
                CredentialRetrievalError::ConfigNotFound
                | CredentialRetrievalError::NoCredentialConfigured
                | CredentialRetrievalError::ConfigReadError,
            ) => Ok(None),
            // In these words helpers say that they have none.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                Ok(None)
            }
            // What else a helper printed may be a password.
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                Err(failed(format!("its helper `{helper}` failed")))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
