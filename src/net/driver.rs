//! The kernel side of a worker: which sockets are ready. Streams ([`crate::wire`]) read and write them.
//!
//! With these it is the whole interface that the event loop needs of the system. Readiness is level-triggered: what a
//! turn leaves unread is reported again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// A socket that may be used now.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What it was added with.
    pub token: u64,
    /// There is data, an end, or an error to be read.
    pub readable: bool,
    /// There is room for output.
    pub writable: bool,
}

/// An epoll set.
pub struct Driver {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

/// Most sockets that one wait reports.
const MAX_EVENTS: usize = 512;

impl Driver {
    /// A driver without sockets.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(MAX_EVENTS),
        })
    }

    /// Watches a socket for input.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.set, socket, EventData::new_u64(token), EventFlags::IN)?;
        Ok(())
    }

    /// Changes what is watched: input, and room for output while some waits.
    pub fn watch(
        &self,
        socket: impl AsFd,
        token: u64,
        input: bool,
        output: bool,
    ) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, input);
        flags.set(EventFlags::OUT, output);
        epoll::modify(&self.set, socket, EventData::new_u64(token), flags)?;
        Ok(())
    }

    /// Forgets a socket. Closing one does the same.
    pub fn remove(&self, socket: impl AsFd) {
        // It may have been closed by the kernel's own accord; then there is nothing to forget.
        let _ = epoll::delete(&self.set, socket);
    }

    /// Waits for readiness, at most `timeout` (for ever without), and appends it to `ready`.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|t| rustix::event::Timespec {
            tv_sec: t.as_secs() as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(
            &self.set,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                token: event.data.u64(),
                readable: failed || flags.contains(EventFlags::IN),
                writable: failed || flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}
