//! Replies of commands as values of Lua, and values of Lua as replies of scripts.

use super::args::to_i64;
use super::lua::{Kind, Stack};
use crate::resp::write::{Output, Protocol};

/// Pushes the reply that `bytes` begin with and gives what is behind it.
///
/// The bytes are written by this server, so that what does not parse does not happen; it ends there.
pub fn push<'a>(stack: &mut Stack, bytes: &'a [u8]) -> &'a [u8] {
    stack.reserve(6);
    let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    let (line, rest) = bytes.split_at(end);
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let Some((kind, text)) = line.split_first() else {
        stack.push_nil();
        return rest;
    };
    match kind {
        b':' => {
            let value = crate::base::number::parse_i64(text).unwrap_or(0);
            stack.push_number(value as f64);
        }
        b'$' => {
            let Some((value, rest)) = bulk(text, rest) else {
                stack.push_bool(false);
                return rest;
            };
            stack.push(value);
            return rest;
        }
        b'*' => return array(stack, text, rest),
        b'+' => field(stack, "ok", text),
        b'-' => push_error(stack, text),
        b'_' => stack.push_nil(),
        b'#' => stack.push_bool(text == b"t"),
        b',' => {
            stack.push_table(0, 1);
            stack.push_number(crate::base::number::strtod(text).0);
            stack.set_field(-2, "double");
        }
        b'(' => field(stack, "big_number", text),
        b'=' => return verbatim(stack, text, rest),
        b'%' => return map(stack, text, rest),
        b'~' => return set(stack, text, rest),
        b'|' => return attribute(stack, text, rest),
        _ => stack.push_nil(),
    }
    rest
}

fn len(text: &[u8]) -> Option<usize> {
    usize::try_from(crate::base::number::parse_i64(text)?).ok()
}

fn bulk<'a>(text: &[u8], rest: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let len = len(text)?;
    let value = rest.get(..len)?;
    Some((value, rest.get(len + 2..).unwrap_or_default()))
}

/// Pushes a table of one field.
fn field(stack: &mut Stack, name: &str, text: &[u8]) {
    stack.push_table(0, 1);
    stack.push(text);
    stack.set_field(-2, name);
}

/// Pushes the error of a command, whose statistics were counted with it.
pub fn push_error(stack: &mut Stack, text: &[u8]) {
    stack.push_error(&[b"-", text].concat());
    stack.push_bool(true);
    stack.set_field(-2, "ignore_error_stats_update");
}

fn array<'a>(stack: &mut Stack, text: &[u8], mut rest: &'a [u8]) -> &'a [u8] {
    let Some(len) = len(text) else {
        stack.push_bool(false);
        return rest;
    };
    stack.push_table(len, 0);
    let table = stack.top();
    for index in 1..=len {
        rest = push(stack, rest);
        stack.set_index(table, index as i32);
    }
    rest
}

fn map<'a>(stack: &mut Stack, text: &[u8], mut rest: &'a [u8]) -> &'a [u8] {
    stack.push_table(0, 1);
    stack.push_table(0, len(text).unwrap_or(0));
    let table = stack.top();
    for _ in 0..len(text).unwrap_or(0) {
        rest = push(stack, rest);
        rest = push(stack, rest);
        stack.set(table);
    }
    stack.set_field(-2, "map");
    rest
}

fn set<'a>(stack: &mut Stack, text: &[u8], mut rest: &'a [u8]) -> &'a [u8] {
    stack.push_table(0, 1);
    stack.push_table(0, len(text).unwrap_or(0));
    let table = stack.top();
    for _ in 0..len(text).unwrap_or(0) {
        rest = push(stack, rest);
        stack.push_bool(true);
        stack.set(table);
    }
    stack.set_field(-2, "set");
    rest
}

/// An attribute says something about the reply behind it, and scripts do not see it.
fn attribute<'a>(stack: &mut Stack, text: &[u8], mut rest: &'a [u8]) -> &'a [u8] {
    for _ in 0..2 * len(text).unwrap_or(0) {
        rest = push(stack, rest);
        stack.pop(1);
    }
    push(stack, rest)
}

fn verbatim<'a>(stack: &mut Stack, text: &[u8], rest: &'a [u8]) -> &'a [u8] {
    let (value, rest) = bulk(text, rest).unwrap_or((b"", rest));
    let (format, text) = value.split_at(value.len().min(4));
    stack.push_table(0, 1);
    stack.push_table(0, 2);
    stack.push(text);
    stack.set_field(-2, "string");
    stack.push(&format[..format.len().min(3)]);
    stack.set_field(-2, "format");
    stack.set_field(-2, "verbatim_string");
    rest
}

/// What is wrong that a script returned or raised.
#[derive(Debug, Default)]
pub struct Failure {
    /// The line, code included.
    pub text: Vec<u8>,
    /// It is the error of a command that was counted with that.
    pub counted: bool,
    /// Where it happened: source and line.
    pub place: Option<(Vec<u8>, Vec<u8>)>,
    /// The text is what Lua says of itself (that memory is short), seen by no handler.
    pub is_bare: bool,
}

/// What a table on top says that is an error.
pub fn failure(stack: &mut Stack) -> Failure {
    let table = stack.top();
    let mut text_of = |name| {
        stack.get_field(table, name);
        let is_text = stack.coerce(-1);
        let text = stack.string(-1).filter(|_| is_text);
        let text = text.map(|text| crate::base::text::before_nul(text).to_vec());
        stack.pop(1);
        text
    };
    let (text, source, line) = (text_of("err"), text_of("source"), text_of("line"));
    stack.get_field(table, "ignore_error_stats_update");
    let counted = stack.kind(-1) == Kind::Boolean && stack.truth(-1);
    stack.pop(1);
    Failure {
        text: text.unwrap_or_default(),
        counted,
        place: source.zip(line),
        is_bare: false,
    }
}

/// An error that was written as a reply.
#[derive(Debug)]
pub struct ErrorReply {
    /// The line, code included.
    pub text: Vec<u8>,
    /// It is the error of a command that was counted with that.
    pub counted: bool,
}

/// Writes values of a script as replies.
pub struct Writer<'a> {
    /// Where to.
    pub out: &'a mut Output,
    /// What the script set with `redis.setresp`.
    pub protocol: Protocol,
    /// Errors among the values.
    pub errors: Vec<ErrorReply>,
}

impl Writer<'_> {
    /// Writes the value on top and takes it away.
    pub fn write(&mut self, stack: &mut Stack) {
        if !stack.reserve(6) {
            let text = "ERR reached lua stack limit";
            self.out.error(text);
            self.errors.push(ErrorReply {
                text: text.into(),
                counted: false,
            });
            return stack.pop(1);
        }
        match stack.kind(-1) {
            Kind::String => self.out.bulk(stack.string(-1).unwrap_or_default()),
            Kind::Number => self.out.int(to_i64(stack.number(-1))),
            Kind::Boolean => {
                let value = stack.truth(-1);
                match (self.protocol, value) {
                    (Protocol::Resp2, true) => self.out.int(1),
                    (Protocol::Resp2, false) => self.out.null(),
                    (Protocol::Resp3, value) => self.out.bool(value),
                }
            }
            Kind::Table => self.table(stack),
            _ => self.out.null(),
        }
        stack.pop(1);
    }

    fn table(&mut self, stack: &mut Stack) {
        let table = stack.top();
        let named = [
            "err",
            "ok",
            "double",
            "big_number",
            "verbatim_string",
            "map",
            "set",
        ];
        for name in named {
            stack.get_field(table, name);
            if self.named(stack, table, name) {
                return stack.set_top(table);
            }
            stack.set_top(table);
        }
        let array = self.out.deferred();
        let mut len = 0;
        loop {
            stack.get_index(table, len as i32 + 1);
            if stack.kind(-1) == Kind::Nil {
                break;
            }
            self.write(stack);
            len += 1;
        }
        stack.pop(1);
        self.out.end_array(array, len);
    }

    /// Writes the table's field on top if it makes the table what the field's name says.
    fn named(&mut self, stack: &mut Stack, table: i32, name: &str) -> bool {
        match (name, stack.kind(-1)) {
            ("err", Kind::String) => {
                stack.pop(1);
                let failure = failure(stack);
                self.out.error_bytes(&failure.text);
                self.errors.push(ErrorReply {
                    text: failure.text,
                    counted: failure.counted,
                });
            }
            ("ok", Kind::String) => {
                let text = stack.string(-1).unwrap_or_default();
                let text = crate::base::text::before_nul(text).to_vec();
                self.status(text);
            }
            ("double", Kind::Number) => self.out.double(stack.number(-1)),
            ("big_number", Kind::String) => {
                let digits = stack.string(-1).unwrap_or_default();
                let digits = digits.iter().map(|b| match b {
                    b'\r' | b'\n' => b' ',
                    other => *other,
                });
                self.out.big_number(&digits.collect::<Vec<u8>>());
            }
            ("verbatim_string", Kind::Table) => return self.verbatim(stack),
            ("map", Kind::Table) => self.pairs(stack, true),
            ("set", Kind::Table) => self.pairs(stack, false),
            _ => return false,
        }
        debug_assert!(stack.top() >= table, "the table is there");
        true
    }

    fn status(&mut self, mut text: Vec<u8>) {
        for byte in &mut text {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.raw(&[b"+", &text[..], b"\r\n"].concat());
    }

    fn verbatim(&mut self, stack: &mut Stack) -> bool {
        let fields = stack.top();
        stack.get_field(fields, "format");
        stack.get_field(fields, "string");
        let (Some(format), Some(text)) = (stack.string(-2), stack.string(-1)) else {
            return false;
        };
        let format = String::from_utf8_lossy(&format[..format.len().min(3)]).into_owned();
        self.out.verbatim(&format, text.to_vec());
        true
    }

    fn pairs(&mut self, stack: &mut Stack, with_values: bool) {
        let (fields, entries) = (stack.top(), self.out.deferred());
        let mut len = 0;
        stack.push_nil();
        while stack.next(fields) {
            let value = stack.top();
            stack.push_copy(value - 1);
            self.write(stack);
            match with_values {
                true => self.write(stack),
                false => stack.pop(1),
            }
            len += 1;
        }
        match with_values {
            true => self.out.end_map(entries, len),
            false => self.out.end_set(entries, len),
        }
    }
}
