//! Publish and subscribe: who listens to which channel, and the messages they get.
//!
//! Subscriptions are shared by all workers: channels and shard channels by name, patterns in one
//! list that each message is matched against. A message is encoded at most once for each protocol
//! and handed to its receivers' mailboxes; nothing here waits for a receiver. No shard lock is
//! ever taken under the locks in here.

mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::RwLock;

use crate::base::glob;
use crate::client::registry::Handle;
use message::Encoded;
pub use message::{Kind, confirmation};

/// The name of a channel.
pub type Name = Arc<[u8]>;
/// Who is subscribed to it.
pub type Subscribers = Vec<Arc<Handle>>;

/// All subscriptions.
#[derive(Default)]
pub struct Hub {
    channels: DashMap<Name, Subscribers>,
    shard_channels: DashMap<Name, Subscribers>,
    patterns: RwLock<Vec<(Name, Subscribers)>>,
    pattern_count: AtomicUsize,
}

/// What delivers to the client that publishes: its own output, so that it sees the message
/// before the reply, as when everything ran on one thread.
pub trait Sender {
    /// Id of the client that runs the command.
    fn id(&self) -> u64;
    /// Appends a message to its output.
    fn deliver(&mut self, message: &Bytes);
}

/// A sender for what no client publishes.
pub struct Nobody;

impl Sender for Nobody {
    fn id(&self) -> u64 {
        0
    }
    fn deliver(&mut self, _: &Bytes) {}
}

fn add(map: &DashMap<Name, Subscribers>, name: &Name, client: &Arc<Handle>) {
    let mut subscribers = map.entry(Arc::clone(name)).or_default();
    subscribers.push(Arc::clone(client));
}

fn remove(map: &DashMap<Name, Subscribers>, name: &[u8], client: u64) {
    if let Some(mut subscribers) = map.get_mut(name) {
        subscribers.retain(|c| c.id != client);
    }
    map.remove_if(name, |_, subscribers| subscribers.is_empty());
}

/// Sends to one subscriber; false when CLIENT KILL has ended it already.
fn send(message: &mut Encoded<'_>, to: &Handle, from: &mut dyn Sender) -> bool {
    if to.is_killed() {
        return false;
    }
    let protocol = to.live.protocol.load(Relaxed);
    let bytes = message.bytes(protocol);
    if to.id == from.id() {
        from.deliver(&bytes);
    } else {
        to.send(bytes);
    }
    true
}

/// The subscribers that CLIENT KILL has not ended.
fn alive(subscribers: &Subscribers) -> usize {
    subscribers.iter().filter(|c| !c.is_killed()).count()
}

impl Hub {
    /// Subscribes a client, which is not subscribed yet, to a channel.
    pub fn subscribe(&self, kind: Kind, name: &Name, client: &Arc<Handle>) {
        match kind {
            Kind::Channel => add(&self.channels, name, client),
            Kind::Shard => add(&self.shard_channels, name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                match patterns.iter_mut().find(|(pattern, _)| pattern == name) {
                    Some((_, subscribers)) => subscribers.push(Arc::clone(client)),
                    None => patterns.push((Arc::clone(name), vec![Arc::clone(client)])),
                }
                self.pattern_count.store(patterns.len(), Relaxed);
            }
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], client: u64) {
        match kind {
            Kind::Channel => remove(&self.channels, name, client),
            Kind::Shard => remove(&self.shard_channels, name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                for (pattern, subscribers) in patterns.iter_mut() {
                    if **pattern == *name {
                        subscribers.retain(|c| c.id != client);
                    }
                }
                patterns.retain(|(_, subscribers)| !subscribers.is_empty());
                self.pattern_count.store(patterns.len(), Relaxed);
            }
        }
    }

    /// Takes out the shard channels that `wanted` names, with their subscribers.
    pub fn take_shard_channels(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Name, Subscribers)> {
        let mut taken = Vec::new();
        self.shard_channels.retain(|name, subscribers| {
            let leaves = wanted(name);
            if leaves {
                taken.push((Arc::clone(name), std::mem::take(subscribers)));
            }
            !leaves
        });
        taken
    }

    /// Sends a message to the subscribers of a channel and of matching patterns; returns their
    /// number.
    pub fn publish(&self, channel: &[u8], payload: &[u8], from: &mut dyn Sender) -> usize {
        let mut receivers = 0;
        if let Some(subscribers) = self.channels.get(channel) {
            let mut message = Encoded::new(Kind::Channel, None, channel, payload);
            for client in subscribers.iter() {
                receivers += usize::from(send(&mut message, client, from));
            }
        }
        if self.pattern_count.load(Relaxed) > 0 {
            for (pattern, subscribers) in self.patterns.read().iter() {
                if !glob::matches(pattern, channel, false) {
                    continue;
                }
                let mut message = Encoded::new(Kind::Pattern, Some(pattern), channel, payload);
                for client in subscribers {
                    receivers += usize::from(send(&mut message, client, from));
                }
            }
        }
        receivers
    }

    /// How many would receive a message now: subscribers of the channel and of matching patterns.
    pub fn receivers(&self, channel: &[u8]) -> usize {
        let mut receivers = self.subscribers(Kind::Channel, channel);
        if self.pattern_count.load(Relaxed) > 0 {
            let patterns = self.patterns.read();
            let matching = patterns
                .iter()
                .filter(|(pattern, _)| glob::matches(pattern, channel, false));
            receivers += matching.map(|(_, s)| alive(s)).sum::<usize>();
        }
        receivers
    }

    /// Sends a message to the subscribers of a shard channel; returns their number.
    pub fn publish_shard(&self, channel: &[u8], payload: &[u8], from: &mut dyn Sender) -> usize {
        let Some(subscribers) = self.shard_channels.get(channel) else {
            return 0;
        };
        let mut message = Encoded::new(Kind::Shard, None, channel, payload);
        let sent = subscribers
            .iter()
            .filter(|client| send(&mut message, client, from));
        sent.count()
    }

    /// Names with subscribers, those that match `pattern` if one is given.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        let wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches(p, name, false));
        let of = |map: &DashMap<Name, Subscribers>| -> Vec<Name> {
            let names = map.iter().map(|e| Arc::clone(e.key()));
            names.filter(|name| wanted(name)).collect()
        };
        match kind {
            Kind::Channel => of(&self.channels),
            Kind::Shard => of(&self.shard_channels),
            Kind::Pattern => {
                let patterns = self.patterns.read();
                let names = patterns.iter().map(|(name, _)| Arc::clone(name));
                names.filter(|name| wanted(name)).collect()
            }
        }
    }

    /// Shows each subscription. Nothing may be subscribed meanwhile by who is shown them.
    pub fn each(&self, mut show: impl FnMut(Kind, &[u8], &Arc<Handle>)) {
        for (kind, map) in [
            (Kind::Channel, &self.channels),
            (Kind::Shard, &self.shard_channels),
        ] {
            for entry in map {
                let clients = entry.value().iter();
                clients.for_each(|client| show(kind, entry.key(), client));
            }
        }
        for (pattern, clients) in self.patterns.read().iter() {
            clients
                .iter()
                .for_each(|client| show(Kind::Pattern, pattern, client));
        }
    }

    /// Number of subscribers of a name.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        match kind {
            Kind::Channel => self.channels.get(name).map_or(0, |s| alive(&s)),
            Kind::Shard => self.shard_channels.get(name).map_or(0, |s| alive(&s)),
            Kind::Pattern => {
                let patterns = self.patterns.read();
                let found = patterns.iter().find(|(pattern, _)| **pattern == *name);
                found.map_or(0, |(_, s)| alive(s))
            }
        }
    }

    /// Number of channels, shard channels or patterns with subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel => self.channels.len(),
            Kind::Shard => self.shard_channels.len(),
            Kind::Pattern => self.pattern_count.load(Relaxed),
        }
    }
}
