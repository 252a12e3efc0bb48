//! MIGRATE: moves keys to another server, as RESTORE commands over a connection of our own.
//!
//! The connection is there before anything is locked. Then the keys' shards stay locked until the
//! other side has answered: a key is here or there, never both or neither (but where the answer is lost, when it may
//! be in both places, as with Redis).
//!
//! A thread does all that ([`crate::dispatch::errand`]), so that no worker waits for a name server, a handshake or the
//! other side. Requests that need the keys' shards are put off until it has answered, up to the command's timeout; all
//! others go on. Within EXEC and in a script there is no other way than to wait at once, as Redis does: there the worker
//! holds what the transaction or the script holds, and its clients wait with it.
//!
//! Connections are kept for a while, because keys are moved in many small commands.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::blocking;
use crate::dispatch::command::{
    Acl, Begin, Command, Find, Flags, Handler, KeyFlags, KeySpec, Keys, ROW,
};
use crate::dispatch::context::{ServerCtx, Shared};
use crate::dispatch::errand::{self, Origin};
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::dispatch::source::{self, Source};
use crate::keyspace::db::Db;
use crate::keyspace::event;
use crate::persistence::rdb::payload;
use crate::resp::write::{Output, request};
use crate::wire::Duplex;

const MOVED: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "migrate",
    arity: -6,
    flags: Flags::WRITE.or(Flags::MOVES_KEYS),
    acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
    keys: Keys(&[
        KeySpec::at(3, MOVED),
        KeySpec {
            begin: Begin::Keyword("KEYS", -2),
            find: Find::Range {
                last: -1,
                step: 1,
                limit: 0,
            },
            flags: MOVED.or(KeyFlags::INCOMPLETE),
            by_args: None,
            notes: "",
        },
    ]),
    find_keys: Some(find_keys),
    secrets: Some(secrets),
    tips: &["nondeterministic_output"],
    handler: Handler::Server(migrate),
    ..ROW
}];

/// How long a connection is kept without use.
const KEPT: Duration = Duration::from_secs(10);
/// Connections kept at once.
const LINKS: usize = 64;
/// Longest reply line that is read, in bytes.
const MAX_LINE: usize = 1024;
/// How much is written within one timeout, in bytes.
const CHUNK: usize = 64 << 10;
/// How often who waits for the other side looks whether the server ends.
const LOOK: Duration = Duration::from_millis(50);

/// A connection to another server.
struct Link {
    stream: BufReader<Duplex>,
    /// The database that is selected there, if that is known.
    db: Option<i64>,
    used: Instant,
}

/// Connections that are not in use, by host and port.
static IDLE: LazyLock<Mutex<HashMap<Vec<u8>, Link>>> = LazyLock::new(Mutex::default);

/// Number of connections that are kept.
pub fn links() -> usize {
    IDLE.lock().len()
}

/// Closes connections that were not used for a while.
pub fn close_idle() {
    IDLE.lock().retain(|_, link| link.used.elapsed() < KEPT);
}

/// The options behind the timeout.
#[derive(Default)]
struct Options<'a> {
    copy: bool,
    replace: bool,
    /// AUTH with a password, or with a user and a password.
    auth: Vec<&'a [u8]>,
    /// Index of the first key, where KEYS says so.
    keys_from: Option<usize>,
}

impl<'a> Options<'a> {
    fn parse(args: Args<'a>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut words = Cursor::new(args, 6);
        while words.step() {
            match () {
                () if words.is("copy") => options.copy = true,
                () if words.is("replace") => options.replace = true,
                () if words.is("auth") => options.auth = vec![words.value()?],
                () if words.is("auth2") => options.auth = vec![words.value()?, words.value()?],
                () if words.is("keys") => {
                    if !args[3].is_empty() {
                        return Err(Error::line(
                            "ERR When using MIGRATE KEYS option, the key argument must be set to \
                             the empty string",
                        ));
                    }
                    options.keys_from = Some(words.next_index());
                    break;
                }
                () => return Err(words.refuse()),
            }
        }
        Ok(options)
    }

    fn keys(&self, args: Args<'a>) -> &'a [&'a [u8]] {
        match self.keys_from {
            Some(from) => args.rest(from),
            None => &args.all()[3..4],
        }
    }
}

/// Of options that are none, the keys are found all the same: those of a request that is refused.
fn find_keys(args: Args<'_>, show: &mut dyn FnMut(usize, KeyFlags)) {
    let mut i = 6;
    while i < args.len() {
        i += match &args[i].to_ascii_lowercase()[..] {
            b"keys" if !args[3].is_empty() => return,
            b"keys" => return (i + 1..args.len()).for_each(|i| show(i, MOVED)),
            b"auth" => 2,
            b"auth2" => 3,
            _ => 1,
        };
    }
    show(3, MOVED);
}

/// Where user and password are, if they are given.
fn secrets(args: Args<'_>) -> Vec<usize> {
    let last = (6..args.len()).find(|&i| args.is(i, "keys"));
    for i in 6..last.unwrap_or(args.len()) {
        let count = match &args[i].to_ascii_lowercase()[..] {
            b"auth" => 1,
            b"auth2" => 2,
            _ => continue,
        };
        return (i + 1..args.len().min(i + 1 + count)).collect();
    }
    Vec::new()
}

/// The connection broke before everything was answered.
struct Failure {
    /// While writing, not reading.
    writing: bool,
    /// Trying again would not help.
    timed_out: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::line(match failure.writing {
            true => "IOERR error or timeout writing to target instance",
            false => "IOERR error or timeout reading to target instance",
        })
    }
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password]
/// [KEYS key ...]`
fn migrate(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    // A file holds the DEL of what was moved; another server is not to be waited for again.
    if ctx.worker.source == Source::Log {
        return Err(source::out_of_place("MIGRATE"));
    }
    let order = Order::of(ctx)?;
    let keys: Vec<&[u8]> = order.keys.iter().map(|key| &key[..]).collect();
    if !ctx.with_keys(&keys, |local| {
        keys.iter().any(|key| local.peek(key).is_some())
    })? {
        ctx.out.simple("NOKEY");
        return Ok(());
    }
    let Some(answer) = blocking::park_for_errand(ctx) else {
        let shared = ctx.shared;
        let done = order.run(shared, &mut |work| {
            ctx.with_keys(&keys, |local| work(local))
        })?;
        ctx.out.simple(done);
        return Ok(());
    };
    let origin = Origin::of(ctx);
    let work = move |shared: &std::sync::Arc<Shared>, runner| {
        let keys: Vec<&[u8]> = order.keys.iter().map(|key| &key[..]).collect();
        let mut end = 0;
        let result = order.run(shared, &mut |work| {
            let ((), written) =
                errand::under_claim(shared, runner, origin, &keys, |local| work(local))?;
            end = end.max(written);
            Ok(())
        });
        let mut out = Output::new();
        match result {
            Ok(done) => out.simple(done),
            Err(error) => out.error_bytes(&error.text()),
        }
        answer(out.to_vec(), end);
    };
    errand::hand_in(ctx.shared, work).inspect_err(|_| ctx.worker.parked = None)
}

/// Lets some work see the database under the locks of the keys.
type WithKeys<'a> = dyn FnMut(&mut dyn FnMut(&mut Db<'_, '_>)) -> Result<(), Error> + 'a;

/// What is to be moved where.
struct Order {
    host: Vec<u8>,
    port: Vec<u8>,
    tls: bool,
    timeout: Duration,
    /// The database there.
    db: i64,
    keys: Vec<Vec<u8>>,
    copy: bool,
    replace: bool,
    /// Password, or user and password; or nothing.
    auth: Vec<Vec<u8>>,
    compress: bool,
    restore: &'static [u8],
}

impl Order {
    fn of(ctx: &ServerCtx<'_, '_>) -> Result<Self, Error> {
        let args = ctx.args;
        let options = Options::parse(args)?;
        let (timeout, db) = (args.int(5)?, args.int(4)?);
        let timeout = match u64::try_from(timeout) {
            Ok(ms @ 1..) => Duration::from_millis(ms),
            _ => Duration::from_secs(1),
        };
        let own = |list: &[&[u8]]| list.iter().map(|word| word.to_vec()).collect();
        Ok(Self {
            host: args[1].to_vec(),
            port: args[2].to_vec(),
            // Connections of either kind are kept.
            tls: ctx.worker.settings.tls_cluster,
            timeout,
            db,
            keys: own(options.keys(args)),
            copy: options.copy,
            replace: options.replace,
            auth: own(&options.auth),
            compress: ctx.worker.settings.rdbcompression,
            // The other node takes the slot over, and does not serve it yet.
            restore: match ctx.shared.routes.is_enabled() {
                true => b"RESTORE-ASKING",
                false => b"RESTORE",
            },
        })
    }

    /// Moves the keys; what to answer.
    fn run(&self, shared: &Shared, with_keys: &mut WithKeys<'_>) -> Result<&'static str, Error> {
        let kind: &[u8] = if self.tls { b" tls" } else { b"" };
        let place = [&self.host[..], b":", &self.port, kind].concat();
        let mut may_retry = true;
        loop {
            let kept = IDLE.lock().remove(&place);
            let link = kept.map_or_else(|| self.connect(shared), Ok);
            let mut link = link.map_err(|error| not_connected(&error))?;
            let mut sent = Ok(Ok("NOKEY"));
            with_keys(&mut |local| {
                let keys = self.keys.iter().map(|key| &key[..]);
                let found = keys.filter(|key| local.read(key).is_some()).collect();
                let mut transfer = Transfer {
                    local,
                    order: self,
                    keys: found,
                    ends: &|| shared.keyspace.is_closed_to_claims(),
                };
                sent = transfer.send(&mut link);
            })?;
            match sent {
                Err(Failure { timed_out, .. }) if may_retry && !timed_out => may_retry = false,
                Err(failure) => return Err(failure.into()),
                Ok(answer) => {
                    link.used = Instant::now();
                    let mut idle = IDLE.lock();
                    if idle.len() < LINKS {
                        idle.insert(place, link);
                    }
                    return answer;
                }
            }
        }
    }

    /// A new connection to the other server.
    fn connect(&self, shared: &Shared) -> io::Result<Link> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(before_nul(bytes)).into_owned();
        let port: u16 = text(&self.port)
            .parse()
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let timeout = self.timeout;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (text(&self.host).as_str(), port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream = match self.tls {
                        true => {
                            stream.set_nonblocking(true)?;
                            let deadline = Instant::now() + timeout;
                            Duplex::new(shared.tls.connect(stream.into(), deadline)?, timeout)?
                        }
                        false => Duplex::plain(stream, timeout)?,
                    };
                    return Ok(Link {
                        stream: BufReader::new(stream),
                        db: None,
                        used: Instant::now(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Why there is no connection. A refusal by the other side shows in Redis when it first writes, and is
/// told of as that.
fn not_connected(error: &io::Error) -> Error {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable};
    match error.kind() {
        ConnectionRefused | ConnectionReset | HostUnreachable => Error::from(Failure {
            writing: true,
            timed_out: false,
        }),
        _ => Error::line("IOERR error or timeout connecting to the client"),
    }
}

/// The transfer of keys that are here.
struct Transfer<'a, 'c, 'k> {
    local: &'a mut Db<'c, 'k>,
    order: &'a Order,
    keys: Vec<&'a [u8]>,
    /// The server is about to end: no answer is waited for any more.
    ends: &'a dyn Fn() -> bool,
}

impl Transfer<'_, '_, '_> {
    /// Sends all keys and removes those that arrived; the answer, an error where the other side had
    /// one.
    fn send(&mut self, link: &mut Link) -> Result<Result<&'static str, Error>, Failure> {
        if self.keys.is_empty() {
            return Ok(Ok("NOKEY"));
        }
        let broken = |writing: bool| {
            move |error: io::Error| Failure {
                writing,
                timed_out: matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ),
            }
        };
        let patience = Patience {
            limit: self.order.timeout,
            ends: self.ends,
        };
        let (requests, before) = self.requests(link.db != Some(self.order.db));
        patience
            .write(link.stream.get_ref(), &requests)
            .map_err(broken(true))?;
        let mut refused = None;
        for _ in 0..before {
            let line = patience
                .read_line(&mut link.stream)
                .map_err(broken(false))?;
            refused = refused.or_else(|| line.strip_prefix(b"-").map(<[u8]>::to_vec));
        }
        // Without the right user or database no key counts as arrived.
        let in_vain = refused.is_some();
        let mut moved: Vec<&[u8]> = Vec::new();
        let mut result = Ok(());
        for key in &self.keys {
            let line = match patience.read_line(&mut link.stream) {
                Ok(line) => line,
                Err(error) => {
                    result = Err(broken(false)(error));
                    break;
                }
            };
            match line.strip_prefix(b"-") {
                Some(error) => refused = refused.or_else(|| Some(error.to_vec())),
                None if in_vain => {}
                None => moved.push(key),
            }
        }
        let arrived = !moved.is_empty();
        if !self.order.copy && arrived {
            self.remove(&moved);
        }
        link.db = refused.is_none().then_some(self.order.db);
        match result {
            // What was answered counts; trying again would send it twice.
            Err(Failure { writing, .. }) if arrived || refused.is_some() => Err(Failure {
                writing,
                timed_out: true,
            }),
            Err(failure) => Err(failure),
            Ok(()) => Ok(refused.map_or(Ok("OK"), |error| {
                let what = "Target instance replied with error: ";
                Err(Error::quoting(what, &error, ""))
            })),
        }
    }

    /// The requests, and how many of them come before those for the keys.
    fn requests(&mut self, selects: bool) -> (Vec<u8>, usize) {
        let (mut out, mut before) = (Vec::new(), 0);
        let mut digits = itoa::Buffer::new();
        if !self.order.auth.is_empty() {
            let mut auth: Vec<&[u8]> = vec![b"AUTH"];
            auth.extend(self.order.auth.iter().map(|word| &word[..]));
            request(&mut out, &auth);
            before += 1;
        }
        if selects {
            request(
                &mut out,
                &[b"SELECT", digits.format(self.order.db).as_bytes()],
            );
            before += 1;
        }
        let now_ms = self.local.now_ms();
        for key in &self.keys {
            let Some(entry) = self.local.get(key) else {
                continue;
            };
            let ttl = entry.expiry().map_or(0, |at| (at - now_ms).max(1));
            let payload = payload::of(&entry, self.order.compress);
            let mut restore: Vec<&[u8]> = vec![
                self.order.restore,
                key,
                digits.format(ttl).as_bytes(),
                &payload,
            ];
            if self.order.replace {
                restore.push(b"REPLACE");
            }
            request(&mut out, &restore);
        }
        (out, before)
    }

    /// The keys are the other side's now.
    fn remove(&mut self, moved: &[&[u8]]) {
        for key in moved {
            self.local.remove(key);
            self.local.changed(key, event::ON_DEL);
        }
        let mut form: Vec<&[u8]> = vec![b"DEL"];
        form.extend(moved);
        self.local.rewrite(&form);
    }
}

/// How long the other side is waited for.
struct Patience<'a> {
    limit: Duration,
    ends: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    /// Does `step`, which waits for so long, until it was not in vain or the time since `begun` is over.
    fn wait<R>(
        &self,
        begun: Instant,
        mut step: impl FnMut(Duration) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let left = self.limit.saturating_sub(begun.elapsed());
            match step(left.min(LOOK)) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !left.is_zero()
                        && !(self.ends)() => {}
                done => return done,
            }
        }
    }

    /// Writes everything; each piece has its time.
    fn write(&self, mut stream: &Duplex, bytes: &[u8]) -> io::Result<()> {
        for mut piece in bytes.chunks(CHUNK) {
            let begun = Instant::now();
            while !piece.is_empty() {
                let written = self.wait(begun, |limit| {
                    stream.set_limit(limit);
                    stream.write(piece)
                })?;
                piece = &piece[written..];
            }
        }
        Ok(())
    }

    /// Reads a line without its end.
    fn read_line(&self, stream: &mut BufReader<Duplex>) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.wait(Instant::now(), |limit| {
            stream.get_ref().set_limit(limit);
            let room = MAX_LINE.saturating_sub(line.len()) as u64;
            io::Read::take(&mut *stream, room).read_until(b'\n', &mut line)
        })?;
        if line.pop_if(|b| *b == b'\n').is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.pop_if(|b| *b == b'\r');
        Ok(line)
    }
}
