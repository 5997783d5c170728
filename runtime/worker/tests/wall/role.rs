//! What this program does when it was started again by itself.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use dunlin_protocol::WallFinding;
use dunlin_worker::BareWall;
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::attempt::Attempt;
use crate::guest::Guest;
use crate::stage::again;

/// The variable that names the role.
pub(crate) const ROLE: &str = "DUNLIN_WALL_ROLE";
/// Users for processes behind the wall, where they can have one: of the tests, not of anybody's namespaces.
const FIRST_USER: u32 = 0x7fff_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes an attempt without a wall.
    Free,
    /// Makes an attempt behind the wall.
    Confined,
    /// Waits, without a wall.
    Agent,
    /// Waits, behind the wall, and has a secret.
    Worker,
    /// Starts a worker that waits, and waits itself.
    AgentOfWorker,
    /// Says what it found of the wall.
    Finder,
    /// Aborts behind the wall.
    Aborter,
    /// Aborts without a wall.
    FreeAborter,
    /// Does behind the wall what workers do.
    Busy,
    /// Uses behind the wall the connection that is its standard input.
    Connected,
}

impl Role {
    const ALL: [Self; 10] = [
        Self::Free,
        Self::Confined,
        Self::Agent,
        Self::Worker,
        Self::AgentOfWorker,
        Self::Finder,
        Self::Aborter,
        Self::FreeAborter,
        Self::Busy,
        Self::Connected,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn of_this_process() -> Option<Self> {
        let name = std::env::var(ROLE).ok()?;
        Some(Self::ALL.into_iter().find(|role| role.name() == name).expect("it is the name of a role"))
    }

    pub(crate) fn play(self) {
        match self {
            Self::Free => attempt(None),
            Self::Confined => attempt(Some(0)),
            Self::Agent => {
                say("ready");
                wait();
            }
            Self::Worker => {
                let secret = Box::new(*b"a secret");
                confine(1);
                say(&format!("{}", std::ptr::from_ref(&*secret).addr()));
                wait();
                assert_eq!(*secret, *b"a secret");
            }
            Self::AgentOfWorker => {
                let mut worker = again(Self::Worker).spawn().unwrap();
                worker.wait().unwrap();
            }
            Self::Finder => say(&serde_json::to_string(&confine(0)).unwrap()),
            Self::Aborter => {
                confine(0);
                std::process::abort();
            }
            Self::FreeAborter => std::process::abort(),
            Self::Busy => {
                confine(0);
                busy();
                say("done");
            }
            Self::Connected => {
                confine(0);
                say(&connected().unwrap());
            }
        }
    }
}

fn attempt(user: Option<u32>) {
    let mut arguments = std::env::args().skip(1);
    let attempt = Attempt::from_name(&arguments.next().unwrap());
    let props = serde_json::from_str(&arguments.next().unwrap()).unwrap();
    // The wall is built by a process of one thread, before it has a guest.
    if let Some(user) = user {
        confine(user);
    }
    let ended = Guest::new().run(attempt, props);
    say(&ended);
}

fn confine(user: u32) -> Vec<WallFinding> {
    let user = nix::unistd::geteuid().is_root().then_some(FIRST_USER + user);
    let agent = std::os::unix::process::parent_id();
    dunlin_worker::probe(BareWall { user, required: false, agent }).unwrap()
}

fn say(text: &str) {
    println!("{text}");
}

/// Waits until whoever started this process is gone.
fn wait() {
    drop(std::io::stdin().read(&mut [0]));
}

/// Does with a connection what the host does for guests, and returns what the other side says; what it does not do is
/// refused.
fn connected() -> std::io::Result<String> {
    let stream = std::net::TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(3))?;
    sockopt::set_tcp_keepcnt(&stream, 4)?;
    sockopt::set_socket_recv_buffer_size(&stream, 32 << 10)?;
    sockopt::set_socket_send_buffer_size(&stream, 32 << 10)?;
    sockopt::set_ip_ttl(&stream, 17)?;
    assert_eq!((sockopt::ip_ttl(&stream)?, sockopt::tcp_keepcnt(&stream)?), (17, 4));
    // This one is allowed, but for sockets of its kind, which this is not.
    assert_ne!(sockopt::set_ipv6_unicast_hops(&stream, Some(17)), Err(Errno::PERM));
    assert_eq!(sockopt::set_socket_reuseaddr(&stream, true), Err(Errno::PERM));
    assert_eq!(sockopt::set_ip_tos(&stream, 1), Err(Errno::PERM));
    assert_eq!(sockopt::set_ipv6_v6only(&stream, false), Err(Errno::PERM));
    assert_eq!(sockopt::set_tcp_user_timeout(&stream, 1), Err(Errno::PERM));
    assert_eq!(rustix::net::listen(&stream, 1), Err(Errno::PERM));
    assert_ne!(stream.local_addr()?, stream.peer_addr()?);
    (&stream).write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    (&stream).read_to_string(&mut heard)?;
    Ok(heard)
}

/// Uses threads, time, chance, memory that is executable, and sockets that are there.
fn busy() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..16).map(|number| {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                tokio::task::spawn_blocking(move || number).await.unwrap()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), number);
        }
        let (mut one, mut other) = tokio::net::UnixStream::pair().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut one, b"hello").await.unwrap();
        let mut heard = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut other, &mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    });
    drop(Guest::new());
}
