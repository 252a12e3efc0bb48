//! LATENCY: spikes of events, and histograms of commands.

use super::help;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::observe::histogram::Snapshot;
use crate::observe::{doctor, sparkline};

const ADMIN: Flags = Flags::ADMIN
    .or(Flags::NOSCRIPT)
    .or(Flags::LOADING)
    .or(Flags::STALE);
const SPECIAL: &[&str] = &[
    "nondeterministic_output",
    "request_policy:all_nodes",
    "response_policy:special",
];

const fn sub(
    name: &'static str,
    arity: i32,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: ADMIN,
        tips: SPECIAL,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "latency",
    arity: -2,
    subcommands: &[
        sub("doctor", 2, doctor),
        sub("graph", 3, graph),
        super::help::row(Acl::NONE, help),
        sub("histogram", -2, histogram),
        sub("history", 3, history),
        sub("latest", 2, latest),
        Command {
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            ..sub("reset", -2, reset)
        },
    ],
    ..ROW
}];

/// `LATENCY DOCTOR`
fn doctor(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let report = doctor::latency(&ctx.shared.latency, &ctx.worker.settings);
    ctx.out.verbatim("txt", report.into_bytes());
    Ok(())
}

/// `LATENCY GRAPH event`
fn graph(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let Some((name, series)) = ctx.shared.latency.get(&ctx.args[2]) else {
        return Err(Error::quoting(
            "No samples available for event '",
            &ctx.args[2],
            "'",
        ));
    };
    let graph = sparkline::latency(name, &series, ctx.worker.now.ms / 1000);
    ctx.out.verbatim("txt", graph.into_bytes());
    Ok(())
}

/// `LATENCY HISTORY event`
fn history(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let series = ctx
        .shared
        .latency
        .get(&ctx.args[2])
        .map(|(_, s)| s)
        .unwrap_or_default();
    ctx.out.array(series.samples.len());
    for (time, ms) in series.samples {
        ctx.out.array(2);
        ctx.out.int(time);
        ctx.out.int(i64::from(ms));
    }
    Ok(())
}

/// `LATENCY LATEST`
fn latest(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let all = ctx.shared.latency.all();
    ctx.out.array(all.len());
    for (name, series) in all {
        let (time, ms) = series.samples.last().copied().unwrap_or_default();
        ctx.out.array(4);
        ctx.out.bulk(name.as_bytes());
        ctx.out.int(time);
        ctx.out.int(i64::from(ms));
        ctx.out.int(i64::from(series.max_ms));
    }
    Ok(())
}

/// `LATENCY RESET [event ...]`
fn reset(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let forgotten = ctx.shared.latency.reset(ctx.args.rest(2));
    ctx.out.int(forgotten as i64);
    Ok(())
}

/// `LATENCY HISTOGRAM [command ...]`
fn histogram(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let table = &ctx.shared.commands;
    let mut ids: Vec<usize> = Vec::new();
    if ctx.args.len() == 2 {
        ids.extend(table.all().map(|known| known.id));
    }
    for name in ctx.args.rest(2) {
        if let Some(known) = table.find_full(name) {
            ids.push(known.id);
            ids.extend(&known.subcommands);
        }
    }
    let tracked: Vec<(usize, Snapshot)> = ids
        .into_iter()
        .filter_map(|id| Some((id, ctx.shared.stats.latencies(id)?)))
        .collect();
    ctx.out.map(tracked.len());
    for (id, snapshot) in tracked {
        ctx.out.bulk(table.get(id).full_name.as_bytes());
        ctx.out.map(2);
        ctx.out.bulk(b"calls");
        ctx.out.int(snapshot.total() as i64);
        ctx.out.bulk(b"histogram_usec");
        let points = snapshot.by_microseconds();
        ctx.out.map(points.len());
        for (micros, count) in points {
            ctx.out.int(micros as i64);
            ctx.out.int(count as i64);
        }
    }
    Ok(())
}

/// `LATENCY HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    );
    Ok(())
}
