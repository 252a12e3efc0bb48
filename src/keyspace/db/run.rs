//! One command's run: what it goes by beside the keys, and where it records what it did.
//!
//! Apart from the locks, so that a key that was found, which borrows them, and the record of what is
//! done with it can be used together.

use std::sync::atomic::Ordering;

use super::{Effects, Env};
use crate::keyspace::entry::{Entry, Garbage};
use crate::keyspace::event::{self, Event};
use crate::keyspace::lazyfree::Load;
use crate::keyspace::outbox::{Notice, Outgoing};
use crate::keyspace::shard_state::ShardState;
use crate::keyspace::shards::{Found, Keyspace, LockSet};
use crate::types::Type;

pub(super) struct Run<'c, 'k> {
    pub(super) keyspace: &'k Keyspace,
    pub(super) env: &'c Env,
    pub(super) effects: &'c mut Effects,
    /// The database.
    pub(super) index: usize,
    /// A change concerns nobody else: [`LockSet::is_unobserved`].
    pub(super) unobserved: bool,
}

impl<'k> Run<'_, 'k> {
    /// Finds a key that is not expired; an expired one is removed (or, where keys are not
    /// expired by this server, hidden).
    #[inline]
    pub(super) fn find<'l>(
        &mut self,
        locks: &'l mut LockSet<'k>,
        hash: u64,
        key: &[u8],
    ) -> Option<Found<'l>> {
        let shard = locks.shard(Keyspace::shard_of(hash));
        let found = shard.part(self.index).find(hash, key)?;
        if !found.slot.is_volatile() {
            return Some(found);
        }
        self.unless_expired(found)
    }

    fn unless_expired<'l>(&mut self, found: Found<'l>) -> Option<Found<'l>> {
        let expiry = found.slot.get().expiry();
        if expiry.is_none_or(|at| at >= self.env.expired_before_ms) {
            return Some(found);
        }
        if self.env.expires_keys {
            self.expire(found);
        }
        None
    }

    /// Before an entry is changed or removed: a cut that has not seen it sees it now.
    #[inline]
    pub(super) fn preserve(&self, found: &mut Found<'_>) {
        if !self.unobserved {
            self.show_to_cut(found);
        }
    }

    fn show_to_cut(&self, found: &mut Found<'_>) {
        if let Some(cut) = found.state.cut() {
            let mut entry = found.slot.get_mut();
            cut.preserve(self.index, &mut entry, found.state.epoch());
        }
    }

    /// Records an access, where accesses are recorded.
    #[inline(always)]
    pub(super) fn touch(&self, entry: &Entry) {
        if self.env.touches {
            self.env.access.touch(entry);
        }
    }

    /// Takes an entry out of its table.
    #[inline]
    pub(super) fn take(&self, mut found: Found<'_>) -> Entry {
        self.preserve(&mut found);
        let entry = found.slot.remove();
        if entry.kind() == Type::Hash {
            let (all, db) = (&self.keyspace.timed, self.index);
            found.state.note_timed(all, db, entry.key(), None);
        }
        entry
    }

    /// Removes a key whose time is over.
    pub(super) fn expire(&mut self, found: Found<'_>) {
        let Found { slot, state } = found;
        let found = Found {
            slot,
            state: &mut *state,
        };
        let entry = self.take(found);
        let key: Box<[u8]> = entry.key().into();
        self.free(entry, self.env.lazy_expire);
        self.signal(state, &key);
        self.announce(&key, event::ON_EXPIRED);
        state.touch_gone(self.index, &key);
        self.outdate(state, &key);
        self.effects.expired.push((self.index, key));
    }

    /// Frees an entry that is in no table any more: its value after the locks are released.
    pub(super) fn free(&mut self, entry: Entry, lazy: bool) {
        if let Some(garbage) = entry.into_garbage() {
            self.discard(garbage, lazy);
        }
    }

    pub(super) fn discard(&mut self, garbage: Garbage, lazy: bool) {
        if lazy {
            self.effects.lazy.push(Load::Value(garbage));
        } else {
            self.effects.garbage.push(garbage);
        }
    }

    /// Has those looked at who wait for `key`, whose shard this is.
    #[inline]
    pub(super) fn signal(&mut self, state: &ShardState, key: &[u8]) {
        if !self.unobserved && state.has_waiters() {
            self.signal_waiters(state, key);
        }
    }

    #[cold]
    fn signal_waiters(&mut self, state: &ShardState, key: &[u8]) {
        let place = (self.index, Box::from(key));
        if state.is_awaited(&place) && !self.effects.ready.contains(&place) {
            self.effects.ready.push(place);
        }
    }

    /// Leaves word for those who keep copies of `key`, whose shard this is.
    #[inline]
    pub(super) fn outdate(&mut self, state: &mut ShardState, key: &[u8]) {
        if state.has_trackers() {
            self.outdate_copies(state, key);
        }
    }

    #[cold]
    fn outdate_copies(&mut self, state: &mut ShardState, key: &[u8]) {
        // Of databases that no client sees there are no copies.
        if self.index >= self.keyspace.databases() {
            return;
        }
        let shard = Keyspace::shard_of(self.keyspace.hash(key));
        let counts = &self.keyspace.tracked;
        if let Some(stale) = state.take_stale(counts, shard, key, self.env.quiet_client) {
            self.keyspace.outbox.record(stale);
            self.effects.noticed = true;
        }
    }

    /// Leaves word that all copies may be old, as those of database `index` are.
    pub(super) fn outdate_all(&mut self, index: usize) {
        let clients = self.keyspace.tracked.clients.load(Ordering::Relaxed);
        if index < self.keyspace.databases() && clients > 0 {
            self.keyspace.outbox.record(Outgoing::AllStale);
            self.effects.noticed = true;
        }
    }

    /// Counts a read of a key that is not there.
    pub(super) fn missed(&mut self, key: &[u8]) {
        self.effects.misses += 1;
        self.announce(key, event::ON_KEY_MISS);
    }

    /// Leaves an event for subscribers, if its class is on.
    #[inline(always)]
    pub(super) fn announce(&mut self, key: &[u8], event: Event) {
        if self.env.notify & event.class != 0 {
            self.record(key, event);
        }
    }

    #[cold]
    fn record(&mut self, key: &[u8], event: Event) {
        let notice = Notice {
            db: self.index,
            key: key.into(),
            event,
            notify: self.env.notify,
        };
        self.effects.tell(&self.keyspace.outbox, notice);
    }
}
