//! What a command sees beside the keys, and what it did to them.

use crate::keyspace::access::Access;
use crate::keyspace::entry::Garbage;
use crate::keyspace::lazyfree::{Detached, Load};

/// What commands see of the world beside the keys: read once a batch, frozen within a
/// transaction.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Unix time in milliseconds.
    pub now_ms: i64,
    /// Keys whose time was before this have expired: [`Env::now_ms`], but nothing expires while a
    /// log of commands is played back, which tells itself what went.
    pub expired_before_ms: i64,
    /// How accesses are recorded for eviction.
    pub access: Access,
    /// Enabled notification classes ([`super::event`]); 0 when off.
    pub notify: u32,
    /// What is run was accepted before (it comes from a log that is played back): limits on what
    /// clients may ask for do not hold, or what they let through once would be lost.
    pub obeys: bool,
    /// False on a replica, where expired keys only read as absent until the primary says so.
    pub expires_keys: bool,
    /// False under CLIENT NO-TOUCH and while a client must not change access clocks.
    pub touches: bool,
    /// Expired keys are freed outside the lock (`lazyfree-lazy-expire`).
    pub lazy_expire: bool,
    /// Big values that others replace are freed in the background (`lazyfree-lazy-server-del`).
    pub lazy_overwrite: bool,
}

impl Env {
    /// What tests see: a time, LRU, nobody who listens.
    #[cfg(test)]
    pub fn at(now_ms: i64) -> Self {
        Self {
            now_ms,
            expired_before_ms: now_ms,
            access: Access::lru(now_ms),
            notify: 0,
            obeys: false,
            expires_keys: true,
            touches: true,
            lazy_expire: false,
            lazy_overwrite: false,
        }
    }

    /// True when a key that is to expire at a time (Unix milliseconds) would not live at all.
    pub fn is_past(&self, at: i64) -> bool {
        at <= self.now_ms.min(self.expired_before_ms)
    }
}

/// What a command did, recorded as it did it.
#[derive(Default)]
pub struct Effects {
    /// Changes to the data set (Redis' `dirty`).
    pub dirty: u64,
    /// Keys removed because they had expired, in order: (database, key).
    pub expired: Vec<(usize, Box<[u8]>)>,
    /// Fields of hashes removed because they had expired, in order.
    pub expired_fields: Vec<ExpiredField>,
    /// Values to free when the locks are released.
    pub garbage: Vec<Garbage>,
    /// What is freed in the background.
    pub lazy: Vec<Load>,
    /// Whole databases to free when the locks are released.
    pub detached: Vec<Detached>,
    /// The command is propagated even if it changed nothing.
    pub forced: bool,
    /// Successful reads of keys.
    pub hits: u64,
    /// Reads of keys that are not there.
    pub misses: u64,
    /// The form in which the command is propagated, when not as it came.
    pub rewrite: Rewrite,
    /// An event was recorded: the outbox needs delivery.
    pub noticed: bool,
    /// Keys that clients wait for and that came or went, in order: (database, key).
    pub ready: Vec<(usize, Box<[u8]>)>,
    /// Nobody reads the stream while the locks are held: forms need not be stated.
    pub unheard: bool,
}

/// A field of a hash that was removed because it had expired.
pub struct ExpiredField {
    /// The database.
    pub db: usize,
    /// The hash.
    pub key: Box<[u8]>,
    /// The field.
    pub field: Box<[u8]>,
}

/// How a command that changed something is propagated.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// As it came.
    #[default]
    Verbatim,
    /// As other commands, in order, each a list of arguments. None: not at all.
    As(Vec<Vec<Vec<u8>>>),
}

impl Effects {
    /// States the deterministic form of the command, once it is known. Costs nothing while
    /// nobody would read it.
    pub fn rewrite(&mut self, args: &[&[u8]]) {
        if self.unheard {
            return;
        }
        let command = args.iter().map(|a| a.to_vec()).collect();
        match &mut self.rewrite {
            Rewrite::As(commands) => commands.push(command),
            Rewrite::Verbatim => self.rewrite = Rewrite::As(vec![command]),
        }
    }

    /// True when something is to be freed or told once the locks are released.
    #[inline]
    pub fn leave_work(&self) -> bool {
        let frees = self.garbage.len() + self.lazy.len() + self.detached.len();
        frees > 0 || self.noticed
    }

    /// Forgets everything, keeping the vectors.
    pub fn clear(&mut self) {
        self.dirty = 0;
        self.expired.clear();
        self.expired_fields.clear();
        self.garbage.clear();
        self.lazy.clear();
        self.detached.clear();
        self.forced = false;
        self.hits = 0;
        self.misses = 0;
        self.rewrite = Rewrite::Verbatim;
        self.noticed = false;
        self.ready.clear();
    }
}

/// What becomes of a key's expiry when its value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Removed.
    Clear,
    /// Kept.
    Keep,
    /// Set, as a Unix time in milliseconds.
    At(i64),
}
