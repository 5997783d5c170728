//! Secrets: who reads one must find it, nodes hear of each value, and nothing that is read is forgotten.

use std::fmt::Write as _;

use dunlin_model::{Assignment, MAX_SECRETS, SecretVersion};
use dunlin_scheduler::Command;
use expect_test::expect;

use crate::{check, world};

/// Returns what a line of a script asks for: `secret ID VERSION` sets one, `forget ID` deletes it.
pub(crate) fn command(verb: &str, words: &[&str]) -> Command {
    let id = words[0].parse().unwrap();
    match verb {
        "forget" => Command::DeleteSecret(id),
        _ => Command::SetSecret {
            id,
            version: SecretVersion(words[1].parse().unwrap()),
            sealed: words[1].as_bytes().into(),
        },
    }
}

/// Adds which values of secrets a node is to have.
pub(crate) fn describe(out: &mut String, assignment: &Assignment) {
    for (id, version) in &assignment.secrets {
        write!(out, " {id}@{}", version.0).unwrap();
    }
}

#[test]
fn nodes_hear_of_the_secrets_of_their_allocations_and_of_no_others() {
    check(
        "
        node a
        node b
        secret default/URL 1
        secret default/KEY 2
        secret other/URL 3
        deploy shop web=1@v1,secret:URL
        deploy blog web=1@v1
        wait 1
        secret default/KEY 4
        secret default/URL 5
        restart
        beat
        secret default/URL 6
        delete shop
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > secret default/URL 1
            SecretSet
            > secret default/KEY 2
            SecretSet
            > secret other/URL 3
            SecretSet
            > deploy shop web=1@v1,secret:URL
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 default/URL@1 | peers a b
            > deploy blog web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s b gets 1.4: a2@1 | peers a b
            > secret default/KEY 4
            SecretSet
            > secret default/URL 5
            SecretSet
            1s a gets 1.5: a1@1 default/URL@5 | peers a b
            > restart
            1s a gets 2.2: a1@1 default/URL@5 | peers a b
            1s b gets 2.2: a2@1 | peers a b
            > secret default/URL 6
            SecretSet
            1s a gets 2.3: a1@1 default/URL@6 | peers a b
            > delete shop
            Deleted
        "#]],
    );
}

#[test]
fn a_spec_that_reads_what_is_not_set_is_refused() {
    check(
        "
        node a
        secret other/URL 1
        deploy shop web=1@v1,secret:URL
        secret default/URL 2
        deploy shop web=1@v1,secret:URL
        deploy shop web=1@v2
        wait 1
        wait 40
        wait 400
        forget default/URL
        rollback shop 1
        secret default/URL 3
        rollback shop 1
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > secret other/URL 1
            SecretSet
            > deploy shop web=1@v1,secret:URL
            missing_secret: `default/shop/web` reads the secret `default/URL`, which is not set
            > secret default/URL 2
            SecretSet
            > deploy shop web=1@v1,secret:URL
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 default/URL@2 | peers a
            > deploy shop web=1@v2
            Deployed { revision: Revision(2), changed: true }
            0s a gets 1.4: a2@2 | peers a
            > forget default/URL
            SecretDeleted
            > rollback shop 1
            missing_secret: `default/shop/web` reads the secret `default/URL`, which is not set
            > secret default/URL 3
            SecretSet
            > rollback shop 1
            Deployed { revision: Revision(3), changed: true }
            441s a gets 1.5: a2@2 a3@3 default/URL@3 | peers a
        "#]],
    );
}

#[test]
fn a_secret_that_something_reads_or_would_again_is_not_forgotten() {
    check(
        "
        node a
        secret default/URL 1
        secret default/KEY 1
        deploy shop web=1@v1,secret:URL
        wait 1
        forget default/URL
        deploy shop web=1@v2
        forget default/URL
        deploy batch sum=job1@v1,secret:KEY
        start default/batch/sum 2
        deploy batch other=1@v1
        forget default/KEY
        secret default/KEY 2
        cancel r1
        forget default/KEY
        forget default/KEY
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > secret default/URL 1
            SecretSet
            > secret default/KEY 1
            SecretSet
            > deploy shop web=1@v1,secret:URL
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 default/URL@1 | peers a
            > forget default/URL
            secret_in_use: `default/shop/web` reads the secret `default/URL`
            > deploy shop web=1@v2
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.5: a1@1 a2@2 default/URL@1 | peers a
            > forget default/URL
            secret_in_use: `default/shop/web` reads the secret `default/URL`
            > deploy batch sum=job1@v1,secret:KEY
            Deployed { revision: Revision(1), changed: true }
            > start default/batch/sum 2
            RunStarted(RunId(1))
            1s a gets 1.6: a1@1 a2@2 a3[r1 0..1 attempt 1] default/KEY@1 default/URL@1 | peers a
            > deploy batch other=1@v1
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.7: a1@1 a2@2 a3[r1 0..1 attempt 1] a4@2 default/KEY@1 default/URL@1 | peers a
            > forget default/KEY
            secret_in_use: `default/batch/sum` reads the secret `default/KEY`
            > secret default/KEY 2
            SecretSet
            1s a gets 1.8: a1@1 a2@2 a3[r1 0..1 attempt 1] a4@2 default/KEY@2 default/URL@1 | peers a
            > cancel r1
            Cancelled
            1s r1 ends: Cancelled
            1s a gets 1.9: a1@1 a2@2 a4@2 default/URL@1 | peers a
            > forget default/KEY
            SecretDeleted
            > forget default/KEY
            unknown_secret: there is no secret `default/KEY`
        "#]],
    );
}

#[test]
fn what_a_failed_rollout_would_bring_back_keeps_its_secrets_jobs_too() {
    check(
        "
        node a
        secret default/KEY 1
        secret default/OLD 1
        deploy shop web=1@v1 sum=job1@v1,secret:KEY old=1@v1,secret:OLD
        wait 40
        wait 400
        deploy shop web=1@v2 sum=job1@v1
        forget default/KEY
        forget default/OLD
        wait 1
        forget default/OLD
        wait 40
        wait 400
        forget default/KEY
        forget default/OLD
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > secret default/KEY 1
            SecretSet
            > secret default/OLD 1
            SecretSet
            > deploy shop web=1@v1 sum=job1@v1,secret:KEY old=1@v1,secret:OLD
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 default/OLD@1 | peers a
            > deploy shop web=1@v2 sum=job1@v1
            Deployed { revision: Revision(2), changed: true }
            440s a gets 1.5: a1@1 a2@1 a3@2 default/OLD@1 | peers a
            > forget default/KEY
            secret_in_use: `default/shop/sum` reads the secret `default/KEY`
            > forget default/OLD
            secret_in_use: `default/shop/old` reads the secret `default/OLD`
            441s a gets 1.6: a2@1 a3@2 | peers a
            > forget default/OLD
            secret_in_use: `default/shop/old` reads the secret `default/OLD`
            442s a gets 1.7: a3@2 | peers a
            452s a gets 1.8: a3@2 | peers a
            > forget default/KEY
            SecretDeleted
            > forget default/OLD
            SecretDeleted
        "#]],
    );
}

#[test]
fn what_goes_on_for_a_moment_after_its_app_is_gone_reads_its_secret_until_then() {
    check(
        "
        node a
        secret default/KEY 1
        deploy shop web=1@v1,secret:KEY
        wait 1
        delete shop
        secret default/KEY 2
        forget default/KEY
        wait 2
        forget default/KEY
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > secret default/KEY 1
            SecretSet
            > deploy shop web=1@v1,secret:KEY
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 default/KEY@1 | peers a
            > delete shop
            Deleted
            > secret default/KEY 2
            SecretSet
            1s a gets 1.4: a1@1 default/KEY@2 | peers a
            > forget default/KEY
            secret_in_use: `default/shop/web` reads the secret `default/KEY`
            2s a gets 1.5: | peers a
            > forget default/KEY
            SecretDeleted
        "#]],
    );
}

#[test]
fn a_namespace_has_so_many_secrets_and_no_more() {
    let mut world = world::World::new();
    for number in 0..MAX_SECRETS {
        world.play(&format!("secret default/KEY-{number} 1"));
    }
    world.out.clear();
    for line in ["secret default/ANOTHER 1", "secret default/KEY-7 2", "secret other/KEY 1"] {
        world.play(line);
    }
    expect![[r#"
        > secret default/ANOTHER 1
        too_many_secrets: namespace `default`: limit `secrets` is 256, observed 257
        > secret default/KEY-7 2
        SecretSet
        > secret other/KEY 1
        SecretSet
    "#]]
    .assert_eq(&world.out);
}
