//! Values, written.

use std::ops::ControlFlow;

use super::code;
use super::write::Writer;
use crate::keyspace::entry::{Entry, Kept, ValueRef};
use crate::types::Encoding;
use crate::types::collection::Collection;
use crate::types::hash::{self, Hash};
use crate::types::list::List;
use crate::types::listpack::{Element, Listpack};
use crate::types::object::{Object, ObjectRef};
use crate::types::quicklist::NodeBytes;
use crate::types::set::Set;
use crate::types::string::StringRef;
use crate::types::zset::ZSet;

/// Nodes of a list: one plain element, or a listpack.
pub const NODE_PLAIN: u64 = 1;
/// See [`NODE_PLAIN`].
pub const NODE_PACKED: u64 = 2;

/// Appends a value: its type code, then what it is.
pub fn coded_value(entry: &Entry, out: &mut Vec<u8>, compress: bool) {
    out.push(code(entry.value()));
    value(entry.value(), &mut Writer::new(out, compress));
}

/// The type code of what [`value`] writes.
pub fn code(value: ValueRef<'_>) -> u8 {
    let object = match value {
        ValueRef::String(_) => return code::STRING,
        ValueRef::Object(object) => object,
    };
    match object {
        ObjectRef::List(_) => code::LIST_QUICKLIST_2,
        ObjectRef::Set(set) if set.ints().is_some() => code::SET_INTSET,
        ObjectRef::Set(_) => code::SET,
        ObjectRef::Hash(hash) => {
            let timed = hash.next_expiry().is_some();
            match (hash.run().is_some(), timed) {
                (true, true) => code::HASH_LISTPACK_EX,
                (true, false) => code::HASH_LISTPACK,
                (false, true) => code::HASH_METADATA,
                (false, false) => code::HASH,
            }
        }
        ObjectRef::ZSet(ZSet::Run(_)) => code::ZSET_LISTPACK,
        ObjectRef::ZSet(ZSet::Tree(_)) => code::ZSET_2,
        ObjectRef::Stream(_) => code::STREAM_LISTPACKS_2,
    }
}

/// Writes a value without its type code.
pub fn value(value: ValueRef<'_>, writer: &mut Writer<'_>) {
    match value {
        ValueRef::String(StringRef::Int(n)) => writer.int_string(n),
        ValueRef::String(StringRef::Inline(bytes)) => writer.string(bytes),
        ValueRef::String(StringRef::Shared(bytes)) => writer.string(bytes),
        ValueRef::String(StringRef::Patched(string)) => writer.string(string.whole()),
        ValueRef::Object(ObjectRef::List(list)) => self::list(list, writer),
        ValueRef::Object(ObjectRef::Set(set)) => self::set(set, writer),
        ValueRef::Object(ObjectRef::Hash(hash)) => self::hash(hash, writer),
        ValueRef::Object(ObjectRef::ZSet(zset)) => self::zset(zset, writer),
        ValueRef::Object(ObjectRef::Stream(stream)) => super::stream::write(stream, writer),
    }
}

/// Writes a value that was kept, without its type code. What it is made of is freed as it is
/// written, as far as nobody else has it; a sorted set, whose members lie anywhere, at its end.
pub fn kept(value: Kept, writer: &mut Writer<'_>) {
    let object = match value {
        Kept::Object(object) => object,
        string => return self::value(string.value(), writer),
    };
    match object {
        Object::List(list) => {
            writer.len(list.shape().nodes as u64);
            list.consume(|bytes| node(bytes, writer));
        }
        Object::Set(set) if set.table().is_some() => {
            writer.len(set.len() as u64);
            let _ = set.consume(|member| {
                element(member, writer);
                writer.flow()
            });
        }
        Object::Hash(hash) if hash.table().is_some() && hash.next_expiry().is_none() => {
            writer.len(hash.len() as u64);
            let _ = hash.consume(|pair| self::pair(pair, writer));
        }
        Object::Stream(stream) => super::stream::write_kept(stream, writer),
        other => self::value(ValueRef::Object(other.as_ref()), writer),
    }
}

fn element(element: Element<'_>, writer: &mut Writer<'_>) {
    match element {
        Element::Int(n) => writer.int_string(n),
        Element::Bytes(bytes) => writer.string(bytes),
    }
}

fn list(list: &List, writer: &mut Writer<'_>) {
    writer.len(list.shape().nodes as u64);
    let mut wanted = true;
    list.each_node(|bytes| wanted = wanted && node(bytes, writer).is_continue());
}

fn node(bytes: NodeBytes<'_>, writer: &mut Writer<'_>) -> ControlFlow<()> {
    match bytes {
        NodeBytes::Packed(bytes) => {
            writer.len(NODE_PACKED);
            writer.string(&bytes);
        }
        NodeBytes::Plain(bytes) => {
            writer.len(NODE_PLAIN);
            writer.string(bytes);
        }
    }
    writer.flow()
}

fn set(set: &Set, writer: &mut Writer<'_>) {
    if let Some(ints) = set.ints() {
        return writer.string(ints.as_bytes());
    }
    writer.len(set.len() as u64);
    let _ = set.try_for_each(|member| {
        element(member, writer);
        writer.flow()
    });
}

fn hash(hash: &Hash, writer: &mut Writer<'_>) {
    if let Some(first) = hash.next_expiry() {
        return hash_with_expiry(hash, first, writer);
    }
    match hash.run() {
        Some(_) if hash.encoding() == Encoding::ListpackEx => {
            // No field has an expiry any more: what every version can read.
            let pairs = hash.iter().flat_map(|(field, value)| [field, value]);
            return writer.string(Listpack::of(pairs).as_bytes());
        }
        Some(run) => return writer.string(&run.to_listpack()),
        None => {}
    }
    writer.len(hash.len() as u64);
    let _ = hash.iter().try_for_each(|pair| self::pair(pair, writer));
}

fn pair((field, value): hash::Pair<'_>, writer: &mut Writer<'_>) -> ControlFlow<()> {
    element(field, writer);
    element(value, writer);
    writer.flow()
}

/// A hash of which some fields have an expiry, the first of them `first`.
fn hash_with_expiry(hash: &Hash, first: i64, writer: &mut Writer<'_>) {
    writer.raw(&first.to_le_bytes());
    if let Some(run) = hash.run() {
        return writer.string(&run.to_listpack());
    }
    writer.len(hash.len() as u64);
    for (field, value, at) in hash.iter_timed() {
        // 0 is none, so the first one is 1.
        writer.len(at.map_or(0, |at| (at - first + 1) as u64));
        element(field, writer);
        element(value, writer);
        if !writer.pause() {
            return;
        }
    }
}

fn zset(zset: &ZSet, writer: &mut Writer<'_>) {
    if let ZSet::Run(run) = zset {
        return writer.string(&run.to_listpack());
    }
    writer.len(zset.len() as u64);
    // From the greatest down, as Redis does: its loader inserts at the front.
    for (member, score) in zset.iter(0..zset.len(), true) {
        element(member, writer);
        writer.double(score);
        if !writer.pause() {
            return;
        }
    }
}
