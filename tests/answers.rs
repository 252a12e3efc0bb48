//! Small answers that clients and tools look at, each as Redis gives it.

mod sockets;

use sockets::{Client, Server};

/// What CLIENT LIST says that a client's last command was.
fn last_command(watcher: &mut Client, id: &str) -> String {
    let line = watcher.ask(&format!("CLIENT LIST ID {id}"));
    let mut fields = line.split_whitespace();
    let field = fields.find_map(|field| field.strip_prefix("cmd="));
    field.expect("a field").to_owned()
}

#[test]
fn info_has_no_server_name_which_clients_take_for_another_server() {
    let server = Server::start(&[]);
    let info = server.client().ask("INFO everything");
    assert!(info.contains("redis_version:"));
    assert!(!info.contains("server_name:"));
}

#[test]
fn the_last_command_of_a_client_is_told_also_when_it_was_queued_or_refused() {
    let server = Server::start(&[]);
    let (mut client, mut watcher) = (server.client(), server.client());
    let id = client.ask("CLIENT ID").trim_start_matches(':').to_owned();
    for (line, command) in [
        ("MULTI", "multi"),
        ("GET k", "get"),
        ("CONFIG GET", "config|get"),
        ("NOSUCH", "NULL"),
        ("DISCARD", "discard"),
        ("GET", "get"),
    ] {
        client.ask(line);
        assert_eq!(last_command(&mut watcher, &id), command, "{line}");
    }
}

#[test]
fn a_watched_key_that_had_expired_is_not_changed_by_an_empty_sort() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let (mut client, mut other) = (server.client(), server.client());
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
    assert_eq!(client.ask("SET k v PX 1"), "+OK");
    assert_eq!(client.ask("DEBUG SLEEP 0.01"), "+OK");
    // It is there still, as nobody has read it.
    assert_eq!(client.ask("DBSIZE"), ":1");
    assert_eq!(client.ask("WATCH k"), "+OK");
    assert_eq!(other.ask("SORT empty STORE k"), ":0");
    assert_eq!(client.ask("MULTI"), "+OK");
    assert_eq!(client.ask("PING"), "+QUEUED");
    assert_eq!(client.ask("EXEC"), "+PONG");
}

#[test]
fn a_rank_without_a_counterpart_is_refused() {
    // As Redis 7.2 says; 7.0 takes it.
    let server = Server::start(&[]);
    let reply = server.client().ask("LPOS l c RANK -9223372036854775808");
    let refused = "-ERR value is out of range, value must between -9223372036854775807 and \
                   9223372036854775807";
    assert_eq!(reply, refused);
}

#[test]
fn a_command_may_be_renamed_to_itself() {
    let server = Server::start(&["--rename-command", "CONFIG", "CONFIG"]);
    assert_eq!(server.client().ask("CONFIG GET port"), "port 0");
}

#[test]
fn a_small_hash_is_one_listpack_with_times_and_without() {
    // As Redis 7.4 says of the first; the second is refused by every version.
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.client();
    client.ask("HSET h f v");
    client.ask("HPEXPIRE h 100000 FIELDS 1 f");
    assert_eq!(client.ask("OBJECT ENCODING h"), "listpackex");
    let shown = "+Listpack structure printed on stdout";
    assert_eq!(client.ask("DEBUG LISTPACK h"), shown);
    client.ask("SET s v");
    let refused = "-ERR Not a listpack encoded object.";
    assert_eq!(client.ask("DEBUG LISTPACK s"), refused);
}
