//! Events on their way out: what happened to keys, in the order in which it happened.
//!
//! Events are recorded while the shard that they concern is locked and handed to subscribers
//! after it is unlocked. One queue for the whole keyspace, not one for each shard, keeps the
//! order of a transaction's events too; it is touched only when notifications are on. Whoever
//! delivers holds a lock of its own meanwhile, so two workers cannot announce SET and DEL of one
//! key the wrong way round.

use std::collections::VecDeque;

use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicUsize, Ordering};

/// Something that happened to a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// The key's database.
    pub db: usize,
    /// The key.
    pub key: Box<[u8]>,
    /// What happened.
    pub event: Event,
    /// `notify-keyspace-events` (bits of `config::NotifyFlags`) when it happened: a transaction may
    /// change the parameter before its events are told.
    pub notify: u32,
}

/// A message that a transaction published behind events of its own, and that must not overtake
/// them.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// True for a shard channel.
    pub to_shard: bool,
    /// The channel.
    pub channel: Box<[u8]>,
    /// What is published.
    pub payload: Box<[u8]>,
}

/// What waits in the outbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// An event.
    Notice(Notice),
    /// A message.
    Message(Message),
}

impl From<Notice> for Outgoing {
    fn from(notice: Notice) -> Self {
        Self::Notice(notice)
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

/// A kind of event: its class in `notify-keyspace-events` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One class bit of `config::NotifyFlags`.
    pub class: u32,
    /// The name that subscribers see.
    pub name: &'static str,
}

/// The queue; see the module.
#[derive(Default)]
pub struct Outbox {
    pending: AtomicUsize,
    queue: Mutex<VecDeque<Outgoing>>,
    delivery: Mutex<()>,
}

impl Outbox {
    /// Records an event or a message. Called under the lock of the key's shard, or under those of
    /// the transaction.
    pub fn record(&self, outgoing: impl Into<Outgoing>) {
        let mut queue = self.queue.lock();
        queue.push_back(outgoing.into());
        self.pending.store(queue.len(), Ordering::Relaxed);
    }

    /// Hands everything recorded to `send`, in order. Called without shard locks.
    pub fn deliver(&self, mut send: impl FnMut(Outgoing)) {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return;
        }
        let _turn = self.delivery.lock();
        loop {
            let batch = {
                let mut queue = self.queue.lock();
                self.pending.store(0, Ordering::Relaxed);
                std::mem::take(&mut *queue)
            };
            if batch.is_empty() {
                return;
            }
            batch.into_iter().for_each(&mut send);
        }
    }
}
