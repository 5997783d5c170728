//! `dunlin serve`: one service until Ctrl-C, in the sandbox of a fleet's nodes and behind their front door.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use dunlin_agent::{Solo, SoloUse};
use dunlin_model::{Instances, LogRecord, RouteSpec, ServiceSpec, WorkloadKind};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::alone::{Intent, Prepared, SandboxArgs, show_logs, source, take_dump};
use super::processes::{Stop, failed, start_quiet_log};
use crate::error::CommandError;
use crate::output::Output;

/// Serve one component over HTTP, without a fleet.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin serve hello.wasm --addr 127.0.0.1:8080")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Where requests are taken (TCP); port 0 takes any that is free.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), value_name = "ADDRESS")]
    addr: SocketAddr,
    /// Let an instance answer one request after the other; what it keeps in its memory is there for the next.
    #[arg(long)]
    reuse: bool,
    /// Say in the header `dunlin-fuel` of each response what it burned.
    #[arg(long)]
    fuel_header: bool,
}

/// Serves the component until Ctrl-C or SIGTERM.
pub(crate) fn serve(args: ServeArgs, output: &Output) -> Result<(), CommandError> {
    let ServeArgs { sandbox, addr, reuse, fuel_header } = args;
    let routes = vec![RouteSpec::new(None, "/")];
    let service = ServiceSpec {
        allocations: 1,
        routes,
        fuel_header,
        everywhere: false,
        rollout: Default::default(),
        health: None,
        on_partition: Default::default(),
    };
    let mut prepared = sandbox.prepare(Intent::Serve, WorkloadKind::Service(service), start_quiet_log())?;
    if reuse {
        prepared.guest.spec.instances = Instances::Reused;
    }
    let cannot = |error: anyhow::Error| failed(&format!("cannot serve {}", prepared.label()), &error);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("could not start the threads of this process").map_err(cannot)?;
    let served = runtime.block_on(async {
        let stop = Stop::new().map_err(cannot)?;
        let listener =
            TcpListener::bind(addr).await.with_context(|| format!("could not listen on {addr} (TCP)"));
        serve_on(listener.map_err(cannot)?, &prepared, stop, output).await
    });
    // What still waits for a disk or a peer is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}

async fn serve_on(
    listener: TcpListener,
    prepared: &Prepared,
    mut stop: Stop,
    output: &Output,
) -> Result<(), CommandError> {
    let label = prepared.label();
    let address = listener.local_addr().map_err(|error| failed("cannot serve", &error.into()))?;
    let started = tokio::select! {
        started = Solo::start(prepared.config.clone(), prepared.guest.clone()) => started,
        () = stop.asked() => return Ok(()),
    };
    let mut solo = started.map_err(|error| prepared.not_started(&error))?;
    let url = format!("http://{address}/");
    output.result(&json!({ "url": url }), || format!("{url}\n"))?;
    for line in prepared.ungranted() {
        output.note(&line);
    }
    output.note(&format!("serving `{label}`; Ctrl-C ends it"));
    let (done, draining) = (CancellationToken::new(), CancellationToken::new());
    let logs = tokio::spawn(show_logs(solo.logs(), done.clone(), output.clone(), shown));
    let dumps = tokio::spawn(take_dumps(&solo, prepared.coredump.clone(), output.clone()));
    let asked = async {
        stop.asked().await;
        draining.cancel();
        // Who asks twice does not want to wait for what is under way.
        stop.asked().await;
    };
    let is_drained = tokio::select! {
        () = solo.serve(listener, draining.clone()) => true,
        () = asked => false,
    };
    let used = if is_drained { solo.end().await } else { solo.end_now().await };
    done.cancel();
    drop(logs.await);
    dumps.abort();
    let SoloUse { instances, fuel, memory } = used;
    let summary = json!({ "requests": instances, "fuel": fuel, "memory": memory });
    output.line_to_stderr(&summary, || {
        let requests = if instances == 1 { "request" } else { "requests" };
        Some(format!(
            "{instances} {requests}: {fuel} fuel burned, at most {memory} of memory in one instance"
        ))
    });
    Ok(())
}

/// Writes each core dump to the file that is to have the latest, as long as this is polled.
fn take_dumps(solo: &Solo, to: Option<PathBuf>, output: Output) -> impl Future<Output = ()> + use<> {
    let (mut kept, paths) = (solo.core_dumps(), solo.core_dump_paths());
    async move {
        let Some(to) = to else { return };
        while kept.changed().await.is_ok() {
            let instance = *kept.borrow_and_update();
            if let Some(instance) = instance {
                take_dump(&paths(instance), &to, &output);
            }
        }
    }
}

fn shown(record: &LogRecord) -> Option<String> {
    Some(format!("{} {:<6} | {}", record.instance, source(record.source), record.text))
}
