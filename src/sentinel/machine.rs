//! The machine: what happened and what time it is go in, what is to be done comes out.
//!
//! It has no I/O, no clock and no randomness but that of its seed. [`Machine::step`] takes what came on a
//! connection, of a name or of a script; [`Machine::tick`], called some ten times a second, lets time pass;
//! [`Machine::order`](super::orders) takes what clients order. After each of them [`Machine::take_dirty`]
//! says whether the file is to be written before anything marked as a promise leaves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::jobs::Jobs;
use super::state::{Addr, ConnId, Group, Id, Instance, Kind, Link, LinkId, Periods};
use crate::resp::read::Value;

/// Names that are remembered with their addresses.
const NAMES: usize = 4096;
/// Replicas, and other sentinels, that one master may have: who names more of them is not believed.
const MEMBERS: usize = 1000;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection is there.
    Connected {
        /// Which.
        conn: ConnId,
        /// Our address on it.
        local_ip: String,
    },
    /// A connection ended, or could not be made.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why, in short.
        why: String,
    },
    /// Something came on a connection.
    Reply {
        /// Which.
        conn: ConnId,
        /// What.
        value: Value,
    },
    /// A name was looked up.
    Resolved {
        /// The name.
        host: String,
        /// Its address; `None`: it leads nowhere.
        ip: Option<String>,
    },
    /// A script was started.
    Started {
        /// Which run.
        job: u64,
        /// Its process.
        pid: u32,
    },
    /// There can be no more processes.
    NotStarted {
        /// Which run.
        job: u64,
    },
    /// A script ended.
    Ended {
        /// Which run.
        job: u64,
        /// Its exit code.
        code: i32,
        /// The signal that ended it; 0 is none.
        signal: i32,
    },
}

/// How important an event is, as Redis' log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Not published.
    Debug,
    /// Little.
    Verbose,
    /// Some.
    Notice,
    /// Scripts are told.
    Warning,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Opens a connection.
    Connect {
        /// Its number.
        conn: ConnId,
        /// Where to.
        ip: String,
        /// At which port.
        port: u16,
    },
    /// Sends bytes, once the connection is there.
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        bytes: Vec<u8>,
        /// Not unless the file holds what the machine knows; else PING is sent in its place.
        promise: bool,
    },
    /// Closes a connection, of which nothing more is told.
    Close(ConnId),
    /// Looks a name up.
    Resolve(String),
    /// Logs and publishes an event.
    Event {
        /// How important.
        level: Level,
        /// Its channel.
        channel: &'static str,
        /// Its text.
        text: String,
    },
    /// Logs a line as a warning.
    Log(String),
    /// Runs a script.
    Run {
        /// Number of this run.
        job: u64,
        /// Its path and arguments.
        argv: Vec<String>,
    },
    /// Kills a script.
    Kill(u64),
    /// Ends the process: SENTINEL SIMULATE-FAILURE.
    Crash,
}

/// What concerns all groups.
#[derive(Clone, Debug)]
pub struct Globals {
    /// Our id.
    pub myid: String,
    /// The highest epoch seen.
    pub epoch: u64,
    /// The address that others are told; empty: that of the connection.
    pub announce_ip: Option<String>,
    /// The port that others are told; 0: ours.
    pub announce_port: u16,
    /// Clients may not change paths of scripts.
    pub deny_scripts_reconfig: bool,
    /// The password of other sentinels.
    pub sentinel_pass: Option<String>,
    /// The user to log in as there.
    pub sentinel_user: Option<String>,
    /// Instances may have names.
    pub resolve_hostnames: bool,
    /// And are told by them.
    pub announce_hostnames: bool,
    /// Our own port.
    pub port: u16,
    /// Our own password, which is tried with other sentinels too.
    pub requirepass: Option<String>,
    /// SENTINEL SIMULATE-FAILURE: 1 after the election, 2 after the promotion.
    pub simulate: u32,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            myid: String::new(),
            epoch: 0,
            announce_ip: None,
            announce_port: 0,
            deny_scripts_reconfig: true,
            sentinel_pass: None,
            sentinel_user: None,
            resolve_hostnames: false,
            announce_hostnames: false,
            port: 26379,
            requirepass: None,
            simulate: 0,
        }
    }
}

/// Why an instance is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is one.
    Duplicate,
    /// Its name leads nowhere.
    Unresolved,
    /// There are [`MEMBERS`] already.
    TooMany,
}

/// A sentinel.
pub struct Machine {
    /// What concerns all groups.
    pub globals: Globals,
    /// Times.
    pub periods: Periods,
    /// Masters by name.
    pub masters: BTreeMap<String, Id>,
    pub(super) instances: BTreeMap<Id, Instance>,
    pub(super) groups: BTreeMap<Id, Group>,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) conns: BTreeMap<ConnId, LinkId>,
    /// Addresses of names, as they were last seen.
    names: BTreeMap<String, String>,
    /// Scripts that run or are to.
    pub jobs: Jobs,
    /// Nothing is done for a while.
    pub tilt: bool,
    /// Since when.
    pub tilt_since: i64,
    last_tick: i64,
    pub(super) now: i64,
    pub(super) out: Vec<Action>,
    next: u64,
    rng: SmallRng,
    dirty: bool,
    /// The file does not hold what is known: nobody leads by a vote of ours.
    pub(super) unsaved: bool,
}

impl Machine {
    /// A sentinel that watches nothing.
    pub fn new(globals: Globals, seed: u64, now: i64) -> Self {
        Self {
            globals,
            periods: Periods::default(),
            masters: BTreeMap::new(),
            instances: BTreeMap::new(),
            groups: BTreeMap::new(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            names: BTreeMap::new(),
            jobs: Jobs::default(),
            tilt: false,
            tilt_since: 0,
            last_tick: now,
            now,
            out: Vec::new(),
            next: 1,
            rng: SmallRng::seed_from_u64(seed),
            dirty: false,
            unsaved: false,
        }
    }

    /// It begins: every master is told of.
    pub fn begin(&mut self, now: i64) -> Vec<Action> {
        self.now = now;
        self.last_tick = now;
        for id in self.master_ids() {
            let quorum = self.group(id).quorum;
            self.event(Level::Warning, "+monitor", id, &format!(" quorum {quorum}"));
        }
        self.actions()
    }

    /// Takes what happened.
    pub fn step(&mut self, event: Event, now: i64) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Connected { conn, local_ip } => self.connected(conn, local_ip),
            Event::Closed { conn, why } => self.closed(conn, &why),
            Event::Reply { conn, value } => self.replied(conn, value),
            Event::Resolved { host, ip } => self.resolved(&host, ip),
            Event::Started { job, pid } => self.job_started(job, pid),
            Event::NotStarted { job } => self.job_not_started(job),
            Event::Ended { job, code, signal } => self.job_ended(job, code, signal),
        }
        self.actions()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: i64) -> Vec<Action> {
        self.now = now;
        self.check_tilt();
        for master in self.master_ids() {
            self.tend(master);
            for member in self.group(master).members() {
                // A failover that ended may have replaced it.
                if self.instances.contains_key(&member) {
                    self.tend(member);
                }
            }
            self.end_failover(master);
        }
        self.tend_jobs();
        self.actions()
    }

    /// How long to wait until the next tick: a little different each time, so that sentinels do not go in
    /// step and ask for votes all at once.
    pub fn pause_ms(&mut self) -> u64 {
        self.rng.random_range(50..100)
    }

    /// True when what is known has to be written before anything leaves.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The file holds what was known: who waits for our own vote goes on.
    pub fn saved(&mut self, now: i64) -> Vec<Action> {
        self.now = now;
        if std::mem::take(&mut self.unsaved) && !self.tilt {
            for master in self.master_ids() {
                self.go_on(master);
            }
        }
        self.actions()
    }

    /// What is to be done, save for what `step` and the like gave already.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn do_(&mut self, action: Action) {
        self.out.push(action);
    }

    /// What is known has changed in a way that the file has to know.
    pub(super) fn save(&mut self) {
        self.dirty = true;
        self.unsaved = true;
    }

    pub(super) fn below(&mut self, limit: i64) -> i64 {
        self.rng.random_range(0..limit)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn check_tilt(&mut self) {
        let passed = self.now - self.last_tick;
        if passed < 0 || passed > self.periods.tilt_trigger {
            self.tilt = true;
            self.tilt_since = self.now;
            self.plain_event(Level::Warning, "+tilt", "#tilt mode entered".to_owned());
        }
        self.last_tick = self.now;
    }

    /// What is due for an instance.
    fn tend(&mut self, id: Id) {
        self.reconnect(id);
        self.ask_regularly(id);
        if self.tilt {
            if self.now - self.tilt_since < self.periods.tilt {
                return;
            }
            self.tilt = false;
            self.plain_event(Level::Warning, "-tilt", "#tilt mode exited".to_owned());
        }
        self.look_whether_down(id);
        if self.inst(id).kind == Kind::Master {
            self.act_for(id);
            self.ask_sentinels(id, false);
        }
    }

    // ---------------------------------------------------------------- who is there

    /// An instance. Ids are kept only where they are taken away with it.
    pub fn inst(&self, id: Id) -> &Instance {
        self.instances
            .get(&id)
            .expect("an id in use names an instance")
    }

    pub(super) fn inst_mut(&mut self, id: Id) -> &mut Instance {
        let found = self.instances.get_mut(&id);
        found.expect("an id in use names an instance")
    }

    /// What belongs to a master.
    pub fn group(&self, master: Id) -> &Group {
        self.groups.get(&master).expect("every master has a group")
    }

    pub(super) fn group_mut(&mut self, master: Id) -> &mut Group {
        let found = self.groups.get_mut(&master);
        found.expect("every master has a group")
    }

    /// The connections to an instance.
    pub fn link(&self, id: Id) -> &Link {
        let found = self.links.get(&self.inst(id).link);
        found.expect("every instance has a link")
    }

    pub(super) fn link_mut(&mut self, id: Id) -> &mut Link {
        let link = self.inst(id).link;
        let found = self.links.get_mut(&link);
        found.expect("every instance has a link")
    }

    /// A master by name.
    pub fn master(&self, name: &str) -> Option<Id> {
        self.masters.get(name).copied()
    }

    pub(super) fn master_ids(&self) -> Vec<Id> {
        self.masters.values().copied().collect()
    }

    /// A connection that an instance needs is missing.
    pub fn disconnected(&self, id: Id) -> bool {
        self.link(id).disconnected(self.inst(id).kind)
    }

    /// The master's group of an instance.
    pub(super) fn group_of(&self, id: Id) -> &Group {
        self.group(self.inst(id).master)
    }

    /// Time in milliseconds, as of the last call.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Time has come so far: for who reads.
    pub fn set_now(&mut self, now: i64) {
        self.now = self.now.max(now);
    }

    // ---------------------------------------------------------------- addresses

    /// The address that a host stands for; `None` where names are not taken.
    pub(super) fn address(&mut self, host: &str, port: u16) -> Option<Addr> {
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) if self.globals.resolve_hostnames && !host.is_empty() => {
                match self.names.get(host) {
                    Some(ip) => ip.clone(),
                    None => {
                        self.do_(Action::Resolve(host.to_owned()));
                        String::new()
                    }
                }
            }
            Err(_) => {
                self.do_(Action::Log(format!("Failed to resolve hostname '{host}'")));
                return None;
            }
        };
        Some(Addr {
            host: host.to_owned(),
            ip,
            port,
        })
    }

    /// The same place, by address or by name.
    pub(super) fn same(a: &Addr, b: &Addr) -> bool {
        a.port == b.port
            && ((a.ip == b.ip && !a.ip.is_empty()) || a.host.eq_ignore_ascii_case(&b.host))
    }

    /// The host is that of an address.
    pub(super) fn is_host_of(&mut self, addr: &Addr, host: &str) -> bool {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return addr.ip == ip.to_string();
        }
        if !self.globals.resolve_hostnames {
            return false;
        }
        match self.names.get(host) {
            Some(ip) if *ip == addr.ip => true,
            Some(_) => addr.host.eq_ignore_ascii_case(host),
            None => {
                if addr.host.eq_ignore_ascii_case(host) {
                    return true;
                }
                self.do_(Action::Resolve(host.to_owned()));
                false
            }
        }
    }

    /// A host as clients, events and other servers are told of it.
    pub fn announced<'a>(&self, addr: &'a Addr) -> &'a str {
        match self.globals.announce_hostnames || addr.ip.is_empty() {
            true => &addr.host,
            false => &addr.ip,
        }
    }

    /// A host as the file has it: who takes names keeps them.
    pub fn written<'a>(&self, addr: &'a Addr) -> &'a str {
        match self.globals.resolve_hostnames {
            true => &addr.host,
            false => self.announced(addr),
        }
    }

    fn name_of(&self, addr: &Addr) -> String {
        let host = self.announced(addr);
        match host.contains(':') {
            true => format!("[{host}]:{}", addr.port),
            false => format!("{host}:{}", addr.port),
        }
    }

    /// Where the master is: where it was promoted, as soon as that is so.
    pub fn current_addr(&self, master: Id) -> &Addr {
        let group = self.group(master);
        match group.promoted {
            Some(promoted)
                if group.fails_over && group.step >= super::state::Step::ReconfReplicas =>
            {
                &self.inst(promoted).addr
            }
            _ => &self.inst(master).addr,
        }
    }

    /// A name was looked up: whoever has it is there from now on.
    fn resolved(&mut self, host: &str, ip: Option<String>) {
        if let Some(ip) = &ip {
            if self.names.len() >= NAMES {
                self.names.clear();
            }
            self.names.insert(host.to_owned(), ip.clone());
        }
        let named = |i: &&Id| self.instances.get(*i).is_some_and(|i| i.addr.host == host);
        let ids: Vec<Id> = self.instances.keys().filter(named).copied().collect();
        for id in ids {
            // One that was found to be another's double may be gone.
            if !self.instances.contains_key(&id) {
                continue;
            }
            if let Some(ip) = ip.as_ref().filter(|ip| **ip != self.inst(id).addr.ip) {
                self.moved(id, ip);
            }
            if self.instances.contains_key(&id) && self.link(id).resolving != 0 {
                self.link_mut(id).resolving = 0;
                self.connect(id);
            }
        }
    }

    fn moved(&mut self, id: Id, ip: &str) {
        let before = self.inst(id).addr.ip.clone();
        self.inst_mut(id).addr.ip = ip.to_owned();
        if self.inst(id).kind == Kind::Replica {
            let name = self.name_of(&self.inst(id).addr);
            self.inst_mut(id).name = name;
            // The same replica may have been told by its address before.
            let (master, addr) = (self.inst(id).master, self.inst(id).addr.clone());
            let double = |other: &Id| *other != id && Self::same(&self.inst(*other).addr, &addr);
            let double = self.group(master).replicas.iter().copied().find(double);
            if let Some(double) = double.filter(|double| !self.inst(*double).promoted) {
                self.forget_member(double);
            }
        }
        if !before.is_empty() {
            self.drop_link(id);
            self.link_mut(id).last_attempt = 0;
        }
    }

    // ---------------------------------------------------------------- entering and leaving

    /// Enters a master.
    pub(super) fn add_master(
        &mut self,
        name: &str,
        host: &str,
        port: u16,
        quorum: i64,
    ) -> Result<Id, Refused> {
        let addr = self.address(host, port).ok_or(Refused::Unresolved)?;
        if self.masters.contains_key(name) {
            return Err(Refused::Duplicate);
        }
        let id = self.number();
        self.enter(Kind::Master, id, id, name.to_owned(), addr);
        self.groups.insert(id, Group::new(quorum, &self.periods));
        self.masters.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Enters a replica.
    pub(super) fn add_replica(&mut self, master: Id, host: &str, port: u16) -> Result<Id, Refused> {
        let addr = self.address(host, port).ok_or(Refused::Unresolved)?;
        self.add_replica_at(master, addr)
    }

    pub(super) fn add_replica_at(&mut self, master: Id, addr: Addr) -> Result<Id, Refused> {
        if self.replica_at(master, &addr).is_some() {
            return Err(Refused::Duplicate);
        }
        if self.group(master).replicas.len() >= MEMBERS {
            return Err(self.too_many(master));
        }
        let (id, name) = (self.number(), self.name_of(&addr));
        self.enter(Kind::Replica, id, master, name, addr);
        self.group_mut(master).replicas.push(id);
        Ok(id)
    }

    /// Enters another sentinel.
    pub(super) fn add_sentinel(
        &mut self,
        master: Id,
        runid: &str,
        host: &str,
        port: u16,
    ) -> Result<Id, Refused> {
        let addr = self.address(host, port).ok_or(Refused::Unresolved)?;
        let known = |id: &Id| self.inst(*id).name == runid;
        if self.group(master).sentinels.iter().any(known) {
            return Err(Refused::Duplicate);
        }
        if self.group(master).sentinels.len() >= MEMBERS {
            return Err(self.too_many(master));
        }
        let id = self.number();
        self.enter(Kind::Sentinel, id, master, runid.to_owned(), addr);
        self.inst_mut(id).runid = Some(runid.to_owned());
        self.group_mut(master).sentinels.push(id);
        self.share_link(id);
        Ok(id)
    }

    /// Says once that no more members are taken.
    fn too_many(&mut self, master: Id) -> Refused {
        if !std::mem::replace(&mut self.group_mut(master).is_full, true) {
            let name = &self.inst(master).name;
            let line =
                format!("Master '{name}' has {MEMBERS} members of a kind: no more are taken");
            self.do_(Action::Log(line));
        }
        Refused::TooMany
    }

    fn enter(&mut self, kind: Kind, id: Id, master: Id, name: String, addr: Addr) {
        let link = self.number();
        self.links.insert(link, Link::new(self.now));
        let instance = Instance::new(kind, master, name, addr, link, self.now);
        self.instances.insert(id, instance);
    }

    /// The replica at an address.
    pub(super) fn replica_at(&self, master: Id, addr: &Addr) -> Option<Id> {
        let mut replicas = self.group(master).replicas.iter().copied();
        replicas.find(|id| Self::same(&self.inst(*id).addr, addr))
    }

    /// Forgets a replica or a sentinel.
    pub(super) fn forget_member(&mut self, id: Id) {
        let master = self.inst(id).master;
        let group = self.group_mut(master);
        group.replicas.retain(|other| *other != id);
        group.sentinels.retain(|other| *other != id);
        if group.promoted == Some(id) {
            group.promoted = None;
        }
        self.forget(id);
    }

    /// Forgets a master with its group.
    pub(super) fn forget_master(&mut self, id: Id) {
        for member in self.group(id).members() {
            self.forget_member(member);
        }
        let name = self.inst(id).name.clone();
        self.masters.remove(&name);
        self.groups.remove(&id);
        self.forget(id);
    }

    fn forget(&mut self, id: Id) {
        let link = self.inst(id).link;
        self.release_link(link);
        self.instances.remove(&id);
    }

    // ---------------------------------------------------------------- telling

    /// An event about an instance, which begins with what that is.
    pub(super) fn event(&mut self, level: Level, channel: &'static str, id: Id, rest: &str) {
        let about = self.inst(id);
        let own = format!(
            "{} {} {} {}",
            about.kind.word(),
            about.name,
            self.announced(&about.addr),
            about.addr.port
        );
        let text = match about.kind {
            Kind::Master => format!("{own}{rest}"),
            _ => {
                let master = self.inst(about.master);
                let (host, port) = (self.announced(&master.addr), master.addr.port);
                format!("{own} @ {} {host} {port}{rest}", master.name)
            }
        };
        self.event_of(level, channel, id, text);
    }

    /// An event about an instance, with a text of its own.
    pub(super) fn event_of(&mut self, level: Level, channel: &'static str, id: Id, text: String) {
        let script = self.group_of(id).notification_script.clone();
        self.plain_event(level, channel, text.clone());
        if let (Level::Warning, Some(script)) = (level, script) {
            self.jobs.add(vec![script, channel.to_owned(), text]);
        }
    }

    /// An event about no instance.
    pub(super) fn plain_event(&mut self, level: Level, channel: &'static str, text: String) {
        self.do_(Action::Event {
            level,
            channel,
            text,
        });
    }
}
