//! The servers, what is done to them, and how it is undone.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rustix::process::{Signal, kill_process};

use crate::proxy::{Mode, Proxy};
use crate::replicas::{Server, assert_same};
use crate::sockets::{Client, PATIENCE, under_test};
use crate::writers::Target;

/// Longest wait of a single question.
const LIMIT: Duration = Duration::from_secs(10);
const SERVERS: usize = crate::REPLICAS + 1;

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// The links to this server are as they should be.
    Pass(usize),
    /// It goes on.
    Continue(usize),
    /// It is started again.
    Restart(usize),
}

pub struct Cluster<'a> {
    servers: Vec<Server>,
    /// Before each server: its replicas come this way.
    proxies: Vec<Proxy>,
    primary: usize,
    target: &'a Target,
    /// What is still to be undone, and when.
    undo: Vec<(Instant, Undo)>,
    /// What was done, for whoever looks into a failure.
    history: Vec<String>,
    tally: BTreeMap<&'static str, u64>,
    begin: Instant,
}

impl<'a> Cluster<'a> {
    pub fn start(random: &mut StdRng, target: &'a Target) -> Self {
        let servers: Vec<_> = (0..SERVERS).map(|_| start(random)).collect();
        let proxies = servers.iter().map(|server| Proxy::start(server.port));
        let mut cluster = Self {
            proxies: proxies.collect(),
            servers,
            primary: 0,
            target,
            undo: Vec::new(),
            history: Vec::new(),
            tally: BTreeMap::new(),
            begin: Instant::now(),
        };
        cluster.target.set(cluster.servers[0].path("s"));
        for replica in 1..SERVERS {
            cluster.order(replica);
        }
        cluster.heal();
        cluster
    }

    /// What was done how often.
    pub fn tally(&self) -> String {
        format!("{:?}", self.tally)
    }

    pub fn client_of_primary(&self) -> Client {
        self.servers[self.primary].client()
    }

    fn note(&mut self, what: &'static str, detail: impl std::fmt::Display) {
        *self.tally.entry(what).or_default() += 1;
        let at = self.begin.elapsed().as_millis();
        self.history.push(format!("{at} ms: {what} {detail}"));
    }

    /// A short connection for one question; an error when the server is gone, stopped, or hangs.
    fn ask(&self, server: usize, line: &str, limit: Duration) -> io::Result<String> {
        Client::connect(&self.servers[server].path("s"), limit)?.try_ask(line)
    }

    /// Awaits a condition, and undoes meanwhile what is due.
    fn until(&mut self, what: &str, mut met: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !met(self) {
            assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
            self.undo_due();
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// How the servers are, and what led to it.
    fn tell(&self) {
        let limit = Duration::from_secs(1);
        for (index, server) in self.servers.iter().enumerate() {
            let log = std::fs::read_to_string(server.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            println!("== server {index} ==\n{}", tail.join("\n"));
            println!("{:?}", self.ask(index, "INFO replication", limit));
        }
        let primary = self.primary;
        println!("== faults ==\n{}", self.history.join("\n"));
        println!("the primary is server {primary}");
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

fn start(random: &mut StdRng) -> Server {
    let ways = ["disabled", "on-empty-db", "swapdb"];
    let backlogs = ["16kb", "1mb", "16mb"];
    Server::start(
        &under_test(),
        &[
            "--appendonly",
            "yes",
            "--logfile",
            "log",
            "--repl-timeout",
            "3",
            "--repl-ping-replica-period",
            "1",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-diskless-sync",
            if random.random_bool(0.5) { "yes" } else { "no" },
            "--repl-diskless-load",
            ways[random.random_range(0..ways.len())],
            "--repl-backlog-size",
            backlogs[random.random_range(0..backlogs.len())],
        ],
    )
}

/// Faults.
impl Cluster<'_> {
    /// One of them, and a moment in which others may end.
    pub fn fault(&mut self, random: &mut StdRng) {
        let which = random.random_range(0..100);
        let other = (self.primary + random.random_range(1..SERVERS)) % SERVERS;
        let anyone = random.random_range(0..SERVERS);
        let lasts = Duration::from_millis(match random.random_bool(0.85) {
            true => random.random_range(0..400),
            false => random.random_range(400..4500),
        });
        let bytes = random.random_range(0..30_000);
        let pause = Duration::from_millis(random.random_range(0..250));
        match which {
            0..20 => {
                self.note("cut", bytes);
                self.proxies[self.primary].cut_after(bytes);
            }
            20..27 => self.kill_links(other),
            27..37 => self.hinder("stall", Mode::Stall, lasts),
            37..45 => self.hinder("trickle", Mode::Trickle, lasts),
            45..58 => self.stop(anyone, lasts),
            58..70 => self.kill(other, lasts),
            70..78 => self.kill_primary(lasts),
            78..90 => self.promote(other, None),
            _ => self.promote(other, Some(lasts)),
        }
        let end = Instant::now() + pause;
        self.until("the next round", |_| Instant::now() >= end);
    }

    fn later(&mut self, lasts: Duration, undo: Undo) {
        self.undo.push((Instant::now() + lasts, undo));
    }

    /// True while it is stopped or dead.
    fn is_away(&self, server: usize) -> bool {
        let away = [Undo::Continue(server), Undo::Restart(server)];
        self.undo.iter().any(|(_, undo)| away.contains(undo))
    }

    fn kill_links(&mut self, replica: usize) {
        self.note("kill links", replica);
        for (server, kind) in [(self.primary, "replica"), (replica, "master")] {
            if !self.is_away(server) {
                let line = format!("CLIENT KILL TYPE {kind}");
                // It may be loading.
                let _ = self.ask(server, &line, LIMIT);
            }
        }
    }

    fn hinder(&mut self, what: &'static str, mode: Mode, lasts: Duration) {
        self.note(what, format!("{} ms", lasts.as_millis()));
        self.proxies[self.primary].set(mode);
        self.later(lasts, Undo::Pass(self.primary));
    }

    fn stop(&mut self, server: usize, lasts: Duration) {
        if self.is_away(server) {
            return;
        }
        self.note("stop", format!("{server} for {} ms", lasts.as_millis()));
        kill_process(self.servers[server].pid(), Signal::STOP).expect("it runs");
        self.later(lasts, Undo::Continue(server));
    }

    fn kill(&mut self, server: usize, lasts: Duration) {
        if self.is_away(server) {
            return;
        }
        self.note(
            "kill replica",
            format!("{server} for {} ms", lasts.as_millis()),
        );
        self.servers[server].kill();
        self.later(lasts, Undo::Restart(server));
    }

    /// Only when its append-only file is whole: one that has become a primary a moment ago may have
    /// none yet.
    fn kill_primary(&mut self, lasts: Duration) {
        let primary = self.primary;
        if self.is_away(primary) {
            return;
        }
        let Ok(text) = self.ask(primary, "INFO persistence", LIMIT) else {
            return;
        };
        let whole = [
            "aof_enabled:1",
            "aof_rewrite_in_progress:0",
            "aof_rewrite_scheduled:0",
        ];
        if !whole.iter().all(|line| text.lines().any(|l| l == *line)) {
            return;
        }
        self.note(
            "kill primary",
            format!("{primary} for {} ms", lasts.as_millis()),
        );
        self.servers[primary].kill();
        self.later(lasts, Undo::Restart(primary));
    }

    /// Makes a replica the primary, if it is in step; the old one, which is killed before when
    /// `kills` says for how long, and the other replica follow it.
    fn promote(&mut self, new: usize, kills: Option<Duration>) {
        let old = self.primary;
        if self.is_away(new) || self.is_away(old) {
            return;
        }
        // Who loses its link now cannot begin a full sync, which would leave it with less than it has.
        self.proxies[old].set(Mode::Refuse);
        let text = self.ask(new, "INFO replication", LIMIT).unwrap_or_default();
        if !text.contains("master_link_status:up") {
            self.proxies[old].set(Mode::Pass);
            return;
        }
        let what = match kills {
            Some(_) => "kill and promote",
            None => "promote",
        };
        self.note(what, new);
        self.target.begin_change();
        if let Some(lasts) = kills {
            self.servers[old].kill();
            self.later(lasts, Undo::Restart(old));
        }
        self.until("the promotion", |cluster| {
            let reply = cluster.ask(new, "REPLICAOF NO ONE", LIMIT);
            reply.is_ok_and(|reply| reply == "+OK")
        });
        self.primary = new;
        self.target.set(self.servers[new].path("s"));
        for server in 0..SERVERS {
            if server != new && !self.is_away(server) {
                self.order(server);
            }
        }
        self.proxies[old].set(Mode::Pass);
        self.proxies[new].set(Mode::Pass);
    }
}

/// Ends of faults.
impl Cluster<'_> {
    fn undo_due(&mut self) {
        let now = Instant::now();
        let (due, rest) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = rest;
        let due: Vec<_> = due;
        for (_, undo) in due {
            self.end(undo);
        }
    }

    fn end(&mut self, undo: Undo) {
        match undo {
            Undo::Pass(server) => self.proxies[server].set(Mode::Pass),
            Undo::Continue(server) => {
                kill_process(self.servers[server].pid(), Signal::CONT).expect("it was stopped");
                self.order_if_it_has_to(server);
            }
            Undo::Restart(server) if server == self.primary => {
                self.servers[server].launch_again(&[]);
            }
            Undo::Restart(server) => {
                let place = format!("127.0.0.1 {}", self.proxies[self.primary].port);
                self.servers[server].launch_again(&["--replicaof", &place]);
            }
        }
    }

    /// What it follows may have changed while it was away.
    fn order_if_it_has_to(&mut self, server: usize) {
        if server != self.primary {
            self.order(server);
        }
    }

    /// Has it follow the primary.
    fn order(&mut self, server: usize) {
        let line = format!("REPLICAOF 127.0.0.1 {}", self.proxies[self.primary].port);
        self.until("an order", |cluster| {
            if cluster.is_away(server) {
                return true;
            }
            let reply = cluster.ask(server, &line, LIMIT);
            reply.is_ok_and(|reply| reply.starts_with("+OK"))
        });
    }

    /// Ends all faults, and awaits that all are linked.
    pub fn heal(&mut self) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.end(undo);
        }
        for proxy in &self.proxies {
            proxy.cut_after(-1);
            proxy.set(Mode::Pass);
        }
        self.until("that the primary serves", |cluster| {
            let reply = cluster.ask(cluster.primary, "PING", LIMIT);
            reply.is_ok_and(|reply| reply == "+PONG")
        });
        for replica in (0..SERVERS)
            .filter(|server| *server != self.primary)
            .collect::<Vec<_>>()
        {
            let up = "master_link_status:up";
            self.until("a link", |cluster| {
                let text = cluster.ask(replica, "INFO replication", LIMIT);
                text.is_ok_and(|text| text.contains(up))
            });
        }
    }

    /// All are at the same offset and hold the same; nobody writes.
    pub fn compare(&mut self) {
        let offset = |cluster: &Self, server| {
            let text = cluster.ask(server, "INFO replication", LIMIT).ok()?;
            let mut lines = text.lines();
            let offset = lines.find_map(|line| line.strip_prefix("master_repl_offset:"))?;
            offset.parse::<u64>().ok()
        };
        self.until("the same offset", |cluster| {
            let offsets: Vec<_> = (0..SERVERS).map(|server| offset(cluster, server)).collect();
            offsets[0].is_some() && offsets.windows(2).all(|pair| pair[0] == pair[1])
        });
        for server in (0..SERVERS).filter(|server| *server != self.primary) {
            assert_same(&self.servers[self.primary], &self.servers[server]);
        }
    }
}
