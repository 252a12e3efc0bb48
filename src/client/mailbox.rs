//! Pushed bytes on their way to a client, and the bell of the worker that owns it.
//!
//! A mailbox never blocks its sender. The receiving worker moves its contents to the client's
//! output; what has not been moved yet counts against `client-output-buffer-limit` like output,
//! and a client past the hard limit is closed instead of growing without bound.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

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
pub struct Bell {
    callers: Mutex<Vec<u64>>,
    rung: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    /// A new bell, or the error of `eventfd(2)`.
    pub fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            callers: Mutex::default(),
            rung: AtomicBool::new(false),
            fd,
        })
    }

    /// What to poll for reading.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Asks the worker to look at a client.
    pub fn call(&self, client: u64) {
        self.callers.lock().push(client);
        self.ring();
    }

    /// Wakes the worker.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full counter means the bell rings already; nothing else can fail here.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Silences the bell and takes the list. For the worker itself.
    pub fn answer(&self) -> Vec<u64> {
        if self.rung.swap(false, Ordering::AcqRel) {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&self.fd, &mut counter);
        }
        std::mem::take(&mut *self.callers.lock())
    }
}
