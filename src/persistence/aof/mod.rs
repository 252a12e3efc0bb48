//! The append-only file: a base, and the commands since, in files that a manifest lists.
//!
//! [`life`] is whether it is on and what is being done with it, [`manifest`] which files there are,
//! [`log`] the open file as all threads share it, [`writer`] appends what the stream says and syncs it,
//! [`AppendOnly`] holds the first two for all threads, [`reader`] finds commands in a file, [`rewrite`] writes a base as commands, [`place`] is where in a replication
//! stream a file ends.

pub mod life;
pub mod log;
pub mod manifest;
pub mod place;
pub mod reader;
pub mod rewrite;
mod state;
pub mod writer;

pub use state::AppendOnly;
