//! The row `user default ...` that a Redis writes into its configuration file.
//!
//! CONFIG REWRITE of Redis 7.0 always leaves one there. While there are no ACL users, the default
//! user may do everything, and such a row is taken over as far as it says just that, with its
//! password; every other one is refused, because ignoring it would open what it closes.

use crate::acl::sha256_hex;
use crate::config::Settings;
use crate::config::file::LoadError;

/// What the row said, if there was one.
#[derive(Default)]
pub struct DefaultUser {
    seen: bool,
    password: Password,
}

#[derive(Default, PartialEq, Debug)]
enum Password {
    /// Whatever `requirepass` says.
    #[default]
    Unsaid,
    None,
    Plain(Vec<u8>),
    /// In hexadecimal.
    Sha256(String),
}

const UNSUPPORTED: &str = "ACL users are not supported yet";

impl DefaultUser {
    /// Reads a row: its words, `user` included. The error is what the start fails with.
    pub fn read(&mut self, args: &[Vec<u8>]) -> Result<(), String> {
        let [_, name, rules @ ..] = args else {
            return Err(UNSUPPORTED.to_owned());
        };
        if name != b"default" {
            return Err(UNSUPPORTED.to_owned());
        }
        if self.seen {
            return Err(
                "Error in user declaration 'default': Duplicate user found. A user can only be \
                 defined once in config files"
                    .to_owned(),
            );
        }
        self.seen = true;
        let (mut on, mut keys, mut channels, mut commands) = (false, false, false, false);
        for rule in rules {
            match &rule.to_ascii_lowercase()[..] {
                b"on" => on = true,
                b"nopass" => self.password = Password::None,
                b"~*" | b"allkeys" => keys = true,
                b"&*" | b"allchannels" => channels = true,
                b"+@all" | b"allcommands" => commands = true,
                // Payloads are always checked.
                b"sanitize-payload" | b"skip-sanitize-payload" => {}
                [b'>', ..] if self.password == Password::Unsaid => {
                    self.password = Password::Plain(rule[1..].to_vec());
                }
                [b'#', hash @ ..] if self.password == Password::Unsaid => {
                    self.password = Password::Sha256(String::from_utf8_lossy(hash).into_owned());
                }
                _ => return Err(UNSUPPORTED.to_owned()),
            }
        }
        let whole = on && keys && channels && commands && self.password != Password::Unsaid;
        whole.then_some(()).ok_or_else(|| UNSUPPORTED.to_owned())
    }

    /// Makes the password the one of `requirepass`, when all rows have been read.
    pub fn enter(self, settings: &mut Settings) -> Result<(), LoadError> {
        match self.password {
            Password::Unsaid => {}
            Password::None => settings.requirepass.clear(),
            Password::Plain(password) => settings.requirepass = password,
            Password::Sha256(hash) if sha256_hex(&settings.requirepass) == hash => {}
            Password::Sha256(_) => {
                return Err(LoadError::Fatal(format!(
                    "user default: the password is known by its hash only, and 'requirepass' does \
                     not give it. {UNSUPPORTED}\n"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, requirepass: &str) -> Option<Vec<u8>> {
        let words: Vec<Vec<u8>> = line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
        let mut user = DefaultUser::default();
        user.read(&words).ok()?;
        assert!(user.read(&words).is_err());
        let mut settings = Settings {
            requirepass: requirepass.into(),
            ..Settings::default()
        };
        user.enter(&mut settings).ok()?;
        Some(settings.requirepass)
    }

    #[test]
    fn the_row_that_redis_writes_is_taken_over() {
        let plain = "user default on nopass ~* &* +@all";
        assert_eq!(read(plain, ""), Some(Vec::new()));
        assert_eq!(read(plain, "secret"), Some(Vec::new()));
        let old = "user default on nopass sanitize-payload ~* &* +@all";
        assert_eq!(read(old, ""), Some(Vec::new()));
        let hash = sha256_hex(b"secret");
        let hashed = format!("user default on #{hash} ~* &* +@all");
        assert_eq!(read(&hashed, "secret"), Some(b"secret".to_vec()));
        assert_eq!(read(&hashed, "other"), None);
        let given = "user default on >secret allkeys allchannels allcommands";
        assert_eq!(read(given, ""), Some(b"secret".to_vec()));
    }

    #[test]
    fn whatever_closes_something_is_refused() {
        for line in [
            "user",
            "user default",
            "user alice on nopass ~* &* +@all",
            "user default off nopass ~* &* +@all",
            "user default on nopass ~a* &* +@all",
            "user default on nopass ~* &* +@all -debug",
            "user default on ~* &* +@all",
            "user default on >a >b ~* &* +@all",
            "user default on nopass ~* +@all",
        ] {
            assert_eq!(read(line, ""), None, "{line}");
        }
    }
}
