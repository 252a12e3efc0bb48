//! Users at the start: those of the configuration file's rows, or those of `aclfile`.
//!
//! A row is looked at when it is read, so that a message can name its line; names of commands only later, as
//! Redis does. A user may stand in one row only, but for one that an included file holds too: then the
//! row of the file that includes it is the one that counts, so that CONFIG REWRITE can change such a user.

use crate::acl::catalog::Catalog;
use crate::acl::{Grammar, RuleError, Rules, file, has_spaces, merge};
use crate::config::{AclPubsubDefault, Settings, UserRow, strerror};
use crate::dispatch::context::Shared;

/// What rows of users are read by.
pub struct Rows {
    catalog: Catalog,
}

impl Rows {
    /// For these commands.
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog }
    }

    /// Looks at a row: its words, `user` included. The error is what the start fails with.
    pub fn check(&self, row: &UserRow, settings: &Settings) -> Result<(), String> {
        let words = &row.words;
        let refused = |at: usize, text: &str| {
            let word = words.get(at).map_or(&b""[..], |word| word);
            let word = String::from_utf8_lossy(word);
            Err(format!("Error in user declaration '{word}': {text}"))
        };
        let known = &settings.directives.users;
        if known.iter().any(|known| known.clashes_with(row)) {
            let text = "Duplicate user found. A user can only be defined once in config files";
            return refused(1, text);
        }
        let grammar = Grammar {
            catalog: &self.catalog,
            all_channels: all_channels(settings),
        };
        let rules: Vec<&[u8]> = words.iter().skip(2).map(|word| &word[..]).collect();
        let merged = match merge(&rules) {
            Ok(merged) => merged,
            Err(at) => return refused(at, "Wrong format"),
        };
        let mut probe = Rules::new(grammar);
        for (at, rule) in merged.iter().enumerate() {
            match probe.set(grammar, rule) {
                Ok(()) | Err(RuleError::Unknown) => {}
                // Counted as Redis counts, which forgets the two words before the rules.
                Err(error) => return refused(at, error.text()),
            }
        }
        Ok(())
    }
}

fn all_channels(settings: &Settings) -> bool {
    settings.acl_pubsub_default == AclPubsubDefault::Allchannels
}

/// Makes the users that the parameters and files say. Why that is impossible is in the log.
pub fn load(shared: &Shared) -> Result<(), ()> {
    let settings = shared.config.load();
    let rows = &settings.directives.users;
    shared.users.set_default_password(&settings.requirepass);
    if !settings.aclfile.is_empty() && !rows.is_empty() {
        tracing::warn!(
            "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path \
             is invalid. This setup is very likely to lead to configuration errors and security holes, \
             please define either an ACL file or declare users directly in your redis.conf, but not both."
        );
        return Err(());
    }
    for row in rows.iter().filter(|row| !row.is_overruled(rows)) {
        if load_row(shared, row, &settings).is_err() {
            tracing::warn!("Critical error while loading ACLs. Exiting.");
            return Err(());
        }
    }
    match settings.aclfile.is_empty() {
        true => Ok(()),
        false => load_file(shared, &settings),
    }
}

fn load_row(shared: &Shared, row: &UserRow, settings: &Settings) -> Result<(), ()> {
    let words: Vec<&[u8]> = row.words.iter().map(|word| &word[..]).collect();
    let [_, name, rules @ ..] = &words[..] else {
        return Err(());
    };
    if has_spaces(name) {
        tracing::warn!("Spaces not allowed in ACL usernames");
        return Err(());
    }
    let shown = String::from_utf8_lossy(name);
    let (users, all_channels) = (&shared.users, all_channels(settings));
    let merged = merge(rules).map_err(|_| ())?;
    if *name == b"default" {
        users.set(name, &[b"reset"], all_channels).map_err(|_| ())?;
    }
    let grammar = users.grammar(all_channels);
    let mut probe = users
        .get(name)
        .map_or_else(|| Rules::new(grammar), |user| Rules::clone(&user.rules()));
    for rule in &merged {
        if let Err(error) = probe.set(grammar, rule) {
            tracing::warn!(
                "Error loading ACL rule '{}' for the user named '{shown}': {}",
                String::from_utf8_lossy(rule),
                error.text()
            );
            return Err(());
        }
    }
    let changed = users.set(name, rules, all_channels).map_err(|_| ())?;
    if row.is_included {
        users.note_included(&changed.user);
    }
    if !changed.now.is_enabled() {
        tracing::info!(
            "The user '{shown}' is disabled (there is no 'on' modifier in the user description). Make \
             sure this is not a configuration error."
        );
    }
    Ok(())
}

fn load_file(shared: &Shared, settings: &Settings) -> Result<(), ()> {
    let path = settings.aclfile.as_path();
    let name = path.display().to_string();
    let abort = |errors: &[u8]| {
        let errors = String::from_utf8_lossy(errors);
        tracing::warn!("Aborting Redis startup because of ACL errors: {errors}");
    };
    let text = std::fs::read(path).map_err(|error| {
        let reason = strerror(&error);
        abort(format!("Error loading ACLs, opening file '{name}': {reason}").as_bytes());
    })?;
    let grammar = shared.users.grammar(all_channels(settings));
    let declared = file::read(grammar, &name, &text).map_err(|errors| abort(&errors))?;
    shared.users.replace(declared);
    Ok(())
}
