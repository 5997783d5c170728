//! The door for agents: members are served, newcomers may join.

use std::sync::{Arc, Weak};

use anyhow::Context as _;
use dunlin_model::{Digest, Name};
use dunlin_protocol::{APPROVAL_PENDING, JoinReply, JoinRequest};
use dunlin_scheduler::{Answer, Command, Rejection};
use dunlin_transport::{
    Authority, CloseCode, Connection, Identity, Incoming, Renewal, Role, Server, hash_secret, key_hash,
    serve_join,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api_tls::ApiTls;
use crate::clock::Clock;
use crate::driver::Refusal;
use crate::session::Desk;

/// How many may be about to join at once: they have proven nothing yet.
const MAX_JOINING: usize = 64;

/// What is needed to let somebody in.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) desk: Desk,
    pub(crate) clock: Clock,
}

/// Returns a new identity of the coordinator's.
pub(crate) fn coordinator_identity(authority: &Authority) -> anyhow::Result<Identity> {
    if authority.has_no_clock() {
        tracing::error!(
            "this machine's clock is not set: it shows a time before the fleet began; certificates are made for that \
             moment, so set the clock and start again"
        );
    }
    let role = Role::Coordinator(Name::try_from("main".to_owned())?);
    Identity::issue(authority, &role, authority.now(), Authority::COORDINATOR_LIFETIME)
        .context("could not make the coordinator's certificate")
}

/// Renews the coordinator's certificate whenever that is due, and with it that of its API, as long as there is the server.
pub(crate) async fn keep_certificates(
    (authority, api): (Arc<Authority>, ApiTls),
    server: Weak<Server>,
    identity: Identity,
) {
    let mut renewal = Renewal::of(&identity);
    loop {
        renewal.due().await;
        let Some(server) = server.upgrade() else { return };
        let renewed = coordinator_identity(&authority).and_then(|identity| {
            server.replace_identity(&identity)?;
            api.renew(&authority)?;
            Ok(identity)
        });
        renewal = match renewed {
            Ok(identity) => {
                tracing::info!("the coordinator's certificates were renewed");
                Renewal::of(&identity)
            }
            Err(error) => {
                let error = &*error as &dyn std::error::Error;
                tracing::error!(error, "the coordinator's certificates were not renewed; will retry");
                Renewal::in_an_hour(&identity)
            }
        };
    }
}

impl Gate {
    /// Lets in who comes, for ever.
    pub(crate) async fn admit_all(self, server: Arc<Server>) {
        let joining = Arc::new(Semaphore::new(MAX_JOINING));
        while let Some(incoming) = server.accept().await {
            match incoming {
                Incoming::Fleet(node, connection) => {
                    tokio::spawn(self.desk.clone().serve(connection, node));
                }
                Incoming::Late(node, connection) => {
                    tokio::spawn(self.desk.clone().serve_late(connection, node));
                }
                Incoming::Join(connection) => match Arc::clone(&joining).try_acquire_owned() {
                    Ok(room) => drop(tokio::spawn(self.clone().let_join(connection, room))),
                    Err(_none) => connection.close(CloseCode::BUSY, "too many join at once; try again"),
                },
            }
        }
    }

    async fn let_join(self, connection: Connection, _room: OwnedSemaphorePermit) {
        let address = connection.remote_address();
        let served = serve_join(&connection, |request| self.decide(request)).await;
        if let Err(error) = served {
            tracing::warn!(%address, error = &error as &dyn std::error::Error, "join failed");
        }
    }

    /// Tells whether a request is worth a certificate, which costs something. The decision itself is the brain's.
    fn may_ask(&self, request: &JoinRequest) -> Result<(), Rejection> {
        let view = self.desk.driver.view();
        let token = view.tokens.get(&request.token_id).ok_or(Rejection::TokenUnknown)?;
        // A member may ask again for an answer that was lost, also after the token's end.
        let is_known = view.nodes.contains_key(&request.node) || view.pending.contains_key(&request.node);
        if token.expires <= self.clock.now() && !is_known {
            return Err(Rejection::TokenExpired);
        }
        Ok(())
    }

    async fn decide(&self, request: JoinRequest) -> JoinReply {
        let (node, token_id) = (request.node.clone(), request.token_id.clone());
        if let Err(rejection) = self.may_ask(&request) {
            tracing::warn!(%node, token = token_id, reason = %rejection, "node may not join");
            return refused(rejection.code(), rejection.to_string());
        }
        // The certificate before the decision: a signing request that is none must not use up the token.
        let role = Role::Node(request.node.clone());
        let Desk { authority, node_lifetime, .. } = &self.desk;
        let issued = authority.issue(&request.signing_request, &role, authority.now(), *node_lifetime);
        let certificate = match issued {
            Ok(certificate) => certificate,
            Err(error) => return refused("signing_request_invalid", error.to_string()),
        };
        // Of the key, not of the request: who asks again with the same key signs another request.
        let key_fingerprint = key_hash(&certificate).expect("a certificate made here is well-formed");
        let command = Command::Join {
            token_id: request.token_id,
            secret_hash: hash_secret(&request.secret),
            node: request.node,
            key_fingerprint,
        };
        match self.desk.driver.submit(command).await {
            Ok(Answer::Pending) => {
                let key = Digest::from_sha256(key_fingerprint);
                tracing::info!(%node, %key, token = token_id, "a machine waits for approval");
                let message = format!(
                    "an operator must approve it: `dunlin node approve {node}`; the SHA-256 of its key is {key}"
                );
                refused(APPROVAL_PENDING, message)
            }
            Ok(_joined) => {
                tracing::info!(%node, token = token_id, "node joined");
                // If the name is taken over, whoever had it may still be connected; it is a stranger now.
                if let Some(connection) = self.desk.fleet.connection(&node) {
                    connection.close(CloseCode::REPLACED, "another machine has this name");
                }
                JoinReply::Joined {
                    cluster: authority.cluster().clone(),
                    certificate: certificate.to_vec(),
                    authority: authority.certificate().to_vec(),
                }
            }
            Err(refusal) => {
                tracing::warn!(%node, token = token_id, reason = %refusal, "node may not join");
                let code = match &refusal {
                    Refusal::Rejected(rejection) => rejection.code(),
                    Refusal::Overloaded => "busy",
                    Refusal::StorageFull => "storage_full",
                    Refusal::Stopping | Refusal::Unknown => "unavailable",
                };
                refused(code, refusal.to_string())
            }
        }
    }
}

fn refused(code: &str, message: String) -> JoinReply {
    JoinReply::Refused { code: code.to_owned(), message }
}
