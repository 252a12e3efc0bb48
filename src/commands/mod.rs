//! The commands: one file per family, each with its rows and the handlers they name.

pub mod strings;

use crate::dispatch::command::Command;

/// Every row of every family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    [strings::ROWS].into_iter().flatten()
}
