//! Quicklists: long lists as a row of nodes, most of them listpacks of a few kilobytes.
//!
//! How elements are spread over nodes is what Redis does, rule by rule, because it shows: in DEBUG
//! OBJECT, in the bytes of RDB files, in memory. Three kinds of node:
//!
//! - *packed*: a listpack of several elements, limited by [`Limits::fill`];
//! - *compressed*: a packed node in LZF, at least `Limits::depth` nodes away from both ends;
//! - *plain*: one element so big ([`Limits::plain_from`]) that it stands alone.
//!
//! Invariants: no node is empty; the first and the last one are never compressed; `len` is the sum
//! of the nodes' counts. Reading leaves compressed nodes as they are and unpacks into a buffer of
//! the reader's; who changes one unpacks it and calls `Quicklist::settle` in the end.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::list_layout::{End, Limits};
use super::listpack::{Element, Listpack, Pack};
use super::row::Row;
use crate::base::lzf;
use crate::base::thin::{PREFIX, ThinBytes};

/// Size limits in bytes for a fill of -1 to -5.
const FILL_BYTES: [usize; 5] = [4096, 8192, 16_384, 32_768, 65_536];
/// A node whose fill is a number of elements has at most this many bytes.
const SAFE_BYTES: usize = 8192;
/// What an element is taken to add to its length, at most.
const ELEMENT_OVERHEAD: usize = 8;
/// Bytes of a node below which compressing is not tried.
const COMPRESS_FROM: usize = 48;
/// Bytes that compression has to save.
const COMPRESS_GAIN: usize = 8;

/// A part of a quicklist.
#[derive(Clone, Debug)]
enum Node {
    Packed {
        count: u32,
        pack: Listpack,
    },
    /// The listpack's length in bytes (four of them, little endian) and the listpack in LZF.
    Compressed {
        count: u32,
        lzf: ThinBytes,
    },
    /// The element's bytes, behind their prefix. They may be many, and lists that share a chunk of
    /// nodes share them also when it is copied.
    Plain(Arc<ThinBytes>),
}

impl Node {
    fn new(value: &[u8], limits: &Limits) -> Self {
        if limits.is_plain(value) {
            return Self::plain(value);
        }
        let mut pack = Listpack::new();
        pack.push_back(value);
        Self::packed(pack)
    }

    fn packed(pack: Listpack) -> Self {
        let count = pack.len() as u32;
        Self::Packed { count, pack }
    }

    fn plain(value: &[u8]) -> Self {
        let mut bytes = ThinBytes::from_slice(&[0; PREFIX]);
        bytes.splice(PREFIX..PREFIX, value);
        Self::Plain(Arc::new(bytes))
    }

    fn count(&self) -> usize {
        match self {
            Self::Packed { count, .. } | Self::Compressed { count, .. } => *count as usize,
            Self::Plain(_) => 1,
        }
    }

    /// Number of bytes when not compressed.
    fn byte_len(&self) -> usize {
        match self {
            Self::Packed { pack, .. } => pack.byte_len(),
            Self::Compressed { lzf, .. } => lzf_parts(lzf).0,
            Self::Plain(bytes) => bytes.len() - PREFIX,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Packed { pack, .. } => pack.memory(),
            Self::Compressed { lzf, .. } => lzf.memory(),
            // Two counters and the address stand before the bytes.
            Self::Plain(bytes) => bytes.memory() + 3 * size_of::<usize>(),
        }
    }

    /// What can be read of the node without changing it.
    fn content(&self) -> Content<'_> {
        match self {
            Self::Packed { pack, .. } => Content::Packed(Cow::Borrowed(pack)),
            Self::Compressed { lzf, .. } => Content::Packed(Cow::Owned(unpacked(lzf))),
            Self::Plain(bytes) => Content::Plain(&bytes.as_slice()[PREFIX..]),
        }
    }

    /// How many elements equal `wanted`.
    fn matches(&self, wanted: Element<'_>) -> usize {
        match self.content() {
            Content::Plain(bytes) => usize::from(Element::Bytes(bytes).same(wanted)),
            Content::Packed(pack) => pack.iter().filter(|element| element.same(wanted)).count(),
        }
    }

    fn decompress(&mut self) {
        if let Self::Compressed { count, lzf } = self {
            let pack = unpacked(lzf);
            *self = Self::Packed {
                count: *count,
                pack,
            };
        }
    }

    fn compress(&mut self) {
        let Self::Packed { count, pack } = self else {
            return;
        };
        if pack.byte_len() < COMPRESS_FROM {
            return;
        }
        let room = pack.byte_len() - COMPRESS_GAIN - 1;
        if let Some(short) = lzf::compress(pack.as_bytes(), room) {
            let len = (pack.byte_len() as u32).to_le_bytes();
            let mut lzf = ThinBytes::from_slice(&[&[0; PREFIX][..], &len].concat());
            lzf.splice(lzf.len()..lzf.len(), &short);
            let count = *count;
            *self = Self::Compressed { count, lzf };
        }
    }

    /// The node's listpack and its count, to be changed. None for a plain node.
    fn pack_mut(&mut self) -> Option<(&mut Listpack, &mut u32)> {
        self.decompress();
        match self {
            Self::Packed { count, pack } => Some((pack, count)),
            _ => None,
        }
    }

    fn takes(&self, value: &[u8], limits: &Limits) -> bool {
        !matches!(self, Self::Plain(_)) && limits.allow(self.byte_len(), self.count(), value)
    }

    fn merges_with(&self, other: &Self, limits: &Limits) -> bool {
        if matches!(self, Self::Plain(_)) || matches!(other, Self::Plain(_)) {
            return false;
        }
        let bytes = self.byte_len() + other.byte_len() - 11;
        let count = self.count() + other.count();
        match limits.fill_bytes() {
            Some(limit) => bytes <= limit,
            None => bytes <= SAFE_BYTES && count as i64 <= i64::from(limits.fill),
        }
    }
}

fn lzf_parts(lzf: &ThinBytes) -> (usize, &[u8]) {
    let content = &lzf.as_slice()[PREFIX..];
    let (len, packed) = content.split_at(4);
    let len = u32::from_le_bytes(len.try_into().expect("four bytes"));
    (len as usize, packed)
}

fn unpacked(lzf: &ThinBytes) -> Listpack {
    let (len, packed) = lzf_parts(lzf);
    let bytes = lzf::decompress(packed, len).expect("it was compressed here");
    Listpack::copy_of(&bytes)
}

/// A node as it is read.
enum Content<'a> {
    Packed(Cow<'a, Listpack>),
    Plain(&'a [u8]),
}

impl Limits {
    fn fill_bytes(&self) -> Option<usize> {
        let level = usize::try_from(-i64::from(self.fill))
            .ok()?
            .checked_sub(1)?;
        Some(FILL_BYTES[level.min(FILL_BYTES.len() - 1)])
    }

    /// True for an element that gets a node of its own.
    pub(super) fn is_plain(&self, value: &[u8]) -> bool {
        value.len() >= self.plain_from
    }

    /// True when a packed node of so many bytes and elements takes one more.
    pub(super) fn allow(&self, bytes: usize, count: usize, value: &[u8]) -> bool {
        if self.is_plain(value) {
            return false;
        }
        let bytes = bytes + value.len() + ELEMENT_OVERHEAD;
        match self.fill_bytes() {
            Some(limit) => bytes <= limit,
            None => bytes <= SAFE_BYTES && (count as i64) < i64::from(self.fill),
        }
    }
}

/// What DEBUG OBJECT tells of a list's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Nodes.
    pub nodes: usize,
    /// Elements.
    pub len: usize,
    /// Nodes that are compressed.
    pub compressed: usize,
    /// Bytes of all nodes when not compressed.
    pub bytes: usize,
}

/// A node as it is saved: the bytes of a listpack, or of one plain element.
pub enum NodeBytes<'a> {
    /// A listpack.
    Packed(Cow<'a, [u8]>),
    /// One element.
    Plain(&'a [u8]),
}

fn saved(node: &Node) -> NodeBytes<'_> {
    match node.content() {
        Content::Packed(Cow::Borrowed(pack)) => NodeBytes::Packed(Cow::Borrowed(pack.as_bytes())),
        Content::Packed(Cow::Owned(pack)) => NodeBytes::Packed(pack.as_bytes().to_vec().into()),
        Content::Plain(bytes) => NodeBytes::Plain(bytes),
    }
}

/// The nodes of a long list.
#[derive(Clone, Debug, Default)]
pub struct Quicklist {
    nodes: Row<Node>,
    len: usize,
}

impl Quicklist {
    /// The same quicklist as it is now: nodes are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        Self {
            nodes: self.nodes.share(),
            len: self.len,
        }
    }

    /// A quicklist of this one node.
    pub fn of(pack: Listpack) -> Self {
        let mut new = Self::default();
        if !pack.is_empty() {
            new.append_packed(pack);
        }
        new
    }

    /// Appends a node (of a file). The listpack must not be empty.
    pub fn append_packed(&mut self, pack: Listpack) {
        self.len += pack.len();
        self.nodes.push_back(Node::packed(pack));
    }

    /// Appends a plain node (of a file).
    pub fn append_plain(&mut self, value: &[u8]) {
        self.len += 1;
        self.nodes.push_back(Node::plain(value));
    }

    /// Compresses all nodes that are far enough from both ends, after nodes were appended.
    pub fn compress_all(&mut self, limits: &Limits) {
        let inner = limits.depth..self.nodes.len().saturating_sub(limits.depth);
        if limits.depth > 0 {
            self.nodes.each_mut(inner, Node::compress);
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of the allocations behind this struct, estimated from some nodes when there are many.
    pub fn memory(&self) -> usize {
        const SAMPLES: usize = 64;
        let own = self.nodes.memory();
        let step = (self.nodes.len() / SAMPLES).max(1);
        let sampled = (0..self.nodes.len()).step_by(step);
        let count = sampled.len();
        let bytes: usize = sampled.map(|at| self.nodes[at].memory()).sum();
        own + bytes * self.nodes.len() / count.max(1)
    }

    /// What DEBUG OBJECT tells.
    pub fn shape(&self) -> Shape {
        let compressed = |node: &&Node| matches!(node, Node::Compressed { .. });
        Shape {
            nodes: self.nodes.len(),
            len: self.len,
            compressed: self.nodes.iter().filter(compressed).count(),
            bytes: self.nodes.iter().map(Node::byte_len).sum(),
        }
    }

    /// The nodes, as they are saved.
    pub fn nodes(&self) -> impl Iterator<Item = NodeBytes<'_>> {
        self.nodes.iter().map(saved)
    }

    /// Shows the same, until `visit` breaks; nodes that nobody else has are freed once shown.
    pub fn consume(self, mut visit: impl FnMut(NodeBytes<'_>) -> ControlFlow<()>) {
        let _ = self.nodes.consume(|node| visit(saved(node)));
    }

    /// The only node's listpack, when there is one node and it is packed in at most `bytes` bytes.
    pub fn take_small(&mut self, bytes: usize) -> Option<Listpack> {
        if self.nodes.len() != 1 || self.nodes[0].byte_len() > bytes {
            return None;
        }
        let (pack, _) = self.nodes[0].pack_mut()?;
        Some(std::mem::take(pack))
    }

    /// The element at an end.
    pub fn peek(&self, end: End) -> Option<Element<'_>> {
        let node = match end {
            End::Head => self.nodes.front()?,
            End::Tail => self.nodes.back()?,
        };
        match node {
            Node::Packed { pack, .. } => {
                let pack = pack.pack();
                let at = match end {
                    End::Head => pack.first(),
                    End::Tail => pack.last(),
                };
                at.map(|at| pack.at(at))
            }
            Node::Plain(bytes) => Some(Element::Bytes(&bytes.as_slice()[PREFIX..])),
            Node::Compressed { .. } => unreachable!("the nodes at the ends are never compressed"),
        }
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, value: &[u8], limits: &Limits) {
        let node = match end {
            End::Head => self.nodes.front_mut(),
            End::Tail => self.nodes.back_mut(),
        };
        self.len += 1;
        if let Some(Node::Packed { count, pack }) = node
            && limits.allow(pack.byte_len(), *count as usize, value)
        {
            *count += 1;
            match end {
                End::Head => pack.push_front(value),
                End::Tail => pack.push_back(value),
            }
            return;
        }
        let at = match end {
            End::Head => 0,
            End::Tail => self.nodes.len(),
        };
        self.insert_node(at, Node::new(value, limits), limits);
    }

    /// Removes the element at an end, which exists.
    pub fn drop_end(&mut self, end: End, limits: &Limits) {
        let (node, index) = match end {
            End::Head => (0, 0),
            End::Tail => (self.nodes.len() - 1, -1),
        };
        self.delete_in(node, index, 1, limits);
    }

    /// Deletes `count` elements, which exist, from index `index` of node `at` on. True when the
    /// node is gone with them.
    fn delete_in(&mut self, at: usize, index: i64, count: usize, limits: &Limits) -> bool {
        if count == self.nodes[at].count() {
            self.nodes.remove(at);
            self.len -= count;
            self.settle(at..at, limits);
            return true;
        }
        let (pack, left) = self.nodes[at].pack_mut().expect("plain nodes go whole");
        pack.delete_range(index, count);
        *left -= count as u32;
        self.len -= count;
        false
    }

    fn insert_node(&mut self, at: usize, node: Node, limits: &Limits) {
        self.nodes.insert(at, node);
        self.settle(at.saturating_sub(1)..at + 2, limits);
    }

    /// Puts compression right after nodes came, went or were unpacked: those near the ends are
    /// unpacked, the `touched` ones and the first ones beyond are compressed.
    #[inline]
    fn settle(&mut self, touched: Range<usize>, limits: &Limits) {
        if let Some(first) = self.nodes.front_mut() {
            first.decompress();
        }
        if let Some(last) = self.nodes.back_mut() {
            last.decompress();
        }
        if limits.depth > 0 && self.nodes.len() >= 2 * limits.depth {
            self.settle_inner(touched, limits.depth);
        }
    }

    fn settle_inner(&mut self, touched: Range<usize>, depth: usize) {
        let inner = depth..self.nodes.len() - depth;
        for at in (0..depth).chain(inner.end..self.nodes.len()) {
            self.nodes[at].decompress();
        }
        let edges = [inner.start, inner.end.wrapping_sub(1)];
        for at in edges.into_iter().filter(|at| inner.contains(at)) {
            self.nodes[at].compress();
        }
        let touched = touched.start.max(inner.start)..touched.end.min(inner.end);
        self.nodes.each_mut(touched, Node::compress);
    }

    /// The node that holds element `index`, and the element's index in it. Walks from the nearer
    /// end over the nodes' counts.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index < self.len / 2 {
            let mut before = 0;
            for (at, node) in self.nodes.iter().enumerate() {
                if index < before + node.count() {
                    return Some((at, index - before));
                }
                before += node.count();
            }
        } else {
            let (mut before, mut at) = (self.len, self.nodes.len());
            for node in self.nodes.iter().rev() {
                before -= node.count();
                at -= 1;
                if index >= before {
                    return Some((at, index - before));
                }
            }
        }
        unreachable!("`len` is the sum of the nodes' counts")
    }

    /// Shows the elements from index `from` on, towards the tail or (`backwards`) the head, until
    /// `visit` breaks.
    pub fn walk<B>(
        &self,
        from: usize,
        backwards: bool,
        visit: &mut impl FnMut(Element<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some((at, index)) = self.locate(from) else {
            return ControlFlow::Continue(());
        };
        let mut start = Some(index);
        if backwards {
            for node in self.nodes.back_from(at) {
                walk_node(node, start.take(), true, visit)?;
            }
        } else {
            for node in self.nodes.from(at) {
                walk_node(node, start.take(), false, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Replaces element `index`, which exists.
    pub fn set(&mut self, index: usize, value: &[u8], limits: &Limits) {
        let (at, within) = self.locate(index).expect("the caller checked the index");
        let plain_value = limits.is_plain(value);
        match self.nodes[at].pack_mut() {
            Some((pack, _)) if !plain_value => {
                let offset = pack.pack().seek(within as i64).expect("counted");
                pack.replace(offset, value);
                self.settle(at..at + 1, limits);
            }
            None if plain_value => self.nodes[at] = Node::plain(value),
            // From plain to packed or the other way round: a new place next to the old one.
            _ => {
                self.insert_at((at, within), true, value, limits);
                let (at, within) = self.locate(index).expect("one more than before");
                self.delete_in(at, within as i64, 1, limits);
                self.settle(at..at + 2, limits);
            }
        }
    }

    /// Inserts an element before or `after` the element at `index`, which exists.
    pub fn insert(&mut self, index: usize, after: bool, value: &[u8], limits: &Limits) {
        let place = self.locate(index).expect("the caller found the element");
        self.insert_at(place, after, value, limits);
    }

    fn insert_at(
        &mut self,
        (at, within): (usize, usize),
        after: bool,
        value: &[u8],
        limits: &Limits,
    ) {
        self.len += 1;
        let node = &self.nodes[at];
        if node.takes(value, limits) {
            return self.insert_packed(at, within + usize::from(after), value, limits);
        }
        let at_edge = if after {
            within + 1 == node.count()
        } else {
            within == 0
        };
        if at_edge {
            let neighbour = if after {
                Some(at + 1)
            } else {
                at.checked_sub(1)
            };
            let open = neighbour.filter(|&at| {
                let node = self.nodes.get(at);
                node.is_some_and(|node| node.takes(value, limits))
            });
            match open {
                Some(at) if after => self.insert_packed(at, 0, value, limits),
                Some(at) => self.insert_packed(at, self.nodes[at].count(), value, limits),
                None => {
                    let at = at + usize::from(after);
                    self.insert_node(at, Node::new(value, limits), limits);
                }
            }
            return;
        }
        self.split(at, within + usize::from(after));
        if limits.is_plain(value) {
            return self.insert_node(at + 1, Node::plain(value), limits);
        }
        // The part that the new element joins is the one on its own side.
        if after {
            self.insert_packed(at + 1, 0, value, limits);
            self.merge_around(at, limits);
        } else {
            self.insert_packed(at, self.nodes[at].count(), value, limits);
            self.merge_around(at + 1, limits);
        }
    }

    /// Inserts into the packed node `at` before its element `within`, or at its end.
    fn insert_packed(&mut self, at: usize, within: usize, value: &[u8], limits: &Limits) {
        let (pack, count) = self.nodes[at].pack_mut().expect("plain nodes take nothing");
        let offset = match within == *count as usize {
            true => pack.pack().end(),
            false => pack.pack().seek(within as i64).expect("counted"),
        };
        pack.insert(offset, value);
        *count += 1;
        self.settle(at..at + 1, limits);
    }

    /// Divides the packed node `at` before its element `within`.
    fn split(&mut self, at: usize, within: usize) {
        let (pack, count) = self.nodes[at]
            .pack_mut()
            .expect("plain nodes have edges only");
        let offset = pack.pack().seek(within as i64).expect("not at the edge");
        let tail = pack.split_off(offset);
        *count = within as u32;
        self.nodes.insert(at + 1, Node::packed(tail));
    }

    /// Joins the nodes around `center` as far as the limits let them, in Redis' order.
    fn merge_around(&mut self, mut center: usize, limits: &Limits) {
        if center >= 2 && self.merge(center - 2, limits) {
            center -= 1;
        }
        self.merge(center + 1, limits);
        if center >= 1 && self.merge(center - 1, limits) {
            center -= 1;
        }
        self.merge(center, limits);
        self.settle(center.saturating_sub(2)..center + 3, limits);
    }

    /// Joins node `at` and the next one if the limits let them.
    fn merge(&mut self, at: usize, limits: &Limits) -> bool {
        let Some(next) = self.nodes.get(at + 1) else {
            return false;
        };
        if !self.nodes[at].merges_with(next, limits) {
            return false;
        }
        let mut next = self.nodes.remove(at + 1).expect("just seen");
        let (tail, added) = next.pack_mut().expect("plain nodes do not merge");
        let (pack, count) = self.nodes[at].pack_mut().expect("as above");
        pack.append(tail.pack());
        *count += *added;
        true
    }

    /// Deletes `count` elements, which exist, from index `from` on.
    pub fn delete(&mut self, from: usize, mut count: usize, limits: &Limits) {
        let Some((mut at, within)) = self.locate(from) else {
            return;
        };
        if within > 0 {
            let here = count.min(self.nodes[at].count() - within);
            self.delete_in(at, within as i64, here, limits);
            count -= here;
            at += 1;
        }
        let (mut end, mut whole) = (at, 0);
        for node in self.nodes.from(at) {
            if whole + node.count() > count {
                break;
            }
            whole += node.count();
            end += 1;
        }
        self.nodes.remove_range(at..end);
        self.len -= whole;
        if count > whole {
            self.delete_in(at, 0, count - whole, limits);
        }
        self.settle(at.saturating_sub(1)..at + 1, limits);
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
        let mut removed = 0;
        for (at, matches) in self.matching(wanted, limit, backwards) {
            self.remove_in(at, wanted, matches, backwards);
            removed += matches;
        }
        self.len -= removed;
        self.nodes.retain(|node| node.count() > 0);
        if removed > 0 {
            self.settle(0..self.nodes.len(), limits);
        }
        removed
    }

    /// The nodes that hold the first `limit` elements that equal `wanted`, and how many of these.
    fn matching(&self, wanted: Element<'_>, limit: usize, backwards: bool) -> Vec<(usize, usize)> {
        let (mut found, mut left) = (Vec::new(), limit);
        let mut places = 0..self.nodes.len();
        let mut nodes = self.nodes.iter();
        while left > 0 {
            let next = match backwards {
                true => places.next_back().zip(nodes.next_back()),
                false => places.next().zip(nodes.next()),
            };
            let Some((at, node)) = next else { break };
            let matches = node.matches(wanted).min(left);
            if matches > 0 {
                found.push((at, matches));
                left -= matches;
            }
        }
        found
    }

    /// Deletes `matches` of the elements of node `at` that equal `wanted`, of which there are so
    /// many. May leave the node empty.
    fn remove_in(&mut self, at: usize, wanted: Element<'_>, matches: usize, backwards: bool) {
        let node = &mut self.nodes[at];
        if matches == node.count() {
            let (pack, count) = (Listpack::new(), 0);
            *node = Node::Packed { count, pack };
        } else {
            let (pack, left) = node.pack_mut().expect("plain nodes have one element");
            remove_from(pack, wanted, matches, backwards);
            *left -= matches as u32;
        }
    }
}

/// Deletes up to `limit` elements that equal `wanted`; how many.
pub(super) fn remove_from(
    pack: &mut Listpack,
    wanted: Element<'_>,
    limit: usize,
    backwards: bool,
) -> usize {
    let mut removed = 0;
    if backwards {
        let mut at = pack.pack().last();
        while let Some(offset) = at.filter(|_| removed < limit) {
            at = pack.pack().prev(offset);
            if pack.pack().at(offset).same(wanted) {
                removed += pack.delete(offset, 1);
            }
        }
    } else {
        let mut at = pack.pack().first();
        while let Some(offset) = at.filter(|_| removed < limit) {
            at = pack.pack().find(offset, wanted, 0);
            if let Some(found) = at {
                removed += pack.delete(found, 1);
            }
        }
    }
    removed
}

fn walk_node<B>(
    node: &Node,
    start: Option<usize>,
    backwards: bool,
    visit: &mut impl FnMut(Element<'_>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    match node.content() {
        Content::Plain(bytes) => visit(Element::Bytes(bytes)),
        Content::Packed(pack) => walk_pack(pack.pack(), start, backwards, visit),
    }
}

/// Shows a listpack's elements from the one with index `start` (none: from the end where the walk
/// begins) on.
pub(super) fn walk_pack<B>(
    pack: Pack<'_>,
    start: Option<usize>,
    backwards: bool,
    visit: &mut impl FnMut(Element<'_>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let from = match start {
        Some(index) => pack.seek(index as i64),
        None if backwards => pack.last(),
        None => pack.first(),
    };
    let Some(from) = from else {
        return ControlFlow::Continue(());
    };
    if backwards {
        let first = pack.first().expect("an element was found");
        pack.range(first, pack.skip(from)).rev().try_for_each(visit)
    } else {
        pack.range(from, pack.end()).try_for_each(visit)
    }
}
