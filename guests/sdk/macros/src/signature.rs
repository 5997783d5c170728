//! What is asked of the function below an attribute, so that mistakes are told in its words and not in those of what
//! was written beside it.

use proc_macro2::TokenStream;
use syn::{Error, FnArg, ItemFn, Result};

/// Returns the function, if it can be what `example` shows.
pub(crate) fn function(item: TokenStream, example: &str) -> Result<ItemFn> {
    let function: ItemFn = syn::parse2(item)?;
    let signature = &function.sig;
    if signature.ident == "main" {
        return Err(Error::new_spanned(
            &signature.ident,
            format!(
                "`main` is what this attribute writes itself; name the function otherwise, as in `{example}`"
            ),
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "the function cannot be generic: nobody names its types",
        ));
    }
    let takes_one = signature.inputs.len() == 1 && !matches!(signature.inputs[0], FnArg::Receiver(_));
    if !takes_one {
        return Err(Error::new_spanned(signature, format!("the function takes one argument: `{example}`")));
    }
    Ok(function)
}
