//! OpenAPI schemas of the words that are written as text: names, ids and digests.
//!
//! The other words derive theirs; these have rules of their own, which a derive cannot see.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{AllocationId, AppName, ClusterId, Digest, Name, NodeId, RunId, WorkloadName};

const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";

macro_rules! text_schema {
    ($type:ident, $description:literal, $example:literal, $pattern:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let object = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .examples([$example])
                    .pattern(Some($pattern));
                RefOr::T(Schema::Object(object.build()))
            }
        }

        impl ToSchema for $type {}
    };
}

text_schema!(Name, "A DNS label.", "shop", format!("^{LABEL}$"));
text_schema!(NodeId, "A node's name.", "node-1", format!("^{LABEL}$"));
text_schema!(ClusterId, "A fleet's name.", "k3j2x7", format!("^{LABEL}$"));
text_schema!(AppName, "The full name of an app.", "default/shop", format!("^{LABEL}/{LABEL}$"));
text_schema!(
    WorkloadName,
    "The full name of a workload.",
    "default/shop/cart",
    format!("^{LABEL}/{LABEL}/{LABEL}$")
);
text_schema!(AllocationId, "An allocation.", "a12", "^a[0-9]+$");
text_schema!(RunId, "A run of a job.", "r3", "^r[0-9]+$");
text_schema!(
    Digest,
    "The SHA-256 of some bytes.",
    "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "^sha256:[0-9a-f]{64}$"
);
