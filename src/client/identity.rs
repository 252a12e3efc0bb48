//! Who a client is, and what it may do, as its worker knows it.

use std::sync::Arc;

use crate::acl::{Rules, User};

/// A session's user and its rules. What commands of a user who may do everything look at is one number.
pub struct Identity {
    user: Option<Arc<User>>,
    /// It has said a password, or none was asked for when it came.
    pub authenticated: bool,
    rules: Option<Arc<Rules>>,
    /// The version of the users from which on the rules are these; 0: they were not looked at.
    as_of: u64,
    /// The same number when nothing is refused to it, else 0.
    free_as_of: u64,
    /// More is to be done for its commands than to run them, even if nothing is refused to it.
    pub is_looked_after: bool,
}

impl Identity {
    /// That of a client who has said nothing yet. Without a user it is never refused anything.
    pub fn new(user: Option<Arc<User>>) -> Self {
        Self {
            authenticated: user.as_ref().is_none_or(|user| user.is_open()),
            user,
            rules: None,
            as_of: 0,
            free_as_of: 0,
            is_looked_after: false,
        }
    }

    /// Has more looked at than what it may do, or no longer.
    pub fn look_after(&mut self, is_looked_after: bool) {
        self.is_looked_after = is_looked_after;
        self.as_of = 0;
        self.free_as_of = 0;
    }

    /// True when it is known that nothing is refused to it, as of this version of the users, and that no more
    /// is to be done for its commands than to run them.
    #[inline]
    pub fn is_free(&self, version: u64) -> bool {
        self.free_as_of == version
    }

    /// The rules, as of a version of the users or later; `None` without a user.
    #[inline]
    pub fn rules(&mut self, version: u64) -> Option<&Rules> {
        if self.as_of != version {
            self.look(version);
        }
        self.rules.as_deref()
    }

    #[cold]
    fn look(&mut self, version: u64) {
        self.rules = self.user.as_ref().map(|user| user.rules());
        self.as_of = version;
        let rules = self.rules.as_ref();
        let may_all = rules.is_none_or(|rules| rules.is_unrestricted());
        let is_free = may_all && !self.owes_password() && !self.is_looked_after;
        self.free_as_of = if is_free { version } else { 0 };
    }

    /// The rules are those of this version of the users.
    pub fn is_current(&self, version: u64) -> bool {
        self.as_of == version
    }

    /// The user; `None` if nothing is ever refused.
    pub fn user(&self) -> Option<&Arc<User>> {
        self.user.as_ref()
    }

    /// It has to log in before it is served. (Who has not done so is of the default user.)
    #[inline]
    pub fn owes_password(&self) -> bool {
        !self.authenticated && self.user.as_ref().is_some_and(|user| !user.is_open())
    }
}
