//! Each template of `dunlin new`, as a new user would go on with it: its own tests, its build, a fleet, an answer.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::{Path, PathBuf};

use dunlin_e2e::{environment, node_modules, printed};
use dunlin_harness::Fleet;

/// A project made from a template, in a folder that is gone with this.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// Makes one that is called `price-list`.
    async fn begin(fleet: &Fleet, template: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = fleet.dunlin_in(folder.path(), &["new", template, "price-list"]).await.unwrap();
        let made = printed(&made);
        assert!(made.assert_done().contains("price-list is in price-list"), "{template}");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("price-list")
    }

    /// Runs a program in its folder, which must succeed.
    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).current_dir(self.path()).envs(environment());
        // Whoever runs the tests may have another folder for what is compiled, which holds for that and not for this.
        command.env_remove("CARGO_TARGET_DIR");
        let output = command.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {told}");
    }

    /// Builds it and brings it into the fleet.
    async fn deploy(&self, fleet: &Fleet) {
        let mut command = fleet.command(&self.path(), &["deploy", "--timeout", "120s"]);
        command.env_remove("CARGO_TARGET_DIR");
        printed(&command.envs(environment()).output().await.unwrap()).assert_done();
    }

    /// Runs the tests of its manifest.
    async fn test(&self, fleet: &Fleet) {
        let mut command = fleet.command(&self.path(), &["test"]);
        command.env_remove("CARGO_TARGET_DIR");
        let tested = printed(&command.envs(environment()).output().await.unwrap());
        assert!(tested.assert_done().starts_with("ok "), "{}", tested.out);
    }

    async fn delete(self, fleet: &Fleet) {
        printed(&fleet.dunlin(&["delete", "price-list", "--yes"]).await.unwrap()).assert_done();
    }
}

/// Makes a project in Rust that needs no network: with the versions of the guests, which are there, and in one folder for all
/// that is compiled.
async fn in_rust(fleet: &Fleet, template: &str, target: &Path) -> Project {
    let project = Project::begin(fleet, template).await;
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    std::fs::copy(guests.join("Cargo.lock"), project.path().join("Cargo.lock")).unwrap();
    std::os::unix::fs::symlink(target, project.path().join("target")).unwrap();
    project.run("cargo", &["test", "--offline", "--quiet"]).await;
    project.test(fleet).await;
    project
}

async fn answer(fleet: &Fleet, path: &str) -> String {
    dunlin_e2e::answer(&format!("http://{}{path}", fleet.ingress(0))).await
}

async fn result(fleet: &Fleet, project: &Project, job: &str, run: &str) -> String {
    let arguments = ["job", "run", job, "--wait", "--timeout", "60s"];
    printed(&fleet.dunlin_in(&project.path(), &arguments).await.unwrap()).assert_done();
    let result = fleet.dunlin_in(&project.path(), &["job", "result", run]).await.unwrap();
    printed(&result).assert_done().to_owned()
}

#[tokio::test]
async fn templates_in_rust_pass_their_own_tests_and_answer_on_a_fleet() {
    let fleet = Fleet::start(1).await.unwrap();
    let target = tempfile::tempdir().unwrap();

    let service = in_rust(&fleet, "service", target.path()).await;
    service.deploy(&fleet).await;
    assert_eq!(answer(&fleet, "/ada").await, "good day, ada\n");
    service.delete(&fleet).await;

    let site = in_rust(&fleet, "static-site", target.path()).await;
    site.deploy(&fleet).await;
    assert!(answer(&fleet, "/").await.contains("price-list"));
    site.delete(&fleet).await;

    let job = in_rust(&fleet, "job", target.path()).await;
    job.deploy(&fleet).await;
    assert!(result(&fleet, &job, "count", "r1").await.contains("2 11 inputs/dunlin.txt"));
    job.delete(&fleet).await;

    let map_reduce = in_rust(&fleet, "map-reduce", target.path()).await;
    map_reduce.deploy(&fleet).await;
    let total = result(&fleet, &map_reduce, "statuses", "r2").await;
    assert_eq!(total.lines().collect::<Vec<_>>(), ["200 2", "201 1", "404 1", "500 1"]);
}

#[tokio::test]
async fn templates_in_other_languages_build_and_are_taken() {
    let fleet = Fleet::start(1).await.unwrap();
    let in_c = Project::begin(&fleet, "job-c").await;
    in_c.test(&fleet).await;
    in_c.deploy(&fleet).await;
    let counted = result(&fleet, &in_c, "word-count", "r1").await;
    assert!(counted.contains("11 inputs/dunlin.txt"), "{counted}");

    let in_javascript = Project::begin(&fleet, "service-js").await;
    std::os::unix::fs::symlink(node_modules(), in_javascript.path().join("node_modules")).unwrap();
    in_javascript.run("npm", &["test"]).await;
    let in_python = Project::begin(&fleet, "service-python").await;
    in_python.run("python3", &["-m", "unittest"]).await;
    // Guests of these languages answer in `languages.rs`; to compile two interpreters more would show nothing new.
    for project in [&in_javascript, &in_python] {
        let mut command = fleet.command(&project.path(), &["build"]);
        let built = printed(&command.envs(environment()).output().await.unwrap());
        assert!(built.assert_done().contains("service.wasm"), "{}", built.err);
        let looked_at = fleet.dunlin_in(&project.path(), &["inspect", "service.wasm"]).await.unwrap();
        assert!(printed(&looked_at).assert_done().contains("runs as    service"));
    }
}
