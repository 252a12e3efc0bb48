//! Where the heap grows: huge pages, made ready ahead of it.
//!
//! jemalloc asks for ever larger ranges, keeps them for ever, and cuts what it needs from their
//! beginning. Those of an arena come one behind the other from a reservation of addresses, and
//! nothing of them counts as committed; so jemalloc says of each piece when it begins to use it
//! ([`commit`]) and when it has no more use for it ([`decommit`]). Near the end of a huge page the
//! next one is ordered ([`pages`]).
//!
//! Only once the heap is big: with huge pages from the first allocation, as jemalloc's own option
//! has it (`thp:always`), an idle server holds some 18 MB. Big heaps get the shorter page walks (15 %
//! of a pipelined GET); a server that never forks has no copy-on-write of two megabytes to fear.
//!
//! The hooks run under the allocator's locks: they allocate nothing.

use std::ffi::{c_uint, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
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

/// Bytes of addresses that are reserved at first; each further reservation of an arena is twice
/// the one before. They cost nothing until they are used.
const RESERVED: usize = 64 << 20;

/// What each arena's ranges are cut from. The standard library's lock: parking_lot's allocates when
/// it has to wait.
static REGIONS: [Mutex<Region>; ARENAS] = [const { Mutex::new(Region::none()) }; ARENAS];

/// Reserved addresses. Earlier reservations of the arena stay; what was left of them is lost.
struct Region {
    begin: usize,
    next: usize,
    end: usize,
    /// The last page that was ordered.
    ordered: usize,
}

impl Region {
    const fn none() -> Self {
        Self {
            begin: 0,
            next: 0,
            end: 0,
            ordered: 0,
        }
    }

    fn of(arena: c_uint) -> Option<MutexGuard<'static, Self>> {
        let region = REGIONS.get(arena as usize)?;
        Some(region.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next so many bytes; `None` when the system has no addresses to give.
    fn cut(&mut self, size: usize, alignment: usize) -> Option<usize> {
        let mut at = self.next.checked_next_multiple_of(alignment)?;
        if at.checked_add(size)? > self.end {
            self.reserve(size.checked_add(alignment)?)?;
            at = self.next.checked_next_multiple_of(alignment)?;
        }
        self.next = at + size;
        Some(at)
    }

    fn reserve(&mut self, least: usize) -> Option<()> {
        let size = (2 * (self.end - self.begin)).max(RESERVED).max(least);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let length = size.checked_add(HUGE)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), length, prot, flags) };
        self.begin = (mapped.ok()? as usize).next_multiple_of(HUGE);
        self.next = self.begin;
        self.end = self.begin + size;
        Some(())
    }

    /// Orders a page, once, if it lies here as a whole.
    fn order(&mut self, page: usize) {
        let is_here = self.begin <= page && page + HUGE <= self.end;
        if is_here && std::mem::replace(&mut self.ordered, page) != page {
            pages::order(page);
        }
    }
}

/// A range for an arena, of which nothing counts as committed unless that was asked for. Where there
/// is no reservation, jemalloc's own mapping serves.
unsafe extern "C" fn map(
    hooks: *mut Hooks,
    address: *mut c_void,
    size: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    arena: c_uint,
) -> *mut c_void {
    if address.is_null()
        && let Some(at) = Region::of(arena).and_then(|mut region| region.cut(size, alignment))
    {
        // SAFETY: the allocator's variable, for the time of this call. The addresses are new, so
        // they read as zeros, and they are accessible, committed or not.
        unsafe { *zero = true };
        return at as *mut c_void;
    }
    match DEFAULT_MAP.get() {
        // SAFETY: the arguments are passed on as they came.
        Some(default) => unsafe { default(hooks, address, size, alignment, zero, commit, arena) },
        None => std::ptr::null_mut(),
    }
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
    if is_near && let Some(mut region) = Region::of(arena) {
        region.order(next);
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
        let reserved = (0..ARENAS as c_uint).filter_map(Region::of);
        assert!(
            reserved
                .into_iter()
                .any(|region| region.next > region.begin)
        );
        assert!(hold(&small) && hold(&large));
        drop(small);
        assert!(alloc::purge());
        let again = fill(1000, 24 << 20);
        let zeroed = vec![0u8; 24 << 20];
        assert!(zeroed.iter().all(|&byte| byte == 0));
        assert!(hold(&again) && hold(&large));
    }

    #[test]
    fn ranges_lie_one_behind_the_other() {
        let mut region = Region::none();
        let first = region.cut(5 << 20, 4096).expect("there are addresses");
        let second = region.cut(3 << 20, 4096).expect("there are addresses");
        assert_eq!((first % HUGE, second), (0, first + (5 << 20)));
        let aligned = region.cut(4096, HUGE).expect("there are addresses");
        assert_eq!((aligned % HUGE, region.next), (0, aligned + 4096));
        let large = region.cut(1 << 30, 4096).expect("there are addresses");
        assert_eq!((large, region.begin), (region.begin, large));
        assert!(region.end - region.begin >= 1 << 30);
        assert_eq!(region.cut(usize::MAX - HUGE, 4096), None);
        let after = region.cut(4096, 4096);
        assert_eq!(after, Some(large + (1 << 30)), "a refusal changes nothing");
    }
}
