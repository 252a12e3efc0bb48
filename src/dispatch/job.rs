//! Commands that take long, in slices: their worker serves others between two of them.
//!
//! A handler that would walk a whole database leaves a [`Job`] in [`super::context::Worker::job`]
//! instead of a reply. The connection keeps it, reads nothing more meanwhile, and has it stepped
//! once a turn until it has its reply. Within a transaction there is no between: there the
//! handler does the same steps at once.

use super::context::{Shared, Worker};
use crate::client::session::Session;
use crate::keyspace::db::{Db, Effects};
use crate::keyspace::shards::LockSet;
use crate::resp::write::Output;

/// How long one slice may take, in nanoseconds.
pub const SLICE_NANOS: u64 = 200_000;

/// A command in the middle of its work.
pub trait Job: Send {
    /// Works for about [`SLICE_NANOS`]; true when the work is done.
    fn step(&mut self, shared: &Shared, worker: &mut Worker, session: &Session) -> bool;
    /// Writes the reply, after the last step.
    fn reply(&mut self, out: &mut Output);
}

/// Lets a job look at a shard of database `db`, under its lock; `None` while a script holds it that runs for long, or it
/// is claimed: the job's next step tries again.
pub fn look_at_shard<R>(
    shared: &Shared,
    worker: &Worker,
    db: usize,
    shard: usize,
    look: impl FnOnce(&Db<'_, '_>) -> R,
) -> Option<R> {
    let keyspace = &shared.keyspace;
    let (mut locks, mut effects) = (
        LockSet::One(keyspace.lock_in_time(shard).ok()?),
        Effects::default(),
    );
    let view = Db::new(keyspace, &mut locks, &worker.env, &mut effects, db, &[]);
    Some(look(&view))
}

/// A job with what its statistics need.
pub struct Running {
    /// The work.
    pub job: Box<dyn Job>,
    /// Id of the command.
    pub command: usize,
    /// The request, for the slow log.
    pub args: Vec<Vec<u8>>,
    /// Nanoseconds spent on it so far.
    pub nanos: u64,
}
