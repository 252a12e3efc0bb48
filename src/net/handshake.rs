//! Clients' TLS handshakes, on a thread of their own, before there is a connection.
//!
//! The thread goes on with each handshake when its client has said something, and waits for none of them; a storm of
//! them takes processor time of workers but none of their turns. Their number and their time are bounded. When they
//! are as many as there may be, a newcomer gets the place of the oldest one whose client has had its time and is silent:
//! so nobody is kept out by those who connect and say nothing, and who is served slowly loses nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_rustls::{Accept, TlsAcceptor};

use super::listener::{self, Peer};
use super::worker::Link;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::wire::Stream;

/// Most handshakes at a time, and less where clients may be no more. One holds its socket and some ten kilobytes, and
/// 64 more when its client sends half of a long message.
const AT_ONCE: usize = 1024;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take before it can lose its place.
const GRACE: Duration = Duration::from_secs(1);
/// How often a newcomer asks whether anybody can lose his place by now.
const LOOK: Duration = Duration::from_millis(20);
/// The first byte of a record that belongs to a handshake.
const HANDSHAKE: u8 = 22;

/// A client that has connected.
struct Newcomer {
    socket: std::net::TcpStream,
    theirs: SocketAddr,
    ours: SocketAddr,
    /// Its place among those of the moment.
    _place: Place,
}

/// Places of handshakes.
#[derive(Default)]
struct Places {
    taken: AtomicUsize,
    /// One was given back.
    freed: Notify,
    /// Newcomers that find none.
    waiting: AtomicUsize,
    /// One of these asks for the place of somebody else.
    wanted: Notify,
}

/// A place, given back at its end.
struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

/// One more that waits, until its end; a listener that is closed takes its newcomer with it.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Places {
    /// Waits for one; `None` if clients are as many as there may be.
    async fn take(self: &Arc<Self>, shared: &Shared) -> Option<Place> {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let most = shared.config.settings().maxclients as usize;
            let left = most.saturating_sub(shared.clients.len());
            if left == 0 {
                return None;
            }
            let one_more = |taken| (taken < left.min(AT_ONCE)).then_some(taken + 1);
            if self.taken.fetch_update(Relaxed, Relaxed, one_more).is_ok() {
                return Some(Place(Arc::clone(self)));
            }
            self.wanted.notify_one();
            // Also if none is given back, somebody may be silent for long enough by now.
            let _ = tokio::time::timeout(LOOK, self.freed.notified()).await;
        }
    }

    /// Waits until the place of a handshake that was begun at that time is wanted, and may be lost.
    async fn called_for(&self, begun: Instant) {
        tokio::time::sleep_until(begun + GRACE).await;
        loop {
            self.wanted.notified().await;
            // Who wanted one may have another by now.
            if self.waiting.load(Relaxed) > 0 {
                return;
            }
        }
    }

    /// Goes on with a step of a handshake until it is done, or its place is lost, which only a silent client loses.
    async fn hold<S, T>(
        &self,
        begun: Instant,
        mut step: S,
        is_silent: impl Fn(&S) -> bool,
    ) -> io::Result<T>
    where
        S: Future<Output = io::Result<T>> + Unpin,
    {
        loop {
            tokio::select! {
                biased;
                done = &mut step => return done,
                () = self.called_for(begun) => {
                    if is_silent(&step) {
                        return Err(io::Error::other("it was silent, and others wait"));
                    }
                }
            }
        }
    }
}

/// True if a client has said nothing that is not read.
fn is_silent(socket: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(socket, &mut [0], flags).err() == Some(Errno::WOULDBLOCK)
}

/// The way to the thread.
pub struct Handshakes {
    newcomers: UnboundedSender<Newcomer>,
    places: Arc<Places>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads or files.
    pub fn start(shared: &Arc<Shared>, workers: &Arc<[Arc<Link>]>) -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Each one in it has a place, so it is bounded.
        let (newcomers, queue) = unbounded_channel();
        let places = Arc::new(Places::default());
        let of_thread = Arc::clone(&places);
        let (shared, workers) = (Arc::clone(shared), Arc::clone(workers));
        std::thread::Builder::new()
            .name("handshakes".to_owned())
            .spawn(move || runtime.block_on(serve(queue, of_thread, shared, workers)))?;
        Ok(Arc::new(Self { newcomers, places }))
    }

    /// Begins with an accepted socket, as soon as there is a place for it; false if it is refused, as clients are as
    /// many as there may be.
    pub async fn begin(
        &self,
        shared: &Shared,
        socket: std::net::TcpStream,
        theirs: SocketAddr,
    ) -> bool {
        let Some(place) = self.places.take(shared).await else {
            return false;
        };
        let newcomer = Newcomer {
            ours: socket.local_addr().unwrap_or(theirs),
            socket,
            theirs,
            _place: place,
        };
        // The thread lives as long as the process.
        self.newcomers.send(newcomer).is_ok()
    }
}

async fn serve(
    mut queue: UnboundedReceiver<Newcomer>,
    places: Arc<Places>,
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
) {
    while let Some(newcomer) = queue.recv().await {
        let (shared, workers) = (Arc::clone(&shared), Arc::clone(&workers));
        let places = Arc::clone(&places);
        tokio::spawn(async move {
            let (theirs, ours) = (newcomer.theirs, newcomer.ours);
            match shake(&shared, &places, newcomer).await {
                Ok(stream) => listener::admit(&shared, &workers, stream, Peer::Tcp(theirs, ours)),
                Err(error) => {
                    let refused = &shared.stats.global.rejected_connections;
                    refused.fetch_add(1, Relaxed);
                    tracing::warn!(
                        "Error accepting a client connection: {} (addr={} laddr={})",
                        reason(&error),
                        listener::text(theirs),
                        listener::text(ours)
                    );
                }
            }
        });
    }
}

async fn shake(shared: &Shared, places: &Places, newcomer: Newcomer) -> io::Result<Stream> {
    let context = shared.tls.load();
    let context = context.ok_or_else(|| io::Error::other("TLS is not configured"))?;
    newcomer.socket.set_nonblocking(true)?;
    newcomer.socket.set_nodelay(true)?;
    let (socket, begun) = (TcpStream::from_std(newcomer.socket)?, Instant::now());
    let shaken = async {
        // Whoever does not begin as TLS does is told nothing in it: he could only misunderstand.
        let mut first = [0];
        let peeked = Box::pin(socket.peek(&mut first));
        match places.hold(begun, peeked, |_| is_silent(&socket)).await? {
            1 if first[0] != HANDSHAKE => Err(io::Error::other("not a TLS handshake")),
            _ => {
                let accept = TlsAcceptor::from(Arc::clone(&context.server)).accept(socket);
                let is_silent = |accept: &Accept<_>| accept.get_ref().is_none_or(is_silent);
                places.hold(begun, accept, is_silent).await
            }
        }
    };
    let shaken = tokio::time::timeout(PATIENCE, shaken).await;
    let (socket, connection) = shaken.map_err(|_| io::ErrorKind::TimedOut)??.into_inner();
    Stream::accepted(socket.into_std()?.into(), connection)
}

/// Why a handshake failed, in words.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::UnexpectedEof => "Connection closed during the handshake".to_owned(),
        _ => strerror(error),
    }
}
