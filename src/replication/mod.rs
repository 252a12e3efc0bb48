//! Replication, the primary's side: the threads that serve replicas, and their full syncs.
//!
//! Who follows the stream and how far each is, its id and its backlog are state below
//! ([`crate::propagation`]); here is what acts on them and on the whole server.

mod full_sync;
mod peer;
pub mod primary;

pub use full_sync::FullSyncs;
