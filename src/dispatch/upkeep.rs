//! What happens to keys without a command: eviction, active expiry, giving memory back.
//!
//! No thread of its own: workers evict when they find memory short, and the server's cron calls
//! the rest. All of it locks one shard at a time and is called without locks.

use std::sync::atomic::Ordering::Relaxed;

use super::client_eviction;
use super::context::{Shared, env_of};
use super::events::deliver;
use super::propagate::{Propagated, append, removals_of_fields};
use crate::base::clock::{self, Now};
use crate::config::Settings;
use crate::keyspace::db::{Db, Effects, Env};
use crate::keyspace::eviction::{Outcome, memory_state};
use crate::keyspace::expiry::{ActiveExpiry, Kind, Scene};
use crate::keyspace::field_expiry;
use crate::keyspace::shards::{Keyspace, LockSet, SHARDS};
use crate::keyspace::tidy::Tidy;

/// Keys of a writable replica's own clients that are looked at in one turn.
const OWN_KEYS: usize = 64;
/// Longest run of tidying in microseconds.
const TIDY_US: u64 = 1000;
/// Longest run of the expiry of fields in microseconds.
const FIELDS_US: u64 = 5000;

/// The state between calls, owned by the thread that makes them.
#[derive(Default)]
pub struct Upkeep {
    expiry: ActiveExpiry,
    tidy: Tidy,
}

impl Upkeep {
    /// A slow turn, `hz` times a second. True when eviction ran out of time: call [`evict`] again
    /// soon.
    pub fn slow(&mut self, shared: &Shared) -> bool {
        if shared.status.cron_paused.load(Relaxed) {
            return false;
        }
        let settings = shared.config.load();
        self.expire(shared, &settings, Kind::Slow);
        self.tidy.run(&shared.keyspace, TIDY_US);
        let not_counted = || not_counted(shared, &settings);
        if memory_state(settings.maxmemory, &not_counted).excess > 0 {
            evict(shared, &settings, Now::read());
        }
        shared.evictor.is_behind()
    }

    /// A fast turn of the active expiry, as often as one likes: mostly it finds nothing to do.
    pub fn fast(&mut self, shared: &Shared) {
        let settings = shared.config.load();
        self.expire(shared, &settings, Kind::Fast);
    }

    fn expire(&mut self, shared: &Shared, settings: &Settings, kind: Kind) {
        let now = Now::read();
        let pauses = shared.pause.at(now.ms).is_some();
        // A replica's keys are removed by its primary.
        let follows = shared.replication.upstream.follows();
        if !shared.status.active_expire.load(Relaxed) || pauses {
            return;
        }
        let env = env_of(settings, now);
        if follows {
            return expire_own(shared, env);
        }
        // What is over its time may be persisted, or appended to, further on in the file.
        let rests = || shared.durability.loading.is_under_way();
        let scene = Scene {
            keyspace: &shared.keyspace,
            settings,
            env,
            stats: &shared.stats.global,
            rests: &rests,
        };
        let mut removed = |db: usize, key: &[u8]| propagate(shared, db, key, env.lazy_expire);
        let noticed = self.expiry.cycle(&scene, kind, &mut removed);
        let noticed_fields = kind == Kind::Slow && expire_fields(shared, env);
        if noticed || noticed_fields {
            deliver(shared);
        }
        record(shared, settings, "expire-cycle", now);
    }
}

/// Removes what clients of a writable replica gave an expiry, when that is over.
fn expire_own(shared: &Shared, env: Env) {
    let (keyspace, upstream) = (&shared.keyspace, &shared.replication.upstream);
    let some = upstream.next_volatile(OWN_KEYS);
    if some.is_empty() {
        return;
    }
    for own in &some {
        let (db, key) = (own.0, &own.1[..]);
        let mut effects = Effects::default();
        let shard = Keyspace::shard_of(keyspace.hash(key));
        let Some(guard) = keyspace.lock_unclaimed(shard) else {
            continue;
        };
        let mut locks = LockSet::One(guard);
        let gone = Db::new(keyspace, &mut locks, &env, &mut effects, db, &[]).expire_if_due(key);
        if gone {
            propagate(shared, db, key, env.lazy_expire);
            shared.stats.global.actively_expired.fetch_add(1, Relaxed);
        }
        if keyspace.expiry_of(&locks, db, key).is_none() {
            upstream.forget_volatile_key(own);
        }
        drop(locks);
        effects.free(&keyspace.lazyfree);
    }
    deliver(shared);
}

/// Removes fields of hashes whose time is over. True when events were recorded.
fn expire_fields(shared: &Shared, env: Env) -> bool {
    let keyspace = &shared.keyspace;
    if !env.expires_keys || !keyspace.has_timed_hashes() {
        return false;
    }
    let deadline_us = clock::mono_us() + FIELDS_US;
    let mut effects = Effects::default();
    for shard in 0..SHARDS {
        let mut more = true;
        while more && clock::mono_us() < deadline_us {
            let Some(guard) = keyspace.lock_unclaimed(shard) else {
                break;
            };
            let mut locks = LockSet::One(guard);
            if shared.durability.loading.is_under_way() {
                return effects.has_notices();
            }
            more = field_expiry::slice(keyspace, shard, &mut locks, &env, &mut effects);
            // The hash itself may have been over its time.
            for (db, key) in effects.expired() {
                propagate(shared, *db, key, env.lazy_expire);
                shared.stats.global.actively_expired.fetch_add(1, Relaxed);
            }
            let gone = effects.expired_fields().len() as u64;
            if gone > 0 {
                if shared.stream.is_active() {
                    append(shared, &removals_of_fields(&effects));
                }
                let count = &shared.stats.global.actively_expired_fields;
                count.fetch_add(gone, Relaxed);
            }
            drop(locks);
            effects.forget_expired();
            effects.free(&keyspace.lazyfree);
        }
    }
    effects.has_notices()
}

/// Memory of the stream of effects, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamMemory {
    /// All of it: what readers have taken out and not passed on yet included.
    pub all: usize,
    /// What is there only for replicas and for the append-only file, because they are behind.
    pub waiting: usize,
}

/// Measures the stream. What one reader has is not counted for another one again: they share it.
pub fn stream_memory(shared: &Shared) -> StreamMemory {
    if !shared.stream.is_active() {
        return StreamMemory::default();
    }
    let kept = shared.stream.kept() as u64;
    // Buffers are a little bigger than what is in them.
    let slack = (shared.stream.memory() as u64).saturating_sub(kept);
    let end = shared.stream.offset();
    let replicas = shared.replication.replicas();
    let mut all = replicas.iter().map(|r| r.behind(end)).fold(kept, u64::max);
    let log = &shared.append_only.log;
    if log.is_open() {
        all = all.max(
            shared
                .stream
                .position()
                .saturating_sub(log.progress.written()),
        );
    }
    let backlog = shared.replication.backlog_len(end);
    all += slack;
    StreamMemory {
        all: all as usize,
        waiting: all.saturating_sub(backlog) as usize,
    }
}

/// Bytes that do not count for `maxmemory`: what waits for replicas and the append-only file, and what
/// clients that are on their way out hold.
fn not_counted(shared: &Shared, settings: &Settings) -> usize {
    stream_memory(shared).waiting + client_eviction::leaving(shared, settings)
}

/// Frees memory until it is below `maxmemory`; false when commands that need memory must be
/// refused. Nothing is evicted while clients are paused or a data set is being loaded, nor on a
/// replica with `replica-ignore-maxmemory`.
pub fn evict(shared: &Shared, settings: &Settings, now: Now) -> bool {
    let ignores = settings.replica_ignore_maxmemory && shared.replication.upstream.follows();
    let loads = shared.durability.loading.is_under_way();
    if ignores || loads || shared.pause.at(now.ms).is_some() {
        return true;
    }
    let started = Now::read();
    let env = env_of(settings, now);
    let lazy = settings.lazyfree_lazy_eviction;
    // Clients go before keys do.
    client_eviction::evict(shared, settings, now.ms);
    let not_counted = || not_counted(shared, settings);
    let mut removed = |db: usize, key: &[u8]| {
        shared.stats.global.evicted.fetch_add(1, Relaxed);
        propagate(shared, db, key, lazy);
    };
    let outcome = shared
        .evictor
        .run(&shared.keyspace, settings, &env, &not_counted, &mut removed);
    deliver(shared);
    record(shared, settings, "eviction-cycle", started);
    outcome != Outcome::Failed
}

/// Appends the removal of a key to the stream, under the lock of its shard.
fn propagate(shared: &Shared, db: usize, key: &[u8], lazy: bool) {
    super::blocking::removed(shared, db, key);
    if shared.stream.is_active() {
        let word = if lazy { "UNLINK" } else { "DEL" };
        append(
            shared,
            &[Propagated::new(db, vec![word.into(), key.to_vec()])],
        );
    }
}

fn record(shared: &Shared, settings: &Settings, event: &'static str, started: Now) {
    let threshold = settings.latency_monitor_threshold;
    if threshold > 0 {
        let millis = (clock::unix_us() - started.us) / 1000;
        if millis >= threshold {
            shared
                .latency
                .record(event, started.ms / 1000, millis as u32);
        }
    }
}
