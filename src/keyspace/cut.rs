//! A cut: the whole keyspace as it was at one moment, shown to a visitor while it changes.
//!
//! Every entry carries one bit, its *epoch*. While there is no cut all bits are those of their
//! shard. A cut begins with all shards locked for an instant, in which the shards' epochs flip:
//! from then on an entry with the other bit is one that the cut has not seen. A walk
//! ([`super::cut_walk`]) goes through the shards, a few buckets at a time, shows such entries to its
//! walker and turns their bits. Whoever is about to change or remove one that the walk has not
//! reached shows it to the visitor first, under the same lock ([`Cut::preserve`], called by
//! [`super::db::Db`] alone). New entries get the new bit. So each entry that was there at the cut is
//! shown exactly once, as it was, and nothing is kept twice.
//!
//! Databases that are emptied meanwhile are handed to the walk with all their keys; databases
//! that are exchanged keep the numbers they had. A cut that was cancelled still has to be walked,
//! to turn the bits, which is quick: nothing is shown any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::entry::{Entry, InPlace};
use super::lazyfree::Detached;

/// What sees entries ahead of the walk, shown by those who are about to change them. Called under
/// a shard's lock: it must be quick, also where a value is big ([`InPlace::keep`]), and lock nothing
/// but a leaf, which the walk must not hold for long.
pub trait Visitor: Send + Sync {
    /// An entry, with the database it was in at the cut.
    fn visit(&self, db: usize, entry: &mut InPlace<'_>);
}

/// A cut in progress.
pub struct Cut {
    visitor: Arc<dyn Visitor>,
    cancelled: AtomicBool,
    /// The number that each database had at the cut. Changed under the locks of all shards only.
    numbers: Box<[AtomicUsize]>,
    /// How often databases were exchanged.
    swaps: AtomicUsize,
    /// Emptied databases: the number they had, and their keys.
    emptied: Mutex<Vec<(usize, Detached)>>,
}

impl Cut {
    /// A cut of as many databases, which nobody sees yet.
    pub(super) fn new(databases: usize, visitor: Arc<dyn Visitor>) -> Self {
        Self {
            visitor,
            cancelled: AtomicBool::new(false),
            numbers: (0..databases).map(AtomicUsize::new).collect(),
            swaps: AtomicUsize::new(0),
            emptied: Mutex::default(),
        }
    }

    /// Nothing is shown from now on.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// True once [`Cut::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Shows an entry of database `db` that is about to change, if it was not shown; `epoch` is
    /// its shard's.
    #[cold]
    pub(super) fn preserve(&self, db: usize, entry: &mut InPlace<'_>, epoch: bool) {
        if self.is_due(entry, epoch) {
            self.visitor.visit(self.number(db), entry);
        }
    }

    /// Turns the bit of an entry; true when it is to be shown.
    #[inline]
    pub(super) fn is_due(&self, entry: &Entry, epoch: bool) -> bool {
        if entry.epoch() == epoch {
            return false;
        }
        entry.set_epoch(epoch);
        !self.is_cancelled()
    }

    /// The number that a database had at the cut.
    pub(super) fn number(&self, db: usize) -> usize {
        self.numbers[db].load(Relaxed)
    }

    /// Notes the exchange of two databases, under the locks of all shards.
    pub(super) fn swapped(&self, a: usize, b: usize) {
        let of_a = self.number(a);
        self.numbers[a].store(self.number(b), Relaxed);
        self.numbers[b].store(of_a, Relaxed);
        self.swaps.fetch_add(1, Relaxed);
    }

    /// Takes the keys of a database that was emptied, to be shown and then freed by the walk.
    pub(super) fn keep(&self, db: usize, keys: Detached) {
        self.emptied.lock().push((self.number(db), keys));
    }

    /// How often databases were exchanged.
    pub(super) fn swaps(&self) -> usize {
        self.swaps.load(Relaxed)
    }

    /// The databases that were emptied so far: the number each had, and its keys.
    pub(super) fn take_emptied(&self) -> Vec<(usize, Detached)> {
        std::mem::take(&mut *self.emptied.lock())
    }
}
