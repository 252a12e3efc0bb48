//! What is left when the server dies: a report in the log, and a way out with the right status.
//!
//! Two ways lead here. A panic runs [`install`]'s hook on the thread that panicked. A fatal signal
//! runs [`on_fatal`], which does nothing but what is allowed in a signal handler: it notes what
//! happened in atomics, wakes the reporter thread through a pipe, waits for it with a limit, and
//! raises the signal again with its default action. So the report is written by a thread that was
//! not interrupted in the middle of anything.
//!
//! The dead thread may hold locks, of the keyspace or of the allocator. What needs those of the
//! keyspace (INFO, the clients) is therefore asked of another thread with a time limit, and the
//! handler waits for the whole report no longer than [`REPORT_LIMIT_MS`]: a crash may cost its
//! report but never hangs.
//!
//! Addresses of a signal's stack are printed as `file(+offset)[address]`, which `addr2line -e file
//! offset` turns into names and lines; a panic's are resolved at once.

use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::mpsc::channel;
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use crate::base::clock;
use crate::commands::info;
use crate::config::{Flags, PARAMS, REDIS_VERSION};
use crate::dispatch::context::Shared;
use crate::observe::log;

/// How long a crashed thread waits for the report, in milliseconds.
const REPORT_LIMIT_MS: i32 = 10_000;
/// How long one part of the report may take.
const PART_LIMIT: Duration = Duration::from_secs(2);
/// Memory that the fast memory test goes through, in bytes.
const MEMORY_TEST_BYTES: usize = 16 << 20;

const FATAL: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Frames of a stack that are kept.
const DEPTH: usize = 64;

/// A stack, written by a signal handler and read by another thread.
struct Stack {
    frames: [AtomicUsize; DEPTH],
    len: AtomicUsize,
    ready: AtomicBool,
}

impl Stack {
    const fn new() -> Self {
        Self {
            frames: [const { AtomicUsize::new(0) }; DEPTH],
            len: AtomicUsize::new(0),
            ready: AtomicBool::new(false),
        }
    }

    /// Notes the stack of the calling thread.
    fn capture(&self) {
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

    fn addresses(&self) -> Vec<usize> {
        let len = self.len.load(Relaxed).min(DEPTH);
        self.frames[..len].iter().map(|f| f.load(Relaxed)).collect()
    }
}

/// The signal that is being reported.
struct Fatal {
    /// Raised by the first thread that dies; the others only wait.
    begun: AtomicBool,
    /// That thread.
    thread: AtomicI32,
    signal: AtomicI32,
    code: AtomicI32,
    address: AtomicUsize,
    instruction: AtomicUsize,
    pid: AtomicI32,
    uid: AtomicI32,
    stack: Stack,
    /// Write end of the pipe that wakes the reporter; -1 before there is one.
    wake: AtomicI32,
    reported: AtomicBool,
}

static CRASH: Fatal = Fatal {
    begun: AtomicBool::new(false),
    thread: AtomicI32::new(0),
    signal: AtomicI32::new(0),
    code: AtomicI32::new(0),
    address: AtomicUsize::new(0),
    instruction: AtomicUsize::new(0),
    pid: AtomicI32::new(0),
    uid: AtomicI32::new(0),
    stack: Stack::new(),
    wake: AtomicI32::new(-1),
    reported: AtomicBool::new(false),
};

/// Makes this process report its end: panics from now on, and fatal signals when
/// `crash-log-enabled` says so.
pub fn install(shared: &Arc<Shared>) {
    if SHARED.set(Arc::clone(shared)).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(on_panic));
    handle_signals(shared.config.settings().crash_log_enabled);
}

/// Has fatal signals reported, or lets them end the process at once.
pub fn handle_signals(enabled: bool) {
    static REPORTER: Once = Once::new();
    if enabled {
        prime();
        REPORTER.call_once(start_reporter);
    }
    for signal in FATAL {
        if enabled {
            let flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            set_action(signal, on_fatal as *const () as usize, flags);
        } else {
            set_action(signal, libc::SIG_DFL, 0);
        }
    }
}

/// Hang-ups and broken pipes are no reason to end.
pub fn ignore_hangups() {
    set_action(libc::SIGHUP, libc::SIG_IGN, 0);
    set_action(libc::SIGPIPE, libc::SIG_IGN, 0);
}

fn set_action(signal: i32, handler: usize, flags: i32) {
    // SAFETY: a zeroed sigaction is a valid one with an empty mask. The handler is a default
    // action, or a function of this module with the signature that SA_SIGINFO asks for and that
    // does only what a handler may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Walks a stack once outside of any handler: the first walk loads the unwinder and allocates.
fn prime() {
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

// ---- Signals ------------------------------------------------------------------------------------

/// The handler of fatal signals. Everything in it is async-signal-safe: atomics, `write(2)`,
/// `poll(2)`, `sigaction(2)`, `kill(2)`, and a walk of the stack.
extern "C" fn on_fatal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let first = !CRASH.begun.swap(true, Acquire);
    if first {
        CRASH.thread.store(thread_id(), Relaxed);
        CRASH.signal.store(signal, Relaxed);
        // SAFETY: with SA_SIGINFO the kernel passes a valid description of the signal.
        unsafe {
            CRASH.code.store((*info).si_code, Relaxed);
            CRASH.address.store((*info).si_addr().addr(), Relaxed);
            CRASH.pid.store((*info).si_pid(), Relaxed);
            CRASH.uid.store((*info).si_uid() as i32, Relaxed);
        }
        CRASH.instruction.store(instruction(context), Relaxed);
        CRASH.stack.capture();
    }
    // A second fault of the same thread means that its stack cannot be walked: then the report
    // goes without.
    let wake = CRASH.wake.load(Acquire);
    if wake >= 0 && CRASH.thread.load(Relaxed) == thread_id() {
        // SAFETY: one byte of a constant to a descriptor that is never closed.
        unsafe { libc::write(wake, b"!".as_ptr().cast(), 1) };
    }
    let mut waited = 0;
    while !CRASH.reported.load(Acquire) && waited < REPORT_LIMIT_MS {
        // SAFETY: no descriptors, so this only sleeps.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 10) };
        waited += 10;
    }
    set_action(signal, libc::SIG_DFL, 0);
    // SAFETY: signals this process; it ends here or, for a signal that is only delivered later,
    // when the handler returns.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// The address of the instruction that was interrupted; 0 when this machine is not known.
fn instruction(context: *mut libc::c_void) -> usize {
    if context.is_null() {
        return 0;
    }
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: with SA_SIGINFO the kernel passes a valid context of this type.
    return unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize;
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    return unsafe { (*context).uc_mcontext.pc } as usize;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        0
    }
}

fn start_reporter() {
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return;
    };
    let thread = std::thread::Builder::new().name("reporter".to_owned());
    let started = thread.spawn(move || wait_for_crash(read));
    if started.is_ok() {
        // The descriptor stays open for as long as the process lives.
        CRASH.wake.store(write.into_raw_fd(), Release);
    }
}

fn wait_for_crash(pipe: OwnedFd) {
    let mut byte = [0];
    if std::fs::File::from(pipe).read_exact(&mut byte).is_err() {
        return;
    }
    report_signal();
    CRASH.reported.store(true, Release);
}

fn report_signal() {
    let signal = CRASH.signal.load(Relaxed);
    let code = CRASH.code.load(Relaxed);
    begin();
    tracing::warn!("Redis {REDIS_VERSION} crashed by signal: {signal}, si_code: {code}");
    if signal == libc::SIGSEGV || signal == libc::SIGBUS {
        tracing::warn!("Accessing address: {:#x}", CRASH.address.load(Relaxed));
    }
    if code == libc::SI_USER {
        tracing::warn!(
            "Killed by PID: {}, UID: {}",
            CRASH.pid.load(Relaxed),
            CRASH.uid.load(Relaxed)
        );
    }
    let instruction = CRASH.instruction.load(Relaxed);
    if instruction != 0 {
        tracing::warn!("Crashed running the instruction at: {instruction:#x}");
    }
    let mut text = "\n------ STACK TRACE ------\n".to_owned();
    let modules = Modules::read();
    if instruction != 0 {
        let _ = write!(text, "EIP:\n{}\n", modules.name(instruction));
    }
    text.push_str("\nBacktrace:\n");
    text.push_str(&modules.lines(&CRASH.stack.addresses()));
    log::raw(&text);
    details();
    end();
}

// ---- Panics -------------------------------------------------------------------------------------

/// The hook of panics: reports, and ends the process.
fn on_panic(panic: &PanicHookInfo<'_>) {
    if CRASH.begun.swap(true, Acquire) {
        // Another thread is reporting; it ends the process when it is done.
        std::thread::sleep(Duration::from_millis(REPORT_LIMIT_MS as u64));
        std::process::abort();
    }
    // What goes wrong from here on ends the process at once.
    handle_signals(false);
    let settings = SHARED.get().map(|shared| shared.config.load());
    begin();
    let (file, line) = panic.location().map_or(("?", 0), |l| (l.file(), l.line()));
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    for text in describe(message, file, line) {
        tracing::warn!("{text}");
    }
    if settings.as_ref().is_none_or(|s| s.crash_log_enabled) {
        let trace = std::backtrace::Backtrace::force_capture();
        log::raw(&format!(
            "\n------ STACK TRACE ------\n\nBacktrace:\n{trace}"
        ));
        details();
    }
    end();
    if settings.is_some_and(|s| s.use_exit_on_panic) {
        // Destructors and exit handlers could only make it worse.
        // SAFETY: ends the process without running any code of it.
        unsafe { libc::_exit(1) };
    }
    std::process::abort();
}

/// The lines of a panic: an assertion with its condition, anything else with its message.
fn describe(message: &str, file: &str, line: u32) -> Vec<String> {
    if let Some(condition) = message.strip_prefix("assertion failed: ") {
        return vec![
            "=== ASSERTION FAILED ===".to_owned(),
            format!("==> {file}:{line} '{condition}' is not true"),
        ];
    }
    if let Some(rest) = message.strip_prefix("assertion `")
        && let Some((condition, values)) = rest.split_once("` failed")
    {
        let values = values.split_whitespace().collect::<Vec<_>>().join(" ");
        return vec![
            "=== ASSERTION FAILED ===".to_owned(),
            format!("==> {file}:{line} '{condition}' is not true {values}"),
        ];
    }
    vec![
        "------------------------------------------------".to_owned(),
        "!!! Software Failure. Press left mouse button to continue".to_owned(),
        format!("Guru Meditation: {message} #{file}:{line}"),
    ]
}

// ---- The report ---------------------------------------------------------------------------------

fn begin() {
    log::raw("\n\n=== REDIS BUG REPORT START: Cut & paste starting from here ===\n");
}

fn end() {
    log::raw(
        "\n=== REDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
         \x20      Please report the crash by opening an issue with the authors of this server.\n\n\
         \x20 Suspect RAM error? Use redis-server --test-memory to verify it.\n\n\
         \x20 Some other issues could be detected by redis-server --check-system\n",
    );
    let Some(shared) = SHARED.get() else {
        return;
    };
    let settings = shared.config.settings();
    if settings.daemonize && !super::process::supervised() && !settings.pidfile.is_empty() {
        // A file that is gone already is as good.
        let _ = std::fs::remove_file(settings.pidfile.as_path());
    }
}

/// State of the server, clients, parameters and memory, as far as they can be had.
fn details() {
    let Some(shared) = SHARED.get() else {
        return;
    };
    part("INFO OUTPUT", || info::report(shared));
    part("CLIENT LIST OUTPUT", || client_list(shared));
    part("CONFIG DEBUG OUTPUT", || debug_parameters(shared));
    if shared.config.settings().crash_memcheck_enabled {
        part("FAST MEMORY TEST", test_memory);
    }
}

/// Logs a part of the report. It is made by another thread, because the dead one may hold a lock
/// that is needed.
fn part(title: &str, make: impl FnOnce() -> String + Send + 'static) {
    let (sender, text) = channel();
    let thread = std::thread::Builder::new().name("report".to_owned());
    let started = thread.spawn(move || sender.send(make()));
    let text = match started {
        Ok(_) => text.recv_timeout(PART_LIMIT).ok(),
        Err(_) => None,
    };
    let text = text
        .as_deref()
        .unwrap_or("(not available: the thread that crashed holds a lock that is needed for it)\n");
    log::raw(&format!("\n------ {title} ------\n{text}"));
}

fn client_list(shared: &Shared) -> String {
    let now_ms = clock::unix_ms();
    let name = |id: u32| shared.commands.get(id as usize).full_name.clone();
    let mut text = String::new();
    for client in shared.clients.all() {
        text.push_str(&client.describe(now_ms, &name));
        text.push('\n');
    }
    text
}

/// Parameters that are worth knowing when something went wrong.
fn debug_parameters(shared: &Shared) -> String {
    let settings = shared.config.load();
    let mut text = String::new();
    for param in PARAMS.iter().filter(|p| p.flags.has(Flags::DEBUG)) {
        let value = param.print(&settings);
        let _ = writeln!(text, "{} {}", param.name, String::from_utf8_lossy(&value));
    }
    text
}

/// Writes patterns to fresh memory and reads them back. Memory in use is left alone: other
/// threads still run on it.
fn test_memory() -> String {
    let mut memory: Vec<u64> = Vec::new();
    if memory.try_reserve_exact(MEMORY_TEST_BYTES / 8).is_err() {
        return "No memory to test.\n".to_owned();
    }
    memory.resize(MEMORY_TEST_BYTES / 8, 0);
    for pattern in [0, u64::MAX, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa] {
        for (i, word) in memory.iter_mut().enumerate() {
            *word = pattern ^ i as u64;
        }
        // Keeps the compiler from knowing what was written.
        let memory = std::hint::black_box(&mut memory);
        let mut words = memory.iter().enumerate();
        if words.any(|(i, word)| *word != pattern ^ i as u64) {
            return "!!! MEMORY ERROR DETECTED! Check your memory ASAP !!!\n".to_owned();
        }
    }
    format!(
        "Fast memory test of {} MB PASSED, however your memory can still be broken. Please run a \
         memory test for several hours if possible.\n",
        MEMORY_TEST_BYTES >> 20
    )
}

// ---- Stacks -------------------------------------------------------------------------------------

/// The files that are mapped for execution: start, end, offset in the file, name.
struct Modules(Vec<(usize, usize, usize, String)>);

impl Modules {
    fn read() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self(maps.lines().filter_map(module).collect())
    }

    /// An address as its file, the place in it, and the address itself.
    fn name(&self, address: usize) -> String {
        let found = self
            .0
            .iter()
            .find(|(start, end, ..)| (*start..*end).contains(&address));
        match found {
            Some((start, _, offset, file)) => {
                // What tools count from is where the file's first byte would be mapped.
                let first = self
                    .0
                    .iter()
                    .find(|(.., name)| name == file)
                    .map_or(start - offset, |(start, _, offset, _)| start - offset);
                format!("{file}(+{:#x})[{address:#x}]", address - first)
            }
            None => format!("[{address:#x}]"),
        }
    }

    fn lines(&self, addresses: &[usize]) -> String {
        let mut text = String::new();
        for &address in addresses {
            let _ = writeln!(text, "{}", self.name(address));
        }
        text
    }
}

/// A line of `/proc/self/maps` that maps a file.
fn module(line: &str) -> Option<(usize, usize, usize, String)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let file = words.nth(2)?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((
        number(start)?,
        number(end)?,
        number(offset)?,
        file.to_owned(),
    ))
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
    Modules::read().lines(&STUCK.addresses())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_reads_like_redis() {
        assert_eq!(
            describe("assertion failed: a == b", "x.rs", 7)[1],
            "==> x.rs:7 'a == b' is not true"
        );
        assert_eq!(
            describe(
                "assertion `left == right` failed\n  left: 1\n right: 2",
                "x.rs",
                7
            )[1],
            "==> x.rs:7 'left == right' is not true left: 1 right: 2"
        );
        assert_eq!(describe("no", "x.rs", 7)[2], "Guru Meditation: no #x.rs:7");
    }

    #[test]
    fn addresses_are_told_by_file_and_offset() {
        let line = "1000-3000 r-xp 00000800 08:01 42    /bin/some";
        let modules = Modules(module(line).into_iter().collect());
        assert_eq!(modules.name(0x1010), "/bin/some(+0x810)[0x1010]");
        assert_eq!(modules.name(0x10), "[0x10]");
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
    }
}
