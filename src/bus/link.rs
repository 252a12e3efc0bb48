//! A link of the bus: a socket, a task that reads messages from it and one that writes them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::codec::{Decoder, FramedRead};

use super::happened::Happened;
use crate::cluster::meter::Meter;
use crate::cluster::node::LinkId;
use crate::cluster::wire;
use crate::wire::{Socket, socket};

/// Cuts what comes into messages.
struct Messages(Arc<Meter>);

impl Decoder for Messages {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
        match wire::frame(buffer) {
            Ok(Some(length)) if length > wire::LONGEST_OF_STRANGERS && !self.0.is_known() => {
                tracing::warn!("A message of {length} bytes from an unknown node is not read.");
                Err(io::ErrorKind::InvalidData.into())
            }
            Ok(Some(length)) if buffer.len() >= length => {
                Ok(Some(buffer.split_to(length).freeze()))
            }
            // No room is made beyond what has come: a length is easily claimed.
            Ok(_) => Ok(None),
            Err(malformed) => {
                tracing::warn!("{malformed}");
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// The tasks of a link, which end with it.
pub struct Link {
    unsent: UnboundedSender<Arc<[u8]>>,
    meter: Arc<Meter>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Serves a socket; what comes and its end are told to `tell`. `meter` counts bytes to be sent.
    pub fn serve(id: LinkId, socket: Socket, meter: Arc<Meter>, tell: &Sender<Happened>) -> Self {
        // Without it messages are later, not lost.
        let _ = socket.tcp().set_nodelay(true);
        match socket {
            Socket::Plain(socket) => Self::over(id, socket.into_split(), meter, tell),
            Socket::Tls(stream) => Self::over(id, tokio::io::split(stream), meter, tell),
        }
    }

    fn over<R, W>(
        id: LinkId,
        (reader, writer): (R, W),
        meter: Arc<Meter>,
        tell: &Sender<Happened>,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (unsent, to_send) = unbounded_channel();
        let reading = tokio::spawn(read(id, reader, Arc::clone(&meter), tell.clone()));
        let writing = tokio::spawn(write(id, writer, to_send, Arc::clone(&meter), tell.clone()));
        Self {
            unsent,
            meter,
            tasks: [reading, writing],
        }
    }

    /// Sends a message, behind those before it.
    pub fn send(&self, message: Arc<[u8]>) {
        self.meter.held.fetch_add(message.len(), Relaxed);
        // Where the task has ended, that the link has ended is on its way.
        let _ = self.unsent.send(message);
    }
}

async fn read(
    id: LinkId,
    socket: impl AsyncRead + Unpin,
    meter: Arc<Meter>,
    tell: Sender<Happened>,
) {
    let mut messages = FramedRead::new(socket, Messages(meter));
    while let Some(Ok(message)) = messages.next().await {
        if tell.send(Happened::Message(id, message)).await.is_err() {
            return;
        }
    }
    // The driver may have ended.
    let _ = tell.send(Happened::Ended(id)).await;
}

async fn write(
    id: LinkId,
    mut socket: impl AsyncWrite + Unpin,
    mut to_send: UnboundedReceiver<Arc<[u8]>>,
    meter: Arc<Meter>,
    tell: Sender<Happened>,
) {
    while let Some(message) = to_send.recv().await {
        // TLS may keep something back.
        let sent = match socket.write_all(&message).await {
            Ok(()) => socket.flush().await,
            failed => failed,
        };
        if sent.is_err() {
            let _ = tell.send(Happened::Ended(id)).await;
            return;
        }
        meter.held.fetch_sub(message.len(), Relaxed);
    }
}

/// An address as the bus tells it.
pub fn shown(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| String::new(), |address| socket::shown(address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::HEADER;

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut message = vec![0; HEADER];
        message[..4].copy_from_slice(b"RCmb");
        message[4..8].copy_from_slice(&(HEADER as u32).to_be_bytes());
        let mut buffer = BytesMut::new();
        let meter: Arc<Meter> = Arc::default();
        let mut messages = Messages(Arc::clone(&meter));
        buffer.extend_from_slice(&message[..HEADER - 1]);
        assert!(messages.decode(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&message[HEADER - 1..]);
        buffer.extend_from_slice(&message[..9]);
        assert_eq!(messages.decode(&mut buffer).unwrap().unwrap().len(), HEADER);
        assert_eq!(buffer.len(), 9);
        buffer[7] = 0;
        buffer[6] = 0;
        assert!(messages.decode(&mut buffer).is_err());
        // What is long is for those who are known.
        buffer[5] = 0x20;
        assert!(messages.decode(&mut buffer).is_err());
        meter.introduce();
        assert!(messages.decode(&mut buffer).unwrap().is_none());
    }
}
