//! The table of commands a sequence is made of, one template per row.
//!
//! A template is words in this small notation, separated by spaces:
//!
//! ```text
//! <atom>        something from a pool, see generator.rs
//! [ x y ]       maybe
//! ( x | y z )   one of these
//! { x | y z }   any of these, in any order
//! <atom>+  )+   one to four times; <atom>* )* none to four times
//! anything else a word to the letter, in any mix of cases
//! ```
//!
//! What a template cannot say (wrong arity, arguments of the wrong kind) the generator does to a
//! finished command. Amounts of memory are bounded here: no pool holds an offset that makes a
//! server allocate half a gigabyte.

/// One row: how often, for whom, what.
pub struct Row {
    /// Name used by `--groups`.
    pub group: &'static str,
    /// Relative frequency.
    pub weight: u32,
    /// Leave the row out when the server under test does not know the command. Only for groups
    /// that support the comparison of others, such as keys of another type.
    pub optional: bool,
    /// The template.
    pub template: &'static str,
}

const fn row(group: &'static str, weight: u32, template: &'static str) -> Row {
    Row {
        group,
        weight,
        optional: false,
        template,
    }
}

const fn extra(group: &'static str, weight: u32, template: &'static str) -> Row {
    Row {
        group,
        weight,
        optional: true,
        template,
    }
}

/// Every command the comparison knows.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("scripting", 12, "EVAL <script> 2 <key> <key> <value>"),
    row("scripting", 4, "EVAL_RO <script> 2 <key> <key> <value>"),
    row("scripting", 2, "EVAL <script> <int> <key> <key> <value>"),
    row("scripting", 3, "EVALSHA ( e0e1f9fabfc9d4800c877a703b823ac0578ff8db | <junk> ) 0"),
    row("scripting", 2, "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db <junk>"),
    row("scripting", 2, "SCRIPT LOAD ( <script> | <junk> )"),
    row("scripting", 1, "SCRIPT FLUSH [ ( SYNC | ASYNC | <junk> ) ]"),
    row("string", 40, "SET <key> <value>"),
    row("string", 30, "SET <key> <value> { EX <seconds> | PX <millis> | EXAT <at> | PXAT <atms> | KEEPTTL | NX | XX | GET | GET | <junk> }"),
    row("string", 10, "SET <key> <value> { ( EX <seconds> | PX <millis> | EXAT <at> | PXAT <atms> | KEEPTTL ) | ( NX | XX ) | GET }"),
    row("string", 15, "GET <key>"),
    row("string", 6, "GETSET <key> <value>"),
    row("string", 8, "GETEX <key> { EX <seconds> | PX <millis> | EXAT <at> | PXAT <atms> | PERSIST }"),
    row("string", 8, "GETEX <key> [ ( EX <seconds> | PX <millis> | EXAT <at> | PXAT <atms> | PERSIST | <junk> ) ]"),
    row("string", 6, "GETDEL <key>"),
    row("string", 8, "GETRANGE <key> <index> <index>"),
    row("string", 3, "SUBSTR <key> <index> <index>"),
    row("string", 10, "SETRANGE <key> <offset> <value>"),
    row("string", 6, "SETNX <key> <value>"),
    row("string", 6, "SETEX <key> <seconds> <value>"),
    row("string", 6, "PSETEX <key> <millis> <value>"),
    row("string", 6, "MGET <key>+"),
    row("string", 6, "MSET ( <key> <value> )+"),
    row("string", 6, "MSETNX ( <key> <value> )+"),
    row("string", 10, "APPEND <key> <value>"),
    row("string", 6, "STRLEN <key>"),
    row("string", 10, "INCR <key>"),
    row("string", 8, "DECR <key>"),
    row("string", 10, "INCRBY <key> <int>"),
    row("string", 10, "DECRBY <key> <int>"),
    row("string", 12, "INCRBYFLOAT <key> <float>"),
    row("string", 8, "LCS <key> <key> { LEN | IDX | MINMATCHLEN <small> | WITHMATCHLEN | <junk> }"),
    row("string", 5, "LCS <key> <key> { IDX | MINMATCHLEN <small> | WITHMATCHLEN }"),

    row("bitmap", 12, "SETBIT <key> <bit> ( 0 | 1 | 1 | 1 | <int> )"),
    row("bitmap", 6, "GETBIT <key> <bit>"),
    row("bitmap", 8, "BITCOUNT <key> [ <index> <index> [ ( BYTE | BIT | <junk> ) ] ]"),
    row("bitmap", 8, "BITPOS <key> ( 0 | 1 | <int> ) [ <index> [ <index> [ ( BYTE | BIT | <junk> ) ] ] ]"),
    row("bitmap", 8, "BITOP ( AND | OR | XOR ) <key> <key>+"),
    row("bitmap", 5, "BITOP ( NOT | NOT | <junk> ) <key> <key>+"),
    row("bitmap", 12, "BITFIELD <key> ( GET <bittype> <bitoffset> | SET <bittype> <bitoffset> <int> | INCRBY <bittype> <bitoffset> <int> | OVERFLOW ( WRAP | SAT | FAIL | <junk> ) )+"),
    row("bitmap", 5, "BITFIELD <key> OVERFLOW ( SAT | FAIL | WRAP ) ( SET <bittype> <bitoffset> <int> | INCRBY <bittype> <bitoffset> <int> )+"),
    row("bitmap", 4, "BITFIELD_RO <key> ( GET <bittype> <bitoffset> )*"),
    row("bitmap", 2, "BITFIELD_RO <key> ( GET <bittype> <bitoffset> | SET <bittype> <bitoffset> <int> )+"),

    row("keys", 8, "DEL <key>+"),
    row("keys", 4, "UNLINK <key>+"),
    row("keys", 6, "EXISTS <key>+"),
    row("keys", 5, "TYPE <key>"),
    row("keys", 3, "TOUCH <key>+"),
    row("keys", 7, "RENAME <key> <key>"),
    row("keys", 5, "RENAMENX <key> <key>"),
    row("keys", 7, "COPY <key> <key> { DB <db> | REPLACE | <junk> }"),
    row("keys", 4, "COPY <key> <key> { DB <db> | REPLACE }"),
    row("keys", 5, "MOVE <key> <db>"),
    row("keys", 1, "RANDOMKEY <junk>"),
    row("keys", 6, "KEYS <pattern>"),
    // Pages of a walk are each server's own, and so is what expires on them; whole walks and
    // what is refused can be compared.
    row("keys", 2, "SCAN <junk> { MATCH <pattern> | COUNT <int> | TYPE <typename> | <junk> }"),
    row("keys", 2, "SCAN <int> { MATCH <pattern> | COUNT <int> | TYPE <typename> } <junk>"),
    row("keys", 4, "DBSIZE"),
    row("keys", 10, "OBJECT ENCODING <key>"),
    row("keys", 3, "OBJECT REFCOUNT <key>"),
    row("keys", 2, "OBJECT FREQ <key>"),
    row("keys", 2, "OBJECT IDLETIME <key>"),
    row("keys", 1, "OBJECT HELP"),
    row("keys", 1, "OBJECT <junk> <key>*"),
    row("keys", 6, "EXPIRE <key> <seconds> { NX | XX | GT | LT | <junk> }"),
    row("keys", 10, "EXPIRE <key> <seconds> [ ( NX | XX | GT | LT ) ]"),
    row("keys", 6, "PEXPIRE <key> <millis> [ ( NX | XX | GT | LT | XX GT | XX LT ) ]"),
    row("keys", 6, "EXPIREAT <key> <at> [ ( NX | XX | GT | LT ) ]"),
    row("keys", 6, "PEXPIREAT <key> <atms> [ ( NX | XX | GT | LT ) ]"),
    row("keys", 6, "TTL <key>"),
    row("keys", 6, "PTTL <key>"),
    row("keys", 4, "EXPIRETIME <key>"),
    row("keys", 4, "PEXPIRETIME <key>"),
    row("keys", 6, "PERSIST <key>"),
    row("keys", 6, "SELECT <db>"),
    row("keys", 3, "SWAPDB <db> <db>"),
    row("keys", 2, "FLUSHDB [ ( ASYNC | SYNC | <junk> ) ]"),
    row("keys", 1, "FLUSHALL [ ( ASYNC | SYNC | <junk> ) ]"),
    extra("keys", 3, "DUMP <missing>"),

    row("transactions", 10, "MULTI"),
    row("transactions", 14, "EXEC"),
    row("transactions", 3, "DISCARD"),
    row("transactions", 8, "WATCH <key>+"),
    row("transactions", 2, "UNWATCH"),

    row("pubsub", 5, "SUBSCRIBE <channel>+"),
    row("pubsub", 5, "PSUBSCRIBE <chanpattern>+"),
    row("pubsub", 3, "SSUBSCRIBE <channel>+"),
    row("pubsub", 4, "UNSUBSCRIBE <channel>*"),
    row("pubsub", 4, "PUNSUBSCRIBE <chanpattern>*"),
    row("pubsub", 3, "SUNSUBSCRIBE <channel>*"),
    row("pubsub", 12, "PUBLISH <channel> <value>"),
    row("pubsub", 6, "SPUBLISH <channel> <value>"),
    row("pubsub", 3, "PUBSUB CHANNELS [ <chanpattern> ]"),
    row("pubsub", 3, "PUBSUB NUMSUB <channel>*"),
    row("pubsub", 2, "PUBSUB NUMPAT"),
    row("pubsub", 2, "PUBSUB SHARDCHANNELS [ <chanpattern> ]"),
    row("pubsub", 2, "PUBSUB SHARDNUMSUB <channel>*"),
    row("pubsub", 1, "PUBSUB HELP"),
    row("pubsub", 1, "PUBSUB <junk>"),
    row("pubsub", 8, "CONFIG SET notify-keyspace-events <notify>"),
    row("pubsub", 5, "SUBSCRIBE <keyevent>+"),
    row("pubsub", 3, "PSUBSCRIBE ( __key*__:* | __keyspace@*__:* | __keyevent@?__:* )"),

    row("connection", 4, "PING [ <value> ]"),
    row("connection", 3, "ECHO <value>"),
    row("connection", 4, "HELLO [ ( 2 | 3 | 4 | 1 | <int> | <junk> ) [ SETNAME ( me | <value> ) ] ]"),
    row("connection", 1, "HELLO ( 2 | 3 ) { AUTH <value> <value> | AUTH default <value> | SETNAME me | <junk> }"),
    row("connection", 2, "RESET"),
    row("connection", 2, "AUTH <value> [ <value> ]"),
    row("connection", 1, "AUTH default <value>"),
    row("connection", 3, "CLIENT SETNAME ( me | <value> )"),
    row("connection", 3, "CLIENT GETNAME"),
    row("connection", 1, "CLIENT ID"),
    row("connection", 3, "CLIENT INFO"),
    row("connection", 1, "CLIENT NO-EVICT ( ON | OFF | <junk> )"),
    row("connection", 1, "CLIENT REPLY ( ON | <junk> )"),
    row("connection", 1, "CLIENT UNPAUSE"),
    row("connection", 1, "CLIENT PAUSE ( 0 [ ( WRITE | ALL | <junk> ) ] | <junk> )"),
    row("connection", 1, "CLIENT GETREDIR"),
    row("connection", 1, "CLIENT TRACKINGINFO"),
    row("connection", 1, "CLIENT CACHING ( YES | NO | <junk> )"),
    row("connection", 1, "CLIENT UNBLOCK ( 99999999 | <junk> ) [ ( TIMEOUT | ERROR | <junk> ) ]"),
    row("connection", 1, "CLIENT KILL ( ID 99999999 | TYPE <junk> | ID <junk> | 127.0.0.1:1 | ADDR 127.0.0.1:1 | <junk> <junk> )"),
    row("connection", 1, "CLIENT LIST ( TYPE <junk> | ID <junk> | ID 99999999 | <junk> )"),
    row("connection", 1, "CLIENT HELP"),
    row("connection", 1, "CLIENT <junk>"),
    row("connection", 1, "QUIT"),

    row("server", 3, "COMMAND GETKEYS <knowncommand>"),
    row("server", 2, "COMMAND GETKEYSANDFLAGS <knowncommand>"),
    row("server", 2, "COMMAND GETKEYS <junk>*"),
    row("server", 3, "COMMAND INFO <commandname>+"),
    row("server", 3, "INFO [ ( EVERYTHING | ALL | MEMORY | KEYSPACE ) ]"),
    row("server", 2, "MEMORY ( DOCTOR | STATS )"),
    row("server", 1, "COMMAND LIST FILTERBY ( ACLCAT <junk> | MODULE <junk> | <junk> )"),
    row("server", 1, "COMMAND HELP"),
    row("server", 1, "COMMAND <junk>"),
    row("server", 2, "CONFIG GET ( <parameter> | <parameter> <parameter> | <junk> )"),
    row("server", 4, "CONFIG SET ( <setting> )+"),
    row("server", 1, "CONFIG SET <junk> <value>"),
    row("server", 1, "CONFIG HELP"),
    row("server", 1, "CONFIG <junk>"),
    row("server", 1, "DEBUG ( STRINGMATCH-LEN 10 <pattern> | OBJECT <missing> | <junk> )"),
    row("server", 2, "TIME"),
    row("server", 1, "LOLWUT VERSION <junk>"),
    row("server", 3, "<junk> <value>*"),

    row("set", 30, "SADD <skey> <member>+"),
    row("set", 10, "SADD <skey> <int>+"),
    row("set", 8, "SADD <skey> ( 1 2 3 4 5 6 7 | 100000 -100000 | a b c d e )"),
    row("set", 12, "SREM <skey> <member>+"),
    row("set", 5, "SISMEMBER <skey> <member>"),
    row("set", 5, "SMISMEMBER <skey> <member>+"),
    row("set", 4, "SCARD <skey>"),
    row("set", 5, "SMEMBERS <skey>"),
    row("set", 8, "SMOVE <skey> <skey> <member>"),
    row("set", 3, "SPOP <skey> ( 0 | 1000 | -1 | x )"),
    row("set", 2, "SPOP <missing> [ <junk> ]"),
    row("set", 3, "SRANDMEMBER <skey> ( 0 | 1000 | x )"),
    row("set", 2, "SRANDMEMBER <missing> [ <junk> ]"),
    row("set", 8, "( SINTER | SUNION | SDIFF ) <skey>+"),
    row("set", 12, "( SINTERSTORE | SUNIONSTORE | SDIFFSTORE ) <skey> <skey>+"),
    row("set", 5, "SINTERCARD <numkeys> <skey>+ [ LIMIT ( <index> | <junk> ) ]"),
    row("set", 3, "SSCAN <skey> 0 COUNT 1000 [ MATCH <pattern> ]"),
    row("set", 2, "SSCAN <skey> 0 COUNT ( 0 | -1 | x )"),
    row("set", 2, "SSCAN <skey> ( x | 0x | 18446744073709551616 ) { COUNT <junk> | MATCH <pattern> | <junk> }"),
    row("set", 3, "CONFIG SET set-max-intset-entries ( 0 | 4 | 512 )"),
    row("set", 5, "OBJECT ENCODING <skey>"),
    row("set", 3, "COPY <skey> <skey> REPLACE"),
    row("set", 2, "DEL <skey>"),
    row("hash", 30, "HSET <hkey> ( <member> <value> )+"),
    row("hash", 8, "HMSET <hkey> ( <member> <value> )+"),
    row("hash", 6, "( HSET | HMSET ) <hkey> <member> <value> [ <junk> ]"),
    row("hash", 8, "HSETNX <hkey> <member> <value>"),
    row("hash", 10, "HGET <hkey> <member>"),
    row("hash", 6, "HMGET <hkey> <member>+"),
    row("hash", 8, "( HGETALL | HKEYS | HVALS | HLEN ) <hkey>"),
    row("hash", 10, "HDEL <hkey> <member>+"),
    row("hash", 4, "( HEXISTS | HSTRLEN ) <hkey> <member>"),
    row("hash", 12, "HINCRBY <hkey> <member> <int>"),
    row("hash", 10, "HINCRBYFLOAT <hkey> <member> <float>"),
    row("hash", 5, "HSET <hkey> <member> ( <int> | <float> )"),
    row("hash", 3, "HRANDFIELD <hkey> ( 0 | 1000 | x ) [ ( WITHVALUES | <junk> ) ]"),
    row("hash", 2, "HRANDFIELD <missing> [ <junk> ]"),
    row("hash", 3, "HSCAN <hkey> 0 COUNT 1000 [ MATCH <pattern> ]"),
    row("hash", 2, "HSCAN <hkey> 0 COUNT ( 0 | -1 | x )"),
    row("hash", 2, "HSCAN <hkey> ( x | 0x | 18446744073709551616 ) { COUNT <junk> | MATCH <pattern> | <junk> }"),
    row("hash", 3, "CONFIG SET hash-max-listpack-entries ( 0 | 4 | 512 )"),
    row("hash", 2, "CONFIG SET hash-max-listpack-value ( 3 | 64 )"),
    row("hash", 5, "OBJECT ENCODING <hkey>"),
    row("hash", 3, "COPY <hkey> <hkey> REPLACE"),
    row("hash", 2, "DEL <hkey>"),
    row("zset", 30, "ZADD <zkey> ( <score> <member> )+"),
    row("zset", 14, "ZADD <zkey> { NX | XX | GT | LT | CH | INCR | <junk> } ( <score> <member> )+"),
    row("zset", 12, "ZADD <lexkey> ( 0 <member> )+"),
    row("zset", 10, "ZADD <zkey> ( 1 <member> 2 <member> 3 <member> 4 <member> 2 <member> )+"),
    row("zset", 8, "ZINCRBY <zkey> <score> <member>"),
    row("zset", 8, "ZREM <zkey> <member>+"),
    row("zset", 3, "ZCARD <zkey>"),
    row("zset", 5, "ZSCORE <zkey> <member>"),
    row("zset", 5, "ZMSCORE <zkey> <member>+"),
    row("zset", 6, "( ZRANK | ZREVRANK ) <zkey> <member>"),
    row("zset", 6, "ZCOUNT <zkey> <scorebound> <scorebound>"),
    row("zset", 6, "ZLEXCOUNT <lexkey> <lexbound> <lexbound>"),
    row("zset", 10, "ZRANGE <zkey> <index> <index> { REV | WITHSCORES | LIMIT <index> <index> | <junk> }"),
    row("zset", 10, "ZRANGE <zkey> <scorebound> <scorebound> BYSCORE { REV | WITHSCORES | LIMIT <index> <index> }"),
    row("zset", 8, "ZRANGE <lexkey> <lexbound> <lexbound> BYLEX { REV | WITHSCORES | LIMIT <index> <index> }"),
    row("zset", 5, "ZRANGE <lexkey> <lexbound> <lexbound> BYLEX [ REV ] [ LIMIT <small> <index> ]"),
    row("zset", 5, "ZRANGESTORE <zkey> <zkey> <index> <index> { REV | BYSCORE | LIMIT <index> <index> | <junk> }"),
    row("zset", 5, "ZRANGESTORE <zkey> <zkey> <scorebound> <scorebound> BYSCORE { REV | LIMIT <index> <index> }"),
    row("zset", 5, "ZREVRANGE <zkey> <index> <index> [ WITHSCORES ]"),
    row("zset", 8, "( ZRANGEBYSCORE | ZREVRANGEBYSCORE ) <zkey> <scorebound> <scorebound> { WITHSCORES | LIMIT <index> <index> | <junk> }"),
    row("zset", 6, "( ZRANGEBYLEX | ZREVRANGEBYLEX ) <lexkey> <lexbound> <lexbound> [ LIMIT <index> <index> ]"),
    row("zset", 4, "ZREMRANGEBYRANK <zkey> <index> <index>"),
    row("zset", 4, "ZREMRANGEBYSCORE <zkey> <scorebound> <scorebound>"),
    row("zset", 4, "ZREMRANGEBYLEX <lexkey> <lexbound> <lexbound>"),
    row("zset", 6, "( ZPOPMIN | ZPOPMAX ) <zkey> [ <index> ]"),
    row("zset", 5, "ZMPOP <numkeys> <zkey>+ ( MIN | MAX ) [ COUNT <index> ]"),
    row("zset", 3, "ZMPOP 2 <zkey> <zkey> ( MIN | MAX | <junk> ) { COUNT <small> | <junk> }"),
    row("zset", 3, "( BZPOPMIN | BZPOPMAX ) <zkey>+ ( 0.001 | 0.001 | -1 | x )"),
    // Times to wait are short or none: nobody comes to wake.
    row("zset", 3, "BZMPOP ( 0.001 | 0.001 | -1 | x ) 1 <zkey> ( MIN | MAX ) [ COUNT <small> ]"),
    row("zset", 8, "( ZUNION | ZINTER | ZDIFF ) 2 <zkey> <zkey> { WITHSCORES | WITHSCORES | AGGREGATE ( SUM | MIN | MAX ) | WEIGHTS <score> <score> }"),
    row("zset", 5, "( ZUNION | ZINTER | ZDIFF ) <numkeys> <zkey>+ [ WITHSCORES ]"),
    row("zset", 8, "( ZUNIONSTORE | ZINTERSTORE | ZDIFFSTORE ) <zkey> 2 <zkey> <zkey> { AGGREGATE ( SUM | MIN | MAX | <junk> ) | WEIGHTS <score> <score> | <junk> }"),
    row("zset", 5, "( ZUNIONSTORE | ZINTERSTORE | ZDIFFSTORE ) <zkey> 3 <zkey> <zkey> <zkey>"),
    Row { optional: true, ..row("zset", 5, "SADD ( z3 | z3 | a ) <member>+") },
    row("zset", 4, "ZINTERCARD <numkeys> <zkey>+ [ LIMIT <index> ]"),
    row("zset", 3, "ZRANDMEMBER <zkey> ( 0 | 1000 | x ) [ ( WITHSCORES | <junk> ) ]"),
    row("zset", 3, "ZRANDMEMBER <missing> [ <junk> ]"),
    row("zset", 3, "ZSCAN <zkey> 0 COUNT 1000 [ MATCH <pattern> ]"),
    row("zset", 2, "ZSCAN <zkey> 0 COUNT ( 0 | -1 | x )"),
    row("zset", 2, "ZSCAN <zkey> ( x | 0x | 18446744073709551616 ) { COUNT <junk> | MATCH <pattern> | <junk> }"),
    row("zset", 3, "CONFIG SET zset-max-listpack-entries ( 0 | 4 | 128 )"),
    row("zset", 2, "CONFIG SET zset-max-listpack-value ( 3 | 64 )"),
    row("zset", 5, "OBJECT ENCODING <zkey>"),
    row("zset", 3, "COPY <zkey> <zkey> REPLACE"),
    row("zset", 2, "DEL <zkey>"),

    row("geo", 30, "GEOADD <geokey> ( <longitude> <latitude> <member> )+"),
    row("geo", 10, "GEOADD <geokey> { NX | XX | CH | <junk> } ( <longitude> <latitude> <member> )+"),
    row("geo", 8, "GEODIST <geokey> <member> <member> [ ( <unit> | <unit> | <junk> ) ]"),
    row("geo", 6, "GEOHASH <geokey> <member>*"),
    row("geo", 6, "GEOPOS <geokey> <member>*"),
    row("geo", 10, "( GEORADIUS | GEORADIUS_RO ) <geokey> <longitude> <latitude> <distance> <unit> { WITHDIST | WITHCOORD | WITHHASH | ASC | DESC | <junk> }"),
    row("geo", 10, "( GEORADIUS | GEORADIUS_RO ) <geokey> <longitude> <latitude> <distance> <unit> WITHDIST ASC COUNT <index> [ ANY ]"),
    row("geo", 6, "GEORADIUS <geokey> <longitude> <latitude> <distance> <unit> { STORE <geokey> | STOREDIST <geokey> | DESC | WITHDIST }"),
    row("geo", 8, "( GEORADIUSBYMEMBER | GEORADIUSBYMEMBER_RO ) <geokey> <member> <distance> <unit> { WITHDIST | WITHCOORD | WITHHASH | ASC | STORE <geokey> }"),
    row("geo", 14, "GEOSEARCH <geokey> FROMLONLAT <longitude> <latitude> ( BYRADIUS <distance> <unit> | BYBOX <distance> <distance> <unit> ) { WITHDIST | WITHCOORD | WITHHASH | ASC | DESC | COUNT <small> | COUNT <small> ANY }"),
    row("geo", 10, "GEOSEARCH <geokey> FROMMEMBER <member> ( BYRADIUS <distance> <unit> | BYBOX <distance> <distance> <unit> ) { WITHDIST | WITHCOORD | ASC | COUNT <index> }"),
    row("geo", 5, "GEOSEARCH <geokey> { FROMMEMBER <member> | FROMLONLAT <longitude> <latitude> | BYRADIUS <distance> <unit> | BYBOX <distance> <distance> <unit> | ANY | <junk> }"),
    row("geo", 8, "GEOSEARCHSTORE <geokey> <geokey> FROMLONLAT <longitude> <latitude> ( BYRADIUS <distance> <unit> | BYBOX <distance> <distance> <unit> ) { STOREDIST | ASC | COUNT <small> | WITHDIST }"),
    row("geo", 4, "ZADD <geokey> <score> <member>"),
    row("geo", 3, "ZREM <geokey> <member>"),
    row("geo", 2, "CONFIG SET zset-max-listpack-entries ( 0 | 4 | 128 )"),

    row("hll", 30, "PFADD <hllkey> <value>*"),
    row("hll", 12, "PFADD <hllkey> <value> <value> <value> <value> <int> <int> <int> <float> <member> <member>"),
    row("hll", 12, "PFCOUNT <hllkey>"),
    row("hll", 8, "PFCOUNT <hllkey>+"),
    row("hll", 8, "PFMERGE <hllkey> <hllkey>*"),
    row("hll", 5, "PFDEBUG ( GETREG | DECODE | ENCODING | TODENSE | <junk> ) <hllkey>"),
    row("hll", 8, "PFDEBUG DECODE <hllkey>"),
    row("hll", 8, "GET <hllkey>"),
    // Not an opcode cut off at the end: there Redis reads and writes behind the string.
    row("hll", 3, "SETRANGE <hllkey> ( 0 | 3 | 4 | 8 | 15 ) ( 0 | 1 | x )"),
    row("hll", 2, "APPEND <hllkey> <value>"),
    row("hll", 3, "DEL <hllkey>"),
    row("hll", 3, "CONFIG SET hll-sparse-max-bytes ( 20 | 100 | 3000 )"),

    row("list", 20, "( LPUSH | RPUSH ) <listkey> <value>+"),
    row("list", 12, "( LPUSH | RPUSH ) <listkey> <member> <int> <value> <member> <member> <value> <int> <member>"),
    row("list", 5, "( LPUSHX | RPUSHX ) <listkey> <value>+"),
    row("list", 14, "( LPOP | RPOP ) <listkey> [ <index> ]"),
    row("list", 12, "LRANGE <listkey> <index> <index>"),
    row("list", 6, "LINDEX <listkey> <index>"),
    row("list", 3, "LLEN <listkey>"),
    row("list", 10, "LSET <listkey> <index> <value>"),
    row("list", 12, "LINSERT <listkey> ( BEFORE | AFTER | BEFORE | AFTER | <junk> ) <member> <value>"),
    row("list", 8, "LREM <listkey> <index> <member>"),
    row("list", 6, "LTRIM <listkey> <index> <index>"),
    row("list", 8, "LPOS <listkey> <member> { RANK <index> | COUNT <index> | MAXLEN <index> | <junk> }"),
    row("list", 8, "LMOVE <listkey> <listkey> ( LEFT | RIGHT ) ( LEFT | RIGHT | LEFT | RIGHT | <junk> )"),
    row("list", 5, "RPOPLPUSH <listkey> <listkey>"),
    row("list", 5, "LMPOP <numkeys> <listkey>+ ( LEFT | RIGHT ) [ COUNT <index> ]"),
    row("list", 3, "LMPOP 2 <listkey> <listkey> ( LEFT | RIGHT | <junk> ) { COUNT <small> | <junk> }"),
    // Times to wait are short or none: nobody comes to wake.
    row("list", 4, "( BLPOP | BRPOP ) <listkey>+ ( 0.001 | 0.001 | -1 | x )"),
    row("list", 3, "BLMOVE <listkey> <listkey> ( LEFT | RIGHT ) ( LEFT | RIGHT ) ( 0.001 | 0.001 | -1 | x )"),
    row("list", 2, "BRPOPLPUSH <listkey> <listkey> ( 0.001 | -1 )"),
    row("list", 2, "BLMPOP ( 0.001 | 0.001 | -1 | x ) 2 <listkey> <listkey> ( LEFT | RIGHT ) [ COUNT <small> ]"),
    row("list", 3, "CONFIG SET list-max-listpack-size ( -2 | 2 | 5 | 0 | -1 )"),
    row("list", 2, "CONFIG SET list-compress-depth ( 0 | 1 | 2 )"),
    row("list", 2, "COPY <listkey> <listkey> REPLACE"),
    row("list", 2, "DEL <listkey>"),

    row("stream", 30, "XADD <streamkey> <streamid> ( <member> <value> )+"),
    row("stream", 20, "XADD <streamkey> ( 7-* | 9-* | 12-* | 13-* | 14-* ) ( f <member> | g <value> )+"),
    row("stream", 10, "XADD <streamkey> { NOMKSTREAM | ( MAXLEN | MINID ) ( ~ | = | ~ | <small> ) <small> | LIMIT <index> } <streamid> <member> <value>"),
    row("stream", 10, "( XRANGE | XREVRANGE ) <streamkey> <edgeid> <edgeid> [ COUNT <index> ]"),
    row("stream", 6, "( XRANGE | XREVRANGE ) <streamkey> ( - | + ) ( + | - )"),
    row("stream", 3, "XLEN <streamkey>"),
    row("stream", 10, "XDEL <streamkey> <streamid>+"),
    row("stream", 8, "XTRIM <streamkey> ( MAXLEN | MINID | <junk> ) [ ( ~ | = ) ] <small> [ LIMIT <index> ]"),
    row("stream", 2, "XSETID <streamkey> <streamid> { ENTRIESADDED <index> | MAXDELETEDID <streamid> | <junk> }"),
    row("stream", 8, "XREAD { COUNT <index> | BLOCK ( 1 | -1 | x ) | <junk> } STREAMS <streamkey> <edgeid>"),
    row("stream", 6, "XREAD [ COUNT <index> ] STREAMS <streamkey> <streamkey> <edgeid> <edgeid>"),
    row("stream", 12, "XGROUP CREATE <streamkey> <group> <edgeid> { MKSTREAM | MKSTREAM | ENTRIESREAD <index> | <junk> }"),
    row("stream", 5, "XGROUP SETID <streamkey> <group> <edgeid> [ ENTRIESREAD <index> ]"),
    row("stream", 2, "XGROUP DESTROY <streamkey> <group>"),
    row("stream", 4, "XGROUP ( CREATECONSUMER | DELCONSUMER ) <streamkey> <group> <consumer>"),
    row("stream", 1, "XGROUP ( HELP | <junk> <junk> )"),
    row("stream", 20, "XREADGROUP GROUP <group> <consumer> { COUNT <index> | NOACK | BLOCK ( 1 | -1 ) | <junk> } STREAMS <streamkey> ( > | > | > | <edgeid> )"),
    row("stream", 6, "XREADGROUP GROUP <group> <consumer> STREAMS <streamkey> <streamkey> ( > | <streamid> ) ( > | 0 )"),
    row("stream", 10, "XACK <streamkey> <group> <streamid>+"),
    row("stream", 5, "XPENDING <streamkey> <group>"),
    row("stream", 8, "XPENDING <streamkey> <group> [ IDLE ( 0 | 1000000 | x ) ] <edgeid> <edgeid> <index> [ <consumer> ]"),
    row("stream", 12, "XCLAIM <streamkey> <group> <consumer> ( 0 | 0 | 1000000 | -1 | x ) <streamid>+ { FORCE | FORCE | JUSTID | TIME ( 1 | x ) | RETRYCOUNT <index> | LASTID <streamid> | IDLE 5000000 | <junk> }"),
    row("stream", 10, "XAUTOCLAIM <streamkey> <group> <consumer> ( 0 | 0 | 1000000 | x ) <edgeid> { COUNT <index> | JUSTID | <junk> }"),
    row("stream", 5, "XINFO STREAM <streamkey> [ ( FULL | FULL | <junk> ) [ COUNT <index> ] ]"),
    row("stream", 5, "XINFO GROUPS <streamkey>"),
    row("stream", 4, "XINFO CONSUMERS <streamkey> <group>"),
    row("stream", 1, "XINFO ( HELP | <junk> )"),
    row("stream", 3, "CONFIG SET stream-node-max-entries ( 0 | 2 | 5 | 100 )"),
    row("stream", 2, "CONFIG SET stream-node-max-bytes ( 0 | 60 | 4096 )"),
    row("stream", 2, "COPY <streamkey> <streamkey> REPLACE"),
    row("stream", 2, "DEL <streamkey>"),
    // No number out of range: SORT in Redis minds one that an earlier command met. No set in the
    // order of its table.
    row("sort", 14, "RPUSH <sortlist> <int>+"),
    row("sort", 8, "RPUSH <sortlist> ( 1 | 2 | 3 | 10 | 1.5 | -2 )+"),
    row("sort", 3, "RPUSH <sortlist> ( <decimal> | word )"),
    row("sort", 8, "SADD <sortset> ( 1 | 2 | 3 | 10 | 1.5 | -2 )+"),
    row("sort", 8, "ZADD <sortzset> ( <small> ( 1 | 2 | 3 | 10 | 1.5 | -2 ) )+"),
    row("sort", 8, "SET <weight> ( <small> | <decimal> | <decimal> | <int> | word )"),
    row("sort", 8, "HSET <weighthash> ( name <value> | w <int> )"),
    row("sort", 6, "LTRIM <sortlist> 0 <small>"),
    row("sort", 8, "SORT ( <sortlist> | <sortset> | <sortzset> ) { ASC | DESC | ALPHA | LIMIT <index> <index> | GET # | <junk> }"),
    row("sort", 12, "SORT ( <sortlist> | <sortset> | <sortzset> ) [ ALPHA ] { DESC | LIMIT <index> <index> | GET # | GET <sortpattern> | GET <sortpattern> }"),
    row("sort", 12, "SORT ( <sortlist> | <sortzset> ) BY <sortpattern> { DESC | LIMIT 0 100 | GET # | GET <sortpattern> | STORE dest }"),
    row("sort", 8, "SORT ( <sortlist> | <sortzset> ) BY nosort { ASC | DESC | LIMIT <index> <index> | GET <sortpattern> }"),
    row("sort", 8, "SORT ( <sortlist> | <sortset> | <sortzset> ) ALPHA STORE dest { DESC | LIMIT <index> <index> | GET <sortpattern> | BY nosort }"),
    row("sort", 6, "SORT_RO ( <sortlist> | <sortzset> ) [ BY <sortpattern> ] [ GET <sortpattern> ]"),
    row("sort", 3, "SORT_RO <sortlist> ( STORE dest | <junk> )"),
    row("sort", 5, "LRANGE dest 0 -1"),
    row("sort", 3, "OBJECT ENCODING <sortzset>"),
    row("sort", 2, "COMMAND GETKEYS SORT <sortlist> { STORE dest | BY <sortpattern> | LIMIT 1 2 | STORE other }"),

    // Keys of other types, so that WRONGTYPE, TYPE, COPY and RENAME meet them.
    extra("types", 3, "LPUSH <key> <value>+"),
    extra("types", 3, "SADD <key> <value>+"),
    extra("types", 3, "HSET <key> ( <value> <value> )+"),
    extra("types", 3, "ZADD <key> ( <int> <value> )+"),
    extra("types", 2, "XADD <key> 1-1 <value> <value>"),
];

/// Parameters that sequences change, with the value each sequence starts from and values to try.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, &str, &[&str])] = &[
    ("notify-keyspace-events", "", &["", "KEA", "Ex", "AKE", "Kg$", "xyz", "KEn", "KEm$g"]),
    ("maxmemory-policy", "noeviction", &["noeviction", "allkeys-lfu", "volatile-lru", "allkeys-lru", "nothing"]),
    ("maxmemory-samples", "5", &["5", "10", "0", "-1", "x"]),
    ("hz", "10", &["1", "50", "500", "501", "0", "a"]),
    ("slowlog-max-len", "128", &["1", "128", "-1", "1.5"]),
    ("slowlog-log-slower-than", "10000", &["-1", "0", "10000", "-2"]),
    ("list-max-listpack-size", "-2", &["-2", "5", "-6", "0"]),
    ("list-compress-depth", "0", &["0", "1", "-1"]),
    ("stream-node-max-entries", "100", &["2", "100", "-1"]),
    ("stream-node-max-bytes", "4096", &["60", "4096", "-1"]),
    ("hash-max-listpack-entries", "512", &["3", "512", "-1"]),
    ("hash-max-ziplist-entries", "512", &["7", "512", ""]),
    ("zset-max-listpack-entries", "128", &["4", "0", "-1"]),
    ("zset-max-listpack-value", "64", &["3", "64"]),
    ("hll-sparse-max-bytes", "3000", &["20", "3000"]),
    ("lazyfree-lazy-user-del", "no", &["yes", "no", "maybe", "YES"]),
    ("lazyfree-lazy-user-flush", "no", &["yes", "no"]),
    ("timeout", "0", &["0", "1000", "-1"]),
    ("lfu-log-factor", "10", &["0", "10", "-1"]),
    ("lfu-decay-time", "1", &["1", "0", "x"]),
    ("tcp-keepalive", "300", &["0", "300", "-5"]),
    ("save", "", &["", "3600 1", "3600 1 300 100", "60", "a b"]),
    ("appendfsync", "everysec", &["always", "no", "everysec", "sometimes"]),
    ("client-output-buffer-limit", "normal 0 0 0", &["normal 1000000000 500000000 10", "pubsub 32mb 8mb 60", "normal 1", "nobody 1 1 1"]),
    ("latency-tracking-info-percentiles", "50 99 99.9", &["50 100 60", "", "-1", "10.5"]),
    ("maxclients", "1000", &["1000", "500", "0"]),
    ("busy-reply-threshold", "5000", &["5000", "100"]),
    ("proto-max-bulk-len", "536870912", &["536870912", "1mb", "1", "2gb"]),
    ("repl-backlog-size", "1048576", &["1mb", "16384", "0", "1k"]),
    ("port", "0", &["6379x"]),
    ("databases", "16", &["5"]),
    ("daemonize", "no", &["yes"]),
];

/// The pieces a template is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    /// A word to the letter.
    Word(&'static str),
    /// A pool, by name.
    Atom(&'static str),
    /// One after the other.
    Seq(Vec<Node>),
    /// `( | )`
    OneOf(Vec<Node>),
    /// `[ ]`
    Maybe(Box<Node>),
    /// `{ | }`
    AnyOf(Vec<Node>),
    /// Repeated at least so often, at most four times.
    Repeat(usize, Box<Node>),
}

/// Reads a template. Panics on a template that breaks the notation: the table is ours.
pub fn parse(template: &'static str) -> Node {
    let mut words = template.split_whitespace().peekable();
    let node = alternatives(&mut words, None);
    assert!(words.peek().is_none(), "unbalanced template: {template}");
    match node {
        (mut list, _) if list.len() == 1 => list.remove(0),
        _ => panic!("a | outside brackets: {template}"),
    }
}

type Words = std::iter::Peekable<std::str::SplitWhitespace<'static>>;

/// Reads up to the closing bracket `end`; returns the alternatives and the bracket's suffix.
fn alternatives(words: &mut Words, end: Option<char>) -> (Vec<Node>, &'static str) {
    let mut list = vec![Vec::new()];
    while let Some(word) = words.next() {
        let first = word.chars().next().unwrap_or(' ');
        if Some(first) == end {
            return (list.into_iter().map(Node::Seq).collect(), &word[1..]);
        }
        let node = match word {
            "|" => {
                list.push(Vec::new());
                continue;
            }
            "(" => {
                let (inner, suffix) = alternatives(words, Some(')'));
                repeated(Node::OneOf(inner), suffix)
            }
            "[" => {
                let (mut inner, _) = alternatives(words, Some(']'));
                Node::Maybe(Box::new(inner.remove(0)))
            }
            "{" => Node::AnyOf(alternatives(words, Some('}')).0),
            _ => match word.strip_prefix('<').and_then(|w| w.split_once('>')) {
                Some((name, suffix)) => repeated(Node::Atom(name), suffix),
                None => Node::Word(word),
            },
        };
        list.last_mut().expect("never empty").push(node);
    }
    assert!(end.is_none(), "bracket left open");
    (list.into_iter().map(Node::Seq).collect(), "")
}

fn repeated(node: Node, suffix: &str) -> Node {
    match suffix {
        "" => node,
        "+" => Node::Repeat(1, Box::new(node)),
        "*" => Node::Repeat(0, Box::new(node)),
        other => panic!("unknown repetition {other}"),
    }
}
