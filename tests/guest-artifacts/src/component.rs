//! One constant of bytes and one of a path for each component, in the order of their names.
//!
//! The bytes are part of the test program; the path is a copy in this crate's build folder, for what takes files.

macro_rules! component {
    ($(#[$doc:meta])* $bytes:ident, $path:ident, $file:literal) => {
        $(#[$doc])*
        pub const $bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/", $file));

        #[doc = concat!("The file with the bytes of [`", stringify!($bytes), "`].")]
        pub const $path: &str = concat!(env!("OUT_DIR"), "/", $file);
    };
}

component!(
    /// Service: asks the URL in its variable `NEXT` and answers with what it heard.
    ASK_HTTP, ASK_HTTP_PATH, "ask-http.wasm"
);
component!(
    /// Job: makes the calls into the host that its argument names, two hexadecimal digits each.
    CALLS, CALLS_PATH, "calls.wasm"
);
component!(
    /// Job: copies standard input to standard output.
    CAT, CAT_PATH, "cat.wasm"
);
component!(
    /// Job: succeeds if its configuration says `greeting = "hello"`.
    CONFIG, CONFIG_PATH, "config.wasm"
);
component!(
    /// Service: answers with the value of its configuration that the path names.
    CONFIG_HTTP, CONFIG_HTTP_PATH, "config-http.wasm"
);
component!(
    /// A core module: valid wasm, but not a component.
    CORE_MODULE, CORE_MODULE_PATH, "core-module.wasm"
);
component!(
    /// Job: does nothing, as a component of a few instructions.
    EMPTY, EMPTY_PATH, "empty.wasm"
);
component!(
    /// Job: does nothing, with Rust's standard library around it.
    EMPTY_STD, EMPTY_STD_PATH, "empty-std.wasm"
);
component!(
    /// Job: prints `argument …` and `variable NAME=VALUE` lines.
    ENV, ENV_PATH, "env.wasm"
);
component!(
    /// Job: ends itself with exit code 1.
    EXIT_CODE, EXIT_CODE_PATH, "exit-code.wasm"
);
component!(
    /// Service: asks for the URL that is posted to it.
    FETCH_HTTP, FETCH_HTTP_PATH, "fetch-http.wasm"
);
component!(
    /// Service: does with files and sockets what is posted to it.
    FILES_HTTP, FILES_HTTP_PATH, "files-http.wasm"
);
component!(
    /// Job: writes a gibibyte of log lines to standard error.
    FLOOD, FLOOD_PATH, "flood.wasm"
);
component!(
    /// Service: writes a gibibyte of log lines before it answers.
    FLOOD_HTTP, FLOOD_HTTP_PATH, "flood-http.wasm"
);
component!(
    /// Service of the quickstart: `GET /` greets, `POST /echo` streams back.
    HELLO, HELLO_PATH, "hello.wasm"
);
component!(
    /// Service: greets with `hello again from …` on every path.
    HELLO_V2, HELLO_V2_PATH, "hello-v2.wasm"
);
component!(
    /// Job: takes memory without end.
    HOG, HOG_PATH, "hog.wasm"
);
component!(
    /// Service: takes memory without end.
    HOG_HTTP, HOG_HTTP_PATH, "hog-http.wasm"
);
component!(
    /// Job: misbehaves as its variable `CASE` says, and prints what came of it.
    HOSTILE, HOSTILE_PATH, "hostile.wasm"
);
component!(
    /// Service: misbehaves as the path says.
    HOSTILE_HTTP, HOSTILE_HTTP_PATH, "hostile-http.wasm"
);
component!(
    /// Job: parses JSON.
    JSON, JSON_PATH, "json.wasm"
);
component!(
    /// A component which imports an interface that nothing provides, `example:absent/nothing@0.1.0`.
    MISSING_IMPORT, MISSING_IMPORT_PATH, "missing-import.wasm"
);
component!(
    /// Job: moves five bodies under their gravity.
    N_BODY, N_BODY_PATH, "n-body.wasm"
);
component!(
    /// Service: prints what is posted to it, on standard output and on standard error.
    SAY_HTTP, SAY_HTTP_PATH, "say-http.wasm"
);
component!(
    /// Job: hashes 64 MiB.
    SHA256, SHA256_PATH, "sha256.wasm"
);
component!(
    /// Job: waits for a day without computing.
    SLEEP, SLEEP_PATH, "sleep.wasm"
);
component!(
    /// Service: waits for a day before it answers.
    SLEEP_HTTP, SLEEP_HTTP_PATH, "sleep-http.wasm"
);
component!(
    /// Service: does with sockets what is posted to it, and tries what no guest may.
    SOCKETS_HTTP, SOCKETS_HTTP_PATH, "sockets-http.wasm"
);
component!(
    /// Job: computes for ever.
    SPIN, SPIN_PATH, "spin.wasm"
);
component!(
    /// Service: computes for ever.
    SPIN_HTTP, SPIN_HTTP_PATH, "spin-http.wasm"
);
component!(
    /// Service: answers with the head of the request.
    TELL_HTTP, TELL_HTTP_PATH, "tell-http.wasm"
);
component!(
    /// Service: calls the host and panics; built with debug information.
    TRACED_HTTP, TRACED_HTTP_PATH, "traced-http.wasm"
);
component!(
    /// Job: panics.
    TRAP, TRAP_PATH, "trap.wasm"
);
component!(
    /// Service: panics.
    TRAP_HTTP, TRAP_HTTP_PATH, "trap-http.wasm"
);
component!(
    /// Job of WASI 0.3: does what its first argument or its variable `CASE` says.
    WASI3_COMMAND, WASI3_COMMAND_PATH, "wasi3_command.wasm"
);
component!(
    /// Service of WASI 0.3: does what the path says.
    WASI3_SERVICE, WASI3_SERVICE_PATH, "wasi3_service.wasm"
);
component!(
    /// Job of the quickstart: prints `COUNT NAME`, and with `--combine` the total.
    WORD_COUNT, WORD_COUNT_PATH, "word-count.wasm"
);

/// The folder of the quickstart: its `dunlin.toml` and its sources.
pub const QUICKSTART_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/examples/quickstart");

/// The folder of the fixtures, with the `dunlin.toml` of the app `misbehaving`.
pub const MISBEHAVING_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/fixtures");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_is_wasm_and_all_but_one_are_components() {
        // The fourth byte of the version field tells: layer 0 is a core module, layer 1 a component.
        for component in [HELLO, HELLO_V2, WORD_COUNT, CAT, MISSING_IMPORT] {
            assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0");
        }
        assert_eq!(CORE_MODULE[..8], *b"\0asm\x01\0\0\0");
    }

    #[test]
    fn the_file_holds_the_same_bytes() {
        assert_eq!(std::fs::read(HELLO_PATH).unwrap(), HELLO);
    }
}
