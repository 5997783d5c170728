//! Components and apps as OCI artifacts, in registries that others run.
//!
//! [`Reference`] says where an artifact is, [`Artifact`] what it holds, [`Registry`] takes it there and back. The layout
//! of a component is that of the ecosystem (`application/vnd.wasm.config.v0+json`), so that other tools read what is
//! pushed here and the other way round.
//!
//! A registry is a stranger. What it sends is bounded before it is read and compared with the digest that it should have before it is used;
//! a password goes to nobody but the registry it is for, or to who may hand out tokens for it.
//!
//! Not here: what is done with what was pulled (`control/cli`).

mod artifact;
mod challenge;
mod credentials;
mod reference;
mod registry;

pub use artifact::{Artifact, Layer, MAX_LAYERS, layout};
pub use credentials::{Credentials, CredentialsError, Login};
pub use reference::{Reference, ReferenceError, SCHEME};
pub use registry::{Registry, RegistryError, Trust};
