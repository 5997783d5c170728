//! `wasi:sockets`: TCP connections which somebody else has made, to where the manifest says, and the names they need.
//!
//! No socket is opened here. A socket of a guest is a note of what it wants until it is connected; then it is the
//! connection that the connector has passed. So a guest can connect and nothing else: it is bound to no address of its
//! choice, and it never listens.
//!
//! A guest connects to addresses and its manifest grants names, so a name counts for the addresses that the instance
//! was told of it (`names`). The connector judges both again, the name and the address.
//!
//! wasmtime's own `network` stays, which is a mere token, and its UDP, which is switched off. Handles of the guest
//! have wasmtime's types; what is in the table is ours, and the two are turned into each other here only.

mod lookup;
mod names;
mod options;
mod socket;
mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dunlin_model::Host;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    self, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, HostNetwork, IpAddress, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, SocketError, SocketResult, TcpSocket, subscribe,
};

use self::lookup::Lookup;
pub(crate) use self::names::Names;
use self::socket::{Dialing, Socket};
use super::outbound::{Pace, Using, Wanted};
use super::outbound_http::OutboundHttp;
use crate::calls::Calls;

/// The most bytes of a name that is read at all; none that can be granted is longer.
const MAX_NAME: usize = 256;

pub(crate) struct Sockets;

impl HasData for Sockets {
    type Data<'a> = SocketsView<'a>;
}

/// The sockets of one instance during one call.
pub(crate) struct SocketsView<'a> {
    table: &'a mut ResourceTable,
    calls: &'a mut Calls,
    /// Its connections are counted together with ours.
    http: &'a mut OutboundHttp,
    names: &'a mut Names,
}

/// Tells whether something of a guest is a connection, or will be one or an answer soon.
pub(crate) fn is_open_socket(thing: &dyn std::any::Any) -> bool {
    let is_open = thing.downcast_ref::<Socket>().is_some_and(Socket::is_open);
    is_open || thing.downcast_ref::<Lookup>().is_some_and(Lookup::is_under_way)
}

fn ours(socket: &Resource<TcpSocket>) -> Resource<Socket> {
    Resource::new_borrow(socket.rep())
}

fn our_lookup(lookup: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(lookup.rep())
}

impl<'a> SocketsView<'a> {
    pub(crate) fn new(
        (table, calls): (&'a mut ResourceTable, &'a mut Calls),
        http: &'a mut OutboundHttp,
        names: &'a mut Names,
    ) -> Self {
        Self { table, calls, http, names }
    }

    fn socket(&mut self, socket: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        Ok(self.table.get_mut(&ours(socket))?)
    }

    /// Returns what to ask the connector for, if a connection to `remote` is granted: by its address, or by a name
    /// that this instance knows to have it.
    fn destination(&self, remote: SocketAddr) -> Result<Wanted, ErrorCode> {
        let (outbound, port) = (&self.http.outbound, remote.port());
        let wanted = |host: &Host, address| Wanted {
            allocation: outbound.allocation,
            using: Using::Sockets,
            host: host.to_string(),
            port,
            address,
        };
        let grants = |host: &Host| {
            outbound.granted.as_ref().is_some_and(|granted| granted.capabilities.grants_socket(host, port))
        };
        let own = Host::Address(remote.ip());
        if grants(&own) {
            return Ok(wanted(&own, None));
        }
        let names = || self.names.of(remote.ip()).map(|name| Host::Name(name.to_owned()));
        if let Some(name) = names().find(grants) {
            return Ok(wanted(&name, Some(remote.ip())));
        }
        let shown = format!("{}:{port}", names().next().unwrap_or(own));
        self.say(
            &shown,
            &format!(
                "connection denied: egress_denied: no `sockets` grant matches {shown}; \
                 to allow it, write `sockets = [\"{shown}\"]` in the workload's `capabilities`"
            ),
        );
        Err(ErrorCode::AccessDenied)
    }

    /// Begins to connect, within the limits of this instance.
    fn dial(&mut self, wanted: Wanted) -> Result<Dialing, ErrorCode> {
        let counted = self.http.counted();
        let outbound = Arc::clone(&self.http.outbound);
        let Some(granted) = &outbound.granted else { return Err(ErrorCode::AccessDenied) };
        let permit: OwnedSemaphorePermit = counted
            .open
            .try_acquire_owned()
            .map_err(|_| self.limit_hit("connections", outbound.limits.open))?;
        let wait = self.turn(&counted.pace)?;
        let destination = format!("{}:{}", wanted.host, wanted.port);
        let connecting = granted.connector.connect(wanted);
        Ok(Dialing::begin((connecting, wait), self.caller(destination), permit))
    }

    /// Takes a turn and returns how long to wait for it, if that is not too long.
    fn turn(&self, pace: &std::sync::Mutex<Pace>) -> Result<Duration, ErrorCode> {
        let limits = &self.http.outbound.limits;
        let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).take();
        if wait >= limits.connect.into() {
            return Err(self.limit_hit("connection_rate", limits.rate));
        }
        Ok(wait)
    }

    fn caller(&self, destination: String) -> Caller {
        let OutboundHttp { outbound, instance, logs, .. } = &*self.http;
        Caller { outbound: Arc::clone(outbound), instance: *instance, logs: Arc::clone(logs), destination }
    }

    fn say(&self, destination: &str, text: &str) {
        self.http.outbound.notice(&self.http.logs, self.http.instance, destination, text);
    }

    fn limit_hit(&self, limit: &'static str, value: u32) -> ErrorCode {
        self.http.outbound.hits.count(limit);
        let text = format!("no connection: limit `{limit}` is {value}, observed more");
        self.say(&format!("limit {limit}"), &text);
        ErrorCode::NewSocketLimit
    }

    fn lookup(&mut self, text: String) -> Result<Lookup, ErrorCode> {
        if let Some(address) = lookup::literal(&text) {
            return Ok(Lookup::of_address(address));
        }
        if text.len() > MAX_NAME {
            return Err(ErrorCode::InvalidArgument);
        }
        let host: Host = text.parse().map_err(|_| ErrorCode::InvalidArgument)?;
        // What looks like an address and is none that is written plainly was refused as a host.
        let Host::Name(name) = host.clone() else { return Err(ErrorCode::InvalidArgument) };
        let outbound = Arc::clone(&self.http.outbound);
        let granted = outbound.granted.as_ref().filter(|granted| granted.capabilities.grants_lookup(&host));
        let Some(granted) = granted else {
            let rule = format!("name lookup denied: egress_denied: no `sockets` grant names {name}");
            let help = format!(
                "to allow it, write `sockets = [\"{name}:443\"]` in the workload's `capabilities`, \
                 with the port that it needs"
            );
            self.say(&name, &format!("{rule}; {help}"));
            return Err(ErrorCode::AccessDenied);
        };
        let counted = self.http.counted();
        let wait = self.turn(&counted.lookup_pace)?;
        let resolving = granted.connector.resolve(outbound.allocation, name.clone());
        Ok(Lookup::begin(name.clone(), (resolving, wait), self.caller(name)))
    }
}

/// On whose behalf something is under way, and where to.
struct Caller {
    outbound: Arc<super::outbound::Outbound>,
    instance: dunlin_model::InstanceId,
    logs: Arc<crate::logs::Logs>,
    destination: String,
}

impl Caller {
    fn say(&self, text: &str) {
        self.outbound.notice(&self.logs, self.instance, &self.destination, text);
    }

    fn time(&self) -> Duration {
        self.outbound.limits.connect.into()
    }

    fn late(&self) {
        self.outbound.late("connect_timeout", self.time());
    }

    /// Takes note of a limit that somebody else enforces.
    fn hit(&self, hit: &dunlin_model::LimitHit) {
        self.outbound.hits.count("connection_rate");
        self.say(&format!("no connection to {}: {hit}", self.destination));
    }
}

impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error.downcast_ref::<std::io::Error>().map(ErrorCode::from))
    }
}

impl HostNetwork for SocketsView<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl tcp_create_socket::Host for SocketsView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = self.table.push(Socket::new(family))?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl ip_name_lookup::Host for SocketsView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        self.calls.moved(name.len());
        let lookup = self.lookup(name)?;
        let lookup = self.table.push(lookup)?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(
        &mut self,
        lookup: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&our_lookup(&lookup))?;
        let Some(address) = lookup.next()? else { return Ok(None) };
        if let Some(name) = lookup.name() {
            self.names.told(address, name);
        }
        Ok(Some(address.into()))
    }

    fn subscribe(
        &mut self,
        lookup: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, our_lookup(&lookup))
    }

    fn drop(&mut self, lookup: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Lookup>::new_own(lookup.rep()))?;
        Ok(())
    }
}

impl tcp::Host for SocketsView<'_> {}

impl HostTcpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        Ok(self.socket(&socket)?.start_bind(local.into())?)
    }

    fn finish_bind(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(self.socket(&socket)?.finish_bind()?)
    }

    fn start_connect(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let remote = remote.into();
        self.socket(&socket)?.may_connect(remote)?;
        let wanted = self.destination(remote)?;
        let dialing = self.dial(wanted)?;
        self.socket(&socket)?.connect(dialing);
        Ok(())
    }

    fn finish_connect(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (input, output) = self.socket(&socket)?.finish_connect()?;
        let input = self.table.push_child(input, &ours(&socket))?;
        let output = self.table.push_child(output, &ours(&socket))?;
        Ok((input, output))
    }

    async fn start_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        Err(self.socket(&socket)?.may_listen().into())
    }

    fn finish_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&socket)?;
        Err(ErrorCode::NotInProgress.into())
    }

    fn accept(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.socket(&socket)?;
        Err(ErrorCode::NotSupported.into())
    }

    fn local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.socket(&socket)?.local_address()?.into())
    }

    fn remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.socket(&socket)?.remote_address()?.into())
    }

    fn is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.table.get(&ours(&socket))?;
        Ok(false)
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&ours(&socket))?.family())
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&socket)?.set_listen_backlog_size(value)?)
    }

    fn keep_alive_enabled(&mut self, socket: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.socket(&socket)?.options()?.keep_alive_enabled()?)
    }

    fn set_keep_alive_enabled(&mut self, socket: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_keep_alive_enabled(value)?)
    }

    fn keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&socket)?.options()?.keep_alive_idle_time()?)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_keep_alive_idle_time(value)?)
    }

    fn keep_alive_interval(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&socket)?.options()?.keep_alive_interval()?)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_keep_alive_interval(value)?)
    }

    fn keep_alive_count(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.socket(&socket)?.options()?.keep_alive_count()?)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_keep_alive_count(value)?)
    }

    fn hop_limit(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.socket(&socket)?.options()?.hop_limit()?)
    }

    fn set_hop_limit(&mut self, socket: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_hop_limit(value)?)
    }

    fn receive_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&socket)?.options()?.receive_buffer_size()?)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_receive_buffer_size(value)?)
    }

    fn send_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&socket)?.options()?.send_buffer_size()?)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&socket)?.options()?.set_send_buffer_size(value)?)
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours(&socket))
    }

    fn shutdown(&mut self, socket: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        Ok(self.socket(&socket)?.shutdown(how)?)
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Socket>::new_own(socket.rep()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
