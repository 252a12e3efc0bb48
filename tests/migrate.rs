//! MIGRATE to a server that does not answer: nobody waits for it but its own client and those who need its keys.

mod sockets;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use sockets::{Client, PATIENCE, Server, eventually};

/// Longer than any test.
const LONG: &str = "600000";
const NOT_READ: &str = "-IOERR error or timeout reading to target instance";
const NOT_WRITTEN: &str = "-IOERR error or timeout writing to target instance";

/// A server with one worker: whoever makes that wait is noticed by all.
fn start(options: &[&str]) -> Server {
    let one = ["--io-threads", "1", "--enable-debug-command", "yes"];
    Server::start(&[&one[..], options].concat())
}

/// Where the keys are to go.
struct Target(TcpListener);

impl Target {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn port(&self) -> String {
        self.0.local_addr().expect("an address").port().to_string()
    }

    /// The next connection, once it has brought `text`.
    fn accept(&self, text: &str) -> TcpStream {
        let (mut stream, _) = self.0.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        read_until(&mut stream, text);
        stream
    }

    fn migrate(&self, client: &mut Client, key: &str, timeout: &str, options: &[&str]) {
        let port = self.port();
        let args = ["MIGRATE", "127.0.0.1", &port, key, "0", timeout];
        client.send_args(&[&args[..], options].concat());
    }
}

fn read_until(stream: &mut TcpStream, text: &str) {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    let found = |all: &[u8]| all.windows(text.len()).any(|part| part == text.as_bytes());
    while !found(&all) {
        let count = stream.read(&mut piece).expect("it comes");
        assert_ne!(count, 0, "it hung up");
        all.extend_from_slice(&piece[..count]);
    }
}

/// True when the reply to what was sent has begun to arrive.
fn is_answered(client: &Client) -> bool {
    let stream = client.0.get_ref();
    stream.set_nonblocking(true).expect("a socket");
    let mut byte = [0];
    let peeked = rustix::net::recv(stream, &mut byte, rustix::net::RecvFlags::PEEK);
    stream.set_nonblocking(false).expect("a socket");
    peeked.is_ok_and(|(count, _)| count > 0)
}

/// Somebody is served who wants keys, but those that lie beside the moved one by chance. All come by the same
/// worker, so what was sent before was looked at as well.
fn others_are_served(server: &Server) {
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for (n, other) in others.iter_mut().enumerate() {
        other.send(&format!("SET other:{n} x"));
    }
    eventually(|| others.iter().any(is_answered));
    assert_eq!(server.client().ask("PING"), "+PONG");
}

#[test]
fn a_target_that_does_not_answer_makes_only_those_wait_who_need_its_keys() {
    let (server, target) = (start(&[]), Target::new());
    let (mut moves, mut gets, mut sets) = (server.client(), server.client(), server.client());
    assert_eq!(moves.ask("SET k v"), "+OK");
    target.migrate(&mut moves, "k", LONG, &[]);
    let mut there = target.accept("RESTORE");
    gets.send("GET k\r\nEXISTS k");
    sets.send("SET k new NX");
    others_are_served(&server);
    // Half an answer is none.
    there.write_all(b"+OK\r\n+O").expect("room");
    others_are_served(&server);
    there.write_all(b"K\r\n").expect("room");
    assert_eq!(moves.read(), "+OK");
    assert_eq!(sets.read(), "+OK");
    let seen = (gets.read(), gets.read());
    let expected = [("$-1", ":0"), ("$-1", ":1"), ("new", ":1")];
    assert!(expected.contains(&(&seen.0[..], &seen.1[..])), "{seen:?}");
}

#[test]
fn what_needs_all_keys_waits_and_runs_afterwards() {
    let (server, target) = (start(&[]), Target::new());
    let mut moves = server.client();
    assert_eq!(moves.ask("MSET k v k2 v2"), "+OK");
    target.migrate(&mut moves, "", LONG, &["KEYS", "k"]);
    let mut there = target.accept("RESTORE");
    let mut all: Vec<Client> = (0..8).map(|_| server.client()).collect();
    all[0].send("KEYS *");
    all[1].send("MULTI\r\nGET k\r\nSCRIPT FLUSH\r\nEXEC");
    all[2].send_args(&["EVAL", "return redis.call('exists', 'k')", "0"]);
    all[3].send_args(&["EVAL", "return redis.call('exists', KEYS[1])", "1", "k"]);
    all[4].send("WATCH k\r\nMULTI\r\nSET k2 w2\r\nEXEC");
    all[5].send("CLIENT TRACKING ON BCAST");
    all[6].send("SCAN 0 COUNT 5000");
    all[7].send("BGSAVE");
    others_are_served(&server);
    there.write_all(b"+OK\r\n+OK\r\n").expect("room");
    assert_eq!(moves.read(), "+OK");
    assert!(!all[0].read().split(' ').any(|key| key == "k"));
    let replies: Vec<String> = (0..4).map(|_| all[1].read()).collect();
    assert_eq!(replies, ["+OK", "+QUEUED", "+QUEUED", "$-1 +OK"]);
    assert_eq!(all[2].read(), ":0");
    assert_eq!(all[3].read(), ":0");
    let replies: Vec<String> = (0..4).map(|_| all[4].read()).collect();
    assert_eq!(replies, ["+OK", "+OK", "+QUEUED", "+OK"]);
    assert_eq!(all[5].read(), "+OK");
    assert!(!all[6].read().split(' ').any(|key| key == "k"));
    assert_eq!(all[7].read(), "+Background saving started");
    eventually(|| {
        moves
            .ask("INFO persistence")
            .contains("rdb_bgsave_in_progress:0")
    });
    assert_eq!(moves.ask("FLUSHALL"), "+OK");
}

#[test]
fn a_target_that_reads_nothing_makes_nobody_wait() {
    let (server, target) = (start(&[]), Target::new());
    let mut moves = server.client();
    moves.send_args(&[&b"SET"[..], b"k", &vec![b'x'; 64 << 20]]);
    assert_eq!(moves.read(), "+OK");
    assert_eq!(moves.ask("CONFIG SET rdbcompression no"), "+OK");
    target.migrate(&mut moves, "k", LONG, &[]);
    let there = target.accept("RESTORE");
    others_are_served(&server);
    drop(there);
    // It tries once more.
    let again = target.accept("RESTORE");
    others_are_served(&server);
    drop(again);
    assert_eq!(moves.read(), NOT_WRITTEN);
    assert_eq!(moves.ask("STRLEN k"), format!(":{}", 64 << 20));
    // When its time is over it does not.
    target.migrate(&mut moves, "k", "50", &[]);
    let there = target.accept("RESTORE");
    assert_eq!(moves.read(), NOT_WRITTEN);
    drop(there);
    target.migrate(&mut moves, "missing", "50", &[]);
    assert_eq!(moves.read(), "+NOKEY");
    assert!(
        moves
            .ask("INFO errorstats")
            .contains("errorstat_IOERR:count=2")
    );
}

#[test]
fn who_cannot_be_connected_to_makes_nobody_wait() {
    let server = start(&[]);
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    // Room for one, who is never accepted: nobody else is answered.
    rustix::net::listen(&socket, 0).expect("a listener");
    let address = socket.local_addr().expect("an address");
    let mut queued = Vec::new();
    let full = loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => queued.push(stream),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(full, ErrorKind::TimedOut);
    let (mut moves, mut gets) = (server.client(), server.client());
    assert_eq!(moves.ask("SET k v"), "+OK");
    let target = Target(socket);
    target.migrate(&mut moves, "k", LONG, &[]);
    assert_eq!(
        gets.ask("GET k"),
        "v",
        "nothing is locked before it is connected"
    );
    others_are_served(&server);
    let mut other = server.client();
    target.migrate(&mut other, "k", "1", &[]);
    let refused = "-IOERR error or timeout connecting to the client";
    assert_eq!(other.read(), refused);
    drop(moves);
    assert_eq!(gets.ask("SET k w"), "+OK");
}

#[test]
fn a_time_that_is_over_leaves_the_key_to_those_who_waited_for_it() {
    let (server, target) = (start(&[]), Target::new());
    let (mut moves, mut gets) = (server.client(), server.client());
    assert_eq!(moves.ask("SET k v"), "+OK");
    target.migrate(&mut moves, "k", "300", &[]);
    let there = target.accept("RESTORE");
    gets.send("GET k");
    assert_eq!(moves.read(), NOT_READ);
    assert_eq!(gets.read(), "v");
    drop(there);
    // Moves of the same key, one after the other, and readers between them.
    let mut movers: Vec<Client> = (0..3).map(|_| server.client()).collect();
    movers
        .iter_mut()
        .for_each(|mover| target.migrate(mover, "k", "30", &[]));
    gets.send("GET k");
    assert!(movers.iter_mut().all(|mover| mover.read() == NOT_READ));
    assert_eq!(gets.read(), "v");
}

#[test]
fn the_server_ends_while_a_target_is_waited_for() {
    for how in ["SHUTDOWN NOSAVE", "SHUTDOWN SAVE"] {
        let (mut server, target) = (start(&[]), Target::new());
        let mut moves = server.client();
        assert_eq!(moves.ask("SET k v"), "+OK");
        target.migrate(&mut moves, "k", LONG, &[]);
        let _there = target.accept("RESTORE");
        server.client().send(how);
        eventually(|| server.has_ended());
        if how.ends_with(" SAVE") {
            server.restart(&[]);
            assert_eq!(server.client().ask("GET k"), "v");
        }
    }
}

#[test]
fn who_changes_the_role_does_not_wait_for_a_target() {
    let (server, target) = (start(&[]), Target::new());
    let mut moves = server.client();
    assert_eq!(moves.ask("SET k v"), "+OK");
    target.migrate(&mut moves, "k", LONG, &[]);
    let _there = target.accept("RESTORE");
    let mut client = server.client();
    assert_eq!(client.ask("REPLICAOF 127.0.0.1 1"), "+OK");
    assert_eq!(moves.read(), NOT_READ);
    assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
    assert_eq!(client.ask("GET k"), "v");
}

#[test]
fn what_was_moved_is_confirmed_and_on_the_disk_like_any_write() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let (mut server, target) = (start(&options), Target::new());
    let (mut moves, mut pops) = (server.client(), server.client());
    assert_eq!(moves.ask("MSET k v stays v"), "+OK");
    target.migrate(&mut moves, "k", LONG, &[]);
    let mut there = target.accept("RESTORE");
    there.write_all(b"+OK\r\n+OK\r\n").expect("room");
    assert_eq!(moves.read(), "+OK");
    // Within a transaction and in a script it is done at once.
    let port = target.port();
    assert_eq!(moves.ask("MSET a 1 b 2"), "+OK");
    pops.send(&format!(
        "MULTI\r\nMIGRATE 127.0.0.1 {port} a 0 {LONG}\r\nGET a\r\nEXEC"
    ));
    read_until(&mut there, "RESTORE");
    there.write_all(b"+OK\r\n").expect("room");
    let replies: Vec<String> = (0..4).map(|_| pops.read()).collect();
    assert_eq!(replies, ["+OK", "+QUEUED", "+QUEUED", "+OK $-1"]);
    let script = "return redis.call('migrate', '127.0.0.1', ARGV[1], KEYS[1], 0, ARGV[2])";
    pops.send_args(&["EVAL", script, "1", "b", &port, LONG]);
    read_until(&mut there, "RESTORE");
    there.write_all(b"-ERR no room\r\n").expect("room");
    let refused = "-ERR Target instance replied with error: ERR no room";
    assert!(pops.read().starts_with(refused));
    server.restart(&[]);
    assert_eq!(server.client().ask("EXISTS k a"), ":0");
    assert_eq!(server.client().ask("EXISTS b stays"), ":2");
}
