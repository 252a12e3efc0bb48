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

use crate::base::number::parse_i64;
use crate::base::text::split_args;

mod error;
mod quick;
mod request;

pub use error::ProtocolError;
use quick::{quick_number, quick_request, split_plain};
pub use request::{Arg, Request};

/// Bulk arguments from this many bytes on are received into a buffer of their own.
pub const BIG_ARG: usize = 32 * 1024;

/// Longest line (in bytes) without an end that is tolerated in a request's framing.
const MAX_LINE: usize = 64 * 1024;

/// A big argument's vector grows by at least this many bytes, then by doubling.
const BIG_STEP: usize = 1024 * 1024;

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
    /// Bytes of the arguments of the current request that are complete.
    argument_bytes: usize,
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
            argument_bytes: 0,
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
            self.argument_bytes = 0;
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
            request.other_bytes = self.wire_bytes;
            self.undo_shift(request);
        }
        result
    }

    /// Parses a request that lies in the input as a whole and in the form in which we would write it,
    /// as nearly all do; false, with nothing done, leaves it to [`Parser::parse`].
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
        request.whole = *pos..end;
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

    /// What has come of the big argument that is being received.
    pub fn receiving(&self) -> Option<&Vec<u8>> {
        self.big.as_ref().map(|big| &big.data)
    }

    /// Bytes of a partial request that came; 0 between requests.
    pub fn partial_bytes(&self) -> usize {
        if self.missing == 0 {
            return 0;
        }
        let big = self.big.as_ref();
        let apart = big.map_or(0, |big| big.data.len() - big.through_input);
        usize::try_from(self.wire_bytes).unwrap_or(usize::MAX) + apart
    }

    /// Gives back room that was reserved for a big argument that does not come.
    pub fn give_back_room(&mut self) {
        if let Some(big) = &mut self.big {
            big.data.shrink_to_fit();
        }
    }

    /// Bytes of the arguments of the current request that are complete; 0 between requests.
    pub fn argument_bytes(&self) -> usize {
        if self.missing == 0 {
            return 0;
        }
        self.argument_bytes
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
            self.argument_bytes += len;
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
        self.argument_bytes += big.data.len();
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
        request.other_bytes = (*pos - first) as u64;
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

#[cfg(test)]
mod tests;
