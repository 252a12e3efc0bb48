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
            assert_eq!(out.len_since(mark), 5 + 8 + SHARED_MIN + 2);
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
