//! Why the other side is not believed to be whom it says it is.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::CertificateError;

use crate::{Member, NotAMember};

/// Why the other side is not believed to be whom it says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Its certificate names nobody.
    #[error("its certificate names no member of a fleet")]
    NotAMember(#[from] NotAMember),
    /// Its certificate is of another authority.
    #[error("its certificate was not given by this fleet's authority")]
    OtherAuthority,
    /// Its certificate has ended.
    #[error("its certificate has expired")]
    Expired,
    /// Its certificate has not begun.
    #[error("its certificate is not valid yet; one of the two clocks is wrong")]
    NotYetValid,
    /// Its certificate is wrong in another way.
    #[error("its certificate is not accepted: {reason}")]
    Invalid {
        /// In which.
        reason: String,
    },
    /// It is another member than was wanted.
    #[error("it is {found}, not {wanted}")]
    OtherMember {
        /// Who it is.
        found: Member,
        /// Who was wanted.
        wanted: String,
    },
}

impl From<rustls::Error> for PeerRefusal {
    fn from(error: rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(certificate) = &error else {
            return Self::Invalid { reason: error.to_string() };
        };
        match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            // Two authorities with the same name differ only in the signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherAuthority,
            _ => Self::Invalid { reason: error.to_string() },
        }
    }
}

impl PeerRefusal {
    /// Returns the error which makes TLS send the fitting alert.
    pub(crate) fn to_tls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::NotAMember(_) => CertificateError::BadEncoding,
            Self::OtherAuthority => CertificateError::UnknownIssuer,
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::Invalid { .. } | Self::OtherMember { .. } => {
                CertificateError::ApplicationVerificationFailure
            }
        })
    }
}

/// Carries a refusal out of the TLS library, whose errors have no room for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finding(Arc<Mutex<Option<PeerRefusal>>>);

impl Finding {
    pub(crate) fn put(&self, refusal: PeerRefusal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    pub(crate) fn take(&self) -> Option<PeerRefusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
