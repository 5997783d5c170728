//! The one list of what guests can import. `dunlin_admission::PROVIDED` says the same to users, and a test compares.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::guest::Guest;
use crate::{capability, logging, metered};

/// Returns the linker for guests, but for those of WASI 0.3.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    metered::add_to_linker(&mut linker)?;
    capability::add_files_to_linker(&mut linker)?;
    capability::add_sockets_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    logging::add_to_linker::<Guest, logging::Logging>(&mut linker, |guest| guest)?;
    capability::add_config_to_linker::<Guest, capability::Config>(&mut linker, |guest| guest)?;
    Ok(linker)
}

#[cfg(test)]
pub(crate) mod tests {
    use dunlin_admission::PROVIDED;
    use wasmtime::component::{LinkerInstance, ResourceType};

    use super::*;

    /// One thing that each interface has: a function, or a resource in brackets.
    pub(crate) const WITNESSES: &[(&str, &str)] = &[
        ("wasi:cli/environment", "get-arguments"),
        ("wasi:cli/exit", "exit"),
        ("wasi:cli/stderr", "get-stderr"),
        ("wasi:cli/stdin", "get-stdin"),
        ("wasi:cli/stdout", "get-stdout"),
        ("wasi:cli/terminal-input", "[terminal-input]"),
        ("wasi:cli/terminal-output", "[terminal-output]"),
        ("wasi:cli/terminal-stderr", "get-terminal-stderr"),
        ("wasi:cli/terminal-stdin", "get-terminal-stdin"),
        ("wasi:cli/terminal-stdout", "get-terminal-stdout"),
        ("wasi:clocks/monotonic-clock", "now"),
        ("wasi:clocks/wall-clock", "now"),
        ("wasi:config/store", "get"),
        ("wasi:filesystem/preopens", "get-directories"),
        ("wasi:filesystem/types", "[descriptor]"),
        ("wasi:http/outgoing-handler", "handle"),
        ("wasi:http/types", "[fields]"),
        ("wasi:io/error", "[error]"),
        ("wasi:io/poll", "poll"),
        ("wasi:io/streams", "[input-stream]"),
        ("wasi:logging/logging", "log"),
        ("wasi:random/insecure", "get-insecure-random-u64"),
        ("wasi:random/insecure-seed", "insecure-seed"),
        ("wasi:random/random", "get-random-u64"),
        ("wasi:sockets/instance-network", "instance-network"),
        ("wasi:sockets/ip-name-lookup", "resolve-addresses"),
        ("wasi:sockets/network", "[network]"),
        ("wasi:sockets/tcp", "[tcp-socket]"),
        ("wasi:sockets/tcp-create-socket", "create-tcp-socket"),
        ("wasi:sockets/udp", "[udp-socket]"),
        ("wasi:sockets/udp-create-socket", "create-udp-socket"),
    ];

    /// Tells whether an interface has something: a linker refuses to define a thing twice.
    pub(crate) fn has(interface: &mut LinkerInstance<'_, Guest>, witness: &str) -> bool {
        match witness.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(resource) => {
                interface.resource(resource, ResourceType::host::<()>(), |_, _| Ok(())).is_err()
            }
            None => interface.func_wrap(witness, |_, (): ()| Ok(())).is_err(),
        }
    }

    #[test]
    fn everything_that_is_said_to_be_provided_is_linked() {
        let mut linker = linker(&Engine::default()).unwrap();
        for provided in PROVIDED {
            let name = format!("{}@{}", provided.interface, provided.version);
            let witness = WITNESSES.iter().find(|(interface, _)| *interface == provided.interface);
            let (_, witness) = witness.unwrap_or_else(|| panic!("{name} has no witness in this test"));
            let mut interface = linker.instance(&name).unwrap();
            assert!(has(&mut interface, witness), "{name} is not linked, or has no {witness}");
            assert!(!has(&mut interface, "no-such-function"), "the check of {name} cannot fail");
        }
        assert_eq!(WITNESSES.len(), PROVIDED.len());
    }

    #[test]
    fn nothing_else_of_what_is_known_is_said_to_be_provided() {
        let others = [
            "wasi:cli/run@0.2.0",
            "wasi:config/store@0.2.0",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:nn/graph@0.2.0-rc-2024-10-28",
            "wasi:tls/types@0.2.0-draft",
            "wasi:cli/environment@0.3.0",
            "wasi:logging/logging",
        ];
        for name in others {
            assert!(!dunlin_admission::is_provided(name), "{name} is said to be provided");
        }
    }
}
