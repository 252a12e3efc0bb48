//! CONFIG GET, CONFIG SET and CONFIG REWRITE as a client sees them.

use super::*;

fn config() -> Config {
    Config::new(Settings::default(), None)
}

fn get(config: &Config, name: &str) -> String {
    let found = config.get(&[name.as_bytes()]);
    assert_eq!(found.len(), 1, "{name}");
    String::from_utf8(found[0].1.clone()).unwrap()
}

fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<(), SetError> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
        .collect();
    config.set(&pairs, Caller::default(), &mut |_, _| Ok(()))
}

#[track_caller]
fn check(name: &str, value: &str, expected: &str) {
    let config = config();
    set(&config, &[(name, value)]).unwrap_or_else(|error| panic!("{name} {value:?}: {error:?}"));
    assert_eq!(get(&config, name), expected, "{name} {value:?}");
}

#[track_caller]
fn check_error(pairs: &[(&str, &str)], expected: &str) {
    let config = config();
    let error = set(&config, pairs).expect_err("must be refused");
    assert_eq!(
        String::from_utf8(error.reply()).unwrap(),
        expected,
        "{pairs:?}"
    );
    assert_eq!(config.version(), 0, "{pairs:?}");
}

/// `pairs` fail because of the parameter `name`.
#[track_caller]
fn check_reason(name: &str, value: &str, reason: &str) {
    let expected =
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
    check_error(&[(name, value)], &expected);
}

#[test]
fn names_and_aliases() {
    let config = config();
    let all = config.get(&[b"*"]);
    let ours = [
        "admin-port",
        "admin-bind",
        "auto-failover-on-shutdown",
        "cluster-form-service",
        "cluster-form-primaries",
        "cluster-slot-migration-log-max-len",
        "lua-memory-limit",
        "script-kill-rollback",
        "slot-migration-max-failover-repl-bytes",
    ];
    let theirs = all.iter().filter(|(name, _)| !ours.contains(&&**name));
    assert_eq!(theirs.count(), 192, "as many as Redis 7.0.15 lists");
    assert!(!all.iter().any(|(name, _)| name == "watchdog-period"));
    assert_eq!(get(&config, "watchdog-period"), "0");
    assert_eq!(config.get(&[b"watchdog*"]), []);
    let names = |patterns: &[&[u8]]| -> Vec<String> {
        config
            .get(patterns)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    };
    assert_eq!(names(&[b"PORT", b"port", b"por*"]), ["PORT"]);
    assert_eq!(
        names(&[b"S*PRIORITY", b"*-priority"]),
        ["slave-priority", "replica-priority"]
    );
    assert_eq!(names(&[b"nope", b"nope*"]), [""; 0]);
    for (index, param) in PARAMS.iter().enumerate() {
        for name in std::iter::once(param.name).chain(param.alias) {
            let first = PARAMS
                .iter()
                .position(|p| p.name == name || p.alias == Some(name));
            assert_eq!(first, Some(index), "{name} is used twice");
        }
    }
}

/// What CONFIG GET prints, CONFIG SET and a file accept, and it stays the same.
#[test]
fn every_value_can_be_set_to_itself() {
    let config = config();
    for param in PARAMS {
        let text = String::from_utf8(param.print(params::defaults())).unwrap();
        let mut settings = Settings::default();
        let args = split_value(param, text.as_bytes());
        if param.name != "replicaof" {
            param
                .set(&mut settings, &args, &mut Origin::default())
                .unwrap();
        }
        assert_eq!(param.print(&settings), text.as_bytes(), "{}", param.name);
        if !param.flags.has(Flags::IMMUTABLE) && !param.flags.has(Flags::PROTECTED) {
            set(&config, &[(param.name, &text)]).unwrap();
            assert_eq!(get(&config, param.name), text);
        }
    }
}

#[test]
fn values_print_as_redis_prints_them() {
    check("maxmemory", "1kb", "1024");
    check("MaxMemory", "2g", "2000000000");
    check("maxmemory", "18446744073709551615", "18446744073709551615");
    check("maxmemory-clients", "5%", "5%");
    check("maxmemory-clients", "1mb", "1048576");
    check("maxmemory-policy", "ALLKEYS-LRU", "allkeys-lru");
    check("oom-score-adj", "relative", "yes");
    check("hz", "0", "1");
    check("hz", "100000", "500");
    check("repl-backlog-size", "1", "16384");
    check("slave-priority", "7", "7");
    check("save", "", "");
    check("save", "900 1 300 10", "900 1 300 10");
    check("notify-keyspace-events", "KEA$m", "AKEm");
    check("oom-score-adj-values", "1 2 3", "1 2 3");
    check(
        "latency-tracking-info-percentiles",
        "50 0.1234567 100",
        "50 0.123457 100",
    );
    check("latency-tracking-info-percentiles", "", "");
    check("shutdown-on-sigint", "FORCE now default", "now force");
    check("bind", "", "");
    check("requirepass", "a\0b", "a\0b");
    check("masteruser", "a\0b", "a");
    check("proc-title-template", "{{", "{{");
    check(
        "client-output-buffer-limit",
        "replica 1k 2kb 3 NORMAL 1 1 1",
        "normal 1 1 1 slave 1000 2048 3 pubsub 33554432 8388608 60",
    );
}

#[test]
fn bad_values_are_refused_in_redis_words() {
    check_reason(
        "timeout",
        "x",
        "argument couldn't be parsed into an integer",
    );
    check_reason(
        "timeout",
        "-1",
        "argument must be between 0 and 2147483647 inclusive",
    );
    check_reason(
        "maxclients",
        "-1",
        "argument must be between 1 and 4294967295 inclusive",
    );
    check_reason("maxmemory", "5%", "argument must be a memory value");
    check_reason(
        "maxmemory-clients",
        "x",
        "argument must be a memory or percent value",
    );
    check_reason(
        "maxmemory-clients",
        "101%",
        "percentage argument must be less or equal to 100",
    );
    check_reason("appendonly", "1", "argument must be 'yes' or 'no'");
    check_reason(
        "appendfsync",
        "x",
        "argument(s) must be one of the following: everysec, always, no",
    );
    check_reason(
        "oom-score-adj",
        "x",
        "argument(s) must be one of the following: no, yes, relative, absolute",
    );
    check_reason(
        "shutdown-on-sigterm",
        "save nosave",
        "shutdown options SAVE and NOSAVE can't be used simultaneously",
    );
    check_reason("save", "900", "Invalid save parameters");
    check_reason("save", "900  1", "Invalid save parameters");
    check_reason("save", "0 1", "Invalid save parameters");
    check_reason(
        "client-output-buffer-limit",
        "normal 1 1",
        "Wrong number of arguments in buffer limit configuration.",
    );
    check_reason(
        "client-output-buffer-limit",
        "master 1 1 1",
        "Invalid client class specified in buffer limit configuration.",
    );
    check_reason(
        "client-output-buffer-limit",
        "normal 1 x 1",
        "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
    );
    check_reason(
        "notify-keyspace-events",
        "KEy",
        "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
    );
    check_reason("oom-score-adj-values", "1 2", "wrong number of arguments");
    check_reason(
        "oom-score-adj-values",
        "1 2 2001",
        "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
    );
    check_reason(
        "latency-tracking-info-percentiles",
        "50 101",
        "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
    );
    check_reason(
        "latency-tracking-info-percentiles",
        "x",
        "Invalid latency-tracking-info-percentiles parameters",
    );
    check_reason(
        "cluster-announce-hostname",
        "a!",
        "Hostnames may only contain alphanumeric characters, hyphens or dots",
    );
    check_reason(
        "cluster-announce-hostname",
        &"a".repeat(256),
        "Hostnames must be less than 256 characters",
    );
    check_reason(
        "proc-title-template",
        "{x}",
        "template format is invalid or contains unknown variables",
    );
    check_reason(
        "bind",
        &"a ".repeat(17),
        "Too many bind addresses specified.",
    );
}

#[test]
fn what_cannot_be_set_at_all() {
    check_reason("databases", "1", "can't set immutable config");
    check_reason("dir", "/", "can't set protected config");
    check_reason("dbfilename", "x", "can't set protected config");
    let unknown = "ERR Unknown option or number of arguments for CONFIG SET - 'a  b'";
    check_error(&[("timeout", "1"), ("a\r\nb", "1")], unknown);
    check_error(
        &[("hz", "1"), ("HZ", "2")],
        "ERR CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter",
    );
    check_error(
        &[("Databases", "1"), ("nope", "1")],
        "ERR CONFIG SET failed (possibly related to argument 'Databases') - can't set immutable config",
    );
    let config = config();
    let loading = Caller {
        loading: true,
        local: true,
    };
    let error = config.set(&[(b"appendonly", b"yes")], loading, &mut |_, _| Ok(()));
    assert_eq!(error, Err(SetError::Loading));
    config.update(|settings| settings.enable_protected_configs = ProtectedAction::Local);
    let set = |caller| config.set(&[(b"dbfilename", b"a/b")], caller, &mut |_, _| Ok(()));
    let reason = "dbfilename can't be a path, just a filename".to_owned();
    let local = Caller {
        local: true,
        loading: false,
    };
    assert_eq!(set(local), Err(SetError::failed(b"dbfilename", reason)));
    let reason = "can't set protected config".to_owned();
    assert_eq!(
        set(Caller::default()),
        Err(SetError::failed(b"dbfilename", reason))
    );
}

#[test]
fn all_or_nothing() {
    let config = config();
    let pairs: &[(&[u8], &[u8])] = &[
        (b"port", b"1"),
        (b"timeout", b"5"),
        (b"tls-cluster", b"yes"),
        (b"tls-ciphers", b"x"),
        (b"hz", b"10"),
    ];
    let mut calls = Vec::new();
    let result = config.set(pairs, Caller::default(), &mut |param, settings| {
        calls.push((param.name, settings.port));
        if param.effect == Effect::Tls && settings.tls_cluster {
            Err("no".to_owned())
        } else {
            Ok(())
        }
    });
    let error = result.unwrap_err();
    assert_eq!(
        error.reply(),
        b"ERR CONFIG SET failed (possibly related to argument 'tls-cluster') - no"
    );
    assert!(error.log_line().is_some());
    assert_eq!(
        calls,
        [
            ("port", 1),
            ("tls-cluster", 1),
            ("port", 6379),
            ("tls-cluster", 6379)
        ]
    );
    let settings = config.load();
    assert_eq!(
        (settings.port, settings.timeout, settings.tls_cluster),
        (6379, 0, false)
    );
    assert_eq!(config.version(), 2);
    // A bad value is found before anything is applied.
    let mut calls = 0;
    let pairs: &[(&[u8], &[u8])] = &[(b"port", b"1"), (b"timeout", b"x")];
    config
        .set(pairs, Caller::default(), &mut |_, _| {
            calls += 1;
            Ok(())
        })
        .unwrap_err();
    assert_eq!((calls, config.load().port, config.version()), (0, 6379, 2));
}

#[test]
fn secrets() {
    assert!(is_sensitive(b"REQUIREPASS") && is_sensitive(b"masteruser"));
    assert!(!is_sensitive(b"port") && !is_sensitive(b"nope"));
}
