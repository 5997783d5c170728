//! The fleet's own certificate authority.
//!
//! Who a certificate is for comes from the request's context and never from the signing request, of which only the
//! public key is used. All keys made here are P-256, which every TLS library and browser takes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dunlin_model::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::file::{self, FileError};
use crate::identity::validity;
use crate::member::cluster_of_authority;
use crate::wall_clock::WallClock;
use crate::{Member, Role, tls};

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates begin a little in the past, since clocks differ.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);
/// The most bytes of a signing request; one for P-256 has about 200.
const MAX_SIGNING_REQUEST: usize = 16 << 10;

/// The authority of a fleet: who has its certificate can check every member, who has its key can make one.
pub struct Authority {
    cluster: ClusterId,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

/// A certificate and a key for the HTTPS API, which is not a member of the fleet.
pub struct ApiCertificate {
    /// The certificate and that of the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// Why a certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The signing request is not one, is not signed by its key, or its key is of a kind that is not taken.
    #[error(
        "the certificate signing request is not one for a P-256 or Ed25519 key, signed by that key: {reason}"
    )]
    SigningRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// A name of the API's is no IP address and no DNS name.
    #[error("`{name}` is neither an IP address nor a DNS name")]
    Name {
        /// The name.
        name: String,
    },
    /// The certificate could not be made.
    #[error("could not make the certificate: {reason}")]
    Make {
        /// What the library says.
        reason: String,
    },
}

/// Why a stored authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenAuthorityError {
    /// The file cannot be read.
    #[error("could not open the fleet's authority")]
    File(#[from] FileError),
    /// It holds something else.
    #[error("the stored authority is not one: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl Authority {
    /// How long an authority is valid.
    pub const LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
    /// How long the certificate of a node is valid.
    pub const NODE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
    /// How long the certificate of a coordinator is valid.
    pub const COORDINATOR_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
    /// How long the certificate of the HTTPS API is valid; the coordinator makes one at each start.
    pub const API_LIFETIME: Duration = Duration::from_secs(397 * 86_400);
    /// The file in which [`Authority::save`] puts it.
    pub const FILE: &str = "authority.pem";

    /// Returns a new authority.
    pub fn create(cluster: &ClusterId, now: SystemTime) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut parameters = parameters(&format!("dunlin {cluster}"), now, Self::LIFETIME);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.subject_alt_names = vec![uri(&format!("spiffe://{cluster}"))?];
        let certificate = parameters.self_signed(&key).map_err(make)?.der().clone();
        Ok(Self { cluster: cluster.clone(), key, certificate })
    }

    /// Returns the authority in a PEM text that [`Authority::to_pem`] gave.
    pub fn from_pem(text: &str) -> Result<Self, OpenAuthorityError> {
        let malformed = |reason: &str| OpenAuthorityError::Malformed { reason: reason.to_owned() };
        let (key, certificates) = file::from_pem(text).ok_or_else(|| malformed("it has no key"))?;
        let key = KeyPair::try_from(&key).map_err(|error| malformed(&error.to_string()))?;
        let [certificate] = certificates.as_slice() else {
            return Err(malformed("it does not have one certificate"));
        };
        let cluster = cluster_of_authority(certificate).map_err(|error| malformed(&error.to_string()))?;
        if public_key(certificate).as_deref() != Some(key.der_bytes()) {
            return Err(malformed("its key and its certificate do not belong together"));
        }
        Ok(Self { cluster, key, certificate: certificate.clone() })
    }

    /// Returns key and certificate as PEM. This is a secret.
    pub fn to_pem(&self) -> String {
        file::to_pem(&PrivatePkcs8KeyDer::from(self.key.serialized_der()), &[&self.certificate])
    }

    /// Writes it to [`Authority::FILE`] in `folder`, readable by the owner alone.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        file::write(&folder.join(Self::FILE), &self.to_pem())
    }

    /// Reads it from [`Authority::FILE`] in `folder`.
    pub fn load(folder: &Path) -> Result<Self, OpenAuthorityError> {
        Self::from_pem(&file::read(&folder.join(Self::FILE))?)
    }

    /// Returns the fleet it is of.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Returns its certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns its certificate as PEM: what clients of the HTTPS API trust. This is public.
    pub fn certificate_pem(&self) -> String {
        file::certificate_pem(&self.certificate)
    }

    /// Returns its private key (PKCS#8, DER), from which others are derived that only coordinators have. This is a secret.
    pub fn private_key(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// Returns the SHA-256 of its public key (SubjectPublicKeyInfo), which join tokens carry.
    pub fn key_hash(&self) -> [u8; 32] {
        key_hash(&self.certificate).expect("a certificate made here is well-formed")
    }

    /// Returns a certificate for the key of a signing request (PKCS#10, DER), valid from about `now`.
    pub fn issue(
        &self,
        signing_request: &[u8],
        role: &Role,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let refused = |reason: &str| IssueError::SigningRequest { reason: reason.to_owned() };
        if signing_request.len() > MAX_SIGNING_REQUEST {
            return Err(refused("it is too long"));
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(signing_request))
                .map_err(|error| refused(&error.to_string()))?;
        let key = &request.public_key;
        // The algorithm is that of the signature; a key of another length would give a certificate of no use.
        let fits = (key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65)
            || (key.algorithm() == &rcgen::PKCS_ED25519 && key.der_bytes().len() == 32);
        if !fits {
            return Err(refused("its key is of another kind"));
        }
        self.issue_for(key, role, now, lifetime)
    }

    /// Returns the present moment, for which certificates are given. Where the clock is not set, it is no earlier than when
    /// the authority was made.
    pub fn now(&self) -> SystemTime {
        if self.has_no_clock() { self.made() } else { SystemTime::now() }
    }

    /// Tells whether the clock of this machine is not set. That it may be behind the authority's beginning is not enough to
    /// say so: that clock may have been ahead.
    pub fn has_no_clock(&self) -> bool {
        SystemTime::now() < WallClock::least()
    }

    fn made(&self) -> SystemTime {
        let not_before = validity(&self.certificate).map(|(not_before, _)| not_before + CLOCK_TOLERANCE);
        not_before.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn issue_for(
        &self,
        key: &impl PublicKeyData,
        role: &Role,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let member = Member { cluster: self.cluster.clone(), role: role.clone() };
        let mut parameters = parameters(&role.to_string(), now, lifetime);
        parameters.subject_alt_names = vec![uri(&member.uri())?, dns(&member.dns_name())?];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(parameters, key)
    }

    /// Returns a certificate and a key for the HTTPS API under these names: IP addresses or DNS names.
    pub fn issue_api(&self, names: &[String], now: SystemTime) -> Result<ApiCertificate, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut parameters = parameters("dunlin api", now, Self::API_LIFETIME);
        parameters.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) if rustls_pki_types::DnsName::try_from(name.as_str()).is_ok() => dns(name),
                Err(_) => Err(IssueError::Name { name: name.clone() }),
            })
            .collect::<Result<_, _>>()?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.sign(parameters, &key)?;
        let chain = vec![certificate, self.certificate.clone()];
        Ok(ApiCertificate { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }

    fn sign(
        &self,
        mut parameters: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, IssueError> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(make)?;
        Ok(parameters.signed_by(key, &issuer).map_err(make)?.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl ApiCertificate {
    /// Returns what a TLS server needs to serve HTTP/2 and HTTP/1.1 with it.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        tls::api_server(self)
    }
}

impl fmt::Debug for ApiCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiCertificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of a certificate's public key (SubjectPublicKeyInfo): the same for all certificates of one key.
pub fn key_hash(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::digest(certificate.public_key().raw).into())
}

/// Returns the bytes of a certificate's public key alone.
pub(crate) fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().subject_public_key.data.to_vec())
}

fn parameters(common_name: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.not_before = (now - CLOCK_TOLERANCE).into();
    parameters.not_after = (now + lifetime.min(DAY * 3650)).into();
    // Drawn anew each time: by default it would follow from the key, and a renewed certificate would have it twice.
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).expect("the operating system gives random bytes");
    // A serial number is positive and has no leading zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(text.try_into().map_err(make)?))
}

fn dns(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::DnsName(text.try_into().map_err(make)?))
}

fn make(error: rcgen::Error) -> IssueError {
    IssueError::Make { reason: error.to_string() }
}
