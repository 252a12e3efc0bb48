//! A parsed request: where its arguments lie.

use std::ops::Range;

/// One argument of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A range of the input buffer.
    Range {
        /// Index of the first byte.
        start: usize,
        /// Index past the last byte.
        end: usize,
    },
    /// An argument in a buffer of its own: an index into [`Request::big`].
    Big(usize),
}

/// One request: its arguments, most of them borrowed from the input buffer.
#[derive(Default, Debug)]
pub struct Request {
    /// The arguments, the command's name first.
    pub args: Vec<Arg>,
    /// Buffers of the arguments that are not ranges of the input.
    pub big: Vec<Vec<u8>>,
    /// Where all of it lies in the input, if it came in the form that
    /// [`crate::resp::write::request`] gives it; else empty.
    pub whole: Range<usize>,
    /// Bytes that it took on the wire, if it came in another form.
    pub(super) other_bytes: u64,
}

impl Request {
    /// Forgets the request, keeping the vectors for the next one.
    pub fn clear(&mut self) {
        self.args.clear();
        self.big.clear();
        self.whole = 0..0;
        self.other_bytes = 0;
    }

    /// Bytes the request took on the wire.
    pub fn wire_bytes(&self) -> u64 {
        self.other_bytes + self.whole.len() as u64
    }

    /// Number of arguments, the command's name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// True when there are no arguments.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// The bytes of argument `i`.
    ///
    /// # Panics
    /// When `i` is not below [`Request::len`], or `input` is not the buffer that was parsed.
    #[inline]
    pub fn arg<'a>(&'a self, input: &'a [u8], i: usize) -> &'a [u8] {
        match self.args[i] {
            Arg::Range { start, end } => &input[start..end],
            Arg::Big(index) => &self.big[index],
        }
    }

    /// Takes the buffer of argument `i` when it has one of its own; the argument is empty then.
    pub fn take_big(&mut self, i: usize) -> Option<Vec<u8>> {
        match self.args.get(i) {
            Some(&Arg::Big(index)) => Some(std::mem::take(&mut self.big[index])),
            _ => None,
        }
    }
}
