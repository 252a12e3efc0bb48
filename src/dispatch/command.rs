//! What a command is: one row, from which arity check, keys and locks, refusals, ACL categories,
//! COMMAND INFO and statistics follow.

use std::borrow::Cow;

use super::args::Args;
use super::context::{DataCtx, ServerCtx};
use super::error::Error;
pub use crate::acl::Categories as Acl;

/// A row of the command table.
pub struct Command {
    /// Name in lower case; of a subcommand without its container's.
    pub name: &'static str,
    /// Number of arguments with the name (and subcommand's name): exact, or at least `-arity`.
    pub arity: i32,
    /// Properties.
    pub flags: Flags,
    /// ACL categories beyond those that follow from the flags.
    pub acl: Acl,
    /// Where its keys are.
    pub keys: Keys,
    /// Finds its keys where the specifications cannot.
    pub find_keys: Option<FindKeys>,
    /// Finds the arguments that neither MONITOR nor the slow log may show.
    pub secrets: Option<fn(Args<'_>) -> Vec<usize>>,
    /// Which arguments are channels that a user must be allowed.
    pub channels: Channels,
    /// Which databases a user must be allowed.
    pub databases: Databases,
    /// Which shards it holds while it runs.
    pub scope: Scope,
    /// What runs it.
    pub handler: Handler,
    /// Its subcommands; a command with any is a container, which needs one.
    pub subcommands: &'static [Command],
    /// The argument that names an element of the collection at the first key; 0 when none does. Those
    /// of several requests for one key are read ahead.
    pub element: usize,
    /// Command tips (`request_policy:...`, `nondeterministic_output`, ...).
    pub tips: &'static [&'static str],
}

impl Command {
    /// A request as others may see it.
    pub fn shown<'a>(&self, args: Args<'a>) -> Cow<'a, [&'a [u8]]> {
        let Some(secrets) = self.secrets else {
            return Cow::Borrowed(args.all());
        };
        let mut shown = args.all().to_vec();
        for index in secrets(args) {
            shown[index] = b"(redacted)";
        }
        Cow::Owned(shown)
    }

    /// With these tips.
    pub const fn tipped(self, tips: &'static [&'static str]) -> Self {
        Self { tips, ..self }
    }

    /// With an element of the collection named at argument `at`.
    pub const fn of_element(self, at: usize) -> Self {
        Self {
            element: at,
            ..self
        }
    }
}

/// The defaults of a row.
pub const ROW: Command = Command {
    name: "",
    arity: 1,
    flags: Flags(0),
    acl: Acl::NONE,
    keys: Keys::NONE,
    find_keys: None,
    secrets: None,
    channels: Channels::None,
    databases: Databases::Selected,
    scope: Scope::Keys,
    handler: Handler::Container,
    subcommands: &[],
    element: 0,
    tips: &[],
};

/// Shows the index of each key of a request, and what is done with it.
pub type FindKeys = fn(Args<'_>, &mut dyn FnMut(usize, KeyFlags));

/// What runs a command on keys.
pub type OnData = fn(&mut DataCtx<'_, '_>) -> Result<(), Error>;

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Runs to completion under the locks of its own keys and reaches nothing else.
    Data(OnData),
    /// Reaches the session and the server; locks shards itself if it needs any.
    Server(fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>),
    /// Has only subcommands.
    Container,
}

/// Which arguments of a request are channels that a user must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// None.
    None,
    /// The first one.
    First,
    /// All.
    All,
    /// All, and they are patterns.
    Patterns,
}

/// Which databases a request reaches.
#[derive(Clone, Copy, Debug)]
pub enum Databases {
    /// The selected one, if the command has to do with keys.
    Selected,
    /// The selected one, and those that these arguments name.
    AlsoNamed(fn(Args<'_>) -> Option<usize>),
    /// Those that the first two arguments name.
    Two,
    /// That which the first argument names and which is selected from then on.
    Selects,
    /// All of them.
    All,
}

/// Which shards a transaction must hold for a command (a single [`Handler::Data`] command always
/// holds those of its keys).
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// Those of its keys.
    Keys,
    /// All: it walks or replaces whole databases.
    All,
    /// All if these arguments lead it to keys that only the values of others name.
    AllIf(fn(Args<'_>) -> bool),
}

impl Scope {
    /// True when a request needs all shards.
    pub fn is_all(self, args: Args<'_>) -> bool {
        match self {
            Self::Keys => false,
            Self::All => true,
            Self::AllIf(is_all) => is_all(args),
        }
    }
}

/// A set of command flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

/// Defines flags with the names that COMMAND INFO prints (empty: not shown there).
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            const SHOWN: &'static [(Flags, &'static str)] = &[$((Flags(1 << $bit), $text)),*];
        }
    };
}

flags! {
    /// May change the data set.
    WRITE = 0, "write";
    /// Reads keys only.
    READONLY = 1, "readonly";
    /// Refused when memory is short.
    DENYOOM = 2, "denyoom";
    /// For administrators.
    ADMIN = 4, "admin";
    /// Publishing and subscribing.
    PUBSUB = 5, "pubsub";
    /// Not in scripts.
    NOSCRIPT = 6, "noscript";
    /// May block its client.
    BLOCKING = 8, "blocking";
    /// Allowed while the data set is loaded.
    LOADING = 9, "loading";
    /// Allowed on a replica with stale data.
    STALE = 10, "stale";
    /// Not shown in MONITOR.
    SKIP_MONITOR = 11, "skip_monitor";
    /// Not in the slow log.
    SKIP_SLOWLOG = 12, "skip_slowlog";
    /// Serves an importing slot without ASKING.
    ASKING = 13, "asking";
    /// Constant or logarithmic time.
    FAST = 14, "fast";
    /// Needs no authentication.
    NO_AUTH = 15, "no_auth";
    /// May propagate although it does not change keys.
    MAY_REPLICATE = 16, "";
    /// In a stream it means nothing to a file: a message, a sign of life.
    FOR_REPLICAS = 17, "";
    /// Its keys are optional.
    NO_MANDATORY_KEYS = 19, "no_mandatory_keys";
    /// Allowed only where `enable-debug-command` (or the like) says so.
    PROTECTED = 20, "";
    /// Of those, the one that asks `enable-module-command`.
    MODULES = 21, "";
    /// Not while a replica loads a new data set beside the old one.
    NO_ASYNC_LOADING = 23, "no_async_loading";
    /// Not inside MULTI.
    NO_MULTI = 24, "no_multi";
    /// Its keys cannot be found from first, last and step alone. Set by the table.
    MOVABLE_KEYS = 25, "movablekeys";
    /// Allowed while a script is over its time.
    ALLOW_BUSY = 26, "allow_busy";
    /// Allowed to a RESP2 client that is subscribed to something.
    SUBSCRIBER = 27, "";
    /// Runs at once inside MULTI instead of being queued.
    UNQUEUED = 28, "";
    /// Runs the commands that were queued: EXEC.
    EXEC = 29, "";
    /// Runs on a slot that comes or goes, whichever keys are there: MIGRATE.
    MOVES_KEYS = 30, "";
    /// Is about the next command: ASKING.
    ASKS = 31, "";
    /// Runs a script or a function, which says by itself what may stand against it.
    SCRIPT = 22, "";
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// A reply to a command with one of these tells of data: it does not leave before the append-only
    /// file holds what was appended until then.
    pub const TELLS: Flags = Flags::READONLY.or(Flags::WRITE).or(Flags::MAY_REPLICATE);

    /// Both sets.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Those that `other` does not have.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// True when any flag of `other` is set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// The names that COMMAND INFO prints, in its order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let shown = Self::SHOWN.iter();
        shown
            .filter(move |(flag, name)| self.has(*flag) && !name.is_empty())
            .map(|(_, name)| *name)
    }
}

/// Where a command's keys are: its key specifications.
#[derive(Clone, Copy)]
pub struct Keys(pub &'static [KeySpec]);

/// One key specification, as COMMAND INFO shows it.
#[derive(Clone, Copy)]
pub struct KeySpec {
    /// Where the search begins.
    pub begin: Begin,
    /// How keys follow from there.
    pub find: Find,
    /// What is done with them.
    pub flags: KeyFlags,
    /// The flags of a request whose arguments decide about them.
    pub by_args: Option<fn(Args<'_>) -> KeyFlags>,
    /// Remark for COMMAND INFO; empty: none.
    pub notes: &'static str,
}

/// Where a key specification begins.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At an argument.
    Index(usize),
    /// After a keyword, searched from an argument on (from the end if negative).
    Keyword(&'static str, i32),
    /// Nowhere that could be said.
    Unknown,
}

/// How keys follow from the beginning.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// Up to `last` (relative; negative from the end), every `step`; `limit` 2 means the first
    /// half only, and so on.
    Range {
        /// Relative index of the last key; -1 is the last argument.
        last: i32,
        /// Distance between keys.
        step: usize,
        /// See [`Find::Range`].
        limit: usize,
    },
    /// A count at `at`, keys from `first`, every `step`, relative to the beginning.
    Count {
        /// Relative index of the count.
        at: usize,
        /// Relative index of the first key.
        first: usize,
        /// Distance between keys.
        step: usize,
    },
    /// In no way that could be said.
    Unknown,
}

/// What a command does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFlags(pub u16);

macro_rules! key_flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl KeyFlags {
            $($(#[$doc])* pub const $name: KeyFlags = KeyFlags(1 << $bit);)*
            const NAMES: &'static [(KeyFlags, &'static str)] =
                &[$((KeyFlags(1 << $bit), $text)),*];
        }
    };
}

key_flags! {
    /// Only reads.
    RO = 0, "RO";
    /// Reads and writes.
    RW = 1, "RW";
    /// Overwrites without reading.
    OW = 2, "OW";
    /// Removes.
    RM = 3, "RM";
    /// Returns or copies user data.
    ACCESS = 4, "access";
    /// Changes user data.
    UPDATE = 5, "update";
    /// Adds user data.
    INSERT = 6, "insert";
    /// Deletes user data.
    DELETE = 7, "delete";
    /// Not really a key, but routed as one.
    NOT_KEY = 8, "not_key";
    /// The specification may not find every key.
    INCOMPLETE = 9, "incomplete";
    /// Depends on the arguments.
    VARIABLE_FLAGS = 10, "variable_flags";
}

impl KeyFlags {
    /// Nothing is known of what is done with it.
    pub const NONE: KeyFlags = KeyFlags(0);

    /// Both sets.
    pub const fn or(self, other: KeyFlags) -> KeyFlags {
        KeyFlags(self.0 | other.0)
    }

    /// True when any flag of `other` is set.
    pub const fn has(self, other: KeyFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// The names that COMMAND INFO prints, in its order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::NAMES.iter();
        all.filter(move |(f, _)| self.has(*f))
            .map(|(_, name)| *name)
    }

    /// `RO | ACCESS`: reads the value.
    pub const READ: KeyFlags = Self::RO.or(Self::ACCESS);
    /// `RW | ACCESS | UPDATE`: reads and changes the value.
    pub const READ_UPDATE: KeyFlags = Self::RW.or(Self::ACCESS).or(Self::UPDATE);
    /// `OW | UPDATE`: sets the value.
    pub const OVERWRITE: KeyFlags = Self::OW.or(Self::UPDATE);
}

impl KeySpec {
    const fn range(first: usize, last: i32, step: usize, flags: KeyFlags) -> Self {
        Self {
            begin: Begin::Index(first),
            find: Find::Range {
                last,
                step,
                limit: 0,
            },
            flags,
            by_args: None,
            notes: "",
        }
    }

    /// One key at argument `index`.
    pub const fn at(index: usize, flags: KeyFlags) -> Self {
        Self::range(index, 0, 1, flags)
    }

    /// Two keys, the first at argument `index`.
    pub const fn two(index: usize, flags: KeyFlags) -> Self {
        Self::range(index, 1, 1, flags)
    }

    /// Every argument from `first` on, by `step`.
    pub const fn from(first: usize, step: usize, flags: KeyFlags) -> Self {
        Self::range(first, -1, step, flags)
    }

    /// Every argument from `first` on but the last.
    pub const fn all_but_last(first: usize, flags: KeyFlags) -> Self {
        Self::range(first, -2, 1, flags)
    }

    /// As many keys as argument `at` says, behind it.
    pub const fn counted(at: usize, flags: KeyFlags) -> Self {
        let mut keys = Self::at(at, flags);
        keys.find = Find::Count {
            at: 0,
            first: 1,
            step: 1,
        };
        keys
    }

    /// With flags that are at most those of the row, by what the arguments say.
    pub const fn depending(mut self, by_args: fn(Args<'_>) -> KeyFlags) -> Self {
        self.flags = self.flags.or(KeyFlags::VARIABLE_FLAGS);
        self.by_args = Some(by_args);
        self
    }

    /// With a remark.
    pub const fn note(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }
}

impl Keys {
    /// No keys.
    pub const NONE: Keys = Keys(&[]);
}
