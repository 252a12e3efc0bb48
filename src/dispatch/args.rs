//! The arguments of a request, and how numbers and words are read from them.

use std::ops::Index;

use super::error::Error;
use crate::base::long_double::LongDouble;
use crate::base::number;
use crate::types::string::SharedBytes;

/// A request's arguments, the command's name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    list: &'a [&'a [u8]],
    origin: &'a Origin<'a>,
}

/// How a request came.
#[derive(Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Arguments that arrived in buffers of their own, by index.
    pub big: &'a [(usize, SharedBytes)],
    /// All of it as [`crate::resp::write::request`] writes it, if it came so; else empty.
    pub whole: &'a [u8],
}

impl<'a> Args<'a> {
    /// The arguments `list`.
    pub fn new(list: &'a [&'a [u8]]) -> Self {
        const NOWHERE: &Origin<'static> = &Origin {
            big: &[],
            whole: &[],
        };
        Self::received(list, NOWHERE)
    }

    /// The arguments `list` of a request from a client.
    #[inline]
    pub fn received(list: &'a [&'a [u8]], origin: &'a Origin<'a>) -> Self {
        Self { list, origin }
    }

    /// The request as [`crate::resp::write::request`] writes it, if it came so.
    #[inline]
    pub fn whole(&self) -> Option<&'a [u8]> {
        let whole = self.origin.whole;
        (!whole.is_empty()).then_some(whole)
    }

    /// Number of arguments.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True without arguments (which no request is).
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Argument `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.list.get(i).copied()
    }

    /// Arguments from `from` on.
    pub fn rest(&self, from: usize) -> &'a [&'a [u8]] {
        self.list.get(from..).unwrap_or_default()
    }

    /// All of them.
    pub fn all(&self) -> &'a [&'a [u8]] {
        self.list
    }

    /// The buffer of argument `i`, when it is big and has one of its own.
    pub fn shared(&self, i: usize) -> Option<SharedBytes> {
        let found = self.origin.big.iter().find(|(index, _)| *index == i);
        found.map(|(_, bytes)| SharedBytes::clone(bytes))
    }

    /// True when argument `i` is `word`, which is in lower case.
    #[inline]
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.list
            .get(i)
            .is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Argument `i` as an integer.
    #[inline]
    pub fn int(&self, i: usize) -> Result<i64, Error> {
        number::parse_i64(self.list[i]).ok_or(Error::NotInteger)
    }

    /// Argument `i` as an integer, with another error text.
    pub fn int_or(&self, i: usize, error: &'static str) -> Result<i64, Error> {
        number::parse_i64(self.list[i]).ok_or(Error::line(error))
    }

    /// Argument `i` as an integer in a range; outside of it, an error that names the range or that
    /// asks for a positive number when the range is all of these.
    pub fn int_in(&self, i: usize, min: i64, max: i64) -> Result<i64, Error> {
        let n = number::parse_i64(self.list[i])
            .ok_or(Error::line("ERR value is not an integer or out of range"))?;
        if (min..=max).contains(&n) {
            return Ok(n);
        }
        Err(if min == 0 && max == i64::MAX {
            Error::line("ERR value is out of range, must be positive")
        } else {
            Error::err(format_args!(
                "value is out of range, value must between {min} and {max}"
            ))
        })
    }

    /// Argument `i` as an integer of at least `min`; anything else is this error.
    pub fn int_from(&self, i: usize, min: i64, error: &'static str) -> Result<i64, Error> {
        let n = self.int_or(i, error)?;
        if n < min {
            return Err(Error::line(error));
        }
        Ok(n)
    }

    /// Argument `i` as the time that a command waits at most, in seconds: when that is over, in
    /// Unix milliseconds. None: it waits for ever.
    pub fn timeout_in_seconds(&self, i: usize, now_ms: i64) -> Result<Option<i64>, Error> {
        const NO_NUMBER: Error = Error::line("ERR timeout is not a float or out of range");
        LongDouble::parse(self.list[i]).ok_or(NO_NUMBER)?;
        // What a double does not hold is far beyond what counts milliseconds.
        let seconds = number::parse_f64(self.list[i]).unwrap_or(f64::INFINITY);
        let ms = (seconds * 1000.0).ceil();
        // As Redis, whose number wraps to a negative one there.
        const TOO_MUCH: i64 = -1;
        if ms.abs() < EXACT {
            deadline(ms as i64, now_ms)
        } else if let Some(ms) = decimal_ms(self.list[i]) {
            deadline(i64::try_from(ms).unwrap_or(TOO_MUCH), now_ms)
        } else if ms.abs() < i64::MAX as f64 {
            deadline(ms as i64, now_ms)
        } else {
            deadline(TOO_MUCH, now_ms)
        }
    }

    /// As [`Args::timeout_in_seconds`], in milliseconds.
    pub fn timeout_in_ms(&self, i: usize, now_ms: i64) -> Result<Option<i64>, Error> {
        let ms = self.int_or(i, "ERR timeout is not an integer or out of range")?;
        deadline(ms, now_ms)
    }

    /// Argument `i` as a number.
    pub fn float(&self, i: usize) -> Result<f64, Error> {
        number::parse_f64(self.list[i]).ok_or(Error::NotFloat)
    }
}

/// From here on not every integer is a double.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Seconds in plain decimal notation as milliseconds, rounded up; `None` when they are written
/// otherwise.
fn decimal_ms(text: &[u8]) -> Option<i128> {
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let (whole, part) = (&text[..dot], text.get(dot + 1..).unwrap_or_default());
    // Longer ones are out of any range.
    if whole.is_empty() || whole.len() > 30 || !digits(whole) || !digits(part) {
        return None;
    }
    let digit = |ms: i128, b: &u8| ms * 10 + i128::from(b - b'0');
    let ms = whole.iter().fold(0, digit);
    let ms = part.iter().chain(b"000").take(3).fold(ms, digit);
    let more = part.iter().skip(3).any(|b| *b != b'0');
    Some(ms + i128::from(more))
}

/// When a wait of `ms` milliseconds is over.
fn deadline(ms: i64, now_ms: i64) -> Result<Option<i64>, Error> {
    match ms {
        ..0 => Err(Error::line("ERR timeout is negative")),
        0 => Ok(None),
        _ => Ok(Some(now_ms.saturating_add(ms))),
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.list[i]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_may_last_as_long_as_milliseconds_can_tell() {
        let check = |text: &str, expected: Option<i64>| {
            let list = [text.as_bytes()];
            let deadline = Args::new(&list).timeout_in_seconds(0, 0);
            assert_eq!(deadline.ok(), expected.map(Some), "{text}");
        };
        check("0.001", Some(1));
        check("0.0011", Some(2));
        check("9007199254740.9931", Some(9_007_199_254_740_994));
        check("9223372036854775", Some(9_223_372_036_854_775_000));
        check("9223372036854775.807", Some(i64::MAX));
        for negative in [
            "9223372036854775.808",
            "1e18",
            "99999999999999999999",
            "-1",
            "inf",
        ] {
            check(negative, None);
        }
    }
}
