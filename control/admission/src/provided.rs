//! The interfaces the host provides: one table, which the tests of `runtime/host` compare with its linker.

/// One interface the host provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provided {
    /// Its name without version.
    pub interface: &'static str,
    /// The version the host implements.
    pub version: &'static str,
}

const fn wasi(interface: &'static str) -> Provided {
    Provided { interface, version: "0.2.12" }
}

/// Every interface that a component may import. Filesystem, sockets and outbound HTTP are there since programs built
/// on a standard library import them; without a grant of the manifest, nothing can be opened through them.
pub const PROVIDED: &[Provided] = &[
    wasi("wasi:cli/environment"),
    wasi("wasi:cli/exit"),
    wasi("wasi:cli/stderr"),
    wasi("wasi:cli/stdin"),
    wasi("wasi:cli/stdout"),
    wasi("wasi:cli/terminal-input"),
    wasi("wasi:cli/terminal-output"),
    wasi("wasi:cli/terminal-stderr"),
    wasi("wasi:cli/terminal-stdin"),
    wasi("wasi:cli/terminal-stdout"),
    wasi("wasi:clocks/monotonic-clock"),
    wasi("wasi:clocks/wall-clock"),
    Provided { interface: "wasi:config/store", version: "0.2.0-rc.1" },
    wasi("wasi:filesystem/preopens"),
    wasi("wasi:filesystem/types"),
    wasi("wasi:http/outgoing-handler"),
    wasi("wasi:http/types"),
    wasi("wasi:io/error"),
    wasi("wasi:io/poll"),
    wasi("wasi:io/streams"),
    Provided { interface: "wasi:logging/logging", version: "0.1.0-draft" },
    wasi("wasi:random/insecure"),
    wasi("wasi:random/insecure-seed"),
    wasi("wasi:random/random"),
    wasi("wasi:sockets/instance-network"),
    wasi("wasi:sockets/ip-name-lookup"),
    wasi("wasi:sockets/network"),
    wasi("wasi:sockets/tcp"),
    wasi("wasi:sockets/tcp-create-socket"),
    wasi("wasi:sockets/udp"),
    wasi("wasi:sockets/udp-create-socket"),
];

const fn wasi03(interface: &'static str) -> Provided {
    Provided { interface, version: "0.3.0" }
}

/// Every interface that only a component of WASI 0.3 may import, beside all of [`PROVIDED`].
pub const PROVIDED_WASI_03: &[Provided] = &[
    wasi03("wasi:cli/environment"),
    wasi03("wasi:cli/exit"),
    wasi03("wasi:cli/stderr"),
    wasi03("wasi:cli/stdin"),
    wasi03("wasi:cli/stdout"),
    wasi03("wasi:cli/terminal-input"),
    wasi03("wasi:cli/terminal-output"),
    wasi03("wasi:cli/terminal-stderr"),
    wasi03("wasi:cli/terminal-stdin"),
    wasi03("wasi:cli/terminal-stdout"),
    wasi03("wasi:cli/types"),
    wasi03("wasi:clocks/monotonic-clock"),
    wasi03("wasi:clocks/system-clock"),
    wasi03("wasi:clocks/types"),
    wasi03("wasi:filesystem/preopens"),
    wasi03("wasi:filesystem/types"),
    wasi03("wasi:http/client"),
    wasi03("wasi:http/types"),
    wasi03("wasi:random/insecure"),
    wasi03("wasi:random/insecure-seed"),
    wasi03("wasi:random/random"),
    wasi03("wasi:sockets/ip-name-lookup"),
    wasi03("wasi:sockets/types"),
];

/// Tells whether the host provides the import `name`, which is an interface with its version, to every component.
pub fn is_provided(name: &str) -> bool {
    is_in(PROVIDED, name)
}

/// Tells the same of what it provides to components of WASI 0.3 in addition.
pub fn is_provided_to_wasi_03(name: &str) -> bool {
    is_in(PROVIDED_WASI_03, name)
}

fn is_in(list: &[Provided], name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else { return false };
    list.iter().any(|provided| provided.interface == interface && is_compatible(version, provided.version))
}

/// Tells whether an import or export of this name is of WASI 0.3, whether there is such a thing or not.
pub(crate) fn is_of_wasi_03(name: &str) -> bool {
    name.starts_with("wasi:")
        && name.split_once('@').is_some_and(|(_, version)| is_compatible(version, "0.3.0"))
}

/// Tells whether `version` can be had where `provided` is: for 0.2.x any x, for a draft only itself.
pub(crate) fn is_compatible(version: &str, provided: &str) -> bool {
    if provided.contains('-') {
        return version == provided;
    }
    let numbers = |version: &str| -> Option<[u64; 3]> {
        let mut parts = version.split('.').map(|part| part.parse::<u64>());
        let numbers = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
        parts.next().is_none().then_some(numbers)
    };
    match (numbers(version), numbers(provided)) {
        (Some([major, minor, _]), Some([has_major, has_minor, _])) => {
            major == has_major && minor == has_minor
        }
        _ => false,
    }
}

/// Returns which capability an import that is not provided would belong to, and what can be done.
pub fn capability_of(name: &str) -> &'static str {
    let package = name.split(['/', '@']).next().unwrap_or(name);
    let interface = name.split('@').next().unwrap_or(name);
    if PROVIDED.iter().any(|provided| provided.interface == interface) {
        return "another version of it is provided; build for WASI 0.2";
    }
    match package {
        _ if is_of_wasi_03(name) => "this part of WASI 0.3 is not provided",
        "wasi:keyvalue" => "the key-value capability is not there yet",
        "wasi:config" => "wasi:config/store@0.2.0-rc.1 is provided; build for that",
        "wasi:blobstore" => "there is no capability for blobs",
        "wasi:messaging" => "there is no capability for messages",
        "wasi:nn" => "there is no capability for machine learning",
        "wasi:tls" => {
            "TLS is spoken by the host: grant `outbound_http = [\"https://...\"]` and send requests"
        }
        "wasi:sockets" => "of sockets, those of WASI 0.2 are provided",
        "wasi:cli" | "wasi:clocks" | "wasi:filesystem" | "wasi:http" | "wasi:io" | "wasi:random" => {
            "this part of WASI 0.2 is not provided"
        }
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            "this is WASI preview 1; build with --target wasm32-wasip2"
        }
        "env" => "this is an import of Emscripten or of an own host; build for WASI 0.2",
        _ => "no host here knows it; link its provider into the component, for instance with wac",
    }
}
