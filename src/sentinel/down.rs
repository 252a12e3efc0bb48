//! Who is down, by our own eyes and by those of others; votes, and who leads by them.

use std::collections::BTreeMap;

use super::links::request;
use super::machine::{Action, Level, Machine};
use super::state::{Id, Kind, Role, Step, What};
use crate::resp::read::Value;

impl Machine {
    /// Looks whether an instance is down, and gives up connections on which nothing moves.
    pub(super) fn look_whether_down(&mut self, id: Id) {
        let (now, link) = (self.now, self.link(id));
        let silence = match link.ping_since {
            0 if self.disconnected(id) => now - link.last_ok,
            0 => 0,
            since => now - since,
        };
        let down_after = self.group_of(id).down_after;
        let young = self.periods.min_reconnect;
        let stuck = link.commands.is_some()
            && now - link.commands_since > young
            && link.ping_since != 0
            && now - link.ping_since > down_after / 2
            && now - link.last_pong > down_after / 2;
        let quiet = link.messages.is_some()
            && now - link.messages_since > young
            && now - link.last_message > self.periods.publish * 3;
        let which = self.inst(id).link;
        if stuck {
            self.close_half(which, true);
        }
        if quiet {
            self.close_half(which, false);
        }
        let (about, group) = (self.inst(id), self.group_of(id));
        let is_master = about.kind == Kind::Master;
        let is_down = silence > down_after
            || (is_master
                && about.role == Role::Replica
                && now - about.role_since > down_after + self.periods.info * 2)
            || (about.rebooted && now - about.reboot_since > group.reboot_down_after);
        match (is_down, about.s_down) {
            (true, false) => {
                self.event(Level::Warning, "+sdown", id, "");
                let about = self.inst_mut(id);
                about.s_down_since = now;
                about.s_down = true;
                about.returning |= about.kind == Kind::Replica;
                if is_master {
                    // Whoever takes over is found by what the replicas have now.
                    for replica in self.group(id).replicas.clone() {
                        self.ask_info(replica);
                    }
                }
            }
            (false, true) => {
                self.event(Level::Warning, "-sdown", id, "");
                let about = self.inst_mut(id);
                about.s_down = false;
                about.script_kill_sent = false;
                // What it is now is known soon.
                if self.inst(id).kind == Kind::Replica {
                    self.ask_info(id);
                }
            }
            _ => {}
        }
    }

    /// Looks whether enough sentinels say that a master is down.
    fn look_whether_agreed(&mut self, master: Id) {
        let (now, group) = (self.now, self.group(master));
        let says = |id: &&Id| self.inst(**id).master_down;
        let count = 1 + group.sentinels.iter().filter(says).count() as i64;
        let (quorum, about) = (group.quorum, self.inst(master));
        match (about.s_down && count >= quorum, about.o_down) {
            (true, false) => {
                let rest = format!(" #quorum {count}/{quorum}");
                self.event(Level::Warning, "+odown", master, &rest);
                let about = self.inst_mut(master);
                about.o_down = true;
                about.o_down_since = now;
            }
            (false, true) => {
                self.event(Level::Warning, "-odown", master, "");
                self.inst_mut(master).o_down = false;
            }
            _ => {}
        }
    }

    /// What is to be done for a master by what is known.
    pub(super) fn act_for(&mut self, master: Id) {
        self.look_whether_agreed(master);
        if self.start_failover_if_due(master) {
            self.ask_sentinels(master, true);
        }
        self.go_on(master);
    }

    /// Asks the other sentinels whether they think a master down; in a failover, for their votes.
    pub(super) fn ask_sentinels(&mut self, master: Id, forced: bool) {
        let (now, ask) = (self.now, self.periods.ask);
        let about = self.inst(master);
        let (s_down, since) = (about.s_down, about.s_down_since);
        // Others see it within a moment of each other: so long each look is worth a question.
        let hurries = !about.o_down && now - since < ask;
        let (host, port) = (
            self.announced(&about.addr).to_owned(),
            about.addr.port.to_string(),
        );
        let fails_over = self.group(master).step > Step::None;
        let epoch = self.globals.epoch.to_string();
        for id in self.group(master).sentinels.clone() {
            let silence = now - self.inst(id).last_down_reply;
            if silence > ask * 5 {
                let about = self.inst_mut(id);
                about.master_down = false;
                about.leader = None;
            }
            if !s_down || self.disconnected(id) {
                continue;
            }
            let waits = |(who, what): &(Id, What)| *who == id && *what == What::Asked;
            let asked = self.link(id).pending.iter().filter(|p| waits(p)).count();
            if !forced && (asked > 1 || (silence < ask && !(hurries && asked == 0))) {
                continue;
            }
            let candidate = if fails_over {
                self.globals.myid.clone()
            } else {
                "*".to_owned()
            };
            let words = [
                "SENTINEL",
                "is-master-down-by-addr",
                &host,
                &port,
                &epoch,
                &candidate,
            ];
            self.ask(id, &words, What::Asked, true);
        }
    }

    /// Takes the answer of a sentinel.
    pub(super) fn answered(&mut self, id: Id, value: &Value) {
        let Value::Array(parts) = value else {
            return;
        };
        let [Value::Int(down), Value::Bulk(leader), Value::Int(epoch)] = parts.as_slice() else {
            return;
        };
        let (now, leader) = (self.now, String::from_utf8_lossy(leader).into_owned());
        let epoch = epoch.cast_unsigned();
        let about = self.inst_mut(id);
        about.last_down_reply = now;
        about.master_down = *down == 1;
        if leader != "*" {
            if about.leader_epoch != epoch {
                let line = format!("{} voted for {leader} {epoch}", about.name);
                self.do_(Action::Log(line));
            }
            let about = self.inst_mut(id);
            about.leader = Some(leader);
            about.leader_epoch = epoch;
        }
        // Nothing is gained by waiting for the next tick.
        if !self.tilt {
            let master = self.inst(id).master;
            self.act_for(master);
        }
    }

    /// Votes, if there is a vote left in that epoch: for whom, and in which epoch.
    pub(super) fn vote(
        &mut self,
        master: Id,
        epoch: u64,
        candidate: &str,
    ) -> (Option<String>, u64) {
        if epoch > self.globals.epoch {
            self.globals.epoch = epoch;
            self.save();
            self.event_of(Level::Warning, "+new-epoch", master, epoch.to_string());
        }
        let current = self.globals.epoch;
        if self.inst(master).leader_epoch < epoch && current <= epoch {
            let about = self.inst_mut(master);
            about.leader = Some(candidate.to_owned());
            about.leader_epoch = current;
            self.save();
            let text = format!("{candidate} {current}");
            self.event_of(Level::Warning, "+vote-for-leader", master, text);
            // The one voted for has some time.
            if !candidate.eq_ignore_ascii_case(&self.globals.myid) {
                let start = self.now + self.below(1000);
                self.group_mut(master).failover_start = start;
            }
        }
        let about = self.inst(master);
        (about.leader.clone(), about.leader_epoch)
    }

    /// Who leads a failover, by the votes known: most of all sentinels, and the quorum. Our own vote counts
    /// only when it is on the disk.
    pub(super) fn leader(&mut self, master: Id, epoch: u64) -> Option<String> {
        let group = self.group(master);
        let (voters, quorum) = (group.sentinels.len() + 1, group.quorum);
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for id in &group.sentinels {
            let about = self.inst(*id);
            if let Some(leader) = &about.leader
                && about.leader_epoch == self.globals.epoch
            {
                *votes.entry(leader.clone()).or_default() += 1;
            }
        }
        let most = |votes: &BTreeMap<String, usize>| {
            let most = votes.iter().max_by_key(|(_, count)| **count);
            most.map(|(leader, count)| (leader.clone(), *count))
        };
        let favourite =
            most(&votes).map_or_else(|| self.globals.myid.clone(), |(leader, _)| leader);
        let (vote, in_epoch) = self.vote(master, epoch, &favourite);
        if self.unsaved {
            return None;
        }
        if let Some(vote) = vote.filter(|_| in_epoch == epoch) {
            *votes.entry(vote).or_default() += 1;
        }
        let (leader, count) = most(&votes)?;
        (count > voters / 2 && count as i64 >= quorum).then_some(leader)
    }

    /// How many sentinels can be reached, us included; whether that is the quorum, and most of all.
    pub fn usable(&self, master: Id) -> (i64, bool, bool) {
        let group = self.group(master);
        let up = |id: &&Id| !self.inst(**id).s_down;
        let usable = 1 + group.sentinels.iter().filter(up).count();
        let most = usable > group.sentinels.len().div_ceil(2);
        (usable as i64, usable as i64 >= group.quorum, most)
    }

    /// What goes where a promise may not: it has one reply too.
    pub fn instead() -> Vec<u8> {
        request(&["PING"])
    }
}
