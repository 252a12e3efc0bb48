//! The process title: what `ps` shows, written over the memory that held the arguments.
//!
//! The kernel shows the bytes from the start of the arguments; when the last byte of their area is
//! no longer NUL it reads on into the area of the environment. So a title may be as long as both
//! together, once the environment lives elsewhere: [`Title::capture`] moves it to the heap.
//!
//! Invariant: the areas are told by the kernel in `/proc/self/stat`; without it, or when they are
//! not one behind the other, the process keeps the title it was started with.

use std::ffi::OsString;

use crate::config::Settings;
use crate::config::proc_title::expand;

/// The memory that holds the title.
pub struct Title {
    start: *mut u8,
    /// Bytes that held the arguments; what decides how the kernel reads is the last of them.
    arguments: usize,
    /// Bytes in all, the closing NUL included.
    len: usize,
    /// The program as it was called.
    program: Vec<u8>,
}

impl Title {
    /// Takes over the memory of arguments and environment. Must be called before any thread is
    /// started and after the arguments were read.
    pub fn capture(program: Vec<u8>) -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let [arg_start, arg_end, env_start, env_end] = areas(&stat)?;
        if arg_start == 0 || arg_end <= arg_start || env_start != arg_end || env_end < env_start {
            return None;
        }
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
        unsafe {
            libc::clearenv();
            for (name, value) in variables {
                std::env::set_var(name, value);
            }
        }
        Some(Self {
            start: std::ptr::with_exposed_provenance_mut(arg_start),
            arguments: arg_end - arg_start,
            len: env_end - arg_start,
            program,
        })
    }

    /// Writes the title that the parameters describe.
    pub fn set(&mut self, settings: &Settings, config_file: &[u8]) {
        if !settings.set_proc_title {
            return;
        }
        let template = &settings.proc_title_template;
        if let Some(title) = expand(settings, template, &self.program, config_file) {
            self.write(&title);
        }
    }

    fn write(&mut self, title: &[u8]) {
        let len = title.len().min(self.len - 1);
        let mark = self.arguments - 1;
        // SAFETY: the kernel mapped these bytes, readable and writable, for arguments and
        // environment; they stay mapped for as long as the process lives. The arguments were read
        // and the environment was moved, so nothing of this program refers to them, except that
        // the C library may print its first bytes as the program's name; the last byte is always
        // NUL, so that reads a title. `&mut self` is the only way to write here.
        unsafe {
            std::ptr::write_bytes(self.start, 0, self.len);
            std::ptr::copy_nonoverlapping(title.as_ptr(), self.start, len);
            // A last byte that is NUL would have the kernel show all the NULs before it.
            if len < mark {
                self.start.add(mark).write(b'.');
            } else if len == mark && mark + 2 <= self.len {
                self.start.add(mark).write(b' ');
            }
        }
    }
}

/// Fields 48 to 51 of `/proc/self/stat`: start and end of the arguments, then of the environment.
fn areas(stat: &str) -> Option<[usize; 4]> {
    // The name in parentheses may hold anything; what follows it are numbers, from field 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let mut areas = [0; 4];
    for (area, field) in areas.iter_mut().zip(fields.get(45..49)?) {
        *area = field.parse().ok()?;
    }
    Some(areas)
}

#[cfg(test)]
mod tests {
    use super::areas;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let rest: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("17 (a ) b) {}\n", rest.join(" "));
        assert_eq!(areas(&stat), Some([48, 49, 50, 51]));
        assert_eq!(areas("17 (a) 1 2 3"), None);
    }
}
