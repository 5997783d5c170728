//! The attributes `service` and `job`, by which a function becomes a guest.
//!
//! The function stays as it is, so that a test can call it; beside it stands what the host calls. Nothing is decided
//! here that could be decided in `dunlin-guest`: what is written down calls functions there.
#![forbid(unsafe_code)]

mod job;
mod service;
mod signature;

use proc_macro::TokenStream;

/// Makes a service of an `async fn(Request) -> Result<Response>`.
///
/// Compiled to wasm, it answers each request (`wasi:http/incoming-handler`); elsewhere it is a function like any other.
/// Of an error the client hears 500 and nothing more; the log has all of it.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a job of a `fn(Item) -> Result<impl Output>`, which may be `async`.
///
/// With `combine = total` the function `total`, a `fn(Outputs) -> Result<impl Output>`, is called after the last item,
/// as `combine = true` in the manifest asks for it.
#[proc_macro_attribute]
pub fn job(arguments: TokenStream, item: TokenStream) -> TokenStream {
    job::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

#[cfg(test)]
mod tests;
