//! How much debug information is worth its price: at each trap it is read on the host's side, where no fuel is burned.
//!
//! A component with more of it than that is compiled as if it had none.

use std::borrow::Cow;
use std::ops::Range;

use wasmparser::{Parser, Payload};

/// How many bytes of debug information a component may have that is read.
pub const MAX_DEBUG_INFO: u64 = 4 << 20;
/// How many units it may consist of: each is looked at, however small it is.
pub const MAX_DEBUG_UNITS: usize = 4096;

/// How the names of its sections begin.
const PREFIX: &str = ".debug_";

/// Returns `component`, without its debug information if that is too much. It must have been admitted.
pub fn with_bounded_debug_info(component: &[u8]) -> Cow<'_, [u8]> {
    let mut names: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut units) = (0, 0_usize);
    // What cannot be parsed is not compiled either, so it needs no bound.
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        let Payload::CustomSection(section) = payload else { continue };
        if section.name().starts_with(PREFIX) {
            let end = section.data_offset();
            names.push(end - section.name().len()..end);
            bytes += section.data().len() as u64;
            if section.name() == ".debug_info" {
                units = units.saturating_add(count_units(section.data()));
            }
        }
    }
    if bytes <= MAX_DEBUG_INFO && units <= MAX_DEBUG_UNITS {
        return Cow::Borrowed(component);
    }
    let mut without = component.to_vec();
    for name in names {
        // Under another name it is a section that nobody knows, and every offset stays as it was.
        without[name].fill(b'-');
    }
    Cow::Owned(without)
}

/// Returns how many units there are, each of which begins with its length; more than may be if they make no sense.
fn count_units(mut data: &[u8]) -> usize {
    let mut units = 0;
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        units += 1;
        if units > MAX_DEBUG_UNITS {
            break;
        }
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        match rest.get(length..) {
            Some(rest) => data = rest,
            // The long form of DWARF, which wasm with its 32 bits has no use for, or nonsense.
            None => return usize::MAX,
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{Component, CustomSection, Module, ModuleSection};

    use super::*;

    fn component(info: &[u8], lines: usize) -> Vec<u8> {
        let mut module = Module::new();
        for (name, data) in [(".debug_info", info), (".debug_line", &vec![0; lines]), ("name", &[])] {
            module.section(&CustomSection { name: name.into(), data: data.into() });
        }
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        component.finish()
    }

    fn has_debug_info(component: &[u8]) -> bool {
        component.windows(PREFIX.len()).any(|bytes| bytes == PREFIX.as_bytes())
    }

    #[test]
    fn what_is_not_too_much_stays_as_it_is() {
        let unit = [&8_u32.to_le_bytes()[..], &[0; 8]].concat();
        for component in [component(&[], 0), component(&unit.repeat(MAX_DEBUG_UNITS), 1 << 20)] {
            assert!(matches!(with_bounded_debug_info(&component), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn what_is_too_much_is_read_by_nobody_and_all_else_stays_where_it_was() {
        let unit = [&8_u32.to_le_bytes()[..], &[0; 8]].concat();
        let large = component(&[], 5 << 20);
        let many = component(&unit.repeat(MAX_DEBUG_UNITS + 1), 0);
        let nonsense = component(&[0xff; 100], 0);
        for component in [large, many, nonsense] {
            assert!(has_debug_info(&component));
            let without = with_bounded_debug_info(&component);
            assert_eq!(without.len(), component.len());
            assert!(!has_debug_info(&without));
            assert!(Parser::new(0).parse_all(&without).all(|payload| payload.is_ok()));
        }
    }
}
