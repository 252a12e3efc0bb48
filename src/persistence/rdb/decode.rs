//! Values, read: every type code that has ever been written.
//!
//! What comes from outside is checked completely, so that no value can be made that its type
//! would not make: sound listpacks, no member twice, scores in order. The price is small beside
//! that of building the value.

use std::collections::HashSet;

use super::encode::{NODE_PACKED, NODE_PLAIN};
use super::legacy;
use super::read::{Corrupt, Reader};
use super::{code, module};
use crate::keyspace::entry::{Entry, NewValue};
use crate::types::collection::Collection;
use crate::types::hash::{self, Hash};
use crate::types::intset::IntSet;
use crate::types::list::{self, List};
use crate::types::listpack::{Element, Listpack};
use crate::types::object::Object;
use crate::types::quicklist::Quicklist;
use crate::types::run::{Run, Step};
use crate::types::set::{self, Set};
use crate::types::zset::{self, ZSet};

/// How values are laid out, as parameters say it.
#[derive(Clone, Copy, Debug)]
pub struct Layouts {
    /// Of lists.
    pub list: list::Limits,
    /// Of sets.
    pub set: set::Limits,
    /// Of hashes.
    pub hash: hash::Limits,
    /// Of sorted sets.
    pub zset: zset::Limits,
}

/// A value that was read.
#[derive(Debug)]
pub enum Value {
    /// A string.
    Bytes(Vec<u8>),
    /// A collection; never an empty one.
    Object(Object),
}

impl Value {
    /// The value under a key; `expiry` in Unix milliseconds.
    pub fn into_entry(self, key: &[u8], expiry: Option<i64>, clock: u32) -> Entry {
        match self {
            Self::Bytes(bytes) => Entry::new(key, NewValue::Bytes(&bytes), expiry, clock),
            Self::Object(object) => Entry::new(key, NewValue::Object(object), expiry, clock),
        }
    }
}

const BAD_LISTPACK: Corrupt = Corrupt::Invalid("Listpack integrity check failed.");
const BAD_QUICKLIST: Corrupt = Corrupt::Invalid("Quicklist integrity check failed.");
const DUPLICATE: Corrupt = Corrupt::Invalid("Duplicate elements detected");

/// Reads the value behind a type code.
pub fn value(code: u8, reader: &mut Reader<'_>, layouts: &Layouts) -> Result<Value, Corrupt> {
    let object = match code {
        code::STRING => return Ok(Value::Bytes(reader.string()?.into_owned())),
        code::LIST => plain_list(reader, layouts)?.into(),
        code::LIST_ZIPLIST => list_of_ziplists(1, reader, layouts)?.into(),
        code::LIST_QUICKLIST => {
            let count = reader.count()?;
            list_of_ziplists(count, reader, layouts)?.into()
        }
        code::LIST_QUICKLIST_2 => list_of_nodes(reader, layouts)?.into(),
        code::SET => plain_set(reader, layouts)?.into(),
        code::SET_INTSET => intset(reader, layouts)?.into(),
        code::SET_LISTPACK => set_of_pack(&listpack(reader)?, layouts)?.into(),
        code::HASH => plain_hash(reader, layouts)?.into(),
        code::HASH_ZIPMAP => {
            let pack = legacy::listpack_of_zipmap(&reader.string()?)?;
            hash_of_pack(&pack, layouts)?.into()
        }
        code::HASH_ZIPLIST => {
            let bytes = reader.string()?;
            let hash = legacy::listpack_of_ziplist(&bytes).and_then(|p| hash_of_pack(&p, layouts));
            named(hash, "Hash ziplist integrity check failed.")?.into()
        }
        code::HASH_LISTPACK => {
            let hash = listpack(reader).and_then(|pack| hash_of_pack(&pack, layouts));
            named(hash, "Hash listpack integrity check failed.")?.into()
        }
        code::HASH_METADATA => hash_with_expiry(reader, layouts)?.into(),
        code::HASH_LISTPACK_EX => {
            reader.raw(8)?;
            hash_of_pack_with_expiry(&listpack(reader)?, layouts)?.into()
        }
        code::ZSET => plain_zset(reader, layouts, Reader::text_double)?.into(),
        code::ZSET_2 => plain_zset(reader, layouts, Reader::double)?.into(),
        code::ZSET_ZIPLIST => {
            let bytes = reader.string()?;
            let zset = legacy::listpack_of_ziplist(&bytes).and_then(|p| zset_of_pack(&p, layouts));
            named(zset, "Zset ziplist integrity check failed.")?.into()
        }
        code::ZSET_LISTPACK => {
            let zset = listpack(reader).and_then(|pack| zset_of_pack(&pack, layouts));
            named(zset, "Zset listpack integrity check failed.")?.into()
        }
        code::STREAM_LISTPACKS | code::STREAM_LISTPACKS_2 | code::STREAM_LISTPACKS_3 => {
            super::stream::read(code, reader)?.into()
        }
        code::MODULE_PRE_GA => return Err(PRE_RELEASE),
        code::MODULE => {
            let name = module::name(reader)?;
            return Err(Corrupt::Unsupported(format!(
                "The RDB file contains module data I can't load: no matching module type '{name}'"
            )));
        }
        other => return Err(unsupported(other)),
    };
    Ok(Value::Object(object))
}

/// Passes over the value behind a type code without building it.
pub fn skip(code: u8, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
    let strings =
        |reader: &mut Reader<'_>, count: u64| (0..count).try_for_each(|_| reader.skip_string());
    match code {
        code::STRING
        | code::HASH_ZIPMAP
        | code::LIST_ZIPLIST
        | code::SET_INTSET
        | code::ZSET_ZIPLIST
        | code::HASH_ZIPLIST
        | code::HASH_LISTPACK
        | code::ZSET_LISTPACK
        | code::SET_LISTPACK => reader.skip_string(),
        code::LIST | code::SET | code::LIST_QUICKLIST => {
            let count = reader.length()?;
            strings(reader, count)
        }
        code::HASH => {
            let count = reader.length()?;
            strings(reader, count.saturating_mul(2))
        }
        code::HASH_METADATA => {
            reader.raw(8)?;
            for _ in 0..reader.length()? {
                reader.length()?;
                strings(reader, 2)?;
            }
            Ok(())
        }
        code::HASH_LISTPACK_EX => {
            reader.raw(8)?;
            reader.skip_string()
        }
        code::ZSET => {
            for _ in 0..reader.length()? {
                reader.skip_string()?;
                reader.text_double()?;
            }
            Ok(())
        }
        code::ZSET_2 => {
            for _ in 0..reader.length()? {
                reader.skip_string()?;
                reader.double()?;
            }
            Ok(())
        }
        code::LIST_QUICKLIST_2 => {
            for _ in 0..reader.length()? {
                reader.length()?;
                reader.skip_string()?;
            }
            Ok(())
        }
        code::STREAM_LISTPACKS | code::STREAM_LISTPACKS_2 | code::STREAM_LISTPACKS_3 => {
            super::stream::read(code, reader).map(drop)
        }
        code::MODULE => {
            module::name(reader)?;
            module::skip_value(reader)
        }
        code::MODULE_PRE_GA => Err(PRE_RELEASE),
        other => Err(unsupported(other)),
    }
}

/// What a first version wrote has no end that others could find.
const PRE_RELEASE: Corrupt = Corrupt::Invalid("Pre-release module format not supported");

fn unsupported(code: u8) -> Corrupt {
    Corrupt::Unsupported(format!("Unknown RDB encoding type {code}"))
}

fn listpack(reader: &mut Reader<'_>) -> Result<Listpack, Corrupt> {
    Listpack::from_bytes(&reader.string()?).ok_or(BAD_LISTPACK)
}

/// What is wrong with a packed value goes by one name, whichever part of it it is.
fn named<T>(result: Result<T, Corrupt>, name: &'static str) -> Result<T, Corrupt> {
    result.map_err(|error| match error {
        Corrupt::Invalid(_) => Corrupt::Invalid(name),
        other => other,
    })
}

/// The collection unless it is empty.
fn filled<C: Collection>(collection: C) -> Result<C, Corrupt> {
    if collection.is_empty() {
        return Err(Corrupt::Empty);
    }
    Ok(collection)
}

fn push(list: &mut List, value: &[u8], layouts: &Layouts) {
    list.push(list::End::Tail, value, &layouts.list);
}

fn plain_list(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<List, Corrupt> {
    let mut list = List::new();
    for _ in 0..reader.count()? {
        push(&mut list, &reader.string()?, layouts);
    }
    filled(list)
}

fn list_of_ziplists(
    count: usize,
    reader: &mut Reader<'_>,
    layouts: &Layouts,
) -> Result<List, Corrupt> {
    let mut nodes = Quicklist::default();
    for _ in 0..count {
        let pack = legacy::listpack_of_ziplist(&reader.string()?)?;
        if !pack.is_empty() {
            nodes.append_packed(pack);
        }
    }
    finished(nodes, layouts)
}

fn list_of_nodes(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<List, Corrupt> {
    let mut nodes = Quicklist::default();
    for _ in 0..reader.count()? {
        match reader.length()? {
            NODE_PLAIN => {
                let element = reader.string()?;
                // Only big elements have nodes of their own.
                if element.is_empty() {
                    return Err(BAD_QUICKLIST);
                }
                nodes.append_plain(&element);
            }
            NODE_PACKED => {
                let pack = listpack(reader)?;
                if !pack.is_empty() {
                    nodes.append_packed(pack);
                }
            }
            _ => return Err(BAD_QUICKLIST),
        }
    }
    finished(nodes, layouts)
}

fn finished(nodes: Quicklist, layouts: &Layouts) -> Result<List, Corrupt> {
    if nodes.is_empty() {
        return Err(Corrupt::Empty);
    }
    Ok(List::of_nodes(nodes, &layouts.list))
}

fn plain_set(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<Set, Corrupt> {
    let mut set = Set::new();
    for _ in 0..reader.count()? {
        if !set.add(&reader.string()?, layouts.set) {
            return Err(DUPLICATE);
        }
    }
    filled(set)
}

fn set_of_pack(pack: &Listpack, layouts: &Layouts) -> Result<Set, Corrupt> {
    let mut set = Set::new();
    for member in pack.iter() {
        if !set.add_element(member, layouts.set) {
            return Err(DUPLICATE);
        }
    }
    filled(set)
}

fn intset(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<Set, Corrupt> {
    let bytes = reader.string()?;
    let ints =
        IntSet::from_bytes(&bytes).ok_or(Corrupt::Invalid("Intset integrity check failed."))?;
    if ints.len() <= layouts.set.intset_entries {
        return filled(Set::of_ints(ints));
    }
    let mut set = Set::new();
    for member in ints.iter() {
        set.add_element(Element::Int(member), layouts.set);
    }
    filled(set)
}

fn plain_hash(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<Hash, Corrupt> {
    let mut hash = Hash::new();
    for _ in 0..reader.count()? {
        let (field, value) = (reader.string()?, reader.string()?);
        if !hash.set(&field, &value, layouts.hash) {
            return Err(DUPLICATE);
        }
    }
    filled(hash)
}

/// The latest time at which a field can expire, in Unix milliseconds.
const LATEST_MS: i64 = (1 << 46) - 1;

fn hash_with_expiry(reader: &mut Reader<'_>, layouts: &Layouts) -> Result<Hash, Corrupt> {
    let first = reader.raw(8)?.try_into().expect("eight bytes");
    let first = i64::from_le_bytes(first);
    let mut hash = Hash::new();
    for _ in 0..reader.count()? {
        let after = reader.length()?;
        let (field, value) = (reader.string()?, reader.string()?);
        if !hash.set(&field, &value, layouts.hash) {
            return Err(DUPLICATE);
        }
        if let Some(after) = after.checked_sub(1) {
            let at = i64::try_from(after)
                .ok()
                .and_then(|after| first.checked_add(after));
            set_expiry(&mut hash, &field, at)?;
        }
    }
    filled(hash)
}

fn hash_of_pack_with_expiry(pack: &Listpack, layouts: &Layouts) -> Result<Hash, Corrupt> {
    let mut hash = Hash::new();
    let mut elements = pack.iter();
    while let Some(field) = elements.next() {
        let (Some(value), Some(at)) = (elements.next(), elements.next()) else {
            return Err(BAD_LISTPACK);
        };
        let field = field.to_vec();
        if !hash.set(&field, &value.to_vec(), layouts.hash) {
            return Err(DUPLICATE);
        }
        if at != Element::Int(0) {
            set_expiry(&mut hash, &field, at.integer())?;
        }
    }
    filled(hash)
}

fn set_expiry(hash: &mut Hash, field: &[u8], at: Option<i64>) -> Result<(), Corrupt> {
    let at = at.filter(|at| (1..=LATEST_MS).contains(at));
    hash.set_expiry(field, Some(at.ok_or(BAD_LISTPACK)?));
    Ok(())
}

/// A hash of a listpack of fields and values, kept as that if it is short enough.
fn hash_of_pack(pack: &Listpack, layouts: &Layouts) -> Result<Hash, Corrupt> {
    if !pack.len().is_multiple_of(2) {
        return Err(BAD_LISTPACK);
    }
    if pack.is_empty() {
        return Err(Corrupt::Empty);
    }
    let limits = layouts.hash;
    let short = pack.len() / 2 <= limits.pack_entries
        && pack
            .iter()
            .all(|element| element.len() <= limits.pack_value);
    if short {
        let mut seen = HashSet::new();
        if !pack
            .iter()
            .step_by(2)
            .all(|field| seen.insert(field.to_vec()))
        {
            return Err(DUPLICATE);
        }
        return Ok(Hash::of_run(Run::of_pack(Step::Two, pack.pack())));
    }
    let mut hash = Hash::new();
    let mut elements = pack.iter();
    while let (Some(field), Some(value)) = (elements.next(), elements.next()) {
        if !hash.set(&field.to_vec(), &value.to_vec(), limits) {
            return Err(DUPLICATE);
        }
    }
    Ok(hash)
}

fn plain_zset<'a>(
    reader: &mut Reader<'a>,
    layouts: &Layouts,
    score: fn(&mut Reader<'a>) -> Result<f64, Corrupt>,
) -> Result<ZSet, Corrupt> {
    let count = reader.count()?;
    let mut members = Vec::with_capacity(count.min(1 << 16));
    for _ in 0..count {
        let member = reader.string()?;
        members.push((score(reader)?, member));
    }
    // As they are saved, the greatest comes first: the other way round is faster to build.
    members.reverse();
    let members: Vec<_> = members
        .iter()
        .map(|(s, m)| (*s, Element::from(&m[..])))
        .collect();
    zset_of(&members, layouts)
}

fn zset_of_pack(pack: &Listpack, layouts: &Layouts) -> Result<ZSet, Corrupt> {
    if !pack.len().is_multiple_of(2) {
        return Err(BAD_LISTPACK);
    }
    let mut members = Vec::with_capacity(pack.len() / 2);
    let mut elements = pack.iter();
    while let (Some(member), Some(score)) = (elements.next(), elements.next()) {
        let score = match score {
            Element::Int(n) => n as f64,
            Element::Bytes(text) => crate::base::strtod::parse_f64(text).ok_or(BAD_LISTPACK)?,
        };
        members.push((score, member.to_vec()));
    }
    let members: Vec<_> = members
        .iter()
        .map(|(s, m)| (*s, Element::from(&m[..])))
        .collect();
    zset_of(&members, layouts)
}

fn zset_of(members: &[(f64, Element<'_>)], layouts: &Layouts) -> Result<ZSet, Corrupt> {
    if members.iter().any(|(score, _)| score.is_nan()) {
        return Err(Corrupt::Invalid("Zset with NAN score detected"));
    }
    let mut seen = HashSet::with_capacity(members.len());
    if !members
        .iter()
        .all(|(_, member)| seen.insert(member.to_vec()))
    {
        return Err(DUPLICATE);
    }
    filled(ZSet::of(members, layouts.zset))
}
