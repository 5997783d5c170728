//! What a guest that has broken out may try. Each is one thing asked of the system, and what the system said to it.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, execv, setresuid};
use rustix::net::SendFlags;

use crate::stage::Props;

macro_rules! attempts {
    ($($attempt:ident $name:literal,)*) => {
        /// One attempt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Attempt {
            $($attempt,)*
        }

        impl Attempt {
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$attempt),*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$attempt => $name,)*
                }
            }
        }
    };
}

attempts! {
    OpenPasswords "open_etc_passwd",
    ReadEnvironment "read_the_environment_of_its_agent",
    ListFolder "list_the_folder_of_others",
    WriteTemporary "write_a_file_in_tmp",
    ConnectTcp "connect_by_tcp",
    SendUdp "send_by_udp",
    ConnectUnix "connect_to_a_socket_file",
    ConnectAbstract "connect_to_an_abstract_socket",
    BindTcp "bind_a_port",
    BindUnix "bind_a_socket_file",
    ConnectPassed "connect_a_socket_that_was_passed",
    SendToConnect "connect_by_sending",
    Fork "fork",
    Execute "execute_a_program",
    TraceAgent "trace_its_agent",
    SignalAgent "signal_its_agent",
    ReadWorker "read_the_memory_of_another_worker",
    ReadWorkerFile "read_the_memory_file_of_another_worker",
    NewUser "make_a_user_namespace",
    Mount "mount",
    BecomeRoot "become_root",
    ChangeRoot "change_its_root",
    RaiseLimits "allow_itself_core_files",
}

impl Attempt {
    pub(crate) fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|attempt| attempt.name() == name).expect("it is the name of an attempt")
    }

    /// Makes the attempt and says `done`, or the name of the error.
    pub(crate) fn make(self, props: &Props) -> String {
        match self.try_make(props) {
            Ok(()) => "done".to_owned(),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(errno) => format!("{errno:?}"),
                None => error.to_string(),
            },
        }
    }

    fn try_make(self, props: &Props) -> io::Result<()> {
        let folder = props.folder.as_path();
        let agent = Pid::from_raw(props.agent);
        match self {
            Self::OpenPasswords => fs::read("/etc/passwd").map(drop),
            Self::ReadEnvironment => fs::read(format!("/proc/{agent}/environ")).map(drop),
            Self::ListFolder => fs::read_dir(folder).map(drop),
            Self::WriteTemporary => fs::write(folder.join("written"), "x"),
            Self::ConnectTcp => TcpStream::connect(props.tcp).map(drop),
            Self::SendUdp => {
                UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", props.udp)).map(drop)
            }
            Self::ConnectUnix => UnixStream::connect(folder.join("socket")).map(drop),
            Self::ConnectAbstract => SocketAddr::from_abstract_name(&props.abstract_name)
                .and_then(|address| UnixStream::connect_addr(&address))
                .map(drop),
            Self::BindTcp => TcpListener::bind("127.0.0.1:0").map(drop),
            Self::BindUnix => UnixListener::bind(folder.join("bound")).map(drop),
            Self::ConnectPassed => Ok(rustix::net::connect(io::stdin(), &props.tcp)?),
            Self::SendToConnect => {
                // `MSG_FASTOPEN`, for which there is no name here.
                let flags = SendFlags::from_bits_retain(0x2000_0000);
                Ok(rustix::net::sendto(io::stdin(), b"x", flags, &props.tcp).map(drop)?)
            }
            Self::Fork => {
                let child = Command::new("/bin/true").stdin(Stdio::null()).spawn();
                child.and_then(|mut child| child.wait()).map(drop)
            }
            // If it succeeds, the program says so in our place.
            Self::Execute => match execv(c"/bin/echo", &[c"echo", c"done"])? {},
            Self::TraceAgent => {
                ptrace::attach(agent)?;
                nix::sys::wait::waitpid(agent, None)?;
                Ok(ptrace::detach(agent, None)?)
            }
            Self::SignalAgent => Ok(kill(agent, Signal::SIGCONT)?),
            Self::ReadWorker => {
                let mut bytes = [0; 8];
                let remote = RemoteIoVec { base: props.secret_at, len: bytes.len() };
                let worker = Pid::from_raw(props.worker);
                process_vm_readv(worker, &mut [IoSliceMut::new(&mut bytes)], &[remote])?;
                if bytes == *b"a secret" { Ok(()) } else { Err(io::Error::other("it read something else")) }
            }
            Self::ReadWorkerFile => {
                fs::File::open(Path::new("/proc").join(props.worker.to_string()).join("mem")).map(drop)
            }
            Self::NewUser => Ok(unshare(CloneFlags::CLONE_NEWUSER)?),
            Self::Mount => {
                // Not seen by others if it succeeds.
                let _refused_behind_the_wall = unshare(CloneFlags::CLONE_NEWNS);
                let none: Option<&str> = None;
                Ok(mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), none)?)
            }
            Self::BecomeRoot => {
                let root = nix::unistd::Uid::from_raw(0);
                Ok(setresuid(root, root, root)?)
            }
            Self::ChangeRoot => Ok(nix::unistd::chroot("/proc")?),
            Self::RaiseLimits => Ok(nix::sys::resource::setrlimit(
                nix::sys::resource::Resource::RLIMIT_CORE,
                1 << 20,
                1 << 20,
            )?),
        }
    }
}
