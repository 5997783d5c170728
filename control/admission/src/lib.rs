//! Which bytes may become a guest: pure checks of wasm components before anything compiles them.
