//! The life of a process behind the wall: what it is made of, how it ends, and that it can work.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use dunlin_protocol::WallFinding;

use crate::role::Role;
use crate::stage::{Waiting, again};

/// How long anything may take. Only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn every_part_is_there() {
    let output = again(Role::Finder).stdin(Stdio::null()).output().unwrap();
    let found: Vec<WallFinding> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.len(), 9, "the agent adds two");
    for finding in found {
        println!("     {}: {:?}", finding.part, finding.state);
        // What a kernel may lack is not the fault of this test; what every kernel gives must be there.
        assert!(
            !finding.is_missing()
                || !["capabilities", "new-privileges", "dumps", "orphans"].contains(&finding.part.name())
        );
    }
}

pub(crate) fn a_worker_ends_with_its_agent() {
    // What the agent's worker says goes to the pipe of the agent, which has an end when both are gone.
    let mut agent = Waiting::start(Role::AgentOfWorker);
    agent.kill();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = String::new();
        agent.stdout.read_to_string(&mut rest).unwrap();
        ended.send(()).unwrap();
    });
    end.recv_timeout(PATIENCE).expect("the worker outlives its agent");
}

pub(crate) fn no_core() {
    let folder = tempfile::tempdir().unwrap();
    let dumped = |role| {
        let mut command = again(role);
        let output = command.current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.signal(), Some(6), "{role:?} aborted");
        output.status.core_dumped()
    };
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, most, most).unwrap();
    // Where the pattern names a program or a folder that is not there, the kernel dumps for nobody.
    if !dumped(Role::FreeAborter) {
        println!("     this machine dumps no core files at all");
    }
    assert!(!dumped(Role::Aborter));
}

pub(crate) fn passed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let child = again(Role::Connected).stdin(OwnedFd::from(passed)).stdout(Stdio::piped()).spawn().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    server.write_all(format!("{heard} to you").as_bytes()).unwrap();
    drop(server);
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello to you", "{complaint}");
}

pub(crate) fn threads_and_files() {
    let output = again(Role::Busy).stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "done", "{complaint}");
}
