//! FLUSHALL with save points: when its client has the reply, no dump is there that would bring the
//! keys back, whatever becomes of the process; and only that client waits for the disk.

mod sockets;

use std::path::Path;

use sockets::{Client, Server, eventually};

fn start(dir: &Path) -> Server {
    let dir = dir.to_str().expect("a path in UTF-8");
    let options = [
        "--dir",
        dir,
        "--save",
        "3600 100000000",
        "--io-threads",
        "1",
    ];
    let further = ["--enable-debug-command", "yes"];
    Server::start(&[&options[..], &further].concat())
}

/// Keys are on the disk; `flush` says that it emptied the databases; the process is killed. How many
/// keys are there after the next start.
fn left_after(flush: impl FnOnce(&mut Client)) -> String {
    left_after_two(|client, _| flush(client))
}

/// The same with a second client.
fn left_after_two(flush: impl FnOnce(&mut Client, &mut Client)) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let mut client = server.client();
    assert_eq!(client.ask("DEBUG POPULATE 5000"), "+OK");
    assert_eq!(client.ask("SAVE"), "+OK");
    flush(&mut client, &mut server.client());
    drop(server);
    start(dir.path()).client().ask("DBSIZE")
}

#[test]
fn flushed_keys_stay_away() {
    let left = left_after(|client| assert_eq!(client.ask("FLUSHALL"), "+OK"));
    assert_eq!(left, ":0");
    let left = left_after(|client| assert_eq!(client.ask("FLUSHALL ASYNC"), "+OK"));
    assert_eq!(left, ":0");
    let left = left_after(|client| {
        client.send("SET x 1\r\nFLUSHALL\r\nSET y 1\r\nFLUSHALL");
        (0..4).for_each(|_| assert_eq!(client.read(), "+OK"));
    });
    assert_eq!(left, ":0");
}

#[test]
fn flushed_keys_stay_away_after_exec() {
    let left = left_after(|client| {
        client.send("MULTI\r\nGET key:1\r\nFLUSHALL\r\nSET a 1\r\nEXEC");
        for _ in 0..4 {
            let reply = client.read();
            assert!(reply == "+OK" || reply == "+QUEUED", "{reply}");
        }
        assert_eq!(client.read(), "value:1 +OK +OK");
    });
    // What came behind it in the transaction is in the data set that no save point has reached.
    assert_eq!(left, ":0");
}

#[test]
fn flushed_keys_stay_away_while_a_save_runs() {
    for flush in ["FLUSHALL", "MULTI\r\nFLUSHALL\r\nEXEC"] {
        let left = left_after(|client| {
            assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 1000"), "+OK");
            assert_eq!(client.ask("BGSAVE"), "+Background saving started");
            client.send(flush);
            let replies = flush.lines().map(|_| client.read());
            assert_eq!(replies.last().expect("one at least"), "+OK");
        });
        assert_eq!(left, ":0", "{flush}");
    }
}

#[test]
fn a_save_that_a_flush_overtakes_begins_anew() {
    let left = left_after_two(|client, other| {
        // Without save points FLUSHALL writes nothing itself.
        assert_eq!(client.ask("CONFIG SET save ''"), "+OK");
        assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 100"), "+OK");
        client.send("SAVE\r\nDBSIZE");
        eventually(|| is_saving(other));
        assert_eq!(other.ask("FLUSHALL"), "+OK");
        assert_eq!(client.read(), "+OK");
        assert_eq!(client.read(), ":0");
    });
    assert_eq!(left, ":0");
}

/// True once a snapshot has its cut: what a save is about to write then is not what is there later.
fn is_saving(client: &mut Client) -> bool {
    let id = client.ask("INFO server");
    let pid = id.lines().find_map(|line| line.strip_prefix("process_id:"));
    let dir = client.ask("CONFIG GET dir");
    let dir = dir.strip_prefix("dir ").expect("the parameter");
    let file = format!("{dir}/temp-{}.rdb", pid.expect("the field"));
    std::fs::metadata(file).is_ok_and(|file| file.len() > 0)
}

/// The path of a file that a server is about to write, as a pipe: opening it waits for a reader.
fn as_pipe(dir: &Path, client: &mut Client, name: &str) -> std::path::PathBuf {
    let info = client.ask("INFO server");
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    let path = dir.join(name.replace("PID", pid.expect("the field")));
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("it is there").success());
    path
}

#[test]
fn only_the_client_that_flushed_waits_for_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let (mut client, mut other, mut gone) = (server.client(), server.client(), server.client());
    let pipe = as_pipe(dir.path(), &mut other, "temp-flushed-PID.rdb");
    assert_eq!(other.ask("SET a 1"), "+OK");
    client.send("MULTI\r\nFLUSHALL\r\nSET b 1\r\nEXEC\r\nGET b");
    eventually(|| other.ask("EXISTS a b") == ":1");
    // One more that asks and does not wait.
    gone.send("FLUSHALL");
    eventually(|| other.ask("EXISTS b") == ":0");
    drop(gone);
    let stream = client.0.get_mut();
    stream.set_nonblocking(true).expect("a socket");
    let early = std::io::Read::read(stream, &mut [0; 100]);
    assert!(
        early.is_err(),
        "nothing is answered before the file is there"
    );
    stream.set_nonblocking(false).expect("a socket");
    assert!(!other.ask("INFO clients").contains("blocked_clients:1"));
    // The disk answers: that it cannot sync a pipe is a failed save, which FLUSHALL survives.
    let reader = std::thread::spawn(move || std::fs::read(pipe));
    for reply in ["+OK", "+QUEUED", "+QUEUED", "+OK +OK", "$-1"] {
        assert_eq!(client.read(), reply);
    }
    reader.join().expect("it read").expect("a dump");
}

#[test]
fn save_keeps_only_its_own_client_waiting() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let (mut client, mut other) = (server.client(), server.client());
    let pipe = as_pipe(dir.path(), &mut other, "temp-PID.rdb");
    client.send("SET a 1\r\nSAVE\r\nGET a");
    eventually(|| other.ask("GET a") == "1");
    assert_eq!(other.ask("PING"), "+PONG");
    let reader = std::thread::spawn(move || std::fs::read(pipe));
    for reply in ["+OK", "-ERR", "1"] {
        assert_eq!(client.read(), reply);
    }
    reader.join().expect("it read").expect("a dump");
    assert_eq!(client.ask("SAVE"), "+OK");
}
