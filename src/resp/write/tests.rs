//! Replies as they stand on the wire, in both protocols.

use super::*;

#[track_caller]
fn check(write: impl Fn(&mut Output), resp2: &str, resp3: &str) {
    for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
        let mut out = Output::new();
        out.set_protocol(protocol);
        write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out.to_vec()), expected);
    }
}

#[test]
fn integers_are_written_in_full() {
    let numbers = [
        0,
        7,
        10,
        99,
        100,
        101,
        1000,
        12_345,
        99_999,
        100_000,
        i64::MAX,
        -1,
        -10,
        i64::MIN,
    ];
    for n in numbers {
        check(|o| o.int(n), &format!(":{n}\r\n"), &format!(":{n}\r\n"));
    }
    for n in (0..20).map(|digits| 10u64.pow(digits)).chain([u64::MAX]) {
        check(|o| o.uint(n), &format!(":{n}\r\n"), &format!(":{n}\r\n"));
        check(
            |o| o.uint(n - 1),
            &format!(":{}\r\n", n - 1),
            &format!(":{}\r\n", n - 1),
        );
    }
}

#[test]
fn encodes_both_protocols() {
    check(|o| o.ok(), "+OK\r\n", "+OK\r\n");
    check(|o| o.null(), "$-1\r\n", "_\r\n");
    check(|o| o.null_array(), "*-1\r\n", "_\r\n");
    check(|o| o.bool(true), ":1\r\n", "#t\r\n");
    check(|o| o.double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n");
    check(
        |o| o.double(f64::NEG_INFINITY),
        "$4\r\n-inf\r\n",
        ",-inf\r\n",
    );
    check(|o| o.map(2), "*4\r\n", "%2\r\n");
    check(|o| o.set(12), "*12\r\n", "~12\r\n");
    check(|o| o.push(3), "*3\r\n", ">3\r\n");
    check(|o| o.big_number(b"123"), "$3\r\n123\r\n", "(123\r\n");
    check(
        |o| o.verbatim("txt", b"hi".to_vec()),
        "$2\r\nhi\r\n",
        "=6\r\ntxt:hi\r\n",
    );
    check(
        |o| o.error("ERR a\r\nb\r\n"),
        "-ERR a  b\r\n",
        "-ERR a  b\r\n",
    );
    check(
        |o| o.human_double(0.1),
        "$19\r\n0.10000000000000001\r\n",
        ",0.10000000000000001\r\n",
    );
    check(|o| o.human_double(-1e-30), "$1\r\n0\r\n", ",0\r\n");
    for n in [0i64, 9, 10, 99, 100, -1, i64::MIN, i64::MAX] {
        let text = format!(":{n}\r\n");
        check(|o| o.int(n), &text, &text);
    }
}

#[test]
fn deferred_lengths_move_what_follows() {
    let big = Arc::new(vec![b'x'; SHARED_MIN]);
    let mut out = Output::new();
    out.ok();
    let outer = out.deferred();
    let inner = out.deferred();
    out.bulk_shared(big.clone());
    out.end_array(inner, 1);
    for i in 0..120 {
        out.int(i);
    }
    out.end_array(outer, 121);
    let mut expected = Output::new();
    expected.ok();
    expected.array(121);
    expected.array(1);
    expected.bulk(&big);
    (0..120).for_each(|i| expected.int(i));
    assert_eq!(out.to_vec(), expected.to_vec());
}

#[test]
fn advances_and_truncates_across_chunks() {
    let big = Arc::new(vec![b'y'; SHARED_MIN]);
    let mut out = Output::new();
    out.int(1);
    out.bulk_shared(big.clone());
    out.bulk_shared(big.clone());
    out.int(2);
    let all = out.to_vec();
    for step in [1, 7, 1000, SHARED_MIN + 3] {
        let mut out = Output::new();
        out.int(1);
        out.bulk_shared(big.clone());
        out.bulk_shared(big.clone());
        out.int(2);
        let mut seen = Vec::new();
        while !out.is_empty() {
            let mark = out.mark();
            out.int(77);
            out.bulk_shared(big.clone());
            out.truncate_to(mark);
            let pending = out.to_vec();
            assert_eq!(pending.len(), out.len_pending());
            let n = step.min(pending.len());
            seen.extend_from_slice(&pending[..n]);
            out.advance(n);
        }
        assert_eq!(seen, all);
    }
}

/// A sequence of numbers that looks random and is always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

/// Appends something to `out`, and what it is to `expected`.
fn append(out: &mut Output, expected: &mut Vec<u8>, dice: &mut Dice) {
    let text = vec![b'a' + dice.below(26) as u8; dice.below(3000)];
    match dice.below(7) {
        0 => {
            let big = Arc::new(vec![b'S'; SHARED_MIN + dice.below(50_000)]);
            expected.extend_from_slice(format!("${}\r\n", big.len()).as_bytes());
            expected.extend_from_slice(&big);
            expected.extend_from_slice(b"\r\n");
            out.bulk_shared(big);
        }
        1 => {
            let text = vec![b'B'; dice.below(70_000)];
            expected.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            expected.extend_from_slice(&text);
            expected.extend_from_slice(b"\r\n");
            out.bulk(&text);
        }
        2 => {
            let deferred = out.deferred();
            let (len, mut inner) = (dice.below(300), Vec::new());
            for i in 0..len {
                out.int(i as i64);
                inner.extend_from_slice(format!(":{i}\r\n").as_bytes());
            }
            if dice.below(2) == 0 {
                append(out, &mut inner, dice);
            }
            out.end_array(deferred, len);
            expected.extend_from_slice(format!("*{len}\r\n").as_bytes());
            expected.extend_from_slice(&inner);
        }
        3 => {
            let mark = out.mark();
            append(out, &mut Vec::new(), dice);
            out.truncate_to(mark);
        }
        _ => {
            out.raw(&text);
            expected.extend_from_slice(&text);
        }
    }
}

#[test]
fn whatever_is_appended_and_written_comes_out_in_order() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let meter = Arc::new(Meter::default());
        let mut out = match seed % 3 {
            0 => Output::new(),
            _ => Output::with_buffer(1024 << dice.below(5), Arc::clone(&meter)),
        };
        let mut expected = Vec::new();
        for _ in 0..200 {
            append(&mut out, &mut expected, &mut dice);
            if dice.below(5) == 0 {
                out.mute();
                append(&mut out, &mut Vec::new(), &mut dice);
                out.unmute();
            }
            if dice.below(3) == 0 {
                let written = dice.below(expected.len() + 1);
                expected.drain(..written);
                out.advance(written);
            }
            if dice.below(10) == 0 {
                out.advance(out.len_pending());
                expected.clear();
                out.set_buffer_size(1024 << dice.below(5));
            }
            assert_eq!(out.len_pending(), expected.len());
            let beyond = out.beyond().memory;
            // A value counts as a whole until it is written.
            assert!(beyond <= expected.len() + 3 * 20_504 + 70_000 + beyond / 10);
            assert!(seed % 3 == 0 || meter.held() >= out.chain.held());
        }
        assert!(out.to_vec() == expected, "seed {seed}");
        out.advance(expected.len());
        assert!(out.is_empty());
        assert_eq!((out.chain.held(), meter.held()), (0, 0), "seed {seed}");
        assert_eq!(out.buffer_use().0, 0);
    }
}

#[test]
fn what_is_written_is_given_back_and_what_waits_takes_no_more_than_it_is() {
    const TOTAL: usize = 22 << 20;
    let meter = Arc::new(Meter::default());
    let mut out = Output::with_buffer(16 * 1024, Arc::clone(&meter));
    let item = [b'x'; 1000];
    while out.len_pending() < TOTAL {
        out.bulk(&item);
        assert!(meter.held() <= out.len_pending() + 80 * 1024);
    }
    while !out.is_empty() {
        out.advance(out.len_pending().min(100_000));
        // The first and the last chunk may be in use in part.
        assert!(meter.held() <= out.len_pending() + 2 * 80 * 1024);
    }
    assert_eq!(meter.held(), 0);
}

#[test]
fn past_its_limit_an_output_holds_nothing_and_drops_what_comes() {
    let meter = Arc::new(Meter::default());
    let mut out = Output::with_buffer(16 * 1024, Arc::clone(&meter));
    out.set_limit(Limit {
        hard: 1 << 20,
        ..Limit::default()
    });
    // What the buffer has room for is never too much.
    out.set_limit(Limit {
        hard: 1000,
        ..Limit::default()
    });
    out.bulk(&[b'x'; 5000]);
    assert!(!out.has_overflowed());
    out.set_limit(Limit {
        hard: 1 << 20,
        ..Limit::default()
    });
    let outer = out.deferred();
    for _ in 0..100_000 {
        out.bulk(&[b'x'; 5000]);
        out.bulk_shared(Arc::new(vec![b'x'; SHARED_MIN]));
        assert!(meter.held() <= (1 << 20) + 80 * 1024);
    }
    out.end_array(outer, 200_000);
    assert!(out.has_overflowed());
    assert!(out.beyond().memory >= 1 << 20, "what it was");
    assert_eq!(meter.held(), 0);
    assert!(out.len_pending() <= 16 * 1024);
}

#[test]
fn a_soft_limit_gives_time() {
    let mut out = Output::with_buffer(1024, Arc::default());
    out.set_limit(Limit {
        soft: 20_000,
        soft_ms: 1_000_000,
        ..Limit::default()
    });
    out.raw(&[b'x'; 30_000]);
    let now_ms = crate::base::clock::unix_ms();
    assert!(!out.overflows_at(now_ms + 1000));
    out.advance(30_000);
    assert!(
        !out.overflows_at(now_ms + 10_000_000),
        "what waited is gone"
    );
    out.raw(&[b'x'; 30_000]);
    assert!(!out.overflows_at(now_ms + 1000));
    assert!(out.overflows_at(now_ms + 20_000_000));
}

#[test]
fn a_muted_reply_of_any_length_takes_no_memory() {
    let meter = Arc::new(Meter::default());
    let mut out = Output::with_buffer(1024, Arc::clone(&meter));
    out.int(1);
    out.mute();
    let outer = out.deferred();
    for i in 0..100_000 {
        let inner = out.deferred();
        out.bulk_int(i);
        out.end_array(inner, 1);
    }
    out.end_array(outer, 100_000);
    assert_eq!(meter.held(), 0);
    out.unmute();
    out.int(2);
    assert_eq!(out.to_vec(), b":1\r\n:2\r\n");
}

#[test]
fn the_buffer_is_used_as_redis_uses_its_own() {
    let mut out = Output::with_buffer(1024, Arc::default());
    assert_eq!(out.buffer_use(), (0, 1024));
    out.reset_peak();
    out.bulk_shared(Arc::new(vec![b'x'; 32 * 1024]));
    assert_eq!(out.buffer_use(), (1024, 1024));
    let beyond = out.beyond();
    assert_eq!(beyond.blocks, 1);
    assert!(beyond.memory > 31 * 1024);
    // The buffer is free again only when all that waits behind it is written.
    out.advance(2000);
    out.int(1);
    assert_eq!(out.buffer_use(), (0, 1024));
    assert!(out.beyond().memory > 30 * 1024);
    out.advance(out.len_pending());
    out.reset_peak();
    out.ok();
    assert_eq!(out.buffer_use(), (5, 5));
    assert_eq!(out.beyond(), Beyond::default());
}
