//! What a row of the table is made of, and how values of the plain types are read and written.
//!
//! A [`Param`] is a row: names, flags, the kind of value, what a change sets in motion, and three
//! functions that the table's macro derives from the field's type through [`Value`]: read from
//! arguments, print as CONFIG GET does, write as lines of `redis.conf`. Texts of errors are Redis'
//! own, since clients see them. Types with their own syntax are in [`super::special`].

use std::borrow::Cow;
use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Settings;
use super::number::{c_string, format_memory, parse_c_integer, parse_memory};
use crate::base::number::parse_i64;
use crate::base::text::quote_into;

/// One parameter: the single source of truth about it.
pub struct Param {
    /// The name that CONFIG REWRITE writes.
    pub name: &'static str,
    /// An older or newer name that means the same parameter.
    pub alias: Option<&'static str>,
    /// What may be done with it, and when.
    pub flags: Flags,
    /// The syntax of its value.
    pub kind: Kind,
    /// What has to happen when CONFIG SET changes it.
    pub effect: Effect,
    pub(super) set: SetFn,
    pub(super) get: fn(&Settings, &Param) -> Vec<u8>,
    pub(super) lines: fn(&Settings, &Settings, &Param) -> Vec<Line>,
}

/// Reads arguments into a field; true when the value is another one than before.
pub(super) type SetFn = fn(&mut Settings, &Param, &[Vec<u8>], &mut Origin) -> Result<bool, String>;

impl Param {
    /// The value in `settings`, as CONFIG GET prints it.
    pub fn print(&self, settings: &Settings) -> Vec<u8> {
        (self.get)(settings, self)
    }

    /// Changes the value in `settings` to what `args` say; true when it differs from before or
    /// cannot be compared (files that may have new content). An error is the reason in Redis' words.
    pub fn set(
        &self,
        settings: &mut Settings,
        args: &[Vec<u8>],
        origin: &mut Origin,
    ) -> Result<bool, String> {
        (self.set)(settings, self, args, origin)
    }

    /// The lines CONFIG REWRITE puts into the file; none means the parameter's lines go away.
    pub fn lines(&self, settings: &Settings, defaults: &Settings) -> Vec<Line> {
        (self.lines)(settings, defaults, self)
    }
}

/// One line for the configuration file.
pub struct Line {
    /// The whole line, name included, without the line break.
    pub text: Vec<u8>,
    /// Appended even when the old file had no line for the parameter.
    pub force: bool,
}

/// Where a value comes from. Only `save` cares: its lines in a file add up.
#[derive(Default)]
pub struct Origin {
    /// A configuration file is being read.
    pub reading_file: bool,
    /// A `save` line was met and the default points are gone.
    pub save_seen: bool,
}

/// A set of properties of a [`Param`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u16);

impl Flags {
    /// No property.
    pub const NONE: Flags = Flags(0);
    /// Only the file and the command line can set it.
    pub const IMMUTABLE: Flags = Flags(1);
    /// The value is a secret: redacted in SLOWLOG, MONITOR and logs.
    pub const SENSITIVE: Flags = Flags(2);
    /// Printed in crash reports.
    pub const DEBUG: Flags = Flags(4);
    /// Takes several arguments; CONFIG SET splits its one argument at spaces.
    pub const MULTI_ARG: Flags = Flags(8);
    /// Not matched by a pattern in CONFIG GET, only found by its exact name.
    pub const HIDDEN: Flags = Flags(16);
    /// CONFIG SET needs `enable-protected-configs`.
    pub const PROTECTED: Flags = Flags(32);
    /// CONFIG SET is refused while a data set is loaded.
    pub const DENY_LOADING: Flags = Flags(64);
    /// Names a file whose content may change: setting the same value counts as a change.
    pub const VOLATILE: Flags = Flags(128);

    /// True when all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The syntax of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// One of a few words.
    Enum,
    /// Any number of a few words, or'ed together.
    EnumSet,
    /// A number in a range.
    Number(Range),
    /// Any bytes.
    Text {
        /// The empty text stands for "not set", so it is never written to a file.
        empty_is_unset: bool,
    },
    /// Its own syntax, see [`super::special`].
    Special,
}

/// The range and notation of a number. Bounds of unsigned numbers are the same 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Least value allowed.
    pub min: i64,
    /// Greatest value allowed.
    pub max: i64,
    /// Bounds and value compare as unsigned.
    pub unsigned: bool,
    /// How the number is written.
    pub unit: Unit,
}

/// How a number is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Decimal digits only.
    Integer,
    /// Bytes, with an optional unit such as `kb`.
    Memory,
    /// Bytes, or a percentage that is kept as a negative number.
    MemoryOrPercent,
    /// Octal, as permissions are.
    Octal,
}

/// What has to be done when CONFIG SET changes a parameter: the caller of [`super::Config::set`]
/// gets the row and finds its part here. Parameters with the same effect cause it once.
/// Everything with [`Effect::None`] is simply read where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: readers see the new value by themselves.
    None,
    /// Set the process title.
    ProcTitle,
    /// Log from another level on.
    LogLevel,
    /// Restart the timers that depend on `hz`.
    Hz,
    /// Listen on another TCP port.
    Port,
    /// Switch jemalloc's background thread.
    JemallocBgThread,
    /// Resize the replication backlog.
    ReplBacklogSize,
    /// Warn when below the memory in use, and start evicting.
    Maxmemory,
    /// Count good replicas again.
    GoodReplicas,
    /// Start, change or stop the software watchdog.
    WatchdogPeriod,
    /// Start or stop the append only file.
    Appendonly,
    /// When appended commands are synced.
    AppendFsync,
    /// Delete history files of the append only file.
    AofAutoGc,
    /// Install or remove the crash handlers.
    SignalHandlers,
    /// Raise the limit of open files.
    Maxclients,
    /// Write the process' OOM score.
    OomScoreAdj,
    /// Set the default user's password.
    Requirepass,
    /// Listen on other addresses.
    Bind,
    /// Announce changed flags of this node in the cluster.
    ClusterFlags,
    /// Announce changed ports of this node in the cluster.
    ClusterPorts,
    /// Announce a changed address of this node in the cluster.
    ClusterIp,
    /// Announce a changed host name of this node in the cluster.
    ClusterHostname,
    /// Build the TLS context again.
    Tls,
    /// Build the TLS context and listen on another TLS port.
    TlsPort,
    /// Start or stop accounting of clients' memory.
    MaxmemoryClients,
}

/// A type that a field of [`Settings`] can have.
pub(super) trait Value: Clone + PartialEq {
    /// Reads the new value; `self` is the value so far.
    fn parse(&self, param: &Param, args: &[Vec<u8>], origin: &mut Origin) -> Result<Self, String>;

    /// The value as CONFIG GET prints it.
    fn print(&self, param: &Param) -> Vec<u8>;

    /// The lines of the file; the default implementation fits words and numbers.
    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        vec![Line {
            text: [param.name.as_bytes(), b" ", &self.print(param)].concat(),
            force: self != default,
        }]
    }
}

/// The only argument. Rows that take one get one, from the file reader and from CONFIG SET.
pub(super) fn single(args: &[Vec<u8>]) -> Result<&[u8], String> {
    match args {
        [arg] => Ok(arg),
        _ => Err("wrong number of arguments".to_owned()),
    }
}

impl Value for bool {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        match single(args)? {
            yes if yes.eq_ignore_ascii_case(b"yes") => Ok(true),
            no if no.eq_ignore_ascii_case(b"no") => Ok(false),
            _ => Err("argument must be 'yes' or 'no'".to_owned()),
        }
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        if *self {
            b"yes".to_vec()
        } else {
            b"no".to_vec()
        }
    }
}

/// Bytes of a parameter that Redis keeps as a C string: paths, addresses, names. Never holds a zero byte.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// The part of `bytes` before the first zero byte.
    pub fn new(bytes: &[u8]) -> Text {
        Text(c_string(bytes).to_vec())
    }

    /// As a path of the file system.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// As text to show; bytes that are not UTF-8 are replaced.
    pub fn to_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Deref for Text {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::new(text.as_bytes())
    }
}

impl Value for Text {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        Ok(Text::new(single(args)?))
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.0.clone()
    }

    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        text_lines(self, default, param)
    }
}

/// Passwords: any bytes, zeros included.
impl Value for Vec<u8> {
    fn parse(&self, _: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
        Ok(single(args)?.to_vec())
    }

    fn print(&self, _: &Param) -> Vec<u8> {
        self.clone()
    }

    fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
        text_lines(self, default, param)
    }
}

fn text_lines(value: &[u8], default: &[u8], param: &Param) -> Vec<Line> {
    let may_be_unset = param.kind
        == Kind::Text {
            empty_is_unset: true,
        };
    if may_be_unset && value.is_empty() {
        return Vec::new();
    }
    vec![quoted_line(param.name, value, value != default)]
}

/// `name "value"`.
pub(super) fn quoted_line(name: &str, value: &[u8], force: bool) -> Line {
    let mut text = [name.as_bytes(), b" "].concat();
    quote_into(&mut text, value);
    Line { text, force }
}

impl Range {
    fn parse(&self, text: &[u8]) -> Result<i64, String> {
        let value = match self.unit {
            Unit::Integer => parse_i64(text),
            Unit::Memory => parse_memory(text).map(|bytes| bytes as i64),
            Unit::MemoryOrPercent => parse_memory(text)
                .map(|bytes| bytes as i64)
                .or_else(|| parse_percent(text)),
            Unit::Octal => parse_c_integer(text, 8, false),
        };
        value.ok_or_else(|| {
            let reason = match self.unit {
                Unit::Integer => "argument couldn't be parsed into an integer",
                Unit::Memory => "argument must be a memory value",
                Unit::MemoryOrPercent => "argument must be a memory or percent value",
                Unit::Octal => "argument couldn't be parsed as an octal number",
            };
            reason.to_owned()
        })
    }

    fn check(&self, value: i64) -> Result<(), String> {
        let Range {
            min,
            max,
            unsigned,
            unit,
        } = *self;
        if unsigned {
            let (value, min, max) = (value as u64, min as u64, max as u64);
            return match unit {
                _ if (min..=max).contains(&value) => Ok(()),
                Unit::Octal => Err(format!(
                    "argument must be between {min:o} and {max:o} inclusive"
                )),
                _ => Err(format!(
                    "argument must be between {min} and {max} inclusive"
                )),
            };
        }
        if unit == Unit::MemoryOrPercent && value < 0 {
            return if value < min {
                Err(format!(
                    "percentage argument must be less or equal to {}",
                    -min
                ))
            } else {
                Ok(())
            };
        }
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            Err(format!(
                "argument must be between {min} and {max} inclusive"
            ))
        }
    }

    fn print(&self, value: i64) -> String {
        match self.unit {
            Unit::MemoryOrPercent if value < 0 => format!("{}%", value.unsigned_abs()),
            Unit::Memory | Unit::MemoryOrPercent => (value as u64).to_string(),
            Unit::Octal => format!("{value:o}"),
            Unit::Integer if self.unsigned => (value as u64).to_string(),
            Unit::Integer => value.to_string(),
        }
    }

    /// As in a file, where sizes get units.
    fn write(&self, value: i64) -> String {
        match self.unit {
            Unit::Memory => format_memory(value as u64),
            Unit::MemoryOrPercent if value >= 0 => format_memory(value as u64),
            _ => self.print(value),
        }
    }
}

/// `5%` as -5.
fn parse_percent(text: &[u8]) -> Option<i64> {
    let percent = parse_i64(text.strip_suffix(b"%")?)?;
    (percent >= 0).then_some(-percent)
}

/// The range of a numeric row. Rows of number types are made with the functions at the head of the
/// table, so another kind cannot meet a number.
fn range(param: &Param) -> Range {
    match param.kind {
        Kind::Number(range) => range,
        _ => unreachable!("{} is a number but its row has no range", param.name),
    }
}

macro_rules! numbers {
    ($($ty:ty)*) => {$(
        impl Value for $ty {
            fn parse(&self, param: &Param, args: &[Vec<u8>], _: &mut Origin) -> Result<Self, String> {
                let range = range(param);
                let value = range.parse(single(args)?)?;
                range.check(value)?;
                Ok(value as $ty)
            }

            fn print(&self, param: &Param) -> Vec<u8> {
                range(param).print(*self as i64).into_bytes()
            }

            fn lines(&self, default: &Self, param: &Param) -> Vec<Line> {
                let text = format!("{} {}", param.name, range(param).write(*self as i64));
                vec![Line { text: text.into_bytes(), force: self != default }]
            }
        }
    )*};
}

numbers!(i32 i64 u16 u32 u64 usize);

const fn number(min: i64, max: i64, unsigned: bool, unit: Unit) -> Kind {
    Kind::Number(Range {
        min,
        max,
        unsigned,
        unit,
    })
}

/// A signed integer.
pub(super) const fn int(min: i64, max: i64) -> Kind {
    number(min, max, false, Unit::Integer)
}

/// An unsigned integer.
pub(super) const fn uint(min: u64, max: u64) -> Kind {
    number(min as i64, max as i64, true, Unit::Integer)
}

/// A signed memory size in bytes.
pub(super) const fn memory(min: i64, max: i64) -> Kind {
    number(min, max, false, Unit::Memory)
}

/// An unsigned memory size in bytes.
pub(super) const fn umemory(min: u64, max: u64) -> Kind {
    number(min as i64, max as i64, true, Unit::Memory)
}

/// A memory size in bytes, or a percentage kept as a negative number.
pub(super) const fn memory_or_percent(max_percent: i64) -> Kind {
    number(-max_percent, i64::MAX, false, Unit::MemoryOrPercent)
}

/// An octal number from 0.
pub(super) const fn octal(max: u64) -> Kind {
    number(0, max as i64, true, Unit::Octal)
}
