//! Work that a client waits for and another thread does: SAVE, and the dump that FLUSHALL replaces.
//!
//! A handler asks for it with [`super::blocking::park_for_chore`] and goes; its worker serves others. The
//! client's output stays where it is and its further requests wait until the thread has answered. One
//! run of a chore serves all who had asked when it began, and there is one thread for each chore at
//! most, however many ask, go away and ask again while the disk hangs.
//!
//! A chore runs without locks. Within a transaction it is asked for when EXEC has let its shards go.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::blocking::Parked;
use super::context::Shared;

/// Who waits for each kind of work.
#[derive(Default)]
pub struct Chores {
    /// SAVE.
    pub save: Queue,
    /// FLUSHALL, until an empty dump is in the place of the old one.
    pub flush_save: Queue,
    /// REPLICAOF.
    pub replicaof: Queue,
    /// ACL SAVE.
    pub acl_save: Queue,
    /// CONFIG REWRITE.
    pub config_rewrite: Queue,
    /// FAILOVER ABORT.
    pub failover_abort: Queue,
}

/// One kind of work.
pub struct Chore {
    /// The thread's name.
    pub name: &'static str,
    /// Those who wait for it.
    pub queue: fn(&Shared) -> &Queue,
    /// Does it, and gives the encoded reply for all who wait: what follows in the output of each.
    pub run: fn(&Shared) -> Vec<u8>,
}

/// Who waits for a chore.
#[derive(Default)]
pub struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Whoever went away meanwhile is gone from here as well.
    clients: Vec<Weak<Parked>>,
    /// A thread is at it.
    active: bool,
}

impl Queue {
    /// True while a thread does the work.
    pub fn is_active(&self) -> bool {
        self.0.lock().active
    }

    /// Enters a client; true when a thread is to be started for it.
    fn enter(&self, client: &Arc<Parked>) -> bool {
        let mut waiting = self.0.lock();
        let clients = &mut waiting.clients;
        if clients.len() == clients.capacity() {
            clients.retain(|client| client.strong_count() > 0);
        }
        clients.push(Arc::downgrade(client));
        !std::mem::replace(&mut waiting.active, true)
    }

    /// Those who asked since the last call; `None`, and the thread's end, when nobody did.
    fn next(&self) -> Option<Vec<Weak<Parked>>> {
        let mut waiting = self.0.lock();
        waiting.active = !waiting.clients.is_empty();
        waiting.active.then(|| std::mem::take(&mut waiting.clients))
    }
}

impl Chore {
    /// Has the work done for a client that is parked for it. Called without locks.
    pub fn ask(&'static self, shared: &Shared, client: &Arc<Parked>) {
        if (self.queue)(shared).enter(client) {
            let started = shared.threads.start(self.name, |shared| self.serve(shared));
            if let Err(error) = started {
                tracing::warn!("Can't start a thread ({}): {error}", self.name);
                self.serve(shared);
            }
        }
    }

    fn serve(&self, shared: &Shared) {
        while let Some(clients) = (self.queue)(shared).next() {
            let reply = (self.run)(shared);
            for client in clients.iter().filter_map(Weak::upgrade) {
                client.answer(reply.clone());
            }
        }
    }
}
