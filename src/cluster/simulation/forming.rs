//! Clusters that form by themselves, and pods that lose their volumes.

use rand::Rng;

use super::{Coming, TICK, World};
use crate::cluster::node::flag;
use crate::cluster::orders::Order;
use crate::cluster::slots::SLOTS;

impl World {
    /// Forms the cluster, as redis-cli does, or has it form by itself.
    pub fn form(&mut self) {
        if self.forms {
            return self.form_alone();
        }
        self.run_until(self.now + 200);
        let parts: Vec<u16> = (0..=self.primaries)
            .map(|part| (part * SLOTS / self.primaries) as u16)
            .collect();
        for at in 0..self.primaries {
            self.order(at, Order::SetConfigEpoch(at as i64 + 1));
            let slots = (parts[at]..parts[at + 1]).collect();
            assert!(self.order(at, Order::AddSlots(slots)));
        }
        let meet = Order::Meet {
            ip: self.servers[0].ip.clone(),
            port: 6379,
            bus_port: 16379,
        };
        for at in 1..self.members {
            assert!(self.order(at, meet.clone()));
        }
        let all = self.members;
        self.await_all("all know each other", |world| {
            world.members().all(|server| {
                let machine = server.machine.as_ref().expect("nobody was killed");
                machine.view().count() == all
                    && machine
                        .view()
                        .iter()
                        .all(|(_, node)| !node.is(flag::HANDSHAKE))
            })
        });
        for at in self.primaries..all {
            let primary = at % self.primaries;
            let machine = self.servers[primary].machine.as_ref().expect("it is up");
            let id = machine.view().me().id;
            let order = Order::Replicate {
                primary: id,
                empty: true,
            };
            assert!(self.order(at, order));
        }
        self.await_whole();
    }

    /// Pods start when they like, end again, do not hear each other for a while, and are one cluster at the end.
    pub fn form_alone(&mut self) {
        self.counts.formed += 1;
        for at in 0..self.members {
            if self.random.random_ratio(1, 3) {
                self.kill(at);
                let lost = self.random.random_ratio(1, 2);
                if lost {
                    self.lose(at);
                }
                let back = self.random.random_range(100..5000);
                self.at(self.now + back, Coming::Start(at));
            }
        }
        if self.random.random() {
            self.partition();
            let apart = self.random.random_range(100..15_000);
            self.run_until(self.now + apart);
            self.check_founders();
            self.heal();
        }
        self.resolver.lies = false;
        self.await_whole();
        self.check_founders();
    }

    /// No slot was taken by two, and whoever has slots has its own part of them.
    fn check_founders(&self) {
        for part in 0..self.primaries {
            let slot = self.first_slot(part);
            let owners = self.members().filter(|server| {
                let machine = server.machine.as_ref();
                machine.is_some_and(|machine| machine.view().me().slots.has(slot))
            });
            assert!(owners.count() <= 1, "{}", self.show());
        }
    }

    fn lose(&mut self, at: usize) {
        self.servers[at].disk = None;
        self.servers[at].votes.clear();
        self.servers[at].offset = 0;
        self.servers[at].keys.clear();
    }

    /// A pod comes back with its name and nothing else: all is as before, and its old id is forgotten.
    pub fn lose_volume(&mut self) {
        // Else what is lost may have been nowhere else, and nobody takes over.
        self.await_all("replicas have copied", |world| {
            let mut followers = world.members().filter(|server| server.follows.is_some());
            followers.all(|server| server.copies)
        });
        let at = self.any();
        let old = self.servers[at].id.expect("it has started");
        self.kill(at);
        self.lose(at);
        if self.random.random() {
            self.unplug(at);
        }
        let back = self.random.random_range(TICK..self.timeout * 3);
        self.at(self.now + back, Coming::Start(at));
        self.run_until(self.now + back);
        self.await_all("the old id is forgotten", |world| {
            world.members().all(|server| {
                let machine = server.machine.as_ref();
                machine.is_some_and(|machine| machine.view().find(old).is_none())
            })
        });
        self.await_whole();
        self.await_all("the pod has its place", |world| {
            let machine = world.servers[at].machine.as_ref().expect("it is up");
            let view = machine.view();
            let fails = view
                .iter()
                .any(|(_, node)| node.is(flag::FAILED | flag::HANDSHAKE));
            view.me().is_replica() && view.count() == world.members && !fails
        });
    }
}
