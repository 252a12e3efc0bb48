//! Scripts and functions in Lua 5.1.
//!
//! Every thread that runs commands has interpreters of its own ([`vm`]), one for scripts and one for functions, made
//! when they are first needed; sources are shared ([`crate::scripts`]) and compiled where they are
//! first used. [`lua`] is the door to the interpreter, [`sandbox`] the world in which scripts run, [`api`] what they
//! ask of the server, `bit`, `json`, `msgpack`, `pack` and `patterns` the libraries they find. [`run`] runs
//! them for EVAL and FCALL; their commands take the way of all commands ([`crate::dispatch::scripted`]).

mod api;
mod args;
mod bit;
mod engine;
mod json;
mod json_read;
mod json_settings;
#[allow(unsafe_code)]
mod lua;
#[allow(unsafe_code)]
mod memory;
mod msgpack;
mod pack;
mod patterns;
mod random;
mod replies;
pub mod run;
mod sandbox;
#[cfg(test)]
mod tests;
mod vm;
#[allow(unsafe_code)]
mod world;

pub use engine::Lua;
