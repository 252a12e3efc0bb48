//! Blocking commands over sockets: clients that wait on several workers for keys of several
//! shards, and all that can end their wait.
//!
//! What is expected holds for a real Redis too (`SERVER_UNDER_TEST=redis-server`).

mod sockets;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sockets::{Client, Server, eventually, on_both_workers};

const WORKERS: [&str; 2] = ["--io-threads", "2"];

/// Awaits that so many clients wait for keys.
fn await_blocked(control: &mut Client, count: usize) {
    let line = format!("blocked_clients:{count}\r\n");
    eventually(|| control.ask("INFO clients").contains(&line));
}

/// Has each client send its line, in order: each waits before the next one does.
fn block_all(control: &mut Client, clients: &mut [Client], line: impl Fn(usize) -> String) {
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&line(i));
        await_blocked(control, i + 1);
    }
}

fn id(client: &mut Client) -> String {
    client.ask("CLIENT ID").replace(':', "")
}

/// A fixed sequence of numbers without order.
fn shuffled(seed: usize) -> impl Iterator<Item = usize> {
    let mut state = seed as u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    })
}

#[test]
fn first_blocked_is_first_served() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let awaited = |i: usize| match i % 4 {
        0 => vec![i % 5],
        1 => vec![i % 5, (i + 2) % 5],
        2 => vec![(i + 3) % 5, (i + 1) % 5, i % 5],
        _ => (0..5).collect(),
    };
    block_all(&mut control, &mut clients, |i| {
        let keys: Vec<String> = awaited(i).iter().map(|k| format!("key:{k}")).collect();
        let name = ["BLPOP", "BRPOP"][i / 3 % 2];
        format!("{name} {} 0", keys.join(" "))
    });
    let mut waiting: Vec<usize> = (0..clients.len()).collect();
    let mut numbers = shuffled(7);
    for round in 0.. {
        if waiting.is_empty() {
            break;
        }
        let key = numbers.next().expect("endless") % 5;
        let Some(at) = waiting.iter().position(|i| awaited(*i).contains(&key)) else {
            continue;
        };
        assert_eq!(control.ask(&format!("RPUSH key:{key} {round}")), ":1");
        let client = waiting.remove(at);
        assert_eq!(clients[client].read(), format!("key:{key} {round}"));
    }
    assert_eq!(control.ask("DBSIZE"), ":0");
}

#[test]
fn many_elements_serve_many_in_order() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    clients.truncate(9);
    block_all(&mut control, &mut clients, |i| match i % 3 {
        0 => "BLPOP list 0".into(),
        1 => "BLMPOP 0 2 none list RIGHT COUNT 2".into(),
        _ => "BLMOVE list taken LEFT RIGHT 0".into(),
    });
    let pushed = control.ask("RPUSH list 0 1 2 3 4 5 6 7 8 9 10 11 12");
    assert_eq!(pushed, ":13");
    let replies: Vec<String> = clients.iter_mut().map(Client::read).collect();
    let expected = [
        "list 0",
        "list 12 11",
        "1",
        "list 2",
        "list 10 9",
        "3",
        "list 4",
        "list 8 7",
        "5",
    ];
    assert_eq!(replies, expected);
    assert_eq!(control.ask("LRANGE taken 0 -1"), "1 3 5");
    assert_eq!(control.ask("LRANGE list 0 -1"), "6");
    block_all(&mut control, &mut clients, |i| match i % 3 {
        0 => "BZPOPMIN zset 0".into(),
        1 => "BZMPOP 0 1 zset MAX COUNT 2".into(),
        _ => "BZPOPMAX zset 0".into(),
    });
    control.ask("ZADD zset 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h 9 i 10 j 11 k 12 l");
    let replies: Vec<String> = clients.iter_mut().map(Client::read).collect();
    let expected = [
        "zset a 1",
        "zset l 12 k 11",
        "zset j 10",
        "zset b 2",
        "zset i 9 h 8",
        "zset g 7",
        "zset c 3",
        "zset f 6 e 5",
        "zset d 4",
    ];
    assert_eq!(replies, expected);
    assert_eq!(control.ask("EXISTS zset"), ":0");
}

#[test]
fn moves_wake_moves() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    // Whichever keys share a shard, in chains of all kinds.
    for round in 0..5 {
        block_all(&mut control, &mut clients, |i| {
            format!("BLMOVE {round}:{i} {round}:{} LEFT RIGHT 0", i + 1)
        });
        control.ask(&format!("RPUSH {round}:0 x"));
        for client in &mut clients {
            assert_eq!(client.read(), "x");
        }
        let end = control.ask(&format!("LRANGE {round}:{} 0 -1", clients.len()));
        assert_eq!(end, "x");
        assert_eq!(control.ask("DBSIZE"), format!(":{}", round + 1));
    }
    control.ask("FLUSHALL");
    // Around a circle, and once more for those that wait a second time.
    for round in 0..20 {
        let len = 1 + round % 4;
        block_all(&mut control, &mut clients[..2 * len], |i| {
            let (from, to) = (i % len, (i + 1) % len);
            format!("BRPOPLPUSH c{round}:{from} c{round}:{to} 0")
        });
        control.ask(&format!("RPUSH c{round}:0 x"));
        for client in &mut clients[..2 * len] {
            assert_eq!(client.read(), "x");
        }
        assert_eq!(control.ask(&format!("LRANGE c{round}:0 0 -1")), "x");
    }
}

#[test]
fn a_move_to_another_type_is_an_error_and_takes_nothing() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    for round in 0..20 {
        control.ask(&format!("SET string{round} v"));
        block_all(&mut control, &mut clients[..2], |i| match i {
            0 => format!("BLMOVE list{round} string{round} LEFT LEFT 0"),
            _ => format!("BLPOP list{round} 0"),
        });
        control.ask(&format!("RPUSH list{round} x"));
        assert!(clients[0].read().starts_with("-WRONGTYPE "));
        assert_eq!(clients[1].read(), format!("list{round} x"));
    }
}

#[test]
fn a_transaction_wakes_when_it_is_over() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let mut transaction = |commands: &[&str]| {
        control.ask("MULTI");
        for command in commands {
            assert_eq!(control.ask(command), "+QUEUED");
        }
        control.ask("EXEC")
    };
    assert_eq!(transaction(&["BLPOP a 0", "BZPOPMIN a 0"]), "*-1 *-1");
    assert_eq!(transaction(&["BLMOVE a b LEFT LEFT 0"]), "$-1");
    let mut control = clients.remove(0);
    block_all(&mut control, &mut clients[..3], |i| match i {
        0 => "BLPOP a b 0".into(),
        1 => "BLPOP b a 0".into(),
        _ => "BLMOVE a b LEFT RIGHT 0".into(),
    });
    transaction(&["RPUSH a 1", "DEL a"]);
    transaction(&["RPUSH a 1", "DEL a", "SADD a x"]);
    transaction(&["RPUSH b 1", "RENAME b elsewhere", "DEL a elsewhere"]);
    await_blocked(&mut control, 3);
    // Served once it is over, with what is there then: first the key that came first.
    transaction(&[
        "RPUSH b 1",
        "RPUSH a 2",
        "LPUSH a 3",
        "LPUSH b 4",
        "RPUSH a 5",
    ]);
    assert_eq!(clients[0].read(), "b 4");
    assert_eq!(clients[1].read(), "b 1");
    assert_eq!(clients[2].read(), "3");
    assert_eq!(control.ask("LRANGE a 0 -1"), "2 5");
    assert_eq!(control.ask("LRANGE b 0 -1"), "3");
}

#[test]
fn whatever_makes_a_key_serves_it() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let mut client = clients.remove(0);
    let mut served = |before: &[&str], by: &str| {
        control.ask("FLUSHALL");
        before.iter().for_each(|line| drop(control.ask(line)));
        client.send("BLPOP k 0");
        await_blocked(&mut control, 1);
        assert!(!control.ask(by).starts_with('-'), "{by}");
        assert_eq!(client.read(), "k x", "{by}");
    };
    served(&["RPUSH other x"], "RENAME other k");
    served(&["RPUSH other x"], "RENAMENX other k");
    served(&["RPUSH other x"], "COPY other k");
    served(&["RPUSH other x"], "SORT other ALPHA STORE k");
    served(&["RPUSH other x"], "LMOVE other k LEFT LEFT");
    served(&["SELECT 1", "RPUSH k x"], "MOVE k 0");
    served(&["SELECT 1", "RPUSH k x"], "SWAPDB 0 1");
    served(&["SELECT 1", "RPUSH other x"], "COPY other k DB 0");
}

#[test]
fn other_types_in_the_place_of_a_key_wake_nobody() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    block_all(&mut control, &mut clients[..3], |i| match i {
        0 => "BLPOP k 0".into(),
        1 => "BZPOPMIN k 0".into(),
        _ => "XREAD BLOCK 0 STREAMS k $".into(),
    });
    for line in [
        "SADD k x",
        "SET k x",
        "SELECT 1",
        "RPUSH k wrong",
        "SELECT 0",
        "DEL k",
    ] {
        control.ask(line);
    }
    await_blocked(&mut control, 3);
    control.ask("ZADD k 5 m");
    assert_eq!(clients[1].read(), "k m 5");
    control.ask("XADD k 1-1 f v");
    assert_eq!(clients[2].read(), "k 1-1 f v");
    control.ask("SELECT 1");
    control.ask("DEL k");
    control.ask("SELECT 0");
    control.ask("SET k v");
    control.ask("PEXPIRE k 1");
    eventually(|| control.ask("RPUSHX k x") == ":0");
    control.ask("RPUSH k y");
    assert_eq!(clients[0].read(), "k y");
}

#[test]
fn readers_of_groups_learn_that_these_are_gone() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let gone = "-UNBLOCKED the stream key no longer exists";
    let no_group = "-NOGROUP the consumer group this client was blocked on no longer exists";
    let cases: [(&[&str], &str); 9] = [
        (&["XGROUP DESTROY s g"], no_group),
        (&["DEL s"], gone),
        (&["UNLINK s"], gone),
        (&["SET s v"], gone),
        (&["RENAME s other"], gone),
        (&["FLUSHALL"], gone),
        (&["SWAPDB 0 1"], gone),
        (&["PEXPIRE s 1"], gone),
        (&["MULTI", "DEL s", "SADD s x", "EXEC"], gone),
    ];
    for (by, expected) in cases {
        control.ask("FLUSHALL");
        control.ask("XGROUP CREATE s g $ MKSTREAM");
        control.ask("XGROUP CREATE s stays $ MKSTREAM");
        block_all(&mut control, &mut clients[..4], |i| match i {
            0 | 1 => format!("XREADGROUP GROUP g c{i} BLOCK 0 STREAMS s >"),
            2 => "XREAD BLOCK 0 STREAMS s $".into(),
            _ => "XREADGROUP GROUP stays c BLOCK 0 STREAMS s >".into(),
        });
        by.iter().for_each(|line| drop(control.ask(line)));
        let got = clients[0].read();
        assert!(got.starts_with(expected), "{by:?}: {got}");
        let got = clients[1].read();
        assert!(got.starts_with(expected), "{by:?}: {got}");
        if expected == no_group {
            await_blocked(&mut control, 2);
            control.ask("XADD s 1-1 f v");
            assert_eq!(clients[3].read(), "s 1-1 f v");
        } else {
            let got = clients[3].read();
            assert!(got.starts_with(expected), "{by:?}: {got}");
            await_blocked(&mut control, 1);
            control.ask("DEL s");
            control.ask("XADD s 1-1 f v");
        }
        assert_eq!(clients[2].read(), "s 1-1 f v", "{by:?}");
    }
}

#[test]
fn waits_end_at_their_time() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let timeout = |i: usize| Duration::from_millis(20 + (i as u64 * 37) % 200);
    let sent: Vec<Instant> = clients
        .iter_mut()
        .enumerate()
        .map(|(i, client)| {
            let sent = Instant::now();
            let ms = timeout(i).as_millis();
            client.send(&match i % 4 {
                0 => format!("BLPOP a{i} b{i} 0.{ms:03}"),
                1 => format!("BZPOPMAX a{i} b{i} 0.{ms:03}"),
                2 => format!("XREAD BLOCK {ms} STREAMS a{i} b{i} $ $"),
                _ => format!("BLMOVE a{i} b{i} LEFT LEFT 0.{ms:03}"),
            });
            sent
        })
        .collect();
    for (i, client) in clients.iter_mut().enumerate() {
        let null = client.read();
        assert!(sent[i].elapsed() >= timeout(i), "{i} was too early");
        assert!(["*-1", "$-1"].contains(&&null[..]), "{null}");
    }
    await_blocked(&mut control, 0);
    assert_eq!(control.ask("RPUSH a0 x"), ":1");
}

#[test]
fn clients_are_unblocked_across_workers() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let ids: Vec<String> = clients.iter_mut().map(id).collect();
    block_all(&mut control, &mut clients, |i| match i % 3 {
        0 => "BLPOP k 0".into(),
        1 => "BZMPOP 0 2 k j MIN".into(),
        _ => "XREAD BLOCK 0 STREAMS k $".into(),
    });
    let mut left = clients.len();
    for (i, client) in clients.iter_mut().enumerate() {
        let id = &ids[i];
        if i % 2 == 0 {
            assert_eq!(control.ask(&format!("CLIENT UNBLOCK {id}")), ":1");
            assert_eq!(client.read(), "*-1");
        } else {
            assert_eq!(control.ask(&format!("CLIENT UNBLOCK {id} ERROR")), ":1");
            let error = client.read();
            assert_eq!(error, "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
        }
        assert_eq!(control.ask(&format!("CLIENT UNBLOCK {id}")), ":0");
        left -= 1;
        await_blocked(&mut control, left);
    }
    assert_eq!(control.ask("RPUSH k x"), ":1");
}

#[test]
fn the_disconnected_take_nothing() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let mut last = clients.remove(0);
    let mut ids: Vec<String> = clients.iter_mut().map(id).collect();
    block_all(&mut control, &mut clients, |i| match i % 2 {
        0 => format!("BLPOP k {}", i % 3 * 100),
        _ => format!("BLMOVE k other{i} LEFT LEFT {}", i % 3 * 100),
    });
    let others = clients.len();
    last.send("BLPOP k 0");
    await_blocked(&mut control, others + 1);
    let rest = clients.split_off(others / 2);
    drop(clients);
    await_blocked(&mut control, 1 + rest.len());
    for mut client in rest.into_iter().rev() {
        // The other half is closed by the server.
        control.ask(&format!("CLIENT KILL ID {}", ids.pop().expect("one each")));
        assert!(client.is_closed());
    }
    await_blocked(&mut control, 1);
    assert_eq!(control.ask("RPUSH k x"), ":1");
    assert_eq!(last.read(), "k x");
    assert_eq!(control.ask("DBSIZE"), ":0");
}

#[test]
fn what_is_sent_behind_a_wait_is_answered_after_it() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    block_all(&mut control, &mut clients, |i| {
        format!(
            "BLPOP a{i} 0\r\nECHO 1\r\nBLPOP b{i} 0.01\r\nMULTI\r\nBLPOP c{i} 0\r\nPING\r\nEXEC\r\n\
             BLPOP d{i} 0\r\nECHO 2"
        )
    });
    for i in 0..clients.len() {
        control.ask(&format!("RPUSH d{i} d"));
        control.ask(&format!("RPUSH a{i} a"));
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let expected = [&format!("a{i} a"), "1", "*-1", "+OK", "+QUEUED", "+QUEUED"];
        for reply in expected {
            assert_eq!(client.read(), *reply);
        }
        assert_eq!(client.read(), "*-1 +PONG");
        assert_eq!(client.read(), format!("d{i} d"));
        assert_eq!(client.read(), "2");
    }
}

#[test]
fn the_silenced_hear_nothing_of_their_wait() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    clients.truncate(12);
    block_all(&mut control, &mut clients, |i| match i % 3 {
        0 => "CLIENT REPLY OFF\r\nBLPOP k 0\r\nECHO no\r\nCLIENT REPLY ON".into(),
        1 => "CLIENT REPLY SKIP\r\nBLPOP k 0\r\nECHO yes".into(),
        _ => "CLIENT REPLY OFF\r\nBLPOP none 0.01\r\nBLPOP k 0\r\nCLIENT REPLY ON".into(),
    });
    for _ in 0..clients.len() {
        control.ask("RPUSH k x");
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(), ["+OK", "yes", "+OK"][i % 3]);
        assert_eq!(client.ask("PING"), "+PONG");
    }
}

const KEYS: usize = 6;
const PUSHERS: usize = 8;
const PUSHED: usize = 3000;

fn push(mut client: Client, pusher: usize) {
    let mut numbers = shuffled(pusher);
    let mut sent = 0;
    while sent < PUSHED {
        let n = numbers.next().expect("endless");
        let (key, count) = (n % KEYS, (1 + n / KEYS % 3).min(PUSHED - sent));
        let elements: Vec<String> = (sent..sent + count)
            .map(|i| (pusher * PUSHED + i).to_string())
            .collect();
        let elements = elements.join(" ");
        if (n / 64).is_multiple_of(4) {
            client.send(&format!("MULTI\r\nRPUSH key:{key} {elements}\r\nEXEC"));
            (0..2).for_each(|_| drop(client.read()));
        } else {
            client.send(&format!("LPUSH key:{key} {elements}"));
        }
        assert!(client.read().starts_with(':'));
        sent += count;
    }
}

/// Pops until it is told to stop; what it got.
fn pop(mut client: Client, popper: usize) -> Vec<usize> {
    let keys: Vec<String> = (0..KEYS)
        .map(|i| format!("key:{}", (i + popper) % KEYS))
        .collect();
    let all = keys.join(" ");
    let mut got = Vec::new();
    for round in popper.. {
        let reply = client.ask(&match round % 6 {
            0 => format!("BLMPOP 0 {KEYS} {all} LEFT COUNT 3"),
            1 => format!("BRPOP {all} 0.001"),
            2 => format!("BLMOVE {} {} LEFT RIGHT 0.001", keys[0], keys[1]),
            3 => format!("LPOP {} 2", keys[2]),
            _ => format!("BLPOP {all} 0"),
        });
        let mut elements = reply
            .split(' ')
            .filter(|word| !word.starts_with(['k', '*', '$']));
        let stops = elements.clone().filter(|word| *word == "stop").count();
        if round % 6 == 2 {
            // It is still there, in another list.
            continue;
        }
        got.extend(
            elements
                .by_ref()
                .filter_map(|word| word.parse::<usize>().ok()),
        );
        for _ in 1..stops {
            client.ask("RPUSH key:0 stop");
        }
        if stops > 0 {
            break;
        }
    }
    got
}

#[test]
fn a_transaction_that_holds_the_key_ends_the_wait_for_it() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let mut client = clients.remove(0);
    let id = client.ask("CLIENT ID").replace(':', "");
    client.send("BLPOP key 0");
    await_blocked(&mut control, 1);
    let lines = [
        "MULTI",
        &format!("CLIENT UNBLOCK {id}"),
        "RPUSH key x",
        "EXEC",
    ];
    let replies: Vec<String> = lines.iter().map(|line| control.ask(line)).collect();
    assert_eq!(replies, ["+OK", "+QUEUED", "+QUEUED", ":1 :1"]);
    assert_eq!(client.read(), "*-1");
    assert_eq!(control.ask("LLEN key"), ":1");
}

#[test]
fn a_wait_is_counted_as_redis_counts_it() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let mut client = clients.remove(0);
    let id = client.ask("CLIENT ID").replace(':', "");
    let counts = |control: &mut Client| {
        let text = control.ask("INFO commandstats");
        let line = text.lines().find(|l| l.starts_with("cmdstat_blpop:"));
        let line = line.expect("it was called").replace(':', ",");
        let field = |name: &str| {
            let mut fields = line.split(',');
            let value = fields.find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
            value.expect("the field").parse::<u64>().expect("a number")
        };
        (field("calls"), field("failed_calls"))
    };
    // One call from the moment it waits; how that ends makes it none more.
    client.send("BLPOP key 0");
    await_blocked(&mut control, 1);
    assert_eq!(counts(&mut control), (1, 0));
    assert_eq!(control.ask("RPUSH key x"), ":1");
    assert_eq!(client.read(), "key x");
    assert_eq!(counts(&mut control), (1, 0));
    assert_eq!(client.ask("BLPOP key 0.01"), "*-1");
    assert_eq!(counts(&mut control), (2, 0));
    // A wait that CLIENT UNBLOCK ends has failed, with an error or without.
    for (reason, reply) in [
        ("TIMEOUT", "*-1"),
        ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ] {
        client.send("BLPOP key 0");
        await_blocked(&mut control, 1);
        assert_eq!(control.ask(&format!("CLIENT UNBLOCK {id} {reason}")), ":1");
        assert_eq!(client.read(), reply);
    }
    assert_eq!(counts(&mut control), (4, 2));
}

#[test]
fn every_element_is_popped_once() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut control = clients.remove(0);
    let poppers: Vec<_> = (0..PUSHERS)
        .map(|i| {
            let client = clients.remove(0);
            std::thread::spawn(move || pop(client, i))
        })
        .collect();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|i| {
            let client = clients.remove(0);
            std::thread::spawn(move || push(client, i))
        })
        .collect();
    for pusher in pushers {
        pusher.join().expect("all pushed");
    }
    for _ in 0..PUSHERS {
        control.ask("RPUSH key:0 stop");
    }
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for popper in poppers {
        for element in popper.join().expect("all popped") {
            *seen.entry(element).or_default() += 1;
        }
    }
    // What the last one left behind when it was told to stop.
    for key in 0..KEYS {
        let rest = control.ask(&format!("LRANGE key:{key} 0 -1"));
        for element in rest.split(' ').filter_map(|word| word.parse().ok()) {
            *seen.entry(element).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), PUSHERS * PUSHED, "elements were lost");
    assert!(seen.values().all(|times| *times == 1), "popped twice");
    await_blocked(&mut control, 0);
}
