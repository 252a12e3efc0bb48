//! The machine as the server's threads share it. One thread changes it; commands read it, and hand in what
//! is ordered ([`Sentinel::order`]). Nothing is locked while a file, a name or a socket is waited for.

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::machine::Machine;
use super::orders::{Answer, Order};
use crate::base::clock::Steady;

/// Hears the answer to an order.
pub type Hears = Box<dyn FnOnce(Answer) + Send>;

/// A sentinel.
pub struct Sentinel {
    machine: Mutex<Machine>,
    asked: Mutex<Vec<(Order, Hears)>>,
    /// Wakes the thread.
    pub wake: Notify,
    clock: Steady,
}

impl Sentinel {
    /// Shares a machine that goes by `clock`.
    pub fn new(machine: Machine, clock: Steady) -> Self {
        Self {
            machine: Mutex::new(machine),
            asked: Mutex::default(),
            wake: Notify::new(),
            clock,
        }
    }

    /// The machine: to be read, but by its thread.
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// The machine's time, in milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Has an order carried out; `answer` is called by the thread, when what it changed is on the disk.
    pub fn order(&self, order: Order, answer: impl FnOnce(Answer) + Send + 'static) {
        self.asked.lock().push((order, Box::new(answer)));
        self.wake.notify_one();
    }

    /// What was asked since the last call, in order.
    pub fn take_asked(&self) -> Vec<(Order, Hears)> {
        std::mem::take(&mut *self.asked.lock())
    }
}
