//! What clients order: SENTINEL's subcommands that change something, and hellos and questions of other
//! sentinels.

use super::links::HELLO;
use super::machine::{Action, Level, Machine, Refused};
use super::state::{Id, Kind};
use crate::base::glob;
use crate::base::number::parse_i64;

/// An order.
#[derive(Debug)]
pub enum Order {
    /// A hello, published here.
    Hello {
        /// The channel.
        channel: String,
        /// The hello.
        text: String,
    },
    /// SENTINEL IS-MASTER-DOWN-BY-ADDR.
    IsMasterDown {
        /// The master's host,
        host: String,
        /// and port.
        port: i64,
        /// The epoch.
        epoch: u64,
        /// Who wants the vote; `*`: nobody.
        candidate: String,
    },
    /// SENTINEL RESET.
    Reset(Vec<u8>),
    /// SENTINEL FAILOVER.
    Failover(String),
    /// SENTINEL FLUSHCONFIG.
    Flush,
    /// SENTINEL MONITOR.
    Monitor {
        /// Its name.
        name: String,
        /// Its host,
        host: String,
        /// and port.
        port: i64,
        /// How many have to agree.
        quorum: i64,
    },
    /// SENTINEL REMOVE.
    Remove(String),
    /// SENTINEL SET.
    Set {
        /// The master.
        name: String,
        /// Options and values.
        words: Vec<String>,
        /// Those of them that are no scripts that can be run.
        not_runnable: Vec<String>,
    },
    /// SENTINEL CONFIG SET.
    Config {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// SENTINEL DEBUG.
    Debug(Vec<String>),
    /// SENTINEL SIMULATE-FAILURE.
    Simulate(u32),
    /// A name that MONITOR was given leads nowhere.
    Unresolved,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `OK`.
    Ok,
    /// `OK`, if the file could be written.
    Saved,
    /// A number.
    Int(i64),
    /// An error, with its code.
    Error(String),
    /// What IS-MASTER-DOWN-BY-ADDR asks.
    Down {
        /// It is.
        down: bool,
        /// For whom we voted.
        leader: Option<String>,
        /// In which epoch.
        epoch: u64,
    },
}

impl Answer {
    fn err(text: impl std::fmt::Display) -> Self {
        Self::Error(format!("ERR {text}"))
    }

    fn no_master() -> Self {
        Self::err("No such master with that name")
    }
}

/// `yes` or `no`, in whatever case.
pub(super) fn yes_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A text; the empty one is none.
pub(super) fn some(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

impl Machine {
    /// Does what a client orders.
    pub fn order(&mut self, order: Order, now: i64) -> (Answer, Vec<Action>) {
        self.set_now(now);
        let answer = match order {
            Order::Hello { channel, text } => self.order_hello(&channel, &text),
            Order::IsMasterDown {
                host,
                port,
                epoch,
                candidate,
            } => self.is_master_down(&host, port, epoch, &candidate),
            Order::Reset(pattern) => self.order_reset(&pattern),
            Order::Failover(name) => self.order_failover(&name),
            Order::Flush => {
                self.save();
                Answer::Saved
            }
            Order::Monitor {
                name,
                host,
                port,
                quorum,
            } => self.monitor(&name, &host, port, quorum),
            Order::Remove(name) => self.remove(&name),
            Order::Set {
                name,
                words,
                not_runnable,
            } => self.set(&name, &words, &not_runnable),
            Order::Config { option, value } => self.set_global(&option, &value),
            Order::Debug(words) => self.debug(&words),
            Order::Simulate(flags) => {
                self.globals.simulate = flags;
                Answer::Ok
            }
            Order::Unresolved => Answer::err("Invalid IP address or hostname specified"),
        };
        (answer, self.actions())
    }

    fn order_hello(&mut self, channel: &str, text: &str) -> Answer {
        if channel != HELLO {
            return Answer::err("Only HELLO messages are accepted by Sentinel instances.");
        }
        self.hello(text);
        Answer::Int(1)
    }

    fn is_master_down(&mut self, host: &str, port: i64, epoch: u64, candidate: &str) -> Answer {
        let addr = match u16::try_from(port) {
            Ok(port) => self.address(host, port),
            Err(_) => None,
        };
        let there = |id: &Id| {
            addr.as_ref()
                .is_some_and(|addr| Self::same(&self.inst(*id).addr, addr))
        };
        let Some(master) = self.masters.values().copied().find(there) else {
            return Answer::Down {
                down: false,
                leader: None,
                epoch: 0,
            };
        };
        let down = !self.tilt && self.inst(master).s_down;
        let (leader, epoch) = match candidate {
            "*" => (None, 0),
            _ => self.vote(master, epoch, candidate),
        };
        Answer::Down {
            down,
            leader,
            epoch,
        }
    }

    fn order_reset(&mut self, pattern: &[u8]) -> Answer {
        let mut count = 0;
        for master in self.master_ids() {
            if glob::matches(pattern, self.inst(master).name.as_bytes(), false) {
                self.reset(master, true);
                self.event(Level::Warning, "+reset-master", master, "");
                count += 1;
            }
        }
        Answer::Int(count)
    }

    fn order_failover(&mut self, name: &str) -> Answer {
        let Some(master) = self.master(name) else {
            return Answer::no_master();
        };
        if self.group(master).fails_over {
            return Answer::Error("INPROG Failover already in progress".to_owned());
        }
        if self.best_replica(master).is_none() {
            return Answer::Error("NOGOODSLAVE No suitable replica to promote".to_owned());
        }
        self.do_(Action::Log(format!(
            "Executing user requested FAILOVER of '{name}'"
        )));
        self.start_failover(master);
        self.group_mut(master).forced = true;
        Answer::Ok
    }

    fn monitor(&mut self, name: &str, host: &str, port: i64, quorum: i64) -> Answer {
        if quorum <= 0 {
            return Answer::err("Quorum must be 1 or greater.");
        }
        let is_ip = host.parse::<std::net::IpAddr>().is_ok();
        if !is_ip && !self.globals.resolve_hostnames {
            return Answer::err("Invalid IP address or hostname specified");
        }
        let Ok(port) = u16::try_from(port) else {
            return Answer::err("Invalid port number.");
        };
        match self.add_master(name, host, port, quorum) {
            Ok(master) => {
                self.save();
                self.event(
                    Level::Warning,
                    "+monitor",
                    master,
                    &format!(" quorum {quorum}"),
                );
                Answer::Saved
            }
            Err(Refused::Duplicate) => Answer::err("Duplicate master name."),
            Err(_) => Answer::err("Can't resolve instance hostname."),
        }
    }

    fn remove(&mut self, name: &str) -> Answer {
        let Some(master) = self.master(name) else {
            return Answer::no_master();
        };
        self.event(Level::Warning, "-monitor", master, "");
        self.forget_master(master);
        self.save();
        Answer::Saved
    }

    // ---------------------------------------------------------------- parameters

    fn set(&mut self, name: &str, words: &[String], not_runnable: &[String]) -> Answer {
        let Some(master) = self.master(name) else {
            return Answer::no_master();
        };
        let mut at = 0;
        while at < words.len() {
            match self.set_one(master, &words[at..], not_runnable) {
                Ok(taken) => {
                    let shown = match words[at].to_ascii_lowercase().as_str() {
                        "auth-pass" => format!(" {} ******", words[at]),
                        _ => format!(" {}", words[at..at + taken].join(" ")),
                    };
                    self.event(Level::Warning, "+set", master, &shown);
                    self.save();
                    at += taken;
                }
                Err(error) => return Answer::err(error),
            }
        }
        Answer::Saved
    }

    /// Sets one option; how many words that took.
    fn set_one(
        &mut self,
        master: Id,
        words: &[String],
        not_runnable: &[String],
    ) -> Result<usize, String> {
        let option = words[0].as_str();
        let unknown =
            || format!("Unknown option or number of arguments for SENTINEL SET '{option}'");
        let bad = |value: &str| format!("Invalid argument '{value}' for SENTINEL SET '{option}'");
        let value = words.get(1).ok_or_else(unknown)?.as_str();
        let number = |least: i64| {
            let parsed = parse_i64(value.as_bytes());
            // Some are reckoned with as multiples.
            let parsed = parsed.map(|n| n.min(i64::MAX / 1024));
            parsed.filter(|n| *n >= least).ok_or_else(|| bad(value))
        };
        let denied = self.globals.deny_scripts_reconfig;
        let script = |what: &str| {
            if denied {
                return Err("Reconfiguration of scripts path is denied for security reasons. Check the \
                            deny-scripts-reconfig configuration directive in your Sentinel configuration"
                    .to_owned());
            }
            if not_runnable.iter().any(|path| path == value) {
                return Err(format!(
                    "{what} script seems non existing or non executable"
                ));
            }
            Ok(some(value))
        };
        let lower = option.to_ascii_lowercase();
        let group = self.group_mut(master);
        match lower.as_str() {
            "down-after-milliseconds" => group.down_after = number(1)?,
            "failover-timeout" => group.failover_timeout = number(1)?,
            "parallel-syncs" => group.parallel_syncs = number(1)?,
            "quorum" => group.quorum = number(1)?,
            "master-reboot-down-after-period" => group.reboot_down_after = number(0)?,
            "notification-script" => group.notification_script = script("Notification")?,
            "client-reconfig-script" => group.reconfig_script = script("Client reconfiguration")?,
            "auth-pass" => {
                group.auth_pass = some(value);
                self.drop_group_links(master);
            }
            "auth-user" => {
                group.auth_user = some(value);
                self.drop_group_links(master);
            }
            "rename-command" => {
                let to = words.get(2).ok_or_else(unknown)?;
                if value.is_empty() || to.is_empty() {
                    return Err(bad(""));
                }
                group
                    .renamed
                    .retain(|(from, _)| !from.eq_ignore_ascii_case(value));
                if !value.eq_ignore_ascii_case(to) {
                    group.renamed.push((value.to_owned(), to.clone()));
                }
                return Ok(3);
            }
            _ => return Err(unknown()),
        }
        Ok(2)
    }

    /// Closes the links to a master and its replicas, which are made again with what is known now.
    fn drop_group_links(&mut self, master: Id) {
        let members = self.group(master).replicas.clone();
        for id in members.into_iter().chain([master]) {
            self.drop_link(id);
        }
    }

    fn set_global(&mut self, option: &str, value: &str) -> Answer {
        let bad = || {
            Answer::err(format!(
                "Invalid value '{value}' to SENTINEL CONFIG SET '{option}'"
            ))
        };
        let globals = &mut self.globals;
        let mut drops = false;
        match option.to_ascii_lowercase().as_str() {
            "resolve-hostnames" => match yes_no(value) {
                Some(yes) => globals.resolve_hostnames = yes,
                None => return bad(),
            },
            "announce-hostnames" => match yes_no(value) {
                Some(yes) => globals.announce_hostnames = yes,
                None => return bad(),
            },
            "announce-ip" => globals.announce_ip = some(value),
            "announce-port" => match value.parse() {
                Ok(port) => globals.announce_port = port,
                Err(_) => return bad(),
            },
            "sentinel-user" => {
                globals.sentinel_user = some(value);
                drops = true;
            }
            "sentinel-pass" => {
                globals.sentinel_pass = some(value);
                drops = true;
            }
            _ => {
                return Answer::err(format!(
                    "Invalid argument '{option}' to SENTINEL CONFIG SET"
                ));
            }
        }
        if drops {
            let is_sentinel = |id: &Id| self.inst(*id).kind == Kind::Sentinel;
            let all: Vec<Id> = self.instances.keys().copied().filter(is_sentinel).collect();
            for id in all {
                self.drop_link(id);
            }
        }
        self.save();
        Answer::Saved
    }

    fn debug(&mut self, words: &[String]) -> Answer {
        for pair in words.chunks(2) {
            let option = &pair[0];
            let unknown =
                format!("Unknown option or number of arguments for SENTINEL DEBUG '{option}'");
            let mut named = self.periods.named();
            let found = named
                .iter_mut()
                .find(|(name, _)| name.eq_ignore_ascii_case(option));
            let (Some((_, period)), Some(value)) = (found, pair.get(1)) else {
                return Answer::err(unknown);
            };
            match parse_i64(value.as_bytes()).filter(|ms| *ms > 0) {
                Some(ms) => **period = ms.min(i64::MAX / 1024),
                None => {
                    return Answer::err(format!(
                        "Invalid argument '{value}' for SENTINEL DEBUG '{option}'"
                    ));
                }
            }
        }
        Answer::Ok
    }
}
