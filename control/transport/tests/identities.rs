//! Identities on disk and the way a node joins.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use dunlin_model::NodeId;
use dunlin_protocol::{JoinReply, JoinRequest};
use dunlin_transport::{
    Authority, FileError, Identity, Incoming, IssueError, JoinError, JoinToken, KeyRequest, NodeEndpoint,
    OpenIdentityError, OpenKeyError, Role, Server, WireLimits, WrongIdentity, is_secret, join, key_hash,
    serve_join,
};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

fn authority(cluster: &str) -> Authority {
    Authority::create(&cluster.parse().unwrap(), SystemTime::now()).unwrap()
}

fn coordinator(authority: &Authority) -> Server {
    let role = Role::Coordinator("main".parse().unwrap());
    let identity = Identity::issue(authority, &role, SystemTime::now(), DAY).unwrap();
    Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap()
}

fn node_1() -> NodeId {
    "node-1".parse().unwrap()
}

fn key() -> KeyRequest {
    KeyRequest::create().unwrap()
}

/// Answers one request as a coordinator would that knows one token.
async fn serve_one(server: &Server, authority: &Authority, hash: [u8; 32]) {
    let Some(Incoming::Join(connection)) = soon(server.accept()).await else { panic!("nobody joins") };
    let decide = |request: JoinRequest| async move {
        if !is_secret(&request.secret, &hash) {
            return JoinReply::Refused { code: "token_unknown".into(), message: "no such token".into() };
        }
        let role = Role::Node(request.node);
        let certificate = authority
            .issue(&request.signing_request, &role, SystemTime::now(), Authority::NODE_LIFETIME)
            .unwrap();
        JoinReply::Joined {
            cluster: authority.cluster().clone(),
            certificate: certificate.to_vec(),
            authority: authority.certificate().to_vec(),
        }
    };
    soon(serve_join(&connection, decide)).await.unwrap();
}

#[tokio::test]
async fn who_joins_gets_an_identity_that_connects() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let token: JoinToken = JoinToken::create(authority.key_hash()).to_string().parse().unwrap();
    let node = node_1();
    let (identity, ()) = tokio::join!(
        soon(join(server.local_address(), &token, &node, key())),
        serve_one(&server, &authority, token.secret_hash()),
    );
    let identity = identity.unwrap();
    assert_eq!(identity.member().to_string(), "node node-1 of fleet c4");

    let folder = tempfile::tempdir().unwrap();
    identity.save(folder.path()).unwrap();
    let identity = Identity::load(folder.path()).unwrap();
    let node = NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap();
    soon(node.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(name, _)) = soon(server.accept()).await else { panic!("no node came") };
    assert_eq!(name, node_1());
}

#[test]
fn the_key_of_a_join_outlives_the_process_until_there_is_an_identity() {
    let authority = authority("c4");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KeyRequest::FILE);
    let issue = |request: &KeyRequest| {
        let role = Role::Node(node_1());
        authority.issue(request.signing_request(), &role, SystemTime::now(), DAY).unwrap()
    };
    let first = issue(&KeyRequest::load_or_create(folder.path()).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let again = KeyRequest::load_or_create(folder.path()).unwrap();
    let second = issue(&again);
    assert_ne!(first, second);
    assert_eq!(key_hash(&first).unwrap(), key_hash(&second).unwrap());

    again.into_identity(second, authority.certificate().clone()).unwrap().save(folder.path()).unwrap();
    assert!(!path.exists());
    assert!(Identity::is_in(folder.path()));
    assert_ne!(key_hash(&first), key_hash(&issue(&KeyRequest::load_or_create(folder.path()).unwrap())));

    std::fs::write(&path, "nothing\n-----\n").unwrap();
    let error = KeyRequest::load_or_create(folder.path()).unwrap_err();
    assert!(matches!(error, OpenKeyError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_reaches_who_wanted_to_join() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let token = JoinToken::create(authority.key_hash());
    let another = JoinToken::create(authority.key_hash());
    let node = node_1();
    let (result, ()) = tokio::join!(
        soon(join(server.local_address(), &token, &node, key())),
        serve_one(&server, &authority, another.secret_hash()),
    );
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "the coordinator refused (token_unknown): no such token");
}

#[tokio::test]
async fn the_secret_is_not_sent_to_another_authority() {
    let (ours, theirs) = (authority("c4"), authority("c4"));
    let server = coordinator(&theirs);
    let token = JoinToken::create(ours.key_hash());
    let node = node_1();
    let error = soon(join(server.local_address(), &token, &node, key())).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongAuthority { .. }), "{error:?}");
    // The refused handshake never became a connection: the next one that comes is a good one.
    let good = JoinToken::create(theirs.key_hash());
    let (identity, ()) = tokio::join!(
        soon(join(server.local_address(), &good, &node, key())),
        serve_one(&server, &theirs, good.secret_hash()),
    );
    identity.unwrap();
}

#[tokio::test]
async fn the_authority_beside_anothers_certificate_does_not_convince() {
    // Anyone can send the certificate of the right authority; it must have given the server's as well.
    let (ours, theirs) = (authority("c4"), authority("c4"));
    let folder = tempfile::tempdir().unwrap();
    let role = Role::Coordinator("main".parse().unwrap());
    Identity::issue(&theirs, &role, SystemTime::now(), DAY).unwrap().save(folder.path()).unwrap();
    let path = folder.path().join(Identity::FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let (text, _sum) = text.split_once("# SHA-256 ").unwrap();
    std::fs::write(&path, text.replace(&theirs.certificate_pem(), &ours.certificate_pem())).unwrap();
    let forged = Identity::load(folder.path()).unwrap();
    let server = Server::bind(LOOPBACK, &forged, &WireLimits::FLEET).unwrap();
    let token = JoinToken::create(ours.key_hash());
    let error = soon(join(server.local_address(), &token, &node_1(), key())).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongAuthority { .. }), "{error:?}");
}

#[tokio::test]
async fn a_node_cannot_take_the_secrets_of_those_who_join() {
    let authority = authority("c4");
    let role = Role::Node("node-2".parse().unwrap());
    let identity = Identity::issue(&authority, &role, SystemTime::now(), DAY).unwrap();
    let impostor = Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap();
    let token = JoinToken::create(authority.key_hash());
    let error = soon(join(impostor.local_address(), &token, &node_1(), key())).await.unwrap_err();
    assert!(matches!(error, JoinError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn a_certificate_for_another_key_or_name_is_not_taken() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let token = JoinToken::create(authority.key_hash());
    let node = node_1();
    for other_key in [true, false] {
        let serve = async {
            let Some(Incoming::Join(connection)) = soon(server.accept()).await else {
                panic!("nobody joins")
            };
            let decide = |request: JoinRequest| async {
                let (signing_request, name) = if other_key {
                    (KeyRequest::create().unwrap().signing_request().to_vec(), "node-1")
                } else {
                    (request.signing_request, "node-9")
                };
                let role = Role::Node(name.parse().unwrap());
                let certificate = authority.issue(&signing_request, &role, SystemTime::now(), DAY).unwrap();
                JoinReply::Joined {
                    cluster: authority.cluster().clone(),
                    certificate: certificate.to_vec(),
                    authority: authority.certificate().to_vec(),
                }
            };
            soon(serve_join(&connection, decide)).await.unwrap();
        };
        let (result, ()) = tokio::join!(soon(join(server.local_address(), &token, &node, key())), serve);
        let error = result.unwrap_err();
        if other_key {
            assert!(matches!(error, JoinError::Certificate(WrongIdentity::OtherKey)), "{error:?}");
        } else {
            assert!(matches!(error, JoinError::OtherMember { .. }), "{error:?}");
        }
    }
}

#[test]
fn files_with_keys_are_for_their_owner_alone() {
    let authority = authority("c4");
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::issue(&authority, &Role::Node(node_1()), SystemTime::now(), DAY).unwrap();
    // Twice: the second replaces the first.
    for _ in 0..2 {
        authority.save(folder.path()).unwrap();
        identity.save(folder.path()).unwrap();
    }
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for path in &names {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let path = folder.path().join(Identity::FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load(folder.path()).unwrap_err();
    assert!(matches!(error, OpenIdentityError::File(FileError::Exposed { .. })), "{error:?}");
}

#[test]
fn what_was_saved_is_loaded() {
    let authority = authority("c4");
    let folder = tempfile::tempdir().unwrap();
    assert!(!Identity::is_in(folder.path()));
    authority.save(folder.path()).unwrap();
    let loaded = Authority::load(folder.path()).unwrap();
    assert_eq!(loaded.cluster(), authority.cluster());
    assert_eq!(loaded.key_hash(), authority.key_hash());
    // What a loaded authority gives holds under the first one's certificate.
    let request = KeyRequest::create().unwrap();
    let role = Role::Node(node_1());
    let certificate = loaded.issue(request.signing_request(), &role, SystemTime::now(), DAY).unwrap();
    let identity = request.into_identity(certificate, authority.certificate().clone()).unwrap();
    identity.save(folder.path()).unwrap();
    let again = Identity::load(folder.path()).unwrap();
    assert!(Identity::is_in(folder.path()));
    assert_eq!(again.member(), identity.member());
    assert_eq!(again.not_after(), identity.not_after());
    assert!(again.renew_at() < again.not_after());
}

#[test]
fn a_damaged_file_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::issue(&authority("c4"), &Role::Node(node_1()), SystemTime::now(), DAY).unwrap();
    identity.save(folder.path()).unwrap();
    let path = folder.path().join(Identity::FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    // Without its last line it is as an earlier build has written it.
    let whole = text.find("# SHA-256 ").unwrap();
    for cut in (0..text.len() - 1).filter(|cut| *cut != whole) {
        std::fs::write(&path, &text[..cut]).unwrap();
        assert!(Identity::load(folder.path()).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_signing_request_is_checked() {
    let authority = authority("c4");
    let role = Role::Node(node_1());
    let request = KeyRequest::create().unwrap();
    let good = request.signing_request();
    let issue = |bytes: &[u8]| authority.issue(bytes, &role, SystemTime::now(), DAY);
    assert!(issue(good).is_ok());
    for cut in 0..good.len() {
        assert!(matches!(issue(&good[..cut]), Err(IssueError::SigningRequest { .. })), "cut at {cut}");
    }
    let mut forged = good.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(issue(&forged), Err(IssueError::SigningRequest { .. })));
    assert!(issue(&vec![0x30; 100_000]).is_err());
}

#[test]
fn the_api_gets_a_certificate_for_its_names_only() {
    let authority = authority("c4");
    let names = ["127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
    let certificate = authority.issue_api(&names, SystemTime::now()).unwrap();
    assert_eq!(certificate.chain.len(), 2);
    certificate.server_config().unwrap();
    // It is no member of the fleet.
    assert!(dunlin_transport::Member::of_certificate(&certificate.chain[0]).is_err());
    let wrong = ["not a name".to_owned()];
    assert!(matches!(authority.issue_api(&wrong, SystemTime::now()), Err(IssueError::Name { .. })));
}

#[test]
fn debug_shows_no_secret() {
    let authority = authority("c4");
    let role = Role::Node(node_1());
    let identity = Identity::issue(&authority, &role, SystemTime::now(), DAY).unwrap();
    let shown = format!("{identity:?}");
    assert!(shown.contains("node-1") && shown.len() < 300, "{shown}");
    assert_eq!(format!("{authority:?}"), "Authority { cluster: ClusterId(Name(\"c4\")), .. }");
    assert_eq!(format!("{:?}", KeyRequest::create().unwrap()), "KeyRequest { .. }");
}
