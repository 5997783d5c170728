//! Measures against peers: prints a table and writes JSON.
