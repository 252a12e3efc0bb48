//! The keyspace: shards and their locks, entries, lookup, expiry, eviction, SCAN.
//!
//! [`shards`] holds the lock order, [`db`] is the only door to a key, [`table`] and [`arena`]
//! the memory below, [`entry`] one key with its value, [`outbox`] what subscribers will hear.

pub mod access;
#[allow(unsafe_code)]
mod arena;
pub mod collections;
pub mod cut;
#[allow(unsafe_code)]
pub mod db;
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
#[allow(unsafe_code)]
pub mod shards;
#[allow(unsafe_code)]
pub mod table;
pub mod tidy;
