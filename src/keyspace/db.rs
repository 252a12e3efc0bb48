//! The only door to a key: lookup, change, removal, expiry, seen through the locks of a command.
//!
//! A command gets a [`Db`]: the selected database through the shards that the command holds. It
//! looks keys up, changes them, and says with [`Db::changed`] what happened; from that one call
//! follow the dirty count, WATCH, the notification and that the command is propagated. A key
//! found expired is removed on the spot, counted, announced, and its removal propagated, all
//! under the lock of the command that met it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::collections::WrongType;
use super::entry::{Entry, Garbage, NewValue};
use super::event::{self, Event};
use super::lazyfree::Load;
use super::outbox::Notice;
use super::shards::{Keyspace, LockSet};
use super::table::{Locked, Position, Slot, Table, TableEntry, position_of_shard};
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::hash::Hash;

mod effects;
mod hint;
#[allow(unsafe_code)]
mod walks;

pub use effects::{Effects, Env, ExpiredField, Rewrite, Ttl};
pub use hint::Hint;
pub use walks::{Met, settle};

/// A database as one command sees it.
pub struct Db<'c, 'k> {
    keyspace: &'k Keyspace,
    locks: &'c mut LockSet<'k>,
    env: &'c Env,
    /// What was done; also carries the rewritten form.
    pub effects: &'c mut Effects,
    index: usize,
    /// Keys whose hashes are known, in the order in which the command is likely to touch them.
    hints: &'c [Hint],
    /// The hint that was used last.
    at: Cell<usize>,
    /// A change concerns nobody else: [`LockSet::is_unobserved`].
    unobserved: bool,
}

/// An entry to be read.
pub struct EntryRef<'a> {
    entry: ManuallyDrop<Entry>,
    lives: PhantomData<&'a Entry>,
}

impl Deref for EntryRef<'_> {
    type Target = Entry;
    #[inline]
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// Shows every entry of a table that was taken out of the keyspace.
pub(super) fn each_owned(table: &mut Table<Entry>, show: &mut dyn FnMut(&mut Entry)) {
    // SAFETY: whoever has it owns it, so nobody else looks at it or changes it.
    let mut locked = unsafe { table.assume_locked() };
    let mut at = Some(position_of_shard(0));
    while let Some(position) = at {
        at = visit_mut(&mut locked, position, &mut *show);
    }
}

/// Shows the entries of a bucket, to be changed in what others do not see: neither key, nor expiry,
/// nor place. Where the next bucket begins.
pub(super) fn visit_mut(
    table: &mut Locked<'_, Entry>,
    position: Position,
    mut visit: impl FnMut(&mut Entry),
) -> Option<Position> {
    table.visit_bucket(position, |raw, _| {
        // SAFETY: visited entries are alive; the table's lock is held and this claim on it is the
        // only one. Never dropped: the slot keeps its ownership.
        visit(&mut ManuallyDrop::new(unsafe { Entry::from_raw(raw) }));
    })
}

impl<'a> EntryRef<'a> {
    /// The collection, if it is of the type asked for.
    #[inline]
    pub fn into_collection<C: Collection>(self) -> Result<&'a C, WrongType> {
        let collection: *const C = self.entry.get_as().ok_or(WrongType)?;
        // SAFETY: it lies in the entry, which is borrowed for 'a, not in this guard.
        Ok(unsafe { &*collection })
    }
}

/// An entry to be changed; the table learns of its new address and expiry when this is dropped.
pub struct EntryMut<'a> {
    entry: ManuallyDrop<Entry>,
    slot: Slot,
    table: Locked<'a, Entry>,
}

impl Deref for EntryMut<'_> {
    type Target = Entry;
    #[inline]
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl DerefMut for EntryMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }
}

impl Drop for EntryMut<'_> {
    #[inline]
    fn drop(&mut self) {
        let volatile = self.entry.expiry().is_some();
        // SAFETY: the entry is taken once, here, and its ownership goes back to the slot.
        let raw = unsafe { ManuallyDrop::take(&mut self.entry) }.into_raw();
        self.table.replace(self.slot, raw, volatile);
    }
}

/// Borrows the entry at an address.
///
/// # Safety
/// The address came from a table whose lock is held, with no other claim on the entry, for 'a.
#[inline]
pub(super) unsafe fn borrow<'a>(raw: NonNull<u8>) -> EntryRef<'a> {
    EntryRef {
        // SAFETY: never dropped: ManuallyDrop.
        entry: ManuallyDrop::new(unsafe { Entry::from_raw(raw) }),
        lives: PhantomData,
    }
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
        Self {
            unobserved: locks.is_unobserved(),
            keyspace,
            locks,
            env,
            effects,
            index,
            hints,
            at: Cell::new(0),
        }
    }

    /// Number of the selected database.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// The time of this command, Unix milliseconds.
    #[inline]
    pub fn now_ms(&self) -> i64 {
        self.env.now_ms
    }

    /// What the command sees beside the keys.
    pub fn env(&self) -> &Env {
        self.env
    }

    /// The same locks seen on another database, for COPY and MOVE.
    pub fn other(&mut self, index: usize) -> Db<'_, 'k> {
        Db {
            keyspace: self.keyspace,
            locks: self.locks,
            env: self.env,
            effects: self.effects,
            index,
            hints: self.hints,
            at: Cell::new(self.at.get()),
            unobserved: self.unobserved,
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        let at = self.at.get();
        match self.hints.get(at) {
            Some(hint) if hint.is(key) => hint.hash,
            Some(_) => self.next_hash(at + 1, key),
            None => self.keyspace.hash(key),
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
            _ => self.keyspace.hash(key),
        }
    }

    #[inline]
    fn table(&mut self, hash: u64) -> Locked<'_, Entry> {
        self.locks.shard(Keyspace::shard_of(hash)).table(self.index)
    }

    /// Finds a key that is not expired; an expired one is removed (or, where keys are not
    /// expired by this server, hidden).
    #[inline]
    fn find(&mut self, key: &[u8]) -> Option<(u64, Slot)> {
        let hash = self.hash(key);
        let slot = self.find_hashed(hash, key)?;
        Some((hash, slot))
    }

    fn find_hashed(&mut self, hash: u64, key: &[u8]) -> Option<Slot> {
        let slot = self.table(hash).find(hash, key)?;
        if !slot.is_volatile() {
            return Some(slot);
        }
        self.find_volatile(hash, slot)
    }

    fn find_volatile(&mut self, hash: u64, slot: Slot) -> Option<Slot> {
        // SAFETY: the slot was just found under the lock that `self` holds.
        let entry = unsafe { borrow(slot.pointer()) };
        if entry
            .expiry()
            .is_none_or(|at| at >= self.env.expired_before_ms)
        {
            return Some(slot);
        }
        if self.env.expires_keys {
            self.expire_slot(hash, slot);
        }
        None
    }

    /// Before an entry is changed or removed: a cut that has not seen it sees it now.
    #[inline]
    fn preserve(&mut self, hash: u64, slot: Slot) {
        if !self.unobserved {
            self.show_to_cut(hash, slot);
        }
    }

    fn show_to_cut(&mut self, hash: u64, slot: Slot) {
        let guard = self.locks.shard(Keyspace::shard_of(hash));
        if let Some(cut) = guard.cut() {
            // SAFETY: the slot was found under the lock that `self` holds exclusively. Never dropped:
            // the slot keeps its ownership.
            let mut entry = ManuallyDrop::new(unsafe { Entry::from_raw(slot.pointer()) });
            cut.preserve(self.index, &mut entry, guard.epoch());
        }
    }

    /// Takes the entry of a slot out of its table.
    #[inline]
    fn take_slot(&mut self, hash: u64, slot: Slot) -> Entry {
        self.preserve(hash, slot);
        let entry = self.table(hash).remove(slot);
        if entry.kind() == Type::Hash {
            let db = self.index;
            self.locks
                .shard(Keyspace::shard_of(hash))
                .note_timed(db, entry.key(), None);
        }
        entry
    }

    fn expire_slot(&mut self, hash: u64, slot: Slot) {
        let entry = self.take_slot(hash, slot);
        let key: Box<[u8]> = entry.key().into();
        self.free(entry, self.env.lazy_expire);
        self.signal(hash, &key);
        self.announce(&key, event::ON_EXPIRED);
        // Not by `hash`: it may carry the bits of the shard alone.
        let shard = Keyspace::shard_of(hash);
        self.locks.shard(shard).touch_watchers(self.index, &key);
        self.effects.expired.push((self.index, key));
    }

    /// Removes `key` if it has expired; true when it did.
    pub fn expire_if_due(&mut self, key: &[u8]) -> bool {
        let before = self.effects.expired.len();
        let _ = self.find(key);
        self.effects.expired.len() > before
    }

    /// Looks a key up to read it: counts the hit or miss, and records the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (access, touches) = (self.env.access, self.env.touches);
        let entry = self.view(key)?;
        if touches {
            access.touch(&entry);
        }
        Some(entry)
    }

    /// As [`Db::read`], but the access is not recorded: for what asks about keys (TTL, EXISTS).
    #[inline(always)]
    pub fn view(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let Some((_, slot)) = self.find(key) else {
            self.missed(key);
            return None;
        };
        self.effects.hits += 1;
        // SAFETY: found under the lock that `self` holds; the borrow of self keeps others out.
        Some(unsafe { borrow(slot.pointer()) })
    }

    fn missed(&mut self, key: &[u8]) {
        self.effects.misses += 1;
        if self.env.notify & event::KEY_MISS != 0 {
            self.announce(key, event::ON_KEY_MISS);
        }
    }

    /// As [`Db::view`], but a miss is not announced: for OBJECT.
    pub fn inspect(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        match self.find(key) {
            Some(_) => self.effects.hits += 1,
            None => self.effects.misses += 1,
        }
        self.peek(key)
    }

    /// Looks a key up without a trace in statistics or access clocks.
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (_, slot) = self.find(key)?;
        // SAFETY: found under the lock that `self` holds; the borrow of self keeps others out.
        Some(unsafe { borrow(slot.pointer()) })
    }

    /// A key's entry by shared borrow, so that several can be read at once. Expired keys read as
    /// absent; [`Db::read`] or [`Db::peek`] them first to have them removed and counted.
    pub fn get(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.hash(key);
        let table = self.locks.table_ref(Keyspace::shard_of(hash), self.index)?;
        let slot = table.find(hash, key)?;
        // SAFETY: found under the lock that `self` holds; no `&mut` borrow can exist meanwhile.
        let entry = unsafe { borrow(slot.pointer()) };
        (entry
            .expiry()
            .is_none_or(|at| at >= self.env.expired_before_ms))
        .then_some(entry)
    }

    /// Looks a key up to change it. Says nothing to anybody: call [`Db::changed`] afterwards.
    #[inline]
    pub fn write(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        let (hash, slot) = self.find(key)?;
        Some(self.claim(hash, slot))
    }

    /// Looks a collection up to change it in place. Says nothing to anybody: call [`Db::changed`]
    /// afterwards, and remove the key if the collection has become empty.
    #[inline]
    pub fn write_as<C: Collection>(&mut self, key: &[u8]) -> Result<Option<&mut C>, WrongType> {
        let Some((hash, slot)) = self.find(key) else {
            return Ok(None);
        };
        self.preserve(hash, slot);
        // SAFETY: found under the lock; never dropped, the slot keeps its ownership.
        let mut entry = ManuallyDrop::new(unsafe { Entry::from_raw(slot.pointer()) });
        if self.env.touches {
            self.env.access.touch(&entry);
        }
        let collection: *mut C = entry.get_as_mut().ok_or(WrongType)?;
        // SAFETY: it lies in the entry, and the exclusive borrow of self keeps others out. What is
        // done with it neither moves the entry nor changes its expiry.
        Ok(Some(unsafe { &mut *collection }))
    }

    /// Adds to the integer at `key` where it lies. `None`, with nothing changed, when there is none
    /// or the sum does not fit its place. Says nothing to anybody: call [`Db::changed`] afterwards.
    #[inline]
    pub fn add_in_place(&mut self, key: &[u8], by: i64) -> Option<i64> {
        let (hash, slot) = self.find(key)?;
        self.preserve(hash, slot);
        // SAFETY: found under the lock; never dropped, the slot keeps its ownership.
        let mut entry = ManuallyDrop::new(unsafe { Entry::from_raw(slot.pointer()) });
        let sum = entry.add_in_place(by)?;
        if self.env.touches {
            self.env.access.touch(&entry);
        }
        Some(sum)
    }

    #[inline]
    fn claim(&mut self, hash: u64, slot: Slot) -> EntryMut<'_> {
        self.preserve(hash, slot);
        let (access, touches) = (self.env.access, self.env.touches);
        let table = self.table(hash);
        // SAFETY: found under the lock; the slot's ownership passes to the guard and back.
        let entry = ManuallyDrop::new(unsafe { Entry::from_raw(slot.pointer()) });
        if touches {
            access.touch(&entry);
        }
        EntryMut { entry, slot, table }
    }

    /// True when the key exists (without a trace, but expired keys are removed).
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Sets a key to a string, whatever it was. True when the key is new.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: NewValue<'_>, ttl: Ttl) -> bool {
        let hash = self.hash(key);
        if let Some(slot) = self.find_hashed(hash, key) {
            let mut entry = self.claim(hash, slot);
            let was_hash = entry.kind() == Type::Hash;
            let was_stream = entry.kind() == Type::Stream;
            let garbage = entry.set_value(value);
            let is_hash = entry.kind() == Type::Hash;
            match ttl {
                Ttl::Keep => {}
                Ttl::Clear => entry.set_expiry(None),
                Ttl::At(at) => entry.set_expiry(Some(at)),
            }
            drop(entry);
            if let Some(garbage) = garbage {
                self.discard(garbage, self.env.lazy_overwrite);
            }
            if was_hash || is_hash {
                self.note_fields(key);
            }
            // A key that is there and becomes another value wakes nobody, even if it is what
            // somebody waits for; but for streams, while anybody waits for any: as Redis does it.
            if was_stream && self.keyspace.is_a_stream_awaited() {
                self.signal(hash, key);
            }
            return false;
        }
        let expiry = match ttl {
            Ttl::At(at) => Some(at),
            _ => None,
        };
        let entry = Entry::new(key, value, expiry, self.env.access.initial());
        self.insert_hashed(hash, key, entry);
        true
    }

    /// Notes when the first field of the hash at `key` expires.
    pub(super) fn note_timed(&mut self, key: &[u8], next: Option<i64>) {
        let (shard, db) = (Keyspace::shard_of(self.hash(key)), self.index);
        self.locks.shard(shard).note_timed(db, key, next);
    }

    /// Adds an entry under a key that does not exist, and announces it as new.
    pub fn insert(&mut self, key: &[u8], entry: Entry) {
        let hash = self.hash(key);
        self.insert_hashed(hash, key, entry);
    }

    #[inline]
    fn insert_hashed(&mut self, hash: u64, key: &[u8], entry: Entry) {
        debug_assert_eq!(entry.key(), key);
        let keyspace = self.keyspace;
        let volatile = entry.expiry().is_some();
        let db = self.index;
        let shard = self.locks.shard(Keyspace::shard_of(hash));
        entry.set_epoch(shard.epoch());
        if let Some(next) = entry.get_as::<Hash>().and_then(Hash::next_expiry) {
            shard.note_timed(db, key, Some(next));
        }
        self.table(hash)
            .insert(hash, entry, volatile, &|key| keyspace.hash(key));
        self.signal(hash, key);
        if self.env.notify & event::NEW != 0 {
            self.announce(key, event::ON_NEW);
        }
    }

    /// Takes a key out of the database. Says nothing to anybody.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let (hash, slot) = self.find(key)?;
        let entry = self.take_slot(hash, slot);
        self.signal(hash, key);
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
        self.free(entry, lazy);
        true
    }

    /// Removes a key that an empty result takes the place of, whether or not its time is over: it
    /// goes by that, not by expiring. True when there was one.
    pub fn remove_replaced(&mut self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let Some(slot) = self.table(hash).find(hash, key) else {
            return false;
        };
        let entry = self.take_slot(hash, slot);
        self.free(entry, false);
        self.signal(hash, key);
        true
    }

    /// Shows every entry of a held shard's part of the database, expired ones included.
    pub fn each_in_shard(&mut self, shard: usize, mut visit: impl FnMut(&Entry)) {
        let table = self.locks.shard(shard).table(self.index);
        let mut position = Some((shard as u64) << (48 - super::table::SKIP));
        while let Some(at) = position {
            position = table.visit_bucket(at, |raw, _| {
                // SAFETY: visited under the lock that `self` holds.
                let entry = unsafe { borrow(raw) };
                visit(&entry);
            });
        }
    }

    /// Frees an entry that is in no table any more: its value after the locks are released.
    fn free(&mut self, entry: Entry, lazy: bool) {
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

    /// Tells that `key` changed by `event`: counts it, raises its watchers, announces the event.
    /// The command will be propagated.
    #[inline]
    pub fn changed(&mut self, key: &[u8], event: Event) {
        self.changed_silently(key);
        if self.env.notify & event.class != 0 {
            self.announce(key, event);
        }
    }

    /// [`Db::changed`] for an event that counts as `count` changes (elements, as a rule).
    #[inline]
    pub fn changed_by(&mut self, key: &[u8], event: Event, count: u64) {
        self.changed(key, event);
        self.effects.dirty += count - 1;
    }

    /// [`Db::changed`] for a change that no notification tells of.
    #[inline]
    pub fn changed_silently(&mut self, key: &[u8]) {
        self.effects.dirty += 1;
        self.touch(key);
    }

    /// [`Db::changed`] for another key of a change that is already counted (RENAME, MOVE).
    pub fn changed_too(&mut self, key: &[u8], event: Event) {
        self.touch(key);
        self.also(key, event);
    }

    /// Announces a further event of a change that was already told with [`Db::changed`].
    pub fn also(&mut self, key: &[u8], event: Event) {
        if self.env.notify & event.class != 0 {
            self.announce(key, event);
        }
    }

    /// Has those looked at who wait for `key`. Keys that come or go are signalled by themselves;
    /// this is for what is added to a key that is there (streams).
    pub fn signal_ready(&mut self, key: &[u8]) {
        self.signal(self.hash(key), key);
    }

    #[inline]
    fn signal(&mut self, hash: u64, key: &[u8]) {
        if !self.unobserved && self.locks.shard(Keyspace::shard_of(hash)).has_waiters() {
            self.signal_waiters(hash, key);
        }
    }

    #[cold]
    fn signal_waiters(&mut self, hash: u64, key: &[u8]) {
        let place = (self.index, Box::from(key));
        let guard = self.locks.shard(Keyspace::shard_of(hash));
        if guard.is_awaited(&place) && !self.effects.ready.contains(&place) {
            self.effects.ready.push(place);
        }
    }

    /// Raises those who watch `key`.
    #[inline]
    pub(super) fn touch(&mut self, key: &[u8]) {
        if !self.unobserved {
            self.touch_watchers(key);
        }
    }

    fn touch_watchers(&mut self, key: &[u8]) {
        let shard = Keyspace::shard_of(self.hash(key));
        let db = self.index;
        self.locks.shard(shard).touch_watchers(db, key);
    }

    #[cold]
    fn announce(&mut self, key: &[u8], event: Event) {
        if self.env.notify & event.class == 0 {
            return;
        }
        self.effects.noticed = true;
        self.keyspace.outbox.record(Notice {
            db: self.index,
            key: key.into(),
            event,
            notify: self.env.notify,
        });
    }
}
