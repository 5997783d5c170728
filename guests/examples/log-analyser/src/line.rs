//! One line of an access log in nginx's format `combined`, and what of it is counted.
//!
//! ```text
//! 192.0.2.7 - ada [30/Nov/2026:03:18:00 +0000] "GET /a?b=1 HTTP/1.1" 200 512 "https://example.com/" "curl/8.5.0"
//! ```
//!
//! nginx writes a quotation mark within a field as `\x22`, and others write `\"`, so that a bare one ends its field.
//! Who asked is a text of the client and may hold anything else, blanks and brackets too: what comes before the request
//! is found by `] "`.

use std::str::FromStr;

/// The most characters of a path that are kept. Longer ones are cut, and those that begin alike are counted as one.
const PATH_SHOWN: usize = 256;

/// What is counted of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The status of the answer.
    pub(crate) status: u16,
    /// The bytes of the answer's body.
    pub(crate) bytes: u64,
    /// What was asked for, without the query; none where the client has sent no request that can be understood.
    pub(crate) path: Option<String>,
}

impl Line {
    /// Reads a line without its end, or returns `None` if it is not of this format.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let (who_and_when, rest) = line.split_once("] \"")?;
        if !who_and_when.contains(" [") {
            return None;
        }
        let (request, rest) = quoted(rest)?;
        let mut numbers = rest.strip_prefix(' ')?.splitn(3, ' ');
        let status = number(numbers.next().filter(|status| status.len() == 3)?)?;
        let bytes = match numbers.next()? {
            "-" => 0,
            bytes => number(bytes)?,
        };
        // A line that was cut off may have lost digits of a number, so it must go on to its end.
        let (_referer, rest) = quoted(numbers.next()?.strip_prefix('"')?)?;
        quoted(rest.strip_prefix(" \"")?)?;
        Some(Self { status, bytes, path: path(request) })
    }
}

/// Reads a number that is digits and nothing else; `parse` takes a sign, too.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Cuts a text at the quotation mark that ends the field, and returns what comes before and after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    for (place, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some((&text[..place], &text[place + 1..])),
            _ => {}
        }
    }
    None
}

/// Returns the path of a request like `GET /a?b=1 HTTP/1.1`.
fn path(request: &str) -> Option<String> {
    let (method, rest) = request.split_once(' ')?;
    let (target, protocol) = rest.rsplit_once(' ')?;
    let is_method = !method.is_empty() && method.bytes().all(|letter| letter.is_ascii_uppercase());
    if !is_method || !protocol.starts_with("HTTP/") {
        return None;
    }
    let path = target.split(['?', '#']).next().filter(|path| !path.is_empty())?;
    // It stands in a line of its own, and in somebody's terminal.
    let shown = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    let mut path: String = path.chars().map(shown).collect();
    if let Some((place, _)) = path.char_indices().nth(PATH_SHOWN) {
        path.truncate(place);
        path.push('…');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "192.0.2.7 - - [30/Nov/2026:03:18:00 +0000] ";

    fn parse(rest: &str) -> Option<(u16, u64, Option<String>)> {
        let line = Line::parse(format!("{START}{rest}").as_bytes())?;
        Some((line.status, line.bytes, line.path))
    }

    fn path_of(request: &str) -> Option<String> {
        parse(&format!("\"{request}\" 200 1 \"-\" \"-\"")).expect("the line is one").2
    }

    #[test]
    fn a_line_tells_status_bytes_and_path() {
        assert_eq!(
            parse(r#""GET /a?b=1 HTTP/1.1" 404 153 "https://example.com/" "curl/8.5.0""#),
            Some((404, 153, Some("/a".to_owned())))
        );
        // With fields of one's own after those of the format, as many have them.
        assert!(parse(r#""GET / HTTP/2.0" 200 5 "-" "-" 0.004 "192.0.2.9""#).is_some());
        assert_eq!(parse(r#""GET / HTTP/1.1" 304 - "-" "-""#), Some((304, 0, Some("/".to_owned()))));
    }

    #[test]
    fn names_and_quotation_marks_of_clients_lead_nobody_astray() {
        let line = br#"::1 - a [b] "c [30/Nov/2026:03:18:00 +0000] "GET / HTTP/1.1" 200 5 "-" "-""#;
        assert_eq!(Line::parse(line), None);
        let line =
            br#"::1 - a [b] \x22c [30/Nov/2026:03:18:00 +0000] "GET /d HTTP/1.1" 200 5 "\x22" "say \"x\"""#;
        assert_eq!(Line::parse(line), Some(Line { status: 200, bytes: 5, path: Some("/d".to_owned()) }));
    }

    #[test]
    fn what_is_no_request_is_counted_without_a_path() {
        for request in [r"\x16\x03\x01\x02", "", "-", "GET", "GET /", "get / HTTP/1.1", "GET  HTTP/1.1"] {
            assert_eq!(path_of(request), None, "{request}");
        }
    }

    #[test]
    fn paths_are_shown_whole_up_to_a_limit() {
        assert_eq!(path_of("GET /a b HTTP/1.1").as_deref(), Some("/a b"));
        assert_eq!(path_of("OPTIONS * HTTP/1.1").as_deref(), Some("*"));
        assert_eq!(path_of("GET /\u{1b}[31m HTTP/1.1").as_deref(), Some("/\u{fffd}[31m"));
        let long = path_of(&format!("GET /{} HTTP/1.1", "ä".repeat(999))).expect("it has a path");
        assert_eq!((long.chars().count(), long.chars().last()), (PATH_SHOWN + 1, Some('…')));
    }

    #[test]
    fn a_line_that_is_cut_off_anywhere_is_none() {
        let line = format!(r#"{START}"GET /ä HTTP/1.1" 200 512 "-" "curl/8.5.0""#).into_bytes();
        assert!(Line::parse(&line).is_some());
        for length in 0..line.len() {
            assert_eq!(Line::parse(&line[..length]), None, "{length}");
        }
    }

    #[test]
    fn numbers_that_are_none_break_a_line() {
        for numbers in
            ["2000 5", "20 5", "+20 5", "200 -5", "200 99999999999999999999", "2x0 5", "200  5", "200"]
        {
            assert_eq!(parse(&format!("\"GET / HTTP/1.1\" {numbers} \"-\" \"-\"")), None, "{numbers}");
        }
    }
}
