//! A stream for threads that wait: one that reads and one that writes, or one that does both.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stream::{Stream, wait};
use super::tls::{Tls, send};

/// A stream whose reads and writes wait, up to a limit, and then fail with `WouldBlock`.
pub struct Duplex {
    kind: Kind,
    /// How long they wait, in milliseconds.
    limit_ms: AtomicU64,
}

enum Kind {
    Plain(OwnedFd),
    Tls {
        /// Locked while something is encrypted, decrypted or sent, but not while anything is awaited.
        tls: Mutex<Box<Tls>>,
        /// The same socket, to be waited for.
        socket: OwnedFd,
    },
}

impl Duplex {
    /// Takes a stream over.
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub fn new(stream: Stream, limit: Duration) -> io::Result<Self> {
        let kind = match stream {
            Stream::Plain(socket) => Kind::Plain(socket),
            Stream::Tls(tls) => Kind::Tls {
                socket: tls.fd().try_clone_to_owned()?,
                tls: Mutex::new(tls),
            },
        };
        let duplex = Self {
            kind,
            limit_ms: AtomicU64::new(0),
        };
        duplex.set_limit(limit);
        Ok(duplex)
    }

    /// A connected socket without TLS.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn plain(socket: TcpStream, limit: Duration) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::new(socket.into(), limit)
    }

    /// Changes how long reads and writes wait.
    pub fn set_limit(&self, limit: Duration) {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.limit_ms.store(ms.max(1), Relaxed);
    }

    /// Ends the connection for both sides, whoever waits.
    pub fn shutdown(&self) {
        // It may be closed already.
        let _ = rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Both);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Plain(socket) | Kind::Tls { socket, .. } => socket.as_fd(),
        }
    }

    fn has_unsent(&self) -> bool {
        match &self.kind {
            Kind::Plain(_) => false,
            Kind::Tls { tls, .. } => tls.lock().has_unsent(),
        }
    }

    /// Does `work` as soon as it does not have to wait, which is for input or for room.
    fn until(&self, input: bool, mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let limit = Duration::from_millis(self.limit_ms.load(Relaxed));
        let begun = Instant::now();
        loop {
            match work() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                done => return done,
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::WouldBlock.into());
            }
            // The other side may read on only when it has what waits here.
            wait(self.fd(), (input, !input || self.has_unsent()), left)?;
        }
    }
}

impl Read for &Duplex {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match &self.kind {
            Kind::Plain(socket) => self.until(true, || Ok(rustix::io::read(socket, &mut *bytes)?)),
            Kind::Tls { tls, .. } => self.until(true, || {
                let mut tls = tls.lock();
                // What a write had no room for, and what reading itself has to say.
                tls.flush()?;
                tls.read(&mut &mut *bytes)
            }),
        }
    }
}

impl Write for &Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let slices = [IoSlice::new(bytes)];
        match &self.kind {
            Kind::Plain(socket) => self.until(false, || send(socket.as_fd(), &slices)),
            Kind::Tls { tls, .. } => self.until(false, || tls.lock().write(&slices)),
        }
    }

    /// Waits until all that was taken is sent.
    fn flush(&mut self) -> io::Result<()> {
        let Kind::Tls { tls, .. } = &self.kind else {
            return Ok(());
        };
        let sent = self.until(false, || {
            let mut tls = tls.lock();
            tls.flush()?;
            match tls.has_unsent() {
                true => Err(ErrorKind::WouldBlock.into()),
                false => Ok(0),
            }
        });
        sent.map(|_| ())
    }
}

impl Read for Duplex {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}
