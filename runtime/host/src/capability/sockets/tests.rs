//! What a guest's calls come to, without a guest: against servers of a few lines, and a connector that decides nothing.

use std::net::IpAddr;
use std::sync::Mutex;

use dunlin_model::{AllocationId, Capabilities, DurationMs, InstanceId, Limits, LogRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use wasmtime_wasi::p2::bindings::io::streams::{HostInputStream, HostOutputStream};
use wasmtime_wasi::p2::bindings::sockets::instance_network::Host as _;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::Host as _;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::{Pollable as _, StreamError};
use wasmtime_wasi::sockets::{WasiSocketsCtx, WasiSocketsCtxView};

use super::super::outbound::{ConnectFailure, Connecting, Connector, GrantedOutbound, Outbound, Resolving};
use super::*;
use crate::limits::MAX_WRITE;
use crate::logs::{LogSink, Logs};
use crate::metered::Streams;

/// Connects to whatever it is asked for on this machine, and knows the addresses of every name.
struct Near {
    address: Option<SocketAddr>,
    addresses: Result<Vec<IpAddr>, ConnectFailure>,
    asked: Mutex<Vec<String>>,
}

impl Connector for Near {
    fn connect(&self, wanted: Wanted) -> Connecting {
        assert_eq!(wanted.using, Using::Sockets);
        let Wanted { host, port, address, .. } = wanted;
        self.asked.lock().unwrap().push(match address {
            Some(address) => format!("{host}:{port} at {address}"),
            None => format!("{host}:{port}"),
        });
        let Some(address) = self.address else { return Box::pin(std::future::pending()) };
        Box::pin(async move {
            TcpStream::connect(address).await.map_err(|error| ConnectFailure::NotConnected(error.to_string()))
        })
    }

    fn resolve(&self, _: AllocationId, name: String) -> Resolving {
        self.asked.lock().unwrap().push(name);
        let addresses = self.addresses.clone();
        Box::pin(async move { addresses })
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<LogRecord>>);

impl LogSink for Kept {
    fn record(&self, record: LogRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// One instance, as far as it has sockets.
struct Rig {
    table: ResourceTable,
    calls: Calls,
    http: OutboundHttp,
    names: Names,
    connector: Arc<Near>,
    log: Arc<Kept>,
}

impl Rig {
    /// An instance which is granted `sockets`; all its connections lead to `address`, or nowhere.
    fn new(sockets: &[&str], limits: Limits, address: Option<SocketAddr>) -> Self {
        let addresses = Ok(["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap()).to_vec());
        let connector = Arc::new(Near { address, addresses, asked: Mutex::default() });
        Self::with(sockets, limits, connector)
    }

    fn with(sockets: &[&str], limits: Limits, connector: Arc<Near>) -> Self {
        let sockets = sockets.iter().map(|&pattern| pattern.to_owned()).collect();
        let capabilities = Capabilities { sockets, ..Default::default() };
        let allocation = AllocationId::new(1);
        let granted = GrantedOutbound {
            workload: "demo/shop/web".parse().unwrap(),
            capabilities,
            connector: connector.clone(),
            tls: Arc::default(),
        };
        let outbound = Outbound::granted(allocation, &limits, granted);
        let log = Arc::new(Kept::default());
        let logs = Arc::new(Logs::new(log.clone(), &limits));
        let http = OutboundHttp::new(Arc::new(outbound), InstanceId { allocation, number: 1 }, logs);
        let (table, calls, names) = (ResourceTable::new(), Calls::new(None), Names::default());
        Self { table, calls, http, names, connector, log }
    }

    fn view(&mut self) -> SocketsView<'_> {
        SocketsView::new((&mut self.table, &mut self.calls), &mut self.http, &mut self.names)
    }

    fn streams(&mut self) -> Streams<'_> {
        Streams { table: &mut self.table, calls: &mut self.calls }
    }

    fn network(&mut self) -> Resource<Network> {
        let mut ctx = WasiSocketsCtx::default();
        WasiSocketsCtxView { ctx: &mut ctx, table: &mut self.table }.instance_network().unwrap()
    }

    fn socket(&mut self) -> Resource<TcpSocket> {
        self.view().create_tcp_socket(IpAddressFamily::Ipv4).unwrap()
    }

    fn bind(&mut self, socket: &Resource<TcpSocket>, local: &str) -> Result<(), ErrorCode> {
        self.view().socket(socket).unwrap().start_bind(local.parse().unwrap())
    }

    fn begin(&mut self, socket: &Resource<TcpSocket>, remote: &str) -> Result<(), ErrorCode> {
        let network = self.network();
        let remote: SocketAddr = remote.parse().unwrap();
        let begun = self.view().start_connect(again(socket), network, remote.into());
        begun.map_err(|error| error.downcast().unwrap())
    }

    /// Connects a socket to `remote` and returns its streams.
    async fn connect(
        &mut self,
        socket: &Resource<TcpSocket>,
        remote: &str,
    ) -> Result<(Resource<DynInputStream>, Resource<DynOutputStream>), ErrorCode> {
        self.begin(socket, remote)?;
        self.table.get_mut(&ours(socket)).unwrap().ready().await;
        self.view().finish_connect(again(socket)).map_err(|error| error.downcast().unwrap())
    }

    /// Returns the addresses of `name`.
    async fn lookup(&mut self, name: &str) -> Result<Vec<String>, ErrorCode> {
        let network = self.network();
        let code = |error: SocketError| error.downcast().unwrap();
        let lookup = self.view().resolve_addresses(network, name.to_owned()).map_err(code)?;
        self.table.get_mut(&our_lookup(&lookup)).unwrap().ready().await;
        let mut found = Vec::new();
        while let Some(address) =
            self.view().resolve_next_address(Resource::new_borrow(lookup.rep())).map_err(code)?
        {
            found.push(match address {
                IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]).to_string(),
                IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
                    IpAddr::from([a, b, c, d, e, f, g, h]).to_string()
                }
            });
        }
        HostResolveAddressStream::drop(&mut self.view(), lookup).unwrap();
        Ok(found)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.connector.asked.lock().unwrap())
    }

    fn said(&self) -> Vec<String> {
        self.log.0.lock().unwrap().iter().map(|record| record.text.clone()).collect()
    }

    fn hits(&self) -> Vec<(&'static str, u64)> {
        self.http.outbound.hits.all().into_iter().collect()
    }
}

fn again<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

fn owned<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_own(resource.rep())
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn bytes_go_both_ways_are_counted_and_half_of_it_can_be_closed() {
    let (listener, address) = listener().await;
    let mut rig = Rig::new(&["127.0.0.1:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    assert_eq!(
        rig.view().finish_connect(again(&socket)).map(drop).unwrap_err().downcast().unwrap(),
        ErrorCode::NotInProgress
    );
    let (input, output) = rig.connect(&socket, "127.0.0.1:7").await.unwrap();
    assert_eq!(rig.asked(), ["127.0.0.1:7"]);
    let (mut server, client) = listener.accept().await.unwrap();
    let local: SocketAddr = rig.view().local_address(again(&socket)).unwrap().into();
    let remote: SocketAddr = rig.view().remote_address(again(&socket)).unwrap().into();
    assert_eq!((local, remote), (client, address));
    rig.streams().blocking_write_and_flush(again(&output), b"hello".to_vec()).await.unwrap();
    rig.view().shutdown(again(&socket), ShutdownType::Send).unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    let closed = rig.streams().check_write(again(&output));
    assert!(matches!(closed, Err(StreamError::Closed)), "{closed:?}");
    server.write_all(b"good bye").await.unwrap();
    let bytes = rig.streams().blocking_read(again(&input), 1 << 40).await.unwrap();
    assert_eq!(bytes, b"good bye");
    assert_eq!(rig.calls.count().bytes.0, 5 + 8);
    drop(server);
    let end = rig.streams().blocking_read(again(&input), 1).await;
    assert!(matches!(end, Err(StreamError::Closed)), "{end:?}");
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_the_log_says_what_would_grant_it() {
    let mut rig = Rig::new(&["10.0.0.1:80", "db.example.org:5432"], Limits::SERVICE, None);
    for remote in ["10.0.0.1:81", "10.0.0.2:80", "127.0.0.1:80", "10.0.0.1:5432"] {
        let socket = rig.socket();
        assert_eq!(rig.begin(&socket, remote), Err(ErrorCode::AccessDenied), "{remote}");
        assert!(!is_open_socket(rig.table.get(&ours(&socket)).unwrap()));
    }
    for name in ["example.org", "db.example.com", "localhost"] {
        assert_eq!(rig.lookup(name).await, Err(ErrorCode::AccessDenied), "{name}");
    }
    assert_eq!(rig.asked(), Vec::<String>::new());
    let said = rig.said();
    assert_eq!(said.len(), 7, "{said:?}");
    assert_eq!(
        said[0],
        "connection denied: egress_denied: no `sockets` grant matches 10.0.0.1:81; \
         to allow it, write `sockets = [\"10.0.0.1:81\"]` in the workload's `capabilities`"
    );
    assert!(said[4].starts_with("name lookup denied: egress_denied: no `sockets` grant names example.org; "));
}

#[tokio::test]
async fn an_address_is_granted_by_the_name_by_which_it_is_known() {
    let (_listener, address) = listener().await;
    let mut rig = Rig::new(&["db.example.org:5432"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    assert_eq!(rig.begin(&socket, "10.0.0.1:5432"), Err(ErrorCode::AccessDenied), "it was not told of it");
    assert_eq!(rig.lookup("DB.example.org.").await.unwrap(), ["10.0.0.1", "10.0.0.2"]);
    for (remote, expected) in [
        ("10.0.0.1:5433", Err(ErrorCode::AccessDenied)),
        ("10.0.0.3:5432", Err(ErrorCode::AccessDenied)),
        ("10.0.0.2:5432", Ok(())),
    ] {
        let socket = rig.socket();
        assert_eq!(rig.connect(&socket, remote).await.map(drop), expected, "{remote}");
    }
    assert_eq!(rig.asked(), ["db.example.org", "db.example.org:5432 at 10.0.0.2"]);
    assert!(rig.said()[1].contains("matches db.example.org:5433;"), "{:?}", rig.said());
}

#[tokio::test]
async fn an_address_has_itself_and_no_question_is_asked() {
    let mut rig = Rig::new(&[], Limits::SERVICE, None);
    for (text, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[fd00::1]", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(rig.lookup(text).await.unwrap(), [address], "{text}");
    }
    for text in ["", "0x7f.1", "2130706433", "a..b", "[127.0.0.1]", "ä.example", &"a.".repeat(200)] {
        assert_eq!(rig.lookup(text).await, Err(ErrorCode::InvalidArgument), "{text}");
    }
    assert_eq!(rig.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lookup_fails_as_the_connector_says() {
    for (failure, code, said) in [
        (
            ConnectFailure::Denied("egress_denied: 10.0.0.1 is a private address".to_owned()),
            ErrorCode::AccessDenied,
            "name lookup denied: egress_denied: 10.0.0.1 is a private address",
        ),
        (ConnectFailure::NotResolved("unknown".to_owned()), ErrorCode::NameUnresolvable, ""),
        (ConnectFailure::TimedOut, ErrorCode::TemporaryResolverFailure, ""),
    ] {
        let near = Near { address: None, addresses: Err(failure), asked: Mutex::default() };
        let mut rig = Rig::with(&["*:80"], Limits::SERVICE, Arc::new(near));
        assert_eq!(rig.lookup("a.example").await, Err(code));
        assert_eq!(rig.said().concat(), said);
    }
}

#[tokio::test]
async fn no_more_sockets_are_open_than_the_limit_says() {
    let (_listener, address) = listener().await;
    let limits = Limits { connections: 2, ..Limits::SERVICE };
    let mut rig = Rig::new(&["*:7"], limits, Some(address));
    let mut open = Vec::new();
    for _ in 0..2 {
        let socket = rig.socket();
        let streams = rig.connect(&socket, "127.0.0.1:7").await.unwrap();
        open.push((socket, streams));
    }
    let third = rig.socket();
    assert_eq!(rig.begin(&third, "127.0.0.1:7"), Err(ErrorCode::NewSocketLimit));
    assert_eq!(rig.hits(), [("connections", 1)]);
    assert!(rig.said()[0].contains("limit `connections` is 2"), "{:?}", rig.said());
    let (socket, (input, output)) = open.remove(0);
    HostInputStream::drop(&mut rig.streams(), owned(&input)).await.unwrap();
    HostOutputStream::drop(&mut rig.streams(), owned(&output)).await.unwrap();
    assert_eq!(rig.begin(&third, "127.0.0.1:7"), Err(ErrorCode::NewSocketLimit), "it is still connected");
    HostTcpSocket::drop(&mut rig.view(), owned(&socket)).unwrap();
    assert!(rig.connect(&third, "127.0.0.1:7").await.is_ok());
}

#[tokio::test]
async fn sockets_beyond_the_rate_come_later_or_not_at_all_and_so_do_lookups() {
    let (_listener, address) = listener().await;
    let limits = Limits { connection_rate: 2, connect_timeout: DurationMs(300), ..Limits::SERVICE };
    let mut rig = Rig::new(&["*:7"], limits, Some(address));
    for _ in 0..2 {
        let socket = rig.socket();
        rig.connect(&socket, "127.0.0.1:7").await.unwrap();
        rig.lookup("a.example").await.unwrap();
    }
    // The third would have to wait for half a second, and may take no more than 300 ms.
    let socket = rig.socket();
    assert_eq!(rig.begin(&socket, "127.0.0.1:7"), Err(ErrorCode::NewSocketLimit));
    assert_eq!(rig.lookup("a.example").await, Err(ErrorCode::NewSocketLimit));
    assert_eq!(rig.hits(), [("connection_rate", 2)]);
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_given_up_and_counts_no_more() {
    let limits = Limits { connect_timeout: DurationMs(100), connections: 1, ..Limits::SERVICE };
    let mut rig = Rig::new(&["*:7"], limits, None);
    for hits in 1..3 {
        let (socket, started) = (rig.socket(), Instant::now());
        rig.begin(&socket, "127.0.0.1:7").unwrap();
        let early = rig.view().finish_connect(again(&socket)).map(drop).unwrap_err();
        assert_eq!(early.downcast().unwrap(), ErrorCode::WouldBlock);
        assert!(is_open_socket(rig.table.get(&ours(&socket)).unwrap()));
        rig.table.get_mut(&ours(&socket)).unwrap().ready().await;
        let late = rig.view().finish_connect(again(&socket)).map(drop).unwrap_err();
        assert_eq!(late.downcast().unwrap(), ErrorCode::Timeout);
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert_eq!(rig.hits(), [("connect_timeout", hits)]);
        assert!(!is_open_socket(rig.table.get(&ours(&socket)).unwrap()));
        assert_eq!(rig.begin(&socket, "127.0.0.1:7"), Err(ErrorCode::InvalidState));
    }
}

#[tokio::test]
async fn nobody_there_is_a_refusal() {
    let (listener, address) = listener().await;
    drop(listener);
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    assert_eq!(rig.connect(&socket, "127.0.0.1:7").await.map(drop), Err(ErrorCode::ConnectionRefused));
}

#[tokio::test]
async fn a_socket_is_bound_to_nothing_of_its_choice_and_never_listens() {
    let (_listener, address) = listener().await;
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    for (local, code) in [
        ("127.0.0.1:0", ErrorCode::AccessDenied),
        ("0.0.0.0:8080", ErrorCode::AccessDenied),
        ("10.0.0.1:80", ErrorCode::AccessDenied),
        ("224.0.0.1:0", ErrorCode::InvalidArgument),
        ("[::]:0", ErrorCode::InvalidArgument),
    ] {
        assert_eq!(rig.bind(&socket, local), Err(code), "{local}");
    }
    let listen = |rig: &mut Rig| rig.view().socket(&socket).unwrap().may_listen();
    assert_eq!(listen(&mut rig), ErrorCode::InvalidState);
    assert_eq!(rig.bind(&socket, "0.0.0.0:0"), Ok(()));
    assert_eq!(rig.begin(&socket, "127.0.0.1:7"), Err(ErrorCode::ConcurrencyConflict));
    rig.view().finish_bind(again(&socket)).unwrap();
    assert_eq!(rig.bind(&socket, "0.0.0.0:0"), Err(ErrorCode::InvalidState));
    assert_eq!(listen(&mut rig), ErrorCode::AccessDenied);
    let code = |error: SocketError| error.downcast().unwrap();
    assert_eq!(rig.view().finish_listen(again(&socket)).map_err(code), Err(ErrorCode::NotInProgress));
    assert_eq!(rig.view().accept(again(&socket)).map(drop).map_err(code), Err(ErrorCode::NotSupported));
    assert!(!rig.view().is_listening(again(&socket)).unwrap());
    // What is bound like this can be connected.
    assert!(rig.connect(&socket, "127.0.0.1:7").await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_connected_is_not_tried() {
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, None);
    for remote in ["0.0.0.0:7", "224.0.0.1:7", "255.255.255.255:7", "127.0.0.1:0", "[::1]:7"] {
        let socket = rig.socket();
        assert_eq!(rig.begin(&socket, remote), Err(ErrorCode::InvalidArgument), "{remote}");
    }
    for remote in ["[::]:7", "[ff02::1]:7", "[::ffff:127.0.0.1]:7", "[::127.0.0.1]:7", "127.0.0.1:7"] {
        let socket = rig.view().create_tcp_socket(IpAddressFamily::Ipv6).unwrap();
        assert_eq!(rig.begin(&socket, remote), Err(ErrorCode::InvalidArgument), "{remote}");
    }
    let socket = rig.view().create_tcp_socket(IpAddressFamily::Ipv6).unwrap();
    assert_eq!(rig.begin(&socket, "[fe80::1%3]:7"), Err(ErrorCode::NotSupported));
    assert_eq!(rig.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn options_are_kept_until_it_is_connected_and_are_the_systems_then() {
    let (_listener, address) = listener().await;
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    let second = 1_000_000_000;
    for is_connected in [false, true] {
        if is_connected {
            rig.connect(&socket, "127.0.0.1:7").await.unwrap();
        }
        let mut view = rig.view();
        let mut options = view.socket(&socket).unwrap().options().unwrap();
        assert_eq!(options.keep_alive_enabled().unwrap(), is_connected);
        assert_eq!(options.keep_alive_idle_time().unwrap(), if is_connected { 30 } else { 7200 } * second);
        assert_eq!(options.hop_limit().unwrap(), if is_connected { 20 } else { 64 });
        options.set_keep_alive_enabled(true).unwrap();
        options.set_keep_alive_idle_time(30 * second).unwrap();
        options.set_keep_alive_interval(second / 2).unwrap();
        options.set_keep_alive_count(1000).unwrap();
        options.set_hop_limit(20).unwrap();
        options.set_receive_buffer_size(u64::MAX).unwrap();
        options.set_send_buffer_size(32 << 10).unwrap();
        assert!(options.keep_alive_enabled().unwrap());
        assert_eq!(options.keep_alive_interval().unwrap(), second, "it is counted in seconds");
        assert_eq!((options.keep_alive_count().unwrap(), options.hop_limit().unwrap()), (127, 20));
        assert!(options.receive_buffer_size().unwrap() <= 1 << 20);
        assert_eq!(options.send_buffer_size().unwrap(), 32 << 10);
        assert_eq!(options.set_keep_alive_idle_time(0), Err(ErrorCode::InvalidArgument));
        assert_eq!(options.set_keep_alive_interval(0), Err(ErrorCode::InvalidArgument));
        assert_eq!(options.set_keep_alive_count(0), Err(ErrorCode::InvalidArgument));
        assert_eq!(options.set_hop_limit(0), Err(ErrorCode::InvalidArgument));
        assert_eq!(options.set_receive_buffer_size(0), Err(ErrorCode::InvalidArgument));
        assert_eq!(options.set_send_buffer_size(0), Err(ErrorCode::InvalidArgument));
    }
}

#[tokio::test]
async fn who_writes_faster_than_the_other_side_reads_waits_and_loses_nothing() {
    let (listener, address) = listener().await;
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    let (_input, output) = rig.connect(&socket, "127.0.0.1:7").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut written = 0;
    while rig.streams().check_write(again(&output)).unwrap() > 0 {
        HostOutputStream::write(&mut rig.streams(), again(&output), vec![b'x'; MAX_WRITE]).unwrap();
        written += MAX_WRITE;
        assert!(written < 1 << 30, "nothing ever stops it");
    }
    let beyond = HostOutputStream::write(&mut rig.streams(), again(&output), vec![b'y']);
    assert!(matches!(beyond, Err(StreamError::Trap(_))), "{beyond:?}");
    // What was written before goes out before the end does, though nobody asks for it.
    rig.view().shutdown(again(&socket), ShutdownType::Both).unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), written);
}

#[tokio::test]
async fn everything_is_closed_when_the_instance_ends() {
    let (listener, address) = listener().await;
    let mut rig = Rig::new(&["*:7"], Limits::SERVICE, Some(address));
    let socket = rig.socket();
    let (_input, output) = rig.connect(&socket, "127.0.0.1:7").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    while rig.streams().check_write(again(&output)).unwrap() > 0 {
        HostOutputStream::write(&mut rig.streams(), again(&output), vec![b'x'; MAX_WRITE]).unwrap();
    }
    drop(rig);
    let mut heard = Vec::new();
    // However it ends, it ends: what was not sent is lost with the instance.
    let _reset_or_end = server.read_to_end(&mut heard).await;
}
