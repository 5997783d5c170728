//! Whether what came of a test is what was expected, and if not, by how much it is off.

use std::collections::BTreeMap;

use dunlin_model::{Fuel, Outcome, TestExpectation};

/// The most characters of a body that are shown.
const SHOWN: usize = 200;

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// A service has answered.
    Response {
        status: u16,
        /// By their names in small letters; several values of one name are joined by `, `.
        headers: BTreeMap<String, String>,
        body: Vec<u8>,
        /// Unknown where the response was broken off.
        fuel: Option<Fuel>,
    },
    /// An item of a job has ended.
    End { outcome: Outcome, stdout: Vec<u8>, fuel: Fuel },
}

impl Observed {
    /// Returns what was burned.
    pub(super) fn fuel(&self) -> Option<Fuel> {
        match self {
            Self::Response { fuel, .. } => *fuel,
            Self::End { fuel, .. } => Some(*fuel),
        }
    }

    /// Returns what the guest has given, and what that is called.
    fn given(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Response { body, .. } => ("body", body),
            Self::End { stdout, .. } => ("standard output", stdout),
        }
    }
}

/// Returns all in which `observed` is not as expected.
pub(super) fn judge(expected: &TestExpectation, observed: &Observed) -> Vec<String> {
    let mut failures = Vec::new();
    match observed {
        Observed::Response { status, headers, .. } => {
            if *status != expected.status {
                failures.push(format!("status: got {status}, expected {}", expected.status));
            }
            for (name, value) in &expected.headers {
                match headers.get(&name.to_ascii_lowercase()) {
                    Some(got) if got == value => {}
                    Some(got) => failures.push(format!("header {name}: got `{got}`, expected `{value}`")),
                    None => failures.push(format!("header {name}: it is missing, expected `{value}`")),
                }
            }
        }
        Observed::End { outcome, .. } => {
            let is_expected = match outcome {
                Outcome::Completed => expected.exit_code == 0,
                Outcome::Exited { code } => *code == expected.exit_code,
                _ => false,
            };
            if !is_expected {
                failures.push(format!("end: {outcome}, expected exit code {}", expected.exit_code));
            }
        }
    }
    failures.extend(content(expected, observed));
    if let (Some(limit), Some(fuel)) = (expected.fuel, observed.fuel()) {
        failures.extend(too_much(limit, fuel));
    } else if expected.fuel.is_some() {
        failures.push("fuel: it is not known what was burned, as the response was broken off".to_owned());
    }
    failures
}

fn content(expected: &TestExpectation, observed: &Observed) -> Vec<String> {
    let (what, bytes) = observed.given();
    let text = String::from_utf8_lossy(bytes);
    let mut failures = Vec::new();
    if let Some(whole) = expected.equals.as_ref().filter(|whole| whole.as_bytes() != bytes) {
        failures.push(format!("{what}: got {}, expected {}", shown(&text), shown(whole)));
    }
    for part in expected.contains.iter().filter(|part| !text.contains(part.as_str())) {
        failures.push(format!("{what}: {} is not in it; got {}", shown(part), shown(&text)));
    }
    failures
}

fn too_much(limit: Fuel, fuel: Fuel) -> Option<String> {
    let more = fuel.0.checked_sub(limit.0).filter(|more| *more > 0)?;
    // In tenths of a percent; of nothing, anything is too much.
    let share = match u128::from(limit.0) {
        0 => String::new(),
        limit => {
            let tenths = u128::from(more) * 1000 / limit;
            format!(", {}.{} % more", tenths / 10, tenths % 10)
        }
    };
    Some(format!("fuel: {fuel} burned, at most {limit} allowed: {} too much{share}", Fuel(more)))
}

/// Returns a text in quotes, cut where it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn response(status: u16, body: &str, fuel: u64) -> Observed {
        let headers = [("content-type".to_owned(), "text/plain".to_owned())].into();
        Observed::Response { status, headers, body: body.into(), fuel: Some(Fuel(fuel)) }
    }

    fn greeting() -> TestExpectation {
        TestExpectation {
            equals: Some("good day\n".to_owned()),
            contains: vec!["day".to_owned(), "good".to_owned()],
            headers: [("Content-Type".to_owned(), "text/plain".to_owned())].into(),
            fuel: Some(Fuel(3_000_000)),
            ..TestExpectation::default()
        }
    }

    #[test]
    fn what_is_as_expected_passes_up_to_the_last_fuel() {
        assert_eq!(judge(&greeting(), &response(200, "good day\n", 3_000_000)), Vec::<String>::new());
    }

    #[test]
    fn all_that_is_wrong_is_told_with_how_much() {
        let mut expected = greeting();
        expected.headers.insert("x-a".to_owned(), "b".to_owned());
        let failures = judge(&expected, &response(500, &"x".repeat(300), 3_330_000));
        expect![[r#"
            status: got 500, expected 200
            header x-a: it is missing, expected `b`
            body: got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"... (300 bytes), expected "good day\n"
            body: "day" is not in it; got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"... (300 bytes)
            body: "good" is not in it; got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"... (300 bytes)
            fuel: 3330k burned, at most 3M allowed: 330k too much, 11.0 % more
        "#]].assert_eq(&format!("{}\n", failures.join("\n")));
    }

    #[test]
    fn a_job_ends_as_expected() {
        let end = |outcome| Observed::End { outcome, stdout: b"2 11".to_vec(), fuel: Fuel(7) };
        let expected = |exit_code| TestExpectation { exit_code, ..TestExpectation::default() };
        assert!(judge(&expected(0), &end(Outcome::Completed)).is_empty());
        assert!(judge(&expected(3), &end(Outcome::Exited { code: 3 })).is_empty());
        assert_eq!(judge(&expected(0), &end(Outcome::Exited { code: 3 })).len(), 1);
        assert_eq!(judge(&expected(3), &end(Outcome::Completed)).len(), 1);
    }

    #[test]
    fn a_gate_on_fuel_that_is_not_known_fails() {
        let mut broken = response(200, "good day\n", 1);
        if let Observed::Response { fuel, .. } = &mut broken {
            *fuel = None;
        }
        assert_eq!(judge(&greeting(), &broken).len(), 1);
    }
}
