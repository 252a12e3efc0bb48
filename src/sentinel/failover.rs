//! The steps of a failover.

use super::machine::{Action, Level, Machine};
use super::state::{Addr, Id, Kind, Reconf, Role, Step};

/// Steps that may follow each other at once.
const STEPS: usize = 4;
/// Time in which one sentinel asks for votes before the next one does, in milliseconds.
const TURN: i64 = 150;
/// How much earlier than we a replica may lose its master, in milliseconds: it tells whole seconds.
const LATE: i64 = 2000;
/// How long the replicas' present state is awaited before one is selected, in milliseconds.
const FRESH: i64 = 500;

impl Machine {
    /// Starts a failover if the master is down for enough sentinels and none was tried lately.
    pub(super) fn start_failover_if_due(&mut self, master: Id) -> bool {
        let (now, group) = (self.now, self.group(master));
        if !self.inst(master).o_down || group.fails_over {
            return false;
        }
        let start = group.failover_start;
        let not_before = start + group.failover_timeout * 2;
        if start != 0 && now < not_before {
            if group.delay_logged != start {
                let time = chrono::DateTime::from_timestamp_millis(not_before).unwrap_or_default();
                let time = time
                    .with_timezone(&chrono::Local)
                    .format("%a %b %e %H:%M:%S %Y");
                let line =
                    format!("Next failover delay: I will not start a failover before {time}");
                self.do_(Action::Log(line));
                self.group_mut(master).delay_logged = start;
            }
            return false;
        }
        if now - self.inst(master).o_down_since < self.turn(master) * TURN {
            return false;
        }
        self.start_failover(master);
        true
    }

    /// Whose turn it is to ask for votes: ours is so many after the first. Sentinels that see a master go at
    /// the same moment would all ask at once, each vote for itself, and nobody lead.
    fn turn(&self, master: Id) -> i64 {
        let sentinels = self.group(master).sentinels.iter().map(|id| self.inst(*id));
        let up = sentinels.filter(|about| !about.s_down);
        let mut ids: Vec<&str> = up.filter_map(|about| about.runid.as_deref()).collect();
        ids.push(&self.globals.myid);
        ids.sort_unstable();
        let own = ids
            .iter()
            .position(|id| *id == self.globals.myid)
            .unwrap_or(0) as u64;
        // Not the same one first each time: it may be the one that others do not hear.
        let turn = own.wrapping_add(self.globals.epoch) % ids.len() as u64;
        turn as i64
    }

    /// Starts a failover, of a new epoch.
    pub(super) fn start_failover(&mut self, master: Id) {
        // Others tell it: it may be as high as they like.
        self.globals.epoch = self.globals.epoch.wrapping_add(1);
        let (epoch, now) = (self.globals.epoch, self.now);
        let start = now + self.below(1000);
        let group = self.group_mut(master);
        group.step = Step::WaitStart;
        group.fails_over = true;
        group.failover_epoch = epoch;
        group.failover_start = start;
        group.step_since = now;
        self.save();
        self.event_of(Level::Warning, "+new-epoch", master, epoch.to_string());
        self.event(Level::Warning, "+try-failover", master, "");
    }

    /// Does what the step of a failover asks for, and the next one if that is due already.
    pub(super) fn go_on(&mut self, master: Id) {
        for _ in 0..STEPS {
            let group = self.group(master);
            if !group.fails_over {
                return;
            }
            let before = group.step;
            match before {
                Step::WaitStart => self.wait_start(master),
                Step::SelectReplica => self.select(master),
                Step::SendNoOne => self.send_no_one(master),
                Step::WaitPromotion => self.wait_promotion(master),
                Step::ReconfReplicas => self.reconf_next(master),
                Step::None | Step::UpdateConfig => {}
            }
            if self.group(master).step == before {
                return;
            }
        }
    }

    fn enter_step(&mut self, master: Id, step: Step) {
        let now = self.now;
        let group = self.group_mut(master);
        group.step = step;
        group.step_since = now;
    }

    fn wait_start(&mut self, master: Id) {
        // Another master's failover may have raised the epoch: all votes are counted in one.
        let (present, now) = (self.globals.epoch, self.now);
        let group = self.group_mut(master);
        if !group.forced {
            group.failover_epoch = group.failover_epoch.max(present);
        }
        let epoch = group.failover_epoch;
        let leader = self.leader(master, epoch);
        let leads = leader.is_some_and(|leader| leader.eq_ignore_ascii_case(&self.globals.myid));
        let group = self.group(master);
        // Forced or not, the epoch is told only when it is on the disk.
        if !leads && (!group.forced || self.unsaved) {
            let timeout = self.periods.election.min(group.failover_timeout);
            if now - group.failover_start > timeout {
                self.event(Level::Warning, "-failover-abort-not-elected", master, "");
                self.abort_failover(master);
            }
            return;
        }
        self.event(Level::Warning, "+elected-leader", master, "");
        if self.globals.simulate & 1 != 0 {
            return self.do_(Action::Crash);
        }
        self.enter_step(master, Step::SelectReplica);
        self.event(Level::Warning, "+failover-state-select-slave", master, "");
    }

    /// A replica has never finished a copy, as far as that can be known.
    fn is_vain(&self, id: Id) -> bool {
        let about = self.inst(id);
        !about.link_up && about.link_down_ms < 0 && about.offset == 0
    }

    /// The data of a replica is the master's, as far as that can be known: of one whose history is another
    /// one it is not. A Redis that has loaded its data from an append-only file has a new history, too.
    fn has_its_data(&self, master: Id, id: Id) -> bool {
        let (about, group) = (self.inst(id), self.group(master));
        let mut own = about.histories.iter().flatten().peekable();
        if own.peek().is_none() || !group.in_step || self.was_connected(master, id) {
            return true;
        }
        own.any(|name| group.histories.contains(name))
    }

    /// The replica is connected to the master, or was until that went.
    fn was_connected(&self, master: Id, id: Id) -> bool {
        let (about, group, master) = (self.inst(id), self.group(master), self.inst(master));
        let gone = match master.s_down {
            true => self.now - master.s_down_since + group.down_after,
            false => 0,
        };
        about.link_up || (0..=gone + LATE).contains(&about.link_down_ms)
    }

    /// The best replica to be promoted.
    pub(super) fn best_replica(&self, master: Id) -> Option<Id> {
        let (now, about, group) = (self.now, self.inst(master), self.group(master));
        let mut longest = group.down_after * 10;
        let mut valid = self.periods.info * 3;
        if about.s_down {
            longest += now - about.s_down_since;
            valid = self.periods.ping * 5;
        }
        let fits = |id: &Id| {
            let (replica, link) = (self.inst(*id), self.link(*id));
            !replica.s_down
                && !link.disconnected(Kind::Replica)
                && now - link.last_ok <= self.periods.ping * 5
                && replica.priority != 0
                && now - replica.info_refresh <= valid
                && replica.link_down_ms <= longest
                && !self.is_vain(*id)
                && (self.has_its_data(master, *id) || replica.has_keys)
        };
        let key = |id: &Id| {
            let replica = self.inst(*id);
            let runid = replica.runid.as_ref().map(|id| id.to_ascii_lowercase());
            let order = (runid.is_none(), runid);
            // Whose data may be another's is better than nobody.
            let may_differ = !self.has_its_data(master, *id);
            let offset = std::cmp::Reverse(replica.offset);
            (may_differ, replica.priority, offset, order)
        };
        group.replicas.iter().copied().filter(fits).min_by_key(key)
    }

    /// The replicas have told what they have since the master went; or there was time enough for it.
    fn knows_replicas(&mut self, master: Id) -> bool {
        let (now, about, group) = (self.now, self.inst(master), self.group(master));
        if now - group.step_since >= FRESH {
            return true;
        }
        let since = match about.s_down {
            true => about.s_down_since,
            false => group.step_since,
        };
        let is_stale = |id: &Id| {
            let replica = self.inst(*id);
            !replica.s_down && !self.disconnected(*id) && replica.info_refresh < since
        };
        let stale: Vec<Id> = group.replicas.iter().copied().filter(is_stale).collect();
        for id in &stale {
            self.ask_info(*id);
        }
        stale.is_empty()
    }

    fn select(&mut self, master: Id) {
        if !self.knows_replicas(master) {
            return;
        }
        let Some(replica) = self.best_replica(master) else {
            self.event(Level::Warning, "-failover-abort-no-good-slave", master, "");
            return self.abort_failover(master);
        };
        self.event(Level::Warning, "+selected-slave", replica, "");
        self.inst_mut(replica).promoted = true;
        self.group_mut(master).promoted = Some(replica);
        self.enter_step(master, Step::SendNoOne);
        self.event(
            Level::Notice,
            "+failover-state-send-slaveof-noone",
            replica,
            "",
        );
    }

    fn time_is_over(&self, master: Id) -> bool {
        let group = self.group(master);
        self.now - group.step_since > group.failover_timeout
    }

    fn give_up_if_late(&mut self, master: Id) {
        if self.time_is_over(master) {
            self.event(Level::Warning, "-failover-abort-slave-timeout", master, "");
            self.abort_failover(master);
        }
    }

    fn send_no_one(&mut self, master: Id) {
        let Some(replica) = self.group(master).promoted else {
            return self.give_up_if_late(master);
        };
        // What it is told stands on the epoch, which the file has to know.
        if self.unsaved || self.disconnected(replica) || !self.send_replicaof(replica, None) {
            return self.give_up_if_late(master);
        }
        self.event(Level::Notice, "+failover-state-wait-promotion", replica, "");
        self.enter_step(master, Step::WaitPromotion);
        // Asked behind the order, it tells of its outcome.
        self.ask(replica, &["INFO"], super::state::What::Info, false);
    }

    fn wait_promotion(&mut self, master: Id) {
        self.give_up_if_late(master);
    }

    /// Tells the next replicas whom to follow, so many at once as are allowed.
    fn reconf_next(&mut self, master: Id) {
        let Some(promoted) = self.group(master).promoted.filter(|_| !self.unsaved) else {
            return self.detect_end(master);
        };
        let to = &self.inst(promoted).addr;
        let (host, port) = (self.announced(to).to_owned(), to.port);
        let replicas = self.group(master).replicas.clone();
        for id in &replicas {
            let (now, about) = (self.now, self.inst(*id));
            if about.reconf == Reconf::Sent && now - about.reconf_sent > self.periods.reconf_timeout
            {
                self.event(Level::Notice, "-slave-reconf-sent-timeout", *id, "");
                self.inst_mut(*id).reconf = Reconf::Done;
            }
        }
        // Nobody waits for one that is away.
        let busy = |id: &&Id| {
            let about = self.inst(**id);
            !about.s_down && matches!(about.reconf, Reconf::Sent | Reconf::InProgress)
        };
        let mut under_way = replicas.iter().filter(busy).count() as i64;
        for id in replicas {
            if under_way >= self.group(master).parallel_syncs {
                break;
            }
            let (now, about) = (self.now, self.inst(id));
            if about.promoted || about.reconf != Reconf::None || self.disconnected(id) {
                continue;
            }
            if self.send_replicaof(id, Some((&host, port))) {
                let about = self.inst_mut(id);
                about.reconf = Reconf::Sent;
                about.reconf_sent = now;
                self.event(Level::Notice, "+slave-reconf-sent", id, "");
                under_way += 1;
            }
        }
        self.detect_end(master);
    }

    fn detect_end(&mut self, master: Id) {
        let Some(promoted) = self.group(master).promoted else {
            return;
        };
        let late = self.time_is_over(master);
        // While the new master is away nothing is complete; but then it is to be replaced in its turn.
        if self.inst(promoted).s_down && !late {
            return;
        }
        let waits = |id: &&Id| {
            let about = self.inst(**id);
            !about.promoted && about.reconf != Reconf::Done && !about.s_down
        };
        let waits_for_some = self.group(master).replicas.iter().any(|id| waits(&id));
        if late {
            self.event(Level::Warning, "+failover-end-for-timeout", master, "");
        }
        if late || !waits_for_some {
            self.event(Level::Warning, "+failover-end", master, "");
            self.enter_step(master, Step::UpdateConfig);
        }
        if late {
            self.tell_the_rest(master, promoted);
        }
    }

    /// At the end of the time: whoever was not told is told now, for what it is worth.
    fn tell_the_rest(&mut self, master: Id, promoted: Id) {
        let to = &self.inst(promoted).addr;
        let (host, port) = (self.announced(to).to_owned(), to.port);
        for id in self.group(master).replicas.clone() {
            let about = self.inst(id);
            if self.unsaved || about.promoted || matches!(about.reconf, Reconf::Done | Reconf::Sent)
            {
                continue;
            }
            if !self.disconnected(id) && self.send_replicaof(id, Some((&host, port))) {
                self.event(Level::Notice, "+slave-reconf-sent-be", id, "");
                self.inst_mut(id).reconf = Reconf::Sent;
            }
        }
    }

    /// The last step: the promoted replica is the master from now on.
    pub(super) fn end_failover(&mut self, master: Id) {
        let group = self.group(master);
        if group.step != Step::UpdateConfig {
            return;
        }
        let (old, name) = (self.inst(master).addr.clone(), &self.inst(master).name);
        let new = match group.promoted {
            Some(promoted) => self.inst(promoted).addr.clone(),
            None => old.clone(),
        };
        let (from, to) = (self.announced(&old), self.announced(&new));
        let text = format!("{name} {from} {} {to} {}", old.port, new.port);
        self.event_of(Level::Warning, "+switch-master", master, text);
        self.change_master(master, new);
    }

    fn abort_failover(&mut self, master: Id) {
        let now = self.now;
        let group = self.group_mut(master);
        group.fails_over = false;
        group.forced = false;
        group.step = Step::None;
        group.step_since = now;
        if let Some(promoted) = group.promoted.take() {
            self.inst_mut(promoted).promoted = false;
        }
    }

    /// Forgets what was found out about a master; its other sentinels too, if asked to.
    pub(super) fn reset(&mut self, master: Id, sentinels: bool) {
        let group = self.group(master);
        let mut members = group.replicas.clone();
        if sentinels {
            members.extend(&group.sentinels);
        }
        for member in members {
            self.forget_member(member);
        }
        self.drop_link(master);
        let now = self.now;
        let group = self.group_mut(master);
        group.fails_over = false;
        group.forced = false;
        group.step = Step::None;
        group.step_since = 0;
        group.failover_start = 0;
        group.promoted = None;
        if sentinels {
            group.in_step = false;
            group.histories.clear();
        }
        let about = self.inst_mut(master);
        about.s_down = false;
        about.o_down = false;
        about.rebooted = false;
        about.script_kill_sent = false;
        about.leader = None;
        about.runid = None;
        about.master_host = None;
        about.role = Role::Master;
        about.role_since = now;
        let link = self.link_mut(master);
        link.ping_since = now;
        link.last_ping = 0;
        link.last_ok = now;
        link.last_pong = now;
    }

    /// The master is elsewhere from now on; where it was there is a replica.
    pub(super) fn change_master(&mut self, master: Id, to: Addr) {
        let replicas = self.group(master).replicas.clone();
        let old = self.inst(master).addr.clone();
        // Whom we were to tell and who has not followed yet is told when it shows up.
        let leads = self.group(master).promoted.is_some();
        let mut stay: Vec<(Addr, bool)> = Vec::new();
        let mut to = to;
        for id in replicas {
            let about = self.inst(id);
            match Self::same(&about.addr, &to) {
                // A name that is known stays, whoever told of the new master by its address.
                true => to = about.addr.clone(),
                false => {
                    let owes = about.returning || leads && about.reconf != Reconf::Done;
                    stay.push((about.addr.clone(), owes));
                }
            }
        }
        if !Self::same(&old, &to) {
            stay.push((old, true));
        }
        self.reset(master, false);
        let about = self.inst_mut(master);
        about.addr = to;
        about.o_down_since = 0;
        about.s_down_since = 0;
        about.info_refresh = 0;
        self.link_mut(master).last_attempt = 0;
        for (addr, returning) in stay {
            if let Ok(replica) = self.add_replica_at(master, addr) {
                self.inst_mut(replica).returning = returning;
                self.event(Level::Notice, "+slave", replica, "");
            }
        }
        self.save();
    }
}
