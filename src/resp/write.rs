//! The reply side of one client: an encoder into one flat buffer, with big values spliced in.
//!
//! Commands call [`Output::ok`], [`Output::int`], [`Output::bulk`] and so on; the protocol version
//! decides the bytes. Nearly everything lands in one flat vector that is reused for the life of the
//! connection. A value of [`SHARED_MIN`] bytes or more can be appended without a copy: the output
//! remembers at which place of the flat buffer the shared chunk belongs, and hands out the pieces
//! in order for `writev`.
//!
//! ```text
//!     flat:     $3\r\nabc\r\n $70000\r\n | \r\n :1\r\n
//!     splices:                           ^ 70000 shared bytes
//! ```
//!
//! Places in the flat buffer are counted from the start of the connection (`base` bytes of it are
//! gone), so a [`Mark`] or [`Deferred`] stays valid when written bytes are dropped.
//!
//! What it never does: write to a socket, or decide whether a client may be answered.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::long_double::LongDouble;
use crate::base::number::format_g17;

/// Values of at least this many bytes are worth a chunk of their own instead of a copy.
pub const SHARED_MIN: usize = 16 * 1024;

/// Text made for one reply is not copied from this many bytes on.
const TEXT_MIN: usize = 512;

/// Longest header: a type byte, 20 digits, the line's end; rounded up.
const LONGEST_LINE: usize = 24;

/// The numbers below 100 in two digits.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Written bytes are moved out of the flat buffer when there are at least this many of them.
const COMPACT_MIN: usize = 64 * 1024;

/// The protocol version a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2: what every client starts with.
    #[default]
    Resp2,
    /// RESP3: after `HELLO 3`.
    Resp3,
}

/// A place in the output to which it can be cut back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    flat: u64,
    splices: u64,
}

/// An aggregate whose length is known only when its elements are written.
#[derive(Debug)]
#[must_use = "an aggregate that is never ended corrupts the reply"]
pub struct Deferred {
    flat: u64,
}

#[derive(Debug)]
enum Chunk {
    Shared(Arc<Vec<u8>>),
    Bytes(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Shared(data) => data,
            Chunk::Bytes(data) => data,
        }
    }
}

/// A chunk that belongs before the flat byte at `at`.
#[derive(Debug)]
struct Splice {
    at: u64,
    chunk: Chunk,
}

/// The replies of one client that were not written to its socket yet.
#[derive(Debug, Default)]
pub struct Output {
    flat: Vec<u8>,
    /// Bytes of the flat stream before `flat[0]`.
    base: u64,
    /// Bytes of `flat` that are written.
    head: usize,
    splices: VecDeque<Splice>,
    /// Splices that are written and gone.
    splice_base: u64,
    /// Bytes of the first splice that are written.
    splice_head: usize,
    /// Bytes in all splices, the written ones of the first included.
    spliced: usize,
    protocol: Protocol,
    /// Bytes that may wait; 0: any number.
    limit: usize,
    overflowed: bool,
}

impl Output {
    /// An empty output in RESP2.
    pub fn new() -> Self {
        Output::default()
    }

    /// The protocol version replies are encoded in.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the protocol version of the replies that follow.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Sets how many bytes may wait before [`Output::overflows`]; 0: any number.
    pub fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// True when so much waits that the client is to be closed: then a reply that may be of any
    /// length stops where it is.
    #[inline]
    pub fn overflows(&mut self) -> bool {
        if self.limit != 0 && self.len_pending() >= self.limit {
            self.overflowed = true;
        }
        self.overflowed
    }

    /// True when [`Output::overflows`] was: a reply may have stopped halfway.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// True when replies are encoded in RESP3.
    #[inline]
    pub fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    // Simple replies.

    /// `+OK`
    #[inline]
    pub fn ok(&mut self) {
        self.flat.extend_from_slice(b"+OK\r\n");
    }

    /// A status reply; `text` holds no line end.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error reply. `line` is the whole line with its code and without the `-`.
    ///
    /// Line ends at both ends are dropped and others become spaces, so that no text a client chose
    /// can break the framing.
    pub fn error(&mut self, line: &str) {
        self.error_bytes(line.as_bytes());
    }

    /// [`Output::error`] for a text that need not be UTF-8.
    pub fn error_bytes(&mut self, line: &[u8]) {
        let is_end = |b: &u8| matches!(b, b'\r' | b'\n');
        let start = line.iter().position(|b| !is_end(b)).unwrap_or(line.len());
        let end = line
            .iter()
            .rposition(|b| !is_end(b))
            .map_or(start, |i| i + 1);
        let line = &line[start..end];
        self.flat.reserve(line.len() + 3);
        self.flat.push(b'-');
        self.flat
            .extend(line.iter().map(|b| if is_end(b) { b' ' } else { *b }));
        self.flat.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.header(b':', value),
            Err(_) => self.line(b':', itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    /// An integer without sign.
    #[inline]
    pub fn uint(&mut self, value: u64) {
        self.header(b':', value);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, data: &[u8]) {
        self.flat.reserve(data.len() + 24);
        self.header(b'$', data.len() as u64);
        self.flat.extend_from_slice(data);
        self.flat.extend_from_slice(b"\r\n");
    }

    /// A bulk string whose bytes are shared, not copied, from [`SHARED_MIN`] bytes on.
    pub fn bulk_shared(&mut self, data: Arc<Vec<u8>>) {
        if data.len() < SHARED_MIN {
            return self.bulk(&data);
        }
        self.header(b'$', data.len() as u64);
        self.splice(Chunk::Shared(data));
        self.flat.extend_from_slice(b"\r\n");
    }

    /// The decimal text of `value` as a bulk string.
    #[inline]
    pub fn bulk_int(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Nothing: `$-1` in RESP2, `_` in RESP3.
    #[inline]
    pub fn null(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"$-1\r\n" };
        self.flat.extend_from_slice(text);
    }

    /// No array: `*-1` in RESP2, `_` in RESP3.
    pub fn null_array(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.flat.extend_from_slice(text);
    }

    /// A truth value; an integer in RESP2.
    pub fn bool(&mut self, value: bool) {
        self.flat.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
        });
    }

    /// A double with 17 significant digits; a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(32);
        format_g17(&mut text, value);
        self.number(&text);
    }

    /// A double in its shortest plain notation (17 decimals, trailing zeros dropped), never with an
    /// exponent; a bulk string in RESP2.
    pub fn human_double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(40);
        LongDouble::from_f64(value).format_into(&mut text);
        self.number(&text);
    }

    /// The text of a floating point number: a double in RESP3, a bulk string in RESP2.
    pub fn number(&mut self, text: &[u8]) {
        if self.resp3() {
            self.line(b',', text);
        } else {
            self.bulk(text);
        }
    }

    /// The decimal digits of an integer of any size; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.resp3() {
            self.line(b'(', digits);
        } else {
            self.bulk(digits);
        }
    }

    /// Text with a format of three characters (`txt`, `mkd`); a bulk string in RESP2. A text that
    /// would swell the flat buffer, which its connection keeps, is handed over instead.
    pub fn verbatim(&mut self, format: &str, text: Vec<u8>) {
        if self.resp3() {
            let mut tag = [b' '; 3];
            for (to, from) in tag.iter_mut().zip(format.bytes()) {
                *to = from;
            }
            self.header(b'=', text.len() as u64 + 4);
            self.flat.extend_from_slice(&tag);
            self.flat.push(b':');
        } else {
            self.header(b'$', text.len() as u64);
        }
        if text.len() < TEXT_MIN {
            self.flat.extend_from_slice(&text);
        } else {
            self.splice(Chunk::Bytes(text.into()));
        }
        self.flat.extend_from_slice(b"\r\n");
    }

    /// Bytes that are already encoded.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.flat.extend_from_slice(encoded);
    }

    /// Already encoded bytes that are shared with other clients (a pushed message).
    pub fn append_bytes(&mut self, encoded: Bytes) {
        if encoded.len() < SHARED_MIN {
            self.flat.extend_from_slice(&encoded);
        } else {
            self.splice(Chunk::Bytes(encoded));
        }
    }

    // Aggregates: the header; the elements follow.

    /// An array of `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as u64);
    }

    /// A map of `pairs` keys, each followed by its value; an array of both in RESP2.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        let (kind, len) = self.map_header(pairs);
        self.header(kind, len);
    }

    /// A set of `len` elements; an array in RESP2.
    #[inline]
    pub fn set(&mut self, len: usize) {
        let kind = self.kind(b'~');
        self.header(kind, len as u64);
    }

    /// A message out of turn of `len` elements; an array in RESP2.
    #[inline]
    pub fn push(&mut self, len: usize) {
        let kind = self.kind(b'>');
        self.header(kind, len as u64);
    }

    /// Opens an aggregate whose length is not known yet; its elements follow.
    ///
    /// Aggregates may be nested; they are ended innermost first.
    pub fn deferred(&mut self) -> Deferred {
        let flat = self.end();
        // Room for the header of up to nine elements; a longer one moves the elements apart.
        self.flat.extend_from_slice(b"*0\r\n");
        Deferred { flat }
    }

    /// Ends `deferred` as an array of `len` elements.
    pub fn end_array(&mut self, deferred: Deferred, len: usize) {
        self.end_deferred(deferred, b'*', len as u64);
    }

    /// Ends `deferred` as a map of `pairs` keys with their values.
    pub fn end_map(&mut self, deferred: Deferred, pairs: usize) {
        let (kind, len) = self.map_header(pairs);
        self.end_deferred(deferred, kind, len);
    }

    /// Ends `deferred` as a set of `len` elements.
    pub fn end_set(&mut self, deferred: Deferred, len: usize) {
        let kind = self.kind(b'~');
        self.end_deferred(deferred, kind, len as u64);
    }

    /// Ends `deferred` as a pushed message of `len` elements.
    pub fn end_push(&mut self, deferred: Deferred, len: usize) {
        let kind = self.kind(b'>');
        self.end_deferred(deferred, kind, len as u64);
    }

    fn map_header(&self, pairs: usize) -> (u8, u64) {
        if self.resp3() {
            (b'%', pairs as u64)
        } else {
            (b'*', pairs as u64 * 2)
        }
    }

    #[inline]
    fn kind(&self, resp3: u8) -> u8 {
        if self.resp3() { resp3 } else { b'*' }
    }

    /// A type byte and a number on a line.
    #[inline]
    fn header(&mut self, kind: u8, number: u64) {
        match number {
            0..=9 => self
                .flat
                .extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
            10..=99 => {
                let (tens, ones) = (number as u8 / 10, number as u8 % 10);
                self.flat
                    .extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
            }
            _ => self.long_header(kind, number),
        }
    }

    /// [`Output::header`] for a number above 9.
    fn long_header(&mut self, kind: u8, mut number: u64) {
        // Written from its end, which lies in the middle, and copied with what lies behind it: a copy of
        // a fixed size is a few instructions, one of any size is a call.
        let mut text = [0; 2 * LONGEST_LINE];
        let mut start = LONGEST_LINE - 2;
        text[start..LONGEST_LINE].copy_from_slice(b"\r\n");
        while number >= 10 {
            start -= 2;
            text[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
            number /= 100;
        }
        if number > 0 {
            start -= 1;
            text[start] = b'0' + number as u8;
        }
        start -= 1;
        text[start] = kind;
        if let Some(line) = text[start..].first_chunk::<LONGEST_LINE>() {
            let len = self.flat.len() + LONGEST_LINE - start;
            self.flat.extend_from_slice(line);
            self.flat.truncate(len);
        }
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.flat.reserve(text.len() + 3);
        self.flat.push(kind);
        self.flat.extend_from_slice(text);
        self.flat.extend_from_slice(b"\r\n");
    }

    fn end_deferred(&mut self, deferred: Deferred, kind: u8, len: u64) {
        const PLACEHOLDER: usize = 4;
        let Some(at) = deferred.flat.checked_sub(self.base) else {
            debug_assert!(false, "an open aggregate was written to the socket");
            return;
        };
        let at = at as usize;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(len).as_bytes();
        let grow = digits.len() - 1;
        if grow > 0 {
            let body = at + PLACEHOLDER;
            let old_len = self.flat.len();
            self.flat.resize(old_len + grow, 0);
            self.flat.copy_within(body..old_len, body + grow);
            for splice in self.splices.iter_mut().rev() {
                if splice.at <= deferred.flat {
                    break;
                }
                splice.at += grow as u64;
            }
        }
        self.flat[at] = kind;
        self.flat[at + 1..at + 1 + digits.len()].copy_from_slice(digits);
        self.flat[at + 1 + digits.len()..at + 3 + digits.len()].copy_from_slice(b"\r\n");
    }

    fn splice(&mut self, chunk: Chunk) {
        self.spliced += chunk.as_slice().len();
        let at = self.end();
        self.splices.push_back(Splice { at, chunk });
    }

    /// The place past the last flat byte, counted from the start of the connection.
    #[inline]
    fn end(&self) -> u64 {
        self.base + self.flat.len() as u64
    }

    // The way out.

    /// Bytes that are not written yet.
    #[inline]
    pub fn len_pending(&self) -> usize {
        self.flat.len() - self.head + self.spliced - self.splice_head
    }

    /// True when everything is written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len_pending() == 0
    }

    /// The pending bytes in order, as slices.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            output: self,
            flat: self.head,
            splice: 0,
        }
    }

    /// Fills `slices` with the first pending pieces; gives how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(self.chunks()) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// All pending bytes in one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks().flatten().copied().collect()
    }

    /// Tells that the first `written` pending bytes were written.
    ///
    /// # Panics
    /// When that is more than [`Output::len_pending`].
    pub fn advance(&mut self, written: usize) {
        assert!(written <= self.len_pending(), "more written than pending");
        let mut left = written;
        while let Some(first) = self.splices.front() {
            let before = (first.at - self.base) as usize - self.head;
            if left < before {
                break;
            }
            self.head += before;
            left -= before;
            let chunk_len = first.chunk.as_slice().len();
            let chunk_left = chunk_len - self.splice_head;
            if left < chunk_left {
                self.splice_head += left;
                return self.drop_written();
            }
            left -= chunk_left;
            self.splice_head = 0;
            self.spliced -= chunk_len;
            self.splice_base += 1;
            self.splices.pop_front();
        }
        self.head += left;
        self.drop_written();
    }

    fn drop_written(&mut self) {
        if self.head == self.flat.len() {
            self.base += self.head as u64;
            self.flat.clear();
            self.head = 0;
        } else if self.head >= COMPACT_MIN && self.head >= self.flat.len() / 2 {
            // At least as many bytes go as are moved: constant cost per byte.
            self.base += self.head as u64;
            self.flat.drain(..self.head);
            self.head = 0;
        }
    }

    /// The present end of the output, for [`Output::truncate_to`].
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            flat: self.end(),
            splices: self.splice_base + self.splices.len() as u64,
        }
    }

    /// Drops what was appended since `mark`, as far as it is not written yet.
    pub fn truncate_to(&mut self, mark: Mark) {
        let keep = mark.splices.saturating_sub(self.splice_base) as usize;
        while self.splices.len() > keep {
            // A chunk of which the socket has a part must be finished.
            if self.splices.len() == 1 && self.splice_head > 0 {
                break;
            }
            let splice = self.splices.pop_back().expect("longer than `keep`");
            self.spliced -= splice.chunk.as_slice().len();
        }
        let keep = mark.flat.saturating_sub(self.base) as usize;
        self.flat.truncate(keep.max(self.head));
    }

    /// Bytes appended since `mark` that are not written yet.
    pub fn len_since(&self, mark: Mark) -> usize {
        let from = (mark.flat.saturating_sub(self.base) as usize).max(self.head);
        let first = mark.splices.saturating_sub(self.splice_base) as usize;
        let chunks = self.splices.iter().skip(first);
        let spliced: usize = chunks.map(|s| s.chunk.as_slice().len()).sum();
        let written = if first == 0 { self.splice_head } else { 0 };
        self.flat.len().saturating_sub(from) + spliced - written
    }

    /// Drops everything that is pending.
    pub fn clear(&mut self) {
        self.base = self.end();
        self.flat.clear();
        self.head = 0;
        self.splice_base += self.splices.len() as u64;
        self.splices.clear();
        self.splice_head = 0;
        self.spliced = 0;
    }

    /// Makes room for `bytes` more in the flat buffer.
    pub fn reserve(&mut self, bytes: usize) {
        self.flat.reserve(bytes);
    }

    /// Bytes the flat buffer has reserved.
    pub fn capacity(&self) -> usize {
        self.flat.capacity()
    }

    /// Bytes of memory the output holds: the flat buffer's and the spliced chunks'.
    pub fn memory(&self) -> usize {
        self.flat.capacity() + self.spliced + self.splices.capacity() * size_of::<Splice>()
    }

    /// Gives memory back: the flat buffer keeps room for `capacity` bytes, or for what is pending.
    pub fn shrink(&mut self, capacity: usize) {
        if self.head > 0 {
            self.base += self.head as u64;
            self.flat.drain(..self.head);
            self.head = 0;
        }
        self.flat.shrink_to(capacity);
        self.splices.shrink_to(0);
    }
}

/// The pending bytes of an [`Output`] in order; see [`Output::chunks`].
#[derive(Debug)]
pub struct Chunks<'a> {
    output: &'a Output,
    flat: usize,
    splice: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let output = self.output;
        loop {
            let Some(next) = output.splices.get(self.splice) else {
                let rest = &output.flat[self.flat..];
                self.flat = output.flat.len();
                return (!rest.is_empty()).then_some(rest);
            };
            let at = (next.at - output.base) as usize;
            if self.flat < at {
                let piece = &output.flat[self.flat..at];
                self.flat = at;
                return Some(piece);
            }
            let skip = if self.splice == 0 {
                output.splice_head
            } else {
                0
            };
            self.splice += 1;
            let piece = &next.chunk.as_slice()[skip..];
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

/// Appends a request: its arguments as an array of strings.
pub fn request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    /// Bytes of a header at most, and of the end of an argument.
    const FRAME: usize = 25;
    let mut digits = itoa::Buffer::new();
    let mut header = |out: &mut Vec<u8>, kind: u8, n: usize| {
        let digit = |n: usize| b'0' + (n % 10) as u8;
        if n < 10 {
            return out.extend_from_slice(&[kind, digit(n), b'\r', b'\n']);
        }
        if n < 100 {
            return out.extend_from_slice(&[kind, digit(n / 10), digit(n), b'\r', b'\n']);
        }
        out.push(kind);
        out.extend_from_slice(digits.format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    let bytes: usize = args.iter().map(|arg| arg.as_ref().len() + FRAME).sum();
    out.reserve(bytes + FRAME);
    header(out, b'*', args.len());
    for arg in args {
        header(out, b'$', arg.as_ref().len());
        out.extend_from_slice(arg.as_ref());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
