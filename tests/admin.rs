//! Probes and metrics: what a kubelet and a Prometheus are told.

mod sockets;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use sockets::{PATIENCE, Server, eventually, under_test};

/// The status and the body of a GET.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is sent");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.expect("a status"), body.expect("a body"))
}

/// A server with an admin port, again on another one should somebody have taken the one that was free.
fn start(options: &[&str]) -> (Server, u16) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let text = port.to_string();
        let options = [&["--admin-port", &text], options].concat();
        if let Some(server) = Server::try_start(&under_test(), &[], &options) {
            return (server, port);
        }
    }
    panic!("no port was free for long enough");
}

#[test]
fn a_server_is_alive_ready_and_measured() {
    let (server, port) = start(&[]);
    let mut client = server.client();
    assert_eq!(get(port, "/livez").0, 200);
    assert_eq!(get(port, "/readyz").0, 200);
    assert_eq!(get(port, "/").0, 404);
    assert_eq!(client.ask("SET k v"), "+OK");
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "redis_up 1",
        "redis_db_keys{db=\"db0\"} 1",
        "redis_commands_total{cmd=\"set\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    // Nobody follows a primary that is not there.
    assert_eq!(client.ask("REPLICAOF 127.0.0.1 1"), "+OK");
    eventually(|| get(port, "/readyz").0 == 503);
    assert_eq!(get(port, "/livez").0, 200);
    assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
    eventually(|| get(port, "/readyz").0 == 200);
    // A connection that says nothing keeps nobody else from being answered.
    let silent = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    assert_eq!(get(port, "/livez").0, 200);
    drop(silent);
    assert_eq!(client.ask("CONFIG SET admin-port 0"), "+OK");
    eventually(|| TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_node_is_ready_when_its_cluster_works() {
    // The bus listens on TCP: the port of clients is any that is free, by way of its bus' port.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let bus = listener
        .local_addr()
        .expect("it is bound")
        .port()
        .to_string();
    drop(listener);
    let (server, port) = start(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let mut client = server.client();
    let (status, why) = get(port, "/readyz");
    assert_eq!(status, 503, "{why}");
    assert_eq!(client.ask("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
    eventually(|| get(port, "/readyz").0 == 200);
    assert!(
        get(port, "/metrics")
            .1
            .contains("\nredis_cluster_state 1\n")
    );
}
