//! Every command of the table inside EXEC, while that holds no shard, some, or all of them, and with
//! watched keys: each has its reply, however busy the other worker is.
//!
//! Commands on keys come from `tests/scripts`, the first few forms of each; those on the server stand
//! here. A debug build of the server ends at once when a command locks what EXEC holds, instead of
//! hanging when it must.

mod sockets;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sockets::{Client, Server, on_both_workers};
use tessera::base::text::split_args;
use tessera::commands;
use tessera::dispatch::command::Handler;
use tessera::dispatch::table::{Known, Table};

type Request = Vec<Vec<u8>>;

/// Forms of each command taken from scripts.
const FORMS: usize = 3;

/// Longest wait for the reply of a transaction.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Commands on the server, and on keys where no script has them.
const SERVER: &str = "
ACL HELP
ACL LOG 1
ACL WHOAMI
ASKING
CLUSTER ADDSLOTS 1
CLUSTER ADDSLOTSRANGE 1 2
CLUSTER BUMPEPOCH
CLUSTER CANCELSLOTMIGRATIONS
CLUSTER COUNT-FAILURE-REPORTS x
CLUSTER COUNTKEYSINSLOT 1
CLUSTER DELSLOTS 1
CLUSTER DELSLOTSRANGE 1 2
CLUSTER FAILOVER
CLUSTER FLUSHSLOT 1
CLUSTER FLUSHSLOTS
CLUSTER FORGET x
CLUSTER GETKEYSINSLOT 1 1
CLUSTER GETSLOTMIGRATIONS
CLUSTER HELP
CLUSTER INFO
CLUSTER KEYSLOT x
CLUSTER LINKS
CLUSTER MEET 127.0.0.1 1
CLUSTER MIGRATESLOTS SLOTSRANGE 0 1 NODE x
CLUSTER MYID
CLUSTER NODES
CLUSTER REPLICAS x
CLUSTER REPLICATE x
CLUSTER RESET
CLUSTER SAVECONFIG
CLUSTER SET-CONFIG-EPOCH 1
CLUSTER SETSLOT 1 STABLE
CLUSTER SHARDS
CLUSTER SLAVES x
CLUSTER SLOT-STATS SLOTSRANGE 0 1
CLUSTER SLOTS
CLUSTER SYNCSLOTS OUTCOME x 0-1
MODULE HELP
MODULE LIST
MODULE LOAD /x
MODULE LOADEX /x
MODULE UNLOAD x
AUTH wrong
BGREWRITEAOF
BGSAVE
BGSAVE SCHEDULE
CLIENT CACHING YES
CLIENT GETNAME
CLIENT GETREDIR
CLIENT HELP
CLIENT ID
CLIENT INFO
CLIENT KILL ID 999999
CLIENT KILL 1.1.1.1:1
CLIENT LIST
CLIENT LIST TYPE normal
CLIENT NO-EVICT ON
CLIENT NO-TOUCH ON
CLIENT PAUSE 1
CLIENT PAUSE 1 WRITE
CLIENT REPLY ON
CLIENT REPLY OFF
CLIENT REPLY SKIP
CLIENT SETINFO lib-name x
CLIENT SETNAME x
CLIENT TRACKING OFF
CLIENT TRACKINGINFO
CLIENT UNBLOCK 999999
CLIENT UNPAUSE
COMMAND
COMMAND COUNT
COMMAND DOCS get
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYSANDFLAGS MSET a 1 b 2
COMMAND HELP
COMMAND INFO get
COMMAND LIST
CONFIG GET *
CONFIG HELP
CONFIG RESETSTAT
CONFIG REWRITE
CONFIG SET maxmemory-policy noeviction
CONFIG SET maxmemory 1gb
CONFIG SET maxmemory 0
CONFIG SET save 3600
CONFIG SET save ''
DBSIZE
DEBUG CHANGE-REPL-ID
DEBUG CLIENT-EVICTION
DEBUG CONFIG-REWRITE-FORCE-ALL
DEBUG DIGEST
DEBUG DIGEST-VALUE key:1 key:2
DEBUG ERROR x
DEBUG HELP
DEBUG HTSTATS 0
DEBUG HTSTATS-KEY key:1
DEBUG LISTPACK list
DEBUG LOADAOF
DEBUG OBJECT key:1
DEBUG PAUSE-CRON 0
DEBUG POPULATE 20 more
DEBUG PROTOCOL STRING
DEBUG QUICKLIST list
DEBUG RELOAD
DEBUG REPLICATE ALL SET x 1
DEBUG REPLYBUFFER RESIZING 1
DEBUG SDSLEN key:1
DEBUG SET-ACTIVE-EXPIRE 1
DEBUG SLEEP 0
DEBUG STRINGMATCH-TEST a
DEBUG STRUCTSIZE
DISCARD
ECHO x
EVAL 'return redis.call([[get]],KEYS[1])' 1 key:1
EVAL 'return redis.call([[set]],[[undeclared]],1)' 0
EVAL 'return redis.call([[flushdb]])' 0
EVAL_RO 'return redis.call([[dbsize]])' 0
EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
FCALL absent 0
FCALL_RO absent 0
FUNCTION DELETE absent
FUNCTION DUMP
FUNCTION FLUSH
FUNCTION HELP
FUNCTION KILL
FUNCTION LIST
FUNCTION LOAD REPLACE \"#!lua name=one\\nredis.register_function('one',function() return 1 end)\"
FUNCTION RESTORE bad
FUNCTION STATS
EXEC
FLUSHALL
FLUSHALL ASYNC
FLUSHALL SYNC
FLUSHDB
FLUSHDB ASYNC
HELLO
HELLO 3
HELLO 2
INFO
INFO ALL
INFO EVERYTHING
INFO MEMORY
INFO KEYSPACE
INFO COMMANDSTATS
KEYS *
KEYS key:1*
LASTSAVE
LATENCY DOCTOR
LATENCY GRAPH command
LATENCY HELP
LATENCY HISTOGRAM
LATENCY HISTORY command
LATENCY LATEST
LATENCY RESET
LOLWUT
MEMORY DOCTOR
MEMORY HELP
MEMORY MALLOC-STATS
MEMORY PURGE
MEMORY STATS
MEMORY USAGE key:1
MIGRATE 127.0.0.1 1 key:1 0 100
MIGRATE 127.0.0.1 1 '' 0 100 KEYS key:1 key:2
MONITOR
MULTI
OBJECT HELP
OBJECT FREQ key:1
PING
PFSELFTEST
PING x
PSUBSCRIBE p*
PSYNC ? -1
PUBLISH channel x
PUBSUB CHANNELS
PUBSUB HELP
PUBSUB NUMPAT
PUBSUB NUMSUB channel
PUBSUB SHARDCHANNELS
PUBSUB SHARDNUMSUB channel
PUNSUBSCRIBE
QUIT
RANDOMKEY
READONLY
READWRITE
REPLCONF listening-port 1
REPLICAOF NO ONE
RESET
RESTORE x 0 bad
RESTORE-ASKING x 0 bad
ROLE
SAVE
SCAN 0
SCAN 0 COUNT 1000 TYPE string
SCRIPT DEBUG no
SCRIPT EXISTS x
SCRIPT FLUSH
SCRIPT HELP
SCRIPT KILL
SCRIPT LOAD 'return 1'
SELECT 1
SHUTDOWN ABORT
SLAVEOF NO ONE
SLOWLOG GET
SLOWLOG HELP
SLOWLOG LEN
SLOWLOG RESET
SPUBLISH channel x
SSUBSCRIBE channel
SUBSCRIBE channel
SUNSUBSCRIBE
SWAPDB 0 1
SYNC
TIME
UNSUBSCRIBE
UNWATCH
WAIT 0 1
WAITAOF 0 0 1
FAILOVER ABORT
WATCH key:1
XGROUP HELP
XINFO HELP
";

/// What comes before and within the transaction: with what EXEC holds.
const MODES: &[(&str, &[&str], &[&str])] = &[
    ("no shard", &[], &[]),
    ("some shards", &[], &["MGET key:1 key:2 key:3", "GET other"]),
    ("all shards", &[], &["RANDOMKEY", "GET key:1"]),
    ("a watched key", &["WATCH key:1 absent"], &[]),
    (
        "all shards and a watched key",
        &["WATCH key:1"],
        &["DBSIZE"],
    ),
];

fn split(line: &str) -> Request {
    split_args(line.as_bytes()).expect("balanced quotes")
}

/// The commands of the table and some requests for each, by full name.
fn forms(table: &Table) -> BTreeMap<String, Vec<Request>> {
    let find = |request: &Request| -> Option<&Known> {
        let known = table.find(&request[0])?;
        let sub = request.get(1).and_then(|word| table.find_sub(known, word));
        sub.or(Some(known))
    };
    let mut forms: BTreeMap<String, Vec<Request>> = BTreeMap::new();
    let mut add = |request: Request, most: usize| {
        if let Some(known) = find(&request) {
            let all = forms.entry(known.full_name.to_string()).or_default();
            if all.len() < most && !all.contains(&request) {
                all.push(request);
            }
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    for family in fs::read_dir(root).expect("a directory") {
        for file in fs::read_dir(family.expect("an entry").path()).expect("a directory") {
            let text = fs::read_to_string(file.expect("an entry").path()).expect("a script");
            let requests = text.lines().filter_map(|line| line.strip_prefix("> "));
            requests.for_each(|line| add(split(line), FORMS));
        }
    }
    let server = SERVER.lines().filter(|line| !line.is_empty());
    server.for_each(|line| add(split(line), usize::MAX));
    forms
}

fn append(bytes: &mut Vec<u8>, request: &Request) {
    write!(bytes, "*{}\r\n", request.len()).expect("room");
    for arg in request {
        write!(bytes, "${}\r\n", arg.len()).expect("room");
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
}

/// Has a new client run `request` in a transaction, and awaits what follows it.
fn run(server: &Server, (mode, before, within): (&str, &[&str], &[&str]), request: &Request) {
    let mut bytes = Vec::new();
    let keys: Vec<String> = (0..40).map(|i| format!("key:{i} {i}")).collect();
    append(&mut bytes, &split(&format!("MSET {}", keys.join(" "))));
    before
        .iter()
        .for_each(|line| append(&mut bytes, &split(line)));
    append(&mut bytes, &split("MULTI"));
    within
        .iter()
        .for_each(|line| append(&mut bytes, &split(line)));
    append(&mut bytes, request);
    append(&mut bytes, &split("EXEC"));
    append(&mut bytes, &split("CLIENT REPLY ON"));
    append(&mut bytes, &split("PING the-end"));
    let Client(stream) = server.client();
    let mut stream = stream.into_inner();
    stream.set_read_timeout(Some(AT_ONCE)).expect("a timeout");
    stream.write_all(&bytes).expect("room");
    let (mut reply, mut buffer) = (Vec::new(), [0; 1 << 16]);
    let shown = || {
        let words = request.iter().map(|arg| String::from_utf8_lossy(arg));
        words.collect::<Vec<_>>().join(" ")
    };
    while !reply.windows(7).any(|part| part == b"the-end") {
        let read = stream.read(&mut buffer);
        let read = read.unwrap_or_else(|error| panic!("{} with {mode}: {error}", shown()));
        // Some end their connection, but none the server.
        if read == 0 {
            assert_eq!(
                server.client().ask("PING"),
                "+PONG",
                "{} with {mode}",
                shown()
            );
            return;
        }
        let from = reply.len().saturating_sub(6);
        reply.drain(..from);
        reply.extend_from_slice(&buffer[..read]);
    }
}

/// Keeps locks of shards in use until told to stop.
fn keep_busy(clients: &mut [Client], stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        for client in &mut *clients {
            client.send("MSET key:1 1 key:2 2 key:3 3 key:4 4\r\nRANDOMKEY\r\nMULTI\r\nGET key:1");
            client.send("DBSIZE\r\nEXEC");
        }
        for client in &mut *clients {
            (0..6).for_each(|_| _ = client.read());
        }
    }
}

fn start() -> Server {
    let options = ["--io-threads", "2", "--enable-debug-command", "yes"];
    Server::start(&options)
}

fn among_busy_clients(server: &Server, work: impl FnOnce()) {
    let mut clients = on_both_workers(server);
    let (stop, many) = (AtomicBool::new(false), clients.len());
    let mut busy: Vec<Client> = clients.drain(many - 4..).collect();
    busy.extend(clients.drain(..4));
    /// Ends the others however the work ends.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| keep_busy(&mut busy, &stop));
        let _stop = Stop(&stop);
        work();
    });
}

#[test]
fn every_command_is_answered_whatever_exec_holds() {
    let table = Table::new(commands::all());
    let forms = forms(&table);
    let runs = |known: &&Known| !matches!(known.row.handler, Handler::Container);
    let missing: Vec<String> = table
        .all()
        .filter(runs)
        .map(|known| known.full_name.to_string())
        .filter(|name| !forms.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "commands without a form: {missing:?}");
    let server = start();
    among_busy_clients(&server, || {
        for request in forms.values().flatten() {
            for mode in MODES {
                run(&server, *mode, request);
            }
        }
    });
}

#[test]
fn every_parameter_is_set_within_exec() {
    let server = start();
    let mut control = server.client();
    among_busy_clients(&server, || {
        let names = control.ask("COMMAND COUNT");
        assert!(names.starts_with(':'));
        control.send("CONFIG GET *");
        let mut header = String::new();
        std::io::BufRead::read_line(&mut control.0, &mut header).expect("a reply");
        let count: usize = header.trim()[1..].parse().expect("a length");
        let pairs: Vec<String> = (0..count).map(|_| control.read()).collect();
        for pair in pairs.chunks(2) {
            let words = ["CONFIG", "SET", &pair[0], &pair[1]];
            let request: Request = words.iter().map(|w| w.as_bytes().to_vec()).collect();
            for mode in &MODES[1..3] {
                run(&server, *mode, &request);
            }
        }
        for value in ["yes", "no", "yes"] {
            let request = split(&format!("CONFIG SET appendonly {value}"));
            run(&server, MODES[2], &request);
        }
    });
}
