//! What an artifact holds, and its manifest as registries keep it.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_model::Digest;
use serde::{Deserialize, Serialize};

/// The most layers of an artifact.
pub const MAX_LAYERS: usize = 256;

/// When each component was made, as tools want to be told: the same bytes are the same artifact, whenever they are pushed.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The types of what is kept, as others know them.
pub mod layout {
    /// The manifest of an artifact.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// The config of an artifact that is one component or module.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// A component or a module.
    pub const WASM: &str = "application/wasm";
    /// A config that says nothing.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// An app of Dunlin, as the type of the whole artifact.
    pub const APP: &str = "application/vnd.dunlin.app.v1";
    /// The manifest of an app, `dunlin.toml`.
    pub const APP_MANIFEST: &str = "application/vnd.dunlin.manifest.v1+toml";
    /// What is signed of an app's components: a statement, or the signature over it.
    pub const SIGNED: &str = "application/vnd.dunlin.signed.v1";
    /// The annotation that names the file that a layer is.
    pub const TITLE: &str = "org.opencontainers.image.title";
}

/// Bytes of an artifact, with what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Their type, as [`layout`] names them.
    pub media_type: String,
    /// The file that they are, if they have a name.
    pub title: Option<String>,
    /// The bytes.
    pub bytes: Bytes,
}

/// Something that a registry keeps under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What the whole is, where its config does not say it.
    pub artifact_type: Option<String>,
    /// What is said of it, in the form of its type.
    pub config: Layer,
    /// What it is made of.
    pub layers: Vec<Layer>,
    /// What is said of it for people and tools, by names like `org.opencontainers.image.version`.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// Returns a component as the ecosystem's tools keep it, with what it imports and exports.
    pub fn component(bytes: Bytes, imports: &[String], exports: &[String]) -> Self {
        let config = WasmConfig {
            created: CREATED,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: vec![Digest::of(&bytes)],
            component: WasmComponent { exports, imports },
        };
        // A struct of texts can always be written.
        let config = serde_json::to_vec(&config).expect("texts are JSON");
        Self {
            artifact_type: None,
            config: Layer { media_type: layout::WASM_CONFIG.to_owned(), title: None, bytes: config.into() },
            layers: vec![Layer { media_type: layout::WASM.to_owned(), title: None, bytes }],
            annotations: BTreeMap::new(),
        }
    }

    /// Returns an app: its manifest, the files of its components by the paths that the manifest names, and what is signed
    /// of them by the paths where a deploy looks for that.
    pub fn app(
        manifest: Bytes,
        components: impl IntoIterator<Item = (String, Bytes)>,
        signed: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Self {
        let layer = |media_type: &str, title: String, bytes| Layer {
            media_type: media_type.to_owned(),
            title: Some(title),
            bytes,
        };
        let manifest = layer(layout::APP_MANIFEST, "dunlin.toml".to_owned(), manifest);
        let components = components.into_iter().map(|(path, bytes)| layer(layout::WASM, path, bytes));
        let signed = signed.into_iter().map(|(path, bytes)| layer(layout::SIGNED, path, bytes));
        Self {
            artifact_type: Some(layout::APP.to_owned()),
            config: Layer {
                media_type: layout::EMPTY.to_owned(),
                title: None,
                bytes: Bytes::from_static(b"{}"),
            },
            layers: std::iter::once(manifest).chain(components).chain(signed).collect(),
            annotations: BTreeMap::new(),
        }
    }

    /// Returns the component that it is, if it is one.
    pub fn into_component(self) -> Option<Bytes> {
        let mut layers = self.layers.into_iter().filter(|layer| layer.media_type == layout::WASM);
        let only = layers.next()?;
        let is_alone = self.artifact_type.as_deref() != Some(layout::APP) && layers.next().is_none();
        is_alone.then_some(only.bytes)
    }

    /// Returns the manifest under which a registry keeps it.
    pub(crate) fn manifest(&self) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(layout::MANIFEST.to_owned()),
            artifact_type: self.artifact_type.clone(),
            config: Descriptor::of(&self.config),
            layers: self.layers.iter().map(Descriptor::of).collect(),
            annotations: self.annotations.clone(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<Digest>,
    component: WasmComponent<'a>,
}

#[derive(Serialize)]
struct WasmComponent<'a> {
    exports: &'a [String],
    imports: &'a [String],
}

/// The manifest of an artifact: what it is made of, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What one part of an artifact is, how long, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(layer: &Layer) -> Self {
        let title = layer.title.iter().map(|title| (layout::TITLE.to_owned(), title.clone()));
        Self {
            media_type: layer.media_type.clone(),
            digest: Digest::of(&layer.bytes),
            size: layer.bytes.len() as u64,
            annotations: title.collect(),
        }
    }

    /// Returns the layer that it describes, with bytes that were compared with it.
    pub(crate) fn with(mut self, bytes: Bytes) -> Layer {
        Layer { media_type: self.media_type, title: self.annotations.remove(layout::TITLE), bytes }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_component_is_kept_as_the_tools_of_others_keep_it() {
        let imports = ["wasi:clocks/wall-clock@0.2.6".to_owned()];
        let exports = ["wasi:cli/run@0.2.6".to_owned()];
        let artifact = Artifact::component(Bytes::from_static(b"\0asm"), &imports, &exports);
        let config = String::from_utf8(artifact.config.bytes.to_vec()).unwrap();
        let manifest = serde_json::to_string_pretty(&artifact.manifest()).unwrap();
        expect![[r#"
            {"created":"1970-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":["sha256:cd5d4935a48c0672cb06407bb443bc0087aff947c6b864bac886982c73b3027f"],"component":{"exports":["wasi:cli/run@0.2.6"],"imports":["wasi:clocks/wall-clock@0.2.6"]}}
            {
              "schemaVersion": 2,
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "config": {
                "mediaType": "application/vnd.wasm.config.v0+json",
                "digest": "sha256:d60e23867d6844c106c58cdbcb80c37ffac24e1ba1eb16d6c4eaba0b3598e4d8",
                "size": 251
              },
              "layers": [
                {
                  "mediaType": "application/wasm",
                  "digest": "sha256:cd5d4935a48c0672cb06407bb443bc0087aff947c6b864bac886982c73b3027f",
                  "size": 4
                }
              ]
            }
        "#]].assert_eq(&format!("{config}\n{manifest}\n"));
        assert_eq!(artifact.into_component(), Some(Bytes::from_static(b"\0asm")));
    }

    #[test]
    fn an_app_is_no_component() {
        let wasm = Bytes::from_static(b"\0asm");
        let app = Artifact::app(Bytes::from_static(b"[app]"), [("a.wasm".to_owned(), wasm)], []);
        assert_eq!(app.manifest().layers[1].annotations[layout::TITLE], "a.wasm");
        assert_eq!(app.into_component(), None);
    }
}
