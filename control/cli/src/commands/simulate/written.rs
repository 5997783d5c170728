//! A fleet in a file, for `dunlin simulate --fleet`: written by hand in TOML, or by `--snapshot-out` in JSON.
//!
//! The components of its apps need not be there: what is decided depends on them only by their digests.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dunlin_api::{FleetSnapshot, SnapshotApp, SnapshotNode, SnapshotProfile};
use dunlin_model::{
    AppSpec, Bytes, Digest, FuelRate, Name, NamespaceSpec, NodeId, Overcommit, Packing, Quota, Resources,
    Revision,
};
use serde::{Deserialize, Deserializer, de};

use crate::commands::deploy::{read_manifest, wrapped};
use crate::error::CommandError;
use crate::output::Output;

/// The most bytes of a file.
const MAX_FILE: u64 = 512 << 20;
/// The most nodes that one entry stands for.
const MAX_COUNT: u32 = 100_000;

/// A fleet as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profile: SnapshotProfile,
    nodes: Vec<Nodes>,
    #[serde(default)]
    namespaces: BTreeMap<Name, Namespace>,
    #[serde(default)]
    apps: Vec<App>,
}

/// One node, or several that are alike: `a` with a count of 2 stands for `a-1` and `a-2`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nodes {
    name: NodeId,
    count: Option<u32>,
    #[serde(deserialize_with = "text")]
    memory: Bytes,
    #[serde(deserialize_with = "text")]
    fuel_rate: FuelRate,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    resources: BTreeMap<String, u32>,
    #[serde(default)]
    batch_overcommit: Overcommit,
    #[serde(default)]
    cordoned: bool,
    #[serde(default)]
    lost: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    #[serde(default, deserialize_with = "optional_text")]
    memory: Option<Bytes>,
    #[serde(default, deserialize_with = "optional_text")]
    fuel_rate: Option<FuelRate>,
    allocations: Option<u32>,
    items: Option<u32>,
    weight: Option<u32>,
    #[serde(default)]
    packing: Packing,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct App {
    /// Relative to the file.
    manifest: PathBuf,
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn optional_text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    text(deserializer).map(Some)
}

/// Reads a fleet from a file.
pub(super) fn read(path: &Path, output: &Output) -> Result<FleetSnapshot, CommandError> {
    let cannot = || CommandError::failed(format!("cannot read the fleet in {}", path.display()));
    let mut content = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut content));
    read.map_err(|error| {
        cannot()
            .caused_by(&error)
            .help("`dunlin simulate --snapshot-out FILE` writes one of the fleet at work")
    })?;
    if content.len() as u64 > MAX_FILE {
        return Err(cannot()
            .because(format!("it has more than {MAX_FILE} bytes"))
            .help("is it the right file?"));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&content).map_err(|error| {
            cannot().caused_by(&error).help("a file that ends in `.json` is one that `--snapshot-out` wrote")
        });
    }
    let file: File = toml::from_str(&content).map_err(|error| {
        cannot()
            .because(error.to_string().trim_end().to_owned())
            .help("the book's page on looking ahead shows what stands in such a file")
    })?;
    let mut nodes = Vec::new();
    for entry in file.nodes {
        nodes.extend(entry.all().map_err(|why| {
            cannot().because(why).help("leave the entry out, or write several with other names")
        })?);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut apps = Vec::new();
    for App { manifest } in file.apps {
        apps.push(SnapshotApp { revision: Revision(1), spec: app(&folder.join(manifest), None, output)? });
    }
    let namespaces = file.namespaces.into_iter().map(|(name, namespace)| (name, namespace.spec()));
    Ok(FleetSnapshot {
        profile: file.profile,
        nodes,
        namespaces: namespaces.collect(),
        apps,
        ..FleetSnapshot::default()
    })
}

impl Nodes {
    fn all(self) -> Result<Vec<SnapshotNode>, String> {
        let names: Vec<NodeId> = match self.count {
            None => vec![self.name.clone()],
            Some(count) if count == 0 || count > MAX_COUNT => {
                return Err(format!(
                    "limit `count` of `{}` is 1 to {MAX_COUNT}, observed {count}",
                    self.name
                ));
            }
            Some(count) => {
                let names = (1..=count).map(|number| format!("{}-{number}", self.name).parse());
                names.collect::<Result<_, _>>().map_err(|error: dunlin_model::NameError| error.to_string())?
            }
        };
        let node = |node: NodeId| SnapshotNode {
            node,
            capacity: Resources { memory: self.memory, fuel_rate: self.fuel_rate },
            labels: self.labels.clone(),
            resources: self.resources.clone(),
            batch_overcommit: self.batch_overcommit,
            cordoned: self.cordoned,
            lost: self.lost,
        };
        Ok(names.into_iter().map(node).collect())
    }
}

impl Namespace {
    fn spec(self) -> NamespaceSpec {
        let Self { memory, fuel_rate, allocations, items, weight, packing } = self;
        NamespaceSpec {
            quota: Quota { memory, fuel_rate, allocations, items },
            weight: weight.unwrap_or(NamespaceSpec::default().weight),
            packing,
            ..NamespaceSpec::default()
        }
    }
}

/// Reads the spec of an app; a component that is not there is taken for one that nobody has, and that is said.
pub(super) fn app(path: &Path, namespace: Option<&Name>, output: &Output) -> Result<AppSpec, CommandError> {
    let (manifest, folder) = read_manifest(path)?;
    let mut workloads = BTreeMap::new();
    for (name, workload) in &manifest.workloads {
        let file = folder.join(&workload.component);
        let digest = match fs::read(&file) {
            Ok(bytes) => Digest::of(&wrapped(bytes.into(), &file, output)?),
            Err(_absent) => {
                output.note(&format!("{} of `{name}` is not there; it is taken as new", file.display()));
                Digest::of(file.as_os_str().as_encoded_bytes())
            }
        };
        workloads.insert(name.clone(), workload.spec(digest));
    }
    let mut name = manifest.app_name();
    name.namespace = namespace.cloned().unwrap_or(name.namespace);
    Ok(AppSpec { name, workloads })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::args::Format;

    const FLEET: &str = r#"
        profile = "lan"
        [[nodes]]
        name = "a"
        count = 2
        memory = "1GiB"
        fuel_rate = "1G/s"
        labels = { zone = "a" }
        [[nodes]]
        name = "gpu"
        memory = "4GiB"
        fuel_rate = "1G/s"
        resources = { gpu = 1 }
        cordoned = true
        [namespaces.default]
        memory = "2GiB"
        packing = "pack"
        [[apps]]
        manifest = "shop.toml"
    "#;

    fn read_text(fleet: &str) -> Result<FleetSnapshot, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.toml");
        fs::write(&path, fleet).unwrap();
        let shop = "app.name = \"shop\"\nservice.web.component = \"web.wasm\"\n";
        fs::write(folder.path().join("shop.toml"), shop).unwrap();
        let place = folder.path().display().to_string();
        read(&path, &Output::new(Format::Table, true))
            .map_err(|error| error.to_string().replace(&place, "FOLDER"))
    }

    #[test]
    fn a_fleet_is_read_as_people_write_it_and_as_it_was_written_down() {
        let fleet = read_text(FLEET).unwrap();
        let names: Vec<String> = fleet.nodes.iter().map(|node| node.node.to_string()).collect();
        assert_eq!(names, ["a-1", "a-2", "gpu"]);
        assert_eq!(fleet.namespaces.values().next().unwrap().quota.memory, Some(Bytes(2 << 30)));
        assert_eq!(fleet.apps[0].spec.name.to_string(), "default/shop");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.json");
        super::super::write(&path, &fleet).unwrap();
        assert_eq!(read(&path, &Output::new(Format::Table, true)).unwrap(), fleet);
    }

    #[test]
    fn a_mistake_in_a_fleet_is_shown_with_its_place() {
        let mut told = read_text(&FLEET.replace("memory = \"4GiB\"", "memory = \"much\"")).unwrap_err();
        told += &read_text(&FLEET.replace("cordoned", "cordond")).unwrap_err();
        told += &read_text(&FLEET.replace("count = 2", "count = 200000")).unwrap_err();
        told += &read_text(&FLEET.replace("shop.toml", "none.toml")).unwrap_err();
        expect![[r#"
            error: cannot read the fleet in FOLDER/fleet.toml
              cause: TOML parse error at line 11, column 18
                        |
                     11 |         memory = "much"
                        |                  ^^^^^^
                     `much` should be a whole number and a unit, like "64MiB"
              help: the book's page on looking ahead shows what stands in such a file
            error: cannot read the fleet in FOLDER/fleet.toml
              cause: TOML parse error at line 14, column 9
                        |
                     14 |         cordond = true
                        |         ^^^^^^^
                     unknown field `cordond`, expected one of `name`, `count`, `memory`, `fuel_rate`, `labels`, `resources`, `batch_overcommit`, `cordoned`, `lost`
              help: the book's page on looking ahead shows what stands in such a file
            error: cannot read the fleet in FOLDER/fleet.toml
              cause: limit `count` of `a` is 1 to 100000, observed 200000
              help: leave the entry out, or write several with other names
            error: cannot read the manifest FOLDER/none.toml
              cause: No such file or directory (os error 2)
              help: give the folder with dunlin.toml: `dunlin deploy path/to/app`
        "#]].assert_eq(&told);
    }
}
