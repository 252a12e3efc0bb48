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
//! Stacks, registers and the names of functions: [`super::stack`].

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

use super::memory_test::{self, Outcome};
use super::stack::{self, Modules, Registers, Stack, set_action};
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

/// The signal that is being reported.
struct Fatal {
    /// Raised by the first thread that dies; the others only wait.
    begun: AtomicBool,
    /// That thread.
    thread: AtomicI32,
    signal: AtomicI32,
    code: AtomicI32,
    address: AtomicUsize,
    registers: Registers,
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
    registers: Registers::new(),
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
        stack::prime();
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

// ---- Signals ------------------------------------------------------------------------------------

/// The handler of fatal signals. Everything in it is async-signal-safe: atomics, `write(2)`,
/// `poll(2)`, `sigaction(2)`, `kill(2)`, and a walk of the stack.
extern "C" fn on_fatal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let first = !CRASH.begun.swap(true, Acquire);
    if first {
        CRASH.thread.store(stack::thread_id(), Relaxed);
        CRASH.signal.store(signal, Relaxed);
        // SAFETY: with SA_SIGINFO the kernel passes a valid description of the signal.
        unsafe {
            CRASH.code.store((*info).si_code, Relaxed);
            CRASH.address.store((*info).si_addr().addr(), Relaxed);
            CRASH.pid.store((*info).si_pid(), Relaxed);
            CRASH.uid.store((*info).si_uid() as i32, Relaxed);
        }
        CRASH.registers.note(context);
        CRASH.stack.capture();
    }
    // A second fault of the same thread means that its stack cannot be walked: then the report
    // goes without.
    let wake = CRASH.wake.load(Acquire);
    if wake >= 0 && CRASH.thread.load(Relaxed) == stack::thread_id() {
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
    let instruction = CRASH.registers.instruction();
    if instruction != 0 {
        tracing::warn!("Crashed running the instruction at: {instruction:#x}");
    }
    log::raw("\n------ STACK TRACE ------\n");
    // Naming reads the binary's symbols and takes locks that the dead thread may hold: then the
    // addresses have to do.
    match made(|| stack_text(Modules::name)) {
        Some(text) => log::raw(&text),
        None => log::raw(&stack_text(Modules::place)),
    }
    log::raw(&format!(
        "\n------ REGISTERS ------\n{}",
        CRASH.registers.text()
    ));
    details();
    end();
}

/// The stack of the thread that crashed, its frames named by `name`.
fn stack_text(name: fn(&Modules, usize) -> String) -> String {
    let (modules, instruction) = (Modules::read(), CRASH.registers.instruction());
    let mut text = String::new();
    if instruction != 0 {
        let _ = writeln!(text, "EIP:\n{}", name(&modules, instruction));
    }
    text.push_str("\nBacktrace:\n");
    text.push_str(&modules.lines(&CRASH.stack.addresses(), name));
    text
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
    part("WORKERS", || worker_list(shared));
    part("INFO OUTPUT", || info::report(shared));
    part("CLIENT LIST OUTPUT", || client_list(shared));
    part("CONFIG DEBUG OUTPUT", || debug_parameters(shared));
    if shared.config.settings().crash_memcheck_enabled {
        part("FAST MEMORY TEST", test_memory);
    }
}

/// A text made by another thread, because the dead one may hold a lock that is needed; `None`
/// when that takes too long.
fn made(make: impl FnOnce() -> String + Send + 'static) -> Option<String> {
    let (sender, text) = channel();
    let thread = std::thread::Builder::new().name("report".to_owned());
    let started = thread.spawn(move || sender.send(make()));
    started
        .ok()
        .and_then(|_| text.recv_timeout(PART_LIMIT).ok())
}

/// Logs a part of the report.
fn part(title: &str, make: impl FnOnce() -> String + Send + 'static) {
    let text = made(make);
    let text = text
        .as_deref()
        .unwrap_or("(not available: the thread that crashed holds a lock that is needed for it)\n");
    log::raw(&format!("\n------ {title} ------\n{text}"));
}

/// What each worker runs: the last command of its present turn, if it is in one.
fn worker_list(shared: &Shared) -> String {
    let mut text = String::new();
    for index in 0..shared.status.workers {
        let stats = shared.stats.worker(index);
        let command = match stats.running.load(Relaxed) {
            0 => "none".to_owned(),
            id => shared.commands.get(id as usize - 1).full_name.to_string(),
        };
        let commands = stats.counters.commands.load(Relaxed);
        let _ = writeln!(
            text,
            "worker-{index}: command={command} commands={commands}"
        );
    }
    text
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

/// Tests fresh memory. Memory in use is left alone: other threads still run on it.
fn test_memory() -> String {
    match memory_test::test(MEMORY_TEST_BYTES, |_, _| {}) {
        Outcome::Sound => format!(
            "Fast memory test of {} MB PASSED, however your memory can still be broken. Please \
             run a memory test for several hours if possible.\n",
            MEMORY_TEST_BYTES >> 20
        ),
        Outcome::Bad(_) => "!!! MEMORY ERROR DETECTED! Check your memory ASAP !!!\n".to_owned(),
        Outcome::NoMemory => "No memory to test.\n".to_owned(),
    }
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
}
