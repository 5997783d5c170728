//! A guest whose host gives it what no host should: a function that makes attempts.

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

use crate::attempt::Attempt;
use crate::stage::Props;

/// Calls the function that it is given, once.
const GUEST: &str = r#"
    (component
        (import "break-out" (func $break-out))
        (core func $attempt (canon lower (func $break-out)))
        (core module $module
            (import "host" "break-out" (func $break-out))
            (func (export "run") call $break-out))
        (core instance $instance (instantiate $module
            (with "host" (instance (export "break-out" (func $attempt))))))
        (func (export "run") (canon lift (core func $instance "run"))))
"#;

/// A guest that is ready to run, made before there is a wall.
pub(crate) struct Guest {
    engine: Engine,
    component: Component,
}

impl Guest {
    pub(crate) fn new() -> Self {
        // Threads that compile would stay, and there are things which the kernel refuses to all processes with threads.
        let engine = Engine::new(Config::new().parallel_compilation(false)).unwrap();
        let component = Component::new(&engine, wat::parse_str(GUEST).unwrap()).unwrap();
        Self { engine, component }
    }

    /// Runs the guest, which has the host make `attempt`, and returns how that ended.
    pub(crate) fn run(&self, attempt: Attempt, props: Props) -> String {
        let mut linker: Linker<String> = Linker::new(&self.engine);
        let break_out = move |mut store: wasmtime::StoreContextMut<'_, String>, (): ()| {
            *store.data_mut() = attempt.make(&props);
            Ok(())
        };
        linker.root().func_wrap("break-out", break_out).unwrap();
        let mut store = Store::new(&self.engine, String::new());
        let instance = linker.instantiate(&mut store, &self.component).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
        run.call(&mut store, ()).unwrap();
        store.into_data()
    }
}
