//! Calls to etcd: several members, one of them at a time, each call with a time limit.
//!
//! The client has a thread of its own that drives its connections, and its calls block: the store is used by threads
//! that wait for it anyway. They must not be made from within an asynchronous task.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dunlin_model::Bytes;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::location::EtcdLocation;
use super::message::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};
use super::room::{Attempts, File};

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// How long one call may take. A member that has lost its peers answers nothing, and another one must be asked soon.
const CALL_TIME: Duration = Duration::from_secs(2);
/// How long a member may take to be defragmented.
const DEFRAGMENT_TIME: Duration = Duration::from_secs(120);
/// The most bytes of one answer.
const MAX_ANSWER: usize = 64 << 20;

/// Why a call to etcd came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No member gave an answer. What was asked for may have happened.
    #[error("no member of etcd answers; the last that was asked, {member}, says: {message}")]
    Unreachable {
        /// The last that was asked.
        member: String,
        /// What went wrong with it.
        message: String,
    },
    /// Somebody else is in charge, or nobody.
    #[error("another coordinator is in charge, or the lease of this one has ended")]
    Deposed,
    /// There are records, and no fleet that they are of.
    #[error(
        "etcd holds records and no fleet: a migration was broken off, or is under way; \
         delete what is there under this prefix, and migrate again"
    )]
    Unfinished,
    /// Its quota is used up, so it takes no writes.
    #[error("etcd has no room: {message}")]
    NoSpace {
        /// What it says.
        message: String,
    },
    /// It refuses the call.
    #[error("etcd refused the call ({code:?}): {message}")]
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
    },
    /// A certificate or key could not be read.
    #[error("could not read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client could not be made.
    #[error("could not speak to etcd at {member}: {message}")]
    Setup {
        /// At which address.
        member: String,
        /// Why.
        message: String,
    },
    /// The answer is not what etcd's API says.
    #[error("etcd's answer makes no sense: {0}")]
    Senseless(String),
}

/// One member of etcd.
struct EtcdMember {
    address: String,
    channel: Channel,
}

/// A client of an etcd cluster.
pub(super) struct Client {
    /// Present until the client is dropped.
    runtime: Option<Runtime>,
    members: Vec<EtcdMember>,
    /// Which of them answered last.
    current: AtomicUsize,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Not waited for: whoever drops it may be a task, which must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// Returns a client; connections are made when they are needed.
    pub(super) fn new(location: &EtcdLocation) -> Result<Self, EtcdError> {
        let setup = |member: &str, error: &dyn std::error::Error| EtcdError::Setup {
            member: member.to_owned(),
            message: chain(error),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(|error| setup("any member", &error))?;
        let tls = tls(location)?;
        // Connecting, though not yet, needs a runtime to be there.
        let within = runtime.enter();
        let mut members = Vec::new();
        for address in &location.members {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"));
            let mut endpoint = endpoint
                .map_err(|error| setup(address, &error))?
                .connect_timeout(CONNECT_TIME)
                .http2_keep_alive_interval(CALL_TIME)
                .keep_alive_timeout(CALL_TIME)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(|error| setup(address, &error))?;
            }
            members.push(EtcdMember { address: address.clone(), channel: endpoint.connect_lazy() });
        }
        drop(within);
        Ok(Self { runtime: Some(runtime), members, current: AtomicUsize::new(0) })
    }

    /// Carries out a transaction. If it fails with [`EtcdError::Unreachable`] it may have happened all the same, and
    /// even twice where it had no conditions that exclude it.
    pub(super) fn transact(&self, request: &TxnRequest) -> Result<TxnResponse, EtcdError> {
        self.call("/etcdserverpb.KV/Txn", request)
    }

    /// Lets etcd forget what was before `revision`; that this happened already is no error.
    pub(super) fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        let compacted = self.call("/etcdserverpb.KV/Compact", &CompactionRequest { revision });
        match compacted {
            Err(EtcdError::Refused { code: Code::OutOfRange, .. }) => Ok(()),
            other => other.map(|CompactionResponse {}| ()),
        }
    }

    /// Returns the number of a new lease.
    pub(super) fn grant(&self, ttl: Duration) -> Result<i64, EtcdError> {
        let request = LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) };
        self.call("/etcdserverpb.Lease/LeaseGrant", &request).map(|LeaseGrantResponse { id }| id)
    }

    /// Ends a lease, and all keys with it.
    pub(super) fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let request = LeaseRevokeRequest { id: lease };
        self.call("/etcdserverpb.Lease/LeaseRevoke", &request).map(|LeaseRevokeResponse {}| ())
    }

    /// Keeps a lease for another while; says no if it has ended.
    pub(super) fn keep_alive(&self, lease: i64) -> Result<bool, EtcdError> {
        let request = LeaseKeepAliveRequest { id: lease };
        let first = self.current.load(Ordering::Relaxed);
        let answer = self.with_members(&self.members, first, CALL_TIME, |member| {
            let request = request.clone();
            async move {
                let mut grpc = tonic::client::Grpc::new(member.channel.clone());
                grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
                let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
                let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default();
                let one = Request::new(futures_util::stream::once(std::future::ready(request)));
                let mut answers = grpc.streaming(one, path, codec).await?.into_inner();
                answers.message().await
            }
        })?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Returns how the member that is asked at the moment stands.
    pub(super) fn status(&self) -> Result<StatusResponse, EtcdError> {
        self.call("/etcdserverpb.Maintenance/Status", &StatusRequest {})
    }

    /// Lets members give back what their files hold and do not use, one after the other, where that is worth it, as long
    /// as this goes on. One that does not is told, and may still be at it: the others are tried the next time.
    pub(super) fn defragment_where_sparse(
        &self,
        quota: Bytes,
        attempts: &mut Attempts,
        goes_on: impl Fn() -> bool,
    ) {
        for (index, member) in self.members.iter().enumerate().take_while(|_| goes_on()) {
            let one = std::slice::from_ref(member);
            let status = self.ask(one, 0, CALL_TIME, "/etcdserverpb.Maintenance/Status", &StatusRequest {});
            let status = match status {
                Ok(status) => status,
                // It is looked at the next time.
                Err(EtcdError::Unreachable { .. }) => continue,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        member = member.address,
                        "a member of etcd does not say how full it is"
                    );
                    continue;
                }
            };
            let file = File::new(&status, quota);
            if !file.is_sparse() || !attempts.may_begin(index, Instant::now()) {
                continue;
            }
            tracing::info!(member = member.address, %file, "a member of etcd is defragmented");
            let (path, began) = ("/etcdserverpb.Maintenance/Defragment", Instant::now());
            let done = self.ask(one, 0, DEFRAGMENT_TIME, path, &DefragmentRequest {});
            attempts.ended(index, began, Instant::now());
            if let Err(error) = done.map(|DefragmentResponse {}| ()) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, member = member.address, %file, "a member of etcd was not defragmented");
                return;
            }
        }
    }

    fn call<Q, A>(&self, path: &'static str, request: &Q) -> Result<A, EtcdError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.ask(&self.members, self.current.load(Ordering::Relaxed), CALL_TIME, path, request)
    }

    fn ask<Q, A>(
        &self,
        members: &[EtcdMember],
        first: usize,
        time: Duration,
        path: &'static str,
        request: &Q,
    ) -> Result<A, EtcdError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.with_members(members, first, time, |member| {
            let request = Request::new(request.clone());
            async move {
                let mut grpc =
                    tonic::client::Grpc::new(member.channel.clone()).max_decoding_message_size(MAX_ANSWER);
                grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
                let path = http::uri::PathAndQuery::from_static(path);
                let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?;
                Ok(answer.into_inner())
            }
        })
    }

    /// Asks the member that answered last, and if it does not answer each of the others once.
    fn with_members<'a, A, F>(
        &self,
        members: &'a [EtcdMember],
        first: usize,
        time: Duration,
        ask: impl Fn(&'a EtcdMember) -> F,
    ) -> Result<A, EtcdError>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let runtime = self.runtime.as_ref().expect("the runtime is there until the client is dropped");
        let mut last = None;
        for turn in 0..members.len() {
            let index = (first + turn) % members.len();
            let member = &members[index];
            let limited = async { tokio::time::timeout(time, ask(member)).await };
            let status = match runtime.block_on(limited) {
                Ok(Ok(answer)) => {
                    if members.len() == self.members.len() {
                        self.current.store(index, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_late) => Status::deadline_exceeded(format!("no answer within {time:?}")),
            };
            match failure(member, &status) {
                error @ EtcdError::Unreachable { .. } => last = Some(error),
                error => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| EtcdError::Senseless("no member of etcd is known".to_owned())))
    }
}

/// Returns what a member's failure means: whether another one may do better.
fn failure(member: &EtcdMember, status: &Status) -> EtcdError {
    let message = match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => status.message().to_owned(),
    };
    match status.code() {
        Code::ResourceExhausted if message.contains("space exceeded") => EtcdError::NoSpace { message },
        // Also what is said by one that is starting, ending, has too much to do, or has lost its peers.
        Code::ResourceExhausted
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted => EtcdError::Unreachable { member: member.address.clone(), message },
        code => EtcdError::Refused { code, message },
    }
}

fn tls(location: &EtcdLocation) -> Result<Option<ClientTlsConfig>, EtcdError> {
    let Some(files) = &location.tls else { return Ok(None) };
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|source| EtcdError::File { path: path.clone(), source });
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.authority)?));
    if let Some((certificate, key)) = &files.own {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(Some(tls))
}

/// Returns what an error says, with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
