//! Hellos of other sentinels: who they are, their epochs, and newer configurations.

use super::info::RUN_ID;
use super::machine::{Level, Machine};
use super::state::{Addr, Id};

impl Machine {
    /// Takes a hello: `ip,port,id,epoch,name,master's ip,master's port,configuration's epoch`.
    pub(super) fn hello(&mut self, text: &str) {
        let words: Vec<&str> = text.split(',').collect();
        let [
            ip,
            port,
            runid,
            epoch,
            name,
            master_host,
            master_port,
            config_epoch,
        ] = words[..]
        else {
            return;
        };
        let Some(master) = self.master(name) else {
            return;
        };
        let (Ok(port), Ok(master_port)) = (port.parse::<u16>(), master_port.parse::<u16>()) else {
            return;
        };
        let (Ok(epoch), Ok(config_epoch)) = (epoch.parse::<u64>(), config_epoch.parse::<u64>())
        else {
            return;
        };
        let is_id = runid.len() == RUN_ID && runid.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_id || runid == self.globals.myid {
            return;
        }
        let from = self.introduced(master, (ip, port), runid);
        if epoch > self.globals.epoch {
            self.globals.epoch = epoch;
            self.save();
            self.event_of(Level::Warning, "+new-epoch", master, epoch.to_string());
        }
        let Some(from) = from else {
            return;
        };
        if self.group(master).config_epoch < config_epoch {
            self.group_mut(master).config_epoch = config_epoch;
            self.save();
            let addr = self.inst(master).addr.clone();
            if master_port != addr.port || !self.is_host_of(&addr, master_host) {
                self.follow_config(master, from, master_host, master_port);
            }
        }
        if let Some(from) = self.instances.get_mut(&from) {
            from.last_hello = self.now;
        }
    }

    /// The configuration of a later epoch has another master.
    fn follow_config(&mut self, master: Id, from: Id, host: &str, port: u16) {
        let Some(to) = self.address(host, port) else {
            return;
        };
        self.event(Level::Warning, "+config-update-from", from, "");
        let old = self.inst(master).addr.clone();
        let text = format!(
            "{} {} {} {host} {port}",
            self.inst(master).name,
            self.announced(&old),
            old.port
        );
        self.event_of(Level::Warning, "+switch-master", master, text);
        self.change_master(master, to);
        let new = &self.inst(master).addr;
        let told = |addr: &Addr| (self.announced(addr).to_owned(), addr.port);
        let (from, to) = (told(&old), told(new));
        self.tell_clients(master, false, from, to);
    }

    /// The sentinel that says hello, entered if it is new or elsewhere than before.
    fn introduced(&mut self, master: Id, (ip, port): (&str, u16), runid: &str) -> Option<Id> {
        let addr = self.address(ip, port)?;
        let sentinels = self.group(master).sentinels.clone();
        let has_id = |id: &&Id| self.inst(**id).runid.as_deref() == Some(runid);
        let known = sentinels.iter().find(has_id).copied();
        if let Some(known) = known.filter(|id| Self::same(&self.inst(*id).addr, &addr)) {
            return Some(known);
        }
        if let Some(known) = known {
            self.forget_member(known);
            let rest = format!(" ip {ip} port {port} for {runid}");
            self.event(Level::Notice, "+sentinel-address-switch", master, &rest);
        } else {
            let there = |id: &&Id| Self::same(&self.inst(**id).addr, &addr);
            if let Some(other) = sentinels.iter().find(there).copied() {
                self.event(Level::Notice, "+sentinel-invalid-addr", other, "");
                let gone = self.inst(other).runid.clone();
                self.forget_sentinel(gone.as_deref().unwrap_or_default());
            }
        }
        let new = self.add_sentinel(master, runid, ip, port).ok()?;
        if known.is_none() {
            self.event(Level::Notice, "+sentinel", new, "");
        } else {
            self.move_in_other_groups(new);
        }
        self.save();
        Some(new)
    }

    /// Forgets a sentinel in every group.
    fn forget_sentinel(&mut self, runid: &str) {
        let is_it = |(_, i): &(&Id, &super::state::Instance)| {
            i.kind == super::state::Kind::Sentinel && i.runid.as_deref() == Some(runid)
        };
        let found: Vec<Id> = self
            .instances
            .iter()
            .filter(is_it)
            .map(|(id, _)| *id)
            .collect();
        for id in found {
            self.forget_member(id);
        }
    }

    /// A sentinel that went elsewhere did so for every group.
    fn move_in_other_groups(&mut self, moved: Id) {
        let (runid, addr) = (
            self.inst(moved).runid.clone(),
            self.inst(moved).addr.clone(),
        );
        let sentinels = |master: &Id| self.group(*master).sentinels.clone();
        let all: Vec<Id> = self.masters.values().flat_map(sentinels).collect();
        let mut others = 0;
        for id in all {
            if self.inst(id).runid != runid {
                continue;
            }
            self.drop_link(id);
            if id != moved {
                self.inst_mut(id).addr = addr.clone();
                others += 1;
            }
        }
        if others > 0 {
            let rest = format!(" {others} additional matching instances");
            self.event(Level::Notice, "+sentinel-address-update", moved, &rest);
        }
    }

    /// A sentinel that watches several of our masters has one link.
    pub(super) fn share_link(&mut self, id: Id) {
        let (own, about) = (self.inst(id).link, self.inst(id));
        let (master, runid) = (about.master, about.runid.clone());
        let Some(runid) = runid.filter(|_| self.link(id).users == 1) else {
            return;
        };
        let matches = |(other, i): &(&Id, &super::state::Instance)| {
            **other != id
                && i.kind == super::state::Kind::Sentinel
                && i.master != master
                && i.runid.as_deref() == Some(&runid)
        };
        let Some(shared) = self.instances.iter().find(matches).map(|(_, i)| i.link) else {
            return;
        };
        self.release_link(own);
        if let Some(link) = self.links.get_mut(&shared) {
            link.users += 1;
        }
        self.inst_mut(id).link = shared;
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Action, Globals};
    use super::*;
    use crate::config::rewrite::Rewrite;

    fn watching() -> (Machine, Id) {
        let globals = Globals {
            resolve_hostnames: true,
            ..Globals::default()
        };
        let mut machine = Machine::new(globals, 1, 0);
        let added = machine.add_master("group", "10.0.0.1", 6379, 1);
        let master = added.expect("there was none");
        (machine, master)
    }

    fn hello(ip: &str, runid: &str, epoch: u64) -> String {
        format!("{ip},26379,{runid},{epoch},group,10.0.0.1,6379,0")
    }

    #[test]
    fn what_others_say_cannot_break_the_file() {
        let (mut machine, master) = watching();
        let id = "a".repeat(40);
        for bad in [
            "",
            "short",
            &"b".repeat(41),
            &format!("{} ", "c".repeat(39)),
        ] {
            machine.hello(&hello("10.0.0.2", bad, 0));
        }
        assert!(machine.group(master).sentinels.is_empty());
        machine.hello(&hello("a b\nsentinel myid x", &id, 0));
        let mut rewrite = Rewrite::new(b"", false, true);
        machine.write(&mut rewrite);
        let text = String::from_utf8(rewrite.finish()).expect("text");
        let line = r#"sentinel known-sentinel group "a b\nsentinel myid x" 26379 "#;
        assert!(text.contains(&format!("{line}{id}\n")), "{text}");
    }

    #[test]
    fn the_highest_epoch_is_no_end() {
        let (mut machine, master) = watching();
        machine.hello(&hello("10.0.0.2", &"a".repeat(40), u64::MAX));
        machine.start_failover(master);
        assert_eq!(machine.globals.epoch, 0);
    }

    #[test]
    fn members_are_bounded() {
        let (mut machine, master) = watching();
        for number in 0..1010 {
            machine.hello(&hello(
                &format!("10.1.{}.{}", number / 250, number % 250),
                &format!("{number:040}"),
                0,
            ));
        }
        assert_eq!(machine.group(master).sentinels.len(), 1000);
        let said = machine.actions();
        let lines = said.iter().filter(|did| matches!(did, Action::Log(_)));
        assert_eq!(lines.count(), 1);
    }
}
