//! What a user may do: whether it may log in and how, and its selectors.

use super::catalog::Catalog;
use super::password::{self, Digest};
use super::selector::{Access, Selector};
use crate::base::text::{before_nul, split_args};

/// What rules are read by.
#[derive(Clone, Copy)]
pub struct Grammar<'a> {
    /// The commands that there are.
    pub catalog: &'a Catalog,
    /// New selectors allow all channels (`acl-pubsub-default`).
    pub all_channels: bool,
}

/// Why a rule is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// It names a command or category that there is not.
    Unknown,
    /// It makes no sense.
    Syntax,
    /// All keys are allowed already.
    AfterAllKeys,
    /// All channels are allowed already.
    AfterAllChannels,
    /// There is no such password to be removed.
    NoSuchPassword,
    /// A hash that is none.
    BadHash,
    /// A first argument of a subcommand.
    FirstArgOfSubcommand,
    /// The number of a database that there cannot be.
    DatabaseOutOfRange,
}

impl RuleError {
    /// What clients and logs are told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown command or category name in ACL",
            Self::Syntax => "Syntax error",
            Self::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does \
                 not have any effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            Self::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and \
                 does not have any effect. Try 'resetchannels' to start with an empty list of channels"
            }
            Self::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            Self::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase \
                 hexadecimal characters"
            }
            Self::DatabaseOutOfRange => "The provided database ID is out of range",
            Self::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// What happens with the payloads that a user gives RESTORE. All are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payloads {
    Unsaid,
    Skip,
    Sanitize,
}

/// See the module. Made anew for each change, so that who holds them sees all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    enabled: bool,
    any_password: bool,
    payloads: Payloads,
    passwords: Vec<Digest>,
    /// The first one is what rules outside of parentheses change.
    selectors: Vec<Selector>,
}

impl Rules {
    /// Those of a new user: nothing is allowed.
    pub fn new(grammar: Grammar<'_>) -> Self {
        Self {
            enabled: false,
            any_password: false,
            payloads: Payloads::Unsaid,
            passwords: Vec::new(),
            selectors: vec![Selector::new(grammar.catalog, grammar.all_channels)],
        }
    }

    /// Those of the default user as it is at first: everything is allowed, to anybody.
    pub fn of_default_user(grammar: Grammar<'_>) -> Self {
        let mut rules = Self::new(grammar);
        for rule in ["+@all", "~*", "&*", "on", "nopass"] {
            let set = rules.set(grammar, rule.as_bytes());
            debug_assert_eq!(set, Ok(()));
        }
        rules
    }

    /// Changes them by a rule.
    pub fn set(&mut self, grammar: Grammar<'_>, rule: &[u8]) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"skip-sanitize-payload" => self.payloads = Payloads::Skip,
            b"sanitize-payload" => self.payloads = Payloads::Sanitize,
            b"nopass" => self.reset_passwords(true),
            b"resetpass" => self.reset_passwords(false),
            [b'>', ..] => self.add_password(password::digest(&rule[1..])),
            [b'#', ..] => self.add_password(hash(&rule[1..])?),
            [b'<', ..] => self.remove_password(password::digest(&rule[1..]))?,
            [b'!', ..] => self.remove_password(hash(&rule[1..])?)?,
            [b'(', .., b')'] => {
                let selector = selector(grammar, &rule[1..rule.len() - 1])?;
                self.selectors.push(selector);
            }
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => {
                *self = Self::new(grammar);
                self.payloads = Payloads::Sanitize;
            }
            _ => self.selectors[0].set(grammar.catalog, rule)?,
        }
        Ok(())
    }

    /// Changes them by rules as a client or a line writes them: all of them or none.
    pub fn change(&self, grammar: Grammar<'_>, rules: &[&[u8]]) -> Result<Self, Vec<u8>> {
        let merged = merge(rules).map_err(|at| {
            let start = before_nul(rules[at]);
            let before = b"Unmatched parenthesis in acl selector starting at '";
            [&before[..], start, b"'."].concat()
        })?;
        let mut changed = self.clone();
        for rule in &merged {
            changed.set(grammar, rule).map_err(|error| {
                let (before, text) = (b"Error in ACL SETUSER modifier '", error.text());
                [&before[..], before_nul(rule), b"': ", text.as_bytes()].concat()
            })?;
        }
        Ok(changed)
    }

    fn reset_passwords(&mut self, any: bool) {
        self.any_password = any;
        self.passwords.clear();
    }

    fn add_password(&mut self, digest: Digest) {
        if !self.passwords.contains(&digest) {
            self.passwords.push(digest);
        }
        self.any_password = false;
    }

    fn remove_password(&mut self, digest: Digest) -> Result<(), RuleError> {
        let known = self.passwords.iter().position(|known| *known == digest);
        self.passwords
            .remove(known.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// The user may log in.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Any password is right, also none.
    pub fn takes_any_password(&self) -> bool {
        self.any_password
    }

    /// True when the user may log in with this password.
    pub fn admits(&self, given: &[u8]) -> bool {
        self.enabled && (self.any_password || password::matches_any(given, &self.passwords))
    }

    /// A selector allows whatever there is.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_unrestricted)
    }

    /// The selectors, of which the first has no parentheses.
    #[inline]
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// True when a selector lets a key be used in this way.
    pub fn allows_key(&self, key: &[u8], access: Access) -> bool {
        self.selectors.iter().any(|s| s.allows_key(key, access))
    }

    /// True when a selector lets a channel be used.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let mut selectors = self.selectors.iter();
        selectors.any(|s| s.allows_channel(channel, is_pattern))
    }

    /// True when every channel that `before` allowed is allowed still, as far as patterns tell.
    pub fn keeps_channels_of(&self, before: &Rules) -> bool {
        if self.selectors.iter().any(Selector::allows_all_channels) {
            return true;
        }
        let now = || self.selectors.iter().flat_map(Selector::channels);
        before.selectors.iter().all(|selector| {
            let mut patterns = selector.channels().iter();
            !selector.allows_all_channels() && patterns.all(|p| now().any(|known| known == p))
        })
    }

    /// The user's flags, as GETUSER shows them.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.any_password {
            flags.push("nopass");
        }
        match self.payloads {
            Payloads::Unsaid => {}
            Payloads::Skip => flags.push("skip-sanitize-payload"),
            Payloads::Sanitize => flags.push("sanitize-payload"),
        }
        flags
    }

    /// The hashes of its passwords, in hexadecimal.
    pub fn passwords(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(password::hex)
    }

    /// Rules that make rules like these: what files and ACL LIST hold.
    pub fn describe(&self, catalog: &Catalog) -> Vec<u8> {
        let mut text = self.flags().join(" ").into_bytes();
        for hash in self.passwords() {
            text.extend_from_slice(format!(" #{hash}").as_bytes());
        }
        for (i, selector) in self.selectors.iter().enumerate() {
            let rules = selector.describe(catalog);
            let (open, close) = if i == 0 { (" ", "") } else { (" (", ")") };
            text.extend_from_slice(open.as_bytes());
            text.extend_from_slice(&rules);
            text.extend_from_slice(close.as_bytes());
        }
        text
    }
}

/// A hash as rules write it.
fn hash(text: &[u8]) -> Result<Digest, RuleError> {
    password::from_hex(text).ok_or(RuleError::BadHash)
}

/// The selector of the rules between parentheses.
fn selector(grammar: Grammar<'_>, rules: &[u8]) -> Result<Selector, RuleError> {
    let mut selector = Selector::new(grammar.catalog, grammar.all_channels);
    for rule in split_args(before_nul(rules)).unwrap_or_default() {
        selector.set(grammar.catalog, &rule)?;
    }
    Ok(selector)
}

/// Joins selectors that were written over several arguments; the error is the argument at which one
/// begins that does not end.
pub fn merge(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged: Vec<Vec<u8>> = Vec::with_capacity(rules.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, rule) in rules.iter().enumerate() {
        let ends = rule.last() == Some(&b')');
        if rule.first() == Some(&b'(') && !ends {
            open = Some((at, rule.to_vec()));
        } else if let Some((_, selector)) = &mut open {
            selector.push(b' ');
            selector.extend_from_slice(before_nul(rule));
            if ends && let Some((_, selector)) = open.take() {
                merged.push(selector);
            }
        } else {
            merged.push(rule.to_vec());
        }
    }
    match open {
        Some((at, _)) => Err(at),
        None => Ok(merged),
    }
}
