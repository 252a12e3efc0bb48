#!/usr/bin/env python3
"""The cluster as a StatefulSet has it: pods that die, move and lose their volumes.

    tests/pods/run.py --server PATH [NAME...]

Needs root, for namespaces. Every write that was acknowledged is looked for after each event. The last
line is `N passed, N failed`.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import pods
from pods import Pod, await_state, await_whole

# As in the deployment that this is for, to the letter.
CONFIG = """appendonly yes
cluster-enabled yes
cluster-config-file /var/lib/redis/nodes.conf
cluster-node-timeout 5000
dir /var/lib/redis
port 6379
"""
# The bar for a cluster whose pods have all moved, in seconds.
HEALTHY = 15

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Writer(threading.Thread):
    """Writes all the time, and knows what was acknowledged: by a primary, and by so many replicas. (With none
    of them, what a primary has acknowledged is on its volume.)"""

    def __init__(self, pods, replicas):
        super().__init__(daemon=True)
        self.pods, self.done, self.sent, self.acknowledged = pods, False, 0, {}
        self.commands = [("WAIT", str(replicas), "300")] if replicas else []
        self.expected = [f":{replicas}"] if replicas else []

    def run(self):
        while not self.done:
            self.sent += 1
            key, value = f"key:{self.sent % 5000}", str(self.sent)
            if self.write(key, value):
                self.acknowledged[key] = int(value)

    def write(self, key, value):
        pod = self.pods[self.sent % len(self.pods)]
        for _ in range(3):
            replies = pod.ask_all([("SET", key, value), *self.commands], timeout=0.5)
            if replies and replies[0].startswith("-MOVED"):
                ip = replies[0].split()[2].rsplit(":", 1)[0]
                pod = next((other for other in self.pods if other.ip == ip), pod)
                continue
            if replies == ["+OK", *self.expected]:
                return True
            time.sleep(0.05)
            return False
        return False

    def stop(self):
        self.done = True
        self.join()

    def verify(self):
        """A later write may have come through without its reply; an earlier value is a loss."""
        for key, value in self.acknowledged.items():
            reply = None
            for pod in self.pods:
                reply = pod.ask("GET", key)
                if reply and not reply.startswith("-MOVED"):
                    break
            found = int(reply) if reply and reply.isdigit() else -1
            assert found >= value, f"{key} was acknowledged with {value} and is {reply}"
        return len(self.acknowledged)


def say(text):
    print(f"    {text}", flush=True)


class Set:
    """Six pods."""

    def __init__(self, server, root, config=CONFIG, count=6, started=None):
        self.started = count if started is None else started
        self.dns = pods.Dns()
        self.dns.start()
        self.pods = [Pod(number, root, server, self.dns, config) for number in range(count)]

    def __enter__(self):
        for pod in self.pods[:self.started]:
            pod.start()
        return self

    def start_all(self, ips=None):
        for pod, ip in zip(self.pods, ips or [None] * len(self.pods)):
            pod.start(ip)

    def kill_all(self):
        for pod in self.pods:
            pod.kill()

    def create(self):
        for pod in self.pods:
            until = time.monotonic() + 20
            while pod.ask("PING") != "+PONG":
                assert time.monotonic() < until, f"{pod.name} does not start"
                time.sleep(0.05)
        places = [f"{pod.ip}:6379" for pod in self.pods]
        words = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        await_whole(self.pods, 30, 3)

    def writing(self, seconds=2, replicas=0):
        writer = Writer(self.pods, replicas)
        writer.start()
        time.sleep(seconds)
        return writer

    def __exit__(self, kind, *_):
        for pod in self.pods:
            if pod.process:
                pod.kill()
        # What a process has said is in its log once it has ended.
        if kind is not None:
            for pod in filter(lambda pod: pod.log, self.pods):
                with open(pod.path("log"), errors="replace") as log:
                    print(f"--- {pod.name} ---\n{log.read()[-12000:]}")
        self.dns.server.shutdown()
        self.dns.server.server_close()


@check
def pods_are_lost(server, root):
    """A primary's pod is killed and comes back elsewhere; then all pods at once, with new addresses; then
    all of them change places, so that at each address somebody else answers."""
    with Set(server, root) as these:
        these.create()
        writer = these.writing()
        lost = next(pod for pod in these.pods if pod.fields("INFO", "replication")["role"] == "master")
        lost.kill()
        time.sleep(1)
        lost.start()
        took = await_whole(these.pods, HEALTHY)
        say(f"one pod killed, back after 1 s with a new address: whole after {took:.1f} s")
        these.kill_all()
        these.start_all()
        took = await_whole(these.pods, HEALTHY)
        say(f"all pods killed, new addresses: whole after {took:.1f} s")
        time.sleep(1)
        these.kill_all()
        ips = [pod.ip for pod in these.pods]
        these.start_all(ips[1:] + ips[:1])
        took = await_whole(these.pods, HEALTHY)
        say(f"all pods killed, addresses exchanged: whole after {took:.1f} s")
        writer.stop()
        say(f"{writer.verify()} keys with acknowledged writes are there, of {writer.sent} sent writes")


@check
def addresses_are_exchanged(server, root):
    """At each address there is another node, and one does not come back: nobody copies, or becomes, what it is not."""
    with Set(server, root, CONFIG + "repl-diskless-sync-delay 0\n") as these:
        these.create()
        writer = these.writing(3)
        writer.stop()
        for turn in range(2):
            these.kill_all()
            ips = [pod.ip for pod in these.pods]
            these.start_all(ips[1:] + ips[:1])
            took = await_whole(these.pods, HEALTHY)
            say(f"exchanged: whole after {took:.1f} s, {writer.verify()} keys are there")
        lost = next(pod for pod in these.pods if pod.fields("INFO", "replication")["role"] == "master")
        at = these.pods.index(lost)
        these.kill_all()
        ips = [pod.ip for pod in these.pods]
        for pod, ip in zip(these.pods, ips[at:] + ips[:at]):
            if pod is not lost:
                pod.start(ip)
        time.sleep(10)
        lost.start()
        took = await_whole(these.pods, 2 * HEALTHY)
        say(f"a primary came 10 s later: whole after {took:.1f} s, {writer.verify()} keys are there")


@check
def pods_are_updated_one_by_one(server, root):
    """As by a rolling update: each pod is told to end, comes back elsewhere, and the next one's turn is when it
    says that it is ready."""
    with Set(server, root, CONFIG + "admin-port 9121\nadmin-bind *\n") as these:
        assert these.pods[0].probe("/livez") == 200
        assert these.pods[0].probe("/readyz") == 503, "ready without a cluster"
        these.create()
        writer = these.writing()
        begun = time.monotonic()
        for pod in reversed(these.pods):
            pod.terminate()
            pod.start()
            until = time.monotonic() + 30
            while pod.probe("/readyz") != 200:
                assert time.monotonic() < until, f"{pod.name} does not become ready"
                time.sleep(0.1)
        say(f"six pods updated in {time.monotonic() - begun:.1f} s")
        await_whole(these.pods, HEALTHY)
        writer.stop()
        say(f"{writer.verify()} keys with acknowledged writes are there, of {writer.sent} sent writes")


@check
def pods_form_a_cluster(server, root):
    """Six pods become a cluster by themselves; one that comes late finds it; one that has lost its volume takes
    its old place, and nobody knows of what it was."""
    forming = "cluster-form-service redis-service\ncluster-form-primaries 3\n"
    with Set(server, root, CONFIG + forming, started=5) as these:
        begun = time.monotonic()
        await_state(these.pods[:5], "ok", 15)
        say(f"five of six pods started: all say cluster_state:ok after {time.monotonic() - begun:.1f} s")
        these.pods[5].start()
        took = await_whole(these.pods, HEALTHY, 3)
        say(f"the sixth: whole after {took:.1f} s")
        roles = [pod.fields("INFO", "replication")["role"] for pod in these.pods]
        assert roles == ["master"] * 3 + ["slave"] * 3, roles
        shards = [pod.fields("INFO", "replication").get("connected_slaves") for pod in these.pods[:3]]
        assert shards == ["1"] * 3, shards
        # What was on a volume that is lost is only where it was copied to.
        writer = these.writing(replicas=1)
        for lost in (these.pods[1], these.pods[4]):
            lost.kill()
            lost.lose_volume()
            time.sleep(1)
            lost.start()
            took = await_whole(these.pods, 45, 3)
            say(f"{lost.name} back without its volume: whole, and its old id forgotten, after {took:.1f} s")
            assert lost.fields("INFO", "replication")["role"] == "slave"
        writer.stop()
        say(f"{writer.verify()} keys with acknowledged writes are there, of {writer.sent} sent writes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("checks", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("not root: pods need namespaces\n0 passed, 0 failed")
        return 0
    pods.enter()
    passed = failed = 0
    for function in CHECKS:
        if arguments.checks and function.__name__ not in arguments.checks:
            continue
        print(f"{function.__name__}", flush=True)
        with tempfile.TemporaryDirectory(prefix="pods") as root:
            try:
                function(os.path.abspath(arguments.server), root)
                passed += 1
            except Exception:  # noqa: BLE001 (whatever it is, the check has failed)
                traceback.print_exc(file=sys.stdout)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
