//! `bit`: operations on the 32 lowest bits of numbers.

use super::args::bad_kind;
use super::lua::{Body, Kind, Outcome, Raise, Stack};

/// The functions of the library.
pub const FUNCTIONS: &[(&str, Body)] = &[
    ("tobit", |stack| unary(stack, |bits| bits)),
    ("bnot", |stack| unary(stack, |bits| !bits)),
    ("bswap", |stack| unary(stack, u32::swap_bytes)),
    ("band", |stack| fold(stack, |a, b| a & b)),
    ("bor", |stack| fold(stack, |a, b| a | b)),
    ("bxor", |stack| fold(stack, |a, b| a ^ b)),
    ("lshift", |stack| shift(stack, |bits, by| bits << by)),
    ("rshift", |stack| shift(stack, |bits, by| bits >> by)),
    ("arshift", |stack| {
        shift(stack, |bits, by| (bits as i32 >> by) as u32)
    }),
    ("rol", |stack| shift(stack, u32::rotate_left)),
    ("ror", |stack| shift(stack, u32::rotate_right)),
    ("tohex", to_hex),
];

/// The lowest 32 bits of an argument, rounded to an integer in the double's own arithmetic.
fn bits(stack: &mut Stack, argument: i32) -> Result<u32, Raise> {
    /// 2^52 + 2^51: added, it moves the integer to the mantissa's lowest bits.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let bits = (stack.number(argument) + MAGIC).to_bits() as u32;
    if bits == 0 && !stack.is_number(argument) {
        return Err(bad_kind(stack, argument, "number"));
    }
    Ok(bits)
}

fn result(stack: &mut Stack, bits: u32) -> Outcome {
    stack.push_number(f64::from(bits as i32));
    Ok(1)
}

fn unary(stack: &mut Stack, apply: fn(u32) -> u32) -> Outcome {
    let bits = bits(stack, 1)?;
    result(stack, apply(bits))
}

fn fold(stack: &mut Stack, apply: fn(u32, u32) -> u32) -> Outcome {
    let mut all = bits(stack, 1)?;
    for argument in (2..=stack.top()).rev() {
        all = apply(all, bits(stack, argument)?);
    }
    result(stack, all)
}

fn shift(stack: &mut Stack, apply: fn(u32, u32) -> u32) -> Outcome {
    let value = bits(stack, 1)?;
    let by = bits(stack, 2)? & 31;
    result(stack, apply(value, by))
}

fn to_hex(stack: &mut Stack) -> Outcome {
    let value = bits(stack, 1)?;
    let digits = match stack.kind(2) {
        Kind::None => 8,
        _ => bits(stack, 2)? as i32,
    };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = match digits < 0 {
        true => format!("{value:08X}"),
        false => format!("{value:08x}"),
    };
    stack.push(&text.as_bytes()[8 - count..]);
    Ok(1)
}
