//! Eviction: keeping memory below `maxmemory` by removing the keys that matter least.
//!
//! Candidates come from samples, as in Redis: `maxmemory-samples` random keys are looked at, the
//! best [`POOL`] seen so far are remembered, and the best of those goes. Samples are fair over all
//! keys: a shard of a database is chosen in proportion to its number of keys, then a bucket of
//! it at random. Unlike in Redis a remembered key goes only if it is still as good a candidate
//! as when it was seen, so that a key used since stays.
//!
//! Any thread may evict at any time, without a shard's lock: sampling and removal lock one shard
//! each, for themselves, and the pool's own lock is never held together with a shard's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::access::Access;
use super::db::{Db, Effects, Env};
use super::entry::Entry;
use super::shards::{Keyspace, LockSet, SHARDS};
use super::table::{Position, position_of_shard};
use super::tidy::tidy_shard;
use crate::base::{alloc, clock, random};
use crate::config::{MaxmemoryPolicy, Settings};

/// Candidates remembered.
const POOL: usize = 16;
/// Evictions between two looks at the clock.
const BATCH: usize = 16;
/// Shards probed before the keys of all are added up.
const PROBES: usize = 32;
/// Random places of a shard looked at for one sample.
const TRIES: usize = 16;
/// Buckets walked under one lock in search of keys with an expiry.
const SLICE: usize = 256;

/// How memory stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryState {
    /// Bytes in use that count for `maxmemory`.
    pub counted: usize,
    /// Bytes above `maxmemory`; 0 when it is kept or not set.
    pub excess: usize,
    /// `counted` as a share of `maxmemory`; 0 without one.
    pub level: f64,
}

/// Tells how many bytes do not count for `maxmemory` (`mem_not_counted_for_evict`): what waits
/// for replicas and for the append-only file, which eviction itself makes grow. Otherwise a
/// replica that hangs would cost all keys.
pub type NotCounted<'a> = &'a dyn Fn() -> usize;

/// How memory stands against `maxmemory` (bytes; 0: no limit). What does not count is asked for
/// only when it matters.
pub fn memory_state(maxmemory: u64, not_counted: NotCounted<'_>) -> MemoryState {
    let used = alloc::used();
    let counted = match maxmemory {
        1.. if used as u64 > maxmemory => used.saturating_sub(not_counted()),
        _ => used,
    };
    let limit = usize::try_from(maxmemory).unwrap_or(usize::MAX);
    if limit == 0 {
        return MemoryState {
            counted,
            excess: 0,
            level: 0.0,
        };
    }
    MemoryState {
        counted,
        excess: counted.saturating_sub(limit),
        level: counted as f64 / limit as f64,
    }
}

/// What came of an attempt to free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Memory is below the limit.
    Enough,
    /// Not yet, but time is over: cron goes on, and commands run meanwhile.
    Running,
    /// There is nothing to evict: commands that need memory are refused.
    Failed,
}

/// Keeps memory below `maxmemory`.
#[derive(Default)]
pub struct Evictor {
    pool: Mutex<Pool>,
    /// Score that a sample must exceed to enter the pool: 0 while there is room.
    floor: AtomicU64,
    /// Greatest number of keys seen in a shard's part of a database: of all, and with an expiry.
    crowd: [AtomicU32; 2],
    /// Monotonic microseconds since when memory is over the limit; 0 when it is not.
    over_since_us: AtomicU64,
    over_total_us: AtomicU64,
}

#[derive(Default)]
struct Pool {
    policy: Option<MaxmemoryPolicy>,
    /// Ascending by score: the last one goes first.
    candidates: Vec<Candidate>,
}

/// A key that might go: the greater the score, the sooner.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    score: u64,
    db: usize,
    key: Box<[u8]>,
}

/// What a run works with.
struct Scene<'a> {
    keyspace: &'a Keyspace,
    env: &'a Env,
    policy: MaxmemoryPolicy,
    samples: usize,
    lazy: bool,
    databases: SmallVec<[usize; 16]>,
}

impl Scene<'_> {
    /// Only keys with an expiry may go.
    fn volatile(&self) -> bool {
        use MaxmemoryPolicy::{VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl};
        matches!(
            self.policy,
            VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl
        )
    }

    fn score(&self, entry: &Entry) -> u64 {
        use MaxmemoryPolicy::{AllkeysLfu, AllkeysLru, VolatileLfu, VolatileLru, VolatileTtl};
        let access: Access = self.env.access;
        match self.policy {
            // By the time of the access, not by the time since, so that scores can be compared
            // whenever they were taken.
            AllkeysLru | VolatileLru => {
                let used_ms = self.env.now_ms / 1000 * 1000 - access.idle_ms(entry.clock()) as i64;
                descending(used_ms)
            }
            AllkeysLfu | VolatileLfu => u64::from(256 - access.frequency(entry.clock())),
            VolatileTtl => descending(entry.expiry().unwrap_or(i64::MAX)),
            _ => 1,
        }
    }

    /// Number of keys of a shard that may go.
    fn eligible(&self, db: usize, shard: usize) -> usize {
        let (all, volatile) = self.keyspace.shard_len(db, shard);
        if self.volatile() { volatile } else { all }
    }
}

/// Greater for earlier times, and never 0.
fn descending(ms: i64) -> u64 {
    (u64::MAX - (ms as u64 ^ 1 << 63)).max(1)
}

impl Evictor {
    /// Frees memory until it is below `maxmemory` or the time that `maxmemory-eviction-tenacity`
    /// allows is over. `removed` is told of each evicted key (database, key) under the lock of
    /// its shard. Called without locks.
    pub fn run(
        &self,
        keyspace: &Keyspace,
        settings: &Settings,
        env: &Env,
        not_counted: NotCounted<'_>,
        removed: &mut dyn FnMut(usize, &[u8]),
    ) -> Outcome {
        let outcome = self.free(keyspace, settings, env, not_counted, removed);
        self.account(outcome);
        outcome
    }

    fn free(
        &self,
        keyspace: &Keyspace,
        settings: &Settings,
        env: &Env,
        not_counted: NotCounted<'_>,
        removed: &mut dyn FnMut(usize, &[u8]),
    ) -> Outcome {
        let over = || memory_state(settings.maxmemory, not_counted).excess > 0;
        if !over() {
            return Outcome::Enough;
        }
        if settings.maxmemory_policy == MaxmemoryPolicy::NoEviction {
            return Outcome::Failed;
        }
        let scene = Scene {
            keyspace,
            env,
            policy: settings.maxmemory_policy,
            samples: settings.maxmemory_samples.max(1) as usize,
            lazy: settings.lazyfree_lazy_eviction,
            databases: (0..keyspace.databases())
                .filter(|&db| keyspace.is_used(db))
                .collect(),
        };
        let started = clock::mono_us();
        let limit = time_limit_us(settings.maxmemory_eviction_tenacity);
        let mut effects = Effects::default();
        let mut rounds = 0;
        while over() {
            if !self.evict_one(&scene, &mut effects, removed) {
                return wait_for_lazyfree(keyspace, started, limit, &over);
            }
            rounds += 1;
            if rounds % BATCH == 0 && clock::mono_us() - started > limit {
                return Outcome::Running;
            }
        }
        Outcome::Enough
    }

    /// True while memory is over the limit as far as the last run knows: cron then runs again.
    pub fn is_behind(&self) -> bool {
        self.over_since_us.load(Relaxed) != 0
    }

    /// Microseconds in which memory was over the limit: in all, and of the present stretch
    /// (`total_eviction_exceeded_time`, `current_eviction_exceeded_time`, there in milliseconds).
    pub fn exceeded_us(&self) -> (u64, u64) {
        let since = self.over_since_us.load(Relaxed);
        let current = match since {
            0 => 0,
            since => clock::mono_us().saturating_sub(since),
        };
        (self.over_total_us.load(Relaxed) + current, current)
    }

    /// Begins counting [`Evictor::exceeded_us`] anew (CONFIG RESETSTAT).
    pub fn reset_exceeded(&self) {
        self.over_total_us.store(0, Relaxed);
        self.over_since_us.store(0, Relaxed);
    }

    fn account(&self, outcome: Outcome) {
        if outcome == Outcome::Enough {
            let since = self.over_since_us.swap(0, Relaxed);
            if since != 0 {
                let stretch = clock::mono_us().saturating_sub(since);
                self.over_total_us.fetch_add(stretch, Relaxed);
            }
        } else {
            let now = clock::mono_us().max(1);
            let _ = self
                .over_since_us
                .compare_exchange(0, now, Relaxed, Relaxed);
        }
    }

    /// Evicts a key; false when there is none.
    fn evict_one(
        &self,
        scene: &Scene<'_>,
        effects: &mut Effects,
        removed: &mut dyn FnMut(usize, &[u8]),
    ) -> bool {
        // A candidate may be gone or used meanwhile. That this goes on for long means that others
        // remove keys or use them faster than they are found: which is as good as one evicted.
        for _ in 0..64 {
            let Some(candidate) = self.choose(scene) else {
                return false;
            };
            if remove(scene, &candidate, effects, removed) {
                return true;
            }
        }
        true
    }

    /// The best candidate of the pool after new samples; `None` without keys.
    fn choose(&self, scene: &Scene<'_>) -> Option<Candidate> {
        use MaxmemoryPolicy::{AllkeysRandom, VolatileRandom};
        let mut fresh: Vec<Candidate> = Vec::new();
        let is_random = matches!(scene.policy, AllkeysRandom | VolatileRandom);
        let wanted = if is_random { 1 } else { scene.samples };
        let mut seen = 0;
        // Chosen shards may be empty by the time they are locked.
        for _ in 0..64 * wanted {
            let Some((db, shard)) = self.pick_shard(scene) else {
                break;
            };
            // Few at a time, so that keys of one shard, which may have something to do with each
            // other, do not make the whole sample.
            let here = (scene.eligible(db, shard) / 16)
                .clamp(1, 3)
                .min(wanted - seen);
            let floor = if is_random {
                0
            } else {
                self.floor.load(Relaxed)
            };
            seen += sample(scene, db, shard, here, &mut |entry| {
                let score = scene.score(entry);
                if score > floor {
                    fresh.push(Candidate {
                        score,
                        db,
                        key: entry.key().into(),
                    });
                }
            });
            if seen >= wanted {
                break;
            }
        }
        if is_random {
            return fresh.pop();
        }
        self.exchange(scene.policy, fresh, seen > 0)
    }

    /// Puts samples into the pool and takes the best candidate out.
    fn exchange(
        &self,
        policy: MaxmemoryPolicy,
        fresh: Vec<Candidate>,
        any: bool,
    ) -> Option<Candidate> {
        let mut pool = self.pool.lock();
        if pool.policy != Some(policy) {
            pool.policy = Some(policy);
            pool.candidates.clear();
        }
        if !any {
            // Nothing is left to sample, so what is remembered is not there any more.
            pool.candidates.clear();
        }
        for candidate in fresh {
            pool.add(candidate);
        }
        let best = pool.candidates.pop();
        let floor = match pool.candidates.first() {
            Some(worst) if pool.candidates.len() == POOL => worst.score,
            _ => 0,
        };
        self.floor.store(floor, Relaxed);
        best
    }

    /// A shard of a database, in proportion to the keys in it that may go; `None` without any.
    fn pick_shard(&self, scene: &Scene<'_>) -> Option<(usize, usize)> {
        if scene.databases.is_empty() {
            return None;
        }
        let crowd = &self.crowd[usize::from(scene.volatile())];
        for _ in 0..PROBES {
            let most = crowd.load(Relaxed);
            if most == 0 {
                break;
            }
            let db = scene.databases[random::below(scene.databases.len())];
            let shard = random::below(SHARDS);
            let keys = scene.eligible(db, shard);
            if keys > most as usize {
                crowd.fetch_max(keys as u32, Relaxed);
            }
            if random::below(most as usize) < keys {
                return Some((db, shard));
            }
        }
        pick_by_sum(scene, crowd)
    }
}

/// As [`Evictor::pick_shard`], by adding up all shards; learns the greatest again.
#[cold]
fn pick_by_sum(scene: &Scene<'_>, crowd: &AtomicU32) -> Option<(usize, usize)> {
    let all = || {
        let shards = |&db: &usize| (0..SHARDS).map(move |shard| (db, shard));
        scene.databases.iter().flat_map(shards)
    };
    let (mut total, mut most) = (0, 0);
    for (db, shard) in all() {
        let keys = scene.eligible(db, shard);
        total += keys;
        most = most.max(keys);
    }
    crowd.store(most as u32, Relaxed);
    let mut rank = random::below(total);
    let mut last = None;
    for (db, shard) in all() {
        let keys = scene.eligible(db, shard);
        if keys > 0 {
            last = Some((db, shard));
            if rank < keys {
                return last;
            }
            rank -= keys;
        }
    }
    last
}

impl Pool {
    /// Adds a candidate, in its place; the least good one goes when there are too many.
    fn add(&mut self, candidate: Candidate) {
        let known = |c: &Candidate| c.db == candidate.db && c.key == candidate.key;
        if let Some(at) = self.candidates.iter().position(known) {
            self.candidates.remove(at);
        }
        let at = self
            .candidates
            .partition_point(|c| c.score <= candidate.score);
        self.candidates.insert(at, candidate);
        if self.candidates.len() > POOL {
            self.candidates.remove(0);
        }
    }
}

/// Shows up to `wanted` random keys of a shard that may go; returns how many.
fn sample(
    scene: &Scene<'_>,
    db: usize,
    shard: usize,
    wanted: usize,
    show: &mut dyn FnMut(&Entry),
) -> usize {
    let Some(guard) = scene.keyspace.lock_unclaimed(shard) else {
        return 0;
    };
    let mut locks = LockSet::One(guard);
    let mut effects = Effects::default();
    let none = &[];
    let view = Db::new(
        scene.keyspace,
        &mut locks,
        scene.env,
        &mut effects,
        db,
        none,
    );
    let arriving = &scene.keyspace.arriving;
    let mut seen = 0;
    for _ in 0..wanted * TRIES {
        if seen == wanted {
            return seen;
        }
        if scene.volatile() {
            let place = random_position(shard);
            // One of up to seven entries of a bucket, so that all are equally likely.
            let (mut rank, mut hit) = (random::below(7), false);
            view.visit_volatile(place, |entry| {
                if rank == 0 && !arriving.hides(entry) {
                    show(entry);
                    hit = true;
                }
                rank = rank.wrapping_sub(1);
            });
            seen += usize::from(hit);
        } else if let Some(entry) = view.random_entry(shard, random::bits(), random::bits())
            && !arriving.hides(&entry)
        {
            show(&entry);
            seen += 1;
        }
    }
    drop(locks);
    if seen == 0 && scene.eligible(db, shard) > 0 {
        seen += search(scene, db, shard, show);
    }
    seen
}

fn random_position(shard: usize) -> Position {
    let width = position_of_shard(1);
    position_of_shard(shard) + random::bits() % width
}

/// Walks a sparse shard from a random place until a bucket has a key that may go.
#[cold]
fn search(scene: &Scene<'_>, db: usize, shard: usize, show: &mut dyn FnMut(&Entry)) -> usize {
    let start = random_position(shard);
    let (mut position, mut wrapped) = (start, false);
    loop {
        let Some(guard) = scene.keyspace.lock_unclaimed(shard) else {
            return 0;
        };
        let mut locks = LockSet::One(guard);
        let mut effects = Effects::default();
        let none = &[];
        let view = Db::new(
            scene.keyspace,
            &mut locks,
            scene.env,
            &mut effects,
            db,
            none,
        );
        for _ in 0..SLICE {
            let mut found = 0;
            let mut meet = |entry: &Entry| {
                if scene.keyspace.arriving.hides(entry) {
                    return;
                }
                if found == 0 {
                    show(entry);
                }
                found = 1;
            };
            let next = if scene.volatile() {
                view.visit_volatile(position, &mut meet)
            } else {
                view.visit_bucket(position, &mut meet)
            };
            if found > 0 {
                return found;
            }
            match next {
                Some(next) => position = next,
                None if wrapped => return 0,
                None => {
                    wrapped = true;
                    position = position_of_shard(shard);
                }
            }
            if wrapped && position > start {
                return 0;
            }
        }
    }
}

/// Removes a candidate, if it is still as good as when it was seen.
fn remove(
    scene: &Scene<'_>,
    candidate: &Candidate,
    effects: &mut Effects,
    removed: &mut dyn FnMut(usize, &[u8]),
) -> bool {
    let keyspace = scene.keyspace;
    let hash = keyspace.hash(&candidate.key);
    let Some(guard) = keyspace.lock_unclaimed(Keyspace::shard_of(hash)) else {
        return false;
    };
    let mut locks = LockSet::One(guard);
    let mut view = Db::new(keyspace, &mut locks, scene.env, effects, candidate.db, &[]);
    let evicted = view.evict(&candidate.key, scene.lazy, |entry| {
        let eligible = entry.expiry().is_some() || !scene.volatile();
        eligible && !keyspace.arriving.hides(entry) && scene.score(entry) >= candidate.score
    });
    if evicted {
        removed(candidate.db, &candidate.key);
    }
    drop(locks);
    // With few keys for the number of shards, the tables are most of what there is to free; waiting
    // for cron to do it would evict everything meanwhile, and then refuse writes.
    let shard = Keyspace::shard_of(hash);
    if evicted && keyspace.shard_len(candidate.db, shard).0 == 0 {
        tidy_shard(keyspace, candidate.db, shard);
    }
    effects.free(&keyspace.lazyfree);
    evicted
}

/// Time for one run in microseconds: none up to half a millisecond by default, then growing
/// geometrically to two minutes, and without end at 100.
fn time_limit_us(tenacity: i32) -> u64 {
    match tenacity {
        ..=10 => 50 * tenacity.max(0) as u64,
        11..100 => (500.0 * 1.15f64.powi(tenacity - 10)) as u64,
        _ => u64::MAX,
    }
}

/// Nothing is left to evict, but what is being freed in the background may suffice.
fn wait_for_lazyfree(
    keyspace: &Keyspace,
    started: u64,
    limit: u64,
    over: &dyn Fn() -> bool,
) -> Outcome {
    while keyspace.lazyfree.pending() > 0 && clock::mono_us() - started < limit {
        if !over() {
            return Outcome::Enough;
        }
        std::thread::sleep(Duration::from_micros(limit.min(1000)));
    }
    if over() {
        Outcome::Failed
    } else {
        Outcome::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::db::Ttl;
    use crate::keyspace::entry::NewValue;
    use MaxmemoryPolicy::*;

    const KEYS: usize = 12_000;
    const ROOM: usize = 4000;

    fn env_of(policy: MaxmemoryPolicy, now_ms: i64) -> Env {
        let access = match policy {
            AllkeysLfu | VolatileLfu => Access::lfu(now_ms, 10, 1),
            _ => Access::lru(now_ms),
        };
        Env {
            access,
            ..Env::at(now_ms)
        }
    }

    fn with_db<R>(
        keyspace: &Keyspace,
        env: &Env,
        key: &[u8],
        work: impl FnOnce(&mut Db<'_, '_>) -> R,
    ) -> R {
        let hash = keyspace.hash(key);
        let (mut locks, mut effects) = (keyspace.lock_one(hash), Effects::default());
        work(&mut Db::new(
            keyspace,
            &mut locks,
            env,
            &mut effects,
            0,
            &[],
        ))
    }

    /// Share of hits of a cache of [`ROOM`] keys on a trace in which few keys make most accesses;
    /// every key expires the sooner the rarer it is used.
    fn hit_rate(policy: MaxmemoryPolicy) -> f64 {
        let keyspace = Keyspace::new(1, false);
        let evictor = Evictor::default();
        let mut uniform = 88_172_645_463_325_252u64;
        let mut next = move || {
            uniform ^= uniform << 13;
            uniform ^= uniform >> 7;
            uniform ^= uniform << 17;
            (uniform >> 11) as f64 / (1u64 << 53) as f64
        };
        let (mut hits, mut asked) = (0, 0);
        for step in 0..150_000i64 {
            // Exponent 1: a uniform exponent of the number of keys.
            let rank = (KEYS as f64).powf(next()) as usize;
            let key = format!("key:{rank}").into_bytes();
            let env = env_of(policy, step * 10);
            let hit = with_db(&keyspace, &env, &key, |db| db.read(&key).is_some());
            if step > 50_000 {
                asked += 1;
                hits += usize::from(hit);
            }
            if hit {
                continue;
            }
            let at = 1_000_000_000_000 - rank as i64;
            with_db(&keyspace, &env, &key, |db| {
                db.put(&key, NewValue::Bytes(b"value"), Ttl::At(at))
            });
            if keyspace.len(0) > ROOM {
                let scene = scene(&keyspace, &env, policy);
                assert!(evictor.evict_one(&scene, &mut Effects::default(), &mut |_, _| {}));
            }
        }
        hits as f64 / asked as f64
    }

    fn scene<'a>(keyspace: &'a Keyspace, env: &'a Env, policy: MaxmemoryPolicy) -> Scene<'a> {
        Scene {
            keyspace,
            env,
            policy,
            samples: 5,
            lazy: false,
            databases: (0..keyspace.databases())
                .filter(|&db| keyspace.is_used(db))
                .collect(),
        }
    }

    #[test]
    fn what_is_used_stays() {
        let random = hit_rate(AllkeysRandom);
        for policy in [
            AllkeysLru,
            AllkeysLfu,
            VolatileLru,
            VolatileLfu,
            VolatileTtl,
        ] {
            let rate = hit_rate(policy);
            println!("{policy:?} {rate:.4}, random {random:.4}");
            assert!(rate > random + 0.02, "{policy:?} {rate} random {random}");
        }
        let volatile = hit_rate(VolatileRandom);
        assert!((volatile - random).abs() < 0.02, "{volatile} {random}");
    }

    #[test]
    fn rare_keys_with_an_expiry_are_found_and_others_spared() {
        for policy in [VolatileLru, VolatileLfu, VolatileRandom, VolatileTtl] {
            let keyspace = Keyspace::new(1, false);
            let env = env_of(policy, 1000);
            for i in 0..20_000 {
                let key = format!("key:{i}").into_bytes();
                let ttl = if i % 2000 == 0 {
                    Ttl::At(9999)
                } else {
                    Ttl::Clear
                };
                with_db(&keyspace, &env, &key, |db| {
                    db.put(&key, NewValue::Int(i), ttl)
                });
            }
            let evictor = Evictor::default();
            let mut gone = 0;
            let scene = scene(&keyspace, &env, policy);
            while evictor.evict_one(&scene, &mut Effects::default(), &mut |_, _| gone += 1) {
                assert!(gone <= 10);
            }
            assert_eq!((gone, keyspace.len(0)), (10, 19_990));
        }
    }

    #[test]
    fn keys_used_since_they_were_sampled_stay() {
        let keyspace = Keyspace::new(1, false);
        let old = env_of(AllkeysLru, 1000);
        with_db(&keyspace, &old, b"k", |db| {
            db.put(b"k", NewValue::Int(1), Ttl::Clear)
        });
        let now = env_of(AllkeysLru, 100_000);
        let scene = scene(&keyspace, &now, AllkeysLru);
        let evictor = Evictor::default();
        let candidate = evictor.choose(&scene).expect("a key is there");
        with_db(&keyspace, &now, b"k", |db| assert!(db.read(b"k").is_some()));
        let mut effects = Effects::default();
        assert!(!remove(&scene, &candidate, &mut effects, &mut |_, _| {}));
        let again = evictor.choose(&scene).expect("a key is there");
        assert!(remove(&scene, &again, &mut effects, &mut |_, _| {}));
        assert!(evictor.choose(&scene).is_none());
    }

    #[test]
    fn time_limits_follow_the_tenacity() {
        assert_eq!(
            [0, 1, 10, 11, 100].map(time_limit_us),
            [0, 50, 500, 575, u64::MAX]
        );
        assert!(
            (110_000_000..130_000_000).contains(&time_limit_us(99)),
            "{}",
            time_limit_us(99)
        );
    }

    #[test]
    fn runs_say_how_memory_stands() {
        let keyspace = Keyspace::new(1, false);
        let env = env_of(AllkeysLru, 1000);
        let mut settings = Settings {
            maxmemory: u64::MAX,
            ..Settings::default()
        };
        let evictor = Evictor::default();
        let run =
            |settings: &Settings| evictor.run(&keyspace, settings, &env, &|| 0, &mut |_, _| {});
        assert_eq!(run(&settings), Outcome::Enough);
        settings.maxmemory = 1;
        assert_eq!(run(&settings), Outcome::Failed);
        assert!(memory_state(1, &|| 0).level > 1.0 && memory_state(0, &|| 0).excess == 0);
        // What waits for others does not cost keys.
        assert_eq!(memory_state(1, &|| usize::MAX).excess, 0);
        settings.maxmemory_policy = AllkeysLru;
        assert_eq!(run(&settings), Outcome::Failed);
        assert!(evictor.is_behind());
        settings.maxmemory = u64::MAX;
        assert_eq!(run(&settings), Outcome::Enough);
        assert!(!evictor.is_behind());
    }
}
