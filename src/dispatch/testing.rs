//! A server without sockets, for tests: one client whose requests run in this process.
//!
//! Requests take the same path as those of a connection, with a clock that only moves when told.
//! Replies, notifications and propagated commands come back as text that people can read.

use std::fmt::Write as _;
use std::sync::Arc;

use super::args::Args;
use super::context::{Shared, Worker};
use super::execute::{self, Prepared};
use crate::base::clock::Now;
use crate::client::mailbox::Bell;
use crate::client::registry::{Arrival, Handle};
use crate::client::session::Session;
use crate::keyspace::access::Access;
use crate::propagation;
use crate::pubsub::Kind;
use crate::resp::read::{ReadLimits, Reader, Value};
use crate::resp::write::{Output, Protocol};

/// The server and its only client.
pub struct Harness {
    /// What the server's threads would share.
    pub shared: Arc<Shared>,
    /// The only worker.
    pub worker: Worker,
    /// The client.
    pub session: Session,
    /// What the client speaks.
    protocol: Protocol,
    /// Subscribed to all events of keys.
    listener: Arc<Handle>,
    /// Reads what is propagated.
    log: propagation::Reader,
}

/// What a request led to, as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The reply.
    pub reply: String,
    /// Events, `<name> <key>` in quotes.
    pub events: Vec<String>,
    /// Commands propagated, without SELECT.
    pub propagated: Vec<String>,
}

impl Harness {
    /// A client of `shared`, which nothing else runs.
    pub fn new(shared: Arc<Shared>) -> Self {
        let arrival = || Arrival {
            address: "127.0.0.1:1".into(),
            local_address: "127.0.0.1:2".into(),
            fd: -1,
            now_ms: 0,
            bell: Arc::new(Bell::new().expect("eventfd")),
        };
        let user = shared.users.default_user();
        let session = Session::new(shared.clients.add(arrival()), Some(user));
        let listener = shared.clients.add(arrival());
        let pattern = Arc::from(&b"__keyevent@*__:*"[..]);
        shared.pubsub.subscribe(Kind::Pattern, &pattern, &listener);
        Self {
            worker: Worker::new(&shared, 0),
            log: shared.stream.reader(),
            session,
            protocol: Protocol::Resp2,
            listener,
            shared,
        }
    }

    /// Moves the clock.
    pub fn advance_ms(&mut self, ms: i64) {
        self.worker.now = Now::from_ms(self.worker.now.ms + ms);
        self.worker.env.now_ms = self.worker.now.ms;
        self.worker.env.expired_before_ms = self.worker.now.ms;
        self.worker.env.access = Access::of(&self.worker.settings, self.worker.now.ms);
    }

    /// Runs a request; the encoded reply.
    pub fn request(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut out = Output::new();
        out.set_protocol(self.protocol);
        let mut hints = Vec::new();
        let db = self.session.db;
        let known = execute::prepare(&self.shared, db, args.len(), |i| args[i], &mut hints);
        execute::request(
            &self.shared,
            &mut self.worker,
            &mut self.session,
            &mut out,
            Args::new(args),
            Prepared {
                known,
                hints: &hints,
            },
        );
        execute::to_end(&self.shared, &mut self.worker, &self.session, &mut out);
        self.protocol = out.protocol();
        out.to_vec()
    }

    /// Runs a request; everything that it led to.
    pub fn run(&mut self, args: &[&[u8]]) -> Outcome {
        let reply = self.request(args);
        let messages: Vec<u8> = self.listener.mailbox.take().concat();
        let log: Vec<u8> = self.log.read_bytes();
        Outcome {
            reply: values(&reply).iter().map(readable).collect(),
            events: values(&messages).iter().filter_map(event).collect(),
            propagated: values(&log).iter().filter_map(command).collect(),
        }
    }
}

fn values(encoded: &[u8]) -> Vec<Value> {
    let mut reader = Reader::new(ReadLimits::default());
    let mut at = 0;
    let mut values = Vec::new();
    while let Some(value) = reader.read(encoded, &mut at).expect("we wrote it") {
        values.push(value);
    }
    values
}

/// `pmessage pattern __keyevent@0__:name key`
fn event(message: &Value) -> Option<String> {
    let Value::Array(parts) = message else {
        return None;
    };
    let channel = parts.get(2)?.as_bytes()?;
    let name = channel.rsplit(|b| *b == b':').next()?;
    let name = String::from_utf8_lossy(name);
    Some(format!("{name} {}", quoted(parts.get(3)?.as_bytes()?)))
}

fn command(value: &Value) -> Option<String> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut words = parts.iter().filter_map(Value::as_bytes);
    if words.clone().next()? == b"SELECT" {
        return None;
    }
    let first = String::from_utf8_lossy(words.next()?).into_owned();
    Some(words.fold(first, |line, word| format!("{line} {}", quoted(word))))
}

/// A reply on one line: strings in quotes, aggregates in brackets.
pub fn readable(value: &Value) -> String {
    let list = |items: &[Value]| {
        let items: Vec<String> = items.iter().map(readable).collect();
        items.join(" ")
    };
    match value {
        Value::Simple(text) => format!("+{}", escaped(text)),
        Value::Error(text) => format!("-{}", escaped(text)),
        Value::Int(n) => format!(":{n}"),
        Value::Bulk(text) => quoted(text),
        Value::NullBulk => "(nil)".into(),
        Value::NullArray => "(nil array)".into(),
        Value::Null => "(null)".into(),
        Value::Bool(on) => format!("#{on}"),
        Value::Double(text) => format!(",{}", escaped(text)),
        Value::BigNumber(text) => format!("({}", escaped(text)),
        Value::Verbatim { text, .. } => format!("={}", quoted(text)),
        Value::Array(items) => format!("[{}]", list(items)),
        Value::Set(items) => format!("~[{}]", list(items)),
        Value::Push(items) => format!(">[{}]", list(items)),
        Value::Map(pairs) => format!("{{{}}}", map(pairs)),
        Value::Attribute(pairs, value) => format!("|{{{}}} {}", map(pairs), readable(value)),
    }
}

fn map(pairs: &[(Value, Value)]) -> String {
    let pairs = pairs.iter();
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{}: {}", readable(key), readable(value)))
        .collect();
    pairs.join(", ")
}

/// Bytes in double quotes, as scripts write arguments.
pub fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte.into()]),
            b' '..=b'~' => text.push(byte.into()),
            _ => write!(text, "\\x{byte:02x}").expect("strings take all"),
        }
    }
    text
}
