//! What the server knows about itself: counters, and later the slow log, latency and the log.

pub mod doctor;
pub mod histogram;
pub mod latency;
pub mod log;
pub mod process;
pub mod rates;
pub mod slowlog;
pub mod sparkline;
pub mod stats;
