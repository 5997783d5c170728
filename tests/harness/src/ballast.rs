//! Components that are large, and no slower for it.

use std::iter::repeat_with;

use wasm_encoder::{ComponentSection as _, CustomSection};

/// Returns a component with so many bytes more that mean nothing and cannot be made smaller: a section that nobody reads.
/// Each `seed` gives others.
pub fn with_ballast(component: &[u8], bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed + 1).wrapping_mul(0xd134_2543_de82_ef95);
    let random = repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let ballast: Vec<u8> = random.flatten().take(bytes).collect();
    let mut laden = component.to_vec();
    CustomSection { name: "ballast".into(), data: ballast.into() }.append_to_component(&mut laden);
    laden
}
