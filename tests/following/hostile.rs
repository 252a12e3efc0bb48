//! Primaries that send what they should not: nothing of it stays, and it is not asked for in a loop.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::replicas::Server;
use crate::sockets::eventually;
use crate::{Ours, assert_in_step, info, is_linked, kinds, log, order};

/// A stream's name.
const NAME: &str = "0123456789abcdef0123456789abcdef01234567";
/// What a dump of unknown length ends with.
const MARK: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A primary that answers the handshake, and PSYNC always with the same bytes.
struct Hostile {
    port: u16,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What follows when the bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Stay,
}

impl Hostile {
    fn start(answer: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, ends) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if ends.load(Relaxed) {
                    return;
                }
                // Whatever the other side does ends this connection only.
                let _ = serve(socket, &answer, then, &count, &ends);
            }
        });
        Self {
            port,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    /// How often it was asked for the stream.
    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

fn serve(
    socket: TcpStream,
    answer: &[u8],
    then: Then,
    count: &AtomicUsize,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(socket);
    while let Some(name) = request_name(&mut reader, stop)? {
        let reply = match &name[..] {
            "ping" => &b"+PONG\r\n"[..],
            "replconf" => b"+OK\r\n",
            "psync" => answer,
            _ => b"",
        };
        if name == "psync" {
            count.fetch_add(1, Relaxed);
        }
        reader.get_mut().write_all(reply)?;
        if name == "psync" && then == Then::Close {
            return Ok(());
        }
    }
    Ok(())
}

/// The name of the next request; nothing at the end.
fn request_name(
    reader: &mut BufReader<TcpStream>,
    stop: &AtomicBool,
) -> std::io::Result<Option<String>> {
    let mut parts = 1;
    let mut name = None;
    while parts > 0 {
        let mut line = String::new();
        while let Err(error) = reader.read_line(&mut line) {
            let waits = error.kind() == std::io::ErrorKind::WouldBlock;
            if !waits || stop.load(Relaxed) {
                return Err(error);
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        // Of each argument there is a line with its length, and the argument.
        match line.trim_end().strip_prefix('*') {
            Some(count) => parts = 2 * count.parse().unwrap_or(1),
            None => {
                parts -= 1;
                let is_length = line.starts_with('$');
                name = name.or((!is_length).then(|| line.trim_end().to_ascii_lowercase()));
            }
        }
    }
    Ok(Some(name.unwrap_or_default()))
}

/// A dump that a server of ours has written, with values of some length.
fn dump() -> Vec<u8> {
    let server = Ours.start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("DEBUG POPULATE 2000 new 100"), "+OK");
    assert_eq!(client.ask("SAVE"), "+OK");
    std::fs::read(server.path("dump.rdb")).expect("a dump")
}

/// As PSYNC is answered: with a length, or with a mark at the end.
fn answer(dump: &[u8], by_mark: bool) -> Vec<u8> {
    let mut out = format!("+FULLRESYNC {NAME} 1000\r\n").into_bytes();
    match by_mark {
        true => out.extend_from_slice(format!("$EOF:{MARK}\r\n").as_bytes()),
        false => out.extend_from_slice(format!("${}\r\n", dump.len()).as_bytes()),
    }
    out.extend_from_slice(dump);
    if by_mark {
        out.extend_from_slice(MARK.as_bytes());
    }
    out
}

/// Ways in which a dump cannot be loaded, however often it is asked for.
fn broken(dump: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut corrupt = dump.to_vec();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0x55;
    let mut later = dump.to_vec();
    later[5..9].copy_from_slice(b"0099");
    let mut unknown = dump[..dump.len() / 2].to_vec();
    unknown.extend_from_slice(&[0x77; 100]);
    vec![
        ("corrupt", corrupt),
        ("of a later version", later),
        (
            "garbage",
            b"this is no dump at all, whatever it says of itself".to_vec(),
        ),
        ("of another maker", [&b"VALKEY080"[..], &dump[9..]].concat()),
        ("too short", dump[..dump.len() / 3].to_vec()),
        ("with garbage in its middle", unknown),
    ]
}

/// One that has something, if it is not to be empty.
fn victim(way: &str, has_data: bool) -> Server {
    let server = Ours.start(&["--repl-diskless-load", way, "--logfile", "log"]);
    if has_data {
        let mut client = server.client();
        assert_eq!(client.ask("DEBUG POPULATE 500 old"), "+OK");
        assert_eq!(client.ask("HSET h f v"), ":1");
    }
    server
}

fn follow(server: &Server, port: u16) {
    let line = format!("REPLICAOF 127.0.0.1 {port}");
    assert_eq!(server.client().ask(&line), "+OK");
}

/// How a dump comes, and what is there before.
const WAYS: [(&str, bool, bool); 6] = [
    ("disabled", true, false),
    ("disabled", true, true),
    ("on-empty-db", false, false),
    ("on-empty-db", false, true),
    ("swapdb", true, false),
    ("swapdb", true, true),
];

#[test]
fn a_dump_that_cannot_be_loaded_leaves_nothing_and_is_not_asked_for_in_a_loop() {
    let dump = dump();
    let good = Ours.start(&[]);
    assert_eq!(good.client().ask("SET good 1"), "+OK");
    for (what, broken) in broken(&dump) {
        std::thread::scope(|scope| {
            for (way, has_data, by_mark) in WAYS {
                let (broken, good) = (&broken, &good);
                scope.spawn(move || {
                    let what = format!("{what}, {way}, by mark: {by_mark}");
                    refuses(&what, broken, way, has_data, by_mark, good);
                });
            }
        });
    }
}

fn refuses(what: &str, broken: &[u8], way: &str, has_data: bool, by_mark: bool, good: &Server) {
    let hostile = Hostile::start(answer(broken, by_mark), Then::Stay);
    let mut server = victim(way, has_data);
    let mut client = server.client();
    let old = crate::digest_of(&server);
    let begin = Instant::now();
    follow(&server, hostile.port);
    eventually(|| hostile.asked() == 4);
    // At once, at once again, after one second, and after two.
    assert!(
        begin.elapsed() > Duration::from_millis(2500),
        "{what}: {:?}",
        begin.elapsed()
    );
    let is_loading = || {
        let text = server.client().ask("INFO persistence");
        text.contains("loading:1")
    };
    eventually(|| !is_loading());
    match way {
        "swapdb" => assert_eq!(crate::digest_of(&server), old, "{what}"),
        _ => eventually(|| client.ask("DBSIZE") == ":0"),
    }
    assert!(!is_linked(&mut client), "{what}");
    let text = log(&server);
    let failed = "Failed trying to load the MASTER synchronization DB";
    let why = match what.split(',').next() {
        Some("of a later version") => "Can't handle RDB format version 99",
        Some("garbage" | "of another maker") => "Wrong signature trying to load DB",
        _ => failed,
    };
    assert!(text.contains(failed), "{what}: {text}");
    assert!(text.contains(why), "{what}: {text}");
    assert!(!server.has_ended());
    order(&server, good);
    assert_in_step(good, &server);
    assert_eq!(client.ask("GET good"), "1", "{what}");
}

#[test]
fn a_dump_that_cannot_be_loaded_leaves_the_append_only_file() {
    let mut later = dump();
    later[5..9].copy_from_slice(b"0099");
    let hostile = Hostile::start(answer(&later, false), Then::Stay);
    let mut server = Ours.start(&["--appendonly", "yes"]);
    let mut client = server.client();
    assert_eq!(client.ask("SET k v"), "+OK");
    follow(&server, hostile.port);
    eventually(|| hostile.asked() >= 2);
    eventually(|| client.ask("GET k") == "$-1");
    server.restart(&["--replicaof", "no", "one"]);
    client = server.client();
    assert_eq!(client.ask("GET k"), "v");
    // Whoever is promoted without a data set keeps a file of what it has.
    follow(&server, hostile.port);
    eventually(|| client.ask("GET k") == "$-1");
    assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
    assert_eq!(client.ask("SET own 1"), "+OK");
    eventually(|| {
        let text = client.ask("INFO persistence");
        text.contains("aof_enabled:1") && text.contains("aof_rewrite_in_progress:0")
    });
    server.restart(&["--replicaof", "no", "one"]);
    assert_eq!(server.client().ask("KEYS *"), "own");
}

#[test]
fn a_dump_that_breaks_off_leaves_the_old_data_or_none() {
    let dump = dump();
    let good = Ours.start(&[]);
    assert_eq!(good.client().ask("SET good 1"), "+OK");
    for (way, has_data, by_mark) in WAYS {
        let whole = answer(&dump, by_mark);
        for len in [10, 60, 120, whole.len() / 2, whole.len() - 1] {
            let what = format!("{way}, by mark: {by_mark}, up to {len}");
            let hostile = Hostile::start(whole[..len].to_vec(), Then::Close);
            let mut server = victim(way, has_data);
            let mut client = server.client();
            let old = crate::digest_of(&server);
            follow(&server, hostile.port);
            eventually(|| hostile.asked() >= 2);
            drop(hostile);
            eventually(|| client.ask("INFO persistence").contains("\nloading:0"));
            eventually(|| client.ask("ROLE").contains(" connect "));
            match way {
                "on-empty-db" => assert_eq!(client.ask("DBSIZE"), ":0", "{what}"),
                _ => assert_eq!(crate::digest_of(&server), old, "{what}"),
            }
            assert!(!server.has_ended(), "{what}");
            order(&server, &good);
            assert_in_step(&good, &server);
        }
    }
}

/// What follows a dump is no sequence of requests.
#[test]
fn garbage_in_the_stream_ends_the_link_and_nothing_else() {
    let dump = dump();
    let garbage: [&[u8]; 6] = [
        b"*1\r\n$-1\r\n",
        b"*-7\r\n*x\r\n",
        b"*2\r\n$3\r\nGET\r\n$9999999999999999\r\n",
        b"*2147483647\r\n$3\r\nSET\r\n",
        b"*1\r\nfoo\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n",
    ];
    for bytes in garbage {
        let what = String::from_utf8_lossy(bytes).into_owned();
        let answer = [&answer(&dump, true), bytes].concat();
        let hostile = Hostile::start(answer, Then::Close);
        let mut server = victim("swapdb", true);
        follow(&server, hostile.port);
        eventually(|| hostile.asked() >= 3);
        assert!(!server.has_ended(), "{what}");
        let mut client = server.client();
        assert!(
            info(&mut client, "memory", "used_memory") < 200 << 20,
            "{what}"
        );
        // It may be loading once more.
        eventually(|| client.ask("REPLICAOF NO ONE") == "+OK");
        eventually(|| client.ask("SET k v") == "+OK");
    }
}

/// Replies to the handshake that make no sense, or never end.
#[test]
fn a_handshake_that_makes_no_sense_leaves_all_as_it_is() {
    let long = b"+FULLRESYNC ".repeat(100_000);
    let answers: [&[u8]; 8] = [
        b"+FULLRESYNC\r\n",
        b"+FULLRESYNC short 1\r\n",
        b"+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 -5\r\n",
        b"+CONTINUE x y z\r\n",
        b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"$9999999999999999999999\r\n",
        &long,
    ];
    for answer in answers {
        let what = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        let hostile = Hostile::start(answer.to_vec(), Then::Close);
        let mut server = victim("disabled", true);
        let mut client = server.client();
        let old = crate::digest_of(&server);
        follow(&server, hostile.port);
        eventually(|| hostile.asked() >= 2);
        assert_eq!(crate::digest_of(&server), old, "{what}");
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        assert_eq!(crate::digest_of(&server), old, "{what}");
        assert!(!server.has_ended(), "{what}");
    }
}

/// The file cannot take its place.
#[test]
fn a_dump_that_cannot_be_put_on_the_disk_is_no_end() {
    let good = Ours.start(&[]);
    assert_eq!(good.client().ask("SET good 1"), "+OK");
    let server = victim("disabled", true);
    let in_the_way = server.path("dump.rdb");
    std::fs::create_dir(&in_the_way).expect("a directory");
    order(&server, &good);
    let mut client = good.client();
    eventually(|| info(&mut client, "stats", "sync_full") > 1);
    std::fs::remove_dir(&in_the_way).expect("it is there");
    assert_in_step(&good, &server);
}

/// A primary that says nothing any more is left after `repl-timeout`, in every state.
#[test]
fn a_primary_that_falls_silent_is_given_up() {
    let dump = dump();
    let whole = answer(&dump, false);
    for kind in kinds() {
        for len in [0, 5, 80, whole.len() / 2, whole.len()] {
            let hostile = Hostile::start(whole[..len].to_vec(), Then::Stay);
            let server = kind.start(&["--repl-timeout", "1"]);
            follow(&server, hostile.port);
            eventually(|| hostile.asked() >= 2);
        }
    }
}

/// A dump that comes no further can be left while it goes to a file; a load, once its primary is gone.
#[test]
fn a_sync_under_way_is_given_up_for_another_order() {
    let dump = dump();
    for (way, has_data, by_mark) in WAYS {
        let whole = answer(&dump, by_mark);
        let hostile = Hostile::start(whole[..whole.len() / 2].to_vec(), Then::Stay);
        let server = victim(way, has_data);
        let old = crate::digest_of(&server);
        follow(&server, hostile.port);
        let mut client = server.client();
        eventually(|| {
            let text = client.ask("INFO replication");
            text.contains("master_sync_in_progress:1")
        });
        if way != "disabled" {
            eventually(|| {
                let text = client.ask("INFO persistence");
                text.contains("loading:1")
            });
            assert!(client.ask("REPLICAOF NO ONE").starts_with("-LOADING"));
            drop(hostile);
        }
        eventually(|| client.ask("REPLICAOF NO ONE") == "+OK");
        assert_eq!(client.ask("SET k v"), "+OK", "{way}");
        assert_eq!(client.ask("DEL k"), ":1");
        assert_eq!(crate::digest_of(&server), old, "{way}");
    }
}
