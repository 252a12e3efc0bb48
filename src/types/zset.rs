//! Sorted sets: small ones as a run of members and scores, big ones as a [`BTree`].
//!
//! A run holds member, score, member, score, in order; scores that are integers as such,
//! others as the text of 17 significant digits. OBJECT ENCODING calls the tree a skiplist.
//!
//! Every range of members is a [`Range`] of ranks, whatever it was named by.

use std::ops::Range;

use super::btree::{self, BTree};
use super::collection::Collection;
use super::element::Element;
use super::run::{self, Run, Step};
use super::{Encoding, Type};
use crate::base::number;

/// A sorted set.
#[derive(Clone, Debug)]
pub enum ZSet {
    /// Members and scores by turns.
    Run(Run),
    /// Many members, or long ones.
    Tree(Box<BTree>),
}

/// Up to what a sorted set is a run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members.
    pub entries: usize,
    /// Bytes of each member.
    pub value: usize,
}

/// A range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    /// Least score.
    pub min: f64,
    /// Greatest score.
    pub max: f64,
    /// `min` itself is out.
    pub above_min: bool,
    /// `max` itself is out.
    pub below_max: bool,
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before every member.
    Lowest,
    /// Behind every member.
    Highest,
    /// This text, which is in the range.
    With(&'a [u8]),
    /// This text, which is not.
    Without(&'a [u8]),
}

/// A range of members that have one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    /// Where it begins.
    pub min: LexBound<'a>,
    /// Where it ends.
    pub max: LexBound<'a>,
}

impl ScoreRange {
    fn is_empty(&self) -> bool {
        self.min > self.max || (self.min == self.max && (self.above_min || self.below_max))
    }

    fn starts_after(&self, score: f64) -> bool {
        score < self.min || (self.above_min && score == self.min)
    }

    fn ends_before(&self, score: f64) -> bool {
        score > self.max || (self.below_max && score == self.max)
    }
}

impl LexRange<'_> {
    fn is_empty(&self) -> bool {
        use LexBound::{Highest, Lowest, With, Without};
        match (self.min, self.max) {
            (Highest, _) | (_, Lowest) => true,
            (Lowest, _) | (_, Highest) => false,
            (With(a), With(b)) => a > b,
            (With(a) | Without(a), With(b) | Without(b)) => a >= b,
        }
    }

    fn starts_after(&self, member: &[u8]) -> bool {
        match self.min {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::With(min) => member < min,
            LexBound::Without(min) => member <= min,
        }
    }

    fn ends_before(&self, member: &[u8]) -> bool {
        match self.max {
            LexBound::Lowest => true,
            LexBound::Highest => false,
            LexBound::With(max) => member > max,
            LexBound::Without(max) => member >= max,
        }
    }
}

/// Longest text of a score.
const SCORE_TEXT: usize = 32;

/// The element that keeps a score; `text` holds what is no integer.
fn element_of(score: f64, text: &mut Vec<u8>) -> Element<'_> {
    const LIMIT: f64 = (i64::MAX / 2) as f64;
    if score.abs() <= LIMIT && score.trunc() == score {
        return Element::Int(score as i64);
    }
    number::format_double(text, score);
    Element::Bytes(text)
}

fn score_of(element: Element<'_>) -> f64 {
    match element {
        Element::Int(n) => n as f64,
        Element::Bytes(text) => number::strtod(&text[..text.len().min(127)]).0,
    }
}

/// Members and scores of a run.
fn pairs(run: &Run) -> impl Iterator<Item = (Element<'_>, f64)> {
    let mut elements = run.iter();
    std::iter::from_fn(move || Some((elements.next()?, score_of(elements.next()?))))
}

impl ZSet {
    /// An empty one, fit for a first member of `len` bytes.
    pub fn new(limits: Limits, len: usize) -> Self {
        if limits.entries == 0 || len > limits.value {
            Self::Tree(Box::default())
        } else {
            Self::Run(Run::new(Step::Two))
        }
    }

    /// One of these members, which are all different, with scores that are numbers.
    pub fn of(members: &[(f64, Element<'_>)], limits: Limits) -> Self {
        let (mut longest, mut bytes) = (0, 0);
        for (_, member) in members {
            longest = longest.max(member.len());
            bytes += member.len() + SCORE_TEXT;
        }
        let small = members.len() <= limits.entries && longest <= limits.value;
        let mut digits = itoa::Buffer::new();
        let mut run = Run::new(Step::Two);
        if small && run.has_room(bytes) {
            for (score, member) in members {
                insert_into(&mut run, *score, member.text(&mut digits));
            }
            return Self::Run(run);
        }
        let mut tree = Box::<BTree>::default();
        for (score, member) in members {
            tree.insert(*score, member.text(&mut digits));
        }
        Self::Tree(tree)
    }

    /// True unless the set holds as much as it can address.
    pub fn has_room(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Tree(tree) => tree.has_room(),
        }
    }

    /// A member's score.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Run(run) => {
                let at = run.find(Element::from(member))?;
                Some(score_of(run.second(at)))
            }
            Self::Tree(tree) => tree.score(member),
        }
    }

    /// Shows the score of a member, if there is one, to `change`, and gives it the one that this
    /// returns, if it does. Scores are not NaN.
    #[inline]
    pub fn alter(
        &mut self,
        member: &[u8],
        limits: Limits,
        change: impl FnOnce(Option<f64>) -> Option<f64>,
    ) {
        let run = match self {
            Self::Tree(tree) => return tree.alter(member, change),
            Self::Run(run) => run,
        };
        if let Some(at) = run.find(Element::from(member)) {
            let old = score_of(run.second(at));
            if let Some(score) = change(Some(old)).filter(|&score| score != old) {
                run.remove(at, 1);
                insert_into(run, score, member);
            }
            return;
        }
        let Some(score) = change(None) else { return };
        let fits = run.len() < limits.entries
            && member.len() <= limits.value
            && run.has_room(member.len() + SCORE_TEXT);
        if fits {
            insert_into(run, score, member);
        } else {
            self.tree().insert(score, member);
        }
    }

    /// Sets a member's score, which is not NaN; true when the member is new.
    pub fn insert(&mut self, score: f64, member: &[u8], limits: Limits) -> bool {
        let mut new = false;
        self.alter(member, limits, |old| {
            new = old.is_none();
            Some(score)
        });
        new
    }

    /// Has the set be a tree from now on, however small it is.
    pub fn make_tree(&mut self) {
        self.tree();
    }

    /// The set as a tree, which it becomes if it is none.
    fn tree(&mut self) -> &mut BTree {
        if let Self::Run(run) = self {
            let mut tree = Box::<BTree>::default();
            let mut digits = itoa::Buffer::new();
            for (member, score) in pairs(run) {
                tree.insert(score, member.text(&mut digits));
            }
            *self = Self::Tree(tree);
        }
        match self {
            Self::Tree(tree) => tree,
            Self::Run(_) => unreachable!("converted above"),
        }
    }

    /// Removes a member; its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Run(run) => {
                let at = run.find(Element::from(member))?;
                let score = score_of(run.second(at));
                run.remove(at, 1);
                Some(score)
            }
            Self::Tree(tree) => tree.remove(member),
        }
    }

    /// A member's rank from the lowest, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            Self::Run(run) => {
                let wanted = Element::from(member);
                let mut ranked = pairs(run).enumerate();
                let (rank, (_, score)) = ranked.find(|(_, (member, _))| member.same(wanted))?;
                Some((rank, score))
            }
            Self::Tree(tree) => tree.rank(member),
        }
    }

    /// The ranks of the members whose scores are in a range.
    pub fn ranks_by_score(&self, range: &ScoreRange) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let (start, end) = match self {
            Self::Run(run) => {
                let scores = || pairs(run).map(|(_, score)| score);
                let start = scores().take_while(|&s| range.starts_after(s)).count();
                (
                    start,
                    scores().take_while(|&s| !range.ends_before(s)).count(),
                )
            }
            Self::Tree(tree) => (
                tree.before_score(|s| range.starts_after(s)),
                tree.before_score(|s| !range.ends_before(s)),
            ),
        };
        start..end.max(start)
    }

    /// The ranks of the members in a range of texts, which means something only when all scores
    /// are the same.
    pub fn ranks_by_lex(&self, range: &LexRange<'_>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let (start, end) = match self {
            Self::Run(run) => {
                let count = |holds: &dyn Fn(&[u8]) -> bool| {
                    let mut digits = itoa::Buffer::new();
                    let members = pairs(run).map(|(member, _)| member);
                    members.take_while(|m| holds(m.text(&mut digits))).count()
                };
                let start = count(&|m| range.starts_after(m));
                (start, count(&|m| !range.ends_before(m)))
            }
            Self::Tree(tree) => (
                tree.before_member(|m| range.starts_after(m)),
                tree.before_member(|m| !range.ends_before(m)),
            ),
        };
        start..end.max(start)
    }

    /// Members and scores of a range of ranks within the length, ascending or from its end.
    #[inline]
    pub fn iter(&self, ranks: Range<usize>, descending: bool) -> Iter<'_> {
        match self {
            Self::Run(run) => {
                let (mut elements, left) = (run.iter_from(run.seek(ranks.start)), ranks.len());
                if !descending {
                    return Iter::Run(elements, left);
                }
                let mut places = Vec::with_capacity(left);
                for _ in 0..left {
                    places.push(elements.offset());
                    _ = (elements.next(), elements.next());
                }
                Iter::Back(run, places)
            }
            Self::Tree(tree) => Iter::Tree(tree.iter(ranks, descending)),
        }
    }

    /// All members and scores, ascending.
    pub fn all(&self) -> Iter<'_> {
        self.iter(0..self.len(), false)
    }

    /// The member at a rank, which is below the length, and its score.
    pub fn get(&self, rank: usize) -> (Element<'_>, f64) {
        match self {
            Self::Run(run) => {
                let at = run.seek(rank);
                (run.at(at), score_of(run.second(at)))
            }
            Self::Tree(tree) => {
                let (member, score) = tree.get(rank);
                (Element::Bytes(member), score)
            }
        }
    }

    /// Removes the members of a range of ranks, which lies within the length.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) {
        match self {
            Self::Run(run) => run.remove(run.seek(ranks.start), ranks.len()),
            Self::Tree(tree) => tree.remove_ranks(ranks),
        }
    }

    /// Shows some members from `cursor` (0: the beginning) on, and returns where to go on; 0 at the
    /// end. A member that stays throughout a whole walk is shown. A run is shown at once.
    pub fn scan(&self, cursor: u64, mut show: impl FnMut(&[u8], f64)) -> u64 {
        match self {
            Self::Run(run) => {
                let mut digits = itoa::Buffer::new();
                pairs(run).for_each(|(m, score)| show(m.text(&mut digits), score));
                0
            }
            Self::Tree(tree) => tree.scan(cursor, show),
        }
    }
}

/// Inserts a member that is not there at its place.
fn insert_into(run: &mut Run, score: f64, member: &[u8]) {
    let wanted = Element::from(member);
    let (mut at, mut elements) = (run.end(), run.iter());
    loop {
        let here = elements.offset();
        let (Some(member), Some(other)) = (elements.next(), elements.next()) else {
            break;
        };
        let other = score_of(other);
        if other > score || (other == score && member.compare(wanted).is_gt()) {
            at = here;
            break;
        }
    }
    let mut text = Vec::new();
    run.insert(at, [wanted, element_of(score, &mut text)]);
}

/// Members with their scores, see [`ZSet::iter`].
#[allow(clippy::large_enum_variant)]
pub enum Iter<'a> {
    /// Of a run: what follows, and how many of these.
    Run(run::Iter<'a>, usize),
    /// Of a run, from its end: where those lie that are still to come, the next one last.
    Back(&'a Run, Vec<usize>),
    /// Of a tree.
    Tree(btree::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<(Element<'a>, f64)> {
        match self {
            Self::Tree(iter) => {
                let (member, score) = iter.next()?;
                Some((Element::Bytes(member), score))
            }
            Self::Run(elements, left) => {
                *left = left.checked_sub(1)?;
                let member = elements.next()?;
                Some((member, score_of(elements.next()?)))
            }
            Self::Back(run, places) => {
                let at = places.pop()?;
                Some((run.at(at), score_of(run.second(at))))
            }
        }
    }
}

impl Collection for ZSet {
    const KIND: Type = Type::ZSet;

    fn encoding(&self) -> Encoding {
        match self {
            Self::Run(_) => Encoding::Listpack,
            Self::Tree(_) => Encoding::Skiplist,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Run(run) => run.memory(),
            Self::Tree(tree) => tree.memory(),
        }
    }

    fn share(&mut self) -> Self {
        match self {
            Self::Run(run) => Self::Run(run.clone()),
            Self::Tree(tree) => Self::Tree(Box::new(tree.share())),
        }
    }

    fn effort(&self) -> usize {
        match self {
            Self::Run(_) => 1,
            Self::Tree(tree) => tree.effort(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Run(run) => run.len(),
            Self::Tree(tree) => tree.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random;
    use std::collections::BTreeMap;

    const SMALL: Limits = Limits {
        entries: 12,
        value: 6,
    };

    fn text(set: &ZSet, ranks: Range<usize>, descending: bool) -> Vec<(Vec<u8>, f64)> {
        let all = set.iter(ranks, descending);
        all.map(|(member, score)| (member.to_vec(), score))
            .collect()
    }

    fn agrees(set: &ZSet, model: &BTreeMap<Vec<u8>, f64>) {
        let mut all: Vec<_> = model.iter().map(|(m, s)| (m.clone(), *s)).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let len = all.len();
        assert_eq!(set.len(), len);
        assert_eq!(text(set, 0..len, false), all);
        let (from, to) = (len / 4, len - len / 4);
        let mut part = all[from..to].to_vec();
        part.reverse();
        assert_eq!(text(set, from..to, true), part);
        for (rank, (member, score)) in all.iter().enumerate() {
            assert_eq!(set.rank(member), Some((rank, *score)));
            assert_eq!(set.score(member), Some(*score));
            assert_eq!(
                (set.get(rank).0.to_vec(), set.get(rank).1),
                (member.clone(), *score)
            );
        }
        for (min, max, above_min, below_max) in [
            (0.0, 5.0, false, false),
            (0.0, 5.0, true, true),
            (-9.0, 0.5, false, true),
            (3.0, 3.0, false, false),
            (3.0, 3.0, true, false),
            (f64::NEG_INFINITY, f64::INFINITY, false, false),
            (5.0, 0.0, false, false),
        ] {
            let range = ScoreRange {
                min,
                max,
                above_min,
                below_max,
            };
            let inside = |s: f64| {
                (s > min || (s == min && !above_min)) && (s < max || (s == max && !below_max))
            };
            let expected = all.iter().filter(|(_, s)| inside(*s)).count();
            let ranks = set.ranks_by_score(&range);
            assert_eq!(ranks.len(), expected);
            assert!(ranks.is_empty() || inside(all[ranks.start].1));
        }
        let mut seen = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, |m, s| _ = seen.insert(m.to_vec(), s));
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(&seen, model);
    }

    #[test]
    fn both_encodings_are_a_sorted_map() {
        random::seed(11);
        for round in 0..60 {
            let mut set = ZSet::new(SMALL, 1);
            let mut model = BTreeMap::new();
            let members = if round % 2 == 0 { 10 } else { 300 };
            for _ in 0..members * 3 {
                let n = random::below(members);
                let member = match n % 3 {
                    0 => format!("{n}").into_bytes(),
                    1 => format!("m{n}").into_bytes(),
                    _ => format!("-{n}").into_bytes(),
                };
                let score = [0.5, 1.0, 3.0, -2.0, 1e300, f64::INFINITY][random::below(6)];
                if random::below(4) > 0 {
                    let new = model.insert(member.clone(), score).is_none();
                    assert_eq!(set.insert(score, &member, SMALL), new);
                } else {
                    assert_eq!(set.remove(&member), model.remove(&member));
                }
            }
            agrees(&set, &model);
            let expected = if members == 10 {
                "listpack"
            } else {
                "skiplist"
            };
            assert_eq!(set.encoding().name(), expected);
            let members: Vec<_> = model
                .iter()
                .map(|(m, s)| (*s, Element::from(&m[..])))
                .collect();
            let again = ZSet::of(&members, SMALL);
            agrees(&again, &model);
            let len = set.len();
            let (from, to) = (len / 3, len - len / 5);
            for (member, _) in text(&set, from..to, false) {
                model.remove(&member);
            }
            set.remove_ranks(from..to);
            agrees(&set, &model);
        }
    }

    #[test]
    fn lexical_ranges() {
        use LexBound::{Highest, Lowest, With, Without};
        let limits = [
            SMALL,
            Limits {
                entries: 0,
                ..SMALL
            },
        ];
        for limits in limits {
            let mut set = ZSet::new(limits, 1);
            for member in ["10", "2", "a", "b", "c", "dd"] {
                set.insert(0.0, member.as_bytes(), limits);
            }
            let check = |min, max, expected| {
                assert_eq!(set.ranks_by_lex(&LexRange { min, max }), expected);
            };
            check(Lowest, Highest, 0..6);
            check(With(b"2"), With(b"b"), 1..4);
            check(Without(b"2"), Without(b"b"), 2..3);
            check(Without(b"d"), Highest, 5..6);
            check(Lowest, Without(b"10"), 0..0);
            check(With(b"b"), With(b"a"), 0..0);
            check(Highest, Lowest, 0..0);
            check(Highest, Highest, 0..0);
            check(With(b"a"), Without(b"a"), 0..0);
            check(With(b"a"), With(b"a"), 2..3);
        }
    }

    #[test]
    fn thresholds_decide_the_encoding() {
        let mut set = ZSet::new(SMALL, 3);
        set.insert(1.0, b"sixsix", SMALL);
        assert_eq!(set.encoding(), Encoding::Listpack);
        set.insert(1.0, b"sevenxx", SMALL);
        assert_eq!(set.encoding(), Encoding::Skiplist);
        assert_eq!(ZSet::new(SMALL, 7).encoding(), Encoding::Skiplist);
    }
}
