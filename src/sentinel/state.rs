//! What a sentinel knows: instances, their links, and the group that belongs to each master. Plain data.

use std::collections::VecDeque;

/// An instance.
pub type Id = u64;
/// The connections to an instance; sentinels that watch several masters of ours share one.
pub type LinkId = u64;
/// One connection, or the attempt to make it.
pub type ConnId = u64;

/// Where an instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    /// Its name or address, as it was told.
    pub host: String,
    /// Its address; empty while the name leads nowhere.
    pub ip: String,
    /// Its port; 0 is none.
    pub port: u16,
}

/// What an instance is, by the present configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The master of a group.
    Master,
    /// One of its replicas.
    Replica,
    /// Another sentinel that watches it.
    Sentinel,
}

impl Kind {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "slave",
            Self::Sentinel => "sentinel",
        }
    }
}

/// What an instance says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet.
    #[default]
    None,
    /// A master.
    Master,
    /// A replica.
    Replica,
}

/// How far a replica is that is to follow the promoted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconf {
    /// Not told yet.
    #[default]
    None,
    /// It was told.
    Sent,
    /// It follows, and synchronizes.
    InProgress,
    /// It has.
    Done,
}

/// An instance: a master, a replica or a sentinel.
#[derive(Debug)]
pub struct Instance {
    /// What it is.
    pub kind: Kind,
    /// The master of its group; its own id if it is that.
    pub master: Id,
    /// Its name in events: of a master what it was called, of a sentinel its id.
    pub name: String,
    /// Its run id, or id.
    pub runid: Option<String>,
    /// Where it is.
    pub addr: Addr,
    /// Its connections.
    pub link: LinkId,
    /// When a hello was last published to it.
    pub last_pub: i64,
    /// When a sentinel last said hello.
    pub last_hello: i64,
    /// When a sentinel last said whether it thinks the master down.
    pub last_down_reply: i64,
    /// It is down, as we see it.
    pub s_down: bool,
    /// Since when, or was last.
    pub s_down_since: i64,
    /// A master of which enough sentinels say that.
    pub o_down: bool,
    /// Since when, or was last.
    pub o_down_since: i64,
    /// A sentinel that says that the master is down.
    pub master_down: bool,
    /// A master that was restarted.
    pub rebooted: bool,
    /// When that was found.
    pub reboot_since: i64,
    /// SCRIPT KILL was sent to it while it was busy.
    pub script_kill_sent: bool,
    /// When it last answered INFO; 0 is never.
    pub info_refresh: i64,
    /// What it answered.
    pub info: Option<Vec<u8>>,
    /// The role it reports.
    pub role: Role,
    /// Since when.
    pub role_since: i64,
    /// When its master, as it reports it, last changed.
    pub conf_change: i64,
    /// It was a master, or down, and has not been seen as a replica of the present master since.
    pub returning: bool,
    /// Of a replica: for how long its link to its master has been down, in milliseconds.
    pub link_down_ms: i64,
    /// Its priority.
    pub priority: i64,
    /// It wants to be named to clients.
    pub announced: bool,
    /// When it was last told to follow the promoted replica.
    pub reconf_sent: i64,
    /// How far it is with that.
    pub reconf: Reconf,
    /// It is, or is to be, the new master.
    pub promoted: bool,
    /// Its master, as it reports it.
    pub master_host: Option<String>,
    /// Its port.
    pub master_port: i64,
    /// Its link to its master is up.
    pub link_up: bool,
    /// How much of the stream it has.
    pub offset: u64,
    /// Its data set has keys.
    pub has_keys: bool,
    /// The names of the histories that its data belongs to.
    pub histories: [Option<String>; 2],
    /// Of a master whom we voted for, of a sentinel whom it voted for.
    pub leader: Option<String>,
    /// In which epoch.
    pub leader_epoch: u64,
}

impl Instance {
    /// One of which nothing is known.
    pub fn new(kind: Kind, master: Id, name: String, addr: Addr, link: LinkId, now: i64) -> Self {
        let role = match kind {
            Kind::Master => Role::Master,
            Kind::Replica => Role::Replica,
            Kind::Sentinel => Role::None,
        };
        Self {
            kind,
            master,
            name,
            runid: None,
            addr,
            link,
            last_pub: now,
            last_hello: now,
            last_down_reply: now,
            s_down: false,
            s_down_since: 0,
            o_down: false,
            o_down_since: 0,
            master_down: false,
            rebooted: false,
            reboot_since: 0,
            script_kill_sent: false,
            info_refresh: 0,
            info: None,
            role,
            role_since: now,
            conf_change: now,
            returning: false,
            link_down_ms: 0,
            priority: 100,
            announced: true,
            reconf_sent: 0,
            reconf: Reconf::None,
            promoted: false,
            master_host: None,
            master_port: 0,
            link_up: false,
            offset: 0,
            has_keys: false,
            histories: [None, None],
            leader: None,
            leader_epoch: 0,
        }
    }

    /// It was not down for so long.
    pub fn no_down_for(&self, ms: i64, now: i64) -> bool {
        let latest = self.s_down_since.max(self.o_down_since);
        latest == 0 || now - latest > ms
    }
}

/// What a sent request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A reply that tells nothing.
    Nothing,
    /// PING's.
    Ping,
    /// INFO's.
    Info,
    /// That of PUBLISH.
    Hello,
    /// That of SENTINEL IS-MASTER-DOWN-BY-ADDR.
    Asked,
}

/// The connections to an instance and what is known of them.
#[derive(Debug, Default)]
pub struct Link {
    /// How many instances use it.
    pub users: usize,
    /// The connection for commands.
    pub commands: Option<ConnId>,
    /// The one for messages; sentinels need none.
    pub messages: Option<ConnId>,
    /// Our address on the first; empty until it is there.
    pub local_ip: String,
    /// Requests on the first, in order, and for whom they were made.
    pub pending: VecDeque<(Id, What)>,
    /// Replies on the second that come before that to SUBSCRIBE.
    pub greeting: usize,
    /// When they were opened.
    pub commands_since: i64,
    /// See there.
    pub messages_since: i64,
    /// When something last came on the second.
    pub last_message: i64,
    /// When it last answered PING well.
    pub last_ok: i64,
    /// Since when an answer to PING is missing; 0 when none is.
    pub ping_since: i64,
    /// When PING was last sent.
    pub last_ping: i64,
    /// When it last answered PING at all.
    pub last_pong: i64,
    /// When it was last tried to connect.
    pub last_attempt: i64,
    /// Since when its name is being looked up for that; 0 when it is not.
    pub resolving: i64,
}

impl Link {
    /// One that is not connected yet. Its silence counts from now on.
    pub fn new(now: i64) -> Self {
        Self {
            users: 1,
            last_ok: now,
            ping_since: now,
            last_pong: now,
            ..Self::default()
        }
    }

    /// A connection that the instance needs is missing.
    pub fn disconnected(&self, kind: Kind) -> bool {
        self.commands.is_none() || (kind != Kind::Sentinel && self.messages.is_none())
    }
}

/// The steps of a failover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// None is under way.
    #[default]
    None,
    /// Votes are collected.
    WaitStart,
    /// A replica is selected.
    SelectReplica,
    /// It is told.
    SendNoOne,
    /// It is awaited.
    WaitPromotion,
    /// The other replicas are told.
    ReconfReplicas,
    /// It is over: the promoted one is the master.
    UpdateConfig,
}

impl Step {
    /// Its name for clients.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::WaitStart => "wait_start",
            Self::SelectReplica => "select_slave",
            Self::SendNoOne => "send_slaveof_noone",
            Self::WaitPromotion => "wait_promotion",
            Self::ReconfReplicas => "reconf_slaves",
            Self::UpdateConfig => "update_config",
        }
    }
}

/// What belongs to a master beside the instance: its group's parameters, members, and failover.
#[derive(Debug)]
pub struct Group {
    /// Its replicas.
    pub replicas: Vec<Id>,
    /// Other sentinels that watch it.
    pub sentinels: Vec<Id>,
    /// It was said that no more of them are taken.
    pub is_full: bool,
    /// How many have to agree that it is down.
    pub quorum: i64,
    /// After how long a silence it is down, in milliseconds.
    pub down_after: i64,
    /// A master that restarted and does not answer PING well for so long is down.
    pub reboot_down_after: i64,
    /// Bounds each step of a failover, in milliseconds; another one is not begun for twice as long.
    pub failover_timeout: i64,
    /// How many replicas synchronize at once.
    pub parallel_syncs: i64,
    /// Its password.
    pub auth_pass: Option<String>,
    /// The user to log in as.
    pub auth_user: Option<String>,
    /// Commands under other names.
    pub renamed: Vec<(String, String)>,
    /// Told of events.
    pub notification_script: Option<String>,
    /// Told of new masters.
    pub reconfig_script: Option<String>,
    /// The epoch of the present configuration.
    pub config_epoch: u64,
    /// That of the failover under way.
    pub failover_epoch: u64,
    /// A failover is under way.
    pub fails_over: bool,
    /// Without votes.
    pub forced: bool,
    /// How far it is.
    pub step: Step,
    /// Since when.
    pub step_since: i64,
    /// When the last one began, here or by our vote; 0: long ago.
    pub failover_start: i64,
    /// For which of these the delay was logged.
    pub delay_logged: i64,
    /// Who is to be the master.
    pub promoted: Option<Id>,
    /// A replica was seen in step with the master, so that the names are not only those of a master that
    /// may have lost its data.
    pub in_step: bool,
    /// The names of the master's histories, the latest last.
    pub histories: VecDeque<String>,
}

/// How many names of histories are remembered.
const HISTORIES: usize = 16;

impl Group {
    /// Its replicas and the other sentinels, as of now: what is done to them may change the group.
    pub fn members(&self) -> Vec<Id> {
        [self.replicas.as_slice(), &self.sentinels].concat()
    }

    /// One with Redis' defaults.
    pub fn new(quorum: i64, periods: &Periods) -> Self {
        Self {
            replicas: Vec::new(),
            sentinels: Vec::new(),
            is_full: false,
            quorum,
            down_after: periods.down_after,
            reboot_down_after: 0,
            failover_timeout: periods.failover_timeout,
            parallel_syncs: 1,
            auth_pass: None,
            auth_user: None,
            renamed: Vec::new(),
            notification_script: None,
            reconfig_script: None,
            config_epoch: 0,
            failover_epoch: 0,
            fails_over: false,
            forced: false,
            step: Step::None,
            step_since: 0,
            failover_start: 0,
            delay_logged: 0,
            promoted: None,
            in_step: false,
            histories: VecDeque::new(),
        }
    }

    /// Remembers the name of a history of the master's.
    pub fn remember(&mut self, name: &str) {
        if self.histories.iter().any(|known| known == name) {
            return;
        }
        if self.histories.len() == HISTORIES {
            self.histories.pop_front();
        }
        self.histories.push_back(name.to_owned());
    }

    /// A command's name there.
    pub fn command<'a>(&'a self, name: &'a str) -> &'a str {
        let renamed = self.renamed.iter();
        renamed
            .rev()
            .find(|(from, _)| from.eq_ignore_ascii_case(name))
            .map_or(name, |(_, to)| to)
    }
}

/// SENTINEL DEBUG: times in milliseconds.
#[derive(Clone, Debug)]
pub struct Periods {
    /// Between two INFO.
    pub info: i64,
    /// Between two PING, and two attempts to connect.
    pub ping: i64,
    /// Between two questions to other sentinels.
    pub ask: i64,
    /// Between two hellos.
    pub publish: i64,
    /// What masters begin with.
    pub down_after: i64,
    /// What masters begin with.
    pub failover_timeout: i64,
    /// A time between two ticks beyond which something is odd.
    pub tilt_trigger: i64,
    /// How long nothing is done then.
    pub tilt: i64,
    /// How long a replica may take to follow.
    pub reconf_timeout: i64,
    /// A connection is no younger than this when it is given up.
    pub min_reconnect: i64,
    /// How long votes are awaited.
    pub election: i64,
    /// How long a script may run.
    pub script_runtime: i64,
    /// After which a script is tried again.
    pub script_retry: i64,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            info: 10_000,
            ping: 1000,
            ask: 1000,
            publish: 2000,
            down_after: 30_000,
            failover_timeout: 180_000,
            tilt_trigger: 2000,
            tilt: 30_000,
            reconf_timeout: 10_000,
            min_reconnect: 15_000,
            election: 10_000,
            script_runtime: 60_000,
            script_retry: 30_000,
        }
    }
}

impl Periods {
    /// Each by its name in SENTINEL DEBUG, in Redis' order.
    pub fn named(&mut self) -> [(&'static str, &mut i64); 13] {
        [
            ("INFO-PERIOD", &mut self.info),
            ("PING-PERIOD", &mut self.ping),
            ("ASK-PERIOD", &mut self.ask),
            ("PUBLISH-PERIOD", &mut self.publish),
            ("DEFAULT-DOWN-AFTER", &mut self.down_after),
            ("DEFAULT-FAILOVER-TIMEOUT", &mut self.failover_timeout),
            ("TILT-TRIGGER", &mut self.tilt_trigger),
            ("TILT-PERIOD", &mut self.tilt),
            ("SLAVE-RECONF-TIMEOUT", &mut self.reconf_timeout),
            ("MIN-LINK-RECONNECT-PERIOD", &mut self.min_reconnect),
            ("ELECTION-TIMEOUT", &mut self.election),
            ("SCRIPT-MAX-RUNTIME", &mut self.script_runtime),
            ("SCRIPT-RETRY-DELAY", &mut self.script_retry),
        ]
    }
}
