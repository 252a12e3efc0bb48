//! COMMAND DOCS: what commands are for, from the files in `docs/`.
//!
//! The files are part of the binary and are parsed when somebody first asks.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::dispatch::table::{Known, Table};
use crate::resp::write::Output;

const FILES: &[&str] = &[
    include_str!("docs/bitmap.json"),
    include_str!("docs/cluster.json"),
    include_str!("docs/connection.json"),
    include_str!("docs/generic.json"),
    include_str!("docs/geo.json"),
    include_str!("docs/hash.json"),
    include_str!("docs/hyperloglog.json"),
    include_str!("docs/list.json"),
    include_str!("docs/pubsub.json"),
    include_str!("docs/scripting.json"),
    include_str!("docs/server.json"),
    include_str!("docs/set.json"),
    include_str!("docs/sorted_set.json"),
    include_str!("docs/stream.json"),
    include_str!("docs/string.json"),
    include_str!("docs/transactions.json"),
];

/// What a command is for. Members stand in the order of the reply.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Doc {
    summary: Option<String>,
    since: Option<String>,
    group: Option<String>,
    complexity: Option<String>,
    doc_flags: Vec<String>,
    deprecated_since: Option<String>,
    replaced_by: Option<String>,
    /// Versions, and what changed with them.
    history: Vec<(String, String)>,
    arguments: Vec<Argument>,
    subcommands: HashMap<String, Doc>,
}

/// An argument of a command, or a group of arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    key_spec_index: Option<i64>,
    token: Option<String>,
    since: Option<String>,
    deprecated_since: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    arguments: Vec<Argument>,
}

fn all() -> &'static HashMap<String, Doc> {
    static ALL: OnceLock<HashMap<String, Doc>> = OnceLock::new();
    ALL.get_or_init(|| {
        let parsed = FILES.iter().map(|text| {
            let file = serde_json::from_str::<HashMap<String, Doc>>(text);
            file.expect("the files are tested to have this shape")
        });
        parsed.flatten().collect()
    })
}

/// What is known of a command; `None` for one without a text.
fn of(known: &Known) -> Option<&'static Doc> {
    let mut parts = known.full_name.splitn(2, '|');
    let doc = all().get(parts.next()?)?;
    match parts.next() {
        Some(sub) => doc.subcommands.get(sub),
        None => Some(doc),
    }
}

/// A map in the making: members that are there, and how many.
struct Members<'o> {
    out: &'o mut Output,
    count: usize,
}

impl Members<'_> {
    fn text(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.member(name, |out| out.bulk(value.as_bytes()));
        }
    }

    fn names(&mut self, name: &str, list: &[String]) {
        self.list(name, list, |out, list| {
            out.set(list.len());
            list.iter().for_each(|name| out.simple(name));
        });
    }

    /// A list that is left out when it is empty.
    fn list<T>(&mut self, name: &str, list: &[T], write: impl FnOnce(&mut Output, &[T])) {
        if !list.is_empty() {
            self.member(name, |out| write(out, list));
        }
    }

    fn member(&mut self, name: &str, write: impl FnOnce(&mut Output)) {
        self.out.bulk(name.as_bytes());
        write(self.out);
        self.count += 1;
    }
}

/// Writes a map of what `write` adds.
fn map(out: &mut Output, write: impl FnOnce(&mut Members<'_>)) {
    let deferred = out.deferred();
    let mut members = Members { out, count: 0 };
    write(&mut members);
    let count = members.count;
    out.end_map(deferred, count);
}

/// Writes a command's documentation as a map.
pub fn write(out: &mut Output, table: &Table, known: &Known) {
    static EMPTY: OnceLock<Doc> = OnceLock::new();
    let doc = of(known).unwrap_or_else(|| EMPTY.get_or_init(Doc::default));
    map(out, |m| {
        m.text("summary", doc.summary.as_ref());
        m.text("since", doc.since.as_ref());
        m.text("group", doc.group.as_ref());
        m.text("complexity", doc.complexity.as_ref());
        m.names("doc_flags", &doc.doc_flags);
        m.text("deprecated_since", doc.deprecated_since.as_ref());
        m.text("replaced_by", doc.replaced_by.as_ref());
        m.list("history", &doc.history, history);
        m.list("arguments", &doc.arguments, arguments);
        m.list("subcommands", &known.subcommands, |out, ids| {
            out.map(ids.len());
            for id in ids {
                let sub = table.get(*id);
                out.bulk(sub.full_name.as_bytes());
                write(out, table, sub);
            }
        });
    });
}

fn history(out: &mut Output, changes: &[(String, String)]) {
    out.set(changes.len());
    for (version, change) in changes {
        out.array(2);
        out.bulk(version.as_bytes());
        out.bulk(change.as_bytes());
    }
}

fn arguments(out: &mut Output, list: &[Argument]) {
    out.array(list.len());
    for argument in list {
        map(out, |m| {
            m.text("name", Some(&argument.name));
            m.text("type", Some(&argument.kind));
            if let Some(index) = argument.key_spec_index {
                m.member("key_spec_index", |out| out.int(index));
            }
            m.text("token", argument.token.as_ref());
            m.text("since", argument.since.as_ref());
            m.text("deprecated_since", argument.deprecated_since.as_ref());
            m.names("flags", &argument.flags);
            m.list("arguments", &argument.arguments, arguments);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_the_shape() {
        assert!(all().len() > 200);
    }
}
