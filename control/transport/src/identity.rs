//! Who this process is: a key that was made here, and the certificate that the fleet's authority gave for it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dunlin_model::ClusterId;
use dunlin_planted::{Bug, planted};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{CLOCK_TOLERANCE, public_key};
use crate::file::{self, FileError};
use crate::wall_clock::{WallClock, is_unset};
use crate::{Authority, IssueError, Member, NotAMember, PeerRefusal, Role, tls};

/// Who this process is, with the key that proves it.
pub struct Identity {
    member: Member,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    authority: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A key and the request for a certificate of it.
pub struct KeyRequest {
    key: KeyPair,
    signing_request: Vec<u8>,
}

/// Why key, certificate and authority do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum WrongIdentity {
    /// The certificate is for another key.
    #[error("the certificate is for another key")]
    OtherKey,
    /// The certificate names no member of a fleet.
    #[error("the certificate names no member of a fleet")]
    NotAMember(#[from] NotAMember),
    /// The authority did not give the certificate, or not for this time.
    #[error("the certificate does not hold under the fleet's authority")]
    Untrusted(#[source] PeerRefusal),
}

/// Why there is no key to ask a certificate for.
#[derive(Debug, thiserror::Error)]
pub enum OpenKeyError {
    /// The file cannot be read or written.
    #[error("could not keep the key with which this machine joins")]
    File(#[from] FileError),
    /// It holds something else.
    #[error("{path} does not hold a key; remove it and join with a new token", path = path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A key could not be made.
    #[error("could not make a key")]
    Make(#[from] IssueError),
}

/// Why a stored identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdentityError {
    /// The file cannot be read.
    #[error("could not open this machine's identity")]
    File(#[from] FileError),
    /// It holds something else.
    #[error("{path} does not hold a key, its certificate and that of the authority", path = path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
    },
    /// What it holds does not belong together.
    #[error("{path} holds no identity", path = path.display())]
    Wrong {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: WrongIdentity,
    },
}

impl KeyRequest {
    /// The file in which [`KeyRequest::load_or_create`] keeps the key until there is an identity.
    pub const FILE: &str = "join.key";

    /// Makes a key. It leaves this value only as part of an identity.
    pub fn create() -> Result<Self, IssueError> {
        Self::of(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?)
    }

    /// Reads the key from [`KeyRequest::FILE`] in `folder`, or makes one and keeps it there.
    ///
    /// Whoever asks to join must do so with this: if the answer is lost, or this process ends before it has saved
    /// its identity, the token is used up and the name taken, but by this very key, which is answered again.
    /// [`Identity::save`] removes the file.
    pub fn load_or_create(folder: &Path) -> Result<Self, OpenKeyError> {
        let path = folder.join(Self::FILE);
        if !path.exists() || planted(Bug::NewKeyAtEachJoin) {
            let request = Self::create()?;
            let key = PrivatePkcs8KeyDer::from(request.key.serialize_der());
            file::write(&path, &file::to_pem(&key, &[]))?;
            return Ok(request);
        }
        let malformed = || OpenKeyError::Malformed { path: path.clone() };
        let (key, _) = file::from_pem(&file::read(&path)?).ok_or_else(malformed)?;
        Ok(Self::of(KeyPair::try_from(&key).map_err(|_| malformed())?)?)
    }

    fn of(key: KeyPair) -> Result<Self, IssueError> {
        let mut parameters = CertificateParams::default();
        // The authority decides what stands in the certificate; nothing is asked for.
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let signing_request = parameters.serialize_request(&key).map_err(make)?.der().to_vec();
        Ok(Self { key, signing_request })
    }

    /// Returns the request (PKCS#10, DER).
    pub fn signing_request(&self) -> &[u8] {
        &self.signing_request
    }

    /// Returns the identity that the authority's certificate makes of the key, if it is for this key and holds now.
    pub fn into_identity(
        self,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Identity, WrongIdentity> {
        self.into_identity_by(WallClock::of_a_stranger(), certificate, authority)
    }

    fn into_identity_by(
        self,
        clock: WallClock,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Identity, WrongIdentity> {
        let now = clock.judging(&certificate, UnixTime::now());
        tls::verify_leaf(&certificate, &authority, now).map_err(WrongIdentity::Untrusted)?;
        Identity::assemble(&self.key, certificate, authority)
    }
}

/// Returns from when and until when a certificate is good.
pub(crate) fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let moment =
        |seconds: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    let validity = parsed.validity();
    Some((moment(validity.not_before.timestamp())?, moment(validity.not_after.timestamp())?))
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

impl Identity {
    /// The file in which [`Identity::save`] puts it.
    pub const FILE: &str = "identity.pem";

    /// Makes a key and a certificate for it in one step, where the authority is at hand: for the coordinator itself.
    pub fn issue(
        authority: &Authority,
        role: &Role,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, IssueError> {
        let request = KeyRequest::create()?;
        let certificate = authority.issue_for(&request.key, role, now, lifetime)?;
        Self::assemble(&request.key, certificate, authority.certificate().clone())
            .map_err(|error| IssueError::Make { reason: error.to_string() })
    }

    /// An expired certificate makes an identity too: to say at start that it has expired, and of whom, helps more
    /// than to say that there is none. The other side refuses it.
    fn assemble(
        key: &KeyPair,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, WrongIdentity> {
        let member = Member::of_certificate(&certificate)?;
        if public_key(&certificate).as_deref() != Some(key.der_bytes()) {
            return Err(WrongIdentity::OtherKey);
        }
        let (not_before, not_after) = validity(&certificate).ok_or(NotAMember::Malformed)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Self { member, certificate, key, authority, not_before, not_after })
    }

    /// Writes it to [`Identity::FILE`] in `folder`, readable by the owner alone, whole or not at all; then removes
    /// [`KeyRequest::FILE`], which has served its purpose.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        file::write(
            &folder.join(Self::FILE),
            &file::to_pem(&self.key, &[&self.certificate, &self.authority]),
        )?;
        file::remove(&folder.join(KeyRequest::FILE))
    }

    /// Reads it from [`Identity::FILE`] in `folder`.
    pub fn load(folder: &Path) -> Result<Self, OpenIdentityError> {
        let path = folder.join(Self::FILE);
        let text = file::read(&path)?;
        let malformed = || OpenIdentityError::Malformed { path: path.clone() };
        let (key, certificates) = file::from_pem(&text).ok_or_else(malformed)?;
        let key = KeyPair::try_from(&key).map_err(|_| malformed())?;
        let [certificate, authority] =
            <[CertificateDer<'static>; 2]>::try_from(certificates).map_err(|_| malformed())?;
        Self::assemble(&key, certificate, authority)
            .map_err(|source| OpenIdentityError::Wrong { path: path.clone(), source })
    }

    /// Tells whether [`Identity::save`] was ever done in `folder`.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(Self::FILE).exists()
    }

    /// Returns who this is.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Returns the fleet.
    pub fn cluster(&self) -> &ClusterId {
        &self.member.cluster
    }

    /// Returns what this is in the fleet.
    pub fn role(&self) -> &Role {
        &self.member.role
    }

    /// Returns the certificate of the fleet's authority, DER.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Returns when the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Returns when the certificate was made, by the clock of the coordinator.
    pub(crate) fn made(&self) -> SystemTime {
        // It was dated back.
        self.not_before + CLOCK_TOLERANCE
    }

    /// Tells whether the clock of this machine is not set: it shows a time before the certificate was made.
    pub fn has_no_clock(&self) -> bool {
        is_unset(SystemTime::now(), self.made())
    }

    /// Returns when to ask for a new one: at half of the certificate's life.
    pub fn renew_at(&self) -> SystemTime {
        let made = self.made();
        made + self.not_after.duration_since(made).unwrap_or_default() / 2
    }

    /// Returns a request for a new certificate for the same key: by that the fleet knows the machine.
    pub fn renewal(&self) -> Result<KeyRequest, IssueError> {
        KeyRequest::of(KeyPair::try_from(&self.key).map_err(make)?)
    }

    /// Returns what this identity becomes by a certificate (DER) that the authority gave for its [`Identity::renewal`].
    pub fn renewed(&self, request: KeyRequest, certificate: Vec<u8>) -> Result<Self, WrongIdentity> {
        let clock = WallClock::of(self);
        request.into_identity_by(clock, CertificateDer::from(certificate), self.authority.clone())
    }

    /// Returns the certificate and that of the authority, which a joining node must see.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.authority.clone()]
    }

    pub(crate) fn key(&self) -> PrivatePkcs8KeyDer<'static> {
        self.key.clone_key()
    }
}

fn make(error: rcgen::Error) -> IssueError {
    IssueError::Make { reason: error.to_string() }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            member: self.member.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            authority: self.authority.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("member", &self.member)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
