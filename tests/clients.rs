//! Clients over sockets: what one client, or one worker, does to another's connection.
//!
//! Each test starts the real binary on a Unix socket in a directory of its own and awaits
//! conditions, never a length of time; every wait has an end.

mod sockets;

use std::io::{Read, Write};

use sockets::{Server, eventually, on_both_workers};

#[test]
fn a_killed_client_is_gone_at_once_whichever_worker_has_it() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut clients = on_both_workers(&server);
    let mut killer = clients.remove(0);
    for client in &mut clients {
        let id = client.ask("CLIENT ID").replace(':', "");
        assert_eq!(killer.ask(&format!("CLIENT KILL ID {id}")), ":1");
        assert_eq!(killer.ask(&format!("CLIENT LIST ID {id}")), "");
        assert!(client.is_closed());
    }
    assert_eq!(killer.ask("CLIENT KILL ID 1 SKIPME yes"), ":0");
    let id = killer.ask("CLIENT ID").replace(':', "");
    assert_eq!(killer.ask(&format!("CLIENT KILL ID {id} SKIPME no")), ":1");
    assert!(killer.is_closed());
}

#[test]
fn messages_reach_subscribers_of_all_workers_in_order() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut clients = on_both_workers(&server);
    let mut publisher = clients.remove(0);
    for client in &mut clients {
        assert_eq!(client.ask("SUBSCRIBE news"), "subscribe news :1");
    }
    let receivers = format!(":{}", clients.len());
    for i in 0..200 {
        assert_eq!(publisher.ask(&format!("PUBLISH news {i}")), receivers);
    }
    for client in &mut clients {
        for i in 0..200 {
            assert_eq!(client.read(), format!("message news {i}"));
        }
        // Nothing is published to a client whose subscription was confirmed as ended.
        assert_eq!(client.ask("UNSUBSCRIBE"), "unsubscribe news :0");
    }
    assert_eq!(publisher.ask("PUBLISH news x"), ":0");
}

#[test]
fn a_pause_holds_writers_of_all_workers_until_unpause() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    assert_eq!(control.ask("CLIENT PAUSE 100000 WRITE"), "+OK");
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&format!("PING\r\nSET k{i} 1\r\nPING"));
        assert_eq!(client.read(), "+PONG");
    }
    let blocked = |list: String| list.matches(" flags=bU ").count();
    let waiting = clients.len();
    eventually(|| blocked(control.ask("CLIENT LIST")) == waiting);
    assert_eq!(control.ask("GET k0"), "$-1");
    // A request dies with its client.
    drop(clients.remove(0));
    eventually(|| blocked(control.ask("CLIENT LIST")) == waiting - 1);
    assert_eq!(control.ask("CLIENT UNPAUSE"), "+OK");
    for client in &mut clients {
        assert_eq!(client.read(), "+OK");
        assert_eq!(client.read(), "+PONG");
    }
    assert_eq!(control.ask("GET k0"), "$-1");
    assert_eq!(control.ask("GET k1"), "1");
}

#[test]
fn a_pause_ends_by_itself() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    assert_eq!(client.ask("CLIENT PAUSE 50"), "+OK");
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let server = Server::start(&["--io-threads", "2"]);
    let client = server.client();
    let mut writer = client.0.get_ref().try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        for chunk in 0..1000 {
            let batch: String = (0..100)
                .map(|i| format!("ECHO {}\r\n", chunk * 100 + i))
                .collect();
            writer.write_all(batch.as_bytes()).expect("room");
        }
    });
    let mut client = client;
    for i in 0..100_000 {
        assert_eq!(client.read(), i.to_string());
    }
    sender.join().expect("all sent");
}

#[test]
fn a_half_closed_socket_gets_its_replies() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send("SET a 1\r\nGET a");
    let socket = client.0.get_ref();
    socket
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let mut replies = String::new();
    client.0.read_to_string(&mut replies).expect("all of it");
    assert_eq!(replies, "+OK\r\n$1\r\n1\r\n");
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_at_its_limit() {
    let server = Server::start(&[
        "--io-threads",
        "2",
        "--client-output-buffer-limit",
        "pubsub 1mb 0 0",
    ]);
    let mut slow = server.client();
    assert_eq!(slow.ask("SUBSCRIBE news"), "subscribe news :1");
    let mut publisher = server.client();
    let text = "x".repeat(10_000);
    eventually(|| publisher.ask(&format!("PUBLISH news {text}")) == ":0");
    assert!(slow.is_closed());
}

#[test]
fn a_thousand_connections_are_served() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut clients: Vec<_> = (0..1000).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("INCR count");
    }
    for client in &mut clients {
        assert!(client.read().starts_with(':'));
    }
    assert_eq!(clients[0].ask("GET count"), "1000");
    let mut first = clients.remove(0);
    drop(clients);
    eventually(|| first.ask("CLIENT LIST").lines().count() == 1);
}

#[test]
fn the_largest_clients_are_evicted_first() {
    let server = Server::start(&["--io-threads", "2", "--maxmemory-clients", "8mb"]);
    let mut control = server.client();
    assert_eq!(control.ask("CLIENT NO-EVICT on"), "+OK");
    let mut clients = on_both_workers(&server);
    let queued = format!("MULTI\r\nSET a {}", "x".repeat(20_000));
    for client in &mut clients {
        client.send(&queued);
        assert_eq!(client.read(), "+OK");
        assert_eq!(client.read(), "+QUEUED");
    }
    let mut big = server.client();
    assert_eq!(big.ask("MULTI"), "+OK");
    let value = "x".repeat(1_000_000);
    while big
        .0
        .get_mut()
        .write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\n{value}\r\n").as_bytes())
        .is_ok()
    {}
    assert!(big.is_closed());
    for client in &mut clients {
        assert_eq!(client.ask("EXEC"), "+OK");
    }
}

#[test]
fn what_expires_with_a_pause_is_gone_after_it() {
    let server = Server::start(&["--io-threads", "2"]);
    let (mut one, mut other) = (server.client(), server.client());
    for _ in 0..40 {
        one.send("SET key value PX 20\r\nCLIENT PAUSE 20");
        assert_eq!((one.read(), one.read()), ("+OK".into(), "+OK".into()));
        assert_eq!(other.ask("GET key"), "$-1");
    }
}

#[test]
fn info_tells_what_each_worker_does() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut clients = on_both_workers(&server);
    for client in &mut clients {
        (0..20).for_each(|_| assert_eq!(client.ask("PING"), "+PONG"));
    }
    let mut control = clients.remove(0);
    let mut ask = |section: &str| control.ask(&format!("INFO {section}"));
    let field = |line: &str, name: &str| -> f64 {
        let fields = line.split([':', ',']);
        let value = fields
            .filter_map(|f| f.split_once('='))
            .find(|(n, _)| *n == name);
        value.expect("the field").1.parse().expect("a number")
    };
    let sums = |text: String, name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with("worker"));
        lines.map(|line| field(line, name)).sum()
    };
    assert!(ask("workers").starts_with("# Workers\r\nworker0:cpu_sys="));
    assert_eq!(sums(ask("workers"), "clients"), 80.0);
    assert!(sums(ask("workers"), "commands") >= 1600.0);
    assert!(sums(ask("workers"), "turns") > 0.0);
    for plain in ["", "all", "default"] {
        assert!(!ask(plain).contains("# Workers"), "INFO {plain}");
    }
    assert!(ask("everything").contains("# Workers"));
    // The main thread of Redis is what the workers are.
    let main = |text: String| -> f64 {
        let times = ["used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"];
        let lines = text
            .lines()
            .filter_map(|line| times.iter().find_map(|t| line.strip_prefix(t)));
        lines
            .map(|time| time.parse::<f64>().expect("seconds"))
            .sum()
    };
    eventually(|| {
        (0..1000).for_each(|_| drop(ask("workers")));
        main(ask("cpu")) > 0.1
    });
}
