//! Hashes: few short fields in one listpack of fields and values, all others in a table.
//!
//! A hash becomes a table when a field or value is longer than [`Limits::pack_value`] or when it has
//! more than [`Limits::pack_entries`] fields, and stays one.

use super::listpack::{Element, HEADER, Listpack};
use super::object::Collection;
use super::table::{Pairs, Table};
use super::{Encoding, Type};
use crate::base::random;

/// Which representation a hash gets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most fields of a listpack (`hash-max-listpack-entries`).
    pub pack_entries: usize,
    /// Longest field or value in a listpack, in bytes (`hash-max-listpack-value`).
    pub pack_value: usize,
}

/// See the module. Fields and values are shown as [`Element`]s: integers or bytes.
#[derive(Clone, Debug)]
pub struct Hash {
    body: Body,
}

/// A field and its value.
pub type Pair<'a> = (Element<'a>, Element<'a>);

#[derive(Clone, Debug)]
enum Body {
    Pack(Listpack),
    Table(Box<Table<Pairs>>),
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Self {
            body: Body::Pack(Listpack::new()),
        }
    }

    /// The hash whose fields and values alternate in a listpack.
    pub fn of_pack(pack: Listpack) -> Self {
        Self {
            body: Body::Pack(pack),
        }
    }

    /// The listpack of fields and values, when that is how they are kept.
    pub fn pack(&self) -> Option<&Listpack> {
        match &self.body {
            Body::Pack(pack) => Some(pack),
            _ => None,
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match &self.body {
            Body::Table(table) => table.get(field).map(Element::Bytes),
            Body::Pack(pack) => {
                let pack = pack.pack();
                let at = pack.find(HEADER, field.into(), 1)?;
                Some(pack.at(pack.skip(at)))
            }
        }
    }

    /// True when there is such a field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets the value of a field; true when the field is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: Limits) -> bool {
        match &mut self.body {
            Body::Table(table) => table.insert(field, value),
            Body::Pack(pack) => {
                let (bytes, longest) = (field.len() + value.len(), field.len().max(value.len()));
                if longest > limits.pack_value || !pack.has_room(bytes) {
                    return self.make_table().insert(field, value);
                }
                let found = pack.pack().find(HEADER, field.into(), 1);
                match found {
                    Some(at) => pack.replace(pack.pack().skip(at), value),
                    None => pack.extend([field.into(), value.into()]),
                }
                if pack.len() > limits.pack_entries.saturating_mul(2) {
                    self.make_table();
                }
                found.is_none()
            }
        }
    }

    #[cold]
    fn make_table(&mut self) -> &mut Table<Pairs> {
        if !matches!(self.body, Body::Table(_)) {
            let mut table = Box::<Table<Pairs>>::default();
            for (field, value) in self.iter() {
                let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
                table.insert(field.text(&mut a), value.text(&mut b));
            }
            self.body = Body::Table(table);
        }
        match &mut self.body {
            Body::Table(table) => table,
            _ => unreachable!("it was made one"),
        }
    }

    /// Removes a field; true when it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.body {
            Body::Table(table) => table.remove(field),
            Body::Pack(pack) => match pack.pack().find(HEADER, field.into(), 1) {
                Some(at) => pack.delete(at, 2) == 2,
                None => false,
            },
        }
    }

    /// The fields with their values, each once.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Pair<'_>> + '_> {
        match &self.body {
            Body::Pack(pack) => {
                let mut elements = pack.iter();
                Box::new(std::iter::from_fn(move || {
                    Some((elements.next()?, elements.next()?))
                }))
            }
            Body::Table(table) => {
                let pairs = table.iter();
                Box::new(pairs.map(|(field, value)| (Element::Bytes(field), Element::Bytes(value))))
            }
        }
    }

    /// A field with its value, each with the same probability; `None` when the hash is empty.
    pub fn random(&self) -> Option<Pair<'_>> {
        match &self.body {
            Body::Table(table) => {
                let (field, value) = table.random()?;
                Some((Element::Bytes(field), Element::Bytes(value)))
            }
            Body::Pack(pack) => {
                let pack = pack.pack();
                let at = pack.seek(2 * random::below(pack.len() / 2) as i64)?;
                Some((pack.at(at), pack.at(pack.skip(at))))
            }
        }
    }

    /// Shows fields with their values from a cursor on; the next cursor, 0 at the end. See
    /// [`Table::scan`]; a hash that is no table is shown as a whole.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Pair<'a>)) -> u64 {
        match &self.body {
            Body::Table(table) => table.scan(cursor, count, |field, value| {
                visit((Element::Bytes(field), Element::Bytes(value)));
            }),
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }
}

impl Collection for Hash {
    const KIND: Type = Type::Hash;

    fn encoding(&self) -> Encoding {
        match self.body {
            Body::Pack(_) => Encoding::Listpack,
            Body::Table(_) => Encoding::Hashtable,
        }
    }

    fn memory(&self) -> usize {
        match &self.body {
            Body::Pack(pack) => pack.memory(),
            Body::Table(table) => size_of::<Table<Pairs>>() + table.memory(),
        }
    }

    fn effort(&self) -> usize {
        match &self.body {
            Body::Pack(_) => 1,
            Body::Table(table) => table.effort(),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match &self.body {
            Body::Pack(pack) => pack.len() / 2,
            Body::Table(table) => table.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        pack_entries: 6,
        pack_value: 20,
    };

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn sorted(hash: &Hash) -> Model {
        let pairs = hash.iter();
        pairs
            .map(|(field, value)| (field.to_vec(), value.to_vec()))
            .collect()
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => (-3..9i64).prop_map(|n| n.to_string().into_bytes()),
            1 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            2 => (0..8u8).prop_map(|n| vec![n; usize::from(n)]),
            1 => (19..22usize).prop_map(|n| vec![b'x'; n]),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((0..4u8, texts(), texts()), 0..100)) {
            let (mut hash, mut model) = (Hash::new(), Model::new());
            for (step, field, value) in steps {
                if step > 0 {
                    let new = model.insert(field.clone(), value.clone()).is_none();
                    prop_assert_eq!(hash.set(&field, &value, LIMITS), new);
                } else {
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                let value = hash.get(&field).map(Element::to_vec);
                prop_assert_eq!(value.as_ref(), model.get(&field));
                prop_assert_eq!(Collection::len(&hash), model.len());
                let drawn = hash.random().map(|(field, value)| (field.to_vec(), value.to_vec()));
                prop_assert!(drawn.is_none_or(|(field, value)| model.get(&field) == Some(&value)));
            }
            prop_assert_eq!(&sorted(&hash), &model);
            prop_assert_eq!(&sorted(&hash.clone()), &model);
            let (mut seen, mut cursor) = (Model::new(), 0);
            loop {
                cursor = hash.scan(cursor, 3, |(field, value)| {
                    seen.insert(field.to_vec(), value.to_vec());
                });
                if cursor == 0 {
                    break;
                }
            }
            prop_assert_eq!(&seen, &model);
        }
    }

    #[test]
    fn long_or_many_fields_make_a_table() {
        let check = |fields: &[(&str, &str)], expected| {
            let mut hash = Hash::new();
            for (field, value) in fields {
                hash.set(field.as_bytes(), value.as_bytes(), LIMITS);
            }
            assert_eq!(hash.encoding(), expected);
        };
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, "1"));
        check(&many[..6], Encoding::Listpack);
        check(&many, Encoding::Hashtable);
        check(&[("a", "01234567890123456789")], Encoding::Listpack);
        check(&[("a", "012345678901234567890")], Encoding::Hashtable);
        check(&[("012345678901234567890", "")], Encoding::Hashtable);
        assert!(size_of::<Hash>() <= 16);
    }
}
