//! What binds every guest alike. What a manifest can choose is in `dunlin_model::Limits`.

/// G13: the most bytes that one write to a stream may have, and so about what a body buffers.
pub const MAX_WRITE: usize = 64 << 10;
