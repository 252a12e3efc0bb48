//! Freeing in the background: what is too big to be freed by the worker that removed it.
//!
//! UNLINK, FLUSHALL ASYNC and the `lazyfree-*` parameters hand values and whole tables to one
//! thread, which is started by the first of them. What costs no more than [`EFFORT`] to free is
//! freed on the spot, whoever asks, because handing it over would cost as much; what costs more
//! than [`HUGE`] goes to the thread even without being asked for, because no connection should
//! wait for it. Nothing here is called under a shard's lock.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use super::entry::{Entry, Garbage, InPlace};
use super::table::{Table, position_of_shard};

/// Effort up to which a value is freed at once although lazy freeing was asked for.
pub const EFFORT: usize = 64;
/// Effort from which a value is freed in the background although nobody asked.
pub const HUGE: usize = 10_000;

/// Tables that were taken out of the keyspace, with all their entries. Dropping frees them.
#[derive(Default)]
pub struct Detached {
    tables: Vec<Table<Entry>>,
    keys: usize,
}

impl Detached {
    /// Adds a table.
    pub fn push(&mut self, table: Table<Entry>) {
        self.keys += table.len();
        self.tables.push(table);
    }

    /// Shows every entry.
    pub(super) fn each(&mut self, mut show: impl FnMut(InPlace<'_>)) {
        for table in &mut self.tables {
            let (mut table, mut at) = (table.own(), Some(position_of_shard(0)));
            while let Some(position) = at {
                at = table.visit_mut(position, &mut show);
            }
        }
    }

    /// Number of keys in all.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How much work freeing is, looking into the values only where the keys are few.
    fn effort(&mut self) -> usize {
        let mut effort = self.keys;
        if effort <= EFFORT {
            self.each(|entry| effort += entry.object().map_or(0, |object| object.effort()));
        }
        effort
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        for table in self.tables.drain(..) {
            table.destroy();
        }
    }
}

/// Something to free.
pub enum Load {
    /// A value.
    Value(Garbage),
    /// Tables.
    Keys(Detached),
}

impl Load {
    /// What it counts for in `lazyfree_pending_objects`.
    fn objects(&self) -> usize {
        match self {
            Self::Value(_) => 1,
            Self::Keys(detached) => detached.keys(),
        }
    }

    fn effort(&mut self) -> usize {
        match self {
            Self::Value(garbage) => garbage.effort(),
            Self::Keys(detached) => detached.effort(),
        }
    }
}

/// The way to the thread; see the module.
#[derive(Default)]
pub struct Lazyfree {
    counts: Arc<Counts>,
    thread: OnceLock<Option<Sender<Load>>>,
}

#[derive(Default)]
struct Counts {
    pending: AtomicUsize,
    freed: AtomicUsize,
}

impl Lazyfree {
    /// Frees `load` in the background, or at once when that is little work (or no thread can be
    /// had).
    pub fn send(&self, mut load: Load) {
        if load.effort() > EFFORT {
            self.hand_over(load);
        }
    }

    /// Frees `garbage` at once, except what is huge.
    pub fn free(&self, garbage: &mut Vec<Garbage>) {
        for one in garbage.drain(..) {
            if one.effort() >= HUGE {
                self.hand_over(Load::Value(one));
            }
        }
    }

    #[cold]
    fn hand_over(&self, load: Load) {
        let Some(sender) = self.thread.get_or_init(|| start(Arc::clone(&self.counts))) else {
            return;
        };
        self.counts.pending.fetch_add(load.objects(), Relaxed);
        // The thread ends only when the sender is dropped.
        if let Err(refused) = sender.send(load) {
            self.counts.pending.fetch_sub(refused.0.objects(), Relaxed);
        }
    }

    /// Objects waiting to be freed (`lazyfree_pending_objects`).
    pub fn pending(&self) -> usize {
        self.counts.pending.load(Relaxed)
    }

    /// Objects freed in the background so far (`lazyfreed_objects`).
    pub fn freed(&self) -> usize {
        self.counts.freed.load(Relaxed)
    }

    /// Begins counting [`Lazyfree::freed`] anew (CONFIG RESETSTAT).
    pub fn reset_freed(&self) {
        self.counts.freed.store(0, Relaxed);
    }
}

fn start(counts: Arc<Counts>) -> Option<Sender<Load>> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("lazy_free".to_owned());
    let started = thread.spawn(move || work(&receiver, &counts));
    match started {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!("Can't start the thread for lazy freeing: {error}");
            None
        }
    }
}

fn work(receiver: &Receiver<Load>, counts: &Counts) {
    while let Ok(load) = receiver.recv() {
        let objects = load.objects();
        drop(load);
        counts.freed.fetch_add(objects, Relaxed);
        counts.pending.fetch_sub(objects, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::NewValue;
    use crate::keyspace::shards::Keyspace;

    #[test]
    fn few_keys_with_a_big_value_are_not_little_work() {
        use crate::types::object::Object;
        use crate::types::set::{Limits, Set};
        let keyspace = Keyspace::new(1, false);
        let hash = keyspace.hash(b"big");
        let limits = Limits { intset_entries: 0 };
        let mut set = Set::new();
        (0..100_000).for_each(|n: u32| {
            set.add(n.to_string().as_bytes(), limits);
        });
        let entry = Entry::new(b"big", NewValue::Object(Object::from(set)), None, 0);
        let mut guard = keyspace.lock(Keyspace::shard_of(hash));
        guard
            .table(0)
            .insert(hash, entry, &|key| keyspace.hash(key));
        let mut detached = Detached::default();
        detached.push(guard.table(0).take());
        drop(guard);
        assert!(Load::Keys(detached).effort() > EFFORT);
    }

    #[test]
    fn whole_tables_are_freed_in_the_background_and_counted() {
        let keyspace = Keyspace::new(1, false);
        let mut detached = Detached::default();
        for i in 0..5000u32 {
            let key = i.to_string().into_bytes();
            let hash = keyspace.hash(&key);
            let entry = Entry::new(&key, NewValue::Bytes(b"v"), None, 0);
            let mut guard = keyspace.lock(Keyspace::shard_of(hash));
            guard
                .table(0)
                .insert(hash, entry, &|key| keyspace.hash(key));
        }
        for shard in 0..crate::keyspace::shards::SHARDS {
            detached.push(keyspace.lock(shard).table(0).take());
        }
        let lazyfree = Lazyfree::default();
        lazyfree.send(Load::Keys(detached));
        while lazyfree.pending() > 0 {
            std::thread::yield_now();
        }
        assert_eq!((lazyfree.freed(), keyspace.len(0)), (5000, 0));
        lazyfree.reset_freed();
        lazyfree.send(Load::Value(Garbage::Bytes(Arc::new(vec![0; 10]))));
        assert_eq!((lazyfree.freed(), lazyfree.pending()), (0, 0));
    }
}
