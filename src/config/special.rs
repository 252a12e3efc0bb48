//! Parameters with a syntax of their own: save points, output buffer limits, events, addresses.
//!
//! `dir` is the one parameter whose reading acts on the world: it changes the working directory at
//! once, because an `include` on a later line is relative to it.

use std::ops::Deref;
use std::path::Path;

use super::number::{
    c_string, format_decimal, format_memory, parse_c_integer, parse_decimal, parse_memory,
};
use super::value::{Line, Origin, Param, Text, Value, quoted_line, single};

/// `save`: start a snapshot when this many changes happened in this many seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavePoint {
    /// Age of the last snapshot in seconds, at least 1.
    pub seconds: u64,
    /// Changes since the last snapshot.
    pub changes: u32,
}

impl SavePoint {
    /// A point of `seconds` and `changes`.
    pub const fn new(seconds: u64, changes: u32) -> SavePoint {
        SavePoint { seconds, changes }
    }
}

impl Value for Vec<SavePoint> {
    fn parse(&self, _: &Param, args: &[Vec<u8>], origin: &mut Origin) -> Result<Self, String> {
        let invalid = || "Invalid save parameters".to_owned();
        let clear = matches!(args, [arg] if c_string(arg).is_empty());
        let args = if clear { &[] } else { args };
        let mut points = Vec::new();
        let (pairs, rest) = args.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(invalid());
        }
        for [seconds, changes] in pairs {
            let seconds = parse_c_integer(seconds, 10, true).ok_or_else(invalid)?;
            let changes = parse_c_integer(changes, 10, true).ok_or_else(invalid)?;
            if seconds < 1 || changes < 0 {
                return Err(invalid());
            }
            let changes = changes.min(i64::from(i32::MAX)) as u32;
            points.push(SavePoint::new(seconds as u64, changes));
        }
        // Lines of a file add up; only the first of them replaces the defaults.
        let keep = origin.reading_file && origin.save_seen && !clear;
        origin.save_seen |= origin.reading_file;
        let mut result = if keep { self.clone() } else { Vec::new() };
        result.append(&mut points);
        Ok(result)
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        join(self.iter().map(|p| format!("{} {}", p.seconds, p.changes)))
    }

    fn lines(&self, _: &Self, param: &Param) -> Vec<Line> {
        let line = |value: String| Line {
            text: format!("{} {value}", param.name).into_bytes(),
            force: true,
        };
        if self.is_empty() {
            return vec![line("\"\"".to_owned())];
        }
        self.iter()
            .map(|p| line(format!("{} {}", p.seconds, p.changes)))
            .collect()
    }
}

/// `client-output-buffer-limit` of one class of clients. The classes are normal, replica, pubsub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputLimit {
    /// Close at once above this many bytes; 0 is no limit.
    pub hard_bytes: u64,
    /// Close when above this many bytes for `soft_seconds`; 0 is no limit.
    pub soft_bytes: u64,
    /// Seconds that the soft limit may be exceeded.
    pub soft_seconds: u32,
}

impl OutputLimit {
    /// Index of normal clients (MONITOR included).
    pub const NORMAL: usize = 0;
    /// Index of replicas.
    pub const REPLICA: usize = 1;
    /// Index of clients that subscribed to something.
    pub const PUBSUB: usize = 2;

    /// A limit from its three numbers.
    pub const fn new(hard_bytes: u64, soft_bytes: u64, soft_seconds: u32) -> OutputLimit {
        OutputLimit {
            hard_bytes,
            soft_bytes,
            soft_seconds,
        }
    }
}

fn output_class(name: &[u8]) -> Option<usize> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Some(OutputLimit::NORMAL),
        b"slave" | b"replica" => Some(OutputLimit::REPLICA),
        b"pubsub" => Some(OutputLimit::PUBSUB),
        _ => None,
    }
}

impl Value for [OutputLimit; 3] {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        let mut limits = *self;
        let (groups, rest) = args.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        for [class, hard, soft, seconds] in groups {
            let class = output_class(class).ok_or_else(|| {
                "Invalid client class specified in buffer limit configuration.".to_owned()
            })?;
            let limit = || {
                let seconds = parse_c_integer(seconds, 10, true)? as i32;
                let seconds = u32::try_from(seconds).ok()?;
                Some(OutputLimit::new(
                    parse_memory(hard)?,
                    parse_memory(soft)?,
                    seconds,
                ))
            };
            limits[class] = limit().ok_or_else(|| {
                "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                    .to_owned()
            })?;
        }
        Ok(limits)
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        let classes = ["normal", "slave", "pubsub"].into_iter().zip(self);
        join(classes.map(|(class, limit)| {
            format!(
                "{class} {} {} {}",
                limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
            )
        }))
    }

    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        let classes = ["normal", "replica", "pubsub"].into_iter().enumerate();
        let line = |(index, class): (usize, &str)| {
            let limit = self[index];
            let (hard, soft) = (
                format_memory(limit.hard_bytes),
                format_memory(limit.soft_bytes),
            );
            Line {
                text: format!(
                    "{} {class} {hard} {soft} {}",
                    param.name, limit.soft_seconds
                )
                .into(),
                force: limit != default[index],
            }
        };
        classes.map(line).collect()
    }
}

/// `oom-score-adj-values`: for a primary, a replica, and a process that saves.
impl Value for [i32; 3] {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        let [a, b, c] = args else {
            return Err("wrong number of arguments".to_owned());
        };
        let value = |arg: &[u8]| {
            let value = parse_c_integer(arg, 10, true).filter(|v| (-2000..=2000).contains(v));
            value.map(|v| v as i32).ok_or_else(|| {
                "Invalid oom-score-adj-values, elements must be between -2000 and 2000.".to_owned()
            })
        };
        Ok([value(a)?, value(b)?, value(c)?])
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        join(self.iter().map(i32::to_string))
    }
}

/// `notify-keyspace-events`: classes of events that are published, and in which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NotifyFlags(pub u32);

impl NotifyFlags {
    /// `K`: publish under the key's name.
    pub const KEYSPACE: NotifyFlags = NotifyFlags(1 << 0);
    /// `E`: publish under the event's name.
    pub const KEYEVENT: NotifyFlags = NotifyFlags(1 << 1);
    /// `g`: commands of no type.
    pub const GENERIC: NotifyFlags = NotifyFlags(1 << 2);
    /// `$`: strings.
    pub const STRING: NotifyFlags = NotifyFlags(1 << 3);
    /// `l`: lists.
    pub const LIST: NotifyFlags = NotifyFlags(1 << 4);
    /// `s`: sets.
    pub const SET: NotifyFlags = NotifyFlags(1 << 5);
    /// `h`: hashes.
    pub const HASH: NotifyFlags = NotifyFlags(1 << 6);
    /// `z`: sorted sets.
    pub const ZSET: NotifyFlags = NotifyFlags(1 << 7);
    /// `x`: keys that expired.
    pub const EXPIRED: NotifyFlags = NotifyFlags(1 << 8);
    /// `e`: keys that were evicted.
    pub const EVICTED: NotifyFlags = NotifyFlags(1 << 9);
    /// `t`: streams.
    pub const STREAM: NotifyFlags = NotifyFlags(1 << 10);
    /// `m`: reads of missing keys; not part of `A`.
    pub const KEY_MISS: NotifyFlags = NotifyFlags(1 << 11);
    /// `d`: types of modules.
    pub const MODULE: NotifyFlags = NotifyFlags(1 << 13);
    /// `n`: new keys; not part of `A`.
    pub const NEW: NotifyFlags = NotifyFlags(1 << 14);
    /// `A`: all classes but `m` and `n`.
    pub const ALL: NotifyFlags = NotifyFlags(0b10_0111_1111_1100);

    /// Letters in the order in which they are printed; those before `K` are what `A` abbreviates.
    const LETTERS: [(u8, NotifyFlags); 14] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::ZSET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW),
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::KEY_MISS),
    ];
    const ABBREVIATED: usize = 11;

    /// True when all of `other` are set.
    pub const fn has(self, other: NotifyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Reads letters; `None` when one is unknown.
    pub fn parse(letters: &[u8]) -> Option<NotifyFlags> {
        letters.iter().try_fold(NotifyFlags(0), |flags, letter| {
            let class = match letter {
                b'A' => Self::ALL,
                letter => Self::LETTERS.iter().find(|(known, _)| known == letter)?.1,
            };
            Some(NotifyFlags(flags.0 | class.0))
        })
    }

    /// The letters, shortened with `A` where all of its classes are set. Redis drops `n` then,
    /// and so do we.
    pub fn letters(self) -> Vec<u8> {
        let all = self.has(Self::ALL);
        let start = if all { Self::ABBREVIATED } else { 0 };
        let letters = Self::LETTERS[start..]
            .iter()
            .filter(|(_, class)| self.has(*class));
        let letters = letters.map(|(letter, _)| *letter);
        all.then_some(b'A').into_iter().chain(letters).collect()
    }
}

impl Value for NotifyFlags {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        NotifyFlags::parse(c_string(single(args)?))
            .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned())
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.letters()
    }

    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        vec![quoted_line(param.name, &self.letters(), self != default)]
    }
}

/// Most addresses that `bind` accepts.
const MAX_BIND_ADDRESSES: usize = 16;

/// `bind`. A leading `-` on an address means that it may be missing.
impl Value for Vec<String> {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        if args.len() > MAX_BIND_ADDRESSES {
            return Err("Too many bind addresses specified.".to_owned());
        }
        if matches!(args, [arg] if arg.is_empty()) {
            return Ok(Vec::new());
        }
        // What is not text is no address: the answer Redis gives when it cannot bind.
        let address = |arg: &Vec<u8>| {
            String::from_utf8(c_string(arg).to_vec())
                .map_err(|_| "Failed to bind to specified addresses.".to_owned())
        };
        args.iter().map(address).collect()
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.join(" ").into_bytes()
    }

    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        if self == default {
            return Vec::new();
        }
        let value = if self.is_empty() {
            "\"\"".to_owned()
        } else {
            self.join(" ")
        };
        vec![Line {
            text: format!("{} {value}", param.name).into_bytes(),
            force: true,
        }]
    }
}

/// `replicaof`: host and port of the primary.
impl Value for Option<(String, u16)> {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        let [host, port] = args else {
            return Err("wrong number of arguments".to_owned());
        };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            return Ok(None);
        }
        let port = parse_c_integer(port, 10, true).and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| "Invalid master port".to_owned())?;
        Ok(Some((
            String::from_utf8_lossy(c_string(host)).into_owned(),
            port,
        )))
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.as_ref().map_or_else(Vec::new, |(host, port)| {
            format!("{host} {port}").into_bytes()
        })
    }

    fn lines(&self, _: &Self, param: &Param) -> Vec<Line> {
        let line = |(host, port): &(String, u16)| Line {
            text: format!("{} {host} {port}", param.name).into_bytes(),
            force: true,
        };
        self.as_ref().map(line).into_iter().collect()
    }
}

/// `latency-tracking-info-percentiles`.
impl Value for Vec<f64> {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        if matches!(args, [arg] if arg.is_empty()) {
            return Ok(Vec::new());
        }
        let percentile = |arg: &Vec<u8>| {
            let value = parse_decimal(arg)
                .ok_or_else(|| "Invalid latency-tracking-info-percentiles parameters".to_owned())?;
            if !(0.0..=100.0).contains(&value) {
                let reason =
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
                return Err(reason.to_owned());
            }
            Ok(value)
        };
        args.iter().map(percentile).collect()
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        join(self.iter().map(|value| format_decimal(*value)))
    }

    fn lines(&self, _: &Self, param: &Param) -> Vec<Line> {
        let value = if self.is_empty() {
            b"\"\"".to_vec()
        } else {
            self.print(param)
        };
        let text = [param.name.as_bytes(), b" ", &value].concat();
        vec![Line { text, force: true }]
    }
}

/// `dir`: the working directory, absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dir(Text);

impl Dir {
    /// The directory the process is in now; empty when it was deleted.
    pub fn current() -> Dir {
        let path = std::env::current_dir().unwrap_or_default();
        Dir(Text::new(path.as_os_str().as_encoded_bytes()))
    }

    /// As a path.
    pub fn as_path(&self) -> &Path {
        self.0.as_path()
    }
}

impl Deref for Dir {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Value for Dir {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        let path = Text::new(single(args)?);
        std::env::set_current_dir(path.as_path()).map_err(|error| strerror(&error))?;
        Ok(Dir::current())
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.to_vec()
    }

    fn lines(&self, _: &Self, param: &Param) -> Vec<Line> {
        if self.is_empty() {
            return Vec::new();
        }
        vec![quoted_line(param.name, self, true)]
    }
}

/// The system's own words for an error, without the number that `std` adds.
pub fn strerror(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn join(items: impl Iterator<Item = String>) -> Vec<u8> {
    items.collect::<Vec<_>>().join(" ").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(letters: &str, printed: Option<&str>) {
        let flags = NotifyFlags::parse(letters.as_bytes());
        let got = flags.map(|flags| String::from_utf8_lossy(&flags.letters()).into_owned());
        assert_eq!(got.as_deref(), printed, "{letters:?}");
    }

    #[test]
    fn event_letters() {
        check("", Some(""));
        check("KEA", Some("AKE"));
        check("AKEmn", Some("AKEm"));
        check("g$lshzxetdKE", Some("AKE"));
        check("Elg", Some("glE"));
        check("Kn", Some("nK"));
        check("y", None);
    }

    #[test]
    fn system_errors_have_no_number() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(strerror(&error), "No such file or directory");
    }
}
