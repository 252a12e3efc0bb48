//! nodes.conf: what a node knows of the cluster, in the text that Redis reads and writes, and the lines of
//! CLUSTER NODES, which are the same.
//!
//! The names by which nodes are looked up stand in the file alone, one a line, as variables: Redis passes
//! over those that it does not know. `vars name-ID NAME:PORT`, with the port of the bus. `vars foreign 1` while
//! what a replica has is another shard's data.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::id::NodeId;
use super::node::{Node, NodeIndex, flag};
use super::slots::{SLOTS, SlotSet};
use super::view::{Grant, View};
use super::wire::{is_address, is_hostname};

/// A node's flags as text.
pub fn flags(flags: u16) -> String {
    let names = flag::NAMES.iter().filter(|(bit, _)| flags & bit != 0);
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    match names.is_empty() {
        true => "noflags".to_owned(),
        false => names.join(","),
    }
}

/// A node's line. `plain` shows the port without TLS where there is one.
pub fn line(view: &View, index: NodeIndex, plain: bool) -> String {
    let node = view.node(index);
    let port = match node.plain_port {
        plain_port @ 1.. if plain => plain_port,
        _ => node.port,
    };
    let mut line = format!("{} {}:{}@{}", node.id, node.ip, port, node.bus_port);
    if !node.hostname.is_empty() {
        line.push(',');
        line.push_str(&node.hostname);
    }
    let primary = node.primary.map(|index| view.node(index));
    let epoch = match primary {
        Some(primary) if node.is_replica() => primary.config_epoch,
        _ => node.config_epoch,
    };
    let connected = node.link.is_some() || node.is(flag::MYSELF);
    let _ = write!(
        line,
        " {} {} {} {} {} {}",
        flags(node.flags),
        primary.map_or("-".to_owned(), |primary| primary.id.to_string()),
        node.ping_sent,
        node.pong_received,
        epoch,
        if connected {
            "connected"
        } else {
            "disconnected"
        },
    );
    for (first, last) in node.slots.ranges() {
        let _ = match first == last {
            true => write!(line, " {first}"),
            false => write!(line, " {first}-{last}"),
        };
    }
    if node.is(flag::MYSELF) {
        open_slots(&mut line, view);
    }
    line
}

/// The slots that are on their way to or from us.
fn open_slots(line: &mut String, view: &View) {
    for slot in 0..SLOTS as u16 {
        let (mark, other) = match (view.migrating.get(&slot), view.importing.get(&slot)) {
            (Some(to), _) => ("->-", to),
            (None, Some(from)) => ("-<-", from),
            (None, None) => continue,
        };
        let _ = write!(line, " [{slot}{mark}{}]", view.node(*other).id);
    }
}

/// Lines of all nodes, but for those with any of the flags of `without`.
pub fn lines(view: &View, without: u16, plain: bool) -> String {
    let shown = view
        .iter()
        .filter(|(_, node)| !node.is(without) || node.is(flag::MYSELF));
    let lines = shown.map(|(index, _)| line(view, index, plain) + "\n");
    lines.collect()
}

/// What the file is to hold.
pub fn write(view: &View) -> String {
    let mut text = lines(view, flag::HANDSHAKE, false);
    let named = view.iter().map(|(_, node)| node);
    for node in named.filter(|node| !node.name.is_empty() && !node.is(flag::HANDSHAKE)) {
        let _ = writeln!(
            text,
            "vars {NAME}{} {}:{}",
            node.id, node.name, node.name_port
        );
    }
    if view.is_foreign {
        let _ = writeln!(text, "vars {FOREIGN} 1");
    }
    let targets: BTreeSet<NodeIndex> = view.granted.values().map(|grant| grant.to).collect();
    for to in targets {
        let granted = view.granted.iter().filter(|(_, grant)| grant.to == to);
        let slots: SlotSet = granted.map(|(slot, _)| *slot).collect();
        let _ = writeln!(text, "vars {GRANTED}{} {}", view.node(to).id, slots.text());
    }
    if !view.strays.is_empty() {
        let _ = writeln!(text, "vars {STRAYS} {}", view.strays.text());
    }
    let _ = writeln!(
        text,
        "vars currentEpoch {} lastVoteEpoch {}",
        view.current_epoch, view.last_vote_epoch
    );
    text
}

/// The variable that says that a replica has another shard's data.
const FOREIGN: &str = "foreign";

/// How the variable begins that holds a node's name.
const NAME: &str = "name-";

/// How the variable begins that holds what was granted to a node.
const GRANTED: &str = "granted-";
/// The variable that holds slots whose keys do not belong here unless the slot does.
const STRAYS: &str = "strays";

/// True when the last thing that is written into a file is there.
pub fn is_whole(text: &[u8]) -> bool {
    let is_last =
        |row: &[u8]| row.starts_with(b"vars ") && row.windows(14).any(|w| w == b"lastVoteEpoch ");
    text.ends_with(b"\n") && text.split(|byte| *byte == b'\n').any(is_last)
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Corrupt {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Reads what a file holds.
///
/// # Errors
/// It is not the file of a node: nothing of it is taken.
pub fn read(text: &[u8], now: i64) -> Result<View, Corrupt> {
    let rows = text.split(|byte| *byte == b'\n').enumerate();
    let rows: Vec<(usize, Vec<&str>)> = rows
        .map(|(index, row)| match std::str::from_utf8(row) {
            Ok(row) => Ok((index + 1, row.split_ascii_whitespace().collect())),
            Err(_) => Err(Corrupt {
                line: index + 1,
                reason: "no text",
            }),
        })
        .collect::<Result<_, _>>()?;
    let mut reading = Reading { view: None, now };
    // This node comes first, since the others are seen from it.
    let is_mine = |fields: &[&str]| {
        fields
            .get(2)
            .is_some_and(|flags| flags.split(',').any(|f| f == "myself"))
    };
    let rest = Corrupt {
        line: rows.len(),
        reason: "no node is marked as myself",
    };
    let (mine, others): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .filter(|(_, fields)| !fields.is_empty())
        .partition(|(_, fields)| is_mine(fields));
    match &mine[..] {
        [] => return Err(rest),
        [_] => {}
        [_, (line, _), ..] => {
            return Err(Corrupt {
                line: *line,
                reason: "a second node is marked as myself",
            });
        }
    }
    for (number, fields) in mine.iter().chain(&others) {
        reading.row(fields).map_err(|reason| Corrupt {
            line: *number,
            reason,
        })?;
    }
    let mut view = reading.view.ok_or(rest)?;
    // Protection against editing by hand.
    view.current_epoch = view.highest_epoch();
    Ok(view)
}

struct Reading {
    view: Option<View>,
    now: i64,
}

impl Reading {
    fn row(&mut self, fields: &[&str]) -> Result<(), &'static str> {
        if fields[0].eq_ignore_ascii_case("vars") {
            return self.vars(&fields[1..]);
        }
        if fields.len() < 8 {
            return Err("less than eight fields");
        }
        let id = NodeId::parse(fields[0].as_bytes()).ok_or("not the name of a node")?;
        let read_flags = read_flags(fields[2])?;
        let now = self.now;
        let view = self
            .view
            .get_or_insert_with(|| View::new(Node::new(id, flag::MYSELF, now)));
        let index = known(view, id, now)?;
        let node = view.node_mut(index);
        address(node, fields[1])?;
        node.flags |= read_flags;
        if node.has_failed() {
            node.fail_time = now;
        }
        if fields[4].parse::<i64>().unwrap_or(0) != 0 {
            node.ping_sent = now;
        }
        if fields[5].parse::<i64>().unwrap_or(0) != 0 {
            node.pong_received = now;
        }
        let epoch = fields[6].parse().map_err(|_| "not an epoch")?;
        if fields[3] == "-" {
            node.config_epoch = epoch;
        } else {
            let primary = NodeId::parse(fields[3].as_bytes()).ok_or("not the name of a node")?;
            if !node.is_replica() {
                node.config_epoch = epoch;
            }
            let primary = known(view, primary, now)?;
            if primary == index {
                return Err("a node that copies itself");
            }
            view.attach(index, primary);
        }
        let is_me = index == view.myself();
        for field in &fields[8..] {
            match field.strip_prefix('[') {
                Some(open) if is_me => open_slot(view, open, now)?,
                // Of others it means nothing.
                Some(_) => {}
                None => range(view, index, field)?,
            }
        }
        Ok(())
    }

    fn vars(&mut self, pairs: &[&str]) -> Result<(), &'static str> {
        let view = self.view.as_mut().ok_or("no node is marked as myself")?;
        let pairs = pairs.chunks(2);
        for pair in pairs {
            let [name, value] = pair else {
                return Err("a variable without a value");
            };
            let epoch = || value.parse().map_err(|_| "not an epoch");
            if name.eq_ignore_ascii_case("currentEpoch") {
                view.current_epoch = epoch()?;
            } else if name.eq_ignore_ascii_case("lastVoteEpoch") {
                view.last_vote_epoch = epoch()?;
            } else if *name == FOREIGN {
                view.is_foreign = *value == "1";
            } else if let Some(id) = name.strip_prefix(NAME) {
                read_name(view, id, value);
            } else if let Some(id) = name.strip_prefix(GRANTED) {
                read_granted(view, id, value)?;
            } else if *name == STRAYS {
                view.strays = SlotSet::from_text(value).ok_or("no slots")?;
            } else {
                tracing::warn!("Skipping unknown cluster config variable '{name}'");
            }
        }
        Ok(())
    }
}

fn known(view: &mut View, id: NodeId, now: i64) -> Result<NodeIndex, &'static str> {
    match view.find(id) {
        Some(index) => Ok(index),
        None => view.add(Node::new(id, 0, now)).ok_or("too many nodes"),
    }
}

/// `NAME:PORT`. What is not understood costs no more than the name.
fn read_name(view: &mut View, id: &str, value: &str) {
    let index = NodeId::parse(id.as_bytes()).and_then(|id| view.find(id));
    let place = value.rsplit_once(':');
    let place = place.and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match (index, place) {
        (Some(index), Some((name, port))) if is_hostname(name.as_bytes()) => {
            let node = view.node_mut(index);
            name.clone_into(&mut node.name);
            node.name_port = port;
        }
        _ => tracing::warn!("Skipping the name '{value}' of node '{id}'"),
    }
}

/// Slots of ours that were granted: whatever became of that, it is in doubt now.
fn read_granted(view: &mut View, id: &str, value: &str) -> Result<(), &'static str> {
    let slots = SlotSet::from_text(value).ok_or("no slots")?;
    let id = NodeId::parse(id.as_bytes()).ok_or("not the name of a node")?;
    let Some(to) = view.find(id) else {
        return Ok(());
    };
    let me = view.myself();
    for slot in slots
        .iter()
        .filter(|slot| view.owner(*slot) == Some(me))
        .collect::<Vec<_>>()
    {
        let grant = Grant { to, doubtful: true };
        view.granted.insert(slot, grant);
    }
    Ok(())
}

/// `ip:port[@bus-port][,hostname]`
fn address(node: &mut Node, field: &str) -> Result<(), &'static str> {
    let mut parts = field.split(',');
    let place = parts.next().unwrap_or_default();
    let hostname = parts.next().unwrap_or_default();
    if !hostname.is_empty() && !is_hostname(hostname.as_bytes()) {
        return Err("not a host name");
    }
    hostname.clone_into(&mut node.hostname);
    let (ip, ports) = place.rsplit_once(':').ok_or("no port")?;
    if !is_address(ip.as_bytes()) {
        return Err("not an address");
    }
    let (port, bus_port) = match ports.split_once('@') {
        Some((port, bus_port)) => (port, Some(bus_port)),
        None => (ports, None),
    };
    let port: u16 = port.parse().map_err(|_| "not a port")?;
    let bus_port = match bus_port {
        Some(bus_port) => bus_port.parse().map_err(|_| "not a port")?,
        // As old versions wrote it.
        None => port.saturating_add(10_000),
    };
    node.take_address(ip, port, 0, bus_port);
    if node.name.is_empty() && !node.hostname.is_empty() {
        // As Redis wrote it; a name of its own comes later in the file.
        node.name.clone_from(&node.hostname);
        node.name_port = bus_port;
    }
    Ok(())
}

fn read_flags(field: &str) -> Result<u16, &'static str> {
    let mut flags = 0;
    for name in field.split(',') {
        let known = flag::NAMES.iter().find(|(_, known)| *known == name);
        match known {
            Some((bit, _)) => flags |= bit,
            None if name == "noflags" => {}
            None => return Err("an unknown flag"),
        }
    }
    Ok(flags)
}

fn slot(text: &str) -> Result<u16, &'static str> {
    let slot = text.parse::<u16>().ok();
    slot.filter(|slot| usize::from(*slot) < SLOTS)
        .ok_or("not a slot")
}

fn range(view: &mut View, index: NodeIndex, field: &str) -> Result<(), &'static str> {
    let (first, last) = field.split_once('-').unwrap_or((field, field));
    for slot in slot(first)?..=slot(last)? {
        // Whoever comes first has it.
        if view.owner(slot).is_none() {
            view.assign(slot, index);
        }
    }
    Ok(())
}

/// `slot->-id]` or `slot-<-id]`
fn open_slot(view: &mut View, open: &str, now: i64) -> Result<(), &'static str> {
    let open = open
        .strip_suffix(']')
        .ok_or("an open slot without its end")?;
    let (number, rest) = open
        .split_once('-')
        .ok_or("an open slot without a direction")?;
    let number = slot(number)?;
    let (direction, id) = rest
        .split_at_checked(2)
        .ok_or("an open slot without a node")?;
    let id = NodeId::parse(id.as_bytes()).ok_or("not the name of a node")?;
    let other = known(view, id, now)?;
    match direction {
        ">-" => view.migrating.insert(number, other),
        "<-" => view.importing.insert(number, other),
        _ => return Err("an open slot without a direction"),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "1111111111111111111111111111111111111111";
    const OTHER: &str = "2222222222222222222222222222222222222222";
    const REPLICA: &str = "3333333333333333333333333333333333333333";

    fn text() -> String {
        format!(
            "{OTHER} 10.0.0.2:6379@16379,b.example master - 0 1700000000000 3 connected 5-9 12\n\
             {ME} 10.0.0.1:6379@16379 myself,master - 0 0 2 connected 0-4 [3->-{OTHER}] [5-<-{OTHER}]\n\
             {REPLICA} :0@0 slave,noaddr {OTHER} 1 1 3 disconnected\n\
             vars currentEpoch 7 lastVoteEpoch 6\n"
        )
    }

    #[test]
    fn a_file_is_read_and_written() {
        let view = read(text().as_bytes(), 5).unwrap();
        assert_eq!(view.me().id.as_str(), ME);
        assert_eq!((view.current_epoch, view.last_vote_epoch), (7, 6));
        let other = view.find(NodeId::parse(OTHER.as_bytes()).unwrap()).unwrap();
        assert_eq!(view.owner(12), Some(other));
        assert_eq!(view.migrating[&3], other);
        assert_eq!(view.importing[&5], other);
        assert_eq!(view.node(other).replicas.len(), 1);
        assert_eq!(view.node(other).hostname, "b.example");
        let written = write(&view);
        assert_eq!(write(&read(written.as_bytes(), 5).unwrap()), written);
    }

    #[test]
    fn whose_data_a_replica_has_outlives_it() {
        let mut view = read(text().as_bytes(), 5).unwrap();
        assert!(!view.is_foreign);
        view.is_foreign = true;
        assert!(read(write(&view).as_bytes(), 5).unwrap().is_foreign);
    }

    #[test]
    fn what_was_granted_is_in_doubt_when_it_is_read() {
        let vars = format!("vars granted-{OTHER} 1-2,4-4\nvars strays 1-2,9-9\nvars curr");
        let text = text().replace("vars curr", &vars);
        let view = read(text.as_bytes(), 5).unwrap();
        let other = view.find(NodeId::parse(OTHER.as_bytes()).unwrap()).unwrap();
        let granted: Vec<u16> = view.granted.keys().copied().collect();
        assert_eq!(granted, [1, 2, 4]);
        assert!(view.granted.values().all(|g| g.doubtful && g.to == other));
        assert!(view.strays.has(9) && !view.strays.has(3));
        let written = write(&view);
        assert_eq!(write(&read(written.as_bytes(), 5).unwrap()), written);
        // What is another's by now is nothing that was granted.
        let text = text.replace("1-2,4-4", "5-5");
        assert!(read(text.as_bytes(), 5).unwrap().granted.is_empty());
        let bad = text.replace("5-5", "5-x");
        assert!(read(bad.as_bytes(), 5).is_err());
    }

    #[test]
    fn names_stand_beside_what_redis_reads() {
        let named =
            format!("vars name-{REPLICA} c.svc:16380\nvars name-{ME} a;b:1 name-x y:2\nvars curr");
        let text = text().replace("vars curr", &named);
        let view = read(text.as_bytes(), 5).unwrap();
        let node = |id: &str| view.node(view.find(NodeId::parse(id.as_bytes()).unwrap()).unwrap());
        let place = |id| (node(id).name.as_str(), node(id).name_port);
        assert_eq!(place(REPLICA), ("c.svc", 16380));
        assert_eq!(place(OTHER), ("b.example", 16379));
        assert_eq!(place(ME), ("", 0));
        assert!(node(REPLICA).hostname.is_empty());
        assert!(!lines(&view, 0, false).contains("c.svc"));
        let written = write(&view);
        assert!(written.contains(&format!("\nvars name-{REPLICA} c.svc:16380\n")));
        assert!(written.ends_with("\nvars currentEpoch 7 lastVoteEpoch 6\n"));
    }

    #[test]
    fn what_is_torn_or_wrong_is_refused() {
        let text = text();
        for end in 0..text.len() - 1 {
            // A line less may still be a file; it must not panic, nor be this node without its name.
            if let Ok(view) = read(&text.as_bytes()[..end], 5) {
                assert_eq!(view.me().id.as_str(), ME);
            }
        }
        for (from, to) in [
            ("myself,", ""),
            ("5-9", "5-99999"),
            ("master -", "monster -"),
            ("10.0.0.2", "10.0.0.2;"),
            ("[3->-", "[3-"),
        ] {
            assert!(
                read(text.replace(from, to).as_bytes(), 5).is_err(),
                "{from}"
            );
        }
        assert!(read(b"", 5).is_err());
    }

    #[test]
    fn unknown_variables_and_blank_lines_are_passed_over() {
        let text = text().replace("vars ", "\n\nvars shard abc ");
        assert_eq!(read(text.as_bytes(), 5).unwrap().current_epoch, 7);
    }
}
