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
        expect![[r#"
            0s a gets 1.2: | peers a
            > namespace default signer=ours
            NamespaceSet
            > deploy shop web=1@v1
            signature_required: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: it is not signed
            > deploy shop web=1@v1,signed:theirs/1.0.0
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its signature is by none of the keys that are named there, or over another statement
            > deploy shop web=1@v1,signed:ours/1.0.0/v0
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its statement is for component sha256:0270da4daac514f30bece5788a87ad7b800f59476d0d7e6f70d4b61fbc4f5e9e, and this is sha256:3bfc269594ef649228e9a74bab00f042efc91d5acc6fbee31a382e80d42388fe
            > deploy shop web=1@v1,signed:ours/1.0.0/later
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its statement holds from 1970-01-01T00:01:00Z on, and it is 1970-01-01T00:00:00Z
            > deploy shop web=1@v1,signed:ours/1.0.0
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > deploy shop web=1@v2,signed:ours/1.1.0
            Deployed { revision: Revision(2), changed: true }
            0s a gets 1.4: a2@2 | peers a
            > deploy shop web=1@v1,signed:ours/1.0.0
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its statement is for version 1.0.0, and version 1.1.0 was deployed before
            > rollback shop 1
            Deployed { revision: Revision(3), changed: true }
            60s a gets 1.5: a2@2 a3@3 | peers a
            > namespace default signer=theirs
            NamespaceSet
            > rollback shop 2
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its signature is by none of the keys that are named there, or over another statement
            > namespace default
            NamespaceSet
            > deploy shop web=1@v3,signed:theirs/9.0.0
            Deployed { revision: Revision(4), changed: true }
            60s a gets 1.7: a2@2 a4@4 | peers a
            > deploy shop web=1@v4
            Deployed { revision: Revision(5), changed: true }
            60s a gets 1.8: a2@2 a5@5 | peers a
            > namespace default signer=ours
            NamespaceSet
            > rollback shop 4
            signature_invalid: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its signature is by none of the keys that are named there, or over another statement
            > deploy shop web=1@v4,signed:ours/1.2.0
            Deployed { revision: Revision(6), changed: true }
            60s a gets 1.9: a2@2 a5@6 | peers a
        "#]],
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
        expect![[r#"
            0s a gets 1.2: | peers a
            > namespace default signer=ours signer=theirs
            NamespaceSet
            > deploy shop web=1@v1,signed:theirs/1.0.0
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            --history shop
            1, its rollout is over
            > deploy shop web=1@v2,signed:ours/1.1.0
            Deployed { revision: Revision(2), changed: true }
            120s a gets 1.5: a1@1 a2@2 | peers a
            > namespace default signer=ours
            NamespaceSet
            121s a gets 1.6: a1@1 a2@2 | peers a
            122s a gets 1.7: a2@2 | peers a
            --history shop
            2, its rollout has failed: `web`: a2 on a was started again: limit `max_restarts` is 3, observed 4; revision 1 is not restored: namespace `default` runs only components that are signed, and that of `default/shop/web` may not run there: its signature is by none of the keys that are named there, or over another statement
            1 was well
        "#]],
    );
}
