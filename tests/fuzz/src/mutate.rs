//! Mutations without knowledge of what they do: the same seed gives the same ones on every machine.

/// Makes bytes out of other bytes.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

/// Bytes that mean something in HTTP or in WebAssembly.
const SPECIAL: [u8; 24] = [
    0, 1, 2, 3, 0x41, 0x42, 0x60, 0x7f, 0x80, 0xff, b'\r', b'\n', b' ', b'\t', b':', b'/', b'.', b'@', b'[',
    b']', b'%', b'?', b'#', b',',
];

impl Mutator {
    /// Returns the mutator of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from((self.next() >> 11) % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        if self.below(2) == 0 { SPECIAL[self.below(SPECIAL.len())] } else { self.next().to_le_bytes()[3] }
    }

    /// Returns `bytes` changed in some places; `other` is what pieces are taken from.
    pub fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(5) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 | 1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                3 => {
                    let byte = self.byte();
                    bytes.insert(at, byte);
                }
                4 => bytes.truncate(at),
                5 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                6 => {
                    let end = (at + self.below(32)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let from = self.below(other.len());
                    let end = (from + self.below(64)).min(other.len());
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        bytes
    }

    /// Returns `length` bytes of which nothing is known.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}
