//! What is in a guest's code so that it can be stopped.
//!
//! Fuel is counted in steps, and at the end of each slice of it the guest leaves its code: that alone would do, and is
//! what most components have. Looking at the time as well costs a twentieth and more of a guest that computes. It is
//! there where time can pass that no step stands for: while wasmtime converts a string that one part of a component
//! hands to another, while it sees to the calls and streams of WASI 0.3, and where steps are not counted at all.
//!
//! Code of one kind runs on an engine of that kind, so the compiler says at the end of what it makes which one it is.

use dunlin_compiled::CodeKind;
use dunlin_model::Metering;
use wasmparser::Validator;
use wasmtime_environ::component::{ComponentTypesBuilder, Trampoline, Translator};
use wasmtime_environ::{ScopeVec, Tunables};

use crate::config::features;

/// What a component's code looks at while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Checks {
    /// Fuel.
    Fuel,
    /// Fuel, and the time.
    FuelAndTime,
    /// The time.
    Time,
}

impl Checks {
    /// Every kind.
    pub(crate) const ALL: [Self; 3] = [Self::Fuel, Self::FuelAndTime, Self::Time];

    /// Returns what the code of `component` must look at if it is of this kind.
    pub(crate) fn of(component: &[u8], kind: CodeKind) -> Self {
        match kind.metering {
            Metering::Time => Self::Time,
            Metering::Fuel if kind.wasi03 || converts_strings(component) => Self::FuelAndTime,
            Metering::Fuel => Self::Fuel,
        }
    }

    /// Tells whether code that looks at this can be of this kind.
    pub(crate) fn fit(self, kind: CodeKind) -> bool {
        match kind.metering {
            Metering::Fuel if kind.wasi03 => self == Self::FuelAndTime,
            Metering::Fuel => self.counts_fuel(),
            Metering::Time => self == Self::Time,
        }
    }

    /// Tells whether it counts fuel.
    pub(crate) fn counts_fuel(self) -> bool {
        self != Self::Time
    }

    /// Tells whether it looks at the time.
    pub(crate) fn sees_time(self) -> bool {
        self != Self::Fuel
    }

    /// Returns what stands for it at the end of compiled code.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Fuel => b'F',
            Self::FuelAndTime => b'B',
            Self::Time => b'T',
        }
    }

    /// Returns what the compiler said at the end of compiled code.
    pub(crate) fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|checks| checks.tag() == tag)
    }
}

/// Tells whether parts of `component` hand strings to each other. wasmtime converts them at one go, however long they
/// are, and counts no fuel for it. What cannot be told is taken to be so. This is asked of no component of WASI 0.3.
fn converts_strings(component: &[u8]) -> bool {
    let mut validator = Validator::new_with_features(features(false));
    let mut types = ComponentTypesBuilder::new(&validator);
    let (tunables, scope) = (Tunables::default_host(), ScopeVec::new());
    match Translator::new(&tunables, &mut validator, &mut types, &scope).translate(component) {
        Ok((translation, _modules)) => translation
            .trampolines
            .values()
            .any(|trampoline| matches!(trampoline, Trampoline::Transcoder { .. })),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component of two parts, the first of which calls the second with a value of the type `parameter`.
    fn of_two_parts(parameter: &str) -> Vec<u8> {
        let (core, lowered) = match parameter {
            "string" => ("(param i32 i32)", "(param i32 i32)"),
            _ => ("(param i32)", "(param i32)"),
        };
        let text = format!(
            r#"(component
                (component $callee
                    (core module $module
                        (memory (export "memory") 1)
                        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                        (func (export "take") {core}))
                    (core instance $instance (instantiate $module))
                    (func (export "take") (param "value" {parameter})
                        (canon lift (core func $instance "take")
                            (memory $instance "memory") (realloc (func $instance "realloc")))))
                (component $caller
                    (import "take" (func $take (param "value" {parameter})))
                    (core module $libc (memory (export "memory") 1))
                    (core instance $libc (instantiate $libc))
                    (core func $take (canon lower (func $take) (memory $libc "memory")))
                    (core module $module (import "" "take" (func {lowered})))
                    (core instance (instantiate $module
                        (with "" (instance (export "take" (func $take)))))))
                (instance $callee (instantiate $callee))
                (instance (instantiate $caller (with "take" (func $callee "take")))))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn time_is_looked_at_where_fuel_does_not_tell_how_long_something_takes() {
        assert_eq!(Checks::of(&of_two_parts("string"), Metering::Fuel.into()), Checks::FuelAndTime);
        assert_eq!(Checks::of(&of_two_parts("u32"), Metering::Fuel.into()), Checks::Fuel);
        assert_eq!(Checks::of(dunlin_guest_artifacts::HELLO, Metering::Fuel.into()), Checks::Fuel);
        assert_eq!(Checks::of(dunlin_guest_artifacts::HELLO, Metering::Time.into()), Checks::Time);
        assert_eq!(Checks::of(b"no component", Metering::Fuel.into()), Checks::FuelAndTime);
        let of_wasi_03 = |metering| Checks::of(&of_two_parts("u32"), CodeKind { metering, wasi03: true });
        assert_eq!(of_wasi_03(Metering::Fuel), Checks::FuelAndTime);
        assert_eq!(of_wasi_03(Metering::Time), Checks::Time);
    }

    #[test]
    fn code_that_does_not_look_at_what_its_kind_must_does_not_fit() {
        for kind in CodeKind::ALL {
            let fitting: Vec<Checks> = Checks::ALL.into_iter().filter(|checks| checks.fit(kind)).collect();
            let expected: &[Checks] = match (kind.metering, kind.wasi03) {
                (Metering::Fuel, false) => &[Checks::Fuel, Checks::FuelAndTime],
                (Metering::Fuel, true) => &[Checks::FuelAndTime],
                (Metering::Time, _) => &[Checks::Time],
            };
            assert_eq!(fitting, expected, "{kind:?}");
        }
    }

    #[test]
    fn compiled_code_says_at_its_end_what_it_is() {
        for checks in Checks::ALL {
            assert_eq!(Checks::of_tag(checks.tag()), Some(checks));
        }
        assert_eq!(Checks::of_tag(b'e'), None);
    }
}
