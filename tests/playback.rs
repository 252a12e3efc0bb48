//! Append-only files that hold what no server writes: the server starts with the data that is in them,
//! unchanged otherwise, or ends with a reason; it never waits. What is expected is what Redis does, but
//! where that crashes, hangs or obeys a file.

mod sockets;

use sockets::Server;

const CRITICAL: &str = "sending an error to its AOF-loading-client: ";

/// A request as files hold it.
fn request(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let parts = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), parts.collect::<String>())
}

/// A server's directory with an append-only file.
struct Files(tempfile::TempDir);

impl Files {
    fn new(content: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let files = dir.path().join("appendonlydir");
        std::fs::create_dir(&files).expect("a directory");
        let name = "appendonly.aof.1.incr.aof";
        std::fs::write(files.join(name), content).expect("a file");
        let manifest = format!("file {name} seq 1 type i\n");
        std::fs::write(files.join("appendonly.aof.manifest"), manifest).expect("a file");
        Self(dir)
    }

    /// Starts a server on them; nothing when it ends instead.
    fn start(&self) -> Option<Server> {
        let path = self.0.path().to_str().expect("a path in UTF-8");
        let options = [
            "--dir",
            path,
            "--logfile",
            "log",
            "--appendonly",
            "yes",
            "--maxmemory",
            "0",
            "--enable-debug-command",
            "yes",
        ];
        Server::try_start(&sockets::under_test(), &[], &options)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.0.path().join("log")).expect("a log")
    }
}

/// Between two writes.
fn surrounded(commands: &str) -> String {
    let lines = ["SET a 1"]
        .into_iter()
        .chain(commands.lines())
        .chain(["SET b 2"]);
    lines.map(request).collect()
}

/// The server starts, has run what surrounds the commands, and is as others are; `errors` stand in the
/// log, each with the command it is told of.
fn starts(commands: &str, errors: &[&str]) {
    let files = Files::new(&surrounded(commands));
    let server = files
        .start()
        .unwrap_or_else(|| panic!("{commands}: {}", files.log()));
    let mut client = server.client();
    assert_eq!(client.ask("MGET a b"), "1 2", "{commands}");
    // Who has asked whether it is there is gone in a moment.
    sockets::eventually(|| {
        client
            .ask("INFO clients")
            .contains("connected_clients:1\r\n")
    });
    let info = client.ask("INFO everything");
    for line in [
        "role:master",
        "blocked_clients:0",
        "pubsub_channels:0",
        "pubsub_patterns:0",
        "pubsubshard_channels:0",
        "maxmemory:0",
        "aof_enabled:1",
        "rdb_saves:0",
        "rdb_bgsave_in_progress:0",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{commands}: {line}");
    }
    let log = files.log();
    for error in errors {
        let line = format!("{CRITICAL}{error}");
        assert!(log.contains(&line), "{commands}: {log}");
    }
    assert_eq!(
        log.matches(CRITICAL).count(),
        errors.len(),
        "{commands}: {log}"
    );
    let unexpected = format!("unexpected_error_replies:{}\r\n", errors.len());
    assert!(info.contains(&unexpected), "{commands}");
    assert!(!files.0.path().join("dump.rdb").exists(), "{commands}");
}

/// Long enough for the server's own upkeep to have its turn between the first commands and the last.
#[test]
fn what_is_over_its_time_stays_until_the_file_is_played() {
    let filling = (0..100_000).map(|n| request(&format!("SET filling {n}")));
    let content: String = [request("SET s v PXAT 1")]
        .into_iter()
        .chain(filling)
        .chain([request("PERSIST s"), request("APPEND s w")])
        .collect();
    let files = Files::new(&content);
    let server = files.start().unwrap_or_else(|| panic!("{}", files.log()));
    let mut client = server.client();
    sockets::eventually(|| client.ask("GET filling") == "99999");
    assert_eq!(client.ask("GET s"), "vw");
}

#[test]
fn what_redis_refuses_is_refused_with_its_texts() {
    let shutdown = "SHUTDOWN without NOW or ABORT isn't allowed for DENY BLOCKING client";
    for (command, text, name) in [
        ("SHUTDOWN", shutdown, "shutdown"),
        ("SHUTDOWN NOSAVE", shutdown, "shutdown"),
        (
            "MONITOR",
            "MONITOR isn't allowed for DENY BLOCKING client",
            "monitor",
        ),
        (
            "SUBSCRIBE x",
            "SUBSCRIBE isn't allowed for a DENY BLOCKING client",
            "subscribe",
        ),
        (
            "PSUBSCRIBE x",
            "PSUBSCRIBE isn't allowed for a DENY BLOCKING client",
            "psubscribe",
        ),
        (
            "SSUBSCRIBE x",
            "SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
            "ssubscribe",
        ),
        (
            "MULTI\nSSUBSCRIBE x\nEXEC",
            "SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
            "exec",
        ),
        ("EXEC", "EXEC without MULTI", "exec"),
        ("DISCARD", "DISCARD without MULTI", "discard"),
        (
            "LPUSH a x",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
            "lpush",
        ),
        (
            "MULTI\nLPUSH a x\nEXEC",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
            "exec",
        ),
        ("SELECT 99", "DB index is out of range", "select"),
        ("HELLO 9", "-NOPROTO unsupported protocol version", "hello"),
    ] {
        let error = format!("'{text}' after processing the command '{name}'");
        starts(command, &[&error]);
    }
}

#[test]
fn what_only_administrates_is_not_played() {
    for command in [
        "SHUTDOWN NOW",
        "SHUTDOWN NOSAVE NOW FORCE",
        "SHUTDOWN ABORT",
        "MULTI\nSHUTDOWN NOW\nEXEC",
        "MULTI\nMONITOR\nEXEC",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "MULTI\nSAVE\nEXEC",
        "MULTI\nBGSAVE\nEXEC",
        "MULTI\nBGREWRITEAOF\nEXEC",
        "REPLICAOF 127.0.0.1 1",
        "SLAVEOF NO ONE",
        "SYNC",
        "PSYNC ? -1",
        "MULTI\nPSYNC ? -1\nEXEC",
        "REPLCONF listening-port 1",
        "CONFIG SET maxmemory 100mb",
        "CONFIG SET appendonly no",
        "MULTI\nCONFIG SET appendonly no\nEXEC",
        "CONFIG REWRITE",
        "CLIENT KILL TYPE normal SKIPME no",
        "CLIENT PAUSE 100000",
        "CLIENT PAUSE 100000 WRITE",
        "DEBUG SLEEP 100",
        "DEBUG SEGFAULT",
        "DEBUG PANIC",
        "DEBUG RELOAD",
        "DEBUG LOADAOF",
        "DEBUG POPULATE 5",
        "MULTI\nDEBUG RELOAD\nEXEC",
        "SLOWLOG RESET",
        "LATENCY RESET",
        "MIGRATE 127.0.0.1 1 a 0 100000",
        "MULTI\nMIGRATE 127.0.0.1 1 a 0 100000\nEXEC",
    ] {
        starts(command, &["'"]);
    }
}

#[test]
fn nothing_waits_or_stays() {
    for command in [
        "BLPOP q 0",
        "BRPOP q 100",
        "BLMOVE q r LEFT LEFT 0",
        "BRPOPLPUSH q r 0",
        "BLMPOP 0 1 q LEFT",
        "BZPOPMIN q 0",
        "BZMPOP 0 1 q MIN",
        "XREAD BLOCK 0 STREAMS q $",
        "MULTI\nBLPOP q 0\nEXEC",
        "RPUSH q x\nBLPOP q 0",
        "XGROUP CREATE q g $ MKSTREAM\nXREADGROUP GROUP g c BLOCK 0 STREAMS q >",
        "WAIT 1 0",
        "WAIT 1 100000",
        "MULTI\nWAIT 1 0\nEXEC",
        "UNSUBSCRIBE",
        "PUBLISH x y",
        "CLIENT REPLY OFF",
        "CLIENT REPLY SKIP",
        "CLIENT SETNAME x",
        "CLIENT ID",
        "HELLO 3",
        "QUIT",
        "MULTI\nQUIT\nEXEC",
        "RESET",
        "PING",
        "INFO",
        "KEYS *",
        "COMMAND COUNT",
        "ROLE",
        "WATCH a",
        "MULTI\nGET a\nEXEC",
    ] {
        starts(command, &[]);
    }
}

#[test]
fn what_is_no_command_ends_the_start_with_a_reason() {
    let unknown = |name: &str| {
        format!("Unknown command '{name}' reading the append only file appendonly.aof.1.incr.aof")
    };
    let bad = "Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup of \
               your AOF file, then use ./redis-check-aof --fix <filename.manifest>";
    for (part, reason) in [
        (request("NOSUCH x"), unknown("NOSUCH")),
        (request("POST x"), unknown("POST")),
        (request("CLIENT NOSUCH"), unknown("CLIENT")),
        (request(""), unknown("")),
        (
            format!("{}{}", request("MULTI"), request("NOSUCH")),
            unknown("NOSUCH"),
        ),
        ("PING\r\n".into(), bad.into()),
        ("*0\r\n".into(), bad.into()),
        ("*1\r\n$-1\r\n".into(), bad.into()),
        ("*3\r\n$3XXSET\r\n$1\r\nc\r\n$1\r\n3\r\n".into(), bad.into()),
    ] {
        let content = format!("{}{part}{}", request("SET a 1"), request("SET b 2"));
        let files = Files::new(&content);
        assert!(files.start().is_none(), "{part:?}");
        assert!(files.log().contains(&reason), "{part:?}: {}", files.log());
    }
}

#[test]
fn what_administrates_data_is_played() {
    let lines = ["PFADD h a", "PFDEBUG TODENSE h"].map(request);
    let files = Files::new(&lines.concat());
    let server = files.start().expect("it starts");
    assert_eq!(server.client().ask("PFDEBUG ENCODING h"), "+dense");
}

#[test]
fn any_two_bytes_end_an_argument() {
    let torn = "*3\r\n$3\r\nSETXX$1\r\nc\r\n$1\r\n3XX";
    let files = Files::new(&format!(
        "{}{torn}{}",
        request("SET a 1"),
        request("SET b 2")
    ));
    let server = files.start().expect("it starts");
    assert_eq!(server.client().ask("MGET a b c"), "1 2 3");
}
