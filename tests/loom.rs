//! What threads share beside the shards, run through the orders in which they can interleave.
//!
//! `cargo nextest run --features model --test loom`. Each model is a scene of two or three threads; loom
//! finds lost wake-ups as deadlocks, and the assertions say what else must hold.

use std::sync::Arc;

use loom::thread;
use tessera::base::meter::{Meter, Pool};
use tessera::base::sync::Mutex;
use tessera::base::sync::atomic::{AtomicBool, Ordering};
use tessera::client::mailbox::{Bell, Mailbox};
use tessera::dispatch::context::Stall;
use tessera::dispatch::pause::{Pause, Paused, Purpose};
use tessera::keyspace::outbox::{Event, Notice, Outbox, Outgoing};
use tessera::persistence::aof::log::Log;
use tessera::persistence::aof::writer::{self, Policy, Writer};
use tessera::propagation::Stream;

/// Runs a scene with as many involuntary switches of threads as take seconds to go through; three
/// find nearly every mistake.
fn model(scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(scene);
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new().expect("a model of an eventfd"))
}

#[test]
fn no_call_of_a_worker_is_lost() {
    model(|| {
        let bell = bell();
        let call = |clients: &'static [u64]| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || clients.iter().for_each(|&client| bell.call(client)))
        };
        let callers = [call(&[1, 2]), call(&[3])];
        let mut heard = Vec::new();
        while heard.len() < 3 {
            bell.wait();
            heard.extend(bell.answer());
        }
        heard.sort_unstable();
        assert_eq!(heard, [1, 2, 3]);
        for caller in callers {
            caller.join().expect("it only calls");
        }
    });
}

#[test]
fn mail_arrives_whole_and_in_the_order_of_each_sender() {
    model(|| {
        let (bell, mailbox) = (bell(), Arc::new(Mailbox::default()));
        let send = |messages: &'static [&'static [u8]]| {
            let (bell, mailbox) = (Arc::clone(&bell), Arc::clone(&mailbox));
            thread::spawn(move || {
                for message in messages {
                    mailbox.push((*message).into());
                    bell.call(7);
                }
            })
        };
        let senders = [send(&[b"a1", b"a2"]), send(&[b"b1"])];
        let mut got = Vec::new();
        while got.len() < 3 {
            bell.wait();
            assert!(bell.answer().iter().all(|&client| client == 7));
            got.extend(mailbox.take());
        }
        let place = |message: &[u8]| got.iter().position(|m| m == message);
        assert!(place(b"a1") < place(b"a2") && place(b"b1").is_some());
        assert!(mailbox.is_empty());
        for sender in senders {
            sender.join().expect("it only sends");
        }
    });
}

#[test]
fn what_a_party_that_is_asked_to_leave_holds_comes_back_once() {
    model(|| {
        let pool = Arc::new(Pool::default());
        let meter = Arc::new(Meter::new(&pool));
        meter.grow(10);
        let ask = || {
            let meter = Arc::clone(&meter);
            thread::spawn(move || meter.leave(1))
        };
        let askers = [ask(), ask()];
        meter.grow(5);
        meter.shrink(12);
        meter.end();
        let asked = askers.map(|asker| asker.join().expect("it only asks"));
        assert!(
            asked.contains(&0),
            "one of them at most is heard: {asked:?}"
        );
        assert_eq!((pool.held(), pool.leaving()), (0, 0));
    });
}

#[test]
fn a_pause_that_was_extended_in_time_is_not_ended() {
    model(|| {
        let pause = Arc::new(Pause::default());
        pause.begin(Purpose::Command, 100, Paused::Writes);
        let looks = {
            let pause = Arc::clone(&pause);
            thread::spawn(move || pause.at(101))
        };
        pause.begin(Purpose::Command, 200, Paused::All);
        looks.join().expect("it only looks");
        assert_eq!(pause.at(150), Some(Paused::All));
        assert_eq!(pause.at(201), None);
        assert!(!pause.is_set());
    });
}

#[test]
fn who_is_held_back_by_a_pause_hears_of_its_end() {
    model(|| {
        let (bell, pause) = (bell(), Arc::new(Pause::default()));
        pause.wake(&bell);
        pause.begin(Purpose::Command, i64::MAX, Paused::All);
        let ends = {
            let pause = Arc::clone(&pause);
            thread::spawn(move || pause.end(Purpose::Command))
        };
        while pause.ends() == 0 {
            bell.wait();
            bell.answer();
        }
        assert_eq!(pause.at(0), None);
        ends.join().expect("it only ends the pause");
    });
}

#[test]
fn a_turn_that_begins_during_a_hang_waits_for_its_end() {
    model(|| {
        let (stall, hangs) = (Arc::new(Stall::default()), Arc::new(AtomicBool::new(false)));
        let sleeper = {
            let (stall, hangs) = (Arc::clone(&stall), Arc::clone(&hangs));
            thread::spawn(move || {
                stall.during(|| {
                    hangs.store(true, Ordering::Release);
                    thread::yield_now();
                    hangs.store(false, Ordering::Release);
                });
            })
        };
        if hangs.load(Ordering::Acquire) {
            stall.wait();
            assert!(!hangs.load(Ordering::Acquire));
        } else {
            stall.wait();
        }
        sleeper.join().expect("it only sleeps");
    });
}

#[test]
fn events_are_delivered_once_and_in_the_order_of_the_shard() {
    model(|| {
        let outbox = Arc::new(Outbox::default());
        let (shard, sent) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let change = |times: usize| {
            let (outbox, shard, sent) = (outbox.clone(), shard.clone(), sent.clone());
            move || {
                for _ in 0..times {
                    let mut changes = shard.lock();
                    outbox.record(Notice {
                        db: *changes,
                        key: Box::default(),
                        event: Event {
                            class: 0,
                            name: "set",
                        },
                        notify: 0,
                    });
                    *changes += 1;
                    drop(changes);
                    outbox.deliver(|batch| {
                        for outgoing in batch {
                            match outgoing {
                                Outgoing::Notice(notice) => sent.lock().push(notice.db),
                                other => unreachable!("{other:?}"),
                            }
                        }
                    });
                }
            }
        };
        let other = thread::spawn(change(1));
        change(2)();
        other.join().expect("it only changes keys");
        assert_eq!(*sent.lock(), [0, 1, 2]);
    });
}

#[test]
fn a_reader_opened_at_a_cut_gets_what_the_cut_lacks() {
    model(|| {
        let stream = Arc::new(Stream::default());
        let shard = Arc::new(Mutex::new(0));
        let writer = {
            let (stream, shard) = (Arc::clone(&stream), Arc::clone(&shard));
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut changes = shard.lock();
                    *changes += 1;
                    if stream.is_active() {
                        stream.append(|block| block.bare(&["X"]));
                    }
                }
            })
        };
        let (mut reader, seen) = {
            let changes = shard.lock();
            (stream.reader(), *changes)
        };
        writer.join().expect("it only writes");
        let bytes = reader.read_bytes();
        assert_eq!(bytes.len(), (2 - seen) * b"*1\r\n$1\r\nX\r\n".len());
    });
}

#[test]
fn a_waiting_reader_is_woken_and_blocks_are_whole() {
    model(|| {
        let stream = Arc::new(Stream::default());
        let mut reader = stream.reader();
        let write = || {
            let stream = Arc::clone(&stream);
            move || {
                stream.append(|block| {
                    block.bare(&["A"]);
                    block.bare(&["B"]);
                });
            }
        };
        let other = thread::spawn(write());
        let pair = b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n";
        let mut got = Vec::new();
        assert!(reader.wait(std::time::Duration::MAX / 4));
        got.extend(reader.read_bytes());
        assert_eq!(got, pair);
        write()();
        got.extend(reader.read_bytes());
        assert_eq!(got, pair.repeat(2));
        other.join().expect("it only writes");
    });
}

#[test]
fn the_stream_is_active_as_long_as_somebody_reads() {
    model(|| {
        let stream = Arc::new(Stream::default());
        let first = stream.reader();
        let leaves = thread::spawn(move || drop(first));
        let second = stream.reader();
        assert!(stream.is_active());
        leaves.join().expect("it only leaves");
        assert!(stream.is_active());
        drop(second);
        assert!(!stream.is_active());
    });
}

/// A worker that has changed something and may answer once the append-only file holds it; `false`:
/// its bell has to ring first.
fn answers(log: &Log, stream: &Stream, bell: &Arc<Bell>, sync: writer::Sync) -> bool {
    let policy = || Policy {
        sync,
        timestamps: false,
    };
    log.clears(stream.position(), bell, policy)
}

fn open_log(stream: &Arc<Stream>) -> Arc<Log> {
    let log = Arc::new(Log::default());
    let file = tempfile::tempfile().expect("a file");
    let progress = Arc::clone(&log.progress);
    log.open(Writer::new(stream.file_reader(), file, 0, progress));
    log
}

#[test]
fn whoever_finds_the_file_taken_is_rung_when_it_is_free() {
    model(|| {
        let stream = Arc::new(Stream::default());
        let log = open_log(&stream);
        let workers = [1, 2].map(|worker| {
            let (log, stream, bell) = (Arc::clone(&log), Arc::clone(&stream), bell());
            thread::spawn(move || {
                let end = stream.append(|block| block.bare(&["SET", "k", &worker.to_string()]));
                while !answers(&log, &stream, &bell, writer::Sync::Never) {
                    bell.wait();
                    bell.answer();
                }
                assert!(log.progress.written() >= end);
            })
        });
        for worker in workers {
            worker.join().expect("it answers");
        }
    });
}

#[test]
fn replies_that_wait_for_the_disk_are_let_go_by_the_thread_that_syncs() {
    model(|| {
        let stream = Arc::new(Stream::default());
        let log = open_log(&stream);
        let syncs = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let policy = || Policy {
                    sync: writer::Sync::Always,
                    timestamps: false,
                };
                // A round finds nothing yet when it is for the file that was opened.
                while log.progress.cleared() == 0 {
                    log.serve(policy).expect("the file takes everything");
                }
            })
        };
        let bell = bell();
        let end = stream.append(|block| block.bare(&["SET", "k", "v"]));
        while !answers(&log, &stream, &bell, writer::Sync::Always) {
            bell.wait();
            bell.answer();
        }
        assert!(log.progress.written() >= end);
        syncs.join().expect("it has served once");
    });
}
