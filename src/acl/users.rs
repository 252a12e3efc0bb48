//! All users: found by name, changed one by one or all at once.
//!
//! A user is one object for as long as it is there, which sessions hold. Its rules are replaced as a whole,
//! then the version grows; who keeps rules compares versions before it uses them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::catalog::Catalog;
use super::file::Declared;
use super::log::Log;
use super::rules::{Grammar, Rules};

/// A user.
pub struct User {
    name: Box<[u8]>,
    rules: RwLock<Arc<Rules>>,
    /// Enabled, and takes any password.
    open: AtomicBool,
    /// It was removed: nobody logs in as it any more, and who did is closed.
    gone: AtomicBool,
}

impl User {
    fn new(name: &[u8], rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            open: AtomicBool::new(is_open(&rules)),
            rules: RwLock::new(Arc::new(rules)),
            gone: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it may do now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// True when nobody need say a password to be this user.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// True once it was removed.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn publish(&self, rules: Arc<Rules>) -> Arc<Rules> {
        self.open.store(is_open(&rules), Ordering::Release);
        std::mem::replace(&mut *self.rules.write(), rules)
    }
}

fn is_open(rules: &Rules) -> bool {
    rules.is_enabled() && rules.takes_any_password()
}

/// A user whose rules changed, and what they were.
pub struct Changed {
    /// The user.
    pub user: Arc<User>,
    /// Its rules until now.
    pub before: Arc<Rules>,
    /// Its rules from now on.
    pub now: Arc<Rules>,
}

/// All users, and what was refused them.
pub struct Users {
    catalog: Catalog,
    /// Held while a change is made.
    all: RwLock<BTreeMap<Box<[u8]>, Arc<User>>>,
    default: Arc<User>,
    version: AtomicU64,
    /// Users that files hold which the configuration file includes, as they are there.
    included: Mutex<BTreeMap<Box<[u8]>, Vec<u8>>>,
    /// ACL LOG.
    pub log: Log,
}

/// The user of whoever has not said who it is.
const DEFAULT: &[u8] = b"default";

impl Users {
    /// The default user alone, who may do everything.
    pub fn new(catalog: Catalog) -> Self {
        let grammar = Grammar {
            catalog: &catalog,
            all_channels: false,
        };
        let default = User::new(DEFAULT, Rules::of_default_user(grammar));
        let all = BTreeMap::from([(DEFAULT.into(), Arc::clone(&default))]);
        Self {
            catalog,
            all: RwLock::new(all),
            default,
            version: AtomicU64::new(1),
            included: Mutex::default(),
            log: Log::default(),
        }
    }

    /// The commands that there are.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What rules are read by.
    pub fn grammar(&self, all_channels: bool) -> Grammar<'_> {
        Grammar {
            catalog: &self.catalog,
            all_channels,
        }
    }

    /// Grows with each change, once it can be seen; never 0.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The user of whoever has not said who it is.
    pub fn default_user(&self) -> Arc<User> {
        Arc::clone(&self.default)
    }

    /// The user of a name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<User>> {
        self.all.read().get(name).cloned()
    }

    /// The user of a name, if that is its password.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.get(name)?;
        user.rules().admits(password).then_some(user)
    }

    /// All users, in the order of their names.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.all.read().values().cloned().collect()
    }

    /// Each user as a line of a file.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let all = self.all();
        all.iter().map(|user| self.line(user)).collect()
    }

    /// The text of a file that holds them as they are.
    pub fn file_text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for line in self.lines() {
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        text
    }

    fn line(&self, user: &User) -> Vec<u8> {
        let rules = user.rules().describe(&self.catalog);
        [b"user ", user.name(), b" ", &rules].concat()
    }

    /// Changes a user, or makes a new one, by rules: by all of them, or by none and then the error says why.
    pub fn set(
        &self,
        name: &[u8],
        rules: &[&[u8]],
        all_channels: bool,
    ) -> Result<Changed, Vec<u8>> {
        let grammar = self.grammar(all_channels);
        let mut all = self.all.write();
        let known = all.get(name).cloned();
        let before = match &known {
            Some(user) => user.rules(),
            None => Arc::new(Rules::new(grammar)),
        };
        let now = Arc::new(before.change(grammar, rules)?);
        let user = match known {
            Some(user) => user,
            None => {
                let user = User::new(name, Rules::new(grammar));
                all.insert(name.into(), Arc::clone(&user));
                user
            }
        };
        user.publish(Arc::clone(&now));
        self.changed();
        Ok(Changed { user, before, now })
    }

    /// Removes a user; its clients are to be closed. The default user stays.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<User>> {
        if name == DEFAULT {
            return None;
        }
        let user = self.all.write().remove(name)?;
        user.gone.store(true, Ordering::Release);
        self.changed();
        Some(user)
    }

    /// Has these users in place of all others, whose clients are to be closed; what became of the default
    /// user, which stays, with the rules given it or those it has at first.
    pub fn replace(&self, declared: Declared) -> (Vec<Arc<User>>, Changed) {
        let grammar = self.grammar(false);
        let mut declared = declared;
        let default = declared.remove(DEFAULT);
        let now = Arc::new(default.unwrap_or_else(|| Rules::of_default_user(grammar)));
        let users = declared.into_iter();
        let mut new: BTreeMap<_, _> = users
            .map(|(name, rules)| (name.clone(), User::new(&name, rules)))
            .collect();
        new.insert(DEFAULT.into(), Arc::clone(&self.default));
        let mut all = self.all.write();
        let mut old = std::mem::replace(&mut *all, new);
        old.remove(DEFAULT);
        for user in old.values() {
            user.gone.store(true, Ordering::Release);
        }
        let before = self.default.publish(Arc::clone(&now));
        self.changed();
        let user = self.default_user();
        (old.into_values().collect(), Changed { user, before, now })
    }

    /// Has the default user take this password and no other one, or any if it is empty (`requirepass`).
    pub fn set_default_password(&self, password: &[u8]) {
        let rule = [b">", password].concat();
        let rule = if password.is_empty() {
            b"nopass"
        } else {
            &rule[..]
        };
        let set = self.set(DEFAULT, &[b"resetpass", rule], false);
        debug_assert!(set.is_ok());
    }

    /// Takes note of a user that stands in a file which the configuration file includes.
    pub fn note_included(&self, user: &User) {
        let line = self.line(user);
        self.included.lock().insert(user.name().into(), line);
    }

    /// The lines that the configuration file is to hold: no users that an included file holds as they are.
    pub fn lines_of_configuration(&self) -> Vec<Vec<u8>> {
        let all = self.all();
        let included = self.included.lock();
        let lines = all.iter().map(|user| (user, self.line(user)));
        let lines = lines.filter(|(user, line)| included.get(user.name()) != Some(line));
        lines.map(|(_, line)| line).collect()
    }
}
