//! COMMAND DOCS: what commands are for, from the files in `docs/`.
//!
//! The files are part of the binary and are parsed when somebody first asks.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::dispatch::table::{Known, Table};
use crate::resp::write::Output;

const FILES: &[&str] = &[
    include_str!("docs/bitmap.json"),
    include_str!("docs/connection.json"),
    include_str!("docs/generic.json"),
    include_str!("docs/geo.json"),
    include_str!("docs/hash.json"),
    include_str!("docs/hyperloglog.json"),
    include_str!("docs/list.json"),
    include_str!("docs/pubsub.json"),
    include_str!("docs/server.json"),
    include_str!("docs/set.json"),
    include_str!("docs/sorted_set.json"),
    include_str!("docs/stream.json"),
    include_str!("docs/string.json"),
    include_str!("docs/transactions.json"),
];

type Doc = Map<String, Value>;

fn all() -> &'static Doc {
    static ALL: OnceLock<Doc> = OnceLock::new();
    ALL.get_or_init(|| {
        let parsed = FILES.iter().map(|text| {
            serde_json::from_str::<Doc>(text).expect("the files are tested to be JSON objects")
        });
        parsed.flatten().collect()
    })
}

/// What is known of a command; `None` for one without a text.
pub fn of(known: &Known) -> Option<&'static Doc> {
    let mut parts = known.full_name.splitn(2, '|');
    let mut doc = all().get(parts.next()?)?.as_object()?;
    if let Some(sub) = parts.next() {
        doc = doc.get("subcommands")?.get(sub)?.as_object()?;
    }
    Some(doc)
}

/// Members that are plain text, in the order of the reply.
const BEFORE: &[&str] = &["summary", "since", "group", "complexity"];
const AFTER: &[&str] = &["deprecated_since", "replaced_by"];

/// Writes a command's documentation as a map.
pub fn write(out: &mut Output, table: &Table, known: &Known) {
    static EMPTY: OnceLock<Doc> = OnceLock::new();
    let doc = of(known).unwrap_or_else(|| EMPTY.get_or_init(Doc::new));
    let deferred = out.deferred();
    let mut members = texts(out, doc, BEFORE);
    if let Some(flags) = array(doc, "doc_flags") {
        out.bulk(b"doc_flags");
        names(out, flags);
        members += 1;
    }
    members += texts(out, doc, AFTER);
    if let Some(history) = array(doc, "history") {
        out.bulk(b"history");
        out.set(history.len());
        for change in history {
            out.array(2);
            text(out, &change[0]);
            text(out, &change[1]);
        }
        members += 1;
    }
    if let Some(list) = array(doc, "arguments") {
        out.bulk(b"arguments");
        arguments(out, list);
        members += 1;
    }
    if !known.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(known.subcommands.len());
        for id in &known.subcommands {
            let sub = table.get(*id);
            out.bulk(sub.full_name.as_bytes());
            write(out, table, sub);
        }
        members += 1;
    }
    out.end_map(deferred, members);
}

fn array<'d>(doc: &'d Doc, name: &str) -> Option<&'d Vec<Value>> {
    doc.get(name)?.as_array().filter(|list| !list.is_empty())
}

fn text(out: &mut Output, value: &Value) {
    out.bulk(value.as_str().unwrap_or_default().as_bytes());
}

/// Writes the named members that are there; returns how many.
fn texts(out: &mut Output, doc: &Doc, names: &[&str]) -> usize {
    let present = names
        .iter()
        .filter_map(|name| Some((name, doc.get(*name)?)));
    present
        .map(|(name, value)| {
            out.bulk(name.as_bytes());
            text(out, value);
        })
        .count()
}

fn names(out: &mut Output, list: &[Value]) {
    out.set(list.len());
    list.iter()
        .for_each(|name| out.simple(name.as_str().unwrap_or_default()));
}

fn arguments(out: &mut Output, list: &[Value]) {
    out.array(list.len());
    for argument in list.iter().filter_map(Value::as_object) {
        let deferred = out.deferred();
        let mut members = texts(out, argument, &["name", "type"]);
        if let Some(index) = argument.get("key_spec_index").and_then(Value::as_i64) {
            out.bulk(b"key_spec_index");
            out.int(index);
            members += 1;
        }
        members += texts(
            out,
            argument,
            &["token", "summary", "since", "deprecated_since"],
        );
        if let Some(flags) = array(argument, "flags") {
            out.bulk(b"flags");
            names(out, flags);
            members += 1;
        }
        if let Some(inner) = array(argument, "arguments") {
            out.bulk(b"arguments");
            arguments(out, inner);
            members += 1;
        }
        out.end_map(deferred, members);
    }
}
