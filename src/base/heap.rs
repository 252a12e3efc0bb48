//! Where the heap grows: huge pages, made ready ahead of it.
//!
//! jemalloc maps ever larger ranges, keeps them for ever, and cuts what it needs from their
//! beginning. Its hooks are told that nothing of a range is committed; so it says of each piece
//! when it begins to use it ([`commit`]) and when it has no more use for it ([`decommit`]). Near the
//! end of a huge page the next one is ordered ([`pages`]).
//!
//! Only once the heap is big: with huge pages from the first allocation, as jemalloc's own option
//! has it (`thp:always`), an idle server holds some 18 MB. Big heaps get the shorter page walks (15 %
//! of a pipelined GET); a server that never forks has no copy-on-write of two megabytes to fear.
//!
//! The hooks run under the allocator's locks: they allocate nothing.

use std::ffi::{c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use rustix::mm::{Advice, madvise};
use tikv_jemalloc_sys as je;

use super::alloc;
use super::pages::{self, HUGE};

/// Arenas that allocations are served from, as in [`alloc::MALLOC_CONF`].
const ARENAS: usize = 4;
/// Memory in use, in bytes, from which the heap is backed by huge pages.
const BIG: usize = 16 << 20;
/// What is left of a page, in bytes, when the next one is ordered: mostly enough for the time that
/// takes, and little enough that what is there and not used yet does not count. A heap that
/// outgrows the orders gives them earlier.
const AHEAD: usize = HUGE / 4;

type Hooks = je::extent_hooks_t;
type Map = unsafe extern "C" fn(
    *mut Hooks,
    *mut c_void,
    usize,
    usize,
    *mut bool,
    *mut bool,
    c_uint,
) -> *mut c_void;

static DEFAULT_MAP: OnceLock<Map> = OnceLock::new();

/// The ranges that were mapped, the first `KNOWN` of them: as each is larger than the last of its
/// arena there are few. Pages of one that found no room here are not ordered ahead.
static RANGES: [Range; 256] = [const { Range::none() }; 256];
static KNOWN: AtomicUsize = AtomicUsize::new(0);
/// The last page that was ordered for each arena.
static ORDERED: [AtomicUsize; ARENAS] = [const { AtomicUsize::new(0) }; ARENAS];

struct Range {
    begin: AtomicUsize,
    /// 0 until both are known.
    end: AtomicUsize,
}

impl Range {
    const fn none() -> Self {
        Self {
            begin: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
        }
    }

    fn remember(begin: usize, end: usize) {
        let free = KNOWN.fetch_add(1, Relaxed).min(RANGES.len());
        if let Some(range) = RANGES.get(free) {
            range.begin.store(begin, Relaxed);
            range.end.store(end, Release);
        }
    }

    /// Whether a page lies wholly in one of the ranges.
    fn has(page: usize) -> bool {
        let known = KNOWN.load(Relaxed).min(RANGES.len());
        let mut ranges = RANGES[..known].iter().rev();
        ranges.any(|range| {
            let end = range.end.load(Acquire);
            end != 0 && range.begin.load(Relaxed) <= page && page + HUGE <= end
        })
    }
}

/// jemalloc's own mapping, aligned to huge pages, of which nothing counts as committed unless that
/// was asked for.
unsafe extern "C" fn map(
    hooks: *mut Hooks,
    address: *mut c_void,
    size: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    arena: c_uint,
) -> *mut c_void {
    let Some(default) = DEFAULT_MAP.get() else {
        return std::ptr::null_mut();
    };
    let alignment = match size {
        HUGE.. => alignment.max(HUGE),
        _ => alignment,
    };
    // SAFETY: `commit` is the allocator's variable, in and out, for the time of this call.
    let commit_now = unsafe { *commit };
    // SAFETY: the arguments are passed on as they came, but for a stricter alignment.
    let mapped = unsafe { default(hooks, address, size, alignment, zero, commit, arena) };
    if !mapped.is_null() {
        // SAFETY: as above.
        unsafe { *commit = commit_now };
        Range::remember(mapped as usize, mapped as usize + size);
    }
    mapped
}

/// A part of a range begins to be used. Its pages are accessible already; false says so.
unsafe extern "C" fn commit(
    _hooks: *mut Hooks,
    address: *mut c_void,
    _size: usize,
    offset: usize,
    length: usize,
    arena: c_uint,
) -> bool {
    let begin = address as usize + offset;
    let end = begin + length;
    let next = end.next_multiple_of(HUGE);
    let is_near = next - end <= AHEAD || pages::is_behind();
    if length < HUGE && !is_near || alloc::used() < BIG {
        return false;
    }
    pages::become_huge(begin, end);
    let Some(ordered) = ORDERED.get(arena as usize) else {
        return false;
    };
    if is_near && ordered.swap(next, Relaxed) != next && Range::has(next) {
        pages::order(next);
    }
    false
}

/// A part of a range is not used any more: its pages go back to the system; true if they stay.
unsafe extern "C" fn decommit(
    _hooks: *mut Hooks,
    address: *mut c_void,
    _size: usize,
    offset: usize,
    length: usize,
    _arena: c_uint,
) -> bool {
    let begin = address.wrapping_byte_add(offset);
    // SAFETY: the allocator gives up the content of this part of a mapping of its own.
    unsafe { madvise(begin, length, Advice::LinuxDontNeed) }.is_err()
}

/// Has the heap backed by huge pages once it is big. To be called once, before any data, by a
/// process that will not fork.
pub fn use_huge_pages() {
    for arena in 0..ARENAS {
        install(arena);
    }
    pages::start();
}

fn install(arena: usize) {
    let Ok(name) = std::ffi::CString::new(format!("arena.{arena}.extent_hooks")) else {
        return;
    };
    let mut hooks: *mut Hooks = std::ptr::null_mut();
    let mut length = size_of::<*mut Hooks>();
    let old = (&raw mut hooks).cast::<c_void>();
    // SAFETY: a documented control that gives a pointer to the arena's hooks.
    let read = unsafe { je::mallctl(name.as_ptr(), old, &mut length, std::ptr::null_mut(), 0) };
    if read != 0 || hooks.is_null() {
        return;
    }
    // SAFETY: hooks stay valid for the life of the process; all fields are plain pointers.
    let mut ours = unsafe { std::ptr::read(hooks) };
    let Some(default) = ours.alloc else { return };
    DEFAULT_MAP.get_or_init(|| default);
    ours.alloc = Some(map);
    ours.commit = Some(commit);
    ours.decommit = Some(decommit);
    let mut ours: *mut Hooks = Box::leak(Box::new(ours));
    let new = (&raw mut ours).cast::<c_void>();
    let (none, size) = (std::ptr::null_mut(), size_of::<*mut Hooks>());
    // SAFETY: the leaked hooks outlive the arena. They differ from its own in three functions, which
    // keep what jemalloc documents of them.
    let set = unsafe { je::mallctl(name.as_ptr(), none, none.cast(), new, size) };
    debug_assert_eq!(set, 0, "the arena keeps its own hooks");
}

#[cfg(all(test, not(asan)))]
mod tests {
    use super::*;

    /// Blocks of `size` bytes, `total` bytes in all, each with its number in it.
    fn fill(size: usize, total: usize) -> Vec<Vec<u8>> {
        let blocks = 0..(total / size) as u32;
        let block = |n: u32| n.to_le_bytes().repeat(size / 4);
        blocks.map(block).collect()
    }

    fn hold(blocks: &[Vec<u8>]) -> bool {
        let mut numbered = (0u32..).zip(blocks);
        numbered.all(|(n, block)| block.chunks(4).all(|word| word == n.to_le_bytes()))
    }

    #[test]
    fn content_survives_growth_and_what_came_back_is_zeroed() {
        use_huge_pages();
        let small = fill(200, 48 << 20);
        let large = fill(3 << 20, 48 << 20);
        assert!(KNOWN.load(Relaxed) > 0, "ranges come through the hooks");
        assert!(hold(&small) && hold(&large));
        drop(small);
        assert!(alloc::purge());
        let again = fill(1000, 24 << 20);
        let zeroed = vec![0u8; 24 << 20];
        assert!(zeroed.iter().all(|&byte| byte == 0));
        assert!(hold(&again) && hold(&large));
    }

    #[test]
    fn a_page_is_known_when_it_lies_wholly_in_a_range() {
        let begin = 1 << 40;
        Range::remember(begin, begin + 3 * HUGE - 4096);
        assert!(Range::has(begin) && Range::has(begin + HUGE));
        assert!(!Range::has(begin + 2 * HUGE) && !Range::has(begin - HUGE));
    }
}
