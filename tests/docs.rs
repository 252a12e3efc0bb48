//! The data behind COMMAND DOCS: every file parses, keeps to the shape and to the length of its
//! sentences. What it says about arity, flags and keys lives in the command table, not here.

use std::path::Path;

use serde_json::{Map, Value};

const GROUPS: [&str; 14] = [
    "string",
    "bitmap",
    "generic",
    "transactions",
    "pubsub",
    "connection",
    "server",
    "list",
    "set",
    "sorted-set",
    "hash",
    "stream",
    "hyperloglog",
    "geo",
];
const COMMAND_FIELDS: [&str; 10] = [
    "summary",
    "since",
    "group",
    "complexity",
    "doc_flags",
    "deprecated_since",
    "replaced_by",
    "history",
    "arguments",
    "subcommands",
];
const ARGUMENT_FIELDS: [&str; 8] = [
    "name",
    "type",
    "token",
    "key_spec_index",
    "since",
    "deprecated_since",
    "flags",
    "arguments",
];
const ARGUMENT_TYPES: [&str; 9] = [
    "string",
    "integer",
    "double",
    "key",
    "pattern",
    "unix-time",
    "pure-token",
    "oneof",
    "block",
];

#[test]
fn every_file_keeps_to_the_shape() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/docs");
    for group in GROUPS {
        let text = std::fs::read_to_string(dir.join(format!("{}.json", group.replace('-', "_"))))
            .expect(group);
        let commands: Map<String, Value> = serde_json::from_str(&text).expect(group);
        assert!(!commands.is_empty(), "{group}");
        for (name, command) in &commands {
            check_command(name, command, group);
        }
    }
    let count = std::fs::read_dir(dir)
        .expect("the directory is there")
        .count();
    assert!(count >= GROUPS.len());
}

fn check_command(name: &str, command: &Value, group: &str) {
    assert_eq!(name, name.to_lowercase());
    let fields = command.as_object().expect(name);
    for field in fields.keys() {
        assert!(COMMAND_FIELDS.contains(&field.as_str()), "{name}: {field}");
    }
    assert_eq!(fields["group"], group, "{name}");
    let summary = fields["summary"].as_str().expect(name);
    let words = summary.split_whitespace().count();
    assert!((1..=12).contains(&words), "{name}: {summary}");
    assert!(!summary.ends_with('.'), "{name}: {summary}");
    assert!(is_version(&fields["since"]), "{name}");
    for field in ["complexity", "replaced_by"] {
        if let Some(text) = fields.get(field) {
            assert!(
                text.as_str().is_some_and(|t| !t.is_empty()),
                "{name} {field}"
            );
        }
    }
    if let Some(version) = fields.get("deprecated_since") {
        assert!(is_version(version), "{name}");
        assert!(
            list(fields, "doc_flags").iter().any(|f| f == "deprecated"),
            "{name}"
        );
    }
    for flag in list(fields, "doc_flags") {
        assert!(flag == "deprecated" || flag == "syscmd", "{name}: {flag}");
    }
    for change in list(fields, "history") {
        assert!(is_version(&change[0]), "{name}: {change}");
        assert!(
            change[1].as_str().is_some_and(|t| !t.is_empty()),
            "{name}: {change}"
        );
    }
    for argument in list(fields, "arguments") {
        check_argument(name, argument);
    }
    if let Some(subcommands) = fields.get("subcommands") {
        for (sub, command) in subcommands.as_object().expect(name) {
            check_command(sub, command, group);
        }
    }
}

fn check_argument(command: &str, argument: &Value) {
    let fields = argument.as_object().expect(command);
    for field in fields.keys() {
        assert!(
            ARGUMENT_FIELDS.contains(&field.as_str()),
            "{command}: {field}"
        );
    }
    assert!(fields["name"].is_string(), "{command}");
    let kind = fields["type"].as_str().expect(command);
    assert!(ARGUMENT_TYPES.contains(&kind), "{command}: {kind}");
    assert!(
        kind != "pure-token" || fields.contains_key("token"),
        "{command}: {argument}"
    );
    let nested = matches!(kind, "oneof" | "block");
    assert_eq!(
        nested,
        fields.contains_key("arguments"),
        "{command}: {argument}"
    );
    for flag in list(fields, "flags") {
        let known = ["optional", "multiple", "multiple_token"];
        assert!(
            known.contains(&flag.as_str().expect(command)),
            "{command}: {flag}"
        );
    }
    for inner in list(fields, "arguments") {
        check_argument(command, inner);
    }
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    fields
        .get(name)
        .map_or(&[], |v| v.as_array().expect("a list"))
}

fn is_version(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.split('.').count() == 3 && text.split('.').all(|part| part.parse::<u32>().is_ok())
}
