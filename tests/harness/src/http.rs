//! Plain HTTP to the ingresses of a fleet.

use std::sync::OnceLock;

/// Returns the client with which tests ask services. It speaks plain HTTP; the API has a client of its own.
///
/// # Panics
///
/// If it cannot be made, for instance for want of file descriptors.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // The client wants to know who would do TLS, though nothing here asks it to.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        // Each test has a runtime of its own, which takes its connections with it: none is kept for the next.
        let builder = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy();
        builder.build().expect("a plain client can be made")
    })
}
