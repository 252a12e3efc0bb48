//! The file of users (`aclfile`): a line for each, `user <name> <rule> ...`.
//!
//! A file is read as a whole or not at all: what is wrong with it is told, all of it, in one line.

use std::collections::BTreeMap;

use super::rules::{Grammar, RuleError, Rules, merge};
use crate::base::text::before_nul;

/// Rules by user.
pub type Declared = BTreeMap<Box<[u8]>, Rules>;

/// Reads the text of the file called `name`. The error tells all that is wrong.
pub fn read(grammar: Grammar<'_>, name: &str, text: &[u8]) -> Result<Declared, Vec<u8>> {
    let (mut users, mut errors) = (Declared::new(), Vec::new());
    for (index, line) in before_nul(text).split(|&b| b == b'\n').enumerate() {
        let line = trim(line, b" \t\r\n");
        if !line.is_empty() {
            let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
            read_line(grammar, (name, index + 1), &words, &mut users, &mut errors);
        }
    }
    if errors.is_empty() {
        return Ok(users);
    }
    errors.extend_from_slice(
        b"WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    );
    Err(errors)
}

/// Reads a line that is not empty.
fn read_line(
    grammar: Grammar<'_>,
    (name, number): (&str, usize),
    words: &[&[u8]],
    users: &mut Declared,
    errors: &mut Vec<u8>,
) {
    let mut complain = |parts: &[&[u8]]| errors.extend_from_slice(&parts.concat());
    let place = format!("{name}:{number}");
    let [b"user", user, rules @ ..] = words else {
        let what = b" should start with user keyword followed by the username. ";
        return complain(&[place.as_bytes(), what]);
    };
    if super::has_spaces(user) {
        let what = [b"'", place.as_bytes(), b": username '", user];
        return complain(&[&what.concat(), b"' contains invalid characters. "]);
    }
    if users.contains_key(*user) {
        let line = format!("' found on line {number}. ");
        return complain(&[b"WARNING: Duplicate user '", user, line.as_bytes()]);
    }
    let mut declared = Rules::new(grammar);
    match merge(rules) {
        Ok(merged) => {
            let mut is_told = false;
            for rule in &merged {
                let rule = trim(rule, b"\t\r\n");
                let Err(error) = declared.set(grammar, rule) else {
                    continue;
                };
                // A name that is not known is no secret; other rules may be passwords.
                if error == RuleError::Unknown {
                    let (place, text) = (place.as_bytes(), error.text().as_bytes());
                    let what = [
                        place,
                        b": Error in applying operation '",
                        rule,
                        b"': ",
                        text,
                    ];
                    complain(&[&what.concat(), b". "]);
                } else if !std::mem::replace(&mut is_told, true) {
                    complain(&[format!("{place}: {}. ", error.text()).as_bytes()]);
                }
            }
        }
        Err(_) => complain(&[
            place.as_bytes(),
            b": Unmatched parenthesis in selector definition.",
        ]),
    }
    users.insert((*user).into(), declared);
}

/// Text without these bytes at its ends.
fn trim<'a>(text: &'a [u8], ends: &[u8]) -> &'a [u8] {
    let is_kept = |b: &u8| !ends.contains(b);
    let start = text.iter().position(is_kept).unwrap_or(text.len());
    let end = text.iter().rposition(is_kept).map_or(start, |at| at + 1);
    &text[start..end]
}
