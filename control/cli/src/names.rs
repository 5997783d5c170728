//! Names on the command line: what a short one stands for.
//!
//! `shop` may be an app, a workload or both; with `--namespace`, the manifest in the current folder and the list of
//! apps it becomes a full name, or an error which lists what it could have been. Nothing is asked of anybody here.

use dunlin_api::{AppStatus, LogsQuery, ServiceOrJob};
use dunlin_model::{AllocationId, AppName, Manifest, Name, WorkloadKind, WorkloadName};

use crate::error::CommandError;

const DEFAULT_NAMESPACE: &str = "default";

/// Returns the app named `app` or `namespace/app`.
pub(crate) fn app(text: &str, namespace: Option<&Name>) -> Result<AppName, CommandError> {
    let named = if text.contains('/') {
        text.parse()
    } else {
        text.parse().map(|app| AppName { namespace: namespace_or_default(namespace), app })
    };
    named.map_err(|error| {
        CommandError::usage(format!("cannot tell which app `{text}` is"))
            .caused_by(&error)
            .help("name it like `shop` or `default/shop`; `dunlin status` lists all")
    })
}

/// Returns the namespace that was named, or the one of those who name none.
pub(crate) fn namespace_or_default(namespace: Option<&Name>) -> Name {
    namespace.cloned().unwrap_or_else(|| DEFAULT_NAMESPACE.parse().expect("`default` is a name"))
}

/// A workload's name with what was left out.
#[derive(Debug)]
struct Partial {
    namespace: Option<Name>,
    app: Option<Name>,
    workload: Name,
}

impl Partial {
    fn parse(text: &str, namespace: Option<&Name>) -> Result<Self, CommandError> {
        let wrong = |error: dunlin_model::NameError| {
            CommandError::usage(format!("cannot tell which workload `{text}` is"))
                .caused_by(&error)
                .help("name it like `cart`, `shop/cart` or `default/shop/cart`; `dunlin status` lists all")
        };
        let parts: Vec<&str> = text.split('/').collect();
        let name = |part: &str| part.parse::<Name>().map_err(wrong);
        Ok(match parts.as_slice() {
            [workload] => Self { namespace: namespace.cloned(), app: None, workload: name(workload)? },
            [app, workload] => {
                Self { namespace: namespace.cloned(), app: Some(name(app)?), workload: name(workload)? }
            }
            _ => {
                let full: WorkloadName = text.parse().map_err(wrong)?;
                Self { namespace: Some(full.namespace), app: Some(full.app), workload: full.workload }
            }
        })
    }

    fn matches(&self, name: &WorkloadName) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace)
            && self.app.as_ref().is_none_or(|app| *app == name.app)
            && self.workload == name.workload
    }
}

/// Returns the job which `text` means: that of the manifest in the current folder before one in the fleet.
pub(crate) fn job(
    text: &str,
    namespace: Option<&Name>,
    manifest: Option<&Manifest>,
    apps: &[AppStatus],
) -> Result<WorkloadName, CommandError> {
    let partial = Partial::parse(text, namespace)?;
    if let Some(manifest) = manifest {
        let mut app = manifest.app_name();
        // What `--namespace` does to a deploy, it does to what comes after.
        app.namespace = namespace.cloned().unwrap_or(app.namespace);
        let job = manifest.workloads.get(&partial.workload);
        let is_job = job.is_some_and(|workload| matches!(workload.kind, WorkloadKind::Job(_)));
        let name = app.workload(&partial.workload);
        if is_job && partial.matches(&name) {
            return Ok(name);
        }
    }
    let jobs = workloads(apps).filter(|(_, kind)| *kind == ServiceOrJob::Job).map(|(name, _)| name);
    one_of(jobs.filter(|name| partial.matches(name)).collect(), text, "job")
}

/// Returns the names of all workloads of these apps.
pub(crate) fn of_apps(apps: &[AppStatus]) -> Vec<WorkloadName> {
    workloads(apps).map(|(name, _)| name).collect()
}

/// Returns the workload among `known` which `text` means. A whole name is believed, also of one that is gone; an app
/// with a single workload stands for that.
pub(crate) fn workload(
    text: &str,
    namespace: Option<&Name>,
    known: &[WorkloadName],
) -> Result<WorkloadName, CommandError> {
    if let Ok(whole) = text.parse() {
        return Ok(whole);
    }
    let partial = Partial::parse(text, namespace)?;
    let found: Vec<WorkloadName> = known.iter().filter(|name| partial.matches(name)).cloned().collect();
    if found.is_empty() && !text.contains('/') {
        let of_app = |name: &&WorkloadName| {
            name.app.as_str() == text && namespace.is_none_or(|namespace| *namespace == name.namespace)
        };
        return one_of(known.iter().filter(of_app).cloned().collect(), text, "workload");
    }
    one_of(found, text, "workload")
}

/// Returns the query for the log lines of an allocation, an app or a workload.
pub(crate) fn logs(
    text: Option<&str>,
    namespace: Option<&Name>,
    apps: &[AppStatus],
) -> Result<LogsQuery, CommandError> {
    let Some(text) = text else {
        return Ok(LogsQuery { namespace: namespace.cloned(), ..LogsQuery::default() });
    };
    let matching = |name: &AppName| namespace.is_none_or(|namespace| *namespace == name.namespace);
    let named: Vec<&AppName> =
        apps.iter().map(|app| &app.name).filter(|name| matching(name) && name.app.as_str() == text).collect();
    if named.is_empty()
        && let Ok(allocation) = text.parse::<AllocationId>()
    {
        return Ok(LogsQuery { allocation: Some(allocation), ..LogsQuery::default() });
    }
    if let [name] = named.as_slice() {
        return Ok(LogsQuery {
            namespace: Some(name.namespace.clone()),
            app: Some(name.app.clone()),
            ..LogsQuery::default()
        });
    }
    if named.len() > 1 {
        return Err(ambiguous(text, named.into_iter().map(ToString::to_string)));
    }
    let partial = Partial::parse(text, namespace)?;
    let found = workloads(apps).map(|(name, _)| name).filter(|name| partial.matches(name)).collect();
    let name = one_of(found, text, "app, workload or allocation")?;
    Ok(LogsQuery {
        namespace: Some(name.namespace),
        app: Some(name.app),
        workload: Some(name.workload),
        ..LogsQuery::default()
    })
}

fn workloads(apps: &[AppStatus]) -> impl Iterator<Item = (WorkloadName, ServiceOrJob)> {
    apps.iter().flat_map(|app| {
        app.workloads.iter().map(|workload| (app.name.workload(&workload.name), workload.kind))
    })
}

fn one_of(mut found: Vec<WorkloadName>, text: &str, kind: &str) -> Result<WorkloadName, CommandError> {
    match (found.len(), found.pop()) {
        (1, Some(name)) => Ok(name),
        (_, Some(last)) => Err(ambiguous(text, found.iter().chain([&last]).map(ToString::to_string))),
        (_, None) => Err(CommandError::failed(format!("there is no {kind} `{text}`"))
            .help("`dunlin status` lists what there is; deploy it first with `dunlin deploy`")),
    }
}

fn ambiguous(text: &str, candidates: impl Iterator<Item = String>) -> CommandError {
    let candidates: Vec<String> = candidates.map(|name| format!("`{name}`")).collect();
    CommandError::usage(format!("`{text}` could be more than one"))
        .because(format!("there are {}", candidates.join(", ")))
        .help("write the whole name, or choose with `--namespace NAME`")
}

#[cfg(test)]
mod tests {
    use dunlin_api::WorkloadStatus;
    use dunlin_model::{Digest, Limits, Revision};
    use expect_test::expect;

    use super::*;

    fn fleet() -> Vec<AppStatus> {
        let app = |name: &str, workloads: &[(&str, ServiceOrJob)]| AppStatus {
            name: name.parse().unwrap(),
            restores: None,
            rollout: None,
            revision: Revision(1),
            workloads: workloads
                .iter()
                .map(|(name, kind)| WorkloadStatus {
                    name: name.parse().unwrap(),
                    kind: *kind,
                    desired: 0,
                    running: 0,
                    waiting: None,
                    routes: Vec::new(),
                    limits: Limits::SERVICE,
                    component: Digest::of(b""),
                    allocations: Vec::new(),
                    after: Vec::new(),
                    schedule: None,
                })
                .collect(),
        };
        vec![
            app("default/shop", &[("cart", ServiceOrJob::Service), ("sum", ServiceOrJob::Job)]),
            app("default/a7", &[("web", ServiceOrJob::Service)]),
            app("team-b/shop", &[("sum", ServiceOrJob::Job), ("tidy", ServiceOrJob::Job)]),
        ]
    }

    fn job_name(text: &str, namespace: &str) -> String {
        let namespace = namespace.parse().ok();
        job(text, namespace.as_ref(), None, &fleet())
            .map_or_else(|error| error.to_string(), |name| name.to_string())
    }

    #[test]
    fn a_short_name_finds_the_only_job() {
        assert_eq!(job_name("tidy", ""), "team-b/shop/tidy");
        assert_eq!(job_name("sum", "team-b"), "team-b/shop/sum");
        assert_eq!(job_name("shop/sum", "default"), "default/shop/sum");
        assert_eq!(job_name("default/shop/sum", "team-b"), "default/shop/sum");
    }

    #[test]
    fn a_name_without_one_meaning_is_refused_with_help() {
        let lines =
            job_name("sum", "") + &job_name("cart", "") + &job_name("a/b/c/d", "") + &job_name("A", "");
        expect![[r#"
            error: `sum` could be more than one
              cause: there are `default/shop/sum`, `team-b/shop/sum`
              help: write the whole name, or choose with `--namespace NAME`
            error: there is no job `cart`
              help: `dunlin status` lists what there is; deploy it first with `dunlin deploy`
            error: cannot tell which workload `a/b/c/d` is
              cause: `a/b/c/d` should have the form namespace/app/workload
              help: name it like `cart`, `shop/cart` or `default/shop/cart`; `dunlin status` lists all
            error: cannot tell which workload `A` is
              cause: `A` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
              help: name it like `cart`, `shop/cart` or `default/shop/cart`; `dunlin status` lists all
        "#]]
        .assert_eq(&lines);
        let error = app("a/b/c", None).unwrap_err().to_string();
        expect![[r#"
            error: cannot tell which app `a/b/c` is
              cause: `b/c` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
              help: name it like `shop` or `default/shop`; `dunlin status` lists all
        "#]]
        .assert_eq(&error);
    }

    #[test]
    fn a_workload_is_found_by_its_name_by_its_app_and_when_it_is_gone() {
        let found = |text: &str| {
            workload(text, None, &of_apps(&fleet()))
                .map_or_else(|error| error.what().to_owned(), |it| it.to_string())
        };
        assert_eq!(found("cart"), "default/shop/cart");
        assert_eq!(found("a7"), "default/a7/web");
        assert_eq!(found("default/gone/web"), "default/gone/web");
        assert_eq!(found("shop"), "`shop` could be more than one");
        assert_eq!(found("nothing"), "there is no workload `nothing`");
    }

    #[test]
    fn the_manifest_at_hand_goes_before_the_fleet() {
        let text = "app.name = \"shop\"\njob.sum.component = \"a.wasm\"\n";
        let manifest = Manifest::parse(text).unwrap();
        let name = job("sum", None, Some(&manifest), &fleet()).unwrap();
        assert_eq!(name.to_string(), "default/shop/sum");
        let name = job("sum", Some(&"team-c".parse().unwrap()), Some(&manifest), &fleet()).unwrap();
        assert_eq!(name.to_string(), "team-c/shop/sum");
    }

    #[test]
    fn logs_know_allocations_apps_and_workloads() {
        let query = |text: &str| {
            let query = logs(Some(text), None, &fleet()).unwrap();
            serde_json::to_string(&query).unwrap()
        };
        assert_eq!(query("a12"), r#"{"allocation":"a12"}"#);
        assert_eq!(query("a7"), r#"{"namespace":"default","app":"a7"}"#);
        assert_eq!(query("cart"), r#"{"namespace":"default","app":"shop","workload":"cart"}"#);
        assert!(logs(Some("shop"), None, &fleet()).is_err());
        let namespace = "team-b".parse().unwrap();
        let query = logs(Some("shop"), Some(&namespace), &fleet()).unwrap();
        assert_eq!(query.namespace, Some(namespace));
    }
}
