//! Values, written.

use super::code;
use super::write::Writer;
use crate::keyspace::entry::Entry;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::listpack::{Element, Listpack};
use crate::types::object::{Collection, ObjectRef};
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
    let at = out.len();
    out.push(0);
    let code = value(entry, &mut Writer::new(out, compress));
    out[at] = code;
}

/// Writes a value without its type code, which is returned.
pub fn value(entry: &Entry, writer: &mut Writer<'_>) -> u8 {
    match entry.object() {
        None => {
            match entry.string() {
                StringRef::Int(n) => writer.int_string(n),
                StringRef::Inline(bytes) => writer.string(bytes),
                StringRef::Shared(bytes) => writer.string(bytes),
            }
            code::STRING
        }
        Some(ObjectRef::List(list)) => self::list(list, writer),
        Some(ObjectRef::Set(set)) => self::set(set, writer),
        Some(ObjectRef::Hash(hash)) => self::hash(hash, writer),
        Some(ObjectRef::ZSet(zset)) => self::zset(zset, writer),
        Some(ObjectRef::Stream(stream)) => super::stream::write(stream, writer),
    }
}

fn element(element: Element<'_>, writer: &mut Writer<'_>) {
    match element {
        Element::Int(n) => writer.int_string(n),
        Element::Bytes(bytes) => writer.string(bytes),
    }
}

fn list(list: &List, writer: &mut Writer<'_>) -> u8 {
    writer.len(list.shape().nodes as u64);
    list.each_node(|node| match node {
        NodeBytes::Packed(bytes) => {
            writer.len(NODE_PACKED);
            writer.string(&bytes);
        }
        NodeBytes::Plain(bytes) => {
            writer.len(NODE_PLAIN);
            writer.string(bytes);
        }
    });
    code::LIST_QUICKLIST_2
}

fn set(set: &Set, writer: &mut Writer<'_>) -> u8 {
    if let Some(ints) = set.ints() {
        writer.string(ints.as_bytes());
        return code::SET_INTSET;
    }
    writer.len(set.len() as u64);
    set.iter().for_each(|member| element(member, writer));
    code::SET
}

fn hash(hash: &Hash, writer: &mut Writer<'_>) -> u8 {
    if let Some(first) = hash.next_expiry() {
        return hash_with_expiry(hash, first, writer);
    }
    if let Some(pack) = hash.pack() {
        writer.string(pack.as_bytes());
        return code::HASH_LISTPACK;
    }
    if hash.pack_ex().is_some() {
        // No field has an expiry any more: what every version can read.
        let pairs = hash.iter().flat_map(|(field, value)| [field, value]);
        writer.string(Listpack::of(pairs).as_bytes());
        return code::HASH_LISTPACK;
    }
    writer.len(hash.len() as u64);
    for (field, value) in hash.iter() {
        element(field, writer);
        element(value, writer);
    }
    code::HASH
}

/// A hash of which some fields have an expiry, the first of them `first`.
fn hash_with_expiry(hash: &Hash, first: i64, writer: &mut Writer<'_>) -> u8 {
    writer.raw(&first.to_le_bytes());
    if let Some(pack) = hash.pack_ex() {
        writer.string(pack.as_bytes());
        return code::HASH_LISTPACK_EX;
    }
    writer.len(hash.len() as u64);
    for (field, value, at) in hash.iter_timed() {
        // 0 is none, so the first one is 1.
        writer.len(at.map_or(0, |at| (at - first + 1) as u64));
        element(field, writer);
        element(value, writer);
    }
    code::HASH_METADATA
}

fn zset(zset: &ZSet, writer: &mut Writer<'_>) -> u8 {
    if let ZSet::Pack(pack) = zset {
        writer.string(pack.as_bytes());
        return code::ZSET_LISTPACK;
    }
    writer.len(zset.len() as u64);
    // From the greatest down, as Redis does: its loader inserts at the front.
    for (member, score) in zset.iter(0..zset.len(), true) {
        element(member, writer);
        writer.double(score);
    }
    code::ZSET_2
}
