//! A worker from outside: frames and requests in, messages and responses out, with real guests.

mod items;
mod loading;
mod serving;
mod support;
