//! The options of a request, read word by word.
//!
//! A command says which words it knows and what it does with them; this walks, reads values of their
//! types, and makes the error for what is unknown, incomplete or excluded. What is wrong is found in
//! the order in which it was written, as in Redis.
//!
//! ```ignore
//! let mut options = Cursor::new(args, 3);
//! while options.step() {
//!     match () {
//!         () if options.is("replace") => replace = true,
//!         () if options.is("count") => count = options.int()?,
//!         () => return Err(options.refuse()),
//!     }
//! }
//! ```

use super::args::Args;
use super::error::Error;

/// A walk through options; see the module.
pub struct Cursor<'a> {
    args: Args<'a>,
    /// The word of the option at hand.
    at: usize,
    /// The argument behind what was read.
    next: usize,
}

/// Chooses one of a group of options that exclude each other. The same one may be repeated.
pub fn choose<T: PartialEq>(group: &mut Option<T>, chosen: T) -> Result<(), Error> {
    match group {
        Some(before) if *before != chosen => Err(Error::Syntax),
        _ => {
            *group = Some(chosen);
            Ok(())
        }
    }
}

impl<'a> Cursor<'a> {
    /// Options from argument `from` on.
    pub fn new(args: Args<'a>, from: usize) -> Self {
        Self {
            args,
            at: from,
            next: from,
        }
    }

    /// Goes to the next option; false when there is none.
    #[inline]
    pub fn step(&mut self) -> bool {
        self.at = self.next;
        let any = self.at < self.args.len();
        self.next += usize::from(any);
        any
    }

    /// True when the option at hand is `word`, which is in lower case.
    #[inline]
    pub fn is(&self, word: &str) -> bool {
        self.args.is(self.at, word)
    }

    /// As [`Cursor::is`], and as many values follow: where without them it is no option at all.
    pub fn has(&self, word: &str, values: usize) -> bool {
        self.left() >= values && self.is(word)
    }

    /// What the option at hand means, among words in lower case.
    pub fn find<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| self.is(word));
        found.map(|(_, meaning)| *meaning)
    }

    /// The word of the option at hand.
    pub fn word(&self) -> &'a [u8] {
        self.args.all()[self.at]
    }

    /// Which argument the option at hand is: the number of arguments, when none is left.
    pub fn index(&self) -> usize {
        self.at
    }

    /// Which argument would be read next.
    pub fn next_index(&self) -> usize {
        self.next
    }

    /// Number of arguments behind what was read.
    pub fn left(&self) -> usize {
        self.args.len() - self.next
    }

    /// Takes the next value; where it is missing, that is a syntax error. Its index, for what reads
    /// arguments in a way of its own.
    pub fn take(&mut self) -> Result<usize, Error> {
        self.take_many(1)
    }

    /// Takes several values, as [`Cursor::take`] one; the index of the first.
    pub fn take_many(&mut self, count: usize) -> Result<usize, Error> {
        let first = self.next;
        if self.left() < count {
            return Err(self.refuse());
        }
        self.next += count;
        Ok(first)
    }

    /// The next value.
    pub fn value(&mut self) -> Result<&'a [u8], Error> {
        Ok(self.args.all()[self.take()?])
    }

    /// The next value as an integer.
    pub fn int(&mut self) -> Result<i64, Error> {
        let index = self.take()?;
        self.args.int(index)
    }

    /// As [`Cursor::int`], with another error text.
    pub fn int_or(&mut self, error: &'static str) -> Result<i64, Error> {
        let index = self.take()?;
        self.args.int_or(index, error)
    }

    /// As [`Cursor::int`], of at least `min`; anything else is this error.
    pub fn int_from(&mut self, min: i64, error: &'static str) -> Result<i64, Error> {
        let index = self.take()?;
        self.args.int_from(index, min, error)
    }

    /// The next value as a number; anything else is this error.
    pub fn float_or(&mut self, error: &'static str) -> Result<f64, Error> {
        let index = self.take()?;
        self.args.float(index).map_err(|_| Error::line(error))
    }

    /// What the next value means, which is one of these words in lower case.
    pub fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, Error> {
        let index = self.take()?;
        let found = words.iter().find(|(word, _)| self.args.is(index, word));
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| self.refuse())
    }

    /// The error for an option that is unknown, or not allowed here.
    pub fn refuse(&self) -> Error {
        Error::Syntax
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Option<bool>, i64, &'static str), String> {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let mut options = Cursor::new(Args::new(&words), 1);
        let (mut must, mut count, mut how) = (None, 0, "");
        let mut all = || -> Result<(), Error> {
            while options.step() {
                match () {
                    () if options.is("nx") => choose(&mut must, false)?,
                    () if options.is("xx") => choose(&mut must, true)?,
                    () if options.is("count") => count = options.int_from(1, "ERR few")?,
                    () if options.has("how", 1) => {
                        how = options.one_of(&[("sum", "+"), ("max", ">")])?;
                    }
                    () => return Err(options.refuse()),
                }
            }
            Ok(())
        };
        let read = all();
        read.map(|()| (must, count, how))
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn words_have_values_and_exclude_each_other() {
        let none: (Option<bool>, i64, &str) = (None, 0, "");
        assert_eq!(read("x"), Ok(none));
        let all = read("x NX Count 5 how MAX nx");
        assert_eq!(all, Ok((Some(false), 5, ">")));
        let syntax = Err(format!("{:?}", Error::Syntax));
        for wrong in ["x nx xx", "x count", "x how", "x how min", "x what"] {
            assert_eq!(read(wrong), syntax, "{wrong}");
        }
        // In the order in which it was written.
        let few = Err(format!("{:?}", Error::line("ERR few")));
        assert_eq!(read("x count 0 what"), few);
        assert_eq!(read("x what count 0"), syntax);
    }
}
