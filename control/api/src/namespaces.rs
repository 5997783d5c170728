//! Namespaces: what each may have of the fleet, and what it has.

use dunlin_model::{Name, NamespaceSpec, Resources};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All namespaces of which an operator has said something, or which have something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceList {
    /// In order of name.
    pub namespaces: Vec<NamespaceStatus>,
}

/// What one namespace may have, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceStatus {
    /// Which.
    pub namespace: Name,
    /// What it may have.
    pub spec: NamespaceSpec,
    /// What its allocations reserve.
    pub reserved: Resources,
    /// How many allocations it has, without those whose node is lost.
    pub allocations: u32,
    /// How many items of its runs have no record yet.
    pub open_items: u64,
}
