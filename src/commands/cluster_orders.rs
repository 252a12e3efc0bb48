//! What of CLUSTER changes something. The bus' thread does it; its client waits until that is on the disk.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::crc::SLOTS;
use crate::bus;
use crate::cluster::id::NodeId;
use crate::cluster::orders::{Order, Outcome, SlotState, Takeover};
use crate::cluster::routes::{Node, Slot};
use crate::dispatch::blocking;
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::slots;

use super::cluster_view::{node, unknown};

type Done = Result<(), Error>;

/// Has an order carried out. Within a transaction the disk is not waited for.
fn give(ctx: &mut ServerCtx<'_, '_>, order: Order) -> Done {
    let cluster = node(ctx)?;
    match blocking::park_for_answer(ctx) {
        Some(answer) => cluster.order(order, false, move |outcome| answer(encoded(&outcome))),
        None => ctx.out.raw(&encoded(&bus::order_at_once(&cluster, order))),
    }
    Ok(())
}

fn encoded(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Ok(text) => format!("+{text}\r\n").into_bytes(),
        Err(text) => format!("-ERR {text}\r\n").into_bytes(),
    }
}

/// The slot that argument `at` names.
pub(super) fn slot(ctx: &ServerCtx<'_, '_>, at: usize) -> Result<u16, Error> {
    let number = ctx.args.int(at).ok();
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|slot| *slot < SLOTS)
        .ok_or(Error::line("ERR Invalid or out of range slot"))
}

/// No keys are here.
fn is_empty(ctx: &ServerCtx<'_, '_>) -> bool {
    ctx.shared.keyspace.len(0) == 0
}

/// `CLUSTER MEET ip port [bus-port]`
pub fn meet(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    if ctx.args.len() > 5 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    let invalid = |what: &str, at: usize| {
        let given = String::from_utf8_lossy(&ctx.args[at]);
        Error::err(format_args!("Invalid TCP {what} port specified: {given}"))
    };
    let port = ctx.args.int(3).map_err(|_| invalid("base", 3))?;
    let bus_port = match ctx.args.len() {
        5 => ctx.args.int(4).map_err(|_| invalid("bus", 4))?,
        _ => port.saturating_add(10_000),
    };
    let ip = String::from_utf8_lossy(&ctx.args[2]).into_owned();
    give(ctx, Order::Meet { ip, port, bus_port })
}

fn slot_list(ctx: &ServerCtx<'_, '_>) -> Result<Vec<u16>, Error> {
    node(ctx)?;
    (2..ctx.args.len()).map(|at| slot(ctx, at)).collect()
}

/// `CLUSTER ADDSLOTS slot [slot ...]`
pub fn addslots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let slots = slot_list(ctx)?;
    give(ctx, Order::AddSlots(slots))
}

/// `CLUSTER DELSLOTS slot [slot ...]`
pub fn delslots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let slots = slot_list(ctx)?;
    give(ctx, Order::DelSlots(slots))
}

fn slot_ranges(ctx: &ServerCtx<'_, '_>) -> Result<Vec<u16>, Error> {
    let cluster = node(ctx)?;
    if ctx.args.len() % 2 == 1 {
        return Err(Error::Arity(format!("cluster|{}", ctx.command.name).into()));
    }
    let mut slots = Vec::new();
    for at in (2..ctx.args.len()).step_by(2) {
        let (first, last) = (slot(ctx, at)?, slot(ctx, at + 1)?);
        if first > last {
            return Err(Error::err(format_args!(
                "start slot number {first} is greater than end slot number {last}"
            )));
        }
        if slots.len() > usize::from(SLOTS) {
            // Some are named twice, which is found before anything else of what follows.
            break;
        }
        slots.extend(first..=last);
    }
    drop(cluster);
    Ok(slots)
}

/// `CLUSTER ADDSLOTSRANGE first last [first last ...]`
pub fn addslotsrange(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let slots = slot_ranges(ctx)?;
    give(ctx, Order::AddSlots(slots))
}

/// `CLUSTER DELSLOTSRANGE first last [first last ...]`
pub fn delslotsrange(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let slots = slot_ranges(ctx)?;
    give(ctx, Order::DelSlots(slots))
}

/// `CLUSTER FLUSHSLOTS`
pub fn flushslots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    if !is_empty(ctx) {
        return Err(Error::line(
            "ERR DB must be empty to perform CLUSTER FLUSHSLOTS.",
        ));
    }
    give(ctx, Order::FlushSlots)
}

/// `CLUSTER SETSLOT slot IMPORTING id | MIGRATING id | STABLE | NODE id`
pub fn setslot(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    if cluster.machine().view().me().is_replica() {
        return Err(Error::line("ERR Please use SETSLOT only with masters."));
    }
    let slot = slot(ctx, 2)?;
    let word = ctx.args[3].to_ascii_lowercase();
    let with_node = ctx.args.len() == 5;
    if ctx.args.len() == 4 && word == b"stable" {
        let state = SlotState::Stable;
        return give(
            ctx,
            Order::SetSlot {
                slot,
                state,
                keys: 0,
            },
        );
    }
    if !with_node || !matches!(&word[..], b"migrating" | b"importing" | b"node") {
        return Err(Error::line(
            "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
        ));
    }
    let mine = ctx.shared.routes.with(|view| view.is_mine(slot));
    match (&word[..], mine) {
        (b"migrating", false) => {
            return Err(Error::err(format_args!(
                "I'm not the owner of hash slot {slot}"
            )));
        }
        (b"importing", true) => {
            return Err(Error::err(format_args!(
                "I'm already the owner of hash slot {slot}"
            )));
        }
        _ => {}
    }
    let found = NodeId::parse(&ctx.args[4]).and_then(|id| {
        let place = cluster.machine().view().find(id)?;
        Some((id, place))
    });
    let Some((id, place)) = found else {
        let name = String::from_utf8_lossy(&ctx.args[4]);
        return Err(match &word[..] {
            b"node" => unknown(&ctx.args[4]),
            _ => Error::err(format_args!("I don't know about node {name}")),
        });
    };
    let (state, keys) = match &word[..] {
        b"migrating" => (SlotState::Migrating(id), 0),
        b"importing" => (SlotState::Importing(id), 0),
        _ => {
            let is_other = place != cluster.machine().view().myself();
            let keys = keys_before_giving(ctx, slot, (mine && is_other).then_some(place.0))?;
            (SlotState::Node(id), keys)
        }
    };
    give(ctx, Order::SetSlot { slot, state, keys })
}

/// How many keys a slot has here. One of ours without keys, which is given `to` another node, is that
/// node's for clients from here on, so that nobody makes a key meanwhile; if the order fails, the bus'
/// thread publishes how things are.
fn keys_before_giving(
    ctx: &mut ServerCtx<'_, '_>,
    slot: u16,
    to: Option<u16>,
) -> Result<u64, Error> {
    let Some(to) = to else {
        return Ok(slots::count(ctx, slot)? as u64);
    };
    let shared = ctx.shared;
    let given = slots::when_empty(ctx, slot, || {
        let owner = Node::at(to.into());
        if let Some(cluster) = &shared.cluster {
            cluster.leave_slot(slot, to);
        }
        shared.routes.set_slot(
            slot,
            Slot {
                owner,
                ..Slot::default()
            },
        );
    })?;
    Ok(u64::from(!given))
}

/// `CLUSTER BUMPEPOCH`
pub fn bumpepoch(ctx: &mut ServerCtx<'_, '_>) -> Done {
    give(ctx, Order::BumpEpoch)
}

/// `CLUSTER SET-CONFIG-EPOCH epoch`
pub fn set_config_epoch(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    let epoch = ctx.args.int(2)?;
    give(ctx, Order::SetConfigEpoch(epoch))
}

/// The node that the third argument names.
fn target(ctx: &ServerCtx<'_, '_>) -> Result<NodeId, Error> {
    node(ctx)?;
    NodeId::parse(&ctx.args[2]).ok_or_else(|| unknown(&ctx.args[2]))
}

/// `CLUSTER FORGET node-id`
pub fn forget(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let id = target(ctx)?;
    give(ctx, Order::Forget(id))
}

/// `CLUSTER REPLICATE node-id`
pub fn replicate(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let (primary, empty) = (target(ctx)?, is_empty(ctx));
    give(ctx, Order::Replicate { primary, empty })
}

/// `CLUSTER FAILOVER [FORCE | TAKEOVER]`
pub fn failover(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    let how = match ctx.args.get(2) {
        None => Takeover::Together,
        Some(word) if word.eq_ignore_ascii_case(b"force") => Takeover::Force,
        Some(word) if word.eq_ignore_ascii_case(b"takeover") => Takeover::Takeover,
        Some(_) => return Err(Error::Syntax),
    };
    if ctx.args.len() > 3 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    give(ctx, Order::Failover(how))
}

/// `CLUSTER RESET [HARD | SOFT]`
pub fn reset(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    let hard = match ctx.args.get(2) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"hard") => true,
        Some(word) if word.eq_ignore_ascii_case(b"soft") => false,
        Some(_) => return Err(Error::Syntax),
    };
    if ctx.args.len() > 3 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    let empty = is_empty(ctx);
    give(ctx, Order::Reset { hard, empty })
}

/// `DEBUG DROP-CLUSTER-PACKET-FILTER kind`
pub fn drop_packets(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let kind = ctx.args.int(2)?;
    if let Some(cluster) = &ctx.shared.cluster {
        cluster.dropped_kind.store(kind, Relaxed);
        cluster.settings_changed();
    }
    ctx.out.ok();
    Ok(())
}

/// `DEBUG CLUSTERLINK KILL TO | FROM | ALL node-id`
pub fn kill_link(ctx: &mut ServerCtx<'_, '_>) -> Done {
    if !ctx.shared.routes.is_enabled() {
        return Err(Error::line(
            "ERR Debug option only available for cluster mode enabled setup!",
        ));
    }
    let word = ctx.args[3].to_ascii_lowercase();
    let (to, from) = match &word[..] {
        b"to" => (true, false),
        b"from" => (false, true),
        b"all" => (true, true),
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(Error::err(format_args!("Unknown direction {other}")));
        }
    };
    let id = NodeId::parse(&ctx.args[4]).ok_or_else(|| unknown(&ctx.args[4]))?;
    give(ctx, Order::KillLinks { id, to, from })
}

/// `CLUSTER SAVECONFIG`
pub fn saveconfig(ctx: &mut ServerCtx<'_, '_>) -> Done {
    give(ctx, Order::SaveConfig)
}
