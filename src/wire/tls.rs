//! TLS over a socket that does not block.
//!
//! What comes is read into a buffer that the thread's streams share, and given to rustls in pieces; what has no room in
//! the reader's buffer is kept, as records or decrypted, and served before the socket is looked at again. So of what
//! came a stream holds [`PIECE`] bytes at most, and rustls as much as a record has, decrypted or not whole. What is sent
//! is encrypted at once, into rustls' own buffer; nothing more is taken before that is empty. It takes 64 kilobytes at a
//! time, which become a little more as records.

use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::BufMut;
use rustix::net::SendFlags;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::context::Context;

/// Bytes read from a socket at once.
const PIECE: usize = 32 * 1024;

thread_local! {
    /// What was read from the socket that is being looked at.
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection.
pub struct Tls {
    socket: OwnedFd,
    connection: Connection,
    /// Records that were read and not given to rustls.
    records: Vec<u8>,
    /// Bytes that rustls has decrypted.
    decrypted: usize,
    /// The other side sends no more.
    ended: bool,
}

impl Tls {
    /// A socket with the connection over it, which may have read more than its handshake.
    pub(super) fn new(socket: OwnedFd, connection: Connection) -> io::Result<Self> {
        let mut tls = Self {
            socket,
            connection,
            records: Vec::new(),
            decrypted: 0,
            ended: false,
        };
        tls.process()?;
        Ok(tls)
    }

    /// Our side of a connection, before its handshake.
    pub(super) fn connect(socket: OwnedFd, context: &Context) -> io::Result<Self> {
        // It is not verified, as in Redis, but sessions are resumed by it.
        let peer = socket2::SockRef::from(&socket).peer_addr();
        let peer = peer.ok().and_then(|address| address.as_socket());
        let ip = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let client = ClientConnection::new(Arc::clone(&context.client), ServerName::from(ip));
        Self::new(socket, client.map_err(io::Error::other)?.into())
    }

    /// The other side of a connection, before its handshake.
    pub(super) fn accept(socket: OwnedFd, context: &Context) -> io::Result<Self> {
        let server = ServerConnection::new(Arc::clone(&context.server));
        Self::new(socket, server.map_err(io::Error::other)?.into())
    }

    /// Goes on with the handshake as far as it goes now; true when it is done.
    pub(super) fn shake(&mut self) -> io::Result<bool> {
        self.flush()?;
        while self.connection.is_handshaking() {
            match self.receive(&mut [0; 0].as_mut_slice()) {
                Ok(_) if self.ended => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.flush()?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(!self.has_unsent())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn has_unread(&self) -> bool {
        self.decrypted > 0 || !self.records.is_empty() || self.ended
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.connection.wants_write()
    }

    /// See [`super::Stream::read`]; it reads as much as `buffer` has room for.
    pub(super) fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let room = buffer.remaining_mut();
        self.decrypted_into(buffer)?;
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.feed(&records, buffer)?;
        }
        if !self.ended && buffer.has_remaining_mut() {
            match self.receive(buffer) {
                Ok(()) => {}
                // What came before counts; the next read meets it again.
                Err(_) if buffer.remaining_mut() < room => {}
                Err(error) => return Err(error),
            }
        }
        match room - buffer.remaining_mut() {
            0 if self.ended && self.decrypted == 0 => Ok(0),
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// Reads the socket once; what it gives is decrypted into `buffer`.
    fn receive(&mut self, buffer: &mut impl BufMut) -> io::Result<()> {
        INPUT.with_borrow_mut(|input| {
            input.clear();
            input.reserve(PIECE);
            let count = rustix::io::read(&self.socket, rustix::buffer::spare_capacity(input))?;
            if count == 0 {
                // Without a goodbye it is an end as well, as many clients go like that. What a stranger cuts off so is
                // half a request or reply, as without TLS.
                self.ended = true;
                return Ok(());
            }
            self.feed(input, buffer)
        })
    }

    /// Gives records to rustls until `buffer` is full, and keeps the rest.
    fn feed(&mut self, mut records: &[u8], buffer: &mut impl BufMut) -> io::Result<()> {
        while !records.is_empty() && self.decrypted == 0 {
            if self.connection.read_tls(&mut records)? == 0 {
                // Whoever has said goodbye is not listened to.
                return Ok(());
            }
            self.process()?;
            self.decrypted_into(buffer)?;
        }
        if !records.is_empty() {
            self.records.extend_from_slice(records);
        }
        Ok(())
    }

    /// Decrypts what rustls was given.
    fn process(&mut self) -> io::Result<()> {
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.decrypted = state.plaintext_bytes_to_read();
                self.ended |= state.peer_has_closed();
                Ok(())
            }
            Err(error) => {
                // The other side is told why, if it listens.
                let _ = self.flush();
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    /// Moves decrypted bytes into `buffer`.
    fn decrypted_into(&mut self, buffer: &mut impl BufMut) -> io::Result<()> {
        let mut reader = self.connection.reader();
        while self.decrypted > 0 && buffer.has_remaining_mut() {
            let piece = reader.fill_buf()?;
            let count = piece.len().min(buffer.remaining_mut());
            if count == 0 {
                self.decrypted = 0;
                break;
            }
            buffer.put_slice(&piece[..count]);
            reader.consume(count);
            self.decrypted -= count;
        }
        Ok(())
    }

    /// See [`super::Stream::write`].
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        if self.has_unsent() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.connection.writer().write_vectored(slices)?;
        self.flush()?;
        Ok(count)
    }

    /// See [`super::Stream::flush`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(self.socket.as_fd())) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.connection.send_close_notify();
        // The other side may be gone, or not read.
        let _ = self.flush();
    }
}

/// Where rustls writes to.
struct Socket<'a>(BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0, &[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.0, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes some of the slices to a socket.
pub(super) fn send(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // A peer that is gone is an error to be handled, not a signal.
    let sent = match slices {
        [one] => rustix::net::send(socket, one, SendFlags::NOSIGNAL)?,
        many => rustix::net::sendmsg(socket, many, &mut Default::default(), SendFlags::NOSIGNAL)?,
    };
    Ok(sent)
}
