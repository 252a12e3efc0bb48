//! The state machine of a node: what it is told ([`Event`], orders, time), and what is to be done about it
//! ([`Action`]), in this order.
//!
//! Whoever drives it owns the sockets, the file and the data. The machine does no I/O, reads no clock and
//! takes its randomness from a generator of its own, so that a seed repeats all it does.
//!
//! Persist before promise: what a step changed is in [`Action::Save`], at the front of what it has done.
//! A message that promises something (a vote; slots or an epoch of our own) names the save that has to be
//! on the disk before it leaves; others do not wait for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::conf;
use super::id::NodeId;
use super::meter::Meter;
use super::node::{LinkId, Node, NodeIndex, flag};
use super::slots::SlotSet;
use super::view::View;
use super::wire::Kind;
use crate::config::Settings;

/// What is true beside the machine, as of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Milliseconds of a clock that never jumps, and once agreed with Unix time.
    pub now: i64,
    /// Where this server is in the stream of replication.
    pub offset: i64,
    /// For how many milliseconds its primary has been silent.
    pub silence_ms: i64,
    /// It has copied its primary, that which it was told of last.
    pub copies: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The node's file is to hold this; saves are numbered.
    Save {
        /// Its number.
        number: u64,
        /// What nodes.conf is to hold.
        text: Arc<str>,
        /// It is to be on the disk, so that it outlives the machine; else it need only outlive the process.
        durable: bool,
    },
    /// A connection is to be opened.
    Connect {
        /// What it is called from now on.
        link: LinkId,
        /// Where to.
        ip: String,
        /// The port of the bus.
        port: u16,
    },
    /// A name is to be looked up, however long that takes; the answer is an event.
    LookUp {
        /// Whose.
        id: NodeId,
        /// The name.
        name: String,
    },
    /// A connection is to be closed, without telling the machine.
    Close(LinkId),
    /// A message is to be sent.
    Send {
        /// On which connection.
        link: LinkId,
        /// The message.
        bytes: Arc<[u8]>,
        /// The save that has to be on the disk before.
        after: u64,
    },
    /// This server is to copy this primary.
    Follow {
        /// Its address; empty while that is somebody else's, and nobody is to be copied.
        ip: String,
        /// Its port for clients.
        port: u16,
    },
    /// This server is to be a primary.
    Lead,
    /// Clients' writes are to wait until then, in milliseconds of the machine's clock.
    Pause {
        /// The latest end.
        until: i64,
    },
    /// Clients' writes need not wait any more.
    Resume,
    /// The shard no longer has these slots: those subscribed to their channels are told so.
    Leave(SlotSet),
    /// This primary no longer has these slots: their keys are to be deleted.
    DeleteKeys(SlotSet),
    /// All data is to be dropped.
    Empty,
    /// A message for subscribers.
    Deliver {
        /// The channel.
        channel: Vec<u8>,
        /// What was published.
        message: Vec<u8>,
        /// Of a shard channel.
        shard: bool,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection that the machine asked for is there.
    Connected {
        /// Which.
        link: LinkId,
        /// The address of our end.
        local: &'a str,
    },
    /// A connection could not be opened, or has ended.
    Closed(LinkId),
    /// A whole message came.
    Message {
        /// On which connection.
        link: LinkId,
        /// The message.
        bytes: &'a [u8],
    },
    /// A name was looked up.
    LookedUp {
        /// Whose.
        id: NodeId,
        /// The addresses that it has; none when that was not to be found out.
        addresses: &'a [String],
    },
    /// The name by which this server is found was found out; empty when it has none.
    Named(&'a str),
}

/// A connection of the bus.
#[derive(Clone, Debug)]
pub struct Link {
    /// With whom; `None` until the other side has said who it is.
    pub node: Option<NodeIndex>,
    /// The other side opened it.
    pub inbound: bool,
    /// Since when there is one.
    pub since: i64,
    /// It can be written to.
    pub connected: bool,
    /// The other end's address.
    pub peer: String,
    /// Our end's address.
    pub local: String,
    /// The other end may be told names.
    pub knows_names: bool,
    /// What the machine and the driver tell each other of it.
    pub meter: Arc<Meter>,
}

/// A replica's attempt to replace its primary.
#[derive(Clone, Debug, Default)]
pub(super) struct Election {
    /// When votes are asked for, or were.
    pub at: i64,
    /// Who voted for us.
    pub votes: BTreeSet<NodeIndex>,
    /// Votes were asked for.
    pub asked: bool,
    /// How many replicas have more than we have.
    pub rank: i64,
    /// The epoch in which we want to be elected.
    pub epoch: u64,
    /// Somebody else stood in the same epoch.
    pub collided: bool,
}

/// A manual failover: of a replica that asked for it, or of a primary that was asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Manual {
    /// When it is given up; 0 when there is none.
    pub end: i64,
    /// On a primary: the replica.
    pub replica: Option<NodeIndex>,
    /// On a primary: clients wait, so that its offset stays what it is.
    pub stopped: bool,
    /// On a replica: where its primary stopped.
    pub primary_offset: Option<i64>,
    /// On a replica: votes may be asked for.
    pub may_start: bool,
}

/// A primary that came back without its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reborn {
    /// When it started.
    pub since: i64,
    /// When it said last that it has failed.
    pub resigned: i64,
}

/// Slots that were imported, and who of the shard that they came from has not shown that it knows.
pub(super) type Imported = BTreeMap<u16, BTreeSet<NodeIndex>>;

/// Of a pod that has no place in a cluster yet: how far it is in looking for the others.
#[derive(Debug, Default)]
pub(super) struct Forming {
    /// When they are looked for next.
    pub due: i64,
    /// How often they were.
    pub looks: u32,
    /// An answer is waited for.
    pub looking: bool,
    /// An answer has come.
    pub answered: bool,
    /// Addresses at which there was nobody that we know, since that was last so of none.
    pub strangers: Vec<String>,
    /// When the last of them was new.
    pub strange_since: i64,
    /// Why this node is nothing in a cluster yet, as it was logged last.
    pub told: Option<Unformed>,
}

/// Why a node that is to form a cluster has no place in one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unformed {
    /// Its own name is not known, or not that of a pod.
    NoPod,
    /// The Service's name leads nowhere.
    NoAnswer,
    /// At an address of the Service there is somebody who does not answer.
    Strangers,
    /// A founder is not there.
    Founders,
    /// Slots are not served yet, or by nobody who answers.
    Slots,
}

/// Why a replica does not replace its failed primary, as far as that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hindrance {
    #[default]
    None,
    DataAge,
    Delay,
    Expired,
    Votes,
}

/// What is to be looked at before a step ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Todo {
    /// The file is to be written.
    pub save: bool,
    /// What is saved is a promise of our own.
    pub promise: bool,
    /// What is saved has to be on the disk.
    pub durable: bool,
    /// Clients could be told something else; and whether the cluster works.
    pub state: bool,
    /// Whether the cluster works.
    pub look: bool,
    /// The failover.
    pub failover: bool,
    /// The manual failover.
    pub manual: bool,
}

/// Counts of messages by kind.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Sent.
    pub sent: [u64; Kind::ALL.len()],
    /// Received.
    pub received: [u64; Kind::ALL.len()],
    /// Connections closed because too much waited on them.
    pub overflows: u64,
}

/// A node of the cluster.
pub struct Machine {
    pub(super) view: View,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) next_link: u64,
    pub(super) settings: Arc<Settings>,
    pub(super) facts: Facts,
    pub(super) random: SmallRng,
    pub(super) todo: Todo,
    actions: Vec<Action>,
    saves: u64,
    /// The save that holds what we last promised of ourselves.
    promised: u64,
    pub(super) fails: bool,
    /// When the cluster's state was looked at first.
    pub(super) first_look: i64,
    /// When we were last among the minority.
    pub(super) minority_at: i64,
    pub(super) election: Election,
    pub(super) manual: Manual,
    /// This primary has lost the data set that its replicas have.
    pub(super) reborn: Option<Reborn>,
    pub(super) imported: Imported,
    pub(super) hindrance: Hindrance,
    pub(super) hindrance_logged: i64,
    pub(super) forgotten: BTreeMap<NodeId, i64>,
    /// What others are still to be told of forgotten nodes, and until when.
    pub(super) forgetting: BTreeMap<NodeId, i64>,
    /// Whom this server was told to copy.
    followed: Option<(String, u16)>,
    /// The name by which this server is found, as far as nothing else is announced.
    pub(super) own_name: String,
    pub(super) forming: Forming,
    /// Our own address was seen since the start.
    pub(super) knows_address: bool,
    pub(super) traffic: Traffic,
    pub(super) pings: u64,
    pub(super) ticks: u64,
    pub(super) last_tick: i64,
    /// Since when this process runs without having stood still: who has not answered since is not reached.
    pub(super) awake_since: i64,
    version: u64,
    /// DEBUG: messages of this kind are dropped.
    pub drop_kind: Option<u16>,
}

impl Machine {
    /// A node that nobody knows, or what it was according to its file.
    ///
    /// What it does first, to be carried out by the driver, is in the answer.
    pub fn new(
        settings: Arc<Settings>,
        loaded: Option<View>,
        seed: u64,
        facts: Facts,
    ) -> (Self, Vec<Action>) {
        let mut random = SmallRng::seed_from_u64(seed);
        let is_new = loaded.is_none();
        let view = loaded.unwrap_or_else(|| {
            let id = NodeId::random(&mut random);
            View::new(Node::new(id, flag::MYSELF | flag::PRIMARY, facts.now))
        });
        let own_name = view.me().name.clone();
        let mut machine = Self {
            view,
            links: BTreeMap::new(),
            next_link: 0,
            settings,
            facts,
            random,
            todo: Todo::default(),
            actions: Vec::new(),
            saves: 0,
            promised: 0,
            fails: true,
            first_look: 0,
            minority_at: 0,
            election: Election::default(),
            manual: Manual::default(),
            reborn: None,
            imported: Imported::new(),
            hindrance: Hindrance::None,
            hindrance_logged: 0,
            forgotten: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            followed: None,
            own_name,
            forming: Forming::default(),
            knows_address: false,
            traffic: Traffic::default(),
            pings: 0,
            ticks: 0,
            last_tick: 0,
            awake_since: facts.now,
            version: 1,
            drop_kind: None,
        };
        machine.show_settings();
        machine.todo = Todo {
            save: is_new,
            durable: is_new,
            ..Todo::default()
        };
        let actions = machine.finish();
        (machine, actions)
    }

    /// What is known of the cluster.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The connections.
    pub fn links(&self) -> &BTreeMap<LinkId, Link> {
        &self.links
    }

    /// The cluster cannot serve, as far as this node knows.
    pub fn fails(&self) -> bool {
        self.fails
    }

    /// Messages so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Changes whenever clients could be told something else of the cluster.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Where this server was in the stream of replication at the last step.
    pub fn offset(&self) -> i64 {
        self.facts.offset
    }

    /// Milliseconds of the machine's clock at the last step.
    pub fn now(&self) -> i64 {
        self.facts.now
    }

    /// Somebody has connected: what the connection is called.
    pub fn accept(&mut self, peer: String, local: String, facts: Facts) -> LinkId {
        self.facts = facts;
        let link = self.new_link();
        let opened = Link {
            node: None,
            inbound: true,
            since: facts.now,
            connected: true,
            peer,
            local,
            knows_names: false,
            meter: Arc::default(),
        };
        self.links.insert(link, opened);
        link
    }

    pub(super) fn new_link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    /// Says what is to be done about an event.
    pub fn step(&mut self, event: Event<'_>, facts: Facts) -> Vec<Action> {
        self.facts = facts;
        match event {
            Event::Connected { link, local } => self.connected(link, local),
            Event::Closed(link) => self.closed(link),
            Event::Message { link, bytes } => self.receive(link, bytes),
            Event::LookedUp { id, addresses } => self.looked_up(id, addresses),
            Event::Named(name) => {
                name.clone_into(&mut self.own_name);
                self.show_settings();
            }
        }
        self.finish()
    }

    /// Says what is to be done as time goes by. To be called ten times a second.
    pub fn tick(&mut self, facts: Facts) -> Vec<Action> {
        self.facts = facts;
        self.pass_time();
        self.finish()
    }

    /// Runs an order of a client within a step.
    pub(super) fn within<R>(
        &mut self,
        facts: Facts,
        work: impl FnOnce(&mut Self) -> R,
    ) -> (R, Vec<Action>) {
        self.facts = facts;
        let result = work(self);
        (result, self.finish())
    }

    /// Takes over changed parameters.
    pub fn set_settings(&mut self, settings: Arc<Settings>, facts: Facts) -> Vec<Action> {
        self.facts = facts;
        let before = std::mem::replace(&mut self.settings, settings);
        if before.cluster_announce_ip != self.settings.cluster_announce_ip
            && self.settings.cluster_announce_ip.is_empty()
        {
            // To be found out anew.
            self.view.me_mut().ip.clear();
        }
        self.show_settings();
        self.finish()
    }

    /// This node's own entry follows the parameters.
    fn show_settings(&mut self) {
        let settings = Arc::clone(&self.settings);
        let (port, plain_port, bus_port) = announced_ports(&settings);
        let hostname = settings.cluster_announce_hostname.to_str().into_owned();
        let me = self.view.me_mut();
        let before = (
            me.flags,
            me.ip.clone(),
            me.hostname.clone(),
            me.port,
            me.bus_port,
        );
        me.set(flag::NO_FAILOVER, settings.cluster_replica_no_failover);
        (me.port, me.plain_port, me.bus_port) = (port, plain_port, bus_port);
        let name = match hostname.is_empty() {
            true => &self.own_name,
            false => &hostname,
        };
        // Clients are not told of it.
        self.todo.save |= me.name != *name || me.name_port != bus_port;
        name.clone_into(&mut me.name);
        me.name_port = bus_port;
        me.hostname = hostname;
        if !settings.cluster_announce_ip.is_empty() {
            me.ip = settings.cluster_announce_ip.to_str().into_owned();
        }
        let after = (
            me.flags,
            me.ip.clone(),
            me.hostname.clone(),
            me.port,
            me.bus_port,
        );
        if before != after {
            self.todo.save = true;
            self.todo.state = true;
        }
        if before.0 != after.0 {
            // A primary that is about to end asks only replicas that may take over.
            self.broadcast_pong(|_, _| true);
        }
    }

    /// Does what the step has left to be looked at, and gives what is to be done.
    pub(super) fn finish(&mut self) -> Vec<Action> {
        if std::mem::take(&mut self.todo.manual) {
            if self.view.me().is_replica() {
                self.manual_failover();
                self.failover();
            }
        } else if std::mem::take(&mut self.todo.failover) {
            self.failover();
        }
        let changed = std::mem::take(&mut self.todo.state);
        if std::mem::take(&mut self.todo.look) || changed {
            self.update_state();
        }
        self.version += u64::from(changed);
        self.follow_primary();
        let left = std::mem::take(&mut self.view.left);
        if !left.is_empty() {
            self.actions.push(Action::Leave(left));
        }
        let mut actions = std::mem::take(&mut self.actions);
        let todo = std::mem::take(&mut self.todo);
        if todo.save {
            self.version += 1;
            self.saves += 1;
            if todo.promise {
                self.promised = self.saves;
            }
            let save = Action::Save {
                number: self.saves,
                text: conf::write(&self.view).into(),
                durable: todo.durable,
            };
            actions.insert(0, save);
        }
        for action in &mut actions {
            if let Action::Send { after, .. } = action {
                // Of this step's own save, or of what was promised before.
                *after = match *after {
                    0 => self.promised,
                    _ => self.saves,
                };
            }
        }
        self.todo.failover = todo.failover;
        self.todo.manual = todo.manual;
        actions
    }

    /// Goes on with a failover at once: for who sees that [`Machine::is_in_a_hurry`].
    pub fn tick_failover(&mut self, facts: Facts) -> Vec<Action> {
        self.facts = facts;
        self.finish()
    }

    /// Whether the cluster works has changed.
    pub(super) fn changed_state(&mut self) {
        self.version += 1;
    }

    /// True when a failover goes on as soon as possible and not with the next tick.
    pub fn is_in_a_hurry(&self) -> bool {
        self.todo.failover || self.todo.manual
    }

    /// Has the server copy its primary where that is now, whoever told us.
    fn follow_primary(&mut self) {
        let me = self.view.me();
        if me.is_primary() {
            if self.followed.take().is_some() {
                self.actions.push(Action::Lead);
            }
            return;
        }
        let Some(primary) = me.primary.map(|index| self.view.node(index)) else {
            return;
        };
        if primary.is(flag::NO_ADDRESS) || primary.ip.is_empty() {
            // Whoever answers where it was is somebody else, whose data is not to be copied: better nobody's.
            let nowhere = (String::new(), 0);
            if self.followed.as_ref() != Some(&nowhere) {
                let (ip, port) = nowhere.clone();
                self.followed = Some(nowhere);
                self.act(Action::Follow { ip, port });
            }
            return;
        }
        let port = match self.settings.tls_cluster && !self.settings.tls_replication {
            true if primary.plain_port != 0 => primary.plain_port,
            _ => primary.port,
        };
        let place = (primary.ip.clone(), port);
        if self.followed.as_ref() != Some(&place) {
            let (ip, port) = place.clone();
            self.followed = Some(place);
            self.actions.push(Action::Follow { ip, port });
        }
    }

    /// Where the primary is that this server was told to copy.
    pub fn followed(&self) -> Option<&(String, u16)> {
        self.followed.as_ref()
    }

    /// Adds something to be done.
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// What was saved is a promise of this node: nothing may tell it before it is on the disk.
    pub(super) fn promise(&mut self) {
        self.todo.save = true;
        self.todo.promise = true;
        self.todo.durable = true;
    }

    /// The node timeout, in milliseconds.
    pub(super) fn timeout(&self) -> i64 {
        self.settings.cluster_node_timeout
    }
}

/// The ports that others are told: for clients, for clients without TLS where the first is for TLS, and
/// of the bus.
pub fn announced_ports(settings: &Settings) -> (u16, u16, u16) {
    let tls = settings.tls_cluster;
    let own = if tls {
        settings.tls_port
    } else {
        settings.port
    };
    let mut port = own;
    let mut plain_port = if tls { settings.port } else { 0 };
    if tls && settings.cluster_announce_tls_port != 0 {
        port = settings.cluster_announce_tls_port;
        plain_port = settings.cluster_announce_port;
    } else if settings.cluster_announce_port != 0 {
        port = settings.cluster_announce_port;
    }
    let bus_port = match settings.cluster_announce_bus_port {
        0 => bus_port(settings),
        announced => announced,
    };
    (port, plain_port, bus_port)
}

/// The port of the bus that is listened on.
pub fn bus_port(settings: &Settings) -> u16 {
    match settings.cluster_port {
        0 if settings.tls_cluster => settings.tls_port.saturating_add(10_000),
        0 => settings.port.saturating_add(10_000),
        port => port,
    }
}
