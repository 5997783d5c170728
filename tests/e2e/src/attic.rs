//! A service on a node that others do not reach, and a request to it that takes as long as the test wants.

use std::net::SocketAddr;

use anyhow::Context as _;
use dunlin_guest_artifacts::SAY_HTTP;
use dunlin_harness::{App, PATIENCE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Returns an app with a service `web` at `path` that prints what is posted to it, on a node with the label `place=attic`.
pub fn in_the_attic(app: &str, path: &str, component: Option<&[u8]>) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "{app}"

        [service.web]
        component = "say.wasm"
        routes = [{{ path = "{path}" }}]
        limits = {{ memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "60s", concurrency = 40 }}
        placement = {{ require = ["place = attic"] }}
        "#
    );
    App::new(&manifest, &[("say.wasm", component.unwrap_or(SAY_HTTP))])
}

/// A request of which a half was sent.
pub struct HalfAsked(TcpStream);

impl HalfAsked {
    /// Sends the first half of a request to the service at `/`.
    pub async fn begin(ingress: SocketAddr) -> anyhow::Result<Self> {
        let mut client = TcpStream::connect(ingress).await?;
        let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n12345";
        client.write_all(head.as_bytes()).await?;
        Ok(Self(client))
    }

    /// Sends the other half.
    pub async fn go_on(&mut self) -> anyhow::Result<()> {
        Ok(self.0.write_all(b"67890").await?)
    }

    /// Waits for the answer, which must be that of the service.
    pub async fn answered(mut self) -> anyhow::Result<()> {
        let mut answer = String::new();
        let reading = timeout(PATIENCE, self.0.read_to_string(&mut answer)).await;
        reading.context("there is no answer in time")??;
        let is_right = answer.starts_with("HTTP/1.1 200") && answer.ends_with("said\n");
        anyhow::ensure!(is_right, "it was answered {answer:?}");
        Ok(())
    }
}
