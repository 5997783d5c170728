//! OpenAPI schemas of the words that are written as text: names, ids, digests and conditions.
//!
//! The other words derive theirs; these have rules of their own, which a derive cannot see.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    AllocationId, AppName, ClusterId, Cron, Digest, LabelExpression, Name, NodeId, RunId, SecretId,
    SecretName, SecretVersion, SignerKey, TimeZone, WorkloadName,
};

const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
const SECRET: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
/// The key of a node's label, or its value.
const WORD: &str = "[A-Za-z0-9_./-]{1,63}";

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
text_schema!(SecretName, "The name of a secret.", "DATABASE_URL", format!("^{SECRET}$"));
text_schema!(SecretId, "A secret of a namespace.", "default/DATABASE_URL", format!("^{LABEL}/{SECRET}$"));
text_schema!(
    SecretVersion,
    "Which of the values that a secret has had.",
    "6c1f0a9be2d34478",
    "^[0-9a-f]{16}$"
);
text_schema!(
    SignerKey,
    "A public key of minisign.",
    "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
    "^[A-Za-z0-9+/=]{56}$"
);
text_schema!(AllocationId, "An allocation.", "a12", "^a[0-9]{1,18}$");
text_schema!(RunId, "A run of a job.", "r3", "^r[0-9]{1,18}$");
text_schema!(
    Cron,
    "When a schedule is due: minute, hour, day of the month, month, day of the week; the second may stand before them.",
    "0 3 * * *",
    "^.{1,256}$"
);
text_schema!(TimeZone, "A time zone by its IANA name.", "Europe/Zurich", "^[A-Za-z0-9_+/-]+$");
text_schema!(
    Digest,
    "The SHA-256 of some bytes.",
    "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "^sha256:[0-9a-f]{64}$"
);
text_schema!(
    LabelExpression,
    "A condition on the labels of a node.",
    "zone in (a, b)",
    format!(
        "^\\s*(!\\s*{WORD}|{WORD}(\\s*(!?=|[<>]=?)\\s*{WORD}\
         |\\s+(not\\s+)?in\\s*\\(\\s*{WORD}(\\s*,\\s*{WORD})*\\s*\\))?)\\s*$"
    )
);
