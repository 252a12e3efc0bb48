//! Byte streams to others, whatever is below: TCP, a Unix socket, or TLS over either.
//!
//! A [`Stream`] does not block and has three operations: read, write, and what is to be waited for. Without TLS it is
//! the socket, behind one branch. [`Duplex`] is the same for threads that wait, also two at once, and a [`Socket`] for
//! tasks. Clients' handshakes are made before there is a stream (`net::handshake`); ours by [`Stream::connect`].
//!
//! [`context`] makes of the `tls-*` parameters what both sides of a handshake need, in one place: all of it works, or
//! what was there stays. Who is trusted is what OpenSSL would trust: [`authorities`] are what the parameters name, and
//! [`verify`] judges by them, also certificates that rustls alone would not accept. [`files`] reads keys with a
//! passphrase, [`ciphers`] knows OpenSSL's names.

pub mod authorities;
pub mod ciphers;
pub mod context;
pub mod duplex;
pub mod files;
pub mod sessions;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod verify;

pub use context::{Context, Contexts};
pub use duplex::Duplex;
pub use socket::{Side, Socket};
pub use stream::Stream;
