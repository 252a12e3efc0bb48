"""redis-py's call for each command of the data types; what a Redis 7.0.15 made it return."""
import time

from redis.commands.core import HashDataPersistOptions

from checks import check, check_ours, refused, same

inf = float("inf")


@check
def lists(r, resp):
    same(r.rpush("l", "a", "b", "c", 1, b"\x00\xff"), 5)
    same(r.lpush("l", "z"), 6)
    same(r.lpushx("none", "x"), 0)
    same(r.rpushx("l", "y"), 7)
    same(r.llen("l"), 7)
    same(r.lrange("l", 0, -1), [b'z', b'a', b'b', b'c', b'1', b'\x00\xff', b'y'])
    same(r.lindex("l", 1), b'a')
    same(r.lindex("l", 100), None)
    same(r.lset("l", 0, "first"), True)
    same(r.linsert("l", "BEFORE", "a", "x"), 8)
    same(r.linsert("l", "AFTER", "none", "x"), -1)
    same(r.lrem("l", 0, "x"), 1)
    same(r.lpos("l", "b"), 2)
    same(r.lpos("l", "none"), None)
    same(r.lpos("l", "b", rank=-1, count=0), [2])
    same(r.ltrim("l", 0, 3), True)
    same(r.lpop("l"), b'first')
    same(r.rpop("l", 2), [b'c', b'b'])
    same(r.lpop("none"), None)
    same(r.lpop("none", 2), None)
    same(r.rpush("m", 1, 2, 3, 4, 5), 5)
    same(r.lmove("m", "n", "LEFT", "RIGHT"), b'1')
    same(r.lmove("none", "n", "LEFT", "RIGHT"), None)
    same(r.rpoplpush("m", "n"), b'5')
    same(r.lmpop(2, "none", "m", direction="RIGHT", count=2), [b'm', [b'4', b'3']])
    same(r.lmpop(1, "none", direction="LEFT"), None)
    same(r.blpop(["none", "m"], 1), (b'm', b'2') if resp == 2 else [b'm', b'2'])
    same(r.brpop("n", 1), (b'n', b'1') if resp == 2 else [b'n', b'1'])
    same(r.blpop("none", 0.01), None)
    same(r.brpoplpush("n", "o", 1), b'5')
    same(r.brpoplpush("none", "o", 0.01), None)
    same(r.blmove("o", "n", 1, "LEFT", "RIGHT"), b'5')
    same(r.blmove("none", "n", 0.01), None)
    same(r.blmpop(1, 2, "none", "n", direction="LEFT", count=5), [b'n', [b'5']])
    same(r.blmpop(0.01, 1, "none", direction="LEFT"), None)
    refused("One or more scores can't be converted into double", r.sort, "l")
    same(r.rpush("s", 3, 1, 2), 3)
    same(r.sort("s"), [b'1', b'2', b'3'])
    same(r.sort("s", desc=True, start=0, num=2), [b'3', b'2'])
    same(r.mset({"w1": 3, "w2": 2, "w3": 1, "o1": "one", "o2": "two"}), True)
    same(r.sort("s", by="w*", get=["#", "o*"], groups=True), [(b'3', None), (b'2', b'two'), (b'1', b'one')])
    same(r.sort("s", by="nosort", get="o*"), [None, b'one', b'two'])
    same(r.sort("s", alpha=True, store="t"), 3)
    same(r.sort_ro("s", desc=True), [b'3', b'2', b'1'])


@check
def hashes(r, resp):
    same(r.hset("h", "f", "v"), 1)
    same(r.hset("h", mapping={"a": 1, "b": 2.5, "c": b"\x00"}), 3)
    same(r.hsetnx("h", "a", 2), 0)
    same(r.hmset("h", {"d": "x"}), True)
    same(r.hget("h", "a"), b'1')
    same(r.hget("h", "none"), None)
    same(r.hmget("h", "a", "none", "b"), [b'1', None, b'2.5'])
    same(r.hgetall("h"), {b'f': b'v', b'a': b'1', b'b': b'2.5', b'c': b'\x00', b'd': b'x'})
    same(r.hgetall("none"), {})
    same(r.hkeys("h"), [b'f', b'a', b'b', b'c', b'd'])
    same(r.hvals("h"), [b'v', b'1', b'2.5', b'\x00', b'x'])
    same(r.hlen("h"), 5)
    same(r.hstrlen("h", "c"), 1)
    same(r.hexists("h", "a"), True)
    same(r.hexists("h", "none"), False)
    same(r.hdel("h", "c", "none"), 1)
    same(r.hincrby("h", "a", 5), 6)
    same(r.hincrbyfloat("h", "b", 0.25), 2.75)
    refused('hash value is not an integer', r.hincrby, "h", "d", 1)
    same(r.hrandfield("none"), None)
    same(r.hrandfield("none", 2), [])
    same(r.hset("one", "f", 1.5), 1)
    same(r.hrandfield("one"), b'f')
    same(r.hrandfield("one", 1), [b'f'])
    same(r.hrandfield("one", -2, withvalues=True),
         [b'f', b'1.5', b'f', b'1.5'] if resp == 2 else
         [[b'f', b'1.5'], [b'f', b'1.5']])
    same(r.hscan("one"), (0, {b'f': b'1.5'}))
    same(sorted(r.hscan_iter("h")), [(b'a', b'6'), (b'b', b'2.75'), (b'd', b'x'), (b'f', b'v')])
    same(r.hscan("h", match="a*", count=10), (0, {b'a': b'6'}))


@check
def sets(r, resp):
    same(r.sadd("s", "a", "b", "c"), 3)
    same(r.sadd("t", "b", "c", "d"), 3)
    same(r.scard("s"), 3)
    same(r.sismember("s", "a"), 1)
    same(r.sismember("s", "none"), 0)
    same(r.smismember("s", "a", "none"), [1, 0])
    same(r.smembers("s"), {b'b', b'c', b'a'})
    same(r.smembers("none"), set())
    same(r.sinter("s", "t"), {b'b', b'c'})
    same(r.sunion("s", "t"), {b'b', b'c', b'd', b'a'})
    same(r.sdiff("s", "t"), {b'a'})
    same(r.sinterstore("i", "s", "t"), 2)
    same(r.sunionstore("u", "s", "t"), 4)
    same(r.sdiffstore("d", "s", "t"), 1)
    same(r.sintercard(2, ["s", "t"]), 2)
    same(r.sintercard(2, ["s", "t"], limit=1), 1)
    same(r.smove("s", "t", "a"), True)
    same(r.smove("s", "t", "none"), False)
    same(r.srem("s", "b", "none"), 1)
    same(r.spop("s"), b'c')
    same(r.spop("none"), None)
    same(r.spop("none", 2), [])
    same(r.spop("d", 5), [b'a'])
    same(r.sadd("ints", 3, 1, 2), 3)
    same(r.srandmember("none"), None)
    same(r.srandmember("none", 2), [])
    same(sorted(r.srandmember("ints", 5)), [b'1', b'2', b'3'])
    same(r.smembers("ints"), {b'3', b'2', b'1'})
    same(r.sscan("ints"), (0, [b'1', b'2', b'3']))
    same(sorted(r.sscan_iter("t", match="[ab]")), [b'a', b'b'])
    refused('WRONGTYPE Operation against a key holding the wrong kind of value', r.get, "ints")


@check
def sorted_sets(r, resp):
    same(r.zadd("z", {"a": 1, "b": 2.5, "c": float("inf"), "d": -3}), 4)
    same(r.zadd("z", {"a": 5}, nx=True), 0)
    same(r.zadd("z", {"a": 1.5}, xx=True, ch=True), 1)
    same(r.zadd("z", {"a": 1}, incr=True), 2.5)
    same(r.zadd("z", {"a": 1}, incr=True, nx=True), None)
    same(r.zadd("z", {"a": 1}, gt=True, ch=True), 0)
    same(r.zcard("z"), 4)
    same(r.zscore("z", "a"), 2.5)
    same(r.zscore("z", "c"), inf)
    same(r.zscore("z", "none"), None)
    same(r.zmscore("z", ["a", "none", "d"]), [2.5, None, -3.0])
    same(r.zincrby("z", 1.25, "a"), 3.75)
    same(r.zrank("z", "a"), 2)
    same(r.zrank("z", "none"), None)
    same(r.zrevrank("z", "a"), 1)
    same(r.zcount("z", "-inf", 3), 2)
    same(r.zrange("z", 0, -1), [b'd', b'b', b'a', b'c'])
    same(r.zrange("z", 0, -1, withscores=True),
         [(b'd', -3.0), (b'b', 2.5), (b'a', 3.75), (b'c', inf)] if resp == 2 else
         [[b'd', -3.0], [b'b', 2.5], [b'a', 3.75], [b'c', inf]])
    same(r.zrange("z", 0, 1, desc=True, withscores=True),
         [(b'c', inf), (b'a', 3.75)] if resp == 2 else
         [[b'c', inf], [b'a', 3.75]])
    same(r.zrange("z", "-inf", "(3", byscore=True, offset=0, num=5), [b'd', b'b'])
    same(r.zrevrange("z", 0, 1, withscores=True),
         [(b'c', inf), (b'a', 3.75)] if resp == 2 else
         [[b'c', inf], [b'a', 3.75]])
    same(r.zrangebyscore("z", "-inf", "+inf", start=1, num=2, withscores=True),
         [(b'b', 2.5), (b'a', 3.75)] if resp == 2 else
         [[b'b', 2.5], [b'a', 3.75]])
    same(r.zrevrangebyscore("z", "+inf", "-inf", withscores=True),
         [(b'c', inf), (b'a', 3.75), (b'b', 2.5), (b'd', -3.0)] if resp == 2 else
         [[b'c', inf], [b'a', 3.75], [b'b', 2.5], [b'd', -3.0]])
    same(r.zrangestore("stored", "z", 0, 1), 2)
    same(r.zadd("lex", {"a": 0, "b": 0, "c": 0, "d": 0}), 4)
    same(r.zlexcount("lex", "[b", "+"), 3)
    same(r.zrangebylex("lex", "-", "(c"), [b'a', b'b'])
    same(r.zrevrangebylex("lex", "+", "[c"), [b'd', b'c'])
    same(r.zremrangebylex("lex", "[a", "[a"), 1)
    same(r.zremrangebyrank("lex", 0, 0), 1)
    same(r.zremrangebyscore("lex", 0, 0), 2)
    same(r.zadd("y", {"a": 10, "b": 20}), 2)
    same(r.zunion(["z", "y"]), [b'd', b'a', b'b', b'c'])
    same(r.zunion({"z": 1, "y": 2}, aggregate="MAX", withscores=True),
         [(b'd', -3.0), (b'a', 20.0), (b'b', 40.0), (b'c', inf)] if resp == 2 else
         [[b'd', -3.0], [b'a', 20.0], [b'b', 40.0], [b'c', inf]])
    same(r.zinter(["z", "y"], withscores=True),
         [(b'a', 13.75), (b'b', 22.5)] if resp == 2 else
         [[b'a', 13.75], [b'b', 22.5]])
    same(r.zdiff(["z", "y"], withscores=True),
         [b'd', b'-3', b'c', b'inf'] if resp == 2 else
         [[b'd', -3.0], [b'c', inf]])
    same(r.zintercard(2, ["z", "y"], limit=1), 1)
    same(r.zunionstore("zu", ["z", "y"]), 4)
    same(r.zinterstore("zi", {"z": 2, "y": 1}, aggregate="MIN"), 2)
    same(r.zdiffstore("zd", ["z", "y"]), 2)
    same(r.zadd("one", {"m": 1.5}), 1)
    same(r.zrandmember("one"), b'm')
    same(r.zrandmember("none"), None)
    same(r.zrandmember("one", 2, withscores=True), [b'm', b'1.5'] if resp == 2 else [[b'm', 1.5]])
    same(r.zrandmember("one", -2), [b'm', b'm'])
    same(r.zscan("one"), (0, [(b'm', 1.5)]))
    same(r.zscan("z", match="a"), (0, [(b'a', 3.75)]))
    same(r.zpopmin("z"), [(b'd', -3.0)] if resp == 2 else [b'd', -3.0])
    same(r.zpopmax("z", 2), [(b'c', inf), (b'a', 3.75)] if resp == 2 else [[b'c', inf], [b'a', 3.75]])
    same(r.zpopmin("none"), [])
    same(r.zmpop(2, ["none", "zu"], max=True, count=2),
         [b'zu', [[b'c', b'inf'], [b'b', b'22.5']]] if resp == 2 else
         [b'zu', [[b'c', inf], [b'b', 22.5]]])
    same(r.zmpop(1, ["none"], min=True), None)
    same(r.bzpopmin(["none", "y"], 1), (b'y', b'a', 10.0) if resp == 2 else [b'y', b'a', 10.0])
    same(r.bzpopmax("y", 1), (b'y', b'b', 20.0) if resp == 2 else [b'y', b'b', 20.0])
    same(r.bzpopmin("none", 0.01), None)
    same(r.bzmpop(1, 2, ["none", "zd"], min=True), [b'zd', [[b'd', b'-3']]] if resp == 2 else [b'zd', [[b'd', -3.0]]])
    same(r.bzmpop(0.01, 1, ["none"], max=True), None)
    same(r.zrem("zu", "none"), 0)
    refused('value is not a valid float', r.zadd, "zu", {"a": float("nan")})


@check
def streams(r, resp):
    same(r.xadd("x", {"f": "v", "g": 1}, id="1-1"), b'1-1')
    same(r.xadd("x", {"f": "w"}, id="2-*"), b'2-0')
    same(r.xadd("x", {"f": "u"}, id="3-0", maxlen=10), b'3-0')
    same(r.xadd("none", {"f": "u"}, nomkstream=True), None)
    refused('The ID specified in XADD is equal or smaller than the target stream top item',
            r.xadd, "x", {"f": "u"}, id="1-1")
    same(r.xlen("x"), 3)
    same(r.xrange("x"), [(b'1-1', {b'f': b'v', b'g': b'1'}), (b'2-0', {b'f': b'w'}), (b'3-0', {b'f': b'u'})])
    same(r.xrange("x", "(1-1", "+", count=1), [(b'2-0', {b'f': b'w'})])
    same(r.xrevrange("x", count=2), [(b'3-0', {b'f': b'u'}), (b'2-0', {b'f': b'w'})])
    same(r.xread({"x": "1-1"}, count=1),
         [[b'x', [(b'2-0', {b'f': b'w'})]]] if resp == 2 else
         {b'x': [[(b'2-0', {b'f': b'w'})]]})
    same(r.xread({"x": "$"}), [] if resp == 2 else {})
    same(r.xread({"x": "$"}, block=10), [] if resp == 2 else {})
    same(r.xgroup_create("x", "g", "0"), True)
    refused('BUSYGROUP Consumer Group name already exists', r.xgroup_create, "x", "g", "0")
    same(r.xgroup_create("new", "g", "$", mkstream=True), True)
    same(r.xgroup_createconsumer("x", "g", "idle"), 1)
    same(r.xreadgroup("g", "c", {"x": ">"}, count=2),
         [[b'x', [(b'1-1', {b'f': b'v', b'g': b'1'}), (b'2-0', {b'f': b'w'})]]] if resp == 2 else
         {b'x': [[(b'1-1', {b'f': b'v', b'g': b'1'}), (b'2-0', {b'f': b'w'})]]})
    same(r.xreadgroup("g", "c", {"x": "0"}),
         [[b'x', [(b'1-1', {b'f': b'v', b'g': b'1'}), (b'2-0', {b'f': b'w'})]]] if resp == 2 else
         {b'x': [[(b'1-1', {b'f': b'v', b'g': b'1'}), (b'2-0', {b'f': b'w'})]]})
    same(r.xreadgroup("g", "d", {"x": ">"}, noack=True),
         [[b'x', [(b'3-0', {b'f': b'u'})]]] if resp == 2 else
         {b'x': [[(b'3-0', {b'f': b'u'})]]})
    same(r.xreadgroup("g", "d", {"x": ">"}, block=10), [] if resp == 2 else {})
    same(r.xack("x", "g", "1-1"), 1)
    same(r.xpending("x", "g"),
         {'pending': 1, 'min': b'2-0', 'max': b'2-0', 'consumers': [{'name': b'c', 'pending': 1}]})
    same([(p["message_id"], p["consumer"], p["times_delivered"]) for p in r.xpending_range("x", "g", "-", "+", 10)],
         [(b'2-0', b'c', 2)])
    same(r.xpending_range("x", "g", "-", "+", 10, consumername="none"), [])
    same(r.xclaim("x", "g", "e", 0, ["2-0"]), [(b'2-0', {b'f': b'w'})])
    same(r.xclaim("x", "g", "e", 0, ["2-0"], justid=True), [b'2-0'])
    same(r.xautoclaim("x", "g", "c", 0), [b'0-0', [(b'2-0', {b'f': b'w'})], []])
    same(r.xautoclaim("x", "g", "c", 0, justid=True), [b'2-0'])
    same(r.xinfo_stream("x"),
         {'length': 3,
          'radix-tree-keys': 1,
          'radix-tree-nodes': 2,
          'last-generated-id': b'3-0',
          'max-deleted-entry-id': b'0-0',
          'entries-added': 3,
          'recorded-first-entry-id': b'1-1',
          'groups': 1,
          'first-entry': (b'1-1', {b'f': b'v', b'g': b'1'}),
          'last-entry': (b'3-0', {b'f': b'u'})})
    same(r.xinfo_stream("new", full=True),
         {'length': 0,
          'radix-tree-keys': 0,
          'radix-tree-nodes': 1,
          'last-generated-id': b'0-0',
          'max-deleted-entry-id': b'0-0',
          'entries-added': 0,
          'recorded-first-entry-id': b'0-0',
          'entries': {},
          'groups': [{'name': b'g',
                      'last-delivered-id': b'0-0',
                      'entries-read': None,
                      'lag': 0,
                      'pel-count': 0,
                      'pending': [],
                      'consumers': []}]})
    same(r.xinfo_groups("x"),
         [{'name': b'g', 'consumers': 4, 'pending': 1, 'last-delivered-id': b'3-0', 'entries-read': 3, 'lag': 0}])
    same([(c["name"], c["pending"]) for c in r.xinfo_consumers("x", "g")],
         [(b'c', 1), (b'd', 0), (b'e', 0), (b'idle', 0)])
    same(r.xgroup_setid("x", "g", "1-1"), True)
    same(r.xgroup_delconsumer("x", "g", "c"), 1)
    same(r.xgroup_destroy("x", "g"), True)
    same(r.xdel("x", "1-1", "9-9"), 1)
    same(r.xtrim("x", maxlen=1, approximate=False), 1)
    same(r.xtrim("x", minid="9", approximate=True), 1)
    refused("NOGROUP No such key 'x' or consumer group 'none' in XREADGROUP with GROUP option",
            r.xreadgroup, "none", "c", {"x": ">"})


@check
def hyperloglogs(r, resp):
    same(r.pfadd("p", "a", "b", "c"), 1)
    same(r.pfadd("p", "a"), 0)
    same(r.pfcount("p"), 3)
    same(r.pfadd("q", "c", "d"), 1)
    same(r.pfcount("p", "q"), 4)
    same(r.pfmerge("m", "p", "q"), True)
    same(r.pfcount("m"), 4)


@check
def places(r, resp):
    same(r.geoadd("g", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")), 2)
    same(r.geoadd("g", (13.361389, 38.115556, "Palermo"), nx=True), 0)
    same(r.geodist("g", "Palermo", "Catania"), 166274.1516)
    same(r.geodist("g", "Palermo", "Catania", unit="km"), 166.2742)
    same(r.geodist("g", "Palermo", "none"), None)
    same(r.geohash("g", "Palermo", "none"), ['sqc8b49rny0', None] if resp == 2 else [b'sqc8b49rny0', None])
    same(r.geopos("g", "Palermo", "none"),
         [(13.361389338970184, 38.1155563954963), None] if resp == 2 else
         [[13.361389338970184, 38.1155563954963], None])
    same(r.georadius("g", 15, 37, 200, unit="km", sort="ASC"), [b'Catania', b'Palermo'])
    same(r.georadius("g", 15, 37, 200, unit="km", withdist=True, withcoord=True, withhash=True, sort="ASC"),
         [[b'Catania', 56.4413, 3479447370796909, (15.087267458438873, 37.50266842333162)],
          [b'Palermo', 190.4424, 3479099956230698, (13.361389338970184, 38.1155563954963)]])
    same(r.georadiusbymember("g", "Palermo", 200, unit="km", count=1), [b'Palermo'])
    same(r.geosearch("g", longitude=15, latitude=37, radius=200, unit="km", sort="DESC"), [b'Palermo', b'Catania'])
    same(r.geosearch("g", member="Palermo", width=400, height=400, unit="km", withdist=True, sort="ASC"),
         [[b'Palermo', 0.0], [b'Catania', 166.2742]])
    refused('could not decode requested zset member', r.geosearch, "g", member="none", radius=1)
    same(r.geosearchstore("near", "g", longitude=15, latitude=37, radius=100, unit="km", storedist=True), 1)
    same(r.zrange("near", 0, -1, withscores=True),
         [(b'Catania', 56.4412578701582)] if resp == 2 else
         [[b'Catania', 56.4412578701582]])


@check
def serialized_values(r, resp):
    same(r.rpush("l", 1, "two"), 2)
    same(r.restore("copy", 0, r.dump("l")), b'OK')
    same(r.lrange("copy", 0, -1), [b'1', b'two'])
    refused('BUSYKEY Target key name already exists.', r.restore, "copy", 0, r.dump("l"))
    same(r.restore("copy", 100000, r.dump("l"), replace=True), b'OK')
    same(r.dump("none"), None)
    refused('DUMP payload version or checksum are wrong', r.restore, "bad", 0, b"nonsense")
    same(r.object("encoding", "l"), b'quicklist')
    same(r.object("refcount", "l"), 1)
    same(r.object("encoding", "none"), None)
    same(r.memory_usage("none"), None)


@check_ours
def fields_that_expire(r, resp):
    r.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    same(r.hexpire("h", 100, "a", "none"), [1, -2])
    same(r.hexpire("none", 100, "a"), [-2])
    same(r.hpexpire("h", 50_000, "a", lt=True), [1])
    same(r.hpexpire("h", 50_000, "b", xx=True), [0])
    moment = int(time.time()) + 1000
    same(r.hexpireat("h", moment, "b", nx=True), [1])
    same(r.hexpiretime("h", "b", "c", "none"), [moment, -1, -2])
    same(r.hpexpireat("h", moment * 1000 + 5, "b", gt=True), [1])
    same(r.hpexpiretime("h", "b"), [moment * 1000 + 5])
    assert 45 <= r.httl("h", "a")[0] <= 50
    assert 45_000 <= r.hpttl("h", "a")[0] <= 50_000
    same(r.hpersist("h", "a", "c", "none"), [1, -1, -2])
    same(r.httl("h", "a"), [-1])
    same(r.hexpire("h", 0, "a"), [2])
    same(r.hgetall("h"), {b"b": b"2", b"c": b"3"})
    same(r.hgetex("h", "c", "none", ex=100), [b"3", None])
    assert 95 <= r.httl("h", "c")[0] <= 100
    same(r.hgetex("h", "c", persist=True), [b"3"])
    same(r.hsetex("h", "d", "4", px=100_000), 1)
    same(r.hsetex("h", mapping={"d": 5, "e": 6}, data_persist_option=HashDataPersistOptions.FNX), 0)
    same(r.hgetdel("h", "d", "none"), [b"4", None])
    same(r.hpexpire("h", 20, "b"), [1])
    time.sleep(0.06)
    same(r.hget("h", "b"), None)
    same(r.hgetdel("h", "c"), [b"3"])
    same(r.exists("h"), 0)
    refused("invalid expire time", r.hexpire, "h", -1, "a")
