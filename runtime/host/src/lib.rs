//! What a guest may touch: one file per capability; read it to audit the sandbox.
