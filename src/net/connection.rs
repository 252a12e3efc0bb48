//! One client's connection: its socket, its buffers, and the requests parsed from them.
//!
//! Input is read into a vector that is borrowed from the worker's pool while the connection has
//! unparsed bytes, so idle connections hold no input buffer; of a worker with few connections
//! each keeps its own until it has been idle for a while. Requests are ranges of it and stay
//! valid until they were executed. Big arguments are read into vectors of their own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::client::registry::{Class, flag};
use crate::client::session::Session;
use crate::config::Settings;
use crate::dispatch::blocking::Parked;
use crate::dispatch::context::Status;
use crate::dispatch::job::Running;
use crate::observe::stats::Global;
use crate::resp::parse::{Arg, Limits, Parser, Progress, ProtocolError, Request};
use crate::resp::write::{Limit, Output};
use crate::wire::Stream;

/// Bytes read at once, and the capacity of a pooled input buffer.
///
/// A little less than 32 KiB, from which on Redis would call a query buffer big.
pub const READ_SIZE: usize = 32 * 1024 - 64;
/// Size of a reply buffer at first, and at most, in bytes. What it has no room for counts against
/// `client-output-buffer-limit`.
const REPLY_BUFFER: usize = 16 * 1024;
/// Size of a reply buffer at least, in bytes.
const REPLY_BUFFER_MIN: usize = 1024;
/// Most output beyond the reply buffer that may wait for a client that has not authenticated.
const UNAUTHENTICATED_OUTPUT: usize = 1024;
/// An input buffer is given back after this time without a request, in milliseconds.
const IDLE_MS: i64 = 2000;
/// Bytes of a big argument read from one client in a turn before others get theirs.
const MAX_READ: usize = 1 << 20;
/// Slices written at once.
const MAX_SLICES: usize = 64;
/// Bytes written to one client in a turn before others get theirs.
const MAX_WRITE: usize = 1 << 20;

/// One client's connection.
pub struct Connection {
    stream: Stream,
    /// The client's state.
    pub session: Session,
    /// Replies not yet written.
    pub out: Output,
    /// Received bytes; requests are ranges of it.
    pub input: Vec<u8>,
    position: usize,
    parser: Parser,
    /// The request that is being received.
    partial: Request,
    /// A request that waits for the end of CLIENT PAUSE, as its own copy.
    pub parked: Option<Vec<Vec<u8>>>,
    /// A command that goes on in slices.
    pub job: Option<Running>,
    /// A command that waits for keys, or for another thread.
    pub blocked: Option<Arc<Parked>>,
    /// Requests that were parsed behind the parked one, the job or the wait.
    pub backlog: Backlog,
    /// The stream is broken: the error to answer once everything before it is.
    pub broken: Option<ProtocolError>,
    /// A big argument came since the input buffer was last emptied.
    pub bulky: bool,
    /// Replies wait until the stream is on the disk up to here.
    pub held_until: Option<u64>,
    /// The driver knows its socket.
    pub is_watched: bool,
    /// Requests served since the last [`Connection::publish`].
    pub served: u64,
    /// Bytes came or went since then.
    moved: bool,
    /// The peer sends no more.
    pub ended: bool,
    /// Output waits for room in the socket.
    pub wants_write: bool,
    /// Input is read: until it ended.
    pub reads: bool,
    /// In the worker's list of connections to look at.
    pub listed: bool,
    /// In the worker's list of those with input that no socket will report.
    pub is_buffered: bool,
    /// Bytes of memory beside the output's, as the client's meter has them.
    metered: usize,
    /// When the most that was used of the reply buffer was last forgotten, in Unix milliseconds.
    peak_since: i64,
}

/// Requests that wait for their turn, as copies.
#[derive(Default)]
pub struct Backlog {
    requests: VecDeque<Vec<Vec<u8>>>,
    /// Bytes they took on the wire.
    wire_bytes: usize,
    /// Bytes of memory they take.
    memory: usize,
}

impl Backlog {
    /// Adds a request.
    pub fn push(&mut self, request: Vec<Vec<u8>>) {
        let (wire_bytes, memory) = Self::sizes(&request);
        self.wire_bytes += wire_bytes;
        self.memory += memory;
        self.requests.push_back(request);
    }

    /// Takes the oldest request.
    pub fn pop(&mut self) -> Option<Vec<Vec<u8>>> {
        let request = self.requests.pop_front()?;
        let (wire_bytes, memory) = Self::sizes(&request);
        self.wire_bytes -= wire_bytes;
        self.memory -= memory;
        Some(request)
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes of a request on the wire, and in memory.
    fn sizes(request: &[Vec<u8>]) -> (usize, usize) {
        // A type byte, digits, the ends of two lines.
        let framed = |len: usize| 5 + len.checked_ilog10().unwrap_or(0) as usize + 1;
        let wire = request.iter().map(|arg| framed(arg.len()) + arg.len());
        let memory = request.iter().map(|arg| arg.capacity());
        (
            wire.sum::<usize>() + framed(request.len()) - 2,
            memory.sum::<usize>() + size_of_val(request),
        )
    }
}

/// Why a connection is closed.
#[derive(Debug)]
pub enum Closed {
    /// The peer closed it, or it failed.
    Peer(Option<io::Error>),
    /// The query buffer is over its limit.
    QueryLimit,
}

impl Connection {
    /// A client's connection.
    pub fn new(stream: Stream, session: Session) -> Self {
        let out = Output::with_buffer(REPLY_BUFFER, Arc::clone(&session.handle.memory));
        Self {
            stream,
            session,
            out,
            input: Vec::new(),
            position: 0,
            parser: Parser::new(),
            partial: Request::default(),
            parked: None,
            bulky: false,
            job: None,
            blocked: None,
            held_until: None,
            is_watched: true,
            backlog: Backlog::default(),
            broken: None,
            served: 0,
            moved: false,
            ended: false,
            wants_write: false,
            reads: true,
            listed: false,
            is_buffered: false,
            metered: 0,
            peak_since: 0,
        }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd()
    }

    /// True when there is more to read than the socket will report.
    #[inline]
    pub fn has_unread(&self) -> bool {
        self.stream.has_unread() && !self.ended
    }

    /// True when all that was to be sent is out of our hands.
    #[inline]
    pub fn has_sent_all(&self) -> bool {
        self.out.is_empty() && !self.stream.has_unsent()
    }

    /// Reads once; true when bytes came. An end of input is remembered in `ended`.
    pub fn read(&mut self, pool: &mut Vec<Vec<u8>>, settings: &Settings) -> Result<usize, Closed> {
        // A big argument goes elsewhere, so the input stays where it is: requests of this wave
        // may be ranges of it. What comes behind it waits in the input.
        if !self.expects_big() {
            self.compact();
        }
        let result = match self.parser.big_target() {
            Some((buffer, needed)) if needed > 0 => read_big(&mut self.stream, buffer, needed),
            _ => {
                if self.input.capacity() == 0 {
                    self.input = pool.pop().unwrap_or_else(|| Vec::with_capacity(READ_SIZE));
                } else if self.input.capacity() - self.input.len() < READ_SIZE / 2 {
                    self.input.reserve(READ_SIZE);
                }
                self.stream.read(&mut self.input)
            }
        };
        match result {
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(n) => {
                self.moved = true;
                let (unparsed, room) = self.query();
                let live = &self.session.handle.live;
                live.query_len.store(unparsed, Relaxed);
                live.query_free.store(room, Relaxed);
                if unparsed > settings.client_query_buffer_limit {
                    return Err(Closed::QueryLimit);
                }
                Ok(n)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
                _ => Err(Closed::Peer(Some(error))),
            },
        }
    }

    /// True while more of a big argument has to come.
    pub fn expects_big(&mut self) -> bool {
        self.parser
            .big_target()
            .is_some_and(|(_, needed)| needed > 0)
    }

    /// Bytes that came and are not parsed or wait for their turn, and room for more.
    fn query(&self) -> (usize, usize) {
        let (received, room) = match self.parser.receiving() {
            Some(data) => (data.len(), data.capacity() - data.len()),
            None => (0, 0),
        };
        // Behind a request that waits, what was parsed ahead of its turn waits as well.
        let partial = match self.is_occupied() {
            true => self.parser.partial_bytes(),
            false => received,
        };
        let unparsed = self.input.len() - self.position + self.backlog.wire_bytes + partial;
        let kept = self.input.len() - self.start();
        (unparsed, self.input.capacity() - kept + room)
    }

    /// Bytes of the arguments of a request that is being received, or waits or goes on.
    fn argument_bytes(&self) -> usize {
        let sum = |args: &[Vec<u8>]| args.iter().map(Vec::len).sum::<usize>();
        let parked = self.parked.as_deref().map_or(0, sum);
        let blocked = self.blocked.as_deref().map_or(0, |p| sum(p.request()));
        let job = self.job.as_ref().map_or(0, |job| sum(&job.args));
        let partial = match self.is_occupied() {
            true => 0,
            false => self.parser.argument_bytes(),
        };
        partial + parked + blocked + job
    }

    /// Index of the first byte of the input that is still needed, between batches.
    fn start(&self) -> usize {
        match self.parser.is_idle() {
            true => self.position,
            false => self.parser.start_of_request(),
        }
    }

    /// Moves what is not parsed yet to the front of the buffer. Only between batches: requests
    /// that were parsed but not executed are ranges of it.
    fn compact(&mut self) {
        let start = self.start();
        if start == 0 {
            return;
        }
        self.input.drain(..start);
        self.position -= start;
        self.parser.rebase(start);
    }

    /// What its client may send.
    pub fn limits(&self, settings: &Settings) -> Limits {
        Limits {
            max_bulk_len: settings.proto_max_bulk_len as u64,
            authenticated: self.session.identity.authenticated,
            ..Limits::default()
        }
    }

    /// As [`Connection::parse`], for a request that has come as a whole and in its common form; false
    /// leaves all else to that.
    #[inline(always)]
    pub fn parse_quick(&mut self, limits: &Limits, request: &mut Request) -> bool {
        let (parser, position) = (&mut self.parser, &mut self.position);
        parser.parse_quick(&self.input, position, limits, request)
    }

    /// Parses the next request into `request`; false when there is none yet.
    pub fn parse(
        &mut self,
        settings: &Settings,
        request: &mut Request,
    ) -> Result<bool, ProtocolError> {
        let limits = self.limits(settings);
        if !self.parser.is_idle() {
            std::mem::swap(&mut self.partial, request);
            self.partial.clear();
        }
        loop {
            let progress = self
                .parser
                .parse(&self.input, &mut self.position, &limits, request)?;
            match progress {
                Progress::Complete => return Ok(true),
                Progress::Empty => {}
                Progress::Incomplete => {
                    if !self.parser.is_idle() {
                        std::mem::swap(&mut self.partial, request);
                    }
                    return Ok(false);
                }
            }
        }
    }

    /// Takes the connection apart for a replica: its session, its stream, what is to be written,
    /// and what was received behind the request.
    pub fn into_parts(mut self) -> (Session, Stream, Vec<u8>, Vec<u8>) {
        let mut input = Output::new();
        for request in &self.backlog.requests {
            input.array(request.len());
            request.iter().for_each(|arg| input.bulk(arg));
        }
        let mut input = input.to_vec();
        input.extend_from_slice(&self.input[self.position..]);
        let unsent = self.out.to_vec();
        self.end_memory();
        (self.session, self.stream, unsent, input)
    }

    /// Drops what is not sent, and counts nothing any more: before the connection goes.
    pub fn end_memory(&mut self) {
        self.out.clear();
        self.session.handle.memory.end();
    }

    /// True when its replies wait for the disk and half a read buffer of further requests has come: it is
    /// not read until they have left, so that what clients send meanwhile is bounded by what their
    /// sockets hold.
    pub fn is_sated(&self) -> bool {
        self.held_until.is_some() && self.query().0 >= READ_SIZE / 2
    }

    /// True while requests have to wait for one that is parked, waits or goes on in slices.
    pub fn is_occupied(&self) -> bool {
        self.parked.is_some()
            || self.job.is_some()
            || self.blocked.is_some()
            || self.held_until.is_some()
            || self.session.sync.is_some()
    }

    /// Gives the input buffer back when everything in it was served, or empties it and `keep`s it
    /// for the next request.
    pub fn release_input(&mut self, pool: &mut Vec<Vec<u8>>, keep: bool) {
        let idle = self.parser.is_idle() && self.position == self.input.len();
        if idle && self.input.capacity() > 0 {
            self.position = 0;
            // A client that sends big arguments gets a bigger buffer, hence fewer reads, as long
            // as it does.
            let wanted = if self.bulky { 2 * READ_SIZE } else { READ_SIZE };
            self.bulky = false;
            if keep && self.input.capacity() <= 2 * READ_SIZE {
                let quiet = self.input.len() < READ_SIZE / 2;
                let capacity = self.input.capacity();
                self.input.clear();
                if capacity < wanted || (capacity > wanted && quiet) {
                    self.input = Vec::with_capacity(wanted);
                }
                return;
            }
            let mut buffer = std::mem::take(&mut self.input);
            if buffer.capacity() <= 2 * READ_SIZE && pool.len() < 64 {
                buffer.clear();
                pool.push(buffer);
            }
        }
    }

    /// What came and was not parsed yet.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.position.min(self.input.len())..]
    }

    /// True when something waits to be sent that tells of data: a reply, or what others pushed.
    pub fn tells(&self) -> bool {
        self.session.tells || !self.session.handle.mailbox.is_empty()
    }

    /// Moves pushed bytes from the mailbox to the output.
    pub fn take_mail(&mut self) {
        for message in self.session.handle.mailbox.take() {
            self.out.append_bytes(message);
        }
    }

    /// True while a command waits for another thread: nothing is sent, and the client need not stay.
    pub fn awaits_chore(&self) -> bool {
        self.blocked.as_ref().is_some_and(|b| b.is_for_chore())
    }

    /// Writes what the socket takes; false when the connection is broken.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut total = 0;
        self.stream.flush()?;
        while !self.out.is_empty() && total < MAX_WRITE {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.out.io_slices(&mut slices);
            match self.stream.write(&slices[..count]) {
                Ok(written) => {
                    self.moved = true;
                    total += written;
                    self.out.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Has the output follow the row of `client-output-buffer-limit` that concerns this client, or what
    /// a client may leave waiting before it has authenticated.
    #[inline]
    pub fn follow_limit(&mut self, settings: &Settings) {
        let class = match self.session.handle.class() {
            Class::Normal | Class::Primary => 0,
            Class::Replica => 1,
            Class::PubSub => 2,
        };
        let row = settings.client_output_buffer_limit[class];
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut limit = Limit {
            hard: bytes(row.hard_bytes),
            soft: bytes(row.soft_bytes),
            soft_ms: i64::from(row.soft_seconds) * 1000,
        };
        if self.session.identity.owes_password() {
            limit.hard = UNAUTHENTICATED_OUTPUT + 1;
        }
        self.out.set_limit(limit);
        let live = &self.session.handle.live;
        live.output_limit.store(limit.hard, Relaxed);
    }

    /// True when more output waits than may, what is on its way to the output included: the client
    /// is to be closed.
    pub fn over_output_limit(&mut self, settings: &Settings, now_ms: i64) -> bool {
        self.follow_limit(settings);
        self.out.overflows_at(now_ms) || self.session.handle.has_overflowed()
    }

    /// Publishes what CLIENT LIST shows of this connection, and counts its memory.
    pub fn publish(&mut self, now_ms: i64, served: u64) {
        self.session.publish();
        let live = &self.session.handle.live;
        if std::mem::take(&mut self.moved) || served > 0 {
            live.last_ms.store(now_ms, Relaxed);
        }
        if served > 0 {
            live.commands
                .store(live.commands.load(Relaxed) + served, Relaxed);
        }
        let blocked = self.blocked.is_some() && !self.awaits_chore();
        if self.parked.is_some() || blocked {
            live.flags.fetch_or(flag::BLOCKED, Relaxed);
        } else {
            live.flags.fetch_and(!flag::BLOCKED, Relaxed);
        }
        let (unparsed, room) = self.query();
        live.query_len.store(unparsed, Relaxed);
        live.query_free.store(room, Relaxed);
        let arguments = self.argument_bytes();
        live.argv_memory.store(arguments, Relaxed);
        self.publish_output();
        self.count_memory(arguments);
    }

    fn publish_output(&mut self) {
        let live = &self.session.handle.live;
        let (used, peak) = self.out.buffer_use();
        let beyond = self.out.beyond();
        live.reply_size.store(self.out.buffer_size(), Relaxed);
        live.reply_peak.store(peak, Relaxed);
        live.reply_len.store(used, Relaxed);
        live.output_len.store(self.out.len_pending(), Relaxed);
        live.output_chunks.store(beyond.blocks, Relaxed);
        live.output_memory.store(beyond.memory, Relaxed);
    }

    /// Tells the client's meter what it takes beside its output beyond the reply buffer, which counts
    /// itself as it grows.
    fn count_memory(&mut self, arguments: usize) {
        let receiving = self.parser.receiving().map_or(0, Vec::capacity);
        let complete: usize = self.partial.big.iter().map(Vec::capacity).sum();
        let now = size_of::<Self>()
            + self.input.capacity()
            + receiving
            + arguments.max(complete)
            + self.partial.args.len() * size_of::<Arg>()
            + self.backlog.memory
            + self.out.buffer_size()
            + self.session.handle.mailbox.len()
            + self.session.memory();
        let meter = &self.session.handle.memory;
        meter.set_exempt(self.session.no_evict);
        let before = std::mem::replace(&mut self.metered, now);
        match now.checked_sub(before) {
            Some(more) => meter.grow(more),
            None => meter.shrink(before - now),
        }
    }

    /// Gives back what an idle connection does not need: the room of its input, and the reply buffer
    /// down to what was used of it lately; one that was too small is made bigger.
    pub fn tidy(&mut self, status: &Status, stats: &Global, now_ms: i64) {
        let idle = now_ms - self.session.handle.live.last_ms.load(Relaxed);
        if idle > IDLE_MS {
            self.compact();
            self.input.shrink_to_fit();
            self.parser.give_back_room();
        }
        if !status.reply_resizing.load(Relaxed) {
            return;
        }
        self.resize_reply_buffer(stats);
        let reset_ms = status.reply_peak_reset_ms.load(Relaxed);
        if reset_ms >= 0 && now_ms - self.peak_since >= reset_ms {
            self.out.reset_peak();
            self.peak_since = now_ms;
        }
    }

    fn resize_reply_buffer(&mut self, stats: &Global) {
        let (size, (_, peak)) = (self.out.buffer_size(), self.out.buffer_use());
        if size / 2 >= REPLY_BUFFER_MIN && peak < size / 2 {
            self.out.set_buffer_size((peak + 1).max(REPLY_BUFFER_MIN));
            stats.reply_buffer_shrinks.fetch_add(1, Relaxed);
        } else if size < REPLY_BUFFER && peak == size {
            self.out.set_buffer_size((2 * size).min(REPLY_BUFFER));
            stats.reply_buffer_expands.fetch_add(1, Relaxed);
        }
    }
}

/// Reads a big argument on: as much of it as there is, so that it does not take a turn for each
/// piece, up to a share of the turn.
fn read_big(stream: &mut Stream, buffer: &mut Vec<u8>, needed: usize) -> io::Result<usize> {
    let share = needed.min(MAX_READ);
    let mut total = 0;
    while total < share {
        match read_at_most(stream, buffer, needed - total) {
            Ok(0) => break,
            Ok(n) => total += n,
            // What came before an error counts; the next read meets it again.
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn read_at_most(stream: &mut Stream, buffer: &mut Vec<u8>, needed: usize) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() <= needed {
        return stream.read(buffer);
    }
    // The vector has more room than the argument may take: read what belongs to it, through a
    // scratch buffer, because the driver fills whatever room it is given.
    let mut scratch = Vec::with_capacity(needed.min(READ_SIZE));
    let result = stream.read(&mut scratch);
    buffer.extend_from_slice(&scratch);
    result
}
