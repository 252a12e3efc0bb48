//! The commands: one file per family, each with its rows and the handlers they name.

pub mod client;
pub mod connection;
mod help;
pub mod pubsub;
pub mod strings;
pub mod transactions;

use crate::dispatch::command::Command;

/// Every row of every family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    [
        strings::ROWS,
        connection::ROWS,
        client::ROWS,
        pubsub::ROWS,
        transactions::ROWS,
    ]
    .into_iter()
    .flatten()
}
