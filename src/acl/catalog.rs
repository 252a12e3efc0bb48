//! The commands as rules name them: by their original names, whatever `rename-command` made of them.

use std::collections::HashMap;

use super::Categories;

/// A command or subcommand.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `config`, or `config|get`.
    pub name: String,
    /// Its categories.
    pub categories: Categories,
    /// Its container.
    pub parent: Option<usize>,
    /// Its subcommands.
    pub subcommands: Vec<usize>,
}

/// All commands, by their ids in the command table.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_name: HashMap<Box<[u8]>, usize>,
}

impl Catalog {
    /// The catalog of `entries`, each at the place of its id.
    pub fn new(entries: Vec<Entry>) -> Self {
        let names = entries.iter().enumerate();
        let by_name = names.map(|(id, entry)| (Box::from(entry.name.as_bytes()), id));
        Self {
            by_name: by_name.collect(),
            entries,
        }
    }

    /// The id of a full name in any case: `config`, or `config|get`.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        // No command has a longer name, so that a huge rule is not copied to be refused.
        if name.len() > 256 {
            return None;
        }
        self.by_name.get(&name.to_ascii_lowercase()[..]).copied()
    }

    /// The command of an id.
    pub fn get(&self, id: usize) -> &Entry {
        &self.entries[id]
    }

    /// Number of commands and subcommands.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without commands.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every command and, behind it, its subcommands.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let top = self.entries.iter().enumerate();
        let top = top.filter(|(_, entry)| entry.parent.is_none());
        top.flat_map(|(id, entry)| {
            let subs = entry.subcommands.iter().map(|id| (*id, self.get(*id)));
            std::iter::once((id, entry)).chain(subs)
        })
    }
}
