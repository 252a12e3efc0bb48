//! Events on their way out, and word for those who keep copies of keys: what happened to keys, in the order
//! in which it happened.
//!
//! Events are recorded while the shard that they concern is locked and handed to subscribers
//! after it is unlocked. One queue for the whole keyspace, not one for each shard, keeps the
//! order of a transaction's events too; it is touched only when anybody is to be told. Whoever
//! delivers holds a lock of its own meanwhile, so two workers cannot announce SET and DEL of one
//! key the wrong way round.

use std::collections::VecDeque;

use super::tracked::Stale;
use crate::base::sync::Mutex;

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
    /// A key changed that clients keep copies of.
    Stale(Stale),
    /// All keys may have changed.
    AllStale,
}

impl From<Stale> for Outgoing {
    fn from(stale: Stale) -> Self {
        Self::Stale(stale)
    }
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
    queue: Mutex<VecDeque<Outgoing>>,
    delivery: Mutex<()>,
}

impl Outbox {
    /// Records what is to be told. Called under the lock of the key's shard, or under those of the
    /// transaction.
    pub fn record(&self, outgoing: impl Into<Outgoing>) {
        self.queue.lock().push_back(outgoing.into());
    }

    /// Hands everything recorded to `send`, in order, in pieces. What the caller has recorded was handed over
    /// when this returns, be it by another one. Called without shard locks.
    pub fn deliver(&self, mut send: impl FnMut(VecDeque<Outgoing>)) {
        let _turn = self.delivery.lock();
        loop {
            let batch = std::mem::take(&mut *self.queue.lock());
            if batch.is_empty() {
                return;
            }
            send(batch);
        }
    }
}
