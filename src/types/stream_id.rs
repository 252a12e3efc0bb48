//! IDs of stream entries: a time in milliseconds and a number within it, ordered as a pair.

use std::fmt;

use smallvec::SmallVec;

use crate::base::number;
use crate::base::text::before_nul;

/// Longest text that is read as an ID, in bytes.
const MAX_TEXT: usize = 127;

/// The ID of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds of Unix time, as a rule.
    pub ms: u64,
    /// Which of that millisecond's entries.
    pub seq: u64,
}

/// An ID as a request writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenId {
    /// The ID; a sequence that was left open is 0.
    pub id: StreamId,
    /// The sequence is not `*`.
    pub seq_given: bool,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl StreamId {
    /// `0-0`, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The largest.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// An ID of these parts.
    pub fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// True for `0-0`.
    pub fn is_zero(self) -> bool {
        self == Self::MIN
    }

    /// The ID after this one.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self::new(self.ms.checked_add(1)?, 0)),
        }
    }

    /// The ID before this one.
    pub fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self::new(self.ms.checked_sub(1)?, u64::MAX)),
        }
    }

    /// The bytes by which IDs sort as numbers do.
    pub fn to_be_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The ID of such bytes.
    pub fn from_be_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self::new((both >> 64) as u64, both as u64)
    }

    /// The text, without an allocation.
    pub fn text(self) -> SmallVec<[u8; 48]> {
        let mut text = SmallVec::new();
        let mut digits = itoa::Buffer::new();
        text.extend_from_slice(digits.format(self.ms).as_bytes());
        text.push(b'-');
        text.extend_from_slice(digits.format(self.seq).as_bytes());
        text
    }

    /// An ID, where `-` and `+` are the smallest and the largest.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Self> {
        match text {
            b"-" => Some(Self::MIN),
            b"+" => Some(Self::MAX),
            _ => Self::parse_strict(text, missing_seq),
        }
    }

    /// An ID proper: `ms` or `ms-seq`.
    pub fn parse_strict(text: &[u8], missing_seq: u64) -> Option<Self> {
        let (ms, seq) = split(text)?;
        let seq = match seq {
            Some(seq) => unsigned(seq)?,
            None => missing_seq,
        };
        Some(Self::new(unsigned(ms)?, seq))
    }

    /// An ID for a new entry: as [`StreamId::parse_strict`], and `ms-*`.
    pub fn parse_new(text: &[u8]) -> Option<WrittenId> {
        let (ms, seq) = split(text)?;
        if seq == Some(b"*") {
            return Some(WrittenId {
                id: Self::new(unsigned(ms)?, 0),
                seq_given: false,
            });
        }
        Some(WrittenId {
            id: Self::parse_strict(text, 0)?,
            seq_given: true,
        })
    }
}

/// The two parts of an ID; the text ends at a NUL.
fn split(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let text = before_nul(text);
    let parts = match memchr::memchr(b'-', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    Some(parts)
}

/// An unsigned number: canonical, or whatever C's `strtoull` reads to the end (leading blanks,
/// zeros and signs; a negative number wraps round).
fn unsigned(text: &[u8]) -> Option<u64> {
    if let Some(n) = number::parse_i64(text) {
        return u64::try_from(n).ok();
    }
    let blank = |b: &u8| matches!(b, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|b| !blank(b))?;
    let (negative, digits) = match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let n = digits.iter().try_fold(0u64, |n, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { n.wrapping_neg() } else { n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(ms, seq)| StreamId { ms, seq });
            assert_eq!(StreamId::parse(text.as_bytes(), 7), expected, "{text:?}");
        };
        check("5", Some((5, 7)));
        check("5-6", Some((5, 6)));
        check("-", Some((0, 0)));
        check("+", Some((u64::MAX, u64::MAX)));
        check("18446744073709551615-0", Some((u64::MAX, 0)));
        check("18446744073709551616-0", None);
        check("007- 3", Some((7, 3)));
        check("1--05", Some((1, u64::MAX - 4)));
        check("1\0junk", Some((1, 7)));
        for bad in ["", "--", "-5", "1--5", "1-", "1-*", "a-1", "1-1-1", "1 -1"] {
            check(bad, None);
        }
        check(&"0".repeat(128), None);
        assert_eq!(StreamId::parse_strict(b"-", 0), None);
        let open = StreamId::parse_new(b"9-*").expect("an ID");
        assert_eq!((open.id, open.seq_given), (StreamId::new(9, 0), false));
    }

    #[test]
    fn neighbours() {
        let check = |(ms, seq), next: Option<(u64, u64)>| {
            let id = StreamId { ms, seq };
            let next = next.map(|(ms, seq)| StreamId { ms, seq });
            assert_eq!(id.next(), next);
            if let Some(next) = next {
                assert_eq!(next.prev(), Some(id));
                assert!(next.to_be_bytes() > id.to_be_bytes());
            }
        };
        check((0, 0), Some((0, 1)));
        check((3, u64::MAX), Some((4, 0)));
        check((u64::MAX, u64::MAX), None);
        assert_eq!(StreamId::MIN.prev(), None);
        assert_eq!(&StreamId::new(12, 34).text()[..], b"12-34");
    }
}
