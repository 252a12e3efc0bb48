//! Locking that gives way: to scripts that reach for shards beyond those they began with, and to clients who
//! must not wait for a script that runs for long, or for another server ([`super::claim`]).
//!
//! A script locks the shards of the keys it declares. When it reaches for another key it takes that shard
//! if it can be had at once, which is safe in any order. When it cannot, and the script has written already
//! so that it can no longer start over, it has to wait while it holds shards: *stretching*. One script does so
//! at a time ([`Keyspace::stretch`]). Whoever is about to lock several shards and finds one taken lets go of
//! what it has meanwhile and begins again when that is over; it has done nothing yet. Everybody else who
//! holds shards waits for none, so they come free.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::{Keyspace, LockSet, SHARDS, ShardGuard};
use crate::keyspace::held;

/// How often one who waits looks whether it is to give way.
const LOOK: Duration = Duration::from_millis(1);

/// Who may wait for shards out of order, and who is not waited for.
#[derive(Default)]
pub struct Stretching {
    token: Mutex<()>,
    active: AtomicBool,
    /// How many holders of shards run for longer than clients are made to wait.
    overdue: AtomicUsize,
}

/// The right to wait for shards out of order; it ends when this is dropped, which is to be before the
/// shards are let go.
pub struct Stretch<'k> {
    active: &'k AtomicBool,
    _token: MutexGuard<'k, ()>,
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        self.active.store(false, SeqCst);
    }
}

/// Why a client does not get a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// A script holds it for longer than clients are made to wait.
    Overdue,
    /// It is claimed: its holder waits for another server. The request is tried again when a claim has ended.
    Claimed,
}

impl Keyspace {
    /// Locks shards that stand in order, and begins again when somebody stretches meanwhile or one of them is
    /// claimed: nobody holds shards while it waits for such a one.
    pub(super) fn lock_in_order(&self, wanted: impl Iterator<Item = usize> + Clone) -> LockSet<'_> {
        loop {
            let mut guards = Vec::with_capacity(wanted.size_hint().0);
            let missed = wanted.clone().find(|&shard| {
                let guard = self.lock_unless(shard, || {
                    let yields = self.stretching.active.load(SeqCst) || self.is_claimed(shard);
                    !guards.is_empty() && yields
                });
                let is_missed = guard.is_none();
                guards.extend(guard);
                is_missed
            });
            let Some(missed) = missed else {
                self.has_whole(guards.len());
                return LockSet::Many(guards);
            };
            drop(guards);
            if self.is_claimed(missed) {
                self.wants_whole(wanted.clone().count());
                drop(self.shards[missed].state.lock());
            } else {
                drop(self.stretching.token.lock());
            }
        }
    }

    /// Locks a shard, unless `gives_up` says so after it could not be had for a moment.
    #[inline(always)]
    fn lock_unless(&self, shard: usize, gives_up: impl Fn() -> bool) -> Option<ShardGuard<'_>> {
        match self.shards[shard].state.try_lock() {
            Some(state) => Some(self.guard(shard, state)),
            None => self.wait_unless(shard, &gives_up),
        }
    }

    #[cold]
    fn wait_unless(&self, shard: usize, gives_up: &dyn Fn() -> bool) -> Option<ShardGuard<'_>> {
        loop {
            if let Some(state) = self.shards[shard].state.try_lock_for(LOOK) {
                return Some(self.guard(shard, state));
            }
            if gives_up() {
                return None;
            }
        }
    }

    /// Locks a shard for a client, who waits for no script that runs for long and for no claim; nor does it wait
    /// once `yields` says so, which is no reason of its own.
    #[inline(always)]
    fn lock_for_client(
        &self,
        shard: usize,
        yields: impl Fn() -> bool,
    ) -> Result<ShardGuard<'_>, Option<GaveUp>> {
        match self.shards[shard].state.try_lock() {
            Some(state) => Ok(self.guard(shard, state)),
            None => self.wait_for_client(shard, &yields),
        }
    }

    #[cold]
    fn wait_for_client(
        &self,
        shard: usize,
        yields: &dyn Fn() -> bool,
    ) -> Result<ShardGuard<'_>, Option<GaveUp>> {
        loop {
            if self.is_claimed(shard) {
                return self.lock_unless_claimed(shard).ok_or(Some(GaveUp::Claimed));
            }
            if let Some(state) = self.shards[shard].state.try_lock_for(LOOK) {
                return Ok(self.guard(shard, state));
            }
            if self.is_any_overdue() {
                return Err(Some(GaveUp::Overdue));
            }
            if yields() {
                return Err(None);
            }
        }
    }

    fn lock_one_for_client(&self, shard: usize) -> Result<ShardGuard<'_>, GaveUp> {
        let guard = self.lock_for_client(shard, || false);
        guard.map_err(|why| why.unwrap_or(GaveUp::Overdue))
    }

    /// As [`Keyspace::lock`], for clients: not while a script holds it that runs for long, or it is claimed.
    #[track_caller]
    pub fn lock_in_time(&self, shard: usize) -> Result<ShardGuard<'_>, GaveUp> {
        held::assert_none(self);
        self.lock_one_for_client(shard)
    }

    /// As [`Keyspace::lock_one`], for clients: see [`Keyspace::lock_in_time`].
    #[inline(always)]
    #[track_caller]
    pub fn lock_one_in_time(&self, hash: u64) -> Result<LockSet<'_>, GaveUp> {
        held::assert_none(self);
        let guard = self.lock_for_client(Self::shard_of(hash), || false);
        guard
            .map(LockSet::One)
            .map_err(|why| why.unwrap_or(GaveUp::Overdue))
    }

    /// As [`Keyspace::lock_many`], for clients: see [`Keyspace::lock_in_time`].
    #[track_caller]
    pub fn lock_many_in_time(
        &self,
        hashes: impl Iterator<Item = u64>,
    ) -> Result<LockSet<'_>, GaveUp> {
        held::assert_none(self);
        let wanted = Self::in_order(hashes);
        match wanted[..] {
            [] => Ok(LockSet::None),
            [one] => self.lock_one_for_client(one).map(LockSet::One),
            _ => self.lock_in_order_in_time(wanted.iter().copied()),
        }
    }

    /// As [`Keyspace::lock_all`], for clients: see [`Keyspace::lock_in_time`].
    #[track_caller]
    pub fn lock_all_in_time(&self) -> Result<LockSet<'_>, GaveUp> {
        held::assert_none(self);
        self.lock_in_order_in_time(0..SHARDS)
    }

    fn lock_in_order_in_time(
        &self,
        wanted: impl Iterator<Item = usize> + Clone,
    ) -> Result<LockSet<'_>, GaveUp> {
        loop {
            let mut guards = Vec::with_capacity(wanted.size_hint().0);
            let mut why = None;
            let all = wanted.clone().all(|shard| {
                let guard = self.lock_for_client(shard, || {
                    !guards.is_empty() && self.stretching.active.load(SeqCst)
                });
                match guard {
                    Ok(guard) => guards.push(guard),
                    Err(reason) => {
                        why = reason;
                        return false;
                    }
                }
                true
            });
            if all {
                self.has_whole(guards.len());
                return Ok(LockSet::Many(guards));
            }
            drop(guards);
            if why == Some(GaveUp::Claimed) {
                self.wants_whole(wanted.count());
                return Err(GaveUp::Claimed);
            }
            // Not for the token: a script that is overdue may hold it.
            while self.stretching.active.load(SeqCst) && !self.is_any_overdue() {
                drop(self.stretching.token.try_lock_for(LOOK));
            }
            if self.is_any_overdue() {
                return Err(GaveUp::Overdue);
            }
        }
    }

    /// True while some script holds shards for longer than clients are made to wait.
    #[inline]
    pub fn is_any_overdue(&self) -> bool {
        self.stretching.overdue.load(SeqCst) > 0
    }

    /// One more holder of shards runs for longer than clients are made to wait.
    pub fn begin_overdue(&self) {
        self.stretching.overdue.fetch_add(1, SeqCst);
    }

    /// One less.
    pub fn end_overdue(&self) {
        self.stretching.overdue.fetch_sub(1, SeqCst);
    }

    /// The right to wait for shards out of order, if nobody has it.
    pub fn stretch(&self) -> Option<Stretch<'_>> {
        let token = self.stretching.token.try_lock()?;
        self.stretching.active.store(true, SeqCst);
        Some(Stretch {
            active: &self.stretching.active,
            _token: token,
        })
    }
}

impl<'k> LockSet<'k> {
    /// Holds `shard` as well, if it can be had at once.
    pub fn try_add(&mut self, keyspace: &'k Keyspace, shard: usize) -> bool {
        if self.holds(shard) {
            return true;
        }
        match keyspace.shards[shard].state.try_lock() {
            Some(state) => {
                self.add(keyspace.guard(shard, state));
                true
            }
            None => false,
        }
    }

    /// Holds `shard` as well, by who has the right to wait for it while holding others.
    pub fn add_stretching(&mut self, keyspace: &'k Keyspace, shard: usize, _: &Stretch<'_>) {
        if !self.holds(shard)
            && let Some(guard) = keyspace.lock_unless(shard, || false)
        {
            self.add(guard);
        }
    }

    fn add(&mut self, guard: ShardGuard<'k>) {
        match std::mem::replace(self, Self::None) {
            Self::None => *self = Self::One(guard),
            Self::One(first) => {
                let mut guards = vec![first, guard];
                guards.sort_unstable_by_key(|guard| guard.index);
                *self = Self::Many(guards);
            }
            Self::Many(mut guards) => {
                let at = guards.partition_point(|other| other.index < guard.index);
                guards.insert(at, guard);
                *self = Self::Many(guards);
            }
        }
    }

    /// True when it holds every shard.
    pub fn holds_all(&self) -> bool {
        matches!(self, Self::Many(guards) if guards.len() == SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn who_locks_several_gives_way_to_who_stretches() {
        let keyspace = Keyspace::new(1, false);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let mut locks = LockSet::One(keyspace.lock(5));
            // It gets 3 and waits for 5.
            scope.spawn(|| {
                drop(keyspace.lock_in_order([3, 5].into_iter()));
                done.fetch_add(1, Relaxed);
            });
            while keyspace.shards[3].state.try_lock().is_some() {
                std::thread::yield_now();
            }
            assert!(!locks.try_add(&keyspace, 3));
            let stretch = keyspace.stretch().expect("nobody has it");
            locks.add_stretching(&keyspace, 3, &stretch);
            assert!(locks.holds(3) && locks.holds(5));
            assert_eq!(done.load(Relaxed), 0);
            drop(stretch);
            drop(locks);
        });
        assert_eq!(done.load(Relaxed), 1);
    }

    #[test]
    fn clients_do_not_wait_for_what_is_overdue() {
        let keyspace = Keyspace::new(1, false);
        let held = keyspace.lock(0);
        keyspace.begin_overdue();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| keyspace.lock_all_in_time().is_err());
            assert!(waiter.join().expect("it does not panic"));
        });
        keyspace.end_overdue();
        drop(held);
        assert!(keyspace.lock_all_in_time().is_ok());
    }
}
