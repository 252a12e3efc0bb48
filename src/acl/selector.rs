//! A selector: which commands, keys, channels and databases belong together. A request is allowed if one selector
//! of its user allows all of it.
//!
//! Commands are a bitmap, patterns are prepared: a check follows no text that was written in rules.

use std::collections::BTreeMap;

use super::catalog::Catalog;
use super::pattern::{Name, Pattern};
use super::{Categories, RuleError};
use crate::base::number;

/// What may be done with a key: read, written, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Nothing, or nothing that is known of.
    pub const NONE: Access = Access(0);
    /// Its value may be told.
    pub const READ: Access = Access(1);
    /// It may be changed.
    pub const WRITE: Access = Access(2);
    /// Both.
    pub const ALL: Access = Access(3);

    /// Both sets.
    pub const fn or(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// True when all of `other` is in the set.
    pub const fn has(self, other: Access) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Keys and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keys {
    pattern: Pattern,
    access: Access,
}

impl Keys {
    /// The rule.
    fn describe_into(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(match self.access {
            Access::READ => b"%R~",
            Access::WRITE => b"%W~",
            _ => b"~",
        });
        text.extend_from_slice(self.pattern.text());
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// By id, in words; all bits of the last one count, so that all of them say `+@all`.
    allowed: Box<[u64]>,
    /// Commands that come later would be allowed: the last rule for all of them was `+@all`.
    future: bool,
    /// Of commands that are not allowed, first arguments with which they are.
    first_args: BTreeMap<usize, Vec<Box<[u8]>>>,
    all_keys: bool,
    keys: Vec<Keys>,
    all_channels: bool,
    channels: Vec<Pattern>,
    /// Databases, ascending; `None`: all of them.
    databases: Option<Vec<i64>>,
}

impl Selector {
    /// One that allows nothing, or all channels and nothing else.
    pub fn new(catalog: &Catalog, all_channels: bool) -> Self {
        Self {
            allowed: vec![0; catalog.len().div_ceil(64)].into(),
            future: false,
            first_args: BTreeMap::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
            databases: None,
        }
    }

    /// Changes it by a rule.
    pub fn set(&mut self, catalog: &Catalog, rule: &[u8]) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"allkeys" | b"~*" => self.set_all_keys(true),
            b"resetkeys" => self.set_all_keys(false),
            b"allchannels" | b"&*" => self.set_all_channels(true),
            b"resetchannels" => self.set_all_channels(false),
            b"alldbs" => self.databases = None,
            b"resetdbs" => self.databases = Some(Vec::new()),
            [b'd', b'b', b'=', list @ ..] => self.databases = Some(databases(list)?),
            b"allcommands" | b"+@all" => self.set_all_commands(true),
            b"nocommands" | b"-@all" => self.set_all_commands(false),
            [b'~', ..] => self.add_keys(Access::ALL, &rule[1..])?,
            [b'%', ..] => {
                if self.all_keys {
                    return Err(RuleError::AfterAllKeys);
                }
                let (access, pattern) = access_of(&rule[1..]).ok_or(RuleError::Syntax)?;
                self.add_keys(access, pattern)?;
            }
            [b'&', ..] => self.add_channels(&rule[1..])?,
            [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                let category = Categories::by_name(category).ok_or(RuleError::Unknown)?;
                self.set_category(catalog, category, *sign == b'+');
            }
            [b'+', name @ ..] => self.allow(catalog, name, &rule[1..])?,
            [b'-', name @ ..] => {
                let id = catalog.find(name).ok_or(RuleError::Unknown)?;
                self.set_command(catalog, id, false);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn set_all_keys(&mut self, all: bool) {
        self.all_keys = all;
        self.keys.clear();
    }

    fn set_all_channels(&mut self, all: bool) {
        self.all_channels = all;
        self.channels.clear();
    }

    fn set_all_commands(&mut self, all: bool) {
        self.allowed.fill(if all { u64::MAX } else { 0 });
        self.future = all;
        self.first_args.clear();
    }

    fn add_keys(&mut self, access: Access, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        if super::has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        let mut known = self.keys.iter_mut();
        match known.find(|keys| keys.pattern.text() == pattern) {
            Some(keys) => keys.access = keys.access.or(access),
            None => self.keys.push(Keys {
                pattern: Pattern::new(pattern),
                access,
            }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::AfterAllChannels);
        }
        if super::has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known.text() == pattern) {
            self.channels.push(Pattern::new(pattern));
        }
        Ok(())
    }

    /// `+command`, `+container|subcommand`, `+command|first-argument`. `name` is in lower case.
    fn allow(&mut self, catalog: &Catalog, name: &[u8], written: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|&b| b == b'|') else {
            let id = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.set_command(catalog, id, true);
            return Ok(());
        };
        let (command, first) = (&name[..bar], &name[bar + 1..]);
        let id = catalog.find(command).ok_or(RuleError::Unknown)?;
        if catalog.get(id).parent.is_some() {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if first.is_empty() {
            return Err(RuleError::Syntax);
        }
        if !catalog.get(id).subcommands.is_empty() {
            let id = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.set_command(catalog, id, true);
            return Ok(());
        }
        tracing::warn!(
            "Deprecation warning: Allowing a first arg of an otherwise blocked command is a misuse of \
             ACL and may get disabled in the future (offender: +{})",
            String::from_utf8_lossy(written)
        );
        let firsts = self.first_args.entry(id).or_default();
        if !firsts.iter().any(|known| known.eq_ignore_ascii_case(first)) {
            firsts.push(written[bar + 1..].into());
        }
        Ok(())
    }

    fn set_bit(&mut self, id: usize, on: bool) {
        let (word, bit) = (&mut self.allowed[id / 64], 1 << (id % 64));
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// True when the command of this id is allowed, whatever its arguments.
    #[inline]
    fn bit(&self, id: usize) -> bool {
        self.allowed[id / 64] & 1 << (id % 64) != 0
    }

    /// A container is allowed with all its subcommands.
    fn set_command(&mut self, catalog: &Catalog, id: usize, on: bool) {
        self.set_bit(id, on);
        self.first_args.remove(&id);
        for sub in &catalog.get(id).subcommands {
            self.set_bit(*sub, on);
        }
    }

    fn set_category(&mut self, catalog: &Catalog, category: Categories, on: bool) {
        for (id, entry) in catalog.all() {
            if entry.categories.has(category) {
                self.set_command(catalog, id, on);
            }
        }
    }

    /// Allows whatever there is.
    pub fn is_unrestricted(&self) -> bool {
        let all_names = self.all_keys && self.all_channels && self.databases.is_none();
        all_names && self.allowed.iter().all(|word| *word == u64::MAX)
    }

    /// True when the command of this id is allowed with this first argument.
    #[inline]
    pub fn allows_command(&self, id: usize, first: Option<&[u8]>) -> bool {
        self.bit(id) || (!self.first_args.is_empty() && self.allows_first(id, first))
    }

    #[cold]
    fn allows_first(&self, id: usize, first: Option<&[u8]>) -> bool {
        let (Some(firsts), Some(first)) = (self.first_args.get(&id), first) else {
            return false;
        };
        firsts.iter().any(|known| known.eq_ignore_ascii_case(first))
    }

    /// All keys are allowed.
    #[inline]
    pub fn allows_all_keys(&self) -> bool {
        self.all_keys
    }

    /// True when a key may be used in this way.
    #[inline]
    pub fn allows_key(&self, key: &[u8], access: Access) -> bool {
        let name = Name::new(key);
        let may = |keys: &Keys| keys.access.has(access) && keys.pattern.matches(name);
        self.all_keys || self.keys.iter().any(may)
    }

    /// True when every key there may be may be used in this way.
    pub fn allows_any_key(&self, access: Access) -> bool {
        let all = |keys: &Keys| keys.access.has(access) && keys.pattern.text() == b"*";
        self.all_keys || self.keys.iter().any(all)
    }

    /// All channels are allowed.
    #[inline]
    pub fn allows_all_channels(&self) -> bool {
        self.all_channels
    }

    /// True when a channel may be used. A pattern of channels must be allowed as it is written.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let may = |allowed: &Pattern| match is_pattern {
            true => allowed.text() == channel,
            false => allowed.matches(Name::new(channel)),
        };
        self.all_channels || self.channels.iter().any(may)
    }

    /// All databases are allowed.
    #[inline]
    pub fn allows_all_databases(&self) -> bool {
        self.databases.is_none()
    }

    /// True when a database may be used.
    pub fn allows_database(&self, database: i64) -> bool {
        let some = self.databases.as_ref();
        some.is_none_or(|some| some.binary_search(&database).is_ok())
    }

    /// Its patterns of channels.
    pub fn channels(&self) -> &[Pattern] {
        &self.channels
    }

    /// The rules for keys, as GETUSER shows them.
    pub fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let mut text = Vec::new();
        for (i, keys) in self.keys.iter().enumerate() {
            if i > 0 {
                text.push(b' ');
            }
            keys.describe_into(&mut text);
        }
        text
    }

    /// The rules for channels, as GETUSER shows them.
    pub fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let rules = self.channels.iter();
        let rules: Vec<Vec<u8>> = rules.map(|p| [b"&", p.text()].concat()).collect();
        rules.join(&b' ')
    }

    /// The rule for databases; `None` when there is none, as before there was such a rule.
    pub fn describe_databases(&self) -> Option<String> {
        let some = self.databases.as_ref()?;
        if some.is_empty() {
            return Some("resetdbs".to_owned());
        }
        let some: Vec<String> = some.iter().map(i64::to_string).collect();
        Some(format!("db={}", some.join(",")))
    }

    /// Rules that make a selector like this one.
    pub fn describe(&self, catalog: &Catalog) -> Vec<u8> {
        let mut text = self.describe_keys();
        if !text.is_empty() {
            text.push(b' ');
        }
        if !self.all_channels {
            text.extend_from_slice(b"resetchannels ");
        }
        let channels = self.describe_channels();
        if !channels.is_empty() {
            text.extend_from_slice(&channels);
            text.push(b' ');
        }
        if let Some(databases) = self.describe_databases() {
            text.extend_from_slice(databases.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&self.describe_commands(catalog));
        text
    }

    /// Rules that allow the same commands: from all or none, by the categories that fit best, then by
    /// single commands. They are applied to a selector on the way, to know what is still to be said.
    pub fn describe_commands(&self, catalog: &Catalog) -> Vec<u8> {
        let adds = !self.future;
        let mut reached = Self::new(catalog, false);
        reached.set_all_commands(!adds);
        let mut text = if adds {
            b"-@all".to_vec()
        } else {
            b"+@all".to_vec()
        };
        // What no category accounts for yet.
        let mut rest = self.clone();
        let mut left: Vec<(Categories, &str)> = Categories::ALL.to_vec();
        while let Some(best) = best_category(catalog, &rest, &left, adds) {
            let (category, name) = left.remove(best);
            reached.set_category(catalog, category, adds);
            rest.set_category(catalog, category, !adds);
            text.extend_from_slice(if adds { b" +@" } else { b" -@" });
            text.extend_from_slice(name.as_bytes());
        }
        for (id, entry) in catalog.all().filter(|(_, entry)| entry.parent.is_none()) {
            self.describe_command(catalog, id, &mut reached, &mut text);
            for sub in &entry.subcommands {
                self.describe_command(catalog, *sub, &mut reached, &mut text);
            }
            let firsts = self.first_args.get(&id).filter(|_| !self.bit(id));
            for first in firsts.into_iter().flatten() {
                text.extend_from_slice(format!(" +{}|", entry.name).as_bytes());
                text.extend_from_slice(first);
            }
        }
        text
    }

    fn describe_command(
        &self,
        catalog: &Catalog,
        id: usize,
        reached: &mut Self,
        text: &mut Vec<u8>,
    ) {
        let on = self.bit(id);
        if on != reached.bit(id) {
            text.extend_from_slice(if on { b" +" } else { b" -" });
            text.extend_from_slice(catalog.get(id).name.as_bytes());
            reached.set_command(catalog, id, on);
        }
    }
}

/// The category that says more than it gets wrong, and of these the one that gets least wrong.
fn best_category(
    catalog: &Catalog,
    rest: &Selector,
    left: &[(Categories, &str)],
    adds: bool,
) -> Option<usize> {
    let mut best: Option<(usize, usize, usize)> = None;
    for (at, (category, _)) in left.iter().enumerate() {
        let (mut same, mut different) = (0, 0);
        for (id, _) in catalog.all().filter(|(_, e)| e.categories.has(*category)) {
            *(if rest.bit(id) == adds {
                &mut same
            } else {
                &mut different
            }) += 1;
        }
        let is_better = |(_, least, most): (usize, usize, usize)| {
            different < least || (different == least && same > most)
        };
        if same > different && best.is_none_or(is_better) {
            best = Some((at, different, same));
        }
    }
    best.map(|(at, ..)| at)
}

/// The databases that a rule names.
fn databases(list: &[u8]) -> Result<Vec<i64>, RuleError> {
    let mut databases = Vec::new();
    for part in list.split(|&b| b == b',') {
        let digits = part.trim_ascii_start();
        let digits = digits
            .strip_prefix(b"-")
            .or(digits.strip_prefix(b"+"))
            .unwrap_or(digits);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(RuleError::Syntax);
        }
        let database = number::leading_i64(part).filter(|n| (0..=i32::MAX.into()).contains(n));
        databases.push(database.ok_or(RuleError::DatabaseOutOfRange)?);
    }
    databases.sort_unstable();
    databases.dedup();
    Ok(databases)
}

/// What `%...~` says, and the pattern behind it.
fn access_of(rule: &[u8]) -> Option<(Access, &[u8])> {
    let mut access = Access::NONE;
    for (i, byte) in rule.iter().enumerate() {
        let more = match byte.to_ascii_uppercase() {
            b'R' => Access::READ,
            b'W' => Access::WRITE,
            b'~' if access != Access::NONE => return Some((access, &rule[i + 1..])),
            _ => return None,
        };
        if access.has(more) {
            return None;
        }
        access = access.or(more);
    }
    // The tilde is missing, and with it the pattern.
    (access != Access::NONE).then_some((access, b""))
}
