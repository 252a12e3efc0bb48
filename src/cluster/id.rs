//! What names a node for ever: 40 characters, chosen at random when it first starts.

use std::fmt;

use rand::RngCore;

/// A node's name. Redis makes names of `0-9a-f` and takes `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NodeId::LEN]);

impl NodeId {
    /// Characters of a name.
    pub const LEN: usize = 40;

    /// A new name.
    pub fn random(random: &mut dyn RngCore) -> Self {
        let mut bytes = [0; Self::LEN];
        random.fill_bytes(&mut bytes);
        Self(bytes.map(|byte| b"0123456789abcdef"[usize::from(byte & 15)]))
    }

    /// The name that `text` is; `None` unless it is one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name: [u8; Self::LEN] = text.try_into().ok()?;
        let is_valid = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        name.iter().all(is_valid).then_some(Self(name))
    }

    /// Its characters.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Its characters as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str()[..8])
    }
}
