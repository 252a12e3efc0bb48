//! The node's machine as the server's threads share it.
//!
//! The bus' thread alone changes it; commands read it, and hand in what is to be done ([`Cluster::order`],
//! [`Cluster::publish`]). Nothing is locked while a file or a socket is waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::machine::Machine;
use super::moving::list::Moves;
use super::orders::{Order, Outcome};
use crate::base::clock::Steady;

/// Bytes of publications that may wait for the bus' thread; beyond that they are dropped, as on a link
/// that is closed for having too much to send.
const PUBLISHED: usize = 256 << 20;

/// How long a command waits at most for the bus' thread, which waits for nobody.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked of the bus' thread.
pub enum Asked {
    /// An order.
    Order {
        /// What is to be done.
        order: Order,
        /// The outcome is told at once, and not when it is on the disk.
        at_once: bool,
        /// Hears the outcome.
        answer: Box<dyn FnOnce(Outcome) + Send>,
    },
    /// A message for subscribers elsewhere.
    Publish {
        /// The channel.
        channel: Vec<u8>,
        /// What is published.
        message: Vec<u8>,
        /// To this shard only.
        shard: bool,
    },
    /// Parameters have changed; who changed them waits until the node goes by them.
    Settings(Sender<()>),
}

/// A node of a cluster.
pub struct Cluster {
    machine: Mutex<Machine>,
    asked: Mutex<Vec<Asked>>,
    published: AtomicUsize,
    /// Wakes the bus' thread.
    pub wake: Notify,
    /// Memory of all links, in bytes.
    pub link_memory: AtomicUsize,
    /// DEBUG: messages of this kind are dropped; -1 is none.
    pub dropped_kind: AtomicI64,
    /// What the server loads at its start is there: from then on its role may change.
    pub is_loaded: AtomicBool,
    /// Slots that are being given away by an order that was not carried out yet, and the place of the node
    /// that gets each: clients are sent there already.
    leaving: Mutex<BTreeMap<u16, u16>>,
    /// Atomic migrations of slots.
    pub moves: Moves,
    /// CLUSTER SLOTS as it was told last, and what it depends on.
    slots_text: Mutex<Option<(SlotsKey, Bytes)>>,
    clock: Steady,
}

/// What the text of CLUSTER SLOTS depends on: the machine's version, whether this node has copied
/// anything, the protocol, how nodes are named.
pub type SlotsKey = (u64, bool, u8, u8);

impl Cluster {
    /// Shares a machine that goes by `clock`.
    pub fn new(machine: Machine, clock: Steady) -> Self {
        Self {
            machine: Mutex::new(machine),
            asked: Mutex::default(),
            published: AtomicUsize::new(0),
            wake: Notify::new(),
            link_memory: AtomicUsize::new(0),
            dropped_kind: AtomicI64::new(-1),
            is_loaded: AtomicBool::new(false),
            leaving: Mutex::default(),
            moves: Moves::default(),
            slots_text: Mutex::default(),
            clock,
        }
    }

    /// The machine: to be read, but by the bus' thread.
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// Has whatever is published send clients of a slot to the node at place `to`, until an order about it
    /// was carried out.
    pub fn leave_slot(&self, slot: u16, to: u16) {
        self.leaving.lock().insert(slot, to);
    }

    /// An order about a slot was carried out, or is not to come.
    pub fn has_left_slot(&self, slot: u16) {
        self.leaving.lock().remove(&slot);
    }

    /// Slots that are being given away, and to which place.
    pub fn leaving(&self) -> Vec<(u16, u16)> {
        self.leaving
            .lock()
            .iter()
            .map(|(slot, to)| (*slot, *to))
            .collect()
    }

    /// The text of CLUSTER SLOTS, written anew when what it depends on has changed.
    pub fn slots_text(&self, key: SlotsKey, write: impl FnOnce() -> Bytes) -> Bytes {
        let mut last = self.slots_text.lock();
        match &*last {
            Some((known, text)) if *known == key => text.clone(),
            _ => {
                let text = write();
                *last = Some((key, text.clone()));
                text
            }
        }
    }

    /// How many connections the other nodes account for: one each way.
    pub fn connections(&self) -> usize {
        2 * (self.machine().view().count() - 1)
    }

    /// The machine's time, in milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    fn ask(&self, asked: Asked) {
        self.asked.lock().push(asked);
        self.wake.notify_one();
    }

    /// Has an order carried out; `answer` is called by the bus' thread, when what it changed is on the disk
    /// or `at_once`.
    pub fn order(
        &self,
        order: Order,
        at_once: bool,
        answer: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.ask(Asked::Order {
            order,
            at_once,
            answer: Box::new(answer),
        });
    }

    /// Has the file hold what this node knows and waits until it does, for no longer than `limit`. Not for
    /// the bus' thread to call.
    ///
    /// # Errors
    /// It cannot be written, or not in time.
    pub fn save(&self, limit: Duration) -> Outcome {
        let (tell, told) = channel();
        // Who asked may have stopped waiting.
        self.order(Order::SaveConfig, false, move |done| _ = tell.send(done));
        let late = |_| Err("the disk takes too long".to_owned());
        told.recv_timeout(limit).unwrap_or_else(late)
    }

    /// Has a message published on other nodes.
    pub fn publish(&self, channel: &[u8], message: &[u8], shard: bool) {
        let bytes = channel.len() + message.len();
        if self.published.fetch_add(bytes, Relaxed) > PUBLISHED {
            self.published.fetch_sub(bytes, Relaxed);
            return;
        }
        self.ask(Asked::Publish {
            channel: channel.to_vec(),
            message: message.to_vec(),
            shard,
        });
    }

    /// Parameters have changed: returns when the node goes by them.
    pub fn settings_changed(&self) {
        let (done, is_done) = channel();
        self.ask(Asked::Settings(done));
        // Before the bus has started nobody answers; it begins with the parameters of then.
        if self.is_loaded.load(Relaxed) {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }

    /// What was asked since the last call, in order.
    pub fn take_asked(&self) -> Vec<Asked> {
        let asked = std::mem::take(&mut *self.asked.lock());
        self.published.store(0, Relaxed);
        asked
    }
}
