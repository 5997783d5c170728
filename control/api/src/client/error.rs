//! Why a request came to nothing: not reached, refused, or not understood.

use crate::Problem;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There was no answer, or it broke off.
    #[error("could not reach the coordinator at {url}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong on the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The coordinator said no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not what the API describes.
    #[error("the coordinator's answer cannot be used: {detail}")]
    BadAnswer {
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// Returns the problem, if the coordinator said no.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. } | Self::BadAnswer { .. } => None,
        }
    }

    /// Tells whether it is certain that the coordinator has not heard of the request: there was no connection.
    pub fn was_not_sent(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => {
                source.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
            }
            Self::Problem(_) | Self::BadAnswer { .. } => false,
        }
    }

    /// One of several coordinators has stopped to answer.
    pub(super) fn gone(url: &str) -> Self {
        let source = "it does not answer any more; what was asked for may have happened or not".into();
        Self::Unreachable { url: url.to_owned(), source }
    }

    pub(super) fn unreachable(url: &str, error: reqwest::Error) -> Self {
        // The address is already said, and the path says nothing to a person.
        Self::Unreachable { url: url.to_owned(), source: Box::new(error.without_url()) }
    }

    pub(super) fn bad_answer(detail: impl Into<String>) -> Self {
        Self::BadAnswer { detail: detail.into() }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// The address is not a URL.
    #[error("`{url}` is not the URL of a coordinator, like https://127.0.0.1:7300")]
    Url {
        /// The address.
        url: String,
    },
    /// The token would travel in the clear.
    #[error("`{url}` would send the token unencrypted to another machine")]
    Plain {
        /// The address.
        url: String,
    },
    /// The token has characters which cannot stand in a header.
    #[error("the token has characters which no token has")]
    Token,
    /// The authority is not a certificate.
    #[error("the fleet's authority is not a certificate in PEM form")]
    Authority,
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Http(#[source] reqwest::Error),
}
