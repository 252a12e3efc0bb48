//! One client's connection: its socket, its buffers, and the requests parsed from them.
//!
//! Input is read into a vector that is borrowed from the worker's pool while the connection has
//! unparsed bytes, so idle connections hold no input buffer. Requests are ranges of it and stay
//! valid until they were executed. Big arguments are read into vectors of their own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use super::driver::Driver;
use crate::client::registry::{Class, flag};
use crate::client::session::Session;
use crate::config::{OutputLimit, Settings};
use crate::resp::parse::{Limits, Parser, Progress, ProtocolError, Request};
use crate::resp::write::{Output, Protocol};

/// Bytes read at once, and the capacity of a pooled input buffer.
pub const READ_SIZE: usize = 32 * 1024;
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
    /// Requests that were parsed behind it.
    pub backlog: VecDeque<Vec<Vec<u8>>>,
    /// The stream is broken: the error to answer once everything before it is.
    pub broken: Option<ProtocolError>,
    /// Requests served since the last [`Connection::publish`].
    pub served: u64,
    /// The peer sends no more.
    pub ended: bool,
    /// Output waits for room in the socket.
    pub wants_write: bool,
    /// Input is not read while a request is parked.
    pub reads: bool,
    /// Since when the output is over the soft limit, in milliseconds.
    soft_limit_since: Option<i64>,
    /// In the worker's list of connections to look at.
    pub listed: bool,
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
        Self {
            socket,
            session,
            out: Output::new(),
            input: Vec::new(),
            position: 0,
            parser: Parser::new(),
            partial: Request::default(),
            parked: None,
            backlog: VecDeque::new(),
            broken: None,
            served: 0,
            ended: false,
            wants_write: false,
            reads: true,
            soft_limit_since: None,
            listed: false,
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
        self.compact();
        let result = match self.parser.big_target() {
            Some((buffer, needed)) => read_at_most(driver, &self.socket, buffer, needed),
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
                self.session
                    .handle
                    .live
                    .query_len
                    .store(self.input.len(), Relaxed);
                Ok(n)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
                _ => Err(Closed::Peer(Some(error))),
            },
        }
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

    /// Parses the next request into `request`; false when there is none yet.
    #[inline]
    pub fn parse(
        &mut self,
        settings: &Settings,
        request: &mut Request,
    ) -> Result<bool, ProtocolError> {
        let limits = Limits {
            max_bulk_len: settings.proto_max_bulk_len as u64,
            authenticated: self.session.authenticated,
            ..Limits::default()
        };
        loop {
            let progress =
                self.parser
                    .parse(&self.input, &mut self.position, &limits, &mut self.partial)?;
            match progress {
                Progress::Complete => {
                    std::mem::swap(&mut self.partial, request);
                    return Ok(true);
                }
                Progress::Empty => {}
                Progress::Incomplete => return Ok(false),
            }
        }
    }

    /// True when unparsed bytes may hold another request.
    pub fn has_input(&self) -> bool {
        self.position < self.input.len()
    }

    /// Gives the input buffer back when everything in it was served.
    pub fn release_input(&mut self, pool: &mut Vec<Vec<u8>>) {
        let idle = self.parser.is_idle() && self.position == self.input.len();
        if idle && self.parked.is_none() && self.input.capacity() > 0 {
            self.position = 0;
            let mut buffer = std::mem::take(&mut self.input);
            if buffer.capacity() <= 2 * READ_SIZE && pool.len() < 64 {
                buffer.clear();
                pool.push(buffer);
            }
        }
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

    /// True when the waiting output is over `client-output-buffer-limit`.
    pub fn over_output_limit(&mut self, settings: &Settings, now_ms: i64) -> bool {
        let pending = self.out.len_pending() as u64;
        let class = match self.session.handle.class() {
            Class::Normal | Class::Primary => 0,
            Class::Replica => 1,
            Class::PubSub => 2,
        };
        let OutputLimit {
            hard_bytes: hard,
            soft_bytes: soft,
            soft_seconds,
        } = settings.client_output_buffer_limit[class];
        if hard > 0 && pending >= hard {
            return true;
        }
        if soft == 0 || pending < soft {
            self.soft_limit_since = None;
            return false;
        }
        let since = *self.soft_limit_since.get_or_insert(now_ms);
        now_ms - since > i64::from(soft_seconds) * 1000
    }

    /// Publishes what CLIENT LIST shows of this connection.
    pub fn publish(&mut self, now_ms: i64, served: u64) {
        let big = self.big_bytes();
        let live = &self.session.handle.live;
        let session = &self.session;
        if served > 0 {
            live.last_ms.store(now_ms, Relaxed);
            live.commands
                .store(live.commands.load(Relaxed) + served, Relaxed);
        }
        live.flags.store(
            self.flags(live.flags.load(Relaxed) & flag::UNIX_SOCKET),
            Relaxed,
        );
        live.db.store(session.db as u32, Relaxed);
        live.channels.store(session.channels.len() as u32, Relaxed);
        live.patterns.store(session.patterns.len() as u32, Relaxed);
        live.shard_channels
            .store(session.shard_channels.len() as u32, Relaxed);
        let multi = session.multi.as_ref();
        live.multi
            .store(multi.map_or(-1, |m| m.queue.len() as i32), Relaxed);
        live.multi_memory
            .store(multi.map_or(0, |m| m.memory()), Relaxed);
        live.query_len
            .store(self.input.len() - self.position, Relaxed);
        live.query_free
            .store(self.input.capacity() - self.input.len(), Relaxed);
        live.argv_memory.store(big, Relaxed);
        live.reply_size.store(self.out.capacity(), Relaxed);
        live.output_len.store(self.out.len_pending(), Relaxed);
        live.output_memory.store(
            self.out.memory().saturating_sub(self.out.capacity()),
            Relaxed,
        );
        let protocol = if self.out.protocol() == Protocol::Resp3 {
            3
        } else {
            2
        };
        live.protocol.store(protocol, Relaxed);
        live.total_memory.store(self.memory(big), Relaxed);
    }

    fn flags(&self, kept: u32) -> u32 {
        let session = &self.session;
        let mut flags = kept;
        let mut set = |condition: bool, bit: u32| {
            if condition {
                flags |= bit;
            }
        };
        set(session.multi.is_some(), flag::MULTI);
        set(session.monitor, flag::MONITOR);
        set(session.is_subscriber(), flag::PUBSUB);
        set(session.close_after_reply, flag::CLOSE_AFTER_REPLY);
        set(session.close_now, flag::CLOSE_ASAP);
        set(session.no_evict, flag::NO_EVICT);
        set(session.no_touch, flag::NO_TOUCH);
        set(self.parked.is_some(), flag::BLOCKED);
        set(session.handle.watch_flag.load(Relaxed), flag::DIRTY_CAS);
        flags
    }

    /// Memory that the client costs, in bytes.
    fn memory(&self, big: usize) -> usize {
        let multi = self.session.multi.as_ref().map_or(0, |m| m.memory());
        size_of::<Self>() + self.input.capacity() + self.out.memory() + big + multi
    }
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
