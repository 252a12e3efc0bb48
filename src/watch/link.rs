//! A connection to an instance: one task that connects, writes and reads replies.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::config::strerror;
use crate::resp::read::{ReadLimits, Reader};
use crate::sentinel::machine::Event;
use crate::sentinel::state::ConnId;
use crate::wire::{Context, Side, Socket, socket};

/// How long a TLS handshake may take; the machine gives a connection up earlier than that.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an instance may send: INFO is the longest of it.
const LIMITS: ReadLimits = ReadLimits {
    max_depth: 8,
    max_bulk: 64 << 20,
    max_values: 16,
};

/// How instances are reached.
pub struct Way {
    /// `bind-source-addr`.
    pub source: String,
    /// `tls-replication`: over TLS, by these parameters.
    pub tls: Option<Option<Arc<Context>>>,
}

/// The way to the task, which ends with it.
pub struct Link {
    unsent: UnboundedSender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Connects, and tells what comes of it and what comes on it.
    pub fn open(conn: ConnId, to: (String, u16), way: Way, tell: Sender<Event>) -> Self {
        let (unsent, to_send) = unbounded_channel();
        let task = tokio::spawn(async move {
            let why = match serve(conn, to, way, to_send, &tell).await {
                Ok(()) => "Server closed the connection".to_owned(),
                Err(error) => strerror(&error),
            };
            // The driver may have ended.
            let _ = tell.send(Event::Closed { conn, why }).await;
        });
        Self { unsent, task }
    }

    /// Sends bytes, behind those before them. Of what may wait the machine keeps count.
    pub fn send(&self, bytes: Vec<u8>) {
        // Where the task has ended, that the connection has is on its way.
        let _ = self.unsent.send(bytes);
    }
}

async fn serve(
    conn: ConnId,
    to: (String, u16),
    way: Way,
    to_send: UnboundedReceiver<Vec<u8>>,
    tell: &Sender<Event>,
) -> io::Result<()> {
    let (ip, port) = to;
    let socket = socket::connect(&ip, port, &way.source).await?;
    // Without it requests are later, not lost.
    let _ = socket.set_nodelay(true);
    let socket = match way.tls {
        Some(context) => Socket::secure(socket, Side::Connecting, context, PATIENCE).await?,
        None => Socket::Plain(socket),
    };
    let local_ip = socket::shown(socket.tcp().local_addr()?.ip());
    if tell
        .send(Event::Connected { conn, local_ip })
        .await
        .is_err()
    {
        return Ok(());
    }
    match socket {
        Socket::Plain(socket) => exchange(conn, socket.into_split(), to_send, tell).await,
        Socket::Tls(stream) => exchange(conn, tokio::io::split(stream), to_send, tell).await,
    }
}

async fn exchange(
    conn: ConnId,
    (mut reading, mut writing): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    mut to_send: UnboundedReceiver<Vec<u8>>,
    tell: &Sender<Event>,
) -> io::Result<()> {
    let write = async move {
        while let Some(bytes) = to_send.recv().await {
            writing.write_all(&bytes).await?;
            // TLS may keep something back.
            writing.flush().await?;
        }
        Ok(())
    };
    let read = async move {
        let (mut reader, mut input) = (Reader::new(LIMITS), Vec::with_capacity(4096));
        loop {
            if reading.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            let mut pos = 0;
            loop {
                let reply = reader.read(&input, &mut pos);
                match reply.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
                    Some(value) => {
                        if tell.send(Event::Reply { conn, value }).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => break,
                }
            }
            input.drain(..pos);
        }
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}
