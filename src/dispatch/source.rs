//! Whose commands a thread runs: those of clients, of a log that is played back, or of the primary.
//!
//! A log and a primary are obeyed: what they say was accepted before, by us or by the primary, and is
//! not refused, does not expire and does not wait. An error of theirs is a fault of somebody.

use std::sync::atomic::Ordering::Relaxed;

use super::command::Flags;
use super::context::{Shared, Worker};
use super::error::Error;
use super::table::Known;
use crate::config::choices::PropagationErrorBehavior;

/// Whose commands run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A client of ours, in its turn.
    #[default]
    Client,
    /// The append-only file: what commands do is in it already, and nobody is told of it.
    Log,
    /// The primary: what commands do is in its stream, which becomes ours byte by byte.
    Primary,
    /// The owner of slots that are moving here: what commands do is news to our replicas and files.
    Owner,
}

impl Source {
    /// It is not refused anything, and no key expires under its hands.
    #[inline]
    pub fn is_obeyed(self) -> bool {
        self != Self::Client
    }

    /// What it does is appended to the stream command by command.
    #[inline]
    pub fn is_heard(self) -> bool {
        matches!(self, Self::Client | Self::Owner)
    }
}

/// Why a command of a log or a primary is not run, if it is not: what only administrates could end the
/// server, change its role or have its thread wait for itself.
pub fn refusal(source: Source, known: &Known) -> Option<Error> {
    // PFDEBUG TODENSE changes its key, and stands in files.
    let belongs = match source {
        // Signs of life and requests for confirmations.
        Source::Primary => Flags::WRITE.or(Flags::FOR_REPLICAS),
        _ => Flags::WRITE,
    };
    if !known.flags.has(Flags::ADMIN) || known.flags.has(belongs) {
        return None;
    }
    let name = known.full_name.to_ascii_uppercase().replace('|', " ");
    Some(match (known.row.name, source) {
        ("monitor", Source::Log) => {
            Error::line("ERR MONITOR isn't allowed for DENY BLOCKING client")
        }
        ("shutdown", Source::Log) => {
            Error::line("ERR SHUTDOWN without NOW or ABORT isn't allowed for DENY BLOCKING client")
        }
        (_, Source::Log) => out_of_place(&name),
        _ => Error::err(format_args!("{name} isn't allowed in a primary's stream")),
    })
}

/// Tells of a command that failed although it had succeeded before, or stops the server, as
/// `propagation-error-behavior` has it. Named is the command of the source: EXEC for those that it runs.
pub fn failed(shared: &Shared, worker: &Worker, error: &[u8]) {
    let (from, to) = match worker.source {
        Source::Client => return,
        // Who brings the slots ends that.
        Source::Owner => return worker.owner_failed.set(true),
        Source::Log => ("server", "AOF-loading-client"),
        Source::Primary => ("replica", "master"),
    };
    let name = |id| &*shared.commands.get(id).full_name;
    let command = worker.obeyed.map_or("<unknown>", name);
    // As it stands in a reply, where `ERR` is understood.
    let shown = match error.strip_prefix(b"ERR ") {
        Some(text) => String::from_utf8_lossy(text),
        None => format!("-{}", String::from_utf8_lossy(error)).into(),
    };
    tracing::warn!(
        "== CRITICAL == This {from} is sending an error to its {to}: '{shown}' after processing the \
         command '{command}'"
    );
    let errors = &shared.stats.global.unexpected_error_replies;
    errors.fetch_add(1, Relaxed);
    // A writable replica may have what its primary's commands do not expect.
    let from_primary = worker.source == Source::Primary;
    let is_copy = from_primary && worker.settings.replica_read_only;
    let panics = match worker.settings.propagation_error_behavior {
        PropagationErrorBehavior::Panic => is_copy || !from_primary,
        PropagationErrorBehavior::PanicOnReplicas => is_copy,
        PropagationErrorBehavior::Ignore => false,
    };
    if panics {
        panic!(
            "This {from} panicked sending an error to its {to} after processing the command \
             '{command}'"
        );
    }
}

/// The error of a command that no file should hold.
pub fn out_of_place(name: &str) -> Error {
    Error::err(format_args!("{name} isn't allowed in the append only file"))
}
