//! Messages of the bus, byte for byte as Redis 7.0 sends them (`clusterMsg` in its `cluster.h`).
//!
//! A message begins with its length; [`frame`] finds whole ones. All lengths are checked before anything
//! is read: what does not fit is refused as a whole ([`Malformed`]). Extensions that are not known are
//! skipped. Texts that come from others end in files and replies, so whatever could not be an address
//! or a host name is refused or left out.

use super::id::NodeId;
use super::slots::{BYTES, SlotSet};

/// Bytes of a header.
pub const HEADER: usize = 2256;
/// Bytes of an entry of gossip.
pub const GOSSIP: usize = 104;
/// Bytes for an address.
const ADDRESS: usize = 46;
/// The version that is spoken.
const VERSION: u16 = 1;
/// Longest message that is read: a publication may have 512 MB of name and of text each.
pub const LONGEST: usize = HEADER + 8 + (1 << 30);

/// Longest message of somebody who is not known: no publication, but gossip of thousands.
pub const LONGEST_OF_STRANGERS: usize = 1 << 20;

/// Stands in bytes of the header that Redis leaves empty and does not read: the sender understands the
/// extension that tells a node's name. Redis logs each extension that it does not know, so it is sent none.
const KNOWS_NAMES: [u8; 4] = *b"name";

/// Bits of [`Header::message_flags`].
pub mod message_flag {
    /// The sender is a primary that has paused its clients for a manual failover.
    pub const PAUSED: u8 = 1;
    /// A request for a vote: give it though the primary is up.
    pub const FORCE: u8 = 2;
    /// Extensions follow the gossip, or the sender understands them.
    pub const EXTENSIONS: u8 = 4;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a PONG, and tells of the sender and some others.
    Ping,
    /// Answers, or tells without being asked.
    Pong,
    /// A PING that makes the receiver know the sender.
    Meet,
    /// A node has failed.
    Fail,
    /// PUBLISH, to all.
    Publish,
    /// A replica asks for a vote.
    AuthRequest,
    /// The vote.
    AuthAck,
    /// Somebody else has these slots by now.
    Update,
    /// A replica asks its primary to pause its clients.
    MfStart,
    /// Of a module.
    Module,
    /// SPUBLISH, to the nodes of a shard.
    PublishShard,
}

impl Kind {
    /// All, by their number in a message.
    pub const ALL: [Kind; 11] = [
        Kind::Ping,
        Kind::Pong,
        Kind::Meet,
        Kind::Fail,
        Kind::Publish,
        Kind::AuthRequest,
        Kind::AuthAck,
        Kind::Update,
        Kind::MfStart,
        Kind::Module,
        Kind::PublishShard,
    ];

    /// As CLUSTER INFO names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::Meet => "meet",
            Kind::Fail => "fail",
            Kind::Publish => "publish",
            Kind::AuthRequest => "auth-req",
            Kind::AuthAck => "auth-ack",
            Kind::Update => "update",
            Kind::MfStart => "mfstart",
            Kind::Module => "module",
            Kind::PublishShard => "publishshard",
        }
    }
}

/// What every message tells of its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The sender.
    pub sender: NodeId,
    /// Its port for clients.
    pub port: u16,
    /// Its port for clients without TLS, when `port` is that for TLS; else 0.
    pub plain_port: u16,
    /// Its port of the bus.
    pub bus_port: u16,
    /// Its address, if it announces one; empty when it is to be taken from the connection.
    pub ip: String,
    /// Its flags (see [`super::node::flag`]).
    pub flags: u16,
    /// It finds the cluster failing.
    pub fails: bool,
    /// See [`message_flag`].
    pub message_flags: u8,
    /// The sender may be told names: [`Extensions::name`].
    pub knows_names: bool,
    /// The highest epoch that it knows.
    pub current_epoch: u64,
    /// The epoch of its slots, or of its primary's.
    pub config_epoch: u64,
    /// Where it is in the stream of replication.
    pub offset: i64,
    /// Its primary; `None` for a primary.
    pub primary: Option<NodeId>,
    /// Its slots, or its primary's.
    pub slots: SlotSet,
}

/// What a PING tells of somebody else.
#[derive(Clone, Debug, PartialEq)]
pub struct Gossip {
    /// Who.
    pub id: NodeId,
    /// When the sender sent a PING that is not answered, in Unix seconds; 0 without one.
    pub ping_sent: u32,
    /// When it was answered last, in Unix seconds.
    pub pong_received: u32,
    /// Its address.
    pub ip: String,
    /// Its port for clients.
    pub port: u16,
    /// Its port of the bus.
    pub bus_port: u16,
    /// Its flags, as the sender sees them.
    pub flags: u16,
    /// Its port without TLS, when `port` is that for TLS.
    pub plain_port: u16,
}

/// What may follow the gossip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extensions {
    /// The sender's host name.
    pub hostname: Option<String>,
    /// The name by which the sender is found again, when it announces no host name.
    pub name: Option<String>,
    /// Nodes that were forgotten, and for how many seconds more they are not to be met by gossip.
    pub forgotten: Vec<(NodeId, u64)>,
}

impl Extensions {
    /// By what the sender is looked up.
    pub fn looked_up_by(&self) -> Option<&String> {
        self.hostname.as_ref().or(self.name.as_ref())
    }

    /// What is sent as a text, by its number.
    fn names(&self) -> impl Iterator<Item = (u16, &str)> {
        let hostname = self.hostname.as_deref();
        let hostname = hostname.map(|name| (extension::HOSTNAME, name));
        let name = self.name.as_deref().map(|name| (extension::NAME, name));
        hostname.into_iter().chain(name)
    }
}

/// What a message says beyond its header.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// PING, PONG, MEET.
    Ping {
        /// Some other nodes.
        gossip: Vec<Gossip>,
        /// More about the sender.
        extensions: Extensions,
    },
    /// FAIL.
    Fail(NodeId),
    /// PUBLISH and SPUBLISH.
    Publish {
        /// The channel.
        channel: Vec<u8>,
        /// What is published.
        message: Vec<u8>,
    },
    /// UPDATE.
    Update {
        /// The epoch of the slots.
        config_epoch: u64,
        /// Who has them.
        id: NodeId,
        /// The slots.
        slots: SlotSet,
    },
    /// The header says all.
    Nothing,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Of whom.
    pub header: Header,
    /// The rest.
    pub body: Body,
}

/// Why a message is not read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin as a message does, or claims a length that none has.
    #[error("Bad message length or signature received from Cluster bus.")]
    Front,
    /// Another version, which is passed over without a word.
    #[error("another version of the protocol")]
    Version,
    /// Its kind is not known.
    #[error("Received unknown packet type: {0}")]
    Kind(u16),
    /// Its length is not what its content needs.
    #[error("Received invalid {0} packet of length {1} but expected length {2}")]
    Length(&'static str, usize, u64),
    /// More gossip than there are bytes.
    #[error(
        "Received invalid {0} packet with gossip count {1} that exceeds total packet length ({2})"
    )]
    Gossip(&'static str, usize, usize),
    /// More extensions than there are bytes.
    #[error(
        "Received invalid {0} packet with extension data that exceeds total packet length ({1})"
    )]
    Extensions(&'static str, usize),
    /// An extension's length is no multiple of eight.
    #[error("Received a {0} packet without proper padding ({1} bytes)")]
    Padding(&'static str, usize),
    /// A host name without its end.
    #[error("Received {0} packet with missing null terminator in extension type {1}")]
    Unterminated(&'static str, u16),
    /// The name of a node, or an address, that is none.
    #[error("Received a packet with an invalid {0}")]
    Text(&'static str),
}

/// The length of the message at the front of `bytes`, once that is known.
///
/// # Errors
/// What is there is no message.
pub fn frame(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(front) = bytes.first_chunk::<8>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([front[4], front[5], front[6], front[7]]) as usize;
    match &front[..4] == b"RCmb" && (HEADER..=LONGEST).contains(&length) {
        true => Ok(Some(length)),
        false => Err(Malformed::Front),
    }
}

/// Reads numbers and texts from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("as many as were asked for")
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn id(&mut self) -> Option<NodeId> {
        NodeId::parse(self.take(NodeId::LEN))
    }

    /// An address up to its NUL; `None` if it could not be one.
    fn address(&mut self) -> Option<String> {
        let bytes: [u8; ADDRESS] = self.array();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        is_address(text).then(|| String::from_utf8_lossy(text).into_owned())
    }
}

/// True for what may stand where an address is expected: letters, digits and what stands between them.
pub fn is_address(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".:-_%".contains(byte);
    text.len() < ADDRESS && text.iter().all(allowed)
}

/// True for what may be a host name.
pub fn is_hostname(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    (1..256).contains(&text.len()) && text.iter().all(allowed)
}

/// Reads a message that [`frame`] has found.
///
/// # Errors
/// It is not one that we read, or not well formed.
pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    if bytes.len() < HEADER {
        return Err(Malformed::Length("short", bytes.len(), HEADER as u64));
    }
    let mut reader = Reader(&bytes[8..]);
    if reader.u16() != VERSION {
        return Err(Malformed::Version);
    }
    let port = reader.u16();
    let kind = reader.u16();
    let count = usize::from(reader.u16());
    let (current_epoch, config_epoch) = (reader.u64(), reader.u64());
    let offset = reader.u64() as i64;
    let sender = reader.id();
    let slots = SlotSet::from_bytes(&reader.array::<BYTES>());
    let primary = reader.take(NodeId::LEN);
    let ip = reader.address();
    let extensions = usize::from(reader.u16());
    let knows_names = reader.take(30).starts_with(&KNOWS_NAMES);
    let (plain_port, bus_port, flags) = (reader.u16(), reader.u16(), reader.u16());
    let fails = reader.array::<1>()[0] != 0;
    let message_flags = reader.array::<3>()[0];

    let kind = *Kind::ALL
        .get(usize::from(kind))
        .ok_or(Malformed::Kind(kind))?;
    let header = Header {
        sender: sender.ok_or(Malformed::Text("sender"))?,
        port,
        plain_port,
        bus_port,
        ip: ip.ok_or(Malformed::Text("address"))?,
        flags,
        fails,
        message_flags,
        knows_names,
        current_epoch,
        config_epoch,
        offset,
        primary: match primary.iter().all(|byte| *byte == 0) {
            true => None,
            false => Some(NodeId::parse(primary).ok_or(Malformed::Text("primary"))?),
        },
        slots,
    };
    let has_extensions = message_flags & message_flag::EXTENSIONS != 0;
    let extensions = if has_extensions { extensions } else { 0 };
    let body = body(kind, bytes, count, extensions)?;
    Ok(Message { kind, header, body })
}

fn body(kind: Kind, bytes: &[u8], count: usize, extensions: usize) -> Result<Body, Malformed> {
    let rest = &bytes[HEADER..];
    let exactly = |len: u64| match rest.len() as u64 == len {
        true => Ok(Reader(rest)),
        false => Err(Malformed::Length(
            kind.name(),
            bytes.len(),
            HEADER as u64 + len,
        )),
    };
    match kind {
        Kind::Ping | Kind::Pong | Kind::Meet => ping(kind, bytes, count, extensions),
        Kind::Fail => {
            let about = exactly(NodeId::LEN as u64)?.id();
            Ok(Body::Fail(about.ok_or(Malformed::Text("node"))?))
        }
        Kind::Publish | Kind::PublishShard => {
            if rest.len() < 8 {
                exactly(8)?;
            }
            let mut lengths = Reader(rest);
            let (channel, message) = (lengths.u32(), lengths.u32());
            let mut reader = exactly(8 + u64::from(channel) + u64::from(message))?;
            reader.take(8);
            Ok(Body::Publish {
                channel: reader.take(channel as usize).to_vec(),
                message: reader.take(message as usize).to_vec(),
            })
        }
        Kind::Update => {
            let mut reader = exactly((8 + NodeId::LEN + BYTES) as u64)?;
            let config_epoch = reader.u64();
            let id = reader.id();
            Ok(Body::Update {
                config_epoch,
                id: id.ok_or(Malformed::Text("node"))?,
                slots: SlotSet::from_bytes(&reader.array()),
            })
        }
        Kind::AuthRequest | Kind::AuthAck | Kind::MfStart => {
            exactly(0)?;
            Ok(Body::Nothing)
        }
        // There are no modules here that it could be for.
        Kind::Module => Ok(Body::Nothing),
    }
}

fn ping(kind: Kind, bytes: &[u8], count: usize, extensions: usize) -> Result<Body, Malformed> {
    let rest = &bytes[HEADER..];
    let Some((mut entries, mut more)) = rest.split_at_checked(count * GOSSIP) else {
        return Err(Malformed::Gossip(kind.name(), count, bytes.len()));
    };
    let mut gossip = Vec::with_capacity(count);
    while !entries.is_empty() {
        let (entry, others) = entries.split_at(GOSSIP);
        entries = others;
        // An entry that makes no sense does not make the others wrong.
        gossip.extend(gossip_entry(Reader(entry)));
    }
    let mut found = Extensions::default();
    for _ in 0..extensions {
        more = extension(kind, bytes.len(), more, &mut found)?;
    }
    match more.is_empty() {
        true => Ok(Body::Ping {
            gossip,
            extensions: found,
        }),
        false => Err(Malformed::Length(
            kind.name(),
            bytes.len(),
            (bytes.len() - more.len()) as u64,
        )),
    }
}

fn gossip_entry(mut entry: Reader<'_>) -> Option<Gossip> {
    let id = entry.id();
    let (ping_sent, pong_received) = (entry.u32(), entry.u32());
    let ip = entry.address();
    let (port, bus_port, flags, plain_port) = (entry.u16(), entry.u16(), entry.u16(), entry.u16());
    Some(Gossip {
        id: id?,
        ping_sent,
        pong_received,
        ip: ip?,
        port,
        bus_port,
        flags,
        plain_port,
    })
}

/// Kinds of extensions, as Redis 7.2 and Valkey number them; the name is our own, far from theirs.
mod extension {
    pub const HOSTNAME: u16 = 0;
    pub const FORGOTTEN: u16 = 2;
    pub const NAME: u16 = 0x7473;
}

/// Reads the extension at the front of `more`, and returns what follows it.
fn extension<'a>(
    kind: Kind,
    total: usize,
    more: &'a [u8],
    found: &mut Extensions,
) -> Result<&'a [u8], Malformed> {
    let too_long = || Malformed::Extensions(kind.name(), total);
    if more.len() < 8 {
        return Err(too_long());
    }
    let mut head = Reader(more);
    let (length, number) = (head.u32() as usize, head.u16());
    if length < 8 || length % 8 != 0 {
        return Err(Malformed::Padding(kind.name(), length));
    }
    let (this, next) = more.split_at_checked(length).ok_or_else(too_long)?;
    let data = &this[8..];
    match number {
        extension::HOSTNAME | extension::NAME => {
            if data.last() != Some(&0) {
                return Err(Malformed::Unterminated(kind.name(), number));
            }
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = is_hostname(name).then(|| String::from_utf8_lossy(name).into_owned());
            match number {
                extension::HOSTNAME => found.hostname = name,
                _ => found.name = name,
            }
        }
        extension::FORGOTTEN if data.len() == NodeId::LEN + 8 => {
            let mut reader = Reader(data);
            let (id, seconds) = (reader.id(), reader.u64());
            found.forgotten.extend(id.map(|id| (id, seconds)));
        }
        _ => {}
    }
    Ok(next)
}

/// Writes a message.
pub fn encode(message: &Message) -> Vec<u8> {
    let Message { kind, header, body } = message;
    let mut out = Vec::with_capacity(HEADER + GOSSIP * 4);
    let put = |out: &mut Vec<u8>, bytes: &[u8]| out.extend_from_slice(bytes);
    let (count, extensions) = match body {
        Body::Ping { gossip, extensions } => (
            gossip.len(),
            extensions.names().count() + extensions.forgotten.len(),
        ),
        _ => (0, 0),
    };
    put(&mut out, b"RCmb\0\0\0\0");
    put(&mut out, &VERSION.to_be_bytes());
    put(&mut out, &header.port.to_be_bytes());
    put(&mut out, &(*kind as u16).to_be_bytes());
    put(&mut out, &(count as u16).to_be_bytes());
    put(&mut out, &header.current_epoch.to_be_bytes());
    put(&mut out, &header.config_epoch.to_be_bytes());
    put(&mut out, &header.offset.to_be_bytes());
    put(&mut out, header.sender.as_bytes());
    put(&mut out, header.slots.as_bytes());
    let primary = header.primary.map_or([0; NodeId::LEN], |id| *id.as_bytes());
    put(&mut out, &primary);
    put_address(&mut out, &header.ip);
    put(&mut out, &(extensions as u16).to_be_bytes());
    let mut reserved = [0; 30];
    if header.knows_names {
        reserved[..KNOWS_NAMES.len()].copy_from_slice(&KNOWS_NAMES);
    }
    put(&mut out, &reserved);
    put(&mut out, &header.plain_port.to_be_bytes());
    put(&mut out, &header.bus_port.to_be_bytes());
    put(&mut out, &header.flags.to_be_bytes());
    put(
        &mut out,
        &[u8::from(header.fails), header.message_flags, 0, 0],
    );
    debug_assert_eq!(out.len(), HEADER);
    encode_body(&mut out, body);
    let length = out.len() as u32;
    out[4..8].copy_from_slice(&length.to_be_bytes());
    out
}

fn put_address(out: &mut Vec<u8>, ip: &str) {
    let end = out.len() + ADDRESS;
    out.extend_from_slice(&ip.as_bytes()[..ip.len().min(ADDRESS - 1)]);
    out.resize(end, 0);
}

fn encode_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Ping { gossip, extensions } => {
            for entry in gossip {
                out.extend_from_slice(entry.id.as_bytes());
                out.extend_from_slice(&entry.ping_sent.to_be_bytes());
                out.extend_from_slice(&entry.pong_received.to_be_bytes());
                put_address(out, &entry.ip);
                for number in [entry.port, entry.bus_port, entry.flags, entry.plain_port, 0] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
            encode_extensions(out, extensions);
        }
        Body::Fail(id) => out.extend_from_slice(id.as_bytes()),
        Body::Publish { channel, message } => {
            out.extend_from_slice(&(channel.len() as u32).to_be_bytes());
            out.extend_from_slice(&(message.len() as u32).to_be_bytes());
            out.extend_from_slice(channel);
            out.extend_from_slice(message);
        }
        Body::Update {
            config_epoch,
            id,
            slots,
        } => {
            out.extend_from_slice(&config_epoch.to_be_bytes());
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(slots.as_bytes());
        }
        Body::Nothing => {}
    }
}

fn encode_extensions(out: &mut Vec<u8>, extensions: &Extensions) {
    let head = |out: &mut Vec<u8>, number: u16, data: usize| {
        out.extend_from_slice(&(8 + data as u32).to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
    };
    for (number, name) in extensions.names() {
        let padded = (name.len() + 1).next_multiple_of(8);
        head(out, number, padded);
        let end = out.len() + padded;
        out.extend_from_slice(name.as_bytes());
        out.resize(end, 0);
    }
    for (id, seconds) in &extensions.forgotten {
        head(out, extension::FORGOTTEN, NodeId::LEN + 8);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&seconds.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: u8) -> NodeId {
        NodeId::parse(&[letter; NodeId::LEN]).unwrap()
    }

    fn header() -> Header {
        Header {
            sender: id(b'a'),
            port: 6379,
            plain_port: 0,
            bus_port: 16379,
            ip: "127.0.0.1".to_owned(),
            flags: 1,
            fails: true,
            message_flags: message_flag::EXTENSIONS,
            knows_names: true,
            current_epoch: 7,
            config_epoch: 3,
            offset: -5,
            primary: Some(id(b'b')),
            slots: [1, 5, 16383].into_iter().collect(),
        }
    }

    fn messages() -> Vec<Message> {
        let gossip = Gossip {
            id: id(b'c'),
            ping_sent: 1,
            pong_received: 2,
            ip: "::1".to_owned(),
            port: 1,
            bus_port: 2,
            flags: 3,
            plain_port: 4,
        };
        let ping = Body::Ping {
            gossip: vec![gossip.clone(), gossip],
            extensions: Extensions {
                hostname: Some("host-7.example".to_owned()),
                name: Some("host-7.local".to_owned()),
                forgotten: vec![(id(b'd'), 60)],
            },
        };
        let bodies = [
            (Kind::Ping, ping.clone()),
            (Kind::Meet, ping),
            (Kind::Fail, Body::Fail(id(b'e'))),
            (
                Kind::PublishShard,
                Body::Publish {
                    channel: b"ch".to_vec(),
                    message: vec![0; 70_000],
                },
            ),
            (
                Kind::Update,
                Body::Update {
                    config_epoch: 9,
                    id: id(b'f'),
                    slots: (0..100).collect(),
                },
            ),
            (Kind::AuthRequest, Body::Nothing),
        ];
        let message = |(kind, body)| Message {
            kind,
            header: header(),
            body,
        };
        bodies.into_iter().map(message).collect()
    }

    #[test]
    fn messages_survive_the_wire() {
        for message in messages() {
            let bytes = encode(&message);
            assert_eq!(frame(&bytes), Ok(Some(bytes.len())));
            assert_eq!(decode(&bytes).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn a_header_has_its_fields_where_redis_has_them() {
        let bytes = encode(&messages()[5]);
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(&bytes[..4], b"RCmb");
        assert_eq!(bytes[12..14], [0, 5]);
        assert_eq!(bytes[40], b'a');
        assert_eq!(bytes[80], 0b10_0010);
        assert_eq!(bytes[2128], b'b');
        assert_eq!(&bytes[2168..2177], b"127.0.0.1");
        assert_eq!(bytes[2248..2250], 16379u16.to_be_bytes());
        assert_eq!(bytes[2250..2254], [0, 1, 1, 4]);
    }

    #[test]
    fn what_is_cut_or_changed_never_panics() {
        crate::base::random::seed(1);
        for message in messages() {
            let bytes = encode(&message);
            for len in (0..bytes.len().min(HEADER + 400)).chain([bytes.len() - 1]) {
                assert!(decode(&bytes[..len]).is_err(), "{len}");
            }
            for _ in 0..2000 {
                let mut changed = bytes.clone();
                for _ in 0..3 {
                    let at = crate::base::random::below(changed.len());
                    changed[at] = crate::base::random::bits() as u8;
                }
                let _ = frame(&changed);
                let _ = decode(&changed);
            }
        }
    }

    #[test]
    fn unknown_extensions_are_skipped_and_bad_ones_refused() {
        let mut bytes = encode(&messages()[0]);
        let first = HEADER + 2 * GOSSIP;
        bytes[first + 5] = 77;
        match decode(&bytes).unwrap().body {
            Body::Ping { extensions, .. } => {
                assert_eq!(extensions.hostname, None);
                assert_eq!(extensions.name.as_deref(), Some("host-7.local"));
                assert_eq!(extensions.forgotten.len(), 1);
            }
            other => panic!("{other:?}"),
        }
        bytes[first + 3] = 7;
        assert_eq!(decode(&bytes), Err(Malformed::Padding("ping", 7)));
    }

    #[test]
    fn an_address_that_would_break_a_file_is_refused() {
        let mut bytes = encode(&messages()[5]);
        bytes[2170] = b'\n';
        assert_eq!(decode(&bytes), Err(Malformed::Text("address")));
    }
}
