//! Replication: the threads that serve replicas, and their full syncs; and being a replica: what it does
//! ([`follow`], without any thread or socket) and the thread that does it ([`following`]).
//!
//! Who follows the stream and how far each is, its id and its backlog are state below
//! ([`crate::propagation`]); here is what acts on them and on the whole server.

mod apply;
pub mod dial;
pub mod failover;
pub mod follow;
pub mod following;
pub mod frame;
mod full_sync;
mod peer;
pub mod primary;
mod receive;

pub use full_sync::FullSyncs;
