//! Applying what the primary sends: run as by one client that is obeyed, and passed on byte by byte.
//!
//! Requests are read ahead in waves as those of clients are. Each one, or each transaction as a whole,
//! is appended to our own stream under the locks under which it ran, so that at a cut the data set and
//! the stream's offset belong together. What comes in parts of requests waits here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::frame::{Corrupt, Frame};
use crate::base::clock::unix_ms;
use crate::client::registry::{Handle, flag};
use crate::client::session::Session;
use crate::dispatch::args::{Args, Origin};
use crate::dispatch::command::Flags;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::source::{self, Source};
use crate::dispatch::wave::{self, Planned, SIZE, Wave};
use crate::dispatch::{accounts, admit, execute, propagate, transaction};
use crate::keyspace::db::Hint;
use crate::resp::parse::{Limits, Parser, Progress, Request};
use crate::resp::write::Output;

/// Room that an emptied buffer keeps, in bytes.
const KEPT: usize = 1 << 20;

/// How often it is told that the disk fails, in milliseconds.
const TELL_MS: i64 = 10_000;

/// No limits but those of memory: what the primary took is taken.
const LIMITS: Limits = Limits {
    max_bulk_len: u64::MAX,
    max_multibulk: i32::MAX as i64,
    max_inline: usize::MAX,
    authenticated: true,
};

/// What there is next.
enum Found {
    /// A request.
    Request,
    /// An empty one, up to here.
    Empty(usize),
    /// No whole request.
    Nothing,
}

/// What of the primary's stream is not applied yet, and what applies it.
pub(super) struct Applier {
    worker: Worker,
    session: Session,
    buffer: Vec<u8>,
    /// Up to where in the buffer requests were found.
    found: usize,
    /// Where the transaction begins that is not complete.
    transaction: Option<usize>,
    frame: Frame,
    wave: Wave,
    /// Replies, which nobody gets.
    out: Output,
    /// The disk fails: clients' writes would be refused.
    disk_fails: bool,
    /// When it was told last that the disk fails.
    told_ms: i64,
    /// The primary asked for a confirmation.
    pub(super) asked: bool,
}

impl Applier {
    /// For a connection to the primary, whose stream has database `db` selected.
    pub(super) fn new(shared: &Shared, handle: Arc<Handle>, db: usize) -> Self {
        handle.live.flags.fetch_or(flag::PRIMARY, Relaxed);
        let mut session = Session::new(handle, None);
        session.db = db;
        session.publish();
        Self {
            worker: Worker::for_source(shared, Source::Primary),
            session,
            buffer: Vec::new(),
            found: 0,
            transaction: None,
            frame: Frame::default(),
            wave: Wave::default(),
            out: Output::new(),
            disk_fails: false,
            told_ms: 0,
            asked: false,
        }
    }

    /// The client that the connection is to others.
    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.session.handle
    }

    /// Bytes that wait for the rest of their request or transaction.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len() - self.transaction.unwrap_or(self.found)
    }

    /// Takes the next bytes of the stream and applies what is complete.
    ///
    /// # Errors
    /// They are no requests. What came before is applied.
    pub(super) fn feed(&mut self, shared: &Shared, bytes: &[u8]) -> Result<(), Corrupt> {
        self.buffer.extend_from_slice(bytes);
        self.worker.refresh(shared);
        let failing = shared.append_only.log.progress.failing.load(Relaxed);
        let settings = &self.worker.settings;
        self.disk_fails = failing || shared.durability.saves.refuses_writes(settings);
        loop {
            let planned = self.plan(shared);
            if self.wave.is_empty() {
                planned?;
                break;
            }
            self.run_wave(shared);
            planned?;
        }
        self.compact();
        let live = &self.session.handle.live;
        live.last_ms.store(unix_ms(), Relaxed);
        live.query_len.store(self.waiting(), Relaxed);
        self.session.publish();
        Ok(())
    }

    /// What a primary writes is done even where a client's writes would be refused, because the disk
    /// fails; unless the parameters have the server end then.
    #[cold]
    fn meet_failing_disk(&mut self) {
        if !self.worker.settings.replica_ignore_disk_write_errors {
            panic!("Replica was unable to write command to disk.");
        }
        let now = unix_ms();
        if now - self.told_ms >= TELL_MS {
            self.told_ms = now;
            tracing::warn!("Replica is applying a command it is unable to write to disk.");
        }
    }

    /// Finds the next requests.
    fn plan(&mut self, shared: &Shared) -> Result<(), Corrupt> {
        while self.wave.len() < SIZE && self.found < self.buffer.len() {
            match self.find_request()? {
                Found::Request => self.wave.plan(shared, self.session.db, 0, &self.buffer),
                Found::Nothing => return Ok(()),
                // It counts, in its turn.
                Found::Empty(_) if !self.wave.is_empty() => return Ok(()),
                Found::Empty(end) => self.pass_empty_on(shared, end),
            }
        }
        Ok(())
    }

    /// Finds the next request and puts it into the wave's next place.
    fn find_request(&mut self) -> Result<Found, Corrupt> {
        let (mut parser, start) = (Parser::new(), self.found);
        let (input, request) = (&self.buffer[..], self.wave.spare());
        let is_quick =
            self.frame.is_idle() && parser.parse_quick(input, &mut self.found, &LIMITS, request);
        if is_quick {
            return Ok(Found::Request);
        }
        // Once it was begun, what was seen is not looked at again.
        let Some(len) = self.frame.end(&input[start..])? else {
            return Ok(Found::Nothing);
        };
        let (end, mut found) = (start + len, start);
        let parsed = parser.parse(&input[..end], &mut found, &LIMITS, request);
        match parsed.map_err(|_| Corrupt)? {
            Progress::Complete => {}
            Progress::Empty => return Ok(Found::Empty(end)),
            Progress::Incomplete => return Err(Corrupt),
        }
        request.whole = start..end;
        self.found = end;
        Ok(Found::Request)
    }

    /// Passes an empty request on, which ends at `end` of the buffer.
    fn pass_empty_on(&mut self, shared: &Shared, end: usize) {
        let start = std::mem::replace(&mut self.found, end);
        if self.transaction.is_none() {
            let (bytes, db) = (&self.buffer[start..end], self.session.db);
            shared.stream.append_raw(bytes, db, true);
        }
    }

    fn run_wave(&mut self, shared: &Shared) {
        let mut wave = std::mem::take(&mut self.wave);
        wave.ask_buckets();
        for index in 0..wave.len() {
            let (planned, hints) = wave.take(index);
            self.run_planned(shared, planned, hints);
        }
        wave.clear();
        self.wave = wave;
    }

    fn run_planned(&mut self, shared: &Shared, planned: &mut Planned, hints: &[Hint]) {
        // Back in its place when the request was run, whose arguments are parts of it.
        let buffer = std::mem::take(&mut self.buffer);
        self.run_from(shared, &buffer, &planned.request, hints);
        self.buffer = buffer;
    }

    fn run_from(&mut self, shared: &Shared, buffer: &[u8], request: &Request, hints: &[Hint]) {
        // What is passed on with EXEC is the whole transaction.
        let whole = match self.transaction {
            Some(start) => start..request.whole.end,
            None => request.whole.clone(),
        };
        let origin = Origin {
            whole: &buffer[whole],
            ..Origin::default()
        };
        let (many, mut few): (SmallVec<[&[u8]; 24]>, _);
        few = [&[][..]; wave::FEW];
        let list = match wave::few(request, buffer, &mut few) {
            Some(list) => list,
            None => {
                many = wave::list(request, buffer, &[]);
                &many[..]
            }
        };
        self.run(shared, Args::received(list, &origin), request, hints);
    }

    fn run(&mut self, shared: &Shared, args: Args<'_>, request: &Request, hints: &[Hint]) {
        let before = self.session.written;
        self.execute(shared, args, hints);
        if self.session.multi.is_some() {
            self.transaction.get_or_insert(request.whole.start);
            return;
        }
        self.transaction = None;
        if self.session.written == before {
            propagate::pass_on(shared, &mut self.worker, self.session.db, args);
            self.session.written = std::mem::take(&mut self.worker.appended);
        }
    }

    /// Runs a command, or keeps it for EXEC.
    fn execute(&mut self, shared: &Shared, args: Args<'_>, hints: &[Hint]) {
        let (worker, session, out) = (&mut self.worker, &mut self.session, &mut self.out);
        let found = shared.commands.find(&args[0]);
        worker.obeyed = found.map(|known| known.id);
        let known = match admit::resolve(shared, found, args) {
            Ok(known) => known,
            Err(error) => {
                admit::refused(shared, worker, session, found, &error);
                source::failed(shared, worker, &error.text());
                return;
            }
        };
        worker.obeyed = Some(known.id);
        session.handle.live.set_last_command(Some(known.id));
        self.asked |= known.row.name == "replconf" && args.is(1, "getack");
        if let Some(error) = source::refusal(Source::Primary, known) {
            accounts::failed(shared, worker, known, out, &error);
            source::failed(shared, worker, &error.text());
            out.clear();
            return;
        }
        if self.disk_fails && known.flags.has(Flags::WRITE) {
            self.meet_failing_disk();
        }
        let (worker, session, out) = (&mut self.worker, &mut self.session, &mut self.out);
        if session.multi.is_some() && !known.flags.has(Flags::UNQUEUED) {
            transaction::queue(session, known, args);
            return;
        }
        let invocation = execute::Invocation { known, args, hints };
        execute::call(shared, worker, session, out, invocation, None);
        execute::to_end(shared, worker, session, out);
        out.clear();
    }

    /// Drops what is applied from the buffer.
    fn compact(&mut self) {
        let done = self.transaction.unwrap_or(self.found);
        if done == 0 {
            return;
        }
        self.buffer.drain(..done);
        self.found -= done;
        if let Some(start) = &mut self.transaction {
            *start = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
    }

    /// The connection is over: what is not complete is dropped.
    pub(super) fn end(mut self, shared: &Shared) {
        execute::disconnect(shared, &mut self.session);
        shared.clients.remove(self.session.handle.id);
    }
}
