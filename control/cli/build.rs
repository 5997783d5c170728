//! Builds the program again when a file comes to the templates or to the SDK which it holds, or goes.

fn main() {
    for folder in ["templates", "sdk"] {
        println!("cargo::rerun-if-changed=../../guests/{folder}");
    }
}
