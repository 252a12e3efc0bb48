//! Shards: the keyspace's lock units, and the order in which they are locked.
//!
//! The keyspace is cut into [`SHARDS`] by the first bits of the key's hash. One mutex guards a
//! shard's part of every database. **Lock order**: shards ascending, all of one step at once
//! ([`Keyspace::lock_many`], [`Keyspace::lock_all`]), by threads that hold none; under them only
//! leaves, one at a time (the outbox's queue, the stream's log, the tables' arena), and nobody who
//! holds a leaf locks a shard. Under a shard lock nothing is freed that is big, nothing is sent and
//! nothing is awaited.
//!
//! Tables are reached through guards, whose borrow is the claim on them: [`ShardGuard::part`] to
//! change a table, one at a time; [`LockSet::view`] to read, while nothing changes.
//!
//! Tables lie apart from the mutexes, by database, so that an unused database owns no memory and
//! a prefetch need not touch the line that the lock bounces.

use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::arriving::Arriving;
use super::due::{Figures, TimedCounts};
use super::entry::{Entry, EntryRef};
use super::held::{self, Held};
use super::lazyfree::{Detached, Lazyfree};
use super::outbox::Outbox;
use super::shard_state::ShardState;
use super::table::{
    Ahead, Locked, Position, SKIP, SLOTS, Slot, Table, View, position_of_hash, prefetch,
};
use super::tracked::{Forgotten, TrackedCounts};
use crate::types::Type;

mod claim;
mod stretch;

pub use claim::Claim;
use claim::{Claims, Mark};
pub use stretch::{GaveUp, Stretch, Stretching};

/// Number of shards. Locking all of them takes some 8 µs.
pub const SHARDS: usize = 1 << SKIP;

#[repr(align(128))]
struct Shard {
    state: Mutex<ShardState>,
    mark: Mark,
}

type Tables = [Table<Entry>; SHARDS];

/// All databases.
pub struct Keyspace {
    shards: Box<[Shard]>,
    /// Those that clients see, and behind them as many that they do not.
    databases: Box<[AtomicPtr<Tables>]>,
    seed: foldhash::quality::FixedState,
    by_slot: bool,
    /// Events on their way to subscribers.
    pub outbox: Outbox,
    /// Frees what is big.
    pub lazyfree: Lazyfree,
    /// What the active expiry found.
    pub expiry: Figures,
    /// Number of hashes that shards hold as having fields with an expiry.
    pub(super) timed: TimedCounts,
    /// How many clients wait for streams.
    pub awaited_streams: AtomicUsize,
    /// Number of keys that clients keep copies of.
    pub tracked: TrackedCounts,
    /// Slots whose keys are not shown, and left alone.
    pub arriving: Arriving,
    /// Who may wait for shards out of order.
    stretching: Stretching,
    /// Who waits for other servers while holding shards.
    claims: Claims,
}

/// A locked shard.
pub struct ShardGuard<'k> {
    keyspace: &'k Keyspace,
    index: usize,
    state: MutexGuard<'k, ShardState>,
    _held: Held,
    /// Entries that are read change a little (their access clocks): one thread reads at a time.
    bound: PhantomData<*const Entry>,
}

/// A shard's part of one database, to be changed, and what the shard knows of its keys.
pub(super) struct Part<'a> {
    pub(super) table: Locked<'a, Entry>,
    pub(super) state: &'a mut ShardState,
}

/// A key that is there, in its part of a database.
pub(super) struct Found<'a> {
    pub(super) slot: Slot<'a, Entry>,
    pub(super) state: &'a mut ShardState,
}

impl<'a> Part<'a> {
    #[inline(always)]
    pub(super) fn find(self, hash: u64, key: &[u8]) -> Option<Found<'a>> {
        let slot = self.table.into_found(hash, key)?;
        let state = self.state;
        Some(Found { slot, state })
    }
}

impl Deref for ShardGuard<'_> {
    type Target = ShardState;
    #[inline]
    fn deref(&self) -> &ShardState {
        &self.state
    }
}

impl DerefMut for ShardGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut ShardState {
        &mut self.state
    }
}

/// The shards a command holds.
pub enum LockSet<'k> {
    /// None: the command has no keys.
    None,
    /// The shard of a single key.
    One(ShardGuard<'k>),
    /// Several, ascending; or all, when there are [`SHARDS`] of them.
    Many(Vec<ShardGuard<'k>>),
}

impl Keyspace {
    /// An empty keyspace of `databases` databases. `by_slot` orders keys by cluster hash slot.
    pub fn new(databases: usize, by_slot: bool) -> Self {
        let shard = || Shard {
            state: Mutex::new(ShardState::default()),
            mark: Mark::default(),
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            databases: (0..2 * databases)
                .map(|_| AtomicPtr::new(std::ptr::null_mut()))
                .collect(),
            seed: foldhash::quality::FixedState::with_seed(rand::random()),
            by_slot,
            outbox: Outbox::default(),
            lazyfree: Lazyfree::default(),
            expiry: Figures::new(2 * databases),
            timed: TimedCounts::new(2 * databases),
            awaited_streams: AtomicUsize::new(0),
            tracked: TrackedCounts::new(SHARDS),
            arriving: Arriving::default(),
            stretching: Stretching::default(),
            claims: Claims::default(),
        }
    }

    /// True while any client waits for a stream.
    pub(super) fn is_a_stream_awaited(&self) -> bool {
        self.awaited_streams.load(Ordering::Relaxed) > 0
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.databases.len() / 2
    }

    /// The number of a database that no client sees: where what is to take the place of database `db`
    /// is loaded, while that is still in use.
    pub fn beside(&self, db: usize) -> usize {
        self.databases() + db
    }

    /// The 64 bits that place a key: seeded, so that clients cannot choose collisions. Under
    /// `by_slot` the first 14 bits are the key's hash slot.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        if self.by_slot {
            u64::from(crate::base::crc::key_slot(key)) << 50 | hash >> 14
        } else {
            hash
        }
    }

    /// The hash slot of a hash, of a keyspace that is ordered by slot.
    #[inline]
    pub fn slot_of(hash: u64) -> u16 {
        (hash >> 50) as u16
    }

    /// The shard of a hash.
    #[inline]
    pub fn shard_of(hash: u64) -> usize {
        (hash >> (64 - SKIP)) as usize
    }

    #[inline]
    fn tables(&self, db: usize) -> Option<&Tables> {
        // SAFETY: set once, to a leaked allocation.
        unsafe { self.databases[db].load(Ordering::Acquire).as_ref() }
    }

    /// The database's tables, made on first use.
    #[inline]
    fn tables_or_new(&self, db: usize) -> &Tables {
        match self.tables(db) {
            Some(tables) => tables,
            None => self.new_tables(db),
        }
    }

    #[cold]
    fn new_tables(&self, db: usize) -> &Tables {
        let fresh: Box<Tables> = (0..SHARDS)
            .map(|_| Table::new())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| unreachable!("SHARDS tables were made"));
        let fresh = Box::into_raw(fresh);
        let slot = &self.databases[db];
        let null = std::ptr::null_mut();
        match slot.compare_exchange(null, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: never freed before the keyspace.
            Ok(_) => unsafe { &*fresh },
            Err(other) => {
                // SAFETY: this thread's allocation, which nobody saw; the other's is never freed.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &*other
                }
            }
        }
    }

    /// True when the database was ever used.
    pub fn is_used(&self, db: usize) -> bool {
        self.tables(db).is_some()
    }

    /// True when a shard's part of a database holds memory; a recent value.
    pub fn owns_memory(&self, db: usize, shard: usize) -> bool {
        self.tables(db)
            .is_some_and(|tables| tables[shard].owns_memory())
    }

    /// The position of a key in hash order, as walks over buckets count it.
    pub fn position_of(&self, key: &[u8]) -> Position {
        position_of_hash(self.hash(key))
    }

    /// Number of keys in a database: exact while nothing writes, recent otherwise.
    pub fn len(&self, db: usize) -> usize {
        self.tables(db)
            .map_or(0, |tables| tables.iter().map(Table::len).sum())
    }

    /// Number of keys with an expiry in a database, as exact as [`Keyspace::len`].
    pub fn volatile(&self, db: usize) -> usize {
        self.tables(db)
            .map_or(0, |tables| tables.iter().map(Table::volatile).sum())
    }

    /// Keys, and keys with an expiry, of one shard's part of a database; a recent value.
    #[inline]
    pub fn shard_len(&self, db: usize, shard: usize) -> (usize, usize) {
        self.tables(db).map_or((0, 0), |tables| {
            (tables[shard].len(), tables[shard].volatile())
        })
    }

    /// Asks the processor for what a command on a key will touch first: the shard's lock and where
    /// the way to the key begins. Callable at any time.
    #[inline]
    pub fn prefetch(&self, db: usize, hash: u64) -> Ahead {
        let shard = Self::shard_of(hash);
        prefetch(std::ptr::from_ref(&self.shards[shard]).cast());
        match self.tables(db) {
            Some(tables) => tables[shard].prefetch_directory(hash),
            None => Ahead::default(),
        }
    }

    /// True when a key is there but its time is over. The key's shard is in `locks`.
    pub fn is_expired(&self, locks: &LockSet<'_>, db: usize, key: &[u8], now_ms: i64) -> bool {
        self.look_up(locks, db, key)
            .and_then(|entry| entry.expiry())
            .is_some_and(|at| at < now_ms)
    }

    /// The type of a key that is there and not over its time. The key's shard is in `locks`.
    pub fn kind_of(&self, locks: &LockSet<'_>, db: usize, key: &[u8], now_ms: i64) -> Option<Type> {
        let entry = self.look_up(locks, db, key)?;
        let lives = entry.expiry().is_none_or(|at| at >= now_ms);
        lives.then(|| entry.kind())
    }

    /// When a key expires that is there, in Unix milliseconds. The key's shard is in `locks`.
    pub fn expiry_of(&self, locks: &LockSet<'_>, db: usize, key: &[u8]) -> Option<i64> {
        self.look_up(locks, db, key)?.expiry()
    }

    fn look_up<'l>(&self, locks: &'l LockSet<'_>, db: usize, key: &[u8]) -> Option<EntryRef<'l>> {
        let hash = self.hash(key);
        locks.view(Self::shard_of(hash), db)?.find(hash, key)
    }

    /// Number of hashes in a database that are noted as having fields with an expiry; a recent value.
    pub fn timed_hashes(&self, db: usize) -> usize {
        self.timed.of(db)
    }

    /// True when some hash has a field with an expiry.
    pub fn has_timed_hashes(&self) -> bool {
        self.timed.all() > 0
    }

    /// Locks one shard. As all that lock, it is for threads that hold none.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self, shard: usize) -> ShardGuard<'_> {
        held::assert_none(self);
        self.lock_next(shard)
    }

    /// Locks one shard, by whoever holds lower ones at most.
    #[inline(always)]
    fn lock_next(&self, shard: usize) -> ShardGuard<'_> {
        held::assert_above(self, shard);
        self.guard(shard, self.shards[shard].state.lock())
    }

    #[inline(always)]
    fn guard<'k>(&'k self, shard: usize, state: MutexGuard<'k, ShardState>) -> ShardGuard<'k> {
        ShardGuard {
            keyspace: self,
            index: shard,
            state,
            _held: Held::note(self, shard),
            bound: PhantomData,
        }
    }

    /// Places for keys in the tables of a database, and their bytes: a recent value, which needs no
    /// lock.
    pub fn footprint(&self, db: usize) -> (usize, usize) {
        let tables = self.tables(db).into_iter().flatten();
        tables.fold((0, 0), |(places, bytes), table| {
            let (buckets, more) = table.footprint();
            (places + buckets * SLOTS, bytes + more)
        })
    }

    /// Locks the shard of one hash.
    #[inline(always)]
    #[track_caller]
    pub fn lock_one(&self, hash: u64) -> LockSet<'_> {
        LockSet::One(self.lock(Self::shard_of(hash)))
    }

    /// Locks the shards of all `hashes`, lowest first.
    #[track_caller]
    pub fn lock_many(&self, hashes: impl Iterator<Item = u64>) -> LockSet<'_> {
        held::assert_none(self);
        let wanted = Self::in_order(hashes);
        match wanted[..] {
            [] => LockSet::None,
            [one] => LockSet::One(self.lock_next(one)),
            _ => self.lock_in_order(wanted.iter().copied()),
        }
    }

    fn in_order(hashes: impl Iterator<Item = u64>) -> SmallVec<[usize; 16]> {
        let mut wanted: SmallVec<[usize; 16]> = hashes.map(Self::shard_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Locks every shard, which stops all access to keys.
    #[track_caller]
    pub fn lock_all(&self) -> LockSet<'_> {
        held::assert_none(self);
        self.lock_in_order(0..SHARDS)
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        for slot in &mut self.databases {
            let tables = *slot.get_mut();
            if tables.is_null() {
                continue;
            }
            // SAFETY: made by Box::into_raw in `new_tables`; nobody else is left.
            let tables = unsafe { Box::from_raw(tables) };
            for table in *tables {
                table.destroy();
            }
        }
    }
}

impl<'k> ShardGuard<'k> {
    /// The shard's part of a database, with what the shard knows of its keys.
    #[inline]
    pub(super) fn part(&mut self, db: usize) -> Part<'_> {
        let table = &self.keyspace.tables_or_new(db)[self.index];
        Part {
            // SAFETY: the guard holds the lock, and `&mut self` allows one claim at a time.
            table: unsafe { table.assume_locked() },
            state: &mut self.state,
        }
    }

    /// The shard's part of a database.
    #[inline]
    pub(super) fn table(&mut self, db: usize) -> Locked<'_, Entry> {
        self.part(db).table
    }

    /// The shard's part of a database, to be read; `None` while the database is unused.
    #[inline]
    fn view(&self, db: usize) -> Option<View<'_, Entry>> {
        let table = &self.keyspace.tables(db)?[self.index];
        // SAFETY: the guard holds the lock; the shared borrow of it keeps changes out.
        Some(unsafe { table.assume_read() })
    }

    /// Exchanges the shard's parts of two different databases.
    pub(super) fn swap(&mut self, a: usize, b: usize) {
        assert_ne!(a, b);
        self.state.swap_timed(&self.keyspace.timed, a, b);
        let (a, b) = (
            self.keyspace.tables_or_new(a),
            self.keyspace.tables_or_new(b),
        );
        // SAFETY: the guard holds the lock; the two tables are different, one claim on each.
        unsafe {
            let mut first = a[self.index].assume_locked();
            first.swap(&mut b[self.index].assume_locked());
        }
    }

    /// Tells those who watch `key` that it changed, or went. That it goes, in whatever way, is no
    /// change to who met it expired already; from then on it is absent to them as well. Nor is it to
    /// them what takes its place while nobody found it expired (RESTORE with REPLACE), as in Redis.
    #[inline]
    pub(super) fn touch_watchers(&mut self, db: usize, key: &[u8]) {
        if self.state.has_watchers() {
            self.touch_watchers_slow(db, key);
        }
    }

    #[cold]
    fn touch_watchers_slow(&mut self, db: usize, key: &[u8]) {
        let hash = self.keyspace.hash(key);
        let gone = self.view(db).is_none_or(|t| t.find(hash, key).is_none());
        self.state.raise(db, key, gone);
    }

    /// Raises the flags of those who watch a key of database `emptied` that is there now or will
    /// be once the contents of `replacement` (nothing, if `None`) stand in its place. A key whose
    /// time is over counts as absent to those who met it so.
    pub(super) fn touch_replaced(
        &mut self,
        emptied: usize,
        replacement: Option<usize>,
        now_ms: i64,
    ) {
        if !self.state.has_watchers() {
            return;
        }
        let (keyspace, index) = (self.keyspace, self.index);
        let look = |db: usize, key: &[u8]| {
            let table = &keyspace.tables(db)?[index];
            // SAFETY: the guard holds the lock; what is borrowed of it changes no table.
            let entry = unsafe { table.assume_read() }.find(keyspace.hash(key), key)?;
            Some(entry.expiry().is_some_and(|at| at < now_ms))
        };
        self.state.raise_replaced(emptied, |key| {
            let after = replacement.and_then(|db| look(db, key));
            (look(emptied, key), after)
        });
    }

    /// A client keeps a copy of what it has read of a key: it is told of the next change.
    pub fn track(&mut self, key: &[u8], client: u64) {
        self.state
            .track(&self.keyspace.tracked, self.index, key, client);
    }

    /// Forgets a random key that clients keep copies of; these are told.
    pub fn forget_random_tracked(&mut self) {
        let counts = &self.keyspace.tracked;
        if let Some(stale) = self.state.take_random_stale(counts, self.index) {
            self.keyspace.outbox.record(stale);
        }
    }

    /// Forgets which keys clients keep copies of.
    pub(super) fn forget_tracked(&mut self) -> Option<Forgotten> {
        let counts = &self.keyspace.tracked;
        let is_any = self.state.has_trackers();
        is_any.then(|| self.state.forget_tracked(counts, self.index))
    }

    /// Takes everything out of the shard's part of a database.
    pub(super) fn detach(&mut self, db: usize, into: &mut Detached) {
        self.state.forget_timed(&self.keyspace.timed, db);
        if self.keyspace.shard_len(db, self.index).0 > 0 {
            into.push(self.table(db).take());
        }
    }
}

impl<'k> LockSet<'k> {
    /// True when the set holds a shard.
    pub fn holds(&self, index: usize) -> bool {
        match self {
            Self::None => false,
            Self::One(guard) => guard.index == index,
            Self::Many(guards) => guards.binary_search_by_key(&index, |g| g.index).is_ok(),
        }
    }

    /// The guard of a shard that the set holds.
    ///
    /// # Panics
    /// When it does not hold it: a command touched a key that its row does not name.
    #[inline(always)]
    pub fn shard(&mut self, index: usize) -> &mut ShardGuard<'k> {
        match self {
            Self::One(guard) => {
                assert!(guard.index == index, "the command's keys are locked");
                guard
            }
            Self::Many(guards) => Self::among(guards, index),
            Self::None => panic!("the command's keys are locked"),
        }
    }

    fn among<'g>(guards: &'g mut [ShardGuard<'k>], index: usize) -> &'g mut ShardGuard<'k> {
        if guards.len() == SHARDS {
            return &mut guards[index];
        }
        let at = guards
            .binary_search_by_key(&index, |g| g.index)
            .expect("the command's keys are locked");
        &mut guards[at]
    }

    /// True when it is one shard, of which nobody watches or waits for a key and which no cut has
    /// still to pass: then a change concerns nobody. That stays so while the shard is held, but for
    /// what the holder asks of the guard itself.
    #[inline]
    pub fn is_unobserved(&self) -> bool {
        matches!(self, Self::One(guard) if !guard.state.is_observed())
    }

    /// True when all that it holds is this keyspace's.
    pub(super) fn is_of(&self, keyspace: &Keyspace) -> bool {
        let is_of = |guard: &ShardGuard<'_>| std::ptr::eq(guard.keyspace, keyspace);
        match self {
            Self::None => true,
            Self::One(guard) => is_of(guard),
            Self::Many(guards) => guards.first().is_none_or(is_of),
        }
    }

    /// Where the guard of a shard stands in the set.
    #[inline]
    fn place(&self, index: usize) -> usize {
        match self {
            Self::One(guard) if guard.index == index => 0,
            Self::Many(guards) if guards.len() == SHARDS => index,
            Self::Many(guards) => guards
                .binary_search_by_key(&index, |g| g.index)
                .expect("the command's keys are locked"),
            _ => panic!("the command's keys are locked"),
        }
    }

    /// A database's table in a held shard, to be read; `None` while the database is unused.
    ///
    /// # Panics
    /// When the set does not hold the shard.
    #[inline]
    pub(super) fn view(&self, index: usize, db: usize) -> Option<View<'_, Entry>> {
        let at = self.place(index);
        match self {
            Self::One(guard) => guard.view(db),
            Self::Many(guards) => guards[at].view(db),
            Self::None => unreachable!("place() panics without shards"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::shard_state::WatchFlag;

    #[test]
    fn a_shard_is_observed_as_long_as_anybody_watches_or_waits() {
        let keyspace = Keyspace::new(1, false);
        let mut locks = keyspace.lock_one(keyspace.hash(b"k"));
        let index = Keyspace::shard_of(keyspace.hash(b"k"));
        assert!(locks.is_unobserved());
        let flag = WatchFlag::default();
        locks.shard(index).watch(0, b"k", &flag, false);
        locks.shard(index).wait(0, b"k", 1);
        assert!(!locks.is_unobserved());
        locks.shard(index).unwatch(0, b"k", &flag);
        assert!(!locks.is_unobserved(), "one waits");
        locks.shard(index).unwait(0, b"k", 1);
        assert!(locks.is_unobserved());
        drop(locks);
        assert!(
            !keyspace.lock_all().is_unobserved(),
            "several are looked at one by one"
        );
    }
}
