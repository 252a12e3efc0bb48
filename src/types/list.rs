//! Lists: a single listpack while one node of a quicklist would hold everything, a quicklist beyond.
//!
//! Which of both it is does not show: OBJECT ENCODING says quicklist of either, and a file holds a
//! quicklist of one node. A list changes to a quicklist with the first element that does not fit,
//! and back only when it has become much smaller, so that it does not go to and fro.

use std::ops::ControlFlow;

use super::collection::Collection;
pub use super::list_layout::{End, Limits};
use super::listpack::{Element, Listpack};
use super::quicklist::{self, NodeBytes, Quicklist, Shape};
use super::{Encoding, Type};

/// A quicklist of one node in at most so many bytes becomes a single listpack again.
const SMALL_AGAIN: usize = 1024;

/// A list value. It may be empty only within a command.
#[derive(Clone, Debug)]
pub enum List {
    /// All elements in one listpack.
    Pack(Listpack),
    /// Several nodes, or one that was several.
    Quick(Box<Quicklist>),
}

impl Collection for List {
    const KIND: Type = Type::List;

    fn encoding(&self) -> Encoding {
        Encoding::Quicklist
    }

    fn memory(&self) -> usize {
        match self {
            Self::Pack(pack) => pack.memory(),
            Self::Quick(quick) => size_of::<Quicklist>() + quick.memory(),
        }
    }

    fn effort(&self) -> usize {
        match self {
            Self::Pack(_) => 1,
            Self::Quick(quick) => quick.node_count() + 2,
        }
    }

    fn share(&mut self) -> Self {
        match self {
            Self::Pack(pack) => Self::Pack(pack.clone()),
            Self::Quick(quick) => Self::Quick(Box::new(quick.share())),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Pack(pack) => pack.len(),
            Self::Quick(quick) => quick.len(),
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        Self::Pack(Listpack::new())
    }

    /// A list of nodes (of a file), compressed as the limits say.
    pub fn of_nodes(mut nodes: Quicklist, limits: &Limits) -> Self {
        nodes.compress_all(limits);
        let mut list = Self::Quick(Box::new(nodes));
        list.shrink();
        list
    }

    /// What DEBUG OBJECT tells of the nodes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Pack(pack) => Shape {
                nodes: 1,
                len: pack.len(),
                compressed: 0,
                bytes: pack.byte_len(),
            },
            Self::Quick(quick) => quick.shape(),
        }
    }

    /// Shows the nodes as they are saved, in order.
    pub fn each_node(&self, mut visit: impl FnMut(NodeBytes<'_>)) {
        match self {
            Self::Pack(pack) => visit(NodeBytes::Packed(pack.as_bytes().into())),
            Self::Quick(quick) => quick.nodes().for_each(visit),
        }
    }

    /// Shows the same, until `visit` breaks; nodes that nobody else has are freed once shown.
    pub fn consume(self, mut visit: impl FnMut(NodeBytes<'_>) -> ControlFlow<()>) {
        match self {
            Self::Pack(pack) => _ = visit(NodeBytes::Packed(pack.as_bytes().into())),
            Self::Quick(quick) => quick.consume(visit),
        }
    }

    /// The element at an end.
    #[inline]
    pub fn peek(&self, end: End) -> Option<Element<'_>> {
        match self {
            Self::Pack(pack) => {
                let pack = pack.pack();
                let at = match end {
                    End::Head => pack.first(),
                    End::Tail => pack.last(),
                };
                at.map(|at| pack.at(at))
            }
            Self::Quick(quick) => quick.peek(end),
        }
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, end: End, value: &[u8], limits: &Limits) {
        if let Self::Pack(pack) = self
            && limits.allow(pack.byte_len(), pack.len(), value)
        {
            return match end {
                End::Head => pack.push_front(value),
                End::Tail => pack.push_back(value),
            };
        }
        self.quick().push(end, value, limits);
    }

    /// Removes the element at an end, if there is one.
    #[inline]
    pub fn drop_end(&mut self, end: End, limits: &Limits) {
        match self {
            Self::Pack(pack) => {
                let at = match end {
                    End::Head => pack.pack().first(),
                    End::Tail => pack.pack().last(),
                };
                if let Some(at) = at {
                    pack.delete(at, 1);
                }
            }
            Self::Quick(quick) if !quick.is_empty() => {
                quick.drop_end(end, limits);
                if quick.node_count() == 1 {
                    self.shrink();
                }
            }
            Self::Quick(_) => {}
        }
    }

    /// Shows the elements from index `from` on, towards the tail or (`backwards`) the head, until
    /// `visit` breaks; what it broke with.
    pub fn walk<B>(
        &self,
        from: usize,
        backwards: bool,
        mut visit: impl FnMut(Element<'_>) -> ControlFlow<B>,
    ) -> Option<B> {
        let flow = match self {
            Self::Pack(pack) => {
                quicklist::walk_pack(pack.pack(), Some(from), backwards, &mut visit)
            }
            Self::Quick(quick) => quick.walk(from, backwards, &mut visit),
        };
        flow.break_value()
    }

    /// Shows `count` elements from index `from` on, fewer if there are fewer.
    pub fn range(&self, from: usize, count: usize, mut visit: impl FnMut(Element<'_>)) {
        if count == 0 {
            return;
        }
        let mut left = count;
        self.walk(from, false, |element| {
            visit(element);
            left -= 1;
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
    }

    /// The element's place from the head, for an index that may count from the tail (-1).
    pub fn index(&self, index: i64) -> Option<usize> {
        let len = self.len() as i64;
        let index = if index < 0 { index + len } else { index };
        (0..len).contains(&index).then_some(index as usize)
    }

    /// Replaces the element at `index`, which exists.
    pub fn set(&mut self, index: usize, value: &[u8], limits: &Limits) {
        if let Self::Pack(pack) = self
            && !limits.is_plain(value)
        {
            let at = pack.pack().seek(index as i64);
            return pack.replace(at.expect("the caller checked the index"), value);
        }
        self.quick().set(index, value, limits);
        self.shrink();
    }

    /// Inserts `value` before or `after` the first element that equals `pivot`; false if none does.
    pub fn insert(
        &mut self,
        pivot: Element<'_>,
        after: bool,
        value: &[u8],
        limits: &Limits,
    ) -> bool {
        let mut index = 0;
        let found = self.walk(0, false, |element| {
            if element.same(pivot) {
                return ControlFlow::Break(());
            }
            index += 1;
            ControlFlow::Continue(())
        });
        if found.is_none() {
            return false;
        }
        match self {
            Self::Pack(pack) if limits.allow(pack.byte_len(), pack.len(), value) => {
                let at = pack.pack().seek((index + usize::from(after)) as i64);
                pack.insert(at.unwrap_or(pack.pack().end()), value);
            }
            _ => self.quick().insert(index, after, value, limits),
        }
        true
    }

    /// Deletes `count` elements from index `from` on, fewer if there are fewer.
    pub fn delete(&mut self, from: usize, count: usize, limits: &Limits) {
        let count = count.min(self.len().saturating_sub(from));
        if count == 0 {
            return;
        }
        match self {
            Self::Pack(pack) => {
                pack.delete_range(from as i64, count);
            }
            Self::Quick(quick) => {
                quick.delete(from, count, limits);
                self.shrink();
            }
        }
    }

    /// Deletes up to `limit` elements that equal `wanted`, from the head or (`backwards`) the tail
    /// on; how many.
    pub fn remove(
        &mut self,
        wanted: Element<'_>,
        limit: usize,
        backwards: bool,
        limits: &Limits,
    ) -> usize {
        let removed = match self {
            Self::Pack(pack) => quicklist::remove_from(pack, wanted, limit, backwards),
            Self::Quick(quick) => quick.remove(wanted, limit, backwards, limits),
        };
        self.shrink();
        removed
    }

    fn quick(&mut self) -> &mut Quicklist {
        if let Self::Pack(pack) = self {
            *self = Self::Quick(Box::new(Quicklist::of(std::mem::take(pack))));
        }
        match self {
            Self::Quick(quick) => quick,
            Self::Pack(_) => unreachable!("it was just replaced"),
        }
    }

    /// Back to a single listpack, if that is small.
    fn shrink(&mut self) {
        if let Self::Quick(quick) = self
            && let Some(pack) = quick.take_small(SMALL_AGAIN)
        {
            *self = Self::Pack(pack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::listpack::Pack;
    use proptest::prelude::*;

    fn limits(fill: i32, depth: usize, plain_from: usize) -> Limits {
        Limits {
            fill,
            depth,
            plain_from,
        }
    }

    fn texts(list: &List) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        list.range(0, usize::MAX, |element| texts.push(element.to_vec()));
        texts
    }

    #[test]
    fn a_list_is_two_words() {
        assert_eq!((size_of::<List>(), size_of::<Option<List>>()), (16, 16));
    }

    #[test]
    fn nodes_fill_as_redis_fills_them() {
        let shape = |fill, value: &[u8], n| {
            let (limits, mut list) = (limits(fill, 0, 1 << 30), List::new());
            (0..n).for_each(|_| list.push(End::Tail, value, &limits));
            (list.shape().nodes, list.len())
        };
        assert_eq!(shape(-2, b"x", 2000), (1, 2000));
        assert_eq!(shape(-2, &[b'x'; 4000], 6), (3, 6));
        assert_eq!(shape(-1, &[b'x'; 4000], 6), (6, 6));
        assert_eq!(shape(3, b"x", 10), (4, 10));
        assert_eq!(shape(3, &[b'x'; 5000], 4), (4, 4));
        assert_eq!(shape(0, b"x", 4), (4, 4));
    }

    #[test]
    fn inner_nodes_are_compressed() {
        let (limits, mut list) = (limits(4, 1, 1 << 30), List::new());
        for _ in 0..40 {
            list.push(End::Tail, &[b'x'; 50], &limits);
        }
        assert_eq!((list.shape().nodes, list.shape().compressed), (10, 8));
        for _ in 0..8 {
            list.drop_end(End::Head, &limits);
        }
        assert_eq!((list.shape().nodes, list.shape().compressed), (8, 6));
    }

    #[test]
    fn big_elements_stand_alone() {
        let (limits, mut list) = (limits(-2, 0, 5), List::new());
        for value in ["a", "b", "c"] {
            list.push(End::Tail, value.as_bytes(), &limits);
        }
        list.set(1, b"hello", &limits);
        assert_eq!((list.shape().nodes, list.len()), (3, 3));
        list.set(1, b"b", &limits);
        assert_eq!((list.shape().nodes, list.len()), (2, 3));
        assert_eq!(texts(&list), [b"a", b"b", b"c"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(bool, usize, Vec<u8>),
        Drop(bool, usize),
        Set(usize, Vec<u8>),
        Insert(usize, bool, Vec<u8>),
        Delete(usize, usize),
        Remove(usize, usize, bool),
        Limits(i32, usize),
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0i64..30).prop_map(|n| n.to_string().into_bytes()),
            (0u8..6, 1usize..40).prop_map(|(b, n)| vec![b'a' + b; n]),
            (0u8..3, 100usize..200).prop_map(|(b, n)| vec![b'a' + b; n]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let depth = prop_oneof![Just(0usize), Just(1), Just(2)];
        let fill = prop_oneof![Just(2), Just(3), Just(7), Just(0), Just(-1), Just(-2)];
        prop_oneof![
            5 => (any::<bool>(), 1usize..8, value()).prop_map(|(e, n, v)| Step::Push(e, n, v)),
            1 => (any::<bool>(), 1usize..6).prop_map(|(e, n)| Step::Drop(e, n)),
            2 => (any::<usize>(), value()).prop_map(|(i, v)| Step::Set(i, v)),
            4 => (any::<usize>(), any::<bool>(), value()).prop_map(|(i, a, v)| Step::Insert(i, a, v)),
            1 => (any::<usize>(), 0usize..12).prop_map(|(i, n)| Step::Delete(i, n)),
            1 => (any::<usize>(), 0usize..4, any::<bool>()).prop_map(|(i, n, b)| Step::Remove(i, n, b)),
            1 => (fill, depth).prop_map(|(f, d)| Step::Limits(f, d)),
        ]
    }

    fn apply(list: &mut List, model: &mut Vec<Vec<u8>>, limits: &mut Limits, step: Step) {
        let end = |head| if head { End::Head } else { End::Tail };
        match step {
            Step::Limits(fill, depth) => (limits.fill, limits.depth) = (fill, depth),
            Step::Push(head, n, value) => {
                for _ in 0..n {
                    list.push(end(head), &value, limits);
                    model.insert(if head { 0 } else { model.len() }, value.clone());
                }
            }
            Step::Drop(head, n) => {
                for _ in 0..n.min(model.len()) {
                    let gone = model.remove(if head { 0 } else { model.len() - 1 });
                    assert_eq!(list.peek(end(head)).map(Element::to_vec), Some(gone));
                    list.drop_end(end(head), limits);
                }
            }
            _ if model.is_empty() => {}
            Step::Set(index, value) => {
                let index = index % model.len();
                list.set(index, &value, limits);
                model[index] = value;
            }
            Step::Insert(index, after, value) => {
                let pivot = model[index % model.len()].clone();
                let at = model.iter().position(|v| *v == pivot).expect("chosen");
                assert!(list.insert(Element::from(&pivot[..]), after, &value, limits));
                model.insert(at + usize::from(after), value);
            }
            Step::Delete(index, count) => {
                let index = index % model.len();
                let count = count.min(model.len() - index);
                list.delete(index, count, limits);
                model.drain(index..index + count);
            }
            Step::Remove(index, limit, backwards) => {
                let wanted = model[index % model.len()].clone();
                let limit = if limit == 0 { usize::MAX } else { limit };
                let mut left = limit;
                let mut keep = |v: &Vec<u8>| {
                    let gone = left > 0 && *v == wanted;
                    left -= usize::from(gone);
                    !gone
                };
                let before = model.len();
                if backwards {
                    model.reverse();
                    model.retain(&mut keep);
                    model.reverse();
                } else {
                    model.retain(&mut keep);
                }
                let removed = list.remove(Element::from(&wanted[..]), limit, backwards, limits);
                assert_eq!(removed, before - model.len());
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector(
            steps in prop::collection::vec(step(), 1..60), plain_from in prop_oneof![Just(30usize), Just(1 << 30)]
        ) {
            let mut limits = limits(3, 1, plain_from);
            let (mut list, mut model) = (List::new(), Vec::new());
            for step in steps {
                apply(&mut list, &mut model, &mut limits, step);
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.is_empty(), model.is_empty());
                prop_assert_eq!(&texts(&list), &model);
                let mut backwards = Vec::new();
                if let Some(last) = list.index(-1) {
                    list.walk::<()>(last, true, |element| {
                        backwards.push(element.to_vec());
                        ControlFlow::Continue(())
                    });
                }
                backwards.reverse();
                prop_assert_eq!(&backwards, &model);
                let mut nodes = 0;
                list.each_node(|node| {
                    nodes += 1;
                    if let NodeBytes::Packed(bytes) = node {
                        assert!(Pack::validate(&bytes).is_some_and(|p| model.is_empty() || !p.is_empty()));
                    }
                });
                prop_assert!(nodes == list.shape().nodes && list.shape().len == model.len());
                prop_assert!(list.memory() > 0 && list.effort() >= nodes);
            }
        }
    }
}
