//! What goes wrong.

use rand::Rng;

use super::{Coming, World};
use crate::cluster::orders::{Order, Takeover};

impl World {
    pub fn any(&mut self) -> usize {
        self.random.random_range(0..self.members)
    }

    /// Something happens, mostly something bad.
    pub fn disturb(&mut self) {
        let at = self.any();
        let what = self.random.random_range(0..100);
        self.tell(&format!("trouble {what} for {at}"));
        match what {
            0..25 => {
                if self.servers[at].is_up() {
                    self.kill(at);
                    if self.random.random_ratio(1, 3) {
                        self.unplug(at);
                    }
                    let back = self.random.random_range(100..self.timeout * 4);
                    self.at(self.now + back, Coming::Start(at));
                }
            }
            25..45 => self.partition(),
            45..55 => {
                let other = self.any();
                if other != at {
                    self.cut[at][other] = true;
                    self.counts.cuts += 1;
                }
            }
            55..65 => {
                let until = self.now + self.random.random_range(100..self.timeout * 3);
                self.servers[at].stopped_until = until;
            }
            65..80 => self.heal(),
            80..91 => {
                if self.order(at, Order::Failover(Takeover::Together)) {
                    self.counts.manual += 1;
                }
            }
            91..94 => self.resolver.lies ^= true,
            94..96 => self.move_all(),
            96..98 => {
                self.order(at, Order::Failover(Takeover::Force));
            }
            _ => self.servers[at].disk_delay = self.random.random_range(1..500),
        }
    }

    /// The servers fall into two groups that do not hear each other.
    pub fn partition(&mut self) {
        let count = self.servers.len();
        let side: Vec<bool> = (0..count).map(|_| self.random.random()).collect();
        for (from, row) in self.cut.iter_mut().enumerate() {
            for (to, cut) in row.iter_mut().enumerate() {
                *cut = side[from] != side[to];
            }
        }
        self.counts.cuts += 1;
    }

    pub fn heal(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }
}
