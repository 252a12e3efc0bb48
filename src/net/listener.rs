//! Listening sockets, and what is decided about a connection before it is served.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::worker::Link;
use crate::base::clock::unix_ms;
use crate::client::registry::{Arrival, flag};
use crate::client::session::Session;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::wire::Stream;

/// An address of `bind` that was tried.
pub enum Bound {
    /// It is listened on.
    Listening(std::net::TcpListener),
    /// It is left out for this reason: an optional one (`-` in front) that this machine does not
    /// have, or a protocol that it does not speak.
    Absent(io::Error),
}

/// Binds one of the addresses of `bind`.
pub fn bind_tcp(address: &str, port: u16, settings: &Settings) -> io::Result<Bound> {
    let (optional, address) = match address.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, address),
    };
    let ip = match address {
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        other => resolve(other)?,
    };
    match listen(SocketAddr::new(ip, port), settings) {
        Ok(listener) => Ok(Bound::Listening(listener)),
        Err(error) if is_unsupported(&error, optional) => Ok(Bound::Absent(error)),
        Err(error) => Err(error),
    }
}

fn resolve(name: &str) -> io::Result<IpAddr> {
    use std::net::ToSocketAddrs;
    if let Ok(ip) = name.parse() {
        return Ok(ip);
    }
    let mut addresses = (name, 0).to_socket_addrs()?;
    let first = addresses.next();
    first
        .map(|a| a.ip())
        .ok_or_else(|| io::Error::other("Name or service not known"))
}

fn is_unsupported(error: &io::Error, optional: bool) -> bool {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(
            Errno::NOPROTOOPT
            | Errno::PROTONOSUPPORT
            | Errno::SOCKTNOSUPPORT
            | Errno::PFNOSUPPORT
            | Errno::AFNOSUPPORT,
        ) => true,
        Some(Errno::ADDRNOTAVAIL) => optional,
        _ => false,
    }
}

fn listen(address: SocketAddr, settings: &Settings) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(settings.tcp_backlog)?;
    if settings.socket_mark_id != 0
        && let Err(error) = socket.set_mark(settings.socket_mark_id)
    {
        // Marking needs a privilege; a server without it serves unmarked, as Redis does.
        tracing::warn!("setsockopt: {}", crate::config::strerror(&error));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds the Unix socket, replacing what an earlier server left there.
pub fn bind_unix(settings: &Settings) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let path = settings.unixsocket.as_path();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(settings.tcp_backlog)?;
    if settings.unixsocketperm != 0 {
        let permissions = std::fs::Permissions::from_mode(settings.unixsocketperm);
        std::fs::set_permissions(path, permissions)?;
    }
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

/// Who connected.
pub enum Peer {
    /// By TCP: its address and ours.
    Tcp(SocketAddr, SocketAddr),
    /// By the Unix socket, at this path.
    Unix(String),
}

const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is \
    enabled and no password is set for the default user. In this mode connections are only \
    accepted from the loopback interface. If you want to connect from external computers to Redis \
    you may adopt one of the following solutions: 1) Just disable protected mode sending the \
    command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from \
    the same host the server is running, however MAKE SURE Redis is not publicly accessible from \
    internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you \
    can just disable the protected mode by editing the Redis configuration file, and setting the \
    protected mode option to 'no', and then restarting the server. 3) If you started the server \
    manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an \
    authentication password for the default user. NOTE: You only need to do one of the above \
    things in order for the server to start accepting connections from the outside.\r\n";

/// Serves an accepted stream: refuses it with a word, or hands it to a worker.
pub fn admit(shared: &Arc<Shared>, workers: &[Arc<Link>], mut stream: Stream, peer: Peer) {
    let settings = shared.config.load();
    shared.stats.global.connections.fetch_add(1, Relaxed);
    if shared.clients.len() >= settings.maxclients as usize {
        shared
            .stats
            .global
            .rejected_connections
            .fetch_add(1, Relaxed);
        refuse(&mut stream, b"-ERR max number of clients reached\r\n");
        return;
    }
    let protected =
        settings.protected_mode && shared.users.default_user().rules().takes_any_password();
    if let Peer::Tcp(address, _) = &peer
        && protected
        && !address.ip().to_canonical().is_loopback()
    {
        shared
            .stats
            .global
            .rejected_connections
            .fetch_add(1, Relaxed);
        refuse(&mut stream, DENIED.as_bytes());
        return;
    }
    if let Err(error) = prepare(stream.fd(), &peer, &settings) {
        tracing::debug!("Error setting up a client connection: {error}");
        return;
    }
    match &peer {
        Peer::Tcp(address, _) => tracing::debug!("Accepted {}", text(*address)),
        Peer::Unix(path) => tracing::debug!("Accepted connection to {path}"),
    }
    let link = choose(workers);
    let unix = matches!(peer, Peer::Unix(_));
    let (address, local_address) = match peer {
        Peer::Tcp(theirs, ours) => (text(theirs), text(ours)),
        Peer::Unix(path) => (format!("{path}:0"), format!("{path}:0")),
    };
    let handle = shared.clients.add(Arrival {
        address,
        local_address,
        fd: stream.fd().as_raw_fd(),
        now_ms: unix_ms(),
        bell: Arc::clone(&link.bell),
    });
    if unix {
        handle.live.flags.store(flag::UNIX_SOCKET, Relaxed);
    } else if stream.is_tls() {
        handle.live.flags.store(flag::TLS, Relaxed);
    }
    let user = shared.users.default_user();
    link.accept(stream, Session::new(handle, Some(user)));
}

/// A refusal is one write that need not succeed.
fn refuse(stream: &mut Stream, line: &[u8]) {
    let _ = stream.write(&[io::IoSlice::new(line)]);
}

fn prepare(socket: BorrowedFd<'_>, peer: &Peer, settings: &Settings) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    if let Peer::Tcp(..) = peer {
        let socket = SockRef::from(&socket);
        socket.set_tcp_nodelay(true)?;
        if settings.tcp_keepalive > 0 {
            let seconds = settings.tcp_keepalive as u64;
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)))
                .with_retries(3);
            socket.set_tcp_keepalive(&keepalive)?;
        }
    }
    Ok(())
}

/// An address as clients are shown it.
pub fn text(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

/// Connections that a worker gets before the next one is used: spreading a few light ones costs
/// more wake-ups than it gains.
const FILL: usize = 64;

/// The worker for a new connection: the first that is not filled, else the least loaded.
fn choose(workers: &[Arc<Link>]) -> &Arc<Link> {
    let count = |link: &&Arc<Link>| link.stats.connections.load(Relaxed);
    workers
        .iter()
        .find(|link| count(link) < FILL)
        .or_else(|| workers.iter().min_by_key(count))
        .expect("a server has workers")
}
