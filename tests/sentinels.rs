//! Groups of real sentinels over real servers: a master is killed, and everything that is to follow does.
//! Ours alone, and together with one of a real Redis.

mod replicas;
mod sockets;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use replicas::{Server, free_port};
use sockets::{eventually, under_test};

/// A sentinel; it ends with its test.
struct Sentinel {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let (port, last) = (self.port, sockets::last_lines(&self.log));
            eprintln!("the sentinel at {port} logged at last:\n{last}");
        }
    }
}

/// Asks whoever listens on a port; empty where nobody does.
fn ask(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .output();
    let output = output.expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Sentinel {
    /// One of a group in which `quorum` have to agree.
    fn start(program: &OsStr, folder: &Path, master: &Server, quorum: usize) -> Self {
        let port = free_port();
        let file = folder.join(format!("{port}.conf"));
        let log = folder.join(format!("{port}.log"));
        let script = folder.join("notify").display().to_string();
        let text = format!(
            "# kept\nport {port}\nlogfile {}\nsentinel monitor group 127.0.0.1 {} {quorum}\n\
             sentinel down-after-milliseconds group 1500\nsentinel failover-timeout group 10000\n\
             sentinel notification-script group {script}\n",
            log.display(),
            master.port,
        );
        fs::write(&file, text).expect("the folder is there");
        let process = Command::new(program)
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.expect("it can be started");
        let started = Self { process, port, log };
        eventually(|| ask(port, &["PING"]) == "PONG");
        started
    }

    fn master(&self) -> Option<u16> {
        let told = ask(self.port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "group"]);
        told.lines().nth(1)?.parse().ok()
    }
}

fn role(port: u16) -> String {
    ask(port, &["ROLE"])
}

/// A folder with the script that notes what sentinels tell it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (script, notes) = (folder.path().join("notify"), folder.path().join("notes"));
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n", notes.display());
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

fn survives(programs: &[OsString]) {
    let folder = folder();
    let notes = folder.path().join("notes");
    let options = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
    let mut master = Server::start(&under_test(), &options);
    let place = format!("127.0.0.1 {}", master.port);
    let replicas: Vec<Server> = (0..2)
        .map(|_| {
            Server::start(
                &under_test(),
                &[&options[..], &["--replicaof", &place]].concat(),
            )
        })
        .collect();
    eventually(|| {
        replicas
            .iter()
            .all(|replica| role(replica.port).contains("connected"))
    });
    let group: Vec<Sentinel> = programs
        .iter()
        .map(|program| Sentinel::start(program, folder.path(), &master, 2))
        .collect();
    let knows_all = |sentinel: &Sentinel| {
        let told = ask(sentinel.port, &["INFO", "sentinel"]);
        told.contains("slaves=2,sentinels=3")
    };
    eventually(|| group.iter().all(knows_all));

    assert_eq!(ask(master.port, &["SET", "key", "value"]), "OK");
    eventually(|| {
        replicas
            .iter()
            .all(|replica| ask(replica.port, &["GET", "key"]) == "value")
    });
    let old = master.port;
    master.kill();
    eventually(|| {
        group
            .iter()
            .all(|sentinel| sentinel.master().is_some_and(|port| port != old))
    });
    let new = group[0].master().expect("it was told");
    assert!(group.iter().all(|sentinel| sentinel.master() == Some(new)));
    assert_eq!(ask(new, &["GET", "key"]), "value");
    eventually(|| {
        fs::read_to_string(&notes).is_ok_and(|told| told.contains("+switch-master group"))
    });

    let port = old.to_string();
    master.launch_again(&[&options[..], &["--port", &port]].concat());
    let follows = |port: u16| role(port).contains(&format!("slave\n127.0.0.1\n{new}"));
    eventually(|| follows(old) && replicas.iter().all(|r| r.port == new || follows(r.port)));
    let text = fs::read_to_string(folder.path().join(format!("{}.conf", group[0].port)));
    let text = text.expect("it was written");
    assert!(text.starts_with("# kept\n"), "{text}");
    assert!(
        text.contains(&format!("sentinel monitor group 127.0.0.1 {new} 2")),
        "{text}"
    );
}

#[test]
fn a_master_is_replaced_and_follows_when_it_is_back() {
    survives(&[under_test(), under_test(), under_test()]);
}

#[test]
fn together_with_one_of_a_real_redis() {
    if replicas::is_redis_installed() {
        survives(&[under_test(), under_test(), "redis-server".into()]);
    }
}

#[test]
fn a_redis_that_has_loaded_its_append_only_file_can_be_promoted() {
    if !replicas::is_redis_installed() {
        return;
    }
    let folder = folder();
    let redis = OsStr::new("redis-server");
    let options = ["--repl-diskless-sync-delay", "0", "--appendonly", "yes"];
    let mut master = Server::start(redis, &options);
    let place = format!("127.0.0.1 {}", master.port);
    let mut replica = Server::start(redis, &[&options[..], &["--replicaof", &place]].concat());
    assert_eq!(ask(master.port, &["SET", "key", "value"]), "OK");
    eventually(|| ask(replica.port, &["GET", "key"]) == "value");
    let sentinel = Sentinel::start(&under_test(), folder.path(), &master, 1);
    // It has seen that the replica has the master's data, and from what history it is.
    eventually(|| {
        let told = ask(sentinel.port, &["SENTINEL", "REPLICAS", "group"]);
        told.contains("master-link-status\nok")
    });
    // A Redis writes its file anew after a copy, and defers writing what follows while the file is synced.
    let idle = [
        "aof_rewrite_in_progress:0",
        "aof_rewrite_scheduled:0",
        "aof_buffer_length:0",
    ];
    eventually(|| {
        let told = ask(replica.port, &["INFO", "persistence"]);
        idle.iter().all(|word| told.contains(word))
    });
    master.kill();
    // A Redis that loads its data from there begins a new history.
    replica.restart(&[]);
    eventually(|| sentinel.master() == Some(replica.port));
    assert_eq!(ask(replica.port, &["GET", "key"]), "value");
}
