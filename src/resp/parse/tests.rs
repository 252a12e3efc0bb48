//! The parser against its language, read in the plainest way, whole and in pieces.

use super::*;
use proptest::prelude::*;

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds `bytes` in pieces as a connection does: drops executed bytes, reads big arguments directly.
fn run(bytes: &[u8], limits: &Limits, pieces: &[usize]) -> Outcome {
    let (mut parser, mut request) = (Parser::new(), Request::default());
    let (mut input, mut pos, mut fed, mut got) = (Vec::new(), 0, 0, Vec::new());
    let mut pieces = pieces.iter().cycle();
    loop {
        loop {
            match parser.parse(&input, &mut pos, limits, &mut request) {
                Ok(Progress::Complete) => {
                    let args = (0..request.len()).map(|i| request.arg(&input, i).to_vec());
                    got.push(args.collect());
                }
                Ok(Progress::Empty) => assert!(request.is_empty()),
                Ok(Progress::Incomplete) => break,
                Err(error) => return (got, Some(error)),
            }
        }
        let dropped = parser.start_of_request();
        input.drain(..dropped);
        pos -= dropped;
        parser.rebase(dropped);
        if fed == bytes.len() {
            return (got, None);
        }
        let piece = pieces.next().copied().unwrap_or(1).max(1);
        let more = &bytes[fed..(fed + piece).min(bytes.len())];
        fed += more.len();
        match parser.big_target() {
            Some((big, needed)) if piece % 2 == 0 => {
                assert!(big.capacity() > big.len());
                let (head, tail) = more.split_at(needed.min(more.len()));
                big.extend_from_slice(head);
                input.extend_from_slice(tail);
            }
            _ => input.extend_from_slice(more),
        }
    }
}

/// The same language, read in the plainest way from the whole of the bytes.
fn naive(mut rest: &[u8], limits: &Limits) -> Outcome {
    let mut got = Vec::new();
    loop {
        if rest.first() != Some(&b'*') {
            let Some(end) = rest.iter().position(|&b| b == b'\n') else {
                let long = rest.len() > limits.max_inline;
                return (got, long.then_some(ProtocolError::TooBigInline));
            };
            if rest[..end].contains(&0) {
                let long = rest.len() > limits.max_inline;
                return (got, long.then_some(ProtocolError::TooBigInline));
            }
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            match split_args(line) {
                None => return (got, Some(ProtocolError::UnbalancedQuotes)),
                Some(args) if args.is_empty() => {}
                Some(args) => got.push(args),
            }
            rest = &rest[end + 1..];
            continue;
        }
        match naive_multibulk(rest, limits) {
            Ok(Some((args, len))) => {
                rest = &rest[len..];
                if !args.is_empty() {
                    got.push(args);
                }
            }
            Ok(None) => return (got, None),
            Err(error) => return (got, Some(error)),
        }
    }
}

type Multibulk = Option<(Vec<Vec<u8>>, usize)>;

fn naive_multibulk(bytes: &[u8], limits: &Limits) -> Result<Multibulk, ProtocolError> {
    let line = |at: usize, error| {
        let rest = &bytes[at..];
        match rest.iter().position(|&b| b == b'\r' || b == 0) {
            Some(end) if rest[end] == b'\r' => Ok((end + 1 < rest.len()).then_some(at + end)),
            _ if rest.len() > limits.max_inline => Err(error),
            _ => Ok(None),
        }
    };
    let Some(end) = line(0, ProtocolError::TooBigMultibulkCount)? else {
        return Ok(None);
    };
    let count = parse_i64(&bytes[1..end]).filter(|&n| n <= limits.max_multibulk);
    let count = count.ok_or(ProtocolError::InvalidMultibulkLength)?;
    if count > 10 && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulk);
    }
    let (mut at, mut args) = (end + 2, Vec::new());
    for _ in 0..count {
        let Some(end) = line(at, ProtocolError::TooBigBulkCount)? else {
            return Ok(None);
        };
        if bytes[at] != b'$' {
            return Err(ProtocolError::ExpectedDollar(bytes[at]));
        }
        let len = parse_i64(&bytes[at + 1..end])
            .filter(|&n| n >= 0 && n as u64 <= limits.max_bulk_len)
            .ok_or(ProtocolError::InvalidBulkLength)? as usize;
        if len > 16384 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        at = end + 2;
        if bytes.len() < at + len + 2 {
            return Ok(None);
        }
        args.push(bytes[at..at + len].to_vec());
        at += len + 2;
    }
    Ok(Some((args, at)))
}

#[track_caller]
fn check(bytes: &[u8], args: &[&[&[u8]]], error: Option<&str>) {
    let limits = Limits::default();
    for pieces in [&[usize::MAX / 2][..], &[1], &[2, 3]] {
        let (got, refused) = run(bytes, &limits, pieces);
        let expected: Vec<Vec<Vec<u8>>> = args
            .iter()
            .map(|args| args.iter().map(|arg| arg.to_vec()).collect())
            .collect();
        assert_eq!(got, expected);
        assert_eq!(refused.map(|e| e.to_string()).as_deref(), error);
    }
    assert_eq!(
        run(bytes, &limits, &[usize::MAX / 2]),
        naive(bytes, &limits)
    );
}

#[test]
fn parses_both_forms() {
    check(b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]], None);
    check(
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n",
        &[&[b"GET", b""], &[b"PING"]],
        None,
    );
    check(
        b"\r\n\n*0\r\n*-5\r\nset a  \"b\\n\"\n",
        &[&[b"set", b"a", b"b\n"]],
        None,
    );
    check(b"\x0bget a\x0bb\n", &[&[b"get", b"a\x0bb"]], None);
    check(
        b"*1xx\r\n",
        &[],
        Some("Protocol error: invalid multibulk length"),
    );
    check(
        b"*2147483648\r\n",
        &[],
        Some("Protocol error: invalid multibulk length"),
    );
    check(
        b"*01\r\n",
        &[],
        Some("Protocol error: invalid multibulk length"),
    );
    check(
        b"*\r\n",
        &[],
        Some("Protocol error: invalid multibulk length"),
    );
    check(
        b"*1\r\n$-1\r\n",
        &[],
        Some("Protocol error: invalid bulk length"),
    );
    check(
        b"*1\r\n$536870913\r\n",
        &[],
        Some("Protocol error: invalid bulk length"),
    );
    check(
        b"*1\r\n\r\nx",
        &[],
        Some("Protocol error: expected '$', got '\r'"),
    );
    check(
        b"*1\r\nfoo\r\n",
        &[],
        Some("Protocol error: expected '$', got 'f'"),
    );
    check(
        b"get \"a\r\n",
        &[],
        Some("Protocol error: unbalanced quotes in request"),
    );
    check(b"*1\r\n$1", &[], None);
    // The byte after CR and the two after a bulk may be anything.
    check(b"*1\rx$1\ryaZZPING\r\n", &[&[b"a"], &[b"PING"]], None);
}

#[test]
fn lines_without_end_are_refused_in_time() {
    for (head, text) in [
        (&b"a"[..], "Protocol error: too big inline request"),
        (b"\0\n", "Protocol error: too big inline request"),
        (b"*", "Protocol error: too big mbulk count string"),
        (b"*\0\r\n", "Protocol error: too big mbulk count string"),
        (b"*1\r\n$", "Protocol error: too big bulk count string"),
        (
            b"*1\r\n$\0\r\n",
            "Protocol error: too big bulk count string",
        ),
    ] {
        let mut bytes = head.to_vec();
        bytes.resize(MAX_LINE, b'x');
        assert_eq!(run(&bytes, &Limits::default(), &[7777]).1, None);
        bytes.resize(MAX_LINE + 9, b'x');
        let error = run(&bytes, &Limits::default(), &[7777]).1;
        assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(text));
    }
}

#[test]
fn strangers_get_little() {
    let limits = Limits {
        authenticated: false,
        ..Limits::default()
    };
    let error = |bytes: &[u8]| run(bytes, &limits, &[100]).1;
    assert_eq!(
        error(b"*11\r\n"),
        Some(ProtocolError::UnauthenticatedMultibulk)
    );
    assert_eq!(
        error(b"*10\r\n$16385\r\n"),
        Some(ProtocolError::UnauthenticatedBulk)
    );
    assert_eq!(error(b"*10\r\n$16384\r\n"), None);
    assert_eq!(
        ProtocolError::ExpectedDollar(0xff).message().last_chunk(),
        Some(b"'\xff'")
    );
}

/// Quadratic work would take minutes here.
#[test]
fn a_million_arguments_may_trickle_in() {
    const COUNT: usize = 1_000_000;
    let mut bytes = format!("*{COUNT}\r\n").into_bytes();
    bytes.extend_from_slice(&b"$1\r\na\r\n".repeat(COUNT));
    let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
    for fed in (0..bytes.len()).step_by(5) {
        let progress = parser.parse(&bytes[..fed], &mut pos, &Limits::default(), &mut request);
        assert_eq!(progress, Ok(Progress::Incomplete));
    }
    let progress = parser.parse(&bytes, &mut pos, &Limits::default(), &mut request);
    assert_eq!((progress, request.len()), (Ok(Progress::Complete), COUNT));
    assert_eq!(request.arg(&bytes, COUNT - 1), b"a");
}

#[test]
fn a_partial_request_may_be_moved() {
    let bytes = b"PING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n";
    let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
    let limits = Limits::default();
    let mut parse = |parser: &mut Parser, input: &[u8], pos: &mut usize| {
        let progress = parser.parse(input, pos, &limits, &mut request);
        let args = (0..request.len()).filter(|_| progress == Ok(Progress::Complete));
        args.map(|i| request.arg(input, i).to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(parse(&mut parser, &bytes[..30], &mut pos), [b"PING"]);
    assert!(parse(&mut parser, &bytes[..30], &mut pos).is_empty());
    assert_eq!(parser.start_of_request(), 6);
    parser.rebase(6);
    pos -= 6;
    let args = parse(&mut parser, &bytes[6..], &mut pos);
    assert_eq!(args, [&b"SET"[..], b"k", b"vv"]);
    assert!(parser.is_idle());
}

#[test]
fn big_arguments_reserve_what_arrives() {
    let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
    let limits = Limits::default();
    let input = b"*2\r\n$1\r\na\r\n$500000000\r\nxyz";
    let progress = parser.parse(input, &mut pos, &limits, &mut request);
    assert_eq!((progress, pos), (Ok(Progress::Incomplete), input.len()));
    assert!(!parser.is_idle());
    let (big, needed) = parser.big_target().expect("a big argument is on its way");
    assert_eq!((big.len(), needed), (3, 499_999_999));
    assert!(big.capacity() <= BIG_STEP + 3);
}

#[test]
fn completed_requests_stay_valid_and_count_their_bytes() {
    let mut bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING x\r\n*2\r\n$1\r\nb\r\n$40000\r\n".to_vec();
    bytes.resize(bytes.len() + 40_000, b'v');
    bytes.extend_from_slice(b"\r\n");
    let (mut parser, mut pos, limits) = (Parser::new(), 0, Limits::default());
    let mut requests = [Request::default(), Request::default(), Request::default()];
    for request in &mut requests {
        let progress = parser.parse(&bytes, &mut pos, &limits, request);
        assert_eq!(progress, Ok(Progress::Complete));
    }
    assert_eq!(requests[0].arg(&bytes, 1), b"a");
    assert_eq!(requests[1].arg(&bytes, 1), b"x");
    assert_eq!(requests[2].arg(&bytes, 1).len(), 40_000);
    let sum: u64 = requests.iter().map(|request| request.wire_bytes()).sum();
    assert_eq!(sum, bytes.len() as u64);

    let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
    let third = &bytes[bytes.len() - requests[2].wire_bytes() as usize..];
    let (head, tail) = third.split_at(100);
    parser
        .parse(head, &mut pos, &limits, &mut request)
        .expect("well formed");
    let (big, needed) = parser.big_target().expect("the value is big");
    assert_eq!(needed, tail.len());
    big.extend_from_slice(tail);
    let progress = parser.parse(head, &mut pos, &limits, &mut request);
    assert_eq!(progress, Ok(Progress::Complete));
    assert_eq!(request.wire_bytes(), third.len() as u64);
    assert_eq!(request.take_big(1).map(|big| big.len()), Some(40_000));
}

#[test]
fn a_request_in_the_form_we_write_is_known_as_a_whole_and_no_other() {
    let parsed = |bytes: &[u8]| {
        let (mut parser, mut request, mut pos) = (Parser::new(), Request::default(), 0);
        let progress = parser.parse(bytes, &mut pos, &Limits::default(), &mut request);
        assert_eq!(progress, Ok(Progress::Complete));
        assert_eq!(request.wire_bytes(), bytes.len() as u64);
        let args = (0..request.len()).map(|i| request.arg(bytes, i).to_vec());
        (args.collect::<Vec<_>>(), request.whole)
    };
    let long = [b'x'; 123];
    for args in [&[&b"GET"[..], b"", b"a\r\n"][..], &[&long[..]; 100]] {
        let mut bytes = Vec::new();
        crate::resp::write::request(&mut bytes, args);
        let (found, whole) = parsed(&bytes);
        assert_eq!((&found[0][..], found.len()), (args[0], args.len()));
        assert_eq!(whole, 0..bytes.len());
    }
    let others = [
        &b"*2\rx$3\r\nGET\r\n$1\r\na\r\n"[..],
        b"*2\r\n$3\rxGET\r\n$1\r\na\r\n",
        b"*2\r\n$3\r\nGETxx$1\r\na\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\na\rx",
        b"GET a\r\n",
    ];
    for bytes in others {
        assert_eq!(parsed(bytes), (vec![b"GET".to_vec(), b"a".to_vec()], 0..0));
    }
}

/// Bytes that are mostly requests, sometimes broken ones.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let arg = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => Just(vec![b'B'; BIG_ARG]),
    ];
    let multibulk = proptest::collection::vec(arg, 0..12).prop_map(|args| {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(&arg);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    });
    let request = prop_oneof![
        6 => multibulk,
        2 => "[ a-c\"'\\\\x0\t\x0b]{0,12}\r?\n".prop_map(String::into_bytes),
        1 => "[*$0-9\r\n\0-]{1,8}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(request, 0..6).prop_map(|requests| requests.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_requests(
        bytes in streams(),
        pieces in proptest::collection::vec(prop_oneof![1usize..9, 1000usize..50_000], 1..8),
        authenticated in any::<bool>(),
    ) {
        let limits = Limits { authenticated, ..Limits::default() };
        prop_assert_eq!(run(&bytes, &limits, &pieces), naive(&bytes, &limits));
    }
}
