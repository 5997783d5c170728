//! Registries of OCI artifacts, as this program asks them: with the passwords of Docker's config file, and errors for people.

use std::env;
use std::path::Path;

use bytes::Bytes;
use dunlin_model::{ComponentLimits, Digest};
use dunlin_oci::{Artifact, Login, Reference, Registry, RegistryError, Trust};

use crate::context::read_text;
use crate::error::CommandError;
use crate::output::Output;

/// Names a file with the certificates of authorities (PEM) that are trusted for registries, besides those of browsers.
const AUTHORITIES: &str = "DUNLIN_REGISTRY_CA_FILE";
/// Names hosts, with commas between, that give tokens for registries with other names.
const TOKEN_HOSTS: &str = "DUNLIN_REGISTRY_TOKEN_HOSTS";
/// The most bytes of a whole app.
const MAX_APP: u64 = 1 << 30;

/// Returns the registry of a reference.
pub(crate) fn registry(reference: &Reference) -> Result<Registry, CommandError> {
    let what = || format!("cannot ask {}", reference.registry());
    let mut trust = Trust::default();
    if let Some(path) = env::var_os(AUTHORITIES) {
        let text = read_text(Path::new(&path)).map_err(|error| {
            let help = format!("{AUTHORITIES} names a file with certificates, PEM");
            CommandError::failed(what()).caused_by(&error).help(help)
        })?;
        trust.authorities = text.into_bytes();
    }
    let hosts = env::var(TOKEN_HOSTS).unwrap_or_default();
    trust.token_hosts = hosts
        .split(',')
        .map(|host| host.trim().to_ascii_lowercase())
        .filter(|host| !host.is_empty())
        .collect();
    Registry::of(reference, Login::OfDocker, trust).map_err(|error| failed(what(), &error))
}

/// Returns an artifact, and the digest by which it means the same for ever.
pub(crate) async fn pull(reference: &Reference, output: &Output) -> Result<(Artifact, Digest), CommandError> {
    let progress = output.progress_of_bytes(&format!("pulling {reference}"), 0);
    let pulled = registry(reference)?.pull(MAX_APP).await;
    progress.finish();
    pulled.map_err(|error| failed(format!("cannot pull {reference}"), &error))
}

/// Returns a component, and the reference by which it means the same for ever.
pub(crate) async fn pull_component(
    reference: &Reference,
    output: &Output,
) -> Result<(Bytes, Reference), CommandError> {
    let (artifact, digest) = pull(reference, output).await?;
    let bytes = artifact.into_component().ok_or_else(|| {
        CommandError::failed(format!("{reference} is no component"))
            .because("it has not one layer of the type application/wasm alone")
            .help("an app is deployed from there by `dunlin install`")
    })?;
    let most = ComponentLimits::maximum().component_size;
    if bytes.len() as u64 > most.0 {
        return Err(CommandError::failed(format!("{reference} is too large"))
            .because(format!("limit `component_size` is {most} at most, observed {} bytes", bytes.len()))
            .help("build it with `--release`, and strip its debug information"));
    }
    Ok((bytes, reference.pinned(digest)))
}

/// Says what a registry did not do, why, and what to do.
pub(crate) fn failed(what: String, error: &RegistryError) -> CommandError {
    let help = match error {
        RegistryError::Unreachable { .. } => format!(
            "is its name right? A registry whose certificate is from an authority of your own: {AUTHORITIES} names that"
        ),
        RegistryError::Denied { registry, .. } => {
            format!("log in first: `docker login {registry}`, or `oras login {registry}`")
        }
        RegistryError::ForeignRealm { .. } => {
            format!("no password was told; if that host is the registry's own, name it: {TOKEN_HOSTS}=HOST")
        }
        RegistryError::Credentials(_) => "`docker login` or `oras login` writes it anew".to_owned(),
        RegistryError::Silent { .. } => "try again; nothing of it was used".to_owned(),
        RegistryError::NotFound { .. } => {
            "is its name right, and its tag? A private one is not found without a password".to_owned()
        }
        RegistryError::OtherBytes { .. } => "nothing of it was used; ask who runs the registry".to_owned(),
        RegistryError::OtherKind { .. } | RegistryError::TooLarge { .. } => {
            "`dunlin push` makes artifacts that can be used; so do other tools for wasm".to_owned()
        }
        RegistryError::Refused { .. } => {
            "may this user write there? Try again if the registry is busy".to_owned()
        }
        RegistryError::Authorities => format!("{AUTHORITIES} names a file with certificates, PEM"),
    };
    CommandError::failed(what).caused_by(error).help(help)
}
