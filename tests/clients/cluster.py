#!/usr/bin/env python3
"""redis-py's RedisCluster, the real client, against a cluster of six of our servers: what applications do
with it, through a failover, a reshard, and a rolling restart under load.

    target/oracle/venv/bin/python tests/clients/cluster.py --server PATH

Every server gets a directory and ports of its own on the loopback. The last line is `N passed, N failed`.
"""
import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import redis
from redis.cluster import ClusterNode, RedisCluster

from checks import same

PATIENCE = 60


def await_that(what, is_so):
    """Waits until something is so; what it may raise meanwhile is no answer."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if is_so():
                return
            why = ""
        except (redis.RedisError, OSError, KeyError) as error:
            why = repr(error)
        assert time.monotonic() < end, "it never came that %s %s" % (what, why)
        time.sleep(0.02)


def free_port():
    """A port whose port of the bus is free, too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port > 55000:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


class Node:
    def __init__(self, program, base, number):
        self.program, self.port = program, free_port()
        self.dir = os.path.join(base, str(number))
        os.mkdir(self.dir)
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--cluster-enabled", "yes",
             "--cluster-node-timeout", "5000", "--appendonly", "yes", "--save", "", "--io-threads", "2",
             "--repl-diskless-sync-delay", "0",
             "--dir", self.dir, "--logfile", os.path.join(self.dir, "log")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @property
    def client(self):
        return redis.Redis(port=self.port, socket_timeout=5)

    def ask(self, *words):
        client = self.client
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def info(self, section):
        client = self.client
        try:
            return client.info(section)
        finally:
            client.close()

    def id(self):
        return self.ask("CLUSTER MYID").decode()

    def is_well(self):
        client = self.client
        try:
            state = client.execute_command("CLUSTER INFO")
            state = state if isinstance(state, dict) else dict(
                line.split(":", 1) for line in state.decode().splitlines() if ":" in line)
            role = client.info("replication")
        finally:
            client.close()
        return state["cluster_state"] == "ok" and (
            role["role"] == "master" or role["master_link_status"] == "up")

    def stop(self, how):
        self.process.send_signal(how)
        self.process.wait(timeout=PATIENCE)


class Cluster:
    def __init__(self, program):
        self.dir = tempfile.mkdtemp(prefix="cluster")
        self.nodes = [Node(program, self.dir, number) for number in range(6)]
        for node in self.nodes:
            await_that("a server answers", lambda: node.client.ping())
        self.cli("create", *self.places(), "--cluster-replicas", "1", "--cluster-yes")
        self.await_well()

    def places(self):
        return ["127.0.0.1:%d" % node.port for node in self.nodes]

    def cli(self, *words):
        done = subprocess.run(["redis-cli", "--cluster", *words], stdin=subprocess.DEVNULL, timeout=PATIENCE * 2,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout

    def await_well(self):
        await_that("the cluster is well", lambda: all(node.is_well() for node in self.nodes))

    def client(self, **more):
        return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in self.nodes],
                            socket_timeout=5, **more)

    def primaries(self):
        return [node for node in self.nodes if node.info("replication")["role"] == "master"]

    def replica_of(self, primary):
        port = primary.port
        for node in self.nodes:
            role = node.info("replication")
            if role["role"] == "slave" and role["master_port"] == port:
                return node
        raise AssertionError("no replica of %d" % port)

    def end(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.stop(signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


class Writers:
    """Threads that write keys one after the other, and keep which were acknowledged and which failed."""

    def __init__(self, cluster, count=4):
        self.stop, self.written, self.failed, self.slowest = False, [], [], 0.0
        # Daemons: a check that fails must not wait for them.
        self.threads = [threading.Thread(target=self.write, args=(cluster, number), daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()
        await_that("writers write", lambda: len(self.written) > 100)

    def write(self, cluster, number):
        client, n = cluster.client(), 0
        while not self.stop:
            key, begun = "load:%d:%d" % (number, n), time.monotonic()
            try:
                client.set(key, n)
                self.written.append((key, n))
            except (redis.RedisError, redis.RedisClusterException, OSError) as error:
                self.failed.append((key, repr(error)))
            self.slowest = max(self.slowest, time.monotonic() - begun)
            n += 1
        client.close()

    def end(self, cluster):
        self.stop = True
        for thread in self.threads:
            thread.join()
        client = cluster.client()
        lost = []
        for at in range(0, len(self.written), 500):
            some = self.written[at:at + 500]
            with client.pipeline() as pipe:
                for key, _ in some:
                    pipe.get(key)
                lost += [key for (key, n), value in zip(some, pipe.execute()) if value != str(n).encode()]
        client.close()
        return lost


def what_applications_do(cluster):
    r = cluster.client()
    for n in range(2000):
        assert r.set("key:%d" % n, n)
    assert all(r.get("key:%d" % n) == str(n).encode() for n in range(2000))
    assert r.mset_nonatomic({"a%d" % n: n for n in range(100)})
    assert r.mget_nonatomic(["a%d" % n for n in range(100)])[99] == b"99"
    assert r.mset({"{t}1": 1, "{t}2": 2}) and r.mget("{t}1", "{t}2") == [b"1", b"2"]
    try:
        r.mget("{x}1", "{y}2")
        raise AssertionError("keys of two slots at once")
    except redis.RedisClusterException:
        pass
    with r.pipeline() as pipe:
        for n in range(1000):
            pipe.incr("p%d" % (n % 50))
        assert pipe.execute()[-1] == 20
    assert r.eval("return redis.call('incr', KEYS[1])", 1, "counter") == 1
    same(r.dbsize(target_nodes=RedisCluster.PRIMARIES), 2000 + 100 + 2 + 50 + 1)
    assert len(list(r.scan_iter(count=500))) == 2153
    reading = cluster.client(read_from_replicas=True)
    assert all(reading.get("key:%d" % n) == str(n).encode() for n in range(200))
    reading.close()
    heard = r.pubsub()
    heard.ssubscribe("channel")
    await_that("it is subscribed", lambda: heard.get_sharded_message(timeout=1) is not None)
    assert r.spublish("channel", "hello") == 1
    await_that("a shard's message comes", lambda: (heard.get_sharded_message(timeout=1) or {}).get("data") == b"hello")
    heard.close()
    assert r.flushall()
    same(r.dbsize(target_nodes=RedisCluster.PRIMARIES), 0)
    r.close()


def a_manual_failover_fails_no_write(cluster):
    writers = Writers(cluster)
    for primary in cluster.primaries():
        replica = cluster.replica_of(primary)
        replica.ask("CLUSTER FAILOVER")
        await_that("the replica leads", lambda: replica.info("replication")["role"] == "master")
        cluster.await_well()
    lost = writers.end(cluster)
    assert not lost and not writers.failed, (lost[:3], writers.failed[:3])


def a_reshard_loses_nothing(cluster):
    writers = Writers(cluster)
    first, second = [node.id() for node in cluster.primaries()[:2]]
    for source, target in ((first, second), (second, first)):
        cluster.cli("reshard", cluster.places()[0], "--cluster-from", source, "--cluster-to", target,
                    "--cluster-slots", "200", "--cluster-yes")
    lost = writers.end(cluster)
    assert not lost and not writers.failed, (lost[:3], writers.failed[:3])
    await_that("all agree", lambda: cluster.cli("check", cluster.places()[0]) is None)


def a_rolling_restart_fails_no_write_and_copies_nothing(cluster):
    writers, copied = Writers(cluster), []
    for node in cluster.nodes:
        others = [other for other in cluster.nodes if other is not node]
        before = [other.info("stats")["sync_full"] for other in others]
        node.stop(signal.SIGTERM)
        node.start()
        await_that("a server answers", lambda: node.client.ping())
        cluster.await_well()
        after = [other.info("stats")["sync_full"] for other in others]
        copied += [(before, after)] if before != after else []
    lost = writers.end(cluster)
    assert not copied, "who comes back goes on where it was"
    for node in cluster.nodes:
        with open(os.path.join(node.dir, "log")) as log:
            assert "may not be up to date" not in log.read(), "its file was saved before it ended"
    print("rolling restart: %d writes, %d lost, %d failed, slowest %.3f s" % (
        len(writers.written), len(lost), len(writers.failed), writers.slowest))
    assert not lost and not writers.failed, (lost[:3], writers.failed[:3])


CHECKS = [what_applications_do, a_manual_failover_fails_no_write, a_reshard_loses_nothing,
          a_rolling_restart_fails_no_write_and_copies_nothing]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    given = parser.parse_args()
    cluster, passed, failed = Cluster(os.path.abspath(given.server)), 0, 0
    try:
        for check in CHECKS:
            try:
                check(cluster)
                passed += 1
            except Exception:  # any fault of a check is its result
                failed += 1
                print("FAIL %s\n%s" % (check.__name__, traceback.format_exc(limit=-3)), flush=True)
    finally:
        cluster.end()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
