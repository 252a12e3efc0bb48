//! Sets: integers in one sorted array, few short members in one run, all others in a table.
//!
//! OBJECT ENCODING knows two of these, as Redis 7.0 does: `intset`, and `hashtable` for the rest. A
//! set is an intset as long as all its members are integers and there are at most
//! [`Limits::intset_entries`] of them, and never becomes one again.

use std::ops::ControlFlow;

use super::collection::Collection;
use super::element::Element;
use super::intset::IntSet;
use super::run::{Run, Step};
use super::table::{Keys, Table};
use super::{Encoding, Type};
use crate::base::number;
use crate::base::random;

/// Most members of a set that is a run: finding one reads half of them.
const RUN_ENTRIES: usize = 32;
/// Longest member of such a set, in bytes.
const RUN_MEMBER: usize = 64;

/// Which representation a set gets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most members of an intset (`set-max-intset-entries`).
    pub intset_entries: usize,
}

/// See the module. Members are shown as [`Element`]s: integers or bytes.
#[derive(Clone, Debug)]
pub struct Set {
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Ints(IntSet),
    Run(Run),
    Table(Box<Table<Keys>>),
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Set {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            body: Body::Ints(IntSet::new()),
        }
    }

    /// An empty set to which `member` is going to be added: it begins in the right encoding.
    pub fn for_member(member: &[u8]) -> Self {
        let body = match number::parse_i64(member) {
            Some(_) => Body::Ints(IntSet::new()),
            None if member.len() <= RUN_MEMBER => Body::Run(Run::new(Step::One)),
            None => Body::Table(Box::default()),
        };
        Self { body }
    }

    /// The set of these integers: what an intset was saved as.
    pub fn of_ints(ints: IntSet) -> Self {
        Self {
            body: Body::Ints(ints),
        }
    }

    /// The integers, when that is how the members are kept.
    pub fn ints(&self) -> Option<&IntSet> {
        match &self.body {
            Body::Ints(ints) => Some(ints),
            _ => None,
        }
    }

    /// The table, when there is one: for statistics.
    pub fn table(&self) -> Option<&Table<Keys>> {
        match &self.body {
            Body::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Adds a member; true when it is new.
    #[inline]
    pub fn add(&mut self, member: &[u8], limits: Limits) -> bool {
        match &mut self.body {
            Body::Table(table) => table.insert(member, &[]),
            Body::Run(run) => {
                let element = Element::from(member);
                if run.find(element).is_some() {
                    return false;
                }
                if run.len() < RUN_ENTRIES && member.len() <= RUN_MEMBER {
                    run.push([element]);
                    return true;
                }
                self.make_table().insert(member, &[])
            }
            Body::Ints(ints) => match number::parse_i64(member) {
                Some(n) => {
                    let new = ints.insert(n);
                    if new && ints.len() > limits.intset_entries.min(1 << 30) {
                        self.give_up_integers();
                    }
                    new
                }
                None => {
                    self.give_up_integers();
                    self.add(member, limits)
                }
            },
        }
    }

    /// As [`Set::add`] of a member of another set.
    pub fn add_element(&mut self, member: Element<'_>, limits: Limits) -> bool {
        self.add(member.text(&mut itoa::Buffer::new()), limits)
    }

    /// Gives up on integers alone.
    #[cold]
    fn give_up_integers(&mut self) {
        let Body::Ints(ints) = &self.body else {
            return;
        };
        if ints.len() > RUN_ENTRIES {
            self.make_table();
        } else {
            self.body = Body::Run(Run::of(Step::One, ints.iter().map(Element::Int)));
        }
    }

    #[cold]
    fn make_table(&mut self) -> &mut Table<Keys> {
        if !matches!(self.body, Body::Table(_)) {
            let mut table = Box::<Table<Keys>>::default();
            for member in self.iter() {
                table.insert(member.text(&mut itoa::Buffer::new()), &[]);
            }
            self.body = Body::Table(table);
        }
        match &mut self.body {
            Body::Table(table) => table,
            _ => unreachable!("it was made one"),
        }
    }

    /// Removes a member; true when it was there.
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.body {
            Body::Table(table) => table.remove(member),
            Body::Ints(ints) => number::parse_i64(member).is_some_and(|n| ints.remove(n)),
            Body::Run(run) => match run.find(member.into()) {
                Some(at) => {
                    run.remove(at, 1);
                    true
                }
                None => false,
            },
        }
    }

    /// True when `member` is in the set.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.body {
            Body::Table(table) => table.contains(member),
            Body::Ints(ints) => number::parse_i64(member).is_some_and(|n| ints.contains(n)),
            Body::Run(run) => run.find(member.into()).is_some(),
        }
    }

    /// As [`Set::contains`], of a member of another set.
    #[inline]
    pub fn contains_element(&self, member: Element<'_>) -> bool {
        match &self.body {
            Body::Table(table) => table.contains(member.text(&mut itoa::Buffer::new())),
            Body::Ints(ints) => member.integer().is_some_and(|n| ints.contains(n)),
            Body::Run(run) => run.find(member).is_some(),
        }
    }

    /// The members, each once.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Element<'_>> + '_> {
        match &self.body {
            Body::Ints(ints) => Box::new(ints.iter().map(Element::Int)),
            Body::Run(run) => Box::new(run.iter()),
            Body::Table(table) => Box::new(table.iter().map(|(key, _)| Element::Bytes(key))),
        }
    }

    /// Shows the members as [`Set::iter`] does but faster, until `visit` breaks.
    #[inline]
    pub fn try_for_each<'a>(
        &'a self,
        mut visit: impl FnMut(Element<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &self.body {
            Body::Ints(ints) => ints.iter().map(Element::Int).try_for_each(visit),
            Body::Run(run) => run.iter().try_for_each(visit),
            Body::Table(table) => table.try_for_each(|key, _| visit(Element::Bytes(key))),
        }
    }

    /// As [`Set::try_for_each`]; what of a big set nobody else has is freed once it was shown.
    pub fn consume(self, mut visit: impl FnMut(Element<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.body {
            Body::Table(table) => table.consume(|key, _| visit(Element::Bytes(key))),
            _ => self.try_for_each(visit),
        }
    }

    /// A member, each with the same probability; `None` when the set is empty.
    pub fn random(&self) -> Option<Element<'_>> {
        let rank = || random::below(Collection::len(self));
        match &self.body {
            Body::Ints(ints) if ints.is_empty() => None,
            Body::Ints(ints) => Some(Element::Int(ints.get(rank()))),
            Body::Run(run) => (!run.is_empty()).then(|| run.at(run.seek(rank()))),
            Body::Table(table) => table.random().map(|(key, _)| Element::Bytes(key)),
        }
    }

    /// Removes a random member.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        if let Body::Table(table) = &mut self.body {
            return table.pop_random();
        }
        let member = self.random()?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// Shows members from a cursor on; the next cursor, 0 at the end. See [`Table::scan`]; a set
    /// that is no table is shown as a whole.
    pub fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Element<'a>),
    ) -> u64 {
        match &self.body {
            Body::Table(table) => table.scan(cursor, count, |key, _| visit(Element::Bytes(key))),
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }
}

impl Collection for Set {
    const KIND: Type = Type::Set;

    fn encoding(&self) -> Encoding {
        match self.body {
            Body::Ints(_) => Encoding::Intset,
            _ => Encoding::Hashtable,
        }
    }

    fn memory(&self) -> usize {
        match &self.body {
            Body::Ints(ints) => ints.memory(),
            Body::Run(run) => run.memory(),
            Body::Table(table) => size_of::<Table<Keys>>() + table.memory(),
        }
    }

    fn share(&mut self) -> Self {
        match &mut self.body {
            Body::Table(table) => Self {
                body: Body::Table(Box::new(table.share())),
            },
            _ => self.clone(),
        }
    }

    fn effort(&self) -> usize {
        match &self.body {
            Body::Table(table) => table.effort(),
            _ => 1,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match &self.body {
            Body::Ints(ints) => ints.len(),
            Body::Run(run) => run.len(),
            Body::Table(table) => table.len(),
        }
    }

    fn warm(&self, elements: &[&[u8]]) {
        if let Body::Table(table) = &self.body {
            table.warm(elements.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { intset_entries: 5 };

    fn sorted(set: &Set) -> BTreeSet<Vec<u8>> {
        set.iter().map(Element::to_vec).collect()
    }

    fn members() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (-9..30i64).prop_map(|n| n.to_string().into_bytes()),
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (0..60u8).prop_map(|n| vec![n; usize::from(n)]),
            (60..80usize).prop_map(|n| vec![b'x'; n]),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((0..4u8, members()), 0..200)) {
            let (mut set, mut model) = (Set::new(), BTreeSet::new());
            for (step, member) in steps {
                if step > 0 {
                    prop_assert_eq!(set.add(&member, LIMITS), model.insert(member.clone()));
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
                prop_assert_eq!(set.contains(&member), model.contains(&member));
                prop_assert_eq!(Collection::len(&set), model.len());
                prop_assert!(set.random().is_none_or(|m| model.contains(&m.to_vec())));
            }
            prop_assert_eq!(&sorted(&set), &model);
            prop_assert!(set.iter().all(|member| set.contains_element(member)));
            let mut seen = BTreeSet::new();
            let mut see = |cursor| {
                set.scan(cursor, 3, |member| {
                    seen.insert(member.to_vec());
                })
            };
            let mut cursor = see(0);
            while cursor != 0 {
                cursor = see(cursor);
            }
            prop_assert_eq!(&seen, &model);
            let copy = set.clone();
            while let Some(member) = set.pop() {
                prop_assert!(model.remove(&member));
            }
            prop_assert!(model.is_empty() && sorted(&copy) == seen);
        }
    }

    #[test]
    fn integers_stay_an_intset_up_to_the_limit() {
        let mut set = Set::for_member(b"1");
        (0..5).for_each(|n| assert!(set.add(n.to_string().as_bytes(), LIMITS)));
        assert_eq!(set.encoding(), Encoding::Intset);
        assert!(!set.add(b"4", LIMITS) && set.encoding() == Encoding::Intset);
        assert!(set.add(b"5", LIMITS) && set.encoding() == Encoding::Hashtable);
        assert!(set.remove(b"5") && set.encoding() == Encoding::Hashtable);
        let mut set = Set::for_member(b"1");
        assert!(set.add(b"1", LIMITS) && set.add(b"01", LIMITS) && !set.add(b"1", LIMITS));
        assert_eq!(set.encoding(), Encoding::Hashtable);
        assert_eq!(Set::for_member(b"a").encoding(), Encoding::Hashtable);
        assert!(size_of::<Set>() <= 16);
    }
}
