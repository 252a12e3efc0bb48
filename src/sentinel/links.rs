//! Connections: made, given up, what is asked on them regularly, and what replies tell of their instance's
//! health.

use super::machine::{Action, Level, Machine};
use super::state::{ConnId, Id, Kind, LinkId, Reconf, Step, What};
use crate::resp::read::Value;

/// The channel of hellos.
pub const HELLO: &str = "__sentinel__:hello";
/// Requests on a link that wait for their reply, for each of its users; beyond that nothing is asked.
const PENDING: usize = 100;

/// A request as it is sent.
pub fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

impl Machine {
    /// Connects an instance that is not, but not too often.
    pub(super) fn reconnect(&mut self, id: Id) {
        let (now, ping) = (self.now, self.periods.ping);
        if !self.disconnected(id) || self.inst(id).addr.port == 0 {
            return;
        }
        let host = &self.inst(id).addr.host;
        let named = self.globals.resolve_hostnames && host.parse::<std::net::IpAddr>().is_err();
        let host = host.clone();
        let link = self.link_mut(id);
        if now - link.last_attempt < ping {
            return;
        }
        link.last_attempt = now;
        // A name is looked up first, but nobody waits long for that.
        if named && link.commands.is_none() {
            if link.resolving == 0 {
                link.resolving = now;
                self.do_(Action::Resolve(host));
                return;
            }
            if now - link.resolving < 2 * ping {
                return;
            }
            link.resolving = 0;
        }
        self.connect(id);
    }

    pub(super) fn connect(&mut self, id: Id) {
        let addr = self.inst(id).addr.clone();
        if addr.ip.is_empty() {
            return;
        }
        let name = format!("sentinel-{:.8}", self.globals.myid);
        if self.link(id).commands.is_none() {
            let conn = self.open(id, &addr.ip, addr.port);
            let now = self.now;
            let link = self.link_mut(id);
            link.commands = Some(conn);
            link.commands_since = now;
            link.local_ip.clear();
            link.pending.clear();
            if let Some(auth) = self.auth(id) {
                self.ask(id, &auth, What::Nothing, false);
            }
            self.ask(
                id,
                &["CLIENT", "SETNAME", &format!("{name}-cmd")],
                What::Nothing,
                false,
            );
            self.ping(id);
            // That it was restarted, or is another than it was, shows in INFO.
            if self.inst(id).kind != Kind::Sentinel {
                self.ask_info(id);
            }
        }
        if self.inst(id).kind != Kind::Sentinel && self.link(id).messages.is_none() {
            let conn = self.open(id, &addr.ip, addr.port);
            let auth = self.auth(id);
            let now = self.now;
            let link = self.link_mut(id);
            link.messages = Some(conn);
            link.messages_since = now;
            link.greeting = 1 + usize::from(auth.is_some());
            let mut bytes = Vec::new();
            if let Some(auth) = auth {
                bytes.extend(self.renamed(id, &auth));
            }
            bytes.extend(self.renamed(id, &["CLIENT", "SETNAME", &format!("{name}-pubsub")]));
            bytes.extend(self.renamed(id, &["SUBSCRIBE", HELLO]));
            self.do_(Action::Send {
                conn,
                bytes,
                promise: false,
            });
        }
    }

    fn open(&mut self, id: Id, ip: &str, port: u16) -> ConnId {
        let conn = self.number();
        let link = self.inst(id).link;
        self.conns.insert(conn, link);
        self.do_(Action::Connect {
            conn,
            ip: ip.to_owned(),
            port,
        });
        conn
    }

    /// The words to log in with, if any.
    fn auth(&self, id: Id) -> Option<Vec<String>> {
        let (group, globals) = (self.group_of(id), &self.globals);
        let (user, pass) = match (self.inst(id).kind, &globals.sentinel_pass) {
            (Kind::Master | Kind::Replica, _) => (&group.auth_user, &group.auth_pass),
            (Kind::Sentinel, Some(_)) => (&globals.sentinel_user, &globals.sentinel_pass),
            // Groups of sentinels with one password say it to each other.
            (Kind::Sentinel, None) => (&None, &globals.requirepass),
        };
        let pass = pass.clone()?;
        let mut words = vec!["AUTH".to_owned()];
        words.extend(user.clone());
        words.push(pass);
        Some(words)
    }

    /// A request, with the command's name as the instance has it.
    fn renamed<S: AsRef<str>>(&self, id: Id, words: &[S]) -> Vec<u8> {
        let mut words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        words[0] = self.group_of(id).command(words[0]);
        request(&words)
    }

    /// Sends a request on the connection for commands; false when there is none.
    pub(super) fn ask<S: AsRef<str>>(
        &mut self,
        id: Id,
        words: &[S],
        what: What,
        promise: bool,
    ) -> bool {
        let bytes = self.renamed(id, words);
        let link = self.link_mut(id);
        let Some(conn) = link.commands else {
            return false;
        };
        link.pending.push_back((id, what));
        self.do_(Action::Send {
            conn,
            bytes,
            promise,
        });
        true
    }

    fn ping(&mut self, id: Id) {
        if self.ask(id, &["PING"], What::Ping, false) {
            let now = self.now;
            let link = self.link_mut(id);
            link.last_ping = now;
            if link.ping_since == 0 {
                link.ping_since = now;
            }
        }
    }

    /// Asks for INFO, whenever it was asked last.
    pub(super) fn ask_info(&mut self, id: Id) {
        let waits = self
            .link(id)
            .pending
            .iter()
            .any(|(_, what)| *what == What::Info);
        if !waits {
            self.ask(id, &["INFO"], What::Info, false);
        }
    }

    /// Asks what is due: INFO, PING, and says hello.
    pub(super) fn ask_regularly(&mut self, id: Id) {
        let (now, link) = (self.now, self.link(id));
        if self.disconnected(id) || link.pending.len() >= PENDING * link.users {
            return;
        }
        let (about, group) = (self.inst(id), self.group_of(id));
        let master = self.inst(about.master);
        let closely = about.kind == Kind::Replica
            && (master.o_down || group.fails_over || about.link_down_ms != 0 || about.returning);
        let mut period = if closely {
            1000.min(self.periods.info)
        } else {
            self.periods.info
        };
        // What was told to change is looked at until it has.
        if about.kind == Kind::Replica
            && ((about.promoted && group.step == Step::WaitPromotion)
                || matches!(about.reconf, Reconf::Sent | Reconf::InProgress))
        {
            period = 0;
        }
        let ping_period = group.down_after.min(self.periods.ping);
        let (last_pong, last_ping) = (link.last_pong, link.last_ping);
        if about.kind != Kind::Sentinel
            && (about.info_refresh == 0 || now - about.info_refresh > period)
        {
            self.ask_info(id);
        }
        if now - last_pong > ping_period && now - last_ping > ping_period / 2 {
            self.ping(id);
        }
        if now - self.inst(id).last_pub > self.periods.publish {
            self.say_hello(id);
        }
    }

    /// Tells an instance who we are and where the master is.
    pub(super) fn say_hello(&mut self, id: Id) {
        if self.disconnected(id) {
            return;
        }
        let globals = &self.globals;
        let ip = match &globals.announce_ip {
            Some(ip) if !ip.is_empty() => ip.clone(),
            _ => self.link(id).local_ip.clone(),
        };
        if ip.is_empty() {
            return;
        }
        let port = match globals.announce_port {
            0 => globals.port,
            port => port,
        };
        let master = self.inst(id).master;
        let addr = self.current_addr(master);
        let text = format!(
            "{ip},{port},{},{},{},{},{},{}",
            globals.myid,
            globals.epoch,
            self.inst(master).name,
            self.announced(addr),
            addr.port,
            self.group(master).config_epoch
        );
        self.ask(id, &["PUBLISH", HELLO, &text], What::Hello, true);
    }

    /// Tells everybody of a group at once.
    pub(super) fn say_hello_to_all(&mut self, master: Id) {
        let group = self.group(master);
        let members = group.sentinels.iter().chain(&group.replicas).copied();
        let members: Vec<Id> = members.chain([master]).collect();
        for id in members {
            // Until the answer is there it is due again.
            self.inst_mut(id).last_pub = self.now - self.periods.publish;
            self.say_hello(id);
        }
    }

    /// Has an instance follow another one, or nobody; false when it cannot be told.
    pub(super) fn send_replicaof(&mut self, id: Id, to: Option<(&str, u16)>) -> bool {
        if self.link(id).commands.is_none() {
            return false;
        }
        let port = to.map_or("ONE".to_owned(), |(_, port)| port.to_string());
        let host = to.map_or("NO", |(host, _)| host);
        // As one, so that nobody is served by it in between; clients have to ask who leads.
        let requests: [&[&str]; 6] = [
            &["MULTI"],
            &["SLAVEOF", host, &port],
            &["CONFIG", "REWRITE"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "KILL", "TYPE", "pubsub"],
            &["EXEC"],
        ];
        for words in requests {
            self.ask(id, words, What::Nothing, true);
        }
        true
    }

    // ---------------------------------------------------------------- giving up

    /// Closes both connections.
    pub(super) fn drop_link(&mut self, id: Id) {
        let link = self.inst(id).link;
        self.close_link(link);
    }

    fn close_link(&mut self, link: LinkId) {
        for commands in [true, false] {
            self.close_half(link, commands);
        }
    }

    /// Closes one of the two.
    pub(super) fn close_half(&mut self, link: LinkId, commands: bool) {
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        let conn = match commands {
            true => {
                known.pending.clear();
                known.commands.take()
            }
            false => known.messages.take(),
        };
        if let Some(conn) = conn {
            self.conns.remove(&conn);
            self.do_(Action::Close(conn));
        }
    }

    /// One user less.
    pub(super) fn release_link(&mut self, link: LinkId) {
        let users = self.links.get_mut(&link).map(|link| {
            link.users -= 1;
            link.users
        });
        if users == Some(0) {
            self.close_link(link);
            self.links.remove(&link);
        }
    }

    // ---------------------------------------------------------------- what came

    pub(super) fn connected(&mut self, conn: ConnId, local_ip: String) {
        let link = self
            .conns
            .get(&conn)
            .and_then(|link| self.links.get_mut(link));
        if let Some(link) = link.filter(|link| link.commands == Some(conn)) {
            link.local_ip = local_ip;
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId, why: &str) {
        let Some(id) = self.conns.remove(&conn) else {
            return;
        };
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let commands = link.commands == Some(conn);
        if commands {
            link.commands = None;
            link.pending.clear();
            // Nothing can be awaited from it: its silence has begun.
            if link.ping_since == 0 {
                link.ping_since = now;
            }
        } else {
            link.messages = None;
        }
        let of_link = |i: &(&Id, &super::state::Instance)| i.1.link == id;
        if let Some((&about, _)) = self.instances.iter().find(of_link) {
            let channel = match commands {
                true => "-cmd-link-reconnection",
                false => "-pubsub-link-reconnection",
            };
            self.event(Level::Debug, channel, about, &format!(" #{why}"));
        }
    }

    pub(super) fn replied(&mut self, conn: ConnId, value: Value) {
        let Some(id) = self.conns.get(&conn).copied() else {
            return;
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.messages == Some(conn) {
            return self.message(id, &value);
        }
        let Some((about, what)) = link.pending.pop_front() else {
            return;
        };
        let is_known = self.instances.contains_key(&about);
        match what {
            What::Ping => self.ponged(id, about, &value),
            What::Info if is_known => {
                if let Value::Bulk(text) | Value::Verbatim { text, .. } = value {
                    self.informed(about, text);
                }
            }
            What::Hello if is_known && matches!(value, Value::Int(_)) => {
                self.inst_mut(about).last_pub = self.now;
            }
            What::Asked if is_known => self.answered(about, &value),
            _ => {}
        }
    }

    fn message(&mut self, link: LinkId, value: &Value) {
        let now = self.now;
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        if known.greeting > 0 {
            known.greeting -= 1;
            return;
        }
        if matches!(value, Value::Error(_)) {
            // Without its messages the connection is of no use.
            return self.close_half(link, false);
        }
        known.last_message = now;
        let Value::Array(parts) = value else {
            return;
        };
        let [Value::Bulk(kind), Value::Bulk(_), Value::Bulk(text)] = parts.as_slice() else {
            return;
        };
        let text = String::from_utf8_lossy(text);
        if kind == b"message" && !text.contains(&self.globals.myid) {
            self.hello(&text);
        }
    }

    fn ponged(&mut self, link: LinkId, about: Id, value: &Value) {
        let now = self.now;
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        let (Value::Simple(text) | Value::Error(text)) = value else {
            known.last_pong = now;
            return;
        };
        known.last_pong = now;
        let good = ["PONG", "LOADING", "MASTERDOWN"];
        if good.iter().any(|word| text.starts_with(word.as_bytes())) {
            known.last_ok = now;
            known.ping_since = 0;
            if text.starts_with(b"PONG")
                && let Some(about) = self.instances.get_mut(&about)
            {
                about.rebooted = false;
            }
        } else if text.starts_with(b"BUSY")
            && let Some(known) = self.instances.get_mut(&about)
            && known.s_down
            && !known.script_kill_sent
        {
            known.script_kill_sent = true;
            self.ask(about, &["SCRIPT", "KILL"], What::Nothing, false);
        }
    }
}
