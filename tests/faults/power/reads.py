"""reads.py - a disk that cannot read some sectors, under a store at work: see README.md. Run by the command `reads`.

One store is made, with memories in columns and others in the log. Each trial boots a copy of it in which a stretch of one
file cannot be read, from the start or from the moment it serves; asks for every memory in every way; makes the disk well
again and boots once more. What is answered must be right; what cannot be read is refused, or the store says that something
is wrong with it; no process dies of it; and what was there before is there when the disk is well.
"""

import argparse
import fcntl
import os
import random
import signal
import struct
import sys
import time
import traceback
import uuid
from pathlib import Path

import numpy as np

from cluster import PATIENCE, Cluster, NoReply, f32
from diary import copy_sparse
from disk import Disk, make_image, power_off

DIM = 256
ROWS, FRESH, GONE = 3000, 300, 60  # in columns; in the log behind them; forgotten since
SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "2MiB", "wal.prepared": 1, "disk.reserve": 0, "index.rows_min": 500,
    "supervisor.backoff_min": "10ms", "supervisor.backoff_max": "1s"
}
KINDS = ("lost", "risen", "wrong", "undetected", "crashes")
STATES = ("ready", "degraded")
BOOT_ID = Path(os.environ["POWER_WORK"]) / "boot_id"
BLOCK = 4096
PAGE = 100  # ids asked for at a time


def extents(path):
    """[(place in the file, place on the disk, bytes)], by FS_IOC_FIEMAP."""
    buffer = bytearray(struct.pack("<QQIIII", 0, 2**63, 1, 0, 128, 0) + bytes(128 * 56))
    with open(path, "rb") as file:
        fcntl.ioctl(file, 0xC020660B, buffer)
    count = struct.unpack_from("<I", buffer, 20)[0]
    return [struct.unpack_from("<QQQ", buffer, 32 + 56 * i) for i in range(count)]


class Truth:
    """What was remembered, and how an answer differs from it."""
    def __init__(self):
        rng = np.random.default_rng(1)
        self.vectors = rng.standard_normal((ROWS + FRESH, DIM)).astype("f4")
        self.gone = set(range(10, ROWS, ROWS // GONE))

    def memory(self, id):
        return {"id": id, "embedding": f32(self.vectors[id]), "content": f"memory {id} " + "." * (id % 300)}

    def fill(self, cluster):
        for first in range(0, ROWS, 500):
            cluster.ok("remember", memories=[self.memory(i) for i in range(first, first + 500)])
        cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
        cluster.ok("remember", memories=[self.memory(i) for i in range(ROWS, ROWS + FRESH)])
        cluster.ok("forget", ids=sorted(self.gone))

    def compare(self, id, row, answers):
        if row is None:
            answers.missing += id not in self.gone
        elif id in self.gone:
            answers.add("risen", f"{id}: {row}")
        else:
            right = {"content": self.memory(id)["content"], "embedding": f32(self.vectors[id])}
            told = set(row.get("damaged", ()))
            answers.refused += bool(told)
            if any(row[name] != value for name, value in right.items() if name in row) or (
                    "content" not in row and "content" not in told):
                answers.add("wrong", f"{id}: {row}")

    def ask(self, cluster, answers):
        """Every memory by its id, and by recall; the rows of list."""
        for first in range(0, ROWS + FRESH, PAGE):
            ids = list(range(first, first + PAGE))
            reply = cluster.call("get", ids=ids, fields=["content", "embedding"])
            if answers.take(reply):
                for id, row in zip(ids, reply["memories"]):
                    self.compare(id, row, answers)
            query = first + 3
            for exact in (True, False):
                reply = cluster.call("recall", embedding=f32(self.vectors[query]), k=5, exact=exact, fields=["content"])
                if answers.take(reply):
                    for hit in reply["hits"]:
                        self.compare(hit["id"], hit, answers)
                    if exact and reply["hits"] and reply["hits"][0]["id"] != query and query not in self.gone:
                        answers.missing += 1
        reply = cluster.call("list", limit=ROWS + FRESH, fields=["content"])
        if answers.take(reply):
            for row in reply["memories"]:
                self.compare(row["id"], row, answers)


class Answers:
    """What one life of the store said."""
    def __init__(self):
        self.found, self.refused, self.missing, self.told = [], 0, 0, []

    def add(self, kind, what):
        self.found.append((kind, str(what)[:300]))

    def take(self, reply):
        """True for one that answers; a refusal gives a reason."""
        if not reply["ok"]:
            self.refused += 1
            if reply["code"] == "internal":
                self.add("crashes", reply)
        return reply["ok"]


class Trial:
    def __init__(self, work, truth, rng):
        self.truth, self.rng = truth, rng
        self.image, self.base = work / "now", work / "base"
        self.disk, self.name = Disk(work / "disk", self.image), ""
        self.tally = dict.fromkeys(["met", "refused", "missing_told", "not_started"], 0)

    def boot(self):
        BOOT_ID.write_text(f"{uuid.uuid4()}\n")
        self.disk.start()
        assert self.disk.mount("ext4")
        self.cluster = Cluster(dim=DIM, settings=SETTINGS, dir=self.disk.files / "d")
        self.cluster.restarts_expected = True

    def power_off(self):
        power_off(self.cluster, self.disk)

    def make_base(self):
        make_image(self.image, "ext4")
        self.boot()
        try:
            self.cluster.start()
            self.truth.fill(self.cluster)
        finally:
            self.power_off()
        self.image.rename(self.base)

    def choose(self):
        """A stretch of a file, as ranges of the disk."""
        paths = [p for p in (self.disk.files / "d").rglob("*") if p.is_file() and p.stat().st_size and "run" not in p.parts]
        logs = [p for p in paths if p.suffix == ".wal"]
        columns = [p for p in paths if p.suffix == ".col"]
        path = self.rng.choice(self.rng.choice([logs, columns, columns, paths]))
        size = -(-path.stat().st_size // BLOCK)
        first, count = (0, size) if self.rng.random() < 0.3 else (self.rng.randrange(size), self.rng.choice([1, 1, 4, 16]))
        self.name = f"{path.relative_to(self.disk.files)}, blocks {first} to {first + count - 1} of {size}"
        ranges = []
        for place, on_disk, length in extents(path):
            begin, end = max(place, first * BLOCK), min(place + length, (first + count) * BLOCK)
            if begin < end:
                ranges.append((on_disk + begin - place, on_disk + end - place))
        return ranges

    def run(self):
        """[(kind, what)] of all that is wrong."""
        copy_sparse(self.base, self.image)
        self.boot()
        try:
            ill = self.live_ill()
        finally:
            self.power_off()
        self.boot()
        try:
            well = self.live()
        finally:
            self.power_off()
        if well.missing and well.told:
            self.tally["missing_told"] += well.missing
        elif well.missing:
            well.add("lost", f"{well.missing} memories are missing on a disk that is well again, and nothing is told")
        return [(kind, f"{self.name}: {what}") for kind, what in ill.found + well.found]

    def live_ill(self):
        ranges, at_start = self.choose(), self.rng.random() < 0.75
        self.name += ", from the start" if at_start else ", while it serves"
        if at_start:
            self.disk.set_bad(ranges)
            answers = self.live()
        else:
            answers = self.live(lambda: self.disk.set_bad(ranges))
        self.tally["met"] += self.disk.refused() > 0
        self.tally["refused"] += answers.refused
        if answers.missing and not answers.told and not answers.refused:
            answers.add("undetected", f"{answers.missing} memories were not found, and nothing is told")
        return answers

    def live(self, before_asking=lambda: None):
        """A life of the store: up, asked, and looked at."""
        answers = Answers()
        try:
            self.cluster.start(wait=False)
            self.cluster.await_state(*STATES, timeout_s=10 * PATIENCE)
        except AssertionError as late:
            self.tally["not_started"] += 1
            if "signal" in str(late):
                answers.add("crashes", late)
            answers.told.append("does not start")
            return answers
        before_asking()
        try:
            for _ in range(2 if self.serves() else 0):
                self.truth.ask(self.cluster, answers)
        except NoReply as silence:
            answers.add("crashes", silence)
        self.listen(answers)
        return answers

    def serves(self):
        """False while the log cannot be recovered; which the store must say, and does."""
        there = {"wal-writer", "recall"} <= {role["role"] for role in self.cluster.info()["roles"]}
        self.tally["not_started"] += not there
        return there

    def listen(self, answers):
        """What the store says of itself, and who has died of what."""
        info = self.cluster.info()
        verified = self.cluster.call("verify", timeout_s=60 * PATIENCE)
        answers.told += info["degraded"]
        answers.told += verified["damaged"] if verified["ok"] else [f"verify: {verified['code']}"]
        for death in {(death["role"], death["how"], death["text"]) for death in info["last_words"]}:
            if "signal" in death[1]:
                answers.add("crashes", ": ".join(death))


def main():
    parser = argparse.ArgumentParser(prog="reads", description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="trials")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--only", type=int, help="the number of one trial of that seed")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", file=sys.stderr)
    work, truth, found = Path(os.environ["POWER_WORK"]), Truth(), []
    base = Trial(work, truth, random.Random(0))
    base.make_base()
    total, tried, began = dict(base.tally), 0, time.monotonic()
    try:
        for number in range(wanted.count) if wanted.only is None else [wanted.only]:
            trial = Trial(work, truth, random.Random(f"{wanted.seed}/{number}"))
            try:
                bad = trial.run()
            except Exception:
                bad = [("crashes", f"{trial.name}: {traceback.format_exc()}\n{trial.cluster.log_tail()}")]
            for kind, what in bad:
                print(f"\n--seed {wanted.seed} --only {number}: {kind}: {what}")
            found += [kind for kind, _ in bad]
            tried += 1
            total = {name: total[name] + count for name, count in trial.tally.items()}
            print(f"\r{tried} trials, {time.monotonic() - began:.0f} s ", end="", file=sys.stderr)
    finally:
        print(file=sys.stderr)
        counts = {**{kind: found.count(kind) for kind in KINDS}, **total}
        print(f"report reads tried={tried}", *(f"{name}={count}" for name, count in counts.items()))
    return 1 if found else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
