//! Access control: users, what they may do, and what was refused.
//!
//! - [`Rules`] are what a user may do: passwords, and [selectors](selector) of commands, keys and channels. They
//!   are made anew for each change, from text ([`Rules::change`], [`file`](mod@file)), and told as text again.
//! - [`Users`] are all users by name. A session keeps its [`User`], and the rules as of a version number that
//!   grows with each change: nobody who was told of a change meets rules from before it.
//! - [`Log`](log::Log) is what ACL LOG shows.
//!
//! Nothing here acts: who has clients closed and checks requests is `dispatch::acl`.

pub mod catalog;
pub mod file;
pub mod log;
mod password;
mod pattern;
mod rules;
pub mod selector;
mod users;

pub use rules::{Grammar, RuleError, Rules, merge};
pub use users::{Changed, User, Users};

/// True for names that rules could not hold: with white space or zero bytes in them.
pub fn has_spaces(text: &[u8]) -> bool {
    let is_space = |b: &u8| b.is_ascii_whitespace() || matches!(b, 0 | 0x0b);
    text.iter().any(is_space)
}

/// A set of ACL categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Categories(pub u32);

macro_rules! categories {
    ($($name:ident = $bit:literal, $text:literal;)*) => {
        impl Categories {
            $(#[doc = concat!("`@", $text, "`")] pub const $name: Categories = Categories(1 << $bit);)*
            /// Every category with its name, in Redis' order.
            pub const ALL: &'static [(Categories, &'static str)] =
                &[$((Categories(1 << $bit), $text)),*];
        }
    };
}

categories! {
    KEYSPACE = 0, "keyspace";
    READ = 1, "read";
    WRITE = 2, "write";
    SET = 3, "set";
    SORTEDSET = 4, "sortedset";
    LIST = 5, "list";
    HASH = 6, "hash";
    STRING = 7, "string";
    BITMAP = 8, "bitmap";
    HYPERLOGLOG = 9, "hyperloglog";
    GEO = 10, "geo";
    STREAM = 11, "stream";
    PUBSUB = 12, "pubsub";
    ADMIN = 13, "admin";
    FAST = 14, "fast";
    SLOW = 15, "slow";
    BLOCKING = 16, "blocking";
    DANGEROUS = 17, "dangerous";
    CONNECTION = 18, "connection";
    TRANSACTION = 19, "transaction";
    SCRIPTING = 20, "scripting";
}

impl Categories {
    /// No category.
    pub const NONE: Categories = Categories(0);

    /// Both sets.
    pub const fn or(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// True when any category of `other` is in the set.
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }

    /// The category of a name, in any case.
    pub fn by_name(name: &[u8]) -> Option<Categories> {
        let mut all = Self::ALL.iter();
        all.find(|(_, text)| text.as_bytes().eq_ignore_ascii_case(name))
            .map(|(category, _)| *category)
    }

    /// The names of the set, in Redis' order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::ALL.iter();
        all.filter(move |(c, _)| self.has(*c))
            .map(|(_, name)| *name)
    }
}
