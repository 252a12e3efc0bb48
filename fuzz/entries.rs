//! What the fuzzers run: one function per parser, shared by the fuzz targets and by the test that
//! drives them with seeded bytes on stable Rust. Each must neither panic nor take long, and checks
//! what can be checked without knowing the input.

#[allow(dead_code, reason = "tests use all of it")]
#[path = "wires.rs"]
mod wires;

use tessera::acl::catalog::{self, Catalog};
use tessera::acl::{Categories, Grammar, file};
use tessera::base::{glob, long_double::LongDouble, lzf, number, text};
use tessera::cluster::conf;
use tessera::cluster::machine::{self, Facts, Machine};
use tessera::cluster::wire;
use tessera::config::Settings;
use tessera::keyspace::entry::Entry;
use tessera::persistence::aof::manifest::Manifest;
use tessera::persistence::aof::reader;
use tessera::persistence::layouts;
use tessera::persistence::rdb::decode::{self, Layouts, Value};
use tessera::persistence::rdb::file::{FileReader, Item, Record};
use tessera::persistence::rdb::payload;
use tessera::replication::follow::{self, Action, Event, Follower, History, Load, StreamName};
use tessera::resp::parse::{Limits, Parser, Progress, ProtocolError, Request};
use tessera::resp::read::{ReadLimits, Reader};
use tessera::scripts::{Metadata, shebang};
use tessera::types::hyperloglog as hll;
use tessera::types::intset::IntSet;
use tessera::types::listpack::{Element, Listpack, Pack};
use tessera::types::stream_block::Block;
use tessera::types::stream_id::StreamId;

/// Requests, in pieces whose size the first byte gives: the same as in one piece.
pub fn parse_request(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let limits = Limits {
        authenticated: piece & 1 == 0,
        max_bulk_len: 100_000,
        ..Limits::default()
    };
    let whole = requests(bytes, bytes.len(), &limits);
    let pieces = requests(bytes, usize::from(piece), &limits);
    // Only a line beyond the limit may be refused earlier when it comes in pieces.
    if bytes.len() <= limits.max_inline {
        assert_eq!(whole, pieces);
    }
}

type Requests = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn requests(bytes: &[u8], piece: usize, limits: &Limits) -> Requests {
    let (mut parser, mut request) = (Parser::new(), Request::default());
    let (mut pos, mut fed, mut got) = (0, 0, Vec::new());
    loop {
        match parser.parse(&bytes[..fed], &mut pos, limits, &mut request) {
            Ok(Progress::Complete) => {
                let args = (0..request.len()).map(|i| request.arg(bytes, i).to_vec());
                got.push(args.collect());
            }
            Ok(Progress::Empty) => {}
            Ok(Progress::Incomplete) if fed == bytes.len() => return (got, None),
            Ok(Progress::Incomplete) => fed = (fed + piece.max(1)).min(bytes.len()),
            Err(error) => return (got, Some(error)),
        }
        assert!(pos <= fed && parser.start_of_request() <= pos);
    }
}

/// Replies, whole and byte by byte.
pub fn read_reply(data: &[u8]) {
    let limits = ReadLimits {
        max_depth: 32,
        max_bulk: 1 << 20,
        max_values: 10_000,
    };
    let read = |step: usize| {
        let (mut reader, mut pos, mut fed, mut got) = (Reader::new(limits), 0, 0, Vec::new());
        loop {
            match reader.read(&data[..fed], &mut pos) {
                Ok(Some(value)) => got.push(value),
                Ok(None) if fed == data.len() => return (got, None),
                Ok(None) => fed = (fed + step).min(data.len()),
                Err(error) => return (got, Some(error)),
            }
        }
    };
    assert_eq!(read(data.len().max(1)), read(1));
}

/// A pattern and a text, divided by the first NUL; numbers of every kind besides.
pub fn glob(data: &[u8]) {
    let at = data.iter().position(|&b| b == 0).unwrap_or(data.len() / 2);
    let (pattern, text) = data.split_at(at);
    let exact = glob::matches(pattern, text, false);
    let plain = |b: &u8| !matches!(b, b'*' | b'?' | b'[' | b'\\');
    if pattern.iter().all(plain) {
        assert_eq!(exact, pattern == text);
        assert_eq!(
            glob::matches(pattern, text, true),
            pattern.eq_ignore_ascii_case(text)
        );
    }
    numbers(text);
}

fn numbers(text: &[u8]) {
    if let Some(value) = number::parse_i64(text) {
        assert_eq!(value.to_string().as_bytes(), text);
    }
    if let Some(value) = number::parse_f64(text) {
        let mut printed = Vec::new();
        number::format_g17(&mut printed, value);
        let again = number::parse_f64(&printed).map(f64::to_bits);
        assert_eq!(again, Some(value.to_bits()));
    }
    if let Some(value) = LongDouble::parse(text) {
        let sum = value + LongDouble::from_i64(1);
        assert!(!sum.is_nan() && !sum.format().is_empty());
    }
}

/// A line of arguments; quoting each gives the same arguments again.
pub fn split_args(data: &[u8]) {
    let Some(args) = text::split_args(data) else {
        return;
    };
    let quoted: Vec<Vec<u8>> = args.iter().map(|arg| text::quote(arg)).collect();
    assert_eq!(text::split_args(&quoted.join(&b' ')), Some(args));
}

/// A listpack from outside: what passes reads the same from both ends, and stays well formed
/// through edits.
pub fn listpack(data: &[u8]) {
    // Headers that fit are rare among random bytes, so that they are put right.
    let mut framed = data.to_vec();
    framed.resize(data.len().max(7), 0);
    let len = framed.len();
    framed[..4].copy_from_slice(&(len as u32).to_le_bytes());
    framed[4..6].fill(0xff);
    framed[len - 1] = 0xff;
    for bytes in [data, &framed] {
        let Some(mut lp) = Listpack::from_bytes(bytes) else {
            continue;
        };
        let texts: Vec<_> = lp.iter().map(Element::to_vec).collect();
        let backwards: Vec<_> = lp.iter().rev().map(Element::to_vec).collect();
        assert!(texts.iter().eq(backwards.iter().rev()));
        let middle = lp.pack().seek(lp.len() as i64 / 2);
        if let Some(at) = middle {
            lp.replace(at, data);
            lp.insert(at, Element::Int(len as i64));
            assert_eq!(lp.delete(at, 2), 2);
        }
        lp.push_front(data);
        assert!(Pack::validate(lp.as_bytes()).is_some());
    }
}

/// A HyperLogLog from outside: whatever it holds, it is counted, changed and joined or refused.
pub fn hyperloglog(data: &[u8]) {
    let mut framed = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".to_vec();
    framed.extend_from_slice(data);
    let mut dense = framed.clone();
    dense[4] = 0;
    dense.resize(16 + 12288, 0x55);
    for bytes in [data.to_vec(), framed, dense] {
        if !hll::is_one(&bytes) {
            continue;
        }
        let mut union = hll::Union::default();
        let joined = union.add(&bytes);
        assert_eq!(hll::count(&bytes).is_ok(), joined.is_ok());
        if joined.is_ok() {
            assert_eq!(hll::count(&bytes), Ok(union.count()));
        }
        let mut changed = bytes.clone();
        for element in data.chunks(5).take(20) {
            let added = hll::add(&mut changed, element, 300);
            assert!(added.is_ok() || joined.is_err());
        }
        assert!(hll::is_one(&changed));
        if !hll::is_dense(&bytes) {
            let _ = hll::opcodes(&bytes);
            assert_eq!(hll::make_dense(&mut changed).is_ok(), joined.is_ok());
        }
    }
}

/// Intsets: bytes from outside are one or nothing; one holds what it shows, and takes more.
pub fn intset(data: &[u8]) {
    let Some(mut set) = IntSet::from_bytes(data) else {
        return;
    };
    assert_eq!(set.as_bytes(), data);
    let all: Vec<i64> = set.iter().collect();
    assert!(all.is_sorted_by(|a, b| a < b) && all.len() == set.len());
    assert!(all.iter().all(|&n| set.contains(n)));
    for n in [0, -1, 300, 1 << 20, i64::MIN] {
        let there = all.contains(&n);
        assert_eq!(set.contains(n), there);
        assert_eq!(set.insert(n), !there);
        assert!(set.remove(n) && !set.contains(n));
    }
}

/// Compressed bytes from outside, the first of which says how long they claim to be; and any bytes
/// through both directions.
pub fn lzf(data: &[u8]) {
    if let Some((&len, packed)) = data.split_first() {
        let len = usize::from(len);
        let out = lzf::decompress(packed, len);
        assert!(out.is_none_or(|out| out.len() == len));
    }
    if let Some(packed) = lzf::compress(data, 2 * data.len()) {
        assert_eq!(lzf::decompress(&packed, data.len()).as_deref(), Some(data));
    }
}

/// Words, divided by blanks, as the elements of a stream's block: what passes can be read from
/// both ends, and stays a block when an entry is deleted.
pub fn stream_block(data: &[u8]) {
    let words = data.split(|b| *b == b' ').map(Element::from);
    let pack = Listpack::of(words);
    if !Block::validate(pack.pack()) {
        return;
    }
    let mut block = Block::of(StreamId::new(5, 5), pack);
    let ids: Vec<_> = block.iter(false).map(|entry| entry.id).collect();
    let backwards: Vec<_> = block.iter(true).map(|entry| entry.id).collect();
    assert!(ids.iter().eq(backwards.iter().rev()));
    for entry in block.iter(false) {
        assert_eq!(entry.iter().count(), entry.fields);
    }
    if let Some(id) = ids.first() {
        block.delete(*id);
        let pack = Pack::validate(block.as_bytes());
        assert!(pack.is_some_and(Block::validate));
    }
}

/// A value that was read from outside can be written, and what is written can be read.
fn written_again(value: Value, layouts: &Layouts) -> Entry {
    let entry = value.into_entry(b"key", None, 0);
    let written = payload::of(&entry, true);
    assert!(payload::is_sound(&written));
    assert!(payload::value(&written, layouts).is_ok());
    entry
}

/// A payload of FUNCTION RESTORE, whatever its checksum, and the first lines of the libraries in it.
pub fn functions(data: &[u8]) {
    if let Ok(sources) = payload::functions(data) {
        for source in &sources {
            let _ = Metadata::of(source);
            let _ = shebang(source);
        }
        let again = payload::of_functions(&sources, false);
        assert_eq!(payload::functions(&again).as_ref(), Ok(&sources));
    }
    let _ = (Metadata::of(data), shebang(data));
}

/// A payload of RESTORE, whatever its checksum.
pub fn restore(data: &[u8]) {
    let layouts = layouts::all(&Settings::default());
    let _ = payload::is_sound(data);
    if let Ok(value) = payload::value(data, &layouts) {
        written_again(value, &layouts);
    }
}

/// A dump file, as it is and as what follows the first bytes of one. All values that are found
/// lie in the file and are read or refused.
pub fn rdb_file(data: &[u8]) {
    let layouts = layouts::all(&Settings::default());
    let framed = [b"REDIS0010", data].concat();
    for bytes in [data, &framed] {
        let Ok(mut reader) = FileReader::new(bytes, false) else {
            continue;
        };
        let mut before = reader.offset();
        while let Ok(item) = reader.next_item() {
            assert!(before < reader.offset() && reader.offset() <= bytes.len() as u64);
            before = reader.offset();
            match item {
                Item::Record(_) => {
                    let mut record = Record::parse(reader.record()).expect("it was measured");
                    let value = decode::value(record.code, &mut record.value, &layouts);
                    if let Ok(value) = value {
                        written_again(value, &layouts);
                    }
                }
                Item::End => break,
                _ => {}
            }
        }
    }
}

/// A file of commands: what is sound is known, and is as long as its parts.
pub fn aof_reader(data: &[u8]) {
    read_aof(data, reader::Reader::new(data, 0));
    read_aof(data, reader::Reader::lenient(data, 0));
}

fn read_aof(data: &[u8], mut reader: reader::Reader<&[u8]>) {
    loop {
        let before = reader.offset();
        match reader.next_item() {
            Ok(Some(item)) => {
                let held: usize = match item {
                    reader::Item::Command(args) => args.iter().map(|arg| arg.len() + 4).sum(),
                    reader::Item::Annotation(line) => line.len(),
                };
                assert!(before + held as u64 <= reader.offset());
            }
            Ok(None) => {
                assert_eq!(reader.offset(), data.len() as u64);
                return;
            }
            Err(_) => {
                assert!(reader.offset() == before && reader.fault() >= before);
                assert!(reader.fault() <= data.len() as u64);
                return;
            }
        }
    }
}

/// A manifest, which says the same when it is written again.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    let text = manifest.text();
    // Quoted names may become longer than a line may be.
    if text.is_empty() || text.lines().any(|line| line.len() > 1000) {
        return;
    }
    let again = Manifest::parse(text.as_bytes()).expect("what was written is read");
    assert_eq!(again, manifest);
}

/// A file of users, whose rules say the same when they are written again.
pub fn users(data: &[u8]) {
    let command =
        |name: &str, category: u32, parent: Option<usize>, subcommands: &[usize]| catalog::Entry {
            name: name.to_owned(),
            categories: Categories(category),
            parent,
            subcommands: subcommands.to_vec(),
        };
    let catalog = Catalog::new(vec![
        command("get", 3, None, &[]),
        command("set", 5, None, &[]),
        command("config", 8, None, &[3, 4]),
        command("config|get", 9, Some(2), &[]),
        command("config|set", 9, Some(2), &[]),
        command("select", 1, None, &[]),
    ]);
    let (first, text) = data.split_first().unwrap_or((&0, &[]));
    let grammar = |all_channels| Grammar {
        catalog: &catalog,
        all_channels,
    };
    let Ok(users) = file::read(grammar(*first == b'&'), "users", text) else {
        return;
    };
    for (name, rules) in users {
        let described = rules.describe(&catalog);
        // What quotes and parentheses within names lead to, only who wrote them knows.
        let is_plain = |b: &u8| b.is_ascii_graphic() && !b"\"'\\".contains(b) || *b == b' ';
        let count = |byte: u8| described.iter().filter(|b| **b == byte).count();
        let opens = described.windows(2).filter(|pair| *pair == b" (").count();
        let is_balanced = count(b'(') == opens && count(b')') == opens;
        if described.iter().all(is_plain) && is_balanced {
            let line = [b"user ", &name[..], b" ", &described].concat();
            let again =
                file::read(grammar(false), "users", &line).expect("what was written is read");
            assert_eq!(again[&name].describe(&catalog), described);
        }
    }
}

/// Bytes of a primary, in pieces whose size the first byte gives: the same dump, stream and log as in
/// one piece.
pub fn primary(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    let load = [Load::File, Load::Direct, Load::Swap][usize::from(first) % 3];
    let piece = usize::from(first / 3).max(1);
    let asked = b"+PONG\r\n+OK\r\n+OK\r\n";
    let whole = follow(&[asked, bytes], load);
    let pieces: Vec<&[u8]> = std::iter::once(&asked[..])
        .chain(bytes.chunks(piece))
        .collect();
    assert_eq!(follow(&pieces, load), whole);
    // From the greeting on.
    follow(&bytes.chunks(piece).collect::<Vec<_>>(), load);
}

/// What a primary's bytes came to.
#[derive(Debug, Default, PartialEq)]
struct Followed {
    dump: Vec<u8>,
    stream: Vec<u8>,
    others: Vec<Action>,
    is_closed: bool,
}

fn follow(pieces: &[&[u8]], load: Load) -> Followed {
    let mut follower = Follower::new(follow::Settings {
        port: 6380,
        ip: None,
        user: None,
        password: None,
        timeout: 60,
        load,
    });
    let (host, port) = ("primary".to_owned(), 6379);
    follower.step(Event::Start { host, port }, 0);
    follower.step(Event::Connected { attempt: 1 }, 0);
    let mut followed = Followed::default();
    for bytes in pieces {
        let mut actions = follower.step(Event::Bytes(bytes), 0);
        loop {
            let answer = followed.take(actions, bytes);
            if followed.is_closed {
                return followed;
            }
            let Some(answer) = answer else {
                break;
            };
            actions = follower.step(answer, 0);
        }
    }
    followed
}

impl Followed {
    /// Takes note of what is to be done, until the connection is closed; what is to be answered.
    fn take(&mut self, actions: Vec<Action>, bytes: &[u8]) -> Option<Event<'static>> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::LoadBytes(range) => self.dump.extend_from_slice(&bytes[range]),
                Action::LoadHeld(held) => self.dump.extend_from_slice(held.bytes()),
                Action::StreamBytes(range) => self.stream.extend_from_slice(&bytes[range]),
                Action::Close => {
                    self.is_closed = true;
                    return None;
                }
                Action::AskHistory { attempt } => {
                    let id = StreamName::parse(&[b'a'; 40]).expect("letters");
                    let history = Some(History { id, offset: 41 });
                    answer = Some(Event::History { attempt, history });
                }
                Action::EndLoad => answer = Some(Event::Loaded { attempt: 1 }),
                other => self.others.push(other),
            }
        }
        answer
    }
}

/// Messages of the cluster bus: what a peer sends, cut where it says; a node that takes them stays whole,
/// and what is read can be written.
pub fn bus(data: &[u8]) {
    let facts = Facts {
        now: 1_700_000_000_000,
        ..Facts::default()
    };
    let (mut node, _) = Machine::new(Default::default(), None, 7, facts);
    let link = node.accept("10.0.0.2".to_owned(), "10.0.0.1".to_owned(), facts);
    let mut rest = data;
    while let Ok(Some(length)) = wire::frame(rest) {
        let Some((message, more)) = rest.split_at_checked(length) else {
            break;
        };
        if let Ok(message) = wire::decode(message) {
            assert_eq!(wire::decode(&wire::encode(&message)), Ok(message));
        }
        node.step(
            machine::Event::Message {
                link,
                bytes: message,
            },
            facts,
        );
        rest = more;
    }
    node.tick(facts);
    let text = conf::write(node.view());
    conf::read(text.as_bytes(), 0).expect("what a node writes can be read");
}

/// nodes.conf: what is read is written, and can be read again.
pub fn nodes_conf(data: &[u8]) {
    if let Ok(view) = conf::read(data, 0) {
        let text = conf::write(&view);
        conf::read(text.as_bytes(), 0).expect("what a node writes can be read");
    }
}

/// What two streams over TLS say to each other, in an order that the bytes give: two bits are what is done next,
/// the rest how much of it.
pub fn tls_records(data: &[u8]) {
    wires::with(|wires| {
        for &byte in data.iter().take(64) {
            let much = usize::from(byte >> 2);
            match byte & 3 {
                0 => wires.write(1 + much * much * 8),
                1 => _ = wires.carry(1 + much),
                2 => _ = wires.carry(1 + much * much * 16),
                _ => _ = wires.read(1 + much * much),
            }
        }
        wires.finish();
    });
}
