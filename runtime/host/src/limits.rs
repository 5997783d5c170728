//! What binds every guest alike. What a manifest can choose is in `dunlin_model::Limits`.

/// G13: the most bytes that one write to a stream may have, and so about what a body buffers.
pub const MAX_WRITE: usize = 64 << 10;

/// G10: the most handles that an instance of WASI 0.3 may have, whatever its manifest says. Each call that waits is one of
/// them, and may hold a stack, which no other limit counts.
pub(crate) const MAX_HANDLES_OF_WASI_03: u32 = 1_000;
