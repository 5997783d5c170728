//! `dunlin backup` and `dunlin restore`: all that a coordinator has as one file, and a coordinator made from it.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use dunlin_api::Recovery;
use dunlin_coordinator::{RestoreBackupError, Restored, check_backup, restore_backup};
use dunlin_model::{Bytes, ClusterId};
use serde::Serialize;

use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;
use crate::time::utc;

/// Write all that the coordinator has into one file, while it works; `dunlin restore` makes a coordinator of it.
///
/// The file is a tar archive. It holds the fleet's private key and the administrator's token: keep it as you keep them.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin backup dunlin-monday.tar")]
pub(crate) struct BackupArgs {
    /// The file to write; it must not be there.
    pub(crate) file: PathBuf,
}

/// Make the state folder of a coordinator from a backup, or check one.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin restore dunlin-monday.tar --state /var/lib/dunlin/coordinator")]
#[command(group = ArgGroup::new("what").required(true).args(["state", "check"]))]
pub(crate) struct RestoreArgs {
    /// The backup.
    pub(crate) file: PathBuf,
    /// The folder to make; it must not be there, or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Only read all of it and compare each sum.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Say whether the coordinator is in recovery, and let it go on.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin recover --confirm")]
pub(crate) struct RecoverArgs {
    /// Go on from what the coordinator has: what was decided since is undone.
    #[arg(long)]
    pub(crate) confirm: bool,
}

/// What a backup holds, for programs.
#[derive(Serialize)]
struct Told {
    file: PathBuf,
    bytes: Bytes,
    cluster: ClusterId,
    taken_ms: dunlin_model::Timestamp,
    program: String,
    records: u64,
    components_and_inputs: u64,
}

impl Told {
    fn new(file: &Path, restored: &Restored) -> Self {
        Self {
            file: file.to_owned(),
            bytes: Bytes(restored.bytes),
            cluster: restored.about.cluster.clone(),
            taken_ms: restored.about.taken,
            program: restored.about.program.clone(),
            records: restored.records.values().sum(),
            components_and_inputs: restored.blobs,
        }
    }

    fn shown(&self) -> String {
        let Self { file, bytes, cluster, taken_ms, records, components_and_inputs, .. } = self;
        format!(
            "{}: {cluster} at {}, {records} records, {components_and_inputs} components and inputs, {bytes}\n",
            file.display(),
            utc(*taken_ms)
        )
    }
}

pub(crate) async fn backup(global: &Global, args: BackupArgs, output: &Output) -> Result<(), CommandError> {
    let BackupArgs { file: path } = args;
    let cannot = "cannot take a backup";
    let unwritten = |error: &io::Error| {
        let help = "name a file that is not there, on a disk with room for it";
        CommandError::failed(cannot).because(path.display().to_string()).caused_by(error).help(help)
    };
    if path.exists() {
        return Err(unwritten(&io::Error::other("it is there already")));
    }
    let client = crate::client::connect(global)?;
    let told = |error| CommandError::client(cannot, &error);
    let mut stream = client.backup().await.map_err(told)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner alone, and gone if this fails.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| unwritten(&error))?;
    while let Some(bytes) = stream.next().await.map_err(told)? {
        file.write_all(&bytes).map_err(|error| unwritten(&error))?;
    }
    file.as_file().sync_all().map_err(|error| unwritten(&error))?;
    // What was written is read back from the disk: a backup that cannot be read is none.
    let written = file.reopen().map_err(|error| unwritten(&error))?;
    let restored = check_backup(BufReader::new(written)).map_err(|error| {
        CommandError::failed(cannot).caused_by(&error).help("take it again; nothing was kept of this one")
    })?;
    file.persist_noclobber(&path).map_err(|error| unwritten(&error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritten(&error))?;
    let told = Told::new(&path, &restored);
    output.note(
        "it holds the fleet's private key and the administrator's token; keep it as secret as they are",
    );
    output.result(&told, || told.shown())
}

pub(crate) async fn recover(global: &Global, args: RecoverArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let failed = |error| CommandError::client("cannot recover", &error);
    if args.confirm {
        client.confirm_recovery().await.map_err(failed)?;
        output.note("the coordinator starts again and goes on from what it has");
        return Ok(());
    }
    let fleet = client.status().await.map_err(failed)?;
    output.result(&fleet.recovery, || match &fleet.recovery {
        None => "the coordinator is not in recovery\n".to_owned(),
        Some(Recovery { since_ms, reason, highest_term }) => format!(
            "in recovery since {}: {reason}.\n\
             Its term is {}; {}.\n\
             Nothing is decided, and what runs goes on as if there were no coordinator.\n\
             `dunlin recover --confirm` goes on from what this coordinator has: what was deployed, scaled or deleted\n\
             since then is undone, and nodes that joined since must join again. Nodes that were revoked since are members\n\
             again: `dunlin node revoke` them before.\n",
            utc(*since_ms),
            fleet.term,
            match highest_term.0 {
                0 => "no node was heard yet that has obeyed a later one".to_owned(),
                _ => format!("the latest that a node was heard to have obeyed is {highest_term}"),
            }
        ),
    })
}

pub(crate) fn restore(args: RestoreArgs, output: &Output) -> Result<(), CommandError> {
    let RestoreArgs { file: path, state, check: _ } = args;
    let what = if state.is_some() { "cannot restore" } else { "this is no good backup" };
    let cannot = || CommandError::failed(format!("{what} {}", path.display()));
    let file = File::open(&path)
        .map_err(|error| cannot().caused_by(&error).help("name a file that `dunlin backup` has written"))?;
    let file = BufReader::with_capacity(1 << 20, file);
    let restored = match &state {
        Some(state) => restore_backup(file, state),
        None => check_backup(file),
    };
    let restored = restored.map_err(|error| cannot().caused_by(&error).help(help_for(&error)))?;
    if let Some(state) = &state {
        let state = state.display();
        output.note(&format!("{state} is ready; start it with `dunlin coordinator --state {state}`"));
    }
    let told = Told::new(&path, &restored);
    output.result(&told, || told.shown())
}

fn help_for(error: &RestoreBackupError) -> &'static str {
    match error {
        RestoreBackupError::Taken { .. } => {
            "stop the coordinator and move its folder away; nothing is written over"
        }
        RestoreBackupError::Malformed(_) => "take another backup: nothing of this one was used",
        RestoreBackupError::OtherVersion { .. } => "use the Dunlin that wrote it",
        RestoreBackupError::Read(_) => "is the disk that it is on well?",
        RestoreBackupError::Write { .. } => "is there room, and may this user write there?",
    }
}
