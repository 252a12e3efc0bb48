//! What a save in the background holds: the keys as they were when it was answered.

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

#[test]
fn a_save_that_cannot_begin_is_answered_too() {
    let server = Server::start(&["--enable-protected-configs", "yes"]);
    let mut client = server.client();
    let gone = tempfile::tempdir().expect("a directory");
    let path = gone.path().to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(client.ask(&format!("CONFIG SET dir {path}")), "+OK");
    drop(gone);
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    eventually(|| {
        client
            .ask("INFO persistence")
            .contains("rdb_last_bgsave_status:err")
    });
}
