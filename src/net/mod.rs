//! Sockets: listeners, the workers' event loops, and the connections they serve.
//!
//! [`driver`] is the only file that knows the kernel's interface for waiting, reading and writing;
//! another one (io_uring) can stand beside it. [`worker`] turns readiness into batches of
//! commands, `wave` is such a batch, [`connection`] holds one client's buffers, [`listener`] accepts.

pub mod connection;
pub mod driver;
pub mod listener;
pub mod worker;
