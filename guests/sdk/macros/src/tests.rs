//! What is said of a function that cannot be a service or a job.

use proc_macro2::TokenStream;
use quote::quote;

use crate::{job, service};

fn refused(expanded: syn::Result<TokenStream>) -> String {
    expanded.unwrap_err().to_string()
}

#[test]
fn a_service_is_async_and_takes_a_request() {
    assert_eq!(
        refused(service::expand(
            quote!(),
            quote!(
                fn greet(request: Request) -> Result<Response> {}
            )
        )),
        "a service is async: `async fn answer(request: Request) -> Result<Response>`"
    );
    assert_eq!(
        refused(service::expand(
            quote!(),
            quote!(
                async fn greet() -> Result<Response> {}
            )
        )),
        "the function takes one argument: `async fn answer(request: Request) -> Result<Response>`"
    );
}

#[test]
fn the_name_main_is_taken() {
    let text = refused(job::expand(
        quote!(),
        quote!(
            fn main(item: Item) -> Result<()> {}
        ),
    ));
    assert!(text.starts_with("`main` is what this attribute writes itself"), "{text}");
}

#[test]
fn a_job_has_one_argument_that_may_stand_there_once() {
    let function = quote!(
        fn work(item: Item) -> Result<()> {}
    );
    assert_eq!(
        refused(job::expand(quote!(reduce = total), function.clone())),
        "`job` takes one argument: `combine = name_of_a_function`"
    );
    assert_eq!(
        refused(job::expand(quote!(combine = a, combine = b), function.clone())),
        "`combine` is named twice"
    );
    assert!(job::expand(quote!(combine = totals::add), function).is_ok());
}

#[test]
fn the_function_itself_is_left_as_it_is() {
    let function = quote!(
        async fn greet(request: Request) -> Result<Response> {
            answer(request)
        }
    );
    let expanded = service::expand(quote!(), function.clone()).unwrap().to_string();
    assert!(expanded.starts_with(&function.to_string()), "{expanded}");
}
