//! Scripts that run for longer than `busy-reply-threshold`: clients hear of them, and may end them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use parking_lot::Mutex;

/// A script that runs for long.
#[derive(Debug)]
pub struct OverdueScript {
    /// The digest of a script, the name of a function.
    pub name: Vec<u8>,
    /// Not a function.
    pub is_eval: bool,
    /// The request that runs it.
    pub request: Vec<Vec<u8>>,
    /// When it began.
    pub began: Instant,
    /// It came from a primary or a log.
    pub is_obeyed: bool,
    /// It has written, and cannot be undone.
    pub wrote: AtomicBool,
    /// It is to end.
    pub killed: AtomicBool,
}

/// All of them.
#[derive(Default)]
pub struct Overdue {
    all: Mutex<Vec<Arc<OverdueScript>>>,
    count: AtomicUsize,
}

/// What became of the wish to end a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// It ends.
    Done,
    /// There is none.
    None,
    /// It was accepted by the primary.
    Obeyed,
    /// It has written.
    Wrote,
    /// It is a function, or it is none.
    OtherKind,
}

impl Overdue {
    /// True when there is one.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.count.load(SeqCst) > 0
    }

    /// Adds one.
    pub fn add(&self, script: &Arc<OverdueScript>) {
        let mut all = self.all.lock();
        all.push(Arc::clone(script));
        self.count.store(all.len(), SeqCst);
    }

    /// Removes one.
    pub fn remove(&self, script: &Arc<OverdueScript>) {
        let mut all = self.all.lock();
        all.retain(|other| !Arc::ptr_eq(other, script));
        self.count.store(all.len(), SeqCst);
    }

    /// The one that runs for longest.
    pub fn first(&self) -> Option<Arc<OverdueScript>> {
        self.all.lock().first().cloned()
    }

    /// A script is about to do what cannot be undone; from here on it cannot be killed. False when it was, and so
    /// must not.
    pub fn goes_on(&self, script: &OverdueScript) -> bool {
        let _all = self.all.lock();
        let may = !script.killed.load(SeqCst);
        script.wrote.fetch_or(may, SeqCst);
        may
    }

    /// Ends all that may be ended: scripts, or functions. If none may, says why the first may not.
    pub fn kill(&self, eval: bool) -> Kill {
        let all = self.all.lock();
        let mut outcome = Kill::None;
        for script in all.iter() {
            let fate = if script.is_obeyed {
                Kill::Obeyed
            } else if script.wrote.load(SeqCst) {
                Kill::Wrote
            } else if script.is_eval != eval {
                Kill::OtherKind
            } else {
                script.killed.store(true, SeqCst);
                Kill::Done
            };
            if outcome == Kill::None || fate == Kill::Done {
                outcome = fate;
            }
        }
        outcome
    }
}
