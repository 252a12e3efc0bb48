//! A real memory fault, for DEBUG SEGFAULT: what is tested is how the process dies.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Writes to memory that may only be read, which ends the process. An error when the kernel does
/// not give such memory.
pub fn segfault() -> std::io::Result<()> {
    let bytes = rustix::param::page_size();
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing. The write is
    // to mapped memory and never takes place: the processor refuses it, which is the purpose.
    unsafe {
        let page = mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ,
            MapFlags::PRIVATE,
        )?;
        page.cast::<u8>().write_volatile(b'x');
    }
    Ok(())
}
