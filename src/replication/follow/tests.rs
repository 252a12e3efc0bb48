//! The machine by examples, against a primary that is spelled out.

use std::cell::Cell;

use super::*;

/// What is broken on purpose, to show that the simulation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// PSYNC asks for one byte too late.
    OffByOne,
    /// A mark that comes in two pieces is not found.
    SplitMark,
    /// A handshake lasts as long as it lasts.
    NoTimeout,
    /// A stream that continues under another name keeps its old one.
    KeepsName,
    /// A primary continues its former stream beyond where that ended.
    NoLimit,
    /// The history outlives the data.
    KeepsHistory,
    /// What comes of the stream while the dump is loaded is lost.
    LosesEarly,
}

thread_local! {
    pub(super) static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
}

pub(super) fn is_broken(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}

/// True when the state of this name never times out.
pub(super) fn forgives(state: &str) -> bool {
    is_broken(Fault::NoTimeout) && state == "handshake"
}

const ID: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";

pub(super) fn settings() -> Settings {
    Settings {
        port: 6380,
        ip: None,
        user: None,
        password: None,
        timeout: 60,
        load: Load::File,
    }
}

fn known(offset: i64) -> Option<History> {
    history(ID.as_bytes(), offset.to_string().as_bytes())
}

/// A machine and its time; what it does is text.
struct Scene {
    follower: Follower,
    now: i64,
    attempt: u64,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        Self {
            follower: Follower::new(settings),
            now: 1_000_000,
            attempt: 0,
        }
    }

    /// One whose socket is connected.
    fn connected(settings: Settings) -> Self {
        let mut scene = Self::new(settings);
        scene.follow();
        scene.event(Event::Connected { attempt: 1 });
        scene
    }

    /// One that has sent PSYNC.
    fn asking(settings: Settings, history: Option<History>) -> Self {
        let mut scene = Self::connected(settings);
        scene.bytes("+PONG\r\n+OK\r\n+OK\r\n");
        scene.event(Event::History {
            attempt: 1,
            history,
        });
        scene
    }

    /// One that is in step.
    fn in_step() -> Self {
        let mut scene = Self::asking(settings(), known(7));
        scene.bytes("+CONTINUE\r\n");
        scene
    }

    fn follow(&mut self) -> Vec<String> {
        self.event(Event::Follow {
            host: "db".to_owned(),
            port: 6379,
            failover: false,
        })
    }

    fn texts(&mut self, actions: Vec<Action>) -> Vec<String> {
        let mut texts = Vec::new();
        for action in actions {
            texts.push(match action {
                Action::Connect {
                    attempt,
                    host,
                    port,
                } => {
                    self.attempt = attempt;
                    format!("connect {host} {port}")
                }
                Action::Send(bytes) => {
                    let text = String::from_utf8(bytes).expect("ASCII");
                    let words = text.split("\r\n").filter(|w| !w.starts_with(['*', '$']));
                    let words: Vec<&str> = words.collect();
                    format!("send {}", words.join(" ").trim_end_matches(' '))
                }
                Action::LoadHeld(held) => format!("load {}", held.bytes().len()),
                Action::Log(Level::Notice, text) => format!("* {text}"),
                Action::Log(Level::Warning, text) => format!("# {text}"),
                other => format!("{other:?}"),
            });
        }
        texts
    }

    fn event(&mut self, event: Event<'_>) -> Vec<String> {
        let actions = self.follower.step(event, self.now);
        self.texts(actions)
    }

    fn bytes(&mut self, text: &str) -> Vec<String> {
        self.event(Event::Bytes(text.as_bytes()))
    }

    fn close(&mut self) -> Vec<String> {
        let text = "connection lost".to_owned();
        self.event(Event::Closed { text })
    }

    /// So many milliseconds pass.
    fn wait(&mut self, ms: i64) -> Vec<String> {
        self.now += ms;
        let actions = self.follower.tick(self.now);
        self.texts(actions)
    }

    fn state(&self) -> &'static str {
        self.follower.view(self.now).state
    }
}

#[test]
fn a_handshake_that_goes_on_with_a_full_sync() {
    let mut scene = Scene::new(settings());
    assert_eq!(scene.state(), "none");
    let told = scene.follow();
    assert!(told[0].starts_with("* Before turning into a replica"));
    let rest = [
        "* Connecting to MASTER db:6379",
        "connect db 6379",
        "* MASTER <-> REPLICA sync started",
    ];
    assert_eq!(told[1..], rest);
    assert_eq!(scene.state(), "connecting");
    assert_eq!(
        scene.event(Event::Connected { attempt: 1 }),
        [
            "* Non blocking connect for SYNC fired the event.",
            "send PING"
        ]
    );
    assert_eq!(
        scene.bytes("+PONG\r\n"),
        [
            "* Master replied to PING, replication can continue...",
            "send REPLCONF listening-port 6380",
            "send REPLCONF capa eof capa psync2",
        ]
    );
    assert!(scene.bytes("+OK\r\n+O").is_empty());
    assert_eq!(scene.bytes("K\r\n"), ["AskHistory { attempt: 1 }"]);
    assert_eq!(
        scene.event(Event::History {
            attempt: 1,
            history: None
        }),
        [
            "* Partial resynchronization not possible (no cached master)",
            "send PSYNC ? -1"
        ]
    );
    assert_eq!(scene.state(), "handshake");
    assert!(scene.bytes("\n\n").is_empty());
    assert_eq!(
        scene.bytes(&format!("+FULLRESYNC {ID} 1000\r\n")),
        [format!("* Full resync from master: {ID}:1000")]
    );
    assert_eq!(scene.state(), "sync");
    assert!(scene.bytes("\n").is_empty());
    let sync = |scene: &Scene| scene.follower.view(scene.now).sync.expect("under way");
    assert_eq!(sync(&scene).total, -1);
    assert_eq!(
        scene.bytes("$10\r\nabc"),
        [
            "* MASTER <-> REPLICA sync: receiving 10 bytes from master to disk".to_owned(),
            format!(
                "BeginLoad {{ attempt: 1, source: Some(History {{ id: {ID}, offset: 1000 }}), len: \
                 Some(10), load: File }}"
            ),
            "LoadBytes(5..8)".to_owned(),
        ]
    );
    assert_eq!((sync(&scene).left(), sync(&scene).percent()), (7, 30.0));
    assert_eq!(
        scene.bytes("defghijSTREAM"),
        [
            "LoadBytes(0..7)",
            "* MASTER <-> REPLICA sync: Flushing old data",
            "* MASTER <-> REPLICA sync: Loading DB in memory",
            "EndLoad",
            "StreamBytes(7..13)",
        ]
    );
    assert_eq!(
        scene.event(Event::Loaded { attempt: 1 }),
        [
            &format!("Adopt(Some(History {{ id: {ID}, offset: 1000 }}))"),
            "* MASTER <-> REPLICA sync: Finished with success",
            "Acknowledge",
        ]
    );
    let view = scene.follower.view(scene.now + 3000);
    assert_eq!(
        (view.state, view.is_up, view.last_io_seconds),
        ("connected", true, 3)
    );
}

#[test]
fn all_that_is_configured_is_said_in_the_handshake() {
    let mut scene = Scene::connected(Settings {
        ip: Some("10.0.0.9".to_owned()),
        user: Some(b"me".to_vec()),
        password: Some(b"secret".to_vec()),
        ..settings()
    });
    let told = scene.bytes("-NOAUTH Authentication required.\r\n");
    assert_eq!(
        told[1..],
        [
            "send AUTH me secret",
            "send REPLCONF listening-port 6380",
            "send REPLCONF ip-address 10.0.0.9",
            "send REPLCONF capa eof capa psync2",
        ]
    );
    let errors = "+OK\r\n-ERR a\r\n-ERR b\r\n-ERR c\r\n";
    let critical = "* (Non critical) Master does not understand REPLCONF";
    assert_eq!(
        scene.bytes(errors),
        [
            &format!("{critical} listening-port: -ERR a"),
            &format!("{critical} ip-address: -ERR b"),
            &format!("{critical} capa: -ERR c"),
            "AskHistory { attempt: 1 }",
        ]
    );
}

#[test]
fn a_primary_that_refuses_is_tried_again_a_second_later() {
    let password = Some(b"wrong".to_vec());
    let with_password = Settings {
        password,
        ..settings()
    };
    let mut scene = Scene::connected(with_password);
    scene.bytes("+PONG\r\n");
    assert_eq!(
        scene.bytes("-WRONGPASS no\r\n+OK\r\n"),
        ["# Unable to AUTH to MASTER: -WRONGPASS no", "Close"]
    );
    assert_eq!(scene.state(), "connect");
    assert_eq!(scene.follower.pause(), Some(1000));
    assert!(scene.wait(999).is_empty());
    assert_eq!(scene.wait(1)[1], "connect db 6379");
    // What is said about the first attempt says nothing about the second one.
    assert!(scene.event(Event::Connected { attempt: 1 }).is_empty());
    scene.event(Event::Connected { attempt: 2 });
    assert_eq!(
        scene.bytes("-DENIED\x07 x\r\n"),
        ["# Error reply to PING from master: '-DENIED? x'", "Close"]
    );
    scene.wait(1000);
    let text = "Connection refused".to_owned();
    assert_eq!(
        scene.event(Event::ConnectFailed { attempt: 3, text }),
        [
            "# Error condition on socket for SYNC: Connection refused",
            "Close"
        ]
    );
    scene.wait(1000);
    let text = "no such host".to_owned();
    assert_eq!(
        scene.event(Event::Unreachable { attempt: 4, text }),
        ["# Unable to connect to MASTER: no such host", "Close"]
    );
}

#[test]
fn a_partial_sync_goes_on_behind_the_last_byte_applied() {
    let mut scene = Scene::connected(settings());
    scene.bytes("+PONG\r\n+OK\r\n+OK\r\n");
    let history = known(41);
    assert_eq!(
        scene.event(Event::History {
            attempt: 1,
            history
        }),
        [
            format!("* Trying a partial resynchronization (request {ID}:42)."),
            format!("send PSYNC {ID} 42"),
        ]
    );
    assert_eq!(
        scene.bytes(&format!("+CONTINUE {OTHER}\r\n*1\r\n")),
        [
            "* Successful partial resynchronization with master.",
            &format!("# Master replication ID changed to {OTHER}"),
            "* MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.",
            &format!("ContinueAs {{ id: Some({OTHER}) }}"),
            "StreamBytes(52..56)",
        ]
    );
    for answer in ["+CONTINUE".to_owned(), format!("+CONTINUE {ID}")] {
        let mut scene = Scene::asking(settings(), known(41));
        let told = scene.bytes(&format!("{answer}\r\n"));
        assert_eq!(told.last().expect("it goes on"), "ContinueAs { id: None }");
    }
}

#[test]
fn nothing_is_continued_that_was_not_asked_for_or_has_no_name() {
    let mut scene = Scene::asking(settings(), None);
    let told = scene.bytes(&format!("+CONTINUE {ID}\r\n"));
    assert!(told[0].starts_with("# Unexpected reply to PSYNC") && told[1] == "Close");
    for answer in ["+CONTINUE abc\r\n", "+CONTINUED\r\n", "+OK\r\n"] {
        let mut scene = Scene::asking(settings(), known(5));
        let told = scene.bytes(answer);
        assert!(told[0].starts_with("# Unexpected reply to PSYNC") && told[1] == "Close");
    }
}

#[test]
fn a_primary_that_cannot_now_is_asked_later_and_an_old_one_by_sync() {
    for error in ["-NOMASTERLINK Can't SYNC", "-LOADING Redis is loading"] {
        let mut scene = Scene::asking(settings(), known(5));
        let told = scene.bytes(&format!("{error}\r\n"));
        let text = "* Master is currently unable to PSYNC but should be in the future";
        assert_eq!(told, [format!("{text}: {error}"), "Close".to_owned()]);
        assert_eq!(scene.follower.pause(), Some(1000));
    }
    let mut scene = Scene::asking(settings(), None);
    assert_eq!(
        scene.bytes("-ERR unknown command 'PSYNC'\r\n"),
        [
            "* Master does not support PSYNC or is in error state (reply: -ERR unknown command \
             'PSYNC')",
            "* Retrying with SYNC...",
            "send SYNC",
        ]
    );
    scene.bytes("$1\r\nx");
    let told = scene.event(Event::Loaded { attempt: 1 });
    // It knows no offsets, and gets none.
    assert_eq!(told[0], "Adopt(None)");
    assert!(!told.contains(&"Acknowledge".to_owned()) && scene.wait(1000).is_empty());
}

#[test]
fn a_wrong_announcement_leaves_a_dump_without_history() {
    for offset in ["-1", "x", "99999999999999999999", "9223372036854775807"] {
        let mut scene = Scene::asking(settings(), None);
        let told = scene.bytes(&format!("+FULLRESYNC {ID} {offset}\r\n$1\r\nx"));
        assert_eq!(told[0], "# Master replied with wrong +FULLRESYNC syntax.");
        assert_eq!(scene.event(Event::Loaded { attempt: 1 })[0], "Adopt(None)");
    }
}

fn receiving(load: Load, header: &str) -> Scene {
    let mut scene = Scene::asking(Settings { load, ..settings() }, known(5));
    scene.bytes(&format!("+FULLRESYNC {ID} 1000\r\n"));
    scene.bytes(header);
    scene
}

#[test]
fn a_dump_that_ends_with_a_mark_goes_to_the_parser() {
    let mut scene = Scene::asking(
        Settings {
            load: Load::Swap,
            ..settings()
        },
        known(5),
    );
    scene.bytes(&format!("+FULLRESYNC {ID} 1000\r\n"));
    let mark = "m".repeat(20) + &"n".repeat(20);
    let told = scene.bytes(&format!("$EOF:{mark}\r\n"));
    assert_eq!(
        told[..2],
        [
            "* MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to parser",
            "* MASTER <-> REPLICA sync: Loading DB in memory",
        ]
    );
    assert_eq!(scene.bytes("dumpmmm"), ["LoadBytes(0..4)"]);
    assert_eq!(scene.bytes("x"), ["load 3", "LoadBytes(0..1)"]);
    // The primary learns that we are alive.
    assert_eq!(scene.wait(1000), ["send \n"]);
    assert!(scene.bytes(&mark[..39]).is_empty());
    assert_eq!(scene.bytes("n"), ["EndLoad"]);
    assert_eq!(scene.wait(1000), ["send \n"]);
    assert_eq!(
        scene.event(Event::Loaded { attempt: 1 }),
        [
            "* Discarding previously cached master state.",
            "* MASTER <-> REPLICA sync: Swapping active DB with loaded DB",
            &format!("Adopt(Some(History {{ id: {ID}, offset: 1000 }}))"),
            "* MASTER <-> REPLICA sync: Discarding old DB in background",
            "* MASTER <-> REPLICA sync: Finished with success",
            "Acknowledge",
        ]
    );
}

#[test]
fn headers_that_are_none_end_the_attempt() {
    let wrong = [
        (
            "-ERR no\r\n",
            "# MASTER aborted replication with an error: ERR no",
        ),
        (
            "HTTP/1.1 400\r\n",
            "# Bad protocol from MASTER, the first byte is not '$' (we received 'HTTP/1.1 400'), \
             are you sure the host and port are right?",
        ),
    ];
    for (header, line) in wrong {
        let mut scene = receiving(Load::File, "");
        assert_eq!(scene.bytes(header), [line, "Close"]);
        assert_eq!(
            (scene.state(), scene.follower.pause()),
            ("connect", Some(1000))
        );
    }
    for header in [
        "$\r\n",
        "$-1\r\n",
        "$+1\r\n",
        "$EOF:abc\r\n",
        "$99999999999999999999\r\n",
    ] {
        let told = receiving(Load::File, "").bytes(header);
        assert!(
            told[0].contains("the length of the dump is not valid"),
            "{told:?}"
        );
    }
    let told = receiving(Load::File, "").bytes(&"x".repeat(20_000));
    assert_eq!(
        told,
        ["# The header of the dump from MASTER is too long", "Close"]
    );
}

#[test]
fn a_dump_that_breaks_off_is_dropped_and_asked_for_at_once() {
    let mut scene = receiving(Load::File, "$10\r\nabc");
    scene.now += 100;
    assert_eq!(
        scene.close(),
        [
            "# I/O error trying to sync with MASTER: connection lost",
            "AbortLoad",
            "Close",
            "* Reconnecting to MASTER db:6379 after failure",
            "connect db 6379",
            "* MASTER <-> REPLICA sync started",
        ]
    );
    // Not faster than ten times a second.
    let mut scene = receiving(Load::Direct, "$10\r\nabc");
    let told = scene.close();
    assert_eq!(
        told[0],
        "# Failed trying to load the MASTER synchronization DB from socket: connection lost"
    );
    assert_eq!((told.len(), scene.follower.pause()), (3, Some(100)));
}

#[test]
fn a_dump_that_is_there_is_loaded_although_the_connection_is_gone() {
    let mut scene = receiving(Load::File, "$3\r\nabc");
    assert!(scene.close().is_empty());
    assert!(scene.wait(1000).is_empty());
    assert!(scene.wait(1_000_000).is_empty());
    let told = scene.event(Event::Loaded { attempt: 1 });
    assert!(told[0].starts_with("Adopt"));
    assert_eq!(
        told[2..],
        [
            "# Connection with master lost.",
            "* Caching the disconnected master state.",
            "Close",
            "* Reconnecting to MASTER db:6379",
            "connect db 6379",
            "* MASTER <-> REPLICA sync started",
        ]
    );
}

#[test]
fn a_dump_that_cannot_be_loaded_is_asked_for_later_and_later() {
    let mut scene = receiving(Load::File, "");
    let mut pauses = Vec::new();
    for _ in 0..10 {
        scene.bytes("$1\r\nx");
        let (attempt, text) = (scene.attempt, "version 99".to_owned());
        let told = scene.event(Event::LoadFailed {
            attempt,
            text,
            lasting: true,
        });
        assert_eq!(
            told[0],
            "# Failed trying to load the MASTER synchronization DB from disk: version 99"
        );
        let mut pause = 0;
        while scene.state() == "connect" {
            let ms = scene.follower.pause().expect("another attempt is due");
            scene.wait(ms.cast_signed());
            pause += ms;
        }
        pauses.push(pause / 1000);
        let attempt = scene.attempt;
        scene.event(Event::Connected { attempt });
        scene.bytes("+PONG\r\n+OK\r\n+OK\r\n");
        let history = None;
        scene.event(Event::History { attempt, history });
        scene.bytes(&format!("+FULLRESYNC {ID} 1000\r\n"));
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_loader_that_is_done_before_the_mark_is_wrong() {
    let mut scene = receiving(Load::Direct, &format!("$EOF:{}\r\nabc", "m".repeat(40)));
    let told = scene.event(Event::Loaded { attempt: 1 });
    assert_eq!(
        told[..2],
        ["# Replication stream EOF marker is broken", "AbortLoad"]
    );
}

#[test]
fn silence_ends_every_state_that_waits_for_the_primary() {
    let after_failure = "* Reconnecting to MASTER db:6379 after failure";
    let (connecting, receiving) = ("# Timeout connecting to the MASTER...", {
        let scene = receiving(Load::File, "$10\r\nabc");
        (scene, "# Timeout receiving bulk data from MASTER")
    });
    let mut first = Scene::new(settings());
    first.follow();
    let scenes = [
        (first, connecting, after_failure),
        (Scene::connected(settings()), connecting, after_failure),
        (Scene::asking(settings(), None), connecting, after_failure),
        (receiving.0, receiving.1, after_failure),
        (
            Scene::in_step(),
            "# MASTER timeout: no data nor PING received...",
            "* Reconnecting to MASTER db:6379",
        ),
    ];
    for (mut scene, line, next) in scenes {
        scene.wait(30_000);
        let told = scene.wait(30_000);
        assert!(!told.iter().any(|text| text == "Close"), "{told:?}");
        let told = scene.wait(1);
        assert!(told[0].starts_with(line), "{told:?}");
        assert!(told.contains(&"Close".to_owned()) && told.contains(&next.to_owned()));
        assert_eq!(scene.state(), "connecting");
    }
}

#[test]
fn a_driver_that_is_busy_hears_nothing_and_loses_nothing() {
    let mut scene = Scene::in_step();
    scene.wait(50_000);
    scene.event(Event::Busy);
    assert_eq!(scene.wait(50_000), ["Acknowledge"]);
    // A handshake that waits for our own history does not blame the primary.
    let mut scene = Scene::connected(settings());
    scene.bytes("+PONG\r\n+OK\r\n+OK\r\n");
    assert!(scene.wait(500_000).is_empty() && scene.follower.pause().is_none());
}

#[test]
fn the_stream_is_confirmed_once_a_second_and_when_asked_for() {
    let mut scene = Scene::in_step();
    assert_eq!(scene.bytes("abc"), ["StreamBytes(0..3)"]);
    assert_eq!(scene.follower.pause(), Some(1000));
    assert!(scene.wait(999).is_empty());
    assert_eq!(scene.wait(1), ["Acknowledge"]);
    assert_eq!(scene.event(Event::GetAck), ["Acknowledge"]);
    let text = |bytes| String::from_utf8(bytes).expect("ASCII");
    assert_eq!(
        text(acknowledgement(12, None)),
        "*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n12\r\n"
    );
    assert!(text(acknowledgement(12, Some(9))).ends_with("$4\r\nFACK\r\n$1\r\n9\r\n"));
}

#[test]
fn a_link_that_is_lost_is_taken_up_again_at_once() {
    let mut scene = Scene::in_step();
    assert_eq!(scene.follower.view(scene.now).down_seconds, -1);
    scene.now += 5000;
    let told = scene.close();
    assert_eq!(
        told,
        [
            "# Connection with master lost.",
            "* Caching the disconnected master state.",
            "Close",
            "* Reconnecting to MASTER db:6379",
            "connect db 6379",
            "* MASTER <-> REPLICA sync started",
        ]
    );
    let view = scene.follower.view(scene.now + 7000);
    assert_eq!(
        (view.is_up, view.down_seconds, view.last_io_seconds),
        (false, 7, -1)
    );
    let mut scene = Scene::in_step();
    let told = scene.event(Event::Corrupt);
    assert_eq!(told, ["# Connection with master lost.", "Close"]);
    assert_eq!(scene.follower.pause(), Some(1000));
}

#[test]
fn whoever_follows_another_or_nobody_drops_what_is_under_way() {
    let mut scene = receiving(Load::File, "$10\r\nabc");
    let told = scene.event(Event::Follow {
        host: "other".to_owned(),
        port: 1,
        failover: false,
    });
    assert_eq!(
        told[..4],
        [
            "AbortLoad",
            "Close",
            "* Connecting to MASTER other:1",
            "connect other 1"
        ]
    );
    assert_eq!(scene.event(Event::Stop), ["Close"]);
    let view = scene.follower.view(scene.now);
    assert_eq!((view.state, view.primary), ("none", None));
    assert!(scene.event(Event::Loaded { attempt: 1 }).is_empty());
    assert!(scene.event(Event::Connected { attempt: 2 }).is_empty());
    assert!(scene.wait(1_000_000).is_empty() && scene.follower.pause().is_none());
    let (host, port) = ("db".to_owned(), 2);
    let told = scene.event(Event::Start { host, port });
    assert_eq!(told[0], "* Connecting to MASTER db:2");
}

fn failing_over() -> Scene {
    let mut scene = Scene::new(settings());
    scene.event(Event::Follow {
        host: "db".to_owned(),
        port: 6379,
        failover: true,
    });
    scene.event(Event::Connected { attempt: 1 });
    scene.bytes("+PONG\r\n+OK\r\n+OK\r\n");
    let told = scene.event(Event::History {
        attempt: 1,
        history: known(9),
    });
    assert_eq!(told[1], format!("send PSYNC {ID} 10 FAILOVER"));
    scene
}

#[test]
fn a_failover_is_accepted_with_psync_or_refused() {
    let told = failing_over().bytes(&format!("+CONTINUE {OTHER}\r\n"));
    assert!(told.contains(&"FailedOver(true)".to_owned()));
    let mut scene = failing_over();
    let told = scene.bytes("-ERR PSYNC FAILOVER replid must match my replid.\r\n");
    assert_eq!(told[1..], ["Close", "FailedOver(false)"]);
    assert_eq!(scene.state(), "none");
    let mut scene = failing_over();
    assert_eq!(scene.close().last().expect("it ends"), "FailedOver(false)");
}

#[test]
fn clocks_that_go_back_neither_hurry_nor_stop_anything() {
    let mut scene = Scene::asking(settings(), None);
    scene.wait(30_000);
    assert!(scene.wait(-10_000_000).is_empty());
    assert!(scene.wait(30_000).is_empty());
    assert!(scene.wait(1)[0].starts_with("# Timeout"));
    scene.now = i64::MAX;
    scene.wait(0);
    scene.now = i64::MIN;
    scene.wait(0);
    scene.now = i64::MAX;
    scene.wait(0);
    assert_ne!(scene.state(), "none");
}
