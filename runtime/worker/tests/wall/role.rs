//! What this program does when it was started again by itself.

use std::io::Read;

use dunlin_protocol::WallFinding;
use dunlin_worker::BareWall;

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
}

impl Role {
    const ALL: [Self; 9] = [
        Self::Free,
        Self::Confined,
        Self::Agent,
        Self::Worker,
        Self::AgentOfWorker,
        Self::Finder,
        Self::Aborter,
        Self::FreeAborter,
        Self::Busy,
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

/// Uses threads, time, chance, memory that is executable, and sockets that are there.
fn busy() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..16).map(|number| {
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
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
