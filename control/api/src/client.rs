//! The typed client: one method per endpoint.
//!
//! It trusts the fleet's own authority and no other, sends its token nowhere but to the configured coordinator
//! (redirects are not followed), and reads at most [`MAX_ANSWER`] bytes of any answer that is not a stream.

mod download;
mod error;
mod logs;
mod relay;
mod transport;

use std::fmt;

use bytes::Bytes;
use dunlin_model::{
    AllocationExplanation, AllocationId, AppName, AppSpec, Digest, Explanation, Forecast, InstanceId, Name,
    NamespaceSpec, NodeId, Plan, Revision, RunId, SecretId, WorkloadName,
};
use reqwest::Method;

pub use self::download::Download;
pub use self::error::{ClientConfigError, ClientError};
pub use self::logs::LogStream;
pub use self::relay::{Relay, Relayed};
use self::transport::Transport;
use crate::{
    AppList, AppStatus, BrakeReleased, ComponentInfo, CordonNode, CreateJoinToken, Deployed, FleetSnapshot,
    FleetStatus, ItemPage, ItemsQuery, JoinTokenCreated, LogsQuery, NamespaceList, NamespaceStatus, NodeList,
    NodeStatus, RevisionList, Rollback, RunList, RunStarted, RunStatus, RunsQuery, SecretList, SecretStatus,
    SetSecret, Simulate, StartRun, StartUpgrade, TrapList, TrapsQuery, UpgradeStatus, paths,
};

/// The most bytes of an answer that is not a stream.
pub const MAX_ANSWER: usize = 32 << 20;

/// Where the coordinator is, who it is, and who asks.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://host:port`; plain `http` only to this machine. Of several coordinators all, with commas: any may be
    /// asked, and another one is if one does not answer.
    pub url: String,
    /// The bearer token.
    pub token: String,
    /// The certificate of the fleet's authority, PEM. It may be empty for plain `http`.
    pub authority_pem: String,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A client of one coordinator. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

impl Client {
    /// Returns a client; nothing is sent yet.
    pub fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        Ok(Self { transport: Transport::new(config)? })
    }

    /// Returns where the coordinator is.
    pub fn url(&self) -> &str {
        self.transport.url()
    }

    /// Tells whether the coordinator has this component.
    pub async fn has_component(&self, digest: &Digest) -> Result<bool, ClientError> {
        self.transport.exists(&paths::component(digest)).await
    }

    /// Uploads a component; `progress` is told how many bytes were handed to the connection so far.
    pub async fn upload_component(
        &self,
        digest: &Digest,
        bytes: Bytes,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<ComponentInfo, ClientError> {
        self.transport.upload(&paths::component(digest), "application/wasm", bytes, progress).await
    }

    /// Tells whether the coordinator has this input.
    pub async fn has_input(&self, digest: &Digest) -> Result<bool, ClientError> {
        self.transport.exists(&paths::input(digest)).await
    }

    /// Uploads an input, or a list of inputs as JSON.
    pub async fn upload_input(&self, digest: &Digest, bytes: Bytes) -> Result<(), ClientError> {
        self.transport
            .upload_unanswered(&paths::input(digest), "application/octet-stream", bytes, |_| {})
            .await
    }

    /// Deploys an app: its spec is what should be from now on.
    pub async fn deploy(&self, spec: &AppSpec) -> Result<Deployed, ClientError> {
        self.transport.send(Method::PUT, &paths::app(&spec.name), spec).await
    }

    /// Deploys an app, and says that what it newly wants is accepted.
    pub async fn deploy_accepted(&self, spec: &AppSpec) -> Result<Deployed, ClientError> {
        let path = format!("{}?accept=true", paths::app(&spec.name));
        self.transport.send(Method::PUT, &path, spec).await
    }

    /// Returns how all apps stand.
    pub async fn apps(&self) -> Result<AppList, ClientError> {
        self.transport.get(paths::APPS).await
    }

    /// Returns how one app stands.
    pub async fn app(&self, name: &AppName) -> Result<AppStatus, ClientError> {
        self.transport.get(&paths::app(name)).await
    }

    /// Stops an app; it stays known.
    pub async fn stop_app(&self, name: &AppName) -> Result<(), ClientError> {
        self.transport.order(Method::POST, &paths::app_stop(name)).await
    }

    /// Deletes an app.
    pub async fn delete_app(&self, name: &AppName) -> Result<(), ClientError> {
        self.transport.order(Method::DELETE, &paths::app(name)).await
    }

    /// Returns the revisions of an app that are kept, the newest first.
    pub async fn revisions(&self, name: &AppName) -> Result<RevisionList, ClientError> {
        self.transport.get(&paths::app_revisions(name)).await
    }

    /// Makes an earlier revision of an app the newest again; the last that was well if none is named.
    pub async fn rollback(
        &self,
        name: &AppName,
        revision: Option<Revision>,
    ) -> Result<Deployed, ClientError> {
        self.transport.send(Method::POST, &paths::app_rollback(name), &Rollback { revision }).await
    }

    /// Lets all allocations of an app follow its canaries.
    pub async fn promote(&self, name: &AppName) -> Result<(), ClientError> {
        self.transport.order(Method::POST, &paths::app_promote(name)).await
    }

    /// Returns what a deploy would change; nothing is changed.
    pub async fn plan(&self, spec: &AppSpec) -> Result<Plan, ClientError> {
        self.transport.send(Method::POST, &paths::app_plan(&spec.name), spec).await
    }

    /// Returns what would come of something; nothing is changed.
    pub async fn simulate(&self, wish: &Simulate) -> Result<Forecast, ClientError> {
        self.transport.send(Method::POST, paths::SIMULATIONS, wish).await
    }

    /// Returns the fleet written down.
    pub async fn snapshot(&self) -> Result<FleetSnapshot, ClientError> {
        self.transport.get(paths::SNAPSHOT).await
    }

    /// Returns a backup of the coordinator: a tar archive, with the fleet's private key in it.
    pub async fn backup(&self) -> Result<Download, ClientError> {
        let response = self.transport.stream(paths::BACKUP).await?;
        Ok(Download::new(response, self.url().to_owned()))
    }

    /// Returns why a workload is as it is.
    pub async fn explain(&self, workload: &WorkloadName) -> Result<Explanation, ClientError> {
        self.transport.get(&paths::workload_explanation(workload)).await
    }

    /// Returns why an allocation is where it is, or why it ended.
    pub async fn explain_allocation(&self, id: AllocationId) -> Result<AllocationExplanation, ClientError> {
        self.transport.get(&paths::allocation_explanation(id)).await
    }

    /// Starts a run of a job.
    pub async fn start_run(
        &self,
        app: &AppName,
        job: &Name,
        start: &StartRun,
    ) -> Result<RunStarted, ClientError> {
        self.transport.send(Method::POST, &paths::job_runs(app, job), start).await
    }

    /// Returns how runs stand, the latest first.
    pub async fn runs(&self, query: &RunsQuery) -> Result<RunList, ClientError> {
        self.transport.get(&transport::with_query(paths::RUNS, query)).await
    }

    /// Returns how one run stands.
    pub async fn run(&self, run: RunId) -> Result<RunStatus, ClientError> {
        self.transport.get(&paths::run(run)).await
    }

    /// Returns one page of a run's recorded items.
    pub async fn run_items(&self, run: RunId, query: &ItemsQuery) -> Result<ItemPage, ClientError> {
        self.transport.get(&transport::with_query(&paths::run_items(run), query)).await
    }

    /// Cancels a run; items that are recorded stay recorded.
    pub async fn cancel_run(&self, run: RunId) -> Result<(), ClientError> {
        self.transport.order(Method::POST, &paths::run_cancel(run)).await
    }

    /// Returns how all nodes stand.
    pub async fn nodes(&self) -> Result<NodeList, ClientError> {
        self.transport.get(paths::NODES).await
    }

    /// Lets nothing new go to a node, and what is there leave it if wanted.
    pub async fn cordon_node(&self, node: &NodeId, wish: &CordonNode) -> Result<NodeStatus, ClientError> {
        self.transport.send(Method::POST, &paths::node_cordon(node), wish).await
    }

    /// Lets a node be used as any other.
    pub async fn uncordon_node(&self, node: &NodeId) -> Result<NodeStatus, ClientError> {
        self.transport.send(Method::POST, &paths::node_uncordon(node), &serde_json::json!({})).await
    }

    /// Accepts the key of a node no more.
    pub async fn revoke_node(&self, node: &NodeId) -> Result<NodeStatus, ClientError> {
        self.transport.send(Method::POST, &paths::node_revoke(node), &serde_json::json!({})).await
    }

    /// Lets a machine become a node that waits for it.
    pub async fn approve_node(&self, node: &NodeId) -> Result<(), ClientError> {
        self.transport.order(Method::POST, &paths::node_approve(node)).await
    }

    /// Takes a node off the list that is there no more, or sends a machine away that waits to become one.
    pub async fn remove_node(&self, node: &NodeId) -> Result<(), ClientError> {
        self.transport.order(Method::DELETE, &paths::node(node)).await
    }

    /// Lets what lost nodes ran be replaced at once, though many were lost together.
    pub async fn release_brake(&self) -> Result<BrakeReleased, ClientError> {
        self.transport.send(Method::POST, paths::BRAKE_RELEASE, &serde_json::json!({})).await
    }

    /// Returns what all namespaces may have and have.
    pub async fn namespaces(&self) -> Result<NamespaceList, ClientError> {
        self.transport.get(paths::NAMESPACES).await
    }

    /// Returns what one namespace may have and has.
    pub async fn namespace(&self, namespace: &Name) -> Result<NamespaceStatus, ClientError> {
        self.transport.get(&paths::namespace(namespace)).await
    }

    /// Lets a namespace have this much.
    pub async fn set_namespace(
        &self,
        namespace: &Name,
        spec: &NamespaceSpec,
    ) -> Result<NamespaceStatus, ClientError> {
        self.transport.send(Method::PUT, &paths::namespace(namespace), spec).await
    }

    /// Returns which secrets a namespace has.
    pub async fn secrets(&self, namespace: &Name) -> Result<SecretList, ClientError> {
        self.transport.get(&paths::secrets(namespace)).await
    }

    /// Lets a secret have this value.
    pub async fn set_secret(&self, id: &SecretId, wish: &SetSecret) -> Result<SecretStatus, ClientError> {
        self.transport.send(Method::PUT, &paths::secret(id), wish).await
    }

    /// Forgets a secret that nothing reads.
    pub async fn delete_secret(&self, id: &SecretId) -> Result<(), ClientError> {
        self.transport.order(Method::DELETE, &paths::secret(id)).await
    }

    /// Tells whether the coordinator has this program.
    pub async fn has_program(&self, digest: &Digest) -> Result<bool, ClientError> {
        self.transport.exists(&paths::program(digest)).await
    }

    /// Uploads a program.
    pub async fn upload_program(
        &self,
        digest: &Digest,
        bytes: Bytes,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(), ClientError> {
        let path = paths::program(digest);
        self.transport.upload_unanswered(&path, "application/octet-stream", bytes, progress).await
    }

    /// Returns how the last upgrade stands.
    pub async fn upgrade(&self) -> Result<UpgradeStatus, ClientError> {
        self.transport.get(paths::UPGRADE).await
    }

    /// Has agents become these programs.
    pub async fn start_upgrade(&self, wish: &StartUpgrade) -> Result<UpgradeStatus, ClientError> {
        self.transport.send(Method::POST, paths::UPGRADE, wish).await
    }

    /// Has no further node told.
    pub async fn stop_upgrade(&self) -> Result<UpgradeStatus, ClientError> {
        self.transport.send(Method::POST, paths::UPGRADE_STOP, &serde_json::json!({})).await
    }

    /// Goes on with an upgrade that was stopped.
    pub async fn resume_upgrade(&self) -> Result<UpgradeStatus, ClientError> {
        self.transport.send(Method::POST, paths::UPGRADE_RESUME, &serde_json::json!({})).await
    }

    /// Has all agents become what they were before the last upgrade.
    pub async fn revert_upgrade(&self) -> Result<UpgradeStatus, ClientError> {
        self.transport.send(Method::POST, paths::UPGRADE_REVERT, &serde_json::json!({})).await
    }

    /// Creates a token with which nodes join.
    pub async fn create_join_token(&self, wish: &CreateJoinToken) -> Result<JoinTokenCreated, ClientError> {
        self.transport.send(Method::POST, paths::JOIN_TOKENS, wish).await
    }

    /// Returns what guests printed; without an end if the query follows.
    pub async fn logs(&self, query: &LogsQuery) -> Result<LogStream, ClientError> {
        let response = self.transport.stream(&transport::with_query(paths::LOGS, query)).await?;
        Ok(LogStream::new(response, self.url().to_owned()))
    }

    /// Returns what is known of instances that ended badly.
    pub async fn traps(&self, query: &TrapsQuery) -> Result<TrapList, ClientError> {
        self.transport.get(&transport::with_query(paths::TRAPS, query)).await
    }

    /// Returns the core dump of an instance that trapped on `node`.
    pub async fn coredump(&self, node: &NodeId, instance: InstanceId) -> Result<Download, ClientError> {
        let response = self.transport.stream(&paths::coredump(node, instance)).await?;
        Ok(Download::new(response, self.url().to_owned()))
    }

    /// Lets a coordinator that is in recovery go on.
    pub async fn confirm_recovery(&self) -> Result<(), ClientError> {
        self.transport.order(Method::POST, paths::RECOVERY_CONFIRM).await
    }

    /// Returns the fleet in one line.
    pub async fn status(&self) -> Result<FleetStatus, ClientError> {
        self.transport.get(paths::STATUS).await
    }

    /// Succeeds if the coordinator answers at all; needs no valid token.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.transport.order(Method::GET, paths::HEALTH).await
    }
}
