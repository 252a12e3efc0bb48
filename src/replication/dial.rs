//! Connecting to a primary, on a thread of its own: DNS and the network may take long.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::follow::Event;
use crate::client::mailbox::Bell;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::wire::Stream;

/// What came of an attempt to connect.
pub(super) struct Dialled {
    /// Which attempt.
    pub(super) attempt: u64,
    /// The stream, or what is to be told instead.
    pub(super) result: Result<Stream, Event<'static>>,
}

/// Begins an attempt, whose outcome is put into `dialled`, unless a later one is there; then `bell` is rung.
///
/// # Errors
/// There can be no more threads.
pub(super) fn begin(
    shared: &Shared,
    (attempt, host, port): (u64, String, u16),
    dialled: Arc<Mutex<Option<Dialled>>>,
    bell: Arc<Bell>,
) -> io::Result<()> {
    let settings = shared.config.load();
    let limit = Duration::from_secs(settings.repl_timeout.max(1).unsigned_abs().into());
    let source = settings.bind_source_addr.to_str().into_owned();
    shared.threads.start("dial", move |shared| {
        let connected = connect(&host, port, &source, limit);
        let secured = connected.and_then(|socket| secure(shared, socket, limit));
        let result = secured.map_err(|failure| match failure {
            Unconnected::Unreachable(text) => Event::Unreachable { attempt, text },
            Unconnected::Refused(text) => Event::ConnectFailed { attempt, text },
        });
        let mut last = dialled.lock();
        if last.as_ref().is_none_or(|last| last.attempt < attempt) {
            *last = Some(Dialled { attempt, result });
        }
        drop(last);
        bell.ring();
    })
}

/// Connects to another server as to a primary, on the calling thread.
///
/// # Errors
/// Why that is not possible.
pub fn reach(
    shared: &Shared,
    (host, port): &(String, u16),
    limit: Duration,
) -> Result<Stream, String> {
    let settings = shared.config.load();
    let source = settings.bind_source_addr.to_str();
    let connected = connect(host, *port, &source, limit);
    let secured = connected.and_then(|socket| secure(shared, socket, limit));
    secured.map_err(|failure| match failure {
        Unconnected::Unreachable(text) | Unconnected::Refused(text) => text,
    })
}

/// A stream over a connected socket: with TLS, where `tls-replication` says so.
fn secure(shared: &Shared, socket: TcpStream, limit: Duration) -> Result<Stream, Unconnected> {
    if !shared.config.settings().tls_replication {
        return Ok(socket.into());
    }
    let deadline = Instant::now() + limit;
    shared
        .tls
        .connect(socket.into(), deadline)
        .map_err(|error| Unconnected::Refused(strerror(&error)))
}

/// Why there is no connection.
enum Unconnected {
    /// The name leads nowhere.
    Unreachable(String),
    Refused(String),
}

/// A socket that is connected and does not block.
fn connect(host: &str, port: u16, source: &str, limit: Duration) -> Result<TcpStream, Unconnected> {
    let unreachable = |error: io::Error| Unconnected::Unreachable(strerror(&error));
    let addresses = (host, port).to_socket_addrs().map_err(unreachable)?;
    let mut last = Unconnected::Unreachable("Name does not resolve".to_owned());
    for address in addresses {
        let connected = connect_to(address, source, limit);
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Unconnected::Refused(strerror(&error)),
        }
    }
    Err(last)
}

fn connect_to(address: SocketAddr, source: &str, limit: Duration) -> io::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Ok(source) = source.parse() {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&address.into(), limit)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
