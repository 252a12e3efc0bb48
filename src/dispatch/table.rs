//! The command table: every row with an id, found by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::RangeInclusive;

use crate::acl::catalog::{Catalog, Entry};

use super::command::{Acl, Begin, Command, Find, Flags, Handler};

/// A command as the server knows it.
pub struct Known {
    /// Index in the table.
    pub id: usize,
    /// Its row.
    pub row: &'static Command,
    /// `config|get` for a subcommand, `config` for its container.
    pub full_name: String,
    /// The row's flags, with those that follow from its keys.
    pub flags: Flags,
    /// All its ACL categories.
    pub acl: Acl,
    /// Ids of its subcommands.
    pub subcommands: Vec<usize>,
    /// COMMAND tells of it without being asked for it by name.
    pub listed: bool,
    /// Id of its container.
    pub container: Option<usize>,
    /// Where its only key is; 0: it has none, several, or one at no fixed place.
    pub key: usize,
    /// How many arguments it takes, name included, if its row says all of that.
    plain: RangeInclusive<usize>,
}

impl Known {
    /// True when a request of `len` arguments needs no look at anything but keys: its number of
    /// arguments is right, no subcommand is to be found, and parameters do not forbid it.
    #[inline]
    pub fn is_plain(&self, len: usize) -> bool {
        self.plain.contains(&len)
    }
}

/// All commands.
pub struct Table {
    known: Vec<Known>,
    /// Names as clients use them, which `rename-command` may have changed.
    names: HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>,
    /// The short ones of them once more: found by comparing words, without a lower-case copy.
    quick: Box<[Quick]>,
}

/// A name of at most 16 letters and the id of its command.
#[derive(Clone, Copy, Default)]
struct Quick {
    name: Packed,
    id: usize,
}

/// A name with bit 5 set in every byte, in which the two cases of a letter differ, and only they
/// become it: its first 8 bytes, its last 8 if it has so many, its length (0: none).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Packed {
    head: u64,
    tail: u64,
    len: usize,
}

/// Places for quick names, as a power of two.
const QUICK_BITS: u32 = 10;

impl Packed {
    #[inline]
    fn new(name: &[u8]) -> Option<Self> {
        let len = name.len();
        let (head, tail) = match name {
            [] => return None,
            [first, ..] if len < 4 => {
                let middle = u64::from(name[len / 2]) << (len / 2 * 8);
                let last = u64::from(name[len - 1]) << ((len - 1) * 8);
                (u64::from(*first) | middle | last, 0)
            }
            _ => match (name.first_chunk(), name.last_chunk()) {
                (Some(first), Some(last)) if len <= 16 => {
                    (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
                }
                (None, None) => {
                    let first = u64::from(u32::from_le_bytes(*name.first_chunk()?));
                    let last = u64::from(u32::from_le_bytes(*name.last_chunk()?));
                    (first | last << ((len - 4) * 8), 0)
                }
                _ => return None,
            },
        };
        Some(Self {
            head: head | 0x2020_2020_2020_2020,
            tail: tail | 0x2020_2020_2020_2020,
            len,
        })
    }

    #[inline]
    fn place(self) -> usize {
        let mixed = (self.head ^ self.tail.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - QUICK_BITS)) as usize
    }
}

impl Table {
    /// The table of `rows`.
    ///
    /// # Panics
    /// When two rows have one name.
    pub fn new(rows: impl IntoIterator<Item = &'static Command>) -> Self {
        let mut table = Self {
            known: Vec::new(),
            names: HashMap::default(),
            quick: vec![Quick::default(); 1 << QUICK_BITS].into(),
        };
        for row in rows {
            let id = table.add(row, row.name.to_owned(), None);
            for sub in row.subcommands {
                let name = format!("{}|{}", row.name, sub.name);
                let sub_id = table.add(sub, name, Some(id));
                table.known[id].subcommands.push(sub_id);
            }
            table.name(row.name.as_bytes(), id);
        }
        table
    }

    fn add(&mut self, row: &'static Command, full_name: String, container: Option<usize>) -> usize {
        let id = self.known.len();
        let mut flags = row.flags;
        if has_movable_keys(row) {
            flags = flags.or(Flags::MOVABLE_KEYS);
        }
        self.known.push(Known {
            id,
            row,
            full_name,
            flags,
            acl: categories(row),
            subcommands: Vec::new(),
            listed: true,
            container,
            key: super::keys::single(row).unwrap_or(0),
            plain: plain_arity(row),
        });
        id
    }

    fn name(&mut self, name: &[u8], id: usize) {
        let lower: Box<[u8]> = name.to_ascii_lowercase().into();
        // Where two names meet, the second is found the general way.
        if lower.iter().all(u8::is_ascii_lowercase)
            && let Some(packed) = Packed::new(&lower)
            && let place = &mut self.quick[packed.place()]
            && place.name.len == 0
        {
            *place = Quick { name: packed, id };
        }
        assert!(
            self.names.insert(lower, id).is_none(),
            "two commands of one name"
        );
    }

    /// Gives a command another name, or takes it away when `to` is empty (`rename-command`).
    /// An error when the old name is unknown or the new one another's; then the old one may be gone.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), &'static str> {
        let lower: Box<[u8]> = from.to_ascii_lowercase().into();
        let id = self
            .names
            .remove(&lower)
            .ok_or("No such command in rename-command")?;
        // Its own name is free by now.
        if !to.is_empty() && self.names.contains_key(&to.to_ascii_lowercase()[..]) {
            return Err("Target command name already exists");
        }
        if let Some(packed) = Packed::new(&lower)
            && let place = &mut self.quick[packed.place()]
            && place.name == packed
        {
            *place = Quick::default();
        }
        if !to.is_empty() {
            self.name(to, id);
        }
        Ok(())
    }

    /// Has COMMAND tell of these only when it is asked for them; full names, of which some may not be there.
    pub fn unlist(&mut self, full_names: &[&str]) {
        for known in &mut self.known {
            known.listed &= !full_names.contains(&known.full_name.as_str());
        }
    }

    /// The command of a name in any case.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Known> {
        if let Some(packed) = Packed::new(name)
            && let quick = &self.quick[packed.place()]
            && quick.name == packed
        {
            return Some(&self.known[quick.id]);
        }
        self.find_slow(name)
    }

    fn find_slow(&self, name: &[u8]) -> Option<&Known> {
        // No command has a longer name, so that a huge argument is not copied to be refused.
        if name.len() > 256 {
            return None;
        }
        let id = self.names.get(&name.to_ascii_lowercase()[..])?;
        Some(&self.known[*id])
    }

    /// The command of a full name: `config`, or `config|get`.
    pub fn find_full(&self, name: &[u8]) -> Option<&Known> {
        let mut parts = name.splitn(2, |&b| b == b'|');
        let known = self.find(parts.next()?)?;
        match parts.next() {
            Some(sub) => self.find_sub(known, sub),
            None => Some(known),
        }
    }

    /// The subcommand of a container.
    pub fn find_sub(&self, container: &Known, name: &[u8]) -> Option<&Known> {
        let mut subs = container.subcommands.iter().map(|id| &self.known[*id]);
        subs.find(|k| k.row.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The command of an id.
    #[inline]
    pub fn get(&self, id: usize) -> &Known {
        &self.known[id]
    }

    /// Number of commands and subcommands.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True without commands.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Every command and subcommand, containers before their subcommands.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// The commands that can be called, by the name under which they can.
    pub fn named(&self) -> impl Iterator<Item = (&[u8], &Known)> {
        self.names
            .iter()
            .map(|(name, id)| (&name[..], &self.known[*id]))
    }

    /// The commands as rules for users name them.
    pub fn catalog(&self) -> Catalog {
        let entries = self.known.iter().map(|known| Entry {
            name: known.full_name.clone(),
            categories: known.acl,
            parent: known.container,
            subcommands: known.subcommands.clone(),
        });
        Catalog::new(entries.collect())
    }

    /// A number that differs between tables with different contents.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        for known in &self.known {
            hasher.write(known.full_name.as_bytes());
        }
        hasher.finish()
    }
}

/// See [`Known::is_plain`]; an empty range where that is never true.
fn plain_arity(row: &Command) -> RangeInclusive<usize> {
    let least = row.arity.unsigned_abs() as usize;
    match row.handler {
        Handler::Data(_) if row.subcommands.is_empty() && !row.flags.has(Flags::PROTECTED) => {
            let most = if row.arity < 0 { usize::MAX } else { least };
            least..=most
        }
        _ => RangeInclusive::new(1, 0),
    }
}

/// First key, last key and step as COMMAND INFO shows them: of the first range that is plain.
pub fn legacy_range(row: &Command) -> (i64, i64, i64) {
    let ranges = row
        .keys
        .0
        .iter()
        .filter_map(|spec| match (spec.begin, spec.find) {
            (Begin::Index(first), Find::Range { last, step, .. }) => {
                let last = if last >= 0 {
                    first as i64 + i64::from(last)
                } else {
                    i64::from(last)
                };
                Some((first as i64, last, step as i64))
            }
            _ => None,
        });
    ranges
        .reduce(|a, b| {
            // Ranges that join into one (RENAME, COPY) are shown as one.
            let joins = a.1 > 0 && a.1 == b.0 - 1 && a.2 == 1 && b.2 == 1;
            if joins { (a.0, b.1, 1) } else { a }
        })
        .unwrap_or((0, 0, 0))
}

fn has_movable_keys(row: &Command) -> bool {
    row.keys.0.iter().any(|spec| {
        !matches!(spec.begin, Begin::Index(_))
            || !matches!(spec.find, Find::Range { .. })
            || spec.flags.has(super::command::KeyFlags::INCOMPLETE)
    })
}

/// A command's categories: its own and those that its flags imply.
fn categories(row: &Command) -> Acl {
    let mut acl = row.acl;
    let flags = row.flags;
    if flags.has(Flags::WRITE) {
        acl = acl.or(Acl::WRITE);
    }
    // PFCOUNT and the like that only look at keys; scripts are not reading by themselves.
    if flags.has(Flags::READONLY) && !acl.has(Acl::SCRIPTING) {
        acl = acl.or(Acl::READ);
    }
    if flags.has(Flags::ADMIN) {
        acl = acl.or(Acl::ADMIN).or(Acl::DANGEROUS);
    }
    if flags.has(Flags::PUBSUB) {
        acl = acl.or(Acl::PUBSUB);
    }
    if flags.has(Flags::FAST) {
        acl = acl.or(Acl::FAST);
    }
    if flags.has(Flags::BLOCKING) {
        acl = acl.or(Acl::BLOCKING);
    }
    if !acl.has(Acl::FAST) {
        acl = acl.or(Acl::SLOW);
    }
    acl
}

#[cfg(test)]
mod tests {
    use super::super::command::ROW;
    use super::*;

    const NAMES: [&str; 12] = [
        "a",
        "to",
        "get",
        "mset",
        "getex",
        "expireat",
        "sismember",
        "zrevrangebyscore",
        "zremrangebyscores",
        "sort_ro",
        "hello2",
        "config",
    ];
    static ROWS: [Command; NAMES.len()] = {
        let mut rows = [ROW; NAMES.len()];
        let mut i = 0;
        while i < NAMES.len() {
            rows[i].name = NAMES[i];
            i += 1;
        }
        rows
    };

    #[test]
    fn names_are_found_in_any_case_and_nothing_like_them() {
        let table = Table::new(&ROWS);
        let found = |name: &[u8]| table.find(name).map(|known| known.row.name);
        for name in NAMES {
            let upper = name.to_ascii_uppercase();
            assert_eq!(found(name.as_bytes()), Some(name));
            assert_eq!(found(upper.as_bytes()), Some(name));
            // One byte more, one less, and any other byte at any place.
            assert_eq!(found(&[name.as_bytes(), b"\0"].concat()), None);
            assert_eq!(found(&[name.as_bytes(), b" "].concat()), None);
            assert_eq!(found(&name.as_bytes()[..name.len() - 1]), None);
            for (place, byte) in (0..name.len()).flat_map(|p| (0..=255).map(move |b| (p, b))) {
                let mut other = name.as_bytes().to_vec();
                other[place] = byte;
                let same = other.eq_ignore_ascii_case(name.as_bytes());
                assert_eq!(found(&other).is_some(), same, "{other:?}");
            }
        }
        assert_eq!(found(b""), None);
    }

    #[test]
    fn renamed_commands_are_found_by_their_new_names_alone() {
        let mut table = Table::new(&ROWS);
        table.rename(b"get", b"fetch").expect("a free name");
        table.rename(b"config", b"").expect("a known name");
        assert!(table.find(b"get").is_none() && table.find(b"CONFIG").is_none());
        assert_eq!(table.find(b"FETCH").map(|k| k.row.name), Some("get"));
        assert!(table.rename(b"mset", b"getex").is_err());
        assert_eq!(
            table.rename(b"nosuch", b"getex"),
            Err("No such command in rename-command")
        );
        table.rename(b"SORT_RO", b"sort_RO").expect("its own name");
        assert_eq!(table.find(b"sort_ro").map(|k| k.row.name), Some("sort_ro"));
    }
}
