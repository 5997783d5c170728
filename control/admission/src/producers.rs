//! Which tools a component says that it was made with.

use std::collections::BTreeMap;

use wasmparser::{KnownCustom, Parser, Payload};

use crate::refusal::shown;

/// How many tools are named.
const MAX_TOOLS: usize = 32;

/// Returns the tools and languages that the sections `producers` of a component and of the modules in it name, each with its
/// version: what [`wasm-tools`](https://github.com/bytecodealliance/wasm-tools) and compilers write there. Nobody checks it.
pub fn producers(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut tools = BTreeMap::new();
    // What cannot be read any further names nothing more.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        let Payload::CustomSection(section) = payload else { continue };
        let KnownCustom::Producers(fields) = section.as_known() else { continue };
        let values = fields.into_iter().map_while(Result::ok).flat_map(|field| field.values);
        for value in values.map_while(Result::ok) {
            if tools.len() < MAX_TOOLS {
                tools.insert(shown(value.name), shown(value.version));
            }
        }
    }
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_component_was_made_with_nothing() {
        assert_eq!(producers(b""), BTreeMap::new());
        assert_eq!(producers(b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\x0f"), BTreeMap::new());
    }

    #[test]
    fn the_tools_are_named_wherever_they_are_written() {
        let mut module = wasm_encoder::Module::new();
        let mut section = wasm_encoder::ProducersSection::new();
        let mut field = wasm_encoder::ProducersField::new();
        field.value("rustc", "1.95.0").value("a tool", "");
        section.field("processed-by", &field);
        module.section(&section);
        let mut component = wasm_encoder::Component::new();
        component.section(&wasm_encoder::ModuleSection(&module));
        let tools = producers(&component.finish());
        let named: Vec<(&str, &str)> = tools.iter().map(|(tool, version)| (&**tool, &**version)).collect();
        assert_eq!(named, [("a tool", ""), ("rustc", "1.95.0")]);
    }
}
