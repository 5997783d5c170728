//! Compiles and runs components under limits.
