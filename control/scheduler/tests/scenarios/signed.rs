//! Signed components: where a namespace names signers, only what one of them signed is deployed, or restored.

use std::io::Cursor;
use std::sync::LazyLock;

use dunlin_model::{Digest, Signed, SignerKey, Statement, Timestamp};
use expect_test::expect;
use minisign::KeyPair;

use crate::check;

/// Those who sign: us, and somebody else.
static PAIRS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| KeyPair::generate_unencrypted_keypair().unwrap()));

fn pair(who: &str) -> &'static KeyPair {
    &PAIRS[usize::from(who == "theirs")]
}

/// Returns the public key of `ours` or `theirs`.
pub(crate) fn key(who: &str) -> SignerKey {
    pair(who).pk.to_base64().parse().unwrap()
}

/// Returns what somebody signs who is asked by `ours/1.2.0` in a script, by `ours/1.2.0/v9` for another component, and by
/// `ours/1.2.0/later` for later.
pub(crate) fn signed(asked: &str, app: &str, workload: &str, component: &str) -> Box<Signed> {
    let words: Vec<&str> = asked.split('/').collect();
    let component = words.get(2).filter(|word| **word != "later").unwrap_or(&component);
    let statement = Statement {
        component: Digest::of(component.as_bytes()),
        app: app.parse().unwrap(),
        workload: workload.parse().unwrap(),
        version: words[1].parse().unwrap(),
        not_before: Timestamp(if words.last() == Some(&"later") { 60_000 } else { 0 }),
    };
    let statement = statement.text();
    let signature = minisign::sign(None, &pair(words[0]).sk, Cursor::new(&statement), None, None).unwrap();
    Box::new(Signed { statement, signature: signature.into_string() })
}

#[test]
fn only_what_is_signed_is_deployed_and_nothing_older() {
    check(
        "
        node a
        namespace default signer=ours
        deploy shop web=1@v1
        deploy shop web=1@v1,signed:theirs/1.0.0
        deploy shop web=1@v1,signed:ours/1.0.0/v0
        deploy shop web=1@v1,signed:ours/1.0.0/later
        deploy shop web=1@v1,signed:ours/1.0.0
        deploy shop web=1@v2,signed:ours/1.1.0
        deploy shop web=1@v1,signed:ours/1.0.0
        wait 60
        rollback shop 1
        namespace default signer=theirs
        rollback shop 2
        namespace default
        deploy shop web=1@v3,signed:theirs/9.0.0
        deploy shop web=1@v4
        namespace default signer=ours
        rollback shop 4
        deploy shop web=1@v4,signed:ours/1.2.0
        ",
        expect![[""]],
    );
}

#[test]
fn a_rollout_that_fails_does_not_go_back_to_what_may_not_run_any_more() {
    check(
        "
        node a
        namespace default signer=ours signer=theirs
        deploy shop web=1@v1,signed:theirs/1.0.0
        wait 120
        history shop
        deploy shop web=1@v2,signed:ours/1.1.0
        namespace default signer=ours
        restarts a2 4
        wait 30
        history shop
        ",
        expect![[""]],
    );
}
