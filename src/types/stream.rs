//! Streams: a log of entries in blocks, and the groups that read it.
//!
//! Blocks ([`super::stream_block`]) lie in the order of their IDs; new entries go to the last one,
//! old ones mostly leave with the first, so a ring of blocks does for what Redis has a radix tree
//! for. `length` counts entries that are not deleted. `first_id` is that of the first of them, or
//! `0-0`; `last_id` that of the last one ever added, deleted or not.

use std::ops::ControlFlow;

use super::collection::Collection;
use super::listpack::MAX_BYTES;
use super::row::Row;
use super::stream_block::{Block, Entry};
use super::stream_group::{Group, Groups};
use super::stream_id::{StreamId, WrittenId};
use super::{Encoding, Type};

/// How streams are laid out, as parameters say it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `stream-node-max-bytes`: bytes of a block; 0 is no limit.
    pub bytes: usize,
    /// `stream-node-max-entries`: entries of a block, deleted ones included; 0 is no limit.
    pub entries: i64,
}

/// Why an entry cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// Its ID is not higher than that of the last one.
    NotHigher,
    /// It is too big.
    TooBig,
}

/// What trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many entries.
    Newest(u64),
    /// Entries from this ID on.
    From(StreamId),
}

/// How a stream is trimmed.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// What stays.
    pub keep: Keep,
    /// Only whole blocks go.
    pub whole_blocks: bool,
    /// Most entries to go; 0 is no limit.
    pub limit: u64,
}

/// The entries of a stream.
#[derive(Clone, Debug, Default)]
pub struct Log {
    blocks: Row<Block>,
    length: u64,
    /// The ID of the last entry ever added.
    pub last_id: StreamId,
    first_id: StreamId,
    /// The highest ID of those that were deleted one by one.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// A stream value.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Its entries.
    pub log: Log,
    /// Its consumer groups.
    pub groups: Groups,
}

impl Collection for Box<Stream> {
    const KIND: Type = Type::Stream;

    fn encoding(&self) -> Encoding {
        Encoding::Stream
    }

    fn memory(&self) -> usize {
        let names: usize = self.groups.keys().map(|name| name.len()).sum();
        let groups: usize = self.groups.values().map(Group::memory).sum();
        let group = size_of::<(Box<[u8]>, Group)>();
        size_of::<Stream>() + self.log.memory() + self.groups.len() * group + names + groups
    }

    fn effort(&self) -> usize {
        let pending = |group: &Group| group.pending().len() + group.consumers().len();
        let groups: usize = self.groups.values().map(pending).sum();
        self.log.blocks.len() + groups + 2
    }

    fn share(&mut self) -> Self {
        let groups = self.groups.iter_mut();
        Box::new(Stream {
            log: self.log.share(),
            groups: groups
                .map(|(name, group)| (name.clone(), group.share()))
                .collect(),
        })
    }

    fn len(&self) -> usize {
        self.log.length as usize
    }
}

impl Log {
    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first entry's ID; `0-0` without entries.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The same log as it is now: blocks are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        Self {
            blocks: self.blocks.share(),
            ..*self
        }
    }

    /// The blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter()
    }

    /// Shows the blocks in order, until `visit` breaks, and leaves none; those that nobody else has
    /// are freed once they were shown. All else stays as it is.
    pub fn consume_blocks(&mut self, visit: impl FnMut(&Block) -> ControlFlow<()>) {
        let _ = std::mem::take(&mut self.blocks).consume(visit);
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Appends a block (of a file), whose IDs are higher than all.
    pub fn push_block(&mut self, block: Block) {
        self.length += block.live();
        self.blocks.push_back(block);
        self.find_first();
    }

    fn memory(&self) -> usize {
        const SAMPLES: usize = 64;
        let own = self.blocks.memory();
        let step = (self.blocks.len() / SAMPLES).max(1);
        let sampled = (0..self.blocks.len()).step_by(step);
        let count = sampled.len();
        let bytes: usize = sampled.map(|at| self.blocks[at].memory()).sum();
        own + bytes * self.blocks.len() / count.max(1)
    }

    /// The ID that an entry gets: the one that was written, with its sequence if that was left
    /// open, or one made of the time. `None` when there is no higher one in that millisecond.
    pub fn choose_id(&self, written: Option<WrittenId>, now_ms: i64) -> Option<StreamId> {
        let last = self.last_id;
        match written {
            Some(written) if written.seq_given || written.id.ms != last.ms => Some(written.id),
            Some(_) => Some(StreamId {
                seq: last.seq.checked_add(1)?,
                ..last
            }),
            None if now_ms.max(0) as u64 > last.ms => Some(StreamId::new(now_ms as u64, 0)),
            None => last.next(),
        }
    }

    /// Adds an entry of `pairs`: fields and values in turn.
    pub fn append(
        &mut self,
        id: StreamId,
        pairs: &[&[u8]],
        limits: &Limits,
    ) -> Result<(), AddError> {
        if id <= self.last_id {
            return Err(AddError::NotHigher);
        }
        let bytes: usize = pairs.iter().map(|part| part.len()).sum();
        if bytes > MAX_BYTES {
            return Err(AddError::TooBig);
        }
        let most = match limits.bytes {
            0 => MAX_BYTES,
            most => most.min(MAX_BYTES),
        };
        let room = |block: &&mut Block| {
            let few = limits.entries == 0 || block.entries() < limits.entries;
            block.byte_len() + bytes < most && few
        };
        match self.blocks.back_mut().filter(room) {
            Some(block) => block.append(id, pairs),
            None => {
                // Behind all others, unless XSETID went back below a block of deleted entries.
                let at = self.blocks.partition_point(|block| block.master <= id);
                self.blocks.insert(at, Block::new(id, pairs));
            }
        }
        self.length += 1;
        self.entries_added = self.entries_added.wrapping_add(1);
        self.last_id = id;
        if self.length == 1 {
            self.first_id = id;
        }
        Ok(())
    }

    /// The block that would hold `id`: the last one that does not begin after it. (The first one
    /// may hold lower IDs than its own, where XSETID went back.)
    fn block_of(&self, id: StreamId) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.master <= id);
        (!self.blocks.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Shows the entries from `start` to `end`, both included, until `visit` breaks. Backwards it
    /// begins at `end`.
    pub fn walk(
        &self,
        (start, end): (StreamId, StreamId),
        backwards: bool,
        mut visit: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) {
        if backwards {
            let Some(last) = self.block_of(end) else {
                return;
            };
            let blocks = self.blocks.back_from(last);
            let entries = blocks.flat_map(|block| block.iter(true));
            let _ = entries
                .skip_while(|entry| entry.id > end)
                .take_while(|entry| entry.id >= start)
                .try_for_each(&mut visit);
        } else {
            let first = self.block_of(start).unwrap_or(0);
            let entries = self.blocks.from(first).flat_map(|block| block.iter(false));
            let _ = entries
                .skip_while(|entry| entry.id < start)
                .take_while(|entry| entry.id <= end)
                .try_for_each(&mut visit);
        }
    }

    /// Shows one entry; false without such.
    pub fn with_entry(&self, id: StreamId, visit: impl FnOnce(Entry<'_>)) -> bool {
        let Some(at) = self.block_of(id) else {
            return false;
        };
        let mut entries = self.blocks[at]
            .iter(false)
            .skip_while(|entry| entry.id < id);
        match entries.next().filter(|entry| entry.id == id) {
            Some(entry) => {
                visit(entry);
                true
            }
            None => false,
        }
    }

    /// True when there is this entry.
    pub fn contains(&self, id: StreamId) -> bool {
        self.with_entry(id, |_| ())
    }

    /// The ID of the last entry there is.
    pub fn last_present(&self) -> Option<StreamId> {
        let mut entries = self.blocks.iter().rev().flat_map(|block| block.iter(true));
        entries.next().map(|entry| entry.id)
    }

    /// The ID of the first entry, even if it is deleted; without any the highest ID.
    pub fn first_stored(&self) -> StreamId {
        let first = self.blocks.iter().find_map(|block| block.edge(false));
        first.unwrap_or(StreamId::MAX)
    }

    fn find_first(&mut self) {
        let mut entries = self.blocks.iter().flat_map(|block| block.iter(false));
        let first = entries.next().map(|entry| entry.id);
        self.first_id = first.unwrap_or_default();
    }

    /// Deletes an entry; false without such.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some(at) = self.block_of(id).filter(|_| self.contains(id)) else {
            return false;
        };
        if self.blocks[at].live() == 1 {
            self.blocks.remove(at);
        } else {
            self.blocks[at].delete(id);
        }
        self.length -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id {
            self.find_first();
        }
        true
    }

    /// Removes old entries; how many.
    pub fn trim(&mut self, trim: &Trim) -> u64 {
        let mut deleted = 0;
        while let Some(block) = self.blocks.front() {
            let (live, length) = (block.live(), self.length);
            if matches!(trim.keep, Keep::Newest(n) if length <= n) {
                break;
            }
            if trim.limit > 0 && deleted + live > trim.limit {
                break;
            }
            let whole = match trim.keep {
                Keep::Newest(n) => length - live >= n,
                Keep::From(id) => block.edge(true).is_none_or(|last| last < id),
            };
            if whole {
                self.blocks.pop_front();
                self.length -= live;
                deleted += live;
                continue;
            }
            if !trim.whole_blocks
                && let Some(block) = self.blocks.front_mut()
            {
                let here = block.delete_oldest(|id, marked| match trim.keep {
                    Keep::Newest(n) => length - marked <= n,
                    Keep::From(first) => id >= first,
                });
                self.length -= here;
                deleted += here;
            }
            break;
        }
        if deleted > 0 || self.length == 0 {
            self.find_first();
        }
        deleted
    }

    /// True when an entry from `start` on was deleted out of the middle, as far as is known.
    pub fn has_gaps_from(&self, start: StreamId) -> bool {
        let deleted = self.max_deleted_id;
        self.length > 0 && !deleted.is_zero() && self.first_id <= deleted && start <= deleted
    }

    /// How many of all entries ever added there are up to `id`, if that can be told.
    pub fn count_up_to(&self, id: StreamId) -> Option<u64> {
        let added = self.entries_added;
        if added == 0 {
            return Some(0);
        }
        if id == self.last_id || (self.length == 0 && id < self.last_id) {
            return Some(added);
        }
        if id > self.last_id {
            return None;
        }
        let whole = self.max_deleted_id.is_zero() || self.max_deleted_id < self.first_id;
        match id.cmp(&self.first_id) {
            _ if !whole => None,
            std::cmp::Ordering::Less => Some(added.wrapping_sub(self.length)),
            std::cmp::Ordering::Equal => Some(added.wrapping_sub(self.length).wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// How many entries a group has still to read, if that can be told.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let left = |read: u64| self.entries_added.wrapping_sub(read) as i64;
        if self.entries_added == 0 {
            return Some(0);
        }
        match group.entries_read {
            Some(read) if !self.has_gaps_from(group.last_id) => Some(left(read)),
            _ => self.count_up_to(group.last_id).map(left),
        }
    }

    /// Moves a group on to an entry that it reads.
    pub fn advance(&self, group: &mut Group, id: StreamId) {
        group.entries_read = match group.entries_read {
            Some(read) if !self.has_gaps_from(id) => Some(read.wrapping_add(1)),
            _ if self.entries_added > 0 => self.count_up_to(id),
            read => read,
        };
        group.last_id = id;
    }

    /// Nodes that a radix tree of the blocks' IDs would have, which XINFO tells.
    pub fn radix_nodes(&self) -> usize {
        let keys: Vec<_> = self.blocks.iter().map(|b| b.master.to_be_bytes()).collect();
        match keys.is_empty() {
            true => 1,
            false => radix_nodes(&keys, 0),
        }
    }
}

/// Nodes of a radix tree of these sorted keys from byte `depth` on: a run of bytes without a branch
/// is one node, each branch and each end another.
fn radix_nodes(keys: &[[u8; 16]], depth: usize) -> usize {
    let (first, last) = (&keys[0], &keys[keys.len() - 1]);
    let mut at = depth;
    while at < 16 && first[at] == last[at] {
        at += 1;
    }
    let run = usize::from(at > depth);
    if at == 16 {
        return run + 1;
    }
    let children = keys.chunk_by(|a, b| a[at] == b[at]);
    let below: usize = children.map(|keys| radix_nodes(keys, at + 1)).sum();
    run + 1 + below
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        bytes: 200,
        entries: 5,
    };

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    fn ids(log: &Log, range: (StreamId, StreamId), backwards: bool) -> Vec<StreamId> {
        let mut ids = Vec::new();
        log.walk(range, backwards, |entry| {
            ids.push(entry.id);
            ControlFlow::Continue(())
        });
        ids
    }

    #[test]
    fn ids_are_chosen() {
        let mut log = Log::default();
        log.append(id(5, 9), &[b"a", b"1"], &LIMITS)
            .expect("higher");
        let open = |ms| {
            Some(WrittenId {
                id: id(ms, 0),
                seq_given: false,
            })
        };
        assert_eq!(log.choose_id(None, 3), Some(id(5, 10)));
        assert_eq!(log.choose_id(None, 8), Some(id(8, 0)));
        assert_eq!(log.choose_id(open(5), 8), Some(id(5, 10)));
        assert_eq!(log.choose_id(open(6), 8), Some(id(6, 0)));
        assert_eq!(
            log.append(id(5, 9), &[b"a", b"1"], &LIMITS),
            Err(AddError::NotHigher)
        );
        log.last_id = id(5, u64::MAX);
        assert_eq!(log.choose_id(open(5), 8), None);
        assert_eq!(log.choose_id(None, 3), Some(id(6, 0)));
    }

    #[test]
    fn nodes_of_a_radix_tree() {
        let check = |ids: &[(u64, u64)], nodes| {
            let keys: Vec<_> = ids
                .iter()
                .map(|(ms, seq)| id(*ms, *seq).to_be_bytes())
                .collect();
            assert_eq!(radix_nodes(&keys, 0), nodes);
        };
        check(&[(1, 1)], 2);
        check(&[(1, 1), (1, 2)], 4);
        check(&[(1, 1), (2, 1)], 6);
        check(&[(1, 1), (1, 2), (1, 3)], 5);
        check(&[(0, 1), (1 << 63, 1)], 5);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64, u64, usize),
        Delete(usize),
        Newest(u64, bool, u64),
        From(usize, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..3, 1u64..3, 0usize..3).prop_map(|(ms, seq, kind)| Step::Add(ms, seq, kind)),
            2 => any::<usize>().prop_map(Step::Delete),
            1 => (0u64..30, any::<bool>(), 0u64..9).prop_map(|(n, w, l)| Step::Newest(n, w, l)),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(i, w)| Step::From(i, w)),
        ]
    }

    const KINDS: [&[&[u8]]; 3] = [
        &[b"a", b"1"],
        &[b"a", b"xxxxxxxxxxxxxxxxxxxx"],
        &[b"b", b"1", b"c", b"some text"],
    ];

    type Model = Vec<(StreamId, usize)>;

    fn apply(log: &mut Log, model: &mut Model, step: Step) {
        match step {
            Step::Add(ms, seq, kind) => {
                let last = log.last_id;
                let seq = if ms == 0 { last.seq + seq } else { seq };
                let id = id(last.ms + ms, seq);
                log.append(id, KINDS[kind], &LIMITS).expect("higher");
                model.push((id, kind));
            }
            Step::Delete(index) => {
                let Some((id, _)) = model.get(index % model.len().max(1)).copied() else {
                    return;
                };
                assert!(log.delete(id) && !log.delete(id));
                model.retain(|(other, _)| *other != id);
            }
            Step::Newest(n, whole_blocks, limit) => {
                let keep = Keep::Newest(n);
                let deleted = log.trim(&Trim {
                    keep,
                    whole_blocks,
                    limit,
                }) as usize;
                let over = model.len().saturating_sub(n as usize);
                assert!(deleted <= over);
                if !whole_blocks && limit == 0 {
                    assert_eq!(deleted, over);
                }
                model.drain(..deleted);
            }
            Step::From(index, whole_blocks) => {
                let Some((first, _)) = model.get(index % model.len().max(1)).copied() else {
                    return;
                };
                let keep = Keep::From(first);
                let deleted = log.trim(&Trim {
                    keep,
                    whole_blocks,
                    limit: 0,
                }) as usize;
                let below = model.iter().filter(|(id, _)| *id < first).count();
                assert!(deleted == below || (whole_blocks && deleted < below));
                model.drain(..deleted);
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec(step(), 1..80), from in any::<usize>(), to in any::<usize>()) {
            let (mut log, mut model) = (Log::default(), Model::new());
            for step in steps {
                apply(&mut log, &mut model, step);
                let all: Vec<_> = model.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!(&ids(&log, (StreamId::MIN, StreamId::MAX), false), &all);
                prop_assert_eq!(log.len(), all.len() as u64);
                prop_assert_eq!(log.first_id(), all.first().copied().unwrap_or_default());
                prop_assert_eq!(log.last_present(), all.last().copied());
                for (id, kind) in &model {
                    let found = log.with_entry(*id, |entry| {
                        let parts = entry.iter().flat_map(|(name, value)| [name.to_vec(), value.to_vec()]);
                        assert!(parts.eq(KINDS[*kind].iter().map(|part| part.to_vec())));
                    });
                    prop_assert!(found);
                }
                for block in log.blocks() {
                    let pack = crate::types::listpack::Pack::validate(block.as_bytes());
                    prop_assert!(pack.is_some_and(Block::validate));
                }
            }
            if !model.is_empty() {
                let pick = |at: usize| model[at % model.len()].0;
                let range = (pick(from), pick(to).next().expect("not the last"));
                let mut part: Vec<_> = model.iter().map(|(id, _)| *id).collect();
                part.retain(|id| (range.0..=range.1).contains(id));
                prop_assert_eq!(&ids(&log, range, false), &part);
                part.reverse();
                prop_assert_eq!(&ids(&log, range, true), &part);
            }
        }
    }
}
