//! What counts as the same reply, and the final state of a server.
//!
//! Replies are the same when they are equal byte for byte and type for type. Every exception is a
//! row of [`RULES`] with its reason; there is no other place that forgives anything.

use crate::generator::name_of;
use crate::resp::{Args, Conn, Ended, Reply, show};
use crate::servers::{Outcome, Step};

/// How a rule lets two replies differ.
enum Leniency {
    /// Integers that are not negative may be this far apart.
    Within(i64),
    /// Both are rewritten, then they must be equal.
    Rewrite(fn(Reply) -> Reply),
    /// Both are rewritten; ours must hold every item of the oracle's, and may hold more.
    AtLeast(fn(Reply) -> Reply),
    /// Where the oracle answers an integer, ours may answer one of these errors.
    MayRefuse(&'static [&'static str]),
}

/// One exception from equality.
struct Rule {
    /// Name for reports and for the reader.
    name: &'static str,
    /// Why two correct servers may differ here.
    #[allow(
        dead_code,
        reason = "written for people; kept next to what it explains"
    )]
    reason: &'static str,
    /// `NAME` or `NAME SUBCOMMAND`, in upper case.
    commands: &'static [&'static str],
    how: Leniency,
}

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { name: "near-seconds", reason: "the two servers run a moment apart and round",
           commands: &["TTL", "EXPIRETIME"], how: Leniency::Within(2) },
    Rule { name: "near-millis", reason: "the two servers run a moment apart",
           commands: &["PTTL", "PEXPIRETIME"], how: Leniency::Within(2000) },
    Rule { name: "stream-times", reason: "idle times and times of delivery go on between the two servers",
           commands: &["XPENDING", "XINFO STREAM", "XINFO CONSUMERS"], how: Leniency::Rewrite(without_times) },
    Rule { name: "unordered", reason: "the order is that of a hash table with a random seed",
           commands: &["KEYS", "PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS", "COMMAND LIST", "COMMAND INFO", "ZSCAN", "SMEMBERS", "SINTER", "SUNION",
                       "SDIFF", "SPOP", "SRANDMEMBER", "SSCAN", "HKEYS", "HVALS", "HSCAN", "HRANDFIELD"],
           how: Leniency::Rewrite(sorted) },
    Rule { name: "unordered-pairs", reason: "the order is that of a hash table with a random seed",
           commands: &["CONFIG GET", "HGETALL"], how: Leniency::Rewrite(sorted_pairs) },
    Rule { name: "unordered-farewell", reason: "without arguments the channels are left in table order, and each \
           count belongs to its place in that order",
           commands: &["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"], how: Leniency::Rewrite(without_count) },
    Rule { name: "scan-page", reason: "cursors and pages are the server's own; full scans are compared by Step::Scan",
           commands: &["SCAN"], how: Leniency::Rewrite(any_array) },
    Rule { name: "random-key", reason: "the choice is random", commands: &["RANDOMKEY"],
           how: Leniency::Rewrite(any_string) },
    Rule { name: "figures", reason: "they are the server's own; that there is a reply is what counts, within EXEC above all",
           commands: &["INFO", "MEMORY DOCTOR"], how: Leniency::Rewrite(any_string) },
    Rule { name: "figures-by-name", reason: "as above", commands: &["MEMORY STATS"], how: Leniency::Rewrite(any_array) },
    Rule { name: "idletime", reason: "Redis shares the objects of small integers between keys, which then age as one: \
           an unused key may look fresh and a fresh one idle; ours age each for itself",
           commands: &["OBJECT IDLETIME"], how: Leniency::Rewrite(any_int) },
    Rule { name: "refcount", reason: "within EXEC the queue of Redis still holds the value as an argument, and COPY \
           makes a small integer that is not the shared one: traces of its memory, not of the data",
           commands: &["OBJECT REFCOUNT"], how: Leniency::Rewrite(any_int) },
    Rule { name: "frequency", reason: "the counter is probabilistic", commands: &["OBJECT FREQ"],
           how: Leniency::Rewrite(any_int) },
    Rule { name: "client-id", reason: "ids count connections", commands: &["CLIENT ID"],
           how: Leniency::Rewrite(any_int) },
    Rule { name: "clock", reason: "time passes", commands: &["TIME", "LASTSAVE"], how: Leniency::Rewrite(any_strings) },
    Rule { name: "hello-id", reason: "ids count connections; a server may add fields of its own",
           commands: &["HELLO"], how: Leniency::Rewrite(hello) },
    Rule { name: "client-line", reason: "ids, addresses, ages and buffer sizes are the server's own; it may add fields of later versions",
           commands: &["CLIENT INFO", "CLIENT LIST"], how: Leniency::Rewrite(client_lines) },
    Rule { name: "help", reason: "the lines that name subcommands are the contract, the sentences below them are \
           each server's own, and a server may know subcommands of later versions",
           commands: &["CLIENT HELP", "COMMAND HELP", "CONFIG HELP", "DEBUG HELP", "MEMORY HELP", "OBJECT HELP",
                       "PUBSUB HELP", "SLOWLOG HELP", "LATENCY HELP"], how: Leniency::AtLeast(usage_lines) },
    Rule { name: "bits-of-nothing", reason: "as from 7.2 on, ours looks at the arguments though the key is missing",
           commands: &["BITCOUNT", "BITPOS"],
           how: Leniency::MayRefuse(&["ERR syntax error", "ERR value is not an integer or out of range"]) },
    Rule { name: "lolwut", reason: "art", commands: &["LOLWUT"], how: Leniency::Rewrite(any_string) },
];

/// Compares two outcomes of `step`. `queued` are the commands in a transaction on its connection.
/// Says what differs, or nothing.
pub fn difference(
    step: &Step,
    queued: &[Args],
    oracle: &Outcome,
    ours: &Outcome,
) -> Option<String> {
    let commands = step.commands();
    if oracle.replies.len() != ours.replies.len() {
        return Some(sides(&list(&oracle.replies), &list(&ours.replies), ""));
    }
    let walks = matches!(step, Step::Scan { .. })
        || commands.iter().chain(queued).any(|args| {
            let name = name_of(args);
            [&b"KEYS"[..], b"SCAN", b"RANDOMKEY"].contains(&name.as_slice())
        });
    let mut queued = queued.to_vec();
    let aligned = commands.len() == oracle.replies.len();
    let mut left = Vec::new();
    let mut right = Vec::new();
    let mut used = "";
    for (at, (a, b)) in oracle.replies.iter().zip(&ours.replies).enumerate() {
        let args = match (aligned, commands) {
            (true, _) => Some(&commands[at]),
            // SUBSCRIBE and its kin: one command, several replies.
            (false, [only]) => Some(only),
            _ => None,
        };
        let (a, b, rule) = match args {
            Some(args) if name_of(args) == b"EXEC" => executed(&queued, a, b),
            Some(args) => settle(args, a, b),
            None => (a.clone(), b.clone(), ""),
        };
        track(args, &a, &mut queued);
        if !rule.is_empty() {
            used = rule;
        }
        left.push(a);
        right.push(b);
    }
    if matches!(used, "unordered-farewell") {
        left.sort();
        right.sort();
    }
    if left != right {
        return Some(sides(&list(&left), &list(&right), used));
    }
    for (conn, (a, b)) in oracle.pushes.iter().zip(&ours.pushes).enumerate() {
        let (mut a, mut b) = (ordered(a.clone()), ordered(b.clone()));
        if walks {
            // What a walk over the table expires, it tells in the order of the table.
            a.sort();
            b.sort();
        }
        if a != b {
            let text = sides(&list(&a), &list(&b), "");
            return Some(format!("messages pushed to connection {conn}:\n{text}"));
        }
    }
    None
}

/// True when ours refused, on purpose, what the oracle did: from here on the two hold different data, and
/// the sequence ends without a finding.
///
/// That is XSETID below what is known to be deleted, a check of 7.2.
pub fn parted(ours: &Outcome) -> bool {
    const REFUSED: &[u8] =
        b"ERR The ID specified in XSETID is smaller than current max_deleted_entry_id";
    fn holds(reply: &Reply) -> bool {
        match reply {
            Reply::Error(text) => text == REFUSED,
            Reply::Array(items) => items.iter().any(holds),
            _ => false,
        }
    }
    ours.replies.iter().any(holds)
}

/// Keeps `queued` up to date with what connection and server agreed on.
pub fn track(args: Option<&Args>, reply: &Reply, queued: &mut Vec<Args>) {
    let Some(args) = args else { return };
    let ends = matches!(
        name_of(args).as_slice(),
        b"EXEC" | b"DISCARD" | b"RESET" | b"QUIT"
    );
    if *reply == Reply::Simple(b"QUEUED".to_vec()) {
        queued.push(args.clone());
    } else if ends && args.len() == 1 {
        queued.clear();
    }
}

fn sides(oracle: &str, ours: &str, rule: &str) -> String {
    let rule = if rule.is_empty() {
        String::new()
    } else {
        format!("  (after rule {rule})\n")
    };
    format!("{rule}  oracle: {oracle}\n  ours:   {ours}")
}

fn list(replies: &[Reply]) -> String {
    replies.iter().map(show).collect::<Vec<_>>().join(" | ")
}

/// The results of a transaction, each under the rule of its command.
fn executed(queued: &[Args], a: &Reply, b: &Reply) -> (Reply, Reply, &'static str) {
    match (a, b) {
        (Reply::Array(xs), Reply::Array(ys))
            if xs.len() == ys.len() && xs.len() == queued.len() =>
        {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for ((x, y), args) in xs.iter().zip(ys).zip(queued) {
                let (x, y, _) = settle(args, x, y);
                left.push(x);
                right.push(y);
            }
            (Reply::Array(left), Reply::Array(right), "")
        }
        _ => (a.clone(), b.clone(), ""),
    }
}

/// Applies the rule of a command, if it has one, to both replies. Errors are always compared.
fn settle(args: &Args, a: &Reply, b: &Reply) -> (Reply, Reply, &'static str) {
    let whole = name_of(args);
    let sub = args
        .get(1)
        .map(|s| s.to_ascii_uppercase())
        .unwrap_or_default();
    let pair = [whole.as_slice(), b" ", sub.as_slice()].concat();
    let rule = RULES.iter().find(|rule| {
        rule.commands
            .iter()
            .any(|c| c.as_bytes() == whole || c.as_bytes() == pair)
    });
    match rule {
        Some(Rule {
            name,
            how: Leniency::MayRefuse(errors),
            ..
        }) => match (a, b) {
            (Reply::Int(_), Reply::Error(text)) if errors.iter().any(|e| e.as_bytes() == text) => {
                (b.clone(), b.clone(), name)
            }
            _ => (a.clone(), b.clone(), ""),
        },
        Some(rule) if !is_error(a) && !is_error(b) => match (&rule.how, a, b) {
            (Leniency::Within(most), Reply::Int(x), Reply::Int(y)) => {
                let near = *x >= 0 && *y >= 0 && x.abs_diff(*y) <= most.unsigned_abs();
                (
                    a.clone(),
                    if near { a.clone() } else { b.clone() },
                    rule.name,
                )
            }
            (Leniency::AtLeast(f), ..) => at_least(f(a.clone()), f(b.clone()), rule.name),
            (Leniency::Rewrite(f), ..) => (f(a.clone()), f(b.clone()), rule.name),
            _ => (a.clone(), b.clone(), ""),
        },
        _ => (a.clone(), b.clone(), ""),
    }
}

fn at_least(oracle: Reply, ours: Reply, rule: &'static str) -> (Reply, Reply, &'static str) {
    match (&oracle, &ours) {
        (Reply::Array(all), Reply::Array(have)) if all.iter().all(|item| have.contains(item)) => {
            (oracle.clone(), oracle, rule)
        }
        _ => (oracle, ours, rule),
    }
}

/// The lines of a HELP that are not indented.
fn usage_lines(reply: Reply) -> Reply {
    let named = |line: &Reply| !matches!(line, Reply::Simple(text) if text.starts_with(b" "));
    match reply {
        Reply::Array(lines) => Reply::Array(lines.into_iter().filter(named).collect()),
        other => other,
    }
}

fn is_error(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Error(_) | Reply::BulkError(_) | Reply::Missing(_)
    )
}

fn sorted(reply: Reply) -> Reply {
    let each = |items: Vec<Reply>| {
        let mut items: Vec<Reply> = items.into_iter().map(sorted).collect();
        items.sort();
        items
    };
    match reply {
        Reply::Array(items) => Reply::Array(each(items)),
        Reply::Set(items) => Reply::Set(each(items)),
        Reply::Map(mut pairs) => {
            pairs.sort();
            Reply::Map(pairs)
        }
        other => other,
    }
}

fn sorted_pairs(reply: Reply) -> Reply {
    match reply {
        Reply::Array(items) => {
            let mut pairs: Vec<Vec<Reply>> = items.chunks(2).map(<[Reply]>::to_vec).collect();
            pairs.sort();
            Reply::Array(pairs.concat())
        }
        other => sorted(other),
    }
}

fn without_count(reply: Reply) -> Reply {
    match reply {
        Reply::Array(mut items) | Reply::Push(mut items) if items.len() == 3 => {
            items.pop();
            Reply::Array(items)
        }
        other => other,
    }
}

fn any_string(reply: Reply) -> Reply {
    match reply {
        Reply::Bulk(_) => Reply::Bulk(b"(any)".to_vec()),
        Reply::Verbatim(_) => Reply::Verbatim(b"(any)".to_vec()),
        other => other,
    }
}

fn any_array(reply: Reply) -> Reply {
    match reply {
        Reply::Array(_) => Reply::Array(Vec::new()),
        Reply::Map(_) => Reply::Map(Vec::new()),
        other => other,
    }
}

fn any_int(reply: Reply) -> Reply {
    match reply {
        Reply::Int(_) => Reply::Int(0),
        other => other,
    }
}

/// What XINFO STREAM tells, but for the numbers of its blocks, which depend on parameters.
fn without_blocks(reply: Reply) -> Reply {
    match reply {
        Reply::Array(items) if items.len().is_multiple_of(2) => {
            let fields = items.chunks(2).filter(
                |field| !matches!(&field[0], Reply::Bulk(name) if name.starts_with(b"radix-tree")),
            );
            Reply::Array(fields.flatten().cloned().collect())
        }
        other => other,
    }
}

/// Without Unix times in milliseconds, and without what follows `idle` or a consumer's name in a
/// list of what is pending.
fn without_times(reply: Reply) -> Reply {
    let blank = |reply: Reply| match reply {
        Reply::Int(1_000_000_000_000..) => Reply::Int(0),
        other => without_times(other),
    };
    match reply {
        Reply::Array(mut items) => {
            if let [
                Reply::Bulk(_),
                Reply::Bulk(_),
                idle @ Reply::Int(_),
                Reply::Int(_),
            ] = &mut items[..]
            {
                *idle = Reply::Int(0);
            }
            for at in 1..items.len() {
                if items[at - 1] == Reply::Bulk(b"idle".to_vec()) {
                    items[at] = Reply::Int(0);
                }
            }
            Reply::Array(items.into_iter().map(blank).collect())
        }
        Reply::Map(pairs) => {
            let pairs = pairs.into_iter().map(|(name, value)| match name {
                Reply::Bulk(ref text) if text == b"idle" => (name, Reply::Int(0)),
                name => (name, blank(value)),
            });
            Reply::Map(pairs.collect())
        }
        other => other,
    }
}

fn any_strings(reply: Reply) -> Reply {
    match reply {
        Reply::Array(items) => Reply::Array(items.into_iter().map(any_string).collect()),
        other => any_int(other),
    }
}

fn hello(reply: Reply) -> Reply {
    const FIELDS: [&[u8]; 6] = [
        b"server", b"version", b"proto", b"mode", b"role", b"modules",
    ];
    let keep = |name: &Reply| matches!(name, Reply::Bulk(n) if FIELDS.contains(&n.as_slice()));
    match reply {
        Reply::Map(pairs) => Reply::Map(pairs.into_iter().filter(|(n, _)| keep(n)).collect()),
        Reply::Array(items) => Reply::Array(
            items
                .chunks(2)
                .filter(|pair| keep(&pair[0]))
                .flatten()
                .cloned()
                .collect(),
        ),
        other => other,
    }
}

fn client_lines(reply: Reply) -> Reply {
    const OWN: [&str; 16] = [
        "id",
        "addr",
        "laddr",
        "fd",
        "age",
        "idle",
        "qbuf",
        "qbuf-free",
        "argv-mem",
        "multi-mem",
        "rbs",
        "rbp",
        "obl",
        "oll",
        "omem",
        "tot-mem",
    ];
    let strip = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| {
                let kept = line.split(' ').map(|field| {
                    let name = field.split('=').next().unwrap_or(field);
                    if OWN.contains(&name.trim_start_matches("txt:")) {
                        format!("{name}=")
                    } else {
                        field.to_string()
                    }
                });
                // Later versions tell more of a client at the end of its line.
                const LATER: [&str; 3] = ["events=", "lib-name=", "lib-ver="];
                kept.filter(|f| !LATER.iter().any(|name| f.starts_with(name)))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        lines.sort();
        lines.join("\n").into_bytes()
    };
    match reply {
        Reply::Bulk(bytes) => Reply::Bulk(strip(&bytes)),
        Reply::Verbatim(bytes) => Reply::Verbatim(strip(&bytes)),
        other => other,
    }
}

/// Pushes in comparable order. One message that several patterns match comes once per pattern, in
/// the order of a hash table: such a run is sorted. Leaving all channels is told in table order.
fn ordered(mut pushes: Vec<Reply>) -> Vec<Reply> {
    let farewell = |p: &Reply| match p {
        Reply::Push(items) | Reply::Array(items) => {
            matches!(items.first(), Some(Reply::Bulk(k)) if k.ends_with(b"unsubscribe"))
        }
        _ => false,
    };
    let mut run = 0;
    for at in 1..=pushes.len() {
        if at == pushes.len()
            || body(&pushes[at]).is_none()
            || body(&pushes[at]) != body(&pushes[run])
        {
            pushes[run..at].sort();
            run = at;
        }
    }
    if pushes.iter().any(farewell) {
        pushes = pushes
            .into_iter()
            .map(|p| if farewell(&p) { without_count(p) } else { p })
            .collect();
        pushes.sort();
    }
    pushes
}

/// Channel and payload of a `pmessage`.
fn body(push: &Reply) -> Option<&[Reply]> {
    match push {
        Reply::Push(items) | Reply::Array(items) => match items.as_slice() {
            [Reply::Bulk(kind), _, rest @ ..] if kind == b"pmessage" => Some(rest),
            _ => None,
        },
        _ => None,
    }
}

/// One key with all that can be asked about it, ready to compare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyState {
    db: usize,
    key: Vec<u8>,
    kind: Reply,
    encoding: Reply,
    value: Reply,
    pttl_ms: i64,
}

/// Reads every key of every database.
pub fn state(conn: &mut Conn) -> Result<Vec<KeyState>, Ended> {
    let mut all = Vec::new();
    for db in 0..16 {
        conn.ask(&["SELECT", &db.to_string()])?;
        if conn.ask(&["DBSIZE"])? == Reply::Int(0) {
            continue;
        }
        let Reply::Array(keys) = conn.ask(&["KEYS", "*"])? else {
            return Err(Ended::Garbage);
        };
        for key in keys {
            if let Reply::Bulk(key) = key {
                all.push(key_state(conn, db, key)?);
            }
        }
    }
    all.sort();
    Ok(all)
}

fn key_state(conn: &mut Conn, db: usize, key: Vec<u8>) -> Result<KeyState, Ended> {
    let mut ask = |before: &[&str], after: &[&str]| {
        let mut args: Args = before.iter().map(|w| w.as_bytes().to_vec()).collect();
        args.push(key.clone());
        args.extend(after.iter().map(|w| w.as_bytes().to_vec()));
        conn.send(&[&args]);
        conn.read(std::time::Duration::from_secs(10))
    };
    let encoding = ask(&["OBJECT", "ENCODING"], &[])?;
    let pttl = ask(&["PTTL"], &[])?;
    let kind = ask(&["TYPE"], &[])?;
    let value = match &kind {
        Reply::Simple(t) if t == b"list" => ask(&["LRANGE"], &["0", "-1"])?,
        Reply::Simple(t) if t == b"set" => sorted(ask(&["SMEMBERS"], &[])?),
        Reply::Simple(t) if t == b"hash" => sorted_pairs(ask(&["HGETALL"], &[])?),
        Reply::Simple(t) if t == b"zset" => ask(&["ZRANGE"], &["0", "-1", "WITHSCORES"])?,
        Reply::Simple(t) if t == b"stream" => {
            let about = ask(&["XINFO", "STREAM"], &["FULL", "COUNT", "0"])?;
            without_blocks(without_times(about))
        }
        _ => ask(&["GET"], &[])?,
    };
    let pttl_ms = if let Reply::Int(ms) = pttl {
        ms
    } else {
        i64::MIN
    };
    Ok(KeyState {
        db,
        key,
        kind,
        encoding,
        value,
        pttl_ms,
    })
}

/// What is known of how far groups have read is lost where a log of 7.0 is played back, and kept where
/// one of ours is, as from 7.2 on: left out of both.
pub fn without_positions(state: Vec<KeyState>) -> Vec<KeyState> {
    fn blank(reply: Reply) -> Reply {
        match reply {
            Reply::Array(mut items) => {
                for at in 1..items.len() {
                    if is_position(&items[at - 1]) {
                        items[at] = Reply::Int(0);
                    }
                }
                Reply::Array(items.into_iter().map(blank).collect())
            }
            other => other,
        }
    }
    let of_key = |key: KeyState| KeyState {
        value: blank(key.value),
        ..key
    };
    state.into_iter().map(of_key).collect()
}

/// How far the groups of streams have read: of each, what follows its key.
pub fn positions(state: &[KeyState]) -> Vec<(usize, &[u8], Vec<&Reply>)> {
    fn collect<'a>(reply: &'a Reply, found: &mut Vec<&'a Reply>) {
        if let Reply::Array(items) = reply {
            for at in 1..items.len() {
                if is_position(&items[at - 1]) {
                    found.push(&items[at]);
                }
            }
            items.iter().for_each(|item| collect(item, found));
        }
    }
    let all = state.iter().map(|key| {
        let mut found = Vec::new();
        collect(&key.value, &mut found);
        (key, found)
    });
    all.filter(|(_, found)| !found.is_empty())
        .map(|(key, found)| (key.db, &key.key[..], found))
        .collect()
}

fn is_position(name: &Reply) -> bool {
    matches!(name, Reply::Bulk(name) if name == b"entries-read" || name == b"lag")
}

/// Remaining time, in milliseconds, below which a key need not be in both final states.
const DYING_MS: i64 = 100;

/// Compares two states; says the first difference.
pub fn state_difference(oracle: &[KeyState], ours: &[KeyState]) -> Option<String> {
    // A key in its last moments may be gone from the one that was asked second.
    let dying = |k: &&KeyState| (0..DYING_MS).contains(&k.pttl_ms);
    let dying: Vec<_> = oracle.iter().chain(ours).filter(dying).collect();
    let dies = |k: &KeyState| dying.iter().any(|d| (d.db, &d.key) == (k.db, &k.key));
    let stay =
        |all: &[KeyState]| -> Vec<KeyState> { all.iter().filter(|k| !dies(k)).cloned().collect() };
    let (oracle, ours) = (&stay(oracle)[..], &stay(ours)[..]);
    for (a, b) in oracle.iter().zip(ours) {
        let near = a.pttl_ms == b.pttl_ms
            || (a.pttl_ms >= 0 && b.pttl_ms >= 0 && a.pttl_ms.abs_diff(b.pttl_ms) <= 2000);
        let same = KeyState {
            pttl_ms: a.pttl_ms,
            ..b.clone()
        };
        if *a != same || !near {
            return Some(format!(
                "final state:\n  oracle: {}\n  ours:   {}",
                one(a),
                one(b)
            ));
        }
    }
    if oracle.len() != ours.len() {
        let (longer, name) = if oracle.len() > ours.len() {
            (oracle, "oracle")
        } else {
            (ours, "ours")
        };
        let at = oracle.len().min(ours.len());
        return Some(format!("final state: only {name} has {}", one(&longer[at])));
    }
    None
}

fn one(k: &KeyState) -> String {
    format!(
        "db {} key {} {} {} pttl {} = {}",
        k.db,
        crate::resp::quoted(&k.key),
        show(&k.kind),
        show(&k.encoding),
        k.pttl_ms,
        show(&k.value)
    )
}
