//! How values are laid out, by the parameters: for what builds values of any type.

use crate::config::Settings;
use crate::persistence::rdb::decode::Layouts;

use super::{hashes, lists, sets, zsets};

/// The layouts of all types.
pub fn layouts(settings: &Settings) -> Layouts {
    Layouts {
        list: lists::limits(settings),
        set: sets::limits(settings),
        hash: hashes::limits(settings),
        zset: zsets::limits(settings),
    }
}
