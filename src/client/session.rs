//! The state of one connection that only its worker touches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::identity::Identity;
use super::registry::Handle;
use super::tracking::Tracking;
use crate::acl::User;

/// What a subscription costs its client, in bytes: its place in the set.
const SUBSCRIPTION: usize = 2 * size_of::<Arc<[u8]>>();

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
    /// The database that is selected when EXEC has run them, if they select any.
    pub db: Option<usize>,
    /// Number of all arguments.
    pub arguments: usize,
    /// Bytes of all arguments.
    pub argument_bytes: usize,
}

impl Multi {
    /// Adds a request.
    pub fn push(&mut self, request: Queued) {
        self.arguments += request.args.len();
        self.argument_bytes += request.args.iter().map(Vec::len).sum::<usize>();
        self.queue.push(request);
    }

    /// Bytes of the arguments as Redis counts them, each with a pointer to it.
    fn shown_memory(&self) -> usize {
        self.argument_bytes + self.arguments * size_of::<usize>()
    }

    /// Memory of the queue, in bytes.
    pub fn memory(&self) -> usize {
        self.argument_bytes
            + self.arguments * size_of::<Vec<u8>>()
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

/// What a replica says of itself before it asks for the stream (REPLCONF).
#[derive(Debug, Default)]
pub struct ReplicaOptions {
    /// The port on which it listens; 0 when it does not say.
    pub listening_port: i64,
    /// Where it is to be reached, when it says.
    pub address: Option<Box<[u8]>>,
    /// It can tell the end of a dump by a mark (`capa eof`).
    pub eof: bool,
    /// It understands that the replication id changes (`capa psync2`).
    pub psync2: bool,
    /// It wants a dump and no stream.
    pub rdb_only: bool,
    /// It wants no keys in the dump.
    pub without_data: bool,
    /// It wants no functions in the dump.
    pub without_functions: bool,
}

impl ReplicaOptions {
    /// It wants less than everything.
    pub fn is_filtered(&self) -> bool {
        self.without_data || self.without_functions
    }
}

/// How a connection leaves its worker: how a replica asks for the stream, or an owner of slots to move them here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncRequest {
    /// CLUSTER SYNCSLOTS IMPORT.
    Slots {
        /// Their owner.
        source: Vec<u8>,
        /// What the migration is called.
        name: Vec<u8>,
        /// The ranges of slots, both ends included.
        ranges: Vec<(u16, u16)>,
    },
    /// SYNC: from a dump on, without any answer before it.
    Sync,
    /// PSYNC: from an offset, counted from 1, of the stream of this id on, if possible.
    Psync {
        /// The id.
        id: Vec<u8>,
        /// The first byte that it does not have.
        offset: i64,
        /// FAILOVER: when this order of [`Upstream`](crate::propagation::Upstream) is carried out.
        order: Option<u64>,
    },
}

impl SyncRequest {
    /// The order that is to be carried out first.
    pub fn order(&self) -> Option<u64> {
        match self {
            Self::Sync | Self::Slots { .. } => None,
            Self::Psync { order, .. } => *order,
        }
    }
}

/// One connection's state.
pub struct Session {
    /// The shared side.
    pub handle: Arc<Handle>,
    /// Selected database.
    pub db: usize,
    /// Who it is, and what it may do.
    pub identity: Identity,
    /// MULTI.
    pub multi: Option<Multi>,
    /// Watched keys: (database, key).
    pub watched: Vec<(usize, Box<[u8]>)>,
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
    /// REPLCONF.
    pub replica: Option<Box<ReplicaOptions>>,
    /// SYNC or PSYNC: the connection leaves its worker.
    pub sync: Option<SyncRequest>,
    /// Where the stream ends that holds what this client wrote.
    pub written: u64,
    /// A reply that waits tells of data: it may leave once the append-only file holds that.
    pub tells: bool,
    /// ASKING: what comes next is for a slot that this node takes over.
    pub asking: bool,
    /// READONLY: reads may be answered by a replica.
    pub reads_replica: bool,
    /// It is a script that the client runs.
    pub is_script: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// CLIENT TRACKING: which copies of keys the client keeps.
    pub tracking: Option<Box<Tracking>>,
    /// Close the connection once the output is written.
    pub close_after_reply: bool,
    /// Close the connection at once.
    pub close_now: bool,
}

impl Session {
    /// A fresh session of the default user, or of nobody who could be refused anything.
    pub fn new(handle: Arc<Handle>, user: Option<Arc<User>>) -> Self {
        handle.user.write().clone_from(&user);
        Self {
            handle,
            db: 0,
            identity: Identity::new(user),
            multi: None,
            watched: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            replies: Replies::On,
            monitor: false,
            replica: None,
            sync: None,
            written: 0,
            tells: false,
            asking: false,
            reads_replica: false,
            is_script: false,
            no_evict: false,
            no_touch: false,
            tracking: None,
            close_after_reply: false,
            close_now: false,
        }
    }

    /// In no state that decides about its commands: answered, without MULTI or subscriptions.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.multi.is_none() && self.replies == Replies::On && !self.is_subscriber()
    }

    /// Is of this user from now on.
    pub fn become_user(&mut self, user: Arc<User>, authenticated: bool) {
        *self.handle.user.write() = Some(Arc::clone(&user));
        self.identity = Identity::new(Some(user));
        self.identity.authenticated |= authenticated;
        self.identity.is_looked_after = self.tracking.is_some();
    }

    /// Serves no further request.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.close_after_reply || self.close_now || self.handle.is_killed()
    }

    /// Connected from this machine: by the Unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        let address = &self.handle.address;
        self.is_unix() || address.starts_with("127.") || address.starts_with("[::1]")
    }

    /// Connected by the Unix socket.
    pub fn is_unix(&self) -> bool {
        self.handle.live.flags.load(Relaxed) & super::registry::flag::UNIX_SOCKET != 0
    }

    /// Connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.handle.is_tls()
    }

    /// Shows the other threads what this side knows: flags, database, subscriptions, MULTI.
    pub fn publish(&self) {
        use super::registry::flag;
        let live = &self.handle.live;
        let bits = [
            (self.multi.is_some(), flag::MULTI),
            (self.monitor, flag::MONITOR),
            (self.is_subscriber(), flag::PUBSUB),
            (self.close_after_reply, flag::CLOSE_AFTER_REPLY),
            (self.close_now, flag::CLOSE_ASAP),
            (self.no_evict, flag::NO_EVICT),
            (self.reads_replica, flag::READONLY),
            (self.no_touch, flag::NO_TOUCH),
            (self.handle.watch_flag.load(Relaxed), flag::DIRTY_CAS),
        ];
        let set = bits.iter().filter(|(on, _)| *on);
        let set = set.fold(0, |flags, (_, bit)| flags | bit);
        let own = bits.iter().fold(0, |flags, (_, bit)| flags | bit);
        let old = live.flags.load(Relaxed);
        // Others set flags of this client too.
        if old & own != set {
            live.flags.fetch_and(!own | set, Relaxed);
            live.flags.fetch_or(set, Relaxed);
        }
        live.db.store(self.db as u32, Relaxed);
        live.channels.store(self.channels.len() as u32, Relaxed);
        live.patterns.store(self.patterns.len() as u32, Relaxed);
        live.shard_channels
            .store(self.shard_channels.len() as u32, Relaxed);
        let multi = self.multi.as_ref();
        live.multi
            .store(multi.map_or(-1, |m| m.queue.len() as i32), Relaxed);
        live.multi_memory
            .store(multi.map_or(0, Multi::shown_memory), Relaxed);
    }

    /// Memory that MULTI, WATCH and subscriptions cost, in bytes. Names of channels are shared
    /// with all subscribers and so not counted.
    pub fn memory(&self) -> usize {
        let subscriptions = self.channels.len() + self.patterns.len() + self.shard_channels.len();
        let multi = self.multi.as_ref().map_or(0, Multi::memory);
        multi
            + self
                .tracking
                .as_ref()
                .map_or(0, |tracking| tracking.memory())
            + self.watched.capacity() * size_of::<(usize, Box<[u8]>)>()
            + subscriptions * SUBSCRIPTION
    }

    /// The client as MONITOR shows it.
    pub fn monitor_address(&self) -> &str {
        match self.is_script {
            true => "lua",
            false => &self.handle.address,
        }
    }

    /// Subscribed to anything.
    #[inline]
    pub fn is_subscriber(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty() || !self.shard_channels.is_empty()
    }
}
