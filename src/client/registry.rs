//! Every client of the process, as the other threads see it.
//!
//! A [`Handle`] holds what is fixed for a connection, what its worker publishes about it (plain
//! atomics, written at most once a turn), and how to reach it. The worker alone owns the
//! [`super::session::Session`].

use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

use super::mailbox::{Bell, Mailbox};
use crate::acl::User;
use crate::base::meter::{Meter, Pool};
use crate::resp::write::Protocol;

/// What kind of client this is, for `client-output-buffer-limit` and CLIENT KILL TYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A normal client, MONITOR included.
    Normal,
    /// A replica.
    Replica,
    /// A subscriber.
    PubSub,
    /// Our link to our primary.
    Primary,
}

/// Bits of [`Live::flags`].
pub mod flag {
    /// Within MULTI.
    pub const MULTI: u32 = 1 << 0;
    /// In MONITOR.
    pub const MONITOR: u32 = 1 << 1;
    /// Subscribed to something.
    pub const PUBSUB: u32 = 1 << 2;
    /// To be closed when its output is written.
    pub const CLOSE_AFTER_REPLY: u32 = 1 << 3;
    /// To be closed at once.
    pub const CLOSE_ASAP: u32 = 1 << 4;
    /// Connected by the Unix socket.
    pub const UNIX_SOCKET: u32 = 1 << 5;
    /// A watched key changed.
    pub const DIRTY_CAS: u32 = 1 << 6;
    /// CLIENT NO-EVICT.
    pub const NO_EVICT: u32 = 1 << 7;
    /// CLIENT NO-TOUCH.
    pub const NO_TOUCH: u32 = 1 << 8;
    /// Waiting in a blocking command or for the end of CLIENT PAUSE.
    pub const BLOCKED: u32 = 1 << 9;
    /// READONLY in cluster mode.
    pub const READONLY: u32 = 1 << 10;
    /// A replica of ours.
    pub const REPLICA: u32 = 1 << 11;
    /// Our connection to our primary.
    pub const PRIMARY: u32 = 1 << 12;
    /// CLIENT TRACKING.
    pub const TRACKING: u32 = 1 << 13;
    /// Of keys with some prefixes.
    pub const TRACKING_BCAST: u32 = 1 << 14;
    /// Who was to hear of changes in its place is gone.
    pub const TRACKING_BROKEN: u32 = 1 << 15;
    /// What it changes itself it is not told of.
    pub const TRACKING_NOLOOP: u32 = 1 << 16;
    /// Connected over TLS.
    pub const TLS: u32 = 1 << 17;
    /// All that CLIENT TRACKING sets, and others than the client's worker may change.
    pub const OF_TRACKING: u32 = TRACKING | TRACKING_BCAST | TRACKING_BROKEN | TRACKING_NOLOOP;
}

/// What a worker publishes about a client of its own.
#[derive(Default)]
pub struct Live {
    /// Bits of [`flag`].
    pub flags: AtomicU32,
    /// Selected database.
    pub db: AtomicU32,
    /// The client that is told of changes in its place (CLIENT TRACKING REDIRECT); 0: itself.
    pub redirect: AtomicU64,
    /// Unix time in milliseconds of the last request.
    pub last_ms: AtomicI64,
    /// Id of the last command plus 1; 0 before the first, and after one that there is not.
    last_command: AtomicU32,
    /// Number of channels, patterns and shard channels subscribed to.
    pub channels: AtomicU32,
    /// See `channels`.
    pub patterns: AtomicU32,
    /// See `channels`.
    pub shard_channels: AtomicU32,
    /// Commands queued in MULTI; -1 outside.
    pub multi: AtomicI32,
    /// Bytes in the query buffer.
    pub query_len: AtomicUsize,
    /// Spare bytes of the query buffer.
    pub query_free: AtomicUsize,
    /// Bytes held by arguments of an incomplete request.
    pub argv_memory: AtomicUsize,
    /// Bytes held by queued commands.
    pub multi_memory: AtomicUsize,
    /// Size of the reply buffer, and how much of it was used at most lately; in bytes.
    pub reply_size: AtomicUsize,
    /// See `reply_size`.
    pub reply_peak: AtomicUsize,
    /// Bytes of the reply buffer that are in use.
    pub reply_len: AtomicUsize,
    /// Bytes of output that wait.
    pub output_len: AtomicUsize,
    /// Number of blocks that wait beyond the reply buffer, as Redis counts them.
    pub output_chunks: AtomicUsize,
    /// Bytes of those blocks.
    pub output_memory: AtomicUsize,
    /// Requests served.
    pub commands: AtomicU64,
    /// 2 or 3.
    pub protocol: AtomicU32,
    /// The hard limit of `client-output-buffer-limit` for what the client is now, in bytes; 0:
    /// none.
    pub output_limit: AtomicUsize,
}

impl Live {
    /// The client asked for the command of this id, or for one that there is not.
    #[inline]
    pub fn set_last_command(&self, id: Option<usize>) {
        let id = id.map_or(0, |id| id as u32 + 1);
        self.last_command.store(id, Relaxed);
    }

    /// Bytes that wait beyond the reply buffer when so many more are on their way to it.
    fn beyond_with(&self, mail: usize) -> usize {
        match self.output_memory.load(Relaxed) {
            0 => {
                let (size, used) = (self.reply_size.load(Relaxed), self.reply_len.load(Relaxed));
                mail.saturating_sub(size.saturating_sub(used))
            }
            beyond => beyond + mail,
        }
    }
}

/// Name and version of a client library; empty when not told.
pub type Library = (Box<[u8]>, Box<[u8]>);

/// One client, shared between threads.
pub struct Handle {
    /// Unique, ascending.
    pub id: u64,
    /// Address of the peer, or the path of the Unix socket with `:0`.
    pub address: String,
    /// Our side's address.
    pub local_address: String,
    /// File descriptor, for CLIENT LIST.
    pub fd: i32,
    /// Unix time in milliseconds of the connection.
    pub created_ms: i64,
    /// CLIENT SETNAME.
    pub name: RwLock<Box<[u8]>>,
    /// Its user; `None` of a primary, which may do everything.
    pub user: RwLock<Option<Arc<User>>>,
    /// CLIENT SETINFO LIB-NAME and LIB-VER.
    pub library: RwLock<Library>,
    /// Raised when a watched key changes.
    pub watch_flag: Arc<AtomicBool>,
    /// What the worker publishes.
    pub live: Live,
    /// Bytes from other threads.
    pub mailbox: Mailbox,
    /// All memory of the client. Its worker counts it.
    pub memory: Arc<Meter>,
    killed: AtomicBool,
    /// Ends the connection of a client that no worker has.
    hang_up: OnceLock<Box<dyn Fn() + Send + Sync>>,
    overflowed: AtomicBool,
    /// Shard channels that left, of which the client has not heard yet.
    left: Mutex<Vec<Arc<[u8]>>>,
    has_left: AtomicBool,
    bell: Mutex<Arc<Bell>>,
}

impl Handle {
    /// Connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.live.flags.load(Relaxed) & flag::TLS != 0
    }

    /// Sends encoded bytes; the worker that owns the client is told. A client that already has
    /// more waiting than `client-output-buffer-limit` allows gets nothing more: its worker closes
    /// it.
    pub fn send(&self, message: Bytes) {
        if self.overflowed.load(Relaxed) {
            return;
        }
        let waiting = self.live.beyond_with(self.mailbox.push(message));
        let limit = self.live.output_limit.load(Relaxed);
        if limit > 0 && waiting >= limit {
            self.overflowed.store(true, Relaxed);
        }
        self.ring();
    }

    /// True when more was sent to the client than `client-output-buffer-limit` allows.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed.load(Relaxed)
    }

    /// Messages to the client are encoded for `protocol` from now on.
    pub fn set_protocol(&self, protocol: Protocol) {
        let version = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.live.protocol.store(version, Relaxed);
    }

    /// A shard channel that the client is subscribed to has left this server: its worker ends the
    /// subscription. As many wait as it has subscriptions, at most.
    pub fn leave_channel(&self, channel: &Arc<[u8]>) {
        self.left.lock().push(Arc::clone(channel));
        self.has_left.store(true, Release);
        self.ring();
    }

    /// True when [`Handle::take_left_channels`] has some.
    #[inline]
    pub fn has_left_channels(&self) -> bool {
        self.has_left.load(Acquire)
    }

    /// The shard channels that left since they were last taken.
    pub fn take_left_channels(&self) -> Vec<Arc<[u8]>> {
        let mut left = self.left.lock();
        self.has_left.store(false, Release);
        std::mem::take(&mut *left)
    }

    /// Asks the client's worker to look at it.
    pub fn ring(&self) {
        let bell = Arc::clone(&self.bell.lock());
        bell.call(self.id);
    }

    /// Hands the client to another worker.
    pub fn set_bell(&self, bell: Arc<Bell>) {
        *self.bell.lock() = bell;
    }

    /// Has the client closed: by its worker, or at once where threads of its own have it.
    pub fn kill(&self) {
        self.killed.store(true, SeqCst);
        if let Some(hang_up) = self.hang_up.get() {
            hang_up();
        }
        self.ring();
    }

    /// How the connection ends from now on, which no worker has any more. Once in its life.
    pub fn set_hang_up(&self, hang_up: impl Fn() + Send + Sync + 'static) {
        let is_first = self.hang_up.set(Box::new(hang_up)).is_ok();
        debug_assert!(is_first, "a connection leaves its worker once");
        // Either this sees it killed, or who kills it sees how.
        if self.killed.load(SeqCst)
            && let Some(hang_up) = self.hang_up.get()
        {
            hang_up();
        }
    }

    /// True once [`Handle::kill`] was called.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// The client as CLIENT LIST shows it. `command` names a command by its id. The names that
    /// clients choose are ASCII, so nothing is lost in the text.
    pub fn describe(&self, now_ms: i64, command: &dyn Fn(u32) -> String) -> String {
        let live = &self.live;
        let flags = live.flags.load(Relaxed);
        let name = String::from_utf8_lossy(&self.name.read()).into_owned();
        let library = self.library.read();
        let waits = live.output_len.load(Relaxed) > 0;
        let last = live.last_command.load(Relaxed);
        let command = if last == 0 {
            "NULL".to_owned()
        } else {
            command(last - 1)
        };
        format!(
            "id={} addr={} laddr={} fd={} name={name} age={} idle={} flags={} db={} sub={} \
             psub={} ssub={} multi={} qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} \
             obl={} oll={} omem={} tot-mem={} events={} cmd={command} user={} redir={} resp={} \
             lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local_address,
            self.fd,
            (now_ms - self.created_ms) / 1000,
            (now_ms - live.last_ms.load(Relaxed)).max(0) / 1000,
            flag_letters(flags),
            live.db.load(Relaxed),
            live.channels.load(Relaxed),
            live.patterns.load(Relaxed),
            live.shard_channels.load(Relaxed),
            live.multi.load(Relaxed),
            live.query_len.load(Relaxed),
            live.query_free.load(Relaxed),
            live.argv_memory.load(Relaxed),
            live.multi_memory.load(Relaxed),
            live.reply_size.load(Relaxed),
            live.reply_peak.load(Relaxed),
            live.reply_len.load(Relaxed),
            live.output_chunks.load(Relaxed),
            live.beyond_with(self.mailbox.len()),
            self.memory.held(),
            if waits { "rw" } else { "r" },
            self.user_name(),
            match flags & flag::TRACKING {
                0 => -1,
                _ => live.redirect.load(Relaxed) as i64,
            },
            live.protocol.load(Relaxed),
            String::from_utf8_lossy(&library.0),
            String::from_utf8_lossy(&library.1),
        )
    }

    /// The name of its user.
    fn user_name(&self) -> String {
        match &*self.user.read() {
            Some(user) => String::from_utf8_lossy(user.name()).into_owned(),
            None => "(superuser)".to_owned(),
        }
    }

    /// True when it is of this user.
    pub fn is_of(&self, user: &Arc<User>) -> bool {
        let own = self.user.read();
        own.as_ref().is_some_and(|own| Arc::ptr_eq(own, user))
    }

    /// What kind of client this is.
    pub fn class(&self) -> Class {
        let flags = self.live.flags.load(Relaxed);
        if flags & flag::PRIMARY != 0 {
            Class::Primary
        } else if flags & flag::REPLICA != 0 {
            Class::Replica
        } else if flags & flag::PUBSUB != 0 {
            Class::PubSub
        } else {
            Class::Normal
        }
    }
}

/// The flags of CLIENT LIST; `N` for none.
fn flag_letters(flags: u32) -> String {
    const LETTERS: [(u32, char); 15] = [
        (flag::REPLICA, 'S'),
        (flag::PRIMARY, 'M'),
        (flag::MONITOR, 'O'),
        (flag::PUBSUB, 'P'),
        (flag::MULTI, 'x'),
        (flag::BLOCKED, 'b'),
        (flag::TRACKING, 't'),
        (flag::TRACKING_BROKEN, 'R'),
        (flag::TRACKING_BCAST, 'B'),
        (flag::DIRTY_CAS, 'd'),
        (flag::CLOSE_AFTER_REPLY, 'c'),
        (flag::CLOSE_ASAP, 'A'),
        (flag::UNIX_SOCKET, 'U'),
        (flag::READONLY, 'r'),
        (flag::NO_EVICT, 'e'),
    ];
    let set = LETTERS.iter().filter(|(bit, _)| flags & bit != 0);
    let mut letters: String = set.map(|(_, letter)| letter).collect();
    if flags & flag::NO_TOUCH != 0 {
        letters.push('T');
    }
    if letters.is_empty() {
        "N".to_owned()
    } else {
        letters
    }
}

/// All clients.
#[derive(Default)]
pub struct Registry {
    clients: DashMap<u64, Arc<Handle>>,
    /// The memory of all clients, but for those of CLIENT NO-EVICT.
    pub memory: Arc<Pool>,
    last_id: AtomicU64,
}

/// What a new connection is registered with.
pub struct Arrival {
    /// See [`Handle::address`].
    pub address: String,
    /// See [`Handle::local_address`].
    pub local_address: String,
    /// See [`Handle::fd`].
    pub fd: i32,
    /// Unix time in milliseconds.
    pub now_ms: i64,
    /// The owning worker's bell.
    pub bell: Arc<Bell>,
}

impl Registry {
    /// Registers a client under a new id.
    pub fn add(&self, arrival: Arrival) -> Arc<Handle> {
        let handle = Arc::new(Handle {
            id: self.last_id.fetch_add(1, Relaxed) + 1,
            address: arrival.address,
            local_address: arrival.local_address,
            fd: arrival.fd,
            created_ms: arrival.now_ms,
            name: RwLock::default(),
            user: RwLock::default(),
            library: RwLock::default(),
            watch_flag: Arc::default(),
            live: Live::default(),
            mailbox: Mailbox::default(),
            memory: Arc::new(Meter::new(&self.memory)),
            killed: AtomicBool::new(false),
            hang_up: OnceLock::new(),
            overflowed: AtomicBool::new(false),
            left: Mutex::default(),
            has_left: AtomicBool::new(false),
            bell: Mutex::new(arrival.bell),
        });
        handle.live.last_ms.store(arrival.now_ms, Relaxed);
        handle.live.multi.store(-1, Relaxed);
        handle.live.protocol.store(2, Relaxed);
        self.clients.insert(handle.id, Arc::clone(&handle));
        handle
    }

    /// Forgets a client.
    pub fn remove(&self, id: u64) {
        self.clients.remove(&id);
    }

    /// The client of an id.
    pub fn get(&self, id: u64) -> Option<Arc<Handle>> {
        self.clients.get(&id).map(|c| Arc::clone(&c))
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// True without clients.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// All clients, oldest first.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = self.clients.iter().map(|c| Arc::clone(&c)).collect();
        all.sort_unstable_by_key(|c| c.id);
        all
    }
}
