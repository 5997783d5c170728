//! An answer that is a file: bytes as they come, with the length that was announced.

use std::fmt;

use bytes::Bytes;

use super::ClientError;

/// The bytes of a file, piece by piece.
pub struct Download {
    response: reqwest::Response,
    url: String,
}

impl Download {
    pub(super) fn new(response: reqwest::Response, url: String) -> Self {
        Self { response, url }
    }

    /// Returns the next bytes; nothing at the end. A file that ends before its announced length is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| ClientError::Unreachable {
            url: self.url.clone(),
            source: Box::new(error.without_url()),
        })
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}
