//! Lua's patterns: `string.find`, `match`, `gmatch` and `gsub`.
//!
//! They are ours, not Lua's, because of patterns that never end or that take the processor's stack: here a
//! matcher looks every so many steps whether its script is to end, and goes only so deep.

use super::args::{bad_argument, fail, integer_or, string};
use super::lua::{Body, Kind, Outcome, Raise, Stack};
use super::world::{KILLED, World};

/// The functions, for the table `string`.
pub const FUNCTIONS: &[(&str, Body)] = &[
    ("find", |stack| find_or_match(stack, true)),
    ("match", |stack| find_or_match(stack, false)),
    ("gmatch", gmatch),
    ("gsub", gsub),
];

/// Most captures of a pattern.
const MOST_CAPTURES: usize = 32;
/// How deep a matcher goes: once for each part of the pattern that repeats, and for each capture.
const DEEPEST: usize = 12_000;
/// After so many steps it looks whether the script is to end.
const STEPS: u32 = 1 << 14;

/// Why a match fails as a whole.
enum Fault {
    /// The pattern makes no sense.
    Text(&'static str),
    /// The script is to end.
    Ends,
}

/// A matched part of the subject.
#[derive(Clone, Copy)]
enum Capture {
    Open(usize),
    Position(usize),
    Closed(usize, usize),
}

/// A match under way. Positions are indices into the subject.
struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    steps: u32,
    stack: &'a mut Stack,
}

type Matched = Result<Option<usize>, Fault>;

impl<'a> Matcher<'a> {
    fn new(subject: &'a [u8], pattern: &'a [u8], stack: &'a mut Stack) -> Self {
        Self {
            subject,
            pattern,
            captures: Vec::new(),
            depth: 0,
            steps: 0,
            stack,
        }
    }

    /// The pattern's byte at `p`; 0, which ends it, beyond.
    fn p(&self, p: usize) -> u8 {
        self.pattern.get(p).copied().unwrap_or(0)
    }

    /// The subject's byte at `s`; 0 beyond.
    fn s(&self, s: usize) -> u8 {
        self.subject.get(s).copied().unwrap_or(0)
    }

    /// Matches the pattern from `p` on at `s`, anew.
    fn start(&mut self, s: usize, p: usize) -> Matched {
        self.captures.clear();
        self.run(s, p)
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps < STEPS {
            return Ok(());
        }
        self.steps = 0;
        let ends = self.stack.with_own(|world: &mut World, _| {
            let looked = world.host().is_some_and(|host| host.look());
            looked || world.ends()
        });
        match ends {
            true => Err(Fault::Ends),
            false => Ok(()),
        }
    }

    fn run(&mut self, s: usize, p: usize) -> Matched {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault::Text("pattern too complex"));
        }
        let matched = self.parts(s, p);
        self.depth -= 1;
        matched
    }

    fn parts(&mut self, mut s: usize, mut p: usize) -> Matched {
        loop {
            self.step()?;
            match (self.p(p), self.p(p + 1)) {
                (b'(', b')') => return self.open(s, p + 2, Capture::Position(s)),
                (b'(', _) => return self.open(s, p + 1, Capture::Open(s)),
                (b')', _) => return self.close(s, p + 1),
                (b'%', b'b') => {
                    let Some(end) = self.balance(s, p + 2)? else {
                        return Ok(None);
                    };
                    (s, p) = (end, p + 4);
                    continue;
                }
                (b'%', b'f') => {
                    p += 2;
                    if self.p(p) != b'[' {
                        return Err(Fault::Text("missing '[' after '%f' in pattern"));
                    }
                    let end = self.class_end(p)?;
                    let before = if s == 0 { 0 } else { self.s(s - 1) };
                    if self.in_set(before, p, end - 1) || !self.in_set(self.s(s), p, end - 1) {
                        return Ok(None);
                    }
                    p = end;
                    continue;
                }
                (b'%', digit @ b'0'..=b'9') => {
                    let Some(end) = self.again(s, digit)? else {
                        return Ok(None);
                    };
                    (s, p) = (end, p + 2);
                    continue;
                }
                (0, _) => return Ok(Some(s)),
                (b'$', 0) => return Ok((s == self.subject.len()).then_some(s)),
                _ => {}
            }
            let end = self.class_end(p)?;
            let fits = self.fits(s, p, end);
            match self.p(end) {
                b'?' => {
                    if fits && let Some(matched) = self.run(s + 1, end + 1)? {
                        return Ok(Some(matched));
                    }
                    p = end + 1;
                }
                b'*' => return self.most(s, p, end),
                b'+' if fits => return self.most(s + 1, p, end),
                b'-' => return self.least(s, p, end),
                b'+' => return Ok(None),
                _ if !fits => return Ok(None),
                _ => (s, p) = (s + 1, end),
            }
        }
    }

    fn class_end(&self, p: usize) -> Result<usize, Fault> {
        let mut at = p + 1;
        match self.p(p) {
            b'%' if self.p(at) == 0 => Err(Fault::Text("malformed pattern (ends with '%')")),
            b'%' => Ok(at + 1),
            b'[' => {
                if self.p(at) == b'^' {
                    at += 1;
                }
                loop {
                    if self.p(at) == 0 {
                        return Err(Fault::Text("malformed pattern (missing ']')"));
                    }
                    at += 1;
                    if self.p(at - 1) == b'%' && self.p(at) != 0 {
                        at += 1;
                    }
                    if self.p(at) == b']' {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(at),
        }
    }

    /// True when the subject's byte at `s` is of the class at `p`.
    fn fits(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.subject.get(s) else {
            return false;
        };
        match self.p(p) {
            b'.' => true,
            b'%' => in_class(byte, self.p(p + 1)),
            b'[' => self.in_set(byte, p, end - 1),
            other => other == byte,
        }
    }

    fn in_set(&self, byte: u8, mut p: usize, end: usize) -> bool {
        let mut wanted = true;
        if self.p(p + 1) == b'^' {
            wanted = false;
            p += 1;
        }
        p += 1;
        while p < end {
            if self.p(p) == b'%' {
                p += 1;
                if in_class(byte, self.p(p)) {
                    return wanted;
                }
            } else if self.p(p + 1) == b'-' && p + 2 < end {
                p += 2;
                if (self.p(p - 2)..=self.p(p)).contains(&byte) {
                    return wanted;
                }
            } else if self.p(p) == byte {
                return wanted;
            }
            p += 1;
        }
        !wanted
    }

    fn most(&mut self, s: usize, p: usize, end: usize) -> Matched {
        let mut count = 0;
        while self.fits(s + count, p, end) {
            self.step()?;
            count += 1;
        }
        loop {
            if let Some(matched) = self.run(s + count, end + 1)? {
                return Ok(Some(matched));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    fn least(&mut self, mut s: usize, p: usize, end: usize) -> Matched {
        loop {
            if let Some(matched) = self.run(s, end + 1)? {
                return Ok(Some(matched));
            }
            if !self.fits(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, capture: Capture) -> Matched {
        if self.captures.len() >= MOST_CAPTURES {
            return Err(Fault::Text("too many captures"));
        }
        self.captures.push(capture);
        let matched = self.run(s, p)?;
        if matched.is_none() {
            self.captures.pop();
        }
        Ok(matched)
    }

    fn close(&mut self, s: usize, p: usize) -> Matched {
        let open = self
            .captures
            .iter()
            .rposition(|c| matches!(c, Capture::Open(_)));
        let Some((at, Capture::Open(begin))) = open.map(|at| (at, self.captures[at])) else {
            return Err(Fault::Text("invalid pattern capture"));
        };
        self.captures[at] = Capture::Closed(begin, s);
        let matched = self.run(s, p)?;
        if matched.is_none() {
            self.captures[at] = Capture::Open(begin);
        }
        Ok(matched)
    }

    fn balance(&mut self, s: usize, p: usize) -> Matched {
        let (begin, end) = (self.p(p), self.p(p + 1));
        if begin == 0 || end == 0 {
            return Err(Fault::Text("unbalanced pattern"));
        }
        if self.s(s) != begin {
            return Ok(None);
        }
        let mut open = 1;
        for at in s + 1..self.subject.len() {
            self.step()?;
            let byte = self.s(at);
            if byte == end {
                open -= 1;
                if open == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == begin {
                open += 1;
            }
        }
        Ok(None)
    }

    fn again(&mut self, s: usize, digit: u8) -> Matched {
        let capture = usize::from(digit)
            .checked_sub(usize::from(b'1'))
            .and_then(|at| self.captures.get(at));
        let part = match capture {
            Some(Capture::Closed(begin, end)) => &self.subject[*begin..*end],
            // Of a position nothing can be the same: its length is beyond all.
            Some(Capture::Position(_)) => return Ok(None),
            _ => return Err(Fault::Text("invalid capture index")),
        };
        Ok(self.subject[s..].starts_with(part).then(|| s + part.len()))
    }

    /// Pushes a capture, or for the first of none the whole match.
    fn push(&mut self, index: usize, whole: (usize, usize)) -> Result<(), Fault> {
        match self.captures.get(index).copied() {
            None if index == 0 => self.stack.push(&self.subject[whole.0..whole.1]),
            None => return Err(Fault::Text("invalid capture index")),
            Some(Capture::Open(_)) => return Err(Fault::Text("unfinished capture")),
            Some(Capture::Position(at)) => self.stack.push_number((at + 1) as f64),
            Some(Capture::Closed(begin, end)) => self.stack.push(&self.subject[begin..end]),
        }
        Ok(())
    }

    /// Pushes all captures; without any the whole match, if one is given.
    fn push_all(&mut self, whole: Option<(usize, usize)>) -> Result<i32, Fault> {
        let count = match whole {
            Some(_) => self.captures.len().max(1),
            None => self.captures.len(),
        };
        self.stack.reserve(count as i32 + 2);
        for index in 0..count {
            self.push(index, whole.unwrap_or((0, 0)))?;
        }
        Ok(count as i32)
    }
}

fn in_class(byte: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is != class.is_ascii_uppercase()
}

fn raise(stack: &mut Stack, fault: Fault) -> Raise {
    match fault {
        Fault::Text(text) => fail(stack, text),
        Fault::Ends => {
            stack.watch_lines();
            stack.reserve(4);
            stack.push_error(KILLED.as_bytes());
            Raise
        }
    }
}

fn find_or_match(stack: &mut Stack, finds: bool) -> Outcome {
    let subject = string(stack, 1)?.to_vec();
    let pattern = string(stack, 2)?.to_vec();
    let len = subject.len() as i64;
    let first = match integer_or(stack, 3, 1)? {
        back @ ..0 => back.saturating_add(len + 1).max(0),
        first => first,
    };
    let first = (first - 1).clamp(0, len) as usize;
    let is_special = |byte: &u8| b"^$*+?.([%-".contains(byte);
    let text = crate::base::text::before_nul(&pattern);
    if finds && (stack.truth(4) || !text.iter().any(is_special)) {
        let found = match pattern[..] {
            [] => Some(0),
            _ => memchr::memmem::find(&subject[first..], &pattern),
        };
        let Some(found) = found else {
            stack.push_nil();
            return Ok(1);
        };
        stack.push_number((first + found + 1) as f64);
        stack.push_number((first + found + pattern.len()) as f64);
        return Ok(2);
    }
    let anchored = pattern.first() == Some(&b'^');
    let last = if anchored { first } else { subject.len() };
    let mut matcher = Matcher::new(&subject, &pattern, stack);
    let mut search = || -> Result<Option<i32>, Fault> {
        for begin in first..=last {
            let Some(end) = matcher.start(begin, anchored.into())? else {
                continue;
            };
            if !finds {
                return matcher.push_all(Some((begin, end))).map(Some);
            }
            matcher.stack.push_number((begin + 1) as f64);
            matcher.stack.push_number(end as f64);
            return matcher.push_all(None).map(|count| Some(count + 2));
        }
        Ok(None)
    };
    match search() {
        Ok(Some(count)) => Ok(count),
        Ok(None) => {
            stack.push_nil();
            Ok(1)
        }
        Err(fault) => Err(raise(stack, fault)),
    }
}

fn gmatch(stack: &mut Stack) -> Outcome {
    string(stack, 1)?;
    string(stack, 2)?;
    stack.set_top(2);
    stack.reserve(4);
    // Where the next match begins.
    stack.push_table(1, 0);
    stack.push_number(0.0);
    stack.set_index(-2, 1);
    stack.push_closure(gmatch_next, 3);
    Ok(1)
}

fn gmatch_next(stack: &mut Stack) -> Outcome {
    stack.set_top(0);
    stack.reserve(8);
    for index in 1..=3 {
        stack.push_upvalue(index);
    }
    let subject = stack.string(1).unwrap_or_default().to_vec();
    let pattern = stack.string(2).unwrap_or_default().to_vec();
    stack.get_index(3, 1);
    let first = stack.number(-1) as usize;
    let mut matcher = Matcher::new(&subject, &pattern, stack);
    let mut search = || -> Result<Option<(usize, i32)>, Fault> {
        for begin in first..=subject.len() {
            if let Some(end) = matcher.start(begin, 0)? {
                let next = if end == begin { end + 1 } else { end };
                return Ok(Some((next, matcher.push_all(Some((begin, end)))?)));
            }
        }
        Ok(None)
    };
    match search() {
        Ok(Some((next, count))) => {
            stack.push_number(next as f64);
            stack.set_index(3, 1);
            Ok(count)
        }
        Ok(None) => Ok(0),
        Err(fault) => Err(raise(stack, fault)),
    }
}

fn gsub(stack: &mut Stack) -> Outcome {
    let subject = string(stack, 1)?.to_vec();
    let pattern = string(stack, 2)?.to_vec();
    let kind = stack.kind(3);
    if !matches!(
        kind,
        Kind::Number | Kind::String | Kind::Function | Kind::Table
    ) {
        return Err(bad_argument(stack, 3, "string/function/table expected"));
    }
    let most = integer_or(stack, 4, subject.len() as i64 + 1)? as i32;
    stack.reserve(8);
    let text = match kind {
        Kind::Number | Kind::String => Some(string(stack, 3)?.to_vec()),
        _ => None,
    };
    let anchored = pattern.first() == Some(&b'^');
    let mut matcher = Matcher::new(&subject, &pattern, stack);
    let (mut out, mut at, mut count) = (Vec::with_capacity(subject.len()), 0, 0);
    while count < most {
        let matched = match matcher.start(at, anchored.into()) {
            Ok(matched) => matched,
            Err(fault) => return Err(raise(stack, fault)),
        };
        if let Some(end) = matched {
            count += 1;
            let replaced = match &text {
                Some(text) => replace_text(&mut matcher, text, (at, end), &mut out),
                None => replace_by(&mut matcher, kind, (at, end), &mut out),
            };
            match replaced {
                Ok(()) => {}
                Err(Replacing::Fault(fault)) => return Err(raise(stack, fault)),
                Err(Replacing::Raised) => return Err(Raise),
                Err(Replacing::Kind(name)) => {
                    let text = format!("invalid replacement value (a {name})");
                    return Err(fail(stack, text));
                }
            }
        }
        match matched {
            Some(end) if end > at => at = end,
            _ if at < subject.len() => {
                out.push(subject[at]);
                at += 1;
            }
            _ => break,
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(&subject[at..]);
    stack.push(&out);
    stack.push_number(f64::from(count));
    Ok(2)
}

/// Why a match cannot be replaced.
enum Replacing {
    Fault(Fault),
    /// The function raised what is on top.
    Raised,
    /// The replacement is of this kind.
    Kind(&'static str),
}

impl From<Fault> for Replacing {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Appends the text, with captures in the place of `%1` and the like.
fn replace_text(
    matcher: &mut Matcher<'_>,
    text: &[u8],
    whole: (usize, usize),
    out: &mut Vec<u8>,
) -> Result<(), Replacing> {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next().copied().unwrap_or(0) {
            b'0' => out.extend_from_slice(&matcher.subject[whole.0..whole.1]),
            digit @ b'1'..=b'9' => {
                matcher.push(usize::from(digit - b'1'), whole)?;
                matcher.stack.coerce(-1);
                out.extend_from_slice(matcher.stack.string(-1).unwrap_or_default());
                matcher.stack.pop(1);
            }
            other => out.push(other),
        }
    }
    Ok(())
}

/// Appends what a function or a table gives for the captures.
fn replace_by(
    matcher: &mut Matcher<'_>,
    kind: Kind,
    whole: (usize, usize),
    out: &mut Vec<u8>,
) -> Result<(), Replacing> {
    let given = if kind == Kind::Function {
        matcher.stack.push_copy(3);
        let count = matcher.push_all(Some(whole))?;
        matcher.stack.call(count, 1, 0)
    } else {
        matcher.push(0, whole)?;
        matcher.stack.get_with_metatable(3)
    };
    let stack = &mut *matcher.stack;
    if !given {
        return Err(Replacing::Raised);
    }
    if !stack.truth(-1) {
        out.extend_from_slice(&matcher.subject[whole.0..whole.1]);
    } else if matches!(stack.kind(-1), Kind::String | Kind::Number) {
        stack.coerce(-1);
        out.extend_from_slice(stack.string(-1).unwrap_or_default());
    } else {
        return Err(Replacing::Kind(stack.kind_name(-1)));
    }
    stack.pop(1);
    Ok(())
}
