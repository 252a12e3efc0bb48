//! Sockets: listeners, the workers' event loops, and the connections they serve.
//!
//! [`driver`] is the only file that knows the kernel's interface for waiting. [`handshake`] is where clients
//! over TLS pass before they are let in. [`worker`] turns readiness into batches of
//! commands, `wave` is such a batch, [`connection`] holds one client's buffers, [`listener`] accepts.

pub mod connection;
pub mod driver;
pub mod handshake;
pub mod listener;
pub mod worker;
