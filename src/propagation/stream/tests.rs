//! The stream as its readers see it.

use super::*;

fn bytes(chunks: Vec<Chunk>) -> Vec<u8> {
    chunks.iter().flat_map(|c| c.bytes.to_vec()).collect()
}

fn text(chunks: Vec<Chunk>) -> String {
    text_of(&bytes(chunks))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("ASCII")
}

#[test]
fn readers_get_everything_after_they_came_and_databases_are_selected() {
    let stream = Arc::new(Stream::default());
    assert!(!stream.is_active());
    let mut first = stream.reader();
    stream.append(|b| b.command(3, &["SET", "k", "v"]));
    let mut second = stream.reader();
    let end = stream.append(|b| b.command(3, &["DEL", "k"]));
    let all = text(first.read());
    assert!(all.starts_with("*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*3\r\n$3\r\nSET\r\n"));
    assert_eq!(all.matches("SELECT").count(), 2);
    assert_eq!(
        text(second.read()),
        "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"
    );
    assert_eq!((first.offset(), second.offset()), (end, end));
    drop((first, second));
    assert!(!stream.is_active());
}

#[test]
fn a_slow_reader_keeps_what_it_needs_and_no_more() {
    let stream = Arc::new(Stream::default());
    let mut slow = stream.reader();
    let mut fast = stream.reader();
    let value = vec![b'x'; 10_000];
    for _ in 0..100 {
        stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
        fast.read();
    }
    assert!(bytes(slow.read()).len() > 1_000_000);
    assert!(stream.log.lock().sealed.is_empty());
}

#[test]
fn who_reads_alone_takes_turns_with_the_log_and_copies_nothing() {
    let stream = Arc::new(Stream::default());
    let (mut reader, mut own) = (stream.file_reader(), Vec::new());
    let set = |value: &str| stream.append(|b| b.command(0, &["SET", "k", value]));
    set("1");
    assert!(reader.take(&mut own).is_empty());
    assert!(text_of(&own).ends_with("$1\r\n1\r\n"));
    assert_eq!((reader.position(), stream.kept()), (stream.position(), 0));
    own.clear();
    // Another reader shares what it has not seen yet.
    let mut other = stream.reader();
    set("2");
    assert_eq!(text(reader.take(&mut own)), text(other.read()));
    assert!(own.is_empty());
    drop(other);
    set("3");
    assert!(reader.take(&mut own).is_empty());
    assert!(text_of(&own).ends_with("$1\r\n3\r\n"));
}

#[test]
fn a_reader_goes_on_where_another_was_left_as_far_as_the_backlog_reaches() {
    let stream = Arc::new(Stream::default());
    stream.set_backlog(1000);
    let first = stream.append(|b| b.command(0, &["SET", "k", "v"]));
    let end = stream.append(|b| b.command(0, &["SET", "k", "w"]));
    let mut reader = stream.reader_at(first).expect("kept");
    assert_eq!(
        text(reader.read()),
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n"
    );
    assert!(stream.reader_at(end).is_some() && stream.reader_at(end + 1).is_none());
    drop(reader);
    let value = vec![b'x'; 2 * CHUNK];
    stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
    stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
    assert!(stream.reader_at(first).is_none());
}

#[test]
fn what_is_for_replicas_is_marked_for_files() {
    let stream = Arc::new(Stream::default());
    let (mut file, mut replica) = (stream.file_reader(), stream.reader());
    let end = stream.append(|b| {
        b.select(0);
        b.bare(&["MULTI"]);
        b.for_replicas(&["PUBLISH", "c", "m"]);
        b.bare(&["EXEC"]);
    });
    let audiences: Vec<Audience> = file.read().iter().map(|c| c.audience).collect();
    assert_eq!(
        audiences,
        [Audience::All, Audience::Replicas, Audience::All]
    );
    assert_eq!((file.position(), replica.offset()), (end, 0));
    assert!(text(replica.read()).contains("PUBLISH"));
}

#[test]
fn an_adopted_stream_has_the_bytes_and_offsets_of_the_primary() {
    let stream = Arc::new(Stream::default());
    stream.set_backlog(1 << 20);
    stream.append(|b| b.command(0, &["SET", "mine", "1"]));
    let (before, mut lost) = (stream.position(), stream.reader());
    stream.adopt(5000, 3);
    assert!(lost.is_lost() && lost.read().is_empty());
    assert_eq!((stream.offset(), stream.position()), (5000, before));
    // What was there before is nobody's any more.
    assert!(stream.reader_at(before).is_none());
    let mut replica = stream.reader();
    assert_eq!(stream.append_raw(b"*1\r\n$4\r\nPING\r\n", 3, true), 5014);
    assert_eq!(text(replica.read()), "*1\r\n$4\r\nPING\r\n");
    assert_eq!(replica.offset(), 5014);
    assert!(stream.reader_at(5013).is_some() && stream.reader_at(4999).is_none());
}

#[test]
fn within_an_adopted_stream_files_get_what_clients_did_and_replicas_do_not() {
    let stream = Arc::new(Stream::default());
    stream.set_backlog(1 << 20);
    stream.append(|b| b.bare(&["before"]));
    stream.adopt(100, 0);
    // Without a file it is kept for nobody.
    stream.append(|b| b.command(7, &["SET", "local", "0"]));
    assert_eq!((stream.offset(), stream.position()), (100, 16));
    stream.append_raw(b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n", 2, false);
    let (mut file, mut replica) = (stream.file_reader(), stream.reader());
    let select = |db| format!("*2\r\n$6\r\nSELECT\r\n$1\r\n{db}\r\n");
    stream.append_raw(b"*1\r\n$1\r\na\r\n", 2, false);
    let end = stream.append(|b| b.command(7, &["b"]));
    stream.append_raw(b"*1\r\n$4\r\nPING\r\n", 2, true);
    stream.append_raw(b"*1\r\n$1\r\nc\r\n", 2, false);
    assert_eq!(end, 100 + 23 + 11);
    // Replicas are told by the primary alone, and a file has nothing of it.
    let before = stream.position();
    stream.append(|b| b.for_replicas(&["e"]));
    assert_eq!(stream.position(), before);
    let sent = "*1\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n*1\r\n$1\r\nc\r\n";
    assert_eq!(text(replica.read()), sent);
    assert_eq!(replica.offset(), stream.offset());
    let (two, seven) = (select(2), select(7));
    let mut chunks = file.read();
    chunks.retain(|c| c.audience != Audience::Replicas);
    let written = format!("{two}*1\r\n$1\r\na\r\n{seven}*1\r\n$1\r\nb\r\n{two}*1\r\n$1\r\nc\r\n");
    assert_eq!(text(chunks), written);
    assert_eq!(file.position(), stream.position());
    // A replica that comes back finds its byte behind what was for files.
    let mut back = stream.reader_at(end).expect("kept");
    assert!(text(back.read()).starts_with("*1\r\n$4\r\nPING"));
    stream.disown();
    stream.append(|b| b.command(2, &["d"]));
    assert_eq!(text(back.read()), format!("{two}*1\r\n$1\r\nd\r\n"));
}

#[test]
fn blocks_of_several_threads_are_whole_and_in_one_order_for_all_readers() {
    let stream = Arc::new(Stream::default());
    let (mut one, mut two) = (stream.reader(), stream.reader());
    std::thread::scope(|scope| {
        for t in 0..3 {
            let stream = &stream;
            scope.spawn(move || {
                for i in 0..500 {
                    let n = format!("{t}:{i}");
                    stream.append(|b| {
                        b.bare(&["MULTI"]);
                        b.command(0, &["SET", &n, "1"]);
                        b.bare(&["EXEC"]);
                    });
                }
            });
        }
    });
    let (a, b) = (text(one.read()), text(two.read()));
    assert_eq!(a, b);
    let parts: Vec<&str> = a.split("*1\r\n$5\r\nMULTI\r\n").skip(1).collect();
    assert_eq!(parts.len(), 1500);
    assert!(
        parts
            .iter()
            .all(|p| p.ends_with("*1\r\n$4\r\nEXEC\r\n") && p.matches("SET").count() == 1)
    );
}
