//! How values are laid out, by the parameters.

use super::rdb::decode::Layouts;
use crate::config::Settings;
use crate::types::{hash, list, set, zset};

/// Of lists.
#[inline]
pub fn list(settings: &Settings) -> list::Limits {
    list::Limits::new(
        settings.list_max_listpack_size,
        settings.list_compress_depth,
    )
}

/// Of sets.
#[inline]
pub fn set(settings: &Settings) -> set::Limits {
    set::Limits {
        intset_entries: settings.set_max_intset_entries,
    }
}

/// Of hashes.
#[inline]
pub fn hash(settings: &Settings) -> hash::Limits {
    hash::Limits {
        pack_entries: settings.hash_max_listpack_entries,
        pack_value: settings.hash_max_listpack_value,
    }
}

/// Of sorted sets.
#[inline]
pub fn zset(settings: &Settings) -> zset::Limits {
    zset::Limits {
        entries: settings.zset_max_listpack_entries,
        value: settings.zset_max_listpack_value,
    }
}

/// Of all types.
pub fn all(settings: &Settings) -> Layouts {
    Layouts {
        list: list(settings),
        set: set(settings),
        hash: hash(settings),
        zset: zset(settings),
    }
}
