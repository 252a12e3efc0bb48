//! Starts over and over: what depends on which thread comes first shows here.

#[expect(dead_code, reason = "other tests need more of it")]
mod sockets;

use sockets::Server;

#[test]
fn a_small_dump_is_loaded_every_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("a path in UTF-8");
    let first = Server::start(&["--dir", dir]);
    let mut client = first.client();
    assert_eq!(client.ask("SET key value"), "+OK");
    assert_eq!(client.ask("SAVE"), "+OK");
    drop(first);
    for _ in 0..80 {
        let server = Server::start(&["--dir", dir]);
        assert_eq!(server.client().ask("GET key"), "value");
    }
}
