//! The allocator of an interpreter: it counts, and refuses what is beyond a limit while scripts run.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ffi::c_void;
use std::ptr::null_mut;

/// What an interpreter has allocated.
#[derive(Debug, Default)]
pub struct Memory {
    /// Bytes.
    pub used: usize,
    /// Most that scripts may use, in bytes; 0: no limit.
    pub limit: usize,
    /// A body of ours runs.
    pub relaxed: bool,
}

/// The alignment of everything that Lua allocates.
const ALIGN: usize = 16;

/// Lua's allocator.
///
/// # Safety
/// `ud` is a [`Memory`] that nobody else uses meanwhile; `old` was returned by this function for `old_size`
/// bytes, or is null.
pub unsafe extern "C" fn allocate(
    ud: *mut c_void,
    old: *mut c_void,
    old_size: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: set by `Interpreter::new`, whose memory outlives the state; Lua is single-threaded.
    let memory = unsafe { &mut *ud.cast::<Memory>() };
    let old_size = if old.is_null() { 0 } else { old_size };
    let grows = size.saturating_sub(old_size);
    let layout = |size| Layout::from_size_align(size, ALIGN);
    if size == 0 {
        if !old.is_null()
            && let Ok(layout) = layout(old_size)
        {
            // SAFETY: allocated below with this layout.
            unsafe { dealloc(old.cast(), layout) };
            memory.used -= old_size;
        }
        return null_mut();
    }
    let is_over = memory.limit > 0 && memory.used + grows > memory.limit;
    let (Ok(wanted), false) = (layout(size), is_over && !memory.relaxed && grows > 0) else {
        return null_mut();
    };
    let new = match layout(old_size) {
        // SAFETY: allocated here with this layout; the new size is not 0 and fits the alignment.
        Ok(had) if !old.is_null() => unsafe { realloc(old.cast(), had, size) },
        // SAFETY: the size is not 0.
        _ => unsafe { alloc(wanted) },
    };
    if new.is_null() {
        handle_alloc_error(wanted);
    }
    memory.used = memory.used - old_size + size;
    new.cast()
}
