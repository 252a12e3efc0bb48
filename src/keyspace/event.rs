//! The events of keyspace notifications: classes (as `notify-keyspace-events` has them) and names.

pub use super::outbox::Event;
use crate::config::NotifyFlags;

/// Defines the events of one class.
macro_rules! events {
    ($class:ident: $($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub const $name: Event = Event { class: NotifyFlags::$class.0, name: $text };
        )*
    };
}

events! { STRING:
    ON_SET = "set", ON_APPEND = "append", ON_SETRANGE = "setrange", ON_SETBIT = "setbit",
    ON_INCRBY = "incrby", ON_INCRBYFLOAT = "incrbyfloat", ON_PFADD = "pfadd",
}
events! { LIST:
    ON_LPUSH = "lpush", ON_RPUSH = "rpush", ON_LPOP = "lpop", ON_RPOP = "rpop",
    ON_LSET = "lset", ON_LINSERT = "linsert", ON_LREM = "lrem", ON_LTRIM = "ltrim", ON_SORTSTORE = "sortstore",
}
events! { ZSET:
    ON_ZADD = "zadd", ON_ZINCR = "zincr", ON_ZREM = "zrem",
    ON_ZREMRANGEBYRANK = "zremrangebyrank", ON_ZREMRANGEBYSCORE = "zremrangebyscore",
    ON_ZREMRANGEBYLEX = "zremrangebylex", ON_ZPOPMIN = "zpopmin", ON_ZPOPMAX = "zpopmax",
    ON_ZRANGESTORE = "zrangestore", ON_ZUNIONSTORE = "zunionstore",
    ON_ZINTERSTORE = "zinterstore", ON_ZDIFFSTORE = "zdiffstore",
    ON_GEORADIUSSTORE = "georadiusstore", ON_GEOSEARCHSTORE = "geosearchstore",
}
events! { SET:
    ON_SADD = "sadd", ON_SREM = "srem", ON_SPOP = "spop", ON_SINTERSTORE = "sinterstore",
    ON_SUNIONSTORE = "sunionstore", ON_SDIFFSTORE = "sdiffstore",
}
events! { HASH:
    ON_HSET = "hset", ON_HDEL = "hdel", ON_HINCRBY = "hincrby", ON_HINCRBYFLOAT = "hincrbyfloat",
    ON_HEXPIRE = "hexpire", ON_HEXPIRED = "hexpired", ON_HPERSIST = "hpersist",
}
events! { STREAM:
    ON_XADD = "xadd", ON_XDEL = "xdel", ON_XTRIM = "xtrim", ON_XSETID = "xsetid",
    ON_XGROUP_CREATE = "xgroup-create", ON_XGROUP_SETID = "xgroup-setid",
    ON_XGROUP_DESTROY = "xgroup-destroy",
    ON_XGROUP_CREATECONSUMER = "xgroup-createconsumer",
    ON_XGROUP_DELCONSUMER = "xgroup-delconsumer",
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
