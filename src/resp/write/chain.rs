//! What is not written yet: text in a chain of chunks, with big values spliced in.
//!
//! Text goes to the connection's own buffer; what comes when that is full goes to chunks, one after
//! the other, each given back as soon as it is written. A shared value is not copied: a splice says
//! at which place of the text it belongs.
//!
//! ```text
//!     own buffer     chunk            chunk (tail)
//!     +---------+    +-----------+    +-------.....+
//!     | written |    |           |    |       room |
//!     +---------+    +-----------+    +-------.....+
//!          ^ head          ^ splice: 70000 shared bytes
//! ```
//!
//! Invariants:
//! - The own buffer, while it is in use, is the oldest chunk: it takes text only when nothing waits.
//! - Places in the text are counted from the start of the connection (`base` bytes of it are gone),
//!   so a [`Mark`] or [`Deferred`] stays valid when written bytes are dropped.
//! - Past its limit the chain holds nothing and drops what comes: the client is to be closed.
//!
//! Limits, and what CLIENT LIST shows, count as Redis does: what does not fit the own buffer waits in
//! blocks of a fixed size, whole ones. Those bytes are counted here, wherever they lie in truth.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock;
use crate::base::meter::Meter;

/// Bytes of a chunk, and of a block as Redis counts them.
const CHUNK: usize = 20 * 1024 - 16;

/// Bytes of text behind which chunks are bigger: fewer to be allocated and written, at little loss.
const MUCH: usize = 8 * CHUNK;

/// Bytes of a bigger chunk.
const BIG_CHUNK: usize = 4 * CHUNK;

/// Free chunks that a thread keeps at most.
const MOST_SPARE: usize = 100;

/// What Redis counts for each block, beside its bytes.
const BLOCK_OVERHEAD: usize = 40;

/// Bytes of the first chunk where there is no own buffer: one reply that goes elsewhere.
const FIRST_CHUNK: usize = 256;

/// Bytes of an aggregate's header before its length is known.
const PLACEHOLDER: &[u8] = b"*0\r\n";

/// A place in the output to which it can be cut back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    text: u64,
    splices: u64,
}

/// An aggregate whose length is known only when its elements are written.
#[derive(Debug)]
#[must_use = "an aggregate that is never ended corrupts the reply"]
pub struct Deferred {
    text: u64,
}

/// How much may wait for a client before it is closed, in bytes as Redis counts them; 0: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Never so much.
    pub hard: usize,
    /// Not so much for longer than `soft_ms`.
    pub soft: usize,
    /// Milliseconds.
    pub soft_ms: i64,
}

/// What waits beyond the own buffer, as Redis counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// Number of blocks.
    pub blocks: usize,
    /// Bytes they take.
    pub memory: usize,
}

/// A big value that is not copied.
#[derive(Debug)]
pub(super) enum Value {
    Shared(Arc<Vec<u8>>),
    Bytes(Bytes),
}

impl Value {
    fn as_slice(&self) -> &[u8] {
        match self {
            Value::Shared(data) => data,
            Value::Bytes(data) => data,
        }
    }
}

/// A value that belongs before the text's byte at `at`.
#[derive(Debug)]
struct Splice {
    at: u64,
    value: Value,
}

/// Bytes that wait, as if the own buffer were filled to the last byte before a block is begun.
#[derive(Debug, Default)]
struct Count {
    /// Bytes that wait in the own buffer.
    buffered: usize,
    /// Bytes of the own buffer that are in use, written ones included until it is written out.
    used: usize,
    /// The greatest `used` since it was last reset.
    peak: usize,
    /// Bytes that wait beyond it.
    beyond: usize,
}

/// See the module.
#[derive(Default)]
pub struct Chain {
    /// Where text is appended: the last chunk.
    tail: Vec<u8>,
    /// The chunks before it, oldest first.
    full: VecDeque<Vec<u8>>,
    /// Bytes of text in `full`.
    full_len: usize,
    /// Place of the first byte of the oldest chunk.
    base: u64,
    /// Bytes of the oldest chunk that are written.
    head: usize,
    /// The own buffer while it is not in use.
    own: Option<Vec<u8>>,
    /// Size of the own buffer.
    own_size: usize,
    splices: VecDeque<Splice>,
    /// Splices that are written and gone.
    splice_base: u64,
    /// Bytes of the first splice that are written.
    splice_head: usize,
    /// Bytes in all splices, the written ones of the first included.
    spliced: usize,
    /// Bytes of memory beside the own buffer: of chunks, and of spliced values.
    held: usize,
    meter: Option<Arc<Meter>>,
    count: Count,
    limit: Limit,
    /// Since when the soft limit is exceeded, in Unix milliseconds.
    soft_since: Option<i64>,
    /// What waited when that was too much.
    overflow: Option<Beyond>,
    muted: Option<Mark>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}

impl Chain {
    /// Appends text.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.room() {
            self.tail.extend_from_slice(bytes);
        } else {
            self.spill(bytes);
        }
    }

    /// Appends the first `len` bytes of `line`: a copy of a fixed size is a few instructions, one of
    /// any size is a call.
    #[inline]
    pub fn put_line<const N: usize>(&mut self, line: &[u8; N], len: usize) {
        if N <= self.room() {
            let end = self.tail.len() + len;
            self.tail.extend_from_slice(line);
            self.tail.truncate(end);
        } else {
            self.put(&line[..len]);
        }
    }

    #[inline]
    fn room(&self) -> usize {
        self.tail.capacity() - self.tail.len()
    }

    /// Appends text that the present chunk has no room for.
    #[cold]
    #[inline(never)]
    fn spill(&mut self, bytes: &[u8]) {
        if self.drops() {
            return;
        }
        let (first, rest) = bytes.split_at(self.room());
        self.tail.extend_from_slice(first);
        self.next_chunk(rest.len());
        self.tail.extend_from_slice(rest);
        self.heed_limit();
    }

    /// True when what comes is dropped; what was dropped before makes room.
    fn drops(&mut self) -> bool {
        if let Some(mark) = self.muted {
            self.truncate_to(mark);
            return true;
        }
        if self.meter.as_ref().is_some_and(|meter| meter.is_leaving()) {
            self.overflow = Some(self.beyond());
        }
        if self.overflow.is_some() {
            self.clear();
        }
        self.overflow.is_some()
    }

    /// Begins a chunk with room for `len` bytes at least.
    fn next_chunk(&mut self, len: usize) {
        if self.tail.capacity() == 0 {
            // There is no own buffer: this becomes one.
            self.tail.reserve_exact(len.max(FIRST_CHUNK));
            self.own_size = self.tail.capacity();
            return;
        }
        let chunk = take_chunk(len.max(match self.full_len {
            ..MUCH => CHUNK,
            _ => BIG_CHUNK,
        }));
        self.hold(chunk.capacity());
        let full = std::mem::replace(&mut self.tail, chunk);
        self.full_len += full.len();
        self.full.push_back(full);
    }

    fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        if let Some(meter) = &self.meter {
            meter.grow(bytes);
        }
    }

    fn give_back(&mut self, bytes: usize) {
        self.held -= bytes;
        if let Some(meter) = &self.meter {
            meter.shrink(bytes);
        }
    }

    /// Appends a value without copying it.
    pub(super) fn splice(&mut self, value: Value) {
        if self.drops() {
            return;
        }
        let len = value.as_slice().len();
        self.hold(len);
        self.spliced += len;
        let at = self.end();
        self.splices.push_back(Splice { at, value });
        self.heed_limit();
    }

    /// The place past the last byte of text.
    #[inline]
    fn end(&self) -> u64 {
        self.base + (self.full_len + self.tail.len()) as u64
    }

    // The way out.

    /// Bytes that are not written yet.
    #[inline]
    pub fn len_pending(&self) -> usize {
        self.full_len + self.tail.len() - self.head + self.spliced - self.splice_head
    }

    /// The pending bytes in order, as slices.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces {
            chain: self,
            chunk: 0,
            offset: self.head,
            at: self.base + self.head as u64,
            splice: 0,
        }
    }

    /// Tells that the first `written` pending bytes were written.
    ///
    /// # Panics
    /// When that is more than [`Chain::len_pending`].
    pub fn advance(&mut self, written: usize) {
        assert!(written <= self.len_pending(), "more written than pending");
        self.recount();
        self.count.written(written);
        let mut left = written;
        while let Some(first) = self.splices.front() {
            let before = (first.at - self.base) as usize - self.head;
            let len = first.value.as_slice().len();
            if left < before {
                break;
            }
            left -= before;
            self.skip(before);
            if left < len - self.splice_head {
                self.splice_head += left;
                return;
            }
            left -= len - self.splice_head;
            self.drop_first_splice();
        }
        self.skip(left);
        self.reset_if_empty();
    }

    fn drop_first_splice(&mut self) {
        let Some(first) = self.splices.pop_front() else {
            return;
        };
        let len = first.value.as_slice().len();
        self.splice_head = 0;
        self.splice_base += 1;
        self.spliced -= len;
        self.give_back(len);
    }

    /// Drops written text.
    fn skip(&mut self, bytes: usize) {
        self.head += bytes;
        while let Some(first) = self.full.front()
            && self.head >= first.len()
        {
            let len = first.len();
            self.base += len as u64;
            self.head -= len;
            self.full_len -= len;
            if let Some(chunk) = self.full.pop_front() {
                self.put_aside(chunk);
            }
        }
    }

    /// Gives a written chunk back, or keeps it, if it is the own buffer.
    fn put_aside(&mut self, mut chunk: Vec<u8>) {
        if self.own.is_some() {
            self.give_back(chunk.capacity());
            keep_chunk(chunk);
        } else if chunk.capacity() > self.own_size {
            // The header of an aggregate had to be squeezed in.
            self.give_back(chunk.capacity() - self.own_size);
            self.own = Some(Vec::with_capacity(self.own_size));
        } else {
            chunk.clear();
            self.own = Some(chunk);
        }
    }

    /// Has the own buffer in its place when nothing waits.
    #[inline]
    fn reset_if_empty(&mut self) {
        if self.full.is_empty() && self.head == self.tail.len() && self.splices.is_empty() {
            self.base += self.head as u64;
            self.head = 0;
            self.tail.clear();
            if self.own.is_some() || self.tail.capacity() > self.own_size {
                let tail = std::mem::take(&mut self.tail);
                self.put_aside(tail);
                self.tail = self.own.take().unwrap_or_default();
            }
        }
    }

    /// Drops everything that is pending.
    pub fn clear(&mut self) {
        let all = self.full_len + self.tail.len() - self.head;
        while !self.splices.is_empty() {
            self.drop_first_splice();
        }
        self.skip(all);
        self.reset_if_empty();
        self.count.written(usize::MAX);
    }

    // Going back.

    /// The present end of the output, for [`Chain::truncate_to`].
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            text: self.end(),
            splices: self.splice_base + self.splices.len() as u64,
        }
    }

    /// Drops what was appended since `mark`, as far as it is not written yet.
    pub fn truncate_to(&mut self, mark: Mark) {
        let keep = mark.splices.saturating_sub(self.splice_base) as usize;
        while self.splices.len() > keep {
            // A value of which the socket has a part must be finished.
            if self.splices.len() == 1 && self.splice_head > 0 {
                break;
            }
            let splice = self.splices.pop_back().expect("longer than `keep`");
            let len = splice.value.as_slice().len();
            self.spliced -= len;
            self.give_back(len);
        }
        let keep = mark.text.max(self.base + self.head as u64) - self.base;
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        while self.full_len >= keep
            && let Some(before) = self.full.pop_back()
        {
            self.full_len -= before.len();
            let tail = std::mem::replace(&mut self.tail, before);
            self.give_back(tail.capacity());
            keep_chunk(tail);
        }
        self.tail.truncate(keep.saturating_sub(self.full_len));
        self.reset_if_empty();
    }

    /// Drops what comes, until [`Chain::unmute`].
    pub fn mute(&mut self) {
        self.muted = Some(self.mark());
    }

    /// Ends [`Chain::mute`]: what came since then is gone.
    pub fn unmute(&mut self) {
        if let Some(mark) = self.muted.take() {
            self.truncate_to(mark);
        }
    }

    /// Leaves a place for the header of an aggregate.
    pub fn deferred(&mut self) -> Deferred {
        // In one piece; a longer header moves the elements apart.
        if self.room() < PLACEHOLDER.len() && !self.drops() {
            self.next_chunk(PLACEHOLDER.len());
        }
        let text = self.end();
        self.put(PLACEHOLDER);
        Deferred { text }
    }

    /// Writes the header of an aggregate: a type byte and a length.
    pub fn end_deferred(&mut self, deferred: &Deferred, kind: u8, len: u64) {
        if self.has_overflowed() || self.muted.is_some() {
            return;
        }
        let Some((index, at)) = self.find(deferred.text) else {
            debug_assert!(false, "an open aggregate was written to the socket");
            return;
        };
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(len).as_bytes();
        let grow = digits.len() - 1;
        let is_tail = index == self.full.len();
        let chunk = match self.full.get_mut(index) {
            Some(chunk) => chunk,
            None => &mut self.tail,
        };
        let before = chunk.capacity();
        if grow > 0 {
            let (body, end) = (at + PLACEHOLDER.len(), chunk.len());
            chunk.reserve_exact(grow);
            chunk.resize(end + grow, 0);
            chunk.copy_within(body..end, body + grow);
        }
        chunk[at] = kind;
        chunk[at + 1..at + 1 + digits.len()].copy_from_slice(digits);
        chunk[at + 1 + digits.len()..at + 3 + digits.len()].copy_from_slice(b"\r\n");
        let grown = chunk.capacity() - before;
        if grown > 0 {
            self.hold(grown);
        }
        if !is_tail {
            self.full_len += grow;
        }
        for splice in self.splices.iter_mut().rev() {
            if splice.at <= deferred.text {
                break;
            }
            splice.at += grow as u64;
        }
    }

    /// The chunk (their number is the tail's index) and the byte in it of a place that has text.
    fn find(&self, place: u64) -> Option<(usize, usize)> {
        let written = self.base + self.head as u64;
        if place < written || place + PLACEHOLDER.len() as u64 > self.end() {
            return None;
        }
        let (mut start, mut index) = (self.base + self.full_len as u64, self.full.len());
        while place < start {
            index -= 1;
            start -= self.full[index].len() as u64;
        }
        Some((index, (place - start) as usize))
    }

    // Limits and figures.

    /// Gives the chain a buffer of its own, of so many bytes, in place of the one it has; what waits
    /// in that one moves. Nothing happens while the buffer is full and more waits behind it, or what
    /// it holds does not fit.
    pub fn set_own_size(&mut self, size: usize) {
        if self.own.is_some() {
            self.own = Some(Vec::with_capacity(size));
        } else if self.full.is_empty() && self.tail.len() - self.head <= size {
            let mut buffer = Vec::with_capacity(size);
            buffer.extend_from_slice(&self.tail[self.head..]);
            self.base += self.head as u64;
            self.head = 0;
            let grown = self.tail.capacity().saturating_sub(self.own_size);
            self.tail = buffer;
            self.give_back(grown);
        } else {
            return;
        }
        self.own_size = size;
        self.count.used = self.count.used.min(size);
    }

    /// Has the own buffer count as if it had been in use as a whole.
    pub fn fill_peak(&mut self) {
        self.count.peak = self.own_size;
    }

    /// Bytes of the own buffer.
    pub fn own_size(&self) -> usize {
        self.own_size
    }

    /// Has the memory beside the own buffer counted by `meter` from now on. Past its
    /// [`Meter::is_leaving`] the chain drops what comes.
    pub fn set_meter(&mut self, meter: Arc<Meter>) {
        meter.grow(self.held);
        if let Some(before) = self.meter.replace(meter) {
            before.shrink(self.held);
        }
    }

    /// Bytes of memory beside the own buffer.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Sets how much may wait from now on.
    #[inline]
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// True once more waited than may: everything was dropped, and so is what comes.
    #[inline]
    pub fn has_overflowed(&self) -> bool {
        self.overflow.is_some()
    }

    /// Looks whether more waits than may, with `now_ms` in Unix milliseconds; true once it does.
    pub fn heed_limit_at(&mut self, now_ms: impl FnOnce() -> i64) -> bool {
        if self.has_overflowed() || self.limit == Limit::default() {
            return self.has_overflowed();
        }
        let beyond = self.beyond();
        let reaches = |limit: usize| limit > 0 && beyond.memory >= limit;
        let mut over = reaches(self.limit.hard);
        if reaches(self.limit.soft) {
            let now_ms = now_ms();
            let since = *self.soft_since.get_or_insert(now_ms);
            over |= now_ms - since > self.limit.soft_ms;
        } else {
            self.soft_since = None;
        }
        if over {
            self.overflow = Some(beyond);
            self.clear();
        }
        over
    }

    fn heed_limit(&mut self) {
        self.heed_limit_at(clock::unix_ms);
    }

    /// Counts what came since it was last counted.
    fn recount(&mut self) {
        self.count.update(self.len_pending(), self.own_size);
    }

    /// What waits beyond the own buffer, or did when that was too much.
    pub fn beyond(&mut self) -> Beyond {
        if let Some(overflow) = self.overflow {
            return overflow;
        }
        self.recount();
        let beyond = self.count.beyond;
        // A value has a block of its own.
        let values = (self.spliced - self.splice_head).min(beyond);
        let text = (beyond - values).div_ceil(CHUNK);
        // It is held as a whole until its last byte is written.
        let (blocks, held) = match values {
            0 => (text, 0),
            _ => (text + self.splices.len(), self.spliced),
        };
        Beyond {
            blocks,
            memory: held + text * CHUNK + blocks * BLOCK_OVERHEAD,
        }
    }

    /// Bytes of the own buffer in use, and the most that were in use since [`Chain::reset_peak`].
    pub fn own_use(&mut self) -> (usize, usize) {
        self.recount();
        (self.count.used, self.count.peak)
    }

    /// Forgets how much of the own buffer was in use at most.
    pub fn reset_peak(&mut self) {
        self.recount();
        self.count.peak = self.count.used;
    }
}

thread_local! {
    /// Chunks that are free. Replies of some chunks come again and again, and the allocator would take
    /// its locks for each.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty chunk with room for `len` bytes.
fn take_chunk(len: usize) -> Vec<u8> {
    let spare = match len {
        CHUNK => SPARE.try_with(|spare| spare.borrow_mut().pop()).ok(),
        _ => None,
    };
    let spare = spare.flatten();
    spare.unwrap_or_else(|| Vec::with_capacity(len))
}

/// Keeps a chunk that is free, if there are not too many.
fn keep_chunk(mut chunk: Vec<u8>) {
    if chunk.capacity() != CHUNK {
        return;
    }
    // A thread that ends keeps nothing.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MOST_SPARE {
            chunk.clear();
            spare.push(chunk);
        }
    });
}

/// Gives back half of the chunks that the calling thread keeps: now and then, so that one that has
/// nothing to reply keeps none.
pub fn give_back_spare() {
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let keep = spare.len() / 2;
        spare.truncate(keep);
        spare.shrink_to(MOST_SPARE / 4);
    });
}

impl Count {
    /// What waits is `pending` now.
    fn update(&mut self, pending: usize, own_size: usize) {
        let known = self.buffered + self.beyond;
        if pending < known {
            // Cut back: the last bytes are gone.
            let gone = known - pending;
            let from_beyond = gone.min(self.beyond);
            self.beyond -= from_beyond;
            self.buffered -= gone - from_beyond;
            self.used -= (gone - from_beyond).min(self.used);
        }
        let mut new = pending.saturating_sub(known);
        if self.beyond == 0 {
            let fits = new.min(own_size.saturating_sub(self.used));
            self.buffered += fits;
            self.used += fits;
            new -= fits;
        }
        self.beyond += new;
        self.peak = self.peak.max(self.used);
    }

    /// So many bytes that waited were written, or all.
    fn written(&mut self, bytes: usize) {
        let from_buffer = bytes.min(self.buffered);
        self.buffered -= from_buffer;
        self.beyond -= (bytes - from_buffer).min(self.beyond);
        if self.buffered == 0 {
            self.used = 0;
        }
    }
}

/// The pending bytes of a [`Chain`] in order; see [`Chain::pieces`].
pub struct Pieces<'a> {
    chain: &'a Chain,
    /// Index of the chunk (their number is the tail's), and the next byte in it.
    chunk: usize,
    offset: usize,
    /// Place of that byte.
    at: u64,
    splice: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let chain = self.chain;
        loop {
            let splice = chain.splices.get(self.splice);
            if let Some(splice) = splice
                && splice.at == self.at
            {
                let is_first = self.splice == 0;
                self.splice += 1;
                let skip = if is_first { chain.splice_head } else { 0 };
                return Some(&splice.value.as_slice()[skip..]);
            }
            let chunk = chain.full.get(self.chunk).unwrap_or(&chain.tail);
            let mut end = chunk.len();
            if let Some(splice) = splice {
                let until = usize::try_from(splice.at - self.at).unwrap_or(usize::MAX);
                end = end.min(self.offset.saturating_add(until));
            }
            let piece = &chunk[self.offset..end];
            if !piece.is_empty() {
                self.offset = end;
                self.at += piece.len() as u64;
                return Some(piece);
            }
            if self.chunk >= chain.full.len() {
                return None;
            }
            self.chunk += 1;
            self.offset = 0;
        }
    }
}
