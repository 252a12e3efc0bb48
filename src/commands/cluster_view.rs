//! What of CLUSTER tells of the nodes: INFO, NODES, SLOTS, SHARDS, LINKS and their kin.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use crate::cluster::conf;
use crate::cluster::handle::Cluster;
use crate::cluster::id::NodeId;
use crate::cluster::machine::Machine;
use crate::cluster::node::{Node, NodeIndex};
use crate::cluster::view::View;
use crate::cluster::wire::Kind;
use crate::config::Settings;
use crate::config::choices::ClusterEndpointType;
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::resp::write::Output;

type Done = Result<(), Error>;

/// The node of a cluster that this server is.
pub fn node(ctx: &ServerCtx<'_, '_>) -> Result<Arc<Cluster>, Error> {
    match &ctx.shared.cluster {
        Some(cluster) => Ok(Arc::clone(cluster)),
        None => Err(Error::line(
            "ERR This instance has cluster support disabled",
        )),
    }
}

/// The node that an argument names.
fn named(ctx: &ServerCtx<'_, '_>, machine: &Machine, at: usize) -> Result<NodeIndex, Error> {
    let id = NodeId::parse(&ctx.args[at]).and_then(|id| machine.view().find(id));
    id.ok_or_else(|| unknown(&ctx.args[at]))
}

/// No such node.
pub fn unknown(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::err(format_args!("Unknown node {name}"))
}

/// `CLUSTER MYID`
pub fn myid(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let id = node(ctx)?.machine().view().me().id;
    ctx.out.bulk(id.as_bytes());
    Ok(())
}

/// `CLUSTER NODES`
pub fn nodes(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let plain = is_told_plain(ctx);
    let text = conf::lines(node(ctx)?.machine().view(), 0, plain);
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// `CLUSTER REPLICAS node-id`
pub fn replicas(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let plain = is_told_plain(ctx);
    let cluster = node(ctx)?;
    let machine = cluster.machine();
    let index = named(ctx, &machine, 2)?;
    let view = machine.view();
    if view.node(index).is_replica() {
        return Err(Error::line("ERR The specified node is not a master"));
    }
    let replicas = &view.node(index).replicas;
    ctx.out.array(replicas.len());
    for replica in replicas {
        ctx.out.bulk(conf::line(view, *replica, plain).as_bytes());
    }
    Ok(())
}

/// `CLUSTER COUNT-FAILURE-REPORTS node-id`
pub fn count_failure_reports(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    let machine = cluster.machine();
    let index = named(ctx, &machine, 2)?;
    let since = cluster.now() - 2 * ctx.worker.settings.cluster_node_timeout;
    let reports = machine.view().node(index).reports.iter();
    let count = reports.filter(|report| report.at >= since).count();
    ctx.out.uint(count as u64);
    Ok(())
}

/// `CLUSTER INFO`
pub fn info(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let text = info_text(&node(ctx)?.machine());
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// The text of CLUSTER INFO.
pub fn info_text(machine: &Machine) -> String {
    let view = machine.view();
    let owners: Vec<&Node> = view
        .owners()
        .iter()
        .flatten()
        .map(|o| view.node(*o))
        .collect();
    let failed = owners.iter().filter(|node| node.has_failed()).count();
    let suspected =
        |node: &&&Node| !node.has_failed() && node.is(crate::cluster::node::flag::SUSPECTED);
    let suspected = owners.iter().filter(suspected).count();
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, "{name}:{value}\r\n");
    };
    line(
        "cluster_state",
        if machine.fails() { &"fail" } else { &"ok" },
    );
    line("cluster_slots_assigned", &owners.len());
    line("cluster_slots_ok", &(owners.len() - failed - suspected));
    line("cluster_slots_pfail", &suspected);
    line("cluster_slots_fail", &failed);
    line("cluster_known_nodes", &view.count());
    line("cluster_size", &view.size());
    line("cluster_current_epoch", &view.current_epoch);
    let epoch = view.node(view.my_primary()).config_epoch;
    line("cluster_my_epoch", &epoch);
    let traffic = machine.traffic();
    for (counts, way) in [(&traffic.sent, "sent"), (&traffic.received, "received")] {
        for (kind, count) in Kind::ALL
            .iter()
            .zip(counts)
            .filter(|(_, count)| **count > 0)
        {
            line(
                &format!("cluster_stats_messages_{}_{way}", kind.name()),
                count,
            );
        }
        let all: u64 = counts.iter().sum();
        line(&format!("cluster_stats_messages_{way}"), &all);
    }
    line(
        "total_cluster_links_buffer_limit_exceeded",
        &traffic.overflows,
    );
    text
}

/// `CLUSTER SLOTS`
pub fn slots(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    let settings = ctx.settings();
    let by = settings.cluster_preferred_endpoint_type;
    let plain = is_told_plain(ctx);
    let protocol = ctx.out.protocol();
    let machine = cluster.machine();
    // Our own offset may have become one without anybody's message.
    let key = (
        machine.version(),
        machine.offset() != 0,
        protocol as u8,
        by as u8 | u8::from(plain) << 4,
    );
    let text = cluster.slots_text(key, || {
        let mut out = Output::new();
        out.set_protocol(protocol);
        write_slots(&machine, &settings, plain, &mut out);
        out.to_vec().into()
    });
    drop(machine);
    ctx.out.append_bytes(text);
    Ok(())
}

/// True for a client that is told nodes' ports without TLS, where they have them beside those for TLS.
fn is_told_plain(ctx: &ServerCtx<'_, '_>) -> bool {
    ctx.settings().tls_cluster && !ctx.session.is_tls()
}

/// Ranges of slots with one owner each.
fn ranges(view: &View) -> Vec<(u16, u16, NodeIndex)> {
    let mut ranges: Vec<(u16, u16, NodeIndex)> = Vec::new();
    for (slot, owner) in view.owners().iter().enumerate() {
        let slot = slot as u16;
        match (ranges.last_mut(), owner) {
            (Some((_, last, with)), Some(owner)) if *last + 1 == slot && with == owner => {
                *last = slot;
            }
            (_, Some(owner)) => ranges.push((slot, slot, *owner)),
            (_, None) => {}
        }
    }
    ranges
}

/// Where a node is in the stream, as it said, or as this node knows of itself.
fn offset_of(machine: &Machine, index: NodeIndex) -> i64 {
    match index == machine.view().myself() {
        true => machine.offset(),
        false => machine.view().node(index).offset,
    }
}

fn write_slots(machine: &Machine, settings: &Settings, plain: bool, out: &mut Output) {
    let view = machine.view();
    let ranges = ranges(view);
    out.array(ranges.len());
    for (first, last, owner) in ranges {
        let node = view.node(owner);
        let serves = |index: &&NodeIndex| {
            !view.node(**index).has_failed() && offset_of(machine, **index) != 0
        };
        let replicas: Vec<&NodeIndex> = node.replicas.iter().filter(serves).collect();
        out.array(3 + replicas.len());
        out.int(first.into());
        out.int(last.into());
        write_node(node, settings, plain, out);
        for replica in replicas {
            write_node(view.node(*replica), settings, plain, out);
        }
    }
}

/// A node's place, as clients are to call it, and what else is known of that.
fn write_node(node: &Node, settings: &Settings, plain: bool, out: &mut Output) {
    let by = settings.cluster_preferred_endpoint_type;
    out.array(4);
    match by {
        ClusterEndpointType::Ip => out.bulk(node.ip.as_bytes()),
        ClusterEndpointType::Hostname if node.hostname.is_empty() => out.bulk(b"?"),
        ClusterEndpointType::Hostname => out.bulk(node.hostname.as_bytes()),
        ClusterEndpointType::UnknownEndpoint => out.null(),
    }
    out.int(match node.plain_port {
        port @ 1.. if plain => port.into(),
        _ => node.port.into(),
    });
    out.bulk(node.id.as_bytes());
    let tells_ip = by != ClusterEndpointType::Ip;
    let tells_hostname = by != ClusterEndpointType::Hostname && !node.hostname.is_empty();
    out.map(usize::from(tells_ip) + usize::from(tells_hostname));
    if tells_ip {
        out.bulk(b"ip");
        out.bulk(node.ip.as_bytes());
    }
    if tells_hostname {
        out.bulk(b"hostname");
        out.bulk(node.hostname.as_bytes());
    }
}

/// `CLUSTER SHARDS`
pub fn shards(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    let settings = ctx.settings();
    let machine = cluster.machine();
    let view = machine.view();
    let primaries: Vec<NodeIndex> = view
        .iter()
        .filter(|(_, node)| node.is_primary())
        .map(|(index, _)| index)
        .collect();
    ctx.out.array(primaries.len());
    for index in primaries {
        let node = view.node(index);
        ctx.out.map(2);
        ctx.out.bulk(b"slots");
        let ranges = node.slots.ranges();
        ctx.out.array(2 * ranges.len());
        for (first, last) in ranges {
            ctx.out.int(first.into());
            ctx.out.int(last.into());
        }
        ctx.out.bulk(b"nodes");
        ctx.out.array(1 + node.replicas.len());
        for index in std::iter::once(&index).chain(&node.replicas) {
            write_details(&machine, *index, &settings, ctx.out);
        }
    }
    Ok(())
}

fn write_details(machine: &Machine, index: NodeIndex, settings: &Settings, out: &mut Output) {
    let node = machine.view().node(index);
    let tls = settings.tls_cluster;
    let (plain, secure) = if tls {
        (node.plain_port, node.port)
    } else {
        (node.port, 0)
    };
    let offset = offset_of(machine, index);
    let endpoint = match settings.cluster_preferred_endpoint_type {
        ClusterEndpointType::Ip => &*node.ip,
        ClusterEndpointType::Hostname if node.hostname.is_empty() => "?",
        ClusterEndpointType::Hostname => &*node.hostname,
        ClusterEndpointType::UnknownEndpoint => "",
    };
    let health = match node.is_replica() {
        _ if node.has_failed() => "fail",
        true if offset == 0 => "loading",
        _ => "online",
    };
    let ports = usize::from(plain != 0) + usize::from(secure != 0);
    out.map(6 + ports + usize::from(!node.hostname.is_empty()));
    out.bulk(b"id");
    out.bulk(node.id.as_bytes());
    for (name, port) in [("port", plain), ("tls-port", secure)] {
        if port != 0 {
            out.bulk(name.as_bytes());
            out.int(port.into());
        }
    }
    let mut text = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text("ip", &node.ip);
    text("endpoint", endpoint);
    if !node.hostname.is_empty() {
        text("hostname", &node.hostname);
    }
    text(
        "role",
        if node.is_replica() {
            "replica"
        } else {
            "master"
        },
    );
    out.bulk(b"replication-offset");
    out.int(offset);
    out.bulk(b"health");
    out.bulk(health.as_bytes());
}

/// `CLUSTER LINKS`
pub fn links(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let cluster = node(ctx)?;
    let machine: MutexGuard<'_, Machine> = cluster.machine();
    let mut shown: Vec<_> = machine
        .links()
        .iter()
        .filter_map(|(id, link)| Some((*id, link, link.node?)))
        .collect();
    shown.sort_by_key(|(id, ..)| *id);
    ctx.out.array(shown.len());
    for (_, link, with) in shown {
        let held = link.meter.held.load(Relaxed);
        let id = machine.view().node(with).id;
        let direction: &[u8] = if link.inbound { b"from" } else { b"to" };
        let events: &[u8] = match (link.connected, held) {
            (false, _) => b"",
            (true, 0) => b"r",
            (true, _) => b"rw",
        };
        ctx.out.map(6);
        ctx.out.bulk(b"direction");
        ctx.out.bulk(direction);
        ctx.out.bulk(b"node");
        ctx.out.bulk(id.as_bytes());
        ctx.out.bulk(b"create-time");
        ctx.out.int(link.since);
        ctx.out.bulk(b"events");
        ctx.out.bulk(events);
        ctx.out.bulk(b"send-buffer-allocated");
        ctx.out.int(held as i64);
        ctx.out.bulk(b"send-buffer-used");
        ctx.out.int(held as i64);
    }
    Ok(())
}

/// `CLUSTER HELP`
pub fn help(ctx: &mut ServerCtx<'_, '_>) -> Done {
    node(ctx)?;
    super::help::reply(ctx, HELP);
    Ok(())
}

const HELP: &[&str] = &[
    "ADDSLOTS <slot> [<slot> ...]",
    "    Assign slots to current node.",
    "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Assign slots which are between <start-slot> and <end-slot> to current node.",
    "BUMPEPOCH",
    "    Advance the cluster config epoch.",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Return number of failure reports for <node-id>.",
    "COUNTKEYSINSLOT <slot>",
    "    Return the number of keys in <slot>.",
    "DELSLOTS <slot> [<slot> ...]",
    "    Delete slots information from current node.",
    "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Delete slots information which are between <start-slot> and <end-slot> from current node.",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Promote current replica node to being a master.",
    "FORGET <node-id>",
    "    Remove a node from the cluster.",
    "GETKEYSINSLOT <slot> <count>",
    "    Return key names stored by current node in a slot.",
    "FLUSHSLOTS",
    "    Delete current node own slots information.",
    "INFO",
    "    Return information about the cluster.",
    "KEYSLOT <key>",
    "    Return the hash slot for <key>.",
    "MEET <ip> <port> [<bus-port>]",
    "    Connect nodes into a working cluster.",
    "MYID",
    "    Return the node id.",
    "NODES",
    "    Return cluster configuration seen by node. Output format:",
    "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
    "REPLICATE <node-id>",
    "    Configure current node as replica to <node-id>.",
    "RESET [HARD|SOFT]",
    "    Reset current node (default: soft).",
    "SET-CONFIG-EPOCH <epoch>",
    "    Set config epoch of current node.",
    "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>)",
    "    Set slot state.",
    "REPLICAS <node-id>",
    "    Return <node-id> replicas.",
    "SAVECONFIG",
    "    Force saving cluster configuration on disk.",
    "SLOTS",
    "    Return information about slots range mappings. Each range is made of:",
    "    start, end, master and replicas IP addresses, ports and ids",
    "SHARDS",
    "    Return information about slot range mappings and the nodes associated with them.",
    "LINKS",
    "    Return information about all network links between this node and its peers.",
    "    Output format is an array where each array element is a map containing attributes of a link",
    "FLUSHSLOT <slot> [ASYNC|SYNC]",
    "    Delete all keys in <slot>.",
    "MIGRATESLOTS SLOTSRANGE <start> <end> [<start> <end> ...] NODE <node-id> [SLOTSRANGE ... NODE ...]",
    "    Move slots with their keys to another node, all at once.",
    "GETSLOTMIGRATIONS",
    "    Return what is moving, and what moved lately.",
    "CANCELSLOTMIGRATIONS",
    "    Cancel all moves that begin here.",
];
