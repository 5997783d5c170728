//! Why bytes may not become a guest, in words that say what to do.

use std::fmt;

use dunlin_model::LimitHit;

/// Why bytes may not become a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are not WebAssembly, or break its rules.
    #[error("not a valid WebAssembly component: {message} (at byte {offset})")]
    InvalidWasm {
        /// Where the rule is broken.
        offset: u64,
        /// Which rule.
        message: String,
    },
    /// They are machine code that some other machine has compiled.
    #[error("precompiled code is not accepted, since nothing confines it; deploy the .wasm component itself")]
    PrecompiledNotAccepted,
    /// They are a module of the kind before components.
    #[error(
        "this is a core module, not a component; build with --target wasm32-wasip2 or wrap it with wasm-tools \
         component new"
    )]
    CoreModule,
    /// They are a core module which cannot be made into a component, since it imports more than WASI preview 1.
    #[error("the core module imports what is not of WASI preview 1: {}", listed(names, *more))]
    ForeignImports {
        /// The first of them, at most 20.
        names: Vec<MissingImport>,
        /// How many there are beyond these.
        more: usize,
    },
    /// They are a core module which cannot be made into a component for another reason.
    #[error("the core module cannot be made into a component: {reason}")]
    NotComponentizable {
        /// Why not.
        reason: String,
    },
    /// There are too many of them.
    #[error("the component is too large: {0}")]
    TooLarge(LimitHit),
    /// They are too intricate to be worth compiling.
    #[error("the component is too complex: {0}")]
    TooComplex(LimitHit),
    /// It asks for what no host here provides.
    #[error("the component imports what is not provided: {}", listed(names, *more))]
    MissingImports {
        /// The first of them, at most 20.
        names: Vec<MissingImport>,
        /// How many there are beyond these.
        more: usize,
    },
    /// There is no way to start it.
    #[error("the component exports neither {}{}", worlds(*wasi03), found(exports))]
    MissingExport {
        /// Whether it is a component of WASI 0.3.
        wasi03: bool,
        /// What it exports instead, at most 20 names.
        exports: Vec<String>,
    },
    /// It uses a part of WebAssembly that is switched off.
    #[error("the component uses {feature}, which is switched off here: {message} (at byte {offset})")]
    FeatureOff {
        /// Its name.
        feature: &'static str,
        /// Where it is used.
        offset: u64,
        /// What the validator says.
        message: String,
    },
    /// Nothing is known of them: this machine could not check them now. Trying again may help.
    #[error("the component could not be checked now: {reason}")]
    NotChecked {
        /// What was missing.
        reason: String,
    },
}

impl Refusal {
    /// Returns the reason for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidWasm { .. } => "invalid_wasm",
            Self::PrecompiledNotAccepted => "precompiled_not_accepted",
            Self::CoreModule => "core_module",
            Self::ForeignImports { .. } => "foreign_imports",
            Self::NotComponentizable { .. } => "not_componentizable",
            Self::TooLarge(_) => "too_large",
            Self::TooComplex(_) => "too_complex",
            Self::MissingImports { .. } => "missing_imports",
            Self::MissingExport { .. } => "missing_export",
            Self::FeatureOff { .. } => "feature_off",
            Self::NotChecked { .. } => "not_checked",
        }
    }
}

/// An import that nobody provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingImport {
    /// Its name, shortened and escaped.
    pub name: String,
    /// Why it is not provided, or what to do.
    pub why: String,
}

impl fmt::Display for MissingImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.why)
    }
}

fn listed(names: &[MissingImport], more: usize) -> String {
    let mut text = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn worlds(wasi03: bool) -> &'static str {
    if wasi03 {
        "wasi:http/handler@0.3 (a service) nor wasi:cli/run@0.3 (a job), as one that uses WASI 0.3 must"
    } else {
        "wasi:http/incoming-handler@0.2 (a service) nor wasi:cli/run@0.2 (a job)"
    }
}

fn found(exports: &[String]) -> String {
    if exports.is_empty() { String::new() } else { format!("; it exports {}", exports.join(", ")) }
}

/// Returns text from a component made safe to be shown: escaped, and cut at 120 characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_default).collect()
}
