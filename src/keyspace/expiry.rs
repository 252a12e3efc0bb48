//! Active expiry: removing keys whose time is over although nobody asks for them.
//!
//! A cycle walks the keys with an expiry, database by database and shard by shard, behind a
//! cursor that each database keeps. It looks at `active-expire-effort` many keys, goes on in the
//! same database while too many of them were stale, and stops when its time is over. A slow cycle
//! runs `hz` times a second within a share of a processor; a fast one, in between, only when the
//! last one had to stop early or much is stale. What a key's removal does (event, watchers,
//! propagation) is what a lookup that meets it does: [`Db::expire_bucket`].
//!
//! The buckets of keys without an expiry are passed on the way, so a slow cycle goes on, within
//! its time, until it has passed its part of a database that is walked in [`LAP_SECONDS`].

use std::sync::atomic::Ordering::Relaxed;

use super::db::{Db, Effects, Env, Met};
use super::shards::{Keyspace, LockSet, SHARDS};
use super::table::{Position, position_of_shard, shard_of_position};
use crate::base::clock;
use crate::config::Settings;
use crate::observe::stats::Global;

const KEYS_PER_LOOP: u64 = 20;
/// Longest fast cycle in microseconds, at the least effort.
const FAST_US: u64 = 1000;
/// Share of a processor that slow cycles may take, in percent, at the least effort.
const SLOW_PERCENT: u64 = 25;
/// Share of stale keys, in percent, that is left alone, at the least effort.
const ACCEPTABLE_STALE: u64 = 10;
const DBS_PER_CALL: usize = 16;
/// Keys that lie in one bucket, about.
const KEYS_PER_BUCKET: usize = 5;
/// Time in which slow cycles walk a whole database at the latest (their time permitting).
const LAP_SECONDS: usize = 2;
/// Most buckets walked under one lock.
const SLICE: usize = 64;

/// Which cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `hz` times a second.
    Slow,
    /// As often as one likes: it decides itself whether there is something to do.
    Fast,
}

/// What a cycle works with.
pub struct Scene<'a> {
    /// Keys and values.
    pub keyspace: &'a Keyspace,
    /// Parameters.
    pub settings: &'a Settings,
    /// The time; also whether keys are expired by this server at all.
    pub env: Env,
    /// Counters.
    pub stats: &'a Global,
    /// Asked under each lock: true while nothing may be removed, as a data set is being loaded.
    pub rests: &'a dyn Fn() -> bool,
}

/// The state between cycles, owned by the thread that runs them.
#[derive(Default)]
pub struct ActiveExpiry {
    next_db: usize,
    cursors: Vec<Position>,
    ran_out_of_time: bool,
    last_fast_us: u64,
}

/// The parameters of a cycle, scaled by `active-expire-effort`.
struct Limits {
    keys_per_loop: u64,
    acceptable_stale: u64,
    deadline_us: u64,
    started_us: u64,
}

impl ActiveExpiry {
    /// Runs a cycle. `removed` is told of each expired key (database, key) under the lock of its
    /// shard. True when events were recorded, which the caller must deliver.
    pub fn cycle(
        &mut self,
        scene: &Scene<'_>,
        kind: Kind,
        removed: &mut dyn FnMut(usize, &[u8]),
    ) -> bool {
        if !scene.env.expires_keys {
            return false;
        }
        let Some(limits) = self.limits(scene, kind) else {
            return false;
        };
        let databases = scene.keyspace.databases();
        self.cursors.resize(databases, 0);
        let calls = if self.ran_out_of_time {
            databases
        } else {
            databases.min(DBS_PER_CALL)
        };
        self.ran_out_of_time = false;
        let mut effects = Effects::default();
        let (mut sampled, mut due) = (0, 0);
        for _ in 0..calls {
            let db = self.next_db % databases;
            self.next_db = db + 1;
            let met = self.database(scene, kind, &limits, db, &mut effects, removed);
            sampled += met.sampled;
            due += met.due;
            if self.ran_out_of_time {
                scene.stats.expire_time_caps.fetch_add(1, Relaxed);
                break;
            }
        }
        let stale = due as f64 / (sampled as f64).max(1.0);
        scene.keyspace.expiry.learn_stale(stale);
        let elapsed = clock::mono_us() - limits.started_us;
        scene.stats.expire_nanos.fetch_add(elapsed * 1000, Relaxed);
        effects.noticed
    }

    fn limits(&mut self, scene: &Scene<'_>, kind: Kind) -> Option<Limits> {
        let effort = (scene.settings.active_expire_effort as u64).saturating_sub(1);
        let acceptable_stale = ACCEPTABLE_STALE.saturating_sub(effort);
        let fast_us = FAST_US + FAST_US / 4 * effort;
        let now = clock::mono_us();
        let duration = match kind {
            Kind::Slow => {
                let hz = (scene.settings.hz as u64).max(1);
                ((SLOW_PERCENT + 2 * effort) * 10_000 / hz).max(1)
            }
            Kind::Fast => {
                let few = scene.keyspace.expiry.stale() * 100.0 < acceptable_stale as f64;
                let recent = now < self.last_fast_us + 2 * fast_us && self.last_fast_us != 0;
                if (few && !self.ran_out_of_time) || recent {
                    return None;
                }
                self.last_fast_us = now;
                fast_us
            }
        };
        Some(Limits {
            keys_per_loop: KEYS_PER_LOOP + KEYS_PER_LOOP / 4 * effort,
            acceptable_stale,
            deadline_us: now + duration,
            started_us: now,
        })
    }

    fn database(
        &mut self,
        scene: &Scene<'_>,
        kind: Kind,
        limits: &Limits,
        db: usize,
        effects: &mut Effects,
        removed: &mut dyn FnMut(usize, &[u8]),
    ) -> Met {
        let mut total = Met::default();
        let volatile = scene.keyspace.volatile(db);
        if volatile == 0 {
            scene.keyspace.expiry.forget(db);
            return total;
        }
        let per_loop = volatile.min(limits.keys_per_loop as usize);
        let hz = (scene.settings.hz as usize).max(1);
        let lap = scene.keyspace.len(db) / KEYS_PER_BUCKET / (hz * LAP_SECONDS);
        let least = if kind == Kind::Slow { lap } else { 0 };
        let (mut walked, mut shards) = (0, 0);
        loop {
            let (mut met, mut buckets) = (Met::default(), 0);
            while met.sampled < per_loop && buckets < per_loop * 20 && shards <= SHARDS {
                let shard = shard_of_position(self.cursors[db]);
                if scene.keyspace.shard_len(db, shard).1 == 0 {
                    self.cursors[db] = after_shard(shard);
                    shards += 1;
                    continue;
                }
                let at = self.cursors[db];
                let (next, steps) = slice(scene, db, at, per_loop, &mut met, effects, removed);
                buckets += steps;
                self.cursors[db] = next.unwrap_or_else(|| {
                    shards += 1;
                    after_shard(shard)
                });
            }
            walked += buckets;
            total.sampled += met.sampled;
            total.due += met.due;
            if met.sampled > met.due {
                let average = met.ttl_sum / (met.sampled - met.due) as i64;
                scene.keyspace.expiry.learn_ttl(db, average);
            }
            if clock::mono_us() > limits.deadline_us {
                self.ran_out_of_time = true;
                return total;
            }
            let stale = met.due * 100 > limits.acceptable_stale as usize * met.sampled;
            // After one lap everything that was due has gone.
            if shards > SHARDS || !stale && walked >= least {
                return total;
            }
        }
    }
}

fn after_shard(shard: usize) -> Position {
    position_of_shard((shard + 1) % SHARDS)
}

/// Walks some buckets from `at` under one lock: the position behind them, if the shard goes on,
/// and their number.
fn slice(
    scene: &Scene<'_>,
    db: usize,
    at: Position,
    enough: usize,
    met: &mut Met,
    effects: &mut Effects,
    removed: &mut dyn FnMut(usize, &[u8]),
) -> (Option<Position>, usize) {
    let keyspace = scene.keyspace;
    // A claimed shard is for the next cycle.
    let Some(guard) = keyspace.lock_unclaimed(shard_of_position(at)) else {
        return (None, SLICE);
    };
    let mut locks = LockSet::One(guard);
    if (scene.rests)() {
        return (None, 0);
    }
    let none = &[];
    let mut view = Db::new(keyspace, &mut locks, &scene.env, effects, db, none);
    let (mut position, mut steps) = (Some(at), 0);
    while let Some(here) = position
        && steps < SLICE
        && met.sampled < enough
    {
        position = view.expire_bucket(here, met);
        steps += 1;
    }
    for (db, key) in effects.expired.iter() {
        removed(*db, key);
    }
    drop(locks);
    let expired = effects.expired.len() as u64;
    if expired > 0 {
        scene.stats.actively_expired.fetch_add(expired, Relaxed);
        effects.forget_expired();
        effects.free(&keyspace.lazyfree);
    }
    (position, steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::db::Ttl;
    use crate::keyspace::entry::NewValue;

    fn put(keyspace: &Keyspace, db: usize, key: &str, ttl: Ttl) {
        let (env, mut effects) = (Env::at(1000), Effects::default());
        let mut locks = keyspace.lock_one(keyspace.hash(key.as_bytes()));
        let none = &[];
        let mut view = Db::new(keyspace, &mut locks, &env, &mut effects, db, none);
        view.put(key.as_bytes(), NewValue::Bytes(b"v"), ttl);
    }

    #[test]
    fn everything_due_goes_within_a_bounded_number_of_cycles() {
        let keyspace = Keyspace::new(3, false);
        for i in 0..20_000 {
            let ttl = match i % 10 {
                0 => Ttl::At(5000 + i),
                1 => Ttl::At(900_000),
                _ => Ttl::Clear,
            };
            put(&keyspace, (i % 3) as usize, &format!("key:{i}"), ttl);
        }
        let (stats, settings) = (Global::default(), Settings::default());
        let mut expiry = ActiveExpiry::default();
        let mut gone = 0;
        let mut cycle = |now_ms, kind| {
            let scene = Scene {
                keyspace: &keyspace,
                settings: &settings,
                env: Env::at(now_ms),
                stats: &stats,
                rests: &|| false,
            };
            expiry.cycle(&scene, kind, &mut |_, _| gone += 1);
        };
        cycle(1000, Kind::Slow);
        for _ in 0..40 {
            cycle(100_000, Kind::Slow);
            cycle(100_000, Kind::Fast);
        }
        assert_eq!((gone, stats.actively_expired.load(Relaxed)), (2000, 2000));
        let volatile: usize = (0..3).map(|db| keyspace.volatile(db)).sum();
        assert_eq!(volatile, 2000);
        let ttl = keyspace.expiry.average_ttl(0);
        assert!((1..=900_000).contains(&ttl), "{ttl}");
        assert!(keyspace.expiry.stale() < 1.0);
    }

    #[test]
    fn nothing_goes_while_it_rests() {
        let keyspace = Keyspace::new(1, false);
        put(&keyspace, 0, "due", Ttl::At(2000));
        let (stats, settings) = (Global::default(), Settings::default());
        let mut expiry = ActiveExpiry::default();
        for rests in [true, false] {
            let scene = Scene {
                keyspace: &keyspace,
                settings: &settings,
                env: Env::at(3000),
                stats: &stats,
                rests: &|| rests,
            };
            expiry.cycle(&scene, Kind::Slow, &mut |_, _| assert!(!rests));
            assert_eq!(keyspace.len(0) == 1, rests);
        }
    }

    #[test]
    fn a_single_key_among_many_is_found() {
        let keyspace = Keyspace::new(1, false);
        for i in 0..30_000 {
            put(&keyspace, 0, &format!("key:{i}"), Ttl::Clear);
        }
        put(&keyspace, 0, "brief", Ttl::At(2000));
        let (stats, settings) = (Global::default(), Settings::default());
        let scene = Scene {
            keyspace: &keyspace,
            settings: &settings,
            env: Env::at(3000),
            stats: &stats,
            rests: &|| false,
        };
        let mut expiry = ActiveExpiry::default();
        let mut cycles = 0;
        while keyspace.volatile(0) > 0 {
            cycles += 1;
            assert!(cycles < 100);
            expiry.cycle(&scene, Kind::Slow, &mut |db, key| {
                assert_eq!((db, key), (0, &b"brief"[..]));
            });
        }
        assert_eq!(keyspace.len(0), 30_000);
    }
}
