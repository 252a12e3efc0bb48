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
        if ms.abs() >= i64::MAX as f64 {
            return deadline(-1, now_ms);
        }
        deadline(ms as i64, now_ms)
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
