//! The paths of the API, as templates for the server and filled in for the client.

use dunlin_model::{AllocationId, AppName, Digest, InstanceId, Name, NodeId, RunId, SecretId, WorkloadName};

/// `PUT` the bytes of a component, `HEAD` to ask whether they are there.
pub const COMPONENT: &str = "/v1/components/{digest}";
/// `PUT` the bytes of an input or of a list of inputs, `HEAD` to ask whether they are there.
pub const INPUT: &str = "/v1/inputs/{digest}";
/// `GET` all apps.
pub const APPS: &str = "/v1/apps";
/// `PUT` an app's spec, `GET` its status, `DELETE` it.
pub const APP: &str = "/v1/apps/{namespace}/{app}";
/// `POST` to stop an app without deleting it.
pub const APP_STOP: &str = "/v1/apps/{namespace}/{app}/stop";
/// `GET` the revisions of an app that are kept.
pub const APP_REVISIONS: &str = "/v1/apps/{namespace}/{app}/revisions";
/// `POST` to make an earlier revision of an app the newest again.
pub const APP_ROLLBACK: &str = "/v1/apps/{namespace}/{app}/rollback";
/// `POST` to let all allocations of an app follow its canaries.
pub const APP_PROMOTE: &str = "/v1/apps/{namespace}/{app}/promote";
/// `POST` an app's spec to learn what a deploy would change.
pub const APP_PLAN: &str = "/v1/apps/{namespace}/{app}/plan";
/// `POST` to learn what would come of a loss, a deploy, more load.
pub const SIMULATIONS: &str = "/v1/simulations";
/// `GET` the fleet written down, to be simulated elsewhere.
pub const SNAPSHOT: &str = "/v1/snapshot";
/// `GET` why a workload is as it is.
pub const WORKLOAD_EXPLANATION: &str = "/v1/workloads/{namespace}/{app}/{workload}/explanation";
/// `GET` why an allocation is where it is, or why it ended.
pub const ALLOCATION_EXPLANATION: &str = "/v1/allocations/{allocation}/explanation";
/// `POST` to start a run of a job.
pub const JOB_RUNS: &str = "/v1/jobs/{namespace}/{app}/{job}/runs";
/// `GET` the runs.
pub const RUNS: &str = "/v1/runs";
/// `GET` one run.
pub const RUN: &str = "/v1/runs/{run}";
/// `GET` the recorded items of a run, page by page.
pub const RUN_ITEMS: &str = "/v1/runs/{run}/items";
/// `POST` to cancel a run.
pub const RUN_CANCEL: &str = "/v1/runs/{run}/cancel";
/// `GET` all nodes.
pub const NODES: &str = "/v1/nodes";
/// `POST` to let nothing new go to a node, and what is there leave it if wanted.
pub const NODE_CORDON: &str = "/v1/nodes/{node}/cordon";
/// `POST` to let a node be used as any other.
pub const NODE_UNCORDON: &str = "/v1/nodes/{node}/uncordon";
/// `POST` to accept the key of a node no more.
pub const NODE_REVOKE: &str = "/v1/nodes/{node}/revoke";
/// `POST` to let a machine become a node that waits for it.
pub const NODE_APPROVE: &str = "/v1/nodes/{node}/approve";
/// `DELETE` to take a node off the list that is there no more.
pub const NODE: &str = "/v1/nodes/{node}";
/// `POST` to let what lost nodes ran be replaced at once, though many were lost together.
pub const BRAKE_RELEASE: &str = "/v1/brake/release";
/// `GET` all namespaces.
pub const NAMESPACES: &str = "/v1/namespaces";
/// `GET` what a namespace may have and has, `PUT` what it may have.
pub const NAMESPACE: &str = "/v1/namespaces/{namespace}";
/// `GET` which secrets a namespace has.
pub const SECRETS: &str = "/v1/namespaces/{namespace}/secrets";
/// `PUT` the value of a secret, `DELETE` it. Nobody can `GET` it.
pub const SECRET: &str = "/v1/namespaces/{namespace}/secrets/{name}";
/// `PUT` the bytes of a program, `HEAD` to ask whether they are there.
pub const PROGRAM: &str = "/v1/programs/{digest}";
/// `GET` how the last upgrade stands, `POST` to begin one.
pub const UPGRADE: &str = "/v1/upgrade";
/// `POST` to have no further node told.
pub const UPGRADE_STOP: &str = "/v1/upgrade/stop";
/// `POST` to go on with an upgrade that was stopped.
pub const UPGRADE_RESUME: &str = "/v1/upgrade/resume";
/// `POST` to have all agents become what they were before.
pub const UPGRADE_REVERT: &str = "/v1/upgrade/revert";
/// `POST` to create a token with which a node joins.
pub const JOIN_TOKENS: &str = "/v1/tokens/join";
/// `GET` all that the coordinator has, to be restored elsewhere.
pub const BACKUP: &str = "/v1/backup";
/// `POST` to let a coordinator that is in recovery go on.
pub const RECOVERY_CONFIRM: &str = "/v1/recovery/confirm";
/// `GET` a stream of what guests print.
pub const LOGS: &str = "/v1/logs";
/// `GET` what is known of instances that ended badly.
pub const TRAPS: &str = "/v1/traps";
/// `GET` the core dump of an instance that trapped on a node.
pub const COREDUMP: &str = "/v1/nodes/{node}/coredumps/{instance}";
/// `GET` the fleet in one line.
pub const STATUS: &str = "/v1/status";
/// `GET` the OpenAPI document; needs no identity.
pub const OPENAPI: &str = "/openapi.json";
/// `GET` whether the coordinator answers; needs no identity.
pub const HEALTH: &str = "/healthz";

/// Returns the path of one component.
pub fn component(digest: &Digest) -> String {
    format!("/v1/components/{digest}")
}

/// Returns the path of one input.
pub fn input(digest: &Digest) -> String {
    format!("/v1/inputs/{digest}")
}

/// Returns the path of one core dump.
pub fn coredump(node: &NodeId, instance: InstanceId) -> String {
    format!("/v1/nodes/{node}/coredumps/{instance}")
}

/// Returns the path of one app.
pub fn app(name: &AppName) -> String {
    format!("/v1/apps/{}/{}", name.namespace, name.app)
}

/// Returns the path which stops an app.
pub fn app_stop(name: &AppName) -> String {
    format!("{}/stop", app(name))
}

/// Returns the path of the revisions of an app.
pub fn app_revisions(name: &AppName) -> String {
    format!("{}/revisions", app(name))
}

/// Returns the path which makes an earlier revision of an app the newest again.
pub fn app_rollback(name: &AppName) -> String {
    format!("{}/rollback", app(name))
}

/// Returns the path which promotes the canaries of an app.
pub fn app_promote(name: &AppName) -> String {
    format!("{}/promote", app(name))
}

/// Returns the path which plans a deploy of an app.
pub fn app_plan(name: &AppName) -> String {
    format!("{}/plan", app(name))
}

/// Returns the path which says why a workload is as it is.
pub fn workload_explanation(name: &WorkloadName) -> String {
    format!("/v1/workloads/{}/{}/{}/explanation", name.namespace, name.app, name.workload)
}

/// Returns the path which says why an allocation is where it is.
pub fn allocation_explanation(id: AllocationId) -> String {
    format!("/v1/allocations/{id}/explanation")
}

/// Returns the path which starts runs of a job.
pub fn job_runs(name: &AppName, job: &Name) -> String {
    format!("/v1/jobs/{}/{}/{job}/runs", name.namespace, name.app)
}

/// Returns the path of one run.
pub fn run(run: RunId) -> String {
    format!("/v1/runs/{run}")
}

/// Returns the path of a run's items.
pub fn run_items(run: RunId) -> String {
    format!("/v1/runs/{run}/items")
}

/// Returns the path which cancels a run.
pub fn run_cancel(run: RunId) -> String {
    format!("/v1/runs/{run}/cancel")
}

/// Returns the path which cordons a node.
pub fn node_cordon(node: &NodeId) -> String {
    format!("/v1/nodes/{node}/cordon")
}

/// Returns the path which lets a node be used as any other.
pub fn node_uncordon(node: &NodeId) -> String {
    format!("/v1/nodes/{node}/uncordon")
}

/// Returns the path by which the key of a node is accepted no more.
pub fn node_revoke(node: &NodeId) -> String {
    format!("/v1/nodes/{node}/revoke")
}

/// Returns the path which lets a machine become a node that waits for it.
pub fn node_approve(node: &NodeId) -> String {
    format!("/v1/nodes/{node}/approve")
}

/// Returns the path of one node.
pub fn node(node: &NodeId) -> String {
    format!("/v1/nodes/{node}")
}

/// Returns the path of one namespace.
pub fn namespace(namespace: &Name) -> String {
    format!("/v1/namespaces/{namespace}")
}

/// Returns the path of the secrets of a namespace.
pub fn secrets(of: &Name) -> String {
    format!("{}/secrets", namespace(of))
}

/// Returns the path of one secret.
pub fn secret(id: &SecretId) -> String {
    format!("{}/{}", secrets(&id.namespace), id.name)
}

/// Returns the path of a program.
pub fn program(digest: &Digest) -> String {
    format!("/v1/programs/{digest}")
}
