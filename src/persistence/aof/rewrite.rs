//! A value as the commands that make it, for bases that are no dump (`aof-use-rdb-preamble no`).

use std::ops::ControlFlow;

use crate::base::number;
use crate::keyspace::entry::ValueRef;
use crate::persistence::rdb::write::Writer;
use crate::types::collection::Collection;
use crate::types::hash::Hash;
use crate::types::listpack::Element;
use crate::types::object::ObjectRef;
use crate::types::stream::Stream;
use crate::types::stream_id::StreamId;

/// Elements that one command adds, at most.
const ITEMS: usize = 64;

/// Writes the commands that make a key where there is none. `expiry` is in Unix milliseconds.
pub fn key(out: &mut Writer<'_>, key: &[u8], value: ValueRef<'_>, expiry: Option<i64>) {
    match value {
        ValueRef::String(string) => {
            out.command(&[b"SET", key, string.text().bytes()]);
        }
        ValueRef::Object(ObjectRef::List(list)) => {
            let mut items = Batch::new(out, &[b"RPUSH", key]);
            list.range(0, usize::MAX, |element| items.add(&[element]));
        }
        ValueRef::Object(ObjectRef::Set(set)) => {
            let mut items = Batch::new(out, &[b"SADD", key]);
            set.iter().for_each(|member| items.add(&[member]));
        }
        ValueRef::Object(ObjectRef::Hash(hash)) => {
            {
                let mut items = Batch::new(out, &[b"HMSET", key]);
                hash.iter()
                    .for_each(|(field, value)| items.add(&[field, value]));
            }
            hash_expiry(out, key, hash);
        }
        ValueRef::Object(ObjectRef::ZSet(zset)) => {
            let mut items = Batch::new(out, &[b"ZADD", key]);
            for (member, score) in zset.iter(0..zset.len(), false) {
                let mut text = Vec::new();
                number::format_double(&mut text, score);
                items.add(&[Element::Bytes(&text), member]);
            }
        }
        ValueRef::Object(ObjectRef::Stream(value)) => stream(out, key, value),
    }
    if let Some(at) = expiry {
        out.command(&[b"PEXPIREAT", key, itoa::Buffer::new().format(at).as_bytes()]);
    }
}

/// Collects elements into commands of a bounded length.
struct Batch<'a, 'b> {
    out: &'a mut Writer<'b>,
    head: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
    items: usize,
    /// Somebody wants the rest.
    wanted: bool,
}

impl<'a, 'b> Batch<'a, 'b> {
    fn new(out: &'a mut Writer<'b>, head: &[&[u8]]) -> Self {
        Self {
            out,
            head: head.iter().map(|a| a.to_vec()).collect(),
            args: Vec::new(),
            items: 0,
            wanted: true,
        }
    }

    fn add(&mut self, item: &[Element<'_>]) {
        if !self.wanted {
            return;
        }
        self.args
            .extend(item.iter().map(|element| element.to_vec()));
        self.items += 1;
        if self.items == ITEMS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let args: Vec<&[u8]> = self.head.iter().chain(&self.args).map(|a| &a[..]).collect();
        self.wanted = self.out.command(&args);
        self.args.clear();
        self.items = 0;
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        if self.items > 0 {
            self.flush();
        }
    }
}

/// The times at which fields expire.
fn hash_expiry(out: &mut Writer<'_>, key: &[u8], hash: &Hash) {
    if hash.next_expiry().is_none() {
        return;
    }
    for (field, _, at) in hash.iter_timed() {
        if let Some(at) = at {
            let (at, field) = (at.to_string(), field.to_vec());
            out.command(&[b"HPEXPIREAT", key, at.as_bytes(), b"FIELDS", b"1", &field]);
        }
    }
}

fn stream(out: &mut Writer<'_>, key: &[u8], stream: &Stream) {
    let log = &stream.log;
    let text = |id: StreamId| id.text().to_vec();
    if log.is_empty() {
        // Made with an entry that is trimmed at once.
        out.command(&[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
    }
    log.walk((StreamId::MIN, StreamId::MAX), false, |entry| {
        let mut args = vec![b"XADD".to_vec(), key.to_vec(), text(entry.id)];
        for (field, value) in entry.iter() {
            args.extend([field.to_vec(), value.to_vec()]);
        }
        let args: Vec<&[u8]> = args.iter().map(|a| &a[..]).collect();
        out.command(&args);
        ControlFlow::Continue(())
    });
    let added = log.entries_added.to_string();
    out.command(&[
        b"XSETID",
        key,
        &text(log.last_id),
        b"ENTRIESADDED",
        added.as_bytes(),
        b"MAXDELETEDID",
        &text(log.max_deleted_id),
    ]);
    for (name, group) in &stream.groups {
        // Not known is -1.
        let read = group
            .entries_read
            .map_or("-1".to_owned(), |n| n.to_string());
        let last = text(group.last_id);
        let create: [&[u8]; 7] = [
            b"XGROUP",
            b"CREATE",
            key,
            name,
            &last,
            b"ENTRIESREAD",
            read.as_bytes(),
        ];
        out.command(&create);
        for consumer in group.consumers() {
            // Claims make the consumer, but for those of entries that are deleted, which come to nothing.
            if !consumer.pending().keys().any(|id| log.contains(*id)) {
                out.command(&[&b"XGROUP"[..], b"CREATECONSUMER", key, name, &consumer.name]);
            }
            for id in consumer.pending().keys() {
                let Some(pending) = group.pending().get(id) else {
                    continue;
                };
                let (time, count) = (pending.delivered_ms.to_string(), pending.count.to_string());
                let claim: [&[u8]; 12] = [
                    b"XCLAIM",
                    key,
                    name,
                    &consumer.name,
                    b"0",
                    &text(*id),
                    b"TIME",
                    time.as_bytes(),
                    b"RETRYCOUNT",
                    count.as_bytes(),
                    b"JUSTID",
                    b"FORCE",
                ];
                out.command(&claim);
            }
        }
    }
}
