//! What time brings: connections, PINGs, suspicion, and whether the cluster works.

use super::machine::{Action, Machine};
use super::node::{LinkId, Node, NodeIndex, flag};
use super::wire::{Body, Kind};

/// For how long a primary that has just started does not serve, in milliseconds: others may have replaced
/// it meanwhile.
pub(super) const WRITABLE_DELAY: i64 = 2000;
/// A tick that is later than this is no mere delay, in milliseconds.
const LATE: i64 = 500;
/// Bounds of how long a primary that was among the minority does not serve.
const REJOIN_DELAY: (i64, i64) = (500, 5000);

/// What a look at all nodes found, for the migration of replicas.
#[derive(Default)]
pub(super) struct Orphans {
    /// Primaries that had replicas and have none that works.
    pub orphaned: usize,
    /// The most working replicas that a primary has.
    pub most: usize,
    /// Those of our primary.
    pub ours: usize,
}

impl Machine {
    pub(super) fn pass_time(&mut self) {
        self.notice_stall();
        self.ticks += 1;
        for index in self.view.indexes() {
            self.tend_connection(index);
        }
        self.look_up_lost();
        self.form();
        if self.ticks % 10 == 1 {
            self.ping_somebody();
            self.close_strangers();
        }
        let orphans = self.look_at_nodes();
        self.forget_old();
        self.give_up_manual();
        self.tend_reborn();
        if self.view.is_foreign && self.facts.copies {
            self.view.is_foreign = false;
            self.todo.save = true;
        }
        if self.view.me().is_replica() {
            self.manual_failover();
            self.failover();
            let may_move = self.settings.cluster_allow_replica_migration
                && orphans.orphaned > 0
                && orphans.most >= 2
                && orphans.ours == orphans.most;
            if may_move {
                self.move_to_orphan(orphans.most);
            }
        }
        let unanswered = self.view.voters().any(|(_, voter)| !self.answers(voter));
        self.todo.look |= self.fails || unanswered;
    }

    /// A node is one of those who decide.
    fn votes(&self, node: &Node) -> bool {
        node.is_primary() && !node.slots.is_empty()
    }

    /// A node has not left us waiting for an answer. What else it sends does not count here: it may not
    /// hear us.
    fn answers(&self, node: &Node) -> bool {
        let heard = node.answered >= self.awake_since || node.is(flag::MYSELF);
        heard
            && !node.is(flag::FAILED | flag::SUSPECTED)
            && (node.ping_sent == 0 || self.facts.now - node.ping_sent <= self.timeout())
    }

    /// Most of those who decide answer.
    pub(super) fn reaches_majority(&self) -> bool {
        let reachable = self.view.voters().filter(|(_, node)| self.answers(node));
        reachable.count() >= self.view.quorum()
    }

    /// After this process has stood still, silence is nobody else's fault; and somebody may have taken
    /// our slots.
    fn notice_stall(&mut self) {
        let now = self.facts.now;
        let since = now - std::mem::replace(&mut self.last_tick, now);
        if since == now || since < (self.timeout() / 2).max(LATE) {
            return;
        }
        for index in self.view.indexes() {
            let node = self.view.node_mut(index);
            if node.ping_sent != 0 {
                node.ping_sent += since;
            }
        }
        let me = self.view.me();
        let alone = self.view.size() <= 1;
        if since > self.timeout().max(2 * LATE) && me.is_primary() && !me.slots.is_empty() && !alone
        {
            tracing::warn!("This node has stood still for {since} milliseconds");
            self.minority_at = now;
            self.set_fails(true);
            // What was answered meanwhile says nothing of now: everybody is asked anew.
            self.awake_since = now;
            for index in self.view.indexes() {
                if let Some(link) = self.view.node(index).link {
                    self.close(link);
                }
            }
        }
    }

    fn tend_connection(&mut self, index: NodeIndex) {
        let now = self.facts.now;
        let node = self.view.node(index);
        if node.is(flag::MYSELF | flag::NO_ADDRESS) {
            return;
        }
        let patience = self.timeout().max(1000);
        if node.is(flag::HANDSHAKE) && now - node.known_since > patience {
            self.remove_node(index);
            return;
        }
        if node.link.is_none() && !node.ip.is_empty() {
            self.connect(index);
        }
    }

    /// Closes connections of those who have not become known: whoever wants to be a node introduces itself.
    fn close_strangers(&mut self) {
        let since = self.facts.now - 2 * self.timeout().max(1000);
        let strangers = self
            .links
            .iter()
            .filter(|(_, link)| link.inbound && link.node.is_none() && link.since < since);
        let strangers: Vec<LinkId> = strangers.map(|(id, _)| *id).collect();
        for link in strangers {
            self.close(link);
        }
    }

    /// Of five nodes by chance, who has answered least recently.
    fn ping_somebody(&mut self) {
        let mut oldest: Option<NodeIndex> = None;
        for _ in 0..5 {
            let Some(index) = self.random_node() else {
                continue;
            };
            let node = self.view.node(index);
            let passes = node.link.is_some()
                && node.ping_sent == 0
                && !node.is(flag::MYSELF | flag::HANDSHAKE);
            let older = |than: NodeIndex| self.view.node(than).pong_received > node.pong_received;
            if passes && oldest.is_none_or(older) {
                oldest = Some(index);
            }
        }
        if let Some(link) = oldest.and_then(|index| self.view.node(index).link) {
            self.send_ping(link, Kind::Ping);
        }
    }

    /// Pings who has not answered for long, and suspects who does not answer.
    fn look_at_nodes(&mut self) -> Orphans {
        let mut orphans = Orphans::default();
        let mut suspects = Vec::new();
        for index in self.view.indexes() {
            let node = self.view.node(index);
            if node.is(flag::MYSELF | flag::HANDSHAKE) {
                continue;
            }
            let me = self.view.me();
            if me.is_replica() && node.is_primary() && !node.has_failed() {
                let working = self.view.working_replicas(node);
                let wants = working == 0 && !node.slots.is_empty() && node.is(flag::MIGRATE_TO);
                orphans.orphaned += usize::from(wants);
                orphans.most = orphans.most.max(working);
                if me.primary == Some(index) {
                    orphans.ours = working;
                }
            }
            if self.tend_node(index) {
                suspects.push(index);
            }
        }
        if !suspects.is_empty() {
            self.suspect(&suspects);
        }
        orphans
    }

    /// Sends what is due to a node; true when it has not answered for so long that it may have failed.
    fn tend_node(&mut self, index: NodeIndex) -> bool {
        let (now, timeout) = (self.facts.now, self.timeout());
        let node = self.view.node(index);
        let waited = now - node.ping_sent;
        let silent = now - node.data_received;
        if let Some(link) = node.link
            && node.ping_sent != 0
            && waited > timeout / 2
            && silent > timeout / 2
            && self
                .links
                .get(&link)
                .is_some_and(|link| now - link.since > timeout)
        {
            // The connection may be what has failed.
            self.close(link);
        }
        let node = self.view.node(index);
        let connected = node
            .link
            .filter(|link| self.links.get(link).is_some_and(|link| link.connected));
        if let Some(link) = connected {
            // That others have heard of it will do, but not between those who make up the majority.
            let heard = match self.votes(self.view.me()) && self.votes(node) {
                true => node.answered.min(node.pong_received),
                false => node.pong_received,
            };
            let due = node.ping_sent == 0 && now - heard > timeout / 2;
            let hurries = self.manual.end != 0
                && self.view.me().is_primary()
                && self.manual.replica == Some(index);
            if due || hurries {
                self.send_ping(link, Kind::Ping);
                return false;
            }
        }
        if node.ping_sent == 0 {
            return false;
        }
        waited.min(silent) > timeout && !node.is(flag::SUSPECTED | flag::FAILED)
    }

    /// Suspects nodes, and tells the other primaries at once.
    fn suspect(&mut self, suspects: &[NodeIndex]) {
        for index in suspects {
            let node = self.view.node_mut(*index);
            tracing::debug!("*** NODE {} possibly failing", node.id);
            node.flags |= flag::SUSPECTED;
        }
        self.todo.state = true;
        if self.view.me().is_primary() {
            self.broadcast_pong(|machine, index| machine.view.node(index).is_primary());
        }
        for index in suspects {
            self.judge(*index);
        }
    }

    /// A node that we suspect has failed once most primaries say so.
    pub(super) fn judge(&mut self, index: NodeIndex) {
        let now = self.facts.now;
        if !self.view.node(index).is(flag::SUSPECTED) || self.view.node(index).has_failed() {
            return;
        }
        let validity = now - 2 * self.timeout();
        let others = self.view.count_reports(index, validity);
        let says = others + usize::from(self.view.me().is_primary());
        if says < self.view.quorum() {
            return;
        }
        let node = self.view.node_mut(index);
        tracing::info!("Marking node {} as failing (quorum reached).", node.id);
        node.set(flag::SUSPECTED, false);
        node.set(flag::FAILED, true);
        node.fail_time = now;
        let id = node.id;
        let message = self.message(Kind::Fail, Body::Fail(id));
        self.broadcast(&message, false, |_| true);
        self.todo.save = true;
        self.todo.state = true;
        self.todo.failover |= self.view.me().primary == Some(index);
    }

    /// Closes a connection on which too much waits to be sent.
    pub fn overflow(
        &mut self,
        link: LinkId,
        held: usize,
        facts: super::machine::Facts,
    ) -> Vec<Action> {
        self.within(facts, |machine| {
            let Some(found) = machine.links.get(&link) else {
                return;
            };
            let direction = if found.inbound { "from" } else { "to" };
            let id = found
                .node
                .map(|index| machine.view.node(index).id.to_string());
            tracing::warn!(
                "Freeing cluster link({direction} node {}, used memory: {held}) due to exceeding \
                 send buffer memory limit.",
                id.unwrap_or_default()
            );
            machine.traffic.overflows += 1;
            machine.close(link);
        })
        .1
    }

    fn set_fails(&mut self, fails: bool) {
        if fails != self.fails {
            tracing::warn!(
                "Cluster state changed: {}",
                if fails { "fail" } else { "ok" }
            );
            self.fails = fails;
            self.changed_state();
        }
    }

    /// Finds out whether the cluster works, as seen from here.
    pub(super) fn update_state(&mut self) {
        let now = self.facts.now;
        if self.first_look == 0 {
            self.first_look = now;
        }
        let leads = self.view.me().is_primary();
        if leads && self.fails && now - self.first_look < WRITABLE_DELAY {
            return;
        }
        let failed = |index: &NodeIndex| self.view.node(*index).has_failed();
        let mut fails = self.settings.cluster_require_full_coverage
            && self
                .view
                .owners()
                .iter()
                .any(|owner| owner.as_ref().is_none_or(failed));
        if !self.reaches_majority() {
            fails = true;
            self.minority_at = now;
        }
        fails |= self.is_reborn();
        let (least, most) = REJOIN_DELAY;
        let delay = self.timeout().clamp(least, most);
        if !fails && self.fails && leads && now - self.minority_at < delay {
            // Time for others to tell what has changed.
            return;
        }
        self.set_fails(fails);
    }
}
