//! `#[job]`: a `main` that calls a function with the item that the process was started for.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{Error, Path, Result};

use crate::signature::function;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let combine = combine(arguments)?;
    let function = function(item, "fn work(item: Item) -> Result<String>")?;
    let name = &function.sig.ident;
    let work = match function.sig.asyncness {
        Some(_) => quote!(|item| ::dunlin_guest::block_on(#name(item))),
        None => quote!(#name),
    };
    let call = match combine {
        Some(combine) => quote!(::dunlin_guest::__private::run_job_with_combine(#work, #combine)),
        None => quote!(::dunlin_guest::__private::run_job(#work)),
    };
    Ok(quote! {
        #function

        #[allow(dead_code, reason = "a library has no use for it")]
        fn main() -> ::std::process::ExitCode {
            #call
        }
    })
}

/// Returns the path in `combine = path`.
fn combine(arguments: TokenStream) -> Result<Option<Path>> {
    let mut path = None;
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("combine") {
            return Err(meta.error("`job` takes one argument: `combine = name_of_a_function`"));
        }
        if path.replace(meta.value()?.parse()?).is_some() {
            return Err(Error::new_spanned(meta.path, "`combine` is named twice"));
        }
        Ok(())
    });
    parser.parse2(arguments)?;
    Ok(path)
}
