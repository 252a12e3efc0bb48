//! How values are laid out, by the parameters: for what builds values of any type.

use crate::config::Settings;
use crate::persistence::rdb::decode::Layouts;
use crate::types::{hash, set};

use super::{lists, zsets};

/// The layouts of all types.
pub fn layouts(settings: &Settings) -> Layouts {
    Layouts {
        list: lists::limits(settings),
        zset: zsets::limits(settings),
        set: set::Limits {
            intset_entries: settings.set_max_intset_entries,
        },
        hash: hash::Limits {
            pack_entries: settings.hash_max_listpack_entries,
            pack_value: settings.hash_max_listpack_value,
        },
    }
}
