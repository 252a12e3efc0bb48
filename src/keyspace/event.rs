//! The events of keyspace notifications: classes (as `notify-keyspace-events` has them) and names.

pub use super::outbox::Event;

/// `K`: publish to `__keyspace@<db>__:<key>`.
pub const KEYSPACE: u32 = 1 << 0;
/// `E`: publish to `__keyevent@<db>__:<event>`.
pub const KEYEVENT: u32 = 1 << 1;
/// `g`: commands of no particular type.
pub const GENERIC: u32 = 1 << 2;
/// `$`: string commands.
pub const STRING: u32 = 1 << 3;
/// `l`: list commands.
pub const LIST: u32 = 1 << 4;
/// `s`: set commands.
pub const SET: u32 = 1 << 5;
/// `h`: hash commands.
pub const HASH: u32 = 1 << 6;
/// `z`: sorted set commands.
pub const ZSET: u32 = 1 << 7;
/// `x`: keys that expired.
pub const EXPIRED: u32 = 1 << 8;
/// `e`: keys evicted for memory.
pub const EVICTED: u32 = 1 << 9;
/// `t`: stream commands.
pub const STREAM: u32 = 1 << 10;
/// `m`: reads of keys that are not there.
pub const KEY_MISS: u32 = 1 << 11;
/// `d`: events of module types.
pub const MODULE: u32 = 1 << 13;
/// `n`: keys that were created.
pub const NEW: u32 = 1 << 14;

/// Defines the events of one class.
macro_rules! events {
    ($class:ident: $($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub const $name: Event = Event { class: $class, name: $text };
        )*
    };
}

events! { STRING:
    ON_SET = "set", ON_APPEND = "append", ON_SETRANGE = "setrange", ON_SETBIT = "setbit",
    ON_INCRBY = "incrby", ON_INCRBYFLOAT = "incrbyfloat",
}
events! { GENERIC:
    ON_DEL = "del", ON_EXPIRE = "expire", ON_PERSIST = "persist",
    ON_RENAME_FROM = "rename_from", ON_RENAME_TO = "rename_to",
    ON_MOVE_FROM = "move_from", ON_MOVE_TO = "move_to",
    ON_COPY_TO = "copy_to", ON_RESTORE = "restore",
}
events! { EXPIRED: ON_EXPIRED = "expired" }
events! { EVICTED: ON_EVICTED = "evicted" }
events! { KEY_MISS: ON_KEY_MISS = "keymiss" }
events! { NEW: ON_NEW = "new" }
