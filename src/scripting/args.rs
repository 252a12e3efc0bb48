//! What functions of Lua's libraries do with their arguments, and the errors that they raise, worded as Lua's
//! own functions word them.

use super::lua::{Kind, Raise, Stack};

/// Where the function at a level of the calls is, as errors begin: `user_script:1: `; nothing when that is
/// not known.
pub fn place(stack: &mut Stack, level: i32) -> Vec<u8> {
    let Some(frame) = stack.frame(level).filter(|frame| frame.line > 0) else {
        return Vec::new();
    };
    let mut text = frame.short;
    text.extend_from_slice(format!(":{}: ", frame.line).as_bytes());
    text
}

/// Raises a text, with where the running function was called.
pub fn fail(stack: &mut Stack, text: impl AsRef<[u8]>) -> Raise {
    let mut full = place(stack, 1);
    full.extend_from_slice(text.as_ref());
    raise(stack, &full)
}

/// Raises a text as it is.
pub fn raise(stack: &mut Stack, text: &[u8]) -> Raise {
    stack.reserve(1);
    stack.push(text);
    Raise
}

/// Raises what is wrong with an argument.
pub fn bad_argument(stack: &mut Stack, argument: i32, reason: &str) -> Raise {
    let Some(frame) = stack.frame(0) else {
        return fail(stack, format!("bad argument #{argument} ({reason})"));
    };
    let name = match frame.name.is_empty() {
        true => "?".into(),
        false => String::from_utf8_lossy(&frame.name).into_owned(),
    };
    let text = match (frame.is_method, argument) {
        (true, 1) => format!("calling '{name}' on bad self ({reason})"),
        (true, _) => format!("bad argument #{} to '{name}' ({reason})", argument - 1),
        (false, _) => format!("bad argument #{argument} to '{name}' ({reason})"),
    };
    fail(stack, text)
}

/// Raises that an argument is of the wrong kind.
pub fn bad_kind(stack: &mut Stack, argument: i32, expected: &str) -> Raise {
    let reason = format!("{expected} expected, got {}", stack.kind_name(argument));
    bad_argument(stack, argument, &reason)
}

/// An argument that is a number.
pub fn number(stack: &mut Stack, argument: i32) -> Result<f64, Raise> {
    let value = stack.number(argument);
    if value == 0.0 && !stack.is_number(argument) {
        return Err(bad_kind(stack, argument, "number"));
    }
    Ok(value)
}

/// As [`number`], as an integer.
pub fn integer(stack: &mut Stack, argument: i32) -> Result<i64, Raise> {
    let value = stack.integer(argument);
    if value == 0 && !stack.is_number(argument) {
        return Err(bad_kind(stack, argument, "number"));
    }
    Ok(value)
}

/// As [`integer`], with what is meant when the argument is missing.
pub fn integer_or(stack: &mut Stack, argument: i32, default: i64) -> Result<i64, Raise> {
    match stack.kind(argument) {
        Kind::None | Kind::Nil => Ok(default),
        _ => integer(stack, argument),
    }
}

/// An argument that is a string, or a number, which becomes one.
pub fn string(stack: &mut Stack, argument: i32) -> Result<&[u8], Raise> {
    let is_one = stack.kind(argument) != Kind::None && stack.coerce(argument);
    if !is_one {
        return Err(bad_kind(stack, argument, "string"));
    }
    Ok(stack.string(argument).unwrap_or_default())
}

/// A number as C makes a 64-bit integer of it on this kind of processor: the least one when it does not fit.
pub fn to_i64(value: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match (-LIMIT..LIMIT).contains(&value) {
        true => value as i64,
        false => i64::MIN,
    }
}
