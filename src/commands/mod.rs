//! The commands: one file per family, each with its rows and the handlers they name.

mod command;
mod config;
mod debug;
mod digest;
mod docs;
mod help;
mod info;
mod latency;
mod memory;
mod server;
mod slowlog;
pub mod strings;

use crate::dispatch::command::Command;

/// Every row of every family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    let families = [
        command::ROWS,
        config::ROWS,
        debug::ROWS,
        info::ROWS,
        latency::ROWS,
        memory::ROWS,
        server::ROWS,
        slowlog::ROWS,
        strings::ROWS,
    ];
    families.into_iter().flatten()
}
