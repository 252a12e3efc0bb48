//! The commands: one or several files per family, each with its rows and the handlers they name.

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

mod acl;
mod bitfield;
mod bitmaps;
mod client;
mod client_tracking;
mod cluster;
mod cluster_keys;
mod cluster_moves;
mod cluster_orders;
pub mod cluster_view;
mod command;
mod config;
mod connection;
mod debug;
mod debug_inside;
mod digest;
mod docs;
mod dump;
mod expire;
mod failover;
mod functions;
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
mod module;
mod pubsub;
mod replication;
mod rows;
mod saving;
mod scan_options;
mod scripting;
mod sentinel;
mod sentinel_view;
mod server;
mod set_algebra;
mod sets;
mod slot_stats;
mod slowlog;
mod sort;
mod stream_groups;
mod stream_info;
mod stream_reads;
mod streams;
mod string_edits;
mod strings;
mod transactions;
mod wait;
mod zset_algebra;
mod zset_pops;
mod zset_ranges;
mod zset_samples;
mod zsets;

use crate::dispatch::command::Command;
use crate::dispatch::table::Table;

/// Every row of every file, but for those of a sentinel.
pub fn all() -> impl Iterator<Item = &'static Command> {
    let files = [
        acl::ROWS,
        bitfield::ROWS,
        bitmaps::ROWS,
        client::ROWS,
        cluster::ROWS,
        command::ROWS,
        config::ROWS,
        connection::ROWS,
        debug::ROWS,
        dump::ROWS,
        expire::ROWS,
        failover::ROWS,
        functions::ROWS,
        geo::ROWS,
        geo_search::ROWS,
        hash_expiry::ROWS,
        hashes::ROWS,
        hyperloglog::ROWS,
        info::ROWS,
        keys::ROWS,
        keyspace::ROWS,
        latency::ROWS,
        list_moves::ROWS,
        lists::ROWS,
        memory::ROWS,
        migrate::ROWS,
        module::ROWS,
        pubsub::ROWS,
        replication::ROWS,
        saving::ROWS,
        scripting::ROWS,
        server::ROWS,
        set_algebra::ROWS,
        sets::ROWS,
        slowlog::ROWS,
        sort::ROWS,
        stream_groups::ROWS,
        stream_info::ROWS,
        stream_reads::ROWS,
        streams::ROWS,
        string_edits::ROWS,
        strings::ROWS,
        transactions::ROWS,
        wait::ROWS,
        zset_algebra::ROWS,
        zset_pops::ROWS,
        zset_ranges::ROWS,
        zset_samples::ROWS,
        zsets::ROWS,
    ];
    files.into_iter().flatten()
}

/// The commands of a sentinel.
pub fn of_sentinel() -> Table {
    let mut table = Table::new(sentinel::of_sentinel(all()));
    table.unlist(&sentinel::BEYOND);
    table
}
