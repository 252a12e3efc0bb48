//! `--check-system`: whether this machine suits the server, check by check.
//!
//! The checks have Redis' names. What matters to it because it forks (overcommitted memory, huge
//! pages that are copied on write) is checked all the same, as the file of a configuration
//! management may ask for it, but said in terms of this server.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::observe::process::CpuTime;

/// What a check found: `Ok(true)` nothing, `Ok(false)` that it cannot tell.
type Finding = Result<bool, String>;

/// What looks for it.
type Check = fn() -> Finding;

const CHECKS: &[(&str, Check)] = &[
    ("slow-clocksource", slow_clock),
    ("xen-clocksource", xen_clock),
    ("overcommit", overcommit),
    ("THP", huge_pages),
];

/// Runs all checks, says what each found, and fails if one found something.
pub fn run() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, check) in CHECKS {
        match check() {
            Ok(true) => println!("[{name}]...OK"),
            Ok(false) => println!("[{name}]...skipped"),
            Err(text) => {
                println!("[{name}]...WARNING:\n{text}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Reading the time must not need the kernel: it is read at every turn.
fn slow_clock() -> Finding {
    let before = CpuTime::of_process();
    let start = Instant::now();
    // Some ticks of the kernel's accounting.
    while start.elapsed() < Duration::from_millis(100) {}
    let after = CpuTime::of_process();
    let (user, system) = (after.user - before.user, after.system - before.system);
    if system * 10.0 <= user + system {
        return Ok(true);
    }
    let name = |file: &str| read(&format!("{CLOCKS}/{file}")).unwrap_or_default();
    Err(format!(
        "Reading the system's clock is slow, which costs time at every turn. The present clock is \
         {}; there are: {}. To choose one, write its name to {CLOCKS}/current_clocksource as root, \
         and give clocksource= to the kernel to keep it.",
        name("current_clocksource"),
        name("available_clocksource"),
    ))
}

fn xen_clock() -> Finding {
    match read(&format!("{CLOCKS}/current_clocksource")).as_deref() {
        None => Ok(false),
        Some("xen") => Err(
            "The system's clock is 'xen', which is slow on many machines; see what \
             [slow-clocksource] says."
                .to_owned(),
        ),
        Some(_) => Ok(true),
    }
}

/// No process is forked here, so that memory need not be promised twice; but a kernel that never
/// overcommits also refuses the address space that tables reserve.
fn overcommit() -> Finding {
    match read("/proc/sys/vm/overcommit_memory").as_deref() {
        None => Ok(false),
        Some("2") => Err(
            "Memory is never overcommitted (vm.overcommit_memory = 2): the server may be refused \
             memory long before there is none. To change that, run \
             'sysctl vm.overcommit_memory=1' as root, and put the setting into /etc/sysctl.conf."
                .to_owned(),
        ),
        Some(_) => Ok(true),
    }
}

fn huge_pages() -> Finding {
    match read("/sys/kernel/mm/transparent_hugepage/enabled") {
        None => Ok(false),
        Some(modes) if modes.contains("[always]") => Err(
            "Transparent huge pages are used always, which makes processes bigger than they need \
             to be. The server asks for them where they help; to leave it that, write 'madvise' to \
             /sys/kernel/mm/transparent_hugepage/enabled as root before it is started."
                .to_owned(),
        ),
        Some(_) => Ok(true),
    }
}
