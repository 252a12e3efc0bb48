//! The keyspace.

#[allow(unsafe_code)]
mod arena;
#[allow(unsafe_code)]
mod table;
