//! A strict reader of heads: what RFC 9112 allows without any of its leniencies, and nothing else.

/// The head of one request.
pub(super) struct Head<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    /// Names in lower case.
    pub(super) headers: Vec<(String, &'a [u8])>,
    /// Whether it is of HTTP/1.1, not 1.0.
    pub(super) is_http11: bool,
}

impl<'a> Head<'a> {
    /// Reads the head with which `bytes` begin, unless it is in any way odd.
    pub(super) fn strict(bytes: &'a [u8]) -> Option<Self> {
        let head = Self::clear(bytes)?;
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(byte);
        let are_plain = |value: &[u8]| value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let is_strict =
            head.target.iter().all(is_plain) && head.headers.iter().all(|(_, value)| are_plain(value));
        is_strict.then_some(head)
    }

    /// Reads the head with which `bytes` begin, unless two readers might disagree on where something ends. Letters
    /// beyond ASCII and some that belong into no address are let through, as they can be by a proxy.
    pub(super) fn clear(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let mut lines = split_lines(&bytes[..end + 2])?.into_iter();
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let is_http11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return None,
        };
        let is_target = |byte: &u8| *byte > b' ' && *byte != 0x7f;
        if words.next().is_some() || !is_token(method) || target.is_empty() || !target.iter().all(is_target) {
            return None;
        }
        let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
        Some(Self { method, target, headers, is_http11 })
    }

    /// Returns all values of the headers of this name.
    pub(super) fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        self.headers.iter().filter(move |(other, _)| other == name).map(|(_, value)| *value)
    }

    /// Returns the value of the header of this name, if there is just one.
    pub(super) fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }
}

fn split_lines(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let line = &rest[..end];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return None;
        }
        lines.push(line);
        rest = &rest[end + 2..];
    }
    rest.is_empty().then_some(lines)
}

fn header(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
    let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !is_token(name) || !value.iter().all(is_value) {
        return None;
    }
    Some((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
}

/// Without spaces and tabs at both ends; other white space is no white space here.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
