//! Runs one fuzz target for as long as one likes: `cargo run --release -p dunlin-fuzz -- TARGET --minutes 20`.
//!
//! Built with the feature `guided`, this is a program of libFuzzer instead, with its arguments, and the target is the
//! one that the variable `DUNLIN_FUZZ_TARGET` names.

#![cfg_attr(feature = "guided", no_main)]

#[cfg(feature = "guided")]
mod guided {
    use std::sync::OnceLock;

    use dunlin_fuzz::{Target, target};

    fn chosen() -> &'static Target {
        static CHOSEN: OnceLock<&Target> = OnceLock::new();
        CHOSEN.get_or_init(|| {
            let name = std::env::var("DUNLIN_FUZZ_TARGET").unwrap_or_default();
            target(&name).expect("DUNLIN_FUZZ_TARGET should name a target")
        })
    }

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
        (chosen().run)(bytes);
    });
}

#[cfg(not(feature = "guided"))]
mod unguided;

#[cfg(not(feature = "guided"))]
fn main() -> std::process::ExitCode {
    unguided::main()
}
