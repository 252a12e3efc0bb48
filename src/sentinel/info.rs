//! What INFO of masters and replicas tells, and what follows from it.

use super::machine::{Action, Level, Machine};
use super::state::{Addr, Id, Kind, Reconf, Role, Step};

/// Characters of a run id.
pub(super) const RUN_ID: usize = 40;

/// A replica as its master names it: `ip=1.2.3.4,port=5,...`, or `1.2.3.4,5,online` of old.
fn named_replica(value: &str) -> Option<(&str, u16)> {
    let field = |name: &str| value.split(',').find_map(|part| part.strip_prefix(name));
    let (host, port) = match field("ip=") {
        Some(host) => (host, field("port=")?),
        None => {
            let mut parts = value.split(',');
            let (host, port) = (parts.next()?, parts.next()?);
            parts.next()?;
            (host, port)
        }
    };
    port.parse().ok().map(|port| (host, port))
}

/// The name of a history; that of none is all zeros.
/// Most bytes of an INFO that are kept, for SENTINEL INFO-CACHE.
const KEPT: usize = 1 << 20;

fn history(value: &str) -> Option<String> {
    let is_none = value.is_empty() || value.bytes().all(|b| b == b'0');
    (!is_none).then(|| value.to_owned())
}

impl Machine {
    /// Takes the answer to INFO.
    pub(super) fn informed(&mut self, id: Id, mut text: Vec<u8>) {
        let lossy = String::from_utf8_lossy(&text).into_owned();
        let role = self.read_info(id, &lossy);
        let now = self.now;
        let about = self.inst_mut(id);
        text.truncate(KEPT);
        about.info = Some(text);
        about.info_refresh = now;
        if role != about.role {
            about.role = role;
            about.role_since = now;
            let (word, fits) = match role {
                Role::Replica => {
                    about.conf_change = now;
                    ("slave", about.kind == Kind::Replica)
                }
                _ => ("master", about.kind == Kind::Master && role == Role::Master),
            };
            let channel = if fits { "+role-change" } else { "-role-change" };
            self.event(
                Level::Verbose,
                channel,
                id,
                &format!(" new reported role is {word}"),
            );
        }
        self.learn_histories(id);
        if self.tilt || self.inst(id).kind != Kind::Replica {
            return;
        }
        match role {
            Role::Master => self.replica_leads(id),
            Role::Replica => self.replica_follows(id),
            Role::None => {}
        }
        let master = self.inst(id).master;
        if self.group(master).step == Step::SelectReplica {
            self.go_on(master);
        }
    }

    fn read_info(&mut self, id: Id, text: &str) -> Role {
        let kind = self.inst(id).kind;
        let mut role = Role::None;
        self.inst_mut(id).link_down_ms = 0;
        self.inst_mut(id).histories = [None, None];
        self.inst_mut(id).has_keys = false;
        for line in text.split("\r\n") {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            match name {
                "run_id" if value.len() >= RUN_ID => self.take_run_id(id, value),
                "role" if value.starts_with("master") => role = Role::Master,
                "role" if value.starts_with("slave") => role = Role::Replica,
                "master_link_down_since_seconds" => {
                    let seconds: i64 = value.parse().unwrap_or(0);
                    self.inst_mut(id).link_down_ms = seconds.saturating_mul(1000);
                }
                "master_replid" => self.inst_mut(id).histories[0] = history(value),
                "master_replid2" => self.inst_mut(id).histories[1] = history(value),
                _ if kind == Kind::Master
                    && name
                        .strip_prefix("slave")
                        .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())) =>
                {
                    if let Some((host, port)) = named_replica(value) {
                        self.discover(id, host, port);
                    }
                }
                _ if name.starts_with("db") && value.starts_with("keys=") => {
                    self.inst_mut(id).has_keys = true;
                }
                _ if role == Role::Replica => self.read_replica(id, name, value),
                _ => {}
            }
        }
        role
    }

    fn take_run_id(&mut self, id: Id, value: &str) {
        let now = self.now;
        let Some(runid) = value.get(..RUN_ID) else {
            return;
        };
        if self.inst(id).runid.as_deref() == Some(runid) {
            return;
        }
        let was_known = self.inst_mut(id).runid.replace(runid.to_owned()).is_some();
        if was_known {
            self.event(Level::Notice, "+reboot", id, "");
            if self.inst(id).kind == Kind::Master && self.group(id).reboot_down_after != 0 {
                let master = self.inst_mut(id);
                master.rebooted = true;
                master.reboot_since = now;
            }
        }
    }

    /// Enters a replica that its master names, if it is not known.
    fn discover(&mut self, master: Id, host: &str, port: u16) {
        let Some(addr) = self.address(host, port) else {
            return;
        };
        if let Ok(replica) = self.add_replica_at(master, addr) {
            self.event(Level::Notice, "+slave", replica, "");
            self.save();
        }
    }

    fn read_replica(&mut self, id: Id, name: &str, value: &str) {
        let now = self.now;
        let about = self.inst_mut(id);
        match name {
            "master_host" => {
                let same = |known: &String| known.eq_ignore_ascii_case(value);
                if !about.master_host.as_ref().is_some_and(same) {
                    about.master_host = Some(value.to_owned());
                    about.conf_change = now;
                }
            }
            "master_port" => {
                let port = value.parse().unwrap_or(0);
                if about.master_port != port {
                    about.master_port = port;
                    about.conf_change = now;
                }
            }
            "master_link_status" => about.link_up = value.eq_ignore_ascii_case("up"),
            "slave_priority" => about.priority = value.parse().unwrap_or(0),
            "slave_repl_offset" => about.offset = value.parse().unwrap_or(0),
            "replica_announced" => about.announced = value.parse().unwrap_or(0) != 0,
            _ => {}
        }
    }

    /// Remembers the names of the master's history: its own, and those of replicas that copy it.
    fn learn_histories(&mut self, id: Id) {
        let about = self.inst(id);
        let master = about.master;
        let copies = match about.kind {
            Kind::Master => about.role == Role::Master,
            Kind::Replica => {
                let addr = self.inst(master).addr.clone();
                let (link_up, port) = (about.link_up, about.master_port);
                let host = about.master_host.clone().unwrap_or_default();
                about.role == Role::Replica
                    && link_up
                    && port == i64::from(addr.port)
                    && !self.inst(master).s_down
                    && self.is_host_of(&addr, &host)
            }
            Kind::Sentinel => false,
        };
        if copies {
            let known: Vec<String> = self.inst(id).histories.iter().flatten().cloned().collect();
            if self.inst(id).kind == Kind::Replica {
                self.group_mut(master).in_step = true;
            }
            // Its present history is the one that is forgotten last.
            for name in known.iter().rev() {
                self.group_mut(master).remember(name);
            }
        }
    }

    /// The master looks as it should: nobody is led astray who is told to follow it.
    fn looks_sane(&self, master: Id) -> bool {
        let about = self.inst(master);
        about.role == Role::Master
            && !about.s_down
            && !about.o_down
            && self.now - about.info_refresh < 2 * self.periods.info
    }

    /// Most sentinels said hello a moment ago, so that there is no later configuration that we missed.
    fn hears_most(&self, master: Id) -> bool {
        let sentinels = &self.group(master).sentinels;
        let lately = self.now - self.periods.publish - 1500;
        let heard = |id: &&Id| self.inst(**id).last_hello >= lately;
        let heard = 1 + sentinels.iter().filter(heard).count();
        heard > sentinels.len().div_ceil(2)
    }

    /// What a replica does that is back, as a master or of another one, may be put right at once.
    fn at_once(&self, id: Id) -> bool {
        let about = self.inst(id);
        about.returning && !self.group(about.master).fails_over && self.hears_most(about.master)
    }

    /// A replica says that it is a master.
    fn replica_leads(&mut self, id: Id) {
        let (master, now) = (self.inst(id).master, self.now);
        let group = self.group(master);
        if self.inst(id).promoted && group.fails_over && group.step == Step::WaitPromotion {
            return self.was_promoted(id);
        }
        let wait = 4 * self.periods.publish;
        let about = self.inst(id);
        let waited = about.no_down_for(wait, now) && now - about.role_since > wait;
        if !about.promoted
            && self.looks_sane(master)
            && (waited || self.at_once(id))
            && self.send_to_master(id)
        {
            self.event(Level::Notice, "+convert-to-slave", id, "");
        }
    }

    fn send_to_master(&mut self, id: Id) -> bool {
        if self.unsaved {
            return false;
        }
        let addr = &self.inst(self.inst(id).master).addr;
        let (host, port) = (self.announced(addr).to_owned(), addr.port);
        self.send_replicaof(id, Some((&host, port)))
    }

    fn was_promoted(&mut self, id: Id) {
        let (master, now) = (self.inst(id).master, self.now);
        let group = self.group_mut(master);
        group.config_epoch = group.failover_epoch;
        group.step = Step::ReconfReplicas;
        group.step_since = now;
        self.save();
        self.event(Level::Warning, "+promoted-slave", id, "");
        if self.globals.simulate & 2 != 0 {
            return self.do_(Action::Crash);
        }
        self.event(Level::Warning, "+failover-state-reconf-slaves", master, "");
        let told = |addr: &Addr| (self.announced(addr).to_owned(), addr.port);
        let (from, to) = (told(&self.inst(master).addr), told(&self.inst(id).addr));
        self.tell_clients(master, true, from, to);
        self.say_hello_to_all(master);
        self.go_on(master);
    }

    /// A replica says that it is one.
    fn replica_follows(&mut self, id: Id) {
        let (master, now) = (self.inst(id).master, self.now);
        let addr = self.inst(master).addr.clone();
        let (host, port) = {
            let about = self.inst(id);
            (
                about.master_host.clone().unwrap_or_default(),
                about.master_port,
            )
        };
        if port != i64::from(addr.port) || !self.is_host_of(&addr, &host) {
            let wait = self.group(master).failover_timeout;
            let about = self.inst(id);
            let waited = about.no_down_for(wait, now) && now - about.conf_change > wait;
            if self.looks_sane(master) && (waited || self.at_once(id)) && self.send_to_master(id) {
                self.event(Level::Notice, "+fix-slave-config", id, "");
            }
        } else {
            self.inst_mut(id).returning = false;
        }
        let promoted = self.group(master).promoted;
        let Some(promoted) = promoted.map(|id| self.inst(id).addr.clone()) else {
            return;
        };
        if self.inst(id).reconf == Reconf::Sent
            && port == i64::from(promoted.port)
            && self.is_host_of(&promoted, &host)
        {
            self.inst_mut(id).reconf = Reconf::InProgress;
            self.event(Level::Notice, "+slave-reconf-inprog", id, "");
        }
        if self.inst(id).reconf == Reconf::InProgress && self.inst(id).link_up {
            self.inst_mut(id).reconf = Reconf::Done;
            self.event(Level::Notice, "+slave-reconf-done", id, "");
            self.go_on(master);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_in_two_ways() {
        let named = named_replica("ip=1.2.3.4,port=77,state=online,offset=1");
        assert_eq!(named, Some(("1.2.3.4", 77)));
        assert_eq!(named_replica("::1,77,online"), Some(("::1", 77)));
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.4,7",
            "ip=a",
            "ip=a,port=x",
            "a,70000,x",
        ] {
            assert_eq!(named_replica(bad), None, "{bad}");
        }
    }
}
