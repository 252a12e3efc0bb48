//! What a script wrote, taken back.
//!
//! Before a command of a script writes to a key for the first time, what is there is kept: a big value is
//! shared, as snapshots share it, until one side changes. Nothing was said to the stream yet, since that
//! hears of a script as a whole. What was told at once stays told: events of keys, which come again when the
//! script is run again, and changes of watched keys.

use std::collections::HashSet;
use std::ops::Range;

use super::args::Args;
use super::command::{Flags, Handler};
use super::context::{Shared, Worker};
use super::keys;
use super::table::Known;
use crate::keyspace::db::Db;
use crate::keyspace::entry::Entry;
use crate::keyspace::shards::LockSet;

/// Commands that write to a database that is not selected.
const ELSEWHERE: &[&str] = &["copy", "move"];

/// What was there before a script.
#[derive(Default)]
pub struct Undo {
    kept: Vec<Before>,
    known: HashSet<(usize, Box<[u8]>)>,
    /// What writes left in the worker's [`Worker::pending`].
    propagated: Vec<Range<usize>>,
    /// Something was written that is not known here.
    is_partial: bool,
}

struct Before {
    db: usize,
    key: Box<[u8]>,
    entry: Option<Entry>,
}

impl Undo {
    /// True when all that was written can be taken back.
    pub fn is_whole(&self) -> bool {
        !self.is_partial
    }

    /// To be called before a command that may write, whose shards are held.
    pub fn keep<'k>(
        &mut self,
        shared: &'k Shared,
        worker: &mut Worker,
        locks: &mut LockSet<'k>,
        (known, db, args): (&Known, usize, Args<'_>),
    ) {
        if !known.flags.has(Flags::WRITE) {
            return;
        }
        let reaches = ELSEWHERE.contains(&known.row.name);
        if reaches || !matches!(known.row.handler, Handler::Data(_)) || known.row.scope.is_all(args)
        {
            self.is_partial = true;
            return;
        }
        let keyspace = &shared.keyspace;
        let view = Db::new(keyspace, locks, &worker.env, &mut worker.effects, db, &[]);
        keys::each(known.row, args, |index, _| {
            let key: Box<[u8]> = args[index].into();
            if self.known.insert((db, key.clone())) {
                let entry = view.get_what_is_there(&key);
                let entry = entry.map(|entry| entry.copied(&key, entry.clock()));
                self.kept.push(Before { db, key, entry });
            }
        });
    }

    /// Notes what the command that wrote is going to propagate.
    pub fn note(&mut self, pending: Range<usize>) {
        if !pending.is_empty() {
            self.propagated.push(pending);
        }
    }

    /// Takes back what was written.
    pub fn run<'k>(self, shared: &'k Shared, worker: &mut Worker, locks: &mut LockSet<'k>) {
        for range in self.propagated.into_iter().rev() {
            worker.pending.drain(range);
        }
        let keyspace = &shared.keyspace;
        for before in self.kept {
            let effects = &mut worker.effects;
            let mut db = Db::new(keyspace, locks, &worker.env, effects, before.db, &[]);
            db.remove_replaced(&before.key);
            if let Some(entry) = before.entry {
                db.insert(&before.key, entry);
            }
            db.changed_silently(&before.key);
            worker.effects.end_command();
        }
    }
}
