//! Group 5: bytes that are no components, or none any more.

use dunlin_guest_artifacts as guests;

use super::module::noise;
use super::refused;
use crate::case::{Case, Component, How, Special, Tampering};

const INVALID: &[&str] = &["invalid_wasm"];
const PRECOMPILED: &[&str] = &["precompiled_not_accepted"];

fn bytes(bytes: &[u8]) -> Component {
    Component { made: "bytes", bytes: bytes.to_vec() }
}

fn mutated(bytes: Vec<u8>) -> Component {
    Component { made: "mutated", bytes }
}

pub(super) fn cases() -> Vec<Case> {
    let elf: Vec<u8> = b"\x7fELF\x02\x01\x01".iter().copied().chain([0; 4096]).collect();
    let mut cases = vec![
        refused(48, "nothing", bytes(b""), INVALID),
        refused(48, "a text", bytes(b"this is a text\n"), INVALID),
        refused(48, "a script", bytes(b"#!/bin/sh\nexec /bin/sh\n"), INVALID),
        refused(48, "a zip file", bytes(b"PK\x03\x04\x14\0\0\0\x08\0"), INVALID),
        refused(48, "half of the magic number", bytes(b"\0as"), INVALID),
        refused(48, "another magic number", bytes(b"\0asn\x0d\0\x01\0"), INVALID),
        refused(48, "a version of the future", bytes(b"\0asm\xff\0\x01\0"), INVALID),
        refused(48, "a layer of the future", bytes(b"\0asm\x0d\0\xff\0"), INVALID),
        refused(48, "an overlong number", bytes(b"\0asm\x0d\0\x01\0\x07\x80\x80\x80\x80\x80\x00"), INVALID),
        refused(48, "a section beyond the end", bytes(b"\0asm\x0d\0\x01\0\x07\xff\xff\xff\xff\x0f"), INVALID),
        refused(48, "a section that nobody knows", bytes(b"\0asm\x0d\0\x01\0\x7f\x00"), INVALID),
        refused(49, "an ELF file", bytes(&elf), PRECOMPILED),
        refused(49, "the head of an ELF file", bytes(b"\x7fELF"), PRECOMPILED),
        refused(
            56,
            "65 MiB of custom section",
            mutated(large(65 << 20)),
            &["too_large", "limit_exceeded", "component_too_large"],
        ),
    ];
    for eighth in 1..8 {
        let cut = guests::HELLO[..guests::HELLO.len() * eighth / 8].to_vec();
        cases.push(refused(48, &format!("cut after {eighth} eighths"), mutated(cut), INVALID));
    }
    for seed in 0..16_u8 {
        let mut flipped = guests::HELLO.to_vec();
        let mut noise = noise(u64::from(seed) + 100);
        for _ in 0..8 {
            let place = noise.by_ref().take(3).fold(0_usize, |place, byte| place << 8 | usize::from(byte));
            let place = place % flipped.len();
            flipped[place] ^= 1 << (noise.next().unwrap_or(0) % 8);
        }
        cases.push(refused(48, &format!("eight bits flipped, seed {seed}"), mutated(flipped), &[]));
    }
    cases.push(Case {
        row: 57,
        name: "more distinct components than are kept compiled".to_owned(),
        how: How::Special(Special::ManyArtefacts),
    });
    let ways = [
        (Tampering::Flip, "compiled code with bits flipped"),
        (Tampering::Cut, "compiled code cut in the middle"),
        (Tampering::Replace, "compiled code replaced by an ELF file"),
        (Tampering::Swap, "compiled code of another component"),
        (Tampering::Empty, "compiled code emptied"),
    ];
    cases.extend(ways.map(|(way, name)| Case {
        row: 49,
        name: name.to_owned(),
        how: How::Special(Special::Tampering(way)),
    }));
    cases
}

/// A component with one custom section of so many bytes.
fn large(length: usize) -> Vec<u8> {
    let mut section = vec![0; length];
    section[0] = 1;
    section[1] = b'x';
    let mut component = wasm_encoder::Component::new();
    component.section(&wasm_encoder::RawSection { id: 0, data: &section });
    component.finish()
}
