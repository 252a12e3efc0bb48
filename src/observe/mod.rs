//! What the server knows about itself: counters, and later the slow log, latency and the log.

pub mod histogram;
pub mod latency;
pub mod log;
pub mod slowlog;
pub mod stats;
