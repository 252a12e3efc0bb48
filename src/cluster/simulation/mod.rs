//! Whole clusters in one thread, from a seed: the real machine of every node, over a network that delays,
//! cuts and forgets, on disks that are slow, in processes that stop and die.
//!
//! After every step it is checked that
//! - nobody votes for two in one epoch, over crashes too, nor tells a vote that is not on the disk, nor votes
//!   against a primary that has not failed,
//! - no two nodes win an election of the same epoch,
//! - no slot is served for writes by two nodes that both reach most of the cluster, for longer than news take,
//! - who reaches no majority stops serving within two and a half node timeouts, of which it may have
//!   stood still for one,
//! - nobody takes a stranger for a node, nor is taken for one by it, whatever the resolver says;
//!
//! and when nothing goes wrong any more, that within a bound all agree, every slot has an owner that
//! serves it, replicas copy primaries, and no key is lost that was ever on all servers of a shard.

mod counts;
mod data;
mod forming;
mod names;
mod server;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::counts::Counts;
use self::names::Resolver;
use self::server::{Server, Wish};
use super::conf;
use super::id::NodeId;
use super::machine::Event;
use super::node::LinkId;
use super::orders::Order;
use super::slots::SLOTS;
use super::wire::{self, Kind};
use crate::config::Settings;

/// An end of a connection: a server and what it calls the connection.
type End = (usize, LinkId);

/// A connection, seen from the end that sends.
struct Pipe {
    other: End,
    /// Messages on their way to the other end.
    queue: VecDeque<Arc<[u8]>>,
}

/// What comes to pass at a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    /// A server's tick.
    Tick(usize),
    /// A server's disk may have written something.
    Disk(usize),
    /// The next message of a connection is there, or its end.
    Message(End),
    /// An attempt to connect comes to the other side.
    Arrival(End, String),
    /// The other end has gone.
    Gone(End),
    /// A server that was killed starts.
    Start(usize),
    /// A lookup ends.
    LookedUp(usize, NodeId, String),
    /// A slot that is being moved goes on.
    Move(usize),
}

/// Who served a slot for writes at the last look, and since when more than one did.
#[derive(Default)]
struct Doubled {
    since: Option<i64>,
}

struct World {
    random: SmallRng,
    now: i64,
    timeout: i64,
    servers: Vec<Server>,
    /// Those that form the cluster come first; who follows is a stranger.
    members: usize,
    /// The cluster forms by itself.
    forms: bool,
    primaries: usize,
    resolver: Resolver,
    pipes: HashMap<End, Pipe>,
    coming: BinaryHeap<Reverse<(i64, u64, Coming)>>,
    number: u64,
    /// Nothing passes from the first to the second.
    cut: Vec<Vec<bool>>,
    delay: i64,
    /// Who won the election of an epoch.
    winners: BTreeMap<u64, NodeId>,
    roles: Vec<Option<(NodeId, bool)>>,
    /// Somebody was told to take over without votes: epochs may collide.
    took_over: bool,
    doubled: Doubled,
    /// When a server last reached another one, both ways.
    reached: Vec<Vec<i64>>,
    counts: Counts,
    /// Slots that were or are being moved.
    moves: Vec<data::Move>,
    /// Keys that replication, which is asynchronous, may have lost.
    excused: BTreeSet<u32>,
    /// Keys that were moved from one shard to another.
    moved: BTreeSet<u32>,
    /// What machines log is shown.
    is_told: bool,
}

const TICK: i64 = 100;

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let primaries = random.random_range(3..=5);
        let replicas = random.random_range(1..=2);
        let count = primaries * (1 + replicas);
        let timeout = *[500, 1000, 5000]
            .get(random.random_range(0..3))
            .expect("three");
        let forms = random.random_ratio(1, 3);
        let service = if forms { names::SERVICE } else { "" };
        let settings = Arc::new(Settings {
            cluster_enabled: true,
            cluster_form_service: service.into(),
            cluster_form_primaries: primaries as i32,
            cluster_node_timeout: timeout,
            cluster_require_full_coverage: random.random_ratio(1, 2),
            ..Settings::default()
        });
        let members = count;
        // One more, that is nobody's.
        let count = members + 1;
        let servers = (0..count).map(|number| Server::new(number, Arc::clone(&settings)));
        let resolver = Resolver::new(&mut random, count, forms);
        let mut world = Self {
            now: 1_700_000_000_000,
            timeout,
            servers: servers.collect(),
            members,
            forms,
            primaries,
            resolver,
            pipes: HashMap::new(),
            coming: BinaryHeap::new(),
            number: 0,
            cut: vec![vec![false; count]; count],
            delay: random.random_range(1..20),
            winners: BTreeMap::new(),
            roles: vec![None; count],
            took_over: false,
            doubled: Doubled::default(),
            reached: vec![vec![0; count]; count],
            counts: Counts::default(),
            moves: Vec::new(),
            excused: BTreeSet::new(),
            moved: BTreeSet::new(),
            is_told: std::env::var_os("TESSERA_CLUSTER_LOG").is_some(),
            random,
        };
        for at in 0..count {
            world.servers[at].name = world.resolver.name(at, members);
            world.servers[at].skew = world.random.random_range(-2000..2000);
            world.servers[at].disk_delay = match world.random.random_ratio(1, 4) {
                true => world.random.random_range(1..200),
                false => 1,
            };
            world.start(at);
        }
        world
    }

    fn at(&mut self, time: i64, coming: Coming) {
        self.number += 1;
        self.coming.push(Reverse((time, self.number, coming)));
    }

    fn start(&mut self, at: usize) {
        let seed = self.random.random();
        let wishes = self.servers[at].start(seed, self.now);
        self.grant(at, wishes);
        let first = self.random.random_range(1..=TICK);
        self.at(self.now + first, Coming::Tick(at));
    }

    /// How long something takes on the network.
    fn travel(&mut self) -> i64 {
        let most = self.delay;
        1 + match self.random.random_ratio(1, 50) {
            true => self.random.random_range(0..most * 10),
            false => self.random.random_range(0..most),
        }
    }

    fn grant(&mut self, at: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Connect { link, ip } => {
                    let time = self.now + self.travel();
                    self.at(time, Coming::Arrival((at, link), ip));
                }
                Wish::LookUp { id, name } => self.look_up(at, id, name),
                Wish::Close(link) => self.close((at, link)),
                Wish::Send { link, bytes } => self.send((at, link), bytes),
            }
        }
        let (due, disk) = (self.now + self.servers[at].disk_delay, Coming::Disk(at));
        self.at(due, disk);
    }

    fn send(&mut self, from: End, bytes: Arc<[u8]>) {
        self.note_vote(from, &bytes);
        if let Some(pipe) = self.pipes.get_mut(&from) {
            pipe.queue.push_back(bytes);
            let time = self.now + self.travel();
            self.at(time, Coming::Message(from));
        }
    }

    fn note_vote(&mut self, (at, link): End, bytes: &[u8]) {
        if bytes[12..14] != (Kind::AuthAck as u16).to_be_bytes() {
            return;
        }
        let Some(pipe) = self.pipes.get(&(at, link)) else {
            return;
        };
        let message = wire::decode(bytes).expect("our own");
        let epoch = message.header.current_epoch;
        let Some(machine) = &self.servers[pipe.other.0].machine else {
            return;
        };
        let candidate = machine.view().me().id;
        self.counts.votes += 1;
        let voter = &self.servers[at];
        let disk = voter.disk.as_deref().unwrap_or_default();
        let saved = conf::read(disk.as_bytes(), 0).map_or(0, |view| view.last_vote_epoch);
        assert!(
            saved >= epoch,
            "server {at} tells a vote of epoch {epoch} and has {saved} on its disk"
        );
        let was_asked_to = machine.manual.end != 0 || machine.view().me().is_primary();
        assert!(
            voter.against_healthy != epoch || was_asked_to,
            "server {at} votes against a primary that has not failed"
        );
        let votes = &mut self.servers[at].votes;
        let other = votes.iter().find(|(e, c)| *e == epoch && *c != candidate);
        assert!(
            other.is_none(),
            "server {at} votes for two in epoch {epoch}: {candidate:?} and {other:?}"
        );
        votes.push((epoch, candidate));
    }

    /// One end closes; the other one hears of it, if anything passes.
    fn close(&mut self, end: End) {
        if let Some(pipe) = self.pipes.remove(&end) {
            let time = self.now + self.travel();
            self.at(time, Coming::Gone(pipe.other));
        }
    }

    fn step(&mut self, at: usize, event: Event<'_>) {
        self.name_speaker(at);
        let facts = self.servers[at].facts(self.now);
        let Some(machine) = self.servers[at].machine.as_mut() else {
            return;
        };
        let mut actions = machine.step(event, facts);
        while machine.is_in_a_hurry() && actions.len() < 1000 {
            // The driver goes on at once; here an offset does not change within a step.
            let more = machine.tick_failover(facts);
            if more.is_empty() {
                break;
            }
            actions.extend(more);
        }
        let wishes = self.servers[at].carry_out(actions, self.now);
        self.grant(at, wishes);
        self.note_role(at);
    }

    /// Where what machines log is shown: who logs it, and when.
    fn name_speaker(&self, at: usize) {
        self.tell(&at.to_string());
    }

    fn tell(&self, what: &str) {
        if self.is_told {
            println!("@{} {what}", self.now);
        }
    }

    fn order(&mut self, at: usize, order: Order) -> bool {
        self.name_speaker(at);
        let facts = self.servers[at].facts(self.now);
        let Some(machine) = self.servers[at].machine.as_mut() else {
            return false;
        };
        let (outcome, actions) = machine.order(order, facts);
        let wishes = self.servers[at].carry_out(actions, self.now);
        self.grant(at, wishes);
        self.note_role(at);
        outcome.is_ok()
    }

    /// A replica that has become a primary has won an election.
    fn note_role(&mut self, at: usize) {
        let Some(machine) = &self.servers[at].machine else {
            return;
        };
        let me = machine.view().me();
        let role = (me.id, me.is_primary());
        let before = self.roles[at].replace(role);
        let won = before == Some((me.id, false)) && role.1 && !me.slots.is_empty();
        if won && !self.took_over {
            self.counts.wins += 1;
            let first = *self.winners.entry(me.config_epoch).or_insert(me.id);
            assert_eq!(
                first, me.id,
                "two have won the election of epoch {}",
                me.config_epoch
            );
        }
        if before == Some((role.0, true))
            && let Some(of) = self.primary_of(at)
        {
            // It took keys when it had been replaced already, and did not know.
            self.excuse(of, at);
        }
        if won
            && self.servers[at].copied.take().is_some()
            && let Some(before) = self.servers[at].source
        {
            self.excuse(at, before);
        }
    }

    /// Runs until a time.
    fn run_until(&mut self, end: i64) {
        while let Some(Reverse((time, _, _))) = self.coming.peek()
            && *time <= end
        {
            let Reverse((time, _, coming)) = self.coming.pop().expect("it was there");
            self.now = time;
            self.happen(coming);
        }
        self.now = end;
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Tick(at) => {
                if !self.servers[at].is_up() {
                    return;
                }
                let next = self.servers[at].stopped_until.max(self.now + TICK);
                self.at(next, Coming::Tick(at));
                if self.servers[at].runs(self.now) {
                    if self.servers[at].stopped_until >= self.now - TICK {
                        self.note_reach();
                    }
                    self.replicate(at);
                    self.name_speaker(at);
                    let facts = self.servers[at].facts(self.now);
                    let machine = self.servers[at].machine.as_mut().expect("it runs");
                    let actions = machine.tick(facts);
                    let wishes = self.servers[at].carry_out(actions, self.now);
                    self.grant(at, wishes);
                    self.note_role(at);
                    self.check(at);
                }
            }
            Coming::Disk(at) => {
                let wishes = self.servers[at].write(self.now);
                for wish in wishes {
                    if let Wish::Send { link, bytes } = wish {
                        self.send((at, link), bytes);
                    }
                }
            }
            Coming::Message(from) => self.pass(from),
            Coming::Arrival(from, ip) => self.arrive(from, &ip),
            Coming::Gone(end) => self.gone(end),
            Coming::LookedUp(at, id, name) => self.has_looked_up(at, id, &name),
            Coming::Move(number) => self.go_on(number),
            Coming::Start(at) => {
                if !self.servers[at].is_up() {
                    self.start(at);
                    self.note_reach();
                }
            }
        }
    }

    /// The next message of a connection comes to the other end.
    fn pass(&mut self, from: End) {
        let Some(pipe) = self.pipes.get(&from) else {
            return;
        };
        let (to, link) = pipe.other;
        if self.cut[from.0][to] || !self.servers[to].runs(self.now) {
            // It is sent again.
            self.at(self.now + 50, Coming::Message(from));
            return;
        }
        let pipe = self.pipes.get_mut(&from).expect("it is there");
        if let Some(bytes) = pipe.queue.pop_front() {
            self.step(
                to,
                Event::Message {
                    link,
                    bytes: &bytes,
                },
            );
        }
    }

    fn arrive(&mut self, from: End, ip: &str) {
        let (at, link) = from;
        let still = |server: &Server| {
            let machine = server.machine.as_ref();
            machine.is_some_and(|machine| machine.links().contains_key(&link))
        };
        if !still(&self.servers[at]) {
            return;
        }
        let Some(to) = self.at_address(ip) else {
            // There is nobody: nothing is heard of it.
            return;
        };
        if self.cut[at][to] || self.cut[to][at] || self.servers[to].stopped_until > self.now {
            self.at(self.now + 100, Coming::Arrival(from, ip.to_owned()));
            return;
        }
        let facts = self.servers[to].facts(self.now);
        let (peer, local) = (self.servers[at].ip.clone(), self.servers[to].ip.clone());
        let Some(machine) = self.servers[to].machine.as_mut() else {
            return self.step(at, Event::Closed(link));
        };
        let other = (to, machine.accept(peer.clone(), local, facts));
        let pipe = |other| Pipe {
            other,
            queue: VecDeque::new(),
        };
        self.pipes.insert(from, pipe(other));
        self.pipes.insert(other, pipe(from));
        self.step(at, Event::Connected { link, local: &peer });
    }

    fn gone(&mut self, end: End) {
        let Some(pipe) = self.pipes.get(&end) else {
            return;
        };
        let (at, other) = (end.0, pipe.other.0);
        if self.cut[other][at] || self.servers[at].stopped_until > self.now {
            self.at(self.now + 100, Coming::Gone(end));
            return;
        }
        self.pipes.remove(&end);
        self.step(at, Event::Closed(end.1));
    }

    fn kill(&mut self, at: usize) {
        let written = self.random.random_range(0..3);
        self.servers[at].crash(written);
        self.roles[at] = None;
        let ends: Vec<End> = self
            .pipes
            .keys()
            .filter(|end| end.0 == at)
            .copied()
            .collect();
        let mut ends = ends;
        ends.sort();
        for end in ends {
            self.close(end);
        }
        self.counts.crashes += 1;
    }

    /// Servers that `at` reaches, both ways.
    fn reaches(&self, at: usize, other: usize) -> bool {
        at == other
            || (!self.cut[at][other] && !self.cut[other][at] && self.servers[other].runs(self.now))
    }

    /// The servers that are primaries with slots, as `at` knows them.
    fn voters_of(&self, at: usize) -> impl Iterator<Item = usize> {
        let machine = self.servers[at].machine.as_ref();
        let voters = machine
            .into_iter()
            .flat_map(|machine| machine.view().voters());
        voters.filter_map(|(_, voter)| {
            let mut servers = self.servers.iter();
            servers.position(|server| server.id == Some(voter.id))
        })
    }

    /// True when a server reaches most of the primaries that it knows.
    fn has_majority(&self, at: usize) -> bool {
        let Some(machine) = &self.servers[at].machine else {
            return false;
        };
        let near = self.voters_of(at).filter(|voter| self.reaches(at, *voter));
        near.count() >= machine.view().quorum()
    }

    /// A server takes writes for a slot.
    fn serves(&self, at: usize, slot: u16) -> bool {
        let server = &self.servers[at];
        let Some(machine) = &server.machine else {
            return false;
        };
        let view = machine.view();
        server.runs(self.now)
            && server.paused_until < self.now
            && !machine.fails()
            && view.me().is_primary()
            && view.owner(slot) == Some(view.myself())
    }

    /// Notes who reaches whom.
    fn note_reach(&mut self) {
        for at in 0..self.servers.len() {
            self.note_reach_of(at);
        }
    }

    fn note_reach_of(&mut self, at: usize) {
        for other in 0..self.servers.len() {
            if self.reaches(at, other) {
                self.reached[at][other] = self.now;
            }
        }
    }

    fn check(&mut self, at: usize) {
        self.note_reach_of(at);
        // A PING may be due only half a timeout later, and a process may have stood still for another.
        let bound = self.timeout * 5 / 2 + 700;
        let since = self.now - bound;
        let machine = self.servers[at].machine.as_ref().expect("it has ticked");
        let view = machine.view();
        let serves = view.me().is_primary() && !view.me().slots.is_empty() && !machine.fails();
        if serves {
            let near = self
                .voters_of(at)
                .filter(|other| self.reached[at][*other] >= since);
            assert!(
                near.count() >= view.quorum(),
                "server {at} serves without a majority for {bound} ms, at {}:\n{}",
                self.now,
                self.show()
            );
        }
        if !self.took_over {
            self.check_owners();
        }
    }

    /// No slot is served for long by two that both reach most.
    fn check_owners(&mut self) {
        let doubled = (0..self.primaries).any(|part| {
            let slot = self.first_slot(part);
            let count = self.servers.len();
            let serving = (0..count).filter(|at| self.serves(*at, slot) && self.has_majority(*at));
            serving.count() > 1
        });
        if !doubled {
            self.doubled.since = None;
            return;
        }
        let since = *self.doubled.since.get_or_insert(self.now);
        let bound = self.timeout + 2000;
        assert!(
            self.now - since <= bound,
            "a slot is served by two for {} ms",
            self.now - since
        );
    }

    fn first_slot(&self, part: usize) -> u16 {
        (part * SLOTS / self.primaries) as u16
    }

    /// Waits until something is so, within a bound.
    fn await_all(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + 12 * self.timeout + 60_000;
        while !is_so(self) {
            assert!(
                self.now < end,
                "it never came that {what}:\n{}",
                self.show()
            );
            self.run_until(self.now + TICK);
        }
    }

    /// Waits until the cluster is whole and all agree.
    fn await_whole(&mut self) {
        self.await_all("the cluster is whole", |world| {
            let views: Vec<_> = world
                .members()
                .map(|server| server.machine.as_ref())
                .collect();
            let Some(views) = views.into_iter().collect::<Option<Vec<_>>>() else {
                return false;
            };
            let owners = |at: usize| -> Vec<Option<NodeId>> {
                let view = views[at].view();
                let owner = |owner: &Option<_>| owner.map(|index| view.node(index).id);
                view.owners().iter().map(owner).collect()
            };
            let first = owners(0);
            let covered = first.iter().all(Option::is_some);
            let agree = (1..views.len()).all(|at| owners(at) == first);
            let serve = views.iter().all(|machine| {
                let view = machine.view();
                let me = view.me();
                let chained = me
                    .primary
                    .is_some_and(|primary| view.node(primary).is_replica());
                let alone = me.is_replica() && me.primary.is_none();
                !machine.fails() && !chained && !alone
            });
            covered && agree && serve
        });
    }

    fn show(&self) -> String {
        let mut text = String::new();
        for (at, server) in self.servers.iter().enumerate() {
            let Some(machine) = &server.machine else {
                text += &format!("{at}: down\n");
                continue;
            };
            text += &format!("{at} (fails: {}):\n", machine.fails());
            text += &super::conf::write(machine.view());
        }
        text
    }

    fn members(&self) -> impl Iterator<Item = &Server> {
        self.servers[..self.members].iter()
    }

    /// A life of a cluster.
    fn live(&mut self) {
        self.form();
        self.fill();
        for _ in 0..self.random.random_range(3..12) {
            if self.random.random_ratio(1, 2) {
                self.begin_move();
            }
            if self.random.random_ratio(1, 4) {
                // What is moved is moved while somebody takes over.
                let pause = self.random.random_range(0..100);
                self.run_until(self.now + pause);
            }
            self.disturb();
            self.note_reach();
            let pause = match self.random.random_ratio(1, 3) {
                true => self.random.random_range(0..200),
                false => self.random.random_range(0..self.timeout * 3),
            };
            self.run_until(self.now + pause);
        }
        self.recover();
        self.await_whole();
        self.check_keys();
        if self.forms {
            self.lose_volume();
        }
        self.check_strangers();
    }

    /// Nothing goes wrong any more.
    fn recover(&mut self) {
        self.heal();
        self.resolver.lies = false;
        for at in 0..self.servers.len() {
            self.servers[at].stopped_until = 0;
            self.servers[at].disk_delay = 1;
            if !self.servers[at].is_up() {
                self.at(self.now + 1, Coming::Start(at));
            }
        }
    }

    /// A life in which nothing happens but that one primary comes back without its data.
    fn live_reborn(&mut self) {
        self.form();
        self.fill();
        self.lose_data();
        self.await_whole();
        self.check_keys();
    }

    /// A life in which nothing happens but that a primary dies, and one of its replicas has got more of the
    /// stream until others hold it failed.
    fn live_ahead(&mut self) {
        self.form();
        self.fill();
        let slot = self.first_slot(0);
        let dead = self.owner_of(slot);
        let replicas = (0..self.members).filter(|at| self.primary_of(*at) == Some(dead));
        let replicas: Vec<usize> = replicas.collect();
        let ahead = replicas[self.random.random_range(0..replicas.len())];
        self.kill(dead);
        while !self.members().any(|server| self.holds_failed(server, dead)) {
            self.run_until(self.now + 1);
        }
        self.servers[ahead].offset += 50;
        self.at(self.now + 5 * self.timeout + 5000, Coming::Start(dead));
        self.await_whole();
        assert_eq!(self.owner_of(slot), ahead, "{}", self.show());
    }

    fn holds_failed(&self, server: &Server, other: usize) -> bool {
        let (machine, id) = (server.machine.as_ref(), self.servers[other].id);
        machine.is_some_and(|machine| {
            let view = machine.view();
            let other = id.and_then(|id| view.find(id));
            other.is_some_and(|other| view.node(other).has_failed())
        })
    }
}

/// How many seeds are tried, and the first.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("TESSERA_CLUSTER_SEED").unwrap_or(0);
    first..first + number("TESSERA_SEEDS").unwrap_or(300)
}

/// Runs a life for each of some seeds; one that fails is named.
fn run(seeds: std::ops::Range<u64>, life: fn(&mut World)) -> Counts {
    let mut total = Counts::default();
    for seed in seeds {
        let mut world = World::new(seed);
        if world.is_told {
            crate::observe::log::install();
        }
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life(&mut world)));
        if lived.is_err() {
            panic!("seed {seed}: TESSERA_CLUSTER_SEED={seed} TESSERA_SEEDS=1 repeats it");
        }
        total.add(world.counts);
    }
    total
}

#[test]
fn clusters_stay_safe_and_heal() {
    let total = run(seeds(), World::live);
    let rarest = total.all().into_iter().min().unwrap_or(0);
    assert!(
        seeds().count() < 100 || rarest > 10,
        "something hardly ever happened: {total:?}"
    );
    println!("{total:?}");
}

#[test]
fn a_primary_that_comes_back_without_data_takes_none_from_its_replicas() {
    let seeds = seeds();
    let a_few = seeds.start..seeds.start + (seeds.end - seeds.start).div_ceil(4);
    let total = run(a_few, World::live_reborn);
    assert!(total.wins > 0, "nobody ever took over: {total:?}");
}

#[test]
fn of_two_replicas_the_one_with_more_takes_over() {
    let seeds = seeds();
    let a_few = seeds.start..seeds.start + (seeds.end - seeds.start).div_ceil(4);
    let total = run(a_few, World::live_ahead);
    assert!(total.wins > 0, "nobody ever took over: {total:?}");
}
