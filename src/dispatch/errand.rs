//! Errands: commands for which another server is waited for, with the shards of their keys held.
//!
//! No worker waits for another server. A handler parks its client
//! ([`super::blocking::park_for_errand`]), hands the work in with [`hand_in`] and goes; a thread does it. What the work
//! does to keys it does under a claim ([`under_claim`], `keyspace::shards::claim`): who needs these shards meanwhile is
//! put off until it ends. At most [`ERRANDS`] threads do errands, further ones wait their turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::admit;
use super::args::Args;
use super::blocking;
use super::context::{ServerCtx, Shared, Worker};
use super::error::Error;
use super::locked::{self, Call};
use super::source::Source;
use super::turns::ERRANDS;
use crate::client::registry::flag;
use crate::config::strerror;
use crate::keyspace::db::Db;

/// How often one looks that waits for the end of a pause.
const LOOK: Duration = Duration::from_millis(1);
/// How long a thread waits for its next errand: they come one after the other, and a thread costs more than most of
/// them.
const LINGER: Duration = Duration::from_secs(1);

/// Most errands that wait for a thread. A client that hangs up leaves its errand behind, so the number of clients
/// bounds nothing.
const WAITING: usize = 1024;

/// The work of an errand; it is told which thread does it.
type Work = Box<dyn FnOnce(&Arc<Shared>, Runner) + Send>;

/// Errands that wait, and the threads that do them.
#[derive(Default)]
pub struct Errands {
    crew: Mutex<Crew>,
    /// Something waits, for those without work.
    more: Condvar,
}

#[derive(Default)]
struct Crew {
    waiting: VecDeque<Work>,
    /// Which threads there are.
    busy: [bool; ERRANDS],
    /// How many of them have no work.
    idle: usize,
}

/// Which thread does an errand.
#[derive(Clone, Copy)]
pub struct Runner(usize);

/// For whom an errand is done.
#[derive(Clone, Copy)]
pub struct Origin {
    db: usize,
    no_touch: bool,
    /// The client that does not want to hear what it changed itself; 0 for none.
    quiet_client: u64,
}

impl Origin {
    /// The client of a command.
    pub fn of(ctx: &ServerCtx<'_, '_>) -> Self {
        let session = &*ctx.session;
        let flags = session
            .handle
            .live
            .flags
            .load(std::sync::atomic::Ordering::Relaxed);
        Self {
            db: session.db,
            no_touch: session.no_touch,
            quiet_client: match flags & flag::TRACKING_NOLOOP {
                0 => 0,
                _ => session.handle.id,
            },
        }
    }
}

/// Has a thread do `work`.
///
/// # Errors
/// Too many wait, or there can be no thread at all; `work` is dropped.
pub fn hand_in(
    shared: &Shared,
    work: impl FnOnce(&Arc<Shared>, Runner) + Send + 'static,
) -> Result<(), Error> {
    let mut crew = shared.errands.crew.lock();
    if crew.waiting.len() >= WAITING {
        return Err(Error::line("ERR Too many commands wait for other servers"));
    }
    crew.waiting.push_back(Box::new(work));
    if crew.idle >= crew.waiting.len() {
        shared.errands.more.notify_one();
        return Ok(());
    }
    let Some(place) = crew.busy.iter().position(|busy| !busy) else {
        return Ok(());
    };
    // Under the lock, so that of two who cannot start one none counts on the other.
    let started = shared
        .threads
        .start("errand", move |shared| serve(shared, place));
    crew.busy[place] = started.is_ok();
    match started {
        // Whoever else is at it comes to it later; without anybody it is the only one.
        Err(error) if !crew.busy.contains(&true) => {
            crew.waiting.pop_back();
            let reason = strerror(&error);
            Err(Error::err(format_args!("Can't start a thread: {reason}")))
        }
        _ => Ok(()),
    }
}

fn serve(shared: &Arc<Shared>, place: usize) {
    while let Some(work) = next(&shared.errands, place) {
        work(shared, Runner(place));
    }
}

/// The next errand; `None`, and the thread's end, when there was none for a while.
fn next(errands: &Errands, place: usize) -> Option<Work> {
    let mut crew = errands.crew.lock();
    loop {
        if let Some(work) = crew.waiting.pop_front() {
            return Some(work);
        }
        crew.idle += 1;
        let waited = errands.more.wait_for(&mut crew, LINGER);
        crew.idle -= 1;
        if waited.timed_out() && crew.waiting.is_empty() {
            crew.busy[place] = false;
            return None;
        }
    }
}

/// Runs `work` on the client's database, with the shards of `keys` claimed, and propagates what it did; also tells
/// where the stream ended then (0 when nothing was appended). While writes are paused, and while the server is about
/// to end, it waits before that.
///
/// # Errors
/// This server does not write any more: it has become a replica, or loads a data set.
pub fn under_claim<R>(
    shared: &Shared,
    runner: Runner,
    origin: Origin,
    keys: &[&[u8]],
    work: impl FnOnce(&mut Db<'_, '_>) -> R,
) -> Result<(R, u64), Error> {
    let keyspace = &shared.keyspace;
    let (turn, mut worker, mut claim, mut locks) = loop {
        // What is looked at here holds until the turn ends: who changes it waits for that.
        let turn = shared.turns.enter_errand(runner.0);
        let mut worker = Worker::for_source(shared, Source::Client);
        worker.refresh(shared);
        if shared.pause.at(worker.now.ms).is_none() {
            admit::write_begins(shared, &worker)?;
            let claim = keyspace.claim(keys.iter().map(|key| keyspace.hash(key)));
            if let Some((claim, locks)) = claim {
                break (turn, worker, claim, locks);
            }
        }
        drop(turn);
        std::thread::sleep(LOOK);
    };
    worker.catch_up();
    worker.env.quiet_client = origin.quiet_client;
    let call = Call {
        shared,
        worker: &mut worker,
        db: origin.db,
        args: Args::new(&[]),
        hints: &[],
        no_touch: origin.no_touch,
    };
    let result = call.under(&mut locks, false, |mut db, _| work(&mut db));
    let written = std::mem::take(&mut worker.appended);
    claim.leave();
    locked::conclude(shared, &mut worker, locks);
    if claim.end() {
        shared.pause.try_again();
    }
    drop(turn);
    blocking::settle(shared, &mut worker);
    Ok((result, written))
}
