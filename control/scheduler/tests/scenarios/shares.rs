//! Canaries that have a share of the requests.

use expect_test::expect;

use crate::world::World;

fn shop(component: &str, rollout: &str) -> String {
    format!(
        "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"{component}\"\nallocations = 2\n\
         routes = [{{ host = \"shop.example\" }}]\n[service.web.rollout]\nbake = \"4s\"\n{rollout}"
    )
}

#[test]
fn canaries_have_their_share_until_they_are_promoted() {
    let mut world = World::new();
    for (name, text) in
        [("one", shop("1.wasm", "")), ("two", shop("2.wasm", "canary = 1\ncanary_share = \"5%\""))]
    {
        world.manifests.insert(name.to_owned(), text);
    }
    for line in ["node a", "apply one", "wait 6", "apply two", "wait 16", "history shop"] {
        world.play(line);
    }
    expect![[r#"
        0s a gets 1.2: | peers a
        > apply one
        Deployed { revision: Revision(1), changed: true }
        0s a gets 1.4: a1@1 a2@1 | shop.example:  | peers a
        1s a gets 1.5: a1@1 a2@1 | shop.example: a1 on a, a2 on a | peers a
        > apply two
        Deployed { revision: Revision(2), changed: true }
        6s a gets 1.7: a1@1 a2@1 a3@2 | shop.example: a1 on a, a2 on a with 5% to canaries | peers a
        7s a gets 1.8: a1@1 a2@1 a3@2 | shop.example: a1 on a, a2 on a, canary a3 on a with 5% to canaries | peers a
        11s a gets 1.10: a1@1 a2@1 a3@2 a4@2 | shop.example: a1 on a, a3 on a | peers a
        11s a gets 1.11: a1@1 a2@1 a3@2 a4@2 | shop.example: a3 on a, a4 on a | peers a
        12s a gets 1.12: a3@2 a4@2 | shop.example: a3 on a, a4 on a | peers a
        16s a gets 1.13: a3@2 a4@2 | shop.example: a3 on a, a4 on a | peers a
        --history shop
        2, its rollout is over
        1 was well
    "#]].assert_eq(&world.out);
}
