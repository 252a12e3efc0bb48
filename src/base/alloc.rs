//! The global allocator: jemalloc, with a running count of what is allocated now.
//!
//! Each thread counts into a cache line of its own (a plain load and store, no locked
//! instruction), and [`used`] sums the lines: `used_memory` and `maxmemory` therefore react at
//! once, which the allocator's own statistics, published per epoch, do not. Memory freed by
//! another thread than the one that allocated it makes one line negative; only the sum means
//! something.
//!
//! `.cargo/config.toml` builds jemalloc with 8-byte size classes. That halves the rounding loss
//! of keyspace entries, at the price that a 24-byte allocation is only 8-byte aligned, so larger
//! alignments are requested explicitly.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
#[cfg(not(asan))]
use std::ffi::c_int;
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use tikv_jemalloc_sys as je;

/// jemalloc as the process' allocator; see the module.
pub struct Counting;

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Few arenas (workers hardly contend, and each arena holds back memory), and decay in the
/// background. For huge pages see [`super::heap`].
// SAFETY: the symbol is jemalloc's documented compile-time option hook, a C string pointer.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &c_char = {
    const TEXT: &[u8] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,metadata_thp:disabled\0";
    // SAFETY: TEXT is a static, zero-terminated byte string; c_char and u8 have the same layout.
    unsafe { &*TEXT.as_ptr().cast::<c_char>() }
};

const LINES: usize = 128;
/// The line of threads beyond the first 127, which must use locked instructions.
const SHARED: usize = LINES - 1;
const UNASSIGNED: usize = usize::MAX;

#[repr(align(128))]
struct Line(AtomicIsize);

static COUNTERS: [Line; LINES] = [const { Line(AtomicIsize::new(0)) }; LINES];
static NEXT_LINE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MY_LINE: Cell<usize> = const { Cell::new(UNASSIGNED) };
}

/// Bytes that an allocation of so many takes: there are four sizes between a power of two and the next.
pub fn taken(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(8);
    bytes.next_multiple_of(step)
}

/// Bytes allocated now, rounded to size classes, plus what [`add_external`] reported.
pub fn used() -> usize {
    let lines = NEXT_LINE.load(Relaxed).min(LINES);
    let sum: isize = COUNTERS[..lines].iter().map(|l| l.0.load(Relaxed)).sum();
    sum.max(0) as usize
}

/// What the calling thread has allocated less what it has freed, in bytes; only differences mean
/// something.
#[inline]
pub fn balance() -> isize {
    let line = MY_LINE.try_with(|l| l.get()).unwrap_or(SHARED);
    COUNTERS.get(line).map_or(0, |l| l.0.load(Relaxed))
}

/// Counts memory that does not come from this allocator (mapped directly), in bytes.
pub fn add_external(delta: isize) {
    count(delta);
}

/// Returns unused dirty pages of all arenas to the system; false when the allocator refuses.
pub fn purge() -> bool {
    // MALLCTL_ARENAS_ALL is 4096.
    let name = c"arena.4096.purge";
    // SAFETY: a documented control without input and output.
    let result = unsafe {
        let null = std::ptr::null_mut();
        je::mallctl(name.as_ptr(), null, null.cast(), null, 0)
    };
    result == 0
}

/// Appends the allocator's own report.
pub fn write_statistics(text: &mut Vec<u8>) {
    unsafe extern "C" fn append(target: *mut c_void, part: *const c_char) {
        // SAFETY: `target` is the vector below, alive and not otherwise used during the call;
        // `part` is a zero-terminated string, as jemalloc documents.
        unsafe {
            let target = &mut *target.cast::<Vec<u8>>();
            target.extend_from_slice(std::ffi::CStr::from_ptr(part).to_bytes());
        }
    }
    // SAFETY: the callback fits the pointer that is handed to it.
    unsafe { je::malloc_stats_print(Some(append), (&raw mut *text).cast(), std::ptr::null()) }
}

/// Reads a number of the allocator's, after setting it when `new` is given; the error is that of
/// the system.
pub fn control_number(name: &std::ffi::CStr, new: Option<i64>) -> Result<i64, i32> {
    let mut value = 0i64;
    // The size is found by trying: controls are of 8, 4 or 1 bytes, and refuse another.
    for size in [8usize, 4, 1] {
        let mut length = size;
        let old = (&raw mut value).cast::<c_void>();
        // SAFETY: `length` bytes, at most 8, are written to `value`, which is little-endian.
        let read = unsafe { je::mallctl(name.as_ptr(), old, &mut length, std::ptr::null_mut(), 0) };
        match (read, new) {
            (0, None) => return Ok(value),
            (0, Some(mut new)) => {
                let new = (&raw mut new).cast::<c_void>();
                let none = std::ptr::null_mut();
                // SAFETY: `size` bytes, at most 8, are read from `new`.
                let wrote = unsafe { je::mallctl(name.as_ptr(), none, none.cast(), new, size) };
                return if wrote == 0 { Ok(value) } else { Err(wrote) };
            }
            (libc::EINVAL, _) => {}
            (error, _) => return Err(error),
        }
    }
    Err(libc::EINVAL)
}

/// Reads a text of the allocator's; the error is that of the system.
pub fn control_text(name: &std::ffi::CStr) -> Result<String, i32> {
    let mut text: *const c_char = std::ptr::null();
    let mut length = size_of::<*const c_char>();
    let old = (&raw mut text).cast::<c_void>();
    // SAFETY: a control of another size than a pointer refuses with EINVAL.
    let result = unsafe { je::mallctl(name.as_ptr(), old, &mut length, std::ptr::null_mut(), 0) };
    // A control of 8 bytes that is not a text cannot be told apart; texts are in known branches.
    let is_text = [
        &b"version"[..],
        b"config.malloc_conf",
        b"opt.dss",
        b"thread.prof.name",
    ]
    .iter()
    .any(|known| *known == name.to_bytes())
        || (name.to_bytes().starts_with(b"arena.") && name.to_bytes().ends_with(b".dss"));
    if result != 0 || !is_text || text.is_null() {
        return Err(if result == 0 { libc::EINVAL } else { result });
    }
    // SAFETY: text controls give static, zero-terminated strings.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}

#[inline]
fn count(delta: isize) {
    // A thread that is being torn down has no thread-local storage any more.
    let line = MY_LINE.try_with(|l| l.get()).unwrap_or(SHARED);
    if line < SHARED {
        let counter = &COUNTERS[line].0;
        counter.store(counter.load(Relaxed).wrapping_add(delta), Relaxed);
    } else {
        count_slow(line, delta);
    }
}

#[cold]
fn count_slow(line: usize, delta: isize) {
    if line == UNASSIGNED {
        begin_thread();
        let line = NEXT_LINE.fetch_add(1, Relaxed).min(SHARED);
        let _ = MY_LINE.try_with(|l| l.set(line));
        COUNTERS[line].0.fetch_add(delta, Relaxed);
    } else {
        COUNTERS[SHARED].0.fetch_add(delta, Relaxed);
    }
}

/// Lets jemalloc set up what it keeps for this thread.
///
/// It would otherwise do so in the middle of a thread's first call, should that be one that frees
/// (a buffer that came from another thread): with hooks of our own it asks for the thread's state
/// while it merges neighbours, allocates for it, and waits for the lock that it holds.
fn begin_thread() {
    #[cfg(not(asan))]
    // SAFETY: what is allocated here is freed here, with its size.
    unsafe {
        let pointer = je::mallocx(1, 0);
        if !pointer.is_null() {
            je::sdallocx(pointer, 1, 0);
        }
    }
}

/// What jemalloc really sets aside for a request of `size` bytes: 8-byte steps up to 64, then
/// four classes to each doubling.
#[inline]
pub const fn size_class(size: usize) -> usize {
    if size <= 64 {
        if size == 0 { 8 } else { (size + 7) & !7 }
    } else {
        let step = 1 << (usize::BITS - 1 - (size - 1).leading_zeros() - 2);
        (size + step - 1) & !(step - 1)
    }
}

#[cfg(not(asan))]
#[inline]
fn flags(layout: &Layout) -> c_int {
    let align = layout.align();
    // Classes that are multiples of 16 lie at multiples of 16; everything is 8-byte aligned.
    if align <= 8 || (align == 16 && layout.size().is_multiple_of(16)) {
        0
    } else {
        je::MALLOCX_ALIGN(align)
    }
}

// SAFETY: every method forwards to jemalloc with the size and alignment of the layout; sizes are
// raised to at least 1, because mallocx(0) is undefined.
#[cfg(not(asan))]
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the size is not 0.
        unsafe { je::mallocx(layout.size().max(1), flags(&layout)).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the size is not 0.
        unsafe { je::mallocx(layout.size().max(1), flags(&layout) | je::MALLOCX_ZERO).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(size_class(layout.size()) as isize));
        // SAFETY: by GlobalAlloc's contract the pointer came from `alloc` with this layout.
        unsafe {
            je::sdallocx(
                pointer.cast::<c_void>(),
                layout.size().max(1),
                flags(&layout),
            )
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size_class(new_size) as isize - size_class(layout.size()) as isize);
        // SAFETY: `new_size` with the old alignment is a valid layout by GlobalAlloc's contract.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the pointer came from this allocator; the new size is not 0.
        unsafe { je::rallocx(pointer.cast::<c_void>(), new_size.max(1), flags(&new)).cast() }
    }
}

// AddressSanitizer sees only what the system's allocator hands out; see `scripts/asan`.
// SAFETY: every method forwards to the system's allocator, unchanged.
#[cfg(asan)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { std::alloc::System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(size_class(layout.size()) as isize));
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size_class(new_size) as isize - size_class(layout.size()) as isize);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { std::alloc::System.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_the_allocators() {
        for size in (1..5000).chain([70_000, 1_000_001]) {
            // SAFETY: nallocx has no preconditions for a size that is not 0.
            let real = unsafe { je::nallocx(size, 0) };
            assert_eq!(size_class(size), real, "size {size}");
        }
    }

    #[test]
    fn counts_what_is_held() {
        let before = used();
        let held = vec![1u8; 10 << 20];
        assert!(used() >= before + held.len() - (1 << 20));
    }

    #[test]
    fn alignment_is_kept() {
        for (size, align) in [
            (24, 16),
            (40, 16),
            (48, 16),
            (100, 64),
            (8, 16),
            (4096, 4096),
        ] {
            let layout = Layout::from_size_align(size, align).expect("valid layout");
            // SAFETY: the layout has a size above 0 and is used for both calls.
            unsafe {
                let p = std::alloc::alloc(layout);
                assert_eq!(p as usize % align, 0, "{size} {align}");
                std::alloc::dealloc(p, layout);
            }
        }
    }
}
