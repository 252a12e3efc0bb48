//! The keyspace: shards and their locks, entries, lookup, expiry, eviction, SCAN.
//!
//! [`shards`] holds the lock order, [`db`] is the only door to a key, [`table`] and [`arena`]
//! the memory below, [`entry`] one key with its value, [`outbox`] what subscribers will hear.
//!
//! State below, verbs above: [`shards`] keeps what [`cut`], [`due`] and [`lazyfree`] define; what walks
//! shards and removes keys stands on [`db`].

pub mod access;
#[allow(unsafe_code)]
mod arena;
pub mod arriving;
pub mod by_slot;
pub mod collections;
pub mod cut;
pub mod cut_walk;
pub mod db;
pub mod due;
#[allow(unsafe_code)]
pub mod entry;
pub mod event;
pub mod eviction;
pub mod expiry;
pub mod field_expiry;
mod held;
pub mod lazyfree;
pub mod outbox;
pub mod scan;
pub mod shard_state;
#[allow(unsafe_code)]
pub mod shards;
#[allow(unsafe_code)]
pub mod table;
pub mod tidy;
pub mod tracked;

pub use held::aside;
