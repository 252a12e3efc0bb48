"""Pods without Kubernetes: each a network, mount and UTS namespace with an address, an /etc/hosts and a
resolver as the kubelet writes them, on a bridge of their own, beside a small DNS responder that answers
for them. Everything is inside the namespaces of the process that imports this, and ends with it."""
import http.client
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time

NET = "10.77"
GATEWAY = f"{NET}.0.1"
SERVICE = "redis-service.default.svc.cluster.local"


def enter():
    """Goes on in namespaces of our own, where there is nobody else's network."""
    if os.environ.get("PODS_INSIDE") is None:
        os.environ["PODS_INSIDE"] = "yes"
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp("unshare", [*words, sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "pods", "type", "bridge")
    run("ip", "addr", "add", f"{GATEWAY}/16", "dev", "pods")
    run("ip", "link", "set", "pods", "up")


def run(*words):
    subprocess.run(words, check=True)


def name_of(number):
    return f"redis-app-{number}"


class Dns(threading.Thread):
    """Answers for pods that run, and with all of them for the headless Service's name."""

    def __init__(self):
        super().__init__(daemon=True)
        self.addresses = {}
        self.queries = 0
        self.lies = {}
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                data, sock = self.request
                reply = outer.reply(data)
                if reply:
                    sock.sendto(reply, self.client_address)

        self.server = socketserver.UDPServer((GATEWAY, 53), Handler)

    def run(self):
        self.server.serve_forever(poll_interval=0.1)

    def look_up(self, name):
        name = name.lower()
        if name in self.lies:
            return self.lies[name]
        if name == SERVICE:
            return sorted(self.addresses.values())
        short, _, rest = name.partition(".")
        found = self.addresses.get(short) if rest == SERVICE else None
        return [found] if found else []

    def reply(self, data):
        self.queries += 1
        (number, flags, count) = struct.unpack("!HHH", data[:6])
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode("ascii", "replace"))
            at += 1 + data[at]
        kind = struct.unpack("!H", data[at + 1:at + 3])[0]
        question = data[12:at + 5]
        addresses = self.look_up(".".join(labels))
        answers = addresses if kind == 1 else []
        code = 0 if addresses else 3
        head = struct.pack("!HHHHHH", number, 0x8400 | (flags & 0x0100) | code, count, len(answers), 0, 0)
        records = b"".join(
            struct.pack("!HHHLH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(ip) for ip in answers)
        return head + question + records


def request(words):
    words = [word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def read_reply(file):
    first = file.readline().decode()
    if not first:
        raise ConnectionError("no reply")
    if first.startswith("$") and first[1:2] != "-":
        return file.read(int(first[1:]) + 2)[:-2].decode()
    return first.strip()


class Pod:
    """A pod of the StatefulSet: its name and its volume stay, its address is another one each time."""

    given = 0

    def __init__(self, number, root, server, dns, config, options=()):
        self.number, self.server, self.dns = number, server, dns
        self.name = name_of(number)
        self.root = os.path.join(root, self.name)
        self.volume = os.path.join(self.root, "data")
        self.options = list(options)
        os.makedirs(self.volume)
        with open(os.path.join(self.root, "redis.conf"), "w") as file:
            file.write(config.replace("/var/lib/redis", self.volume))
        self.process = self.ip = self.log = self.copier = None

    def path(self, name):
        return os.path.join(self.root, name)

    def start(self, ip=None):
        if ip is None:
            Pod.given += 1
            ip = f"{NET}.{1 + Pod.given // 200}.{1 + Pod.given % 200}"
        self.ip = ip
        with open(self.path("hosts"), "w") as file:
            file.write("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"
                       f"{ip}\t{self.name}.{SERVICE}\t{self.name}\n")
        with open(self.path("resolv.conf"), "w") as file:
            file.write(f"search default.svc.cluster.local svc.cluster.local cluster.local\n"
                       f"nameserver {GATEWAY}\noptions ndots:5\n")
        script = ('hostname "$1" && mount --bind "$2/hosts" /etc/hosts && '
                  'mount --bind "$2/resolv.conf" /etc/resolv.conf && echo ready && read -r _ && '
                  'shift 2 && exec "$@"')
        self.log = open(self.path("log"), "ab", buffering=0)
        words = [self.server, self.path("redis.conf"), "--protected-mode", "no", *self.options]
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", script, "sh", self.name, self.root, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self.name}: no namespaces")
        pid = str(self.process.pid)
        outside = f"pod{self.number}"
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", outside, "master", "pods", "up")
        inside = ["nsenter", "-t", pid, "-n", "ip"]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", f"{ip}/16", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        # The log is read from a file: nobody waits at the pipe's other end.
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        self.copier = threading.Thread(target=shutil.copyfileobj, args=(self.process.stdout, self.log), daemon=True)
        self.copier.start()
        self.dns.addresses[self.name] = ip

    def kill(self):
        """As `kubectl delete pod --force --grace-period=0`."""
        self.dns.addresses.pop(self.name, None)
        self.process.kill()
        self.gone()

    def terminate(self):
        """As `kubectl delete pod`: it is known as a pod that ends until it has."""
        self.process.terminate()
        self.gone()
        self.dns.addresses.pop(self.name, None)

    def gone(self):
        self.process.wait(timeout=60)
        self.copier.join(timeout=60)
        # The network namespace ends a moment after its last process.
        subprocess.run(["ip", "link", "del", f"pod{self.number}"], stderr=subprocess.DEVNULL)
        self.process = None

    def lose_volume(self):
        shutil.rmtree(self.volume)
        os.makedirs(self.volume)

    def ask(self, *words, timeout=2):
        """A command and its reply as text; None when the pod does not answer."""
        replies = self.ask_all([words], timeout)
        return replies and replies[0]

    def ask_all(self, commands, timeout=2):
        """Commands on one connection, sent together, and their replies; None when not all are answered."""
        try:
            with socket.create_connection((self.ip, 6379), timeout) as link:
                link.sendall(b"".join(map(request, commands)))
                file = link.makefile("rb")
                return [read_reply(file) for _ in commands]
        except OSError:
            return None

    def probe(self, path):
        """The status that an HTTP probe sees; None without an answer."""
        link = http.client.HTTPConnection(self.ip, 9121, timeout=2)
        try:
            link.request("GET", path)
            return link.getresponse().status
        except OSError:
            return None
        finally:
            link.close()

    def fields(self, *words):
        text = self.ask(*words) or ""
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def problem(pods, primaries=None):
    """What keeps the cluster from being whole, replication included; None when nothing does."""
    places = {}
    for pod in pods:
        info = pod.fields("CLUSTER", "INFO")
        if info.get("cluster_state") != "ok" or info.get("cluster_known_nodes") != str(len(pods)):
            return f"{pod.name}: {info.get('cluster_state')}, knows {info.get('cluster_known_nodes')}"
        places[pod.name] = f"{pod.ip}:6379@16379"
        replication = pod.fields("INFO", "replication")
        if replication.get("role") == "slave" and replication.get("master_link_status") != "up":
            known = pod.ask("CLUSTER", "NODES")
            return f"{pod.name}: its link to {replication.get('master_host')} is down, knows {known}"
    for pod in pods:
        lines = (pod.ask("CLUSTER", "NODES") or "").splitlines()
        told = {line.split()[1] for line in lines}
        if told != set(places.values()) or any("fail" in line or "handshake" in line for line in lines):
            return f"{pod.name} says: {lines}"
        count = sum("master" in line.split()[2] for line in lines)
        if primaries is not None and count != primaries:
            return f"{pod.name} knows {count} primaries"
    return None


def await_whole(pods, limit, primaries=None):
    """Waits until the cluster is whole, and returns how long that took in seconds."""
    begun = time.monotonic()
    while (why := problem(pods, primaries)) is not None:
        if time.monotonic() - begun > limit:
            raise AssertionError(f"not whole after {limit} s: {why}")
        time.sleep(0.1)
    return time.monotonic() - begun


def await_state(pods, state, limit):
    """Waits until all say this of the cluster."""
    until = time.monotonic() + limit
    while True:
        told = [pod.fields("CLUSTER", "INFO").get("cluster_state") for pod in pods]
        if all(one == state for one in told):
            return
        assert time.monotonic() < until, f"after {limit} s: {told}"
        time.sleep(0.05)
