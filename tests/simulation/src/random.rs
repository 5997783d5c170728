//! Chance from a seed: SplitMix64, written out so that a seed means the same for ever.

/// A source of numbers that depend on nothing but its seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Returns the source with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds should not begin alike.
        Self { state: mix(seed ^ 0x6475_6e6c_696e) }
    }

    /// Returns any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Returns a number in `low..=high`.
    pub(crate) fn small(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.between(low.into(), high.into())).expect("it is not above a `u32`")
    }

    /// Tells whether something happens that happens `per_mille` times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// Returns one of several.
    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let last = from.len() - 1;
        &from[usize::try_from(self.between(0, last as u64)).expect("it is an index")]
    }
}

/// Returns a number that looks unrelated to `value`, and is the same each time.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
