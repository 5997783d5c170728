//! HTTP/1.1 by hand: what is sent is what stands there, and how an answer ends is seen.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any deadline of a hostile guest.
const PATIENCE: Duration = Duration::from_secs(20);

/// All that came back on one connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// Whether it came to its end by itself, not by an error or for want of patience.
    pub(crate) is_over: bool,
}

impl Answer {
    /// Returns the status, if there is one.
    pub(crate) fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.bytes.get(9..12)?).ok()?.parse().ok()
    }

    /// Returns the body, as text.
    pub(crate) fn body(&self) -> String {
        let head = self.bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        String::from_utf8_lossy(&self.bytes[head..]).into_owned()
    }

    fn head(&self) -> String {
        let head = self.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
        String::from_utf8_lossy(&self.bytes[..head]).to_ascii_lowercase()
    }

    /// Returns the code of a problem.
    pub(crate) fn code(&self) -> Option<String> {
        let body = self.body();
        let (_, rest) = body.split_once("\"code\":\"")?;
        rest.split('"').next().map(str::to_owned)
    }

    /// Tells whether the whole body is there, by what the head says of its end.
    pub(crate) fn is_whole(&self) -> bool {
        let (head, body) = (self.head(), self.body());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        match length.map(|length| length.trim().parse::<usize>()) {
            Some(Ok(length)) => body.len() == length,
            Some(Err(_)) => false,
            None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
            None => self.is_over,
        }
    }
}

/// Sends `bytes` and returns all that comes back until the other side closes, or `most` bytes are there.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8], most: usize) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // The other side may refuse and close before it has read everything.
    let _closed = stream.write_all(bytes).await;
    let mut answer = Answer { bytes: Vec::new(), is_over: false };
    let mut piece = vec![0; 64 << 10];
    let reading = async {
        while answer.bytes.len() < most {
            match stream.read(&mut piece).await {
                Ok(0) => {
                    answer.is_over = true;
                    break;
                }
                Ok(length) => answer.bytes.extend_from_slice(&piece[..length]),
                Err(_) => break,
            }
        }
    };
    let _impatient = tokio::time::timeout(PATIENCE, reading).await;
    Ok(answer)
}

/// Asks for a path of the hostile service.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: hostile.test\r\nConnection: close\r\n\r\n");
    send(address, request.as_bytes(), 8 << 20).await
}
