//! redis-rs, the real client, against our server: its call for each command of the data types, in
//! RESP2 and RESP3, gets what a Redis 7.0.15 gives, kind by kind.
//!
//! What that one gave is in `tests/redis_rs/`; where one is installed it is asked again, so the
//! record cannot go stale. `TESSERA_RECORD=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::geo::{RadiusOptions, RadiusOrder, Unit};
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamClaimOptions, StreamInfoGroupsReply,
    StreamMaxlen, StreamPendingReply, StreamRangeReply, StreamReadOptions, StreamReadReply,
};
use redis::{
    Commands, Connection, ConnectionLike, CopyOptions, Direction, ExistenceCheck, ExpireOption,
    Expiry, IntegerReplyOrNoOp, LposOptions, RedisResult, SetExpiry, SetOptions,
    SortedSetAddOptions, Value,
};

struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new(program)
            .args(["--port", "0", "--unixsocket", "s", "--save", ""])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self { child, dir }
    }

    fn connect(&self, resp3: bool) -> Connection {
        let socket = self.dir.path().join("s");
        let protocol = if resp3 { "?protocol=resp3" } else { "" };
        let url = format!("unix://{}{protocol}", socket.display());
        let client = redis::Client::open(url).expect("an address");
        let begin = Instant::now();
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) => assert!(begin.elapsed().as_secs() < 20, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, and nothing of it is kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reply as text; what has no order is sorted.
fn shown(result: &RedisResult<Value>, unordered: bool) -> String {
    let list = |items: &[Value]| {
        let mut texts: Vec<String> = items.iter().map(|v| format!("{v:?}")).collect();
        texts.sort();
        texts.join(", ")
    };
    match result {
        Ok(Value::Array(items)) if unordered => format!("array([{}])", list(items)),
        Ok(Value::Set(items)) if unordered => format!("set({{{}}})", list(items)),
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

/// Makes calls, one after the other, and writes down what they gave.
macro_rules! calls {
    ($con:expr, $out:expr, $unordered:expr; $($name:ident($($arg:expr),* $(,)?);)*) => {
        $(
            let result: RedisResult<Value> = $con.$name($($arg),*);
            let call = stringify!($name($($arg),*)).replace('\n', " ");
            let call = call.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!($out, "{call} -> {}", shown(&result, $unordered)).expect("a string");
        )*
    };
}

fn strings(con: &mut Connection, out: &mut String) {
    let set = SetOptions::default();
    let bound = set
        .conditional_set(ExistenceCheck::NX)
        .get(true)
        .with_expiration(SetExpiry::EX(1000));
    calls! { con, out, false;
        set("k", "v"); get("k"); get("none"); get(&b"\x00\xff"[..]);
        set_options("k", "w", bound.clone()); set_options("new", "w", bound);
        mset(&[("a", "1"), ("b", "2")]); mget(&["a", "none", "b"]);
        set_ex("e", "x", 1000); pset_ex("e", "x", 1_000_000); set_nx("e", "y"); set_nx("nx", "y");
        mset_nx(&[("a", 1), ("c", 2)]); getset("k", "z"); getrange("k", 0, -1);
        setrange("k", 3, "xy"); append("k", "!"); strlen("k"); incr("n", 5); incr("n", 1.5);
        incr("k", 1); decr("m", 2); get_ex("nx", Expiry::EXAT(4_000_000_000)); get_del("nx");
        setbit("bits", 7, true); getbit("bits", 7); bitcount("bits"); bitcount_range("bits", 0, 0);
        bit_and("d", &["bits", "k"]); bit_or("d", &["bits", "k"]); bit_xor("d", &["bits", "k"]);
        bit_not("d", "bits"); pfadd("hll", &["a", "b", "c"]); pfadd("hll", "a"); pfcount("hll");
        pfmerge("all", &["hll", "none"]); pfcount(&["all", "hll"]);
    }
}

fn keys(con: &mut Connection, out: &mut String) {
    calls! { con, out, false;
        exists("k"); exists(&["k", "k", "none"]); key_type("k"); key_type("none");
        expire("k", 4000); expire("none", 1); expire_at("k", 4_000_000_000);
        pexpire("k", 1_000_000_000); pexpire_at("k", 4_000_000_000_000); expire_time("k");
        pexpire_time("k"); persist("k"); persist("k"); ttl("k"); ttl("none"); pttl("k");
        copy("k", "k2", CopyOptions::<&str>::default()); copy("k", "k2", CopyOptions::<&str>::default());
        rename("k2", "k3"); rename("none", "x"); rename_nx("k3", "k"); object_encoding("k");
        object_encoding("n"); object_refcount("k"); object_encoding("none"); del(&["k3", "none"]);
        unlink("d"); client_getname(); client_setname("me"); client_getname(); ping();
        ping_message("hello"); publish("nobody", "m"); spublish("nobody", "m");
    }
    calls! { con, out, true; keys("*"); }
}

fn lists(con: &mut Connection, out: &mut String) {
    let two = std::num::NonZeroUsize::new(2);
    let (left, right) = (Direction::Left, Direction::Right);
    calls! { con, out, false;
        rpush("l", &["a", "b", "c", "b"]); lpush("l", "z"); lpush_exists("none", "x");
        rpush_exists("l", "y"); llen("l"); lrange("l", 0, -1); lrange("none", 0, -1); lindex("l", 1);
        lindex("l", 99); lset("l", 0, "first"); lset("none", 0, "x"); linsert_before("l", "a", "x");
        linsert_after("l", "none", "x"); lrem("l", 0, "x");
        lpos("l", "b", LposOptions::default()); lpos("l", "none", LposOptions::default());
        lpos("l", "b", LposOptions::default().count(0).rank(-1)); ltrim("l", 0, 3);
        lpop("l", None); lpop("l", two); lpop("none", None); lpop("none", two); rpop("l", None);
        rpush("q", &[1, 2, 3, 4, 5, 6]); lmove("q", "n1", Direction::Left, Direction::Right);
        lmove("none", "n1", Direction::Left, Direction::Right); rpoplpush("q", "n1"); rpoplpush("none", "n1");
        lmpop(2, &["none", "q"], left, 2); lmpop(1, "none", right, 1); blpop(&["none", "q"], 1.0);
        brpop("q", 1.0); blpop("none", 0.01); brpoplpush("n1", "o", 1.0); brpoplpush("none", "o", 0.01);
        blmove("o", "n1", Direction::Left, Direction::Left, 1.0); blmove("none", "n1", Direction::Left, Direction::Left, 0.01);
        blmpop(1.0, 2, &["none", "n1"], Direction::Right, 5); blmpop(0.01, 1, "none", Direction::Left, 1);
        lpush("k", "wrong type");
    }
}

fn hashes(con: &mut Connection, out: &mut String) {
    calls! { con, out, false;
        hset("h", "f", "v"); hset("h", "f", "w"); hset_multiple("h", &[("a", "1"), ("b", "2.5")]);
        hset_nx("h", "a", 2); hset_nx("h", "c", 2); hget("h", "a"); hget("h", "none");
        hmget("h", &["a", "none"]); hgetall("h"); hgetall("none"); hkeys("h"); hvals("h"); hlen("h");
        hexists("h", "a"); hexists("h", "none"); hincr("h", "a", 5); hincr("h", "b", 0.25);
        hincr("h", "f", 1); hdel("h", &["c", "none"]); hdel("h", "a"); hget("k", "f");
    }
}

fn sets(con: &mut Connection, out: &mut String) {
    calls! { con, out, true;
        sadd("s", &["a", "b", "c"]); sadd("s", "a"); sadd("t", &["b", "c", "d"]); scard("s");
        sdiff(&["s", "t"]); sinter(&["s", "t"]); sunion(&["s", "t"]); smembers("s"); smembers("none");
        sdiffstore("u", &["s", "t"]); sinterstore("u", &["s", "t"]); sunionstore("u", &["s", "t"]);
        sismember("s", "a"); sismember("s", "x"); smismember("s", &["a", "x"]); smove("s", "t", "a");
        smove("s", "t", "none"); spop("none"); srandmember("none"); srandmember_multiple("s", 5);
        srem("s", &["b", "none"]); spop("s"); sadd("one", "m"); srandmember("one");
        srandmember_multiple("one", -3); sadd("k", "wrong type");
    }
}

fn sorted_sets(con: &mut Connection, out: &mut String) {
    let options = SortedSetAddOptions::add_only();
    calls! { con, out, false;
        zadd("z", "a", 1); zadd("z", "b", 2.5); zadd_multiple("z", &[(3, "c"), (4, "d")]);
        zadd_options("z", "a", 9, &options); zadd("z", "bad", "x"); zcard("z"); zcount("z", "(1", "+inf");
        zincr("z", "a", 0.5); zincr("z", "new", "inf"); zadd("y", "a", 10); zadd("y", "x", "-inf");
        zinterstore("i", &["z", "y"]); zinterstore_min("i", &["z", "y"]);
        zinterstore_max("i", &["z", "y"]); zinterstore_weights("i", &[("z", 2), ("y", 3)]);
        zunionstore("i", &["z", "y"]); zunionstore_min("i", &["z", "y"]);
        zunionstore_max("i", &["z", "y"]); zunionstore_weights("i", &[("z", 2), ("y", 3)]);
        zrange_withscores("i", 0, -1); zrange("z", 0, -1); zrange_withscores("z", 0, -1);
        zrevrange("z", 0, 1); zrevrange_withscores("z", 0, 1); zrangebyscore("z", 1, 3);
        zrangebyscore_withscores("z", "(1.5", "+inf"); zrangebyscore_limit("z", 0, 9, 1, 1);
        zrangebyscore_limit_withscores("z", 0, 9, 1, 1); zrevrangebyscore("z", 9, 0);
        zrevrangebyscore_withscores("z", 9, 0); zrevrangebyscore_limit("z", 9, 0, 0, 1);
        zrevrangebyscore_limit_withscores("z", 9, 0, 0, 1); zrangebylex("z", "-", "[b");
        zrangebylex_limit("z", "-", "+", 1, 1); zrevrangebylex("z", "+", "-");
        zrevrangebylex_limit("z", "+", "-", 0, 1); zlexcount("z", "-", "+"); zrank("z", "c");
        zrank("z", "none"); zrevrank("z", "c"); zscore("z", "b"); zscore("z", "none"); zscore("z", "new");
        zscore_multiple("z", &["a", "none"]); zpopmax("z", 1); zpopmin("z", 1); zpopmin("none", 1);
        bzpopmin("z", 1.0); bzpopmax("y", 1.0); bzpopmin("none", 0.01); bzpopmax("none", 0.01);
        zmpop_min("z", 1); zmpop_max("none", 1); bzmpop_max(1.0, &["none", "z"], 2);
        bzmpop_min(0.01, "none", 1); zadd("w", "only", 7); zrandmember("w", None);
        zrandmember("w", Some(-2)); zrandmember_withscores("w", 2); zrandmember("none", None);
        zrem("i", &["a", "none"]); zremrangebyrank("i", 0, 0); zrembyscore("i", 0, 5);
        zrembylex("i", "-", "+"); zadd("k", "wrong", 1);
    }
}

fn geo(con: &mut Connection, out: &mut String) {
    let all = || {
        RadiusOptions::default()
            .with_coord()
            .with_dist()
            .order(RadiusOrder::Asc)
            .limit(5)
    };
    calls! { con, out, false;
        geo_add("g", &[("13.361389", "38.115556", "Palermo"), ("15.087269", "37.502669", "Catania")]);
        geo_dist("g", "Palermo", "Catania", Unit::Kilometers); geo_dist("g", "Palermo", "none", Unit::Meters);
        geo_hash("g", &["Palermo", "none"]); geo_pos("g", &["Palermo", "none"]);
        geo_radius("g", 15.0, 37.0, 200.0, Unit::Kilometers, all());
        geo_radius_by_member("g", "Palermo", 100.0, Unit::Kilometers, all());
    }
}

fn streams(con: &mut Connection, out: &mut String) {
    let read = StreamReadOptions::default().count(2);
    let group = StreamReadOptions::default().group("grp", "c1");
    let wait = StreamReadOptions::default().block(1);
    let claim = StreamClaimOptions::default().with_justid();
    calls! { con, out, false;
        xadd("x", "1-1", &[("f", "v")]); xadd("x", "1-*", &[("f", "w"), ("g", "")]);
        xadd("x", "1-1", &[("f", "v")]); xadd_maxlen("x", StreamMaxlen::Equals(3), "2-0", &[("f", "v")]);
        xadd("x", "3-0", &[("f", "v")]); xlen("x"); xrange_all("x"); xrange("x", "-", "1-1");
        xrange_count("x", "-", "+", 1); xrevrange_all("x"); xrevrange("x", "+", "(2-0");
        xrevrange_count("x", "+", "-", 1); xread(&["x", "none"], &["0", "0"]);
        xread_options(&["x"], &["1"], &read); xread_options(&["x"], &["$"], &wait);
        xgroup_create("x", "grp", "0"); xgroup_create("x", "grp", "0"); xgroup_create("none", "grp", "0");
        xgroup_create_mkstream("made", "grp", "$"); xgroup_createconsumer("x", "grp", "c9");
        xread_options(&["x"], &[">"], &group); xread_options(&["x"], &["0"], &group);
        xack("x", "grp", &["1-1"]); xpending("x", "grp"); xpending("none", "grp");
        xgroup_setid("x", "grp", "2-0"); xinfo_groups("x");
        xclaim_options("x", "grp", "c2", 0, &["2-0"], claim);
        xdel("x", &["3-0", "9-9"]); xtrim("x", StreamMaxlen::Equals(1)); xgroup_delconsumer("x", "grp", "c2");
        xgroup_destroy("x", "grp"); xinfo_groups("x"); xinfo_stream("none"); xadd("k", "*", &[("f", "v")]);
    }
}

/// What a server gives to all calls, in one protocol.
fn transcript(server: &Server, resp3: bool) -> String {
    let mut con = server.connect(resp3);
    let _: () = con.flushall().expect("OK");
    let mut out = String::new();
    for part in [
        strings,
        keys,
        lists,
        hashes,
        sets,
        sorted_sets,
        geo,
        streams,
    ] {
        part(&mut con, &mut out);
    }
    assert!(con.is_open());
    out
}

fn ours() -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_redis-server")))
}

/// A Redis 7.0.15, if there is one.
fn theirs() -> Option<Server> {
    let said = Command::new("redis-server")
        .arg("--version")
        .output()
        .ok()?;
    let is_it = String::from_utf8_lossy(&said.stdout).contains(" v=7.0.15 ");
    is_it.then(|| Server::start(Path::new("redis-server")))
}

fn check(resp3: bool) {
    let name = if resp3 { "resp3.txt" } else { "resp2.txt" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_rs");
    let path = path.join(name);
    let got = transcript(&ours(), resp3);
    let theirs = theirs().map(|server| transcript(&server, resp3));
    if std::env::var_os("TESSERA_RECORD").is_some() {
        let text = theirs.as_ref().expect("a Redis 7.0.15 on the path");
        std::fs::write(&path, text).expect("written");
    }
    let record = std::fs::read_to_string(&path).expect("the record");
    for (who, text) in [("ours", Some(got)), ("Redis", theirs)] {
        let Some(text) = text else { continue };
        for (line, wanted) in text.lines().zip(record.lines()) {
            assert_eq!(line, wanted, "{who}, {name}");
        }
        assert_eq!(
            text.lines().count(),
            record.lines().count(),
            "{who}, {name}"
        );
    }
}

#[test]
fn every_call_gets_what_redis_gives_in_resp2() {
    check(false);
}

#[test]
fn every_call_gets_what_redis_gives_in_resp3() {
    check(true);
}

/// The client's own types take our replies apart.
#[test]
fn replies_become_the_clients_types() {
    let server = ours();
    for resp3 in [false, true] {
        let mut con = server.connect(resp3);
        let _: () = con.flushall().expect("OK");
        let _: String = con.xadd("x", "1-1", &[("f", "v")]).expect("an ID");
        let _: () = con.xgroup_create("x", "g", "0").expect("OK");
        let range: StreamRangeReply = con.xrange_all("x").expect("a range");
        assert_eq!(range.ids[0].get::<String>("f").as_deref(), Some("v"));
        let options = StreamReadOptions::default().group("g", "c");
        let read: StreamReadReply = con
            .xread_options(&["x"], &[">"], &options)
            .expect("entries");
        assert_eq!(
            (&read.keys[0].key[..], &read.keys[0].ids[0].id[..]),
            ("x", "1-1")
        );
        let pending: StreamPendingReply = con.xpending("x", "g").expect("a summary");
        assert_eq!(pending.count(), 1);
        let groups: StreamInfoGroupsReply = con.xinfo_groups("x").expect("groups");
        assert_eq!(
            (&groups.groups[0].name[..], groups.groups[0].pending),
            ("g", 1)
        );
        let options = StreamAutoClaimOptions::default();
        let claimed: StreamAutoClaimReply = con
            .xautoclaim_options("x", "g", "d", 0, "0", options)
            .expect("claimed");
        assert_eq!(claimed.claimed.len(), 1);
        let _: usize = con.zadd("z", "m", 1.5).expect("a number");
        let scores: Vec<(String, f64)> = con.zrange_withscores("z", 0, -1).expect("scores");
        assert_eq!(scores, [("m".to_owned(), 1.5)]);
        let _: usize = con.hset("h", "f", "v").expect("a number");
        let all: std::collections::HashMap<String, String> = con.hgetall("h").expect("a hash");
        assert_eq!(all["f"], "v");
        let (a, b): (i64, Option<String>) = redis::pipe()
            .atomic()
            .incr("n", 3)
            .ignore()
            .incr("n", 4)
            .get("none")
            .query(&mut con)
            .expect("a transaction");
        assert_eq!((a, b), (7, None));
    }
}

/// What Redis 7.4 and later have: fields that expire.
#[test]
fn fields_of_hashes_expire() {
    let server = ours();
    for resp3 in [false, true] {
        let mut con = server.connect(resp3);
        let _: () = con.flushall().expect("OK");
        let _: () = con
            .hset_multiple("h", &[("a", "1"), ("b", "2")])
            .expect("OK");
        let set: Vec<IntegerReplyOrNoOp> = con
            .hexpire("h", 1000, ExpireOption::NONE, &["a", "none"])
            .expect("results");
        assert_eq!(
            set,
            [
                IntegerReplyOrNoOp::IntegerReply(1),
                IntegerReplyOrNoOp::NotExists
            ]
        );
        let left: Vec<IntegerReplyOrNoOp> = con.httl("h", &["b"]).expect("times");
        assert_eq!(left, [IntegerReplyOrNoOp::ExistsButNotRelevant]);
        let at = 4_000_000_000_i64;
        let _: Value = con
            .hexpire_at("h", at, ExpireOption::NONE, &["b"])
            .expect("results");
        let told: Vec<i64> = con.hexpire_time("h", &["b"]).expect("times");
        assert_eq!(told, [at]);
        let kept: Vec<i64> = con.hpersist("h", &["a", "b"]).expect("results");
        assert_eq!(kept, [1, 1]);
        let gone: Vec<Option<String>> = con.hget_del("h", &["a", "none"]).expect("values");
        assert_eq!(gone, [Some("1".to_owned()), None]);
    }
}
