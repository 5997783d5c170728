//! This node's certificate: renewed from half of its life on, and also when it has ended.
//!
//! The key stays the same: by it the fleet knows the machine. What is new is saved before it is shown, so that a node
//! that is started again shows what it had last.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use dunlin_planted::{Point, fails};
use dunlin_protocol::{StreamReply, StreamRequest};
use dunlin_transport::{Connection, NodeEndpoint, Renewal};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// The most bytes of a certificate.
const MAX_CERTIFICATE: u64 = 16 << 10;
/// How long the coordinator may take for one.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Keeps this node's certificate good.
pub(crate) struct Certificate {
    endpoint: Arc<NodeEndpoint>,
    /// The folder in which the identity is.
    folder: PathBuf,
}

impl Certificate {
    pub(crate) fn new(endpoint: Arc<NodeEndpoint>, folder: PathBuf) -> Self {
        Self { endpoint, folder }
    }

    /// Tells whether it has ended, or will so soon that the coordinator's clock may say it has; or whether that cannot be
    /// known here, as this machine's clock is not set. With a new one it is known how late it is.
    pub(crate) fn ends_now(&self) -> bool {
        let identity = self.endpoint.identity();
        if identity.has_no_clock() {
            return true;
        }
        let (end, half) = (identity.not_after(), identity.renew_at());
        let last = end.duration_since(half).unwrap_or_default() / 5;
        SystemTime::now() + last >= end
    }

    /// Renews it whenever that is due, for ever.
    pub(crate) async fn keep(&self, connection: &Connection) {
        let mut renewal = Renewal::of(&self.endpoint.identity());
        loop {
            renewal.due().await;
            renewal = match self.renew(connection).await {
                Ok(()) => Renewal::of(&self.endpoint.identity()),
                Err(error) => {
                    let error = error.as_ref() as &dyn std::error::Error;
                    tracing::warn!(error, "this node's certificate was not renewed; will retry");
                    Renewal::again(&self.endpoint.identity())
                }
            };
        }
    }

    /// Asks the coordinator for a new one, and shows that from now on.
    pub(crate) async fn renew(&self, connection: &Connection) -> anyhow::Result<()> {
        let identity = self.endpoint.identity();
        let request = identity.renewal()?;
        let answer = timeout(ANSWER_TIME, ask(connection, request.signing_request().to_vec()));
        let certificate = answer.await.context("the coordinator did not answer within 10s")??;
        let renewed = identity.renewed(request, certificate)?;
        fails(Point::CertBeforeSwap)?;
        let (folder, saved) = (self.folder.clone(), renewed.clone());
        tokio::task::spawn_blocking(move || saved.save(&folder)).await??;
        fails(Point::CertAfterSwap)?;
        self.endpoint.replace_identity(&renewed)?;
        tracing::info!("this node's certificate was renewed");
        Ok(())
    }
}

async fn ask(connection: &Connection, signing_request: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut stream = connection.open(&StreamRequest::Renew { signing_request }).await?;
    stream.finish();
    match stream.receive_message::<StreamReply>().await?.context("the coordinator ended the stream")? {
        StreamReply::Ok { .. } => {}
        StreamReply::Error { message } => anyhow::bail!(message),
    }
    let mut certificate = Vec::new();
    stream.receive.take(MAX_CERTIFICATE).read_to_end(&mut certificate).await?;
    Ok(certificate)
}
