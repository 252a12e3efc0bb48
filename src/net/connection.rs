//! One client's connection: its socket, its buffers, and the requests parsed from them.
//!
//! Input is read into a vector that is borrowed from the worker's pool while the connection has
//! unparsed bytes, so idle connections hold no input buffer; of a worker with few connections
//! each keeps its own until it has been idle for a while. Requests are ranges of it and stay
//! valid until they were executed. Big arguments are read into vectors of their own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::driver::Driver;
use crate::client::registry::{Class, flag};
use crate::client::session::Session;
use crate::config::{OutputLimit, Settings};
use crate::dispatch::blocking::Parked;
use crate::dispatch::job::Running;
use crate::resp::parse::{Limits, Parser, Progress, ProtocolError, Request};
use crate::resp::write::Output;

/// Bytes read at once, and the capacity of a pooled input buffer.
///
/// A little less than 32 KiB, from which on Redis would call a query buffer big.
pub const READ_SIZE: usize = 32 * 1024 - 64;
/// Size of Redis' reply buffer beyond which output counts against limits, in bytes.
pub const REPLY_BUFFER: usize = 16 * 1024;
/// Most output beyond [`REPLY_BUFFER`] that may wait for a client that has not authenticated.
const UNAUTHENTICATED_OUTPUT: u64 = 1024;
/// Least room that an output keeps, in bytes.
const REPLY_BUFFER_MIN: usize = 1024;
/// An input buffer is given back after this time without a request, in milliseconds.
const IDLE_MS: i64 = 2000;
/// The output keeps room for the most that was used in this time, in milliseconds.
const PEAK_RESET_MS: i64 = 5000;
/// Bytes of a big argument read from one client in a turn before others get theirs.
const MAX_READ: usize = 1 << 20;
/// Slices written at once.
const MAX_SLICES: usize = 64;
/// Bytes written to one client in a turn before others get theirs.
const MAX_WRITE: usize = 1 << 20;

/// One client's connection.
pub struct Connection {
    socket: OwnedFd,
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
    /// A command that waits for keys.
    pub blocked: Option<Arc<Parked>>,
    /// Requests that were parsed behind the parked one, the job or the wait.
    pub backlog: VecDeque<Vec<Vec<u8>>>,
    /// The stream is broken: the error to answer once everything before it is.
    pub broken: Option<ProtocolError>,
    /// A big argument came since the input buffer was last emptied.
    pub bulky: bool,
    /// Replies wait until the stream is on the disk up to here.
    pub held_until: Option<u64>,
    /// Requests served since the last [`Connection::publish`].
    pub served: u64,
    /// The peer sends no more.
    pub ended: bool,
    /// Output waits for room in the socket.
    pub wants_write: bool,
    /// Input is read: until it ended.
    pub reads: bool,
    /// Since when the output is over the soft limit, in milliseconds.
    soft_limit_since: Option<i64>,
    /// In the worker's list of connections to look at.
    pub listed: bool,
    /// Bytes that it counts for `maxmemory-clients`.
    pub counted: usize,
    /// Most output that waited since `peak_since` (Unix milliseconds), up to [`REPLY_BUFFER`].
    reply_peak: usize,
    peak_since: i64,
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
    /// A connection on an accepted, non-blocking socket.
    pub fn new(socket: OwnedFd, session: Session) -> Self {
        let mut out = Output::new();
        out.reserve(REPLY_BUFFER_MIN);
        Self {
            socket,
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
            backlog: VecDeque::new(),
            broken: None,
            served: 0,
            ended: false,
            wants_write: false,
            reads: true,
            soft_limit_since: None,
            listed: false,
            counted: 0,
            reply_peak: 0,
            peak_since: 0,
        }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads once; true when bytes came. An end of input is remembered in `ended`.
    pub fn read(
        &mut self,
        driver: &Driver,
        pool: &mut Vec<Vec<u8>>,
        settings: &Settings,
    ) -> Result<usize, Closed> {
        let limit = self.output_limit(settings).hard_bytes;
        self.out
            .set_limit(usize::try_from(limit).unwrap_or(usize::MAX));
        // A big argument goes elsewhere, so the input stays where it is: requests of this wave
        // may be ranges of it.
        if self.parser.big_target().is_none() {
            self.compact();
        }
        let result = match self.parser.big_target() {
            Some((buffer, needed)) => read_big(driver, &self.socket, buffer, needed),
            None => {
                if self.input.capacity() == 0 {
                    self.input = pool.pop().unwrap_or_else(|| Vec::with_capacity(READ_SIZE));
                } else if self.input.capacity() - self.input.len() < READ_SIZE / 2 {
                    self.input.reserve(READ_SIZE);
                }
                driver.read(&self.socket, &mut self.input)
            }
        };
        match result {
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(n) => {
                let held = self.input.len() + self.big_bytes();
                if held > settings.client_query_buffer_limit {
                    return Err(Closed::QueryLimit);
                }
                let live = &self.session.handle.live;
                live.query_len.store(self.input.len(), Relaxed);
                live.query_free
                    .store(self.input.capacity() - self.input.len(), Relaxed);
                Ok(n)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
                _ => Err(Closed::Peer(Some(error))),
            },
        }
    }

    /// True while a big argument is being received.
    pub fn expects_big(&mut self) -> bool {
        self.parser.big_target().is_some()
    }

    fn big_bytes(&mut self) -> usize {
        let partial: usize = self.partial.big.iter().map(Vec::len).sum();
        partial
            + self
                .parser
                .big_target()
                .map_or(0, |(buffer, _)| buffer.len())
    }

    /// Moves what is not parsed yet to the front of the buffer. Only between batches: requests
    /// that were parsed but not executed are ranges of it.
    fn compact(&mut self) {
        let start = if self.parser.is_idle() {
            self.position
        } else {
            self.parser.start_of_request()
        };
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
            authenticated: self.session.authenticated,
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

    /// Takes the connection apart for a replica: its session, its socket, what is to be written,
    /// and what was received behind the request.
    pub fn into_parts(self) -> (Session, OwnedFd, Vec<u8>, Vec<u8>) {
        let mut input = Output::new();
        for request in &self.backlog {
            input.array(request.len());
            request.iter().for_each(|arg| input.bulk(arg));
        }
        let mut input = input.to_vec();
        input.extend_from_slice(&self.input[self.position..]);
        (self.session, self.socket, self.out.to_vec(), input)
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
        self.session.tells || self.session.handle.mailbox.len() > 0
    }

    /// Moves pushed bytes from the mailbox to the output.
    pub fn take_mail(&mut self) {
        for message in self.session.handle.mailbox.take() {
            self.out.append_bytes(message);
        }
    }

    /// Writes what the socket takes; false when the connection is broken.
    pub fn flush(&mut self, driver: &Driver) -> io::Result<usize> {
        let mut total = 0;
        while !self.out.is_empty() && total < MAX_WRITE {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.out.io_slices(&mut slices);
            match driver.write(&self.socket, &slices[..count]) {
                Ok(written) => {
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

    /// The row of `client-output-buffer-limit` that concerns this client.
    fn output_limit(&self, settings: &Settings) -> OutputLimit {
        let class = match self.session.handle.class() {
            Class::Normal | Class::Primary => 0,
            Class::Replica => 1,
            Class::PubSub => 2,
        };
        settings.client_output_buffer_limit[class]
    }

    /// True when the waiting output is over `client-output-buffer-limit`, or
    /// over what a client may leave waiting before it has authenticated.
    pub fn over_output_limit(&mut self, settings: &Settings, now_ms: i64) -> bool {
        let pending = self.out.len_pending() as u64;
        let OutputLimit {
            hard_bytes: hard,
            soft_bytes: soft,
            soft_seconds,
        } = self.output_limit(settings);
        let must_authenticate = !self.session.authenticated && !settings.requirepass.is_empty();
        let beyond = pending.saturating_sub(REPLY_BUFFER as u64);
        let over_hard = hard > 0 && pending >= hard || self.out.has_overflowed();
        if must_authenticate && beyond > UNAUTHENTICATED_OUTPUT || over_hard {
            return true;
        }
        if soft == 0 || pending < soft {
            self.soft_limit_since = None;
            return false;
        }
        let since = *self.soft_limit_since.get_or_insert(now_ms);
        now_ms - since > i64::from(soft_seconds) * 1000
    }

    /// Publishes what CLIENT LIST shows of this connection; returns the change of what it counts
    /// for `maxmemory-clients`, in bytes.
    pub fn publish(&mut self, settings: &Settings, now_ms: i64, served: u64) -> isize {
        let big = self.big_bytes();
        self.session.publish();
        let limit = self.output_limit(settings).hard_bytes;
        let live = &self.session.handle.live;
        live.output_limit.store(limit, Relaxed);
        if served > 0 {
            live.last_ms.store(now_ms, Relaxed);
            live.commands
                .store(live.commands.load(Relaxed) + served, Relaxed);
        }
        if self.parked.is_some() || self.blocked.is_some() {
            live.flags.fetch_or(flag::BLOCKED, Relaxed);
        } else {
            live.flags.fetch_and(!flag::BLOCKED, Relaxed);
        }
        let receiving = self.parser.big_target().map_or(0, |(b, _)| b.len());
        let unparsed = self.input.len() - self.position;
        live.query_len.store(unparsed + receiving, Relaxed);
        live.query_free
            .store(self.input.capacity() - self.input.len(), Relaxed);
        live.argv_memory.store(big - receiving, Relaxed);
        self.publish_output();
        self.counted_change(big)
    }

    fn publish_output(&mut self) {
        let live = &self.session.handle.live;
        let pending = self.out.len_pending();
        let first = pending.min(REPLY_BUFFER);
        self.reply_peak = self.reply_peak.max(first);
        live.reply_size
            .store(self.out.capacity().min(REPLY_BUFFER), Relaxed);
        live.reply_peak.store(self.reply_peak, Relaxed);
        live.reply_len.store(first, Relaxed);
        live.output_len.store(pending, Relaxed);
        live.output_chunks
            .store((pending - first).div_ceil(REPLY_BUFFER), Relaxed);
        live.output_memory.store(pending - first, Relaxed);
    }

    /// What this connection counts now, compared with before; 0 for one that is never evicted.
    fn counted_change(&mut self, big: usize) -> isize {
        let target = self.parser.big_target();
        let reserved = target.map_or(0, |(buffer, _)| buffer.capacity() - buffer.len());
        let total = self.memory(big + reserved);
        self.session.handle.live.total_memory.store(total, Relaxed);
        let counted = if self.session.no_evict { 0 } else { total };
        counted as isize - std::mem::replace(&mut self.counted, counted) as isize
    }

    /// Memory that the client costs, in bytes.
    fn memory(&self, big: usize) -> usize {
        size_of::<Self>()
            + self.input.capacity()
            + self.out.memory()
            + self.session.handle.mailbox.len()
            + big
            + self.session.memory()
    }

    /// Gives back what an idle connection does not need: its input buffer, and the reply buffer
    /// down to what was used lately.
    pub fn shrink(&mut self, now_ms: i64) {
        let idle = now_ms - self.session.handle.live.last_ms.load(Relaxed);
        if idle > IDLE_MS && self.parser.is_idle() && self.position == self.input.len() {
            self.input = Vec::new();
            self.position = 0;
        }
        if now_ms - self.peak_since >= PEAK_RESET_MS {
            let capacity = self.out.capacity();
            let target = self.reply_peak.max(REPLY_BUFFER_MIN);
            if capacity > 2 * target && self.out.len_pending() <= target {
                self.out.shrink(target);
            }
            self.reply_peak = self.out.len_pending().min(REPLY_BUFFER);
            self.peak_since = now_ms;
        }
    }
}

/// Reads a big argument on: as much of it as there is, so that it does not take a turn for each
/// piece, up to a share of the turn.
fn read_big(
    driver: &Driver,
    socket: &OwnedFd,
    buffer: &mut Vec<u8>,
    needed: usize,
) -> io::Result<usize> {
    let share = needed.min(MAX_READ);
    let mut total = 0;
    while total < share {
        match read_at_most(driver, socket, buffer, needed - total) {
            Ok(0) => break,
            Ok(n) => total += n,
            // What came before an error counts; the next read meets it again.
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn read_at_most(
    driver: &Driver,
    socket: &OwnedFd,
    buffer: &mut Vec<u8>,
    needed: usize,
) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() <= needed {
        return driver.read(socket, buffer);
    }
    // The vector has more room than the argument may take: read what belongs to it, through a
    // scratch buffer, because the driver fills whatever room it is given.
    let mut scratch = Vec::with_capacity(needed.min(READ_SIZE));
    let result = driver.read(socket, &mut scratch);
    buffer.extend_from_slice(&scratch);
    result
}
