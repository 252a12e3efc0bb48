//! Replication driven by a seed: servers follow each other, are promoted, killed and started again, over
//! connections that trickle, hang and break at any byte. The machine and the decision on PSYNC are the
//! real ones; what surrounds them does what the server does, in a few lines.
//!
//! What is checked after every step: what a replica applied is the beginning of what its primary has; a
//! stream that continues does so at exactly this byte; and no machine is in a state of waiting for longer
//! than `repl-timeout` without a sign of life. In the end the net is good, and all are in step.

mod server;
mod session;

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::server::{SLOWEST, Server, TIMEOUT, Wish};
use self::session::{Session, Style};
use super::tests::{FAULT, Fault};
use super::{Event, Load};

const SERVERS: usize = 3;
/// Steps in which things go wrong.
const STEPS: usize = 300;
/// A state that should have ended within a time may take so much longer to be left: steps take up to two
/// seconds, and a clock that is put back loses what passed since the last tick.
const BOUND: i64 = 5_000;
/// From record to record that every primary writes, so that its replicas hear of it.
const HEARTBEAT: i64 = 3_000;

/// A connection of a replica with its primary.
struct Link {
    from: usize,
    to: usize,
    attempt: u64,
    /// When it is established.
    opens: i64,
    is_open: bool,
    /// The replica knows that it is closed. A dump that is there is loaded all the same.
    is_over: bool,
    session: Session,
    /// Bytes under way to the primary and to the replica.
    up: Vec<u8>,
    down: VecDeque<u8>,
    /// What the primary had when it closed its side: the data, and at which offset.
    closed: Option<(Vec<u8>, i64)>,
    /// Nothing passes until then.
    stalled_until: i64,
}

struct World {
    random: SmallRng,
    now: i64,
    servers: Vec<Server>,
    links: Vec<Link>,
    styles: Vec<Style>,
    /// Since when each machine is as it is, without a sign of life; and how it is.
    still: Vec<(i64, &'static str)>,
    /// When the primaries write next by themselves.
    heartbeat: i64,
    /// Nothing goes wrong any more.
    is_good: bool,
    counts: Counts,
}

/// How often what happened, to know that everything does.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    continued: usize,
    adopted: usize,
    timeouts: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let style = |random: &mut SmallRng| Style {
            marks: random.random(),
            delay: random.random_range(0..2000),
            errs: random.random_ratio(1, 8),
        };
        let styles = (0..SERVERS).map(|_| style(&mut random)).collect();
        let mut servers: Vec<Server> = (0..SERVERS).map(Server::new).collect();
        servers[0].is_old = random.random_ratio(1, 10);
        let mut world = Self {
            random,
            now: 1_000_000,
            servers,
            links: Vec::new(),
            styles,
            still: vec![(1_000_000, "none"); SERVERS],
            heartbeat: 1_000_000,
            is_good: false,
            counts: Counts::default(),
        };
        for at in 1..SERVERS {
            let wishes = world.servers[at].follow(0, false, world.now);
            world.grant(at, wishes).expect("nothing is there yet");
        }
        world
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..SERVERS)
    }

    /// Something happens, mostly something bad.
    fn disturb(&mut self) -> Result<(), String> {
        let (at, now) = (self.any(), self.now);
        if !self.servers[at].is_up() {
            return Ok(());
        }
        match self.random.random_range(0..100) {
            0..40 => self.write(at),
            40..48 => self.with_link(|link, _| link.stalled_until = i64::MAX),
            48..56 => {
                let until = now + self.random.random_range(0..TIMEOUT * 3 / 2);
                self.with_link(|link, _| link.stalled_until = until);
            }
            56..70 => return self.cut(),
            70..75 => self.servers[at].save(),
            75..79 => return self.kill(at),
            79..83 => {
                let wishes = self.servers[at].promote(now);
                return self.grant(at, wishes);
            }
            83..90 => {
                let to = self.any();
                if to != at {
                    let wishes = self.servers[at].follow(to, false, now);
                    return self.grant(at, wishes);
                }
            }
            90..94 => {
                let jump = self.random.random_range(-TIMEOUT..TIMEOUT);
                self.servers[at].skew += jump;
                // A clock that goes back stands still.
                self.still[at].0 = now;
            }
            _ => {
                let load = [Load::File, Load::Direct, Load::Swap][self.random.random_range(0..3)];
                self.servers[at]
                    .follower
                    .set_settings(server::settings(load));
            }
        }
        Ok(())
    }

    fn write(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if server.is_up() && server.follows.is_none() {
            // Bytes of the mark among them.
            let len = self.random.random_range(1..12);
            let payload: Vec<u8> = (0..len)
                .map(|_| [1, b'a', b'b', self.random.random()][self.random.random_range(0..4)])
                .collect();
            server.write(&payload);
        }
    }

    fn with_link(&mut self, change: impl FnOnce(&mut Link, i64)) {
        if !self.links.is_empty() {
            let at = self.random.random_range(0..self.links.len());
            change(&mut self.links[at], self.now);
        }
    }

    /// A connection breaks, after some of what is under way.
    fn cut(&mut self) -> Result<(), String> {
        if self.links.is_empty() {
            return Ok(());
        }
        let at = self.random.random_range(0..self.links.len());
        let count = self.random.random_range(0..=self.links[at].down.len());
        let from = self.links[at].from;
        self.deliver(at, count)?;
        match self.links.iter().position(|link| link.from == from) {
            Some(at) => self.end(at),
            None => Ok(()),
        }
    }

    /// The replica finds its connection closed.
    fn end(&mut self, at: usize) -> Result<(), String> {
        let link = &mut self.links[at];
        let (from, attempt, text) = (link.from, link.attempt, "connection lost".to_owned());
        if std::mem::replace(&mut link.is_over, true) {
            return Ok(());
        }
        let event = match link.is_open {
            true => Event::Closed { text },
            false => Event::ConnectFailed { attempt, text },
        };
        let wishes = self.servers[from].event(event, self.now);
        self.grant(from, wishes)
    }

    fn kill(&mut self, at: usize) -> Result<(), String> {
        self.links.retain(|link| link.from != at);
        let wish = self.servers[at].drop_replicas();
        self.grant(at, vec![wish])?;
        let down = self.random.random_range(0..5000);
        self.servers[at].restart(self.now + down);
        self.still[at].0 = self.now + down;
        Ok(())
    }

    /// The primary, which had this until now, closes the connections with its replicas; what is under
    /// way arrives, or not.
    fn drop_replicas(&mut self, at: usize, data: &[u8], offset: i64) {
        for link in self.links.iter_mut().filter(|link| link.to == at) {
            if link.closed.is_none() {
                link.closed = Some((data.to_vec(), offset));
            }
        }
    }

    /// Does what a server wants.
    fn grant(&mut self, at: usize, wishes: Vec<Wish>) -> Result<(), String> {
        for wish in wishes {
            match wish {
                Wish::Connect { attempt, to } => {
                    let delay = match self.is_good {
                        true => 1,
                        false => self.random.random_range(0..1500),
                    };
                    if self.now - self.still[at].0 > TIMEOUT {
                        self.counts.timeouts += 1;
                    }
                    self.still[at].0 = self.now;
                    self.links.push(Link {
                        from: at,
                        to,
                        attempt,
                        opens: self.now + delay,
                        is_open: false,
                        is_over: false,
                        session: Session::default(),
                        up: Vec::new(),
                        down: VecDeque::new(),
                        closed: None,
                        stalled_until: 0,
                    });
                }
                Wish::Send(bytes) => {
                    let link = self.links.iter_mut().find(|link| link.from == at);
                    link.ok_or("sends without a connection")?.up.extend(bytes);
                }
                Wish::Close => self.links.retain(|link| link.from != at),
                Wish::DropReplicas(data, offset) => self.drop_replicas(at, &data, offset),
                Wish::Continued => {
                    let is_dump = self.servers[at].kept == 0;
                    match is_dump {
                        true => self.counts.adopted += 1,
                        false => self.counts.continued += 1,
                    }
                    self.check_place(at)?;
                }
                Wish::Applied => self.check_data(at)?,
            }
        }
        Ok(())
    }

    /// What the primary of a replica has: its data and its offset.
    fn source(&self, at: usize) -> Result<(&[u8], i64), String> {
        let link = self.links.iter().find(|link| link.from == at);
        let link = link.ok_or("applies without a connection")?;
        let server = &self.servers[link.to];
        Ok(match &link.closed {
            Some((data, offset)) => (data, *offset),
            None => (&server.data, server.place.offset),
        })
    }

    /// What a replica has is the beginning of what its primary has.
    fn check_data(&self, at: usize) -> Result<(), String> {
        let (data, _) = self.source(at)?;
        let own = &self.servers[at].data;
        match data.starts_with(own) {
            true => Ok(()),
            false => Err(format!("{at} has {own:?} and its primary {data:?}")),
        }
    }

    /// And the offsets of both mean the same byte.
    fn check_place(&self, at: usize) -> Result<(), String> {
        // There may be no connection any more to continue on.
        let Ok((data, offset)) = self.source(at) else {
            return Ok(());
        };
        self.check_data(at)?;
        let own = &self.servers[at];
        let behind = (data.len() - own.data.len()) as i64;
        match own.is_known && own.place.offset + behind != offset {
            true => Err(format!("{at} goes on at another byte than its primary")),
            false => Ok(()),
        }
    }

    /// Passes `count` bytes to a replica, and everything to its primary.
    fn deliver(&mut self, at: usize, count: usize) -> Result<(), String> {
        let link = &mut self.links[at];
        let (from, to, now) = (link.from, link.to, self.now);
        if link.stalled_until > now || link.is_over {
            return Ok(());
        }
        if !link.is_open {
            if link.opens > now {
                return Ok(());
            }
            if !self.servers[to].is_up() || link.closed.is_some() {
                return self.end(at);
            }
            link.is_open = true;
            let attempt = link.attempt;
            self.still[from].0 = now;
            let wishes = self.servers[from].event(Event::Connected { attempt }, now);
            return self.grant(from, wishes);
        }
        let (server, style) = (&self.servers[to], self.styles[to]);
        if link.closed.is_none() {
            let (up, mut out) = (std::mem::take(&mut link.up), Vec::new());
            if !link.session.receive(&up, server, style, now, &mut out) {
                return Err(format!("{from} sends what is no request"));
            }
            link.session.send(server, style, now, &mut out);
            link.down.extend(out);
        }
        if link.down.is_empty() {
            return match link.closed {
                Some(_) => self.end(at),
                None => Ok(()),
            };
        }
        let count = count.min(link.down.len());
        if count == 0 {
            return Ok(());
        }
        let bytes: Vec<u8> = link.down.drain(..count).collect();
        self.still[from].0 = now;
        let wishes = self.servers[from].event(Event::Bytes(&bytes), now);
        self.grant(from, wishes)
    }

    /// Everything goes on for a moment.
    fn pass(&mut self) -> Result<(), String> {
        self.now += self.moment();
        if self.now >= self.heartbeat {
            self.heartbeat = self.now + HEARTBEAT;
            for at in 0..SERVERS {
                self.write(at);
            }
        }
        for from in 0..SERVERS {
            if let Some(at) = self.links.iter().position(|link| link.from == from) {
                let count = match self.random.random_range(0..4) {
                    _ if self.is_good => usize::MAX,
                    0 => 0,
                    1 => 1,
                    2 => self.random.random_range(0..60),
                    _ => usize::MAX,
                };
                self.deliver(at, count)?;
            }
        }
        for at in 0..SERVERS {
            self.run(at)?;
            self.check_progress(at)?;
        }
        Ok(())
    }

    /// How long the next step takes. When nothing moves, it goes to where the next thing is due.
    fn moment(&mut self) -> i64 {
        if !self.is_good {
            return match self.random.random_range(0..8) {
                0 => self.random.random_range(0..2000),
                1..4 => self.random.random_range(0..100),
                _ => 1,
            };
        }
        let servers = self.servers.iter();
        let server =
            servers.flat_map(|s| [s.wake, s.down_until, s.loader.as_ref().and_then(|l| l.due)]);
        let opens = |l: &Link| if l.is_open { None } else { Some(l.opens) };
        let moves = |l: &Link| {
            let waits = l.stalled_until > self.now || l.is_over;
            let is_idle = l.up.is_empty() && l.down.is_empty() && l.closed.is_none();
            if waits {
                None
            } else {
                opens(l).or(l.session.due()).or((!is_idle).then_some(0))
            }
        };
        let links = self.links.iter().filter_map(moves);
        let next = server.flatten().chain(links).min().unwrap_or(self.now);
        (next - self.now).clamp(1, 500)
    }

    /// A server does what is due.
    fn run(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let server = &mut self.servers[at];
        if let Some(until) = server.down_until {
            if until > now {
                return Ok(());
            }
            server.down_until = None;
            if let Some(to) = server.follows {
                let wishes = server.follow(to, true, now);
                self.grant(at, wishes)?;
            }
        }
        let fails = !self.is_good && self.random.random_ratio(1, 8);
        let wishes = self.servers[at].work(fails, now);
        self.grant(at, wishes)?;
        if self.servers[at].wake.is_some_and(|wake| wake <= now) {
            let wishes = self.servers[at].tick(now);
            self.grant(at, wishes)?;
        }
        Ok(())
    }

    /// No machine is as it is for longer than it may be.
    fn check_progress(&mut self, at: usize) -> Result<(), String> {
        let server = &self.servers[at];
        let state = server.follower.view(self.now + server.skew).state;
        let (since, was) = &mut self.still[at];
        if state != *was || !server.is_up() {
            (*since, *was) = (self.now.max(*since), state);
        }
        let limit = match state {
            "none" => return Ok(()),
            "connect" => 1000,
            _ => TIMEOUT + SLOWEST,
        };
        match self.now - *since > limit + BOUND {
            true => Err(format!("{at} waits for ever: {state}")),
            false => Ok(()),
        }
    }

    /// Nothing goes wrong any more: one primary, two replicas, perhaps in a chain.
    fn heal(&mut self) -> Result<(), String> {
        self.is_good = true;
        for link in &mut self.links {
            // What was lost stays lost; what was late arrives.
            if link.stalled_until < i64::MAX {
                link.stalled_until = 0;
            }
        }
        let primary = self.any();
        let chained = self.random.random_bool(0.3);
        let deadline = self.now + 4 * TIMEOUT;
        loop {
            // A server that loads is asked again.
            let mut before = primary;
            for step in 0..SERVERS {
                let (at, now) = ((primary + step) % SERVERS, self.now);
                if self.servers[at].is_up() {
                    let wishes = match step {
                        0 => self.servers[at].promote(now),
                        _ => self.servers[at].follow(before, false, now),
                    };
                    self.grant(at, wishes)?;
                }
                before = if chained { at } else { primary };
            }
            self.pass()?;
            if self.is_in_step(primary) {
                return Ok(());
            }
            if self.now > deadline {
                return Err(format!("not in step in the end, with {primary}"));
            }
        }
    }

    /// All have what the primary has, and say so.
    fn is_in_step(&self, primary: usize) -> bool {
        let first = &self.servers[primary];
        let knows_offsets = !self.servers.iter().any(|server| server.is_old);
        let is_same = |server: &Server| {
            let (own, place) = (&server.place, &first.place);
            own.id == place.id && own.offset == place.offset
        };
        let is_in_step = |server: &Server| {
            server.is_up()
                && server.data == first.data
                && server.follower.view(0).is_up == server.follows.is_some()
                && (is_same(server) || !knows_offsets)
        };
        first.follows.is_none() && self.servers.iter().all(is_in_step)
    }
}

fn run(seed: u64, steps: usize) -> Result<Counts, String> {
    let mut world = World::new(seed);
    let told = |error| format!("seed {seed}: {error}");
    for _ in 0..steps {
        if world.random.random_ratio(1, 4) {
            world.disturb().map_err(told)?;
        }
        world.pass().map_err(told)?;
    }
    world.heal().map_err(told)?;
    Ok(world.counts)
}

/// For a long run; in the gate some seconds.
fn seeds() -> u64 {
    let seeds = std::env::var("TESSERA_SEEDS");
    seeds.ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

#[test]
fn replicas_have_what_their_primary_has_and_come_into_step() {
    let mut all = Counts::default();
    for seed in 0..seeds() {
        let counts = run(seed, STEPS).expect("all is in order");
        all.continued += counts.continued;
        all.adopted += counts.adopted;
        all.timeouts += counts.timeouts;
    }
    let least = all.continued.min(all.adopted).min(all.timeouts);
    assert!(least as u64 > seeds() / 2, "everything happens: {all:?}");
}

#[test]
fn the_checker_sees_what_is_broken() {
    for fault in [
        Fault::OffByOne,
        Fault::SplitMark,
        Fault::NoTimeout,
        Fault::KeepsName,
        Fault::NoLimit,
        Fault::KeepsHistory,
        Fault::LosesEarly,
    ] {
        FAULT.set(Some(fault));
        let seen = (0..3000).find_map(|seed| run(seed, STEPS).err());
        FAULT.set(None);
        assert!(seen.is_some(), "{fault:?} is not seen");
    }
}
