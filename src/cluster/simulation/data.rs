//! What simulated servers hold: keys that are there from the beginning, on every server of their shard, and
//! go from shard to shard as redis-cli moves slots. Whatever happens, none of them may be lost.
//!
//! Replication is asynchronous: a key that has just come may be lost with the server that it came to, as
//! with Redis. Such losses are told apart by who won the election.

use rand::Rng;

use super::super::orders::{Order, SlotState};
use super::{Coming, TICK, World};

/// Keys of each slot that is looked at.
const KEYS: u32 = 4;

/// A slot on its way, as redis-cli moves one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    slot: u16,
    from: usize,
    to: usize,
    step: Step,
    /// Failures until whoever moves it gives up.
    patience: u32,
    /// It goes on.
    active: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Import,
    Migrate,
    Keys,
    Take,
    Give,
}

impl World {
    /// The slots that have keys.
    fn slots(&self) -> Vec<u16> {
        let parts = 0..self.primaries;
        parts.map(|part| self.first_slot(part)).collect()
    }

    /// Keys of a slot.
    fn keys_of(slot: u16) -> impl Iterator<Item = u32> {
        (0..KEYS).map(move |key| u32::from(slot) * KEYS + key)
    }

    /// Gives every slot its keys, and waits until the replicas have them.
    pub(super) fn fill(&mut self) {
        for slot in self.slots() {
            let owner = self.owner_of(slot);
            let owner = &mut self.servers[owner];
            owner.keys.insert(slot, Self::keys_of(slot).collect());
            owner.offset += i64::from(KEYS);
        }
        let replicas = self.members - self.primaries;
        self.await_all("replicas have all keys", |world| {
            let followers = world
                .servers
                .iter()
                .filter(|server| server.follows.is_some());
            if followers.count() < replicas {
                return false;
            }
            (0..world.members).all(|at| {
                let server = &world.servers[at];
                let machine = server.machine.as_ref().expect("nobody was killed");
                let of = world.primary_of(at).map(|of| &world.servers[of].keys);
                !machine.view().me().is_replica() || of == Some(&server.keys)
            })
        });
    }

    /// Who has a slot, in a cluster that is whole.
    pub(super) fn owner_of(&self, slot: u16) -> usize {
        let machine = self.servers[0].machine.as_ref().expect("it is whole");
        let view = machine.view();
        let owner = view.owner(slot).map(|owner| view.node(owner).id);
        let owner = self.servers.iter().position(|server| server.id == owner);
        owner.expect("every slot has an owner")
    }

    /// The server that a replica copies.
    pub(super) fn primary_of(&self, at: usize) -> Option<usize> {
        let ip = self.servers[at].follows.as_ref()?;
        // Whoever else lives there is not copied: the bus says so before data comes.
        let primary = self.servers[at].machine.as_ref().map(|machine| {
            let view = machine.view();
            view.node(view.my_primary()).id
        });
        let there = self.at_address(ip);
        there.filter(|there| self.servers[*there].id == primary)
    }

    /// What a replica copies of its primary, and what clients write to a primary.
    pub(super) fn replicate(&mut self, at: usize) {
        let Some(machine) = &self.servers[at].machine else {
            return;
        };
        if machine.view().me().is_primary() {
            let serves = !machine.fails() && self.servers[at].paused_until < self.now;
            self.servers[at].offset += i64::from(serves);
            return;
        }
        let Some(of) = self.primary_of(at) else {
            return;
        };
        let lends = |server: &super::Server| {
            let machine = server.machine.as_ref();
            machine.is_some_and(|machine| !machine.is_reborn())
        };
        let reaches = self.reaches(at, of) && lends(&self.servers[of]);
        self.servers[at].copies = reaches;
        if reaches {
            self.servers[at].offset = self.servers[of].offset;
            self.servers[at].keys = self.servers[of].keys.clone();
            self.servers[at].heard = Some(self.now);
            self.servers[at].source = Some(of);
        }
    }

    /// `winner` is where `before` led: what had come to that and not yet to the winner is lost, as it may be.
    pub(super) fn excuse(&mut self, winner: usize, before: usize) {
        let slots = self.slots();
        for key in slots.into_iter().flat_map(Self::keys_of) {
            let slot = (key / KEYS) as u16;
            let has = |at: usize| {
                let keys = self.servers[at].keys.get(&slot);
                keys.is_some_and(|keys| keys.contains(&key))
            };
            if self.moved.contains(&key) && has(before) && !has(winner) {
                self.excused.insert(key);
            }
        }
    }

    /// Somebody begins to move a slot.
    pub(super) fn begin_move(&mut self) {
        let slots = self.slots();
        let slot = slots[self.random.random_range(0..slots.len())];
        let count = self.servers.len();
        let from = (0..count).find(|at| self.serves(*at, slot));
        let to = self.random.random_range(0..count);
        let leads = |at: usize| {
            let machine = self.servers[at].machine.as_ref();
            machine.is_some_and(|machine| machine.view().me().is_primary())
        };
        let Some(from) = from else {
            return;
        };
        let moves = self
            .moves
            .iter()
            .any(|other| other.active && other.slot == slot);
        if from == to || !leads(to) || moves {
            return;
        }
        self.counts.moves += 1;
        let begun = Move {
            slot,
            from,
            to,
            step: Step::Import,
            patience: self.random.random_range(1..5),
            active: true,
        };
        self.moves.push(begun);
        self.at(self.now, Coming::Move(self.moves.len() - 1));
    }

    /// The next step of a move.
    pub(super) fn go_on(&mut self, number: usize) {
        let mut this = self.moves[number];
        match self.take_step(this) {
            Ok(Some(step)) => this.step = step,
            Ok(None) => {
                self.counts.moved += 1;
                self.moves[number].active = false;
                return;
            }
            Err(()) if this.patience == 0 => {
                self.moves[number].active = false;
                return;
            }
            Err(()) => this.patience -= 1,
        }
        self.moves[number] = this;
        let mut pause = self.random.random_range(1..30);
        if matches!(this.step, Step::Give) {
            // Who took the slot answers when that is on its disk.
            pause += self.servers[this.to].disk_delay;
        }
        self.at(self.now + pause, Coming::Move(number));
    }

    fn take_step(&mut self, this: Move) -> Result<Option<Step>, ()> {
        let Move { slot, from, to, .. } = this;
        let id = |at: usize| self.servers[at].id.ok_or(());
        let (from_id, to_id) = (id(from)?, id(to)?);
        let (whom, state, next) = match this.step {
            Step::Import => (to, SlotState::Importing(from_id), Step::Migrate),
            Step::Migrate => (from, SlotState::Migrating(to_id), Step::Keys),
            Step::Keys => {
                let more = self.move_key(this)?;
                return Ok(Some(if more { Step::Keys } else { Step::Take }));
            }
            Step::Take => (to, SlotState::Node(to_id), Step::Give),
            Step::Give if !self.owns(to, slot) => return Err(()),
            Step::Give => (from, SlotState::Node(to_id), Step::Give),
        };
        if !self.servers[whom].runs(self.now) {
            return Err(());
        }
        let keys = self.servers[whom]
            .keys
            .get(&slot)
            .map_or(0, |keys| keys.len()) as u64;
        match self.order(whom, Order::SetSlot { slot, state, keys }) {
            true if matches!(this.step, Step::Give) => Ok(None),
            true => Ok(Some(next)),
            false => Err(()),
        }
    }

    /// A server has a slot, as far as it knows.
    fn owns(&self, at: usize, slot: u16) -> bool {
        let machine = self.servers[at].machine.as_ref();
        machine.is_some_and(|machine| {
            let view = machine.view();
            view.owner(slot) == Some(view.myself())
        })
    }

    /// Moves one key; false when there is none left.
    fn move_key(&mut self, this: Move) -> Result<bool, ()> {
        let Move { slot, from, to, .. } = this;
        let takes = |at: usize| {
            let machine = self.servers[at].machine.as_ref();
            machine.is_some_and(|machine| {
                let view = machine.view();
                let owns = view.owner(slot) == Some(view.myself());
                let open = owns || view.importing.contains_key(&slot);
                view.me().is_primary() && open && !machine.fails()
            })
        };
        if !self.serves(from, slot) || !self.reaches(from, to) || !takes(to) {
            return Err(());
        }
        let Some(key) = self.servers[from]
            .keys
            .get(&slot)
            .and_then(|keys| keys.first().copied())
        else {
            return Ok(false);
        };
        self.servers[to].keys.entry(slot).or_default().insert(key);
        self.servers[to].offset += 1;
        self.servers[from].drop_key(slot, key);
        self.servers[from].offset += 1;
        self.moved.insert(key);
        Ok(true)
    }

    /// What `redis-cli --cluster fix` does with slots that somebody began to move: who has the slot gets all its
    /// keys, and nothing stays open.
    fn fix(&mut self) {
        for slot in self.slots() {
            let owner = self.owner_of(slot);
            for at in 0..self.members {
                let machine = self.servers[at].machine.as_ref().expect("it is whole");
                if at == owner || machine.view().me().is_replica() {
                    continue;
                }
                let keys = self.servers[at].keys.remove(&slot).unwrap_or_default();
                self.servers[owner]
                    .keys
                    .entry(slot)
                    .or_default()
                    .extend(keys);
                let state = SlotState::Stable;
                self.order(
                    at,
                    Order::SetSlot {
                        slot,
                        state,
                        keys: 0,
                    },
                );
            }
            let state = SlotState::Stable;
            assert!(self.order(
                owner,
                Order::SetSlot {
                    slot,
                    state,
                    keys: 0
                }
            ));
        }
    }

    /// Nothing is lost: all keys are where their slot is.
    pub(super) fn check_keys(&mut self) {
        self.fix();
        self.run_until(self.now + 10 * TICK);
        for slot in self.slots() {
            let owner = self.owner_of(slot);
            let held = self.servers[owner].keys.get(&slot);
            let lost = Self::keys_of(slot).filter(|key| {
                let there = held.is_some_and(|keys| keys.contains(key));
                !there && !self.excused.contains(key)
            });
            let lost: Vec<u32> = lost.collect();
            assert!(
                lost.is_empty(),
                "keys {lost:?} of slot {slot} are lost; {:?}\n{}",
                self.moves,
                self.show()
            );
        }
    }

    /// A primary dies with its data and comes back without, sooner or later.
    pub(super) fn lose_data(&mut self) {
        let at = self.owner_of(self.first_slot(0));
        self.kill(at);
        self.servers[at].keys.clear();
        self.servers[at].offset = 0;
        let back = self.random.random_range(1..self.timeout * 2);
        self.at(self.now + back, Coming::Start(at));
        self.run_until(self.now + back + 1);
    }
}
