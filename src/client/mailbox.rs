//! Pushed bytes on their way to a client, and the bell of the worker that owns it.
//!
//! A mailbox never blocks its sender. The receiving worker moves its contents to the client's
//! output; what has not been moved yet counts against `client-output-buffer-limit` like output,
//! and a client past the hard limit is closed instead of growing without bound.

use std::os::fd::OwnedFd;

use bytes::Bytes;

use crate::base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::base::sync::{EventFd, Mutex};

/// Bytes waiting for one client.
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<Vec<Bytes>>,
    bytes: AtomicUsize,
}

impl Mailbox {
    /// Adds a message; returns the bytes that wait now.
    pub fn push(&self, message: Bytes) -> usize {
        let mut queue = self.queue.lock();
        let total = self.bytes.load(Ordering::Relaxed) + message.len();
        self.bytes.store(total, Ordering::Relaxed);
        queue.push(message);
        total
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything, in the order of its sending.
    pub fn take(&self) -> Vec<Bytes> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut queue = self.queue.lock();
        self.bytes.store(0, Ordering::Relaxed);
        std::mem::take(&mut *queue)
    }
}

/// How other threads call a worker: a list of clients that need attention and an eventfd that
/// wakes its poll.
///
/// While `rung` is set the eventfd is readable or about to be, so that many callers cost one
/// signal.
pub struct Bell {
    callers: Mutex<Vec<u64>>,
    rung: AtomicBool,
    event: EventFd,
}

impl Bell {
    /// A new bell, or the error of `eventfd(2)`.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            callers: Mutex::default(),
            rung: AtomicBool::new(false),
            event: EventFd::new()?,
        })
    }

    /// What to poll for reading.
    pub fn fd(&self) -> &OwnedFd {
        self.event.fd()
    }

    /// Asks the worker to look at a client.
    pub fn call(&self, client: u64) {
        self.callers.lock().push(client);
        self.ring();
    }

    /// Wakes the worker.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.event.signal();
        }
    }

    /// Waits as the worker's poll does.
    #[cfg(feature = "model")]
    pub fn wait(&self) {
        self.event.wait();
    }

    /// Silences the bell and takes the list. For the worker itself.
    pub fn answer(&self) -> Vec<u64> {
        // In this order: who rings between the two finds the bell rung and is in the list, or
        // finds it silent and rings it again. The other way round a signal could be taken back
        // whose ringer has set `rung`, and nobody would ring any more.
        self.event.drain();
        self.rung.swap(false, Ordering::AcqRel);
        std::mem::take(&mut *self.callers.lock())
    }
}
