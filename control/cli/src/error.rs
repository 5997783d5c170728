//! What a person sees when something could not be done: what, why, and what to do.
//!
//! Every `help` of this program that answers a coordinator is made here, so that the tests below show all of them.

use std::error::Error;
use std::fmt;

use dunlin_api::{ClientError, Problem, code};

use crate::output::escaped;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    Unreachable,
    /// What was run has ended in a way of its own.
    Ended(u8),
}

/// What could not be done, why, and what to do.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    what: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl CommandError {
    /// It could not be done.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), causes: Vec::new(), help: None }
    }

    /// It was asked for in a wrong way.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::failed(what) }
    }

    /// There is nobody to ask.
    pub(crate) fn unreachable(what: impl Into<String>) -> Self {
        Self { kind: Kind::Unreachable, ..Self::failed(what) }
    }

    /// What was run did not do what it was run for; the program ends with `code`.
    pub(crate) fn ended(code: u8, what: impl Into<String>) -> Self {
        Self { kind: Kind::Ended(code), ..Self::failed(what) }
    }

    /// Returns what could not be done.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The same, but never as wrong usage: the code of that has another meaning for the command.
    #[must_use]
    pub(crate) fn never_usage(mut self) -> Self {
        if self.kind == Kind::Usage {
            self.kind = Kind::Failed;
        }
        self
    }

    /// Adds one reason below those that are there.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds an error and all its sources as reasons.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries repeat the source in the message; a reason is said once.
            if !self.causes.last().is_some_and(|cause| cause.ends_with(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `what` could not be done, because the coordinator could not be asked or said no.
    pub(crate) fn client(what: impl Into<String>, error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => {
                let unreachable = Self::unreachable(what).caused_by(error);
                // The TLS library's error is buried too deep to be taken by its type.
                let is_stranger = unreachable.causes.iter().any(|cause| cause.contains("certificate"));
                unreachable.help(if is_stranger {
                    "`--ca-file` must be `ca.pem` of this very fleet; `--api-name` at the coordinator adds a name"
                } else {
                    "is it running? `dunlin up` starts one on this machine; `--coordinator URL` names another"
                })
            }
            ClientError::BadAnswer { .. } => Self::failed(what).caused_by(error).help(
                "is something else listening there, or is the coordinator of another version than this program?",
            ),
            ClientError::Problem(problem) => Self::refused(what, problem),
        }
    }

    fn refused(what: impl Into<String>, problem: &Problem) -> Self {
        let error = Self::failed(what).because(problem.to_string());
        let help = problem.hint.clone().unwrap_or_else(|| help_for(&problem.code).to_owned());
        error.help(help)
    }

    /// Returns the code with which the program ends.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::Ended(code) => code,
        }
    }

    /// Returns the same as one JSON value.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.what,
            "causes": self.causes,
            "help": self.help,
            "exit_code": self.exit_code(),
        })
    }

    /// Returns what is shown, with the words that introduce each part made by `word`.
    pub(crate) fn rendered(&self, word: impl Fn(&str) -> String) -> String {
        let causes = self.causes.iter().map(|cause| ("  cause: ", cause));
        let help = self.help.iter().map(|help| ("  help: ", help));
        let mut text = String::new();
        for (label, said) in std::iter::once(("error: ", &self.what)).chain(causes).chain(help) {
            // Text from guests and from other machines must not steer the terminal.
            let said = escaped(said).replace('\n', &format!("\n{}", " ".repeat(label.len())));
            let name = label.trim_start();
            text.push_str(&label[..label.len() - name.len()]);
            text.push_str(&word(name));
            text.push_str(&said);
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered(str::to_owned))
    }
}

impl Error for CommandError {}

/// What helps against a refusal that came without a hint.
pub(crate) fn help_for(problem: &str) -> &'static str {
    match problem {
        code::UNAUTHORIZED => "give the token of this fleet with `--token-file FILE`",
        code::NOT_FOUND | "unknown_app" | "unknown_workload" | "unknown_run" => {
            "`dunlin status` shows the apps, `dunlin job status` the runs; `--namespace NAME` looks elsewhere"
        }
        "unknown_node" | "unknown_zone" => "`dunlin nodes` shows the nodes there are",
        "not_scalable" => "`dunlin status` shows which services have a number of allocations",
        "quota_exceeded" => {
            "wait until items have their records, or let an operator raise the quota: `dunlin namespace set`"
        }
        "invalid_namespace" => "`dunlin namespace set --help` says what may be set",
        "not_a_job" => "`dunlin status` shows which workloads are jobs",
        "no_items" => "give it some: `--items 10`, or `--input` with a pattern that matches files",
        "too_many_items" => "divide the work into several runs, or give each item more to do",
        code::METHOD_NOT_ALLOWED | code::INVALID_REQUEST | code::UNSUPPORTED_MEDIA_TYPE => {
            "is the coordinator of another version? compare `dunlin --version` on both sides"
        }
        code::LIMIT_EXCEEDED => "ask for less, or let an operator raise the limit",
        code::DIGEST_MISMATCH => "a file changed while it was sent; try again when the build is done",
        code::COMPONENT_REFUSED
        | "core_module"
        | "invalid_wasm"
        | "missing_export"
        | "precompiled_not_accepted" => {
            "build it as a component for WASI 0.2: `cargo build --release --target wasm32-wasip2`"
        }
        "missing_imports" => {
            "build it without what needs these imports; the cause says for each why it is not there"
        }
        "feature_off" => "switch this feature off in your compiler",
        "too_large" | "too_complex" => "build it with `--release`, strip it, or split it",
        code::COMPONENT_MISSING | code::INPUT_MISSING => "try again: it will be sent once more",
        code::CONFLICT => "`dunlin status` shows which app has it",
        "route_taken" => "choose another host or path; `dunlin status` shows all routes",
        "not_checked" | code::BUSY | code::TIMEOUT | code::UNAVAILABLE => "try again in a few seconds",
        code::INTERNAL => "the coordinator is at fault; its log says more",
        // Those that always come with a hint of the coordinator, and those of a later version.
        _ => "`dunlin status` shows how things stand; the book's troubleshooting page explains refusals",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(error: &CommandError, code: u8, expected: Expect) {
        expected.assert_eq(&error.to_string());
        assert_eq!(error.exit_code(), code);
    }

    #[test]
    fn an_error_has_three_parts() {
        let error = CommandError::failed("cannot deploy `shop`")
            .because("no node can take 1 of its 3 allocations")
            .because("it needs 256MiB;\nthe freest of 4 nodes has 128MiB")
            .help("lower `memory` in dunlin.toml, or add a node; `dunlin nodes` shows free memory");
        check(
            &error,
            1,
            expect![[r#"
            error: cannot deploy `shop`
              cause: no node can take 1 of its 3 allocations
              cause: it needs 256MiB;
                     the freest of 4 nodes has 128MiB
              help: lower `memory` in dunlin.toml, or add a node; `dunlin nodes` shows free memory
        "#]],
        );
    }

    #[test]
    fn a_coordinator_that_is_not_reached_is_told_apart() {
        let source = std::io::Error::other("connection refused");
        let error =
            ClientError::Unreachable { url: "https://127.0.0.1:7300".to_owned(), source: Box::new(source) };
        check(
            &CommandError::client("cannot list the nodes", &error),
            3,
            expect![[r#"
            error: cannot list the nodes
              cause: could not reach the coordinator at https://127.0.0.1:7300
              cause: connection refused
              help: is it running? `dunlin up` starts one on this machine; `--coordinator URL` names another
        "#]],
        );
    }

    #[test]
    fn a_certificate_of_a_stranger_is_told_apart() {
        let source = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let error =
            ClientError::Unreachable { url: "https://127.0.0.1:7300".to_owned(), source: Box::new(source) };
        check(
            &CommandError::client("cannot list the nodes", &error),
            3,
            expect![[r#"
            error: cannot list the nodes
              cause: could not reach the coordinator at https://127.0.0.1:7300
              cause: invalid peer certificate: UnknownIssuer
              help: `--ca-file` must be `ca.pem` of this very fleet; `--api-name` at the coordinator adds a name
        "#]],
        );
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_told() {
        let error = ClientError::BadAnswer { detail: "expected value at line 1 column 1".to_owned() };
        check(
            &CommandError::client("cannot list the nodes", &error),
            1,
            expect![[r#"
            error: cannot list the nodes
              cause: the coordinator's answer cannot be used: expected value at line 1 column 1
              help: is something else listening there, or is the coordinator of another version than this program?
        "#]],
        );
    }

    #[test]
    fn a_hint_of_the_coordinator_comes_before_ours() {
        let problem = Problem::new(409, code::CONFLICT, "the route is taken", "`/` belongs to `default/b`")
            .with_hint("choose another host");
        let error = ClientError::Problem(Box::new(problem));
        check(
            &CommandError::client("cannot deploy `default/a`", &error),
            1,
            expect![[r#"
            error: cannot deploy `default/a`
              cause: the route is taken: `/` belongs to `default/b`
              help: choose another host
        "#]],
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "most of it is the expected text")]
    fn every_code_has_its_help() {
        let codes = [
            code::UNAUTHORIZED,
            code::NOT_FOUND,
            code::METHOD_NOT_ALLOWED,
            code::INVALID_REQUEST,
            code::UNSUPPORTED_MEDIA_TYPE,
            code::LIMIT_EXCEEDED,
            code::DIGEST_MISMATCH,
            code::COMPONENT_REFUSED,
            code::COMPONENT_MISSING,
            code::INPUT_MISSING,
            code::CONFLICT,
            code::BUSY,
            code::TIMEOUT,
            code::UNAVAILABLE,
            code::INTERNAL,
            "unknown_run",
            "unknown_node",
            "quota_exceeded",
            "invalid_namespace",
            "not_a_job",
            "no_items",
            "too_many_items",
            "core_module",
            "missing_imports",
            "feature_off",
            "too_large",
            "route_taken",
        ];
        let lines: String = codes
            .iter()
            .map(|code| {
                let problem = Problem::new(400, code, format!("refused as {code}"), "");
                let error = ClientError::Problem(Box::new(problem));
                CommandError::client("cannot do it", &error).to_string()
            })
            .collect();
        expect![[r#"
            error: cannot do it
              cause: refused as unauthorized
              help: give the token of this fleet with `--token-file FILE`
            error: cannot do it
              cause: refused as not_found
              help: `dunlin status` shows the apps, `dunlin job status` the runs; `--namespace NAME` looks elsewhere
            error: cannot do it
              cause: refused as method_not_allowed
              help: is the coordinator of another version? compare `dunlin --version` on both sides
            error: cannot do it
              cause: refused as invalid_request
              help: is the coordinator of another version? compare `dunlin --version` on both sides
            error: cannot do it
              cause: refused as unsupported_media_type
              help: is the coordinator of another version? compare `dunlin --version` on both sides
            error: cannot do it
              cause: refused as limit_exceeded
              help: ask for less, or let an operator raise the limit
            error: cannot do it
              cause: refused as digest_mismatch
              help: a file changed while it was sent; try again when the build is done
            error: cannot do it
              cause: refused as component_refused
              help: build it as a component for WASI 0.2: `cargo build --release --target wasm32-wasip2`
            error: cannot do it
              cause: refused as component_missing
              help: try again: it will be sent once more
            error: cannot do it
              cause: refused as input_missing
              help: try again: it will be sent once more
            error: cannot do it
              cause: refused as conflict
              help: `dunlin status` shows which app has it
            error: cannot do it
              cause: refused as busy
              help: try again in a few seconds
            error: cannot do it
              cause: refused as timeout
              help: try again in a few seconds
            error: cannot do it
              cause: refused as unavailable
              help: try again in a few seconds
            error: cannot do it
              cause: refused as internal
              help: the coordinator is at fault; its log says more
            error: cannot do it
              cause: refused as unknown_run
              help: `dunlin status` shows the apps, `dunlin job status` the runs; `--namespace NAME` looks elsewhere
            error: cannot do it
              cause: refused as unknown_node
              help: `dunlin nodes` shows the nodes there are
            error: cannot do it
              cause: refused as quota_exceeded
              help: wait until items have their records, or let an operator raise the quota: `dunlin namespace set`
            error: cannot do it
              cause: refused as invalid_namespace
              help: `dunlin namespace set --help` says what may be set
            error: cannot do it
              cause: refused as not_a_job
              help: `dunlin status` shows which workloads are jobs
            error: cannot do it
              cause: refused as no_items
              help: give it some: `--items 10`, or `--input` with a pattern that matches files
            error: cannot do it
              cause: refused as too_many_items
              help: divide the work into several runs, or give each item more to do
            error: cannot do it
              cause: refused as core_module
              help: build it as a component for WASI 0.2: `cargo build --release --target wasm32-wasip2`
            error: cannot do it
              cause: refused as missing_imports
              help: build it without what needs these imports; the cause says for each why it is not there
            error: cannot do it
              cause: refused as feature_off
              help: switch this feature off in your compiler
            error: cannot do it
              cause: refused as too_large
              help: build it with `--release`, strip it, or split it
            error: cannot do it
              cause: refused as route_taken
              help: choose another host or path; `dunlin status` shows all routes
        "#]]
        .assert_eq(&lines);
    }

    #[test]
    fn what_comes_from_outside_cannot_steer_the_terminal() {
        let error = CommandError::failed("cannot run `\u{1b}[2J`").because("trap: \u{9b}31m\r");
        let text = error.to_string();
        assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    }

    #[test]
    fn programs_get_the_same_parts() {
        let error = CommandError::usage("cannot delete `shop`").because("there is no `--yes`").help("add it");
        expect![[r#"{"causes":["there is no `--yes`"],"error":"cannot delete `shop`","exit_code":2,"help":"add it"}"#]].assert_eq(&error.json().to_string());
    }
}
