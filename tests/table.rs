//! The command table against itself, against the texts of COMMAND DOCS, and, where a Redis 7.0 is
//! at hand, against what that says of the same commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json};
use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::command::{Begin, Command, Find, Flags, Handler, KeyFlags};
use tessera::dispatch::table::{Known, Table};
use tessera::dispatch::testing::Harness;
use tessera::resp::read::{ReadLimits, Reader, Value};
use tessera::server::boot;

fn table() -> Table {
    Table::new(commands::all())
}

/// Fewest arguments, the name included.
fn fewest(row: &Command) -> usize {
    row.arity.unsigned_abs() as usize
}

/// What is wrong with the table, all of it, for one look.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, holds: bool, name: &str, what: &str) {
        if !holds {
            self.0.push(format!("{name}: {what}"));
        }
    }

    fn end(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn rows_are_sane() {
    let (table, mut findings) = (table(), Findings::default());
    for known in table.all() {
        let (row, name) = (known.row, &known.full_name[..]);
        let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_|".contains(c);
        findings.check(name.chars().all(is_lower), name, "spelling");
        findings.check(row.arity != 0, name, "arity");
        if matches!(row.handler, Handler::Container) {
            findings.check(!row.subcommands.is_empty(), name, "nothing runs it");
            findings.check(row.arity < -1, name, "needs a subcommand");
        }
        for sub in row.subcommands {
            findings.check(
                sub.subcommands.is_empty(),
                name,
                "two levels of subcommands",
            );
            findings.check(fewest(sub) >= 2, name, "a subcommand's own name counts");
        }
    }
    findings.end();
}

#[test]
fn flags_agree_with_keys_and_handlers() {
    let (table, mut findings) = (table(), Findings::default());
    for known in table.all() {
        let (row, name) = (known.row, &known.full_name[..]);
        let (write, read) = (row.flags.has(Flags::WRITE), row.flags.has(Flags::READONLY));
        findings.check(!(write && read), name, "writes or only reads, not both");
        if matches!(row.handler, Handler::Data(_)) {
            findings.check(write || read, name, "a command on keys writes or reads");
            findings.check(!row.keys.0.is_empty(), name, "no keys, so no lock");
        }
        for spec in row
            .keys
            .0
            .iter()
            .filter(|spec| !spec.flags.has(KeyFlags::NOT_KEY))
        {
            let kinds = [KeyFlags::RO, KeyFlags::RW, KeyFlags::OW, KeyFlags::RM];
            let kinds = kinds.iter().filter(|kind| spec.flags.has(**kind)).count();
            findings.check(kinds == 1, name, "a key is one of RO, RW, OW, RM");
            let changes = !spec.flags.has(KeyFlags::RO);
            let may_write = write || row.flags.has(Flags::MAY_REPLICATE);
            findings.check(
                !changes || may_write,
                name,
                "its keys change, it does not write",
            );
        }
    }
    findings.end();
}

#[test]
fn the_fewest_arguments_hold_the_fixed_keys() {
    let (table, mut findings) = (table(), Findings::default());
    for known in table
        .all()
        .filter(|k| !k.flags.has(Flags::NO_MANDATORY_KEYS))
    {
        for spec in known
            .row
            .keys
            .0
            .iter()
            .filter(|spec| !spec.flags.has(KeyFlags::NOT_KEY))
        {
            let Begin::Index(begin) = spec.begin else {
                continue;
            };
            let last = match spec.find {
                // Keys behind the first, as many as there are.
                Find::Range { last: ..0, .. } if begin > 1 => continue,
                Find::Range { last, .. } => begin + last.max(0) as usize,
                Find::Count { at, first, .. } => begin + at.max(first),
                Find::Unknown => begin,
            };
            let holds = last < fewest(known.row);
            findings.check(holds, &known.full_name, "a key beyond its fewest arguments");
        }
    }
    findings.end();
}

/// COMMAND DOCS' entries by full name, from the files.
fn documented() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/docs");
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let text = std::fs::read_to_string(file.expect("readable").path()).expect("UTF-8");
        let docs: Map<String, Json> = serde_json::from_str(&text).expect("JSON");
        for (name, doc) in docs {
            let group = doc["group"].as_str().expect("a group").to_owned();
            let subs = doc.get("subcommands").and_then(Json::as_object);
            for sub in subs.into_iter().flat_map(Map::keys) {
                all.insert(format!("{name}|{sub}"), group.clone());
            }
            all.insert(name, group);
        }
    }
    all
}

/// Groups of commands that are complete: whatever is documented in them exists.
const COMPLETE: &[&str] = &[
    "string",
    "bitmap",
    "transactions",
    "pubsub",
    "sorted-set",
    "geo",
    "hyperloglog",
];

#[test]
fn every_command_has_its_text_and_every_text_its_command() {
    let (table, docs, mut findings) = (table(), documented(), Findings::default());
    for known in table.all() {
        let name = &known.full_name;
        findings.check(docs.contains_key(name), name, "no text in COMMAND DOCS");
    }
    for (name, group) in &docs {
        let may_miss = !COMPLETE.contains(&&group[..]);
        let is_known = table.find_full(name.as_bytes()).is_some();
        findings.check(may_miss || is_known, name, "a text without a command");
    }
    findings.end();
}

/// A Redis that is stopped when the test ends.
struct Redis {
    process: Child,
    folder: tempfile::TempDir,
}

impl Redis {
    /// `None` where no Redis 7.0 is installed.
    fn start() -> Option<Self> {
        let version = Process::new("redis-server")
            .arg("--version")
            .output()
            .ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("v=7.0.") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let process = Process::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--unixsocket",
                "socket",
                "--dir",
            ])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("it just told its version");
        Some(Self { process, folder })
    }

    /// Sends a request; its reply.
    fn ask(&self, args: &[&str]) -> Value {
        use std::io::{Read, Write};
        let path = self.folder.path().join("socket");
        let end = Instant::now() + Duration::from_secs(10);
        let mut socket = loop {
            match std::os::unix::net::UnixStream::connect(&path) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < end, "Redis does not start: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut request = format!("*{}\r\n", args.len());
        for arg in args {
            request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
        }
        socket.write_all(request.as_bytes()).expect("it listens");
        let (mut reader, mut pos) = (Reader::new(ReadLimits::default()), 0);
        let (mut input, mut part) = (Vec::new(), [0; 65536]);
        loop {
            if let Some(value) = reader.read(&input, &mut pos).expect("RESP") {
                return value;
            }
            let n = socket.read(&mut part).expect("it answers");
            assert!(n > 0, "Redis hung up");
            input.extend_from_slice(&part[..n]);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A reply as text, with what has no order sorted.
fn text(value: &Value) -> String {
    match value {
        Value::Array(items) | Value::Set(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Simple(bytes) | Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

/// One command's COMMAND INFO, by field; subcommands are compared on their own.
fn fields(info: &Value) -> Vec<(&'static str, String)> {
    let Value::Array(items) = info else {
        return vec![("info", text(info))];
    };
    let names = [
        "name",
        "arity",
        "flags",
        "first",
        "last",
        "step",
        "categories",
        "tips",
        "keys",
    ];
    let sorted = |value: &Value| match value {
        Value::Array(list) | Value::Set(list) => {
            let mut list: Vec<String> = list.iter().map(text).collect();
            list.sort();
            list.join(" ")
        }
        other => text(other),
    };
    let plain = names.iter().zip(items);
    plain
        .map(|(name, item)| match *name {
            "flags" | "categories" | "tips" => (*name, sorted(item)),
            name => (name, text(item)),
        })
        .collect()
}

fn ours(args: &[&str]) -> Value {
    let mut harness = Harness::new(boot::build(Settings::default(), None, table(), None).0);
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let reply = harness.request(&args);
    let mut reader = Reader::new(ReadLimits::default());
    reader
        .read(&reply, &mut 0)
        .expect("RESP")
        .expect("a whole reply")
}

/// Commands of later versions, which Redis 7.0 does not know.
const LATER: &[&str] = &[
    "client|no-touch",
    "client|setinfo",
    "cluster|cancelslotmigrations",
    "cluster|flushslot",
    "cluster|getslotmigrations",
    "cluster|migrateslots",
    "cluster|slot-stats",
    "cluster|syncslots",
    "hexpire",
    "hpexpire",
    "hexpireat",
    "hpexpireat",
    "httl",
    "hpttl",
    "hexpiretime",
    "hpexpiretime",
    "hpersist",
    "hgetdel",
    "hgetex",
    "hsetex",
    "waitaof",
];

/// Commands with options of later versions, which take more arguments than Redis 7.0 allows.
const LATER_OPTIONS: &[&str] = &["zrank", "zrevrank"];

#[test]
fn command_info_is_that_of_redis() {
    let Some(redis) = Redis::start() else {
        println!("no redis-server 7.0 here: not compared");
        return;
    };
    let table = table();
    let names: Vec<&str> = table
        .all()
        .map(|known: &Known| &known.full_name[..])
        .collect();
    let mut request = vec!["COMMAND", "INFO"];
    request.extend(&names);
    let (Value::Array(ours), Value::Array(theirs)) = (ours(&request), redis.ask(&request)) else {
        panic!("COMMAND INFO answers an array");
    };
    let mut findings = Findings::default();
    for ((name, ours), theirs) in names.iter().zip(&ours).zip(&theirs) {
        if LATER.contains(name) {
            continue;
        }
        let (ours, theirs) = (fields(ours), fields(theirs));
        for (ours, theirs) in ours.iter().zip(&theirs).filter(|(a, b)| a != b) {
            if ours.0 == "arity" && LATER_OPTIONS.contains(name) {
                continue;
            }
            findings.check(false, name, &format!("ours {ours:?}, Redis {theirs:?}"));
        }
    }
    findings.end();
}

/// A map, as RESP2 has it.
fn members(map: &Value) -> BTreeMap<String, &Value> {
    let Value::Array(items) = map else {
        return BTreeMap::new();
    };
    let pairs = items.chunks(2).filter(|pair| pair.len() == 2);
    pairs.map(|pair| (text(&pair[0]), &pair[1])).collect()
}

/// What is fact in a command's documentation, one line for each, and not a sentence in somebody's
/// words: of those only that they are there.
fn facts(prefix: &str, docs: &Value, found: &mut BTreeMap<String, String>) {
    for (name, value) in members(docs) {
        let path = format!("{prefix}/{name}");
        match (&name[..], value) {
            ("summary" | "complexity" | "replaced_by", _) => {
                found.insert(path, "a sentence".to_owned());
            }
            ("history", Value::Array(changes) | Value::Set(changes)) => {
                for (i, change) in changes.iter().enumerate() {
                    if let Value::Array(change) = change {
                        found.insert(format!("{path}/{i}"), text(&change[0]));
                    }
                }
            }
            ("arguments", Value::Array(arguments)) => {
                for (i, argument) in arguments.iter().enumerate() {
                    facts(&format!("{path}/{i}"), argument, found);
                }
            }
            ("subcommands", subcommands) => {
                for (name, docs) in members(subcommands) {
                    facts(&name, docs, found);
                }
            }
            _ => {
                found.insert(path, text(value));
            }
        }
    }
}

#[test]
fn command_docs_are_those_of_redis() {
    let Some(redis) = Redis::start() else {
        println!("no redis-server 7.0 here: not compared");
        return;
    };
    let (table, mut findings) = (table(), Findings::default());
    for known in table.all().filter(|known| !known.full_name.contains('|')) {
        let name = &known.full_name[..];
        if LATER.contains(&name) {
            continue;
        }
        let request = ["COMMAND", "DOCS", name];
        let (mine, theirs) = (ours(&request), redis.ask(&request));
        let (mut our_facts, mut their_facts) = (BTreeMap::new(), BTreeMap::new());
        let docs = |reply: &Value| members(reply).get(name).map(|docs| (*docs).clone());
        docs(&mine)
            .iter()
            .for_each(|d| facts(name, d, &mut our_facts));
        docs(&theirs)
            .iter()
            .for_each(|d| facts(name, d, &mut their_facts));
        for path in our_facts.keys().chain(their_facts.keys()) {
            let (command, what) = path.split_once('/').unwrap_or((path, ""));
            let later = LATER.contains(&command)
                || LATER_OPTIONS.contains(&command)
                    && (what.starts_with("arguments/2") || what.starts_with("history"));
            let (a, b) = (our_facts.get(path), their_facts.get(path));
            findings.check(later || a == b, path, &format!("ours {a:?}, Redis {b:?}"));
        }
    }
    findings.end();
}
