//! The keyspace.

#[allow(unsafe_code)]
mod arena;
#[allow(unsafe_code)]
pub mod entry;
#[allow(unsafe_code)]
mod table;
