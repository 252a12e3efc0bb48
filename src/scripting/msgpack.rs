//! `cmsgpack`: values as MessagePack.

use super::args::{bad_argument, fail, integer, integer_or, raise, string};
use super::lua::{Body, Kind, Outcome, Raise, Stack};

/// The functions of the library.
pub const FUNCTIONS: &[(&str, Body)] = &[
    ("pack", pack),
    ("unpack", unpack),
    ("unpack_one", unpack_one),
    ("unpack_limit", unpack_limit),
];

/// What the library says of itself.
pub const TEXTS: &[(&str, &str)] = &[
    ("_NAME", "cmsgpack"),
    ("_VERSION", "lua-cmsgpack 0.4.0"),
    ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
    ("_DESCRIPTION", "MessagePack C implementation for Lua"),
];

/// Tables within so many others become nil.
const DEEPEST: usize = 16;
/// Tables within so many others are not made when they are read: Lua's own stack is the limit of the
/// original, and this is below it.
const DEEPEST_READ: usize = 2000;

fn pack(stack: &mut Stack) -> Outcome {
    let count = stack.top();
    if count == 0 {
        return Err(bad_argument(stack, 0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for argument in 1..=count {
        if !stack.reserve(2) {
            return Err(bad_argument(
                stack,
                0,
                "Too many arguments for MessagePack pack.",
            ));
        }
        stack.push_copy(argument);
        write(stack, &mut out, 0)?;
    }
    stack.push(&out);
    Ok(1)
}

/// Writes the value on top and takes it away.
fn write(stack: &mut Stack, out: &mut Vec<u8>, depth: usize) -> Result<(), Raise> {
    match stack.kind(-1) {
        Kind::String => write_string(out, stack.string(-1).unwrap_or_default()),
        Kind::Boolean => out.push(if stack.truth(-1) { 0xc3 } else { 0xc2 }),
        Kind::Number => write_number(out, stack.number(-1)),
        Kind::Table if depth < DEEPEST => {
            if !stack.reserve(4) {
                return Err(fail(stack, "stack overflow (in function mp_encode)"));
            }
            match is_array(stack) {
                true => write_array(stack, out, depth)?,
                false => write_map(stack, out, depth)?,
            }
        }
        _ => out.push(0xc0),
    }
    stack.pop(1);
    Ok(())
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    let len = text.len();
    match len {
        0..32 => out.push(0xa0 | len as u8),
        32..0x100 => out.extend([0xd9, len as u8]),
        0x100..0x1_0000 => {
            out.push(0xda);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend((len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn write_number(out: &mut Vec<u8>, value: f64) {
    let is_integer = value.is_finite()
        && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value)
        && value.trunc() == value;
    if is_integer {
        return write_integer(out, value as i64);
    }
    let short = value as f32;
    if f64::from(short) == value {
        out.push(0xca);
        out.extend(short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(value.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    match value {
        -32..=127 => out.push(value as u8),
        128..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((value as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
        -128..=-33 => out.extend([0xd0, value as u8]),
        -32768..=-129 => {
            out.push(0xd1);
            out.extend((value as i16).to_be_bytes());
        }
        -0x8000_0000..=-32769 => {
            out.push(0xd2);
            out.extend((value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
    }
}

/// True when the keys of the table on top are the numbers from 1 to their count.
fn is_array(stack: &mut Stack) -> bool {
    let top = stack.top();
    let (mut count, mut greatest) = (0i64, 0i64);
    stack.push_nil();
    while stack.next(top) {
        stack.pop(1);
        let key = stack.number(-1);
        let is_index = stack.kind(-1) == Kind::Number
            && key > 0.0
            && key <= f64::from(i32::MAX)
            && key.trunc() == key;
        if !is_index {
            stack.set_top(top);
            return false;
        }
        greatest = greatest.max(key as i64);
        count += 1;
    }
    greatest == count
}

fn write_array(stack: &mut Stack, out: &mut Vec<u8>, depth: usize) -> Result<(), Raise> {
    let (table, len) = (stack.top(), stack.len(-1));
    match len {
        0..16 => out.push(0x90 | len as u8),
        16..0x1_0000 => {
            out.push(0xdc);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdd);
            out.extend((len as u32).to_be_bytes());
        }
    }
    for index in 1..=len {
        stack.get_index(table, index as i32);
        write(stack, out, depth + 1)?;
    }
    Ok(())
}

fn write_map(stack: &mut Stack, out: &mut Vec<u8>, depth: usize) -> Result<(), Raise> {
    let table = stack.top();
    let mut len = 0usize;
    stack.push_nil();
    while stack.next(table) {
        stack.pop(1);
        len += 1;
    }
    match len {
        0..16 => out.push(0x80 | len as u8),
        16..0x1_0000 => {
            out.push(0xde);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdf);
            out.extend((len as u32).to_be_bytes());
        }
    }
    stack.push_nil();
    while stack.next(table) {
        stack.push_copy(-2);
        write(stack, out, depth + 1)?;
        write(stack, out, depth + 1)?;
    }
    Ok(())
}

/// Why bytes cannot be read.
enum Fault {
    /// They end too early.
    Missing,
    /// They are not MessagePack.
    Bad,
    /// A key that none may be.
    Key(&'static str),
    /// Lua's stack is full.
    Full(&'static str),
}

/// Bytes that are being read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Fault::Missing)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Fault::Missing)
    }

    fn value(&mut self, stack: &mut Stack, depth: usize) -> Result<(), Fault> {
        if !stack.reserve(4) {
            return Err(Fault::Full(
                "too many return values at once; use unpack_one or unpack_limit instead.",
            ));
        }
        let [first] = self.array()?;
        let number = match first {
            0..=0x7f => f64::from(first),
            0xe0..=0xff => f64::from(first as i8),
            0xcc => f64::from(self.array::<1>()?[0]),
            0xcd => f64::from(u16::from_be_bytes(self.array()?)),
            0xce => f64::from(u32::from_be_bytes(self.array()?)),
            // As the original, which takes it for an integer with a sign.
            0xcf | 0xd3 => i64::from_be_bytes(self.array()?) as f64,
            0xd0 => f64::from(self.array::<1>()?[0] as i8),
            0xd1 => f64::from(i16::from_be_bytes(self.array()?)),
            0xd2 => f64::from(i32::from_be_bytes(self.array()?)),
            0xca => f64::from(f32::from_be_bytes(self.array()?)),
            0xcb => f64::from_be_bytes(self.array()?),
            _ => return self.other(stack, first, depth),
        };
        stack.push_number(number);
        Ok(())
    }

    fn other(&mut self, stack: &mut Stack, first: u8, depth: usize) -> Result<(), Fault> {
        let low = usize::from(first & 0xf);
        match first {
            0xc0 => stack.push_nil(),
            0xc2 | 0xc3 => stack.push_bool(first == 0xc3),
            0xa0..=0xbf => stack.push(self.take(usize::from(first & 0x1f))?),
            0xd9 => {
                let len = usize::from(self.array::<1>()?[0]);
                stack.push(self.take(len)?);
            }
            0xda => {
                let len = u16::from_be_bytes(self.array()?);
                stack.push(self.take(len.into())?);
            }
            0xdb => {
                let len = u32::from_be_bytes(self.array()?);
                stack.push(self.take(len as usize)?);
            }
            0x90..=0x9f => self.list(stack, low, depth)?,
            0x80..=0x8f => self.map(stack, low, depth)?,
            0xdc => {
                let len = u16::from_be_bytes(self.array()?);
                self.list(stack, len.into(), depth)?;
            }
            0xdd => {
                let len = u32::from_be_bytes(self.array()?);
                self.list(stack, len as usize, depth)?;
            }
            0xde => {
                let len = u16::from_be_bytes(self.array()?);
                self.map(stack, len.into(), depth)?;
            }
            0xdf => {
                let len = u32::from_be_bytes(self.array()?);
                self.map(stack, len as usize, depth)?;
            }
            _ => return Err(Fault::Bad),
        }
        Ok(())
    }

    fn list(&mut self, stack: &mut Stack, len: usize, depth: usize) -> Result<(), Fault> {
        if depth >= DEEPEST_READ {
            return Err(Fault::Full("in function mp_decode_to_lua_array"));
        }
        stack.push_table(0, 0);
        let table = stack.top();
        for index in 1..=len {
            self.value(stack, depth + 1)?;
            stack.set_index(table, index as i32);
        }
        Ok(())
    }

    fn map(&mut self, stack: &mut Stack, len: usize, depth: usize) -> Result<(), Fault> {
        if depth >= DEEPEST_READ {
            return Err(Fault::Full("in function mp_decode_to_lua_hash"));
        }
        stack.push_table(0, 0);
        let table = stack.top();
        for _ in 0..len {
            self.value(stack, depth + 1)?;
            let is_nil = stack.kind(-1) == Kind::Nil;
            self.value(stack, depth + 1)?;
            if !stack.set(table) {
                return Err(Fault::Key(match is_nil {
                    true => "table index is nil",
                    false => "table index is NaN",
                }));
            }
        }
        Ok(())
    }
}

fn unpack(stack: &mut Stack) -> Outcome {
    unpack_some(stack, 0, 0)
}

fn unpack_one(stack: &mut Stack) -> Outcome {
    let offset = integer_or(stack, 2, 0)?;
    stack.set_top(1);
    unpack_some(stack, 1, offset)
}

fn unpack_limit(stack: &mut Stack) -> Outcome {
    let limit = integer(stack, 2)?;
    let offset = integer_or(stack, 3, 0)?;
    stack.set_top(1);
    unpack_some(stack, limit, offset)
}

fn unpack_some(stack: &mut Stack, limit: i64, offset: i64) -> Outcome {
    let data = string(stack, 1)?.to_vec();
    let len = data.len();
    let all = limit == 0 && offset == 0;
    if offset < 0 || limit < 0 {
        let (offset, len) = (offset as i32, len as i32);
        return Err(fail(
            stack,
            format!("Invalid request to unpack with offset of {offset} and limit of {len}."),
        ));
    }
    if offset as usize > len {
        let (offset, len) = (offset as i32, len as i32);
        return Err(fail(
            stack,
            format!("Start offset {offset} greater than input length {len}."),
        ));
    }
    let limit = if all { i64::from(i32::MAX) } else { limit };
    let mut cursor = Cursor(&data[offset as usize..]);
    let mut count = 0;
    let first = stack.top() + 1;
    while !cursor.0.is_empty() && count < limit {
        if let Err(fault) = cursor.value(stack, 0) {
            if let Fault::Key(text) = fault {
                stack.set_top(first - 1);
                return Err(raise(stack, text.as_bytes()));
            }
            let text = match fault {
                Fault::Missing => "Missing bytes in input.".to_owned(),
                Fault::Bad | Fault::Key(_) => "Bad data format in input.".to_owned(),
                Fault::Full(what) => format!("stack overflow ({what})"),
            };
            stack.set_top(first - 1);
            return Err(fail(stack, text));
        }
        count += 1;
    }
    if all {
        return Ok(count as i32);
    }
    let next = match cursor.0 {
        [] => -1.0,
        rest => (len - rest.len()) as f64,
    };
    stack.reserve(1);
    stack.push_number(next);
    stack.insert(first);
    Ok(count as i32 + 1)
}
