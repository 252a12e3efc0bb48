//! A stream's block: a listpack of entries with IDs close to each other, as Redis lays it out.
//!
//! ```text
//!  master entry: | live | deleted | N | field 1 | ... | field N | 0 |
//!  an entry:     | flags | ms | seq | value 1 | ... | value N | elements |            same fields
//!                | flags | ms | seq | M | field 1 | value 1 | ... | elements |         its own
//! ```
//!
//! The master entry has the fields of the entry that began the block; entries with just these name
//! none. IDs are stored as differences to the block's own, which is that of its first entry. The
//! number of elements at the end of each entry leads back to its flags. Deleted entries stay, with
//! a flag, until the whole block goes.

use super::listpack::{Element, HEADER, Iter, Listpack, Pack};
use super::stream_id::StreamId;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// Elements of an entry beside its fields and values: flags, both differences.
const LEADING: usize = 3;

/// A block of a stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// The ID that those of the entries are stored against.
    pub master: StreamId,
    pack: Listpack,
}

/// What is at the front of a block.
#[derive(Clone, Copy)]
struct Head {
    live: i64,
    deleted: i64,
    fields: usize,
    /// Offset of the first field.
    fields_at: usize,
}

fn number(element: Element<'_>) -> i64 {
    element.integer().unwrap_or(0)
}

impl Head {
    fn read(pack: Pack<'_>) -> Self {
        let mut elements = pack.iter();
        let mut next = || elements.next().map_or(0, number);
        let (live, deleted, fields) = (next(), next(), next());
        Self {
            live,
            deleted,
            fields: fields.max(0) as usize,
            fields_at: elements.offset(),
        }
    }
}

/// An entry, where it lies in its block.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Its ID.
    pub id: StreamId,
    /// Number of its fields.
    pub fields: usize,
    deleted: bool,
    /// Offset of its flags.
    at: usize,
    /// Offset of its first field name, in the master entry if it has the same.
    names_at: usize,
    /// Offset of its first value (its first name, when it has its own).
    values_at: usize,
    same: bool,
    pack: Pack<'a>,
}

impl<'a> Entry<'a> {
    fn read(pack: Pack<'a>, master: StreamId, head: Head, at: usize) -> Self {
        let mut elements = pack.range(at, pack.end());
        let mut next = || elements.next().map_or(0, number);
        let (flags, ms, seq) = (next(), next(), next());
        let same = flags & SAME_FIELDS != 0;
        let fields = if same {
            head.fields
        } else {
            next().max(0) as usize
        };
        let values_at = elements.offset();
        Self {
            id: StreamId {
                ms: master.ms.wrapping_add(ms as u64),
                seq: master.seq.wrapping_add(seq as u64),
            },
            fields,
            deleted: flags & DELETED != 0,
            at,
            names_at: if same { head.fields_at } else { values_at },
            values_at,
            same,
            pack,
        }
    }

    /// Its fields with their values.
    pub fn iter(&self) -> Fields<'a> {
        let from = |at| self.pack.range(at, self.pack.end());
        Fields {
            names: from(self.names_at),
            values: self.same.then(|| from(self.values_at)),
            left: self.fields,
        }
    }

    /// Offset behind the entry.
    fn end(&self) -> usize {
        let elements = if self.same {
            self.fields
        } else {
            2 * self.fields
        };
        // The number of elements follows.
        (0..=elements).fold(self.values_at, |at, _| self.pack.skip(at))
    }
}

/// The fields of an entry, with their values.
pub struct Fields<'a> {
    names: Iter<'a>,
    /// Where the values are, when not between the names.
    values: Option<Iter<'a>>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Element<'a>, Element<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = self.names.next()?;
        let value = match &mut self.values {
            Some(values) => values.next()?,
            None => self.names.next()?,
        };
        Some((name, value))
    }
}

/// The entries of a block in one direction, deleted ones included.
struct Walk<'a> {
    pack: Pack<'a>,
    master: StreamId,
    head: Head,
    /// Offset of the first entry.
    start: usize,
    /// Where the walk is: the next entry, or backwards the end of the next one.
    at: usize,
    backwards: bool,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.backwards {
            if self.at <= self.start {
                return None;
            }
            let mut at = self.pack.prev(self.at)?;
            for _ in 0..number(self.pack.at(at)).max(0) {
                at = self.pack.prev(at)?;
            }
            self.at = at;
            return Some(Entry::read(self.pack, self.master, self.head, at));
        }
        if self.at >= self.pack.end() {
            return None;
        }
        let entry = Entry::read(self.pack, self.master, self.head, self.at);
        self.at = entry.end();
        Some(entry)
    }
}

impl Block {
    /// A block with one entry, of `pairs`: fields and values in turn.
    pub fn new(id: StreamId, pairs: &[&[u8]]) -> Self {
        let fields = pairs.len() / 2;
        let names = pairs.iter().step_by(2).map(|name| Element::from(*name));
        let counts = [1, 0, fields as i64].map(Element::Int);
        let mut pack = Listpack::of(counts.into_iter().chain(names).chain([Element::Int(0)]));
        let values = pairs.iter().skip(1).step_by(2);
        let values = values.map(|value| Element::from(*value));
        let lead = [SAME_FIELDS, 0, 0].map(Element::Int);
        let count = Element::Int((fields + LEADING) as i64);
        pack.extend(lead.into_iter().chain(values).chain([count]));
        Self { master: id, pack }
    }

    /// The block of a listpack (of a file) that is known to be one.
    pub fn of(master: StreamId, pack: Listpack) -> Self {
        Self { master, pack }
    }

    /// The listpack, as it is saved.
    pub fn as_bytes(&self) -> &[u8] {
        self.pack.as_bytes()
    }

    /// Number of bytes.
    pub fn byte_len(&self) -> usize {
        self.pack.byte_len()
    }

    /// Bytes of the allocation.
    pub fn memory(&self) -> usize {
        self.pack.memory()
    }

    /// Number of entries that are not deleted.
    pub fn live(&self) -> u64 {
        Head::read(self.pack.pack()).live.max(0) as u64
    }

    /// Number of entries, deleted ones included.
    pub fn entries(&self) -> i64 {
        let head = Head::read(self.pack.pack());
        head.live.saturating_add(head.deleted)
    }

    /// Appends an entry with an ID higher than all.
    pub fn append(&mut self, id: StreamId, pairs: &[&[u8]]) {
        let (fields, head) = (pairs.len() / 2, Head::read(self.pack.pack()));
        let pack = self.pack.pack();
        let same = fields == head.fields && {
            let names = pack.range(head.fields_at, pack.end());
            let mut both = pairs.iter().step_by(2).zip(names);
            both.all(|(name, stored)| stored.same(Element::from(*name)))
        };
        let flags = if same { SAME_FIELDS } else { 0 };
        let lead = [
            flags,
            id.ms.wrapping_sub(self.master.ms) as i64,
            id.seq.wrapping_sub(self.master.seq) as i64,
        ];
        let lead = lead.map(Element::Int).into_iter();
        if same {
            let values = pairs.iter().skip(1).step_by(2);
            let values = values.map(|value| Element::from(*value));
            let count = Element::Int((fields + LEADING) as i64);
            self.pack.extend(lead.chain(values).chain([count]));
        } else {
            let all = pairs.iter().map(|part| Element::from(*part));
            let number = Element::Int(fields as i64);
            let count = Element::Int((2 * fields + LEADING + 1) as i64);
            let body = lead.chain([number]).chain(all).chain([count]);
            self.pack.extend(body);
        }
        self.pack.replace(HEADER, head.live + 1);
    }

    fn walk(&self, backwards: bool) -> Walk<'_> {
        let pack = self.pack.pack();
        let head = Head::read(pack);
        // The zero that ends the master entry follows the fields.
        let start = (0..=head.fields).fold(head.fields_at, |at, _| pack.skip(at));
        Walk {
            pack,
            master: self.master,
            head,
            start,
            at: if backwards { pack.end() } else { start },
            backwards,
        }
    }

    /// The entries that are not deleted, from either end.
    pub fn iter(&self, backwards: bool) -> impl Iterator<Item = Entry<'_>> {
        self.walk(backwards).filter(|entry| !entry.deleted)
    }

    /// The first entry's ID, or the last one's, even if it is deleted.
    pub fn edge(&self, last: bool) -> Option<StreamId> {
        self.walk(last).next().map(|entry| entry.id)
    }

    /// Marks an entry as deleted; false without such.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let found = self.iter(false).find(|entry| entry.id >= id);
        match found.filter(|entry| entry.id == id).map(|entry| entry.at) {
            Some(at) => {
                self.mark(at);
                self.count_deleted(1);
                true
            }
            None => false,
        }
    }

    /// Marks entries as deleted, oldest first, until `enough` says so of one that is still there
    /// (it is told the entry's ID and how many were marked); how many.
    pub fn delete_oldest(&mut self, mut enough: impl FnMut(StreamId, u64) -> bool) -> u64 {
        let mut marked = Vec::new();
        for entry in self.walk(false) {
            if enough(entry.id, marked.len() as u64) {
                break;
            }
            if !entry.deleted {
                marked.push(entry.at);
            }
        }
        for at in &marked {
            self.mark(*at);
        }
        self.count_deleted(marked.len() as i64);
        marked.len() as u64
    }

    /// Sets the flag of the entry at an offset. Flags take one byte, so that nothing moves.
    fn mark(&mut self, at: usize) {
        let flags = number(self.pack.pack().at(at));
        self.pack.replace(at, flags | DELETED);
    }

    fn count_deleted(&mut self, count: i64) {
        let head = Head::read(self.pack.pack());
        self.pack.replace(HEADER, head.live - count);
        let second = self.pack.pack().skip(HEADER);
        self.pack.replace(second, head.deleted + count);
    }

    /// True when a well-formed listpack from outside is a block throughout: its counts are right
    /// and each entry has all its parts.
    pub fn validate(pack: Pack<'_>) -> bool {
        Check(pack.iter()).block().is_some()
    }
}

/// Reads a block that may not be one.
struct Check<'a>(Iter<'a>);

impl Check<'_> {
    fn int(&mut self) -> Option<i64> {
        match self.0.next()? {
            Element::Int(n) => Some(n),
            Element::Bytes(_) => None,
        }
    }

    /// A number of elements that follow; none are skipped beyond the end.
    fn skip(&mut self, count: i64) -> Option<()> {
        (0..count).try_for_each(|_| self.0.next().map(|_| ()))
    }

    fn block(&mut self) -> Option<()> {
        let (live, deleted, fields) = (self.int()?, self.int()?, self.int()?);
        if live < 0 || deleted < 0 || fields < 0 {
            return None;
        }
        self.skip(fields)?;
        if self.int()? != 0 {
            return None;
        }
        let (mut found_live, mut found_deleted) = (0, 0);
        while self.0.clone().next().is_some() {
            match self.entry(fields)? & DELETED {
                0 => found_live += 1,
                _ => found_deleted += 1,
            }
        }
        ((found_live, found_deleted) == (live, deleted)).then_some(())
    }

    /// An entry's flags.
    fn entry(&mut self, master_fields: i64) -> Option<i64> {
        let (flags, _ms, _seq) = (self.int()?, self.int()?, self.int()?);
        let elements = if flags & SAME_FIELDS != 0 {
            self.skip(master_fields)?;
            master_fields
        } else {
            let fields = self.int()?;
            let both = fields.checked_mul(2).filter(|_| fields >= 0)?;
            self.skip(both)?;
            both + 1
        };
        (self.int()? == elements + LEADING as i64).then_some(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(block: &Block, backwards: bool) -> Vec<String> {
        let show = |element: Element<'_>| String::from_utf8_lossy(&element.to_vec()).into_owned();
        let entry = |entry: Entry<'_>| {
            let fields = entry
                .iter()
                .map(|(name, value)| format!("{}={}", show(name), show(value)));
            format!("{} {}", entry.id, fields.collect::<Vec<_>>().join(","))
        };
        block.iter(backwards).map(entry).collect()
    }

    fn block() -> Block {
        let mut block = Block::new(StreamId::new(5, 0), &[b"a", b"1", b"b", b"x"]);
        block.append(StreamId::new(5, 3), &[b"a", b"2", b"b", b"y"]);
        block.append(StreamId::new(7, 0), &[b"c", b"3"]);
        block
    }

    #[test]
    fn a_block_is_laid_out_as_in_redis() {
        let elements = block().pack.iter().map(Element::to_vec).collect::<Vec<_>>();
        let text = elements.join(&b' ');
        let expected = "3 0 2 a b 0 2 0 0 1 x 5 2 0 3 2 y 5 0 2 0 1 c 3 6";
        assert_eq!(String::from_utf8_lossy(&text), expected);
        assert!(Block::validate(block().pack.pack()));
    }

    #[test]
    fn entries_from_both_ends() {
        let mut expected = vec!["5-0 a=1,b=x", "5-3 a=2,b=y", "7-0 c=3"];
        assert_eq!(texts(&block(), false), expected);
        expected.reverse();
        assert_eq!(texts(&block(), true), expected);
    }

    #[test]
    fn deleted_entries_stay_unseen() {
        let mut block = block();
        assert!(!block.delete(StreamId::new(5, 1)));
        assert!(block.delete(StreamId::new(5, 0)));
        assert!(!block.delete(StreamId::new(5, 0)));
        assert_eq!(texts(&block, false), ["5-3 a=2,b=y", "7-0 c=3"]);
        assert_eq!((block.live(), block.entries()), (2, 3));
        assert_eq!(block.edge(false), Some(StreamId::new(5, 0)));
        assert_eq!(block.delete_oldest(|id, _| id >= StreamId::new(7, 0)), 1);
        assert_eq!(texts(&block, true), ["7-0 c=3"]);
        assert!(Block::validate(block.pack.pack()));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let check = |text: &str, expected: bool| {
            let words = text.split(' ').map(|word| Element::from(word.as_bytes()));
            let pack = Listpack::of(words);
            assert_eq!(Block::validate(pack.pack()), expected, "{text}");
        };
        check("1 0 1 f 0 2 0 0 v 4", true);
        check("0 0 0 0", true);
        check("2 0 1 f 0 2 0 0 v 4", false);
        check("1 0 1 f 0 2 0 0 v 5", false);
        check("1 0 1 f 0 2 0 0 v", false);
        check("1 0 1 f 1 2 0 0 v 4", false);
        check("1 0 99 f 0", false);
        check("1 0 1 f 0 0 0 0 9223372036854775807 f v 6", false);
        check("1 0 1 f 0 0 0 0 -1 f v 6", false);
        check("x 0 1 f 0", false);
    }
}
