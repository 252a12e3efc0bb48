//! The arguments of a request, and how numbers and words are read from them.

use std::ops::Index;

use super::error::Error;
use crate::base::number;
use crate::types::string::SharedBytes;

/// A request's arguments, the command's name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    list: &'a [&'a [u8]],
    /// Arguments that arrived in buffers of their own, by index.
    big: &'a [(usize, SharedBytes)],
}

impl<'a> Args<'a> {
    /// The arguments `list`, of which those in `big` can be kept without a copy.
    pub fn new(list: &'a [&'a [u8]], big: &'a [(usize, SharedBytes)]) -> Self {
        Self { list, big }
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
        let found = self.big.iter().find(|(index, _)| *index == i);
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

    /// Argument `i` as a number.
    pub fn float(&self, i: usize) -> Result<f64, Error> {
        number::parse_f64(self.list[i]).ok_or(Error::NotFloat)
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.list[i]
    }
}
