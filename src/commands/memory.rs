//! MEMORY.

use std::sync::atomic::Ordering::Relaxed;

use super::help;
use crate::base::alloc;
use crate::dispatch::command::{Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW};
use crate::dispatch::context::{DataCtx, ServerCtx, Shared};
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::dispatch::upkeep::{StreamMemory, stream_memory};
use crate::observe::doctor::{self, MemoryFigures};
use crate::observe::process::{self, Allocator};

const SPECIAL: &[&str] = &[
    "nondeterministic_output",
    "request_policy:all_shards",
    "response_policy:special",
];

const fn sub(name: &'static str, run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>) -> Command {
    Command {
        name,
        arity: 2,
        tips: SPECIAL,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "memory",
    arity: -2,
    subcommands: &[
        sub("doctor", doctor),
        Command {
            flags: Flags::LOADING.or(Flags::STALE),
            tips: &[],
            ..sub("help", help)
        },
        sub("malloc-stats", malloc_stats),
        Command {
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            ..sub("purge", purge)
        },
        sub("stats", stats),
        Command {
            name: "usage",
            arity: -3,
            flags: Flags::READONLY,
            keys: Keys(&[KeySpec::at(2, KeyFlags::RO)]),
            handler: Handler::Data(usage),
            ..ROW
        },
    ],
    ..ROW
}];

/// Where memory goes, in bytes.
pub struct Overview {
    /// Allocated now.
    pub used: usize,
    /// The most that was ever allocated.
    pub peak: usize,
    /// Allocated before there was any data.
    pub startup: usize,
    /// Resident pages of the process.
    pub resident: usize,
    /// Everything that is not data.
    pub overhead: usize,
    /// Clients' buffers.
    pub clients: usize,
    /// The backlog of replicas.
    pub backlog: usize,
    /// What waits for replicas, beyond the backlog.
    pub replicas: usize,
    /// What waits for the append-only file, while there is no backlog: they are one log.
    pub append_only: usize,
    /// Sources of scripts.
    pub scripts: usize,
    /// Libraries of functions.
    pub functions: usize,
    /// Tables of each database that has keys: (database, keys, bytes).
    pub tables: Vec<(usize, usize, usize)>,
    /// What the allocator says.
    pub allocator: Allocator,
}

impl Overview {
    /// Measures, without a lock: within transactions too, and for the report of a crash.
    pub fn new(shared: &Shared) -> Self {
        let used = alloc::used();
        let peak = shared.status.peak_memory.fetch_max(used, Relaxed).max(used);
        let startup = shared.status.startup_memory.load(Relaxed);
        let clients: usize = shared.clients.all().iter().map(|c| c.memory.held()).sum();
        let tables: Vec<_> = (0..shared.keyspace.databases())
            .map(|db| (db, shared.keyspace.len(db)))
            .filter(|(_, keys)| *keys > 0)
            .map(|(db, keys)| (db, keys, shared.keyspace.footprint(db).1))
            .collect();
        let StreamMemory { all: log, waiting } = stream_memory(shared);
        let (backlog, replicas, append_only) = match shared.replication.is_fed() {
            true => (log - waiting, waiting, 0),
            false => (0, 0, log),
        };
        let scripts = shared.scripts.sources.bytes();
        let functions = shared.scripts.libraries.now().memory();
        let tables_bytes: usize = tables.iter().map(|(_, _, bytes)| bytes).sum();
        let overhead = startup + clients + log + scripts + functions + tables_bytes;
        Self {
            used,
            peak,
            startup,
            resident: process::resident_bytes(),
            overhead,
            clients,
            backlog,
            replicas,
            append_only,
            scripts,
            functions,
            tables,
            allocator: Allocator::read(),
        }
    }

    /// Bytes of data.
    pub fn dataset(&self) -> usize {
        self.used.saturating_sub(self.overhead)
    }

    /// The data's share of what was allocated since the start.
    pub fn dataset_percent(&self) -> f64 {
        let net = self.used.saturating_sub(self.startup).max(1);
        (self.dataset() as f64 * 100.0 / net as f64).min(100.0)
    }
}

/// `MEMORY USAGE key [SAMPLES count]`
fn usage(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let mut options = Cursor::new(ctx.args, 3);
    while options.step() {
        // A string has no elements to be sampled; the number only has to be one.
        if !options.is("samples") || options.int()? < 0 {
            return Err(options.refuse());
        }
    }
    // A slot of a well filled bucket.
    const SLOT: usize = 12;
    match ctx.db.peek(&ctx.args[2]) {
        Some(entry) => ctx.out.int((entry.memory() + SLOT) as i64),
        None => ctx.out.null(),
    }
    Ok(())
}

/// `MEMORY STATS`
fn stats(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let m = Overview::new(ctx.shared);
    let keys: usize = m.tables.iter().map(|(_, keys, _)| keys).sum();
    let per_key = m
        .used
        .saturating_sub(m.startup)
        .checked_div(keys)
        .unwrap_or(0);
    let out = &mut *ctx.out;
    let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    out.map(27 + m.tables.len());
    let int = |out: &mut crate::resp::write::Output, name: &str, value: i64| {
        out.bulk(name.as_bytes());
        out.int(value);
    };
    let double = |out: &mut crate::resp::write::Output, name: &str, value: f64| {
        out.bulk(name.as_bytes());
        out.double(value);
    };
    int(out, "peak.allocated", m.peak as i64);
    int(out, "total.allocated", m.used as i64);
    int(out, "startup.allocated", m.startup as i64);
    let cluster = ctx.shared.cluster.as_ref();
    let links = cluster.map_or(0, |cluster| cluster.link_memory.load(Relaxed));
    for (name, bytes) in [
        ("replication.backlog", m.backlog),
        ("clients.slaves", m.replicas),
        ("clients.normal", m.clients),
        ("cluster.links", links),
        ("aof.buffer", m.append_only),
        ("lua.caches", m.scripts),
        ("functions.caches", m.functions),
    ] {
        int(out, name, bytes as i64);
    }
    for (db, _, bytes) in &m.tables {
        out.bulk(format!("db.{db}").as_bytes());
        out.map(3);
        int(out, "overhead.hashtable.main", *bytes as i64);
        int(out, "overhead.hashtable.expires", 0);
        int(out, "overhead.hashtable.slot-to-keys", 0);
    }
    int(out, "overhead.total", m.overhead as i64);
    int(out, "keys.count", keys as i64);
    int(out, "keys.bytes-per-key", per_key as i64);
    int(out, "dataset.bytes", m.dataset() as i64);
    double(out, "dataset.percentage", m.dataset_percent());
    double(out, "peak.percentage", ratio(m.used, m.peak) * 100.0);
    let Allocator {
        allocated,
        active,
        resident,
    } = m.allocator;
    int(out, "allocator.allocated", allocated as i64);
    int(out, "allocator.active", active as i64);
    int(out, "allocator.resident", resident as i64);
    double(
        out,
        "allocator-fragmentation.ratio",
        ratio(active, allocated),
    );
    int(
        out,
        "allocator-fragmentation.bytes",
        active as i64 - allocated as i64,
    );
    double(out, "allocator-rss.ratio", ratio(resident, active));
    int(out, "allocator-rss.bytes", resident as i64 - active as i64);
    double(out, "rss-overhead.ratio", ratio(m.resident, resident));
    int(
        out,
        "rss-overhead.bytes",
        m.resident as i64 - resident as i64,
    );
    double(out, "fragmentation", ratio(m.resident, m.used));
    int(
        out,
        "fragmentation.bytes",
        m.resident as i64 - m.used as i64,
    );
    Ok(())
}

/// `MEMORY DOCTOR`
fn doctor(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let m = Overview::new(ctx.shared);
    let report = doctor::memory(&MemoryFigures {
        used: m.used,
        peak: m.peak,
        fragmentation: m.resident as f64 / m.used.max(1) as f64,
        per_client: m.clients / ctx.shared.clients.len().max(1),
    });
    ctx.out.verbatim("txt", report.into_bytes());
    Ok(())
}

/// `MEMORY MALLOC-STATS`
fn malloc_stats(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let mut text = Vec::new();
    alloc::write_statistics(&mut text);
    ctx.out.verbatim("txt", text);
    Ok(())
}

/// `MEMORY PURGE`
fn purge(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match alloc::purge() {
        true => ctx.out.ok(),
        false => return Err(Error::line("ERR Error purging dirty pages")),
    }
    Ok(())
}

/// `MEMORY HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "DOCTOR",
            "    Return memory problems reports.",
            "MALLOC-STATS",
            "    Return internal statistics report from the memory allocator.",
            "PURGE",
            "    Attempt to purge dirty pages for reclamation by the allocator.",
            "STATS",
            "    Return information about the memory usage of the server.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    );
    Ok(())
}
