//! The limits that bind a component before it is run: C1 to C4 of the limits table. An operator sets them, for the
//! coordinator and for each node; defaults and largest values are those of the table.

use serde::{Deserialize, Serialize};

use super::{LimitHit, LimitRow, LimitValue, SetIn};
use crate::{Bytes, DurationMs};

/// C1 and C2: how large and how intricate a component may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentLimits {
    /// C1: bytes.
    pub component_size: Bytes,
    /// C2: functions with a body, over all modules.
    pub functions: u64,
    /// C2: types, over all modules and components in it.
    pub types: u64,
    /// C2: imports, over all modules and components in it.
    pub imports: u64,
    /// C2: data segments, over all modules.
    pub data_segments: u64,
    /// C2: how deep components, modules and the types of components may nest in one another.
    pub nesting: u64,
}

impl ComponentLimits {
    /// Returns the most that an operator may allow.
    pub fn maximum() -> Self {
        Self::made(|name| match LimitRow::named(name).map(|row| row.set_in) {
            Some(SetIn::Node { most, .. }) => most.number(),
            Some(SetIn::Manifest | SetIn::Fixed(_)) | None => 0,
        })
    }

    /// Sets the limit `name` to what `text` says.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let bad = |error: &dyn std::fmt::Display| format!("`{name}`: {error}");
        let count = |text: &str| text.parse::<u64>().map_err(|_| bad(&"this is a number, like 5000"));
        let value = match name {
            "component_size" => LimitValue::Bytes(text.parse().map_err(|error| bad(&error))?),
            _ => LimitValue::Count(count(text)?),
        };
        let field = match name {
            "component_size" => &mut self.component_size.0,
            "functions" => &mut self.functions,
            "types" => &mut self.types,
            "imports" => &mut self.imports,
            "data_segments" => &mut self.data_segments,
            "nesting" => &mut self.nesting,
            _ => {
                let known = self.values().map(|(name, _)| name).join(", ");
                return Err(format!("`{name}` is no limit of components; there are {known}"));
            }
        };
        if let Some(hit) = LimitRow::refused(name, value) {
            return Err(hit.to_string());
        }
        *field = value.number();
        Ok(())
    }

    /// Returns all of them with their names.
    pub fn values(&self) -> [(&'static str, LimitValue); 6] {
        [
            ("component_size", LimitValue::Bytes(self.component_size)),
            ("functions", LimitValue::Count(self.functions)),
            ("types", LimitValue::Count(self.types)),
            ("imports", LimitValue::Count(self.imports)),
            ("data_segments", LimitValue::Count(self.data_segments)),
            ("nesting", LimitValue::Count(self.nesting)),
        ]
    }

    /// Returns the refusal of a component of so many bytes, if they are too many.
    pub fn refuse_size(&self, size: Bytes) -> Option<LimitHit> {
        let hit = || LimitHit::new("component_size", self.component_size, size);
        (size > self.component_size).then(hit)
    }

    fn made(number: impl Fn(&str) -> u64) -> Self {
        Self {
            component_size: Bytes(number("component_size")),
            functions: number("functions"),
            types: number("types"),
            imports: number("imports"),
            data_segments: number("data_segments"),
            nesting: number("nesting"),
        }
    }
}

impl Default for ComponentLimits {
    fn default() -> Self {
        Self::made(|name| LimitRow::default_of(name).number())
    }
}

/// C1 to C4: the same, and what it may take to compile a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileLimits {
    /// How large and how intricate it may be.
    pub component: ComponentLimits,
    /// C3: the memory of the compiler that can be written to.
    pub compile_memory: Bytes,
    /// C3: how long a processor may work for it.
    pub compile_time: DurationMs,
    /// C4: bytes of what comes out.
    pub compiled_size: Bytes,
}

impl Default for CompileLimits {
    fn default() -> Self {
        let number = |name| LimitRow::default_of(name).number();
        Self {
            component: ComponentLimits::default(),
            compile_memory: Bytes(number("compile_memory")),
            compile_time: DurationMs(number("compile_time")),
            compiled_size: Bytes(number("compiled_size")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_set_by_its_name_up_to_its_maximum() {
        let mut limits = ComponentLimits::default();
        limits.set("component_size", "128MiB").unwrap();
        limits.set("types", "40000").unwrap();
        assert_eq!((limits.component_size, limits.types), (Bytes(128 << 20), 40_000));
        for (name, text, error) in [
            ("types", "40001", "limit `types` is more than 0 and at most 40000, observed 40001"),
            ("nesting", "0", "limit `nesting` is more than 0 and at most 400, observed 0"),
            (
                "component_size",
                "1GiB",
                "limit `component_size` is more than 0 and at most 256MiB, observed 1GiB",
            ),
            ("imports", "many", "`imports`: this is a number, like 5000"),
        ] {
            assert_eq!(limits.set(name, text), Err(error.to_owned()));
        }
        assert!(limits.set("memory", "1").unwrap_err().contains("there are component_size, functions"));
        for (name, value) in ComponentLimits::maximum().values() {
            assert_eq!(LimitRow::refused(name, value), None);
            ComponentLimits::default().set(name, &value.to_string()).unwrap();
        }
    }
}
