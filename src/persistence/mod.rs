//! What survives the process: the dump format and, on it, snapshots.
//!
//! [`rdb`] is the format of values and files, bytes in and bytes out. Nothing here sees clients.

pub mod aof;
mod gather;
pub mod layouts;
pub mod load;
pub mod rdb;
pub mod replacement;
pub mod save;
pub mod snapshot;
pub mod state;
