//! Ground floor: text, numbers, clock, hashes, identifiers. Knows nothing of Redis' data or clients.

pub mod text;
