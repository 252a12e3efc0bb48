//! Huge pages made ready by a thread of its own, before anybody needs them.
//!
//! The first touch of a huge page has the kernel zero two megabytes, which takes a tenth of a
//! millisecond where memory is at hand and several milliseconds where a hypervisor has to find it
//! first. Whoever sees that it will soon begin a page ([`order`]) has that done elsewhere. It is a
//! gain, not a need: who outruns the thread touches small pages, one by one, and an order that
//! finds no room is dropped.
//!
//! An order allocates nothing and waits for nothing but the few stores of another order: the
//! allocator's own hooks give them.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, madvise};

/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;

/// Orders that wait at most.
const ROOM: usize = 8;

/// Addresses of pages, the oldest order first.
struct Orders {
    pages: [usize; ROOM],
    waiting: usize,
    started: bool,
}

impl Orders {
    const fn new() -> Self {
        Self {
            pages: [0; ROOM],
            waiting: 0,
            started: false,
        }
    }

    /// False when the page is ordered already or there is no room.
    fn add(&mut self, page: usize) -> bool {
        let waiting = self.waiting;
        let taken = waiting < ROOM && !self.pages[..waiting].contains(&page);
        if taken {
            self.pages[waiting] = page;
            self.waiting += 1;
        }
        taken
    }

    fn take(&mut self) -> Option<usize> {
        self.waiting = self.waiting.checked_sub(1)?;
        let page = self.pages[0];
        self.pages.copy_within(1.., 0);
        Some(page)
    }
}

/// The standard library's lock: parking_lot's allocates when it has to wait.
static ORDERS: Mutex<Orders> = Mutex::new(Orders::new());
static ORDERED: Condvar = Condvar::new();
/// Orders that are not carried out.
static OPEN: AtomicUsize = AtomicUsize::new(0);

fn orders() -> MutexGuard<'static, Orders> {
    ORDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, once for the process; without it orders change nothing.
pub fn start() {
    if std::mem::replace(&mut orders().started, true) {
        return;
    }
    let thread = std::thread::Builder::new().name("pages".into());
    if let Err(error) = thread.spawn(serve) {
        orders().started = false;
        tracing::warn!("No thread to make pages ready: {error}");
    }
}

/// Has the huge page at `page` there soon, which must lie in an anonymous mapping that stays for
/// ever. Nothing of its content changes, whoever uses it meanwhile.
pub fn order(page: usize) {
    let mut orders = orders();
    if orders.add(page) {
        OPEN.fetch_add(1, Relaxed);
        drop(orders);
        ORDERED.notify_one();
    }
}

/// Whether there are orders that are not carried out: whoever needs a page now has come too late.
pub fn is_behind() -> bool {
    OPEN.load(Relaxed) > 0
}

fn serve() {
    let mut held = orders();
    loop {
        let Some(page) = held.take() else {
            held = ORDERED.wait(held).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(held);
        advise(page, HUGE, Advice::LinuxHugepage);
        advise(page, HUGE, Advice::LinuxPopulateWrite);
        OPEN.fetch_sub(1, Relaxed);
        held = orders();
    }
}

/// Has the huge pages that lie wholly between two addresses of one mapping be huge once they are
/// touched.
pub fn become_huge(begin: usize, end: usize) {
    let begin = begin.next_multiple_of(HUGE);
    let end = end & !(HUGE - 1);
    if begin < end {
        advise(begin, end - begin, Advice::LinuxHugepage);
    }
}

fn advise(address: usize, length: usize, advice: Advice) {
    // SAFETY: neither advice changes content or access, wherever it points; kernels refuse what
    // they do not know or what is not mapped.
    let advised = unsafe { madvise(address as *mut c_void, length, advice) };
    // A refusal only means that pages come one by one, small, when they are touched.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_carried_out_and_change_nothing() {
        let memory = vec![7u8; 4 * HUGE];
        let first = (memory.as_ptr() as usize).next_multiple_of(HUGE);
        order(first);
        order(first + HUGE);
        start();
        start();
        while is_behind() {
            std::thread::yield_now();
        }
        assert!(memory.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn an_order_is_taken_once_and_only_while_there_is_room() {
        let mut orders = Orders::new();
        let mut pages = (1..).map(|n| n * HUGE);
        for page in pages.by_ref().take(ROOM) {
            assert!(orders.add(page) && !orders.add(page));
        }
        assert!(pages.next().is_some_and(|page| !orders.add(page)), "full");
        let carried_out: Vec<_> = std::iter::from_fn(|| orders.take()).collect();
        assert!(carried_out.into_iter().eq((1..=ROOM).map(|n| n * HUGE)));
    }
}
