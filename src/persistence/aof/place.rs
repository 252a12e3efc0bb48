//! Where in which replication stream an append-only file ends: lines that a server writes while its stream
//! has a name, and that real Redis skips as it skips those with times.
//!
//! ```text
//!     #R:<offset>:<name>   what follows is that stream from there on (bytes before it, in all)
//!     #R:<offset>          the same, after something that is in one of the two and not in the other
//!     #R                   what was written until here is all there was of the stream
//!     #R:-                 the stream has no name any more
//! ```
//!
//! A file tells its place when it ends with one of the first three: each write ends so. What somebody
//! else appended, or a write that is there in part, has none behind it: then the place is not known.

use std::borrow::Cow;

use crate::base::number;
use crate::propagation::Place;

/// How a line begins.
const BEGIN: &[u8] = b"#R";

/// A line behind what was written, with the offset where that cannot be told from the file.
pub(super) fn mark(offset: Option<u64>) -> Cow<'static, [u8]> {
    match offset {
        Some(offset) => Cow::Owned(format!("#R:{offset}\r\n").into_bytes()),
        None => Cow::Borrowed(b"#R\r\n"),
    }
}

/// Follows a file as it is read.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    id: Option<String>,
    offset: u64,
    selected: usize,
    /// Nothing follows the last line.
    is_marked: bool,
}

impl Tracker {
    /// A command of so many bytes was read; `selected` is the database behind it.
    pub fn command(&mut self, bytes: u64, selected: usize) {
        self.offset = self.offset.saturating_add(bytes);
        self.selected = selected;
        self.is_marked = false;
    }

    /// A line that begins with `#` was read, without its end; `within` a transaction it marks nothing.
    pub fn line(&mut self, line: &[u8], within: bool) {
        let Some(rest) = line.strip_prefix(BEGIN) else {
            return;
        };
        let rest = rest.strip_prefix(b":").unwrap_or(rest);
        let (offset, id) = match rest.iter().position(|b| *b == b':') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let known = match (offset, id) {
            (b"", None) => true,
            (b"-", _) => {
                self.id = None;
                false
            }
            _ => match number::parse_i64(offset).map(u64::try_from) {
                Some(Ok(offset)) => {
                    self.offset = offset;
                    true
                }
                _ => false,
            },
        };
        if let Some(id) = id {
            self.id = std::str::from_utf8(id).ok().map(str::to_owned);
        }
        self.is_marked = known && !within;
    }

    /// Where the file ends, if it tells.
    pub fn place(&self) -> Option<Place> {
        let id = self.id.clone().filter(|_| self.is_marked)?;
        Some(Place {
            id,
            offset: self.offset,
            selected: self.selected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::aof::reader::{Item, Reader};
    use crate::persistence::aof::writer::{Policy, Sync, Writer};
    use crate::propagation::Stream;

    #[test]
    fn a_place_is_known_behind_a_mark_and_nowhere_else() {
        let mut tracker = Tracker::default();
        let place = |tracker: &Tracker| tracker.place().map(|p| (p.offset, p.selected));
        tracker.line(b"#R", false);
        assert_eq!(place(&tracker), None);
        tracker.line(b"#R:100:abc", false);
        assert_eq!(place(&tracker), Some((100, 0)));
        tracker.command(23, 3);
        assert_eq!(place(&tracker), None);
        tracker.line(b"#TS:1", false);
        assert_eq!(place(&tracker), None);
        tracker.line(b"#R", false);
        assert_eq!(place(&tracker), Some((123, 3)));
        tracker.command(50, 3);
        tracker.line(b"#R:200", false);
        assert_eq!(place(&tracker), Some((200, 3)));
        tracker.command(7, 3);
        tracker.line(b"#R", true);
        assert_eq!(place(&tracker), None);
        tracker.line(b"#R", false);
        assert_eq!(tracker.place().expect("marked").id, "abc");
        tracker.line(b"#R:-", false);
        tracker.line(b"#R", false);
        assert_eq!(place(&tracker), None);
        for odd in [&b"#R:x:abc"[..], b"#R:-5", b"#R:99999999999999999999:abc"] {
            tracker.line(odd, false);
            assert_eq!(place(&tracker), None, "{odd:?}");
        }
    }

    /// Where a file that `writer` writes ends, as who reads it finds.
    fn place_of(path: &std::path::Path) -> Option<Place> {
        let file = std::fs::File::open(path).expect("it was written");
        let mut reader = Reader::new(std::io::BufReader::new(file), 0);
        let (mut tracker, mut selected) = (Tracker::default(), 0);
        loop {
            let begin = reader.offset();
            match reader.next_item().expect("sound") {
                None => return tracker.place(),
                Some(Item::Annotation(line)) => tracker.line(&line, false),
                Some(Item::Command(args)) => {
                    if args[0] == b"SELECT" {
                        let db = std::str::from_utf8(&args[1]).map(str::parse);
                        selected = db.expect("ASCII").expect("a number");
                    }
                    tracker.command(reader.offset() - begin, selected);
                }
            }
        }
    }

    #[test]
    fn a_file_tells_its_place_whatever_is_between_what_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("incr");
        let file = std::fs::File::create(&path).expect("a file");
        let stream = std::sync::Arc::new(Stream::default());
        stream.set_backlog(1 << 20);
        let reader = stream.file_reader();
        let mut writer = Writer::new(reader, file, 0, Default::default());
        let policy = Policy {
            sync: Sync::Never,
            timestamps: true,
        };
        let mut check = |id: Option<&str>| {
            writer.write(&|| policy).expect("written");
            let place = id.map(|id| Place {
                id: id.to_owned(),
                offset: stream.offset(),
                selected: stream.selected(),
            });
            assert_eq!(place_of(&path), place);
        };
        let set = |db| stream.append(|b| b.command(db, &["SET", "k", "v"]));
        let ping = || stream.append(|b| b.for_replicas(&["PING"]));
        set(0);
        check(None);
        stream.set_name(Some("one"));
        check(Some("one"));
        set(2);
        check(Some("one"));
        ping();
        check(Some("one"));
        set(2);
        ping();
        set(3);
        check(Some("one"));
        // As a replica: the primary's bytes, its pings, and what clients do in between.
        stream.adopt(7000, 5);
        stream.set_name(Some("two"));
        check(Some("two"));
        stream.append_raw(b"*1\r\n$1\r\na\r\n", 5, false);
        set(9);
        check(Some("two"));
        stream.append_raw(b"*1\r\n$4\r\nPING\r\n", 5, true);
        set(9);
        stream.append_raw(b"*1\r\n$1\r\nb\r\n", 5, false);
        check(Some("two"));
        stream.disown();
        stream.set_name(Some("three"));
        set(1);
        check(Some("three"));
        stream.set_name(None);
        set(1);
        check(None);
    }
}
