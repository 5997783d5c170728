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

/// Returns what somebody signs who is asked by `ours/1.2.0` in a script, and `ours/1.2.0/v9` for another component.
pub(crate) fn signed(asked: &str, app: &str, workload: &str, component: &str) -> Box<Signed> {
    let words: Vec<&str> = asked.split('/').collect();
    let component = words.get(2).unwrap_or(&component);
    let statement = Statement {
        component: Digest::of(component.as_bytes()),
        app: app.parse().unwrap(),
        workload: workload.parse().unwrap(),
        version: words[1].parse().unwrap(),
        not_before: Timestamp(0),
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
        deploy shop web=1@v1,signed:ours/1.0.0
        deploy shop web=1@v2,signed:ours/1.1.0
        deploy shop web=1@v1,signed:ours/1.0.0
        wait 60
        rollback shop 1
        namespace default signer=theirs
        rollback shop 2
        namespace default
        deploy shop web=1@v3
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
            > deploy shop web=1@v3
            Deployed { revision: Revision(4), changed: true }
            60s a gets 1.7: a2@2 a4@4 | peers a
        "#]],
    );
}
