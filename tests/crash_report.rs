//! What the server leaves in its log when a fatal signal ends it.

mod sockets;

use sockets::{Server, eventually};

#[test]
fn a_fatal_signal_leaves_the_names_of_functions_registers_and_what_workers_ran() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a path in UTF-8");
    let options = ["--dir", path, "--logfile", "log", "--io-threads", "2"];
    let mut server = Server::start(&[&options[..], &["--enable-debug-command", "yes"]].concat());
    server.client().send("DEBUG SEGFAULT");
    eventually(|| server.has_ended());
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    let part = |title: &str| {
        let from = log.find(&format!("------ {title} ------")).expect(title);
        let text = &log[from + title.len() + 14..];
        text.split("\n------ ").next().unwrap_or_default()
    };
    let stack = part("STACK TRACE");
    let mut named = stack.lines().filter(|line| line.contains("debug.rs:"));
    assert!(named.any(|line| line.contains(" segfault at ")), "{stack}");
    assert!(stack.contains("run at "), "the worker's loop: {stack}");
    assert!(part("REGISTERS").lines().count() > 4);
    assert_eq!(part("WORKERS").matches("command=debug").count(), 1);
    assert_eq!(part("WORKERS").matches("command=none").count(), 1);
    assert!(log.contains("crashed by signal: 11"));
}
