//! The Redis protocol: bytes in, bytes out.
//!
//! [`parse`] turns what a client sends into requests, [`write`](mod@write) turns what commands answer into
//! bytes in the client's protocol version, and [`read`] reads replies, for links to other servers
//! and for tests. Nothing here knows a socket, a client or a command: the network layer feeds
//! byte slices in and takes byte slices out, so every part is testable with plain slices.

pub mod parse;
pub mod read;
pub mod write;
