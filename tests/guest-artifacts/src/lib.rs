//! Builds the guests and gives one constant per component, so that no test holds a path.
//!
//! The build script compiles `guests/`; `component` names what came out of it.

mod component;

pub use component::{
    CAT, CAT_PATH, CORE_MODULE, CORE_MODULE_PATH, ENV, ENV_PATH, EXIT_CODE, EXIT_CODE_PATH, FLOOD,
    FLOOD_HTTP, FLOOD_HTTP_PATH, FLOOD_PATH, HELLO, HELLO_PATH, HELLO_V2, HELLO_V2_PATH, HOG, HOG_HTTP,
    HOG_HTTP_PATH, HOG_PATH, MISBEHAVING_FOLDER, MISSING_IMPORT, MISSING_IMPORT_PATH, QUICKSTART_FOLDER,
    SLEEP, SLEEP_HTTP, SLEEP_HTTP_PATH, SLEEP_PATH, SPIN, SPIN_HTTP, SPIN_HTTP_PATH, SPIN_PATH, TRAP,
    TRAP_HTTP, TRAP_HTTP_PATH, TRAP_PATH, WORD_COUNT, WORD_COUNT_PATH,
};
