//! The append-only file: a base, and the commands since, in files that a manifest lists.
//!
//! [`manifest`] is which files there are, [`reader`] finds commands in one, [`writer`] appends what
//! the stream says and syncs it, [`rewrite`] writes a base as commands.

pub mod manifest;
pub mod reader;
pub mod rewrite;
pub mod writer;
