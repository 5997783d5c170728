//! The smallest HTTP client: one request, one connection, whole answer. Enough to see what a fleet answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// How long one answer may take.
const TIME: Duration = Duration::from_secs(20);

/// What came back.
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body as it was sent; if that was in chunks, with their lengths in between.
    pub(crate) body: String,
}

/// Sends one request and returns the whole answer.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIME).context("could not connect")?;
    stream.set_read_timeout(Some(TIME))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("no whole answer came")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status =
        head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("the answer has no status")?;
    Ok(Answer { status, body: body.to_owned() })
}
