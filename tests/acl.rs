//! Users over sockets: what they may do on every worker, from the moment on in which somebody was told of it;
//! who is closed; and what files hold.
//!
//! What is expected holds for a real Redis too (`SERVER_UNDER_TEST=redis-server`), but for what is said to
//! go further.

mod sockets;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sockets::{Client, Server, eventually, on_both_workers, under_test};

const WORKERS: [&str; 2] = ["--io-threads", "2"];

const NO_KEY: &str =
    "-NOPERM this user has no permissions to access one of the keys used as arguments";

/// Asks for lines; each is to be answered by this.
#[track_caller]
fn all_answer(client: &mut Client, lines: &[&str], expected: &str) {
    for line in lines {
        assert_eq!(client.ask(line), expected, "{line}");
    }
}

#[test]
fn what_is_checked_are_the_keys_that_commands_touch() {
    let server = Server::start(&WORKERS);
    let mut client = server.client();
    let user = "ACL SETUSER u on nopass +@all %R~r* %W~w* ~b* &*";
    assert_eq!(client.ask(user), "+OK");
    client.ask("RPUSH secret 1 2");
    client.ask("RPUSH rlist 1 2");
    client.ask("GEOADD rgeo 1 1 a");
    assert_eq!(client.ask("AUTH u x"), "+OK");
    all_answer(
        &mut client,
        &[
            "SORT secret",
            "SORT_RO secret",
            "SORT rlist STORE secret",
            "SORT rlist STORE w1 STORE secret",
            "COPY secret b1",
            "COPY rlist rlist",
            "GEORADIUS rgeo 1 1 1 km STORE secret",
            "GEORADIUS rgeo 1 1 1 km WITHCOORD STOREDIST secret",
            "GEORADIUSBYMEMBER rgeo a 1 km STORE rgeo",
            "XREAD STREAMS r1 secret 0 0",
            "XREAD COUNT 1 STREAMS secret 0",
            "XREADGROUP GROUP g c COUNT 1 STREAMS secret >",
            "SET w1 x GET",
            "BITFIELD rlist SET u8 0 1",
            "BITFIELD w1 GET u8 0",
            "ZUNIONSTORE w1 2 r1 secret",
            "LMPOP 2 b1 secret LEFT",
            "BLMPOP 0 1 secret LEFT",
            "MIGRATE 127.0.0.1 1 \"\" 0 1 KEYS b1 secret",
            "GETEX rlist",
            "RENAME rlist w1",
            "PFCOUNT r1 secret",
            "MSET w1 1 secret 2",
        ],
        NO_KEY,
    );
    let by = "-ERR BY option of SORT denied due to insufficient ACL permissions.";
    all_answer(
        &mut client,
        &["SORT rlist BY sec*", "SORT_RO rlist BY sec*"],
        by,
    );
    let get = "-ERR GET option of SORT denied due to insufficient ACL permissions.";
    all_answer(
        &mut client,
        &["SORT rlist GET sec*", "SORT rlist BY nosort GET #"],
        get,
    );
    assert_eq!(client.ask("SORT rlist STORE w1"), ":2");
    assert_eq!(client.ask("GEORADIUS rgeo 1 1 1 km STORE w2"), ":1");
    assert_eq!(client.ask("COPY rlist w3"), ":1");
    assert_eq!(
        client.ask("BITFIELD rlist GET u8 0"),
        "-WRONGTYPE Operation against a key holding the wrong kind of value"
    );
    // Within a transaction too, when it is queued and when it is run.
    assert_eq!(client.ask("MULTI"), "+OK");
    assert_eq!(client.ask("GET secret"), NO_KEY);
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.ask("MULTI"), "+OK");
    all_answer(&mut client, &["LLEN rlist", "SORT rlist GET r*"], "+QUEUED");
    let exec = client.ask("EXEC");
    assert!(exec.starts_with(":2 -ERR GET option"), "{exec}");
    // Who may read whatever there is may follow names.
    let mut admin = server.client();
    assert_eq!(admin.ask("ACL SETUSER u (+sort %R~*)"), "+OK");
    assert_eq!(client.ask("SORT rlist GET x*"), "$-1 $-1");
}

#[test]
fn queued_commands_are_checked_when_they_run() {
    let server = Server::start(&WORKERS);
    let (mut client, mut admin) = (server.client(), server.client());
    admin.ask("ACL SETUSER u on nopass +@all ~* &*");
    client.ask("AUTH u x");
    client.ask("MULTI");
    all_answer(
        &mut client,
        &["SET a 1", "PUBLISH c m", "INCR k", "PING"],
        "+QUEUED",
    );
    admin.ask("ACL SETUSER u resetkeys ~k* resetchannels -set");
    let changed = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the \
                   EXEC call. This command is no longer allowed for the following reason: ";
    let expected = format!(
        "{changed}no permission to execute the command or subcommand {changed}no permission to access \
         one of the channels used as arguments to the command :1 +PONG"
    );
    assert_eq!(client.ask("EXEC"), expected);
    let log = admin.ask("ACL LOG");
    assert!(
        log.contains("reason channel context multi object c username u"),
        "{log}"
    );
    assert!(
        log.contains("reason command context multi object set username u"),
        "{log}"
    );
}

/// One client takes a right away and gives it back; another one, on the other worker, asks as soon as it has
/// heard of that, and must find it so.
#[test]
fn a_change_counts_from_its_answer_on() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut admin = clients.remove(0);
    admin.ask("ACL SETUSER u on nopass +@all ~* &*");
    for client in &mut clients {
        assert_eq!(client.ask("AUTH u x"), "+OK");
    }
    for round in 0..400 {
        let allowed = round % 2 == 0;
        let rules = match round % 4 {
            0 => "+get",
            1 => "-get",
            2 => "allkeys",
            _ => "resetkeys",
        };
        // Both are given, or one is taken away.
        let set = format!("ACL SETUSER u +get resetkeys allkeys {rules}");
        assert_eq!(admin.ask(&set), "+OK");
        let client = &mut clients[round * 7 % 79];
        let reply = client.ask("GET a");
        assert_eq!(reply == "$-1", allowed, "{rules}: {reply}");
    }
}

/// Rights that are changed all the time while clients ask: nobody gets what was taken away before it asked.
#[test]
fn nobody_uses_a_right_that_was_taken_before() {
    let server = Server::start(&WORKERS);
    let mut admin = server.client();
    admin.ask("ACL SETUSER u on nopass +@all ~* &*");
    // Even: allowed from before the number was set on. Odd: refused.
    let (state, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let askers: Vec<_> = on_both_workers(&server).into_iter().step_by(10).collect();
    let threads: Vec<_> = askers
        .into_iter()
        .map(|mut client| {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            std::thread::spawn(move || {
                assert_eq!(client.ask("AUTH u x"), "+OK");
                let mut judged = 0;
                while !stop.load(Ordering::SeqCst) {
                    let before = state.load(Ordering::SeqCst);
                    let refused = client.ask("GET a").starts_with("-NOPERM");
                    // Nothing was begun to be changed meanwhile.
                    if before < u64::MAX && state.load(Ordering::SeqCst) == before {
                        assert_eq!(refused, before % 2 == 1);
                        judged += 1;
                    }
                }
                judged
            })
        })
        .collect();
    for round in 1..=300_u64 {
        state.store(u64::MAX, Ordering::SeqCst);
        let rule = if round % 2 == 1 { "-get" } else { "+get" };
        assert_eq!(admin.ask(&format!("ACL SETUSER u {rule}")), "+OK");
        state.store(round, Ordering::SeqCst);
        assert_eq!(admin.ask("PING"), "+PONG");
    }
    stop.store(true, Ordering::SeqCst);
    let judged: u64 = threads
        .into_iter()
        .map(|t| t.join().expect("no wrong answer"))
        .sum();
    assert!(judged > 0);
}

#[test]
fn clients_go_with_their_user_or_their_channels() {
    let server = Server::start(&WORKERS);
    let mut clients = on_both_workers(&server);
    let mut admin = clients.remove(0);
    admin.ask("ACL SETUSER u on nopass +@all ~* &a* &b");
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask("AUTH u x"), "+OK");
        match i % 4 {
            0 => assert_eq!(client.ask("SUBSCRIBE ax"), "subscribe ax :1"),
            1 => assert_eq!(client.ask("PSUBSCRIBE a*"), "psubscribe a* :1"),
            2 => assert_eq!(client.ask("SSUBSCRIBE b"), "ssubscribe b :1"),
            _ => {}
        }
    }
    // More channels, or as many, close nobody.
    admin.ask("ACL SETUSER u &c");
    let subscribed = |admin: &mut Client| admin.ask("PUBSUB NUMSUB ax");
    assert_eq!(subscribed(&mut admin), "ax :20");
    admin.ask("ACL SETUSER u resetchannels &ax &b");
    eventually(|| admin.ask("PUBSUB NUMPAT") == ":0");
    assert_eq!(subscribed(&mut admin), "ax :20");
    assert_eq!(admin.ask("PUBSUB SHARDNUMSUB b"), "b :20");
    admin.ask("ACL SETUSER u resetchannels");
    eventually(|| subscribed(&mut admin) == "ax :0");
    eventually(|| admin.ask("PUBSUB SHARDNUMSUB b") == "b :0");
    // Those without subscriptions are there still.
    assert_eq!(clients[3].ask("PING"), "+PONG");
    assert_eq!(
        admin.ask("CLIENT KILL USER nobody"),
        "-ERR No such user 'nobody'"
    );
    assert_eq!(admin.ask("ACL DELUSER u nobody"), ":1");
    for mut client in clients {
        assert!(client.is_closed());
    }
    // Who removes itself is told so.
    admin.ask("ACL SETUSER v on nopass +@all");
    let mut suicidal = server.client();
    suicidal.ask("AUTH v x");
    assert_eq!(suicidal.ask("ACL DELUSER v"), ":1");
    assert!(suicidal.is_closed());
    eventually(|| !admin.ask("CLIENT LIST").contains("user=u"));
}

#[test]
fn who_waits_is_closed_with_its_user() {
    let server = Server::start(&WORKERS);
    let (mut waiting, mut admin) = (server.client(), server.client());
    admin.ask("ACL SETUSER u on nopass +@all ~*");
    waiting.ask("AUTH u x");
    waiting.send("BLPOP list 0");
    eventually(|| admin.ask("INFO clients").contains("blocked_clients:1\r\n"));
    assert_eq!(admin.ask("ACL DELUSER u"), ":1");
    assert!(waiting.is_closed());
    eventually(|| admin.ask("INFO clients").contains("blocked_clients:0\r\n"));
}

/// A directory, and its path.
fn directory() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a path in UTF-8").to_owned();
    (dir, path)
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("room");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn a_file_of_users_is_loaded_as_a_whole_or_not_at_all() {
    let (dir, path) = directory();
    let good = "user alice on nopass +@all ~*\r\n\n  user bob on >p +get (+set ~x)\n";
    let file = write(dir.path(), "users", good);
    let server = Server::start(&["--dir", &path, "--aclfile", &file]);
    let mut admin = server.client();
    assert_eq!(admin.ask("ACL USERS"), "alice bob default");
    let (mut alice, mut bob) = (server.client(), server.client());
    assert_eq!(alice.ask("AUTH alice x"), "+OK");
    assert_eq!(bob.ask("AUTH bob p"), "+OK");
    let before = admin.ask("ACL LIST");
    let bad = "user alice off\nuser carl on +nosuch +@none ~x ~y allkeys ~z %z\nuser alice on\nuser\n# no\n\
               user d (+get\nuser e on >p\n";
    write(dir.path(), "users", bad);
    let error = admin.ask("ACL LOAD");
    for part in [
        "-ERR ",
        "users:2: Error in applying operation '+nosuch': Unknown command or category name in ACL. ",
        "users:2: Error in applying operation '+@none': ",
        "users:2: Adding a pattern after the * pattern",
        "WARNING: Duplicate user 'alice' found on line 3. ",
        "users:4 should start with user keyword followed by the username. ",
        "users:5 should start with user keyword",
        "WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(error.matches("users:2: Adding").count(), 1, "{error}");
    assert_eq!(admin.ask("ACL LIST"), before);
    assert_eq!(
        bob.ask("GET a"),
        "-NOPERM this user has no permissions to access one of the keys used as arguments"
    );
    // What is loaded closes the clients of all users but the default one.
    assert_eq!(admin.ask("ACL SETUSER eve on"), "+OK");
    assert_eq!(admin.ask("ACL SAVE"), "+OK");
    assert_eq!(admin.ask("ACL SETUSER eve off"), "+OK");
    assert_eq!(alice.ask("ACL LOAD"), "+OK");
    assert!(alice.is_closed() && bob.is_closed());
    let text = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(admin.ask("ACL LIST"), text.trim_end().replace('\n', " "));
    assert!(text.contains("user eve on "), "{text}");
    std::fs::remove_file(&file).expect("a file");
    let error = admin.ask("ACL LOAD");
    assert!(
        error.starts_with("-ERR Error loading ACLs, opening file '"),
        "{error}"
    );
    assert!(error.ends_with("': No such file or directory"), "{error}");
    // A server does not start without them.
    let options = ["--dir", &path, "--aclfile", &file, "--logfile", "log"];
    assert!(Server::try_start(&under_test(), &[], &options).is_none());
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    assert!(
        log.contains("Aborting Redis startup because of ACL errors: Error loading ACLs"),
        "{log}"
    );
}

#[test]
fn rows_of_users_are_read_and_written() {
    let (dir, path) = directory();
    let file = write(
        dir.path(),
        "redis.conf",
        "user alice on >p +get ~a* &c (+set ~b)\nrequirepass old\nuser default on >new +@all ~* &*\n",
    );
    let server = Server::start_with(&[&file], &["--dir", &path]);
    let mut client = server.client();
    assert_eq!(client.ask("PING"), "-NOAUTH Authentication required.");
    assert!(client.ask("AUTH old").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH new"), "+OK");
    assert_eq!(client.ask("ACL SETUSER bob on nopass +@all -@admin"), "+OK");
    let users = client.ask("ACL LIST");
    assert_eq!(client.ask("CONFIG REWRITE"), "+OK");
    drop(server);
    let server = Server::start_with(&[&file], &["--dir", &path]);
    let mut client = server.client();
    assert_eq!(client.ask("AUTH default new"), "+OK");
    assert_eq!(client.ask("ACL LIST"), users);
    // Twice is as once.
    assert_eq!(client.ask("CONFIG REWRITE"), "+OK");
    let text = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(text.matches("user alice").count(), 1, "{text}");
    assert_eq!(text.matches("user bob").count(), 1, "{text}");
}

/// Further than Redis goes, which writes such users into the file that includes them and does not start
/// with that any more.
#[test]
fn users_of_an_included_file_are_not_doubled() {
    let (dir, path) = directory();
    let included = write(
        dir.path(),
        "users.conf",
        "user alice on >p +get ~a*\nuser bob off\n",
    );
    let text = format!("include {included}\nport 0\n");
    let file = write(dir.path(), "redis.conf", &text);
    let server = Server::start_with(&[&file], &["--dir", &path]);
    let mut client = server.client();
    let read = || std::fs::read_to_string(&file).expect("a file");
    assert_eq!(client.ask("CONFIG REWRITE"), "+OK");
    assert!(
        !read().contains("user alice") && read().contains("user default"),
        "{}",
        read()
    );
    // One that was changed is written, and counts.
    assert_eq!(client.ask("ACL SETUSER bob on nopass"), "+OK");
    assert_eq!(client.ask("CONFIG REWRITE"), "+OK");
    assert!(
        !read().contains("user alice") && read().contains("user bob on nopass"),
        "{}",
        read()
    );
    drop(server);
    let server = Server::start_with(&[&file], &["--dir", &path]);
    let mut client = server.client();
    assert_eq!(client.ask("ACL USERS"), "alice bob default");
    assert!(client.ask("ACL LIST").contains("user bob on nopass"));
    assert_eq!(client.ask("CONFIG REWRITE"), "+OK");
    assert_eq!(read().matches("user bob").count(), 1, "{}", read());
}

#[test]
fn rows_that_are_wrong_keep_a_server_from_starting() {
    let (dir, path) = directory();
    for (text, expected) in [
        (
            "user alice on foo",
            "Error in user declaration 'alice': Syntax error",
        ),
        (
            "user alice on\nuser alice on",
            "Error in user declaration 'alice': Duplicate user found.",
        ),
    ] {
        let file = write(dir.path(), "redis.conf", text);
        let mut server = std::process::Command::new(under_test());
        let output = server
            .arg(&file)
            .args(["--port", "0"])
            .output()
            .expect("the program");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(expected),
            "{told}"
        );
    }
    for (text, expected) in [
        (
            "user alice on +nosuch",
            "Error loading ACL rule '+nosuch' for the user named 'alice': Unknown command",
        ),
        ("user \"a b\" on", "Spaces not allowed in ACL usernames"),
        (
            "aclfile x\nuser alice on",
            "Configuring Redis with users defined in redis.conf and at",
        ),
    ] {
        let file = write(dir.path(), "redis.conf", text);
        std::fs::write(dir.path().join("log"), "").expect("room");
        let options = ["--dir", &path, "--logfile", "log"];
        assert!(Server::try_start(&under_test(), &[&file], &options).is_none());
        let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn passwords_are_asked_for_as_the_default_user_says() {
    let server = Server::start(&WORKERS);
    let (mut early, mut admin) = (server.client(), server.client());
    assert_eq!(early.ask("PING"), "+PONG");
    assert_eq!(admin.ask("ACL SETUSER default off"), "+OK");
    // Who came before is served still; who comes now is not.
    assert_eq!(early.ask("PING"), "+PONG");
    let mut late = server.client();
    assert_eq!(late.ask("PING"), "-NOAUTH Authentication required.");
    assert!(
        late.ask("HELLO 3")
            .starts_with("-NOAUTH HELLO must be called")
    );
    assert_eq!(admin.ask("ACL SETUSER default on >p"), "+OK");
    assert_eq!(late.ask("GET a"), "-NOAUTH Authentication required.");
    assert!(
        late.ask("HELLO 2 AUTH default p")
            .starts_with("server redis")
    );
    assert_eq!(late.ask("GET a"), "$-1");
    let mut unsaid = server.client();
    assert_eq!(unsaid.ask("GET a"), "-NOAUTH Authentication required.");
    assert_eq!(admin.ask("ACL SETUSER default nopass"), "+OK");
    assert_eq!(unsaid.ask("GET a"), "$-1");
}

/// A replica that says a user and a password which may do what replicas do, and applies what it is sent
/// although its own users may do nothing.
#[test]
fn replicas_log_in_and_are_not_checked() {
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let mut admin = primary.client();
    admin.ask("ACL SETUSER repl on >p +psync +replconf +ping");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port().to_string();
    drop(socket);
    assert_eq!(admin.ask(&format!("CONFIG SET port {port}")), "+OK");
    let to = [
        "--replicaof",
        "127.0.0.1",
        &port,
        "--masteruser",
        "repl",
        "--masterauth",
        "p",
    ];
    let replica = Server::start(&to);
    let mut client = replica.client();
    client.ask("ACL SETUSER reader on nopass +get ~*");
    client.ask("ACL SETUSER default resetkeys -@all +auth");
    assert_eq!(client.ask("AUTH reader x"), "+OK");
    admin.ask("SET a 1");
    eventually(|| client.ask("GET a") == "1");
}

#[test]
fn a_script_may_ask_about_requests_that_lack_their_keys() {
    let server = Server::start(&WORKERS);
    let mut client = server.client();
    assert_eq!(client.ask("ACL SETUSER u on nopass ~app:* +@all"), "+OK");
    assert_eq!(client.ask("AUTH u x"), "+OK");
    for command in [
        "georadius",
        "georadiusbymember",
        "sort",
        "sort_ro",
        "migrate",
        "get",
    ] {
        let script = format!("return tostring(redis.acl_check_cmd('{command}'))");
        client.send_args(&["EVAL", &script, "0"]);
        let reply = client.read();
        assert!(
            ["true", "false"].contains(&&reply[..]) || reply.starts_with('-'),
            "{reply}"
        );
    }
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn what_one_client_may_read_says_nothing_of_the_next() {
    let server = Server::start(&["--io-threads", "1", "--enable-debug-command", "yes"]);
    let (mut limited, mut free) = (server.client(), server.client());
    assert_eq!(free.ask("RPUSH l 1 2"), ":2");
    assert_eq!(free.ask("ACL SETUSER u on nopass ~l +@all"), "+OK");
    assert_eq!(limited.ask("AUTH u x"), "+OK");
    assert_eq!(limited.ask("MULTI"), "+OK");
    // What comes while all stands still is served in one turn, in this order.
    let mut other = server.client();
    assert_eq!(other.ask("PING"), "+PONG");
    other.send("DEBUG SLEEP 0.1");
    limited.send("SORT l BY w_*");
    free.send("SORT l BY w_* GET d_*");
    assert_eq!(limited.read(), "+QUEUED");
    assert_eq!(free.read(), "$-1 $-1");
}

#[test]
fn no_password_of_hello_is_shown() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let mut client = server.client();
    assert_eq!(client.ask("ACL SETUSER u on >secret +@all"), "+OK");
    client.ask("HELLO 2 SETNAME auth AUTH u secret");
    client.ask("HELLO 2 AUTH x secret AUTH u secret");
    let log = client.ask("SLOWLOG GET 10");
    assert!(
        log.contains("(redacted)") && !log.contains("secret"),
        "{log}"
    );
}
