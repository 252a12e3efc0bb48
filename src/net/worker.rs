//! A worker: one thread, its connections, and the loop that serves them in batches.
//!
//! A turn waits until sockets are ready, reads all of them, then repeats: parse a wave of
//! requests from all connections (asking the processor for the way to each key), ask for the
//! keys' buckets, run the requests while the entries of those behind them come in, until nothing
//! parsed is left; then it writes all replies. So the cache misses of a wave overlap, and each
//! connection costs one read and one write.
//!
//! A connection's share of a wave is bounded, so a long pipeline does not starve its neighbours.
//! Nothing here blocks but the wait. Other threads reach the worker through its [`Link`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::connection::{Closed, Connection, READ_SIZE, REPLY_BUFFER};
use super::driver::{Driver, Ready};
use super::evict;
use super::wave::{self, Planned, RUN, SHARE, Wave};
use crate::base::ticks::Ticks;
use crate::client::mailbox::Bell;
use crate::client::session::{Replies, Session};
use crate::dispatch::args::Args;
use crate::dispatch::blocking::{self, Parked};
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::execute::{self, Flow, Prepared};
use crate::dispatch::replicas;
use crate::keyspace::db::Hint;
use crate::observe::stats::bump;
use crate::resp::parse::Request;

/// Token of the bell.
const BELL: u64 = u64::MAX;
/// With at most so many connections each keeps its input buffer between requests.
const KEPT_BUFFERS: usize = 64;
/// Connections looked at in one tick, at least.
const TICKED: usize = 64;
/// How often a worker looks at its connections without being asked.
const TICK: Duration = Duration::from_millis(100);

/// How other threads reach a worker.
pub struct Link {
    /// Wakes it.
    pub bell: Arc<Bell>,
    newcomers: Mutex<Vec<Connection>>,
    /// Its connections, those on their way included.
    pub connections: AtomicUsize,
    /// Nanoseconds it has not been waiting, since it started.
    pub busy_nanos: AtomicU64,
    /// The kernel's number of its thread; 0 until it runs.
    pub thread: AtomicI32,
    /// How many connections it shall hand to which worker.
    pub give: Mutex<Option<(usize, Arc<Link>)>>,
    stop: AtomicBool,
}

impl Link {
    /// The link of a worker to be started.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            bell: Arc::new(Bell::new()?),
            newcomers: Mutex::default(),
            connections: AtomicUsize::new(0),
            busy_nanos: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            give: Mutex::default(),
            stop: AtomicBool::new(false),
        }))
    }

    /// Hands a connection to the worker.
    pub fn adopt(&self, connection: Connection) {
        self.connections.fetch_add(1, Relaxed);
        connection.session.handle.set_bell(Arc::clone(&self.bell));
        self.newcomers.lock().push(connection);
        self.bell.ring();
    }

    /// Makes a connection of an accepted socket and hands it over.
    pub fn accept(&self, socket: OwnedFd, session: Session) {
        self.adopt(Connection::new(socket, session));
    }

    /// Ends the worker after its present turn.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.bell.ring();
    }
}

/// The worker's thread state.
pub struct EventLoop {
    shared: Arc<Shared>,
    link: Arc<Link>,
    driver: Driver,
    worker: Worker,
    connections: Vec<Option<Box<Connection>>>,
    /// Places in `connections` that are free.
    free: Vec<usize>,
    places: HashMap<u64, usize>,
    /// Connections to be looked at in this turn.
    active: Vec<usize>,
    /// Connections with a parked request.
    parked: Vec<usize>,
    /// Connections with a command that goes on in slices.
    jobs: Vec<usize>,
    /// Connections that wait for keys until a time: by it (Unix milliseconds) and ticket.
    deadlines: BTreeMap<(i64, u64), usize>,
    /// Connections that wait for keys and were rung for.
    woken: Vec<usize>,
    /// Connections whose replies wait for the disk.
    held: Vec<usize>,
    /// Emptied input buffers.
    buffers: Vec<Vec<u8>>,
    /// The wave, empty but for what it keeps for the next one.
    wave: Wave,
    /// Connections that may have more requests in this turn.
    queue: VecDeque<usize>,
    /// Connections to be handed over at the end of the turn.
    giving: Option<(usize, Arc<Link>)>,
    last_tick_ms: i64,
    /// The connection that the next tick looks at first.
    tick_at: usize,
    /// [`crate::dispatch::pause::Pause::ends`] when the parked requests were last tried.
    pauses_ended: u64,
}

impl EventLoop {
    /// The loop of worker `index`.
    pub fn new(shared: Arc<Shared>, link: Arc<Link>, index: usize) -> io::Result<Self> {
        let driver = Driver::new()?;
        driver.add(link.bell.fd(), BELL)?;
        shared.pause.wake(&link.bell);
        Ok(Self {
            worker: Worker::new(&shared, index),
            shared,
            link,
            driver,
            connections: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            active: Vec::new(),
            parked: Vec::new(),
            jobs: Vec::new(),
            deadlines: BTreeMap::new(),
            woken: Vec::new(),
            held: Vec::new(),
            // One is always there, so that memory stays the same while clients take turns.
            buffers: vec![Vec::with_capacity(READ_SIZE)],
            wave: Wave::default(),
            queue: VecDeque::new(),
            giving: None,
            last_tick_ms: 0,
            tick_at: 0,
            pauses_ended: 0,
        })
    }

    /// Serves until the link is stopped.
    pub fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while !self.link.stop.load(Relaxed) {
            ready.clear();
            self.driver.wait(&mut ready, self.timeout())?;
            let begin = Ticks::now();
            self.turn(&ready);
            let nanos = Ticks::now().nanos_since(begin);
            bump(&self.link.busy_nanos, nanos);
            self.worker.stats.running.store(0, Relaxed);
        }
        Ok(())
    }

    /// How long to wait: for ever without connections, else until the next look at them, or the
    /// first deadline of one that waits for keys.
    fn timeout(&self) -> Option<Duration> {
        if !self.jobs.is_empty() {
            return Some(Duration::ZERO);
        }
        let regular = self.regular_timeout();
        let Some((&(deadline, _), _)) = self.deadlines.first_key_value() else {
            return regular;
        };
        // Its time is over once the clock has passed it.
        let left = deadline.saturating_add(1) - crate::base::clock::unix_ms();
        let left = Duration::from_millis(left.max(0) as u64);
        Some(regular.map_or(left, |regular| regular.min(left)))
    }

    fn regular_timeout(&self) -> Option<Duration> {
        if !self.parked.is_empty() && self.shared.pause.is_set() {
            let left = self.shared.pause.until_ms() - crate::base::clock::unix_ms();
            return Some(TICK.min(Duration::from_millis(left.max(0) as u64)));
        }
        (!self.places.is_empty()).then_some(TICK)
    }

    fn turn(&mut self, ready: &[Ready]) {
        if !self.may_go_on() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.worker.refresh(&shared);
        bump(&self.worker.stats.counters.turns, 1);
        for event in ready {
            if event.token == BELL {
                self.answer_bell();
            } else {
                self.socket_ready(event);
            }
        }
        self.retry_parked();
        self.step_jobs(&shared);
        self.end_waits(&shared);
        self.release_held(&shared);
        self.serve(&shared);
        if !self.may_go_on() {
            return;
        }
        self.finish();
        if let Some((count, to)) = self.giving.take() {
            self.give(count, &to);
        }
        if self.worker.now.ms - self.last_tick_ms >= TICK.as_millis() as i64 {
            self.last_tick_ms = self.worker.now.ms;
            self.tick();
        }
    }

    /// Waits while the server hangs or ends. False when it has ended: what was saved is all there
    /// is, so nothing more may be acknowledged.
    fn may_go_on(&self) -> bool {
        self.shared.status.stall.wait();
        !self.link.stop.load(Relaxed)
    }

    fn list(&mut self, place: usize) {
        if let Some(connection) = &mut self.connections[place]
            && !connection.listed
        {
            connection.listed = true;
            self.active.push(place);
        }
    }

    fn socket_ready(&mut self, event: &Ready) {
        let place = event.token as usize;
        let Some(Some(connection)) = self.connections.get_mut(place) else {
            return;
        };
        if event.readable && connection.reads && self.read(place).is_none() {
            return;
        }
        self.list(place);
    }

    /// Reads from a connection; the number of bytes, or `None` when it had to be closed.
    fn read(&mut self, place: usize) -> Option<usize> {
        let connection = self.connections[place].as_mut()?;
        let settings = &self.worker.settings;
        match connection.read(&self.driver, &mut self.buffers, settings) {
            Ok(bytes) => {
                if bytes > 0 {
                    bump(&self.worker.stats.counters.input_bytes, bytes as u64);
                    bump(&self.worker.stats.counters.reads, 1);
                }
                // What was received counts before it is executed: who sends too much at once
                // is evicted without being served.
                if settings.maxmemory_clients != 0 {
                    let settings = Arc::clone(settings);
                    let change = connection.publish(&settings, self.worker.now.ms, 0);
                    self.count_memory(change);
                }
                Some(bytes)
            }
            Err(reason) => {
                self.log_closed(place, &reason);
                self.close(place);
                None
            }
        }
    }

    /// Parses a connection's next request, reading on once when that is a big argument.
    fn parse(
        &mut self,
        place: usize,
        request: &mut Request,
        may_read: &mut bool,
    ) -> Result<bool, crate::resp::parse::ProtocolError> {
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
    fn log_closed(&self, place: usize, reason: &Closed) {
        let Some(connection) = &self.connections[place] else {
            return;
        };
        match reason {
            Closed::Peer(error) => {
                let error = error
                    .as_ref()
                    .map_or(String::new(), crate::config::strerror);
                tracing::debug!("Reading from client: {error}");
            }
            Closed::QueryLimit => {
                self.shared
                    .stats
                    .global
                    .query_limit_disconnections
                    .fetch_add(1, Relaxed);
                tracing::warn!(
                    "Closing client that reached max query buffer length: {}",
                    connection
                        .session
                        .handle
                        .describe(self.worker.now.ms, &|_| String::new()),
                );
            }
        }
    }

    fn answer_bell(&mut self) {
        for id in self.link.bell.answer() {
            if let Some(&place) = self.places.get(&id) {
                self.list(place);
                if self.connections[place]
                    .as_ref()
                    .is_some_and(|c| c.blocked.is_some())
                {
                    self.woken.push(place);
                }
            }
        }
        let newcomers = std::mem::take(&mut *self.link.newcomers.lock());
        for connection in newcomers {
            self.welcome(connection);
        }
        self.giving = self.link.give.lock().take();
    }

    fn welcome(&mut self, connection: Connection) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if let Err(error) = self.driver.add(connection.fd(), place as u64) {
            tracing::warn!("Cannot watch a connection: {error}");
            self.free.push(place);
            self.shared.clients.remove(connection.session.handle.id);
            self.count_memory(-(connection.counted as isize));
            self.link.connections.fetch_sub(1, Relaxed);
            return;
        }
        self.places.insert(connection.session.handle.id, place);
        if connection.parked.is_some() {
            self.parked.push(place);
        }
        self.connections[place] = Some(Box::new(connection));
        self.list(place);
    }

    /// Hands connections to another worker, at the end of a turn, when no request of theirs is
    /// under way. Those that wait for something stay.
    fn give(&mut self, count: usize, to: &Link) {
        let candidates = (0..self.connections.len()).filter(|&place| {
            let c = self.connections[place].as_ref();
            c.is_some_and(|c| !c.listed && !c.is_occupied() && !c.wants_write)
        });
        let chosen: Vec<usize> = candidates.take(count).collect();
        for place in chosen {
            if let Some(connection) = self.detach(place) {
                to.adopt(*connection);
            }
        }
    }

    fn detach(&mut self, place: usize) -> Option<Box<Connection>> {
        let connection = self.connections[place].take()?;
        self.driver.remove(connection.fd());
        self.places.remove(&connection.session.handle.id);
        self.parked.retain(|&p| p != place);
        self.held.retain(|&p| p != place);
        self.jobs.retain(|&p| p != place);
        self.free.push(place);
        self.link.connections.fetch_sub(1, Relaxed);
        Some(connection)
    }

    /// Parses, prefetches and runs requests in waves until no parsed one is left.
    fn serve(&mut self, shared: &Shared) {
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
        for index in 0..wave.len() {
            let (planned, hints) = wave.take(index);
            let place = planned.connection;
            if self.run_one(shared, planned, hints) {
                self.limit_output(place);
            }
        }
        wave.clear();
    }

    /// Reads ahead for runs of requests that each name an element of the same key's collection.
    fn warm(&mut self, shared: &Shared, wave: &Wave) {
        let connections = &self.connections[..];
        let mut rest = wave.planned();
        while let Some(first) = rest.first() {
            let subject = wave::subject(connections, shared, wave, first);
            let run = match subject {
                None => 1,
                Some(_) => {
                    let same = |planned: &&Planned| {
                        wave::subject(connections, shared, wave, planned) == subject
                    };
                    rest.iter().take_while(same).count()
                }
            };
            if let Some((db, _)) = subject
                && run >= RUN
                // The key of the commands that name elements is their first argument.
                && let Some(key) = wave::argument(connections, first, 1)
                && let Some(hint) = wave.hint(first)
            {
                let elements = rest[..run].iter().filter_map(|planned| {
                    let row = shared.commands.get(planned.known?).row;
                    wave::argument(connections, planned, row.element)
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
        let share = if session.authenticated { SHARE } else { 1 };
        let db = session.db;
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

    #[cold]
    fn protocol_error(&mut self, place: usize, error: crate::resp::parse::ProtocolError) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let mut line = b"ERR ".to_vec();
        line.extend_from_slice(&error.message());
        self.shared.stats.count_error(&line);
        connection.out.error_bytes(&line);
        connection.session.close_after_reply = true;
        tracing::debug!("Protocol error ({}) from client", error.log_reason());
    }

    /// Runs a request; true when more output waits than a client may always leave waiting.
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
            connection.backlog.push_back(owned);
            return false;
        }
        let session = &mut connection.session;
        if session.is_closing() {
            return false;
        }
        let (big, many, mut few);
        few = [&[][..]; wave::FEW];
        let args = match wave::few(request, &connection.input, &mut few) {
            Some(list) => Args::new(list, &[]),
            None => {
                big = wave::take_big(request);
                connection.bulky |= !big.is_empty();
                many = wave::list(request, &connection.input, &big);
                Args::new(&many, &big)
            }
        };
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
        connection.out.len_pending() > REPLY_BUFFER
    }

    /// Takes a client off that is over its output limit, at once, as others of this turn may look.
    fn limit_output(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        if !connection.session.close_now
            && connection.over_output_limit(&self.worker.settings, self.worker.now.ms)
        {
            connection.session.close_now = true;
            let id = connection.session.handle.id;
            self.log_output_limit(place);
            self.shared.clients.remove(id);
        }
    }

    /// Runs parked requests again when the pause is over.
    fn retry_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Notices the end of a pause whose time is over.
        shared.pause.at(self.worker.now.ms);
        if shared.pause.ends() == self.pauses_ended {
            return;
        }
        self.pauses_ended = shared.pause.ends();
        self.worker.follow_pause(&shared);
        for place in std::mem::take(&mut self.parked) {
            if !self.retry(&shared, place) {
                self.parked.push(place);
            }
            self.list(place);
        }
    }

    /// Gives each command that goes on in slices its next one, and runs what waited behind those
    /// that are done.
    fn step_jobs(&mut self, shared: &Shared) {
        for place in std::mem::take(&mut self.jobs) {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let connection = &mut **connection;
            let Some(mut running) = connection.job.take() else {
                continue;
            };
            let (session, out) = (&connection.session, &mut connection.out);
            if !execute::step(shared, &mut self.worker, session, out, &mut running) {
                connection.job = Some(running);
                self.jobs.push(place);
                continue;
            }
            connection.parked = connection.backlog.pop_front();
            if !self.retry(shared, place) {
                self.parked.push(place);
            }
            self.list(place);
        }
    }

    /// Ends the waits for keys that have their reply or are over their time, and runs what waited
    /// behind them.
    fn end_waits(&mut self, shared: &Shared) {
        let now_ms = self.worker.now.ms;
        while let Some(first) = self.deadlines.first_entry()
            && first.key().0 < now_ms
        {
            let place = first.remove();
            if let Some(connection) = &self.connections[place]
                && let Some(parked) = &connection.blocked
            {
                blocking::time_out(shared, &mut self.worker, parked);
                self.woken.push(place);
            }
        }
        for place in std::mem::take(&mut self.woken) {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let Some(parked) = &connection.blocked else {
                continue;
            };
            let Some(reply) = parked.take_reply() else {
                blocking::look_again(shared, &mut self.worker, parked);
                continue;
            };
            if let Some(deadline) = parked.deadline {
                self.deadlines.remove(&(deadline, parked.ticket()));
            }
            connection.take_mail();
            connection.out.raw(&reply);
            connection.blocked = None;
            connection.parked = connection.backlog.pop_front();
            if !self.retry(shared, place) {
                self.parked.push(place);
            }
            self.list(place);
        }
    }

    /// Runs a connection's parked request and those that were parsed behind it; false when it
    /// has to wait on.
    fn retry(&mut self, shared: &Shared, place: usize) -> bool {
        let Some(connection) = &mut self.connections[place] else {
            return true;
        };
        let connection = &mut **connection;
        while let Some(parked) = connection.parked.take() {
            let list: SmallVec<[&[u8]; 8]> = parked.iter().map(|a| &a[..]).collect();
            let (db, mut hints) = (connection.session.db, Vec::new());
            let known = execute::prepare(shared, db, list.len(), |i| list[i], &mut hints);
            let prepared = Prepared {
                known,
                hints: &hints,
            };
            let flow = execute::request(
                shared,
                &mut self.worker,
                &mut connection.session,
                &mut connection.out,
                Args::new(&list, &[]),
                prepared,
            );
            if flow == Flow::Park {
                drop(list);
                connection.parked = Some(parked);
                return false;
            }
            connection.served += 1;
            if flow == Flow::Job {
                connection.job = self.worker.running.take();
                self.jobs.push(place);
                return true;
            }
            if flow == Flow::Block {
                block(
                    &mut connection.blocked,
                    &mut self.worker,
                    &mut self.deadlines,
                    place,
                );
                return true;
            }
            if connection.session.is_closing() {
                connection.backlog.clear();
            }
            if connection.session.sync.is_some() {
                return true;
            }
            connection.parked = connection.backlog.pop_front();
        }
        true
    }

    /// Writes replies and settles every connection that this turn touched.
    fn finish(&mut self) {
        // Messages that commands of this turn pushed to connections of this worker ring the
        // bell, and so are written in the next turn.
        let held_until = self.held_until();
        for place in std::mem::take(&mut self.active) {
            match (held_until, &mut self.connections[place]) {
                (Some(offset), Some(connection)) if !connection.out.is_empty() => {
                    connection.listed = false;
                    connection.held_until = Some(offset);
                    self.held.push(place);
                }
                _ => self.settle(place),
            }
        }
    }

    /// Under `appendfsync always` nothing is answered that the disk does not know: where the stream
    /// ends, if the disk is behind.
    fn held_until(&self) -> Option<u64> {
        let append_only = &self.shared.append_only;
        if !append_only.holds() {
            return None;
        }
        let end = self.shared.stream.offset();
        if append_only.progress.durable() >= end {
            return None;
        }
        append_only.progress.hold(&self.link.bell);
        // The writer may have passed in between, and rung for nobody.
        (append_only.progress.durable() < end).then_some(end)
    }

    /// Has the replies sent that the disk has caught up with, and their connections served again.
    fn release_held(&mut self, shared: &Shared) {
        if self.held.is_empty() {
            return;
        }
        let durable = shared.append_only.progress.durable();
        let holds = shared.append_only.holds();
        for place in std::mem::take(&mut self.held) {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            match connection.held_until {
                Some(offset) if offset > durable && holds => {
                    self.held.push(place);
                    continue;
                }
                None => continue,
                Some(_) => connection.held_until = None,
            }
            self.settle(place);
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            if connection.parked.is_none()
                && connection.job.is_none()
                && connection.blocked.is_none()
            {
                connection.parked = connection.backlog.pop_front();
                if !self.retry(shared, place) {
                    self.parked.push(place);
                }
            }
            self.list(place);
        }
        if !self.held.is_empty() {
            shared.append_only.progress.hold(&self.link.bell);
            if shared.append_only.progress.durable() != durable {
                // It moved before the writer knew of us.
                self.link.bell.ring();
            }
        }
    }

    fn settle(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let connection = &mut **connection;
        connection.listed = false;
        if connection.session.sync.is_some() && !connection.session.is_closing() {
            self.hand_over(place);
            return;
        }
        connection.take_mail();
        // A broken stream is told of when everything before it has its reply.
        if !connection.is_occupied()
            && let Some(error) = connection.broken.take()
        {
            self.protocol_error(place, error);
        }
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let connection = &mut **connection;
        let now_ms = self.worker.now.ms;
        let session = &connection.session;
        // A request that waits for the end of a pause, or for keys, dies with its client.
        let waits = connection.parked.is_some() || connection.blocked.is_some();
        let gone = connection.ended && waits;
        if session.handle.is_killed() || session.close_now || gone {
            self.close(place);
            return;
        }
        // Flags decide which limit applies.
        session.publish();
        let settings = Arc::clone(&self.worker.settings);
        if session.handle.has_overflowed() || connection.over_output_limit(&settings, now_ms) {
            self.log_output_limit(place);
            self.close(place);
            return;
        }
        match connection.flush(&self.driver) {
            Ok(0) => {}
            Ok(written) => {
                bump(&self.worker.stats.counters.output_bytes, written as u64);
                bump(&self.worker.stats.counters.writes, 1);
            }
            Err(_) => {
                self.close(place);
                return;
            }
        }
        // A peer that closed its sending half still gets its replies.
        let last = connection.session.close_after_reply || connection.ended;
        if last && connection.out.is_empty() && connection.job.is_none() {
            self.close(place);
            return;
        }
        let keep = self.places.len() <= KEPT_BUFFERS;
        connection.release_input(&mut self.buffers, keep);
        let served = std::mem::take(&mut connection.served);
        let change = connection.publish(&settings, now_ms, served);
        self.count_memory(change);
        self.watch(place);
    }

    /// Lets a connection go that becomes a replica.
    fn hand_over(&mut self, place: usize) {
        if let Some(connection) = self.detach(place) {
            let counted = connection.counted;
            self.shared.status.client_memory.fetch_sub(counted, Relaxed);
            let (session, socket, unsent, input) = connection.into_parts();
            replicas::hand_over(&self.shared, session, socket, unsent, input);
        }
    }

    /// Keeps the sum that `maxmemory-clients` limits, and the limit.
    fn count_memory(&self, change: isize) {
        let sum = &self.shared.status.client_memory;
        if change != 0 {
            // Wraps as a subtraction when negative.
            sum.fetch_add(change as usize, Relaxed);
        }
        if self.worker.settings.maxmemory_clients != 0 {
            evict::clients(&self.shared, &self.worker);
        }
    }

    /// Tells the driver what this connection waits for, when that changed.
    fn watch(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let wants_write = !connection.out.is_empty();
        let reads = !connection.ended;
        if (wants_write, reads) != (connection.wants_write, connection.reads) {
            connection.wants_write = wants_write;
            connection.reads = reads;
            let watched = self
                .driver
                .watch(connection.fd(), place as u64, reads, wants_write);
            if watched.is_err() {
                self.close(place);
            }
        }
    }

    #[cold]
    fn log_output_limit(&self, place: usize) {
        self.shared
            .stats
            .global
            .output_limit_disconnections
            .fetch_add(1, Relaxed);
        if let Some(connection) = &self.connections[place] {
            tracing::warn!(
                "Client {} closed for overcoming of output buffer limits.",
                connection
                    .session
                    .handle
                    .describe(self.worker.now.ms, &|_| String::new()),
            );
        }
    }

    /// Ends a connection and everything it had in the server.
    fn close(&mut self, place: usize) {
        let Some(mut connection) = self.detach(place) else {
            return;
        };
        let counted = connection.counted;
        self.shared.status.client_memory.fetch_sub(counted, Relaxed);
        let session = &mut connection.session;
        // Nothing more is answered, whatever cleaning up would say.
        session.replies = Replies::Off;
        if let Some(parked) = connection.blocked.take() {
            if let Some(deadline) = parked.deadline {
                self.deadlines.remove(&(deadline, parked.ticket()));
            }
            blocking::abandon(&self.shared, &parked);
        }
        execute::disconnect(&self.shared, session);
        self.shared.clients.remove(session.handle.id);
    }

    /// What is looked at now and then: idle clients, output limits, shrinking buffers. Of many
    /// connections a tenth each time, so that many idle ones cost next to nothing.
    fn tick(&mut self) {
        let settings = Arc::clone(&self.worker.settings);
        let timeout_ms = i64::from(settings.timeout) * 1000;
        let now_ms = self.worker.now.ms;
        let share = self.connections.len().div_ceil(10).max(TICKED);
        for _ in 0..share.min(self.connections.len()) {
            let place = self.tick_at % self.connections.len();
            self.tick_at = place + 1;
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let idle = now_ms - connection.session.handle.live.last_ms.load(Relaxed);
            let exempt = connection.is_occupied() || connection.session.is_subscriber();
            if timeout_ms > 0 && idle > timeout_ms && !exempt {
                tracing::debug!("Closing idle client");
                self.close(place);
            } else if connection.session.handle.has_overflowed()
                || connection.over_output_limit(&settings, now_ms)
            {
                self.log_output_limit(place);
                self.close(place);
            } else {
                connection.shrink(now_ms);
                let change = connection.publish(&settings, now_ms, 0);
                self.count_memory(change);
            }
        }
        if self.buffers.len() > 8 {
            self.buffers.truncate(8);
        }
    }
}

/// Keeps the wait that the connection's command just began.
fn block(
    blocked: &mut Option<Arc<Parked>>,
    worker: &mut Worker,
    deadlines: &mut BTreeMap<(i64, u64), usize>,
    place: usize,
) {
    *blocked = worker.parked.take();
    if let Some(parked) = blocked
        && let Some(deadline) = parked.deadline
    {
        deadlines.insert((deadline, parked.ticket()), place);
    }
}
