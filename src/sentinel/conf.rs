//! The `sentinel` lines of the configuration file: read at the start, written whenever something is to
//! outlive the process.

use super::machine::{Globals, Machine, Refused};
use super::orders::{self, some};
use super::state::Id;
use crate::base::number::{leading_i64, parse_u64};
use crate::base::text::quote;
use crate::config::SentinelLine;
use crate::config::rewrite::Rewrite;

/// Lines that the others depend on, wherever they stand.
const FIRST: [&str; 9] = [
    "announce-ip",
    "announce-port",
    "deny-scripts-reconfig",
    "sentinel-user",
    "sentinel-pass",
    "current-epoch",
    "myid",
    "resolve-hostnames",
    "announce-hostnames",
];

/// Lines of which there are as many as masters and their members say.
const OF_GROUPS: [&str; 15] = [
    "monitor",
    "down-after-milliseconds",
    "failover-timeout",
    "parallel-syncs",
    "notification-script",
    "client-reconfig-script",
    "auth-pass",
    "auth-user",
    "config-epoch",
    "leader-epoch",
    "known-replica",
    "known-slave",
    "known-sentinel",
    "rename-command",
    "master-reboot-down-after-period",
];

const NO_MASTER: &str = "No such master with specified name.";

/// A line that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where it stands.
    pub number: usize,
    /// The line.
    pub line: Vec<u8>,
    /// Why.
    pub reason: String,
}

/// The number that a text begins with, as C's `atoi` has it.
fn atoi(text: &str) -> i64 {
    let most = i64::from(i32::MAX);
    leading_i64(text.as_bytes())
        .unwrap_or(most)
        .clamp(-most, most)
}

/// An epoch.
fn strtoull(text: &str) -> u64 {
    parse_u64(text.as_bytes()).unwrap_or(0)
}

/// The sentinel that the lines describe. `runnable` says whether a script can be run.
///
/// # Errors
/// A line cannot be.
pub fn read(
    lines: &[SentinelLine],
    runnable: &dyn Fn(&str) -> bool,
    seed: u64,
    now: i64,
) -> Result<Machine, Wrong> {
    let mut machine = Machine::new(Globals::default(), seed, now);
    let turn = |line: &SentinelLine| {
        let name = String::from_utf8_lossy(&line.args[0]).to_ascii_lowercase();
        match name.as_str() {
            "monitor" => 1,
            _ if FIRST.contains(&name.as_str()) => 0,
            _ => 2,
        }
    };
    for present in 0..3 {
        for line in lines.iter().filter(|line| turn(line) == present) {
            let words: Vec<String> = line
                .args
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            machine
                .read_line(&words, runnable)
                .map_err(|reason| Wrong {
                    number: line.number,
                    line: line.line.clone(),
                    reason,
                })?;
        }
    }
    machine.take_dirty();
    machine.unsaved = false;
    Ok(machine)
}

impl Machine {
    fn read_line(&mut self, words: &[&str], runnable: &dyn Fn(&str) -> bool) -> Result<(), String> {
        let name = words[0].to_ascii_lowercase();
        let rest = &words[1..];
        if FIRST.contains(&name.as_str()) {
            return match rest {
                [value] => self.read_global(&name, value),
                _ => Err(unrecognized()),
            };
        }
        if let ("monitor", [name, host, port, quorum]) = (name.as_str(), rest) {
            let quorum = atoi(quorum);
            if quorum <= 0 {
                return Err("Quorum must be 1 or greater.".into());
            }
            let port = self.port(port)?;
            return self
                .add_master(name, host, port, quorum)
                .map(drop)
                .map_err(|refused| created(refused, "Duplicate master name."));
        }
        if name == "known-sentinel" && rest.len() == 3 {
            // Of old, without its id.
            return Ok(());
        }
        let takes = match name.as_str() {
            "known-sentinel" => 4,
            "known-replica" | "known-slave" | "rename-command" => 3,
            _ => 2,
        };
        if rest.len() != takes || !OF_GROUPS.contains(&name.as_str()) {
            return Err(unrecognized());
        }
        let master = self.master(rest[0]).ok_or(NO_MASTER)?;
        self.read_of_group(master, &name, &rest[1..], runnable)
    }

    fn port(&self, text: &str) -> Result<u16, String> {
        u16::try_from(atoi(text)).map_err(|_| "Invalid port number.".to_owned())
    }

    fn read_global(&mut self, name: &str, value: &str) -> Result<(), String> {
        let globals = &mut self.globals;
        let yes_no = || {
            let options = match name {
                "deny-scripts-reconfig" => "options",
                _ => "option",
            };
            let wrong = || format!("Please specify yes or no for the {name} {options}.");
            orders::yes_no(value).ok_or_else(wrong)
        };
        match name {
            "announce-ip" => globals.announce_ip = some(value),
            "announce-port" => globals.announce_port = u16::try_from(atoi(value)).unwrap_or(0),
            "sentinel-user" => globals.sentinel_user = some(value),
            "sentinel-pass" => globals.sentinel_pass = some(value),
            "current-epoch" => globals.epoch = globals.epoch.max(strtoull(value)),
            "myid" if value.len() == 40 => value.clone_into(&mut globals.myid),
            "myid" => return Err("Malformed Sentinel id in myid option.".into()),
            "deny-scripts-reconfig" => globals.deny_scripts_reconfig = yes_no()?,
            "resolve-hostnames" => globals.resolve_hostnames = yes_no()?,
            "announce-hostnames" => globals.announce_hostnames = yes_no()?,
            _ => return Err(unrecognized()),
        }
        Ok(())
    }

    fn read_of_group(
        &mut self,
        master: Id,
        name: &str,
        rest: &[&str],
        runnable: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let value = rest[0];
        let positive = || match atoi(value) {
            number @ 1.. => Ok(number),
            _ => Err("negative or zero time parameter.".to_owned()),
        };
        let group = self.group_mut(master);
        match name {
            "down-after-milliseconds" => group.down_after = positive()?,
            "failover-timeout" => group.failover_timeout = positive()?,
            "parallel-syncs" => group.parallel_syncs = atoi(value),
            "master-reboot-down-after-period" => match atoi(value) {
                number @ 0.. => group.reboot_down_after = number,
                _ => return Err("negative time parameter.".into()),
            },
            "notification-script" if runnable(value) => group.notification_script = some(value),
            "notification-script" => {
                return Err("Notification script seems non existing or non executable.".into());
            }
            "client-reconfig-script" if runnable(value) => group.reconfig_script = some(value),
            "client-reconfig-script" => {
                return Err(
                    "Client reconfiguration script seems non existing or non executable.".into(),
                );
            }
            "auth-pass" => group.auth_pass = Some(value.to_owned()),
            "auth-user" => group.auth_user = Some(value.to_owned()),
            "config-epoch" => {
                group.config_epoch = strtoull(value);
                self.globals.epoch = self.globals.epoch.max(strtoull(value));
            }
            "leader-epoch" => self.inst_mut(master).leader_epoch = strtoull(value),
            "rename-command" => {
                if group
                    .renamed
                    .iter()
                    .any(|(from, _)| from.eq_ignore_ascii_case(value))
                {
                    return Err("Same command renamed multiple times with rename-command.".into());
                }
                group.renamed.push((value.to_owned(), rest[1].to_owned()));
            }
            "known-replica" | "known-slave" => {
                let port = self.port(rest[1])?;
                self.add_replica(master, value, port).map_err(|refused| {
                    created(refused, "Duplicate hostname and port for replica.")
                })?;
            }
            "known-sentinel" => {
                let port = self.port(rest[1])?;
                self.add_sentinel(master, rest[2], value, port)
                    .map_err(|refused| created(refused, "Duplicate runid for sentinel."))?;
            }
            _ => return Err(unrecognized()),
        }
        Ok(())
    }

    /// The lines, each with its option.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let globals = &self.globals;
        let mut lines = Vec::new();
        for (name, id) in &self.masters {
            self.group_lines(name, *id, &mut lines);
        }
        lines.push(("current-epoch", globals.epoch.to_string()));
        if let Some(ip) = &globals.announce_ip {
            lines.push(("announce-ip", quoted(ip)));
        }
        if globals.announce_port != 0 {
            lines.push(("announce-port", globals.announce_port.to_string()));
        }
        if let Some(user) = &globals.sentinel_user {
            lines.push(("sentinel-user", word(user)));
        }
        if let Some(pass) = &globals.sentinel_pass {
            lines.push(("sentinel-pass", word(pass)));
        }
        lines
    }

    fn group_lines(&self, name: &str, id: Id, lines: &mut Vec<(&'static str, String)>) {
        let (master, group) = (self.inst(id), self.group(id));
        let name = word(name);
        let defaults = super::state::Periods::default();
        let current = self.current_addr(id);
        let mut add = |option, rest: String| lines.push((option, format!("{name} {rest}")));
        let (host, port) = (word(self.written(current)), current.port);
        add("monitor", format!("{host} {port} {}", group.quorum));
        if group.down_after != defaults.down_after {
            add("down-after-milliseconds", group.down_after.to_string());
        }
        if group.failover_timeout != defaults.failover_timeout {
            add("failover-timeout", group.failover_timeout.to_string());
        }
        if group.parallel_syncs != 1 {
            add("parallel-syncs", group.parallel_syncs.to_string());
        }
        let optional = [
            ("notification-script", &group.notification_script),
            ("client-reconfig-script", &group.reconfig_script),
            ("auth-pass", &group.auth_pass),
            ("auth-user", &group.auth_user),
        ];
        for (option, value) in optional {
            if let Some(value) = value {
                add(option, word(value));
            }
        }
        if group.reboot_down_after != 0 {
            add(
                "master-reboot-down-after-period",
                group.reboot_down_after.to_string(),
            );
        }
        add("config-epoch", group.config_epoch.to_string());
        add("leader-epoch", master.leader_epoch.to_string());
        for replica in &group.replicas {
            let addr = &self.inst(*replica).addr;
            // Where the promoted one was there will be the old master.
            let addr = if Self::same(addr, current) {
                &master.addr
            } else {
                addr
            };
            add(
                "known-replica",
                format!("{} {}", word(self.written(addr)), addr.port),
            );
        }
        for sentinel in &group.sentinels {
            let about = self.inst(*sentinel);
            let (host, port) = (word(self.written(&about.addr)), about.addr.port);
            if let Some(runid) = &about.runid {
                add("known-sentinel", format!("{host} {port} {}", word(runid)));
            }
        }
        for (from, to) in &group.renamed {
            add("rename-command", format!("{} {}", word(from), word(to)));
        }
    }

    /// Puts the lines into the file.
    pub fn write(&self, rewrite: &mut Rewrite) {
        let globals = &self.globals;
        let defaults = Globals::default();
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let fixed = [
            ("myid", globals.myid.clone(), true),
            (
                "deny-scripts-reconfig",
                yes(globals.deny_scripts_reconfig),
                globals.deny_scripts_reconfig != defaults.deny_scripts_reconfig,
            ),
            (
                "resolve-hostnames",
                yes(globals.resolve_hostnames),
                globals.resolve_hostnames,
            ),
            (
                "announce-hostnames",
                yes(globals.announce_hostnames),
                globals.announce_hostnames,
            ),
        ];
        let mut put = |option: &str, rest: &str, force: bool| {
            let option = format!("sentinel {option}");
            let line = format!("{option} {rest}");
            rewrite.line(option.as_bytes(), line.into_bytes(), force);
        };
        for (option, value, force) in fixed {
            put(option, &value, force);
        }
        for (option, rest) in self.lines() {
            put(option, &rest, true);
        }
        let absent = [
            "announce-ip",
            "announce-port",
            "sentinel-user",
            "sentinel-pass",
        ];
        for option in OF_GROUPS.iter().chain(&absent) {
            rewrite.mark_processed(format!("sentinel {option}").as_bytes());
        }
    }
}

fn unrecognized() -> String {
    "Unrecognized sentinel configuration statement.".to_owned()
}

fn created(refused: Refused, duplicate: &str) -> String {
    match refused {
        Refused::Duplicate => duplicate.to_owned(),
        Refused::Unresolved => "Can't resolve instance hostname.".to_owned(),
        Refused::TooMany => "Too many replicas or sentinels of one master.".to_owned(),
    }
}

/// A word as a line has it: in quotes only where it would not be read back without.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\');
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    String::from_utf8_lossy(&quote(text.as_bytes())).into_owned()
}
