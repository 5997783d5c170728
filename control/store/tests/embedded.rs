//! The embedded store: what it promises, what it refuses, and what survives `kill -9`.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]
#![expect(clippy::print_stdout, reason = "a child tells its parent how far it is")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_model::Bytes;
use dunlin_store::{Changes, CommitError, Embedded, EmbeddedConfig, OpenError, Table, Write};

/// Set for a child process: the folder of the store it works on.
const CHILD: &str = "DUNLIN_STORE_TEST_FOLDER";

fn set(table: Table, key: &str, value: &str) -> Write {
    Write { table, key: key.into(), value: Some(value.into()) }
}

fn delete(table: Table, key: &str) -> Write {
    Write { table, key: key.into(), value: None }
}

fn keys(store: &Embedded, table: Table) -> Vec<String> {
    let records = store.load(table).unwrap();
    records.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

/// Opens without a reserve: the machine of a test may have a nearly full disk.
fn open(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open_with(folder, EmbeddedConfig { reserve: Bytes(0) })
}

/// Returns an error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.commit(&[]).unwrap();
    store.commit(&[set(Table::Apps, "a", "1"), set(Table::Nodes, "a", "2")]).unwrap();
    store
        .commit(&[set(Table::Apps, "a", "3"), set(Table::Apps, "b", "4"), delete(Table::Nodes, "a")])
        .unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.get(Table::Apps, b"a").unwrap(), Some(b"3".to_vec()));
    assert_eq!(store.get(Table::Nodes, b"a").unwrap(), None);
    assert_eq!(keys(&store, Table::Apps), ["a", "b"]);
    for table in [
        Table::Meta,
        Table::Nodes,
        Table::Namespaces,
        Table::Allocations,
        Table::Runs,
        Table::Items,
        Table::Tokens,
    ] {
        assert!(store.load(table).unwrap().is_empty());
    }
}

#[test]
fn of_two_writes_to_one_key_the_later_stands() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store
        .commit(&[set(Table::Meta, "a", "1"), delete(Table::Meta, "a"), set(Table::Meta, "a", "2")])
        .unwrap();
    assert_eq!(store.get(Table::Meta, b"a").unwrap(), Some(b"2".to_vec()));
}

#[test]
fn a_range_is_read_page_by_page_and_deleted_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let of_run = |run: u32| (0..12_000).map(move |item| set(Table::Items, &format!("r{run}/{item:05}"), "x"));
    store
        .commit(&of_run(1).chain(of_run(2)).chain([set(Table::Items, "r3", "x")]).collect::<Vec<_>>())
        .unwrap();
    let mut seen = Vec::new();
    while let Some(last) = {
        let after = seen.last().map(|key: &Vec<u8>| key.as_slice());
        let page = store.range(Table::Items, b"r2/", after, 5_000).unwrap();
        assert!(page.len() <= 5_000);
        let last = page.last().map(|(key, _)| key.clone());
        seen.extend(page.into_iter().map(|(key, _)| key));
        last
    } {
        assert_eq!(seen.last(), Some(&last));
    }
    let expected: Vec<Vec<u8>> = of_run(2).map(|write| write.key).collect();
    assert!(seen == expected);
    assert_eq!(store.delete_prefix(Table::Items, b"r2/").unwrap(), 12_000);
    assert_eq!(store.delete_prefix(Table::Items, b"r2/").unwrap(), 0);
    assert_eq!(store.load(Table::Items).unwrap().len(), 12_001);
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    drop(store);
    open(folder.path()).unwrap();
}

#[test]
fn an_interrupted_making_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.redb.unfinished"), vec![7; 100_000]).unwrap();
    drop(open(folder.path()).unwrap());
    assert!(!folder.path().join("store.redb.unfinished").exists());
}

#[test]
fn a_store_that_is_gone_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("store.redb")).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(!folder.path().join("store.redb").exists());
}

#[test]
fn another_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let with_schema = |schema: u64| {
        let database = redb::Database::open(folder.path().join("store.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let own = redb::TableDefinition::<&str, u64>::new("store");
        transaction.open_table(own).unwrap().insert("schema", schema).unwrap();
        // Its tables are others too; that it lacks some of ours is no damage.
        let namespaces = redb::TableDefinition::<&[u8], &[u8]>::new("namespaces");
        transaction.delete_table(namespaces).unwrap();
        transaction.commit().unwrap();
        drop(database);
        open(folder.path()).err().unwrap()
    };
    let newer = with_schema(99);
    assert!(matches!(newer, OpenError::Newer { found: 99, .. }), "{newer}");
    let older = with_schema(1);
    assert!(matches!(older, OpenError::Older { found: 1, .. }), "{older}");
    assert!(older.to_string().contains("schema 1"), "{older}");
}

/// A store with a few hundred records.
struct Sample {
    bytes: Vec<u8>,
    marker: Vec<u8>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

fn sample() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for batch in 0..10 {
        let writes: Vec<Write> =
            (0..30).map(|key| set(Table::Apps, &format!("{batch}/{key}"), &"v".repeat(100))).collect();
        store.commit(&writes).unwrap();
    }
    let records = store.load(Table::Apps).unwrap();
    // As after a crash: closing would make the two commits that the file holds alike.
    let bytes = fs::read(folder.path().join("store.redb")).unwrap();
    let marker = fs::read(folder.path().join("store.created")).unwrap();
    Sample { bytes, marker, records }
}

/// Opens a store whose file has these `bytes` instead. It must hold all records, or be refused with words that help.
fn is_refused(sample: &Sample, bytes: &[u8], what: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.redb"), bytes).unwrap();
    fs::write(folder.path().join("store.created"), &sample.marker).unwrap();
    match open(folder.path()) {
        Ok(store) => {
            assert!(
                store.load(Table::Apps).unwrap() == sample.records,
                "{what}: opened, but with other records"
            );
            false
        }
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {}", chain(&error));
            assert!(
                error.to_string().contains("make it anew from a backup with `dunlin restore`"),
                "{error}"
            );
            true
        }
    }
}

#[test]
fn truncated_empty_and_foreign_files_are_refused() {
    let sample = sample();
    let bytes = &sample.bytes;
    for length in [0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        assert!(is_refused(&sample, &bytes[..length], &format!("cut to {length}")), "cut to {length}");
    }
    assert!(is_refused(&sample, &vec![0; bytes.len()], "zeros"));
    assert!(is_refused(&sample, &b"SQLite format 3\0".repeat(1000), "another kind"));
}

#[test]
fn a_changed_byte_is_refused_or_without_effect() {
    let sample = sample();
    let bytes = &sample.bytes;
    let mut refused = 0;
    // Every byte of the header, and a spread of all others.
    let places = (0..320).chain((320..bytes.len()).step_by(bytes.len() / 300));
    let header = (0..16).flat_map(|place| (0..8).map(move |bit| (place, 1 << bit)));
    for (place, bits) in header.chain(places.map(|place| (place, 0x41))) {
        let mut changed = bytes.clone();
        changed[place] ^= bits;
        refused += usize::from(is_refused(&sample, &changed, &format!("byte {place} changed by {bits}")));
    }
    assert!(refused > 20, "only {refused} changes were noticed");
}

#[test]
fn below_the_reserve_only_deletes_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap().commit(&[set(Table::Apps, "a", "1")]).unwrap();
    let store = Embedded::open_with(folder.path(), EmbeddedConfig { reserve: Bytes(u64::MAX) }).unwrap();
    let error = store.commit(&[set(Table::Apps, "b", "1")]).unwrap_err();
    assert!(matches!(error, CommitError::StorageFull(_)), "{error}");
    store.commit(&[delete(Table::Apps, "a")]).unwrap();
    assert!(store.load(Table::Apps).unwrap().is_empty());
}

/// A child process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts this test binary again to run `test` alone as a child that works on `folder`.
fn child(test: &str, folder: &Path) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    Running(command.env(CHILD, folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

/// Writes on, two keys at a time, and says after each commit that it is done.
fn write_until_killed(folder: &Path) {
    let store = open(folder).unwrap();
    let start = store.load(Table::Items).unwrap().len() / 2;
    for number in start.. {
        let value = "x".repeat(number % 3000);
        let pair = [
            set(Table::Items, &format!("{number:08}a"), &value),
            set(Table::Items, &format!("{number:08}b"), &value),
        ];
        store.commit(&pair).unwrap();
        println!("\ndone {number}");
    }
}

#[test]
fn no_acknowledged_commit_is_lost_to_kill_9() {
    if let Some(folder) = folder_of_child() {
        return write_until_killed(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..30_u32 {
        let mut running = child("no_acknowledged_commit_is_lost_to_kill_9", folder.path());
        let mut ledger = BufReader::new(running.0.stdout.take().unwrap()).lines();
        // Some commits, then some microseconds, so that the kill falls anywhere within a commit.
        let is_done = |line: &String| line.starts_with("done ");
        let lines: Vec<String> =
            ledger.by_ref().map_while(Result::ok).filter(is_done).take(1 + (round % 7) as usize).collect();
        assert!(!lines.is_empty(), "the child should write");
        let kill_at = Instant::now() + Duration::from_micros(u64::from(round) * 997 % 6000);
        while Instant::now() < kill_at {
            std::hint::spin_loop();
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        let rest = ledger.map_while(Result::ok).filter(is_done);
        let last = lines.into_iter().chain(rest).last().unwrap();
        let last: usize = last.trim_start_matches("done ").parse().unwrap();
        assert!(last + 1 > acknowledged, "the child should go on where the last one ended");
        acknowledged = last + 1;
        let store = open(folder.path()).unwrap();
        let keys = keys(&store, Table::Items);
        assert!(keys.len().is_multiple_of(2), "half a commit is there");
        let pairs = keys.len() / 2;
        assert!(pairs == acknowledged || pairs == acknowledged + 1, "{pairs} of {acknowledged} are there");
        let expected = (0..pairs).flat_map(|number| [format!("{number:08}a"), format!("{number:08}b")]);
        assert!(expected.eq(keys), "the records should be those that were written");
    }
    assert!(acknowledged >= 30);
}

#[test]
fn a_kill_while_the_store_is_made_does_no_harm() {
    if let Some(folder) = folder_of_child() {
        return write_until_killed(&folder);
    }
    for round in 0..20_u64 {
        let folder = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let mut running = child("a_kill_while_the_store_is_made_does_no_harm", folder.path());
        // From the first sign of the store on, a little later each time.
        while !folder.path().join("lock").exists() {
            assert!(started.elapsed() < Duration::from_secs(10), "the child should begin");
        }
        let kill_at = Instant::now() + Duration::from_micros(round * 400);
        while Instant::now() < kill_at {
            std::hint::spin_loop();
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        let store = open(folder.path()).unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
        store.commit(&[set(Table::Meta, "a", "1")]).unwrap();
    }
}

/// Fills the store until there is no room, then deletes, then writes again.
fn fill(folder: &Path) {
    let store = open(folder).unwrap();
    let value = "x".repeat(100_000);
    let mut kept = 0;
    let error = loop {
        match store.commit(&[set(Table::Items, &format!("{kept:04}"), &value)]) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the file should not be allowed to grow so large");
    };
    assert!(matches!(error, CommitError::StorageFull(_)), "{}", chain(&error));
    assert!(kept > 0);
    assert_eq!(store.load(Table::Items).unwrap().len(), kept, "what was there can be read");
    for key in 0..kept {
        store.commit(&[delete(Table::Items, &format!("{key:04}"))]).unwrap();
    }
    store.commit(&[set(Table::Items, "again", "1")]).unwrap();
    drop(store);
    assert_eq!(keys(&open(folder).unwrap(), Table::Items), ["again"]);
    println!("\nfilled");
}

/// The operating system itself refuses to let the file grow, as it does on a full disk.
#[test]
fn a_full_disk_is_told_and_survived() {
    if let Some(folder) = folder_of_child() {
        return fill(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    // Blocks of 512 bytes: 8 MiB. The signal which comes with the refusal is ignored.
    let script = "trap '' XFSZ; ulimit -f 16384; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_is_told_and_survived", "--nocapture"])
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("filled"), "{out}\n{err}");
}
