//! The command table: every row with an id, found by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

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
    /// Id of its container.
    pub container: Option<usize>,
}

/// All commands.
pub struct Table {
    known: Vec<Known>,
    /// Names as clients use them, which `rename-command` may have changed.
    names: HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>,
    /// The names of the most frequent commands by a hash of their own: a table of small size
    /// that needs neither a lower-case copy of the name nor a general hash.
    quick: Box<[Option<Quick>]>,
}

/// A name in lower case and the id of its command.
type Quick = (Box<[u8]>, usize);

const QUICK: usize = 1024;

#[inline]
fn quick_hash(name: &[u8]) -> usize {
    // Letters differ in bit 5 only by case; the other bits and the length tell names apart.
    let mut hash = name.len() as u32;
    for &byte in name.iter().take(16) {
        hash = (hash ^ u32::from(byte | 0x20))
            .wrapping_mul(0x9e37_79b1)
            .rotate_left(7);
    }
    (hash >> 3) as usize % QUICK
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
            quick: (0..QUICK).map(|_| None).collect(),
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
            container,
        });
        id
    }

    fn name(&mut self, name: &[u8], id: usize) {
        let lower: Box<[u8]> = name.to_ascii_lowercase().into();
        let place = &mut self.quick[quick_hash(&lower)];
        if place.is_none() {
            *place = Some((lower.clone(), id));
        }
        assert!(
            self.names.insert(lower, id).is_none(),
            "two commands of one name"
        );
    }

    /// Gives a command another name, or takes it away when `to` is empty (`rename-command`).
    /// An error when the old name is unknown or the new one taken.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), &'static str> {
        let lower: Box<[u8]> = from.to_ascii_lowercase().into();
        if !to.is_empty() && self.names.contains_key(&to.to_ascii_lowercase()[..]) {
            return Err("Target command name already exists");
        }
        let id = self
            .names
            .remove(&lower)
            .ok_or("No such command in rename-command")?;
        let place = &mut self.quick[quick_hash(&lower)];
        if place.as_ref().is_some_and(|(name, _)| *name == lower) {
            *place = None;
        }
        if !to.is_empty() {
            self.name(to, id);
        }
        Ok(())
    }

    /// The command of a name in any case.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Known> {
        match &self.quick[quick_hash(name)] {
            Some((quick, id)) if quick.eq_ignore_ascii_case(name) => Some(&self.known[*id]),
            _ => self.find_slow(name),
        }
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

    /// A number that differs between tables with different contents.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        for known in &self.known {
            hasher.write(known.full_name.as_bytes());
        }
        hasher.finish()
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

/// True when the row cannot run by itself.
pub fn is_container(row: &Command) -> bool {
    matches!(row.handler, Handler::Container)
}
