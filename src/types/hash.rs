//! Hashes: few short fields in one run of fields and values, all others in a table.
//!
//! A hash becomes a table when a field or value is longer than [`Limits::pack_value`] or when it has
//! more than [`Limits::pack_entries`] fields, and stays one.
//!
//! Fields can have an expiry. A hash of which no field ever had one pays nothing for that; one of
//! which some have keeps them in order of expiry, so that the due ones are found without a walk:
//!
//! ```text
//!  Run      field, value, field, value ...
//!   or      field, value, expiry, field, value, expiry ...   by expiry; 0 (none) comes last
//!  Table    field -> value
//!  Timed    field -> value; field -> expiry; the set of (expiry, field)
//! ```
//!
//! A field whose expiry is below the time at hand is *due*. It stays until somebody removes it:
//! [`Hash::get`] and [`Hash::iter`] still show it, [`Hash::is_due`] tells.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::collection::Collection;
use super::element::Element;
use super::run::{Run, Step};
use super::table::{Fixed, Pairs, Table};
use super::{Encoding, Type};
use crate::base::alloc::size_class;
use crate::base::random;

/// Which representation a hash gets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most fields of a run (`hash-max-listpack-entries`).
    pub pack_entries: usize,
    /// Longest field or value in a run, in bytes (`hash-max-listpack-value`).
    pub pack_value: usize,
}

/// What becomes of a field's expiry when its value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldTtl {
    /// It is removed.
    Clear,
    /// It stays.
    Keep,
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
    Run(Run),
    Table(Box<Table<Pairs>>),
    Timed(Box<Timed>),
}

/// A table of which some fields have an expiry.
#[derive(Clone, Debug, Default)]
struct Timed {
    fields: Table<Pairs>,
    times: Table<Fixed<8>>,
    /// The same as `times`, in order. There is one at least.
    due: BTreeSet<(i64, Box<[u8]>)>,
}

impl Timed {
    fn expiry(&self, field: &[u8]) -> Option<i64> {
        let bytes = self.times.get(field)?;
        Some(i64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn set_expiry(&mut self, field: &[u8], at: Option<i64>) {
        if let Some(old) = self.expiry(field) {
            self.due.remove(&(old, field.into()));
        }
        match at {
            Some(at) => {
                self.times.insert(field, &at.to_le_bytes());
                self.due.insert((at, field.into()));
            }
            None => {
                self.times.remove(field);
            }
        }
    }
}

/// True when the records of a run hold expiry times.
#[inline]
fn is_timed(run: &Run) -> bool {
    run.step() == Step::Three as usize
}

/// The expiry of the field that lies at an offset of a run that holds them.
fn expiry_at(run: &Run, field: usize) -> Option<i64> {
    run.second(run.skip(field)).integer().filter(|&at| at != 0)
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Self::of_run(Run::new(Step::Two))
    }

    /// The hash whose fields and values alternate in a run, each field once.
    pub fn of_run(run: Run) -> Self {
        debug_assert_eq!(run.step(), Step::Two as usize);
        Self {
            body: Body::Run(run),
        }
    }

    /// The run of fields and values, when that is how they are kept; with expiry times when
    /// [`Hash::encoding`] says so.
    pub fn run(&self) -> Option<&Run> {
        match &self.body {
            Body::Run(run) => Some(run),
            _ => None,
        }
    }

    /// The table of fields, when there is one: for statistics.
    pub fn table(&self) -> Option<&Table<Pairs>> {
        match &self.body {
            Body::Table(table) => Some(table),
            Body::Timed(timed) => Some(&timed.fields),
            _ => None,
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match &self.body {
            Body::Table(table) => table.get(field).map(Element::Bytes),
            Body::Timed(timed) => timed.fields.get(field).map(Element::Bytes),
            Body::Run(run) => run.find(field.into()).map(|at| run.second(at)),
        }
    }

    /// The value of a field that is not due.
    #[inline]
    pub fn get_live(&self, field: &[u8], now_ms: i64) -> Option<Element<'_>> {
        let value = self.get(field)?;
        (!self.is_field_due(field, now_ms)).then_some(value)
    }

    /// Sets the value of a field, which has no expiry then; true when the field is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: Limits) -> bool {
        self.put(field, value, FieldTtl::Clear, limits)
    }

    /// Sets the value of a field; true when the field is new.
    #[inline]
    pub fn put(&mut self, field: &[u8], value: &[u8], ttl: FieldTtl, limits: Limits) -> bool {
        match &mut self.body {
            Body::Table(table) => table.insert(field, value),
            Body::Timed(timed) => {
                if ttl == FieldTtl::Clear {
                    timed.set_expiry(field, None);
                }
                let new = timed.fields.insert(field, value);
                self.forget_times();
                new
            }
            Body::Run(run) => {
                let bytes = field.len() + value.len();
                let longest = field.len().max(value.len());
                if longest > limits.pack_value || !run.has_room(bytes) {
                    self.make_table();
                    return self.put(field, value, ttl, limits);
                }
                let new = put_in_run(run, field, value, ttl);
                if run.len() > limits.pack_entries {
                    self.make_table();
                }
                new
            }
        }
    }

    /// Gives up on one run.
    #[cold]
    fn make_table(&mut self) {
        let mut timed = Box::<Timed>::default();
        for (field, value, expiry) in self.iter_timed() {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            let field = field.text(&mut a);
            timed.fields.insert(field, value.text(&mut b));
            if expiry.is_some() {
                timed.set_expiry(field, expiry);
            }
        }
        self.body = Body::Timed(timed);
        self.forget_times();
    }

    /// Goes back to a plain table when no field has an expiry.
    fn forget_times(&mut self) {
        if let Body::Timed(timed) = &mut self.body
            && timed.due.is_empty()
        {
            let fields = std::mem::take(&mut timed.fields);
            self.body = Body::Table(Box::new(fields));
        }
    }

    /// Removes a field; true when it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.body {
            Body::Table(table) => table.remove(field),
            Body::Timed(timed) => {
                timed.set_expiry(field, None);
                let removed = timed.fields.remove(field);
                self.forget_times();
                removed
            }
            Body::Run(run) => match run.find(field.into()) {
                Some(at) => {
                    run.remove(at, 1);
                    true
                }
                None => false,
            },
        }
    }

    /// When a field expires, in Unix milliseconds; `None` without such a field or an expiry.
    pub fn expiry(&self, field: &[u8]) -> Option<i64> {
        match &self.body {
            Body::Table(_) => None,
            Body::Timed(timed) => timed.expiry(field),
            Body::Run(run) if is_timed(run) => expiry_at(run, run.find(field.into())?),
            Body::Run(_) => None,
        }
    }

    /// Sets (to a time above 0) or removes the expiry of a field; nothing without such a field.
    pub fn set_expiry(&mut self, field: &[u8], at: Option<i64>) {
        if at.is_some() {
            self.make_timed();
        }
        match &mut self.body {
            Body::Table(_) => {}
            Body::Timed(timed) => {
                if timed.fields.contains(field) {
                    timed.set_expiry(field, at);
                }
                self.forget_times();
            }
            Body::Run(run) => {
                let Some(start) = run.find(field.into()).filter(|_| is_timed(run)) else {
                    return;
                };
                let value = run.second(start).to_vec();
                run.remove(start, 1);
                let at = at.unwrap_or(0);
                let place = place_of(run, at);
                run.insert(place, [field.into(), value[..].into(), Element::Int(at)]);
            }
        }
    }

    /// Makes room for expiry times.
    fn make_timed(&mut self) {
        match &mut self.body {
            Body::Timed(_) => {}
            Body::Table(table) => {
                let fields = std::mem::take(&mut **table);
                self.body = Body::Timed(Box::new(Timed {
                    fields,
                    ..Timed::default()
                }));
            }
            Body::Run(run) if is_timed(run) => {}
            Body::Run(_) => {
                let pairs = self.iter();
                let triples = pairs.flat_map(|(field, value)| [field, value, Element::Int(0)]);
                self.body = Body::Run(Run::of(Step::Three, triples));
            }
        }
    }

    /// The earliest expiry of a field, in Unix milliseconds.
    #[inline]
    pub fn next_expiry(&self) -> Option<i64> {
        match &self.body {
            Body::Table(_) => None,
            Body::Timed(timed) => timed.due.first().map(|(at, _)| *at),
            Body::Run(run) if is_timed(run) && !run.is_empty() => expiry_at(run, 0),
            Body::Run(_) => None,
        }
    }

    /// True when some field is due.
    #[inline]
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.next_expiry().is_some_and(|at| at < now_ms)
    }

    /// True when `field` is due.
    #[inline]
    pub fn is_field_due(&self, field: &[u8], now_ms: i64) -> bool {
        self.is_due(now_ms) && self.expiry(field).is_some_and(|at| at < now_ms)
    }

    /// Removes up to `limit` fields that are due, the earliest first; shows each.
    pub fn expire_due(
        &mut self,
        now_ms: i64,
        limit: usize,
        mut removed: impl FnMut(&[u8]),
    ) -> usize {
        let mut count = 0;
        while count < limit && self.is_due(now_ms) {
            let field = match &mut self.body {
                Body::Timed(timed) => timed.due.first().map(|(_, field)| field.to_vec()),
                Body::Run(run) => run.iter().next().map(Element::to_vec),
                Body::Table(_) => None,
            };
            let Some(field) = field else { break };
            self.remove(&field);
            removed(&field);
            count += 1;
        }
        count
    }

    /// Number of fields that are due.
    pub fn count_due(&self, now_ms: i64) -> usize {
        match &self.body {
            Body::Table(_) => 0,
            Body::Timed(timed) => {
                let due = timed.due.iter();
                due.take_while(|(at, _)| *at < now_ms).count()
            }
            Body::Run(_) => {
                let times = self.iter_timed().map(|(.., at)| at);
                times
                    .take_while(|at| at.is_some_and(|at| at < now_ms))
                    .count()
            }
        }
    }

    /// The fields with their values, each once.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Pair<'_>> + '_> {
        match &self.body {
            Body::Table(table) => Box::new(table.iter().map(pair)),
            Body::Timed(timed) => Box::new(timed.fields.iter().map(pair)),
            Body::Run(run) if is_timed(run) => {
                Box::new(self.iter_timed().map(|(field, value, _)| (field, value)))
            }
            Body::Run(run) => {
                let mut elements = run.iter();
                Box::new(std::iter::from_fn(move || {
                    Some((elements.next()?, elements.next()?))
                }))
            }
        }
    }

    /// Shows the fields with their values, each once, until `visit` breaks; what of a big hash
    /// nobody else has is freed once it was shown.
    pub fn consume(self, mut visit: impl FnMut(Pair<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.body {
            Body::Table(table) => table.consume(|field, value| visit(pair((field, value)))),
            _ => self.iter().try_for_each(visit),
        }
    }

    /// The fields with their values that are not due.
    pub fn iter_live(&self, now_ms: i64) -> Box<dyn Iterator<Item = Pair<'_>> + '_> {
        if !self.is_due(now_ms) {
            return self.iter();
        }
        let all = self.iter_timed();
        let live = all.filter(move |(.., at)| at.is_none_or(|at| at >= now_ms));
        Box::new(live.map(|(field, value, _)| (field, value)))
    }

    /// The fields with their values and expiry times.
    pub fn iter_timed(
        &self,
    ) -> Box<dyn Iterator<Item = (Element<'_>, Element<'_>, Option<i64>)> + '_> {
        match &self.body {
            Body::Timed(timed) => Box::new(timed.fields.iter().map(|(field, value)| {
                let at = timed.expiry(field);
                (Element::Bytes(field), Element::Bytes(value), at)
            })),
            Body::Run(run) if is_timed(run) => {
                let mut elements = run.iter();
                Box::new(std::iter::from_fn(move || {
                    let (field, value) = (elements.next()?, elements.next()?);
                    let at = elements.next()?.integer().filter(|&at| at != 0);
                    Some((field, value, at))
                }))
            }
            Body::Run(_) | Body::Table(_) => {
                Box::new(self.iter().map(|(field, value)| (field, value, None)))
            }
        }
    }

    /// A field with its value, each with the same probability; `None` when the hash is empty.
    pub fn random(&self) -> Option<Pair<'_>> {
        match &self.body {
            Body::Table(table) => table.random().map(pair),
            Body::Timed(timed) => timed.fields.random().map(pair),
            Body::Run(run) if run.is_empty() => None,
            Body::Run(run) => {
                let at = run.seek(random::below(run.len()));
                Some((run.at(at), run.second(at)))
            }
        }
    }

    /// Shows fields with their values from a cursor on; the next cursor, 0 at the end. See
    /// [`Table::scan`]; a hash that is no table is shown as a whole.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Pair<'a>)) -> u64 {
        match self.table() {
            Some(table) => table.scan(cursor, count, |field, value| visit(pair((field, value)))),
            None => {
                self.iter().for_each(visit);
                0
            }
        }
    }
}

fn pair<'a>((field, value): (&'a [u8], &'a [u8])) -> Pair<'a> {
    (Element::Bytes(field), Element::Bytes(value))
}

/// [`Hash::put`] where it is a run.
#[inline]
fn put_in_run(run: &mut Run, field: &[u8], value: &[u8], ttl: FieldTtl) -> bool {
    let timed = is_timed(run);
    let (field, value) = (Element::from(field), Element::from(value));
    match run.find(field) {
        Some(at) if timed && ttl == FieldTtl::Clear && expiry_at(run, at).is_some() => {
            run.remove(at, 1);
            run.push([field, value, Element::Int(0)]);
            false
        }
        Some(at) => {
            run.replace(run.skip(at), value);
            false
        }
        None if timed => {
            run.push([field, value, Element::Int(0)]);
            true
        }
        None => {
            run.push([field, value]);
            true
        }
    }
}

/// Where a field that expires at `at` (0: never) belongs in a run that is in order of expiry.
fn place_of(run: &Run, at: i64) -> usize {
    let mut place = 0;
    while at != 0 && place < run.end() {
        if expiry_at(run, place).is_none_or(|there| there > at) {
            return place;
        }
        place = run.skip(run.skip(run.skip(place)));
    }
    run.end()
}

impl Collection for Hash {
    const KIND: Type = Type::Hash;

    fn encoding(&self) -> Encoding {
        match &self.body {
            Body::Run(run) if is_timed(run) => Encoding::ListpackEx,
            Body::Run(_) => Encoding::Listpack,
            Body::Table(_) | Body::Timed(_) => Encoding::Hashtable,
        }
    }

    fn memory(&self) -> usize {
        match &self.body {
            Body::Run(run) => run.memory(),
            Body::Table(table) => size_of::<Table<Pairs>>() + table.memory(),
            Body::Timed(timed) => {
                let sampled = timed.due.iter().take(16);
                let bytes: usize = sampled.map(|(_, field)| size_class(field.len())).sum();
                let seen = timed.due.len().clamp(1, 16);
                // A B-tree's nodes are some two thirds full.
                let order =
                    timed.due.len() * (size_of::<(i64, Box<[u8]>)>() * 3 / 2 + bytes / seen);
                size_of::<Timed>() + timed.fields.memory() + timed.times.memory() + order
            }
        }
    }

    fn share(&mut self) -> Self {
        let body = match &mut self.body {
            Body::Run(_) => return self.clone(),
            Body::Table(table) => Body::Table(Box::new(table.share())),
            Body::Timed(timed) => Body::Timed(Box::new(Timed {
                fields: timed.fields.share(),
                times: timed.times.share(),
                // The first one is all that is asked for by who does not change it.
                due: timed.due.first().cloned().into_iter().collect(),
            })),
        };
        Self { body }
    }

    fn effort(&self) -> usize {
        match &self.body {
            Body::Run(_) => 1,
            Body::Table(table) => table.effort(),
            Body::Timed(timed) => {
                timed.fields.effort() + timed.times.effort() + timed.due.len() * 5 / 4
            }
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match &self.body {
            Body::Run(run) => run.len(),
            Body::Table(table) => table.len(),
            Body::Timed(timed) => timed.fields.len(),
        }
    }

    fn warm(&self, elements: &[&[u8]]) {
        if let Some(table) = self.table() {
            table.warm(elements.iter().copied());
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

    type Times = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

    fn timed(hash: &Hash) -> Times {
        let all = hash.iter_timed();
        all.map(|(field, value, at)| (field.to_vec(), (value.to_vec(), at)))
            .collect()
    }

    proptest! {
        #[test]
        fn fields_expire_in_order(
            steps in prop::collection::vec((0..6u8, texts(), texts(), 1..60i64), 0..120),
            now in 0..70i64,
        ) {
            let (mut hash, mut model) = (Hash::new(), Times::new());
            for (step, field, value, at) in steps {
                match step {
                    0 => {
                        prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                    }
                    1 | 2 => {
                        let at = (step == 1).then_some(at);
                        hash.set_expiry(&field, at);
                        if let Some((_, old)) = model.get_mut(&field) {
                            *old = at;
                        }
                    }
                    3 => {
                        hash.put(&field, &value, FieldTtl::Keep, LIMITS);
                        model.entry(field.clone()).or_default().0 = value;
                    }
                    _ => {
                        hash.set(&field, &value, LIMITS);
                        model.insert(field.clone(), (value, None));
                    }
                }
                let known = model.get(&field);
                prop_assert_eq!(hash.expiry(&field), known.and_then(|(_, at)| *at));
                prop_assert_eq!(hash.get(&field).map(Element::to_vec), known.map(|(v, _)| v.clone()));
                prop_assert_eq!(Collection::len(&hash), model.len());
                let next = model.values().filter_map(|(_, at)| *at).min();
                prop_assert_eq!(hash.next_expiry(), next);
            }
            prop_assert_eq!(&timed(&hash), &model);
            let due = |at: &Option<i64>| at.is_some_and(|at| at < now);
            let count = model.values().filter(|(_, at)| due(at)).count();
            prop_assert_eq!(hash.count_due(now), count);
            prop_assert_eq!(hash.iter_live(now).count(), model.len() - count);
            for (field, (value, at)) in &model {
                let live = (!due(at)).then(|| value.clone());
                prop_assert_eq!(hash.get_live(field, now).map(Element::to_vec), live);
            }
            let mut last = 0;
            let first = hash.expire_due(now, 3, |field| {
                let (_, at) = model.remove(field).expect("as in the hash");
                let at = at.expect("only those with an expiry go");
                assert!(at < now && at >= last);
                last = at;
            });
            prop_assert_eq!(first, count.min(3));
            hash.expire_due(now, usize::MAX, |field| drop(model.remove(field)));
            prop_assert!(!hash.is_due(now));
            prop_assert_eq!(&timed(&hash), &model);
        }
    }

    #[test]
    fn encodings_with_expiry_are_those_of_redis() {
        let mut hash = Hash::new();
        hash.set(b"a", b"1", LIMITS);
        hash.set_expiry(b"a", Some(5));
        assert_eq!(hash.encoding(), Encoding::ListpackEx);
        hash.set_expiry(b"a", None);
        assert_eq!(
            (hash.encoding(), hash.next_expiry()),
            (Encoding::ListpackEx, None)
        );
        hash.set_expiry(b"a", Some(7));
        for n in 0..9 {
            hash.set(&[b'f', n], b"x", LIMITS);
        }
        assert_eq!(
            (hash.encoding(), hash.next_expiry()),
            (Encoding::Hashtable, Some(7))
        );
        assert!(matches!(hash.body, Body::Timed(_)));
        hash.set(b"a", b"2", LIMITS);
        assert!(matches!(hash.body, Body::Table(_)));
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
