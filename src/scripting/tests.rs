//! Interpreters by themselves, without a server: what they must survive, and that they can be ended.

use super::sandbox::Purpose;
use super::vm::{Ran, Vm};
use super::world::Host;
use crate::dispatch::threads::STACK;
use crate::resp::write::{Output, Protocol};
use crate::scripts::Script;

/// A server that knows no command, and has its script end after some looks.
struct Nowhere {
    looks: u32,
    patience: u32,
}

impl Host for Nowhere {
    fn call(&mut self, _: &[&[u8]], _: &mut dyn FnMut(&[u8])) -> Result<(), Vec<u8>> {
        Err(b"ERR Unknown Redis command called from script".to_vec())
    }

    fn protocol(&self) -> Protocol {
        Protocol::Resp2
    }

    fn set_protocol(&mut self, _: Protocol) {}

    fn set_audience(&mut self, _: u8) {}

    fn may_call(&mut self, _: &[&[u8]]) -> Option<bool> {
        None
    }

    fn look(&mut self) -> bool {
        self.looks += 1;
        self.ends()
    }

    fn ends(&self) -> bool {
        self.looks >= self.patience
    }
}

/// The reply of a script, or what it raised, which is ended after so many looks.
fn run_in(vm: &mut Vm, source: &str, patience: u32) -> String {
    let script = Script::new(source.as_bytes()).expect("a sound first line");
    let function = match vm.compile(&script) {
        Ok(function) => function,
        Err(text) => return String::from_utf8_lossy(&text).into_owned(),
    };
    let (mut host, mut out) = (Nowhere { looks: 0, patience }, Output::new());
    match vm.run_script(function, (&[], &[]), &mut host, &mut out) {
        Ran::Returned(_) => String::from_utf8_lossy(&out.to_vec()).into_owned(),
        Ran::Raised(failure) => String::from_utf8_lossy(&failure.text).into_owned(),
    }
}

fn run(source: &str) -> String {
    let mut vm = Vm::new(Purpose::Eval, false);
    vm.limit(64 << 20);
    run_in(&mut vm, source, u32::MAX)
}

/// Runs `work` on a stack as threads have it that run scripts.
fn as_a_worker(work: fn()) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    let ended = thread.expect("a thread starts").join();
    ended.expect("the checks hold");
}

#[test]
fn known_traps_are_errors() {
    as_a_worker(traps);
}

fn traps() {
    let check = |source: &str, expected: &str| {
        let got = run(source);
        assert!(got.contains(expected), "{source}: {got}");
    };
    check(
        "return unpack({}, -2147483648, 2147483647)",
        "too many results to unpack",
    );
    check(
        "return unpack({}, 0, 2147483647)",
        "too many results to unpack",
    );
    check(
        "return unpack({}, 1, 7000000)",
        "too many results to unpack",
    );
    check("return bit.tohex(65535, -2147483648)", "0000FFFF");
    check(
        "return struct.pack('i4294967296', 1)",
        "integral size overflow",
    );
    check("return struct.unpack('c0', 'x')", "needs a previous size");
    check(
        "return struct.unpack('i4', 'x', 9223372036854775807)",
        "data string too short",
    );
    check(
        "return cjson.decode(string.rep('[', 100000))",
        "too many nested",
    );
    check(
        "local c = cjson.new() c.decode_max_depth(2000000000) return c.decode(string.rep('[', 100000))",
        "too many nested",
    );
    check(
        "local t = {} t.t = t local c = cjson.new() c.encode_max_depth(2000000000) return c.encode(t)",
        "excessive nesting",
    );
    check(
        "return cmsgpack.unpack(string.rep(string.char(0x91), 100000))",
        "stack overflow",
    );
    check(
        "return cmsgpack.unpack(string.rep(string.char(0x81, 1), 100000))",
        "stack overflow",
    );
    check("local t = {} t[1] = t return t", "reached lua stack limit");
    check(
        "local function f() return 1 + f() end return f()",
        "stack overflow",
    );
    check("return string.rep('x', 2000000000)", "not enough memory");
    check(
        "local t = {} while true do t[#t + 1] = string.rep('x', 1000000) .. #t end",
        "not enough memory",
    );
    check(
        "return string.match(string.rep('a', 50000), string.rep('a?', 50000) .. 'b')",
        "pattern too complex",
    );
    check("return loadstring('\\27Lua') == nil", ":1");
    check("return load(function() return '\\27Lua' end)", "$-1");
}

#[test]
fn the_compiler_keeps_what_it_needs() {
    // Names of chunks that nothing else holds, while there is garbage.
    let got = run("local n = 0 \
         for i = 1, 20000 do \
           local f = loadstring('return ' .. i, string.rep('name' .. i, 20)) \
           n = n + f() \
         end \
         return n");
    assert_eq!(got, ":200010000\r\n");
}

#[test]
fn every_script_can_be_ended() {
    for source in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() end) end",
        "local f f = function() while true do pcall(f) end end f()",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "local c = coroutine.create(function() while true do pcall(function() while true do end end) end end) \
         while true do coroutine.resume(c) end",
        "return string.find(string.rep('a', 40), string.rep('a-', 30) .. 'b')",
        "while true do pcall(string.find, string.rep('a', 40), string.rep('a-', 30) .. 'b') end",
        "return setmetatable({}, {__index = function() while true do end end}).x",
        "table.sort({1, 2, 3}, function() while true do end end)",
        "return string.gsub('abc', '.', function() while true do end end)",
        "return loadstring('while true do end')()",
        "return load(function() while true do end end)",
    ] {
        let mut vm = Vm::new(Purpose::Eval, false);
        let got = run_in(&mut vm, source, 20);
        assert!(
            got.contains("Script killed by user with SCRIPT KILL"),
            "{source}: {got}"
        );
        // And the interpreter goes on.
        assert_eq!(run_in(&mut vm, "return 1", u32::MAX), ":1\r\n");
    }
}

#[test]
fn what_scripts_share_stays_as_it_is() {
    let mut vm = Vm::new(Purpose::Eval, true);
    let mut run = |source: &str| run_in(&mut vm, source, u32::MAX);
    for source in [
        "redis.call = 1",
        "rawset(redis, 'call', 1)",
        "rawset(_G, 'x', 1)",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = 1",
        "getmetatable('').__index = 1",
        "getmetatable('').__index.rep = 1",
        "string.rep = 1",
        "_G.x = 1",
        "x = 1",
        "table.insert = nil",
        "coroutine.wrap = nil",
        "cjson.null = 1",
        "setmetatable(string, nil)",
    ] {
        let got = run(source);
        assert!(
            got.contains("Attempt to modify a readonly table"),
            "{source}: {got}"
        );
    }
    // What is handed out is a copy.
    run("local _, t = pairs(redis) t.call = nil");
    run("local p = newproxy(true) getmetatable(p).__gc = function() error('gc') end");
    run("collectgarbage()");
    assert_eq!(
        run("return type(redis.call) .. ('x'):rep(2)"),
        "$10\r\nfunctionxx\r\n"
    );
}

#[test]
fn libraries_register_functions_in_time() {
    let mut vm = Vm::new(Purpose::Functions, false);
    let within = Some(std::time::Duration::from_millis(50));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut load = |code: &str| {
        let loaded = vm.load(code.as_bytes(), within);
        loaded.map(|functions| functions.len()).map_err(text)
    };
    let one = "redis.register_function('a', function() end)";
    let two = "redis.register_function('a', print)";
    assert_eq!(load(one), Ok(1));
    assert!(load(two).expect_err("print is not there").contains("print"));
    assert_eq!(
        load("while true do end"),
        Err("Error registering functions: ERR FUNCTION LOAD timeout".to_owned())
    );
    assert_eq!(load(one), Ok(1));
}
