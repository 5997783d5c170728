//! What stands around for attempts to reach: listening sockets, a folder, an agent, and another worker.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::attempt::Attempt;
use crate::role::{ROLE, Role};

/// Where everything is, for the process that makes an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Props {
    pub(crate) folder: PathBuf,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) abstract_name: String,
    /// A process without a wall.
    pub(crate) agent: i32,
    /// A process behind a wall of its own, and where it has a secret.
    pub(crate) worker: i32,
    pub(crate) secret_at: usize,
}

pub(crate) struct Stage {
    props: Props,
    _folder: TempDir,
    _sockets: (TcpListener, UdpSocket, UnixListener, UnixListener),
    _agent: Waiting,
    _worker: Waiting,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let abstract_name = format!("dunlin wall {}", folder.path().display());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let hidden = UnixListener::bind_addr(&address).unwrap();
        let (agent, worker) = (Waiting::start(Role::Agent), Waiting::start(Role::Worker));
        let props = Props {
            folder: folder.path().to_owned(),
            tcp: tcp.local_addr().unwrap(),
            udp: udp.local_addr().unwrap(),
            abstract_name,
            agent: agent.process(),
            worker: worker.process(),
            secret_at: worker.said.trim().parse().unwrap(),
        };
        let sockets = (tcp, udp, unix, hidden);
        Self { props, _folder: folder, _sockets: sockets, _agent: agent, _worker: worker }
    }

    /// Has an attempt made by a process in `role` and returns how it ended.
    pub(crate) fn make(&self, attempt: Attempt, role: Role) -> String {
        let flags = SockFlag::empty();
        let passed: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let output = again(role)
            .args([attempt.name(), &serde_json::to_string(&self.props).unwrap()])
            .stdin(Stdio::from(passed))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{attempt:?} {role:?}: {} {said} {complaint}", output.status);
        said
    }
}

/// Returns this program, to be started again in `role`.
pub(crate) fn again(role: Role) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role.name()).stderr(Stdio::piped());
    command
}

/// A process that waits until it is dropped.
pub(crate) struct Waiting {
    child: Child,
    /// What it said when it was ready.
    pub(crate) said: String,
    pub(crate) stdout: BufReader<ChildStdout>,
}

impl Waiting {
    pub(crate) fn start(role: Role) -> Self {
        let mut command = again(role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        if said.is_empty() {
            let mut complaint = String::new();
            child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            panic!("a process as {role:?} ended: {complaint}");
        }
        Self { child, said, stdout }
    }

    pub(crate) fn process(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
