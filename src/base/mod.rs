//! Ground floor: text, numbers, clock, hashes, identifiers. Knows nothing of Redis' data or clients.

pub mod number;
pub mod text;
#[allow(unsafe_code)]
pub mod ticks;
