#!/usr/bin/env python3
"""redis-py, the real client, against a server binary: values and types of what applications call.

    target/oracle/venv/bin/python tests/clients/run.py --server PATH [--redis]

`--redis` leaves out what Redis 7.0 has not: with it a real one passes too.

Every check runs over TCP and over a unix socket, each with RESP2 and RESP3. The server gets a
directory of its own. The last line is `N passed, N failed`.
"""
import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import redis

import data_types  # noqa: F401 (its checks enter themselves)
from checks import CHECKS, check, refused, same


@check
def strings(r, resp):
    same(r.set("k", "v"), True)
    same(r.get("k"), b"v")
    same(r.get("none"), None)
    same(r.set("k", "w", nx=True), None)
    same(r.set("k", "w", xx=True, get=True), b"v")
    same(r.set("e", "x", ex=100), True)
    assert 98 <= r.ttl("e") <= 100
    same(r.set("e", "y", keepttl=True), True)
    assert r.pttl("e") > 90_000
    same(r.getex("e", persist=True), b"y")
    same(r.ttl("e"), -1)
    same(r.getdel("e"), b"y")
    same(r.getset("k", "z"), b"w")
    same(r.append("k", "\0end"), 5)
    same(r.getrange("k", 1, -1), b"\0end")
    same(r.substr("k", 0, 0), b"z")
    same(r.setrange("k", 3, "XY"), 5)
    same(r.strlen("k"), 5)
    same(r.setnx("k", 1), False)
    same(r.setex("s", 10, "v"), True)
    same(r.psetex("s", 10_000, "v"), True)
    same(r.mset({"a": 1, "b": 2}), True)
    same(r.mget("a", "none", "b"), [b"1", None, b"2"])
    same(r.msetnx({"a": 1, "new": 2}), False)
    same(r.set(b"\x00\xff", b"\r\n"), True)
    same(r.get(b"\x00\xff"), b"\r\n")


@check
def numbers(r, resp):
    same(r.incr("n"), 1)
    same(r.incrby("n", 41), 42)
    same(r.decr("n"), 41)
    same(r.decrby("n", 40), 1)
    same(r.incrbyfloat("f", "0.1"), 0.1)
    same(r.incrbyfloat("f", 3), 3.1)
    r.set("max", 2**63 - 1)
    refused("increment or decrement would overflow", r.incr, "max")
    r.set("t", "text")
    refused("value is not an integer or out of range", r.incr, "t")
    refused("value is not a valid float", r.incrbyfloat, "t", 1)


@check
def common_subsequence(r, resp):
    r.mset({"a": "ohmytext", "b": "mynewtext"})
    same(r.lcs("a", "b"), b"mytext")
    same(r.lcs("a", "b", len=True), 6)
    found = r.execute_command("LCS", "a", "b", "IDX", "MINMATCHLEN", 4, "WITHMATCHLEN")
    flat = dict(zip(found[::2], found[1::2])) if isinstance(found, list) else found
    same(flat[b"matches"], [[[4, 7], [5, 8], 4]])
    same(flat[b"len"], 6)


@check
def bitmaps(r, resp):
    same(r.setbit("b", 7, 1), 0)
    same(r.getbit("b", 7), 1)
    same(r.get("b"), b"\x01")
    same(r.bitcount("b"), 1)
    same(r.bitcount("b", 0, 6, "BIT"), 0)
    same(r.bitpos("b", 1), 7)
    same(r.bitpos("b", 0, 5, 7, "BIT"), 5)
    same(r.bitop("NOT", "inverse", "b"), 1)
    same(r.get("inverse"), b"\xfe")
    field = r.bitfield("bf", default_overflow="SAT")
    same(field.set("u8", 0, 250).incrby("u8", 0, 10).get("u4", "#1").execute(), [0, 255, 15])
    same(r.bitfield_ro("bf", "u8", 0), [255])
    refused("bit offset is not an integer or out of range", r.setbit, "b", 2**32, 1)


@check
def keys(r, resp):
    r.mset({"a": 1, "b": 2, "c": 3})
    same(r.exists("a", "b", "none", "a"), 3)
    same(r.touch("a", "none"), 1)
    same(r.delete("a", "none"), 1)
    same(r.unlink("b"), 1)
    same(r.type("c"), b"string")
    same(r.type("none"), b"none")
    same(r.rename("c", "d"), True)
    same(r.renamenx("d", "e"), True)
    refused("no such key", r.rename, "none", "x")
    same(r.copy("e", "f"), True)
    same(r.copy("e", "f"), False)
    same(r.copy("e", "f", replace=True), True)
    same(r.move("f", 1), True)
    same(r.randomkey(), b"e")
    same(r.dbsize(), 1)
    for number in range(300):
        r.set("key:%d" % number, number)
    same(sorted(r.keys("key:29?")), [b"key:%d" % n for n in range(290, 300)])
    same(len(set(r.scan_iter(match="key:*", count=20))), 300)
    same(list(r.scan_iter(_type="hash")), [])
    same(r.object("encoding", "key:1"), b"int")
    same(r.swapdb(0, 1), True)
    same(r.keys(), [b"f"])
    same(r.flushdb(), True)
    same(r.dbsize(), 0)


@check
def expiry(r, resp):
    r.set("k", "v")
    same(r.expire("k", 100), True)
    same(r.expire("k", 50, gt=True), False)
    same(r.expire("k", 200, gt=True), True)
    same(r.expire("k", 100, nx=True), False)
    same(r.pexpire("k", 1000_000, lt=True), False)
    same(r.persist("k"), True)
    same(r.persist("k"), False)
    moment = int(time.time()) + 1000
    same(r.expireat("k", moment), True)
    same(r.expiretime("k"), moment)
    same(r.pexpireat("k", moment * 1000 + 5), True)
    same(r.pexpiretime("k"), moment * 1000 + 5)
    same(r.ttl("none"), -2)
    same(r.pexpire("k", 20), True)
    time.sleep(0.06)
    same(r.get("k"), None)
    r.set("k", "v")
    same(r.expire("k", -1), True)
    same(r.exists("k"), 0)


@check
def transactions(r, resp):
    with r.pipeline() as pipe:
        same(pipe.set("a", 1).incr("a").get("a").execute(), [True, 2, b"2"])
        pipe.watch("a")
        value = int(pipe.get("a"))
        pipe.multi()
        pipe.set("a", value + 1)
        same(pipe.execute(), [True])
        pipe.watch("a")
        r.set("a", "other")
        pipe.multi()
        pipe.set("a", "lost")
        try:
            pipe.execute()
            raise AssertionError("WATCH did not notice")
        except redis.WatchError:
            pass
    same(r.get("a"), b"other")
    with r.pipeline(transaction=False) as pipe:
        got = pipe.set("x", 1).incr("a").get("x").execute(raise_on_error=False)
        same(got[0], True)
        assert isinstance(got[1], redis.ResponseError), got
        same(got[2], b"1")


def messages(listener, count):
    found, end = [], time.time() + 5
    while len(found) < count and time.time() < end:
        message = listener.get_message(timeout=0.5)
        if message:
            found.append((message["type"], message["channel"], message["data"]))
    return found


@check
def publish_subscribe(r, resp):
    with r.pubsub() as listener:
        listener.subscribe("news", "other")
        listener.psubscribe("ne*")
        same(messages(listener, 3), [("subscribe", b"news", 1), ("subscribe", b"other", 2), ("psubscribe", b"ne*", 3)])
        same(r.publish("news", "hello"), 2)
        same(sorted(messages(listener, 2)), [("message", b"news", b"hello"), ("pmessage", b"news", b"hello")])
        same(r.pubsub_channels("n*"), [b"news"])
        same(r.pubsub_numsub("news", "none"), [(b"news", 1), (b"none", 0)])
        same(r.pubsub_numpat(), 1)
        listener.unsubscribe("other")
        same(messages(listener, 1), [("unsubscribe", b"other", 2)])
        listener.ssubscribe("part")
        same(messages(listener, 1)[0][:2], ("ssubscribe", b"part"))
        same(r.spublish("part", "x"), 1)


@check
def notifications(r, resp):
    r.config_set("notify-keyspace-events", "KEA")
    try:
        with r.pubsub() as listener:
            listener.psubscribe("__key*__:*")
            messages(listener, 1)
            r.set("k", 1)
            r.delete("k")
            same([m[1:] for m in messages(listener, 4)], [
                (b"__keyspace@0__:k", b"set"), (b"__keyevent@0__:set", b"k"),
                (b"__keyspace@0__:k", b"del"), (b"__keyevent@0__:del", b"k")])
    finally:
        r.config_set("notify-keyspace-events", "")


@check
def connection(r, resp):
    same(r.ping(), True)
    same(r.echo("text"), b"text")
    one = r.client()
    same(one.client_setname("me"), True)
    same(one.client_getname(), b"me" if not isinstance(one.client_getname(), str) else "me")
    assert isinstance(one.client_id(), int)
    info = one.client_info()
    same(info["name"], "me")
    same(info["db"], "0" if isinstance(info["db"], str) else 0)
    same(str(info["resp"]), str(resp))
    assert any(str(c["id"]) == str(one.client_id()) for c in r.client_list())
    same(one.client_no_evict("ON"), b"OK" if not isinstance(one.client_no_evict("ON"), str) else "OK")
    one.close()
    refused("unknown command 'NOSUCH', with args beginning with: 'a' 'b' ", r.execute_command, "NOSUCH", "a", "b")
    refused("wrong number of arguments for 'get' command", r.execute_command, "GET")
    refused("unknown subcommand 'NOSUCH'. Try CLIENT HELP.", r.execute_command, "CLIENT", "NOSUCH")


@check
def server(r, resp):
    info = r.info()
    same(info["redis_version"], "7.0.15")
    assert info["used_memory"] > 0 and info["connected_clients"] >= 1
    assert info["uptime_in_seconds"] >= 0
    r.set("k", 1)
    same(r.info("keyspace")["db0"]["keys"], 1)
    same(r.config_get("maxmemory*")["maxmemory-policy"], "noeviction")
    same(r.config_set("maxmemory-samples", 6), True)
    same(r.config_get("maxmemory-samples"), {"maxmemory-samples": "6"})
    refused("Unknown option", r.config_set, "no-such", 1)
    assert r.command_count() > 50
    commands = r.command()
    same(commands["get"]["arity"], 2)
    found = r.command_getkeys("MSET", "a", 1, "b", 2)
    same([k if isinstance(k, str) else k.decode() for k in found], ["a", "b"])
    assert "set" in [n.decode() if isinstance(n, bytes) else n for n in r.command_list()]
    seconds, micros = r.time()
    assert abs(seconds - time.time()) < 5 and 0 <= micros < 1_000_000


class Target:
    """The server under test, reachable over TCP and a unix socket."""

    def __init__(self, program):
        self.dir = tempfile.mkdtemp(prefix="clients")
        self.path = os.path.join(self.dir, "s")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path, "--save", "",
             "--appendonly", "no", "--dir", self.dir, "--logfile", os.path.join(self.dir, "log")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                if redis.Redis(unix_socket_path=self.path).ping():
                    return
            except redis.ConnectionError:
                time.sleep(0.05)
        self.stop()
        sys.exit("the server does not answer")

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--redis", action="store_true")
    given = parser.parse_args()
    target, passed, failed = Target(os.path.abspath(given.server)), 0, 0
    try:
        for place, where in (("tcp", {"host": "127.0.0.1", "port": target.port}),
                             ("unix", {"unix_socket_path": target.path})):
            for resp in (2, 3):
                # The socket is told to give up, so that a reply that never comes is a failure.
                r = redis.Redis(protocol=resp, socket_timeout=20, **where)
                for function, only_ours in CHECKS:
                    if only_ours and given.redis:
                        continue
                    try:
                        r.flushall()
                        function(r, resp)
                        passed += 1
                    except Exception:  # any fault of a check is its result
                        failed += 1
                        print("FAIL %s over %s, RESP%d\n%s" % (
                            function.__name__, place, resp, traceback.format_exc(limit=-2)), flush=True)
                r.close()
    finally:
        target.stop()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
