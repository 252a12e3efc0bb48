//! What is being saved or loaded, and what of it goes into every file: the state that the server's
//! threads share. What saves and loads stands above ([`crate::durability`], [`crate::replication`]).

use parking_lot::Mutex;

use super::load::Loading;
use super::save::Saves;
use super::snapshot;
use crate::base::{alloc, clock};
use crate::config::REDIS_VERSION;

/// The state of saving and loading.
#[derive(Default)]
pub struct Durability {
    /// Dump files.
    pub saves: Saves,
    /// The data set is being loaded.
    pub loading: Loading,
    /// Sources of function libraries that a file held: kept for the files we write.
    pub functions: Mutex<Vec<Vec<u8>>>,
}

/// A field of a snapshot about itself: name and value.
pub type Field = (&'static str, Vec<u8>);

impl Durability {
    /// What stands before the keys of a snapshot; `is_base` of one that commands follow.
    pub fn head(&self, is_base: bool) -> Vec<u8> {
        snapshot::head(&fields(&[], is_base), &self.functions.lock())
    }

    /// As [`Durability::head`], for a replica: with fields about replication.
    pub fn head_for_replica(&self, replication: &[Field], with_functions: bool) -> Vec<u8> {
        let fields = fields(replication, false);
        match with_functions {
            true => snapshot::head(&fields, &self.functions.lock()),
            false => snapshot::head(&fields, &[]),
        }
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
