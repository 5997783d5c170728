//! Outbound HTTP: every request is refused, since no capability grants it yet.
//!
//! The guest hears `HTTP-request-denied`, which its libraries know, rather than a missing import.

use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::limits::MAX_WRITE;

pub(crate) struct OutboundHttp;

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for OutboundHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async move {
            // A guest that is still writing the body would see a broken stream instead of the refusal.
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Err(Error::HttpRequestDenied)
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE
    }
}
