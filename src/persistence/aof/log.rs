//! The open append-only file, as the threads share it.
//!
//! Before a reply leaves, what it tells of is in the file: a worker that ends its turn asks
//! [`Log::clears`]. Under `everysec` and `no` the first that comes writes for all, with one call, and
//! whoever finds it writing holds its replies back and is rung for when that is done. Nobody on a worker
//! syncs or waits for a sync: while one is under way, and whenever `appendfsync always` makes replies
//! wait for the disk, the log's own thread writes. So a worker waits for the disk no longer than one
//! `write` to the page cache takes, and as clients wait for their replies, what is not written is bounded
//! by what they have sent.
//!
//! ```text
//!     worker   ── clears(end) ──► written by itself: replies go
//!                            └──► somebody else writes, or a sync is awaited: hold, be rung
//!     aof      ── serve ────────► writes what is demanded or left, syncs for `always`,
//!                                 retries once a second what failed
//!     aof-sync ─────────────────► syncs once a second under `everysec`, and ends
//! ```
//!
//! Lock order: the tail, then the holders or the demand; whoever has the tail takes nothing else but
//! the stream's log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::writer::{Policy, Progress, Rotation, Sync, Writer};
use crate::base::clock::unix_ms;
use crate::base::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use crate::base::sync::{Condvar, Mutex};
use crate::client::mailbox::Bell;

/// Longest time that something is left which nobody waits for, such as the removal of an expired key.
const TICK: Duration = Duration::from_millis(100);

/// The open file; see the module.
#[derive(Default)]
pub struct Log {
    is_open: AtomicBool,
    tail: Mutex<Option<Writer>>,
    /// Where new files are handed to the writer, so that a cut waits for nobody who writes.
    rotation: Mutex<Option<Rotation>>,
    /// How far it is.
    pub progress: Arc<Progress>,
    demand: Mutex<Demand>,
    demanded: Condvar,
    /// Unix milliseconds at which the write that is under way began; 0 without one.
    writing_since: AtomicI64,
}

#[derive(Default)]
struct Demand {
    /// Somebody holds replies back that only the log's thread can clear, or the policy changed.
    now: bool,
    /// The thread waits.
    idle: bool,
}

/// A file that was taken out of use and is not synced yet.
pub struct Closing {
    writer: Writer,
    written: io::Result<()>,
    policy: Policy,
}

/// What a worker found when it wanted to write.
#[derive(PartialEq, Eq)]
enum Attempt {
    /// Somebody has the file, and rings when it lets go.
    Busy,
    /// What is not written now is left to the log's thread.
    Left,
}

impl Log {
    /// True while the stream is appended.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Opens a file: from here on the stream is appended. Called at a cut, or before anybody is served.
    pub fn open(&self, writer: Writer) {
        let mut tail = self.tail.lock();
        assert!(tail.is_none(), "one file is open at a time");
        *self.rotation.lock() = Some(writer.rotation());
        writer.begin();
        *tail = Some(writer);
        self.is_open.store(true, Ordering::Release);
        drop(tail);
        // Its thread waits without end while no file is open.
        self.demand();
    }

    /// The stream goes to `file` from its end on. Called at a cut.
    pub fn switch(&self, file: std::fs::File, end: u64) {
        if let Some(rotation) = &*self.rotation.lock() {
            rotation.switch(end, file);
        }
    }

    /// Takes the file out of use, with everything written that was appended so far; nothing when none
    /// is open. Replies that wait for a sync go on waiting until it is finished.
    pub fn close(&self, policy: impl Fn() -> Policy) -> Option<Closing> {
        let mut tail = self.tail.lock();
        let mut writer = tail.take()?;
        *self.rotation.lock() = None;
        self.is_open.store(false, Ordering::Release);
        writer.try_at_once();
        let written = writer.write(&policy);
        // Nobody writes any more, so nobody can fail.
        self.progress.failing.store(false, Ordering::Relaxed);
        let policy = policy();
        if policy.sync != Sync::Always {
            self.progress.clear(u64::MAX);
        }
        drop(tail);
        self.progress.ring();
        Some(Closing {
            writer,
            written,
            policy,
        })
    }

    /// Syncs a file that was taken out of use, and lets those go who waited for that.
    ///
    /// # Errors
    /// Of the last write, or of syncing.
    pub fn finish(&self, closing: Closing) -> io::Result<()> {
        let Closing {
            mut writer,
            written,
            policy,
        } = closing;
        let result = written.and_then(|()| writer.sync_now(policy));
        let tail = self.tail.lock();
        if tail.is_none() {
            self.progress.clear(u64::MAX);
        }
        drop(tail);
        self.progress.ring();
        result
    }

    /// True when replies that tell of the stream up to `end` may leave. Otherwise `bell` is rung when
    /// this is to be asked again. `policy` is read as often as it matters.
    pub fn clears(&self, end: u64, bell: &Arc<Bell>, policy: impl Fn() -> Policy) -> bool {
        let is_clear = || self.progress.cleared() >= end;
        if is_clear() {
            return true;
        }
        self.write_now(&policy);
        if is_clear() {
            return true;
        }
        self.progress.hold(bell);
        // Whoever had the file may be done, and have rung for nobody: it rings after it has let go.
        if self.write_now(&policy) == Attempt::Left && !is_clear() {
            self.demand();
        }
        is_clear()
    }

    /// Writes what there is, if that is for a worker to do.
    fn write_now(&self, policy: &impl Fn() -> Policy) -> Attempt {
        if self.progress.is_syncing() || policy().sync == Sync::Always {
            return Attempt::Left;
        }
        let Some(mut tail) = self.tail.try_lock() else {
            return Attempt::Busy;
        };
        let Some(writer) = &mut *tail else {
            return Attempt::Left;
        };
        // A failure is kept in the progress; the log's thread tells of it when it tries again.
        let _ = self.write(writer, policy);
        drop(tail);
        self.progress.ring();
        Attempt::Left
    }

    /// Writes what was appended so far, also when that failed a moment ago. It waits for whoever writes.
    ///
    /// # Errors
    /// Of writing; what was not written stays, and is tried again.
    pub fn flush(&self, policy: impl Fn() -> Policy) -> io::Result<()> {
        match &mut *self.tail.lock() {
            Some(writer) => {
                writer.try_at_once();
                self.write(writer, &policy)
            }
            None => Ok(()),
        }
    }

    fn write(&self, writer: &mut Writer, policy: &impl Fn() -> Policy) -> io::Result<()> {
        self.writing_since.store(unix_ms(), Ordering::Relaxed);
        let result = writer.write(policy);
        self.writing_since.store(0, Ordering::Relaxed);
        result
    }

    /// Milliseconds that the write which is under way takes by now; 0 without one.
    pub fn writing_ms(&self) -> i64 {
        match self.writing_since.load(Ordering::Relaxed) {
            0 => 0,
            since => (unix_ms() - since).max(0),
        }
    }

    /// Has the log's thread look at once: somebody waits for it, or the policy has changed.
    pub fn demand(&self) {
        let mut demand = self.demand.lock();
        demand.now = true;
        if demand.idle {
            demand.idle = false;
            self.demanded.notify_all();
        }
    }

    /// Waits until something is demanded, for a moment while a file is open.
    fn wait(&self) {
        let mut demand = self.demand.lock();
        demand.idle = true;
        if !demand.now {
            match self.is_open() {
                true => {
                    let limit = Instant::now() + TICK;
                    self.demanded.wait_until(&mut demand, limit);
                }
                false => self.demanded.wait(&mut demand),
            }
        }
        *demand = Demand::default();
    }

    /// One round of the log's thread: waits for work and does it.
    ///
    /// # Errors
    /// Of writing or syncing. What was not written stays and is tried again a second later.
    pub fn serve(&self, policy: impl Fn() -> Policy) -> io::Result<()> {
        self.wait();
        self.gather(&policy);
        let outcome = self.work(&policy);
        self.progress.ring();
        outcome
    }

    fn work(&self, policy: &impl Fn() -> Policy) -> io::Result<()> {
        let work = match &mut *self.tail.lock() {
            Some(writer) if writer.may_try() => {
                self.write(writer, policy)?;
                writer.sync_work(policy())?
            }
            _ => None,
        };
        let Some(work) = work else {
            return Ok(());
        };
        // Nobody waits for the tail longer than for a write.
        let synced = work.run();
        match &mut *self.tail.lock() {
            Some(writer) => writer.synced(synced),
            None => Ok(()),
        }
    }

    /// Lets more come before it is synced, where that pays; see [`Writer::gathering`].
    fn gather(&self, policy: &impl Fn() -> Policy) {
        let time = match &mut *self.tail.lock() {
            Some(writer) => writer.gathering(policy()),
            None => Duration::ZERO,
        };
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }
}
