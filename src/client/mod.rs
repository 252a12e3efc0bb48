//! Clients: what a connection is to the server.
//!
//! [`session`] is the state that only the connection's worker touches, [`registry`] what other
//! threads see of it (CLIENT LIST, CLIENT KILL), and [`mailbox`] the way by which they hand it
//! bytes (published messages, invalidations, MONITOR).

pub mod identity;
pub mod mailbox;
pub mod registry;
pub mod session;
pub mod tracking;
