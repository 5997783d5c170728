//! The body of a request or response: bytes that are there, or bytes that come piece by piece.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::{Context, Result};

/// The body of a request or response.
///
/// It is made of text or bytes by `into()`, of nothing by [`Body::empty`], and of pieces by [`Body::from_fn`]. What
/// has come in can go out again as it is: its bytes are then moved by the host and never seen by the guest.
pub struct Body(pub(crate) Inner);

pub(crate) enum Inner {
    Whole(Bytes),
    Pieces(Box<dyn Pieces>),
    #[cfg(target_family = "wasm")]
    Incoming(crate::wasi::Incoming),
}

/// Gives one piece after the other, and `None` after the last.
pub(crate) trait Pieces {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + '_>>;
}

impl<F: AsyncFnMut() -> Result<Option<Bytes>>> Pieces for F {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>>> + '_>> {
        Box::pin(self())
    }
}

impl Body {
    /// Returns a body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Whole(Bytes::new()))
    }

    /// Returns a body whose pieces the function gives, one at each call, and `None` after the last. It is called when
    /// there is room for the next piece. If it gives an error, the message is broken off.
    ///
    /// ```
    /// use dunlin_guest::{Body, Bytes, test};
    ///
    /// let mut left = 3;
    /// let mut body = Body::from_fn(async move || {
    ///     left -= 1;
    ///     Ok((left >= 0).then(|| Bytes::from(format!("{left}\n"))))
    /// });
    /// assert_eq!(test::block_on(body.text())?, "2\n1\n0\n");
    /// # Ok::<(), dunlin_guest::Error>(())
    /// ```
    #[must_use]
    pub fn from_fn<F: AsyncFnMut() -> Result<Option<Bytes>> + 'static>(next: F) -> Self {
        Self(Inner::Pieces(Box::new(next)))
    }

    /// Returns the next piece as soon as it is there, or `None` if that was all.
    ///
    /// # Errors
    ///
    /// If the other side breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.0 {
            Inner::Whole(bytes) if bytes.is_empty() => Ok(None),
            Inner::Whole(bytes) => Ok(Some(std::mem::take(bytes))),
            Inner::Pieces(pieces) => pieces.next().await,
            #[cfg(target_family = "wasm")]
            Inner::Incoming(incoming) => incoming.next().await,
        }
    }

    /// Waits for all that is left, and returns it.
    ///
    /// # Errors
    ///
    /// If the other side breaks off.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        if let Inner::Whole(bytes) = &mut self.0 {
            return Ok(std::mem::take(bytes));
        }
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    /// Waits for all that is left, and returns it as text.
    ///
    /// # Errors
    ///
    /// If the other side breaks off, or if it is not UTF-8.
    pub async fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes().await?.into()).context("the body is no text")
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Whole(bytes) => write!(f, "Body({bytes:?})"),
            _ => f.write_str("Body(..)"),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Inner::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

/// Copies the text. One that is a part of the program need not be: give `Bytes::from_static`.
impl From<&str> for Body {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Copies the bytes, as of `&str`.
impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}
