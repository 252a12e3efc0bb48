//! CLUSTER and its kin: the rows. Of a server that is not part of a cluster each is known, and says so.

use super::rows::{OnServer, on_server as row};
use super::{cluster_keys, cluster_moves, cluster_orders, cluster_view, slot_stats};
use crate::dispatch::command::{Acl, Command, Flags, ROW, Scope};

const LOOKING: Flags = Flags::STALE;
const FOR_ADMINS: Flags = Flags::ADMIN.or(Flags::STALE);
const CHANGING: Flags = FOR_ADMINS.or(Flags::NO_ASYNC_LOADING);
const ON_CONNECTIONS: Flags = Flags::LOADING.or(Flags::STALE).or(Flags::FAST);
const VARYING: &[&str] = &["nondeterministic_output"];

const fn of_connection(name: &'static str, flags: Flags, run: OnServer) -> Command {
    Command {
        acl: Acl::CONNECTION,
        ..row(name, 1, flags, run)
    }
}

/// A row of a subcommand that walks keys.
const fn on_keys(name: &'static str, arity: i32, run: OnServer) -> Command {
    Command {
        scope: Scope::All,
        ..row(name, arity, LOOKING, run)
    }
}

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "cluster",
        arity: -2,
        subcommands: &[
            row("addslots", -3, CHANGING, cluster_orders::addslots),
            row("addslotsrange", -4, CHANGING, cluster_orders::addslotsrange),
            row("bumpepoch", 2, CHANGING, cluster_orders::bumpepoch).tipped(VARYING),
            row(
                "cancelslotmigrations",
                2,
                CHANGING,
                cluster_moves::cancelslotmigrations,
            ),
            row(
                "count-failure-reports",
                3,
                FOR_ADMINS,
                cluster_view::count_failure_reports,
            )
            .tipped(VARYING),
            on_keys("countkeysinslot", 3, cluster_keys::countkeysinslot),
            row("delslots", -3, CHANGING, cluster_orders::delslots),
            row("delslotsrange", -4, CHANGING, cluster_orders::delslotsrange),
            row("failover", -2, CHANGING, cluster_orders::failover),
            Command {
                acl: Acl::KEYSPACE,
                flags: Flags::ADMIN.or(Flags::WRITE).or(Flags::NO_ASYNC_LOADING),
                ..on_keys("flushslot", -3, cluster_moves::flushslot)
            },
            row("flushslots", 2, CHANGING, cluster_orders::flushslots),
            row("forget", 3, CHANGING, cluster_orders::forget),
            on_keys("getkeysinslot", 4, cluster_keys::getkeysinslot).tipped(VARYING),
            row(
                "getslotmigrations",
                2,
                CHANGING,
                cluster_moves::getslotmigrations,
            ),
            row(
                "help",
                2,
                Flags::LOADING.or(Flags::STALE),
                cluster_view::help,
            ),
            row("info", 2, LOOKING, cluster_view::info).tipped(VARYING),
            row("keyslot", 3, LOOKING, cluster_keys::keyslot),
            row("links", 2, LOOKING, cluster_view::links).tipped(VARYING),
            row("meet", -4, CHANGING, cluster_orders::meet),
            row("migrateslots", -4, CHANGING, cluster_moves::migrateslots),
            row("myid", 2, LOOKING, cluster_view::myid),
            row("nodes", 2, LOOKING, cluster_view::nodes).tipped(VARYING),
            row("replicas", 3, FOR_ADMINS, cluster_view::replicas).tipped(VARYING),
            row("replicate", 3, CHANGING, cluster_orders::replicate),
            row(
                "reset",
                -2,
                FOR_ADMINS.or(Flags::NOSCRIPT),
                cluster_orders::reset,
            ),
            row("saveconfig", 2, CHANGING, cluster_orders::saveconfig),
            row(
                "set-config-epoch",
                3,
                CHANGING,
                cluster_orders::set_config_epoch,
            ),
            row("setslot", -4, CHANGING, cluster_orders::setslot),
            row("shards", 2, LOOKING, cluster_view::shards).tipped(VARYING),
            row("slaves", 3, FOR_ADMINS, cluster_view::replicas).tipped(VARYING),
            Command {
                flags: Flags::LOADING.or(Flags::STALE),
                ..on_keys("slot-stats", -4, slot_stats::slot_stats)
            }
            .tipped(&["nondeterministic_output", "request_policy:all_shards"]),
            row("slots", 2, LOOKING, cluster_view::slots).tipped(VARYING),
            row(
                "syncslots",
                -3,
                CHANGING.or(Flags::NOSCRIPT),
                cluster_moves::syncslots,
            ),
        ],
        ..ROW
    },
    of_connection("asking", Flags::FAST.or(Flags::ASKS), cluster_keys::asking),
    of_connection("readonly", ON_CONNECTIONS, cluster_keys::readonly),
    of_connection("readwrite", ON_CONNECTIONS, cluster_keys::readwrite),
];
