//! The stack of a guest where it ended, as its author knows it.
//!
//! Names are those of the component's name section, or of its debug information, which also gives files and lines.

use dunlin_model::{Frame, TrapRecord};
use wasmtime::{FrameInfo, FrameSymbol, WasmBacktrace};

/// How many folders of a path are shown of which nothing else is known.
const SHOWN_FOLDERS: usize = 2;

/// Returns the stack on which a call failed with `error`, the innermost call first; nothing if it had none.
pub(crate) fn frames(error: &wasmtime::Error) -> Vec<Frame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    backtrace.frames().iter().flat_map(of_function).take(TrapRecord::MAX_FRAMES).collect()
}

/// Returns what is known of one function: itself, and before it what was inlined into it.
fn of_function(info: &FrameInfo) -> Vec<Frame> {
    let own = || demangled(info.func_name(), info.func_index());
    if info.symbols().is_empty() {
        return vec![Frame { function: own(), ..Frame::default() }];
    }
    let last = info.symbols().len() - 1;
    let frame = |(index, symbol): (usize, &FrameSymbol)| {
        let function = match symbol.name() {
            // Debug information may leave out the path of a name, which the name section has.
            _ if index == last && info.func_name().is_some() => own(),
            Some(name) => demangled(Some(name), info.func_index()),
            None if index == 0 => own(),
            None => "<inlined function>".to_owned(),
        };
        Frame { function, file: symbol.file().map(shown), line: symbol.line(), column: symbol.column() }
    };
    info.symbols().iter().enumerate().map(frame).collect()
}

fn demangled(name: Option<&str>, index: u32) -> String {
    let mut text = String::new();
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let written = wasmtime_environ::demangle_function_name_or_index(&mut text, name, index);
    match (written, name) {
        (Err(_), Some(name)) => name.to_owned(),
        _ => without_hash(text),
    }
}

/// Returns a function's name without the hashes that Rust's compiler puts at its end, or behind the names of crates.
fn without_hash(mut name: String) -> String {
    if let Some((rest, hash)) = name.rsplit_once("::h")
        && is_hash(hash)
    {
        name.truncate(rest.len());
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        rest = match after.split_once(']') {
            Some((hash, after)) if is_hash(hash) => after,
            _ => {
                text.push('[');
                after
            }
        };
    }
    text + rest
}

fn is_hash(text: &str) -> bool {
    (15..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the part of a path that does not depend on the machine where it was built: from the folder on that holds the
/// sources, or the last folders of it.
fn shown(path: &str) -> String {
    let path = path.replace('\\', "/");
    let is_whole = path.starts_with('/') || path.contains(":/");
    if !is_whole {
        return path;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let folders = parts.len().saturating_sub(1);
    let sources = parts[..folders].iter().rposition(|part| *part == "src");
    let from =
        sources.map_or_else(|| folders.saturating_sub(SHOWN_FOLDERS), |sources| sources.saturating_sub(1));
    parts[from..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_the_machine_it_was_built_on() {
        for (path, expected) in [
            ("/build/ana/shop/src/pay.rs", "shop/src/pay.rs"),
            ("/build/ana/src/shop/src/bin/pay.rs", "shop/src/bin/pay.rs"),
            ("/rustc/59807616e/library/std/src/panicking.rs", "std/src/panicking.rs"),
            (
                "/builder/.cargo/registry/src/index.crates.io-1949/wstd-0.6.5/src/http/body.rs",
                "wstd-0.6.5/src/http/body.rs",
            ),
            ("/build/ana/c/shop/pay.c", "c/shop/pay.c"),
            ("C:\\shop\\src\\pay.rs", "shop/src/pay.rs"),
            ("sdk://v30/src/libc/abort.c", "v30/src/libc/abort.c"),
            ("src/pay.rs", "src/pay.rs"),
            ("/pay.c", "pay.c"),
            ("/src/pay.c", "src/pay.c"),
            ("/", ""),
        ] {
            assert_eq!(shown(path), expected);
        }
    }

    #[test]
    fn names_are_those_the_author_wrote() {
        let name = |name| demangled(Some(name), 7);
        assert_eq!(name("_ZN4shop3pay17h0123456789abcdefE"), "shop::pay");
        assert_eq!(name("_ZN4shop3payEi"), "shop::pay(int)");
        assert_eq!(name("main"), "main");
        let hashed = "std[d123b7a1a2ed1472]::call::<core[6d9e98711c484d2e]::Unit, [u8; 3]>";
        assert_eq!(name(hashed), "std::call::<core::Unit, [u8; 3]>");
        assert_eq!(demangled(None, 7), "<wasm function 7>");
    }
}
