//! Replication: the threads that serve replicas, and their full syncs; and, without any thread or socket,
//! what a replica does ([`follow`]).
//!
//! Who follows the stream and how far each is, its id and its backlog are state below
//! ([`crate::propagation`]); here is what acts on them and on the whole server.

pub mod follow;
mod full_sync;
mod peer;
pub mod primary;

pub use full_sync::FullSyncs;
