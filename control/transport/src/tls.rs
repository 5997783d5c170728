//! TLS: who is believed, on both sides.
//!
//! webpki checks the chain, the times and the use of the key; what is added is that the certificate's member is the
//! one that is wanted. Everything runs inside the handshake, so an unwanted side never becomes a connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dunlin_model::ClusterId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::authority::key_hash;
use crate::identity::validity;
use crate::refusal::Finding;
use crate::wall_clock::WallClock;
use crate::{ApiCertificate, Identity, Member, PeerRefusal, Role};

/// Whom a dialing side wants to meet.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// Any coordinator of the fleet whose authority has this certificate.
    Coordinator { authority: CertificateDer<'static>, cluster: ClusterId },
    /// Exactly this member.
    Member { authority: CertificateDer<'static>, member: Member },
    /// Any coordinator whose chain ends in an authority with this key.
    CoordinatorOf { key_hash: [u8; 32] },
}

/// The part of a verifier that is about signatures: of TLS 1.3 alone, by the algorithms of its `provider`.
macro_rules! signatures_of_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(Arc::new(roots))
}

/// Returns whom a server's certificate names, if `authority` gave it for this time.
pub(crate) fn verify_leaf(
    leaf: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<Member, PeerRefusal> {
    let member = Member::of_certificate(leaf)?;
    let name = ServerName::try_from(member.dns_name())
        .map_err(|error| PeerRefusal::Invalid { reason: error.to_string() })?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority)?, provider())
        .build()
        .map_err(|error| PeerRefusal::Invalid { reason: error.to_string() })?;
    // Without intermediates: a fleet has none, and the authority itself is the root.
    verifier.verify_server_cert(leaf, &[], &name, &[], now)?;
    Ok(member)
}

/// Returns how to dial `wanted`, and where to find why it was refused.
pub(crate) fn client(
    wanted: Wanted,
    identity: Option<&Identity>,
    alpn: &[u8],
) -> Result<(QuicClientConfig, Finding), rustls::Error> {
    let finding = Finding::default();
    let clock = identity.map_or_else(WallClock::of_a_stranger, WallClock::of);
    let verifier = ServerVerifier { wanted, clock, finding: finding.clone(), provider: provider() };
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain(), PrivateKeyDer::Pkcs8(identity.key()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would be one whose certificate nobody has looked at.
    config.resumption = rustls::client::Resumption::disabled();
    let config =
        QuicClientConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok((config, finding))
}

/// Returns how to be dialed by the nodes of the fleet, and by others only if `anonymous`.
pub(crate) fn server(
    identity: &Identity,
    alpns: &[&[u8]],
    anonymous: Anonymous,
    late: Late,
) -> Result<QuicServerConfig, rustls::Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(identity.authority())?, provider());
    let inner = match anonymous {
        Anonymous::Refused => builder,
        Anonymous::Accepted => builder.allow_unauthenticated(),
    };
    let inner = inner.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    let clock = WallClock::of(identity);
    let verifier = NodeVerifier { inner, cluster: identity.cluster().clone(), clock, late };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain(), PrivateKeyDer::Pkcs8(identity.key()))?;
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))
}

/// Returns how to open TLS around packets of QUIC, which prove everything themselves.
pub(crate) fn tunnel_client(identity: Option<&Identity>) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Anyone::new());
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain(), PrivateKeyDer::Pkcs8(identity.key()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Returns how TLS around packets of QUIC is answered.
pub(crate) fn tunnel_server(identity: &Identity) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Anyone::new())
        .with_single_cert(identity.chain(), PrivateKeyDer::Pkcs8(identity.key()))?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Believes that whoever is on the other side has the key of what he shows, and asks no more: who that is shows in the QUIC
/// that is spoken through it.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl Anyone {
    fn new() -> Arc<Self> {
        Arc::new(Self { provider: provider() })
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}

impl ClientCertVerifier for Anyone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_of_tls13!();
}

/// What becomes of who dials without a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anonymous {
    Accepted,
    Refused,
}

/// What becomes of who shows a certificate that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Believed for [`LATE`] to be whom it names, by one who lets it ask for a new one and do nothing else.
    Accepted,
    Refused,
}

/// For how long after its end a certificate still tells who asks for a new one.
pub(crate) const LATE: Duration = Duration::from_secs(90 * 86_400);

/// Returns the configuration of the HTTPS API's server.
pub(crate) fn api_server(certificate: &ApiCertificate) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificate.chain.clone(), PrivateKeyDer::Pkcs8(certificate.key.clone_key()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Believes exactly the wanted server.
#[derive(Debug)]
struct ServerVerifier {
    wanted: Wanted,
    clock: WallClock,
    finding: Finding,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerRefusal> {
        let authority = match &self.wanted {
            Wanted::Coordinator { authority, .. } | Wanted::Member { authority, .. } => authority,
            Wanted::CoordinatorOf { key_hash: wanted } => intermediates
                .iter()
                .find(|certificate| key_hash(certificate).as_ref() == Some(wanted))
                .ok_or(PeerRefusal::OtherAuthority)?,
        };
        let found = verify_leaf(leaf, authority, now)?;
        let is_coordinator = matches!(found.role, Role::Coordinator(_));
        let (is_wanted, wanted) = match &self.wanted {
            Wanted::Coordinator { cluster, .. } => {
                (is_coordinator && found.cluster == *cluster, format!("a coordinator of fleet {cluster}"))
            }
            Wanted::Member { member, .. } => (found == *member, member.to_string()),
            Wanted::CoordinatorOf { .. } => (is_coordinator, "a coordinator".to_owned()),
        };
        if is_wanted { Ok(()) } else { Err(PeerRefusal::OtherMember { found, wanted }) }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name that TLS sends is not compared: `verify_leaf` checks the one that belongs to the member.
        match self.verify(leaf, intermediates, self.clock.judging(leaf, now)) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => {
                let error = refusal.to_tls();
                self.finding.put(refusal);
                Err(error)
            }
        }
    }

    signatures_of_tls13!();
}

/// Believes the nodes of one fleet.
#[derive(Debug)]
struct NodeVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    clock: WallClock,
    late: Late,
}

impl NodeVerifier {
    /// Returns the last moment of a certificate, if it may still be believed though it has ended.
    fn last_moment(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
        error: &rustls::Error,
    ) -> Option<UnixTime> {
        let has_ended = PeerRefusal::from(error.clone()) == PeerRefusal::Expired;
        let (_, end) = validity(leaf)?;
        let end = end.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let is_late = self.late == Late::Accepted && has_ended;
        (is_late && now.as_secs() <= (end + LATE).as_secs()).then(|| UnixTime::since_unix_epoch(end))
    }
}

impl ClientCertVerifier for NodeVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let now = self.clock.judging(leaf, now);
        let verified = self.inner.verify_client_cert(leaf, intermediates, now).or_else(|error| {
            let moment = self.last_moment(leaf, now, &error).ok_or(error)?;
            self.inner.verify_client_cert(leaf, intermediates, moment)
        })?;
        let found = Member::of_certificate(leaf).map_err(|error| PeerRefusal::from(error).to_tls())?;
        if matches!(found.role, Role::Node(_)) && found.cluster == self.cluster {
            return Ok(verified);
        }
        let wanted = format!("a node of fleet {}", self.cluster);
        Err(PeerRefusal::OtherMember { found, wanted }.to_tls())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
