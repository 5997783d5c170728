//! From a manifest to specs: each component that it names is had from where it is, a file, a registry or an artifact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_model::{AppSpec, Digest, Manifest, Name};
use dunlin_oci::{Reference, SCHEME};

use super::build::{Built, Component, inputs_to_send, note_needed, note_ungranted, read_component};
use super::signed::signed;
use super::wrap::wrapped;
use crate::error::CommandError;
use crate::output::Output;
use crate::registry;

/// Where the components are that a manifest names by paths.
pub(crate) enum Place<'a> {
    /// In files, relative to a folder.
    Files {
        folder: &'a Path,
        /// Whether a build that would make them was left out.
        was_not_built: bool,
    },
    /// In an artifact, by the paths themselves, and what is signed of them as well.
    Artifact(&'a BTreeMap<String, Bytes>),
}

/// Returns the app that a manifest says, with its components. `namespace` goes before the one in the manifest.
pub(crate) async fn gather(
    manifest: Manifest,
    place: Place<'_>,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<Built, CommandError> {
    // What several workloads name is read, and wrapped, once.
    let mut digests: BTreeMap<&str, Digest> = BTreeMap::new();
    let mut components = BTreeMap::new();
    let mut workloads = BTreeMap::new();
    for (name, workload) in &manifest.workloads {
        let named = workload.component.as_str();
        let digest = match digests.get(named) {
            Some(digest) => *digest,
            None => {
                let (path, bytes) = component(named, name, &place, output).await?;
                let bytes = wrapped(bytes, &path, output)?;
                let digest = Digest::of(&bytes);
                digests.insert(named, digest);
                components.entry(digest).or_insert_with(|| Component { digest, path, bytes });
                digest
            }
        };
        if let Some(component) = components.get(&digest) {
            note_ungranted(component, name, workload, output);
            note_needed(component, name, output);
        }
        let mut spec = workload.spec(digest);
        spec.signed = signed(&place, name, output);
        workloads.insert(name.clone(), spec);
    }
    let mut name = manifest.app_name();
    name.namespace = namespace.cloned().unwrap_or(name.namespace);
    let folder = match place {
        Place::Files { folder, .. } => folder.to_owned(),
        Place::Artifact(_) => PathBuf::from("."),
    };
    let inputs = inputs_to_send(&manifest);
    let components = components.into_values().collect();
    Ok(Built { spec: AppSpec { name, workloads }, components, inputs, tests: manifest.tests, folder })
}

/// Returns a component and what it is called to people.
async fn component(
    named: &str,
    workload: &Name,
    place: &Place<'_>,
    output: &Output,
) -> Result<(PathBuf, Bytes), CommandError> {
    match place {
        Place::Artifact(files) => match files.get(named) {
            Some(bytes) => Ok((PathBuf::from(named), bytes.clone())),
            None => Err(CommandError::failed(format!("the artifact has no component for `{workload}`"))
                .because(format!("its manifest names `{named}`, and it has no such layer"))
                .help("who has made it has to push it again: `dunlin push`")),
        },
        Place::Files { .. } if named.starts_with(SCHEME) => {
            let reference: Reference = named.parse().map_err(|error: dunlin_oci::ReferenceError| {
                CommandError::failed(format!("cannot find the component of `{workload}`"))
                    .caused_by(&error)
                    .help("write `component = \"oci://registry.example/team/hello:1.0\"`, or a path")
            })?;
            let (bytes, pinned) = registry::pull_component(&reference, output).await?;
            // A tag can mean something else tomorrow; what runs is known by its digest.
            output.note(&format!("`{workload}` is {pinned}"));
            Ok((PathBuf::from(pinned.to_string()), bytes))
        }
        Place::Files { folder, was_not_built } => {
            let path = folder.join(named);
            let bytes = read_component(&path, workload, *was_not_built)?;
            Ok((path, bytes))
        }
    }
}
