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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::connection::{Closed, Connection, READ_SIZE};
use super::driver::{Driver, Ready};
use crate::base::ticks::Ticks;
use crate::client::mailbox::Bell;
use crate::client::session::Session;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::subscriptions;
use crate::dispatch::wave::Wave;
use crate::observe::stats::{WorkerStats, bump};
use crate::replication::{FullSyncs, primary};
use crate::wire::Stream;

mod scripts;
mod serve;
mod settle;
mod waits;

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
    /// Its statistics.
    pub stats: Arc<WorkerStats>,
    /// Nanoseconds it has not been waiting, since it started.
    pub busy_nanos: AtomicU64,
    /// How many connections it shall hand to which worker.
    pub give: Mutex<Option<(usize, Arc<Link>)>>,
    stop: AtomicBool,
}

impl Link {
    /// The link of a worker to be started, which keeps `stats`.
    pub fn new(stats: Arc<WorkerStats>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            bell: Arc::new(Bell::new()?),
            newcomers: Mutex::default(),
            stats,
            busy_nanos: AtomicU64::new(0),
            give: Mutex::default(),
            stop: AtomicBool::new(false),
        }))
    }

    /// Hands a connection to the worker.
    pub fn adopt(&self, connection: Connection) {
        self.stats.connections.fetch_add(1, Relaxed);
        connection.session.handle.set_bell(Arc::clone(&self.bell));
        self.newcomers.lock().push(connection);
        self.bell.ring();
    }

    /// Makes a connection of an accepted stream and hands it over.
    pub fn accept(&self, stream: Stream, session: Session) {
        self.adopt(Connection::new(stream, session));
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
    /// Where connections go that become replicas.
    full_syncs: Arc<FullSyncs>,
    link: Arc<Link>,
    driver: Driver,
    worker: Worker,
    /// Serves others while a script runs for long with the context above.
    spare: Option<Box<Worker>>,
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
    /// Connections with input that no socket will report: it is decrypted already.
    buffered: Vec<usize>,
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
    pub fn new(
        shared: Arc<Shared>,
        full_syncs: Arc<FullSyncs>,
        link: Arc<Link>,
        index: usize,
    ) -> io::Result<Self> {
        let driver = Driver::new()?;
        driver.add(link.bell.fd(), BELL)?;
        shared.pause.wake(&link.bell);
        Ok(Self {
            worker: Worker::new(&shared, index),
            spare: None,
            shared,
            full_syncs,
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
            buffered: Vec::new(),
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
        if !self.jobs.is_empty() || !self.buffered.is_empty() {
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
            // It is over once the clock has passed its last millisecond.
            let last = self.shared.pause.until_ms();
            let left = last.saturating_add(1) - crate::base::clock::unix_ms();
            return Some(TICK.min(Duration::from_millis(left.max(0) as u64)));
        }
        (!self.places.is_empty()).then_some(TICK)
    }

    fn turn(&mut self, ready: &[Ready]) {
        if !self.may_go_on() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let _turn = shared.turns.enter(self.worker.index);
        self.worker.refresh(&shared);
        bump(&self.worker.stats.counters.turns, 1);
        for event in ready {
            if event.token == BELL {
                self.answer_bell();
            } else {
                self.socket_ready(event);
            }
        }
        self.read_buffered();
        self.retry_parked();
        self.step_jobs(&shared);
        self.end_waits(&shared);
        self.release_held(&shared);
        self.serve(&shared);
        if std::mem::take(&mut self.worker.asks_replicas) {
            primary::ask_for_confirmation(&shared);
        }
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
        if connection.is_sated() {
            // Its replies wait for the disk, and so do its further requests.
            self.driver.remove(connection.fd());
            connection.is_watched = false;
            return;
        }
        if event.readable && connection.reads && self.read(place).is_none() {
            return;
        }
        self.list(place);
    }

    /// Reads on where something was left that no socket will report.
    fn read_buffered(&mut self) {
        for place in std::mem::take(&mut self.buffered) {
            let Some(Some(connection)) = self.connections.get_mut(place) else {
                continue;
            };
            connection.is_buffered = false;
            // One whose replies wait for the disk is looked at again when they have left.
            if !connection.has_unread() || !connection.reads || !connection.is_watched {
                continue;
            }
            self.socket_ready(&Ready {
                token: place as u64,
                readable: true,
                writable: false,
            });
        }
    }

    /// Remembers a connection with input that no socket will report.
    #[inline]
    fn note_buffered(&mut self, place: usize) {
        if let Some(connection) = &mut self.connections[place]
            && connection.has_unread()
            && !connection.is_buffered
        {
            connection.is_buffered = true;
            self.buffered.push(place);
        }
    }

    /// Reads from a connection; the number of bytes, or `None` when it had to be closed.
    fn read(&mut self, place: usize) -> Option<usize> {
        let connection = self.connections[place].as_mut()?;
        let settings = &self.worker.settings;
        match connection.read(&mut self.buffers, settings) {
            Ok(bytes) => {
                if bytes > 0 {
                    bump(&self.worker.stats.counters.input_bytes, bytes as u64);
                    bump(&self.worker.stats.counters.reads, 1);
                }
                // What was received counts before it is executed: who sends too much at once
                // is evicted without being served.
                if settings.maxmemory_clients != 0 {
                    connection.publish(self.worker.now.ms, 0);
                    self.evict_clients();
                }
                self.note_buffered(place);
                Some(bytes)
            }
            Err(reason) => {
                self.log_closed(place, &reason);
                self.close(place);
                None
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
                if let Some(connection) = &mut self.connections[place]
                    && connection.session.handle.has_left_channels()
                {
                    connection.take_mail();
                    let (session, out) = (&mut connection.session, &mut connection.out);
                    subscriptions::confirm_left(session, out);
                }
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

    fn welcome(&mut self, mut connection: Connection) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if let Err(error) = self.driver.add(connection.fd(), place as u64) {
            tracing::warn!("Cannot watch a connection: {error}");
            self.free.push(place);
            self.shared.clients.remove(connection.session.handle.id);
            connection.end_memory();
            self.link.stats.connections.fetch_sub(1, Relaxed);
            return;
        }
        self.places.insert(connection.session.handle.id, place);
        if connection.parked.is_some() {
            self.parked.push(place);
        }
        connection.is_buffered = false;
        self.connections[place] = Some(Box::new(connection));
        self.note_buffered(place);
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
        self.link.stats.connections.fetch_sub(1, Relaxed);
        Some(connection)
    }
}
