//! String values: which encoding a string gets and how it is seen.

use std::sync::Arc;

use super::Encoding;
use crate::base::number;

/// Longest string that reports `embstr`, in bytes.
pub const EMBSTR_MAX: usize = 44;

/// Bytes that several owners may hold: a value in the keyspace and replies still to be written.
/// Whoever changes it makes it his own first (`Arc::make_mut`).
pub type SharedBytes = Arc<Vec<u8>>;

/// A string value, borrowed from where it is stored.
#[derive(Clone, Copy, Debug)]
pub enum StringRef<'a> {
    /// An integer; its text is the value.
    Int(i64),
    /// Bytes inside the entry.
    Inline(&'a [u8]),
    /// Bytes in an allocation of their own.
    Shared(&'a SharedBytes),
}

/// Text of an integer, or borrowed bytes: a string's content without an allocation.
pub enum Text<'a> {
    /// Decimal digits.
    Digits(itoa::Buffer, i64),
    /// The bytes as stored.
    Bytes(&'a [u8]),
}

impl Text<'_> {
    /// The content.
    #[inline]
    pub fn bytes(&mut self) -> &[u8] {
        match self {
            Self::Digits(buffer, n) => buffer.format(*n).as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'a> StringRef<'a> {
    /// The content; an integer is formatted into the result.
    #[inline]
    pub fn text(self) -> Text<'a> {
        match self {
            Self::Int(n) => Text::Digits(itoa::Buffer::new(), n),
            Self::Inline(bytes) => Text::Bytes(bytes),
            Self::Shared(bytes) => Text::Bytes(bytes),
        }
    }

    /// Length of the content in bytes.
    pub fn len(self) -> usize {
        match self {
            Self::Int(n) => number::digits10(n),
            Self::Inline(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }

    /// True for the empty string.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The content as a new vector.
    pub fn to_vec(self) -> Vec<u8> {
        self.text().bytes().to_vec()
    }

    /// The value as an integer, when its text is exactly one.
    pub fn integer(self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(n),
            Self::Inline(bytes) => number::parse_i64(bytes),
            Self::Shared(bytes) => number::parse_i64(bytes),
        }
    }
}

/// The encoding that a string gets when it is set as a whole, and its integer if it is one.
#[inline]
pub fn encode(bytes: &[u8]) -> (Encoding, Option<i64>) {
    // The longest decimal text of an i64 has 20 bytes.
    if bytes.len() <= 20
        && let Some(n) = number::parse_i64(bytes)
    {
        return (Encoding::Int, Some(n));
    }
    let encoding = if bytes.len() <= EMBSTR_MAX {
        Encoding::EmbStr
    } else {
        Encoding::Raw
    };
    (encoding, None)
}
