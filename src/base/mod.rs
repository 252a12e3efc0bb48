//! Ground floor: text, numbers, clock, hashes, identifiers. Knows nothing of Redis' data or clients.

#[allow(unsafe_code)]
pub mod alloc;
pub mod clock;
pub mod crc;
#[allow(unsafe_code)]
pub mod fault;
pub mod glob;
#[allow(unsafe_code)]
pub mod heap;
pub mod long_double;
pub mod lzf;
pub mod meter;
pub mod number;
#[allow(unsafe_code)]
pub mod pages;
pub mod priority;
pub mod random;
pub mod share;
pub mod strtod;
pub mod sync;
pub mod text;
#[allow(unsafe_code)]
pub mod thin;
#[allow(unsafe_code)]
pub mod ticks;
