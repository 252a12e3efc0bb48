//! CLIENT TRACKING: of which keys a session keeps copies, and who follows keys by their prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Which of the keys that it reads a session keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All.
    #[default]
    All,
    /// Those of commands behind CLIENT CACHING YES.
    OptIn,
    /// Those of commands that are not behind CLIENT CACHING NO.
    OptOut,
}

/// What a session follows.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    /// Which of the keys that it reads.
    pub mode: Mode,
    /// It follows keys by prefixes, whether or not it reads them.
    pub broadcast: bool,
    /// Not what it changes itself.
    pub noloop: bool,
    /// CLIENT CACHING was given for the command, or transaction, that comes.
    pub caching: bool,
    /// The prefixes.
    pub prefixes: BTreeSet<Box<[u8]>>,
}

impl Tracking {
    /// True when what a command reads now is kept.
    pub fn remembers(&self) -> bool {
        !self.broadcast
            && match self.mode {
                Mode::All => true,
                Mode::OptIn => self.caching,
                Mode::OptOut => !self.caching,
            }
    }

    /// Memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|prefix| prefix.len() + 4 * size_of::<Box<[u8]>>());
        size_of::<Self>() + prefixes.sum::<usize>()
    }
}

/// Who follows which prefix: clients by id.
#[derive(Default)]
pub struct Prefixes {
    table: RwLock<BTreeMap<Box<[u8]>, BTreeSet<u64>>>,
    count: AtomicUsize,
}

/// The keys that changed and a client follows, each with the client that does not want to hear of it.
pub type Changes<'a> = BTreeMap<&'a [u8], u64>;

impl Prefixes {
    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// True when nobody follows any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A client follows a prefix.
    pub fn add(&self, prefix: &[u8], client: u64) {
        let mut table = self.table.write();
        table.entry(prefix.into()).or_default().insert(client);
        self.count.store(table.len(), Ordering::SeqCst);
    }

    /// A client follows a prefix no longer.
    pub fn remove(&self, prefix: &[u8], client: u64) {
        let mut table = self.table.write();
        if let Some(clients) = table.get_mut(prefix) {
            clients.remove(&client);
            if clients.is_empty() {
                table.remove(prefix);
            }
        }
        self.count.store(table.len(), Ordering::SeqCst);
    }

    /// Shows the clients of each prefix with the keys among `changes` that begin with it, if any do.
    pub fn each(&self, changes: &Changes<'_>, mut show: impl FnMut(&BTreeSet<u64>, &Changes<'_>)) {
        for (prefix, clients) in &*self.table.read() {
            let from = (Bound::Included(&prefix[..]), Bound::Unbounded);
            let of_prefix = changes.range::<[u8], _>(from);
            let of_prefix = of_prefix.take_while(|(key, _)| key.starts_with(prefix));
            let of_prefix: Changes<'_> = of_prefix.map(|(key, cause)| (*key, *cause)).collect();
            if !of_prefix.is_empty() {
                show(clients, &of_prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_find_their_keys() {
        let prefixes = Prefixes::default();
        for (prefix, client) in [("a", 1), ("ab", 2), ("", 3), ("c", 4), ("ab", 5)] {
            prefixes.add(prefix.as_bytes(), client);
        }
        prefixes.remove(b"ab", 5);
        let keys = ["a", "abc", "b"].map(|key| (key.as_bytes(), 0));
        let changes = Changes::from(keys);
        let mut told = Vec::new();
        prefixes.each(&changes, |clients, keys| {
            told.push((clients.iter().copied().collect::<Vec<_>>(), keys.len()));
        });
        assert_eq!(told, [(vec![3], 3), (vec![1], 2), (vec![2], 1)]);
        for (prefix, client) in [("a", 1), ("ab", 2), ("", 3), ("c", 4)] {
            prefixes.remove(prefix.as_bytes(), client);
        }
        assert!(prefixes.is_empty());
    }
}
