//! What a guest of WASI 0.3 can import beside all that others can: the same things by their new interfaces.
//!
//! Standard streams, requests and outbound HTTP are those of the other interfaces, under the same limits. There are no
//! folders and no sockets here, whatever the manifest grants: [`Denied`] is a world of its own in which nothing is
//! allowed, so that what others are granted by the old interfaces cannot be had by the new ones.
//!
//! Calls are counted and charged as all are. The bytes that streams of the new kind move between guest and host are
//! not seen by anybody, so they are free.

use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p3::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p3::bindings::{filesystem, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView};

use crate::guest::Guest;
use crate::linker::linker;
use crate::metered::Random;

type Result<T> = wasmtime::Result<T>;

/// Files and a network in which there is nothing. Most guests have none of either, so it is made when it is asked for.
#[derive(Default)]
pub(crate) struct Denied {
    files: WasiFilesystemCtx,
    sockets: WasiSocketsCtx,
}

/// Returns the linker for guests of WASI 0.3.
pub fn wasi_03_linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = linker(engine)?;
    wasmtime_wasi::p3::cli::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(&mut linker, Guest::no_files)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(&mut linker, Guest::no_files)?;
    sockets::types::add_to_linker::<Guest, WasiSockets>(&mut linker, Guest::no_sockets)?;
    sockets::ip_name_lookup::add_to_linker::<Guest, WasiSockets>(&mut linker, Guest::no_sockets)?;
    random::add_to_linker::<Guest, Random<'static>>(&mut linker, Guest::random)?;
    insecure::add_to_linker::<Guest, Random<'static>>(&mut linker, Guest::random)?;
    insecure_seed::add_to_linker::<Guest, WasiRandom>(&mut linker, |guest| guest.random().random)?;
    Ok(linker)
}

impl Guest {
    fn no_files(&mut self) -> WasiFilesystemCtxView<'_> {
        let (denied, table) = self.denied();
        WasiFilesystemCtxView { ctx: &mut denied.files, table }
    }

    fn no_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        let (denied, table) = self.denied();
        WasiSocketsCtxView { ctx: &mut denied.sockets, table }
    }
}

/// A guest that asks for more than it may have gets what it may have: so the interface says.
impl random::Host for Random<'_> {
    fn get_random_bytes(&mut self, most: u64) -> Result<Vec<u8>> {
        let bytes = random::Host::get_random_bytes(self.random, most.min(self.most.0))?;
        self.calls.moved(bytes.len());
        Ok(bytes)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        random::Host::get_random_u64(self.random)
    }
}

impl insecure::Host for Random<'_> {
    fn get_insecure_random_bytes(&mut self, most: u64) -> Result<Vec<u8>> {
        let bytes = insecure::Host::get_insecure_random_bytes(self.random, most.min(self.most.0))?;
        self.calls.moved(bytes.len());
        Ok(bytes)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        insecure::Host::get_insecure_random_u64(self.random)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_admission::{PROVIDED, PROVIDED_WASI_03};

    use super::*;
    use crate::linker::tests::{WITNESSES as OF_ALL, has};

    /// One thing that each interface has: a function, or a resource in brackets; nothing if there are only types in it.
    const WITNESSES: &[(&str, &str)] = &[
        ("wasi:cli/environment", "get-arguments"),
        ("wasi:cli/exit", "exit"),
        ("wasi:cli/stderr", "write-via-stream"),
        ("wasi:cli/stdin", "read-via-stream"),
        ("wasi:cli/stdout", "write-via-stream"),
        ("wasi:cli/terminal-input", "[terminal-input]"),
        ("wasi:cli/terminal-output", "[terminal-output]"),
        ("wasi:cli/terminal-stderr", "get-terminal-stderr"),
        ("wasi:cli/terminal-stdin", "get-terminal-stdin"),
        ("wasi:cli/terminal-stdout", "get-terminal-stdout"),
        ("wasi:cli/types", ""),
        ("wasi:clocks/monotonic-clock", "now"),
        ("wasi:clocks/system-clock", "now"),
        ("wasi:clocks/types", ""),
        ("wasi:filesystem/preopens", "get-directories"),
        ("wasi:filesystem/types", "[descriptor]"),
        ("wasi:http/client", "send"),
        ("wasi:http/types", "[fields]"),
        ("wasi:random/insecure", "get-insecure-random-u64"),
        ("wasi:random/insecure-seed", "get-insecure-seed"),
        ("wasi:random/random", "get-random-u64"),
        ("wasi:sockets/ip-name-lookup", "resolve-addresses"),
        ("wasi:sockets/types", "[tcp-socket]"),
    ];

    #[test]
    fn everything_that_is_said_to_be_provided_to_wasi_03_is_linked() {
        let mut linker = wasi_03_linker(&Engine::default()).unwrap();
        for (provided, witnesses) in [(PROVIDED_WASI_03, WITNESSES), (PROVIDED, OF_ALL)] {
            for provided in provided {
                let name = format!("{}@{}", provided.interface, provided.version);
                let witness = witnesses.iter().find(|(interface, _)| *interface == provided.interface);
                let (_, witness) = witness.unwrap_or_else(|| panic!("{name} has no witness in this test"));
                let mut interface = linker.instance(&name).unwrap();
                let is_linked = witness.is_empty() || has(&mut interface, witness);
                assert!(is_linked, "{name} is not linked, or has no {witness}");
            }
            assert_eq!(witnesses.len(), provided.len());
        }
    }

    #[test]
    fn nothing_of_wasi_03_is_linked_for_others() {
        let mut linker = linker(&Engine::default()).unwrap();
        for (interface, witness) in WITNESSES.iter().filter(|(_, witness)| !witness.is_empty()) {
            let mut interface = linker.instance(&format!("{interface}@0.3.0")).unwrap();
            assert!(!has(&mut interface, witness), "{witness} is linked");
        }
    }
}
