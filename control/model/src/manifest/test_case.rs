//! Reading `[test.NAME]`: what one workload is given, and what must come of it.
//!
//! Not here: files, and running it. `dunlin test` does that; the fleet knows nothing of tests.

use std::collections::BTreeMap;

use super::reader::{Found, Reader, Section};
use super::workload::{plain, text};
use super::{TestCase, TestContent, TestExpectation, TestInput};
use crate::Name;

const FIELDS: [&str; 5] = ["service", "job", "request", "item", "expect"];
const METHOD: &str = "GET";

/// The workloads of a manifest by their keys, right or wrong: services, and jobs.
pub(super) struct Known<'a, 's> {
    pub(super) services: &'a [(&'s str, Section<'s>)],
    pub(super) jobs: &'a [(&'s str, Section<'s>)],
}

/// Returns a test of one of the workloads.
pub(super) fn test_case(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    known: &Known<'_, '_>,
) -> Option<TestCase> {
    reader.refuse_unknown(section, &FIELDS);
    let (key, other) = match (section.has("service"), section.has("job")) {
        (true, false) => ("service", "item"),
        (false, true) => ("job", "request"),
        _ => {
            reader.note(section.at(), section.own_path(), "say either `service` or `job`: what is tested");
            return None;
        }
    };
    if section.has(other) {
        let message = format!("a {key} has no {other}; leave it out");
        reader.note(section.place(other), section.path(other), message);
    }
    let workload = workload(reader, section, key, known);
    let input = if key == "service" { request(reader, section) } else { item(reader, section) };
    let expected = expectation(reader, section, key == "service");
    Some(TestCase { workload: workload?, input: input?, expected: expected? })
}

fn workload(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    known: &Known<'_, '_>,
) -> Option<Name> {
    let Found { value, at } = reader.parsed::<Name>(section, key, "the name of a workload of this app")?;
    let among = if key == "service" { known.services } else { known.jobs };
    let is_there = among.iter().any(|(name, _)| *name == value.as_str());
    if !is_there {
        reader.note(at, section.path(key), format!("there is no `[{key}.{value}]` in this manifest"));
    }
    is_there.then_some(value)
}

fn request(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TestInput> {
    if !section.has("request") {
        let (method, path) = (METHOD.to_owned(), "/".to_owned());
        return Some(TestInput::Request {
            method,
            path,
            headers: BTreeMap::new(),
            body: TestContent::default(),
        });
    }
    let section = &reader.section(section, "request")?;
    reader.refuse_unknown(section, &["method", "path", "headers", "body", "file"]);
    let method = reader.string(section, "method", "a string like \"POST\"");
    if let Some(Found { value, at }) = &method
        && (value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_uppercase()))
    {
        reader.note(*at, section.path("method"), "a method is written in capital letters, like `POST`");
    }
    let path = reader.string(section, "path", "a string like \"/carts?user=7\"");
    if let Some(Found { value, at }) = &path
        && (!value.starts_with('/') || value.bytes().any(|byte| byte <= b' ' || byte == 0x7f))
    {
        let message = "a path begins with `/` and has neither spaces nor control characters";
        reader.note(*at, section.path("path"), message);
    }
    let headers = reader.map_of_strings(section, "headers").map(|(_, entries)| plain(entries));
    let body = content(reader, section, "body");
    Some(TestInput::Request {
        method: method.map_or_else(|| METHOD.to_owned(), |found| found.value),
        path: path.map_or_else(|| "/".to_owned(), |found| found.value),
        headers: headers.unwrap_or_default(),
        body,
    })
}

fn item(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TestInput> {
    if !section.has("item") {
        return Some(TestInput::Item { input: TestContent::default() });
    }
    let section = &reader.section(section, "item")?;
    reader.refuse_unknown(section, &["text", "file"]);
    Some(TestInput::Item { input: content(reader, section, "text") })
}

/// Returns what stands in the field `key`, or in the file that is named.
fn content(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> TestContent {
    let words = reader.string(section, key, "a string");
    let file = reader.string(section, "file", "a string, the path of a file");
    if let Some(found) = &file {
        text(reader, section, "file", found);
        if words.is_some() {
            reader.note(found.at, section.path("file"), format!("say either `{key}` or `file`"));
        }
    }
    match (words, file) {
        (_, Some(file)) => TestContent::File(file.value),
        (Some(words), None) => TestContent::Text(words.value),
        (None, None) => TestContent::default(),
    }
}

fn expectation(reader: &mut Reader<'_>, section: &Section<'_>, is_service: bool) -> Option<TestExpectation> {
    if !section.has("expect") {
        return Some(TestExpectation::default());
    }
    let section = &reader.section(section, "expect")?;
    let fields = ["equals", "contains", "fuel", if is_service { "status" } else { "exit_code" }];
    let known: Vec<&str> = fields.into_iter().chain(is_service.then_some("headers")).collect();
    reader.refuse_unknown(section, &known);
    let status = reader.count(section, "status").map(|Found { value, at }| {
        let status = u16::try_from(value).ok().filter(|status| (100..=599).contains(status));
        if status.is_none() {
            reader.note(at, section.path("status"), format!("a status is 100 to 599, got {value}"));
        }
        status.unwrap_or(TestExpectation::STATUS)
    });
    let exit_code = reader.count(section, "exit_code").map(|Found { value, at }| {
        if value > 255 {
            reader.note(at, section.path("exit_code"), format!("an exit code is 0 to 255, got {value}"));
        }
        u8::try_from(value).unwrap_or(u8::MAX)
    });
    let equals = reader.string(section, "equals", "a string").map(|found| found.value);
    let contains = reader.one_or_more_strings(section, "contains", "[\"good day\", \"ada\"]");
    let headers = reader.map_of_strings(section, "headers").map(|(_, entries)| plain(entries));
    let fuel = reader.parsed(section, "fuel", "a string like \"3M\"").map(|found| found.value);
    Some(TestExpectation {
        status: status.unwrap_or(TestExpectation::STATUS),
        exit_code: exit_code.unwrap_or(0),
        equals,
        contains,
        headers: headers.unwrap_or_default(),
        fuel,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tests::with_service;
    use super::*;
    use crate::{Fuel, Manifest};

    #[test]
    fn tests_say_what_is_given_and_what_must_come_of_it() {
        let manifest = with_service(
            r#"
            [job.count]
            component = "count.wasm"
            [test.greets]
            service = "cart"
            request = { method = "POST", path = "/ada?x=1", headers = { accept = "text/plain" }, body = "hi" }
            expect = { status = 201, equals = "good day", headers = { content-type = "text/plain" }, fuel = "3M" }
            [test.answers]
            service = "cart"
            [test.counts]
            job = "count"
            item = { file = "inputs/a.txt" }
            expect = { exit_code = 3, contains = ["2", "11"] }
            "#,
        );
        let tests = Manifest::parse(&manifest).unwrap().tests;
        let of = |name: &str| tests[&name.parse::<Name>().unwrap()].clone();
        let text = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let request = |method: &str, path: &str, headers: &[(&str, &str)], body| {
            let (method, path, headers) = (method.to_owned(), path.to_owned(), text(headers));
            TestInput::Request { method, path, headers, body }
        };
        assert_eq!(
            of("greets"),
            TestCase {
                workload: "cart".parse().unwrap(),
                input: request(
                    "POST",
                    "/ada?x=1",
                    &[("accept", "text/plain")],
                    TestContent::Text("hi".to_owned())
                ),
                expected: TestExpectation {
                    status: 201,
                    equals: Some("good day".to_owned()),
                    headers: text(&[("content-type", "text/plain")]),
                    fuel: Some(Fuel(3_000_000)),
                    ..TestExpectation::default()
                },
            }
        );
        assert_eq!(of("answers").input, request("GET", "/", &[], TestContent::Empty));
        assert_eq!(of("answers").expected, TestExpectation::default());
        let counts = of("counts");
        assert_eq!(counts.input, TestInput::Item { input: TestContent::File("inputs/a.txt".to_owned()) });
        assert_eq!((counts.expected.exit_code, counts.expected.contains.len()), (3, 2));
    }

    #[test]
    fn mistakes_in_tests_are_told_with_their_places() {
        let manifest = with_service(
            r#"
            [test.a]
            service = "car"
            request = { method = "get", path = "ada", body = "x", file = "y" }
            item = {}
            expect = { status = 7, exit_code = 0, fuel = "much" }
            [test.b]
            job = "count"
            service = "cart"
            [test."c d"]
            service = "cart"
            expct = 1
            "#,
        );
        let errors = Manifest::parse(&manifest).unwrap_err();
        expect![[r#"
            7:23: `test.a.service`: there is no `[service.car]` in this manifest
            8:34: `test.a.request.method`: a method is written in capital letters, like `POST`
            8:48: `test.a.request.path`: a path begins with `/` and has neither spaces nor control characters
            8:74: `test.a.request.file`: say either `body` or `file`
            9:13: `test.a.item`: a service has no item; leave it out
            10:33: `test.a.expect.status`: a status is 100 to 599, got 7
            10:36: `test.a.expect.exit_code`: unknown field `exit_code`; there are `equals`, `contains`, `fuel`, `status`, `headers`
            10:58: `test.a.expect.fuel`: `much` should be a whole number and a unit, like "500M"
            11:13: `test.b`: say either `service` or `job`: what is tested
            14:13: `c d` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
            16:13: `test."c d".expct`: unknown field `expct`; did you mean `expect`?
        "#]]
        .assert_eq(&format!("{errors}\n"));
    }
}
