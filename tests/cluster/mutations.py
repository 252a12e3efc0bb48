#!/usr/bin/env python3
"""Plants faults in the cluster's machine, one at a time, and demands that its simulation finds each.

    tests/cluster/mutations.py [--seeds N] [NAME ...]

A copy of the sources is changed and built; the tree itself is not touched. A fault is found when the
simulation fails within N seeds (1000). `none` is no fault: it must pass, or nothing here says anything.
The last line is `N passed, N failed`. Takes a minute or two for each.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Name, file, what stands there, what is to stand there.
FAULTS = [
    ("none", "failover.rs", "", ""),
    ("a vote is not persisted", "failover.rs",
     """        failing.voted_for = Some(id);
        self.todo.save = true;
        self.todo.durable = true;
        let message = self.message(Kind::AuthAck, Body::Nothing);
        if let Some(link) = self.view.node(candidate).link {
            self.send(link, &message, true);
        }
""", """        failing.voted_for = Some(id);
        let message = self.message(Kind::AuthAck, Body::Nothing);
        if let Some(link) = self.view.node(candidate).link {
            self.send(link, &message, false);
        }
"""),
    ("an election takes no new epoch", "failover.rs",
     "        self.view.current_epoch += 1;\n        self.election.epoch", "        self.election.epoch"),
    ("two votes in one epoch", "failover.rs",
     "if self.view.last_vote_epoch == current {", "if self.view.last_vote_epoch > current {"),
    ("votes for a primary that is up", "failover.rs",
     "if !failing.has_failed() && request.message_flags & message_flag::FORCE == 0 {", "if false {"),
    ("a minority elects", "failover.rs",
     "if self.election.votes.len() >= self.view.quorum() {", "if !self.election.votes.is_empty() {"),
    ("an election never gets votes", "failover.rs",
     "let wait = 2 * self.timeout() - since;", "let wait = 1000 * self.timeout() - since;"),
    ("the first in rank does not wait for what others have", "failover.rs",
     "self.election.at + HEARING > now", "self.election.at > now"),
    ("an election is never tried again", "failover.rs",
     "let again = self.election.at == 0 || age > retry || self.lost();", "let again = self.election.at == 0;"),
    ("a manual failover does not wait for the stream's end", "failover.rs",
     "if offset == self.facts.offset && !self.is_foreign {", "if offset >= 0 {"),
    ("a primary that was reborn empty lends to its replicas", "rescue.rs",
     "if me.is_replica() || me.slots.is_empty() || self.view.count() == 1 {", "if true {"),
    ("a primary that was reborn does not resign", "rescue.rs",
     "} else if due && self.replicas_with_data().any(|node| node.offset > 0) {", "} else if false {"),
    ("a replica of another shard leads", "rescue.rs", "        self.view.is_foreign |= !stays;\n", "        let _ = stays;\n"),
    ("a slot that was just imported is given up", "rescue.rs",
     "mine && !leaves && self.imported.get(&slot).is_some_and(unaware)",
     "mine && !leaves && self.imported.get(&slot).is_some_and(unaware) && false"),
    ("a claim is accepted without looking at its epoch", "receive.rs",
     "let outdated = self.view.epoch_of(slot).is_none_or(|known| known < epoch);", "let outdated = epoch > 0;"),
    ("a primary without slots does not follow", "receive.rs",
     "if all_gone && moves && mine != owner {", "if all_gone && moves && mine != owner && claimed == usize::MAX {"),
    ("two primaries keep one epoch", "receive.rs",
     "if other.config_epoch != me.config_epoch || other.id <= me.id {", "if other.id != me.id {"),
    ("nobody is told of slots that have a newer owner", "receive.rs",
     "            self.send_update(sender, owner);\n", ""),
    ("who took a slot takes no new epoch", "orders.rs",
     "            if self.bump_epoch() {\n                tracing::warn!(\"configEpoch updated after importing",
     "            if false {\n                tracing::warn!(\"configEpoch updated after importing"),
    ("a slot is given away with its keys", "orders.rs",
     "if mine && to != me && keys != 0 {", "if mine && to != me && keys == 99 {"),
    ("a minority serves", "detect.rs",
     "reachable.count() >= self.view.quorum()", "reachable.count() >= 1"),
    ("suspicion is failure", "detect.rs", "if says < self.view.quorum() {", "if says < 1 {"),
    ("failure is never told", "detect.rs", "        self.broadcast(&message, false, |_| true);\n        self.todo.save",
     "        let _ = message;\n        self.todo.save"),
    ("who failed is never forgiven", "receive.rs", "        node.set(flag::FAILED, false);\n        self.todo.save",
     "        self.todo.save"),
]


def simulate(tree, target, seeds):
    """True when the simulation passes."""
    settings = dict(os.environ, TESSERA_SEEDS=str(seeds), CARGO_TARGET_DIR=target, CARGO_INCREMENTAL="1")
    build = subprocess.run(["cargo", "test", "--lib", "--no-run", "--quiet"], cwd=tree, env=settings,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if build.returncode != 0:
        raise SystemExit("it does not build:\n" + build.stdout[-3000:])
    done = subprocess.run(["cargo", "test", "--lib", "--quiet", "cluster::simulation"], cwd=tree, env=settings,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--target", default=os.path.join(ROOT, "target", "mutations"))
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    faults = [fault for fault in FAULTS if not given.names or fault[0] in given.names]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="mutations") as base:
        tree = os.path.join(base, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("target", ".git"))
        for name, file, before, after in faults:
            path = os.path.join(tree, "src", "cluster", file)
            with open(path) as source:
                text = source.read()
            if before and text.count(before) != 1:
                raise SystemExit("%s: what it replaces does not stand in %s exactly once" % (name, file))
            with open(path, "w") as source:
                source.write(text.replace(before, after) if before else text)
            passes, output = simulate(tree, given.target, given.seeds)
            with open(path, "w") as source:
                source.write(text)
            good = passes == (name == "none")
            passed, failed = passed + good, failed + (not good)
            seed = [line for line in output.splitlines() if "repeats it" in line][:1]
            print("%s  %s  %s" % ("ok  " if good else "FAIL", name, "".join(seed)), flush=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
