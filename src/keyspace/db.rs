//! The only door to a key: lookup, change, removal, expiry, seen through the locks of a command.
//!
//! A command gets a [`Db`]: the selected database through the shards that the command holds. It
//! looks keys up, changes them, and says with [`Db::changed`] what happened; from that one call
//! follow the dirty count, WATCH, the notification and that the command is propagated. A key
//! found expired is removed on the spot, counted, announced, and its removal propagated, all
//! under the lock of the command that met it.

use std::cell::Cell;

use super::entry::{Entry, EntryMut, EntryRef, Garbage, NewValue, WrongType};
use super::event::{self, Event};
use super::shards::{Keyspace, LockSet};
use super::table::position_of_shard;
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::hash::Hash;

mod effects;
mod hint;
mod run;
mod walks;

pub use effects::{Effects, Env, ExpiredField, Rewrite, Ttl};
pub use hint::Hint;
use run::Run;
pub use walks::{Met, settle};

/// A database as one command sees it.
pub struct Db<'c, 'k> {
    locks: &'c mut LockSet<'k>,
    run: Run<'c, 'k>,
    /// Keys whose hashes are known, in the order in which the command is likely to touch them.
    hints: &'c [Hint],
    /// The hint that was used last.
    at: Cell<usize>,
}

impl<'c, 'k> Db<'c, 'k> {
    /// The view on database `index` through `locks`. `hints` are keys whose hashes are known.
    #[inline(always)]
    pub fn new(
        keyspace: &'k Keyspace,
        locks: &'c mut LockSet<'k>,
        env: &'c Env,
        effects: &'c mut Effects,
        index: usize,
        hints: &'c [Hint],
    ) -> Self {
        debug_assert!(locks.is_of(keyspace), "the locks are another keyspace's");
        Self {
            run: Run {
                unobserved: locks.is_unobserved(),
                keyspace,
                env,
                effects,
                index,
            },
            locks,
            hints,
            at: Cell::new(0),
        }
    }

    /// Number of the selected database.
    pub fn index(&self) -> usize {
        self.run.index
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.run.keyspace.databases()
    }

    /// The keyspace, for counts and positions.
    pub fn keyspace(&self) -> &Keyspace {
        self.run.keyspace
    }

    /// The time of this command, Unix milliseconds.
    #[inline]
    pub fn now_ms(&self) -> i64 {
        self.run.env.now_ms
    }

    /// What the command sees beside the keys.
    pub fn env(&self) -> &Env {
        self.run.env
    }

    /// The same locks seen on another database, for COPY and MOVE.
    pub fn other(&mut self, index: usize) -> Db<'_, 'k> {
        Db {
            locks: self.locks,
            run: Run {
                keyspace: self.run.keyspace,
                env: self.run.env,
                effects: self.run.effects,
                index,
                unobserved: self.run.unobserved,
            },
            hints: self.hints,
            at: Cell::new(self.at.get()),
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        let at = self.at.get();
        match self.hints.get(at) {
            Some(hint) if hint.is(key) => hint.hash,
            Some(_) => self.next_hash(at + 1, key),
            None => self.run.keyspace.hash(key),
        }
    }

    /// The hash of a key that is not the one of the last call: the next one, as a rule.
    #[inline]
    fn next_hash(&self, next: usize, key: &[u8]) -> u64 {
        match self.hints.get(next) {
            Some(hint) if hint.is(key) => {
                self.at.set(next);
                hint.hash
            }
            _ => self.run.keyspace.hash(key),
        }
    }

    /// Removes `key` if it has expired; true when it did.
    pub fn expire_if_due(&mut self, key: &[u8]) -> bool {
        let before = self.run.effects.expired.len();
        self.exists(key);
        self.run.effects.expired.len() > before
    }

    /// Looks a key up to read it: counts the hit or miss, and records the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (access, touches) = (self.run.env.access, self.run.env.touches);
        let entry = self.view(key)?;
        if touches {
            access.touch(&entry);
        }
        Some(entry)
    }

    /// As [`Db::read`], but the access is not recorded: for what asks about keys (TTL, EXISTS).
    #[inline(always)]
    pub fn view(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let Some(found) = self.run.find(self.locks, hash, key) else {
            self.run.missed(key);
            return None;
        };
        self.run.effects.hits += 1;
        Some(found.slot.into_ref())
    }

    /// As [`Db::view`], but a miss is not announced: for OBJECT.
    pub fn inspect(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let Some(found) = self.run.find(self.locks, hash, key) else {
            self.run.effects.misses += 1;
            return None;
        };
        self.run.effects.hits += 1;
        Some(found.slot.into_ref())
    }

    /// Counts a read that found its key without being one of [`Db::read`]: another command's look
    /// that Redis counts.
    pub fn count_hit(&mut self) {
        self.run.effects.hits += 1;
    }

    /// Looks a key up without a trace in statistics or access clocks.
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let found = self.run.find(self.locks, hash, key)?;
        Some(found.slot.into_ref())
    }

    /// As [`Db::get`], also of a key whose time is over and that is still there: for tests of that.
    pub fn get_what_is_there(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let table = self.locks.view(Keyspace::shard_of(hash), self.run.index)?;
        table.find(hash, key)
    }

    /// A key's entry by shared borrow, so that several can be read at once. Expired keys read as
    /// absent; [`Db::read`] or [`Db::peek`] them first to have them removed and counted.
    pub fn get(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let table = self.locks.view(Keyspace::shard_of(hash), self.run.index)?;
        let entry = table.find(hash, key)?;
        (entry
            .expiry()
            .is_none_or(|at| at >= self.run.env.expired_before_ms))
        .then_some(entry)
    }

    /// Looks a key up to change it. Says nothing to anybody: call [`Db::changed`] afterwards.
    #[inline]
    pub fn write(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        let hash = self.hash(key);
        let mut found = self.run.find(self.locks, hash, key)?;
        self.run.preserve(&mut found);
        self.run.touch(&found.slot.get());
        Some(EntryMut::new(found.slot))
    }

    /// Looks a collection up to change it in place. Says nothing to anybody: call [`Db::changed`]
    /// afterwards, and remove the key if the collection has become empty.
    #[inline]
    pub fn write_as<C: Collection>(&mut self, key: &[u8]) -> Result<Option<&mut C>, WrongType> {
        let hash = self.hash(key);
        let Some(mut found) = self.run.find(self.locks, hash, key) else {
            return Ok(None);
        };
        self.run.preserve(&mut found);
        let entry = found.slot.into_mut();
        self.run.touch(&entry);
        entry.into_collection().map(Some)
    }

    /// Adds to the integer at `key` where it lies. `None`, with nothing changed, when there is none
    /// or the sum does not fit its place. Says nothing to anybody: call [`Db::changed`] afterwards.
    #[inline]
    pub fn add_in_place(&mut self, key: &[u8], by: i64) -> Option<i64> {
        let hash = self.hash(key);
        let mut found = self.run.find(self.locks, hash, key)?;
        self.run.preserve(&mut found);
        let mut entry = found.slot.get_mut();
        let sum = entry.add(by)?;
        self.run.touch(&entry);
        Some(sum)
    }

    /// True when the key exists (without a trace, but expired keys are removed).
    pub fn exists(&mut self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        self.run.find(self.locks, hash, key).is_some()
    }

    /// Sets a key to a string, whatever it was. True when the key is new.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: NewValue<'_>, ttl: Ttl) -> bool {
        let hash = self.hash(key);
        if let Some(mut found) = self.run.find(self.locks, hash, key) {
            self.run.preserve(&mut found);
            self.run.touch(&found.slot.get());
            let (garbage, was, is) = found.slot.change(|entry| {
                let was = entry.kind();
                let garbage = entry.set_value(value);
                match ttl {
                    Ttl::Keep => {}
                    Ttl::Clear => entry.set_expiry(None),
                    Ttl::At(at) => entry.set_expiry(Some(at)),
                }
                (garbage, was, entry.kind())
            });
            // A key that is there and becomes another value wakes nobody, even if it is what
            // somebody waits for; but for streams, while anybody waits for any: as Redis does it.
            if was == Type::Stream && self.run.keyspace.is_a_stream_awaited() {
                self.run.signal(found.state, key);
            }
            if let Some(garbage) = garbage {
                self.run.discard(garbage, self.run.env.lazy_overwrite);
            }
            if was == Type::Hash || is == Type::Hash {
                self.note_fields(key);
            }
            return false;
        }
        let expiry = match ttl {
            Ttl::At(at) => Some(at),
            _ => None,
        };
        let entry = Entry::new(key, value, expiry, self.run.env.access.initial());
        self.insert_hashed(hash, key, entry);
        true
    }

    /// Notes when the first field of the hash at `key` expires. To be called when a field was given
    /// an expiry.
    pub fn note_fields(&mut self, key: &[u8]) {
        let next = self
            .get(key)
            .and_then(|entry| entry.get_as::<Hash>()?.next_expiry());
        let shard = self.locks.shard(Keyspace::shard_of(self.hash(key)));
        shard.note_timed(&self.run.keyspace.timed, self.run.index, key, next);
    }

    /// Adds an entry under a key that does not exist, and announces it as new.
    pub fn insert(&mut self, key: &[u8], entry: Entry) {
        let hash = self.hash(key);
        self.insert_hashed(hash, key, entry);
    }

    #[inline]
    fn insert_hashed(&mut self, hash: u64, key: &[u8], entry: Entry) {
        let (keyspace, db) = (self.run.keyspace, self.run.index);
        let mut part = self.locks.shard(Keyspace::shard_of(hash)).part(db);
        debug_assert_eq!(entry.key(), key);
        debug_assert!(part.table.view().find(hash, key).is_none(), "a key twice");
        entry.set_epoch(part.state.epoch());
        if let Some(next) = entry.get_as::<Hash>().and_then(Hash::next_expiry) {
            let all = &keyspace.timed;
            part.state.note_timed(all, db, key, Some(next));
        }
        part.table.insert(hash, entry, &|key| keyspace.hash(key));
        self.run.signal(part.state, key);
        self.run.announce(key, event::ON_NEW);
    }

    /// Takes a key out of the database. Says nothing to anybody.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let hash = self.hash(key);
        let found = self.run.find(self.locks, hash, key)?;
        let entry = self.run.take(found);
        self.signal_ready(key);
        Some(entry)
    }

    /// Removes a key; true when it existed. Says nothing to anybody.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.remove_freeing(key, false)
    }

    /// As [`Db::remove`]; a big value is freed in the background when that is to be `lazy`.
    pub fn remove_freeing(&mut self, key: &[u8], lazy: bool) -> bool {
        let Some(entry) = self.take(key) else {
            return false;
        };
        self.run.free(entry, lazy);
        true
    }

    /// Removes a key that an empty result, or what is restored, takes the place of, whether or not its
    /// time is over: it goes by that, not by expiring. True when there was one.
    pub fn remove_replaced(&mut self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let shard = self.locks.shard(Keyspace::shard_of(hash));
        let Some(found) = shard.part(self.run.index).find(hash, key) else {
            return false;
        };
        let entry = self.run.take(found);
        self.run.free(entry, false);
        self.signal_ready(key);
        true
    }

    /// Shows every entry of a held shard's part of the database, expired ones included.
    pub fn each_in_shard(&self, shard: usize, mut visit: impl FnMut(&Entry)) {
        let mut position = Some(position_of_shard(shard));
        while let Some(at) = position {
            position = self.visit_bucket(at, &mut visit);
        }
    }

    /// Records fields that were removed because they had expired.
    pub(super) fn record_expired_fields(&mut self, fields: impl Iterator<Item = ExpiredField>) {
        self.run.effects.expired_fields.extend(fields);
    }

    pub(super) fn discard(&mut self, garbage: Garbage, lazy: bool) {
        self.run.discard(garbage, lazy);
    }

    /// Tells that `key` changed by `event`: counts it, raises its watchers, announces the event.
    /// The command will be propagated.
    #[inline]
    pub fn changed(&mut self, key: &[u8], event: Event) {
        self.changed_silently(key);
        self.run.announce(key, event);
    }

    /// [`Db::changed`] for an event that counts as `count` changes (elements, as a rule).
    #[inline]
    pub fn changed_by(&mut self, key: &[u8], event: Event, count: u64) {
        self.changed(key, event);
        self.run.effects.dirty += count - 1;
    }

    /// [`Db::changed`] for a change that no notification tells of.
    #[inline]
    pub fn changed_silently(&mut self, key: &[u8]) {
        self.run.effects.dirty += 1;
        self.touch(key);
    }

    /// [`Db::changed`] for another key of a change that is already counted (RENAME, MOVE).
    pub fn changed_too(&mut self, key: &[u8], event: Event) {
        self.touch(key);
        self.also(key, event);
    }

    /// Announces a further event of a change that was already told with [`Db::changed`].
    pub fn also(&mut self, key: &[u8], event: Event) {
        self.run.announce(key, event);
    }

    /// Counts `count` further changes of a key whose change is told with [`Db::changed`], or which
    /// concern neither watchers nor subscribers (what consumer groups know of entries).
    #[inline]
    pub fn count_changes(&mut self, count: u64) {
        self.run.effects.dirty += count;
    }

    /// Changes to the data set that the command has made so far.
    pub fn changes(&self) -> u64 {
        self.run.effects.dirty
    }

    /// The command is propagated even if it changes nothing.
    pub fn propagate_anyway(&mut self) {
        self.run.effects.forced = true;
    }

    /// States the deterministic form of the command, once it is known; a further one is a further
    /// command. Costs nothing while nobody would read it.
    pub fn rewrite(&mut self, args: &[&[u8]]) {
        self.run.effects.rewrite(args);
    }

    /// States what is propagated in place of the command: these, or nothing.
    pub fn rewrite_as(&mut self, forms: Vec<Vec<Vec<u8>>>) {
        self.run.effects.rewrite = Rewrite::As(forms);
    }

    /// False when nobody reads the stream while the locks are held: forms need not be stated.
    pub fn is_heard(&self) -> bool {
        !self.run.effects.unheard
    }

    /// Wakes the clients blocked on `key`. Keys that come or go wake theirs by themselves; this is
    /// for what is added to a key that is there (streams).
    pub fn signal_ready(&mut self, key: &[u8]) {
        if !self.run.unobserved {
            let shard = Keyspace::shard_of(self.hash(key));
            let part = self.locks.shard(shard).part(self.run.index);
            self.run.signal(part.state, key);
        }
    }

    /// Raises those who watch `key`, and leaves word for those who keep copies of it.
    #[inline]
    pub(super) fn touch(&mut self, key: &[u8]) {
        if !self.run.unobserved {
            self.touch_watchers(key);
        }
    }

    fn touch_watchers(&mut self, key: &[u8]) {
        let shard = Keyspace::shard_of(self.hash(key));
        let db = self.run.index;
        let guard = self.locks.shard(shard);
        guard.touch_watchers(db, key);
        self.run.outdate(guard, key);
    }
}
