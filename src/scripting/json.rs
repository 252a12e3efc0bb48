//! `cjson`: its settings, and values as JSON text. Reading is in [`super::json_read`].

use super::args::{bad_argument, fail, integer};
use super::json_read;
use super::json_settings::{
    DECODE_DEPTH, DECODE_INVALID, DEFAULTS, ENCODE_DEPTH, ENCODE_INVALID, KEEP_BUFFER, PRECISION,
    SPARSE_CONVERT, SPARSE_RATIO, SPARSE_SAFE, set_setting, setting,
};
use super::lua::{Body, Kind, Outcome, Raise, Stack};
use crate::base::number::format_g;

/// The functions of the library; the table of settings is their upvalue.
const FUNCTIONS: &[(&str, Body)] = &[
    ("encode", encode),
    ("decode", json_read::decode),
    ("encode_sparse_array", sparse_array),
    ("encode_max_depth", |stack| {
        number_setting(stack, ENCODE_DEPTH, i32::MAX)
    }),
    ("decode_max_depth", |stack| {
        number_setting(stack, DECODE_DEPTH, i32::MAX)
    }),
    ("encode_number_precision", |stack| {
        number_setting(stack, PRECISION, 14)
    }),
    ("encode_keep_buffer", |stack| {
        word_setting(stack, KEEP_BUFFER, OFF_ON)
    }),
    ("encode_invalid_numbers", |stack| {
        word_setting(stack, ENCODE_INVALID, &["off", "on", "null"])
    }),
    ("decode_invalid_numbers", |stack| {
        word_setting(stack, DECODE_INVALID, OFF_ON)
    }),
    ("new", new),
];

const OFF_ON: &[&str] = &["off", "on"];

/// Pushes the library's table, with settings of its own.
pub fn new(stack: &mut Stack) -> Outcome {
    stack.reserve(6);
    stack.push_table(0, FUNCTIONS.len() + 3);
    let library = stack.top();
    stack.push_table(DEFAULTS.len(), 0);
    for (index, value) in DEFAULTS.iter().enumerate() {
        stack.push_number(f64::from(*value));
        stack.set_index(-2, index as i32 + 1);
    }
    for (name, body) in FUNCTIONS {
        stack.push_copy(library + 1);
        stack.push_closure(*body, 1);
        stack.set_field(library, name);
    }
    stack.pop(1);
    stack.push_null();
    stack.set_field(library, "null");
    for (name, text) in [("_NAME", "cjson"), ("_VERSION", "2.1.0")] {
        stack.push(text.as_bytes());
        stack.set_field(library, name);
    }
    Ok(1)
}

/// Pads the arguments to as many as there may be.
fn settings_arguments(stack: &mut Stack, most: i32) -> Result<(), Raise> {
    if stack.top() > most {
        return Err(bad_argument(stack, most + 1, "found too many arguments"));
    }
    stack.set_top(most);
    stack.reserve(8);
    Ok(())
}

fn set_number(
    stack: &mut Stack,
    argument: i32,
    at: i32,
    (least, most): (i32, i32),
) -> Result<(), Raise> {
    if stack.kind(argument) != Kind::Nil {
        let value = integer(stack, argument)? as i32;
        if !(least..=most).contains(&value) {
            let reason = format!("expected integer between {least} and {most}");
            return Err(bad_argument(stack, 1, &reason));
        }
        set_setting(stack, at, value);
    }
    let value = setting(stack, at);
    stack.push_number(f64::from(value));
    Ok(())
}

fn set_word(stack: &mut Stack, argument: i32, at: i32, words: &[&str]) -> Result<(), Raise> {
    match stack.kind(argument) {
        Kind::Nil => {}
        Kind::Boolean => {
            let on = stack.truth(argument);
            set_setting(stack, at, on.into());
        }
        _ => {
            let word = super::args::string(stack, argument)?.to_vec();
            let chosen = words.iter().position(|w| w.as_bytes() == word);
            let Some(chosen) = chosen else {
                let word = String::from_utf8_lossy(&word).into_owned();
                let reason = format!("invalid option '{word}'");
                return Err(bad_argument(stack, argument, &reason));
            };
            set_setting(stack, at, chosen as i32);
        }
    }
    match setting(stack, at) {
        value @ (0 | 1) => stack.push_bool(value == 1),
        value => stack.push(words[value as usize].as_bytes()),
    }
    Ok(())
}

fn sparse_array(stack: &mut Stack) -> Outcome {
    settings_arguments(stack, 3)?;
    set_word(stack, 1, SPARSE_CONVERT, OFF_ON)?;
    set_number(stack, 2, SPARSE_RATIO, (0, i32::MAX))?;
    set_number(stack, 3, SPARSE_SAFE, (0, i32::MAX))?;
    Ok(3)
}

fn number_setting(stack: &mut Stack, at: i32, most: i32) -> Outcome {
    settings_arguments(stack, 1)?;
    set_number(stack, 1, at, (1, most))?;
    Ok(1)
}

fn word_setting(stack: &mut Stack, at: i32, words: &[&str]) -> Outcome {
    settings_arguments(stack, 1)?;
    set_word(stack, 1, at, words)?;
    Ok(1)
}

/// A text that is being written, and what settings say about it.
struct Writer {
    out: Vec<u8>,
    sparse_convert: bool,
    sparse_ratio: i32,
    sparse_safe: i32,
    depth: i32,
    invalid: i32,
    precision: usize,
}

fn encode(stack: &mut Stack) -> Outcome {
    if stack.top() != 1 {
        return Err(bad_argument(stack, 1, "expected 1 argument"));
    }
    let mut writer = Writer {
        out: Vec::new(),
        sparse_convert: setting(stack, SPARSE_CONVERT) != 0,
        sparse_ratio: setting(stack, SPARSE_RATIO),
        sparse_safe: setting(stack, SPARSE_SAFE),
        depth: setting(stack, ENCODE_DEPTH),
        invalid: setting(stack, ENCODE_INVALID),
        precision: setting(stack, PRECISION) as usize,
    };
    writer.value(stack, 0)?;
    stack.push(&writer.out);
    Ok(1)
}

/// Tables deeper than this are refused whatever the settings say: Lua's own stack refuses them as well.
const DEEPEST: i32 = 2600;

impl Writer {
    /// Writes the value on top.
    fn value(&mut self, stack: &mut Stack, depth: i32) -> Result<(), Raise> {
        match stack.kind(-1) {
            Kind::String => self.string(stack.string(-1).unwrap_or_default()),
            Kind::Number => self.number(stack, -1)?,
            Kind::Boolean if stack.truth(-1) => self.out.extend_from_slice(b"true"),
            Kind::Boolean => self.out.extend_from_slice(b"false"),
            Kind::Table => {
                let depth = depth + 1;
                if depth > self.depth || depth > DEEPEST || !stack.reserve(5) {
                    let text = format!("Cannot serialise, excessive nesting ({depth})");
                    return Err(fail(stack, text));
                }
                match self.array_len(stack)? {
                    Some(len @ 1..) => self.array(stack, len, depth)?,
                    _ => self.object(stack, depth)?,
                }
            }
            Kind::Nil => self.out.extend_from_slice(b"null"),
            Kind::Light if stack.is_null(-1) => self.out.extend_from_slice(b"null"),
            _ => return Err(cannot(stack, -1, "type not supported")),
        }
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        let out = &mut self.out;
        out.reserve(text.len() + 2);
        out.push(b'"');
        for &byte in text {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'/' => out.extend_from_slice(b"\\/"),
                8 => out.extend_from_slice(b"\\b"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\n' => out.extend_from_slice(b"\\n"),
                12 => out.extend_from_slice(b"\\f"),
                b'\r' => out.extend_from_slice(b"\\r"),
                0..32 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => out.push(byte),
            }
        }
        out.push(b'"');
    }

    fn number(&mut self, stack: &mut Stack, index: i32) -> Result<(), Raise> {
        let value = stack.number(index);
        match (value.is_finite(), self.invalid) {
            (true, _) => {
                if value == 0.0 && value.is_sign_negative() {
                    self.out.extend_from_slice(b"-0");
                } else {
                    format_g(&mut self.out, value, self.precision);
                }
            }
            (false, 0) => return Err(cannot(stack, index, "must not be NaN or Inf")),
            (false, 1) if value.is_nan() => self.out.extend_from_slice(b"nan"),
            (false, 1) if value > 0.0 => self.out.extend_from_slice(b"inf"),
            (false, 1) => self.out.extend_from_slice(b"-inf"),
            (false, _) => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    /// The length of the table on top as an array; `None` for an object.
    fn array_len(&self, stack: &mut Stack) -> Result<Option<i32>, Raise> {
        let table = stack.top();
        let (mut greatest, mut items) = (0.0f64, 0.0f64);
        stack.push_nil();
        while stack.next(table) {
            let key = stack.number(-2);
            if stack.kind(-2) != Kind::Number || key.floor() != key || key < 1.0 {
                stack.pop(2);
                return Ok(None);
            }
            greatest = greatest.max(key);
            items += 1.0;
            stack.pop(1);
        }
        let is_sparse = self.sparse_ratio > 0
            && greatest > items * f64::from(self.sparse_ratio)
            && greatest > f64::from(self.sparse_safe);
        if is_sparse {
            if !self.sparse_convert {
                return Err(cannot(stack, -1, "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(greatest as i32))
    }

    fn array(&mut self, stack: &mut Stack, len: i32, depth: i32) -> Result<(), Raise> {
        let table = stack.top();
        self.out.push(b'[');
        for index in 1..=len {
            if index > 1 {
                self.out.push(b',');
            }
            stack.get_index(table, index);
            self.value(stack, depth)?;
            stack.pop(1);
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, stack: &mut Stack, depth: i32) -> Result<(), Raise> {
        let (table, mut is_first) = (stack.top(), true);
        self.out.push(b'{');
        stack.push_nil();
        while stack.next(table) {
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            match stack.kind(-2) {
                Kind::Number => {
                    self.out.push(b'"');
                    self.number(stack, -2)?;
                    self.out.extend_from_slice(b"\":");
                }
                Kind::String => {
                    self.string(stack.string(-2).unwrap_or_default());
                    self.out.push(b':');
                }
                _ => return Err(cannot(stack, -2, "table key must be a number or string")),
            }
            self.value(stack, depth)?;
            stack.pop(1);
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn cannot(stack: &mut Stack, index: i32, reason: &str) -> Raise {
    let text = format!("Cannot serialise {}: {reason}", stack.kind_name(index));
    fail(stack, text)
}
