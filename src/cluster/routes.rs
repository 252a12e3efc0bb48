//! What commands know of the cluster: who serves each slot, whether the cluster is up, and where the
//! other nodes are.
//!
//! The cluster's state machine owns the truth, and publishes here what follows from it for requests:
//! [`Routes::publish`] replaces everything, [`Routes::set_slot`] and [`Routes::set_state`] a part. Readers
//! never wait. There are two ways to read:
//!
//! - **two bits for each slot** ([`Routes::serves`], [`Routes::may_read`]): all that the short way of a
//!   command needs, one atomic load out of two kilobytes;
//! - **the whole picture** ([`Routes::view`]), consistent in itself, for whoever has to redirect, refuse
//!   or tell.
//!
//! # Changes and commands under way
//!
//! What was published is seen by every command that locks its shard later: commands look, lock their
//! shards, and look again. So who publishes that a slot is not served here (or not as it was, since it
//! now migrates) and then takes the slot's shard ([`shard_of`](crate::keyspace::shards::Keyspace::shard_of)
//! its keys' hashes) finds in it all that was done by those who came before, and nobody acts on the
//! former picture behind that. This needs no waiting. To look first and publish what follows from it (no
//! keys are left: the slot may be given away), publish under the shard's lock. What a command does beside
//! keys is settled for all commands by `Shared::pass_turns()`, to be called by no worker.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::base::crc;
use crate::config::choices::ClusterEndpointType;

/// Number of slots.
pub const SLOTS: usize = crc::SLOTS as usize;

/// A node, by its place in [`Published::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node(NonZeroU16);

impl Node {
    /// The node at a place; `None` beyond the 65,535 that there can be.
    pub fn at(index: usize) -> Option<Self> {
        let above = u16::try_from(index.checked_add(1)?).ok()?;
        NonZeroU16::new(above).map(Self)
    }

    /// Its place.
    pub fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// One slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Who serves it; `None`: nobody does.
    pub owner: Option<Node>,
    /// This node serves it and moves it to that one.
    pub migrating_to: Option<Node>,
    /// This node takes it over from that one.
    pub importing_from: Option<Node>,
}

/// Where clients find a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, 40 hexadecimal digits.
    pub id: String,
    /// Its address.
    pub ip: String,
    /// Its announced host name; empty: none.
    pub hostname: String,
    /// Its port for clients.
    pub port: u16,
    /// Its port for clients without TLS, where `port` is for TLS; else 0.
    pub plain_port: u16,
}

impl Endpoint {
    /// The port that a client is told, who speaks TLS or not.
    pub fn port_for(&self, tls: bool) -> u16 {
        match self.plain_port {
            plain @ 1.. if !tls => plain,
            _ => self.port,
        }
    }

    /// What redirections call it, by `cluster-preferred-endpoint-type`: nothing where clients are to use
    /// the address that they know.
    pub fn preferred(&self, by: ClusterEndpointType) -> &str {
        match by {
            ClusterEndpointType::Ip => &self.ip,
            ClusterEndpointType::Hostname if self.hostname.is_empty() => "?",
            ClusterEndpointType::Hostname => &self.hostname,
            ClusterEndpointType::UnknownEndpoint => "",
        }
    }
}

/// Whether the cluster serves requests, as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It does.
    Ok,
    /// It does not: slots are not covered, or this node is with the minority.
    #[default]
    Fail,
}

/// What is published of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The nodes that slots name, at the places by which they are named: those that own, take or give
    /// slots, this node, its primary. Further ones do no harm.
    pub nodes: Vec<Endpoint>,
    /// This node.
    pub myself: Option<Node>,
    /// The primary of this node, which is a replica.
    pub primary: Option<Node>,
    /// Up or down.
    pub state: State,
    /// All slots, in order; those beyond the end are not served by anybody.
    pub slots: Vec<Slot>,
}

impl Published {
    /// A slot.
    pub fn slot(&self, slot: u16) -> Slot {
        self.slots
            .get(usize::from(slot))
            .copied()
            .unwrap_or_default()
    }

    /// Where a node is.
    pub fn endpoint(&self, node: Node) -> Option<&Endpoint> {
        self.nodes.get(node.index())
    }

    /// True when this node owns the slot.
    pub fn is_mine(&self, slot: u16) -> bool {
        self.myself.is_some() && self.slot(slot).owner == self.myself
    }

    /// True when this node is a replica of the one that owns the slot.
    pub fn is_of_my_primary(&self, slot: u16) -> bool {
        self.primary.is_some() && self.slot(slot).owner == self.primary
    }

    /// True when keys of the slot belong here: it is served, or taken over.
    fn is_stable(&self, slot: Slot) -> bool {
        self.state == State::Ok && slot.migrating_to.is_none() && slot.importing_from.is_none()
    }

    /// [`Routes::serves`] and [`Routes::may_read`].
    fn bits(&self, slot: Slot) -> (bool, bool) {
        let stable = self.is_stable(slot);
        let by = |node: Option<Node>| stable && node.is_some() && slot.owner == node;
        (by(self.myself), by(self.primary))
    }
}

/// A bit for each slot.
struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(len: usize) -> Self {
        Self((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline(always)]
    fn has(&self, slot: u16) -> bool {
        let word = self.0.get(usize::from(slot) / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (slot % 64) & 1 != 0)
    }

    fn set(&self, slot: u16, on: bool) {
        let Some(word) = self.0.get(usize::from(slot) / 64) else {
            return;
        };
        let bit = 1 << (slot % 64);
        match on {
            true => word.fetch_or(bit, Ordering::Release),
            false => word.fetch_and(!bit, Ordering::Release),
        };
    }

    /// Replaces the bits of 64 slots at a time, so that none flickers.
    fn fill(&self, on: impl Fn(usize) -> bool) {
        for (at, word) in self.0.iter().enumerate() {
            let bits = (0..64).filter(|bit| on(at * 64 + bit));
            let bits = bits.fold(0, |all, bit| all | 1 << bit);
            word.store(bits, Ordering::Release);
        }
    }
}

/// See the module.
pub struct Routes {
    enabled: bool,
    view: ArcSwap<Published>,
    serves: Bits,
    may_read: Bits,
    version: AtomicU64,
    /// One at a time replaces what is published.
    publishing: Mutex<()>,
}

impl Routes {
    /// Of a node that knows nothing yet, so that no slot is served; without a cluster nobody asks.
    pub fn new(enabled: bool) -> Self {
        let len = if enabled { SLOTS } else { 0 };
        Self {
            enabled,
            view: ArcSwap::default(),
            serves: Bits::new(len),
            may_read: Bits::new(len),
            version: AtomicU64::new(0),
            publishing: Mutex::new(()),
        }
    }

    /// `cluster-enabled`. Never changes.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// True when requests for the slot's keys are this node's without any further question: it owns the
    /// slot, which neither comes nor goes, and the cluster is up.
    #[inline(always)]
    pub fn serves(&self, slot: u16) -> bool {
        self.serves.has(slot)
    }

    /// True when clients that said READONLY may read the slot's keys here, likewise: this node is a
    /// replica of its owner.
    #[inline(always)]
    pub fn may_read(&self, slot: u16) -> bool {
        self.may_read.has(slot)
    }

    /// The whole picture.
    pub fn view(&self) -> Arc<Published> {
        self.view.load_full()
    }

    /// Shows the whole picture to `look`, for less than [`Routes::view`] costs.
    pub fn with<T>(&self, look: impl FnOnce(&Published) -> T) -> T {
        look(&self.view.load())
    }

    /// A number that grows with every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Replaces everything. When this returns, all later looks see it. May be called under shards' locks.
    pub fn publish(&self, published: Published) {
        let _one = self.publishing.lock();
        self.replace(published);
    }

    /// Replaces one slot: of [`Published`], all else stays. It copies the picture, some hundred kilobytes;
    /// who changes many slots publishes them together.
    pub fn set_slot(&self, slot: u16, to: Slot) {
        let _one = self.publishing.lock();
        let mut published = Published::clone(&self.view.load());
        let at = usize::from(slot);
        if at >= SLOTS {
            return;
        }
        if published.slots.len() <= at {
            published.slots.resize(SLOTS, Slot::default());
        }
        published.slots[at] = to;
        let (serves, may_read) = published.bits(to);
        self.view.store(Arc::new(published));
        self.serves.set(slot, serves);
        self.may_read.set(slot, may_read);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Says whether the cluster is up.
    pub fn set_state(&self, state: State) {
        let _one = self.publishing.lock();
        let mut published = Published::clone(&self.view.load());
        published.state = state;
        self.replace(published);
    }

    fn replace(&self, published: Published) {
        let published = Arc::new(published);
        self.view.store(Arc::clone(&published));
        let bits = |at: usize| {
            let slot = published.slots.get(at).copied().unwrap_or_default();
            published.bits(slot)
        };
        self.serves.fill(|at| bits(at).0);
        self.may_read.fill(|at| bits(at).1);
        self.version.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: usize) -> Option<Node> {
        Node::at(index)
    }

    fn two_nodes() -> Published {
        let mut slots = vec![Slot::default(); SLOTS];
        slots[..100].fill(Slot {
            owner: node(0),
            ..Slot::default()
        });
        slots[100..].fill(Slot {
            owner: node(1),
            ..Slot::default()
        });
        slots[7].migrating_to = node(1);
        slots[107].importing_from = node(1);
        Published {
            nodes: vec![Endpoint::default(); 2],
            myself: node(0),
            state: State::Ok,
            slots,
            ..Published::default()
        }
    }

    #[test]
    fn bits_say_what_the_picture_says() {
        let routes = Routes::new(true);
        let check = |told: &str| {
            let view = routes.view();
            for slot in 0..crc::SLOTS {
                let (serves, may_read) = view.bits(view.slot(slot));
                assert_eq!(routes.serves(slot), serves, "{told}: {slot}");
                assert_eq!(routes.may_read(slot), may_read, "{told}: {slot}");
            }
        };
        assert!(!routes.serves(0) && !routes.may_read(0));
        check("nothing is known");
        routes.publish(two_nodes());
        check("a primary");
        assert!(routes.serves(0) && routes.serves(99) && !routes.serves(100));
        assert!(!routes.serves(7) && routes.view().is_mine(7));
        assert!(!routes.serves(107) && !routes.may_read(100));
        routes.set_slot(
            7,
            Slot {
                owner: node(1),
                ..Slot::default()
            },
        );
        check("one slot left");
        assert!(!routes.view().is_mine(7) && routes.serves(8));
        routes.set_state(State::Fail);
        check("down");
        assert!((0..crc::SLOTS).all(|slot| !routes.serves(slot)));
        let version = routes.version();
        routes.publish(Published {
            myself: node(0),
            primary: node(1),
            ..two_nodes()
        });
        check("a replica");
        assert!(routes.may_read(200) && !routes.serves(200) && !routes.may_read(107));
        assert!(routes.version() > version);
    }

    #[test]
    fn without_a_cluster_nothing_is_served_and_nothing_breaks() {
        let routes = Routes::new(false);
        routes.publish(two_nodes());
        routes.set_slot(u16::MAX, Slot::default());
        routes.set_slot(3, Slot::default());
        assert!(!routes.serves(3) && !routes.may_read(u16::MAX) && !routes.is_enabled());
    }

    #[test]
    fn nodes_are_named_as_the_parameter_says() {
        let with_name = Endpoint {
            ip: "127.0.0.1".into(),
            hostname: "a.example".into(),
            ..Endpoint::default()
        };
        let without = Endpoint {
            ip: "::1".into(),
            ..Endpoint::default()
        };
        use ClusterEndpointType::{Hostname, Ip, UnknownEndpoint};
        assert_eq!(with_name.preferred(Ip), "127.0.0.1");
        assert_eq!(with_name.preferred(Hostname), "a.example");
        assert_eq!(without.preferred(Hostname), "?");
        assert_eq!(without.preferred(UnknownEndpoint), "");
    }

    #[test]
    fn places_of_nodes_are_bounded() {
        assert_eq!(Node::at(0).map(Node::index), Some(0));
        assert_eq!(Node::at(65534).map(Node::index), Some(65534));
        assert!(Node::at(65535).is_none() && Node::at(usize::MAX).is_none());
        assert_eq!(size_of::<Slot>(), 6);
    }
}
