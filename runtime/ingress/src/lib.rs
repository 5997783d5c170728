//! The HTTP front door of a node and the way between nodes; knows no wasm.
