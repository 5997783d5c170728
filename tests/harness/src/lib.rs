//! A whole fleet of real processes, real sockets on port 0, in temporary folders.
