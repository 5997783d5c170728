//! Which path a path is taken for by programs that decode escapes, and collapse what stands for nothing. Pure.
//!
//! Routes are compared as they are sent. That does no harm as long as a route only says which service answers; rules say
//! how much may be asked of it, and a service that takes `/%61pi` for `/api` must not be asked for more in that way.

/// Returns the path that `path` may be taken for; nothing if that is `path` itself.
pub(crate) fn meant(path: &str) -> Option<String> {
    let is_plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    let has_marks = path.contains(['%', '\\', ';']);
    let inner = path.trim_start_matches('/').trim_end_matches('/');
    if !has_marks && !path.starts_with("//") && (inner.is_empty() || inner.split('/').all(is_plain)) {
        return None;
    }
    let mut segments = Vec::new();
    let decoded = decoded(path).replace('\\', "/");
    for segment in decoded.split('/') {
        // What follows `;` is a parameter of the segment for some.
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Returns `path` with its escapes decoded as often as there are some, as services behind services do.
fn decoded(path: &str) -> String {
    let mut path = path.to_owned();
    for _ in 0..3 {
        let once = decoded_once(&path);
        if once == path {
            break;
        }
        path = once;
    }
    path
}

fn decoded_once(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| {
            let digits = str::from_utf8(digits).ok().filter(|_| *byte == b'%')?;
            u8::from_str_radix(digits, 16).ok()
        });
        decoded.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_for_what_it_decodes_to() {
        for (path, other) in [
            ("/", None),
            ("/api/x", None),
            ("/api/", None),
            ("/..api/.x", None),
            ("/%61pi/x", Some("/api/x")),
            ("/%2561pi", Some("/api")),
            ("//api", Some("/api")),
            ("/x//api", Some("/x/api")),
            ("/./api", Some("/api")),
            ("/x/../api", Some("/api")),
            ("/../../api", Some("/api")),
            ("/x/%2e%2e/api", Some("/api")),
            ("/api%2fx", Some("/api/x")),
            ("/api\\x", Some("/api/x")),
            ("/api;v=1/x", Some("/api/x")),
            ("/%zz%", Some("/%zz%")),
            ("/%ff", Some("/\u{fffd}")),
        ] {
            assert_eq!(meant(path).as_deref(), other, "{path}");
        }
    }
}
