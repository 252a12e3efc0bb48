//! What was refused: the entries of ACL LOG, latest first, of which those that are alike are one.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// What a user was not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// To log in.
    Auth,
    /// A database.
    Database,
}

/// Where it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A client's request.
    TopLevel,
    /// A request that MULTI keeps, or EXEC runs.
    Multi,
    /// A script.
    Lua,
}

impl Reason {
    /// As ACL LOG shows it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
            Self::Database => "database",
        }
    }
}

impl Context {
    /// As ACL LOG shows it.
    pub fn text(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

/// A refusal, or several that are alike.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How often.
    pub count: u64,
    /// What was not allowed.
    pub reason: Reason,
    /// Where.
    pub context: Context,
    /// The name of the command, key or channel.
    pub object: Box<[u8]>,
    /// Whom.
    pub user: Box<[u8]>,
    /// The last time, in Unix milliseconds.
    pub last_ms: i64,
    /// The client of the last time, as CLIENT LIST shows it.
    pub client: String,
}

/// Entries so much younger than another one are no longer counted with it, in milliseconds.
const GROUPED_MS: i64 = 60_000;

/// How many of the latest entries a new one is compared with.
const COMPARED: usize = 10;

impl Entry {
    fn is_like(&self, other: &Entry) -> bool {
        let apart = self.last_ms.abs_diff(other.last_ms);
        apart <= GROUPED_MS.unsigned_abs()
            && (self.reason, self.context) == (other.reason, other.context)
            && (&self.object, &self.user) == (&other.object, &other.user)
    }
}

/// All entries.
#[derive(Default)]
pub struct Log(Mutex<VecDeque<Entry>>);

impl Log {
    /// Counts a refusal, and keeps `max_len` entries at most.
    pub fn add(&self, entry: Entry, max_len: usize) {
        let mut entries = self.0.lock();
        let alike = entries
            .iter()
            .take(COMPARED)
            .position(|e| e.is_like(&entry));
        match alike.and_then(|at| entries.remove(at)) {
            Some(known) => entries.push_front(Entry {
                count: known.count + 1,
                ..entry
            }),
            None => {
                entries.push_front(entry);
                entries.truncate(max_len);
            }
        }
    }

    /// The latest `count` entries.
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        self.0.lock().iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn reset(&self) {
        // What they held is freed without the lock.
        drop(std::mem::take(&mut *self.0.lock()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &str, last_ms: i64) -> Entry {
        Entry {
            count: 1,
            reason: Reason::Key,
            context: Context::TopLevel,
            object: object.as_bytes().into(),
            user: (*b"u").into(),
            last_ms,
            client: String::new(),
        }
    }

    #[test]
    fn what_is_alike_is_one_entry_for_a_minute() {
        let log = Log::default();
        for (object, ms) in [("a", 0), ("b", 1), ("a", 60_000), ("b", 60_002), ("c", 3)] {
            log.add(entry(object, ms), 3);
        }
        let shown = log.latest(9).into_iter();
        let shown: Vec<_> = shown.map(|e| (e.object[0], e.count)).collect();
        assert_eq!(shown, [(b'c', 1), (b'b', 1), (b'a', 2)]);
        log.reset();
        assert!(log.latest(9).is_empty());
    }
}
