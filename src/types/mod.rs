//! Values: what a key can hold. One file per type, one per encoding.
//!
//! Knows nothing of keys, clients, replies, locks or the clock.

pub mod bitmap;
pub mod lcs;
pub mod listpack;
pub mod string;

/// The type of a value, as TYPE names it. The numbers are stored in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Strings and bitmaps.
    String = 0,
}

impl Type {
    /// The name that TYPE answers and SCAN's TYPE option takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
        }
    }
}

/// How a value is represented, as OBJECT ENCODING names it. The numbers are stored in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// A string of any length that was built or changed in place.
    Raw = 0,
    /// A string that is the decimal text of a 64-bit integer, kept as the integer.
    Int = 1,
    /// A string of at most 44 bytes, as it was set.
    EmbStr = 2,
}

impl Encoding {
    /// The name that OBJECT ENCODING answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Int => "int",
            Self::EmbStr => "embstr",
        }
    }
}
