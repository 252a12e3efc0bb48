//! String values: which encoding a string gets and how it is seen.

use std::borrow::Cow;
use std::ops::Range;

use super::Encoding;
use super::patched::Patched;
pub use super::patched::SharedBytes;
use crate::base::number;

/// Longest string that reports `embstr`, in bytes.
pub const EMBSTR_MAX: usize = 44;

/// A string value, borrowed from where it is stored.
#[derive(Clone, Copy, Debug)]
pub enum StringRef<'a> {
    /// An integer; its text is the value.
    Int(i64),
    /// Bytes inside the entry.
    Inline(&'a [u8]),
    /// Bytes in an allocation of their own.
    Shared(&'a SharedBytes),
    /// Bytes that changed while somebody else has what they were.
    Patched(&'a Patched),
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
            Self::Patched(string) => Text::Bytes(string.whole()),
        }
    }

    /// The bytes of a range, which lies within the length.
    pub fn slice(self, range: Range<usize>) -> Cow<'a, [u8]> {
        match self {
            Self::Int(_) => Cow::Owned(self.text().bytes()[range].to_vec()),
            Self::Inline(bytes) => Cow::Borrowed(&bytes[range]),
            Self::Shared(bytes) => Cow::Borrowed(&bytes[range]),
            Self::Patched(string) => string.range(range),
        }
    }

    /// Length of the content in bytes.
    pub fn len(self) -> usize {
        match self {
            Self::Int(n) => number::digits10(n),
            Self::Inline(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Patched(string) => string.len(),
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
            // It is far too long for one.
            Self::Patched(_) => None,
        }
    }
}

/// A string's bytes, to be changed.
#[derive(Debug)]
pub enum StringMut<'a> {
    /// They are all its own.
    Bytes(&'a mut [u8]),
    /// Somebody else has what they were.
    Patched(&'a mut Patched),
}

impl StringMut<'_> {
    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Patched(string) => string.len(),
        }
    }

    /// True for the empty string.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows the bytes of a range, as far as it lies within the length, to be changed.
    #[inline]
    pub fn edit<R>(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [u8]) -> R) -> R {
        let len = self.len();
        let range = range.start.min(len)..range.end.min(len);
        match self {
            Self::Bytes(bytes) => edit(&mut bytes[range]),
            Self::Patched(string) => string.edit(range, edit),
        }
    }
}

/// Longest decimal text of an integer, in bytes.
pub const INT_TEXT_MAX: usize = 20;

/// The encoding that a string gets when it is set as a whole, and its integer if it is one.
#[inline]
pub fn encode(bytes: &[u8]) -> (Encoding, Option<i64>) {
    if bytes.len() <= INT_TEXT_MAX
        && let Some(n) = number::parse_i64(bytes)
    {
        return (Encoding::Int, Some(n));
    }
    (encode_text(bytes), None)
}

/// The encoding of a string that is not to be kept as an integer.
#[inline]
pub fn encode_text(bytes: &[u8]) -> Encoding {
    if bytes.len() <= EMBSTR_MAX {
        Encoding::EmbStr
    } else {
        Encoding::Raw
    }
}

/// The places from `start` to `end`, both included, of a string of `len` bytes; negative ones count
/// from the end, and what lies outside of the string is left out (GETRANGE).
pub fn range(len: usize, start: i64, end: i64) -> Range<usize> {
    let len = len as i64;
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_end = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end {
        return 0..0;
    }
    start as usize..end as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        let check = |start, end, expected: &str| {
            assert_eq!(b"hello"[range(5, start, end)], *expected.as_bytes());
        };
        check(0, -1, "hello");
        check(1, 2, "el");
        check(-3, -2, "ll");
        check(-2, -3, "");
        check(3, 1, "");
        check(-100, 100, "hello");
        check(-100, -100, "h");
        check(5, 9, "");
        check(i64::MIN, i64::MAX, "hello");
        check(i64::MAX, i64::MIN, "");
        assert_eq!(range(0, 0, -1), 0..0);
    }
}
