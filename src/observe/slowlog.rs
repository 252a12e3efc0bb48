//! SLOWLOG: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Arguments kept of one command, the last being a remark about those left out.
const MAX_ARGS: usize = 32;
/// Bytes kept of one argument.
const MAX_ARG_BYTES: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    /// Ascending.
    pub id: u64,
    /// Unix time in seconds.
    pub time: i64,
    /// Duration in microseconds.
    pub micros: u64,
    /// The command, shortened.
    pub args: Vec<Vec<u8>>,
    /// Address of the client.
    pub address: String,
    /// Name of the client.
    pub name: Vec<u8>,
}

#[derive(Default)]
struct Log {
    next_id: u64,
    entries: VecDeque<SlowEntry>,
}

/// The log, newest first.
#[derive(Default)]
pub struct SlowLog {
    log: Mutex<Log>,
}

impl SlowLog {
    /// Adds a command and cuts the log to `max_len` entries.
    pub fn record(
        &self,
        time: i64,
        micros: u64,
        args: &[&[u8]],
        client: (&str, &[u8]),
        max_len: usize,
    ) {
        let mut log = self.log.lock();
        let id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(SlowEntry {
            id,
            time,
            micros,
            args: shortened(args),
            address: client.0.to_owned(),
            name: client.1.to_vec(),
        });
        log.entries.truncate(max_len);
    }

    /// The newest `count` entries.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.log
            .lock()
            .entries
            .iter()
            .take(count)
            .cloned()
            .collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.log.lock().entries.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SLOWLOG RESET; ids go on.
    pub fn reset(&self) {
        self.log.lock().entries.clear();
    }

    /// Cuts the log, after `slowlog-max-len` was lowered.
    pub fn truncate(&self, max_len: usize) {
        self.log.lock().entries.truncate(max_len);
    }
}

fn shortened(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let kept = if args.len() > MAX_ARGS {
        MAX_ARGS - 1
    } else {
        args.len()
    };
    let mut result: Vec<Vec<u8>> = args[..kept].iter().map(|arg| shortened_arg(arg)).collect();
    if kept < args.len() {
        result.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    result
}

fn shortened_arg(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= MAX_ARG_BYTES {
        return arg.to_vec();
    }
    let mut kept = arg[..MAX_ARG_BYTES].to_vec();
    kept.extend_from_slice(format!("... ({} more bytes)", arg.len() - MAX_ARG_BYTES).as_bytes());
    kept
}
