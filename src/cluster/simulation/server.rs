//! A node of a simulated cluster: the real machine, with a disk, a clock and an offset of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::conf;
use super::super::id::NodeId;
use super::super::machine::{Action, Event, Facts, Machine};
use super::super::node::LinkId;
use super::super::orders::Order;
use super::super::wire::Kind;
use crate::config::Settings;

/// What the network is asked to do for a node.
#[derive(Debug)]
pub enum Wish {
    Connect { link: LinkId, ip: String },
    LookUp { id: NodeId, name: String },
    Close(LinkId),
    Send { link: LinkId, bytes: Arc<[u8]> },
}

/// A write of the file that is on its way to the disk.
struct Write {
    number: u64,
    text: Arc<str>,
    due: i64,
}

pub struct Server {
    /// Where it is, until it is somewhere else; empty while it is nowhere.
    pub ip: String,
    /// By which it is looked up; empty when it does not know.
    pub name: String,
    /// Its id, which it keeps.
    pub id: Option<NodeId>,
    pub machine: Option<Machine>,
    /// What the file holds.
    pub disk: Option<Arc<str>>,
    writes: VecDeque<Write>,
    saved: u64,
    held: Vec<(u64, LinkId, Arc<[u8]>)>,
    /// What its clock is off by.
    pub skew: i64,
    /// It does nothing until then.
    pub stopped_until: i64,
    /// How long a write of the file takes, in milliseconds.
    pub disk_delay: i64,
    /// Where it is in the stream.
    pub offset: i64,
    /// Its keys, by slot.
    pub keys: BTreeMap<u16, BTreeSet<u32>>,
    /// When it last heard of its primary; `None` since it has started if it never did.
    pub heard: Option<i64>,
    /// The address that it copies.
    pub follows: Option<String>,
    /// It has copied whom it follows.
    pub copies: bool,
    /// The address that it copied last, once it leads.
    pub copied: Option<String>,
    /// Whom it copied last, wherever that is by now.
    pub source: Option<usize>,
    /// Clients' writes wait until then.
    pub paused_until: i64,
    /// It has sent this vote: epoch and for whom.
    pub votes: Vec<(u64, NodeId)>,
    /// The epoch of its last vote against a primary that it did not hold failed.
    pub against_healthy: u64,
    settings: Arc<Settings>,
}

impl Server {
    pub fn new(number: usize, settings: Arc<Settings>) -> Self {
        Self {
            ip: format!("10.0.{}.{}", number / 250, number % 250 + 1),
            name: String::new(),
            id: None,
            machine: None,
            disk: None,
            writes: VecDeque::new(),
            saved: 0,
            held: Vec::new(),
            skew: 0,
            stopped_until: 0,
            disk_delay: 1,
            offset: 0,
            keys: BTreeMap::new(),
            heard: None,
            follows: None,
            copied: None,
            copies: false,
            source: None,
            paused_until: 0,
            votes: Vec::new(),
            against_healthy: 0,
            settings,
        }
    }

    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub fn runs(&self, now: i64) -> bool {
        self.is_up() && self.stopped_until <= now
    }

    pub fn facts(&self, now: i64) -> Facts {
        Facts {
            now: now + self.skew,
            offset: self.offset,
            copies: self.copies,
            // As the bus says it: one that was never connected has been down for ever.
            silence_ms: self.heard.map_or(i64::MAX / 4, |heard| now - heard),
        }
    }

    pub fn start(&mut self, seed: u64, now: i64) -> Vec<Wish> {
        let facts = self.facts(now);
        let loaded = self.disk.as_ref().map(|text| {
            conf::read(text.as_bytes(), facts.now).expect("what was written can be read")
        });
        self.heard = None;
        let (mut machine, mut actions) =
            Machine::new(Arc::clone(&self.settings), loaded, seed, facts);
        if self.keys.is_empty() && self.offset == 0 {
            actions.extend(machine.order(Order::StartEmpty, facts).1);
        }
        self.id = Some(machine.view().me().id);
        self.machine = Some(machine);
        let mut wishes = self.carry_out(actions, now);
        if !self.name.is_empty() {
            let facts = self.facts(now);
            let machine = self.machine.as_mut().expect("it has just started");
            let actions = machine.step(Event::Named(&self.name), facts);
            wishes.extend(self.carry_out(actions, now));
        }
        wishes
    }

    /// The process ends: of what was being written, some is on the disk.
    pub fn crash(&mut self, written: usize) {
        for write in self.writes.drain(..).take(written) {
            self.disk = Some(write.text);
        }
        self.writes.clear();
        self.held.clear();
        self.saved = 0;
        self.machine = None;
        self.follows = None;
        self.copies = false;
        self.paused_until = 0;
    }

    /// A key is not here any more.
    pub fn drop_key(&mut self, slot: u16, key: u32) {
        if let Some(keys) = self.keys.get_mut(&slot) {
            keys.remove(&key);
        }
    }

    /// Carries out what can be done here, and says what the network has to do.
    pub fn carry_out(&mut self, actions: Vec<Action>, now: i64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for action in actions {
            self.note_vote(&action);
            match action {
                Action::Save { number, text, .. } => self.writes.push_back(Write {
                    number,
                    text,
                    due: now + self.disk_delay,
                }),
                Action::Connect { link, ip, .. } => wishes.push(Wish::Connect { link, ip }),
                Action::LookUp { id, name } => wishes.push(Wish::LookUp { id, name }),
                Action::Close(link) => wishes.push(Wish::Close(link)),
                Action::Send { link, bytes, after } if after > self.saved => {
                    self.held.push((after, link, bytes));
                }
                Action::Send { link, bytes, .. } => wishes.push(Wish::Send { link, bytes }),
                Action::Follow { ip, .. } => {
                    self.follows = Some(ip);
                    self.copies = false;
                }
                Action::Lead => self.copied = self.follows.take(),
                Action::Pause { until } => {
                    self.paused_until = until - self.skew;
                    let facts = self.facts(now);
                    let machine = self.machine.as_mut().expect("it acts");
                    let more = machine.has_paused(facts);
                    wishes.extend(self.carry_out(more, now));
                }
                Action::Resume => self.paused_until = 0,
                Action::Empty => {
                    self.offset = 0;
                    self.keys.clear();
                }
                Action::DeleteKeys(slots) => self.keys.retain(|slot, _| !slots.has(*slot)),
                Action::Leave(_) | Action::Deliver { .. } => {}
            }
        }
        wishes
    }

    /// Remembers a vote that is decided now, if it is against a primary that has not failed.
    fn note_vote(&mut self, action: &Action) {
        let Action::Send { link, bytes, .. } = action else {
            return;
        };
        if bytes[12..14] != (Kind::AuthAck as u16).to_be_bytes() {
            return;
        }
        let view = self.machine.as_ref().expect("it votes").view();
        let mut nodes = view.iter();
        let candidate = nodes.find(|(_, node)| node.link == Some(*link));
        let primary = candidate.and_then(|(_, node)| node.primary);
        if primary.is_some_and(|primary| !view.node(primary).has_failed()) {
            self.against_healthy = view.last_vote_epoch;
        }
    }

    /// Ends the writes that are due, and lets go what waited for them.
    pub fn write(&mut self, now: i64) -> Vec<Wish> {
        while self.writes.front().is_some_and(|write| write.due <= now) {
            let write = self.writes.pop_front().expect("it was there");
            self.saved = write.number;
            self.disk = Some(write.text);
        }
        let mut wishes = Vec::new();
        let saved = self.saved;
        self.held.retain(|(after, link, bytes)| {
            let stays = *after > saved;
            if !stays {
                wishes.push(Wish::Send {
                    link: *link,
                    bytes: Arc::clone(bytes),
                });
            }
            stays
        });
        wishes
    }
}
