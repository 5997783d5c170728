//! Components: those of wasm-smith, and nonsense which only has the right grammar.
//!
//! The grammar is written down here once more, by hand and without looking at what is valid: sections in any order,
//! indices which may point nowhere, types in types. Random bytes would hardly ever get so far.

use arbitrary::{Arbitrary, Unstructured};
use wasm_smith::{Component, Config, Module};

use crate::judge::judge;
use crate::modules::write_length;

pub(crate) fn run(bytes: &[u8]) {
    // Too few bytes for a component say nothing.
    let _too_few = generate(bytes);
}

fn generate(bytes: &[u8]) -> arbitrary::Result<()> {
    let mut input = Unstructured::new(bytes);
    let component = if u8::arbitrary(&mut input)? < 64 {
        let config = Config::arbitrary(&mut input)?;
        Component::new(config, &mut input)?.to_bytes()
    } else {
        component(&mut input, 0)?
    };
    drop(judge(&component));
    Ok(())
}

type Bytes = arbitrary::Result<Vec<u8>>;

const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

const NAMES: [&str; 20] = [
    "wasi:cli/run@0.2.0",
    "wasi:http/incoming-handler@0.2.3",
    "wasi:cli/environment@0.2.12",
    "wasi:io/streams@0.2.0",
    "wasi:io/streams@0.2.18446744073709551616",
    "wasi:http/types@0.3.0",
    "wasi:cli/run@0.3.0",
    "wasi:http/handler@0.3.0",
    "wasi:logging/logging@0.1.0-draft",
    "a",
    "run",
    "a:b/c",
    "a:b/c@1.2.3-x+y",
    "[constructor]a",
    "[method]a.b",
    "[static]a.b",
    "unlocked-dep=<a:b@{>=1.0.0}>",
    "url=<https://a.example>",
    "integrity=<sha256-AAAA>",
    "\u{1b}[31m\u{202e}\n",
];

/// A component: sections in any order. What is nested has fewer of them.
fn component(input: &mut Unstructured<'_>, depth: u32) -> Bytes {
    let mut bytes = HEADER.to_vec();
    let most = if depth == 0 { 24 } else { 6 };
    for _ in 0..input.int_in_range(0..=most)? {
        let id = input.int_in_range(0..=11_u8)?;
        let body = match id {
            0 => [name(input)?, vec![u8::arbitrary(input)?]].concat(),
            1 if depth < 8 => Module::new(Config::arbitrary(input)?, input)?.to_bytes(),
            4 if depth < 8 => component(input, depth + 1)?,
            1 | 4 => HEADER.to_vec(),
            9 => [index(input)?, list(input, index)?, index(input)?].concat(),
            2 => list(input, core_instance)?,
            3 => list(input, core_type)?,
            5 => list(input, instance)?,
            6 => list(input, alias)?,
            7 => types(input)?,
            8 => list(input, canonical)?,
            10 => list(input, import)?,
            _ => list(input, export)?,
        };
        bytes.push(id);
        // Now and then a length that is not that of the body.
        let wrong = if input.ratio(1_u8, 64)? { usize::from(u8::arbitrary(input)?) } else { 0 };
        write_length(&mut bytes, body.len() + wrong);
        bytes.extend(body);
    }
    Ok(bytes)
}

fn list(input: &mut Unstructured<'_>, one: fn(&mut Unstructured<'_>) -> Bytes) -> Bytes {
    let count = input.int_in_range(0..=6_usize)?;
    let mut bytes = Vec::new();
    write_length(&mut bytes, count);
    for _ in 0..count {
        bytes.extend(one(input)?);
    }
    Ok(bytes)
}

fn index(input: &mut Unstructured<'_>) -> Bytes {
    let mut bytes = Vec::new();
    let number =
        if input.ratio(1_u8, 32)? { u32::arbitrary(input)? } else { input.int_in_range(0..=9_u32)? };
    write_length(&mut bytes, usize::try_from(number).unwrap_or(0));
    Ok(bytes)
}

fn name(input: &mut Unstructured<'_>) -> Bytes {
    let text = match input.ratio(1_u8, 8)? {
        true => <&str>::arbitrary(input)?,
        false => *input.choose(&NAMES)?,
    };
    let mut bytes = Vec::new();
    write_length(&mut bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

fn extern_name(input: &mut Unstructured<'_>) -> Bytes {
    Ok([vec![input.int_in_range(0..=1_u8)?], name(input)?].concat())
}

fn sort(input: &mut Unstructured<'_>) -> Bytes {
    let sort = input.int_in_range(0..=5_u8)?;
    Ok(if sort == 0 { vec![0, *input.choose(&[0, 1, 2, 3, 0x10, 0x11, 0x12])?] } else { vec![sort] })
}

fn sorted_index(input: &mut Unstructured<'_>) -> Bytes {
    Ok([sort(input)?, index(input)?].concat())
}

fn argument(input: &mut Unstructured<'_>) -> Bytes {
    Ok([name(input)?, sorted_index(input)?].concat())
}

fn core_argument(input: &mut Unstructured<'_>) -> Bytes {
    Ok([name(input)?, vec![0x12], index(input)?].concat())
}

fn core_export(input: &mut Unstructured<'_>) -> Bytes {
    Ok([name(input)?, vec![input.int_in_range(0..=4_u8)?], index(input)?].concat())
}

fn core_instance(input: &mut Unstructured<'_>) -> Bytes {
    Ok(if bool::arbitrary(input)? {
        [vec![0], index(input)?, list(input, core_argument)?].concat()
    } else {
        [vec![1], list(input, core_export)?].concat()
    })
}

fn instance(input: &mut Unstructured<'_>) -> Bytes {
    Ok(if bool::arbitrary(input)? {
        [vec![0], index(input)?, list(input, argument)?].concat()
    } else {
        let item = |input: &mut Unstructured<'_>| Ok([extern_name(input)?, sorted_index(input)?].concat());
        [vec![1], list(input, item)?].concat()
    })
}

fn alias(input: &mut Unstructured<'_>) -> Bytes {
    let target = input.int_in_range(0..=2_u8)?;
    let rest = if target == 2 {
        [index(input)?, index(input)?].concat()
    } else {
        [index(input)?, name(input)?].concat()
    };
    Ok([sort(input)?, vec![target], rest].concat())
}

fn core_type(input: &mut Unstructured<'_>) -> Bytes {
    Ok(match input.int_in_range(0..=3_u8)? {
        0 => vec![0x60, 1, 0x7f, 0],
        1 => vec![0x50, 0, 0x60, 0, 0],
        2 => [vec![0x50, 1], index(input)?, vec![0x5f, 1, 0x7f, 1]].concat(),
        _ => vec![0x4e, 0],
    })
}

/// A section of types; at times with one type nested very deep.
fn types(input: &mut Unstructured<'_>) -> Bytes {
    if input.ratio(1_u8, 24)? {
        let depth = input.int_in_range(1..=4_000_u16)?;
        let holder = *input.choose(&[0x41, 0x42])?;
        let mut bytes = vec![1];
        for _ in 0..depth {
            bytes.extend([holder, 1, 1]);
        }
        bytes.extend([holder, 0]);
        return Ok(bytes);
    }
    list(input, |input| one_type(input, 0))
}

fn value(input: &mut Unstructured<'_>) -> Bytes {
    if input.ratio(2_u8, 3)? { Ok(vec![input.int_in_range(0x64..=0x7f_u8)?]) } else { index(input) }
}

fn optional(input: &mut Unstructured<'_>) -> Bytes {
    Ok(if bool::arbitrary(input)? { [vec![1], value(input)?].concat() } else { vec![0] })
}

fn field(input: &mut Unstructured<'_>) -> Bytes {
    Ok([name(input)?, value(input)?].concat())
}

fn case(input: &mut Unstructured<'_>) -> Bytes {
    Ok([name(input)?, optional(input)?, vec![0]].concat())
}

fn one_type(input: &mut Unstructured<'_>, depth: u32) -> Bytes {
    let kind = *input.choose(&[
        0x3f, 0x40, 0x40, 0x41, 0x42, 0x42, 0x43, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6d, 0x6e, 0x6f,
        0x70, 0x71, 0x72, 0x73, 0x79, 0x7f,
    ])?;
    let body = match kind {
        0x3f => [vec![0x7f], if bool::arbitrary(input)? { vec![0] } else { vec![1, 0] }].concat(),
        0x40 | 0x43 => {
            let result = if bool::arbitrary(input)? { [vec![0], value(input)?].concat() } else { vec![1, 0] };
            [list(input, field)?, result].concat()
        }
        0x41 | 0x42 if depth < 6 => {
            let count = input.int_in_range(0..=4_u8)?;
            let mut bytes = vec![count];
            for _ in 0..count {
                bytes.extend(declaration(input, depth)?);
            }
            bytes
        }
        0x41 | 0x42 => vec![0],
        0x65 | 0x66 => optional(input)?,
        0x67 => [value(input)?, index(input)?].concat(),
        0x68 | 0x69 => index(input)?,
        0x6a => [optional(input)?, optional(input)?].concat(),
        0x6b | 0x70 => value(input)?,
        0x6d | 0x6e => list(input, name)?,
        0x6f => list(input, value)?,
        0x71 => list(input, case)?,
        0x72 => list(input, field)?,
        _ => Vec::new(),
    };
    Ok([vec![kind], body].concat())
}

fn declaration(input: &mut Unstructured<'_>, depth: u32) -> Bytes {
    let kind = input.int_in_range(0..=4_u8)?;
    let body = match kind {
        0 => core_type(input)?,
        1 => one_type(input, depth + 1)?,
        2 => alias(input)?,
        _ => import(input)?,
    };
    Ok([vec![kind], body].concat())
}

fn described(input: &mut Unstructured<'_>) -> Bytes {
    let kind = input.int_in_range(0..=5_u8)?;
    let body = match kind {
        0 => [vec![0x11], index(input)?].concat(),
        2 => [vec![input.int_in_range(0..=1_u8)?], index(input)?].concat(),
        3 if bool::arbitrary(input)? => vec![1],
        3 => [vec![0], index(input)?].concat(),
        _ => index(input)?,
    };
    Ok([vec![kind], body].concat())
}

fn import(input: &mut Unstructured<'_>) -> Bytes {
    Ok([extern_name(input)?, described(input)?].concat())
}

fn export(input: &mut Unstructured<'_>) -> Bytes {
    let described = if input.ratio(1_u8, 4)? { [vec![1], described(input)?].concat() } else { vec![0] };
    Ok([extern_name(input)?, sorted_index(input)?, described].concat())
}

fn option_of_canonical(input: &mut Unstructured<'_>) -> Bytes {
    let kind = input.int_in_range(0..=9_u8)?;
    Ok(if kind < 3 { vec![kind] } else { [vec![kind], index(input)?].concat() })
}

fn canonical(input: &mut Unstructured<'_>) -> Bytes {
    let kind = input.int_in_range(0..=0x42_u8)?;
    Ok(match kind {
        0 => [vec![0, 0], index(input)?, list(input, option_of_canonical)?, index(input)?].concat(),
        1 => [vec![1, 0], index(input)?, list(input, option_of_canonical)?].concat(),
        2..=4 => [vec![kind], index(input)?].concat(),
        _ => [vec![kind], index(input)?, index(input)?].concat(),
    })
}
