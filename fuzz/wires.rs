//! Two streams over TLS, and what carries bytes between them in pieces of any size.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tessera::config::Settings;
use tessera::wire::{Context, Stream};

/// A key and its certificate, which is its own authority. They are for tests only.
const CERTIFICATE: &str = include_str!("certificate.pem");

/// What both sides of the tests' handshakes need.
fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("tessera-test-{}.pem", std::process::id()));
        std::fs::write(&path, CERTIFICATE).expect("a file");
        let file = path.to_str().expect("a path in UTF-8");
        let settings = Settings {
            tls_cert_file: file.into(),
            tls_key_file: file.into(),
            tls_ca_cert_file: file.into(),
            ..Settings::default()
        };
        let context = Context::new(&settings);
        let _ = std::fs::remove_file(&path);
        context.expect("a context")
    })
}

/// Two connected sockets that do not block.
pub fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().expect("sockets");
    one.set_nonblocking(true).expect("a socket");
    other.set_nonblocking(true).expect("a socket");
    (one, other)
}

/// Two streams behind a handshake with each other, over these sockets.
pub fn shaken(one: OwnedFd, other: OwnedFd) -> (Stream, Stream) {
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let accepts = scope.spawn(|| Stream::accept(other, context(), deadline));
        let one = Stream::connect(one, context(), deadline).expect("a handshake");
        (one, accepts.join().expect("a thread").expect("a handshake"))
    })
}

/// A way from one stream to another.
pub struct Wires {
    /// The one that is written to.
    pub from: Stream,
    /// The one that is read.
    pub to: Stream,
    /// The ends between which bytes are carried.
    left: UnixStream,
    right: UnixStream,
    /// Carried from the left, and not yet to the right.
    between: Vec<u8>,
    sent: usize,
    received: usize,
}

/// The byte at a place of what is said.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

impl Wires {
    /// Two streams, behind their handshake.
    pub fn new() -> Self {
        let ((from, left), (to, right)) = (pair(), pair());
        let copy = |socket: &UnixStream| socket.try_clone().expect("a socket");
        let (mut one, mut other) = (copy(&left), copy(&right));
        let done = AtomicBool::new(false);
        let (from, to) = std::thread::scope(|scope| {
            // During the handshake bytes go both ways.
            scope.spawn(|| {
                loop {
                    let was_done = done.load(Relaxed);
                    let moved = move_some(&mut one, &mut other) + move_some(&mut other, &mut one);
                    if moved == 0 && was_done {
                        break;
                    }
                    std::thread::yield_now();
                }
            });
            let streams = shaken(from.into(), to.into());
            done.store(true, Relaxed);
            streams
        });
        let mut wires = Self {
            from,
            to,
            left,
            right,
            between: Vec::new(),
            sent: 0,
            received: 0,
        };
        // The tickets that came behind the handshake say nothing.
        let said = wires.from.read(&mut Vec::with_capacity(16));
        assert_eq!(said.expect_err("nothing").kind(), ErrorKind::WouldBlock);
        wires
    }

    /// Writes as many bytes as are taken, of so many.
    pub fn write(&mut self, count: usize) {
        let bytes: Vec<u8> = (self.sent..self.sent + count).map(byte_at).collect();
        let (one, other) = bytes.split_at(count / 3);
        match self.from.write(&[IoSlice::new(one), IoSlice::new(other)]) {
            Ok(taken) => self.sent += taken,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// Carries at most so many bytes; how many.
    pub fn carry(&mut self, count: usize) -> usize {
        if self.between.is_empty() {
            let mut piece = vec![0; count];
            let count = self.left.read(&mut piece).unwrap_or(0);
            self.between.extend_from_slice(&piece[..count]);
        }
        let count = count.min(self.between.len());
        let carried = self.right.write(&self.between[..count]).unwrap_or(0);
        self.between.drain(..carried);
        carried
    }

    /// Reads at most so many bytes; how many.
    pub fn read(&mut self, count: usize) -> usize {
        let mut buffer = Vec::with_capacity(count);
        let room = buffer.capacity();
        match self.to.read(&mut buffer) {
            Ok(count) => {
                assert!(count > 0 && count == buffer.len() && buffer.capacity() == room);
                for byte in buffer {
                    assert_eq!(byte, byte_at(self.received));
                    self.received += 1;
                }
                assert!(self.received <= self.sent);
                count
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                // Whoever is told that there is nothing waits for the socket.
                assert!(!self.to.has_unread());
                0
            }
        }
    }

    /// Carries and reads all that was written.
    pub fn finish(&mut self) {
        while self.received < self.sent {
            self.from.flush().expect("a stream");
            let carried = self.carry(1 << 20);
            let read = self.read(1 << 15);
            assert!(carried + read > 0, "nothing goes on");
        }
        assert!(!self.from.has_unsent() && !self.to.has_unread());
    }

    /// How many bytes were written and not yet read.
    pub fn under_way(&self) -> usize {
        self.sent - self.received
    }
}

fn move_some(from: &mut UnixStream, to: &mut UnixStream) -> usize {
    let mut piece = [0; 4096];
    let count = from.read(&mut piece).unwrap_or(0);
    to.write_all(&piece[..count]).expect("there is room");
    count
}

/// Does something with the thread's wires.
pub fn with(work: impl FnOnce(&mut Wires)) {
    thread_local! {
        static WIRES: RefCell<Option<Wires>> = const { RefCell::new(None) };
    }
    WIRES.with_borrow_mut(|wires| work(wires.get_or_insert_with(Wires::new)));
}
