//! The worker process: the engine behind a process wall, one per namespace and node.
