//! Random commands and sequences from the grammar, all from one seed.
//!
//! Times to live are either over at once or far away (multiples of ten seconds, hardly ever the
//! same twice), so that a millisecond between the two servers decides nothing. A key that shall
//! expire during a sequence gets one millisecond, and both servers then rest.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::grammar::{Node, ROWS, Row, SETTINGS, parse};
use crate::resp::Args;
use crate::servers::{CONNECTIONS, Step};

/// The rows in use, ready to be expanded.
pub struct Grammar {
    rows: Vec<(u32, &'static Row, Node)>,
    total: u32,
}

impl Grammar {
    /// Takes the rows that `keep` accepts.
    pub fn new(keep: impl Fn(&Row) -> bool) -> Grammar {
        let rows: Vec<_> = ROWS
            .iter()
            .filter(|row| keep(row))
            .map(|row| (row.weight, row, parse(row.template)))
            .collect();
        let total = rows.iter().map(|r| r.0).sum();
        Grammar { rows, total }
    }

    /// True when there is nothing to choose from.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// Makes the steps of one sequence.
pub struct Generator<'g> {
    grammar: &'g Grammar,
    rng: StdRng,
    now_s: i64,
}

impl<'g> Generator<'g> {
    /// `now_s` is the unix time that absolute expiry times are built around, in seconds.
    pub fn new(grammar: &'g Grammar, seed: u64, now_s: i64) -> Self {
        Generator {
            grammar,
            rng: StdRng::seed_from_u64(seed),
            now_s,
        }
    }

    /// Which connections speak RESP3: about half of them, at least one of each kind.
    pub fn protocols(&mut self) -> [bool; CONNECTIONS] {
        [false, true, self.rng.random_bool(0.5)]
    }

    /// A sequence of `length` steps.
    pub fn sequence(&mut self, length: usize) -> Vec<Step> {
        let mut steps = Vec::with_capacity(length);
        let mut in_multi = [false; CONNECTIONS];
        while steps.len() < length {
            let conn = self.rng.random_range(0..CONNECTIONS);
            if in_multi[conn] {
                let args = self.command();
                match name_of(&args).as_slice() {
                    // A subscription inside EXEC breaks the framing of the reply in Redis itself.
                    b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE"
                    | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" | b"HELLO" | b"CLIENT" => continue,
                    b"QUIT" => in_multi[conn] = false,
                    b"EXEC" | b"DISCARD" | b"RESET" if args.len() == 1 => in_multi[conn] = false,
                    _ => {}
                }
                steps.push(Step::Commands {
                    conn,
                    commands: vec![args],
                });
                continue;
            }
            match self.rng.random_range(0..100) {
                0..2 => steps.push(self.expiring(conn)),
                2..5 => steps.push(self.scan(conn)),
                5..8 => steps.push(self.pipeline(conn)),
                8..10 => steps.push(self.transaction(conn)),
                10 => steps.push(self.muted(conn)),
                11 => steps.push(any_key(conn)),
                _ => {
                    let args = self.command();
                    in_multi[conn] = args.len() == 1 && name_of(&args) == b"MULTI";
                    steps.push(Step::Commands {
                        conn,
                        commands: vec![args],
                    });
                }
            }
        }
        steps.iter_mut().for_each(forget_errors);
        steps
    }

    /// A key that expires, and the time it needs for that.
    fn expiring(&mut self, conn: usize) -> Step {
        let key = self.atom("key");
        let args = match self.rng.random_range(0..3) {
            0 => vec![b"PEXPIRE".to_vec(), key, b"1".to_vec()],
            1 => vec![b"PSETEX".to_vec(), key, b"1".to_vec(), b"gone".to_vec()],
            _ => vec![b"GETEX".to_vec(), key, b"PX".to_vec(), b"1".to_vec()],
        };
        Step::Expire { conn, args }
    }

    fn scan(&mut self, conn: usize) -> Step {
        let mut options = Args::new();
        if self.rng.random_bool(0.5) {
            options.extend([self.cased("MATCH"), self.atom("pattern")]);
        }
        if self.rng.random_bool(0.5) {
            options.extend([self.cased("COUNT"), self.atom("small")]);
        }
        if self.rng.random_bool(0.3) {
            options.extend([self.cased("TYPE"), self.atom("typename")]);
        }
        Step::Scan { conn, options }
    }

    /// Several commands in one write; none that changes how many replies come.
    fn pipeline(&mut self, conn: usize) -> Step {
        let count = self.rng.random_range(2..8);
        Step::Commands {
            conn,
            commands: (0..count).map(|_| self.plain()).collect(),
        }
    }

    fn transaction(&mut self, conn: usize) -> Step {
        let mut commands = vec![vec![self.cased("MULTI")]];
        for _ in 0..self.rng.random_range(0..5) {
            commands.push(self.plain());
        }
        commands.push(vec![self.cased("EXEC")]);
        Step::Commands { conn, commands }
    }

    /// Commands without replies, and the switch back.
    fn muted(&mut self, conn: usize) -> Step {
        let words = |text: &str| {
            text.split(' ')
                .map(|w| w.as_bytes().to_vec())
                .collect::<Args>()
        };
        let commands = if self.rng.random_bool(0.5) {
            vec![words("CLIENT REPLY SKIP"), self.plain()]
        } else {
            vec![
                words("CLIENT REPLY OFF"),
                self.plain(),
                self.plain(),
                words("CLIENT REPLY ON"),
            ]
        };
        Step::Commands { conn, commands }
    }

    /// A command that leaves the connection's state alone and has one reply.
    fn plain(&mut self) -> Args {
        loop {
            let args = self.command();
            let name = name_of(&args);
            let stateful: &[&[u8]] = &[
                b"MULTI",
                b"EXEC",
                b"DISCARD",
                b"RESET",
                b"QUIT",
                b"HELLO",
                b"CLIENT",
                b"SUBSCRIBE",
                b"PSUBSCRIBE",
                b"SSUBSCRIBE",
                b"UNSUBSCRIBE",
                b"PUNSUBSCRIBE",
                b"SUNSUBSCRIBE",
                b"AUTH",
                b"WATCH",
            ];
            if !stateful.contains(&name.as_slice()) {
                return args;
            }
        }
    }

    /// One command from the table, now and then deliberately wrong.
    fn command(&mut self) -> Args {
        let grammar = self.grammar;
        let mut pick = self.rng.random_range(0..grammar.total);
        let mut args = Args::new();
        for (weight, _, node) in &grammar.rows {
            if pick < *weight {
                self.expand(node, &mut args);
                break;
            }
            pick -= weight;
        }
        if self.rng.random_bool(0.07) {
            self.spoil(&mut args);
        }
        args
    }

    /// Wrong arity, or an argument of another kind.
    fn spoil(&mut self, args: &mut Args) {
        let name = name_of(args);
        if matches!(
            name.as_slice(),
            b"CLIENT"
                | b"DEBUG"
                | b"CONFIG"
                | b"HELLO"
                | b"COMMAND"
                | b"BZPOPMIN"
                | b"BZPOPMAX"
                | b"BZMPOP"
                | b"ZRANDMEMBER"
                | b"ZSCAN"
                | b"SPOP"
                | b"SRANDMEMBER"
                | b"SSCAN"
                | b"HRANDFIELD"
                | b"HSCAN"
                | b"ZRANK"
                | b"ZREVRANK"
        ) {
            return;
        }
        // Ranges of texts mean something only where all scores are the same, and what SORT reads
        // must be no number out of range.
        let delicate: &[&[u8]] = &[
            b"lex", b"sl1", b"sl2", b"ss1", b"sz1", b"w1", b"w2", b"w3", b"w10", b"w1.5", b"w-2",
        ];
        if args.iter().any(|arg| delicate.contains(&arg.as_slice())) {
            return;
        }
        match self.rng.random_range(0..4) {
            0 if args.len() > 1 => args.truncate(self.rng.random_range(1..args.len())),
            1 => {
                let kind = ["key", "value", "int", "junk"]
                    .choose(&mut self.rng)
                    .expect("not empty");
                let arg = self.atom(kind);
                args.push(arg);
            }
            2 if args.len() > 1 => {
                let at = self.rng.random_range(1..args.len());
                let kind = ["key", "value", "int", "float", "junk"]
                    .choose(&mut self.rng)
                    .expect("not empty");
                args[at] = self.atom(kind);
            }
            _ => args.truncate(1),
        }
    }

    fn expand(&mut self, node: &Node, out: &mut Args) {
        match node {
            Node::Word(word) => {
                let word = self.cased(word);
                out.push(word);
            }
            Node::Atom("setting") => self.setting(out),
            Node::Atom("knowncommand") => {
                let inner = self.plain();
                out.extend(inner);
            }
            Node::Atom(name) => {
                let arg = self.atom(name);
                out.push(arg);
            }
            Node::Seq(nodes) => nodes.iter().for_each(|n| self.expand(n, out)),
            Node::OneOf(nodes) => {
                let at = self.rng.random_range(0..nodes.len());
                self.expand(&nodes[at], out);
            }
            Node::Maybe(inner) => {
                if self.rng.random_bool(0.5) {
                    self.expand(inner, out);
                }
            }
            Node::AnyOf(nodes) => {
                let mut order: Vec<usize> = (0..nodes.len()).collect();
                order.shuffle(&mut self.rng);
                for at in order {
                    if self.rng.random_bool(0.25) {
                        self.expand(&nodes[at], out);
                    }
                }
            }
            Node::Repeat(least, inner) => {
                let most = if self.rng.random_bool(0.6) {
                    least + 1
                } else {
                    4
                };
                for _ in 0..self.rng.random_range(*least..=most) {
                    self.expand(inner, out);
                }
            }
        }
    }

    fn setting(&mut self, out: &mut Args) {
        let (name, _, values) = SETTINGS.choose(&mut self.rng).expect("not empty");
        let value = values.choose(&mut self.rng).expect("not empty");
        out.push(self.cased(name));
        out.push(value.as_bytes().to_vec());
    }

    /// A word in upper, lower or mixed case.
    fn cased(&mut self, word: &str) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..6 => word.as_bytes().to_vec(),
            6..9 => word.to_ascii_lowercase().into_bytes(),
            _ => word
                .bytes()
                .map(|b| {
                    if self.rng.random_bool(0.5) {
                        b.to_ascii_lowercase()
                    } else {
                        b
                    }
                })
                .collect(),
        }
    }

    fn one(&mut self, pool: &[&[u8]]) -> Vec<u8> {
        pool.choose(&mut self.rng)
            .expect("pools are not empty")
            .to_vec()
    }

    /// An argument from the pool `name`.
    fn atom(&mut self, name: &str) -> Vec<u8> {
        match name {
            "key" => self.one(pools::KEYS),
            "zkey" => match self.rng.random_bool(0.9) {
                true => self.one(&[b"z1", b"z2", b"z3"]),
                false => self.one(&[b"a", b"b"]),
            },
            "listkey" => match self.rng.random_bool(0.92) {
                true => self.one(&[b"l1", b"l2", b"l3"]),
                false => self.one(&[b"a", b"b"]),
            },
            "streamkey" => match self.rng.random_bool(0.95) {
                true => self.one(&[b"x1", b"x1", b"x2"]),
                false => self.one(&[b"a", b"b"]),
            },
            "group" => match self.rng.random_bool(0.95) {
                true => self.one(&[b"g1", b"g2"]),
                false => self.one(&[b"g3", b""]),
            },
            "consumer" => self.one(&[b"alice", b"bob", b"carol"]),
            // IDs are given, so that both servers have the same.
            "streamid" => match self.rng.random_bool(0.9) {
                true => {
                    let (ms, seq) = (self.rng.random_range(0..14), self.rng.random_range(0..4));
                    format!("{ms}-{seq}").into_bytes()
                }
                false => self.one(pools::STREAM_IDS),
            },
            "edgeid" => match self.rng.random_range(0..10) {
                0..4 => self.one(&[b"-", b"+", b"0", b"$"]),
                4..6 => [&b"("[..], &self.atom("streamid")].concat(),
                _ => self.atom("streamid"),
            },
            "skey" => match self.rng.random_bool(0.9) {
                true => self.one(&[b"s1", b"s2", b"s3"]),
                false => self.one(&[b"a", b"b"]),
            },
            "hkey" => match self.rng.random_bool(0.9) {
                true => self.one(&[b"t1", b"t2"]),
                false => self.one(&[b"a", b"b"]),
            },
            "hllkey" => match self.rng.random_bool(0.95) {
                true => self.one(&[b"h1", b"h2", b"h3"]),
                false => b"a".to_vec(),
            },
            "decimal" => format!("{:.2}", self.rng.random_range(-50.0..50.0)).into_bytes(),
            "sortlist" => self.one(&[b"sl1", b"sl1", b"sl2"]),
            "sortset" => self.one(&[b"ss1", b"ss1", b"a"]),
            "sortzset" => self.one(&[b"sz1"]),
            "weight" => self.one(&[b"w1", b"w2", b"w3", b"w10", b"w1.5", b"w-2"]),
            "weighthash" => self.one(&[b"o1", b"o2", b"o3", b"o10", b"o1.5", b"o-2"]),
            "sortpattern" => self.one(&[
                b"w*",
                b"w*",
                b"o*->name",
                b"o*->w",
                b"o*->",
                b"w*->w",
                b"nothing*",
                b"constant",
                b"*",
                b"#",
                b"o*->nosuch",
            ]),
            "geokey" => match self.rng.random_bool(0.95) {
                true => self.one(&[b"g1", b"g1", b"g2"]),
                false => b"nogeo".to_vec(),
            },
            "longitude" | "latitude" => match self.rng.random_bool(0.85) {
                true => {
                    let most = if name == "latitude" { 85.0 } else { 180.0 };
                    // Near the middle as a rule, so that places are near each other.
                    let most = if self.rng.random_bool(0.6) {
                        most / 50.0
                    } else {
                        most
                    };
                    let decimals = self.rng.random_range(0..8);
                    format!("{:.*}", decimals, self.rng.random_range(-most..most)).into_bytes()
                }
                false => self.one(&[
                    b"0",
                    b"180",
                    b"-180",
                    b"85.05112878",
                    b"-85.05112878",
                    b"85.06",
                    b"181",
                    b"x",
                    b"1e400",
                    b"-0",
                ]),
            },
            "distance" => match self.rng.random_bool(0.9) {
                true => {
                    let size = 10f64.powi(self.rng.random_range(0..7));
                    format!("{:.2}", self.rng.random_range(0.0..size)).into_bytes()
                }
                false => self.one(&[b"0", b"-1", b"x", b"1e9", b"inf", b"", b"20000", b"1e-9"]),
            },
            "unit" => self.one(&[b"m", b"km", b"km", b"ft", b"mi", b"KM", b"x"]),
            "lexkey" => match self.rng.random_bool(0.95) {
                true => b"lex".to_vec(),
                false => b"nolex".to_vec(),
            },
            "numkeys" => self.one(&[
                b"1",
                b"1",
                b"2",
                b"3",
                b"0",
                b"-1",
                b"x",
                b"9223372036854775807",
            ]),
            "member" => self.one(pools::MEMBERS),
            "score" => match self.rng.random_bool(0.7) {
                true => self.rng.random_range(-6..7).to_string().into_bytes(),
                false => self.one(pools::FLOATS),
            },
            "scorebound" => {
                let open: &[u8] = if self.rng.random_bool(0.3) { b"(" } else { b"" };
                let bound = match self.rng.random_range(0..10) {
                    0..6 => self.rng.random_range(-6..7).to_string().into_bytes(),
                    6..8 => self.one(&[b"-inf", b"+inf", b"inf"]),
                    _ => self.one(pools::FLOATS),
                };
                [open, &bound].concat()
            }
            "lexbound" => match self.rng.random_range(0..10) {
                0..3 => self.one(&[
                    b"-", b"+", b"-", b"+", b"(", b"[", b"", b"x", b"++", b"-\x00",
                ]),
                other => {
                    let open: &[u8] = if other % 2 == 0 { b"(" } else { b"[" };
                    [open, &self.one(pools::MEMBERS)].concat()
                }
            },
            "missing" => self.one(&[b"nosuchkey"]),
            "value" => self.value(),
            "int" => match self.rng.random_bool(0.5) {
                true => self.rng.random_range(-20..200).to_string().into_bytes(),
                false => self.one(pools::INTS),
            },
            "small" => self.rng.random_range(1..12).to_string().into_bytes(),
            "index" => match self.rng.random_bool(0.7) {
                true => self.rng.random_range(-12..14).to_string().into_bytes(),
                false => self.one(pools::INTS),
            },
            "offset" | "bit" => match self.rng.random_bool(0.8) {
                true => self.rng.random_range(0..130).to_string().into_bytes(),
                false => self.one(pools::OFFSETS),
            },
            "bitoffset" => self.bit_offset(),
            "bittype" => match self.rng.random_bool(0.85) {
                true => {
                    let sign = if self.rng.random_bool(0.5) { 'i' } else { 'u' };
                    format!("{sign}{}", self.rng.random_range(1..=64)).into_bytes()
                }
                false => self.one(pools::BIT_TYPES),
            },
            "float" => match self.rng.random_bool(0.5) {
                true => format!(
                    "{:.*}",
                    self.rng.random_range(0..6),
                    self.rng.random_range(-50.0..50.0)
                )
                .into_bytes(),
                false => self.one(pools::FLOATS),
            },
            "seconds" | "millis" | "at" | "atms" => self.time(name),
            "pattern" => self.one(pools::PATTERNS),
            "channel" => self.one(&[b"ch1", b"ch2", b"news.a", b"", b"\x00\xff"]),
            "chanpattern" => self.one(&[b"ch*", b"news.?", b"*", b"[c]h1", b"nothing*", b"\\*"]),
            "keyevent" => self.one(pools::EVENTS),
            "notify" => self.one(pools::NOTIFY),
            "db" => self.one(&[
                b"0",
                b"1",
                b"0",
                b"1",
                b"2",
                b"15",
                b"16",
                b"-1",
                b"x",
                b"99999999999999999999",
            ]),
            "typename" => self.one(&[b"string", b"STRING", b"hash", b"list", b"unknown"]),
            "commandname" => self.one(pools::COMMANDS),
            "parameter" => {
                let (name, ..) = SETTINGS.choose(&mut self.rng).expect("not empty");
                self.cased(name)
            }
            "script" => self.one(pools::SCRIPTS),
            "junk" => self.one(pools::JUNK),
            other => panic!("the grammar names an unknown pool <{other}>"),
        }
    }

    fn bit_offset(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..5 => self.rng.random_range(0..200).to_string().into_bytes(),
            5..8 => format!("#{}", self.rng.random_range(0..12)).into_bytes(),
            _ => self.one(pools::OFFSETS),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..100) {
            0..25 => self
                .rng
                .random_range(-1000..100_000)
                .to_string()
                .into_bytes(),
            25..35 => self.one(pools::INTS),
            35..45 => self.one(pools::FLOATS),
            45..75 => self.one(pools::STRINGS),
            75..85 => {
                let len = *[43, 44, 45, 63, 64]
                    .choose(&mut self.rng)
                    .expect("not empty");
                vec![b'x'; len]
            }
            85..98 => (0..self.rng.random_range(0..20))
                .map(|_| self.rng.random())
                .collect(),
            98 => (0..1500)
                .map(|_| self.rng.random_range(b'a'..=b'd'))
                .collect(),
            _ => vec![b'L'; 10 * 1024],
        }
    }

    /// A time to live or a moment. See the head of this file for what is avoided.
    fn time(&mut self, name: &str) -> Vec<u8> {
        if self.rng.random_bool(0.2) {
            return self.one(pools::TIMES);
        }
        let far_s = self.rng.random_range(10..100_000_i64) * 10;
        let number = match name {
            "seconds" => far_s,
            "millis" => far_s * 1000,
            "at" => self.now_s + far_s,
            _ => (self.now_s + far_s) * 1000,
        };
        number.to_string().into_bytes()
    }
}

/// RANDOMKEY removes the expired keys it comes across, which are random ones. After a SCAN
/// none are left, so that both servers keep the same keys.
fn any_key(conn: usize) -> Step {
    let commands = vec![
        ["SCAN", "0", "COUNT", "100000"]
            .map(|w| w.as_bytes().to_vec())
            .to_vec(),
        vec![b"RANDOMKEY".to_vec()],
    ];
    Step::Commands { conn, commands }
}

/// SORT in Redis looks at `errno` without resetting it and fails over a number out of range that
/// some earlier command met. Reading a cursor resets it.
fn forget_errors(step: &mut Step) {
    let Step::Commands { commands, .. } = step else {
        return;
    };
    // What CLIENT REPLY silences is counted.
    if commands
        .first()
        .is_some_and(|args| name_of(args) == b"CLIENT")
    {
        return;
    }
    let sorts = |args: &Args| name_of(args).starts_with(b"SORT");
    while let Some(at) = (0..commands.len())
        .find(|&at| sorts(&commands[at]) && (at == 0 || name_of(&commands[at - 1]) != b"SSCAN"))
    {
        commands.insert(
            at,
            ["SSCAN", "errno", "0"]
                .map(|w| w.as_bytes().to_vec())
                .to_vec(),
        );
    }
}

/// The command name in upper case.
pub fn name_of(args: &Args) -> Vec<u8> {
    args.first()
        .map(|n| n.to_ascii_uppercase())
        .unwrap_or_default()
}

#[rustfmt::skip]
mod pools {
    //! The values that have been trouble somewhere before.

    pub const KEYS: &[&[u8]] = &[b"a", b"b", b"c", b"key:1", b"key:2", b"", b"\x00\x01\xff bin\r\n", b"{tag}x", b"10"];
    pub const MEMBERS: &[&[u8]] = &[
        b"a", b"b", b"c", b"d", b"bb", b"alpha", b"beta", b"omega", b"1", b"2", b"10", b"-3", b"007", b"", b"\x00", b"\xff",
        b"9223372036854775807", b"9223372036854775808", b"a-member-that-is-longer-than-the-sixty-four-bytes-of-the-default-limit",
    ];
    pub const INTS: &[&[u8]] = &[
        b"0", b"1", b"-1", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808",
        b"-9223372036854775809", b"9223372036854775806", b"100000000000000000000", b"4294967296", b"01", b"-0", b"+5", b" 7", b"7 ", b"",
        b"0x10", b"1e3", b"ten", b"3.0", b"10\x00", b"9007199254740993", b"9999", b"10000",
    ];
    pub const FLOATS: &[&[u8]] = &[
        b"0", b"-0", b"0.1", b"-0.1", b"1.5", b"3.0", b"1e5", b"1e-5", b"1e17", b"1e400", b"-1e400", b"inf", b"-inf", b"nan",
        b"0.30000000000000004", b"123456789012345678", b"1.7976931348623157e308", b"5e-324", b" 1", b"1 ", b"", b"0x1p3",
        b".5", b"5.", b"1e", b"++1", b"3.14159265358979323846", b"9007199254740993.5",
    ];
    pub const STRINGS: &[&[u8]] = &[
        b"", b"v", b"hello world", b"ohmytext", b"mynewtext", b"\x00", b"\r\n", b"\"quoted\"", b"\xf0\x9f\x98\x80", b"abcabcabc",
        b"\xff\xff\xff\xff", b"\x00\x00\x00", b"foobar", b"true", b"nil",
    ];
    // 4294967295 and 536870911 would be accepted and cost half a gigabyte each.
    pub const OFFSETS: &[&[u8]] = &[
        b"0", b"7", b"8", b"1023", b"65535", b"4294967296", b"536870912", b"-1", b"9223372036854775807", b"-9223372036854775808",
        b"x", b"", b"1.5", b"#", b"#-1", b"#x", b"01",
    ];
    pub const STREAM_IDS: &[&[u8]] = &[b"5", b"7-*", b"9-*", b"12-*", b"007-1", b" 3-1", b"3-", b"x", b"-", b"1-x", b"1--1", b"", b"18446744073709551615-18446744073709551615", b"18446744073709551616-0", b"30-18446744073709551615"];
    pub const BIT_TYPES: &[&[u8]] = &[b"u63", b"u64", b"i64", b"i65", b"u0", b"i0", b"x8", b"u", b"i-1", b"", b"U8", b"u08"];
    pub const TIMES: &[&[u8]] = &[
        b"0", b"-1", b"-100", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775", b"9223372036854776",
        b"99999999999999999999", b"x", b"", b"1.5", b" 100", b"9223370000000000",
    ];
    /// Scripts of two keys and an argument.
    pub const SCRIPTS: &[&[u8]] = &[
        b"return redis.call('get',KEYS[1])",
        b"return redis.call('set',KEYS[1],ARGV[1])",
        b"return redis.pcall('lpush',KEYS[1],ARGV[1])",
        b"return {redis.pcall('incr',KEYS[1]),redis.pcall('append',KEYS[2],ARGV[1])}",
        b"redis.call('rename',KEYS[1],KEYS[2]) return redis.call('exists',KEYS[1])",
        b"redis.setresp(3) return redis.call('type',KEYS[1])",
        b"if redis.call('exists',KEYS[1])==1 then redis.call('del',KEYS[2]) end return redis.call('dbsize')",
        b"redis.call('set',KEYS[1],ARGV[1]) error('after')",
        b"return {pcall(redis.call,'sadd',KEYS[1],ARGV[1])}",
        b"return cjson.encode({KEYS[1],#ARGV[1],tonumber(ARGV[1]) or false})",
        b"return {pcall(cjson.decode,ARGV[1])}",
        b"return cmsgpack.unpack(cmsgpack.pack({ARGV[1],tonumber(ARGV[1])}))",
        b"return {pcall(cmsgpack.unpack,ARGV[1])}",
        b"return {struct.unpack('>I4s',struct.pack('>I4s',#ARGV[1],ARGV[1]))}",
        b"return {pcall(struct.unpack,'<hBs',ARGV[1])}",
        b"local n=tonumber(ARGV[1]) or 7 return {bit.tohex(n),bit.bxor(n,255),bit.rol(n,3)}",
        b"return {string.gsub(ARGV[1],'%w+','<%0>')}",
        b"return {string.find(ARGV[1],'(%d+)')}",
        b"return string.format('%s|%q|%5.1f',ARGV[1],ARGV[1],tonumber(ARGV[1]) or 0)",
        b"return {tostring(tonumber(ARGV[1])),tonumber(ARGV[1])}",
        b"return redis.error_reply(ARGV[1])",
        b"return redis.status_reply(ARGV[1])",
        b"return nosuch",
        b"return +",
        b"#!lua flags=no-writes\nreturn redis.call('set',KEYS[1],ARGV[1])",
        b"#!lua\nreturn redis.call('incr',KEYS[1])",
    ];
    pub const PATTERNS: &[&[u8]] = &[
        b"*", b"a", b"key:*", b"key:?", b"[a-c]", b"[^a]", b"[a", b"\\a", b"*:*", b"", b"?", b"**", b"[c-a]", b"\x00*", b"*1*", b"k\\",
    ];
    pub const EVENTS: &[&[u8]] = &[
        b"__keyspace@0__:a", b"__keyspace@0__:b", b"__keyspace@1__:a", b"__keyevent@0__:set", b"__keyevent@0__:expire",
        b"__keyevent@0__:expired", b"__keyevent@0__:del", b"__keyevent@0__:incrby", b"__keyevent@0__:new", b"__keyevent@0__:keymiss",
    ];
    /// Not `A` with `n`: Redis prints no `n` beside an `A`, and a CONFIG SET that fails later
    /// restores what is printed.
    pub const NOTIFY: &[&[u8]] = &[b"KEA", b"KEmn$g", b"KEA", b"AKE", b"K$", b"Eg", b"KEx", b"KEm", b"KEn", b"", b"E", b"A", b"q", b"KEA?"];
    pub const COMMANDS: &[&[u8]] = &[
        b"get", b"SET", b"mset", b"getex", b"bitfield", b"bitop", b"lcs", b"substr", b"incrbyfloat", b"setrange", b"copy", b"object",
        b"object|encoding", b"rename", b"keys", b"scan", b"expire", b"watch", b"exec", b"subscribe", b"ssubscribe", b"publish",
        b"spublish", b"ping", b"hello", b"reset", b"auth", b"client|setname", b"config|set", b"swapdb", b"flushall", b"randomkey",
        b"nosuch", b"", b"get|x", b"pubsub|numsub", b"pubsub|channels", b"select", b"quit", b"echo", b"touch", b"unlink", b"getdel",
    ];
    pub const JUNK: &[&[u8]] = &[
        b"foo", b"", b"NX", b"GET", b"0", b"-1", b"\x00", b"EX", b"nosuchcommand", b"with space", b"1abc", b"\xff\xfe", b"new\r\nline",
        b"a-rather-long-word-that-is-cut-in-messages-because-of-its-length-a-rather-long-word-that-is-cut-in-messages-because-of-its-length-and-more",
    ];
}
