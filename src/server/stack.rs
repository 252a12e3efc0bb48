//! Stacks and registers: noted in a signal handler, named and printed by an ordinary thread.
//!
//! A frame is printed as Redis prints it, `file(function+offset)[address]`, where the binary has its
//! symbols, with `at file:line` behind it where it has line tables. A stripped binary has neither:
//! then `file(+offset)[address]`, which `addr2line -e FILE OFFSET` names from the binary that was
//! not stripped.

use std::fmt::Write as _;
use std::sync::Once;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

/// Frames of a stack that are kept.
const DEPTH: usize = 64;

/// A stack, written by a signal handler and read by another thread.
pub struct Stack {
    frames: [AtomicUsize; DEPTH],
    len: AtomicUsize,
    ready: AtomicBool,
}

impl Stack {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            frames: [const { AtomicUsize::new(0) }; DEPTH],
            len: AtomicUsize::new(0),
            ready: AtomicBool::new(false),
        }
    }

    /// Notes the stack of the calling thread.
    pub fn capture(&self) {
        let mut frames = [std::ptr::null_mut(); DEPTH];
        // SAFETY: the buffer has DEPTH places. Walking needs no allocation once the unwinder is
        // loaded, which `prime` saw to.
        let len = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as i32) };
        let len = (len.max(0) as usize).min(DEPTH);
        for (place, frame) in self.frames.iter().zip(&frames[..len]) {
            place.store(frame.addr(), Relaxed);
        }
        self.len.store(len, Relaxed);
        self.ready.store(true, Release);
    }

    /// The addresses noted, innermost first.
    pub fn addresses(&self) -> Vec<usize> {
        let len = self.len.load(Relaxed).min(DEPTH);
        self.frames[..len].iter().map(|f| f.load(Relaxed)).collect()
    }
}

/// Has a signal handled by `handler`.
pub fn set_action(signal: i32, handler: usize, flags: i32) {
    // SAFETY: a zeroed sigaction is a valid one with an empty mask. The handler is a default
    // action, or a function of `crash` or of this module with the signature that SA_SIGINFO asks for and that
    // does only what a handler may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Walks a stack once outside of any handler: the first walk loads the unwinder and allocates.
pub fn prime() {
    static PRIMED: Once = Once::new();
    PRIMED.call_once(|| {
        Stack::new().capture();
    });
}

/// The kernel's number of the calling thread.
pub fn thread_id() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// The registers that are kept, in the order in which they are printed: name, and place in the
/// context that a signal handler gets.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [(&str, usize); 19] = [
    ("RAX", libc::REG_RAX as usize),
    ("RBX", libc::REG_RBX as usize),
    ("RCX", libc::REG_RCX as usize),
    ("RDX", libc::REG_RDX as usize),
    ("RDI", libc::REG_RDI as usize),
    ("RSI", libc::REG_RSI as usize),
    ("RBP", libc::REG_RBP as usize),
    ("RSP", libc::REG_RSP as usize),
    ("R8 ", libc::REG_R8 as usize),
    ("R9 ", libc::REG_R9 as usize),
    ("R10", libc::REG_R10 as usize),
    ("R11", libc::REG_R11 as usize),
    ("R12", libc::REG_R12 as usize),
    ("R13", libc::REG_R13 as usize),
    ("R14", libc::REG_R14 as usize),
    ("R15", libc::REG_R15 as usize),
    ("RIP", INSTRUCTION),
    ("EFL", libc::REG_EFL as usize),
    ("CSGSFS", libc::REG_CSGSFS as usize),
];
#[cfg(target_arch = "x86_64")]
const INSTRUCTION: usize = libc::REG_RIP as usize;

#[cfg(target_arch = "aarch64")]
const REGISTERS: [(&str, usize); 33] = [
    ("X0", 0),
    ("X1", 1),
    ("X2", 2),
    ("X3", 3),
    ("X4", 4),
    ("X5", 5),
    ("X6", 6),
    ("X7", 7),
    ("X8", 8),
    ("X9", 9),
    ("X10", 10),
    ("X11", 11),
    ("X12", 12),
    ("X13", 13),
    ("X14", 14),
    ("X15", 15),
    ("X16", 16),
    ("X17", 17),
    ("X18", 18),
    ("X19", 19),
    ("X20", 20),
    ("X21", 21),
    ("X22", 22),
    ("X23", 23),
    ("X24", 24),
    ("X25", 25),
    ("X26", 26),
    ("X27", 27),
    ("X28", 28),
    ("X29", 29),
    ("X30", 30),
    ("SP", 31),
    ("PC", INSTRUCTION),
];
#[cfg(target_arch = "aarch64")]
const INSTRUCTION: usize = 32;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const REGISTERS: [(&str, usize); 0] = [];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const INSTRUCTION: usize = 0;

/// Places of a context that are kept.
const PLACES: usize = 33;

/// The registers of an interrupted thread, written by a signal handler and read by another thread.
pub struct Registers([AtomicUsize; PLACES]);

impl Registers {
    /// None yet.
    pub const fn new() -> Self {
        Self([const { AtomicUsize::new(0) }; PLACES])
    }

    /// Notes what was interrupted. `context` is the third argument of a handler that was set with
    /// `SA_SIGINFO`.
    pub fn note(&self, context: *mut libc::c_void) {
        if context.is_null() {
            return;
        }
        let context = context.cast::<libc::ucontext_t>();
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: with SA_SIGINFO the kernel passes a valid context of this type.
            let values = unsafe { &(*context).uc_mcontext.gregs };
            for (place, value) in self.0.iter().zip(values) {
                place.store(*value as usize, Relaxed);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            // SAFETY: as above.
            let machine = unsafe { &(*context).uc_mcontext };
            let values = machine.regs.iter().chain([&machine.sp, &machine.pc]);
            for (place, value) in self.0.iter().zip(values) {
                place.store(*value as usize, Relaxed);
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = context;
    }

    /// The address of the instruction that was interrupted; 0 when it is not known.
    pub fn instruction(&self) -> usize {
        self.0[INSTRUCTION].load(Relaxed)
    }

    /// All of them, two a line.
    pub fn text(&self) -> String {
        let value = |place: usize| self.0[place].load(Relaxed);
        let printed = |(name, place): &(&str, usize)| format!("{name}:{:016x}", value(*place));
        let lines = REGISTERS.chunks(2);
        let lines = lines.map(|pair| pair.iter().map(printed).collect::<Vec<_>>().join(" "));
        lines.map(|line| line + "\n").collect()
    }
}

/// The files that are mapped for execution.
pub struct Modules(Vec<Module>);

struct Module {
    start: usize,
    end: usize,
    /// Where in the file `start` lies.
    offset: usize,
    file: String,
}

impl Modules {
    /// Those of this process, now.
    pub fn read() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self(maps.lines().filter_map(module).collect())
    }

    /// An address as its file, the place in it, and the address itself.
    pub fn place(&self, address: usize) -> String {
        let Some(found) = self.0.iter().find(|m| (m.start..m.end).contains(&address)) else {
            return format!("[{address:#x}]");
        };
        // What tools count from is where the file's first byte would be mapped.
        let first = self.0.iter().find(|m| m.file == found.file);
        let first = first.map_or(0, |m| m.start - m.offset);
        format!("{}(+{:#x})[{address:#x}]", found.file, address - first)
    }

    /// A frame on a line of its own for each function that is inlined there, with names where the
    /// binary has them. It may take the allocator's and the linker's locks.
    pub fn name(&self, address: usize) -> String {
        let mut text = String::new();
        backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
            let Some(name) = symbol.name() else {
                return;
            };
            let _ = match text.is_empty() {
                true => write!(text, "{} {name:#}", self.place(address)),
                false => write!(text, "\n    inlined into {name:#}"),
            };
            if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
                let _ = write!(text, " at {}:{line}", file.display());
            }
        });
        match text.is_empty() {
            true => self.place(address),
            false => text,
        }
    }

    /// Frames, named by `name`, innermost first.
    pub fn lines(&self, addresses: &[usize], name: fn(&Self, usize) -> String) -> String {
        let lines = addresses.iter().map(|&address| name(self, address) + "\n");
        lines.collect()
    }
}

/// A line of `/proc/self/maps` that maps a file.
fn module(line: &str) -> Option<Module> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let file = words.nth(2)?.to_owned();
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(Module {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        file,
    })
}

static STUCK: Stack = Stack::new();

extern "C" fn on_watchdog(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    STUCK.capture();
}

/// Makes [`stack_of`] work, or stops it from interrupting anyone.
pub fn watch_stacks(enabled: bool) {
    if enabled {
        prime();
        let flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        set_action(libc::SIGALRM, on_watchdog as *const () as usize, flags);
    } else {
        set_action(libc::SIGALRM, libc::SIG_IGN, 0);
    }
}

/// The stack of another thread of this process, one frame a line. Only one thread may ask, after
/// [`watch_stacks`]. A thread that does not run user code in time has an empty one.
pub fn stack_of(thread: i32) -> String {
    STUCK.ready.store(false, Release);
    STUCK.len.store(0, Relaxed);
    // SAFETY: plain system call; a thread that is gone makes it fail.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            libc::c_long::from(libc::getpid()),
            libc::c_long::from(thread),
            libc::c_long::from(libc::SIGALRM),
        )
    };
    let mut tries = 0;
    while sent == 0 && !STUCK.ready.load(Acquire) && tries < 200 {
        std::thread::sleep(Duration::from_millis(1));
        tries += 1;
    }
    Modules::read().lines(&STUCK.addresses(), Modules::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_by_file_and_offset() {
        let line = "1000-3000 r-xp 00000800 08:01 42    /bin/some";
        let modules = Modules(module(line).into_iter().collect());
        assert_eq!(modules.place(0x1010), "/bin/some(+0x810)[0x1010]");
        assert_eq!(modules.place(0x10), "[0x10]");
        assert!(module("1000-3000 rw-p 00000000 00:00 0").is_none());
    }

    #[test]
    fn another_threads_stack() {
        watch_stacks(true);
        let me = thread_id();
        let asked = std::thread::spawn(move || stack_of(me));
        while !asked.is_finished() {
            std::hint::spin_loop();
        }
        let text = asked.join().expect("the thread asks");
        assert!(text.lines().count() > 2, "{text}");
        assert!(text.contains("another_threads_stack"), "{text}");
    }

    #[test]
    fn registers_are_printed_two_a_line() {
        let registers = Registers::new();
        let text = registers.text();
        assert_eq!(text.lines().count(), REGISTERS.len().div_ceil(2));
        assert_eq!(registers.instruction(), 0);
    }
}
