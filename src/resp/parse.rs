//! The request parser: incremental, resumable, without allocation per command.
//!
//! A client's bytes lie in one input buffer that the network layer owns. [`Parser::parse`] walks
//! over it once: an argument is remembered as a range of that buffer, a header that has been read
//! is never read again when more bytes arrive, and the search for a line end resumes where it
//! stopped. A command of a million arguments that trickles in costs time linear in its length.
//!
//! Invariants:
//! - The bytes of a request, from [`Parser::start_of_request`] on, stay where they are until the
//!   request was executed, or else the caller tells with [`Parser::rebase`] how far they moved.
//! - A bulk of [`BIG_ARG`] bytes or more that is not yet wholly there goes into a vector of its own
//!   ([`Parser::big_target`]), so that it is neither copied twice nor kept in the input buffer.
//! - While a request is partial the caller passes the same [`Request`] to every call.
//!
//! The accepted language, its limits and error texts are those of Redis 7.0, tolerance included:
//! the byte after `\r` and the two bytes after a bulk are skipped unseen, and a NUL byte hides the
//! rest of the buffer from the search for a line end, so such a client is stuck until it has sent
//! so much that it is refused.
//!
//! What it never does: touch a socket, look at command names, or reserve memory for lengths that
//! are merely announced.

use std::fmt;

use crate::base::number::parse_i64;
use crate::base::text::split_args;

/// Bulk arguments from this many bytes on are received into a buffer of their own.
pub const BIG_ARG: usize = 32 * 1024;

/// Longest line (in bytes) without an end that is tolerated in a request's framing.
const MAX_LINE: usize = 64 * 1024;

/// Most arguments of a request that is read in one go.
const QUICK_ARGS: i64 = 1024;

/// A big argument's vector grows by at least this many bytes, then by doubling.
const BIG_STEP: usize = 1024 * 1024;

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
    /// Bytes the request took on the wire.
    pub wire_bytes: u64,
}

impl Request {
    /// Forgets the request, keeping the vectors for the next one.
    pub fn clear(&mut self) {
        self.args.clear();
        self.big.clear();
        self.wire_bytes = 0;
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

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`: longest bulk argument in bytes.
    pub max_bulk_len: u64,
    /// Most arguments of one request (`INT_MAX` in Redis 7.0).
    pub max_multibulk: i64,
    /// Longest inline request, or header line, whose end has not come yet; in bytes.
    pub max_inline: usize,
    /// False for a client that must still authenticate: it gets 10 arguments of 16 KiB at most.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_bulk_len: 512 * 1024 * 1024,
            max_multibulk: i64::from(i32::MAX),
            max_inline: MAX_LINE,
            authenticated: true,
        }
    }
}

/// What a call of [`Parser::parse`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A whole request is in the [`Request`].
    Complete,
    /// More input is needed.
    Incomplete,
    /// An empty request was consumed (empty line, `*0`, `*-1`): there is nothing to execute.
    Empty,
}

/// Why a request is refused; the connection is closed after the error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// An inline request without an end.
    TooBigInline,
    /// A quote is left open, or a closing quote is not followed by a space.
    UnbalancedQuotes,
    /// A `*` line without an end.
    TooBigMultibulkCount,
    /// The number of arguments is no number, or too big.
    InvalidMultibulkLength,
    /// Too many arguments for a client that has not authenticated.
    UnauthenticatedMultibulk,
    /// A `$` line without an end.
    TooBigBulkCount,
    /// Something else than `$` where a bulk should start.
    ExpectedDollar(u8),
    /// The length of a bulk is no number, negative, or too big.
    InvalidBulkLength,
    /// Too long a bulk for a client that has not authenticated.
    UnauthenticatedBulk,
}

impl ProtocolError {
    /// What the server's log calls the error.
    pub fn log_reason(self) -> &'static str {
        match self {
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in inline request",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::InvalidMultibulkLength => "invalid mbulk count",
            ProtocolError::UnauthenticatedMultibulk => "unauth mbulk count",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::ExpectedDollar(_) => "expected $ but got something else",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulk => "unauth bulk length",
        }
    }

    /// The text for the client, without an error code, as bytes: the offending byte of
    /// [`ProtocolError::ExpectedDollar`] is repeated as it came.
    pub fn message(self) -> Vec<u8> {
        let ProtocolError::ExpectedDollar(byte) = self else {
            return self.to_string().into_bytes();
        };
        let mut text = b"Protocol error: expected '$', got '".to_vec();
        text.push(byte);
        text.push(b'\'');
        text
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulk => "unauthenticated bulk length",
            ProtocolError::ExpectedDollar(byte) => {
                return write!(
                    f,
                    "Protocol error: expected '$', got '{}'",
                    char::from(*byte)
                );
            }
        };
        write!(f, "Protocol error: {text}")
    }
}

impl std::error::Error for ProtocolError {}

/// A bulk argument that is being received into a vector of its own.
#[derive(Debug)]
struct Receiving {
    data: Vec<u8>,
    /// Length of the bulk with the two bytes that end it.
    total: usize,
    /// How many of the bytes came through the input buffer.
    through_input: usize,
}

/// The state of one client's request stream between calls.
#[derive(Debug)]
pub struct Parser {
    /// Arguments of the current request that are still to come; 0 between requests.
    missing: usize,
    /// Length of the bulk whose header was read last, when its bytes are not complete.
    bulk_len: Option<usize>,
    big: Option<Receiving>,
    /// Bytes from the current position on that hold no line end.
    scanned: usize,
    /// A NUL byte lies before any line end: the line end cannot be found any more.
    hidden: bool,
    /// Where the request began, in the input buffer as it is now.
    start: usize,
    /// How far the input moved since the request began; its ranges still count from the old place.
    shift: usize,
    /// Bytes of the current request consumed so far.
    wire_bytes: u64,
}

impl Default for Parser {
    fn default() -> Self {
        Parser::new()
    }
}

/// The result of looking for a whole line.
enum Line {
    /// The line's end (index of the `\r` or `\n` byte searched for).
    End(usize),
    /// It is not there yet.
    Missing,
    /// It is not there, and more bytes than allowed are.
    TooLong,
}

impl Parser {
    /// A parser at the start of a stream.
    pub const fn new() -> Self {
        Parser {
            missing: 0,
            bulk_len: None,
            big: None,
            scanned: 0,
            hidden: false,
            start: 0,
            shift: 0,
            wire_bytes: 0,
        }
    }

    /// Parses one request from `input[*pos..]`, advancing `*pos` past what it consumed, which
    /// includes the headers and arguments of a partial request.
    ///
    /// A completed `request` is cleared by nobody but the caller's next call with it: its ranges
    /// stay valid while the parser goes on to further requests in the same input. After an error
    /// the stream cannot be resumed.
    pub fn parse(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Progress, ProtocolError> {
        if self.missing == 0 {
            if self.parse_quick(input, pos, limits, request) {
                return Ok(Progress::Complete);
            }
            self.start = *pos;
            self.shift = 0;
            self.wire_bytes = 0;
            match input.get(*pos) {
                None => return Ok(Progress::Incomplete),
                Some(b'*') => {}
                Some(_) => return self.parse_inline(input, pos, limits, request),
            }
            let Some(count) = self.multibulk_header(input, pos, limits)? else {
                return Ok(Progress::Incomplete);
            };
            if count == 0 {
                return Ok(Progress::Empty);
            }
            self.missing = count;
            self.wire_bytes = (*pos - self.start) as u64;
            // A number that is merely announced buys no memory.
            request.args.reserve(count.min(1024));
        }
        let before = *pos;
        let result = self.parse_bulks(input, pos, limits, request);
        self.wire_bytes += (*pos - before) as u64;
        if result == Ok(Progress::Complete) {
            request.wire_bytes = self.wire_bytes;
            self.undo_shift(request);
        }
        result
    }

    /// Parses a request that lies in the input as a whole and in its common form, as nearly all do;
    /// false, with nothing done, leaves it to [`Parser::parse`].
    #[inline(always)]
    pub fn parse_quick(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
        request: &mut Request,
    ) -> bool {
        if self.missing != 0 {
            return false;
        }
        request.clear();
        let Some(end) = quick_request(input, *pos, limits, &mut request.args) else {
            return false;
        };
        request.wire_bytes = (end - *pos) as u64;
        *pos = end;
        self.start = end;
        self.shift = 0;
        self.scanned = 0;
        true
    }

    /// The vector to read the socket into while a big argument is being received, and how many
    /// bytes it still takes (with the two that end it). `None` when the input buffer is the place.
    ///
    /// The vector has spare capacity for at least one byte, reserved in steps as data arrives, not
    /// at once for what the client announced. The caller appends at most that many bytes and calls
    /// [`Parser::parse`] again; bytes that come by way of the input buffer are taken as well.
    pub fn big_target(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let big = self.big.as_mut()?;
        let needed = big.total - big.data.len();
        if big.data.capacity() == big.data.len() {
            big.data
                .reserve_exact(needed.min(big.data.len().max(BIG_STEP)));
        }
        Some((&mut big.data, needed))
    }

    /// Tells that the first `dropped` bytes of the input were removed, so that the ranges of the
    /// partial request are found at their new place. Takes constant time.
    pub fn rebase(&mut self, dropped: usize) {
        self.start = self.start.saturating_sub(dropped);
        self.shift += dropped;
    }

    /// Index of the first input byte that the current request needs; between requests, where the
    /// last one ended.
    pub fn start_of_request(&self) -> usize {
        self.start
    }

    /// True when nothing of a request has been consumed.
    pub fn is_idle(&self) -> bool {
        self.missing == 0
    }

    /// Forgets a partial request.
    pub fn reset(&mut self) {
        *self = Parser::new();
    }

    /// Reads the `*` line: the number of arguments, 0 for an empty request.
    fn multibulk_header(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let count = match quick_number(input, *pos + 1) {
            Some((number, next)) => {
                self.line_done(pos, next);
                number
            }
            None => {
                let end = match self.find_line_end(input, *pos, b'\r', limits) {
                    Line::End(end) => end,
                    Line::Missing => return Ok(None),
                    Line::TooLong => return Err(ProtocolError::TooBigMultibulkCount),
                };
                let number = parse_i64(&input[*pos + 1..end])
                    .ok_or(ProtocolError::InvalidMultibulkLength)?;
                self.line_done(pos, end + 2);
                number
            }
        };
        if count > limits.max_multibulk {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > 10 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        if count <= 0 {
            self.start = *pos;
        }
        Ok(Some(usize::try_from(count).unwrap_or(0)))
    }

    fn parse_bulks(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Progress, ProtocolError> {
        while self.missing > 0 {
            if self.big.is_some() {
                if !self.receive_big(input, pos, request) {
                    return Ok(Progress::Incomplete);
                }
                continue;
            }
            let len = match self.bulk_len {
                Some(len) => len,
                None => match self.bulk_header(input, pos, limits)? {
                    Some(len) => len,
                    None => return Ok(Progress::Incomplete),
                },
            };
            if input.len() - *pos < len + 2 {
                if len >= BIG_ARG {
                    self.bulk_len = None;
                    self.big = Some(Receiving {
                        data: Vec::new(),
                        total: len + 2,
                        through_input: 0,
                    });
                    continue;
                }
                self.bulk_len = Some(len);
                return Ok(Progress::Incomplete);
            }
            let start = *pos + self.shift;
            let end = start + len;
            request.args.push(Arg::Range { start, end });
            *pos += len + 2;
            self.bulk_len = None;
            self.missing -= 1;
        }
        self.start = *pos;
        Ok(Progress::Complete)
    }

    /// Reads a `$` line: the length of the bulk that follows.
    #[inline]
    fn bulk_header(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let quick = match input.get(*pos) {
            Some(b'$') => quick_number(input, *pos + 1),
            _ => None,
        };
        let len = match quick {
            Some((number, next)) => {
                self.line_done(pos, next);
                number
            }
            None => {
                let end = match self.find_line_end(input, *pos, b'\r', limits) {
                    Line::End(end) => end,
                    Line::Missing => return Ok(None),
                    Line::TooLong => return Err(ProtocolError::TooBigBulkCount),
                };
                if input[*pos] != b'$' {
                    return Err(ProtocolError::ExpectedDollar(input[*pos]));
                }
                let number =
                    parse_i64(&input[*pos + 1..end]).ok_or(ProtocolError::InvalidBulkLength)?;
                self.line_done(pos, end + 2);
                number
            }
        };
        // Two bytes follow the bulk: a length that leaves no room for them is refused under any limit.
        let limit = limits.max_bulk_len.min(isize::MAX as u64 - 2);
        match u64::try_from(len) {
            Ok(len) if len <= limit => {
                if len > 16384 && !limits.authenticated {
                    return Err(ProtocolError::UnauthenticatedBulk);
                }
                Ok(Some(len as usize))
            }
            _ => Err(ProtocolError::InvalidBulkLength),
        }
    }

    /// Moves what the input has of a big argument to its vector. True when the argument is complete.
    fn receive_big(&mut self, input: &[u8], pos: &mut usize, request: &mut Request) -> bool {
        let big = self
            .big
            .as_mut()
            .expect("called while a big argument is received");
        let needed = big.total - big.data.len();
        let taken = &input[*pos..*pos + needed.min(input.len() - *pos)];
        if big.data.capacity() - big.data.len() < taken.len() {
            let step = needed.min(big.data.len().max(BIG_STEP)).max(taken.len());
            big.data.reserve_exact(step);
        }
        big.data.extend_from_slice(taken);
        big.through_input += taken.len();
        *pos += taken.len();
        if big.data.len() < big.total {
            return false;
        }
        let mut big = self.big.take().expect("it was there above");
        big.data.truncate(big.total - 2);
        self.wire_bytes += (big.total - big.through_input) as u64;
        request.args.push(Arg::Big(request.big.len()));
        request.big.push(big.data);
        self.missing -= 1;
        true
    }

    /// Moves the ranges of a completed request to where its bytes are now.
    fn undo_shift(&mut self, request: &mut Request) {
        if self.shift == 0 {
            return;
        }
        for arg in &mut request.args {
            if let Arg::Range { start, end } = arg {
                *start -= self.shift;
                *end -= self.shift;
            }
        }
        self.shift = 0;
    }

    fn parse_inline(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Progress, ProtocolError> {
        let newline = match self.find_line_end(input, *pos, b'\n', limits) {
            Line::End(end) => end,
            Line::Missing => return Ok(Progress::Incomplete),
            Line::TooLong => return Err(ProtocolError::TooBigInline),
        };
        let first = *pos;
        let line = &input[first..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if memchr::memchr2(b'"', b'\'', line).is_some() {
            for arg in split_args(line).ok_or(ProtocolError::UnbalancedQuotes)? {
                request.args.push(Arg::Big(request.big.len()));
                request.big.push(arg);
            }
        } else {
            split_plain(line, first, &mut request.args);
        }
        self.line_done(pos, newline + 1);
        self.start = *pos;
        request.wire_bytes = (*pos - first) as u64;
        if request.args.is_empty() {
            return Ok(Progress::Empty);
        }
        Ok(Progress::Complete)
    }

    /// Finds the end of the line at `pos`, looking only at bytes it has not looked at before.
    ///
    /// A line that ends in `\r` needs one more byte, whichever it is.
    fn find_line_end(&mut self, input: &[u8], pos: usize, end: u8, limits: &Limits) -> Line {
        let rest = &input[pos..];
        if !self.hidden {
            match memchr::memchr2(end, 0, &rest[self.scanned..]) {
                Some(offset) if rest[self.scanned + offset] == end => {
                    self.scanned += offset;
                    if end == b'\r' && self.scanned + 1 >= rest.len() {
                        return Line::Missing;
                    }
                    return Line::End(pos + self.scanned);
                }
                Some(_) => self.hidden = true,
                None => self.scanned = rest.len(),
            }
        }
        if rest.len() > limits.max_inline {
            return Line::TooLong;
        }
        Line::Missing
    }

    #[inline]
    fn line_done(&mut self, pos: &mut usize, next: usize) {
        *pos = next;
        self.scanned = 0;
    }
}

/// Reads a request that lies in the input as a whole and in its common form. Gives the index past
/// it; `None` leaves all else, errors included, to the general way, with `args` empty.
#[inline(always)]
fn quick_request(
    input: &[u8],
    start: usize,
    limits: &Limits,
    args: &mut Vec<Arg>,
) -> Option<usize> {
    if !limits.authenticated {
        return None;
    }
    let (count, mut at) = match short_line(input, start, b'*') {
        Some(read) => read,
        None if *input.get(start)? != b'*' => return None,
        None => quick_number(input, start + 1)?,
    };
    if !(1..=QUICK_ARGS).contains(&count) {
        return None;
    }
    args.reserve(count as usize);
    for _ in 0..count {
        let bulk = quick_bulk(input, at, limits);
        let Some((start, end)) = bulk else {
            args.clear();
            return None;
        };
        args.push(Arg::Range { start, end });
        at = end + 2;
    }
    Some(at)
}

/// The range of a bulk whose header stands at `at`, if all of it is there.
#[inline(always)]
fn quick_bulk(input: &[u8], at: usize, limits: &Limits) -> Option<(usize, usize)> {
    let (len, start) = match short_line(input, at, b'$') {
        Some(read) => read,
        None if *input.get(at)? != b'$' => return None,
        None => quick_number(input, at + 1)?,
    };
    let end = start + len as usize;
    (end + 2 <= input.len() && len as u64 <= limits.max_bulk_len).then_some((start, end))
}

/// Reads a header line of one or two digits, as nearly all are, at one go: the number and the index
/// past the line. `None` leaves all else to [`quick_number`], the last few bytes of the input
/// included.
#[inline(always)]
fn short_line(input: &[u8], at: usize, mark: u8) -> Option<(i64, usize)> {
    let word = u64::from_le_bytes(*input.get(at..)?.first_chunk()?);
    let (first, second) = ((word >> 8) as u8, (word >> 16) as u8);
    let (first, second) = (first.wrapping_sub(b'0'), second.wrapping_sub(b'0'));
    // Mark, a digit, CR, LF; or one more digit.
    if word & 0xffff_00ff == 0x0a0d_0000 | u64::from(mark) && first <= 9 {
        return Some((i64::from(first), at + 4));
    }
    let two = word & 0xff_ff00_00ff == 0x0a_0d00_0000 | u64::from(mark);
    (two && (1..=9).contains(&first) && second <= 9)
        .then(|| (i64::from(first) * 10 + i64::from(second), at + 5))
}

/// Reads the number of a header line in its common form: digits in canonical form, then `\r` and
/// one more byte. Gives the number and the index past the line; `None` leaves all else, errors
/// included, to the general way.
fn quick_number(input: &[u8], at: usize) -> Option<(i64, usize)> {
    let rest = input.get(at..)?;
    let mut number: i64 = 0;
    for (i, &byte) in rest.iter().enumerate().take(18) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let canonical = i == 1 || (i > 1 && rest[0] != b'0');
            return (byte == b'\r' && canonical && i + 1 < rest.len())
                .then_some((number, at + i + 2));
        }
        number = number * 10 + i64::from(digit);
    }
    None
}

/// Splits an inline request without quotes; the same as [`split_args`], but without copies.
fn split_plain(line: &[u8], offset: usize, args: &mut Vec<Arg>) {
    let mut at = 0;
    while at < line.len() {
        if matches!(line[at], b' ' | b'\t'..=b'\r') {
            at += 1;
            continue;
        }
        // Vertical tab and form feed are skipped before an argument but do not end one.
        let len = line[at..]
            .iter()
            .position(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'))
            .unwrap_or(line.len() - at);
        args.push(Arg::Range {
            start: offset + at,
            end: offset + at + len,
        });
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

    /// Feeds `bytes` in pieces as a connection does: drops executed bytes, reads big arguments directly.
    fn run(bytes: &[u8], limits: &Limits, pieces: &[usize]) -> Outcome {
        let (mut parser, mut request) = (Parser::new(), Request::default());
        let (mut input, mut pos, mut fed, mut got) = (Vec::new(), 0, 0, Vec::new());
        let mut pieces = pieces.iter().cycle();
        loop {
            loop {
                match parser.parse(&input, &mut pos, limits, &mut request) {
                    Ok(Progress::Complete) => {
                        let args = (0..request.len()).map(|i| request.arg(&input, i).to_vec());
                        got.push(args.collect());
                    }
                    Ok(Progress::Empty) => assert!(request.is_empty()),
                    Ok(Progress::Incomplete) => break,
                    Err(error) => return (got, Some(error)),
                }
            }
            let dropped = parser.start_of_request();
            input.drain(..dropped);
            pos -= dropped;
            parser.rebase(dropped);
            if fed == bytes.len() {
                return (got, None);
            }
            let piece = pieces.next().copied().unwrap_or(1).max(1);
            let more = &bytes[fed..(fed + piece).min(bytes.len())];
            fed += more.len();
            match parser.big_target() {
                Some((big, needed)) if piece % 2 == 0 => {
                    assert!(big.capacity() > big.len());
                    let (head, tail) = more.split_at(needed.min(more.len()));
                    big.extend_from_slice(head);
                    input.extend_from_slice(tail);
                }
                _ => input.extend_from_slice(more),
            }
        }
    }

    /// The same language, read in the plainest way from the whole of the bytes.
    fn naive(mut rest: &[u8], limits: &Limits) -> Outcome {
        let mut got = Vec::new();
        loop {
            if rest.first() != Some(&b'*') {
                let Some(end) = rest.iter().position(|&b| b == b'\n') else {
                    let long = rest.len() > limits.max_inline;
                    return (got, long.then_some(ProtocolError::TooBigInline));
                };
                if rest[..end].contains(&0) {
                    let long = rest.len() > limits.max_inline;
                    return (got, long.then_some(ProtocolError::TooBigInline));
                }
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                match split_args(line) {
                    None => return (got, Some(ProtocolError::UnbalancedQuotes)),
                    Some(args) if args.is_empty() => {}
                    Some(args) => got.push(args),
                }
                rest = &rest[end + 1..];
                continue;
            }
            match naive_multibulk(rest, limits) {
                Ok(Some((args, len))) => {
                    rest = &rest[len..];
                    if !args.is_empty() {
                        got.push(args);
                    }
                }
                Ok(None) => return (got, None),
                Err(error) => return (got, Some(error)),
            }
        }
    }

    type Multibulk = Option<(Vec<Vec<u8>>, usize)>;

    fn naive_multibulk(bytes: &[u8], limits: &Limits) -> Result<Multibulk, ProtocolError> {
        let line = |at: usize, error| {
            let rest = &bytes[at..];
            match rest.iter().position(|&b| b == b'\r' || b == 0) {
                Some(end) if rest[end] == b'\r' => Ok((end + 1 < rest.len()).then_some(at + end)),
                _ if rest.len() > limits.max_inline => Err(error),
                _ => Ok(None),
            }
        };
        let Some(end) = line(0, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(None);
        };
        let count = parse_i64(&bytes[1..end]).filter(|&n| n <= limits.max_multibulk);
        let count = count.ok_or(ProtocolError::InvalidMultibulkLength)?;
        if count > 10 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        let (mut at, mut args) = (end + 2, Vec::new());
        for _ in 0..count {
            let Some(end) = line(at, ProtocolError::TooBigBulkCount)? else {
                return Ok(None);
            };
            if bytes[at] != b'$' {
                return Err(ProtocolError::ExpectedDollar(bytes[at]));
            }
            let len = parse_i64(&bytes[at + 1..end])
                .filter(|&n| n >= 0 && n as u64 <= limits.max_bulk_len)
                .ok_or(ProtocolError::InvalidBulkLength)? as usize;
            if len > 16384 && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedBulk);
            }
            at = end + 2;
            if bytes.len() < at + len + 2 {
                return Ok(None);
            }
            args.push(bytes[at..at + len].to_vec());
            at += len + 2;
        }
        Ok(Some((args, at)))
    }

    #[track_caller]
    fn check(bytes: &[u8], args: &[&[&[u8]]], error: Option<&str>) {
        let limits = Limits::default();
        for pieces in [&[usize::MAX / 2][..], &[1], &[2, 3]] {
            let (got, refused) = run(bytes, &limits, pieces);
            let expected: Vec<Vec<Vec<u8>>> = args
                .iter()
                .map(|args| args.iter().map(|arg| arg.to_vec()).collect())
                .collect();
            assert_eq!(got, expected);
            assert_eq!(refused.map(|e| e.to_string()).as_deref(), error);
        }
        assert_eq!(
            run(bytes, &limits, &[usize::MAX / 2]),
            naive(bytes, &limits)
        );
    }

    #[test]
    fn parses_both_forms() {
        check(b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]], None);
        check(
            b"*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n",
            &[&[b"GET", b""], &[b"PING"]],
            None,
        );
        check(
            b"\r\n\n*0\r\n*-5\r\nset a  \"b\\n\"\n",
            &[&[b"set", b"a", b"b\n"]],
            None,
        );
        check(b"\x0bget a\x0bb\n", &[&[b"get", b"a\x0bb"]], None);
        check(
            b"*1xx\r\n",
            &[],
            Some("Protocol error: invalid multibulk length"),
        );
        check(
            b"*2147483648\r\n",
            &[],
            Some("Protocol error: invalid multibulk length"),
        );
        check(
            b"*01\r\n",
            &[],
            Some("Protocol error: invalid multibulk length"),
        );
        check(
            b"*\r\n",
            &[],
            Some("Protocol error: invalid multibulk length"),
        );
        check(
            b"*1\r\n$-1\r\n",
            &[],
            Some("Protocol error: invalid bulk length"),
        );
        check(
            b"*1\r\n$536870913\r\n",
            &[],
            Some("Protocol error: invalid bulk length"),
        );
        check(
            b"*1\r\n\r\nx",
            &[],
            Some("Protocol error: expected '$', got '\r'"),
        );
        check(
            b"*1\r\nfoo\r\n",
            &[],
            Some("Protocol error: expected '$', got 'f'"),
        );
        check(
            b"get \"a\r\n",
            &[],
            Some("Protocol error: unbalanced quotes in request"),
        );
        check(b"*1\r\n$1", &[], None);
        // The byte after CR and the two after a bulk may be anything.
        check(b"*1\rx$1\ryaZZPING\r\n", &[&[b"a"], &[b"PING"]], None);
    }

    #[test]
    fn lines_without_end_are_refused_in_time() {
        for (head, text) in [
            (&b"a"[..], "Protocol error: too big inline request"),
            (b"\0\n", "Protocol error: too big inline request"),
            (b"*", "Protocol error: too big mbulk count string"),
            (b"*\0\r\n", "Protocol error: too big mbulk count string"),
            (b"*1\r\n$", "Protocol error: too big bulk count string"),
            (
                b"*1\r\n$\0\r\n",
                "Protocol error: too big bulk count string",
            ),
        ] {
            let mut bytes = head.to_vec();
            bytes.resize(MAX_LINE, b'x');
            assert_eq!(run(&bytes, &Limits::default(), &[7777]).1, None);
            bytes.resize(MAX_LINE + 9, b'x');
            let error = run(&bytes, &Limits::default(), &[7777]).1;
            assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn strangers_get_little() {
        let limits = Limits {
            authenticated: false,
            ..Limits::default()
        };
        let error = |bytes: &[u8]| run(bytes, &limits, &[100]).1;
        assert_eq!(
            error(b"*11\r\n"),
            Some(ProtocolError::UnauthenticatedMultibulk)
        );
        assert_eq!(
            error(b"*10\r\n$16385\r\n"),
            Some(ProtocolError::UnauthenticatedBulk)
        );
        assert_eq!(error(b"*10\r\n$16384\r\n"), None);
        assert_eq!(
            ProtocolError::ExpectedDollar(0xff).message().last_chunk(),
            Some(b"'\xff'")
        );
    }

    /// Quadratic work would take minutes here.
    #[test]
    fn a_million_arguments_may_trickle_in() {
        const COUNT: usize = 1_000_000;
        let mut bytes = format!("*{COUNT}\r\n").into_bytes();
        bytes.extend_from_slice(&b"$1\r\na\r\n".repeat(COUNT));
        let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
        for fed in (0..bytes.len()).step_by(5) {
            let progress = parser.parse(&bytes[..fed], &mut pos, &Limits::default(), &mut request);
            assert_eq!(progress, Ok(Progress::Incomplete));
        }
        let progress = parser.parse(&bytes, &mut pos, &Limits::default(), &mut request);
        assert_eq!((progress, request.len()), (Ok(Progress::Complete), COUNT));
        assert_eq!(request.arg(&bytes, COUNT - 1), b"a");
    }

    #[test]
    fn a_partial_request_may_be_moved() {
        let bytes = b"PING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n";
        let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
        let limits = Limits::default();
        let mut parse = |parser: &mut Parser, input: &[u8], pos: &mut usize| {
            let progress = parser.parse(input, pos, &limits, &mut request);
            let args = (0..request.len()).filter(|_| progress == Ok(Progress::Complete));
            args.map(|i| request.arg(input, i).to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(parse(&mut parser, &bytes[..30], &mut pos), [b"PING"]);
        assert!(parse(&mut parser, &bytes[..30], &mut pos).is_empty());
        assert_eq!(parser.start_of_request(), 6);
        parser.rebase(6);
        pos -= 6;
        let args = parse(&mut parser, &bytes[6..], &mut pos);
        assert_eq!(args, [&b"SET"[..], b"k", b"vv"]);
        assert!(parser.is_idle());
    }

    #[test]
    fn big_arguments_reserve_what_arrives() {
        let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
        let limits = Limits::default();
        let input = b"*2\r\n$1\r\na\r\n$500000000\r\nxyz";
        let progress = parser.parse(input, &mut pos, &limits, &mut request);
        assert_eq!((progress, pos), (Ok(Progress::Incomplete), input.len()));
        assert!(!parser.is_idle());
        let (big, needed) = parser.big_target().expect("a big argument is on its way");
        assert_eq!((big.len(), needed), (3, 499_999_999));
        assert!(big.capacity() <= BIG_STEP + 3);
    }

    #[test]
    fn completed_requests_stay_valid_and_count_their_bytes() {
        let mut bytes =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING x\r\n*2\r\n$1\r\nb\r\n$40000\r\n".to_vec();
        bytes.resize(bytes.len() + 40_000, b'v');
        bytes.extend_from_slice(b"\r\n");
        let (mut parser, mut pos, limits) = (Parser::new(), 0, Limits::default());
        let mut requests = [Request::default(), Request::default(), Request::default()];
        for request in &mut requests {
            let progress = parser.parse(&bytes, &mut pos, &limits, request);
            assert_eq!(progress, Ok(Progress::Complete));
        }
        assert_eq!(requests[0].arg(&bytes, 1), b"a");
        assert_eq!(requests[1].arg(&bytes, 1), b"x");
        assert_eq!(requests[2].arg(&bytes, 1).len(), 40_000);
        let sum: u64 = requests.iter().map(|request| request.wire_bytes).sum();
        assert_eq!(sum, bytes.len() as u64);

        let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
        let third = &bytes[bytes.len() - requests[2].wire_bytes as usize..];
        let (head, tail) = third.split_at(100);
        parser
            .parse(head, &mut pos, &limits, &mut request)
            .expect("well formed");
        let (big, needed) = parser.big_target().expect("the value is big");
        assert_eq!(needed, tail.len());
        big.extend_from_slice(tail);
        let progress = parser.parse(head, &mut pos, &limits, &mut request);
        assert_eq!(progress, Ok(Progress::Complete));
        assert_eq!(request.wire_bytes, third.len() as u64);
        assert_eq!(request.take_big(1).map(|big| big.len()), Some(40_000));
    }

    /// Bytes that are mostly requests, sometimes broken ones.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let arg = prop_oneof![
            8 => proptest::collection::vec(any::<u8>(), 0..20),
            1 => Just(vec![b'B'; BIG_ARG]),
        ];
        let multibulk = proptest::collection::vec(arg, 0..12).prop_map(|args| {
            let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
            for arg in args {
                bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                bytes.extend_from_slice(&arg);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes
        });
        let request = prop_oneof![
            6 => multibulk,
            2 => "[ a-c\"'\\\\x0\t\x0b]{0,12}\r?\n".prop_map(String::into_bytes),
            1 => "[*$0-9\r\n\0-]{1,8}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(request, 0..6).prop_map(|requests| requests.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_gives_the_same_requests(
            bytes in streams(),
            pieces in proptest::collection::vec(prop_oneof![1usize..9, 1000usize..50_000], 1..8),
            authenticated in any::<bool>(),
        ) {
            let limits = Limits { authenticated, ..Limits::default() };
            prop_assert_eq!(run(&bytes, &limits, &pieces), naive(&bytes, &limits));
        }
    }
}
