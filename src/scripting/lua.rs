//! The door to the Lua interpreter: its stack, seen from functions of ours that Lua calls.
//!
//! Lua is C. It raises errors by jumping over frames, and it keeps everything on a stack of its own that
//! functions index by numbers. This file makes of it what Rust can hold: a [`Stack`] whose methods take it
//! mutably where they may move or free what lies there, so that no slice of a string outlives it, and
//! bodies that return [`Raise`] instead of jumping.
//!
//! What makes the calls sound:
//!
//! - Lua calls nothing of ours but [`enter`] and the hook. `enter` runs a body, and jumps only when that
//!   has returned and nothing of Rust's is left in its frame.
//! - No method of [`Stack`] runs a metamethod: accesses are raw, but for [`Stack::call`], which is protected. So
//!   none jumps for an error of a script's.
//! - While a body runs, the allocator knows no limit ([`Memory`]), so none jumps for want of memory. Limits
//!   hold while Lua itself runs.
//! - Indices are checked against the stack's height; [`Stack::reserve`] makes room where a body needs more than
//!   the twenty places that Lua grants.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};

use mlua_sys as ffi;

use super::memory::{Memory, allocate};

/// A body failed; the error's value is on top of the stack.
#[derive(Debug)]
pub struct Raise;

/// How many results a body left on top of the stack.
pub type Outcome = Result<i32, Raise>;

/// A function of ours that Lua calls: its arguments are what is on the stack.
pub type Body = fn(&mut Stack) -> Outcome;

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: beyond the top.
    None,
    /// `nil`
    Nil,
    /// A truth value.
    Boolean,
    /// A pointer: cjson's null.
    Light,
    /// A number.
    Number,
    /// A string.
    String,
    /// A table.
    Table,
    /// A function.
    Function,
    /// An object.
    Userdata,
    /// A coroutine.
    Thread,
}

/// What is called every so many instructions of a script; an error ends it.
pub trait Watch {
    /// Looks at the running script. `Some`: an error with this text is raised at once, and at every line from
    /// there on, so that no script catches it for good.
    fn look(&mut self) -> Option<&'static str>;
}

/// An interpreter, with what belongs to it and to no script.
pub struct Interpreter<T: 'static> {
    state: NonNull<ffi::lua_State>,
    /// Boxed, and reached by the allocator as well.
    memory: NonNull<Memory>,
    /// Boxed, and reached from bodies by [`Stack::with_own`] as well.
    own: NonNull<T>,
}

/// Where the registry keeps the address of what belongs to the interpreter.
static OWN: u8 = 0;
/// Where it keeps the function that looks at a running script.
static LOOK: u8 = 0;

fn key(of: &'static u8) -> *mut c_void {
    std::ptr::from_ref(of).cast_mut().cast()
}

impl<T: Watch> Interpreter<T> {
    /// A fresh interpreter, without any library.
    pub fn new(own: T) -> Self {
        let memory = NonNull::from(Box::leak(Box::new(Memory {
            relaxed: true,
            ..Memory::default()
        })));
        let own = NonNull::from(Box::leak(Box::new(own)));
        // SAFETY: the memory is boxed and dropped after the state is closed.
        let state = unsafe { ffi::lua_newstate(allocate, memory.as_ptr().cast()) };
        let state = NonNull::new(state).expect("the allocator aborts rather than fail");
        let mut stack = Stack::of(state);
        stack.register(&OWN, own.as_ptr().cast());
        let look: fn(*mut c_void) -> Option<&'static str> = |own| {
            // SAFETY: the address was registered above, of this type, and lives as long as the state.
            unsafe { &mut *own.cast::<T>() }.look()
        };
        stack.register(&LOOK, look as *mut c_void);
        Self { state, memory, own }
    }
}

impl<T> Interpreter<T> {
    /// Its stack.
    pub fn stack(&mut self) -> Stack {
        Stack::of(self.state)
    }

    /// What belongs to it.
    pub fn own(&mut self) -> &mut T {
        // SAFETY: boxed in `new`; no body runs while the interpreter itself is borrowed here.
        unsafe { self.own.as_mut() }
    }

    fn memory(&mut self) -> &mut Memory {
        // SAFETY: boxed in `new`; Lua allocates nothing while the interpreter itself is borrowed here.
        unsafe { self.memory.as_mut() }
    }

    /// Bytes that it has allocated.
    pub fn used(&mut self) -> usize {
        self.memory().used
    }

    /// Limits what it may allocate while scripts run; 0: not at all.
    pub fn limit(&mut self, bytes: usize) {
        self.memory().limit = bytes;
    }
}

impl<T> Drop for Interpreter<T> {
    fn drop(&mut self) {
        self.memory().relaxed = true;
        // SAFETY: closed once; a full collection first, so that closing meets nothing that is in use. What
        // was boxed in `new` is freed once, behind all that reaches it.
        unsafe {
            ffi::lua_gc(self.state.as_ptr(), ffi::LUA_GCCOLLECT, 0);
            ffi::lua_close(self.state.as_ptr());
            drop(Box::from_raw(self.own.as_ptr()));
            drop(Box::from_raw(self.memory.as_ptr()));
        }
    }
}

/// Runs a body for Lua; the body's address is the first upvalue.
unsafe extern "C-unwind" fn enter(state: *mut ffi::lua_State) -> c_int {
    let raised = {
        // SAFETY: Lua calls with its state, and `push_closure` set the upvalue to a body's address.
        let (mut stack, body) = unsafe {
            let body = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1));
            let body: Body = std::mem::transmute::<*mut c_void, Body>(body);
            (Stack::of(NonNull::new_unchecked(state)), body)
        };
        let strict = stack.relax(true);
        let outcome = body(&mut stack);
        stack.relax(strict);
        match outcome {
            Ok(results) => return results,
            Err(raised) => raised,
        }
    };
    let Raise = raised;
    // SAFETY: nothing in this frame has a destructor any more; the error's value is on top.
    unsafe { ffi::lua_error(state) }
}

/// Lua's hook.
unsafe extern "C-unwind" fn hook(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    {
        // SAFETY: Lua calls with its state.
        let mut stack = Stack::of(unsafe { NonNull::new_unchecked(state) });
        let strict = stack.relax(true);
        let look = stack.registered(&LOOK);
        // SAFETY: `Interpreter::new` registered a function of this type.
        let look: fn(*mut c_void) -> Option<&'static str> = unsafe { std::mem::transmute(look) };
        let own = stack.registered(&OWN);
        let Some(text) = look(own) else {
            stack.relax(strict);
            return;
        };
        stack.watch_lines();
        stack.reserve(4);
        stack.push_error(text.as_bytes());
        stack.relax(strict);
    }
    // SAFETY: nothing in this frame has a destructor any more; the error's value is on top.
    unsafe { ffi::lua_error(state) }
}

/// The stack of the running function, or of the interpreter itself between scripts.
pub struct Stack {
    state: NonNull<ffi::lua_State>,
    /// Of one thread.
    _bound: PhantomData<*mut ()>,
}

impl Stack {
    fn of(state: NonNull<ffi::lua_State>) -> Self {
        Self {
            state,
            _bound: PhantomData,
        }
    }

    fn raw(&self) -> *mut ffi::lua_State {
        self.state.as_ptr()
    }

    fn memory(&mut self) -> &mut Memory {
        let mut ud = null_mut();
        // SAFETY: the state's allocator was set by `Interpreter::new`, with this argument.
        unsafe {
            ffi::lua_getallocf(self.raw(), &mut ud);
            &mut *ud.cast::<Memory>()
        }
    }

    /// Says whether the allocator refuses nothing; gives what was said before.
    fn relax(&mut self, relaxed: bool) -> bool {
        std::mem::replace(&mut self.memory().relaxed, relaxed)
    }

    fn register(&mut self, at: &'static u8, value: *mut c_void) {
        // SAFETY: two places are pushed and taken.
        unsafe {
            ffi::lua_pushlightuserdata(self.raw(), key(at));
            ffi::lua_pushlightuserdata(self.raw(), value);
            ffi::lua_rawset(self.raw(), ffi::LUA_REGISTRYINDEX);
        }
    }

    fn registered(&mut self, at: &'static u8) -> *mut c_void {
        // SAFETY: one place is pushed, replaced and taken.
        unsafe {
            ffi::lua_pushlightuserdata(self.raw(), key(at));
            ffi::lua_rawget_(self.raw(), ffi::LUA_REGISTRYINDEX);
            let value = ffi::lua_touserdata(self.raw(), -1);
            ffi::lua_settop(self.raw(), -2);
            value
        }
    }

    /// What belongs to the interpreter, a `T`, for `work`.
    ///
    /// The caller names the type with which the interpreter was made; there is one in this crate.
    pub(super) fn with_own<T: 'static, R>(
        &mut self,
        work: impl FnOnce(&mut T, &mut Stack) -> R,
    ) -> R {
        let own = self.registered(&OWN).cast::<T>();
        // SAFETY: boxed by the interpreter, which lives as long as its state; bodies do not nest but
        // through `Stack::call`, which `work` gets no chance to make with a second borrow of it.
        work(unsafe { &mut *own }, self)
    }

    /// Number of values.
    pub fn top(&self) -> i32 {
        // SAFETY: reads.
        unsafe { ffi::lua_gettop(self.raw()) }
    }

    /// An index that is in the stack, absolute, of one that may count from the top.
    fn at(&self, index: i32) -> i32 {
        let top = self.top();
        let at = if index < 0 { top + 1 + index } else { index };
        assert!((1..=top).contains(&at), "an index within the stack");
        at
    }

    /// Makes room for `more` values; false when there can be none.
    pub fn reserve(&mut self, more: i32) -> bool {
        // SAFETY: protected within; it never jumps.
        unsafe { ffi::lua_checkstack(self.raw(), more) != 0 }
    }

    /// Cuts or pads the stack.
    pub fn set_top(&mut self, top: i32) {
        assert!(top >= 0, "counted from the bottom");
        // SAFETY: Lua pads with nil within what was reserved.
        unsafe { ffi::lua_settop(self.raw(), top) }
    }

    /// Takes values away.
    pub fn pop(&mut self, count: i32) {
        let top = self.top();
        assert!((0..=top).contains(&count), "as many as there are");
        self.set_top(top - count);
    }

    /// The kind of a value; an index beyond the top is [`Kind::None`].
    pub fn kind(&self, index: i32) -> Kind {
        let index = if index < 0 { self.at(index) } else { index };
        // SAFETY: reads; indices beyond the top are allowed.
        match unsafe { ffi::lua_type(self.raw(), index) } {
            ffi::LUA_TNIL => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Kind::Light,
            ffi::LUA_TNUMBER => Kind::Number,
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            ffi::LUA_TFUNCTION => Kind::Function,
            ffi::LUA_TUSERDATA => Kind::Userdata,
            ffi::LUA_TTHREAD => Kind::Thread,
            _ => Kind::None,
        }
    }

    /// The name of a value's kind, as Lua's messages have it.
    pub fn kind_name(&self, index: i32) -> &'static str {
        match self.kind(index) {
            Kind::None => "no value",
            Kind::Nil => "nil",
            Kind::Boolean => "boolean",
            Kind::Light | Kind::Userdata => "userdata",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Table => "table",
            Kind::Function => "function",
            Kind::Thread => "thread",
        }
    }

    /// True for a number, or a string that reads as one.
    pub fn is_number(&self, index: i32) -> bool {
        // SAFETY: reads.
        unsafe { ffi::lua_isnumber(self.raw(), index) != 0 }
    }

    /// A number, or what a string reads as; 0 for anything else.
    pub fn number(&self, index: i32) -> f64 {
        // SAFETY: reads.
        unsafe { ffi::lua_tonumber(self.raw(), index) }
    }

    /// As [`Stack::number`], as Lua makes integers of numbers.
    pub fn integer(&self, index: i32) -> i64 {
        // SAFETY: reads.
        unsafe { ffi::lua_tointeger_(self.raw(), index) as i64 }
    }

    /// False for nil and false.
    pub fn truth(&self, index: i32) -> bool {
        // SAFETY: reads.
        unsafe { ffi::lua_toboolean(self.raw(), index) != 0 }
    }

    /// The bytes of a string.
    pub fn string(&self, index: i32) -> Option<&[u8]> {
        if self.kind(index) != Kind::String {
            return None;
        }
        let mut len = 0;
        // SAFETY: of a string that is on the stack this converts nothing; the borrow of the stack keeps it
        // there as long as the slice lives.
        unsafe {
            let bytes = ffi::lua_tolstring(self.raw(), index, &mut len);
            Some(std::slice::from_raw_parts(bytes.cast(), len))
        }
    }

    /// Makes a string of a number where it lies; true when it is a string then.
    pub fn coerce(&mut self, index: i32) -> bool {
        let index = self.at(index);
        let mut len = 0;
        // SAFETY: may allocate the string, which cannot fail while a body runs.
        !unsafe { ffi::lua_tolstring(self.raw(), index, &mut len) }.is_null()
    }

    /// The address of a table or function, to compare.
    pub fn address(&self, index: i32) -> usize {
        // SAFETY: reads.
        unsafe { ffi::lua_topointer(self.raw(), index) as usize }
    }

    /// True for a pointer to nothing: cjson's null.
    pub fn is_null(&self, index: i32) -> bool {
        // SAFETY: reads.
        self.kind(index) == Kind::Light
            && unsafe { ffi::lua_touserdata(self.raw(), index) }.is_null()
    }

    /// Length of a table's array, of a string.
    pub fn len(&self, index: i32) -> usize {
        // SAFETY: reads.
        unsafe { ffi::lua_objlen(self.raw(), index) }
    }

    /// Pushes nil.
    pub fn push_nil(&mut self) {
        // SAFETY: within what was reserved.
        unsafe { ffi::lua_pushnil(self.raw()) }
    }

    /// Pushes a truth value.
    pub fn push_bool(&mut self, value: bool) {
        // SAFETY: within what was reserved.
        unsafe { ffi::lua_pushboolean(self.raw(), value.into()) }
    }

    /// Pushes a number.
    pub fn push_number(&mut self, value: f64) {
        // SAFETY: within what was reserved.
        unsafe { ffi::lua_pushnumber(self.raw(), value) }
    }

    /// Pushes cjson's null.
    pub fn push_null(&mut self) {
        // SAFETY: within what was reserved.
        unsafe { ffi::lua_pushlightuserdata(self.raw(), null_mut()) }
    }

    /// Pushes a string.
    pub fn push(&mut self, bytes: &[u8]) {
        // SAFETY: Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.raw(), bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Pushes a copy of a value.
    pub fn push_copy(&mut self, index: i32) {
        let index = self.at(index);
        // SAFETY: the index is in the stack.
        unsafe { ffi::lua_pushvalue(self.raw(), index) }
    }

    /// Pushes an empty table with room.
    pub fn push_table(&mut self, values: usize, fields: usize) {
        let most = |n: usize| n.min(1 << 20) as c_int;
        // SAFETY: the allocation cannot fail while a body runs.
        unsafe { ffi::lua_createtable(self.raw(), most(values), most(fields)) }
    }

    /// Pushes an object that nothing is known of but its metatable: what stands for a table that scripts may read
    /// and not change.
    pub fn push_object(&mut self) {
        // SAFETY: the allocation cannot fail while a body runs.
        unsafe { ffi::lua_newuserdata(self.raw(), 0) };
    }

    /// Pushes a function of ours.
    pub fn push_body(&mut self, body: Body) {
        self.push_closure(body, 0);
    }

    /// Pushes a function of ours with the values on top as its upvalues, from [`Stack::push_upvalue`] 2 on.
    pub fn push_closure(&mut self, body: Body, upvalues: i32) {
        assert!(upvalues <= self.top(), "the upvalues are there");
        let place = self.top() - upvalues + 1;
        // SAFETY: the body's address goes below the upvalues; `enter` finds it as the first.
        unsafe {
            ffi::lua_pushlightuserdata(self.raw(), body as *mut c_void);
            ffi::lua_insert(self.raw(), place);
            ffi::lua_pushcclosure(self.raw(), enter, upvalues + 1);
        }
    }

    /// Pushes an upvalue of the running function of ours, counted from 1.
    pub fn push_upvalue(&mut self, index: i32) {
        // SAFETY: an upvalue that is not there reads as nil.
        unsafe { ffi::lua_pushvalue(self.raw(), ffi::lua_upvalueindex(index + 1)) }
    }

    /// Moves the value on top to `index`, those from there on up.
    pub fn insert(&mut self, index: i32) {
        let index = self.at(index);
        // SAFETY: the index is in the stack.
        unsafe { ffi::lua_insert(self.raw(), index) }
    }

    /// Takes a value away from within.
    pub fn remove(&mut self, index: i32) {
        let index = self.at(index);
        // SAFETY: the index is in the stack.
        unsafe { ffi::lua_remove(self.raw(), index) }
    }

    fn table(&self, index: i32) -> i32 {
        let index = self.at(index);
        assert!(self.kind(index) == Kind::Table, "a table");
        index
    }

    /// Replaces the key on top by its value in a table.
    pub fn get(&mut self, table: i32) {
        let table = self.table(table);
        // SAFETY: raw, so no metamethod runs.
        unsafe { ffi::lua_rawget_(self.raw(), table) }
    }

    /// Replaces the key on top by its value in a table, as its metatable has it; or by an error and false.
    pub fn get_with_metatable(&mut self, table: i32) -> bool {
        unsafe extern "C-unwind" fn get(state: *mut ffi::lua_State) -> c_int {
            // SAFETY: called with a table and a key; it may jump, and has nothing that is to be dropped.
            unsafe { ffi::lua_gettable_(state, 1) };
            1
        }
        let table = self.table(table);
        self.reserve(4);
        // SAFETY: a function is pushed, and below it are a table and the key.
        unsafe { ffi::lua_pushcclosure(self.raw(), get, 0) };
        self.insert(-2);
        self.push_copy(table);
        self.insert(-2);
        self.call(2, 1, 0)
    }

    /// Pushes a field of a table.
    pub fn get_field(&mut self, table: i32, name: &str) {
        let table = self.table(table);
        self.push(name.as_bytes());
        self.get(table);
    }

    /// Pushes a value of a table's array.
    pub fn get_index(&mut self, table: i32, index: i32) {
        let table = self.table(table);
        // SAFETY: raw.
        unsafe { ffi::lua_rawgeti_(self.raw(), table, index) }
    }

    /// Takes key and value from the top into a table; a key that none may be (nil, not a number) is dropped,
    /// and false returned.
    pub fn set(&mut self, table: i32) -> bool {
        let table = self.table(table);
        let fits = match self.kind(-2) {
            Kind::Nil => false,
            Kind::Number => !self.number(-2).is_nan(),
            _ => true,
        };
        if fits {
            // SAFETY: raw, and the key is one.
            unsafe { ffi::lua_rawset(self.raw(), table) }
        } else {
            self.pop(2);
        }
        fits
    }

    /// Takes the value on top into a field of a table.
    pub fn set_field(&mut self, table: i32, name: &str) {
        let table = self.table(table);
        self.push(name.as_bytes());
        self.insert(-2);
        self.set(table);
    }

    /// Takes the value on top into a table's array.
    pub fn set_index(&mut self, table: i32, index: i32) {
        let table = self.table(table);
        // SAFETY: raw.
        unsafe { ffi::lua_rawseti_(self.raw(), table, index) }
    }

    /// Replaces the key on top by the next key and its value; false, and the key gone, at the end.
    ///
    /// The table must not get new keys between two calls, and the key be one of its own.
    pub fn next(&mut self, table: i32) -> bool {
        let table = self.table(table);
        // SAFETY: the key is nil or came from here.
        unsafe { ffi::lua_next(self.raw(), table) != 0 }
    }

    /// Pushes the metatable of a value, if it has one.
    pub fn push_metatable(&mut self, index: i32) -> bool {
        let index = self.at(index);
        // SAFETY: the index is in the stack.
        unsafe { ffi::lua_getmetatable(self.raw(), index) != 0 }
    }

    /// Makes the table on top, or nil, the metatable of a value.
    pub fn set_metatable(&mut self, index: i32) {
        let index = self.at(index);
        assert!(
            matches!(self.kind(-1), Kind::Table | Kind::Nil),
            "a metatable"
        );
        // SAFETY: the index is in the stack, and a table or nil on top.
        unsafe { ffi::lua_setmetatable(self.raw(), index) };
    }

    /// Pushes the table of globals.
    pub fn push_globals(&mut self) {
        // SAFETY: within what was reserved.
        unsafe { ffi::lua_pushvalue(self.raw(), ffi::LUA_GLOBALSINDEX) }
    }

    /// Makes the table on top the globals of what is compiled from here on.
    pub fn set_globals(&mut self) {
        self.table(-1);
        // SAFETY: a table is on top.
        unsafe { ffi::lua_replace(self.raw(), ffi::LUA_GLOBALSINDEX) }
    }

    /// Opens one of Lua's own libraries into the table of globals. Only in an interpreter that has run nothing.
    pub fn open(&mut self, library: Library) {
        let open = match library {
            Library::Base => ffi::luaopen_base,
            Library::Table => ffi::luaopen_table,
            Library::String => ffi::luaopen_string,
            Library::Math => ffi::luaopen_math,
        };
        let name = match library {
            Library::Base => "",
            Library::Table => "table",
            Library::String => "string",
            Library::Math => "math",
        };
        // SAFETY: as Lua's own loader calls it, in a fresh interpreter, where nothing fails.
        unsafe {
            ffi::lua_pushcclosure(self.raw(), open, 0);
            self.push(name.as_bytes());
            ffi::lua_call(self.raw(), 1, 0);
        }
    }

    /// Compiles a source and pushes the function, or its error and false. Never bytecode; and no garbage is
    /// collected meanwhile, since the compiler holds values that the collector does not know.
    pub fn compile(&mut self, source: &[u8], name: &CStr) -> bool {
        let patched;
        let source = match source.first() {
            // Lua would take it for bytecode; as text it is refused all the same, at this byte.
            Some(0x1b) => {
                patched = [b" ", source].concat();
                &patched[..]
            }
            _ => source,
        };
        // SAFETY: the source is copied as it is read; errors are caught within.
        unsafe {
            ffi::lua_gc(self.raw(), ffi::LUA_GCSTOP, 0);
            let code = ffi::luaL_loadbuffer(
                self.raw(),
                source.as_ptr().cast(),
                source.len(),
                name.as_ptr(),
            );
            ffi::lua_gc(self.raw(), ffi::LUA_GCRESTART, 0);
            code == ffi::LUA_OK
        }
    }

    /// Calls the function below its `args` arguments, which it replaces by `results` results (-1: all), or by
    /// the error's value and false. `handler` is the index of a function that sees errors where they
    /// happen; 0: none.
    pub fn call(&mut self, args: i32, results: i32, handler: i32) -> bool {
        assert!(args < self.top(), "a function below its arguments");
        let handler = if handler == 0 { 0 } else { self.at(handler) };
        let strict = self.relax(false);
        // SAFETY: function and arguments are on the stack; errors are caught.
        let code = unsafe { ffi::lua_pcall(self.raw(), args, results, handler) };
        self.relax(strict);
        code == ffi::LUA_OK
    }

    /// Does a step of garbage collection.
    pub fn collect(&mut self, step: i32) {
        // SAFETY: no object of ours has a finalizer.
        unsafe { ffi::lua_gc(self.raw(), ffi::LUA_GCSTEP, step) };
    }

    /// Has the interpreter's [`Watch`] look every so many instructions, and functions that are called in
    /// coroutines made from here on as well.
    pub fn watch(&mut self, instructions: i32) {
        // SAFETY: sets fields of the state.
        unsafe {
            ffi::lua_sethook(self.raw(), Some(hook), ffi::LUA_MASKCOUNT, instructions);
        }
    }

    /// Has the interpreter's [`Watch`] look at every line: the running script is to end.
    pub fn watch_lines(&mut self) {
        // SAFETY: sets fields of the state.
        unsafe {
            ffi::lua_sethook(
                self.raw(),
                Some(hook),
                ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT,
                1,
            );
        }
    }

    /// Bytes that the interpreter has allocated.
    pub fn allocated(&mut self) -> usize {
        self.memory().used
    }

    /// Collects all garbage.
    pub fn collect_all(&mut self) {
        // SAFETY: no object of ours has a finalizer.
        unsafe { ffi::lua_gc(self.raw(), ffi::LUA_GCCOLLECT, 0) };
    }

    /// Takes the value on top into the registry; what it is found by there.
    pub fn keep(&mut self) -> i32 {
        assert!(self.top() > 0, "a value");
        // SAFETY: one value is taken.
        unsafe { ffi::luaL_ref(self.raw(), ffi::LUA_REGISTRYINDEX) }
    }

    /// Pushes what [`Stack::keep`] kept.
    pub fn push_kept(&mut self, at: i32) {
        // SAFETY: a reference that is not there reads as nil.
        unsafe { ffi::lua_rawgeti_(self.raw(), ffi::LUA_REGISTRYINDEX, at) }
    }

    /// Forgets what [`Stack::keep`] kept.
    pub fn forget(&mut self, at: i32) {
        // SAFETY: only references of `keep` are forgotten, once.
        unsafe { ffi::luaL_unref(self.raw(), ffi::LUA_REGISTRYINDEX, at) }
    }

    /// The function at a level of the calls (0: the running one), if there are so many.
    pub fn frame(&mut self, level: i32) -> Option<Frame> {
        // SAFETY: Lua fills in the record; its texts are copied at once.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.raw(), level, &mut record) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.raw(), c"nSl".as_ptr(), &mut record);
            let text = |text: *const c_char| match text.is_null() {
                true => Vec::new(),
                false => CStr::from_ptr(text).to_bytes().to_vec(),
            };
            Some(Frame {
                is_c: text(record.what) == b"C",
                source: text(record.source),
                short: text(record.short_src.as_ptr()),
                line: record.currentline,
                name: text(record.name),
                is_method: text(record.namewhat) == b"method",
            })
        }
    }

    /// Pushes an error as the API of Redis raises it: a table with the text and its code.
    pub fn push_error(&mut self, text: &[u8]) {
        let (code, message) = match text.strip_prefix(b"-") {
            None => (&b"ERR"[..], text),
            Some(line) => match memchr::memchr(b' ', line) {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (&b"ERR"[..], line),
            },
        };
        let is_end = |b: &u8| matches!(b, b'\r' | b'\n');
        let begin = message
            .iter()
            .position(|b| !is_end(b))
            .unwrap_or(message.len());
        let end = message
            .iter()
            .rposition(|b| !is_end(b))
            .map_or(begin, |at| at + 1);
        let mut full = [code, b" ", &message[begin..end]].concat();
        if let Some(nul) = memchr::memchr(0, &full) {
            full.truncate(nul);
        }
        self.push_table(0, 1);
        self.push(&full);
        self.set_field(-2, "err");
    }
}

/// One of Lua's own libraries.
#[derive(Clone, Copy, Debug)]
pub enum Library {
    /// What stands in no table, and `coroutine`.
    Base,
    /// `table`
    Table,
    /// `string`
    String,
    /// `math`
    Math,
}

/// A function that is being called.
#[derive(Debug)]
pub struct Frame {
    /// Not a function of Lua's.
    pub is_c: bool,
    /// Where it comes from.
    pub source: Vec<u8>,
    /// The same, for people.
    pub short: Vec<u8>,
    /// The line it is at; -1 when there is none.
    pub line: i32,
    /// How it was called, if known.
    pub name: Vec<u8>,
    /// It was called as a method.
    pub is_method: bool,
}
