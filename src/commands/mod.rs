//! The commands: one file per family, each with its rows and the handlers they name.

pub mod bitfield;
pub mod bitmaps;
pub mod expire;
pub mod help;
pub mod keys;
pub mod string_edits;
pub mod strings;

use crate::dispatch::command::Command;

/// Every row of every family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    [strings::ROWS, bitmaps::ROWS, keys::ROWS, expire::ROWS]
        .into_iter()
        .flatten()
}
