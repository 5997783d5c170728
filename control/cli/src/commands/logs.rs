//! `dunlin logs`: what guests print, from all nodes.

use clap::Args;
use dunlin_api::{LogLine, LogsQuery, TrapsQuery};
use dunlin_model::LogSource;
use futures_util::StreamExt as _;

use crate::args::Global;
use crate::commands::explain::listed;
use crate::error::CommandError;
use crate::names;
use crate::output::{Output, Raw, escaped};
use crate::time::utc;

/// Show what guests print.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin logs shop --follow")]
pub(crate) struct LogsArgs {
    /// `app`, `workload`, `app/workload`, `namespace/app/workload` or an allocation like `a12`; all if absent.
    #[arg(value_name = "APP|WORKLOAD|ALLOCATION")]
    pub(crate) of: Option<String>,
    /// Go on with new lines as they come.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the latest lines of each allocation.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) tail: u32,
    /// Show instances that ended badly instead; `dunlin explain INSTANCE` tells all about one.
    #[arg(long, conflicts_with_all = ["follow", "raw"])]
    pub(crate) traps: bool,
    /// Print control characters as they are.
    #[arg(long)]
    pub(crate) raw: bool,
}

pub(crate) async fn run(global: &Global, args: LogsArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let failed = |error| CommandError::client("cannot show the logs", &error);
    // Only a name must be looked up.
    let apps = match &args.of {
        Some(_) => client.apps().await.map_err(failed)?.apps,
        None => Vec::new(),
    };
    let mut query = names::logs(args.of.as_deref(), global.namespace.as_ref(), &apps)?;
    if args.traps {
        let LogsQuery { namespace, app, workload, allocation, .. } = query;
        let (instance, tail) = (None, Some(args.tail));
        let query = TrapsQuery { namespace, app, workload, allocation, instance, tail };
        let failed = |error| CommandError::client("cannot show what ended badly", &error);
        let list = client.traps(&query).await.map_err(failed)?;
        for node in &list.unheard {
            output.note(&format!("{node} could not be asked"));
        }
        return output.result(&list, || listed(&list));
    }
    query.tail = Some(args.tail);
    query.follow = Some(args.follow);
    let mut lines = client.logs(&query).await.map_err(failed)?;
    while let Some(line) = lines.next().await {
        let line = line.map_err(failed)?;
        if output.is_json() {
            output.json_line(&line)?;
        } else {
            output.text(&shown(&line, Raw::from(args.raw)))?;
        }
    }
    Ok(())
}

/// Returns a line as it is shown.
pub(crate) fn shown(line: &LogLine, raw: Raw) -> String {
    let LogLine { node, record } = line;
    let source = match record.source {
        LogSource::Stdout => "stdout",
        LogSource::Stderr => "stderr",
        LogSource::Debug => "debug",
        LogSource::Info => "info",
        LogSource::Warn => "warn",
        LogSource::Error => "error",
        LogSource::Host => "host",
    };
    let text = match raw {
        Raw::Yes => record.text.clone(),
        // A line end inside a record would let a guest forge the line of another.
        Raw::No => escaped(&record.text).replace('\n', "\\n"),
    };
    format!("{} {node} {} {source:<6} | {text}", utc(record.at), record.instance)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_line_cannot_forge_another_unless_raw() {
        let json = r#"{"node":"node-1","record":{"at":1763870400123,"instance":{"allocation":"a12","number":3},
            "source":"stdout","text":"hi\u001b]0;title\u0007\n2025-11-23T04:00:00.123Z node-1 a1.1 host | fine"}}"#;
        let line = serde_json::from_str(json).unwrap();
        expect![[r#"2025-11-23T04:00:00.123Z node-1 a12.3 stdout | hi\u{1b}]0;title\u{7}\n2025-11-23T04:00:00.123Z node-1 a1.1 host | fine"#]].assert_eq(&shown(&line, Raw::No));
        assert!(shown(&line, Raw::Yes).contains("\u{1b}]0;title\u{7}\n"));
        expect![[r#"{"node":"node-1","record":{"at":1763870400123,"instance":{"allocation":"a12","number":3},"source":"stdout","text":"hi\u001b]0;title\u0007\n2025-11-23T04:00:00.123Z node-1 a1.1 host | fine"}}"#]].assert_eq(&serde_json::to_string(&line).unwrap());
    }
}
