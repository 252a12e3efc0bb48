//! CLUSTER and its kin, of a server that is not part of a cluster: each is known, and says so.

use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

const LOOKING: Flags = Flags::STALE;
const FOR_ADMINS: Flags = Flags::ADMIN.or(Flags::STALE);
const CHANGING: Flags = FOR_ADMINS.or(Flags::NO_ASYNC_LOADING);
const ON_CONNECTIONS: Flags = Flags::LOADING.or(Flags::STALE).or(Flags::FAST);
const VARYING: &[&str] = &["nondeterministic_output"];

const fn row(name: &'static str, arity: i32, flags: Flags) -> Command {
    Command {
        name,
        arity,
        flags,
        handler: Handler::Server(disabled),
        ..ROW
    }
}

const fn of_connection(name: &'static str, flags: Flags) -> Command {
    Command {
        acl: Acl::CONNECTION,
        ..row(name, 1, flags)
    }
}

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "cluster",
        arity: -2,
        subcommands: &[
            row("addslots", -3, CHANGING),
            row("addslotsrange", -4, CHANGING),
            row("bumpepoch", 2, CHANGING).tipped(VARYING),
            row("count-failure-reports", 3, FOR_ADMINS).tipped(VARYING),
            row("countkeysinslot", 3, LOOKING),
            row("delslots", -3, CHANGING),
            row("delslotsrange", -4, CHANGING),
            row("failover", -2, CHANGING),
            row("flushslots", 2, CHANGING),
            row("forget", 3, CHANGING),
            row("getkeysinslot", 4, LOOKING).tipped(VARYING),
            row("help", 2, Flags::LOADING.or(Flags::STALE)),
            row("info", 2, LOOKING).tipped(VARYING),
            row("keyslot", 3, LOOKING),
            row("links", 2, LOOKING).tipped(VARYING),
            row("meet", -4, CHANGING),
            row("myid", 2, LOOKING),
            row("nodes", 2, LOOKING).tipped(VARYING),
            row("replicas", 3, FOR_ADMINS).tipped(VARYING),
            row("replicate", 3, CHANGING),
            row("reset", -2, FOR_ADMINS.or(Flags::NOSCRIPT)),
            row("saveconfig", 2, CHANGING),
            row("set-config-epoch", 3, CHANGING),
            row("setslot", -4, CHANGING),
            row("shards", 2, LOOKING).tipped(VARYING),
            row("slaves", 3, FOR_ADMINS).tipped(VARYING),
            row("slots", 2, LOOKING).tipped(VARYING),
        ],
        ..ROW
    },
    of_connection("asking", Flags::FAST),
    of_connection("readonly", ON_CONNECTIONS),
    of_connection("readwrite", ON_CONNECTIONS),
];

/// Any of them.
fn disabled(_: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    Err(Error::line(
        "ERR This instance has cluster support disabled",
    ))
}
