//! `cjson.decode`: JSON text as values, with the originals' messages.

use super::args::{bad_argument, fail, string};
use super::json_settings::{DECODE_DEPTH, DECODE_INVALID, setting};
use super::lua::{Outcome, Raise, Stack};
use crate::base::number::strtod;

/// Nesting beyond this is refused whatever the settings say: Lua's own stack refuses it as well.
const DEEPEST: i32 = 2600;

/// What a text is made of.
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::String => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(text) => text,
        }
    }
}

/// A text that is being read.
struct Reader {
    data: Vec<u8>,
    at: usize,
    /// Where the last token began, or its fault is.
    token_at: usize,
    /// The last string.
    text: Vec<u8>,
    depth: i32,
    most_depth: i32,
    invalid_numbers: bool,
}

/// `cjson.decode(text)`
pub fn decode(stack: &mut Stack) -> Outcome {
    if stack.top() != 1 {
        return Err(bad_argument(stack, 1, "expected 1 argument"));
    }
    let data = string(stack, 1)?.to_vec();
    if matches!(data[..], [0, _, ..] | [_, 0, ..]) {
        return Err(fail(stack, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut reader = Reader {
        data,
        at: 0,
        token_at: 0,
        text: Vec::new(),
        depth: 0,
        most_depth: setting(stack, DECODE_DEPTH),
        invalid_numbers: setting(stack, DECODE_INVALID) != 0,
    };
    let token = reader.next();
    reader.value(stack, token)?;
    match reader.next() {
        Token::End => Ok(1),
        other => Err(reader.unexpected(stack, "the end", &other)),
    }
}

impl Reader {
    /// The byte at a distance; 0 beyond the end.
    fn byte(&self, ahead: usize) -> u8 {
        self.data.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn unexpected(&self, stack: &mut Stack, expected: &str, found: &Token) -> Raise {
        let (found, at) = (found.name(), self.token_at + 1);
        fail(
            stack,
            format!("Expected {expected} but found {found} at character {at}"),
        )
    }

    fn fault(&mut self, text: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(text)
    }

    fn next(&mut self) -> Token {
        while matches!(self.byte(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let token = match self.byte(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            0 => return Token::End,
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => {
                if !self.invalid_numbers && self.is_invalid_number() {
                    return self.fault("invalid number");
                }
                return self.number();
            }
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+' => return self.word(),
            _ => return self.fault("invalid token"),
        };
        self.at += 1;
        token
    }

    fn word(&mut self) -> Token {
        let rest = &self.data[self.at..];
        let (token, len) = if rest.starts_with(b"true") {
            (Token::Boolean(true), 4)
        } else if rest.starts_with(b"false") {
            (Token::Boolean(false), 5)
        } else if rest.starts_with(b"null") {
            (Token::Null, 4)
        } else if self.invalid_numbers && self.is_invalid_number() {
            return self.number();
        } else {
            return self.fault("invalid token");
        };
        self.at += len;
        token
    }

    /// True for numbers that are none in JSON, although C reads them.
    fn is_invalid_number(&self) -> bool {
        if self.byte(0) == b'+' {
            return true;
        }
        let sign = usize::from(self.byte(0) == b'-');
        match self.byte(sign) {
            b'0' => {
                let second = self.byte(sign + 1);
                second | 0x20 == b'x' || second.is_ascii_digit()
            }
            0..=b'9' => false,
            _ => {
                let word = [0, 1, 2].map(|i| self.byte(sign + i).to_ascii_lowercase());
                word == *b"inf" || word == *b"nan"
            }
        }
    }

    fn number(&mut self) -> Token {
        match strtod(&self.data[self.at..]) {
            (_, 0) => self.fault("invalid number"),
            (value, len) => {
                self.at += len;
                Token::Number(value)
            }
        }
    }

    fn string(&mut self) -> Token {
        self.at += 1;
        self.text.clear();
        loop {
            let byte = match self.byte(0) {
                b'"' => break,
                0 => return self.fault("unexpected end of string"),
                b'\\' => {
                    let byte = match self.byte(1) {
                        escaped @ (b'"' | b'\\' | b'/') => escaped,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        b'u' => match self.unicode() {
                            true => continue,
                            false => return self.fault("invalid unicode escape code"),
                        },
                        _ => return self.fault("invalid escape code"),
                    };
                    self.at += 1;
                    byte
                }
                byte => byte,
            };
            self.text.push(byte);
            self.at += 1;
        }
        self.at += 1;
        Token::String
    }

    fn hex(&self, ahead: usize) -> Option<u32> {
        let digits = [0, 1, 2, 3].map(|i| char::from(self.byte(ahead + i)).to_digit(16));
        let mut value = 0;
        for digit in digits {
            value = value << 4 | digit?;
        }
        Some(value)
    }

    /// Reads an escape of four digits, or of two times four; false when it is none.
    fn unicode(&mut self) -> bool {
        let Some(mut code) = self.hex(2) else {
            return false;
        };
        let mut len = 6;
        if code & 0xf800 == 0xd800 {
            if code & 0x400 != 0 || self.byte(6) != b'\\' || self.byte(7) != b'u' {
                return false;
            }
            let Some(low) = self.hex(8).filter(|low| low & 0xfc00 == 0xdc00) else {
                return false;
            };
            code = ((code & 0x3ff) << 10 | low & 0x3ff) + 0x1_0000;
            len = 12;
        }
        let Some(character) = char::from_u32(code) else {
            return false;
        };
        let mut utf8 = [0; 4];
        let utf8 = character.encode_utf8(&mut utf8).as_bytes();
        self.text.extend_from_slice(utf8);
        self.at += len;
        true
    }

    fn descend(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.depth += 1;
        if self.depth <= self.most_depth && self.depth <= DEEPEST && stack.reserve(4) {
            return Ok(());
        }
        let (depth, at) = (self.depth, self.at);
        Err(fail(
            stack,
            format!("Found too many nested data structures ({depth}) at character {at}"),
        ))
    }

    /// Pushes the value that begins with a token.
    fn value(&mut self, stack: &mut Stack, token: Token) -> Result<(), Raise> {
        match token {
            Token::String => stack.push(&self.text),
            Token::Number(value) => stack.push_number(value),
            Token::Boolean(value) => stack.push_bool(value),
            Token::Null => stack.push_null(),
            Token::ObjectBegin => return self.object(stack),
            Token::ArrayBegin => return self.array(stack),
            other => return Err(self.unexpected(stack, "value", &other)),
        }
        Ok(())
    }

    fn object(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.descend(stack)?;
        stack.push_table(0, 0);
        let table = stack.top();
        let mut token = self.next();
        if matches!(token, Token::ObjectEnd) {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            if !matches!(token, Token::String) {
                return Err(self.unexpected(stack, "object key string", &token));
            }
            stack.push(&self.text);
            match self.next() {
                Token::Colon => {}
                other => return Err(self.unexpected(stack, "colon", &other)),
            }
            token = self.next();
            self.value(stack, token)?;
            stack.set(table);
            match self.next() {
                Token::ObjectEnd => break,
                Token::Comma => token = self.next(),
                other => return Err(self.unexpected(stack, "comma or object end", &other)),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.descend(stack)?;
        stack.push_table(0, 0);
        let table = stack.top();
        let mut token = self.next();
        if matches!(token, Token::ArrayEnd) {
            self.depth -= 1;
            return Ok(());
        }
        let mut index = 1;
        loop {
            self.value(stack, token)?;
            stack.set_index(table, index);
            index += 1;
            match self.next() {
                Token::ArrayEnd => break,
                Token::Comma => token = self.next(),
                other => return Err(self.unexpected(stack, "comma or array end", &other)),
            }
        }
        self.depth -= 1;
        Ok(())
    }
}
