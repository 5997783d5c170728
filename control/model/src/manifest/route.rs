//! The routes of a service.

use super::Found;
use super::reader::{Reader, Section};
use super::workload::{PlacedRoute, plain};
use crate::check;
use crate::route_rules::{RateLimit, Redirect, Respond, RouteRules, Sticky};
use crate::{DurationMs, RouteSpec};

const ROUTE_EXAMPLE: &str = "[{ host = \"hello.localhost\", path = \"/\" }]";
const FIELDS: [&str; 9] =
    ["host", "path", "headers", "rate_limit", "body_limit", "timeout", "redirect", "respond", "sticky"];
const DURATION: &str = "a string like \"10s\"";
/// The time of a rate that says none.
const PER: DurationMs = DurationMs(1000);

pub(super) fn routes(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<PlacedRoute> {
    let sections = reader.list_of_sections(section, "routes", ROUTE_EXAMPLE);
    let rule = check::at_most("routes", check::MAX_ROUTES, sections.len());
    reader.expect(section.place("routes"), section.path("routes"), rule);
    sections.iter().map(|route| Found { value: spec(reader, route), at: route.at() }).collect()
}

fn spec(reader: &mut Reader<'_>, route: &Section<'_>) -> RouteSpec {
    reader.refuse_unknown(route, &FIELDS);
    let host = reader.string(route, "host", "a string like \"hello.localhost\"");
    if let Some(Found { value, at }) = &host {
        reader.expect(*at, route.path("host"), check::route_host(value));
    }
    let path = reader.string(route, "path", "a string like \"/\"");
    if let Some(Found { value, at }) = &path {
        reader.expect(*at, route.path("path"), check::route_path(value));
    }
    let rules = RouteRules {
        headers: reader
            .map_of_strings(route, "headers")
            .map(|(_, entries)| plain(entries))
            .unwrap_or_default(),
        rate_limit: rate_limit(reader, route),
        body_limit: reader.parsed(route, "body_limit", "a string like \"1MiB\"").map(|found| found.value),
        timeout: reader.parsed(route, "timeout", DURATION).map(|found| found.value),
        redirect: redirect(reader, route),
        respond: respond(reader, route),
        sticky: sticky(reader, route),
    };
    rules.check(&mut |field, rule| {
        let at = route.place(field.split('.').next().unwrap_or(field));
        reader.expect(at, route.path(field), rule);
    });
    RouteSpec {
        host: host.map(|found| found.value),
        path: path.map_or_else(|| "/".to_owned(), |found| found.value),
        rules: (!rules.is_empty()).then(|| Box::new(rules)),
    }
}

fn rate_limit(reader: &mut Reader<'_>, route: &Section<'_>) -> Option<RateLimit> {
    let section = &reader.section(route, "rate_limit")?;
    reader.refuse_unknown(section, &["requests", "per", "burst", "by"]);
    if !section.has("requests") {
        reader.missing(section, "requests", "20");
    }
    let requests = reader.count(section, "requests")?.value;
    let burst = reader.count(section, "burst").map_or(requests, |found| found.value);
    let per = reader.parsed(section, "per", DURATION).map_or(PER, |found| found.value);
    let by = reader.string(section, "by", "the name of a header, like \"x-api-key\"");
    Some(RateLimit { requests, per, burst, by: by.map(|found| found.value) })
}

fn redirect(reader: &mut Reader<'_>, route: &Section<'_>) -> Option<Redirect> {
    let section = &reader.section(route, "redirect")?;
    reader.refuse_unknown(section, &["to", "status"]);
    if !section.has("to") {
        reader.missing(section, "to", "\"/new\"");
    }
    let to = reader.string(section, "to", "a string like \"/new\"")?.value;
    Some(Redirect { to, status: status(reader, section).unwrap_or(Redirect::STATUS) })
}

fn respond(reader: &mut Reader<'_>, route: &Section<'_>) -> Option<Respond> {
    let section = &reader.section(route, "respond")?;
    reader.refuse_unknown(section, &["status", "body", "content_type"]);
    let body = reader.string(section, "body", "a string like \"gone fishing\"");
    let content_type = reader.string(section, "content_type", "a string like \"text/plain\"");
    Some(Respond {
        status: status(reader, section).unwrap_or(Respond::STATUS),
        body: body.map(|found| found.value).unwrap_or_default(),
        content_type: content_type.map_or_else(|| Respond::CONTENT_TYPE.to_owned(), |found| found.value),
    })
}

fn sticky(reader: &mut Reader<'_>, route: &Section<'_>) -> Option<Sticky> {
    let section = &reader.section(route, "sticky")?;
    reader.refuse_unknown(section, &["cookie", "header"]);
    let cookie = reader.string(section, "cookie", "the name of a cookie, like \"shop\"");
    let header = reader.string(section, "header", "the name of a header, like \"x-user\"");
    match (cookie, header) {
        (Some(cookie), None) => Some(Sticky::Cookie(cookie.value)),
        (None, Some(header)) => Some(Sticky::Header(header.value)),
        _ => {
            reader.note(section.at(), route.path("sticky"), "say either `cookie` or `header`");
            None
        }
    }
}

/// Returns a status; one that does not fit into its type is one that no rule takes.
fn status(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<u16> {
    reader.count(section, "status").map(|found| u16::try_from(found.value).unwrap_or(u16::MAX))
}
