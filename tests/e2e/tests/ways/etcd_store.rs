//! The store in a real etcd: what it commits, what others see of it, and who may commit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use dunlin_harness::{Etcd as Server, eventually};
use dunlin_model::Bytes;
use dunlin_store::{Changes, CommitError, Etcd, EtcdLocation, FollowError, Replicated, Table, Write};
use nix::sys::signal::Signal;

fn put(table: Table, key: &str, value: impl Into<Vec<u8>>) -> Write {
    Write { table, key: key.as_bytes().to_vec(), value: Some(value.into()) }
}

fn opened(url: &str, folder: &Path) -> Arc<Etcd> {
    Arc::new(Etcd::open(url.parse::<EtcdLocation>().unwrap(), folder).unwrap())
}

/// Who is in charge at once, since nobody else is.
fn leading(etcd: &Arc<Etcd>) -> Replicated {
    let reign = etcd.campaign(b"me").unwrap().expect("nobody else is in charge");
    Arc::clone(etcd).lead(reign).unwrap()
}

/// Runs what blocks beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn random(bytes: usize) -> Vec<u8> {
    let mut state = u64::try_from(bytes).unwrap();
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56).to_le_bytes()[0]
    };
    std::iter::repeat_with(&mut byte).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_commits_the_others_see_and_only_one_may() {
    let Some(server) = Server::start(1).await.unwrap() else { return };
    let url = server.url();
    blocking(move || {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let (first, second) = (opened(&url, folders[0].path()), opened(&url, folders[1].path()));
        assert!(first.is_empty().unwrap());
        let store = leading(&first);
        assert!(second.campaign(b"other").unwrap().is_none(), "there is one in charge");

        store.commit(&[put(Table::Apps, "a", "1"), put(Table::Nodes, "n", "1")]).unwrap();
        // More than one value holds, and than etcd takes in one request.
        let large = random(5 << 20);
        store.commit(&[put(Table::Items, "large", large.clone()), put(Table::Apps, "a", "2")]).unwrap();
        store.commit(&[Write { table: Table::Nodes, key: b"n".to_vec(), value: None }]).unwrap();
        for reader in [&first, &second, &opened(&url, folders[2].path())] {
            assert!(reader.follow().unwrap().leader.is_some());
            assert_eq!(reader.copy().get(Table::Apps, b"a").unwrap().unwrap(), b"2");
            assert_eq!(reader.copy().get(Table::Nodes, b"n").unwrap(), None);
            assert_eq!(reader.copy().get(Table::Items, b"large").unwrap().unwrap(), large);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_paused_or_has_stepped_down_can_write_nothing_any_more() {
    let Some(server) = Server::start(1).await.unwrap() else { return };
    let url = server.url();
    blocking(move || {
        let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
        let (first, second) = (opened(&url, folders[0].path()), opened(&url, folders[1].path()));
        let reign = first.campaign(b"first").unwrap().unwrap();
        let old = Arc::clone(&first).lead(Arc::clone(&reign)).unwrap();
        old.commit(&[put(Table::Apps, "a", "1")]).unwrap();
        reign.resign(&first);
        let new = leading(&second);
        assert_eq!(new.get(Table::Apps, b"a").unwrap().unwrap(), b"1");
        let refused = old.commit(&[put(Table::Apps, "a", "old")]);
        assert!(matches!(refused, Err(CommitError::Deposed(_))), "{refused:?}");
        new.commit(&[put(Table::Apps, "a", "new")]).unwrap();
        first.follow().unwrap();
        assert_eq!(first.copy().get(Table::Apps, b"a").unwrap().unwrap(), b"new");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_holds_all_and_the_log_before_it_goes() {
    let Some(server) = Server::start(1).await.unwrap() else { return };
    let url = server.url();
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let paths: Vec<_> = folders.iter().map(|folder| folder.path().to_owned()).collect();
    let (etcd, behind) = (opened(&url, &paths[0]), opened(&url, &paths[1]));
    let (leader, follower) = (Arc::clone(&etcd), Arc::clone(&behind));
    let store = blocking(move || {
        let store = leading(&leader);
        store.commit(&[put(Table::Apps, "kept", "as it is"), put(Table::Apps, "gone", "soon")]).unwrap();
        follower.follow().unwrap();
        store.commit(&[Write { table: Table::Apps, key: b"gone".to_vec(), value: None }]).unwrap();
        // Enough for three checkpoints: the log before the last but one is gone.
        for round in 0..12_u32 {
            let large = random(3 << 20);
            store.commit(&[put(Table::Items, &format!("item-{}", round % 4), large)]).unwrap();
        }
        store
    })
    .await;
    eventually("the log before a checkpoint goes", async || {
        let (url, path) = (url.clone(), tempfile::tempdir().unwrap());
        let fresh = opened(&url, path.path());
        let seen = blocking(move || {
            let checkpoint = fresh.follow().unwrap().checkpoint;
            let (kept, gone) = (b"kept".as_slice(), b"gone".as_slice());
            assert_eq!(fresh.copy().get(Table::Apps, kept).unwrap().unwrap(), b"as it is");
            assert_eq!(fresh.copy().get(Table::Apps, gone).unwrap(), None);
            checkpoint
        })
        .await;
        // The third one of a log with so many entries: each has six or seven pieces.
        if seen > 60 { Ok(()) } else { Err(format!("the checkpoint is of entry {seen}")) }
    })
    .await;
    // One that lags behind the log is made anew from the checkpoint.
    let found = blocking(move || {
        behind.follow().unwrap();
        (behind.copy().get(Table::Apps, b"gone").unwrap(), behind.copy().load(Table::Items).unwrap().len())
    })
    .await;
    assert_eq!(found, (None, 4));
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_any_one_member_stops_nothing_and_of_two_everything() {
    let Some(mut server) = Server::start(3).await.unwrap() else { return };
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let etcd = opened(&url, folder.path());
    let leader = Arc::clone(&etcd);
    let store = Arc::new(blocking(move || leading(&leader)).await);
    let mut number = 0_u32;
    let mut commit = async |store: &Arc<Replicated>| {
        number += 1;
        let (store, value) = (Arc::clone(store), number.to_string());
        blocking(move || store.commit(&[put(Table::Apps, "a", value)])).await
    };
    for member in 0..3 {
        server.kill(member).await.unwrap();
        for _ in 0..20 {
            commit(&store).await.unwrap();
        }
        server.start_again(member).await.unwrap();
        server.signal(member, Signal::SIGSTOP).unwrap();
        for _ in 0..20 {
            commit(&store).await.unwrap();
        }
        server.signal(member, Signal::SIGCONT).unwrap();
    }
    server.kill(0).await.unwrap();
    server.kill(1).await.unwrap();
    let refused = commit(&store).await;
    assert!(matches!(refused, Err(CommitError::Deposed(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_emptied_is_not_taken_for_a_new_fleet() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let Some(server) = Server::start(1).await.unwrap() else { return };
        let (url, path) = (server.url(), folder.path().to_owned());
        blocking(move || {
            let etcd = opened(&url, &path);
            match round {
                0 => leading(&etcd).commit(&[put(Table::Apps, "a", "1")]).unwrap(),
                _ => {
                    let refused = etcd.follow();
                    assert!(matches!(refused, Err(FollowError::Gone { index: 1 })), "{refused:?}");
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_nearly_full_gets_room_again_by_itself() {
    let Some(server) = Server::start(1).await.unwrap() else { return };
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let location = EtcdLocation { quota: Bytes(32 << 20), ..url.parse().unwrap() };
    let etcd = Arc::new(Etcd::open(location, folder.path()).unwrap());
    let leader = Arc::clone(&etcd);
    let store = Arc::new(blocking(move || leading(&leader)).await);
    // Of one record, again and again: most of it is of no use any more.
    eventually("it has no room", async || {
        let (store, has_room) = (Arc::clone(&store), store.has_room());
        blocking(move || store.commit(&[put(Table::Items, "large", random(4 << 20))]).unwrap()).await;
        if has_room { Err("it has room".to_owned()) } else { Ok(()) }
    })
    .await;
    eventually(
        "it has room again",
        async || {
            if store.has_room() { Ok(()) } else { Err("it has none".to_owned()) }
        },
    )
    .await;
    // It goes on, and so does whoever takes over.
    let (url, other) = (server.url(), tempfile::tempdir().unwrap());
    let kept = blocking(move || {
        store.commit(&[put(Table::Apps, "a", "1")]).unwrap();
        drop(store);
        let next = opened(&url, other.path());
        let store = loop {
            match next.campaign(b"next").unwrap() {
                Some(reign) => break Arc::clone(&next).lead(reign).unwrap(),
                None => std::thread::yield_now(),
            }
        };
        store.commit(&[put(Table::Apps, "a", "2")]).unwrap();
        store.get(Table::Items, b"large").unwrap().unwrap().len()
    })
    .await;
    assert_eq!(kept, 4 << 20);
}
