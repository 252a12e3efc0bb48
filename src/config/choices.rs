//! Parameters whose value is one of a few words, as enums.
//!
//! Each list gives the words in the order in which error messages name them; the first word of a
//! variant is the one that is printed.

use super::value::{Origin, Param, Value};

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }
       [$($word:literal $value:ident),+ $(,)?])*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$vdoc])* $variant),+
        }

        impl $name {
            const WORDS: &'static [(&'static str, $name)] = &[$(($word, $name::$value)),+];

            /// The word that stands for the value in `redis.conf` and CONFIG GET.
            pub fn name(self) -> &'static str {
                Self::WORDS.iter().find(|(_, value)| *value == self).map_or("unknown", |(word, _)| word)
            }
        }

        impl Value for $name {
            fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
                find(Self::WORDS, args)
            }

            fn print(&self, _: &Param) -> Vec<u8> {
                self.name().as_bytes().to_vec()
            }
        }
    )*};
}

fn find<T: Copy>(words: &[(&str, T)], args: &[Vec<u8>]) -> Result<T, String> {
    let known = match args {
        [arg] => words
            .iter()
            .find(|(word, _)| arg.eq_ignore_ascii_case(word.as_bytes())),
        _ => None,
    };
    known.map(|(_, value)| *value).ok_or_else(|| one_of(words))
}

fn one_of<T>(words: &[(&str, T)]) -> String {
    let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    format!(
        "argument(s) must be one of the following: {}",
        words.join(", ")
    )
}

choices! {
    /// `maxmemory-policy`: what to evict when memory is full.
    MaxmemoryPolicy {
        /// Least recently used among keys with an expiry.
        VolatileLru,
        /// Least frequently used among keys with an expiry.
        VolatileLfu,
        /// Any key with an expiry.
        VolatileRandom,
        /// The key that expires next.
        VolatileTtl,
        /// Least recently used among all keys.
        AllkeysLru,
        /// Least frequently used among all keys.
        AllkeysLfu,
        /// Any key.
        AllkeysRandom,
        /// Nothing: refuse writes that need memory.
        NoEviction,
    } ["volatile-lru" VolatileLru, "volatile-lfu" VolatileLfu, "volatile-random" VolatileRandom,
       "volatile-ttl" VolatileTtl, "allkeys-lru" AllkeysLru, "allkeys-lfu" AllkeysLfu,
       "allkeys-random" AllkeysRandom, "noeviction" NoEviction]

    /// `syslog-facility`.
    SyslogFacility {
        /// LOG_USER.
        User,
        /// LOG_LOCAL0.
        Local0,
        /// LOG_LOCAL1.
        Local1,
        /// LOG_LOCAL2.
        Local2,
        /// LOG_LOCAL3.
        Local3,
        /// LOG_LOCAL4.
        Local4,
        /// LOG_LOCAL5.
        Local5,
        /// LOG_LOCAL6.
        Local6,
        /// LOG_LOCAL7.
        Local7,
    } ["user" User, "local0" Local0, "local1" Local1, "local2" Local2, "local3" Local3,
       "local4" Local4, "local5" Local5, "local6" Local6, "local7" Local7]

    /// `loglevel`: the least important lines that are still logged.
    LogLevel {
        /// Everything.
        Debug,
        /// Much, not all of it useful.
        Verbose,
        /// What an operator wants to know.
        Notice,
        /// Only what is important or wrong.
        Warning,
    } ["debug" Debug, "verbose" Verbose, "notice" Notice, "warning" Warning]

    /// `supervised`: which supervisor is told that the server is up.
    Supervised {
        /// Upstart: SIGSTOP.
        Upstart,
        /// systemd: READY=1.
        Systemd,
        /// Whichever the environment names.
        Auto,
        /// Nobody.
        No,
    } ["upstart" Upstart, "systemd" Systemd, "auto" Auto, "no" No]

    /// `appendfsync`: when the append only file is flushed to disk.
    AppendFsync {
        /// Once a second.
        Everysec,
        /// Before each reply.
        Always,
        /// When the kernel likes.
        No,
    } ["everysec" Everysec, "always" Always, "no" No]

    /// `repl-diskless-load`: where a replica keeps the data set it receives.
    ReplDisklessLoad {
        /// In a file first.
        Disabled,
        /// Straight from the socket, only when it has no data.
        OnEmptyDb,
        /// Straight from the socket, beside the old data.
        Swapdb,
    } ["disabled" Disabled, "on-empty-db" OnEmptyDb, "swapdb" Swapdb]

    /// `tls-auth-clients`: whether TLS clients must show a certificate.
    TlsAuthClients {
        /// None is asked for.
        No,
        /// A valid one is required.
        Yes,
        /// Checked when shown.
        Optional,
    } ["no" No, "yes" Yes, "optional" Optional]

    /// `oom-score-adj`: whether the server writes its OOM score.
    OomScoreAdj {
        /// It does not.
        No,
        /// Values are added to the score found at the start.
        Relative,
        /// Values are written as they are.
        Absolute,
    } ["no" No, "yes" Relative, "relative" Relative, "absolute" Absolute]

    /// `acl-pubsub-default`: the channels of a new user.
    AclPubsubDefault {
        /// Every channel.
        Allchannels,
        /// No channel.
        Resetchannels,
    } ["allchannels" Allchannels, "resetchannels" Resetchannels]

    /// `sanitize-dump-payload`: who is distrusted about RDB and RESTORE payloads.
    SanitizeDumpPayload {
        /// Nobody.
        No,
        /// Everybody.
        Yes,
        /// Clients, but not files and primaries.
        Clients,
    } ["no" No, "yes" Yes, "clients" Clients]

    /// Who may use a dangerous feature (`enable-debug-command` and its like).
    ProtectedAction {
        /// Nobody.
        No,
        /// Everybody.
        Yes,
        /// Connections from this machine.
        Local,
    } ["no" No, "yes" Yes, "local" Local]

    /// `cluster-preferred-endpoint-type`: how nodes are named in redirections.
    ClusterEndpointType {
        /// By address.
        Ip,
        /// By announced host name.
        Hostname,
        /// Not at all.
        UnknownEndpoint,
    } ["ip" Ip, "hostname" Hostname, "unknown-endpoint" UnknownEndpoint]

    /// `propagation-error-behavior`: what a failing command of the replication stream or AOF does.
    PropagationErrorBehavior {
        /// It is counted.
        Ignore,
        /// The server stops.
        Panic,
        /// A replica stops.
        PanicOnReplicas,
    } ["ignore" Ignore, "panic" Panic, "panic-on-replicas" PanicOnReplicas]
}

impl ProtectedAction {
    /// Whether a connection may use the feature; `local` when it comes from this machine.
    pub fn allows(self, local: bool) -> bool {
        self == ProtectedAction::Yes || (self == ProtectedAction::Local && local)
    }
}

/// `shutdown-on-sigint`, `shutdown-on-sigterm`: options of the shutdown a signal starts, the same
/// bits as the options of SHUTDOWN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShutdownFlags(pub u8);

impl ShutdownFlags {
    /// Save even when no save point is configured.
    pub const SAVE: ShutdownFlags = ShutdownFlags(1);
    /// Do not save.
    pub const NOSAVE: ShutdownFlags = ShutdownFlags(2);
    /// Do not wait for replicas.
    pub const NOW: ShutdownFlags = ShutdownFlags(4);
    /// Shut down whatever fails.
    pub const FORCE: ShutdownFlags = ShutdownFlags(8);
    /// Have a replica of a cluster's primary take over first.
    pub const FAILOVER: ShutdownFlags = ShutdownFlags(16);

    const WORDS: &'static [(&'static str, ShutdownFlags)] = &[
        ("default", ShutdownFlags(0)),
        ("save", Self::SAVE),
        ("nosave", Self::NOSAVE),
        ("now", Self::NOW),
        ("force", Self::FORCE),
        ("failover", Self::FAILOVER),
    ];

    /// Whether to save, where that is said.
    pub fn save(self) -> Option<bool> {
        match (self.has(Self::SAVE), self.has(Self::NOSAVE)) {
            (false, false) => None,
            (save, _) => Some(save),
        }
    }

    /// True when all of `other` are set.
    pub fn has(self, other: ShutdownFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Value for ShutdownFlags {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        if args.is_empty() {
            return Err(one_of(Self::WORDS));
        }
        let mut flags = ShutdownFlags(0);
        for arg in args {
            flags.0 |= find(Self::WORDS, std::slice::from_ref(arg))?.0;
        }
        if flags.has(Self::SAVE) && flags.has(Self::NOSAVE) {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
        }
        Ok(flags)
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        if self.0 == 0 {
            return b"default".to_vec();
        }
        let words: Vec<_> = Self::WORDS[1..]
            .iter()
            .filter(|(_, flag)| self.has(*flag))
            .map(|(word, _)| *word)
            .collect();
        words.join(" ").into_bytes()
    }
}
