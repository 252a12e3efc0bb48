//! The reply side of one client: an encoder into a chain of chunks, with big values spliced in.
//!
//! Commands call [`Output::ok`], [`Output::int`], [`Output::bulk`] and so on; the protocol version
//! decides the bytes. Nearly everything lands in one buffer that is reused for the life of the
//! connection; what it has no room for waits in chunks that are given back as they are written
//! ([`chain`]). A value of [`SHARED_MIN`] bytes or more can be appended without a copy.
//!
//! What it never does: write to a socket, or decide whether a client may be answered.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::long_double::LongDouble;
use crate::base::meter::Meter;
use crate::base::number::format_g17;

mod chain;

pub use chain::{Beyond, Deferred, Limit, Mark, give_back_spare};
use chain::{Chain, Value};

/// Values of at least this many bytes are worth a splice instead of a copy.
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

/// The protocol version a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2: what every client starts with.
    #[default]
    Resp2,
    /// RESP3: after `HELLO 3`.
    Resp3,
}

/// The replies of one client that were not written to its socket yet.
#[derive(Default)]
pub struct Output {
    chain: Chain,
    protocol: Protocol,
}

impl Output {
    /// An empty output in RESP2.
    pub fn new() -> Self {
        Output::default()
    }

    /// An empty output in RESP2 with a buffer of so many bytes, which counts as used at first, and the
    /// meter that counts what is beyond it.
    pub fn with_buffer(bytes: usize, meter: Arc<Meter>) -> Self {
        let mut out = Output::default();
        out.chain.set_own_size(bytes);
        out.chain.fill_peak();
        out.chain.set_meter(meter);
        out
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

    /// True when replies are encoded in RESP3.
    #[inline]
    pub fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    // Simple replies.

    /// `+OK`
    #[inline]
    pub fn ok(&mut self) {
        self.chain.put(b"+OK\r\n");
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
        self.chain.put(b"-");
        for part in line.split_inclusive(|b| is_end(b)) {
            match part.split_last() {
                Some((last, rest)) if is_end(last) => {
                    self.chain.put(rest);
                    self.chain.put(b" ");
                }
                _ => self.chain.put(part),
            }
        }
        self.chain.put(b"\r\n");
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
        self.header(b'$', data.len() as u64);
        self.chain.put(data);
        self.chain.put(b"\r\n");
    }

    /// A bulk string whose bytes are shared, not copied, from [`SHARED_MIN`] bytes on.
    pub fn bulk_shared(&mut self, data: Arc<Vec<u8>>) {
        if data.len() < SHARED_MIN {
            return self.bulk(&data);
        }
        self.header(b'$', data.len() as u64);
        self.chain.splice(Value::Shared(data));
        self.chain.put(b"\r\n");
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
        self.chain.put(text);
    }

    /// No array: `*-1` in RESP2, `_` in RESP3.
    pub fn null_array(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.chain.put(text);
    }

    /// A truth value; an integer in RESP2.
    pub fn bool(&mut self, value: bool) {
        self.chain.put(match (self.protocol, value) {
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
    /// would fill chunks is handed over instead.
    pub fn verbatim(&mut self, format: &str, text: Vec<u8>) {
        if self.resp3() {
            let mut tag = [b' '; 3];
            for (to, from) in tag.iter_mut().zip(format.bytes()) {
                *to = from;
            }
            self.header(b'=', text.len() as u64 + 4);
            self.chain.put(&tag);
            self.chain.put(b":");
        } else {
            self.header(b'$', text.len() as u64);
        }
        if text.len() < TEXT_MIN {
            self.chain.put(&text);
        } else {
            self.chain.splice(Value::Bytes(text.into()));
        }
        self.chain.put(b"\r\n");
    }

    /// Bytes that are already encoded.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.chain.put(encoded);
    }

    /// Already encoded bytes that are shared with other clients (a pushed message).
    pub fn append_bytes(&mut self, encoded: Bytes) {
        if encoded.len() < SHARED_MIN {
            self.chain.put(&encoded);
        } else {
            self.chain.splice(Value::Bytes(encoded));
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
        self.chain.deferred()
    }

    /// Ends `deferred` as an array of `len` elements.
    pub fn end_array(&mut self, deferred: Deferred, len: usize) {
        self.end_deferred(&deferred, b'*', len as u64);
    }

    /// Ends `deferred` as a map of `pairs` keys with their values.
    pub fn end_map(&mut self, deferred: Deferred, pairs: usize) {
        let (kind, len) = self.map_header(pairs);
        self.end_deferred(&deferred, kind, len);
    }

    /// Ends `deferred` as a set of `len` elements.
    pub fn end_set(&mut self, deferred: Deferred, len: usize) {
        let kind = self.kind(b'~');
        self.end_deferred(&deferred, kind, len as u64);
    }

    /// Ends `deferred` as a pushed message of `len` elements.
    pub fn end_push(&mut self, deferred: Deferred, len: usize) {
        let kind = self.kind(b'>');
        self.end_deferred(&deferred, kind, len as u64);
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
            0..=9 => self.chain.put(&[kind, b'0' + number as u8, b'\r', b'\n']),
            10..=99 => {
                let (tens, ones) = (number as u8 / 10, number as u8 % 10);
                self.chain
                    .put(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
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
            self.chain.put_line(line, LONGEST_LINE - start);
        }
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.chain.put(&[kind]);
        self.chain.put(text);
        self.chain.put(b"\r\n");
    }

    fn end_deferred(&mut self, deferred: &Deferred, kind: u8, len: u64) {
        self.chain.end_deferred(deferred, kind, len);
    }

    // The way out.

    /// Bytes that are not written yet.
    #[inline]
    pub fn len_pending(&self) -> usize {
        self.chain.len_pending()
    }

    /// True when everything is written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len_pending() == 0
    }

    /// Fills `slices` with the first pending pieces; gives how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(self.chain.pieces()) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// All pending bytes in one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len_pending());
        self.chain.pieces().for_each(|p| all.extend_from_slice(p));
        all
    }

    /// Tells that the first `written` pending bytes were written.
    ///
    /// # Panics
    /// When that is more than [`Output::len_pending`].
    pub fn advance(&mut self, written: usize) {
        self.chain.advance(written);
    }

    /// The present end of the output, for [`Output::truncate_to`].
    #[inline]
    pub fn mark(&self) -> Mark {
        self.chain.mark()
    }

    /// Drops what was appended since `mark`, as far as it is not written yet.
    pub fn truncate_to(&mut self, mark: Mark) {
        self.chain.truncate_to(mark);
    }

    /// Drops what is appended until [`Output::unmute`], as it comes.
    pub fn mute(&mut self) {
        self.chain.mute();
    }

    /// Ends [`Output::mute`].
    pub fn unmute(&mut self) {
        self.chain.unmute();
    }

    /// Drops everything that is pending.
    pub fn clear(&mut self) {
        self.chain.clear();
    }

    // Limits and figures.

    /// Sets how much may wait from now on.
    #[inline]
    pub fn set_limit(&mut self, limit: Limit) {
        self.chain.set_limit(limit);
    }

    /// True once more waited than may: everything was dropped, so is what comes, and the client is to
    /// be closed. A reply that may be of any length may stop.
    #[inline]
    pub fn has_overflowed(&self) -> bool {
        self.chain.has_overflowed()
    }

    /// True when something waits beyond the buffer, or did when there was too much of it.
    #[inline]
    pub fn is_beyond_buffer(&self) -> bool {
        self.chain.held() > 0 || self.chain.has_overflowed()
    }

    /// As [`Output::has_overflowed`], with the soft limit as of `now_ms` (Unix milliseconds).
    pub fn overflows_at(&mut self, now_ms: i64) -> bool {
        self.chain.heed_limit_at(|| now_ms)
    }

    /// What waits beyond the buffer.
    pub fn beyond(&mut self) -> Beyond {
        self.chain.beyond()
    }

    /// Bytes of the buffer in use, written ones included until all of it is written, and the most that
    /// were in use since [`Output::reset_peak`].
    pub fn buffer_use(&mut self) -> (usize, usize) {
        self.chain.own_use()
    }

    /// Forgets how much of the buffer was in use at most.
    pub fn reset_peak(&mut self) {
        self.chain.reset_peak();
    }

    /// Bytes of the buffer.
    pub fn buffer_size(&self) -> usize {
        self.chain.own_size()
    }

    /// Changes the size of the buffer, when what it holds allows it.
    pub fn set_buffer_size(&mut self, bytes: usize) {
        self.chain.set_own_size(bytes);
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
