//! Replacing a primary: elections, votes, manual failover, and replicas that move to orphans.

use rand::Rng;

use super::machine::{Action, Election, Facts, Hindrance, Machine, Manual};
use super::node::{Node, NodeIndex, flag};
use super::wire::{Body, Header, Kind, message_flag};

/// How long a manual failover may take, in milliseconds.
pub const MANUAL_TIMEOUT: i64 = 5000;
/// Times that, after which a primary's clients go on in any case.
const PAUSE_FACTOR: i64 = 2;
/// How long a primary has to be an orphan before a replica moves to it, in milliseconds.
const MIGRATION_DELAY: i64 = 5000;
/// Delay for each replica that has more, or each failed primary that comes first, in milliseconds.
const RANK_DELAY: i64 = 1000;
const SHARD_DELAY: i64 = 100;
/// How long the first in rank waits at most until the others of its shard have told what they have, in
/// milliseconds.
const HEARING: i64 = 500;
/// After how long it is said again why a failed primary is not replaced, in milliseconds.
const RELOG: i64 = 300_000;

impl Machine {
    /// How many replicas of our primary have more than we have; of those that have as much, the one with
    /// the smallest name comes first.
    fn rank(&self) -> i64 {
        let (mine, me) = (self.facts.offset, self.view.me());
        let ahead = self
            .siblings()
            .filter(|node| node.offset > mine || node.offset == mine && node.id < me.id);
        ahead.count() as i64
    }

    /// The other replicas of our primary that may replace it.
    fn siblings(&self) -> impl Iterator<Item = &Node> {
        let primary = self.view.me().primary;
        let replicas = primary.map(|primary| &self.view.node(primary).replicas);
        let replicas = replicas.into_iter().flatten();
        let nodes = replicas.map(|index| self.view.node(*index));
        nodes.filter(|node| !node.is(flag::MYSELF | flag::NO_FAILOVER | flag::FAILED))
    }

    /// A sibling has said what it has since our primary has failed. What it said before may be less than what
    /// it has: a write that only it has confirmed would be lost if we stood first.
    fn has_told(&self, sibling: &Node) -> bool {
        let primary = self.view.me().primary;
        let failed = primary.map_or(0, |primary| self.view.node(primary).fail_time);
        sibling.data_received >= failed
    }

    /// How many failed primaries come before ours: two elections at once would take each other's votes.
    fn shard_rank(&self) -> i64 {
        let Some(primary) = self.view.me().primary else {
            return 0;
        };
        let ours = self.view.node(primary).id;
        let failed = self.view.voters().filter(|(_, node)| node.has_failed());
        failed.filter(|(_, node)| node.id < ours).count() as i64
    }

    /// Times for an election, in milliseconds: how long votes are waited for, and after how long it may be
    /// tried again.
    fn election_times(&self) -> (i64, i64) {
        let timeout = (2 * self.timeout()).max(2000);
        (timeout, 2 * timeout)
    }

    /// Replaces our primary, if it has failed and most primaries agree.
    pub(super) fn failover(&mut self) {
        self.todo.failover = false;
        let manual = self.manual.end != 0 && self.manual.may_start;
        let me = self.view.me();
        let needed = me.is_replica()
            && me.primary.is_some_and(|primary| {
                let primary = self.view.node(primary);
                (primary.has_failed() || manual) && !primary.slots.is_empty()
            })
            && (!self.settings.cluster_replica_no_failover || manual);
        if !needed {
            self.hindrance = Hindrance::None;
            return;
        }
        if self.view.is_foreign || !manual && self.is_too_old() {
            return self.hindered_by(Hindrance::DataAge);
        }
        let (timeout, retry) = self.election_times();
        let now = self.facts.now;
        let age = now - self.election.at;
        let again = self.election.at == 0 || age > retry || self.lost();
        if again {
            return self.plan_election();
        }
        if !self.election.asked && self.manual.end == 0 {
            let rank = self.rank();
            if rank > self.election.rank {
                let added = (rank - self.election.rank) * RANK_DELAY;
                self.election.at += added;
                self.election.rank = rank;
                tracing::warn!(
                    "Replica rank updated to #{rank}, added {added} milliseconds of delay."
                );
            }
        }
        let unheard =
            self.election.at + HEARING > now && self.siblings().any(|n| !self.has_told(n));
        if now < self.election.at || !self.election.asked && self.manual.end == 0 && unheard {
            return self.hindered_by(Hindrance::Delay);
        }
        if age > timeout {
            return self.hindered_by(Hindrance::Expired);
        }
        if !self.election.asked {
            return self.ask_for_votes();
        }
        if self.election.votes.len() >= self.view.quorum() {
            self.win();
        } else {
            self.hindered_by(Hindrance::Votes);
        }
    }

    /// Our data is older than we may replace a primary with.
    fn is_too_old(&self) -> bool {
        let timeout = self.timeout();
        let factor = i64::from(self.settings.cluster_replica_validity_factor);
        let mut age = self.facts.silence_ms;
        if age > timeout {
            age -= timeout;
        }
        let allowed = i64::from(self.settings.repl_ping_replica_period) * 1000 + timeout * factor;
        factor != 0 && age > allowed
    }

    /// Others were elected in our epoch, or have taken the votes that we would have needed: there is no
    /// use in waiting.
    fn lost(&self) -> bool {
        self.election.asked
            && self.election.collided
            && self.election.votes.len() < self.view.quorum()
            && self.facts.now - self.election.at > self.timeout().clamp(100, 500)
    }

    fn plan_election(&mut self) {
        let now = self.facts.now;
        let rank = self.rank();
        let again = self.election.collided;
        let manual = self.manual.end != 0;
        let mut delay = rank * RANK_DELAY + self.shard_rank() * SHARD_DELAY;
        if rank > 0 {
            // Whoever comes first is to have time.
            delay += 500 + self.random.random_range(0..500);
        }
        if again {
            delay += self.random.random_range(20..300);
        }
        if manual {
            delay = 0;
        }
        self.election = Election {
            at: now + delay,
            rank: if manual { 0 } else { rank },
            ..Election::default()
        };
        tracing::warn!(
            "Start of election delayed for {delay} milliseconds (rank #{}, offset {}).",
            self.election.rank,
            self.facts.offset
        );
        self.tell_siblings();
        self.todo.failover |= delay == 0;
    }

    /// The others of the shard are to know what we have, and to answer with what they have.
    fn tell_siblings(&mut self) {
        let told = self.siblings().filter_map(|node| {
            let kind = match node.ping_sent {
                0 => Kind::Ping,
                _ => Kind::Pong,
            };
            Some((node.link?, kind))
        });
        for (link, kind) in told.collect::<Vec<_>>() {
            self.send_ping(link, kind);
        }
    }

    fn ask_for_votes(&mut self) {
        self.view.current_epoch += 1;
        self.election.epoch = self.view.current_epoch;
        self.election.asked = true;
        let manual = self.manual.end != 0;
        tracing::warn!(
            "Starting a failover election for epoch {}.",
            self.election.epoch
        );
        self.promise();
        self.todo.state = true;
        if !manual && let Some(primary) = self.view.me().primary {
            // Who has not heard of it yet would refuse.
            let failed = Body::Fail(self.view.node(primary).id);
            let message = self.message(Kind::Fail, failed);
            self.broadcast(&message, true, |_| true);
        }
        let mut message = self.message(Kind::AuthRequest, Body::Nothing);
        if manual {
            message.header.message_flags |= message_flag::FORCE;
        }
        self.broadcast(&message, true, |_| true);
    }

    fn win(&mut self) {
        tracing::warn!("Failover election won: I'm the new master.");
        let epoch = self.election.epoch;
        let me = self.view.me_mut();
        if me.config_epoch < epoch {
            me.config_epoch = epoch;
            tracing::warn!("configEpoch set to {epoch} after successful failover");
        }
        self.replace_primary();
    }

    /// Takes our primary's place. This node's epoch is new.
    pub(super) fn replace_primary(&mut self) {
        let me = self.view.myself();
        let Some(old) = self.view.me().primary else {
            return;
        };
        self.view.promote(me);
        for slot in self.view.node(old).slots.clone().iter() {
            self.view.assign(slot, me);
        }
        self.election = Election::default();
        self.promise();
        self.update_state();
        self.todo.state = true;
        self.broadcast_pong(|_, _| true);
        self.end_manual();
    }

    fn hindered_by(&mut self, reason: Hindrance) {
        let now = self.facts.now;
        if reason == self.hindrance && now - self.hindrance_logged < RELOG {
            return;
        }
        self.hindrance = reason;
        let primary = self.view.me().primary.map(|index| self.view.node(index));
        let recent = primary.is_some_and(|primary| {
            primary.has_failed() && now - primary.fail_time < self.timeout() + 5000
        });
        if recent {
            return;
        }
        let text = match reason {
            Hindrance::DataAge => {
                "Disconnected from master for longer than allowed. Please check the \
                 'cluster-replica-validity-factor' configuration option."
            }
            Hindrance::Delay => "Waiting the delay before I can start a new failover.",
            Hindrance::Expired => "Failover attempt expired.",
            Hindrance::Votes => "Waiting for votes, but majority still not reached.",
            Hindrance::None => return,
        };
        self.hindrance_logged = now;
        tracing::warn!("Currently unable to failover: {text}");
    }

    /// Votes for the replica that asks, if it may replace its primary.
    pub(super) fn vote(&mut self, candidate: NodeIndex, request: &Header) {
        self.notice_rival(candidate, request);
        let me = self.view.me();
        if me.is_replica() || me.slots.is_empty() {
            return;
        }
        let current = self.view.current_epoch;
        let node = self.view.node(candidate);
        let id = node.id;
        let refuse = |reason: String| tracing::warn!("Failover auth denied to {id}: {reason}");
        // It may have been replaced itself: then its place has another vote.
        if !self.reaches_majority() {
            return refuse("I do not reach most masters".to_owned());
        }
        if request.current_epoch < current {
            return refuse(format!(
                "reqEpoch ({}) < curEpoch({current})",
                request.current_epoch
            ));
        }
        if self.view.last_vote_epoch == current {
            return refuse(format!("already voted for epoch {current}"));
        }
        if node.is_primary() {
            return refuse("it is a master node".to_owned());
        }
        let Some(primary) = node.primary else {
            return refuse("I don't know its master".to_owned());
        };
        let failing = self.view.node(primary);
        if !failing.has_failed() && request.message_flags & message_flag::FORCE == 0 {
            return refuse("its master is up".to_owned());
        }
        // Who lost an election only because others stood at the same time may try again at once.
        let since = self.facts.now - failing.voted_at;
        let wait = 2 * self.timeout() - since;
        if failing.voted_at != 0 && wait > 0 && failing.voted_for != Some(id) {
            return refuse(format!(
                "can't vote about this master before {wait} milliseconds"
            ));
        }
        let newer = request.slots.iter().find_map(|slot| {
            let epoch = self.view.epoch_of(slot)?;
            let newer = !self.view.is_unclaimed(slot) && epoch > request.config_epoch;
            newer.then_some((slot, epoch))
        });
        if let Some((slot, epoch)) = newer {
            // It may be our candidate's own primary that had a new epoch and died before it told it. Who
            // does not hear of it from us would be refused for ever.
            if let Some(owner) = self.view.owner(slot) {
                self.send_update(candidate, owner);
            }
            return refuse(format!(
                "slot {slot} epoch ({epoch}) > reqEpoch ({})",
                request.config_epoch
            ));
        }
        self.view.last_vote_epoch = current;
        let now = self.facts.now;
        let failing = self.view.node_mut(primary);
        failing.voted_at = now;
        failing.voted_for = Some(id);
        self.todo.save = true;
        self.todo.durable = true;
        let message = self.message(Kind::AuthAck, Body::Nothing);
        if let Some(link) = self.view.node(candidate).link {
            self.send(link, &message, true);
        }
        tracing::warn!("Failover auth granted to {id} for epoch {current}");
    }

    /// Somebody else stands for election in our epoch.
    fn notice_rival(&mut self, candidate: NodeIndex, request: &Header) {
        let ours = self.view.me().primary;
        let other = self.view.node(candidate).primary;
        if self.election.asked && request.current_epoch >= self.election.epoch && other != ours {
            self.election.collided = true;
        }
    }

    pub(super) fn take_vote(&mut self, voter: NodeIndex, header: &Header) {
        let node = self.view.node(voter);
        let counts = node.is_primary()
            && !node.slots.is_empty()
            && self.election.asked
            && header.current_epoch >= self.election.epoch;
        if counts {
            self.election.votes.insert(voter);
            self.todo.failover = true;
        }
    }

    /// A replica asks this primary to stop, so that it can take over with all data.
    pub(super) fn take_manual_request(&mut self, replica: NodeIndex) {
        if self.view.node(replica).primary != Some(self.view.myself()) || self.hands_over() {
            return;
        }
        self.end_manual();
        let now = self.facts.now;
        self.manual = Manual {
            end: now + MANUAL_TIMEOUT,
            replica: Some(replica),
            ..Manual::default()
        };
        self.act(Action::Pause {
            until: now + MANUAL_TIMEOUT * PAUSE_FACTOR,
        });
        tracing::warn!(
            "Manual failover requested by replica {}.",
            self.view.node(replica).id
        );
    }

    /// Clients wait, as was asked for with [`Action::Pause`]: where the stream ends is told from now on.
    pub fn has_paused(&mut self, facts: Facts) -> Vec<Action> {
        self.within(facts, |machine| {
            let Some(replica) = machine.manual.replica else {
                return;
            };
            machine.manual.stopped = true;
            if let Some(link) = machine.view.node(replica).link {
                machine.send_ping(link, Kind::Ping);
            }
        })
        .1
    }

    /// Goes on with a manual failover on the replica's side.
    pub(super) fn manual_failover(&mut self) {
        let (Some(offset), false) = (self.manual.primary_offset, self.manual.may_start) else {
            return;
        };
        if self.manual.end == 0 {
            return;
        }
        if offset == self.facts.offset && !self.view.is_foreign {
            self.manual.may_start = true;
            tracing::warn!("All master replication stream processed, manual failover can start.");
            self.todo.failover = true;
        } else {
            self.todo.manual = true;
        }
    }

    pub(super) fn give_up_manual(&mut self) {
        if self.manual.end != 0 && self.manual.end < self.facts.now {
            tracing::warn!("Manual failover timed out.");
            self.end_manual();
        }
    }

    /// Ends a manual failover, whatever came of it.
    pub(super) fn end_manual(&mut self) {
        if self.manual.replica.is_some() {
            self.act(Action::Resume);
        }
        self.manual = Manual::default();
    }

    /// Moves to a primary that has lost its replicas, if this is the replica to do so.
    pub(super) fn move_to_orphan(&mut self, most: usize) {
        let Some(ours) = self.view.me().primary else {
            return;
        };
        let ill = flag::FAILED | flag::SUSPECTED;
        let siblings = self.view.node(ours).replicas.iter();
        let working = siblings
            .filter(|index| !self.view.node(**index).is(ill))
            .count();
        let barrier = self.settings.cluster_migration_barrier;
        if self.fails || working as i64 <= i64::from(barrier) {
            return;
        }
        let now = self.facts.now;
        let (mut target, mut candidate) = (None, self.view.me().id);
        for index in self.view.indexes() {
            let node = self.view.node(index);
            let working = match node.is_primary() {
                true => self.view.working_replicas(node),
                false => 0,
            };
            let orphaned = node.is_primary()
                && !node.has_failed()
                && node.is(flag::MIGRATE_TO)
                && working == 0;
            if working == most {
                let replicas = node
                    .replicas
                    .iter()
                    .map(|replica| self.view.node(*replica).id);
                candidate = replicas.fold(candidate, std::cmp::min);
            }
            if orphaned && target.is_none() && !node.slots.is_empty() {
                target = Some(index);
            }
            let node = self.view.node_mut(index);
            node.orphaned_since = match (orphaned, node.orphaned_since) {
                (false, _) => 0,
                (true, 0) => now,
                (true, since) => since,
            };
        }
        let Some(target) = target else {
            return;
        };
        let node = self.view.node(target);
        if candidate == self.view.me().id && now - node.orphaned_since > MIGRATION_DELAY {
            tracing::warn!("Migrating to orphaned master {}", node.id);
            self.replicate(target);
        }
    }
}
