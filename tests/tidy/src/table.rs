//! The dependency table, and what else is allowed to some rooms only. A change here is a decision: say why on a page
//! in `book/src/decisions/`, and change the code map with it.

/// Which of our own crates a crate may use. Tests may use those, and any crate of `tests/`.
pub struct Room {
    /// Its folder.
    pub folder: &'static str,
    /// The folders of those it may use.
    pub may_use: &'static [&'static str],
}

/// An outside crate that only some rooms may name in their `Cargo.toml`. Their tests are free.
pub struct Reserved {
    /// The outside crate; a `*` at the end stands for any ending.
    pub package: &'static str,
    /// The rooms.
    pub rooms: &'static [&'static str],
    /// Why those and no others.
    pub reason: &'static str,
}

/// The rooms of `control/` and `runtime/`. What is in `tests/` may use anything.
pub const OWN: &[Room] = &[
    Room { folder: "control/model", may_use: &[] },
    Room { folder: "control/planted", may_use: &[] },
    Room { folder: "control/sealed", may_use: &[] },
    Room { folder: "control/admission", may_use: &["control/model"] },
    Room { folder: "control/protocol", may_use: &["control/model"] },
    Room { folder: "control/scheduler", may_use: &["control/model"] },
    Room { folder: "control/transport", may_use: &["control/model", "control/planted", "control/protocol"] },
    Room { folder: "control/store", may_use: &["control/model", "control/planted"] },
    Room { folder: "control/api", may_use: &["control/model"] },
    Room { folder: "control/oci", may_use: &["control/model"] },
    Room {
        folder: "control/coordinator",
        may_use: &[
            "control/admission",
            "control/api",
            "control/model",
            "control/planted",
            "control/protocol",
            "control/scheduler",
            "control/sealed",
            "control/store",
            "control/transport",
        ],
    },
    Room {
        folder: "control/cli",
        may_use: &[
            "control/admission",
            "control/api",
            "control/coordinator",
            "control/model",
            "control/oci",
            "control/planted",
            "control/transport",
            "runtime/agent",
            "runtime/worker",
        ],
    },
    Room { folder: "runtime/supervisor", may_use: &["control/model"] },
    Room { folder: "runtime/compiled", may_use: &["control/model"] },
    Room { folder: "runtime/descriptors", may_use: &[] },
    Room { folder: "runtime/host", may_use: &["control/model"] },
    Room {
        folder: "runtime/engine",
        may_use: &["control/admission", "control/model", "runtime/compiled", "runtime/host"],
    },
    Room {
        folder: "runtime/worker",
        may_use: &[
            "control/model",
            "control/protocol",
            "runtime/compiled",
            "runtime/descriptors",
            "runtime/engine",
            "runtime/host",
            "runtime/ingress",
        ],
    },
    Room { folder: "runtime/ingress", may_use: &["control/model"] },
    Room {
        folder: "runtime/agent",
        may_use: &[
            "control/model",
            "control/planted",
            "control/protocol",
            "control/sealed",
            "control/transport",
            "runtime/compiled",
            "runtime/descriptors",
            "runtime/ingress",
            "runtime/supervisor",
        ],
    },
];

/// What the tests of a room may use beyond that: the room, the other one, and why.
pub const FOR_TESTS: &[(&str, &str, &str)] = &[(
    "runtime/host",
    "control/admission",
    "admission tells users which imports are provided, and a test of the host compares that with its linker",
)];

/// Outside crates which are reserved, each with the reason.
pub const RESERVED: &[Reserved] = &[
    Reserved {
        package: "quinn*",
        rooms: &["control/transport"],
        reason: "QUIC is spoken in one place; others get streams of messages",
    },
    Reserved {
        package: "rcgen",
        rooms: &["control/transport"],
        reason: "identities are made and signed in one place",
    },
    Reserved {
        package: "rustls",
        rooms: &[
            "control/api",
            "control/coordinator",
            "control/oci",
            "control/store",
            "control/transport",
            "runtime/host",
            "runtime/ingress",
            "tests/harness",
        ],
        reason: "transport owns TLS between nodes; clients ask services by https, the public API has TLS on both of its ends, object stores, registries and guests \
                 are asked by https or ask so, and the HTTP client of tests wants to be told whose cryptography it would use",
    },
    Reserved {
        package: "tokio-rustls",
        rooms: &["control/coordinator", "runtime/host", "runtime/ingress", "control/transport"],
        reason: "the public API and services are served over TLS on TCP, guests ask servers by https, and packets of QUIC are carried where no UDP comes through",
    },
    Reserved {
        package: "fastcdc",
        rooms: &["control/store"],
        reason: "where chunks end must be decided in one place, or they have nothing in common",
    },
    Reserved {
        package: "ruzstd",
        rooms: &["control/protocol"],
        reason: "what comes from other nodes is decompressed in one place, which knows how long it may be",
    },
    Reserved {
        package: "zstd",
        rooms: &["control/protocol"],
        reason: "only what is this side's own is compressed, and nothing is decompressed by it",
    },
    Reserved {
        package: "minisign",
        rooms: &["control/cli", "tests/e2e"],
        reason: "secret keys of those who sign are never on a coordinator or a node",
    },
    Reserved {
        package: "minisign-verify",
        rooms: &["control/model", "runtime/agent"],
        reason: "who has signed a component is found out in one place, and who has signed a program in another",
    },
    Reserved {
        package: "docker_credential",
        rooms: &["control/oci"],
        reason: "passwords for registries are looked for in one place, by who tells them to nobody else",
    },
    Reserved {
        package: "chacha20poly1305",
        rooms: &["control/sealed"],
        reason: "what is sealed has one form, and one place that is to be read for it",
    },
    Reserved {
        package: "ciborium",
        rooms: &["control/protocol"],
        reason: "the wire encoding is known to the messages only",
    },
    Reserved {
        package: "jiff",
        rooms: &["control/model"],
        reason: "a schedule means the same moments wherever it is asked, by the time zones that are built in",
    },
    Reserved {
        package: "redb",
        rooms: &["control/store"],
        reason: "what is durable is written through the store's trait",
    },
    Reserved {
        package: "object_store",
        rooms: &["control/store"],
        reason: "bytes that coordinators share are kept where their digests are checked",
    },
    Reserved {
        package: "tonic*",
        rooms: &["control/store"],
        reason: "etcd is spoken to in one place; nothing else of ours speaks gRPC",
    },
    Reserved { package: "prost", rooms: &["control/store"], reason: "it is the encoding of etcd's messages" },
    Reserved {
        package: "axum*",
        rooms: &["control/coordinator"],
        reason: "only the coordinator serves the public API",
    },
    Reserved {
        package: "clap*",
        rooms: &["control/cli", "tests/tasks", "tests/campaigns"],
        reason: "only programs for people read arguments",
    },
    Reserved {
        package: "wasmtime*",
        rooms: &["runtime/engine", "runtime/host", "tests/bench"],
        reason: "guests run in the engine and touch what the host gives; nobody else may run or compile wasm, but to \
                 measure what the engine adds to it",
    },
    Reserved {
        package: "wasmparser",
        rooms: &["control/admission", "runtime/engine"],
        reason: "the bytes of components are judged in one place; the engine only takes from it the name of the set \
                 of features, to switch on those that admission lets through",
    },
    Reserved {
        package: "wit-component",
        rooms: &["control/admission"],
        reason: "modules are made into components in one place",
    },
    Reserved {
        package: "wasi-preview1-component-adapter-provider",
        rooms: &["control/admission"],
        reason: "modules are made into components in one place",
    },
    Reserved {
        package: "hyper",
        rooms: &[
            "control/cli",
            "control/coordinator",
            "runtime/agent",
            "runtime/engine",
            "runtime/host",
            "runtime/ingress",
            "runtime/worker",
            "tests/bench",
            "tests/harness",
        ],
        reason: "ingress is the front door; host, engine, worker and agent pass its requests and bodies on, the \
                 coordinator serves its API under axum with limits that only hyper has, the tests and `dunlin test` are clients",
    },
    Reserved {
        package: "reqwest",
        rooms: &["control/api", "control/oci", "control/store", "tests/e2e", "tests/harness"],
        reason: "the typed client of the API is the one HTTP client, beside those of object stores and of registries; \
                 tests also call services as strangers do",
    },
    Reserved {
        package: "toml_edit",
        rooms: &["control/model"],
        reason: "the manifest is read in one place, with line and column for each mistake",
    },
    Reserved { package: "landlock", rooms: &["runtime/worker"], reason: "the wall is built in one place" },
    Reserved { package: "seccompiler", rooms: &["runtime/worker"], reason: "the wall is built in one place" },
    Reserved {
        package: "mimalloc",
        rooms: &["control/cli", "tests/bench"],
        reason: "a program has one allocator, chosen where its `main` is",
    },
    Reserved {
        package: "indicatif",
        rooms: &["control/cli", "tests/tasks"],
        reason: "only programs for people show progress",
    },
];

/// The rooms without I/O: nothing they use may bring a runtime, and a `clippy.toml` keeps clocks, environment,
/// threads and files out of them.
pub const BRAINS: &[&str] =
    &["control/admission", "control/model", "control/protocol", "control/scheduler", "runtime/supervisor"];

/// What the `clippy.toml` of each brain must ban, at least.
pub const WORDS_OF_CLIPPY: &[&str] = &[
    "std::env::var",
    "std::fs::read",
    "std::fs::write",
    "std::thread::spawn",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
];

/// The files with code that the compiler cannot vouch for, each with the reason.
pub const UNSAFE: &[(&str, &str)] = &[
    (
        "runtime/engine/src/engine.rs",
        "wasmtime trusts the bytes of compiled code; they are loaded here only, after their MAC was checked",
    ),
    (
        "runtime/worker/src/confine/descriptors.rs",
        "what the launcher of an agent left open is closed before anything in the process owns a descriptor",
    ),
    (
        "control/cli/src/memory.rs",
        "the allocator has no safe function to give back what a thread has freed; the one that it has touches nothing in use",
    ),
    (
        "runtime/worker/src/resident.rs",
        "code that was only needed to start is taken out of memory; it is as on disk and comes back when touched",
    ),
];
