//! Ground floor: text, numbers, clock, hashes, identifiers. Knows nothing of Redis' data or clients.

#[allow(unsafe_code)]
pub mod alloc;
pub mod number;
pub mod text;
