#!/usr/bin/python3
"""kills.py - kill -9 of any process of a store, or of all, at random moments under mixed load.

    tests/faults/kills.py [--count N = 100] [--seed S] [--lanes N = 2]      BUILD: the build folder (build/release)

Each lane is one store that lives on from kill to kill. Its load remembers, replaces, revises, deletes, suppresses,
restores, purges, consolidates and takes snapshots; meanwhile, after a random time, a random process (or the supervisor
with all its children, or the recovery that follows a death) is killed. Then whatever a client can read is compared with
a model that knows what was acknowledged; a request without an answer is there whole or not at all; what was purged is in
no file. Now and then the store is verified, stopped cleanly, or a finished snapshot opened and compared.

A lane that fails tells its seed: `--seed S --lanes 1` repeats its decisions (the processes' timing is their own).
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BUILD", REPOSITORY / "build" / "release"))
os.environ.setdefault("MNEMED", str(BUILD / "bin" / "mnemed"))
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))

import model as truth  # noqa: E402  (the path is set above)
from cluster import PATIENCE, READY_S, Cluster, Peer, kill, poll_until  # noqa: E402
from fault_load import SPACES, Load  # noqa: E402
from workload import ALL_FIELDS  # noqa: E402

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "compact.interval": "50ms", "compact.min_rows": 64,
    "compact.fanout": 2, "history.window": "100ms", "supervisor.backoff_min": "10ms", "supervisor.backoff_max": "100ms",
    "disk.reserve": 0, "index.rows_min": 50
}
VICTIMS = {"wal-writer": 6, "compactor": 4, "recall": 2, "recovery": 3, "supervisor": 1, "everything": 3}
DELAY_S, DELAY_MAX_S = 0.2, 2.0  # the mean; long work must come to its end now and then
PURGED_MAX = 40  # how many purged contents are looked for: the newest


class Struck(Cluster):
    """A cluster one of whose processes dies at a moment that nobody is told."""
    def __init__(self):
        super().__init__(settings=SETTINGS)
        self.restarts_expected = True
        self.struck = threading.Event()

    def fired(self):
        """Requests that are not answered from now on are in doubt."""
        return self.struck.is_set()

    def pids(self):
        """role -> pid, asked by a connection of its own: the killer is another thread."""
        with Peer(self.endpoint("control")) as peer:
            return {row["role"]: row["pid"] for row in peer.ask({"op": "info"}, READY_S)["roles"]}

    def strike(self, victim, delay_s):
        """The killer's life: waits, kills."""
        pids = {**self.pids(), "supervisor": self.process.pid}
        time.sleep(delay_s)
        self.struck.set()
        if victim == "everything":
            for pid in self.processes():
                kill(pid)
        elif victim == "recovery":
            kill(pids["wal-writer"])
            poll_until("a recovery or its end", self.kill_recovery, pause_s=0)
        else:
            kill(pids[victim])

    def kill_recovery(self):
        """True when one was caught, or there is a writer again."""
        with Peer(self.endpoint("control")) as peer:
            pids = {row["role"]: row["pid"] for row in peer.ask({"op": "info"}, READY_S)["roles"]}
        if "recovery" in pids:
            kill(pids["recovery"])
        return "recovery" in pids or "wal-writer" in pids


class Lane:
    """One store, from kill to kill."""
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.cluster = Struck()
        self.load = Load(self.cluster, seed)
        self.snapshots, self.finished = 0, []
        self.tally = dict.fromkeys([*VICTIMS, "purges", "snapshots", "opened", "doubtful"], 0)

    def live(self, count, told):
        try:
            self.cluster.start()
            for number in range(count):
                self.round(number)
                told(self.tally)
        except BaseException:
            print(self.cluster.log_tail(), file=sys.stderr)
            raise
        finally:
            self.load.hang_up()
            self.cluster.finish()

    def round(self, number):
        victim = self.rng.choices(list(VICTIMS), VICTIMS.values())[0]
        self.cluster.struck.clear()
        killer = threading.Thread(target=self.cluster.strike, args=(victim, min(self.rng.expovariate(1 / DELAY_S), DELAY_MAX_S)))
        killer.start()
        try:
            while not self.cluster.fired():
                self.move()
            killer.join()
            self.come_back(victim)
        finally:
            killer.join()
        self.tally[victim] += 1
        self.check(number)

    # ---- the load

    def move(self):
        """One step of the load. A death may swallow any part of it."""
        moves = {self.load.burst: 8, self.load.fill: 2, self.load.purge: 1, self.consolidate: 2, self.snapshot: 1}
        self.rng.choices(list(moves), moves.values())[0]()

    def consolidate(self):
        self.beside_writes("consolidate", wait=True)

    def snapshot(self):
        self.snapshots += 1
        path = self.cluster.base / f"s{self.snapshots}"
        reply = self.beside_writes("snapshot", path=str(path))
        if reply and reply["ok"]:
            self.tally["snapshots"] += 1
            self.finished.append((path, reply["seq"]))

    def beside_writes(self, op, **fields):
        """A request to control, and writes until it is answered; the reply, or None after a death."""
        with Peer(self.cluster.endpoint("control")) as peer:
            peer.send({"op": op, **fields})
            give_up = time.monotonic() + READY_S
            while not self.cluster.fired():
                if peer.socket.poll(0):
                    return peer.receive()
                assert time.monotonic() < give_up, f"{op} was not answered"
                self.load.burst()
        return None

    # ---- after a death

    def come_back(self, victim):
        self.cluster.drop_peers()
        if victim in ("supervisor", "everything"):
            self.cluster.process.wait()
            self.cluster.start()
        else:
            poll_until("every role plays again", self.playing)
        self.tally["doubtful"] += len(self.load.doubtful)
        self.tally["purges"] += sum(1 for request in self.load.doubtful if self.load.is_purge(request))
        self.load.settle()

    def playing(self):
        info = self.cluster.info_or_none()
        return info and info["state"] == "ready" and {"wal-writer", "compactor", "recall"
                                                      } <= {row["role"] for row in info["roles"]}

    def check(self, number):
        del self.load.purged[:-PURGED_MAX]
        self.load.check()
        if number % 10 == 9:
            damaged = self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]
            assert not damaged, f"verify: {damaged}"
        if number % 25 == 24:
            self.load.check_purged()
            self.cluster.restart()
            self.load.check()
        self.tidy()

    def tidy(self):
        """Some of the snapshots that were finished are opened; what is left of all of them goes."""
        for path, seq in self.finished:
            if self.rng.random() < 0.2:
                self.open_snapshot(path, seq)
        self.finished = []
        for path in self.cluster.base.glob("s*"):
            shutil.rmtree(path, ignore_errors=True)  # one that nobody waits for may still be growing

    def open_snapshot(self, path, seq):
        """It is the store as it was at that seq; of what was purged the model has no history."""
        copy = Cluster(settings=SETTINGS, dir=path)
        try:
            copy.start()
            for space in SPACES:
                ids = [id for id in self.load.known[space] if (space, id) not in self.load.purged_ids]
                reply = copy.ok("get", space=space, ids=ids, fields=ALL_FIELDS)
                truth.compare_get(self.load.model, reply, space, ids, as_of=seq)
            assert copy.ok("verify", timeout_s=60 * PATIENCE)["damaged"] == []
            self.tally["opened"] += 1
        finally:
            copy.finish()


def run_lane(number, seed, count, results):
    tally = {}
    try:
        Lane(seed).live(count, lambda now: (tally.update(now), results.put((number, dict(now), None))))
    except BaseException:
        results.put((number, tally, f"--seed {seed} --lanes 1: {traceback.format_exc()}"))
    results.put((number, None, None))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--lanes", type=int, default=2, help="stores at a time")
    wanted = parser.parse_args()
    results, tallies, failures = multiprocessing.Queue(), {}, []
    share = [wanted.count // wanted.lanes + (n < wanted.count % wanted.lanes) for n in range(wanted.lanes)]
    lanes = [
        multiprocessing.Process(target=run_lane, args=(n, wanted.seed + n, share[n], results))
        for n in range(wanted.lanes)
    ]
    for lane in lanes:
        lane.start()
    began, living = time.monotonic(), len(lanes)
    while living:
        number, tally, failure = results.get()
        if failure:
            failures.append(failure)
        elif tally is None:
            living -= 1
        else:
            tallies[number] = tally
            done = sum(t[v] for t in tallies.values() for v in VICTIMS)
            print(f"\r{done} of {wanted.count} kills, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    for lane in lanes:
        lane.join()
    print(file=sys.stderr)
    for failure in failures:
        print(failure)
    total = {name: sum(t[name] for t in tallies.values()) for name in next(iter(tallies.values()), {})}
    tried = sum(total.get(v, 0) for v in VICTIMS)
    details = " ".join(f"{name}={count}" for name, count in total.items())
    print(f"report kills tried={tried} lost=0 risen=0 wrong=0 undetected=0 crashes={len(failures)} {details}"
          if not failures else f"report kills tried={tried} failures={len(failures)} {details}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
