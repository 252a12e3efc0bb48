//! What a save in the background holds: the keys as they were when it was answered. What saves wait for,
//! and who does not wait for them.

mod sockets;

use sockets::{Server, eventually};

#[test]
fn what_follows_the_reply_is_not_in_the_dump() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("a path in UTF-8");
    let server = Server::start(&["--dir", dir, "--enable-debug-command", "yes"]);
    let (mut client, mut other) = (server.client(), server.client());
    for round in 0..20 {
        assert_eq!(client.ask("DEBUG POPULATE 500"), "+OK");
        // In one packet: the server has the second command before it answers the first.
        client.send("BGSAVE\r\nFLUSHDB");
        assert_eq!(client.read(), "+Background saving started");
        assert_eq!(client.read(), "+OK");
        eventually(|| {
            other
                .ask("INFO persistence")
                .contains("rdb_bgsave_in_progress:0")
        });
        assert_eq!(client.ask("DEBUG RELOAD NOSAVE"), "+OK");
        assert_eq!(client.ask("DBSIZE"), ":500", "round {round}");
    }
}

/// A server whose directory is gone, so that it cannot save.
fn start_without_directory() -> (Server, sockets::Client) {
    let server = Server::start(&["--enable-protected-configs", "yes"]);
    let mut client = server.client();
    let gone = tempfile::tempdir().expect("a directory");
    let path = gone.path().to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(client.ask(&format!("CONFIG SET dir {path}")), "+OK");
    drop(gone);
    (server, client)
}

#[test]
fn a_save_that_cannot_begin_is_answered_too() {
    let (_server, mut client) = start_without_directory();
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    eventually(|| {
        client
            .ask("INFO persistence")
            .contains("rdb_last_bgsave_status:err")
    });
}

/// What INFO tells of a command.
fn statistics(client: &mut sockets::Client, command: &str) -> String {
    let info = client.ask("INFO commandstats");
    let name = format!("cmdstat_{command}:");
    let mut lines = info.lines();
    let found = lines.find_map(|line| line.strip_prefix(&name));
    found.expect("it was called").to_owned()
}

#[test]
fn a_save_that_fails_counts_as_failed() {
    let (_server, mut client) = start_without_directory();
    for calls in 1..=2 {
        assert_eq!(client.ask("SAVE"), "-ERR");
        let found = statistics(&mut client, "save");
        let counts = format!("calls={calls},");
        let failures = format!(",rejected_calls=0,failed_calls={calls}");
        assert!(
            found.starts_with(&counts) && found.ends_with(&failures),
            "{found}"
        );
        let errors = client.ask("INFO errorstats");
        assert!(
            errors.contains(&format!("errorstat_ERR:count={calls}")),
            "{errors}"
        );
    }
}

#[test]
fn a_save_waits_for_a_rewrite_of_the_append_only_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a path in UTF-8");
    let options = ["--dir", path, "--enable-debug-command", "yes"];
    let server = Server::start(&[&options[..], &["--appendonly", "yes"]].concat());
    let (mut client, mut other) = (server.client(), server.client());
    assert_eq!(client.ask("DEBUG POPULATE 8"), "+OK");
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 1000000"), "+OK");
    assert!(client.ask("BGREWRITEAOF").starts_with("+Background"));
    let mut persistence = |field: &str| other.ask("INFO persistence").contains(field);
    // Its turn has come, not only its thread: the file that goes on behind it is there.
    let next = dir.path().join("appendonlydir/appendonly.aof.2.incr.aof");
    eventually(|| next.exists());
    assert!(persistence("aof_rewrite_in_progress:1"));
    client.send("SAVE");
    eventually(|| {
        // It has come: its client waits, and the others do not.
        let mut list = server.client();
        list.ask("CLIENT LIST").contains("cmd=save")
    });
    assert!(persistence("aof_rewrite_in_progress:1"));
    let mut third = server.client();
    assert_eq!(third.ask("SET more 1"), "+OK");
    assert_eq!(third.ask("CONFIG SET rdb-key-save-delay 0"), "+OK");
    assert_eq!(client.read(), "+OK");
    eventually(|| persistence("aof_rewrite_in_progress:0"));
    assert!(persistence("aof_last_bgrewrite_status:ok"));
    drop((client, other, third, server));
    // Both are whole.
    for appendonly in ["no", "yes"] {
        let server = Server::start(&[&options[..], &["--appendonly", appendonly]].concat());
        assert_eq!(
            server.client().ask("DBSIZE"),
            ":9",
            "appendonly {appendonly}"
        );
    }
}

#[test]
fn a_transaction_that_sleeps_does_not_keep_the_server_from_ending() {
    for kind in ["SAVE", "NOSAVE"] {
        let options = ["--io-threads", "2", "--enable-debug-command", "yes"];
        let mut server = Server::start(&options);
        let mut clients = sockets::on_both_workers(&server);
        let mut other = clients.pop().expect("there are many");
        let sleeper = &mut clients[0];
        // While the first one sleeps the other worker comes to the gate.
        sleeper.send("MULTI\r\nSET a 1\r\nDEBUG SLEEP 0.3\r\nDEBUG SLEEP 0.1\r\nEXEC");
        assert_eq!(sleeper.read(), "+OK");
        other.send(&format!("SHUTDOWN {kind}"));
        eventually(|| server.has_ended());
    }
}

#[test]
fn a_save_behind_a_rewrite_hears_of_it() {
    let server = Server::start(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    let mut client = server.client();
    eventually(|| {
        client
            .ask("INFO persistence")
            .contains("aof_rewrite_in_progress:0")
    });
    assert_eq!(client.ask("DEBUG POPULATE 100000"), "+OK");
    for _ in 0..5 {
        client.send("BGREWRITEAOF\r\nBGSAVE");
        assert!(client.read().starts_with("+Background append only file"));
        let reply = client.read();
        assert!(
            reply.starts_with("-ERR Another child process is active"),
            "{reply}"
        );
        eventually(|| {
            client
                .ask("INFO persistence")
                .contains("aof_rewrite_in_progress:0")
        });
    }
}
