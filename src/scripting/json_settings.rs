//! The settings of `cjson`: a table of numbers, the upvalue of the library's functions.

use super::lua::Stack;

// Where each setting stands in the table.
/// Arrays with great gaps become objects.
pub const SPARSE_CONVERT: i32 = 1;
/// From which ratio of gaps on.
pub const SPARSE_RATIO: i32 = 2;
/// Up to which index they stay arrays.
pub const SPARSE_SAFE: i32 = 3;
/// How deep tables may be that are written.
pub const ENCODE_DEPTH: i32 = 4;
/// How deep a text may be.
pub const DECODE_DEPTH: i32 = 5;
/// What becomes of infinities.
pub const ENCODE_INVALID: i32 = 6;
/// Numbers may be read that are none in JSON.
pub const DECODE_INVALID: i32 = 7;
/// Means nothing here.
pub const KEEP_BUFFER: i32 = 8;
/// Digits of numbers.
pub const PRECISION: i32 = 9;

/// Their defaults, in that order.
pub const DEFAULTS: [i32; 9] = [0, 2, 10, 1000, 1000, 0, 1, 1, 14];

/// A setting of the running function's library.
pub fn setting(stack: &mut Stack, index: i32) -> i32 {
    stack.reserve(2);
    stack.push_upvalue(1);
    stack.get_index(-1, index);
    let value = stack.integer(-1) as i32;
    stack.pop(2);
    value
}

/// Changes a setting.
pub fn set_setting(stack: &mut Stack, index: i32, value: i32) {
    stack.push_upvalue(1);
    stack.push_number(f64::from(value));
    stack.set_index(-2, index);
    stack.pop(1);
}
