//! The shape of the source: which module may use which, where `unsafe` may stand, and how a file
//! begins and how long it may get. `ARCHITECTURE.md` says why; this says when it is no longer so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module uses modules of lower layers and itself, nothing else.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["resp", "types", "config", "acl", "scripts"],
    &["observe", "wire"],
    &["keyspace", "client"],
    &["propagation", "pubsub"],
    &["persistence"],
    &["cluster", "sentinel"],
    &["dispatch"],
    &["durability"],
    &["replication"],
    &["bus", "scripting", "watch"],
    &["commands"],
    &["net"],
    &["server"],
    &["bin"],
];

/// Modules whose files may know each other both ways: the ways that a request takes through its
/// context are one thing.
const KNOTS: &[&str] = &["dispatch"];

/// Longest file, in lines.
const LONGEST: usize = 800;

/// Longest function, in lines.
const LONGEST_FUNCTION: usize = 100;

/// Words that mark something as unfinished or forgotten.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX:"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below `folder`, by its path relative to it.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                let name = path.strip_prefix(folder).expect("it lies below").to_owned();
                found.insert(name, text);
            }
        }
    }
    found
}

fn src() -> BTreeMap<PathBuf, String> {
    sources(&root().join("src"))
}

/// The text without comments, strings and character literals: what is left is code.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..]
                .find(&end)
                .map_or(rest.len(), |at| begin + at + end.len())
        } else if c == '"' {
            literal(rest, '"').unwrap_or(1)
        } else if c == '\'' {
            // A lifetime has no closing quote nearby.
            literal(rest, '\'').filter(|&n| n <= 12).unwrap_or(1)
        } else {
            0
        };
        if skip == 0 {
            out.push(c);
        }
        rest = &rest[skip.max(c.len_utf8())..];
    }
    out
}

/// Number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Length of the literal that begins here, its quotes included.
fn literal(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' if quote == '\'' => return None,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The top module of a file below `src`.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().expect("a path has parts");
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The top modules that code names by `crate::` (or, in a binary, by the crate's name).
fn used(code: &str) -> BTreeSet<String> {
    named(code, &["crate::", "tessera::"])
}

/// The first names behind these prefixes of paths.
fn named(code: &str, prefixes: &[&str]) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| -> String { text.chars().take_while(|c| is_word(*c)).collect() };
    let mut found = BTreeSet::new();
    for prefix in prefixes {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(is_word) || code[..at].ends_with('$') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.insert(word(rest));
                continue;
            };
            let (mut depth, mut begins) = (0, true);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    _ if begins && is_word(c) => {
                        found.insert(word(&group[i..]));
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in src() {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let Some(own) = rank(&module) else {
            wrong.push(format!("{}: `{module}` has no layer", path.display()));
            continue;
        };
        for other in used(&code(&text)).iter().filter(|other| **other != module) {
            // What is no module is a macro or an item of the crate's root: of the lowest layer.
            if rank(other).is_some_and(|rank| rank >= own) {
                wrong.push(format!("{}: `{module}` uses `{other}`", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the layers:\n{}",
        wrong.join("\n")
    );
}

/// The files of a top module (a folder of it counts as one) and which of the others each names,
/// tests at its foot aside.
fn files_of(module: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources(&root().join("src").join(module)) {
        let file = module_of(&path);
        if path == Path::new("mod.rs") || file == "tests" {
            continue;
        }
        let code = code(&text);
        let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let from_root = format!("crate::{module}::");
        let mut others = named(code, &[from_root.as_str()]);
        if path.iter().count() == 1 {
            others.extend(named(code, &["super::"]));
        }
        others.remove(&file);
        files.entry(file).or_default().extend(others);
    }
    let names: BTreeSet<String> = files.keys().cloned().collect();
    files
        .values_mut()
        .for_each(|others| others.retain(|other| names.contains(other)));
    files
}

#[test]
fn files_of_a_module_do_not_go_in_circles() {
    let mut circles = Vec::new();
    for module in LAYERS
        .iter()
        .copied()
        .flatten()
        .filter(|m| !KNOTS.contains(m))
    {
        if !root().join("src").join(module).is_dir() {
            continue;
        }
        let mut files = files_of(module);
        // Who needs nobody that is left is on solid ground; what remains in the end are circles.
        while let Some(free) = files
            .iter()
            .find(|(_, others)| others.is_empty())
            .map(|f| f.0.clone())
        {
            files.remove(&free);
            files
                .values_mut()
                .for_each(|others| _ = others.remove(&free));
        }
        let remain = files
            .into_iter()
            .map(|(file, others)| format!("{module}::{file} -> {others:?}"));
        circles.extend(remain);
    }
    assert!(
        circles.is_empty(),
        "in or above a circle:\n{}",
        circles.join("\n")
    );
}

#[test]
fn the_code_map_has_the_layers_of_this_test() {
    let order: Vec<String> = LAYERS.iter().map(|layer| layer.join(" ")).collect();
    let order = order.join(" < ");
    for file in ["src/lib.rs", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        let flat: Vec<&str> = text
            .split_whitespace()
            .filter(|word| *word != "//!")
            .collect();
        assert!(flat.join(" ").contains(&order), "{file} lacks: {order}");
    }
}

#[test]
fn files_have_an_essay_and_an_end() {
    let mut wrong = Vec::new();
    for (path, text) in src() {
        let path = path.display();
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!(
                "{path}: {lines} lines; which second subject moved in?"
            ));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!(
                "{path}: does not begin with what it is for (`//!`)"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions by the line on which they begin, with their names and lengths. What stands on one line has
/// no length.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        let is_head = |word: &&&str| {
            ["pub", "const", "unsafe", "extern", "\"C\""].contains(*word)
                || word.starts_with("pub(")
        };
        let before = words.iter().take_while(is_head).count();
        if words.get(before) != Some(&"fn") || trimmed.ends_with('}') || trimmed.ends_with(';') {
            continue;
        }
        let rest = lines[at..].iter();
        // A trait declares without a body.
        let head = rest.clone().find(|l| l.ends_with('{') || l.ends_with(';'));
        let end = format!("{indent}}}");
        let Some(len) = rest.clone().position(|l| *l == end) else {
            continue;
        };
        if head.is_none_or(|l| l.ends_with(';')) {
            continue;
        }
        let name = words[before + 1].split(['(', '<']).next();
        found.push((at + 1, name.unwrap_or_default().to_owned(), len + 1));
    }
    found
}

#[test]
fn functions_fit_on_two_screens() {
    let mut wrong = Vec::new();
    let is_test = |path: &Path| path.ends_with("tests.rs");
    for (path, text) in src().into_iter().filter(|(path, _)| !is_test(path)) {
        for (line, name, len) in functions(&text) {
            if len > LONGEST_FUNCTION {
                let path = path.display();
                wrong.push(format!("{path}:{line}: `{name}` has {len} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_unfinished() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for (path, text) in sources(&root().join(folder)) {
            if path == Path::new("layers.rs") {
                continue;
            }
            for word in UNFINISHED.iter().filter(|word| text.contains(**word)) {
                wrong.push(format!("{folder}/{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What locks shards. Commands and connections do not know what their thread holds: they reach
/// shards through the context of the command, which does.
const LOCKS: &[&str] = &["keyspace.lock(", ".lock_one(", ".lock_many(", ".lock_all("];

#[test]
fn commands_reach_shards_through_their_context() {
    let mut wrong = Vec::new();
    for (path, text) in src() {
        if !["commands", "net"].contains(&&*module_of(&path)) {
            continue;
        }
        let code: String = code(&text).split_whitespace().collect();
        for lock in LOCKS.iter().filter(|lock| code.contains(**lock)) {
            wrong.push(format!("{}: {lock}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `base::alloc` for `base/alloc.rs`, `keyspace` for `keyspace/mod.rs`.
fn module_path(path: &Path) -> String {
    let text = path.to_string_lossy().replace('/', "::");
    let text = text.trim_end_matches(".rs");
    text.trim_end_matches("::mod").to_owned()
}

/// Modules whose `mod` line follows an `allow` for unsafe code.
fn allowed(path: &Path, code: &str) -> Vec<String> {
    let parent = match module_path(path).as_str() {
        "lib" => String::new(),
        parent => format!("{parent}::"),
    };
    let after = code.split("#[allow(unsafe_code)]").skip(1);
    after
        .map(|rest| {
            let line = rest.trim_start().lines().next().unwrap_or_default();
            let name = line.trim_start_matches("pub ").strip_prefix("mod ");
            let name = name.and_then(|name| name.strip_suffix(';'));
            let name = name.unwrap_or_else(|| {
                panic!(
                    "{}: allows unsafe code elsewhere than at a `mod` line",
                    path.display()
                )
            });
            format!("{parent}{name}")
        })
        .collect()
}

fn has_unsafe(code: &str) -> bool {
    let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.any(|word| word == "unsafe")
}

#[test]
fn unsafe_code_is_where_the_crate_says() {
    let sources = src();
    let (mut allows, mut uses) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in &sources {
        let code = code(text);
        allows.extend(allowed(path, &code));
        if has_unsafe(&code) {
            uses.insert(module_path(path));
        }
    }
    assert_eq!(allows, uses, "left: allowed; right: used");
    let essay: String = sources[Path::new("lib.rs")]
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    for module in &uses {
        assert!(
            essay.contains(&format!("`{module}`")),
            "the essay of lib.rs does not say why {module} has unsafe code"
        );
    }
}

#[test]
fn the_scanner_sees_code_and_only_code() {
    let text = "use crate::{base::clock, resp::{a, b}};\n// crate::net\nlet a = \"crate::pubsub\";\n\
                fn f<'a>(x: &'a u8) { crate::types::g('\\'', '\"', r#\"crate::acl\"#) } /* unsafe */";
    let used: Vec<String> = used(&code(text)).into_iter().collect();
    assert_eq!(used, ["base", "resp", "types"]);
    assert!(!has_unsafe(&code(text)));
    assert!(has_unsafe("unsafe impl Send for A {}") && !has_unsafe("#![deny(unsafe_code)]"));
}
