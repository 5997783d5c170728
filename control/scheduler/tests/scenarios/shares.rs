//! Canaries that have a share of the requests.

use expect_test::expect;

use crate::world::World;

fn shop(component: &str, rollout: &str) -> String {
    format!(
        "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"{component}\"\nallocations = 2\n\
         routes = [{{ host = \"shop.example\" }}]\n[service.web.rollout]\nbake = \"4s\"\n{rollout}"
    )
}

/// Returns what became of the second app where the first one has its route.
fn second(first: &str, second: &str) -> String {
    let app = |namespace: &str, route: &str| {
        format!(
            "[app]\nname = \"shop\"\nnamespace = \"{namespace}\"\n[service.web]\ncomponent = \"1.wasm\"\nroutes = [{route}]\n"
        )
    };
    let mut world = World::new();
    let (namespace, second) = second.split_once(' ').unwrap();
    world.manifests.insert("first".to_owned(), app("default", first));
    world.manifests.insert("second".to_owned(), app(namespace, second).replace("\"shop\"", "\"other\""));
    world.play("apply first");
    world.play("apply second");
    world.out.lines().last().unwrap().to_owned()
}

#[test]
fn nobody_takes_the_requests_of_another_namespace_by_a_header_or_a_slash() {
    let taken = "route_taken: the route `";
    let by_header = r#"headers = { cookie = "*" }"#;
    for (first, then, is_taken) in [
        (r#"{ path = "/cart" }"#, format!(r#"other {{ path = "/cart/", {by_header} }}"#), true),
        (r#"{ path = "/cart/" }"#, format!(r#"other {{ path = "/cart", {by_header} }}"#), true),
        (r#"{ path = "/" }"#, format!(r#"other {{ path = "/", {by_header} }}"#), true),
        (r#"{ path = "/cart" }"#, r#"default { path = "/cart/" }"#.to_owned(), true),
        (r#"{ path = "/cart" }"#, format!(r#"default {{ path = "/cart/", {by_header} }}"#), false),
        (r#"{ path = "/cart" }"#, format!(r#"other {{ path = "/cart/x", {by_header} }}"#), false),
        (r#"{ path = "/cart" }"#, r#"other { path = "/carts" }"#.to_owned(), false),
    ] {
        let told = second(first, &then);
        assert_eq!(told.contains(taken), is_taken, "{first} and then {then}: {told}");
    }
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
