//! Atomic migration of slots by Valkey's commands: CLUSTER MIGRATESLOTS, GETSLOTMIGRATIONS, CANCELSLOTMIGRATIONS,
//! what servers say to each other for it, and CLUSTER FLUSHSLOT.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::{clock, number, random};
use crate::bus::moving::{PROTOCOL, ask, export};
use crate::client::session::SyncRequest;
use crate::cluster::handle::Cluster;
use crate::cluster::id::NodeId;
use crate::cluster::moving::list::{Job, Overlap};
use crate::cluster::slots::SlotSet;
use crate::dispatch::blocking;
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::slots;

use super::cluster_orders::slot;
use super::cluster_view::node;

type Done = Result<(), Error>;
type Ranges = Vec<(u16, u16)>;

/// The ranges from argument `at` on, and which argument follows. They are those of one owner, who is told.
fn ranges(
    ctx: &ServerCtx<'_, '_>,
    cluster: &Cluster,
    mut at: usize,
) -> Result<(Ranges, NodeId, usize), Error> {
    let (mut ranges, mut owner) = (Ranges::new(), None);
    while at < ctx.args.len() && number::parse_i64(&ctx.args[at]).is_some() {
        let first = slot(ctx, at)?;
        if at + 1 >= ctx.args.len() {
            return Err(Error::line("ERR No end slot for final slot range"));
        }
        let last = slot(ctx, at + 1)?;
        if first > last {
            return Err(Error::err(format_args!(
                "Start slot number {first} is greater than end slot number {last}."
            )));
        }
        let machine = cluster.machine();
        let view = machine.view();
        for slot in first..=last {
            let Some(index) = view.owner(slot) else {
                return Err(Error::err(format_args!("Slot {slot} has no node served.")));
            };
            if *owner.get_or_insert(view.node(index).id) != view.node(index).id {
                return Err(Error::line("ERR Requested slots span multiple shards"));
            }
        }
        drop(machine);
        let met = |(from, to): &&(u16, u16)| *to >= first && *from <= last;
        if let Some((from, to)) = ranges.iter().find(met) {
            return Err(Error::err(format_args!(
                "Slot range {first}-{last} overlaps with previous range {from}-{to}."
            )));
        }
        ranges.push((first, last));
        at += 2;
    }
    match owner {
        Some(owner) => Ok((ranges, owner, at)),
        None => Err(Error::line("ERR No slot ranges specified")),
    }
}

/// What stands against any migration here.
fn may_migrate(cluster: &Cluster) -> Done {
    let machine = cluster.machine();
    let view = machine.view();
    if !view.me().is_primary() {
        return Err(Error::line(
            "ERR Slot migration can only be used on primary nodes.",
        ));
    }
    if !view.importing.is_empty() {
        return Err(Error::line("ERR Slots are being manually imported"));
    }
    if !view.migrating.is_empty() {
        return Err(Error::line("ERR Slots are being manually migrated"));
    }
    Ok(())
}

/// `CLUSTER MIGRATESLOTS SLOTSRANGE start end [start end ...] NODE id [SLOTSRANGE ... NODE ...]`
pub fn migrateslots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    may_migrate(&cluster)?;
    let me = cluster.machine().view().me().id;
    let (mut at, mut jobs) = (2, Vec::<Arc<Job>>::new());
    while at < ctx.args.len() {
        if !ctx.args.is(at, "slotsrange") {
            return Err(Error::Syntax);
        }
        let (ranges, owner, next) = ranges(ctx, &cluster, at + 1)?;
        if owner != me {
            return Err(Error::line("ERR Slots are not served by this node."));
        }
        let set = SlotSet::of(&ranges);
        let leaving = cluster.moves.under_way(true);
        let met = set
            .iter()
            .find(|slot| leaving.iter().any(|job| job.slots.has(*slot)));
        if let Some(slot) = met {
            return Err(already(slot));
        }
        if jobs.iter().any(|job| job.slots.meets(&set)) {
            return Err(Error::line("ERR Slot ranges in migrations overlap"));
        }
        if next + 1 >= ctx.args.len() || !ctx.args.is(next, "node") {
            return Err(Error::Syntax);
        }
        let target = target(ctx, &cluster, next + 1)?;
        let name = String::from_utf8_lossy(&random::hex::<40>()).into_owned();
        let job = Job::new(name, (me, target), ranges, true, clock::unix_ms() / 1000);
        jobs.push(Arc::new(job));
        at = next + 2;
    }
    match cluster.moves.begin(&jobs) {
        Ok(()) => {}
        Err(Overlap::Leaving(slot)) => return Err(already(slot)),
        Err(Overlap::Coming) => return Err(Error::line("ERR Slots are not served by this node.")),
    }
    for job in jobs {
        tracing::info!(
            "Slot migration initiated through CLUSTER MIGRATESLOTS command: {}",
            job.describe()
        );
        export::begin(ctx.shared, &job);
    }
    ctx.out.ok();
    Ok(())
}

fn already(slot: u16) -> Error {
    Error::err(format_args!("I am already migrating slot {slot}."))
}

fn target(ctx: &ServerCtx<'_, '_>, cluster: &Cluster, at: usize) -> Result<NodeId, Error> {
    let name = String::from_utf8_lossy(&ctx.args[at]);
    if ctx.args[at].len() != NodeId::LEN {
        return Err(Error::err(format_args!("Invalid node name: {name}")));
    }
    let machine = cluster.machine();
    let view = machine.view();
    let found = NodeId::parse(&ctx.args[at]).filter(|id| view.find(*id).is_some());
    match found {
        None => Err(Error::err(format_args!("Unknown node name: {name}"))),
        Some(id) if id == view.me().id => Err(Error::line("ERR Target node can not be this node.")),
        Some(id) => Ok(id),
    }
}

/// `CLUSTER GETSLOTMIGRATIONS`
pub fn getslotmigrations(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let jobs = node(ctx)?.moves.all();
    ctx.out.array(jobs.len());
    for job in jobs {
        let (state, ranges) = (job.state(), job.ranges_text());
        let texts: [(&str, &[u8]); 5] = [
            ("name", job.name.as_bytes()),
            ("operation", if job.exports { b"EXPORT" } else { b"IMPORT" }),
            ("slot_ranges", ranges.as_bytes()),
            ("target_node", job.target.as_bytes()),
            ("source_node", job.source.as_bytes()),
        ];
        let out = &mut *ctx.out;
        out.map(12);
        for (name, text) in texts {
            out.bulk(name.as_bytes());
            out.bulk(text);
        }
        let times = [
            ("create_time", job.created),
            ("last_update_time", state.updated),
            ("last_ack_time", job.heard.load(Relaxed)),
        ];
        for (name, time) in times {
            out.bulk(name.as_bytes());
            out.int(time);
        }
        out.bulk(b"state");
        out.bulk(state.phase.name().as_bytes());
        out.bulk(b"message");
        out.bulk(state.message.as_bytes());
        // Nothing is copied on a write but what is written.
        out.bulk(b"cow_size");
        out.int(0);
        out.bulk(b"remaining_repl_size");
        out.uint(job.remaining.load(Relaxed));
    }
    Ok(())
}

/// `CLUSTER CANCELSLOTMIGRATIONS`
pub fn cancelslotmigrations(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let jobs = node(ctx)?.moves.under_way(true);
    if jobs.is_empty() {
        return Err(Error::line("ERR No migrations ongoing"));
    }
    jobs.iter().for_each(|job| job.stop.store(true, Relaxed));
    tracing::info!("Canceled all in progress slot migrations");
    ctx.out.ok();
    Ok(())
}

/// `CLUSTER SYNCSLOTS IMPORT protocol source name start end [start end ...]` makes the connection one that brings
/// slots; `CLUSTER SYNCSLOTS OUTCOME source slots` tells what became of them.
pub fn syncslots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    if ctx.args.is(2, "outcome") && ctx.args.len() == 5 {
        return outcome(ctx, cluster);
    }
    let is_import = ctx.args.is(2, "import") && ctx.args.len() >= 8;
    if !is_import || ctx.args[3] != *PROTOCOL.as_bytes() {
        return Err(Error::Syntax);
    }
    if ctx.denies_blocking() || ctx.session.is_script || ctx.session.multi.is_some() {
        return Err(Error::line("ERR SYNCSLOTS is not allowed here"));
    }
    may_migrate(&cluster)?;
    let source = NodeId::parse(&ctx.args[4]).ok_or(Error::Syntax)?;
    if NodeId::parse(&ctx.args[5]).is_none() {
        return Err(Error::Syntax);
    }
    let (ranges, owner, next) = ranges(ctx, &cluster, 6)?;
    if next != ctx.args.len() {
        return Err(Error::Syntax);
    }
    if owner != source {
        return Err(Error::line(
            "ERR Target node does not agree about current slot ownership",
        ));
    }
    // Its thread answers.
    ctx.session.sync = Some(SyncRequest::Slots {
        source: ctx.args[4].to_vec(),
        name: ctx.args[5].to_vec(),
        ranges,
    });
    Ok(())
}

fn outcome(ctx: &mut ServerCtx<'_, '_>, cluster: Arc<Cluster>) -> Done {
    let slots = std::str::from_utf8(&ctx.args[4]).ok();
    let slots = slots.and_then(SlotSet::from_text).ok_or(Error::Syntax)?;
    let source = NodeId::parse(&ctx.args[3]).ok_or(Error::Syntax)?;
    let Some(answer) = blocking::park_for_answer(ctx) else {
        return Err(Error::line("ERR SYNCSLOTS is not allowed here"));
    };
    let work = move |_: &Arc<_>| answer(ask::answer(&cluster, source, &slots));
    ctx.shared.threads.start_or_do("slot-outcome", work);
    Ok(())
}

/// `CLUSTER FLUSHSLOT slot [ASYNC | SYNC]`
pub fn flushslot(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    let slot = slot(ctx, 2)?;
    let lazy = match ctx.args.len() {
        3 => ctx.worker.settings.lazyfree_lazy_user_flush,
        4 if ctx.args.is(3, "sync") => false,
        4 if ctx.args.is(3, "async") => true,
        _ => return Err(Error::Syntax),
    };
    // What is still arriving is not there yet.
    if !ctx.shared.keyspace.arriving.has(slot) {
        slots::flush(ctx, slot, lazy)?;
    }
    ctx.out.ok();
    Ok(())
}
