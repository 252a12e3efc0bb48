//! Addresses that change, and a resolver that is late and at times wrong.

use rand::Rng;
use rand::rngs::SmallRng;

use super::{Coming, NodeId, World};
use crate::cluster::machine::{Event, Machine};
use crate::cluster::node::flag;

/// The name that all of them have together.
pub const SERVICE: &str = "redis-service.local";

/// What names mean.
pub struct Resolver {
    /// Nodes know their names, so that all may move.
    named: bool,
    /// Some answers are wrong: of others, of strangers, of nobody, or none.
    pub lies: bool,
    /// Addresses that were given out so far.
    given: usize,
}

impl Resolver {
    pub fn new(random: &mut SmallRng, count: usize, forms: bool) -> Self {
        Self {
            named: forms || random.random_ratio(3, 4),
            lies: random.random_ratio(1, 3),
            given: count,
        }
    }

    pub fn name(&self, at: usize, members: usize) -> String {
        match (self.named, at < members) {
            (true, true) => format!("redis-app-{at}.{SERVICE}"),
            (true, false) => format!("other-app-0.{SERVICE}"),
            (false, _) => String::new(),
        }
    }
}

impl World {
    /// Who is at an address.
    pub fn at_address(&self, ip: &str) -> Option<usize> {
        let mut servers = self.servers.iter();
        servers.position(|server| server.ip == ip && !ip.is_empty())
    }

    /// A server that is down comes back elsewhere: at a new address, or one that somebody had.
    pub fn unplug(&mut self, at: usize) {
        if !self.resolver.named {
            return;
        }
        self.counts.unplugged += 1;
        self.servers[at].ip.clear();
        let old = self.random.random_range(0..self.resolver.given);
        let old = address(old);
        let ip = match self.random.random() || self.at_address(&old).is_some() {
            true => {
                self.resolver.given += 1;
                address(self.resolver.given - 1)
            }
            false => old,
        };
        // Nobody answers there until it has started.
        self.servers[at].ip = ip;
    }

    /// All servers end, and come back with the addresses of others or with new ones.
    pub fn move_all(&mut self) {
        for at in 0..self.members {
            if self.servers[at].is_up() {
                self.kill(at);
                let back = self.random.random_range(100..2000);
                self.at(self.now + back, Coming::Start(at));
            }
        }
        if self.random.random() {
            for at in 0..self.members {
                self.unplug(at);
            }
        } else if self.resolver.named {
            // They change places: at each address there is another node.
            self.counts.unplugged += self.members;
            let first = self.servers[0].ip.clone();
            for at in 1..self.members {
                self.servers[at - 1].ip = self.servers[at].ip.clone();
            }
            self.servers[self.members - 1].ip = first;
        }
    }

    /// A lookup takes time, and the answer is of when it ends.
    pub fn look_up(&mut self, at: usize, id: NodeId, name: String) {
        let takes = match self.random.random_ratio(1, 10) {
            true => self.random.random_range(1000..10_000),
            false => self.random.random_range(1..100),
        };
        self.at(self.now + takes, Coming::LookedUp(at, id, name));
    }

    pub fn has_looked_up(&mut self, at: usize, id: NodeId, name: &str) {
        if !self.servers[at].runs(self.now) {
            // A process that was stopped hears of it later; one that ended does not.
            if self.servers[at].is_up() {
                let later = Coming::LookedUp(at, id, name.to_owned());
                self.at(self.servers[at].stopped_until.max(self.now + 1), later);
            }
            return;
        }
        let named = self
            .servers
            .iter()
            .filter(|server| server.is_up() && (server.name == name || name == SERVICE));
        // Whoever is another's has the same Service, by mistake.
        let mut addresses: Vec<String> = named.map(|server| server.ip.clone()).collect();
        if self.resolver.lies && self.random.random_ratio(2, 3) {
            self.counts.wrong += 1;
            let any = self.random.random_range(0..self.servers.len());
            let stranger = self.members;
            addresses = match self.random.random_range(0..5) {
                0 => Vec::new(),
                1 => vec![self.servers[any].ip.clone()],
                2 => vec![self.servers[stranger].ip.clone(), "10.9.9.9".to_owned()],
                3 => vec!["no;address".to_owned(), self.servers[at].ip.clone()],
                _ => vec![self.servers[stranger].ip.clone()],
            };
        }
        let addresses = &addresses;
        self.step(at, Event::LookedUp { id, addresses });
    }

    /// The cluster and the stranger do not know each other.
    pub fn check_strangers(&self) {
        let stranger = &self.servers[self.members];
        let id = stranger.id.expect("it has started");
        for server in self.members() {
            let machine = server.machine.as_ref().expect("the cluster is whole");
            assert!(machine.view().find(id).is_none(), "{}", self.show());
            assert!(known(machine) <= self.members, "{}", self.show());
        }
        let machine = stranger.machine.as_ref().expect("nobody stops it");
        assert_eq!(known(machine), 1, "{}", self.show());
        let me = machine.view().me();
        assert!(me.config_epoch == 0 && machine.view().current_epoch == 0);
    }
}

/// How many nodes a machine knows. Beside them it may be asking somebody for a name.
fn known(machine: &Machine) -> usize {
    let nodes = machine.view().iter();
    nodes.filter(|(_, node)| !node.is(flag::HANDSHAKE)).count()
}

fn address(number: usize) -> String {
    format!("10.0.{}.{}", number / 250, number % 250 + 1)
}
