//! A node as another one knows it.

use super::id::NodeId;
use super::slots::SlotSet;

/// Bits of [`Node::flags`], as they stand in messages.
pub mod flag {
    /// It serves slots, or could.
    pub const PRIMARY: u16 = 1;
    /// It copies a primary.
    pub const REPLICA: u16 = 2;
    /// It does not answer us: it may have failed.
    pub const SUSPECTED: u16 = 4;
    /// It has failed, as most primaries say.
    pub const FAILED: u16 = 8;
    /// It is this node.
    pub const MYSELF: u16 = 16;
    /// Its name is not known yet.
    pub const HANDSHAKE: u16 = 32;
    /// Its address is not known.
    pub const NO_ADDRESS: u16 = 64;
    /// It is to be sent a MEET.
    pub const MEET: u16 = 128;
    /// Replicas of others may move to it when it has none.
    pub const MIGRATE_TO: u16 = 256;
    /// It is not to replace its primary by itself.
    pub const NO_FAILOVER: u16 = 512;

    /// The names in CLUSTER NODES, in its order.
    pub const NAMES: [(u16, &str); 8] = [
        (MYSELF, "myself"),
        (PRIMARY, "master"),
        (REPLICA, "slave"),
        (SUSPECTED, "fail?"),
        (FAILED, "fail"),
        (HANDSHAKE, "handshake"),
        (NO_ADDRESS, "noaddr"),
        (NO_FAILOVER, "nofailover"),
    ];
}

/// A place in the table of nodes. It stays as long as the node is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u16);

/// Numbers a connection of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A report that a node has failed.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The primary that says so.
    pub by: NodeIndex,
    /// When it said so last, in milliseconds.
    pub at: i64,
}

/// A node. Times are milliseconds of the machine's clock; 0 is never.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// When we came to know it.
    pub known_since: i64,
    /// See [`flag`].
    pub flags: u16,
    /// The epoch of its slots.
    pub config_epoch: u64,
    /// Its slots.
    pub slots: SlotSet,
    /// Its replicas, in the order in which we came to know of that.
    pub replicas: Vec<NodeIndex>,
    /// What it copies. A replica whose primary we do not know has none.
    pub primary: Option<NodeIndex>,
    /// What it copied before it became a primary.
    pub former: Option<NodeIndex>,
    /// When the PING was sent that it has not answered.
    pub ping_sent: i64,
    /// When it answered last, as far as we heard.
    pub pong_received: i64,
    /// When it answered us last, and nobody else.
    pub answered: i64,
    /// When anything came from it.
    pub data_received: i64,
    /// When it was found to have failed.
    pub fail_time: i64,
    /// When we voted for one of its replicas.
    pub voted_at: i64,
    /// Which of its replicas that was.
    pub voted_for: Option<NodeId>,
    /// Since when it has no replica that works.
    pub orphaned_since: i64,
    /// Where it is in the stream of replication, as it last said.
    pub offset: i64,
    /// Its address; empty when not known.
    pub ip: String,
    /// Its host name, as it announces it to clients; empty without one.
    pub hostname: String,
    /// The name by which it is looked up when it cannot be reached; empty without one.
    pub name: String,
    /// The port of its bus when it told its name: known even when its address is not.
    pub name_port: u16,
    /// How often it was looked up since it was reached last.
    pub lookups: u32,
    /// When it may be looked up next.
    pub lookup_due: i64,
    /// An answer is waited for.
    pub looking: bool,
    /// It is only asked for its name so far: that decides whether it is met.
    pub probed: bool,
    /// Its port for clients.
    pub port: u16,
    /// Its port for clients without TLS, when `port` is that for TLS.
    pub plain_port: u16,
    /// Its port of the bus.
    pub bus_port: u16,
    /// The connection that we opened.
    pub link: Option<LinkId>,
    /// The connection that it opened.
    pub inbound: Option<LinkId>,
    /// Who says that it has failed.
    pub reports: Vec<Report>,
    /// It understands extensions of messages.
    pub reads_extensions: bool,
    /// It may be told names.
    pub knows_names: bool,
    /// The last message of ours that told of it.
    pub told_in: u64,
}

impl Node {
    /// One of whom no more is known.
    pub fn new(id: NodeId, flags: u16, now: i64) -> Self {
        Self {
            id,
            known_since: now,
            flags,
            config_epoch: 0,
            slots: SlotSet::default(),
            replicas: Vec::new(),
            primary: None,
            former: None,
            ping_sent: 0,
            pong_received: 0,
            answered: 0,
            data_received: 0,
            fail_time: 0,
            voted_at: 0,
            voted_for: None,
            orphaned_since: 0,
            offset: 0,
            ip: String::new(),
            hostname: String::new(),
            name: String::new(),
            name_port: 0,
            lookups: 0,
            lookup_due: 0,
            looking: false,
            probed: false,
            port: 0,
            plain_port: 0,
            bus_port: 0,
            link: None,
            inbound: None,
            reports: Vec::new(),
            reads_extensions: false,
            knows_names: false,
            told_in: 0,
        }
    }

    /// True when any of these bits is set.
    pub fn is(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// It is a primary.
    pub fn is_primary(&self) -> bool {
        self.is(flag::PRIMARY)
    }

    /// It is a replica.
    pub fn is_replica(&self) -> bool {
        self.is(flag::REPLICA)
    }

    /// Most primaries say that it has failed.
    pub fn has_failed(&self) -> bool {
        self.is(flag::FAILED)
    }

    /// Sets or clears bits.
    pub fn set(&mut self, bits: u16, on: bool) {
        self.flags = if on {
            self.flags | bits
        } else {
            self.flags & !bits
        };
    }

    /// Takes over an address; true when it differs.
    pub fn take_address(&mut self, ip: &str, port: u16, plain_port: u16, bus_port: u16) -> bool {
        let same = self.ip == ip
            && (self.port, self.plain_port, self.bus_port) == (port, plain_port, bus_port);
        if !same {
            ip.clone_into(&mut self.ip);
            (self.port, self.plain_port, self.bus_port) = (port, plain_port, bus_port);
        }
        !same
    }

    /// Its address is not known any more.
    pub fn forget_address(&mut self) {
        self.flags |= flag::NO_ADDRESS;
        self.take_address("", 0, 0, 0);
    }
}
