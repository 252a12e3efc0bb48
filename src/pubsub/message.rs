//! What subscribers are sent, in both protocols.

use bytes::Bytes;

use crate::resp::write::{Output, Protocol};

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel by name.
    Channel,
    /// Channels by glob pattern.
    Pattern,
    /// A shard channel.
    Shard,
}

impl Kind {
    /// The first element of a message.
    fn message_word(self) -> &'static [u8] {
        match self {
            Self::Channel => b"message",
            Self::Pattern => b"pmessage",
            Self::Shard => b"smessage",
        }
    }

    fn confirmation_word(self, subscribed: bool) -> &'static [u8] {
        match (self, subscribed) {
            (Self::Channel, true) => b"subscribe",
            (Self::Pattern, true) => b"psubscribe",
            (Self::Shard, true) => b"ssubscribe",
            (Self::Channel, false) => b"unsubscribe",
            (Self::Pattern, false) => b"punsubscribe",
            (Self::Shard, false) => b"sunsubscribe",
        }
    }
}

/// Writes the confirmation of a (un)subscription; `count` is what the client is subscribed to now.
pub fn confirmation(
    out: &mut Output,
    kind: Kind,
    subscribed: bool,
    name: Option<&[u8]>,
    count: usize,
) {
    out.push(3);
    out.bulk(kind.confirmation_word(subscribed));
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.int(count as i64);
}

/// A message, encoded on demand once for each protocol.
pub struct Encoded<'a> {
    kind: Kind,
    pattern: Option<&'a [u8]>,
    channel: &'a [u8],
    payload: &'a [u8],
    resp2: Option<Bytes>,
    resp3: Option<Bytes>,
}

impl<'a> Encoded<'a> {
    pub fn new(
        kind: Kind,
        pattern: Option<&'a [u8]>,
        channel: &'a [u8],
        payload: &'a [u8],
    ) -> Self {
        Self {
            kind,
            pattern,
            channel,
            payload,
            resp2: None,
            resp3: None,
        }
    }

    pub fn bytes(&mut self, protocol: u32) -> Bytes {
        let protocol = if protocol == 3 {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        };
        let cached = match protocol {
            Protocol::Resp2 => &self.resp2,
            Protocol::Resp3 => &self.resp3,
        };
        if let Some(bytes) = cached {
            return bytes.clone();
        }
        let mut out = Output::new();
        out.set_protocol(protocol);
        out.push(if self.pattern.is_some() { 4 } else { 3 });
        out.bulk(self.kind.message_word());
        if let Some(pattern) = self.pattern {
            out.bulk(pattern);
        }
        out.bulk(self.channel);
        out.bulk(self.payload);
        let bytes = Bytes::from(out.to_vec());
        match protocol {
            Protocol::Resp2 => self.resp2 = Some(bytes.clone()),
            Protocol::Resp3 => self.resp3 = Some(bytes.clone()),
        }
        bytes
    }
}
