//! A stream that does not block.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::BufMut;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConnection;
use socket2::{SockAddr, SockRef};

use super::context::{Context, Contexts};
use super::tls::{Tls, send};

/// A connected, non-blocking socket, and TLS over it.
pub enum Stream {
    /// What is sent is what is written.
    Plain(OwnedFd),
    /// Behind a finished handshake.
    Tls(Box<Tls>),
}

impl Contexts {
    /// Makes our side of a handshake on a connected, non-blocking socket. The thread waits, until `deadline`.
    ///
    /// # Errors
    /// There is no agreement, or not in time.
    pub fn connect(&self, socket: OwnedFd, deadline: Instant) -> io::Result<Stream> {
        let context = self.load();
        let context = context.ok_or_else(|| io::Error::other("TLS is not configured"))?;
        Stream::connect(socket, &context, deadline)
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket.into())
    }
}

impl Stream {
    /// A client's socket, behind a finished handshake.
    ///
    /// # Errors
    /// What came behind the handshake is no TLS.
    pub fn accepted(socket: OwnedFd, connection: ServerConnection) -> io::Result<Self> {
        Ok(Self::Tls(Box::new(Tls::new(socket, connection.into())?)))
    }

    /// Makes our side of a handshake on a socket that we connected and that does not block. The thread waits,
    /// until `deadline`.
    ///
    /// # Errors
    /// There is no agreement, or not in time.
    pub fn connect(socket: OwnedFd, context: &Context, deadline: Instant) -> io::Result<Self> {
        Self::shake(Tls::connect(socket, context)?, deadline)
    }

    /// As [`Stream::connect`], on a socket that the other side connected.
    ///
    /// # Errors
    /// There is no agreement, or not in time.
    pub fn accept(socket: OwnedFd, context: &Context, deadline: Instant) -> io::Result<Self> {
        Self::shake(Tls::accept(socket, context)?, deadline)
    }

    fn shake(mut tls: Tls, deadline: Instant) -> io::Result<Self> {
        while !tls.shake()? {
            let (input, output) = (true, tls.has_unsent());
            wait(tls.fd(), (input, output), left(deadline)?)?;
        }
        Ok(Self::Tls(Box::new(tls)))
    }

    /// True over TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The socket, to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(tls) => tls.fd(),
        }
    }

    /// The other side's address.
    ///
    /// # Errors
    /// It is no socket of the Internet's families, or not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        internet(&SockRef::from(&self.fd()).peer_addr()?)
    }

    /// This side's address.
    ///
    /// # Errors
    /// As [`Stream::peer_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        internet(&SockRef::from(&self.fd()).local_addr()?)
    }

    /// Reads into the spare capacity of `buffer`, which has some; 0 bytes mean the end of input.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    #[inline]
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => Ok(rustix::io::read(socket, spare_capacity(buffer))?),
            Self::Tls(tls) => {
                let room = buffer.capacity() - buffer.len();
                tls.read(&mut buffer.limit(room))
            }
        }
    }

    /// Writes some of the slices. Of what was taken some may wait here for room in the socket: see
    /// [`Stream::has_unsent`].
    ///
    /// # Errors
    /// `WouldBlock` when there is no room.
    #[inline]
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => send(socket.as_fd(), slices),
            Self::Tls(tls) => tls.write(slices),
        }
    }

    /// True when a read has something to give that no socket will report.
    #[inline]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unread(),
        }
    }

    /// True when bytes wait here for room in the socket, for [`Stream::flush`].
    #[inline]
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Sends what waits here, as much as there is room for.
    ///
    /// # Errors
    /// The connection is broken.
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Waits until there is something to read or room to write, or for `limit`.
pub(super) fn wait(
    socket: BorrowedFd<'_>,
    (input, output): (bool, bool),
    limit: Duration,
) -> io::Result<()> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, input);
    flags.set(PollFlags::OUT, output);
    let timeout = Timespec {
        tv_sec: limit.as_secs().min(i64::MAX as u64).cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(&socket, flags)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn internet(address: &SockAddr) -> io::Result<SocketAddr> {
    let address = address.as_socket();
    address.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
