//! Serving who waits for a key while its shard cannot be had, since a script holds it that runs for long or it is
//! claimed: a thread of this module waits for the end of that, no worker does.
//!
//! There is one such thread at most, and a key is in its list once, however often it is pushed to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::blocking;
use super::context::{Shared, Worker};
use super::source::Source;
use crate::config::strerror;

/// How often the thread tries again.
const RETRY: Duration = Duration::from_millis(5);

/// A key that somebody waits for, and the key that is changed with it when they are served (the
/// destination of BLMOVE; the same key where there is none).
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Waited {
    pub(super) db: usize,
    pub(super) key: Box<[u8]>,
    pub(super) also: Box<[u8]>,
}

/// Keys whose clients are to be served.
#[derive(Default)]
pub(super) struct Later(Mutex<List>);

#[derive(Default)]
struct List {
    keys: HashSet<Waited>,
    /// A thread is at it.
    active: bool,
}

impl Later {
    /// Enters a key; true when a thread is to be started for the list.
    fn enter(&self, waited: Waited) -> bool {
        let mut list = self.0.lock();
        list.keys.insert(waited);
        !std::mem::replace(&mut list.active, true)
    }

    /// All keys of the list; `None`, and the thread's end, when there is none.
    fn take(&self) -> Option<HashSet<Waited>> {
        let mut list = self.0.lock();
        list.active = !list.keys.is_empty();
        list.active.then(|| std::mem::take(&mut list.keys))
    }

    /// Gives back those that could not be served yet.
    fn give_back(&self, keys: Vec<Waited>) {
        self.0.lock().keys.extend(keys);
    }

    /// There can be no thread.
    fn rest(&self) {
        self.0.lock().active = false;
    }
}

/// Has those served who wait for a key, once they can be.
#[cold]
pub(super) fn serve(shared: &Shared, waited: Waited) {
    if shared.blocked.later.enter(waited)
        && let Err(error) = shared.threads.start("later", serve_all)
    {
        // The list is gone through when the next key comes to it.
        shared.blocked.later.rest();
        tracing::warn!(
            "Cannot serve clients that wait for keys: {}",
            strerror(&error)
        );
    }
}

fn serve_all(shared: &Arc<Shared>) {
    while let Some(keys) = shared.blocked.later.take() {
        let mut worker = Worker::for_source(shared, Source::Client);
        let mut held = Vec::new();
        for waited in keys {
            if let Err(waited) = blocking::serve_elsewhere(shared, &mut worker, waited) {
                held.push(waited);
            }
            blocking::settle(shared, &mut worker);
        }
        if !held.is_empty() {
            shared.blocked.later.give_back(held);
            std::thread::sleep(RETRY);
        }
    }
}
