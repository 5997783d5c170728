//! `#[service]`: the export of `wasi:http/incoming-handler` beside a function.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Result};

use crate::signature::function;

const EXAMPLE: &str = "async fn answer(request: Request) -> Result<Response>";

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`service` takes no arguments"));
    }
    let function = function(item, EXAMPLE)?;
    if function.sig.asyncness.is_none() {
        return Err(Error::new_spanned(function.sig.fn_token, format!("a service is async: `{EXAMPLE}`")));
    }
    let name = &function.sig.ident;
    Ok(quote! {
        #function

        #[cfg(target_family = "wasm")]
        const _: () = {
            use ::dunlin_guest::__private::wasip2;

            struct Service;

            impl wasip2::exports::http::incoming_handler::Guest for Service {
                fn handle(
                    request: wasip2::http::types::IncomingRequest,
                    response: wasip2::http::types::ResponseOutparam,
                ) {
                    ::dunlin_guest::__private::serve(request, response, #name);
                }
            }

            wasip2::http::proxy::export!(Service with_types_in wasip2);
        };

        // The compiler wants a `main` of what has a src/main.rs; the host calls the handler above.
        #[allow(dead_code, reason = "a library has no use for it")]
        fn main() -> ::std::process::ExitCode {
            // Names the function, which nothing else does where this is not compiled to wasm.
            let _ = #name;
            ::dunlin_guest::__private::not_a_program()
        }
    })
}
