//! Groups of sentinels in one thread, from a seed: the real machine and the real file over a network that
//! cuts, with servers and sentinels that crash and come back, and disks to which nothing can be written.
//!
//! `TESSERA_SEEDS` sets how many seeds, `TESSERA_SENTINEL_SEED` the first.

mod server;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::server::Server;
use super::conf;
use super::machine::{Action, Event, Machine};
use super::orders::{Answer, Order};
use super::state::ConnId;
use crate::config::Settings;
use crate::config::file::{Unchecked, load_text};
use crate::config::rewrite::Rewrite;
use crate::resp::read::Value;

const NAME: &str = "group";
const MINUTE: i64 = 60_000;

/// A party: servers first, then sentinels.
type Node = usize;

enum Due {
    Tick(u64),
    Tell(u64, Event),
    Ask(u64, ConnId, Vec<String>),
    Fault,
}

struct Sentinel {
    machine: Option<Machine>,
    /// How often it started: what was meant for an earlier life is lost.
    life: u64,
    disk: Vec<u8>,
    /// Nothing can be written.
    disk_fails: bool,
    /// The disk does not have what is known.
    owed: bool,
    /// Votes given meanwhile: nobody was told of them.
    owed_votes: Vec<(u64, String)>,
    conns: BTreeMap<ConnId, Node>,
}

struct World {
    rng: SmallRng,
    now: i64,
    order: u64,
    due: BinaryHeap<Reverse<(i64, u64)>>,
    what: BTreeMap<u64, (Node, Due)>,
    servers: Vec<Server>,
    sentinels: Vec<Sentinel>,
    cut: BTreeSet<(Node, Node)>,
    faults_until: i64,
    /// Who voted for whom, by epoch.
    votes: BTreeMap<u64, BTreeMap<Node, String>>,
    leaders: BTreeMap<u64, Node>,
    promoted: BTreeMap<u64, String>,
    failovers: usize,
}

fn ip(node: Node) -> String {
    format!("10.0.0.{}", node + 1)
}

fn node_at(ip: &str) -> Node {
    let number = ip.rsplit('.').next().and_then(|n| n.parse::<usize>().ok());
    number.expect("addresses are those of nodes") - 1
}

/// Cuts requests apart.
fn requests(bytes: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8(bytes.to_vec()).expect("requests are text");
    let mut lines = text.split("\r\n");
    let mut found = Vec::new();
    while let Some(head) = lines.next().filter(|line| !line.is_empty()) {
        let count: usize = head[1..].parse().expect("a count");
        let word = |_| lines.nth(1).expect("a word").to_owned();
        found.push((0..count).map(word).collect());
    }
    found
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let servers = rng.random_range(2..5);
        let sentinels: usize = [3, 5, 7][rng.random_range(0..3)];
        let mut world = Self {
            now: 1_000_000,
            order: 0,
            due: BinaryHeap::new(),
            what: BTreeMap::new(),
            servers: (0..servers)
                .map(|n| Server::new((n > 0).then_some(0)))
                .collect(),
            sentinels: Vec::new(),
            cut: BTreeSet::new(),
            faults_until: 1_000_000 + 10_000 + 2 * MINUTE,
            votes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            promoted: BTreeMap::new(),
            failovers: 0,
            rng,
        };
        for at in 0..sentinels {
            let text = format!(
                "sentinel myid {:040x}\nsentinel monitor {NAME} {} 6379 {}\n\
                 sentinel down-after-milliseconds {NAME} 1500\nsentinel failover-timeout {NAME} 3000\n",
                at + 0xa0,
                ip(0),
                sentinels / 2 + 1
            );
            world.sentinels.push(Sentinel {
                machine: None,
                life: 0,
                disk: text.into_bytes(),
                disk_fails: false,
                owed: false,
                owed_votes: Vec::new(),
                conns: BTreeMap::new(),
            });
            world.start(at);
        }
        let first = world.now + 10_000;
        world.at(first, 0, Due::Fault);
        world
    }

    fn at(&mut self, time: i64, node: Node, due: Due) {
        self.order += 1;
        self.due.push(Reverse((time, self.order)));
        self.what.insert(self.order, (node, due));
    }

    fn latency(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0 => self.rng.random_range(5..400),
            _ => self.rng.random_range(0..4),
        }
    }

    /// A sentinel starts with what its disk has.
    fn start(&mut self, at: usize) {
        let mut settings = Settings::default();
        settings.directives.sentinel_mode = true;
        load_text(&mut settings, &self.sentinels[at].disk, &mut Unchecked).expect("it was written");
        let seed = self.rng.random();
        let lines = &settings.directives.sentinel;
        let machine = conf::read(lines, &|_| true, seed, self.now).expect("it was written");
        let (now, sentinel) = (self.now, &mut self.sentinels[at]);
        sentinel.life += 1;
        sentinel.conns.clear();
        sentinel.owed = false;
        sentinel.owed_votes.clear();
        sentinel.machine = Some(machine);
        self.with(at, |machine| machine.begin(now));
        let life = self.sentinels[at].life;
        self.at(now + 10, at, Due::Tick(life));
    }

    fn with(&mut self, at: usize, work: impl FnOnce(&mut Machine) -> Vec<Action>) {
        let Some(machine) = &mut self.sentinels[at].machine else {
            return;
        };
        let actions = work(machine);
        self.carry_out(at, actions);
    }

    fn carry_out(&mut self, at: usize, actions: Vec<Action>) {
        let now = self.now;
        let sentinel = &mut self.sentinels[at];
        let mut written = false;
        if let Some(machine) = &mut sentinel.machine {
            sentinel.owed |= machine.take_dirty();
            if sentinel.owed && !sentinel.disk_fails {
                let mut rewrite = Rewrite::new(&sentinel.disk, false, true);
                machine.write(&mut rewrite);
                sentinel.disk = rewrite.finish();
                sentinel.owed = false;
                written = true;
            }
        }
        if written {
            for (epoch, whom) in std::mem::take(&mut self.sentinels[at].owed_votes) {
                self.voted(at, epoch, whom);
            }
        }
        for action in actions {
            self.carry_out_one(at, action);
        }
        if written {
            self.with(at, |machine| machine.saved(now));
        }
    }

    fn carry_out_one(&mut self, at: usize, action: Action) {
        let (life, later) = (self.sentinels[at].life, self.now + self.latency());
        let own = self.servers.len() + at;
        match action {
            Action::Connect { conn, ip: to, .. } => {
                let to = node_at(&to);
                self.sentinels[at].conns.insert(conn, to);
                if self.is_cut(own, to) {
                    return;
                }
                let event = match self.is_up(to) {
                    true => Event::Connected {
                        conn,
                        local_ip: ip(own),
                    },
                    false => {
                        self.sentinels[at].conns.remove(&conn);
                        Event::Closed {
                            conn,
                            why: String::new(),
                        }
                    }
                };
                self.at(later, at, Due::Tell(life, event));
            }
            Action::Send {
                conn,
                bytes,
                promise,
            } => {
                let bytes = match promise && self.sentinels[at].owed {
                    true => Machine::instead(),
                    false => bytes,
                };
                for request in requests(&bytes) {
                    self.at(later, at, Due::Ask(life, conn, request));
                }
            }
            Action::Close(conn) => {
                self.sentinels[at].conns.remove(&conn);
            }
            Action::Run { job, .. } => {
                let event = Event::Ended {
                    job,
                    code: 0,
                    signal: 0,
                };
                self.at(later, at, Due::Tell(life, event));
            }
            Action::Event { channel, text, .. } => self.note(at, channel, &text),
            Action::Resolve(_) | Action::Log(_) | Action::Kill(_) | Action::Crash => {}
        }
    }

    /// Holds what is told against what must be.
    fn note(&mut self, at: usize, channel: &str, text: &str) {
        let Some(machine) = &self.sentinels[at].machine else {
            return;
        };
        let Some(master) = machine.master(NAME) else {
            return;
        };
        let (epoch, quorum) = (
            machine.group(master).failover_epoch,
            machine.group(master).quorum,
        );
        let id = machine.globals.myid.clone();
        match channel {
            "+vote-for-leader" => {
                let (whom, epoch) = text.split_once(' ').expect("whom, and when");
                let (epoch, whom) = (epoch.parse().expect("an epoch"), whom.to_owned());
                match self.sentinels[at].owed {
                    true => self.sentinels[at].owed_votes.push((epoch, whom)),
                    false => self.voted(at, epoch, whom),
                }
            }
            "+elected-leader" => {
                let before = self.leaders.insert(epoch, at);
                assert!(before.is_none(), "two leaders in epoch {epoch}");
                let votes = self.votes.get(&epoch);
                let votes = votes.map_or(0, |votes| {
                    votes.values().filter(|whom| **whom == id).count()
                });
                assert!(votes as i64 >= quorum, "{votes} votes in epoch {epoch}");
                assert!(
                    votes > self.sentinels.len() / 2,
                    "{votes} votes in epoch {epoch}"
                );
            }
            "+selected-slave" => {
                let before = self.promoted.insert(epoch, text.to_owned());
                assert!(before.is_none(), "two promoted in epoch {epoch}");
            }
            "+promoted-slave" => self.failovers += 1,
            _ => {}
        }
    }

    fn voted(&mut self, at: usize, epoch: u64, whom: String) {
        let before = self.votes.entry(epoch).or_default().insert(at, whom);
        assert!(
            before.is_none(),
            "sentinel {at} voted twice in epoch {epoch}"
        );
    }

    fn is_cut(&self, a: Node, b: Node) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn is_up(&self, node: Node) -> bool {
        match node.checked_sub(self.servers.len()) {
            Some(at) => self.sentinels[at].machine.is_some(),
            None => self.servers[node].up,
        }
    }

    /// A request arrives.
    fn asked(&mut self, at: usize, conn: ConnId, words: &[String]) {
        let own = self.servers.len() + at;
        let Some(to) = self.sentinels[at].conns.get(&conn).copied() else {
            return;
        };
        if self.is_cut(own, to) || !self.is_up(to) {
            return;
        }
        let reply = match to.checked_sub(self.servers.len()) {
            Some(other) => self.ask_sentinel(other, words),
            None => self.ask_server((at, conn), to, words),
        };
        let (later, life) = (self.now + self.latency(), self.sentinels[at].life);
        self.at(
            later,
            at,
            Due::Tell(life, Event::Reply { conn, value: reply }),
        );
    }

    fn ask_sentinel(&mut self, at: usize, words: &[String]) -> Value {
        let order = match words[0].as_str() {
            "PING" => return Value::Simple(b"PONG".to_vec()),
            "PUBLISH" => Order::Hello {
                channel: words[1].clone(),
                text: words[2].clone(),
            },
            "SENTINEL" => Order::IsMasterDown {
                host: words[2].clone(),
                port: words[3].parse().expect("a port"),
                epoch: words[4].parse().expect("an epoch"),
                candidate: words[5].clone(),
            },
            _ => return Value::Simple(b"OK".to_vec()),
        };
        let mut answered = Answer::Ok;
        let now = self.now;
        self.with(at, |machine| {
            let (answer, actions) = machine.order(order, now);
            answered = answer;
            actions
        });
        match answered {
            // As the driver has it.
            Answer::Down { down, .. } if self.sentinels[at].owed => Value::Array(vec![
                Value::Int(down.into()),
                Value::Bulk(b"*".to_vec()),
                Value::Int(0),
            ]),
            Answer::Down {
                down,
                leader,
                epoch,
            } => Value::Array(vec![
                Value::Int(down.into()),
                Value::Bulk(leader.unwrap_or_else(|| "*".to_owned()).into_bytes()),
                Value::Int(epoch.cast_signed()),
            ]),
            _ => Value::Int(1),
        }
    }

    fn ask_server(&mut self, from: (usize, ConnId), to: Node, words: &[String]) -> Value {
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        match words[0].as_str() {
            "PING" => Value::Simple(b"PONG".to_vec()),
            "INFO" => {
                Value::Bulk(server::info(&self.servers, to, self.now, &self.cut).into_bytes())
            }
            "SLAVEOF" => {
                let master = (words[1] != "NO").then(|| node_at(&words[1]));
                self.servers[to].follow(master, self.now);
                Value::Simple(b"QUEUED".to_vec())
            }
            "SUBSCRIBE" => {
                self.servers[to].subscribers.push(from);
                Value::Array(vec![bulk("subscribe"), bulk(&words[1]), Value::Int(1)])
            }
            "PUBLISH" => {
                for (at, conn) in self.servers[to].subscribers.clone() {
                    let there = self.sentinels[at].conns.get(&conn) == Some(&to);
                    if !there || self.is_cut(self.servers.len() + at, to) {
                        continue;
                    }
                    let value =
                        Value::Array(vec![bulk("message"), bulk(&words[1]), bulk(&words[2])]);
                    let (later, life) = (self.now + self.latency(), self.sentinels[at].life);
                    self.at(later, at, Due::Tell(life, Event::Reply { conn, value }));
                }
                Value::Int(1)
            }
            _ => Value::Simple(b"OK".to_vec()),
        }
    }

    fn crash_server(&mut self, node: Node) {
        self.servers[node].up = false;
        self.servers[node].subscribers.clear();
        self.close_to(node);
    }

    /// Whoever is connected hears of the end, but those that are cut off.
    fn close_to(&mut self, node: Node) {
        for at in 0..self.sentinels.len() {
            let (own, life) = (self.servers.len() + at, self.sentinels[at].life);
            let conns = self.sentinels[at]
                .conns
                .iter()
                .filter(|(_, to)| **to == node);
            for conn in conns.map(|(conn, _)| *conn).collect::<Vec<_>>() {
                self.sentinels[at].conns.remove(&conn);
                if !self.is_cut(own, node) {
                    let why = String::new();
                    self.at(self.now, at, Due::Tell(life, Event::Closed { conn, why }));
                }
            }
        }
    }

    fn fault(&mut self) {
        let nodes = self.servers.len() + self.sentinels.len();
        if self.now >= self.faults_until {
            self.cut.clear();
            for node in 0..self.servers.len() {
                self.servers[node].up = true;
            }
            for at in 0..self.sentinels.len() {
                self.sentinels[at].disk_fails = false;
                if self.sentinels[at].machine.is_none() {
                    self.start(at);
                }
            }
            return;
        }
        match self.rng.random_range(0..11) {
            10 => {
                let at = self.rng.random_range(0..self.sentinels.len());
                self.sentinels[at].disk_fails ^= true;
            }
            0..3 => {
                let node = self.rng.random_range(0..self.servers.len());
                match self.servers[node].up {
                    true => self.crash_server(node),
                    false => self.servers[node].restart(self.now),
                }
            }
            3..5 => {
                let at = self.rng.random_range(0..self.sentinels.len());
                if self.sentinels[at].machine.take().is_none() {
                    self.start(at);
                } else {
                    self.close_to(self.servers.len() + at);
                }
            }
            5..7 => {
                let alone = self.rng.random_range(0..nodes);
                for other in (0..nodes).filter(|other| *other != alone) {
                    self.cut.insert((alone.min(other), alone.max(other)));
                }
            }
            7 => {
                let (a, b) = (
                    self.rng.random_range(0..nodes),
                    self.rng.random_range(0..nodes),
                );
                self.cut.insert((a.min(b), a.max(b)));
            }
            _ => self.cut.clear(),
        }
        let next = self.now + self.rng.random_range(500..8000);
        self.at(next.min(self.faults_until), 0, Due::Fault);
    }

    fn run_until(&mut self, end: i64) {
        while let Some(Reverse((time, number))) = self.due.pop() {
            if time > end {
                self.due.push(Reverse((time, number)));
                break;
            }
            self.now = self.now.max(time);
            let now = self.now;
            let Some((at, due)) = self.what.remove(&number) else {
                continue;
            };
            match due {
                Due::Fault => self.fault(),
                Due::Tick(life) if life == self.sentinels[at].life => {
                    self.with(at, |machine| machine.tick(now));
                    if let Some(machine) = &mut self.sentinels[at].machine {
                        let next = now + machine.pause_ms().cast_signed();
                        self.at(next, at, Due::Tick(life));
                    }
                }
                Due::Tell(life, event) if life == self.sentinels[at].life => {
                    self.with(at, |machine| machine.step(event, now));
                }
                Due::Ask(life, conn, words) if life == self.sentinels[at].life => {
                    self.asked(at, conn, &words);
                }
                _ => {}
            }
        }
    }

    /// Where each sentinel sees the master, and by which configuration.
    fn views(&self) -> BTreeSet<(String, u64)> {
        let machines = self.sentinels.iter().filter_map(|s| s.machine.as_ref());
        let view = |machine: &Machine| {
            let master = machine.master(NAME).expect("it is watched");
            let addr = machine.current_addr(master).ip.clone();
            (addr, machine.group(master).config_epoch)
        };
        machines.map(view).collect()
    }
}

fn check(seed: u64) -> usize {
    let mut world = World::new(seed);
    world.run_until(world.faults_until + 5 * MINUTE);
    let views = world.views();
    assert_eq!(views.len(), 1, "sentinels disagree: {views:?}");
    let (master, _) = views.first().expect("there are sentinels");
    let master = node_at(master);
    for (node, server) in world.servers.iter().enumerate() {
        let follows = (node != master).then_some(master);
        assert_eq!(
            server.follows, follows,
            "of server {node}, with master {master}"
        );
    }
    world.failovers
}

#[test]
fn groups_agree_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first = number("TESSERA_SENTINEL_SEED").unwrap_or(0u64);
    let seeds = number("TESSERA_SEEDS").unwrap_or(12);
    let mut failovers = 0;
    for seed in first..first + seeds {
        let checked = std::panic::catch_unwind(|| check(seed));
        failovers += checked.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(
        seeds < 20 || failovers as u64 > seeds,
        "{failovers} failovers"
    );
}

#[test]
fn without_quorum_nobody_takes_over() {
    let mut world = World::new(1);
    world.faults_until = i64::MAX;
    world.what.retain(|_, (_, due)| !matches!(due, Due::Fault));
    world.run_until(world.now + 10_000);
    let all = world.sentinels.len();
    for at in 0..=all / 2 {
        world.sentinels[at].machine = None;
        world.close_to(world.servers.len() + at);
    }
    world.crash_server(0);
    world.run_until(world.now + MINUTE);
    assert!(world.leaders.is_empty() && world.failovers == 0);
}
