//! A replica and its socket, written to by whoever has something for it: its own thread, or who makes
//! a snapshot for several.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::registry::Handle;
use crate::client::session::ReplicaOptions;
use crate::dispatch::context::Shared;
use crate::propagation::{Replica, State};
use crate::wire::Duplex;

/// A replica and its socket.
pub(super) struct Peer {
    /// Waits for [`super::primary::TICK`] at a time.
    pub(super) socket: Duplex,
    pub(super) handle: Arc<Handle>,
    pub(super) replica: Arc<Replica>,
    pub(super) options: Box<ReplicaOptions>,
    /// It came by PSYNC: it is told where the snapshot is, and it confirms what it gets.
    pub(super) replies: bool,
    pub(super) closed: AtomicBool,
    /// The replica waits, and gets empty lines as signs of life. Held while one is written.
    pub(super) preparing: Mutex<bool>,
}

impl Peer {
    /// True when nothing more can be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.socket.shutdown();
    }

    /// Tells the replica that everything follows, from `offset` on.
    pub(super) fn announce(&self, shared: &Shared, offset: u64) -> io::Result<()> {
        if !self.replies {
            return Ok(());
        }
        let line = format!("+FULLRESYNC {} {offset}\r\n", shared.replication.id());
        // No sign of life comes into the middle of it.
        let _preparing = self.preparing.lock();
        let mut pipe = Pipe(shared, self);
        pipe.write_all(line.as_bytes())?;
        pipe.flush()
    }

    /// The snapshot comes now: no signs of life any more.
    pub(super) fn prepared(&self) {
        *self.preparing.lock() = false;
    }
}

/// Writes to a replica, waiting for it as long as it may take.
pub(super) struct Pipe<'a>(pub(super) &'a Shared, pub(super) &'a Peer);

impl Pipe<'_> {
    /// Does `work`, which waits for the replica, until it is done.
    fn until<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let (shared, link, begun) = (self.0, self.1, Instant::now());
        loop {
            // What comes after CLIENT KILL in the stream is not for whoever was killed.
            if link.closed.load(Relaxed) || link.handle.is_killed() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            match work() {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Whoever cancels the snapshot does not wait for a replica that hangs.
                    let waits = link.replica.state() == State::WaitEnd;
                    if waits && shared.durability.saves.is_cancelled() {
                        return Err(ErrorKind::ConnectionAborted.into());
                    }
                    // Once it is in step its confirmations tell whether it is alive.
                    let limit = shared.config.settings().repl_timeout.max(1);
                    let limit = Duration::from_secs(limit.unsigned_abs().into());
                    if link.replica.state() != State::Online && begun.elapsed() > limit {
                        tracing::warn!(
                            "Disconnecting timedout replica (full sync): {}",
                            link.replica.name()
                        );
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = &self.1.socket;
        let written = self.until(|| socket.write(bytes))?;
        let counter = &self.0.replication.output_bytes;
        counter.fetch_add(written as u64, Relaxed);
        Ok(written)
    }

    /// Waits until all is in the socket: over TLS some of what was written may wait for room in it, and nobody sends
    /// that while nothing else is written.
    fn flush(&mut self) -> io::Result<()> {
        let mut socket = &self.1.socket;
        self.until(|| socket.flush())
    }
}
