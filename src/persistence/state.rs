//! What is being saved or loaded, and what of it goes into every file: the state that the server's
//! threads share. What saves and loads stands above ([`crate::durability`], [`crate::replication`]).

use parking_lot::Mutex;

use super::load::Loading;
use super::save::Saves;
use super::snapshot;
use crate::base::{alloc, clock};
use crate::config::REDIS_VERSION;
use crate::propagation::Place;

/// The state of saving and loading.
#[derive(Default)]
pub struct Durability {
    /// Dump files.
    pub saves: Saves,
    /// The data set is being loaded.
    pub loading: Loading,
    /// Where in which replication stream the data set is that was loaded, until that is made use of.
    pub place: Mutex<Option<Place>>,
    /// Keys, with their databases, that had expired and were left out of it: they are removed from that stream.
    pub left_out: Mutex<Vec<(usize, Vec<u8>)>>,
}

/// A field of a snapshot about itself: name and value.
type Field = (&'static str, Vec<u8>);

impl Durability {
    /// What stands before the keys of a snapshot, with the sources of function libraries; `is_base` of one
    /// that commands follow.
    pub fn head(&self, functions: &[Vec<u8>], is_base: bool) -> Vec<u8> {
        snapshot::head(&fields(&[], is_base), functions)
    }

    /// As [`Durability::head`], with where in which replication stream the snapshot is.
    pub fn head_at(&self, place: Option<&Place>, functions: &[Vec<u8>]) -> Vec<u8> {
        let replication = place.map(|place| {
            [
                ("repl-stream-db", place.selected.to_string().into_bytes()),
                ("repl-id", place.id.clone().into_bytes()),
                ("repl-offset", place.offset.to_string().into_bytes()),
            ]
        });
        let fields = fields(replication.as_ref().map_or(&[], |fields| fields), false);
        snapshot::head(&fields, functions)
    }
}

fn fields(replication: &[Field], is_base: bool) -> Vec<Field> {
    let number = |n: i64| n.to_string().into_bytes();
    let mut fields = vec![
        ("redis-ver", REDIS_VERSION.into()),
        ("redis-bits", b"64".to_vec()),
        ("ctime", number(clock::unix_ms() / 1000)),
        ("used-mem", number(alloc::used() as i64)),
    ];
    fields.extend_from_slice(replication);
    fields.push(("aof-base", number(is_base.into())));
    fields
}
