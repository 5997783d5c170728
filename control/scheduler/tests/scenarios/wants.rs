//! What is newly wanted: where a namespace asks, a deploy that wants more is refused until it says that this is accepted.

use expect_test::expect;

use crate::check;

#[test]
fn where_a_namespace_asks_more_is_deployed_by_who_accepts_it_alone() {
    check(
        "
        node a
        deploy shop web=1@v1
        namespace default ask
        deploy shop web=1@v2
        deploy shop web=1@v3,memory:256MiB
        deploy shop web=1@v3,memory:256MiB accept
        deploy shop web=1@v4,memory:256MiB
        deploy shop web=1@v5
        rollback shop 4
        deploy shop web=1@v6,memory:512MiB,route:shop.example.com
        deploy cart web=1@v1,memory:65MiB
        namespace default
        deploy shop web=1@v6,memory:512MiB,route:shop.example.com
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > namespace default ask
            NamespaceSet
            > deploy shop web=1@v2
            Deployed { revision: Revision(2), changed: true }
            0s a gets 1.4: a2@2 | peers a
            > deploy shop web=1@v3,memory:256MiB
            acceptance_required: namespace `default` asks before an app may do or have more, and `default/shop` newly wants `web.limits.memory: 64MiB -> 256MiB`
            > deploy shop web=1@v3,memory:256MiB accept
            Deployed { revision: Revision(3), changed: true }
            0s a gets 1.6: a3@3 | peers a
            > deploy shop web=1@v4,memory:256MiB
            Deployed { revision: Revision(4), changed: true }
            0s a gets 1.7: a4@4 | peers a
            > deploy shop web=1@v5
            Deployed { revision: Revision(5), changed: true }
            0s a gets 1.8: a5@5 | peers a
            > rollback shop 4
            Deployed { revision: Revision(6), changed: true }
            0s a gets 1.10: a6@6 | peers a
            > deploy shop web=1@v6,memory:512MiB,route:shop.example.com
            acceptance_required: namespace `default` asks before an app may do or have more, and `default/shop` newly wants `web.limits.memory: 256MiB -> 512MiB`, `web.routes: shop.example.com/`
            > deploy cart web=1@v1,memory:65MiB
            acceptance_required: namespace `default` asks before an app may do or have more, and `default/cart` newly wants `web.limits.memory: 64MiB -> 65MiB`
            > namespace default
            NamespaceSet
            > deploy shop web=1@v6,memory:512MiB,route:shop.example.com
            Deployed { revision: Revision(7), changed: true }
            0s a gets 1.12: a7@7 | shop.example.com:  | peers a
        "#]],
    );
}
