//! The commands: one file per family, each with its rows and the handlers they name.

/// Makes `row(name, arity, flags, keys, handler)`, a row of a family whose handlers run under the
/// locks of their keys and whose ACL category is this.
macro_rules! data_rows {
    ($acl:expr) => {
        const fn row(
            name: &'static str,
            arity: i32,
            flags: crate::dispatch::command::Flags,
            keys: &'static [crate::dispatch::command::KeySpec],
            run: fn(
                &mut crate::dispatch::context::DataCtx<'_, '_>,
            ) -> Result<(), crate::dispatch::error::Error>,
        ) -> crate::dispatch::command::Command {
            crate::dispatch::command::Command {
                name,
                arity,
                flags,
                keys: crate::dispatch::command::Keys(keys),
                acl: $acl,
                handler: crate::dispatch::command::Handler::Data(run),
                ..crate::dispatch::command::ROW
            }
        }
    };
}

mod bitfield;
mod bitmaps;
mod client;
mod command;
mod config;
mod connection;
mod debug;
mod debug_inside;
mod digest;
mod docs;
mod dump;
mod expire;
mod geo;
mod geo_search;
mod hash_expiry;
mod hashes;
mod help;
mod hyperloglog;
pub mod info;
mod keys;
mod keyspace;
mod latency;
mod list_moves;
mod lists;
mod memory;
pub mod migrate;
mod pubsub;
mod replication;
mod saving;
mod scan_options;
mod server;
mod set_algebra;
mod sets;
mod slowlog;
mod sort;
mod stream_groups;
mod stream_info;
mod stream_reads;
mod streams;
mod string_edits;
mod strings;
mod transactions;
mod zset_algebra;
mod zset_pops;
mod zset_ranges;
mod zset_samples;
mod zsets;

use crate::dispatch::command::Command;

/// Every row of every family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    let families = [
        bitmaps::ROWS,
        client::ROWS,
        command::ROWS,
        config::ROWS,
        connection::ROWS,
        debug::ROWS,
        dump::ROWS,
        expire::ROWS,
        hashes::ROWS,
        geo::ROWS,
        hyperloglog::ROWS,
        info::ROWS,
        keys::ROWS,
        keyspace::ROWS,
        latency::ROWS,
        lists::ROWS,
        memory::ROWS,
        migrate::ROWS,
        pubsub::ROWS,
        replication::ROWS,
        saving::ROWS,
        server::ROWS,
        sets::ROWS,
        slowlog::ROWS,
        sort::ROWS,
        streams::ROWS,
        strings::ROWS,
        transactions::ROWS,
        zsets::ROWS,
    ];
    families.into_iter().flatten()
}
