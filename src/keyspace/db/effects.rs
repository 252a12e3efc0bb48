//! What a command sees beside the keys, and what it did to them.

use crate::keyspace::access::Access;
use crate::keyspace::entry::Garbage;
use crate::keyspace::lazyfree::{Detached, Lazyfree, Load};
use crate::keyspace::outbox::{Outbox, Outgoing};
use crate::keyspace::tracked::Forgotten;

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
    /// False where the user may not read whatever key there is: the command follows no names that values hold.
    pub reads_any_key: bool,
    /// The client whose command it is, if it does not want to hear of its own changes of keys that it keeps
    /// copies of; else 0.
    pub quiet_client: u64,
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
            reads_any_key: true,
            quiet_client: 0,
            lazy_expire: false,
            lazy_overwrite: false,
        }
    }

    /// True when a key that is to expire at a time (Unix milliseconds) would not live at all.
    pub fn is_past(&self, at: i64) -> bool {
        at <= self.now_ms.min(self.expired_before_ms)
    }
}

/// What a command did, recorded as it did it: by [`super::Db`] alone. Others read it, and take away
/// what is to be done with it.
#[derive(Default)]
pub struct Effects {
    /// Changes to the data set (Redis' `dirty`).
    pub(in crate::keyspace) dirty: u64,
    /// Keys removed because they had expired, in order: (database, key).
    pub(in crate::keyspace) expired: Vec<(usize, Box<[u8]>)>,
    /// Fields of hashes removed because they had expired, in order.
    pub(in crate::keyspace) expired_fields: Vec<ExpiredField>,
    /// Values to free when the locks are released.
    pub(in crate::keyspace) garbage: Vec<Garbage>,
    /// What is freed in the background.
    pub(in crate::keyspace) lazy: Vec<Load>,
    /// Whole databases to free when the locks are released.
    pub(in crate::keyspace) detached: Vec<Detached>,
    /// Whom copies were known of that are old by now: to be freed when the locks are released.
    pub(in crate::keyspace) forgotten: Vec<Forgotten>,
    /// The command is propagated even if it changed nothing.
    pub(in crate::keyspace) forced: bool,
    /// Successful reads of keys.
    pub(in crate::keyspace) hits: u64,
    /// Reads of keys that are not there.
    pub(in crate::keyspace) misses: u64,
    /// The form in which the command is propagated, when not as it came.
    pub(in crate::keyspace) rewrite: Rewrite,
    /// An event was recorded: the outbox needs delivery.
    pub(in crate::keyspace) noticed: bool,
    /// Events of a script that may be taken back, until its end.
    pub(in crate::keyspace) held: Option<Vec<Outgoing>>,
    /// Keys that clients wait for and that came or went, in order: (database, key).
    pub(in crate::keyspace) ready: Vec<(usize, Box<[u8]>)>,
    /// Nobody reads the stream while the locks are held: forms need not be stated.
    pub(in crate::keyspace) unheard: bool,
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
    pub(super) fn rewrite(&mut self, args: &[&[u8]]) {
        if self.unheard {
            return;
        }
        let command = args.iter().map(|a| a.to_vec()).collect();
        match &mut self.rewrite {
            Rewrite::As(commands) => commands.push(command),
            Rewrite::Verbatim => self.rewrite = Rewrite::As(vec![command]),
        }
    }

    /// Before a command: says whether anybody reads the stream while its locks are held.
    #[inline]
    pub fn set_heard(&mut self, heard: bool) {
        debug_assert!(self.dirty == 0 && !self.forced, "of the command before");
        self.unheard = !heard;
    }

    /// Changes to the data set (Redis' `dirty`).
    #[inline]
    pub fn changes(&self) -> u64 {
        self.dirty
    }

    /// True when the command itself is to be propagated.
    #[inline]
    pub fn propagate(&self) -> bool {
        self.dirty > 0 || self.forced
    }

    /// True when the command is propagated, if at all, as it came.
    #[inline]
    pub fn is_verbatim(&self) -> bool {
        self.rewrite == Rewrite::Verbatim
    }

    /// The form in which the command is propagated.
    pub fn take_rewrite(&mut self) -> Rewrite {
        std::mem::take(&mut self.rewrite)
    }

    /// True when keys or fields were removed because they had expired.
    #[inline]
    pub fn met_expired(&self) -> bool {
        !self.expired.is_empty() || !self.expired_fields.is_empty()
    }

    /// Keys removed because they had expired, in order: (database, key).
    pub fn expired(&self) -> &[(usize, Box<[u8]>)] {
        &self.expired
    }

    /// Fields of hashes removed because they had expired, in order.
    pub fn expired_fields(&self) -> &[ExpiredField] {
        &self.expired_fields
    }

    /// Forgets what expired, once it was propagated and counted.
    pub fn forget_expired(&mut self) {
        self.expired.clear();
        self.expired_fields.clear();
    }

    /// After a command, whose changes and form were propagated: forgets them.
    #[inline]
    pub fn end_command(&mut self) {
        self.dirty = 0;
        self.forced = false;
        if self.rewrite != Rewrite::Verbatim {
            self.rewrite = Rewrite::Verbatim;
        }
    }

    /// True when clients wait for a key that came or went.
    #[inline]
    pub fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next key that clients wait for and that came or went, (database, key), of which `at` were
    /// taken before. More may come while these are served, so none is forgotten before all are.
    pub fn take_ready(&mut self, at: usize) -> Option<(usize, Box<[u8]>)> {
        self.ready.get_mut(at).map(std::mem::take)
    }

    /// Forgets the keys that were taken with [`Effects::take_ready`].
    pub fn forget_ready(&mut self) {
        self.ready.clear();
    }

    /// True when events were recorded that the outbox has to deliver.
    #[inline]
    pub fn has_notices(&self) -> bool {
        self.noticed
    }

    /// Leaves something to be told, behind what was left before.
    pub fn tell(&mut self, outbox: &Outbox, outgoing: impl Into<Outgoing>) {
        self.noticed = true;
        match &mut self.held {
            Some(held) => held.push(outgoing.into()),
            None => outbox.record(outgoing),
        }
    }

    /// Keeps events back from here on: what causes them may be taken back.
    pub fn hold_back(&mut self) {
        self.held = Some(Vec::new());
    }

    /// What caused the events that are kept back was taken back.
    pub fn forget_held(&mut self) {
        self.held = None;
    }

    /// What caused the events that are kept back stays. Called under the locks under which it happened.
    pub fn release_held(&mut self, outbox: &Outbox) {
        for outgoing in self.held.take().into_iter().flatten() {
            outbox.record(outgoing);
        }
    }

    /// As [`Effects::has_notices`], by who delivers them now.
    pub fn take_notices(&mut self) -> bool {
        std::mem::take(&mut self.noticed)
    }

    /// Successful reads of keys, and reads of keys that are not there, since they were last taken.
    #[inline]
    pub fn take_lookups(&mut self) -> (u64, u64) {
        let lookups = (self.hits, self.misses);
        if lookups != (0, 0) {
            (self.hits, self.misses) = (0, 0);
        }
        lookups
    }

    /// Frees what was removed or replaced, once the locks are released.
    pub fn free(&mut self, lazyfree: &Lazyfree) {
        if !self.garbage.is_empty() {
            lazyfree.free(&mut self.garbage);
        }
        self.lazy.drain(..).for_each(|load| lazyfree.send(load));
        self.detached.clear();
        self.forgotten.clear();
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
        self.forgotten.clear();
        self.forced = false;
        self.hits = 0;
        self.misses = 0;
        self.rewrite = Rewrite::Verbatim;
        self.noticed = false;
        self.held = None;
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
