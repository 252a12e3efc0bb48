//! Serving: requests of all connections, parsed, read ahead for and run in waves.
//!
//! A connection's share of a wave is bounded, so a long pipeline does not starve its neighbours.

use smallvec::SmallVec;

use super::EventLoop;
use super::waits::block;
use crate::base::ticks::Ticks;
use crate::client::session::Replies;
use crate::dispatch::args::{Args, Origin};
use crate::dispatch::context::Shared;
use crate::dispatch::execute::{self, Flow, Prepared};
use crate::dispatch::wave::{self, Planned, RUN, SHARE, Wave};
use crate::keyspace::db::Hint;
use crate::net::connection::Connection;
use crate::resp::parse::{ProtocolError, Request};

/// Replies of so many bytes are written before the end of the turn.
const LONG_REPLIES: usize = 64 * 1024;

impl EventLoop {
    /// Parses, prefetches and runs requests in waves until no parsed one is left.
    pub(super) fn serve(&mut self, shared: &Shared) {
        let mut wave = std::mem::take(&mut self.wave);
        self.queue.extend(&self.active);
        while !self.queue.is_empty() {
            for _ in 0..self.queue.len() {
                let Some(place) = self.queue.pop_front() else {
                    break;
                };
                if self.plan(shared, place, &mut wave) {
                    self.queue.push_back(place);
                }
                if wave.is_full() {
                    break;
                }
            }
            self.run_wave(shared, &mut wave);
        }
        self.wave = wave;
    }

    /// Runs the requests of a wave, while the entries of those behind them are on their way.
    fn run_wave(&mut self, shared: &Shared, wave: &mut Wave) {
        wave.ask_buckets();
        if wave.names_elements && wave.len() >= RUN {
            self.warm(shared, wave);
        }
        self.worker.look_around(shared);
        // The time that parsing and waiting took is nobody's command's.
        self.worker.ticks = Ticks::now();
        let mut long: SmallVec<[usize; 8]> = SmallVec::new();
        let mut index = 0;
        while index < wave.len() {
            let at = index;
            index += 1;
            let place = wave.planned()[at].connection;
            let is_beyond = if wave.runs_scripts && self.runs_script(shared, wave, at) {
                self.run_script(shared, wave, at)
            } else {
                let (planned, hints) = wave.take(at);
                self.run_one(shared, planned, hints)
            };
            if is_beyond {
                self.limit_output(place);
                if long.last() != Some(&place) {
                    long.push(place);
                }
            }
        }
        wave.clear();
        for place in long {
            self.write_early(shared, place);
        }
    }

    /// Writes long replies before the end of the turn: while they are in the processor's cache, and
    /// before those of others take memory too. Not while somebody follows the stream: then replies may
    /// have to wait.
    fn write_early(&mut self, shared: &Shared, place: usize) {
        let waits = |connection: &Connection| {
            let is_long = connection.out.len_pending() >= LONG_REPLIES;
            is_long && !connection.wants_write && !connection.session.is_closing()
        };
        let connection = self.connections[place].as_deref();
        if !connection.is_some_and(waits) || shared.stream.is_active() || !self.may_go_on() {
            return;
        }
        // If that fails, so does the next write, at the end of the turn.
        let _ = self.write(place);
    }

    /// Reads ahead for runs of requests that each name an element of the same key's collection.
    fn warm(&mut self, shared: &Shared, wave: &Wave) {
        let connections = &self.connections[..];
        let mut rest = wave.planned();
        while let Some(first) = rest.first() {
            let of_first = subject(connections, shared, wave, first);
            let run = match of_first {
                None => 1,
                Some(_) => {
                    let same = |planned: &&Planned| {
                        subject(connections, shared, wave, planned) == of_first
                    };
                    rest.iter().take_while(same).count()
                }
            };
            if let Some((db, _)) = of_first
                && run >= RUN
                // The key of the commands that name elements is their first argument.
                && let Some(key) = argument(connections, first, 1)
                && let Some(hint) = wave.hint(first)
            {
                let elements = rest[..run].iter().filter_map(|planned| {
                    let row = shared.commands.get(planned.known?).row;
                    argument(connections, planned, row.element)
                });
                let elements: SmallVec<[&[u8]; wave::SIZE]> = elements.collect();
                execute::warm(shared, &mut self.worker, db, (key, hint), &elements);
            }
            rest = &rest[run..];
        }
    }

    /// Parses a connection's share of the wave; true when it may have more.
    fn plan(&mut self, shared: &Shared, place: usize, wave: &mut Wave) -> bool {
        let Some(connection) = &mut self.connections[place] else {
            return false;
        };
        let connection = &mut **connection;
        let session = &connection.session;
        let ends = session.is_closing() || connection.broken.is_some();
        if ends || connection.is_occupied() {
            return false;
        }
        // What an unauthenticated client may send depends on whether AUTH succeeded before.
        let share = if session.identity.authenticated {
            SHARE
        } else {
            1
        };
        let db = session.db;
        connection.follow_limit(&self.worker.settings);
        let limits = connection.limits(&self.worker.settings);
        let mut planned = 0;
        while planned < share && connection.parse_quick(&limits, wave.spare()) {
            wave.plan(shared, db, place, &connection.input);
            planned += 1;
        }
        self.plan_rest(shared, place, wave, share - planned)
    }

    /// As [`EventLoop::plan`], for at most `share` requests of which the first may be in any form,
    /// or not there as a whole.
    #[inline(never)]
    fn plan_rest(&mut self, shared: &Shared, place: usize, wave: &mut Wave, share: usize) -> bool {
        let mut may_read = true;
        for _ in 0..share {
            let parsed = self.parse(place, wave.spare(), &mut may_read);
            let Some(connection) = &mut self.connections[place] else {
                return false;
            };
            match parsed {
                Ok(true) => {
                    let db = connection.session.db;
                    wave.plan(shared, db, place, &connection.input);
                }
                Ok(false) => return false,
                Err(error) => {
                    // Requests before the broken one are answered first.
                    if wave.holds(place) {
                        connection.broken = Some(error);
                    } else {
                        self.protocol_error(place, error);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Parses a connection's next request, reading on once when that is a big argument.
    fn parse(
        &mut self,
        place: usize,
        request: &mut Request,
        may_read: &mut bool,
    ) -> Result<bool, ProtocolError> {
        loop {
            let Some(connection) = &mut self.connections[place] else {
                return Ok(false);
            };
            if connection.parse(&self.worker.settings, request)? {
                return Ok(true);
            }
            let reads_on = *may_read && connection.reads && connection.expects_big();
            *may_read = false;
            if !reads_on || !matches!(self.read(place), Some(1..)) {
                return Ok(false);
            }
        }
    }

    #[cold]
    pub(super) fn protocol_error(&mut self, place: usize, error: ProtocolError) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let mut line = b"ERR ".to_vec();
        line.extend_from_slice(&error.message());
        self.shared.stats.count_error(&line);
        if connection.session.replies == Replies::On {
            connection.out.error_bytes(&line);
        }
        connection.session.close_after_reply = true;
        if let Some(connection) = &self.connections[place] {
            tracing::debug!(
                "Protocol error ({}) from client: {}. {}",
                error.log_reason(),
                self.describe(connection),
                excerpt(connection.unread())
            );
        }
    }

    /// Runs a request; true when output waits beyond the reply buffer.
    #[inline]
    fn run_one(&mut self, shared: &Shared, planned: &mut Planned, hints: &[Hint]) -> bool {
        let place = planned.connection;
        let request = &mut planned.request;
        let prepared = Prepared {
            known: planned.known.map(|id| shared.commands.get(id)),
            hints,
        };
        let Some(connection) = &mut self.connections[place] else {
            return false;
        };
        let connection = &mut **connection;
        // What came before may have ended or occupied the connection: drop or keep the rest.
        if connection.is_occupied() {
            let owned = wave::owned(request, &connection.input);
            connection.backlog.push(owned);
            return false;
        }
        let session = &mut connection.session;
        if session.is_closing() {
            return false;
        }
        let (big, many, mut few);
        few = [&[][..]; wave::FEW];
        let mut origin = Origin {
            whole: &connection.input[request.whole.clone()],
            ..Origin::default()
        };
        let list = match wave::few(request, &connection.input, &mut few) {
            Some(list) => list,
            None => {
                big = wave::take_big(request);
                origin.big = &big;
                connection.bulky |= !big.is_empty();
                many = wave::list(request, &connection.input, &big);
                &many[..]
            }
        };
        let args = Args::received(list, &origin);
        let flow = execute::request(
            shared,
            &mut self.worker,
            session,
            &mut connection.out,
            args,
            prepared,
        );
        connection.served += 1;
        if flow == Flow::Park {
            connection.parked = Some(args.all().iter().map(|a| a.to_vec()).collect());
            self.parked.push(place);
        } else if flow == Flow::Job {
            connection.job = self.worker.running.take();
            self.jobs.push(place);
        } else if flow == Flow::Block {
            block(
                &mut connection.blocked,
                &mut self.worker,
                &mut self.deadlines,
                place,
            );
        } else if connection.session.is_closing() {
            connection.backlog.clear();
        }
        connection.out.is_beyond_buffer()
    }

    /// Looks at a client whose output grew: takes it off when it is over its limit, at once, as others
    /// of this turn may look, and counts what it holds, so that clients are evicted before keys are.
    pub(super) fn limit_output(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        if connection.session.close_now {
            return;
        }
        let now_ms = self.worker.now.ms;
        if connection.over_output_limit(&self.worker.settings, now_ms) {
            connection.session.close_now = true;
            let id = connection.session.handle.id;
            self.log_output_limit(place, "scheduled to be closed ASAP");
            self.shared.clients.remove(id);
        } else if self.worker.settings.maxmemory_clients != 0 {
            connection.publish(now_ms, 0);
            self.evict_clients();
        }
    }
}

/// The database and the hash of the key of a request that names an element.
fn subject(
    connections: &[Option<Box<Connection>>],
    shared: &Shared,
    wave: &Wave,
    planned: &Planned,
) -> Option<(usize, u64)> {
    let row = shared.commands.get(planned.known?).row;
    if row.element == 0 {
        return None;
    }
    let connection = connections[planned.connection].as_ref()?;
    let hint = wave.hint(planned)?;
    Some((connection.session.db, hint.hash()))
}

/// An argument of a request, if there is one.
fn argument<'a>(
    connections: &'a [Option<Box<Connection>>],
    planned: &'a Planned,
    index: usize,
) -> Option<&'a [u8]> {
    let connection = connections[planned.connection].as_ref()?;
    let request = &planned.request;
    (index < request.len()).then(|| request.arg(&connection.input, index))
}

/// What a client sent that cannot be read, for the log: the ends of it, where it is long.
fn excerpt(input: &[u8]) -> String {
    const SHOWN: usize = 128;
    let show = |bytes: &[u8]| -> String {
        let printable = |b: &u8| matches!(b, b' '..=b'~');
        let shown = bytes
            .iter()
            .map(|b| if printable(b) { char::from(*b) } else { '.' });
        shown.collect()
    };
    if input.len() < SHOWN {
        return format!("Query buffer during protocol error: '{}'", show(input));
    }
    let (start, end) = (&input[..SHOWN / 2], &input[input.len() - SHOWN / 2..]);
    format!(
        "Query buffer during protocol error: '{}' (... more {} bytes ...) '{}'",
        show(start),
        input.len() - SHOWN,
        show(end)
    )
}
