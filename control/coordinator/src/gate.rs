//! The door for agents: members are served, newcomers may join.

use std::sync::Arc;
use std::time::SystemTime;

use dunlin_protocol::{JoinReply, JoinRequest};
use dunlin_scheduler::Command;
use dunlin_transport::{Authority, Connection, Incoming, Role, Server, hash_secret, serve_join};
use sha2::{Digest as _, Sha256};

use crate::driver::Refusal;
use crate::session::Desk;

/// What is needed to let somebody in.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) authority: Arc<Authority>,
    pub(crate) desk: Desk,
}

impl Gate {
    /// Lets in who comes, for ever.
    pub(crate) async fn admit_all(self, server: Server) {
        while let Some(incoming) = server.accept().await {
            match incoming {
                Incoming::Fleet(node, connection) => {
                    tokio::spawn(self.desk.clone().serve(connection, node));
                }
                Incoming::Join(connection) => {
                    tokio::spawn(self.clone().let_join(connection));
                }
            }
        }
    }

    async fn let_join(self, connection: Connection) {
        let address = connection.remote_address();
        let served = serve_join(&connection, |request| self.decide(request)).await;
        if let Err(error) = served {
            tracing::warn!(%address, error = &error as &dyn std::error::Error, "join failed");
        }
    }

    async fn decide(&self, request: JoinRequest) -> JoinReply {
        let (node, token_id) = (request.node.clone(), request.token_id.clone());
        // The certificate first: a signing request that is none must not use up the token.
        let role = Role::Node(request.node.clone());
        let issued = self.authority.issue(
            &request.signing_request,
            &role,
            SystemTime::now(),
            Authority::NODE_LIFETIME,
        );
        let certificate = match issued {
            Ok(certificate) => certificate,
            Err(error) => return refused("signing_request_invalid", error.to_string()),
        };
        let command = Command::Join {
            token_id: request.token_id,
            secret_hash: hash_secret(&request.secret),
            node: request.node,
            key_fingerprint: Sha256::digest(&request.signing_request).into(),
        };
        match self.desk.driver.submit(command).await {
            Ok(_joined) => {
                tracing::info!(%node, token = token_id, "node joined");
                JoinReply::Joined {
                    cluster: self.authority.cluster().clone(),
                    certificate: certificate.to_vec(),
                    authority: self.authority.certificate().to_vec(),
                }
            }
            Err(refusal) => {
                tracing::warn!(%node, token = token_id, reason = %refusal, "node may not join");
                let code = match &refusal {
                    Refusal::Rejected(rejection) => rejection.code(),
                    Refusal::Overloaded => "busy",
                    Refusal::StorageFull => "storage_full",
                    Refusal::Stopping => "unavailable",
                };
                refused(code, refusal.to_string())
            }
        }
    }
}

fn refused(code: &str, message: String) -> JoinReply {
    JoinReply::Refused { code: code.to_owned(), message }
}
