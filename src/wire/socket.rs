//! Sockets for tasks, with TLS over them where it is wanted: the links of a cluster and of sentinels.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::context::Context;

/// An address as others are told of it: that of IPv4 where it is one.
pub fn shown(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// A connected socket, and TLS over it.
pub enum Socket {
    /// What is sent is what is written.
    Plain(TcpStream),
    /// Behind a finished handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Which side of a connection makes a handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connected.
    Connecting,
    /// The other one: of a cluster's link.
    Accepting,
}

impl Socket {
    /// Makes one side of a handshake, by the parameters of the moment.
    ///
    /// # Errors
    /// There is no agreement, or not in time.
    pub async fn secure(
        socket: TcpStream,
        side: Side,
        context: Option<Arc<Context>>,
        limit: Duration,
    ) -> io::Result<Self> {
        let context = context.ok_or_else(|| io::Error::other("TLS is not configured"))?;
        let shaken = tokio::time::timeout(limit, Self::shake(socket, side, &context)).await;
        shaken.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn shake(socket: TcpStream, side: Side, context: &Context) -> io::Result<Self> {
        let stream: TlsStream<TcpStream> = match side {
            Side::Accepting => {
                let acceptor = TlsAcceptor::from(Arc::clone(&context.bus));
                acceptor.accept(socket).await?.into()
            }
            Side::Connecting => {
                let connector = TlsConnector::from(Arc::clone(&context.client));
                // It is not verified, as in Redis, but sessions are resumed by it.
                let name = ServerName::from(socket.peer_addr()?.ip());
                connector.connect(name, socket).await?.into()
            }
        };
        Ok(Self::Tls(Box::new(stream)))
    }

    /// What is connected.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Opens a connection to an address, from `source` if that is one.
///
/// # Errors
/// It is no address, or nobody takes the connection.
pub async fn connect(ip: &str, port: u16, source: &str) -> io::Result<TcpStream> {
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let socket = match ip {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Ok(source) = source.parse() {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(SocketAddr::new(ip, port)).await
}
