//! The state of one connection that only its worker touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::registry::Handle;

/// A request that MULTI keeps for EXEC: its arguments in one buffer.
#[derive(Debug)]
pub struct Queued {
    /// Index of the command in the table.
    pub command: usize,
    /// The arguments.
    pub args: Vec<Vec<u8>>,
}

/// A transaction being built.
#[derive(Debug, Default)]
pub struct Multi {
    /// Requests so far.
    pub queue: Vec<Queued>,
    /// A request was refused: EXEC will abort.
    pub refused: bool,
    /// Bytes of all arguments.
    pub argument_bytes: usize,
}

impl Multi {
    /// Memory of the queue, in bytes.
    pub fn memory(&self) -> usize {
        let args: usize = self.queue.iter().map(|q| q.args.capacity()).sum();
        self.argument_bytes
            + args * size_of::<Vec<u8>>()
            + self.queue.capacity() * size_of::<Queued>()
    }
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// Sent.
    #[default]
    On,
    /// Suppressed until switched on.
    Off,
    /// Suppressed for the next command (the one after CLIENT REPLY SKIP).
    SkipNext,
    /// Suppressed for the command that runs now.
    Skip,
}

/// One connection's state.
pub struct Session {
    /// The shared side.
    pub handle: Arc<Handle>,
    /// Selected database.
    pub db: usize,
    /// May run commands that need authentication.
    pub authenticated: bool,
    /// MULTI.
    pub multi: Option<Multi>,
    /// Watched keys: (database, key).
    pub watched: Vec<(usize, Box<[u8]>)>,
    /// Some watched key had expired already when WATCH met it: (index into `watched`).
    pub watched_expired: Vec<usize>,
    /// Channels subscribed to.
    pub channels: BTreeSet<Arc<[u8]>>,
    /// Patterns subscribed to.
    pub patterns: BTreeSet<Arc<[u8]>>,
    /// Shard channels subscribed to.
    pub shard_channels: BTreeSet<Arc<[u8]>>,
    /// CLIENT REPLY.
    pub replies: Replies,
    /// MONITOR.
    pub monitor: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Close the connection once the output is written.
    pub close_after_reply: bool,
    /// Close the connection at once.
    pub close_now: bool,
}

impl Session {
    /// A fresh session.
    pub fn new(handle: Arc<Handle>, authenticated: bool) -> Self {
        Self {
            handle,
            db: 0,
            authenticated,
            multi: None,
            watched: Vec::new(),
            watched_expired: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            replies: Replies::On,
            monitor: false,
            no_evict: false,
            no_touch: false,
            close_after_reply: false,
            close_now: false,
        }
    }

    /// Connected from this machine: by the Unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        let address = &self.handle.address;
        self.is_unix() || address.starts_with("127.") || address.starts_with("[::1]")
    }

    /// Connected by the Unix socket.
    pub fn is_unix(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        self.handle.live.flags.load(Relaxed) & super::registry::flag::UNIX_SOCKET != 0
    }

    /// The client as MONITOR shows it.
    pub fn monitor_address(&self) -> &str {
        &self.handle.address
    }

    /// Subscribed to anything.
    pub fn is_subscriber(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty() || !self.shard_channels.is_empty()
    }
}
