//! Scores and members in blocks of memory, addressed by 32-bit handles.
//!
//! ```text
//! record: | score, 8 bytes | length, 1 byte | member | padding to 8 bytes |
//!                            255: 4 more bytes hold the length
//! ```
//!
//! A handle counts units of 8 bytes: 13 bits within a block of 64 KiB, 19 bits of block, so a
//! sorted set may hold 32 GiB of records. A record beyond an eighth of a block has a block of its
//! own. Freed records are chained by size through their first bytes and used again for records
//! of just that size. No pointer leads into a block, so a copy of the blocks is a copy of all.

use crate::base::alloc::size_class;
use crate::base::share::Share;

/// Address of a record.
pub type Handle = u32;

const UNIT: usize = 8;
/// Bits of a handle that count units within a block.
const OFFSET_BITS: u32 = 13;
const BLOCK: usize = UNIT << OFFSET_BITS;
const MAX_BLOCKS: usize = 1 << (32 - OFFSET_BITS);
/// Records of more units than this get blocks of their own.
const SHARED_UNITS: usize = BLOCK / UNIT / 8;
/// Length byte that says: the length follows in 4 bytes.
const LONG: u8 = 255;
/// End of a chain of freed records.
const NONE: Handle = Handle::MAX;
/// A block's first allocation in bytes, at least.
const SMALLEST: usize = 128;

/// Records; see the module.
#[derive(Clone, Debug)]
pub struct Records {
    blocks: Vec<Share<Vec<u8>>>,
    /// The block that records are appended to.
    current: usize,
    /// Blocks without records or memory.
    vacant: Vec<u32>,
    /// First freed record of each number of units.
    free: Vec<Handle>,
    /// Bytes of all blocks, as allocated.
    held: usize,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            blocks: vec![Share::default()],
            current: 0,
            vacant: Vec::new(),
            free: Vec::new(),
            held: 0,
        }
    }
}

/// Bytes before a member of `len` bytes.
fn header(len: usize) -> usize {
    if len < usize::from(LONG) { 9 } else { 13 }
}

fn units(len: usize) -> usize {
    (header(len) + len).div_ceil(UNIT)
}

/// Writes a record's header into `to`.
fn write_header(to: &mut [u8], score: f64, len: usize) {
    to[..8].copy_from_slice(&score.to_le_bytes());
    if len < usize::from(LONG) {
        to[8] = len as u8;
    } else {
        to[8] = LONG;
        to[9..13].copy_from_slice(&(len as u32).to_le_bytes());
    }
}

impl Records {
    /// The same records as they are now: blocks are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        Self {
            blocks: self.blocks.iter_mut().map(Share::share).collect(),
            vacant: self.vacant.clone(),
            free: self.free.clone(),
            ..*self
        }
    }

    /// True when a member of any length still finds a place.
    pub fn has_room(&self) -> bool {
        self.blocks.len() < MAX_BLOCKS || !self.vacant.is_empty()
    }

    /// Stores a record.
    ///
    /// # Panics
    /// Without [`Records::has_room`], that is with 32 GiB of records.
    pub fn insert(&mut self, score: f64, member: &[u8]) -> Handle {
        let units = units(member.len());
        let handle = if units > SHARED_UNITS {
            let block = self.new_block(units * UNIT);
            self.blocks[block].to_mut().resize(units * UNIT, 0);
            address(block, 0)
        } else if let Some(handle) = self.reuse(units) {
            handle
        } else {
            self.append(units * UNIT)
        };
        let record = self.bytes_mut(handle);
        write_header(record, score, member.len());
        let start = header(member.len());
        record[start..start + member.len()].copy_from_slice(member);
        handle
    }

    fn reuse(&mut self, units: usize) -> Option<Handle> {
        let handle = *self.free.get(units).filter(|&&h| h != NONE)?;
        let next = self.bytes(handle)[..4].try_into().expect("four bytes");
        self.free[units] = Handle::from_le_bytes(next);
        Some(handle)
    }

    /// Room at the end of the current block, or of a new one.
    fn append(&mut self, size: usize) -> Handle {
        let used = self.blocks[self.current].len();
        if used + size > BLOCK {
            if used < BLOCK {
                self.blocks[self.current].to_mut().resize(BLOCK, 0);
                self.chain(address(self.current, used), (BLOCK - used) / UNIT);
            }
            self.current = self.new_block(0);
            return self.append(size);
        }
        // A big set grows by an eighth, a small one by little: no block stands half empty.
        let block = self.blocks[self.current].to_mut();
        if used + size > block.capacity() {
            let wanted = (used + size).max(used + (self.held / 8).max(SMALLEST));
            let before = block.capacity();
            block.reserve_exact(wanted.min(BLOCK) - used);
            self.held += size_class(block.capacity());
            self.held -= if before > 0 { size_class(before) } else { 0 };
        }
        block.resize(used + size, 0);
        address(self.current, used)
    }

    fn new_block(&mut self, size: usize) -> usize {
        let block = match self.vacant.pop() {
            Some(block) => block as usize,
            None => {
                assert!(self.blocks.len() < MAX_BLOCKS, "32 GiB of records");
                self.blocks.push(Share::default());
                self.blocks.len() - 1
            }
        };
        if size > 0 {
            self.blocks[block] = Share::Own(Vec::with_capacity(size));
            self.held += size_class(size);
        }
        block
    }

    /// Forgets a record.
    pub fn remove(&mut self, handle: Handle) {
        let units = units(self.member(handle).len());
        if units > SHARED_UNITS {
            let block = (handle >> OFFSET_BITS) as usize;
            self.held -= size_class(self.blocks[block].capacity());
            self.blocks[block] = Share::default();
            self.vacant.push(block as u32);
        } else {
            self.chain(handle, units);
        }
    }

    fn chain(&mut self, handle: Handle, units: usize) {
        if self.free.len() <= units {
            self.free.resize(units + 1, NONE);
        }
        let next = std::mem::replace(&mut self.free[units], handle);
        self.bytes_mut(handle)[..4].copy_from_slice(&next.to_le_bytes());
    }

    #[inline]
    fn bytes(&self, handle: Handle) -> &[u8] {
        let offset = handle as usize % (1 << OFFSET_BITS) * UNIT;
        &self.blocks[(handle >> OFFSET_BITS) as usize][offset..]
    }

    fn bytes_mut(&mut self, handle: Handle) -> &mut [u8] {
        let offset = handle as usize % (1 << OFFSET_BITS) * UNIT;
        &mut self.blocks[(handle >> OFFSET_BITS) as usize].to_mut()[offset..]
    }

    /// A record's member.
    #[inline]
    pub fn member(&self, handle: Handle) -> &[u8] {
        let record = self.bytes(handle);
        match record[8] {
            LONG => {
                let len = record[9..13].try_into().expect("four bytes");
                &record[13..13 + u32::from_le_bytes(len) as usize]
            }
            len => &record[9..9 + usize::from(len)],
        }
    }

    /// A record's score.
    #[inline]
    pub fn score(&self, handle: Handle) -> f64 {
        f64::from_le_bytes(self.bytes(handle)[..8].try_into().expect("eight bytes"))
    }

    /// Changes a record's score.
    pub fn set_score(&mut self, handle: Handle, score: f64) {
        self.bytes_mut(handle)[..8].copy_from_slice(&score.to_le_bytes());
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.held
            + self.blocks.capacity() * size_of::<Share<Vec<u8>>>()
            + (self.free.capacity() + self.vacant.capacity()) * size_of::<u32>()
    }

    /// Allocations.
    pub fn effort(&self) -> usize {
        self.blocks.len()
    }
}

fn address(block: usize, offset: usize) -> Handle {
    ((block << OFFSET_BITS) | (offset / UNIT)) as Handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_sizes_come_back() {
        let mut records = Records::default();
        let sizes = [
            0, 1, 6, 7, 8, 15, 200, 254, 255, 256, 8000, 8180, 8200, 70_000,
        ];
        let member = |i: usize| vec![i as u8; sizes[i % sizes.len()]];
        let mut handles: Vec<(usize, Handle)> = (0..400)
            .map(|i| (i, records.insert(i as f64, &member(i))))
            .collect();
        for round in 0..3 {
            for (i, handle) in &handles {
                assert_eq!(records.member(*handle), member(*i), "{round}");
                assert_eq!(records.score(*handle), *i as f64);
            }
            let gone: Vec<_> = handles
                .extract_if(.., |(i, _)| i.is_multiple_of(3))
                .collect();
            let held = records.memory();
            gone.iter().for_each(|(_, handle)| records.remove(*handle));
            handles.extend(
                gone.iter()
                    .map(|(i, _)| (*i, records.insert(*i as f64, &member(*i)))),
            );
            assert!(
                records.memory() <= held + 10_000,
                "freed room is used again"
            );
        }
        let copy = records.clone();
        records.set_score(handles[0].1, -1.5);
        assert_eq!(records.score(handles[0].1), -1.5);
        assert_eq!(copy.score(handles[0].1), handles[0].0 as f64);
    }

    #[test]
    fn few_records_take_little() {
        let mut records = Records::default();
        records.insert(1.0, &[b'x'; 70]);
        assert!(records.memory() < 300, "{}", records.memory());
    }
}
