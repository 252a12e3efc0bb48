//! What stands between replicas and a primary: it passes bytes on, some of them, slowly, or none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How bytes are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Pass,
    /// None are.
    Stall,
    /// A few at a time.
    Trickle,
    /// All are, but who comes is sent away.
    Refuse,
}

/// Longest that a pump looks at nothing but its sockets.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Common {
    mode: AtomicU8,
    /// Connections of another generation are cut.
    generation: AtomicU64,
    /// After how many bytes all connections are cut; never when negative.
    rest: AtomicI64,
    stop: AtomicBool,
}

/// A port behind which another one is.
pub struct Proxy {
    pub port: u16,
    common: Arc<Common>,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let common = Arc::<Common>::default();
        common.rest.store(-1, Relaxed);
        let proxy = Self {
            port,
            common: Arc::clone(&common),
        };
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                if common.stop.load(Relaxed) {
                    return;
                }
                if common.mode.load(Relaxed) == Mode::Refuse as u8 {
                    continue;
                }
                // A server that is not there takes nobody.
                if let Ok(to) = TcpStream::connect(("127.0.0.1", to)) {
                    join(from, to, &common);
                }
            }
        });
        proxy
    }

    pub fn set(&self, mode: Mode) {
        self.common.mode.store(mode as u8, Relaxed);
    }

    /// Cuts all connections after so many more bytes.
    pub fn cut_after(&self, bytes: i64) {
        self.common.rest.store(bytes, Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.common.stop.store(true, Relaxed);
        self.common.generation.fetch_add(1, Relaxed);
        // Wakes who accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Passes on what either side sends, on two threads.
fn join(one: TcpStream, other: TcpStream, common: &Arc<Common>) {
    let generation = common.generation.load(Relaxed);
    for socket in [&one, &other] {
        let set = socket
            .set_read_timeout(Some(LOOK))
            .and_then(|()| socket.set_write_timeout(Some(LOOK)))
            .and_then(|()| socket.set_nodelay(true));
        set.expect("options of a socket");
    }
    let pairs = [(one.try_clone(), other.try_clone()), (Ok(other), Ok(one))];
    for (from, to) in pairs {
        let (from, to) = (from.expect("a socket"), to.expect("a socket"));
        let common = Arc::clone(common);
        std::thread::spawn(move || {
            pump(&from, &to, &common, generation);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// Passes bytes on until the connection is over or cut. What is on the way then is lost.
fn pump(mut from: &TcpStream, to: &TcpStream, common: &Common, generation: u64) {
    let mut buffer = [0; 16 * 1024];
    let is_cut = || common.generation.load(Relaxed) != generation;
    while !is_cut() {
        let mode = common.mode.load(Relaxed);
        if mode == Mode::Stall as u8 {
            std::thread::sleep(LOOK);
            continue;
        }
        let mut most = buffer.len();
        if mode == Mode::Trickle as u8 {
            std::thread::sleep(Duration::from_millis(1));
            most = rand::random_range(1..200);
        }
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if is_nothing(&error) => continue,
            Err(_) => return,
        };
        let (count, cuts) = common.spend(count);
        if !write(to, &buffer[..count], is_cut) {
            return;
        }
        if cuts {
            common.generation.fetch_add(1, Relaxed);
        }
    }
}

impl Common {
    /// How many of `count` bytes are still passed on, and whether they are the last ones.
    fn spend(&self, count: usize) -> (usize, bool) {
        let mut passed = (count, false);
        let _ = self.rest.fetch_update(Relaxed, Relaxed, |rest| {
            if rest < 0 {
                passed = (count, false);
                return None;
            }
            let left = rest - count as i64;
            passed = (count.min(rest as usize), left <= 0);
            Some(if left <= 0 { -1 } else { left })
        });
        passed
    }
}

fn is_nothing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// True when all could be written.
fn write(mut to: &TcpStream, mut bytes: &[u8], is_cut: impl Fn() -> bool) -> bool {
    while !bytes.is_empty() {
        if is_cut() {
            return false;
        }
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_nothing(&error) => {}
            Err(_) => return false,
        }
    }
    true
}
