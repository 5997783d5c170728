//! One connected agent: its hello, its reports, and what it may fetch.
//!
//! A node speaks only about itself: its name comes from its certificate, and it gets the bytes of its own
//! allocations only.

mod chunks;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{Assignment, ClusterId, Digest, NodeId, RunId, SecretId, SecretVersion, Term, Work};
use dunlin_planted::{Point, reached};
use dunlin_protocol::{
    Hello, RefusalCode, StreamReply, StreamRequest, ToAgent, ToCoordinator, Version, agree,
};
use dunlin_scheduler::{AllocationRecord, Observation, RunRecord};
use dunlin_sealed::SealingKey;
use dunlin_store::{Changes, Components};
use dunlin_transport::{
    Authority, CloseCode, Connection, ReceiveHalf, Relay, Role, SendError, SendHalf, Stream, key_hash,
};
use tokio::io::AsyncWriteExt as _;

pub(crate) use self::chunks::ChunkLists;
use self::chunks::Listed;
use crate::driver::Driver;
use crate::fleet::{Fleet, Heard, Outbox};
use crate::inputs::Inputs;
use crate::records;
use crate::site_turns::SiteTurns;

/// How long an agent may take for its hello.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// How many outputs are read from the store at once when they are combined.
const OUTPUT_PAGE: usize = 256;

/// What sessions work with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) cluster: ClusterId,
    pub(crate) term: Term,
    pub(crate) heartbeat: Duration,
    pub(crate) driver: Driver,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: Arc<dyn Changes>,
    pub(crate) components: Arc<Components>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) programs: Arc<Components>,
    pub(crate) chunk_lists: Arc<ChunkLists>,
    pub(crate) site_turns: Arc<SiteTurns>,
    /// Passes on what nodes have for each other that do not reach each other.
    pub(crate) relay: Arc<Relay>,
    pub(crate) authority: Arc<Authority>,
    /// Unseals secrets.
    pub(crate) sealing: SealingKey,
    /// How long the certificate of a node is good.
    pub(crate) node_lifetime: Duration,
}

impl Desk {
    /// Serves one agent until it goes away.
    pub(crate) async fn serve(self, connection: Connection, node: NodeId) {
        let control = match tokio::time::timeout(HELLO_TIME, self.greet(&connection, &node)).await {
            Ok(Ok(control)) => control,
            Ok(Err(error)) => {
                tracing::warn!(%node, error = &*error as &dyn std::error::Error, "agent was not accepted");
                return;
            }
            Err(_late) => {
                tracing::warn!(%node, "agent said no hello in time");
                connection.close(CloseCode::PROTOCOL, "no hello in time");
                return;
            }
        };
        let outbox = self.fleet.enter(node.clone(), connection.clone());
        let number = outbox.number;
        // It may have been revoked, or its name taken over, since it was looked at.
        if !self.is_member(&node, &connection) {
            connection.close(CloseCode::NOT_A_MEMBER, "this node is no member any more");
        }
        let over_tcp = connection.is_over_tcp();
        tracing::info!(%node, address = %connection.remote_address(), over_tcp, "agent connected");
        // Assignments that were decided before it came are decided again when it reports.
        self.driver.observe(Observation::Connected { node: node.clone() });
        let (sender, receiver) = control.split();
        tokio::select! {
            () = self.tell(sender, outbox, &node) => {}
            () = self.listen(receiver, &node) => {}
            () = self.answer(&connection, &node) => {}
        }
        connection.close(CloseCode::DONE, "the session ended");
        if self.fleet.leave(&node, number) {
            tracing::info!(%node, "agent disconnected");
            self.driver.observe(Observation::Disconnected { node });
        }
    }

    async fn greet(&self, connection: &Connection, node: &NodeId) -> anyhow::Result<Stream> {
        let (mut stream, hello) = loop {
            let mut stream = connection.accept().await?;
            match stream.receive_request().await? {
                StreamRequest::Control(hello) => break (stream, hello),
                // By its own clock its certificate has ended, or is about to.
                StreamRequest::Renew { signing_request } => {
                    self.renew(stream, connection, node, &signing_request).await?;
                }
                _ => anyhow::bail!("its first stream is not the control stream"),
            }
        };
        match self.check(&hello, node, connection) {
            Ok(version) => {
                let heartbeat_ms = u64::try_from(self.heartbeat.as_millis())?;
                let welcome = ToAgent::Welcome {
                    version,
                    cluster: self.cluster.clone(),
                    term: self.term,
                    heartbeat_ms,
                };
                stream.send_message(&welcome).await?;
                Ok(stream)
            }
            Err((code, message)) => {
                let refused = ToAgent::Refused { code, message: message.clone() };
                stream.send_message(&refused).await?;
                stream.finish();
                let _gone = stream.send.delivered().await;
                anyhow::bail!(message)
            }
        }
    }

    fn check(
        &self,
        hello: &Hello,
        node: &NodeId,
        connection: &Connection,
    ) -> Result<Version, (RefusalCode, String)> {
        if hello.cluster != self.cluster {
            let message =
                format!("the agent belongs to fleet {}, this is fleet {}", hello.cluster, self.cluster);
            return Err((RefusalCode::WrongCluster, message));
        }
        if hello.node != *node {
            let message = format!("the agent calls itself {}, its certificate says {node}", hello.node);
            return Err((RefusalCode::UnknownNode, message));
        }
        match self.driver.view().nodes.get(node) {
            Some(member) if member.record.revoked => {
                let message = format!(
                    "node {node} was revoked; this machine can join again with a fresh state folder and a new token"
                );
                return Err((RefusalCode::UnknownNode, message));
            }
            Some(member) if Some(member.record.key_fingerprint) == connection.peer_key_hash() => {}
            // Its certificate holds, but it was lost and replaced: two machines must not answer to one name.
            Some(_) => {
                let message = format!(
                    "another machine has taken over the name {node}; let this one join under its own"
                );
                return Err((RefusalCode::UnknownNode, message));
            }
            None => {
                let message = format!(
                    "node {node} is not known to this fleet; let it join again with a fresh state folder and a new token"
                );
                return Err((RefusalCode::UnknownNode, message));
            }
        }
        if hello.term > self.term {
            self.driver.observe(Observation::Fenced { node: node.clone(), term: hello.term });
            let message =
                format!("the agent has obeyed term {}, this coordinator has term {}", hello.term, self.term);
            return Err((RefusalCode::Fenced, message));
        }
        agree(hello.min_version, hello.max_version).ok_or_else(|| {
            let (min, max) = (Version::MIN.0, Version::MAX.0);
            let message = format!(
                "the agent speaks versions {} to {}, the coordinator {min} to {max}",
                hello.min_version.0, hello.max_version.0
            );
            (RefusalCode::VersionUnsupported, message)
        })
    }

    /// Sends what the driver decides for this node.
    async fn tell(&self, mut sender: SendHalf, mut outbox: Outbox, node: &NodeId) {
        loop {
            let message = tokio::select! {
                changed = outbox.assignment.changed() => {
                    if changed.is_err() { return }
                    let newest = outbox.assignment.borrow_and_update().clone();
                    match newest {
                        Some(assignment) => ToAgent::Assign(Box::new(Assignment::clone(&assignment))),
                        None => continue,
                    }
                }
                items = outbox.recorded.recv() => match items {
                    Some(items) => ToAgent::Recorded { cluster: self.cluster.clone(), term: self.term, items },
                    None => return,
                },
                changed = outbox.heard.changed() => {
                    if changed.is_err() { return }
                    let newest = outbox.heard.borrow_and_update().clone();
                    match newest {
                        Some(Heard { sent, leases }) => {
                            ToAgent::Heard { cluster: self.cluster.clone(), term: self.term, sent, leases }
                        }
                        None => continue,
                    }
                }
            };
            let is_order = matches!(message, ToAgent::Assign(_));
            if is_order {
                reached(Point::DispatchBeforeSend);
            }
            match sender.send_message(&message).await {
                Ok(()) if is_order => reached(Point::DispatchAfterSend),
                Ok(()) => {}
                Err(SendError::Frame(error)) => {
                    // It would be the same the next time: somebody must give the node less to do.
                    tracing::error!(%node, %error, "agent could not be told: the message makes no frame");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%node, error = &error as &dyn std::error::Error, "agent could not be told");
                    return;
                }
            }
        }
    }

    async fn listen(&self, mut receiver: ReceiveHalf, node: &NodeId) {
        loop {
            match receiver.receive_message::<ToCoordinator>().await {
                Ok(Some(ToCoordinator::Report(report))) => {
                    self.driver.observe(Observation::Report { node: node.clone(), report });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%node, error = &error as &dyn std::error::Error, "agent is not heard any more");
                    return;
                }
            }
        }
    }

    /// Answers the streams that the agent opens to fetch bytes.
    async fn answer(&self, connection: &Connection, node: &NodeId) {
        let listed = Arc::new(Listed::default());
        while let Ok(stream) = connection.accept().await {
            let (desk, connection, node) = (self.clone(), connection.clone(), node.clone());
            let listed = Arc::clone(&listed);
            tokio::spawn(async move {
                if let Err(error) = desk.answer_one(stream, &connection, &node, &listed).await {
                    tracing::debug!(%node, error = &*error as &dyn std::error::Error, "stream ended early");
                }
            });
        }
    }

    async fn answer_one(
        &self,
        mut stream: Stream,
        connection: &Connection,
        node: &NodeId,
        listed: &Listed,
    ) -> anyhow::Result<()> {
        match stream.receive_request().await? {
            StreamRequest::Component { digest } => self.send_component(stream, node, digest).await,
            StreamRequest::ChunkList { digest } => self.send_chunk_list(stream, node, listed, digest).await,
            StreamRequest::Chunk { digest, place } => {
                self.send_chunk(stream, node, listed, digest, place).await
            }
            StreamRequest::Program { digest } => self.send_program(stream, node, digest).await,
            StreamRequest::Input { run, item } => self.send_input(stream, node, run, item).await,
            StreamRequest::Secret { secret, version } => {
                self.send_secret(stream, connection, node, &secret, version).await
            }
            StreamRequest::Renew { signing_request } => {
                self.renew(stream, connection, node, &signing_request).await
            }
            StreamRequest::Relay => {
                let ended = self.relay.carry(node, stream).await;
                tracing::debug!(%node, error = &ended as &dyn std::error::Error, "relay ended");
                Ok(())
            }
            StreamRequest::Control(_)
            | StreamRequest::Logs(_)
            | StreamRequest::Traps(_)
            | StreamRequest::CoreDump { .. } => {
                refuse(stream, "an agent may not open such a stream now").await
            }
        }
    }

    /// Gives a node whose certificate has ended a new one, and nothing else.
    pub(crate) async fn serve_late(self, connection: Connection, node: NodeId) {
        let renewing = async {
            let mut stream = connection.accept().await?;
            match stream.receive_request().await? {
                StreamRequest::Renew { signing_request } => {
                    self.renew(stream, &connection, &node, &signing_request).await
                }
                _ => {
                    let message =
                        "the node's certificate has ended by the coordinator's clock; are both clocks right?";
                    let code = RefusalCode::UnknownNode;
                    stream.send_message(&ToAgent::Refused { code, message: message.to_owned() }).await?;
                    stream.finish();
                    Ok(stream.send.delivered().await?)
                }
            }
        };
        match tokio::time::timeout(HELLO_TIME, renewing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%node, error = &*error as &dyn std::error::Error, "certificate not renewed");
            }
            Err(_late) => tracing::warn!(%node, "a node whose certificate has ended asks for nothing"),
        }
        connection.close(CloseCode::DONE, "");
    }

    /// Tells whether the other side is the member whose name it bears.
    fn is_member(&self, node: &NodeId, connection: &Connection) -> bool {
        let view = self.driver.view();
        let member = view.nodes.get(node).filter(|member| !member.record.revoked);
        member.is_some_and(|member| Some(member.record.key_fingerprint) == connection.peer_key_hash())
    }

    /// Gives a member a new certificate for the key that it has.
    async fn renew(
        &self,
        mut stream: Stream,
        connection: &Connection,
        node: &NodeId,
        signing_request: &[u8],
    ) -> anyhow::Result<()> {
        let key = connection.peer_key_hash();
        if self.driver.view().recovery.is_some() {
            // Its store may not know who was revoked since.
            return refuse(stream, "the coordinator is in recovery").await;
        }
        if !self.is_member(node, connection) {
            return refuse(stream, &format!("node {node} is not known to this fleet by this key")).await;
        }
        let role = Role::Node(node.clone());
        let issued = self.authority.issue(signing_request, &role, self.authority.now(), self.node_lifetime);
        let certificate = match issued {
            Ok(certificate) if key_hash(&certificate) == key => certificate,
            Ok(_) => return refuse(stream, "a node renews the certificate of the key that it has").await,
            Err(error) => return refuse(stream, &error.to_string()).await,
        };
        let length = u64::try_from(certificate.len())?;
        stream.send_message(&StreamReply::Ok { length: Some(length), name: None }).await?;
        stream.send.write_all(&certificate).await?;
        stream.finish();
        tracing::info!(%node, "certificate renewed");
        Ok(stream.send.delivered().await?)
    }

    /// Refuses a component that nothing needs which is assigned to the node.
    fn check_component(&self, node: &NodeId, digest: &Digest) -> Result<(), String> {
        let view = self.driver.view();
        let is_assigned = view
            .allocations
            .values()
            .any(|held| held.record.node == *node && held.record.spec.component == *digest);
        if is_assigned { Ok(()) } else { Err(format!("component {digest} is not assigned to node {node}")) }
    }

    async fn send_component(&self, stream: Stream, node: &NodeId, digest: Digest) -> anyhow::Result<()> {
        match self.check_component(node, &digest) {
            Ok(()) => send_blob(stream, Arc::clone(&self.components), digest).await,
            Err(message) => refuse(stream, &message).await,
        }
    }

    /// Sends a program to a node that was told to become it.
    async fn send_program(&self, stream: Stream, node: &NodeId, digest: Digest) -> anyhow::Result<()> {
        let view = self.driver.view();
        let told = view.nodes.get(node).and_then(|node| node.record.upgrade);
        let upgrade =
            view.upgrade.as_ref().filter(|upgrade| told.is_some_and(|told| told.number == upgrade.number));
        let is_told = upgrade.is_some_and(|upgrade| upgrade.programs.values().any(|it| it.digest == digest));
        if !is_told {
            return refuse(stream, &format!("program {digest} is not what node {node} is to become")).await;
        }
        send_blob(stream, Arc::clone(&self.programs), digest).await
    }

    /// Sends the value of a secret to a node that has an allocation which reads it. To any other, one that is not there and
    /// one that it may not have are the same.
    async fn send_secret(
        &self,
        mut stream: Stream,
        connection: &Connection,
        node: &NodeId,
        secret: &SecretId,
        version: SecretVersion,
    ) -> anyhow::Result<()> {
        let view = self.driver.view();
        let reads = |record: &AllocationRecord| {
            record.node == *node
                && record.is_assigned()
                && record.workload.namespace == secret.namespace
                && record.spec.capabilities.secrets.contains(&secret.name)
        };
        let is_reader = view.allocations.values().any(|held| reads(&held.record));
        let Some(known) = view.secrets.get(secret).filter(|_| is_reader && self.is_member(node, connection))
        else {
            return refuse(stream, &format!("secret {secret} is not for node {node}")).await;
        };
        if known.version != version {
            return refuse(stream, &format!("secret {secret} has another value by now")).await;
        }
        let value = self.sealing.unseal(&sealed_for(secret, version), &known.sealed);
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%secret, %error, "secret cannot be unsealed");
                return refuse(stream, &format!("secret {secret} cannot be unsealed: {error}")).await;
            }
        };
        stream.send_message(&StreamReply::Ok { length: Some(value.len() as u64), name: None }).await?;
        stream.write_all(&value).await?;
        end(stream).await
    }

    async fn send_input(
        &self,
        mut stream: Stream,
        node: &NodeId,
        run: RunId,
        item: u32,
    ) -> anyhow::Result<()> {
        let view = self.driver.view();
        let is_assigned = view.allocations.values().any(|held| {
            held.record.node == *node && matches!(&held.record.work, Work::Items { run: of, range, .. } if *of == run && range.contains(item))
        });
        let of_run = view.runs.get(&run);
        let Some(status) = of_run.filter(|_| is_assigned) else {
            return refuse(stream, &format!("item {item} of run {run} is not assigned to node {node}")).await;
        };
        if item == status.record.items {
            return self.send_outputs(stream, &[(run, 0..item)]).await;
        }
        if status.record.reads_outputs {
            let earlier = status.record.after.iter().filter_map(|run| view.runs.get(run));
            let outputs: Vec<_> = earlier.map(|run| (run.record.id, outputs_of(&run.record))).collect();
            return self.send_outputs(stream, &outputs).await;
        }
        let Some(list) = status.record.inputs else {
            stream.send_message(&StreamReply::Ok { length: Some(0), name: None }).await?;
            return end(stream).await;
        };
        let inputs = Arc::clone(&self.inputs);
        let found = tokio::task::spawn_blocking(move || {
            let list = inputs.list(list)?;
            let Some(input) = list.get(item as usize) else { return Ok(None) };
            let bytes = inputs.blobs().read(&input.digest)?;
            Ok::<_, anyhow::Error>(Some((input.name.clone(), bytes)))
        });
        let Some((name, bytes)) = found.await?? else {
            return refuse(stream, &format!("run {run} has no input for item {item}")).await;
        };
        let reply = StreamReply::Ok { length: Some(bytes.len() as u64), name: Some(name) };
        stream.send_message(&reply).await?;
        stream.write_all(&bytes).await?;
        end(stream).await
    }

    /// Sends the outputs of these items of runs in their order: what the combining instance reads, or a run that comes
    /// after others.
    async fn send_outputs(&self, mut stream: Stream, outputs: &[(RunId, Range<u32>)]) -> anyhow::Result<()> {
        stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
        for (run, items) in outputs {
            let (run, mut next) = (*run, items.start);
            while next < items.end {
                let store = Arc::clone(&self.store);
                let page =
                    tokio::task::spawn_blocking(move || records::items(&*store, run, next, OUTPUT_PAGE));
                let page = page.await??;
                let Some((last, _)) = page.last() else { break };
                next = last + 1;
                for (_, record) in page.iter().filter(|(item, _)| items.contains(item)) {
                    stream.write_all(record.output.as_bytes()).await?;
                }
            }
        }
        end(stream).await
    }
}

/// Returns to what the value of a secret belongs: it is sealed together with it.
pub(crate) fn sealed_for(secret: &SecretId, version: SecretVersion) -> String {
    format!("{secret}/{version}")
}

/// Returns whose outputs are what a run has given: the total if there is one, else those of all items.
fn outputs_of(run: &RunRecord) -> Range<u32> {
    if run.recorded.contains(run.items) { run.items..run.items + 1 } else { 0..run.items }
}

async fn send_blob(mut stream: Stream, blobs: Arc<Components>, digest: Digest) -> anyhow::Result<()> {
    let (file, length) = match tokio::task::spawn_blocking(move || blobs.open(&digest)).await? {
        Ok(opened) => opened,
        Err(error) => return refuse(stream, &error.to_string()).await,
    };
    stream.send_message(&StreamReply::Ok { length: Some(length), name: None }).await?;
    let mut file = tokio::fs::File::from_std(file);
    tokio::io::copy(&mut file, &mut stream).await?;
    end(stream).await
}

async fn refuse(mut stream: Stream, message: &str) -> anyhow::Result<()> {
    stream.send_message(&StreamReply::Error { message: message.to_owned() }).await?;
    end(stream).await
}

/// Finishes the stream and waits until the other side has everything.
async fn end(mut stream: Stream) -> anyhow::Result<()> {
    stream.finish();
    Ok(stream.send.delivered().await?)
}
