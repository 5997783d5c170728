//! Signed components: who vouches for what a namespace runs.
//!
//! A statement says what a component is, for which workload it is meant and from when on, and one signature of minisign
//! stands over its text. A namespace names the keys whose word counts there: a registry, or a mistake, then brings nothing
//! that nobody signed. So can the operator of a node: in the namespaces that he names, neither does who has the coordinator.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use minisign_verify::{Error, PublicKey, Signature};
use semver::Version;
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table, value};

use crate::check::shown;
use crate::{Digest, Name, Timestamp, WorkloadName};

/// The most bytes of a statement, and of its signature: they go to a node with each allocation.
pub(crate) const MAX_SIGNED_TEXT: usize = 1 << 10;
/// What a statement is, so that no other text that somebody signed with the same key is one.
const KIND: &str = "dunlin component 1";

/// The public key of somebody who signs components: a key of minisign, as in the second line of a `.pub` file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignerKey(String);

/// A text is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no public key of minisign, as in the second line of a `.pub` file")]
pub struct SignerKeyError {
    /// The text, shortened and with control characters escaped.
    pub text: String,
}

impl SignerKey {
    /// The most bytes of one.
    const MAX_LENGTH: usize = 128;

    fn key(&self) -> Option<PublicKey> {
        PublicKey::from_base64(&self.0).ok()
    }
}

impl FromStr for SignerKey {
    type Err = SignerKeyError;

    fn from_str(text: &str) -> Result<Self, SignerKeyError> {
        let key = Self(text.to_owned());
        let is_key = text.len() <= Self::MAX_LENGTH && key.key().is_some();
        if is_key { Ok(key) } else { Err(SignerKeyError { text: shown(text) }) }
    }
}

impl TryFrom<String> for SignerKey {
    type Error = SignerKeyError;

    fn try_from(text: String) -> Result<Self, SignerKeyError> {
        text.parse()
    }
}

impl From<SignerKey> for String {
    fn from(key: SignerKey) -> Self {
        key.0
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a signer says of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which component.
    pub component: Digest,
    /// For which workload of which app, in whatever namespace that trusts the signer.
    pub app: Name,
    /// See `app`.
    pub workload: Name,
    /// Which release of it this is.
    pub version: Version,
    /// From when on it may run.
    pub not_before: Timestamp,
}

impl Statement {
    /// Returns the text that is signed: TOML.
    pub fn text(&self) -> String {
        let Self { component, app, workload, version, not_before } = self;
        let mut table = Table::new();
        let fields = [
            ("statement", KIND.to_owned()),
            ("component", component.to_string()),
            ("app", app.to_string()),
            ("workload", workload.to_string()),
            ("version", version.to_string()),
            ("not_before", not_before.rfc3339()),
        ];
        for (name, text) in fields {
            table.insert(name, value(text));
        }
        DocumentMut::from(table).to_string()
    }

    /// Refuses a component that may run only later.
    pub fn check_begun(&self, now: Timestamp) -> Result<(), SignatureError> {
        let not_before = self.not_before;
        if not_before > now { Err(SignatureError::NotYet { not_before, now }) } else { Ok(()) }
    }

    /// Returns what a text states; nothing if it is no statement, or says more than one does.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_SIGNED_TEXT {
            return None;
        }
        let table: DocumentMut = text.parse().ok()?;
        let field = |name| table.get(name).and_then(Item::as_str);
        let is_whole = table.len() == 6 && field("statement") == Some(KIND);
        if !is_whole {
            return None;
        }
        Some(Self {
            component: field("component")?.parse().ok()?,
            app: field("app")?.parse().ok()?,
            workload: field("workload")?.parse().ok()?,
            version: field("version")?.parse().ok()?,
            not_before: Timestamp::from_rfc3339(field("not_before")?)?,
        })
    }
}

/// A statement with the signature that stands over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signed {
    /// What is signed: the text of a statement, as `dunlin sign` writes it.
    pub statement: String,
    /// The signature over it: what minisign writes into a `.minisig` file.
    pub signature: String,
}

/// Why a component may not run where only signed ones do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Nobody signed it.
    #[error("it is not signed")]
    Absent,
    /// What should be a statement, or its signature, is none.
    #[error("its {0} is none")]
    Malformed(&'static str),
    /// The signature is by none of the keys that count, or stands over something else.
    #[error("its signature is by none of the keys that are named there, or over another statement")]
    Untrusted,
    /// Something else was signed.
    #[error("its statement is for component {stated}, and this is {found}")]
    OtherComponent {
        /// What was signed.
        stated: Digest,
        /// What is to run.
        found: Digest,
    },
    /// It is signed for another workload.
    #[error("its statement is for `{stated}`, and this is `{found}`")]
    OtherWorkload {
        /// For what it was signed: `app/workload`.
        stated: String,
        /// What is to run it: `app/workload`.
        found: String,
    },
    /// A later release of it runs: to go back is a wish of its own.
    #[error("its statement is for version {version}, and version {newest} was deployed before")]
    Older {
        /// Which release it is.
        version: Version,
        /// Which one there is.
        newest: Version,
    },
    /// It may run later.
    #[error("its statement holds from {} on, and it is {}", not_before.rfc3339(), now.rfc3339())]
    NotYet {
        /// From when on it may run.
        not_before: Timestamp,
        /// What time it is.
        now: Timestamp,
    },
}

impl SignatureError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Absent | Self::Malformed(_) => {
                "in the folder of the app, `dunlin sign --key FILE --version VERSION` signs its components; deploy it again then"
            }
            Self::Untrusted => {
                "sign it with a key that is named there: `dunlin namespace show NAMESPACE` lists them, and a node's \
                 config file has its own under `[signers]`"
            }
            Self::OtherComponent { .. } => {
                "it was built again after it was signed: sign what is to be deployed, and deploy it with `--no-build`"
            }
            Self::OtherWorkload { .. } => "a statement is for one workload of one app: sign it for this one",
            Self::Older { .. } => {
                "`dunlin rollback` goes back to a revision that ran before; else sign it as a later version"
            }
            Self::NotYet { .. } => "deploy it then, or look whether the clocks are right",
        }
    }
}

/// Returns what is stated of a component by somebody with one of `signers`, if it may run as `workload`. From when on is for
/// who has a clock that can be believed: [`Statement::check_begun`].
pub fn check_signed(
    signed: Option<&Signed>,
    signers: &BTreeSet<SignerKey>,
    component: Digest,
    workload: &WorkloadName,
) -> Result<Statement, SignatureError> {
    let Signed { statement, signature } = signed.ok_or(SignatureError::Absent)?;
    if signature.len() > MAX_SIGNED_TEXT {
        return Err(SignatureError::Malformed("signature"));
    }
    let signature = Signature::decode(signature).map_err(|_| SignatureError::Malformed("signature"))?;
    // Signed by one of them: a text is not read before that.
    let holds = |key: &SignerKey| {
        let verified = key.key().map(|key| key.verify(statement.as_bytes(), &signature, false));
        matches!(verified, Some(Ok::<(), Error>(())))
    };
    if !signers.iter().any(holds) {
        return Err(SignatureError::Untrusted);
    }
    let stated = Statement::parse(statement).ok_or(SignatureError::Malformed("statement"))?;
    if stated.component != component {
        return Err(SignatureError::OtherComponent { stated: stated.component, found: component });
    }
    if (&stated.app, &stated.workload) != (&workload.app, &workload.workload) {
        let named = |app: &Name, workload: &Name| format!("{app}/{workload}");
        return Err(SignatureError::OtherWorkload {
            stated: named(&stated.app, &stated.workload),
            found: named(&workload.app, &workload.workload),
        });
    }
    Ok(stated)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use expect_test::expect;
    use minisign::KeyPair;

    use super::*;

    fn statement() -> Statement {
        Statement {
            component: Digest::of(b"wasm"),
            app: "shop".parse().unwrap(),
            workload: "cart".parse().unwrap(),
            version: "1.4.0".parse().unwrap(),
            not_before: Timestamp(1_796_008_680_000),
        }
    }

    fn signed(pair: &KeyPair, statement: String) -> Signed {
        let signature = minisign::sign(None, &pair.sk, Cursor::new(&statement), None, None).unwrap();
        Signed { statement, signature: signature.into_string() }
    }

    #[test]
    fn a_statement_is_read_as_it_is_written_and_no_other_text_is_one() {
        expect![[r#"
            statement = "dunlin component 1"
            component = "sha256:336154bf67f765f8f75d16a0accee61b5ee5f6a75b2a2905703df913bd550f3e"
            app = "shop"
            workload = "cart"
            version = "1.4.0"
            not_before = "2026-11-30T03:18:00Z"
        "#]]
        .assert_eq(&statement().text());
        assert_eq!(Statement::parse(&statement().text()), Some(statement()));
        let text = statement().text();
        for other in [
            String::new(),
            text.replace("component 1", "component 2"),
            text.replace("shop", "Shop"),
            text.replace("version", "release"),
            format!("{text}more = 1\n"),
            format!("{text}#{}", "x".repeat(MAX_SIGNED_TEXT)),
        ] {
            assert_eq!(Statement::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn what_a_signer_states_holds_for_that_component_and_workload_alone() {
        let pairs = [(); 2].map(|()| KeyPair::generate_unencrypted_keypair().unwrap());
        let signers = BTreeSet::from([pairs[0].pk.to_base64().parse().unwrap()]);
        let good = signed(&pairs[0], statement().text());
        let workload: WorkloadName = "prod/shop/cart".parse().unwrap();
        let check = |signed: &Signed, component: &[u8], workload: &WorkloadName| {
            check_signed(Some(signed), &signers, Digest::of(component), workload)
        };
        assert_eq!(check(&good, b"wasm", &workload), Ok(statement()));
        assert_eq!(check_signed(None, &signers, Digest::of(b"wasm"), &workload), Err(SignatureError::Absent));
        let foreign = signed(&pairs[1], statement().text());
        assert_eq!(check(&foreign, b"wasm", &workload), Err(SignatureError::Untrusted));
        let changed = Signed { statement: good.statement.replace("cart", "sums"), ..good.clone() };
        assert_eq!(check(&changed, b"wasm", &workload), Err(SignatureError::Untrusted));
        let broken = Signed { signature: "RWQ".to_owned(), ..good.clone() };
        assert_eq!(check(&broken, b"wasm", &workload), Err(SignatureError::Malformed("signature")));
        let no_statement = signed(&pairs[0], "hello\n".to_owned());
        assert_eq!(check(&no_statement, b"wasm", &workload), Err(SignatureError::Malformed("statement")));
        let other = check(&good, b"other", &workload).unwrap_err();
        assert!(matches!(other, SignatureError::OtherComponent { .. }), "{other}");
        let other = check(&good, b"wasm", &"prod/shop/sums".parse().unwrap()).unwrap_err();
        assert_eq!(other.to_string(), "its statement is for `shop/cart`, and this is `shop/sums`");
    }

    #[test]
    fn a_statement_holds_from_its_moment_on() {
        let stated = statement();
        assert_eq!(stated.check_begun(stated.not_before), Ok(()));
        let early = stated.check_begun(Timestamp(stated.not_before.0 - 1)).unwrap_err();
        assert_eq!(
            early.to_string(),
            "its statement holds from 2026-11-30T03:18:00Z on, and it is 2026-11-30T03:17:59.999Z"
        );
    }
}
