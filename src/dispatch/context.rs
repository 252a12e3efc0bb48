//! What the parts of the server share, and what a handler sees of it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};

use crate::acl::Users;
use crate::base::alloc;
use crate::base::clock::Now;
use crate::base::sync;
use crate::base::ticks::Ticks;
use crate::client::registry::Registry;
use crate::client::session::{Replies, Session};
use crate::client::tracking::Prefixes;
use crate::cluster::handle::Cluster;
use crate::cluster::routes::Routes;
use crate::config::{Config, Settings};
use crate::keyspace::access::Access;
use crate::keyspace::db::{Db, Effects, Env};
use crate::keyspace::eviction::Evictor;
use crate::keyspace::shards::{GaveUp, Keyspace, LockSet};
use crate::observe::latency::Latency;
use crate::observe::rates::Rates;
use crate::observe::slowlog::SlowLog;
use crate::observe::stats::{Counters, Stats, WorkerStats, bump};
use crate::persistence::aof::AppendOnly;
use crate::persistence::state::Durability;
use crate::propagation::{Replication, Stream};
use crate::pubsub::Hub;
use crate::resp::write::Output;
use crate::scripts::Scripts;
use crate::sentinel::handle::Sentinel;
use crate::wire::Contexts;

use super::args::Args;
use super::blocking::{Aftermath, Block, Blocked, Parked};
use super::chore::{Chore, Chores};
use super::command::{Command, Flags};
use super::control::Control;
use super::errand::Errands;
use super::error::Error;
use super::job::{Job, Running};
use super::monitor::Monitors;
use super::pause::Pause;
use super::propagate::Propagated;
use super::source::Source;
use super::table::{Known, Table};
use super::threads::Threads;
use super::turns::Turns;

/// The server: everything that its threads share.
pub struct Shared {
    /// Parameters.
    pub config: Config,
    /// Keys and values.
    pub keyspace: Keyspace,
    /// Connected clients.
    pub clients: Registry,
    /// Users, and what they may do.
    pub users: Users,
    /// Prefixes of keys of which clients keep copies.
    pub prefixes: Prefixes,
    /// Subscriptions.
    pub pubsub: Hub,
    /// The log of effects.
    pub stream: Arc<Stream>,
    /// Replicas.
    pub replication: Replication,
    /// Commands.
    pub commands: Table,
    /// Counters.
    pub stats: Stats,
    /// SLOWLOG.
    pub slowlog: SlowLog,
    /// LATENCY.
    pub latency: Latency,
    /// Averages per second.
    pub rates: Rates,
    /// Clients in MONITOR.
    pub monitors: Monitors,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// Saving and loading.
    pub durability: Durability,
    /// Scripts and libraries of functions.
    pub scripts: Scripts,
    /// The append-only file.
    pub append_only: AppendOnly,
    /// Clients that wait for keys.
    pub blocked: Blocked,
    /// Clients that wait for what other threads do.
    pub chores: Chores,
    /// Commands that wait for other servers.
    pub errands: Errands,
    /// Keeps memory below `maxmemory`.
    pub evictor: Evictor,
    /// What commands ask of the server's frame (listeners, shutdown, log).
    pub control: Control,
    /// Starts threads.
    pub threads: Threads,
    /// Turns of those who run commands or remove keys.
    pub turns: Turns,
    /// This node of a cluster, in cluster mode.
    pub cluster: Option<Arc<Cluster>>,
    /// The sentinel that this server is, in that mode.
    pub sentinel: Option<Arc<Sentinel>>,
    /// What commands know of the cluster.
    pub routes: Routes,
    /// What TLS needs, where it is used.
    pub tls: Contexts,
    /// What happened once for all.
    pub status: Status,
}

impl Shared {
    /// The mode the server runs in, as clients are told.
    pub fn mode(&self) -> &'static str {
        match (&self.sentinel, self.routes.is_enabled()) {
            (Some(_), _) => "sentinel",
            (None, true) => "cluster",
            (None, false) => "standalone",
        }
    }

    /// Waits until every thread has ended the turn that it is in (see [`Turns`]); to be called by threads that
    /// are in none. A MIGRATE that awaits its target's answer is cut short.
    pub fn pass_turns(&self) {
        let _claims = self.keyspace.close_claims();
        self.turns.pass();
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.stats.sum(|c: &Counters| &c.changes)
    }

    /// Changes that the last dump file does not hold.
    pub fn unsaved_changes(&self) -> u64 {
        let saved = self.durability.saves.saved_changes.load(Relaxed);
        self.changes().saturating_sub(saved)
    }

    /// Values that wait to be freed in the background.
    pub fn lazyfree_pending(&self) -> usize {
        self.keyspace.lazyfree.pending()
    }

    /// Values that were freed in the background.
    pub fn lazyfreed(&self) -> usize {
        self.keyspace.lazyfree.freed()
    }

    /// Estimated share of keys that have expired but are still there, in percent.
    pub fn expired_stale_percent(&self) -> f64 {
        self.keyspace.expiry.stale() * 100.0
    }

    /// Estimated time to live of a database's volatile keys, in milliseconds.
    pub fn average_ttl(&self, db: usize) -> i64 {
        self.keyspace.expiry.average_ttl(db)
    }
}

/// Facts about the process and switches that commands and cron share.
pub struct Status {
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    /// Unix time in milliseconds of the start.
    pub started_ms: i64,
    /// Number of workers.
    pub workers: usize,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: AtomicBool,
    /// DEBUG PAUSE-CRON.
    pub cron_paused: AtomicBool,
    /// DEBUG REPLYBUFFER PEAK-RESET-TIME: milliseconds after which the peak of a reply buffer is
    /// forgotten; -1 is never.
    pub reply_peak_reset_ms: AtomicI64,
    /// DEBUG REPLYBUFFER RESIZING.
    pub reply_resizing: AtomicBool,
    /// DEBUG SLEEP, and the end of the server: workers stop before their next turn or reply.
    pub stall: Stall,
    /// When a shutdown that waits for replicas goes on in any case, in Unix milliseconds; 0 without one.
    pub shutdown_ms: AtomicI64,
    /// Highest `used_memory` seen, in bytes.
    pub peak_memory: AtomicUsize,
    /// `used_memory` once the server had started, in bytes.
    pub startup_memory: AtomicUsize,
}

/// Default of [`Status::reply_peak_reset_ms`].
pub const REPLY_PEAK_RESET_MS: i64 = 5000;

/// Stops all commands for a while, as a hung single thread would.
#[derive(Default)]
pub struct Stall {
    active: sync::atomic::AtomicBool,
    gate: sync::Mutex<()>,
}

impl Stall {
    /// Runs `hang` while no worker begins a new turn or sends what the present one replies.
    ///
    /// What `hang` reads under a lock (the stream, the shards) so holds all that was ever
    /// acknowledged: who changes it later finds the gate closed before it replies.
    pub fn during<T>(&self, hang: impl FnOnce() -> T) -> T {
        let _gate = self.gate.lock();
        self.active
            .store(true, std::sync::atomic::Ordering::Release);
        let result = hang();
        self.active
            .store(false, std::sync::atomic::Ordering::Release);
        result
    }

    /// Waits while another thread hangs.
    #[inline]
    pub fn wait(&self) {
        // Acquire, so that who finds the hang over sees all that was done during it.
        if self.active.load(std::sync::atomic::Ordering::Acquire) {
            drop(self.gate.lock());
        }
    }
}

/// What a worker carries from command to command.
pub struct Worker {
    /// Which worker this is.
    pub index: usize,
    /// Parameters, as of the start of the turn.
    pub settings: Arc<Settings>,
    settings_version: u64,
    /// [`Users::version`], as of the last [`Worker::look_around`].
    pub users_version: u64,
    /// What commands see beside keys.
    pub env: Env,
    /// The time of the turn.
    pub now: Now,
    /// What the running command did.
    pub effects: Effects,
    /// This worker's counters.
    pub stats: Arc<WorkerStats>,
    /// When the last command ended.
    pub ticks: Ticks,
    /// Nothing stands against commands of clients that are in no particular state, but against those of
    /// [`Worker::refused`], as of the last [`Worker::look_around`].
    calm: bool,
    /// On a replica, writes.
    refused: Flags,
    /// This is a node of a cluster, and which requests are its own is to be asked: not of what it obeys.
    pub(super) in_cluster: bool,
    /// This is a replica whose clients may write.
    pub(super) is_writable_replica: bool,
    /// Once this thread holds so much more memory, by [`alloc::balance`], it has to look again.
    calm_until: isize,
    /// Commands of this duration may be for the slow log or the latency monitor.
    pub notable_nanos: u64,
    /// Left by a command that goes on in slices, for its connection.
    pub job: Option<Box<dyn Job>>,
    /// The job of the command that just ran, to be taken by its connection.
    pub running: Option<Running>,
    /// The request that just came to its turn did nothing and is to be tried again.
    pub(super) postponed: bool,
    /// The wait that the command that just ran began, to be taken by its connection.
    pub parked: Option<Arc<Parked>>,
    /// What EXEC is to wait for once its shards are let go.
    pub chore: Option<&'static Chore>,
    /// A command waits for replicas: they are to be asked at the end of the turn what they have, once
    /// for all commands.
    pub asks_replicas: bool,
    /// Memory was short when the present request was looked at, and nothing could be evicted.
    pub out_of_memory: bool,
    /// Whose commands these are.
    pub source: Source,
    /// A command of an owner of slots has failed.
    pub owner_failed: Cell<bool>,
    /// Id of the command of the log or the primary that runs, which may be EXEC; `None` of one that
    /// there is not.
    pub obeyed: Option<usize>,
    /// What serving waiting clients left to be done without locks.
    pub aftermath: Aftermath,
    /// What a transaction propagates, collected until its end.
    pub pending: Vec<Propagated>,
    /// Where the stream ended after what the running command appended; 0 when it did not.
    pub appended: u64,
}

impl Worker {
    /// The context of a thread that runs what a log or the primary says. What a log says is not
    /// counted.
    pub fn for_source(shared: &Shared, source: Source) -> Self {
        let stats = match source {
            Source::Log => Stats::detached(shared.commands.len()),
            _ => shared.stats.applier(),
        };
        let mut worker = Self::with(shared, 0, stats);
        worker.source = source;
        worker.in_cluster &= !source.is_obeyed();
        worker.renew_env();
        worker
    }

    /// The context of worker `index`.
    pub fn new(shared: &Shared, index: usize) -> Self {
        Self::with(shared, index, shared.stats.worker(index))
    }

    fn with(shared: &Shared, index: usize, stats: Arc<WorkerStats>) -> Self {
        let settings = shared.config.load();
        let now = Now::read();
        Self {
            index,
            env: env_of(&settings, now),
            settings_version: shared.config.version(),
            users_version: shared.users.version(),
            now,
            effects: Effects::default(),
            stats,
            ticks: Ticks::now(),
            calm: false,
            refused: Flags::NONE,
            in_cluster: shared.routes.is_enabled(),
            is_writable_replica: false,
            calm_until: 0,
            notable_nanos: notable_nanos(&settings),
            settings,
            job: None,
            running: None,
            postponed: false,
            parked: None,
            chore: None,
            asks_replicas: false,
            out_of_memory: false,
            source: Source::Client,
            owner_failed: Cell::new(false),
            obeyed: None,
            aftermath: Aftermath::default(),
            pending: Vec::new(),
            appended: 0,
        }
    }

    /// Reads the clock, and the parameters if they changed. At the start of each turn and after
    /// commands that may have changed either.
    #[inline]
    pub fn refresh(&mut self, shared: &Shared) {
        self.now = Now::read();
        self.ticks = Ticks::now();
        let version = shared.config.version();
        if version != self.settings_version {
            self.settings_version = version;
            self.settings = shared.config.load();
            self.notable_nanos = notable_nanos(&self.settings);
        }
        self.renew_env();
        self.follow_pause(shared);
        self.look_around(shared);
    }

    /// Looks at what may stand against commands, in place of a look before each: after the requests
    /// of a wave were received, so that none misses what was answered to anybody before it was sent.
    #[inline]
    pub fn look_around(&mut self, shared: &Shared) {
        self.calm = super::admit::is_calm(shared, &self.settings);
        self.refused = super::admit::refused_as_replica(shared, &self.settings);
        self.users_version = shared.users.version();
        let follows = shared.replication.upstream.follows();
        self.is_writable_replica =
            follows && !self.settings.replica_read_only && self.source == Source::Client;
        self.calm_until = super::admit::calm_until(shared, &self.settings);
    }

    /// True while nothing stands against a command of clients that are in no particular state.
    #[inline]
    pub fn is_calm_for(&self, known: &Known) -> bool {
        self.calm
            && !known.flags.has(self.refused)
            && (self.calm_until == isize::MAX || alloc::balance() < self.calm_until)
    }

    fn renew_env(&mut self) {
        self.env = env_of(&self.settings, self.now);
        if self.source == Source::Log {
            self.env.notify = 0;
        }
        if self.source.is_obeyed() {
            self.env.obeys = true;
            self.env.expired_before_ms = i64::MIN;
        }
    }

    /// Has the time that stood still within a transaction go on.
    pub fn catch_up(&mut self) {
        let now = Now::read();
        if now.ms > self.now.ms && !self.source.is_obeyed() {
            self.now = now;
            self.env.now_ms = now.ms;
            self.env.expired_before_ms = now.ms;
        }
    }

    /// While CLIENT PAUSE holds writes back, no key is removed for having expired: that would be
    /// a write. Nor on a replica: its primary does that.
    #[inline]
    pub fn follow_pause(&mut self, shared: &Shared) {
        let is_paused = shared.pause.is_set() && shared.pause.at(self.now.ms).is_some();
        let follows = shared.replication.upstream.follows();
        let leaves_it = follows && self.settings.replica_read_only || self.source == Source::Owner;
        self.env.expires_keys = !(is_paused || leaves_it);
    }

    /// On a writable replica: whether the command that comes leaves keys whose time is over.
    #[cold]
    pub(super) fn leave_expired_to_primary(&mut self, shared: &Shared, leaves: bool) {
        self.follow_pause(shared);
        self.env.expires_keys &= !leaves;
    }

    /// Counts what the command found expired, and forgets it.
    #[cold]
    pub(super) fn count_expired(&mut self) {
        let (counters, effects) = (&self.stats.counters, &mut self.effects);
        bump(&counters.expired, effects.expired().len() as u64);
        let fields = effects.expired_fields().len() as u64;
        bump(&counters.expired_fields, fields);
        effects.forget_expired();
    }

    /// Takes over changed parameters without reading the clock.
    pub fn refresh_settings(&mut self, shared: &Shared) {
        if shared.config.version() != self.settings_version {
            self.settings_version = shared.config.version();
            self.settings = shared.config.load();
            self.notable_nanos = notable_nanos(&self.settings);
            self.renew_env();
            self.follow_pause(shared);
        }
    }
}

/// From which duration on a command may concern the slow log or the latency monitor.
fn notable_nanos(settings: &Settings) -> u64 {
    let slow = u64::try_from(settings.slowlog_log_slower_than);
    let slow = slow.map_or(u64::MAX, |micros| micros.saturating_mul(1000));
    match settings.latency_monitor_threshold {
        millis @ 1.. => slow.min((millis as u64).saturating_mul(1_000_000)),
        _ => slow,
    }
}

/// What commands see beside keys, by parameters and time.
pub fn env_of(settings: &Settings, now: Now) -> Env {
    Env {
        now_ms: now.ms,
        expired_before_ms: now.ms,
        access: Access::of(settings, now.ms),
        notify: settings.notify_keyspace_events.0,
        obeys: false,
        expires_keys: true,
        touches: true,
        reads_any_key: true,
        quiet_client: 0,
        lazy_expire: settings.lazyfree_lazy_expire,
        lazy_overwrite: settings.lazyfree_lazy_server_del,
    }
}

/// What a command on keys sees: its arguments, the database through its locks, the reply.
pub struct DataCtx<'c, 'k> {
    /// A script runs it.
    pub of_script: bool,
    /// The request.
    pub args: Args<'c>,
    /// The selected database.
    pub db: Db<'c, 'k>,
    /// Where the reply goes.
    pub out: &'c mut Output,
    /// Parameters.
    pub settings: &'c Settings,
    /// The command waited, and this key became ready: it looks at no other.
    pub woken: Option<&'c [u8]>,
    /// The command may wait. (Not within a transaction, and not when it is played back: there it answers
    /// as if its time were over.)
    pub may_block: bool,
    /// What [`DataCtx::block`] asked for.
    pub(super) parks: &'c mut Option<Box<Block>>,
}

impl DataCtx<'_, '_> {
    /// Most bytes that a string may grow to (`proto-max-bulk-len`).
    pub fn max_string_len(&self) -> i64 {
        match self.db.env().obeys {
            true => i64::MAX,
            false => self.settings.proto_max_bulk_len,
        }
    }

    /// Has the client wait; the handler returns without a reply and is run again when a key is
    /// ready. Where commands may not wait, the reply is that of a wait whose time is over.
    pub fn block(&mut self, block: Block) {
        if self.may_block {
            *self.parks = Some(Box::new(block));
        } else {
            self.out.null_array();
        }
    }
}

/// What a command on the server sees.
pub struct ServerCtx<'c, 'k> {
    /// The server.
    pub shared: &'k Shared,
    /// The worker that runs it.
    pub worker: &'c mut Worker,
    /// The client.
    pub session: &'c mut Session,
    /// The command's own row.
    pub command: &'static Command,
    /// The request.
    pub args: Args<'c>,
    /// Where the reply goes.
    pub out: &'c mut Output,
    /// Shards that the surrounding transaction holds.
    pub held: Option<&'c mut LockSet<'k>>,
}

impl<'k> ServerCtx<'_, 'k> {
    /// The command has exactly one reply, at once: it is part of a transaction or played back from a log.
    pub fn denies_blocking(&self) -> bool {
        self.held.is_some() || self.worker.source.is_obeyed()
    }

    /// Runs `work` on a database with all shards locked; what it did is propagated as this
    /// command, and accounted.
    ///
    /// # Errors
    /// A script holds some that runs for long. (Not when the command has to be obeyed.)
    pub fn with_all<R>(&mut self, work: impl FnOnce(&mut Db<'_, 'k>) -> R) -> Result<R, Error> {
        let in_time = |keyspace: &'k Keyspace| keyspace.lock_all_in_time();
        self.with_locks(in_time, |keyspace| keyspace.lock_all(), work)
    }

    /// As [`ServerCtx::with_all`], with the shards of some keys.
    ///
    /// # Errors
    /// Likewise.
    pub fn with_keys<R>(
        &mut self,
        keys: &[&[u8]],
        work: impl FnOnce(&mut Db<'_, 'k>) -> R,
    ) -> Result<R, Error> {
        let hashes = |keyspace: &'k Keyspace| keys.iter().map(|key| keyspace.hash(key));
        let in_time = |keyspace: &'k Keyspace| keyspace.lock_many_in_time(hashes(keyspace));
        let lock = |keyspace: &'k Keyspace| keyspace.lock_many(hashes(keyspace));
        self.with_locks(in_time, lock, work)
    }

    /// As [`ServerCtx::with_all`], with one shard: for walks, shard by shard.
    ///
    /// # Errors
    /// Likewise.
    pub fn with_shard<R>(
        &mut self,
        shard: usize,
        work: impl FnOnce(&mut Db<'_, 'k>) -> R,
    ) -> Result<R, Error> {
        let in_time = |keyspace: &'k Keyspace| {
            let guard = keyspace.lock_in_time(shard);
            guard.map(LockSet::One)
        };
        let lock = |keyspace: &'k Keyspace| LockSet::One(keyspace.lock(shard));
        self.with_locks(in_time, lock, work)
    }

    /// As [`ServerCtx::with_shard`], however long a script holds it: for walks that do not end half way.
    ///
    /// # Errors
    /// It is claimed, and the command begins again when it is not. (Not when the command has to be obeyed.)
    pub fn await_shard<R>(
        &mut self,
        shard: usize,
        work: impl FnOnce(&mut Db<'_, 'k>) -> R,
    ) -> Result<R, Error> {
        let unclaimed = |keyspace: &'k Keyspace| {
            let guard = keyspace.lock_unclaimed(shard);
            guard.map(LockSet::One).ok_or(GaveUp::Claimed)
        };
        let lock = |keyspace: &'k Keyspace| LockSet::One(keyspace.lock(shard));
        self.with_locks(unclaimed, lock, work)
    }

    fn with_locks<R>(
        &mut self,
        in_time: impl FnOnce(&'k Keyspace) -> Result<LockSet<'k>, GaveUp>,
        lock: impl FnOnce(&'k Keyspace) -> LockSet<'k>,
        work: impl FnOnce(&mut Db<'_, 'k>) -> R,
    ) -> Result<R, Error> {
        if self.held.is_some() || self.worker.source.is_obeyed() {
            let keyspace = &self.shared.keyspace;
            return Ok(self.under(|| lock(keyspace), work));
        }
        match in_time(&self.shared.keyspace) {
            Ok(locks) => Ok(self.under(|| locks, work)),
            Err(why) => Err(super::admit::gave_up(self.shared, why)),
        }
    }

    /// Runs `work` under the locks that are held, or else those that `lock` gives.
    fn under<R>(
        &mut self,
        lock: impl FnOnce() -> LockSet<'k>,
        work: impl FnOnce(&mut Db<'_, 'k>) -> R,
    ) -> R {
        let call = super::locked::Call {
            shared: self.shared,
            worker: self.worker,
            db: self.session.db,
            args: self.args,
            hints: &[],
            no_touch: self.session.no_touch,
        };
        match &mut self.held {
            Some(held) => call.under(held, true, |mut db, _| work(&mut db)),
            None => {
                let mut locks = lock();
                let result = call.under(&mut locks, false, |mut db, _| work(&mut db));
                super::locked::conclude(self.shared, self.worker, locks);
                result
            }
        }
    }

    /// Shows the command to clients in MONITOR, for one that runs others: it is shown before them.
    pub fn feed_monitors(&self) {
        if !self.shared.monitors.is_empty() {
            let (now_us, address) = (
                crate::base::clock::unix_us(),
                self.session.monitor_address(),
            );
            self.shared
                .monitors
                .feed(now_us, self.session.db, address, self.args.all());
        }
    }

    /// Moves what others sent to this client to its output, before what the command answers.
    pub fn take_mail(&mut self) {
        for message in self.session.handle.mailbox.take() {
            self.out.append_bytes(message);
        }
    }

    /// Writes something that is no reply: CLIENT REPLY OFF does not silence it.
    pub fn push(&mut self, write: impl FnOnce(&mut Output)) {
        if self.session.replies == Replies::On {
            return write(self.out);
        }
        let mut out = Output::new();
        out.set_protocol(self.out.protocol());
        write(&mut out);
        self.session.handle.mailbox.push(out.to_vec().into());
    }

    /// Settings of the turn, kept beyond borrows of the context.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.worker.settings)
    }
}

impl crate::pubsub::Sender for ServerCtx<'_, '_> {
    fn id(&self) -> u64 {
        self.session.handle.id
    }

    fn deliver(&mut self, message: &bytes::Bytes) {
        // CLIENT REPLY OFF silences replies, not messages: these go by the mailbox then.
        if self.session.replies != Replies::On {
            self.session.handle.mailbox.push(message.clone());
            return;
        }
        self.take_mail();
        self.out.append_bytes(message.clone());
    }
}
