"""states.py - hundreds of power cuts of one store at work: see README.md. The command `states` gives it a machine of its
own to run in: private mounts, a private /dev/shm, process numbers that die with it."""

import argparse
import dataclasses
import os
import random
import shutil
import signal
import sys
import time
import traceback
import uuid
from pathlib import Path

import numpy as np

import past
from cluster import PATIENCE, Cluster, contents_of
from diary import BLOCK, FATES, SECTOR, Diary, Flushed, copy_sparse, mapped
from disk import Disk, file_systems, power_off
from recording import DIM, SETTINGS, keep, read_recording, record

LOAD_S = 3.0
STATES_A_RECORDING = 60
AGAIN = 0.35  # how often recovery itself is cut; and that recovery, and so on
SNAPSHOTS = 0.15  # how often a finished snapshot is opened
BOOT_ID = Path(os.environ["POWER_WORK"]) / "boot_id"  # mounted over the kernel's


@dataclasses.dataclass
class Cut:
    """A power cut at a position of a diary."""

    number: int
    position: int
    fate: str
    seed: str

    def rng(self, purpose):
        return np.random.default_rng([*f"{self.seed}/{purpose}".encode()])


@dataclasses.dataclass
class State:
    """What a cut leaves. `flushed` is an image with all that was flushed before it."""

    cut: Cut
    diary: Diary
    flushed: Path

    def make(self, target, unit):
        copy_sparse(self.flushed, target)
        with mapped(target) as image:
            self.diary.cut(image, self.cut.position, self.cut.fate, self.cut.rng(unit), unit)


def choose_cuts(seed, recording, diary, count):
    """`count` cuts, by position. Some anywhere, some at the very moment of an answer, some before a flush, when most is
    undecided."""
    rng = random.Random(f"{seed}/cuts")
    answers = [deed.acked for deeds in recording.clients.values() for deed in deeds] or [recording.length]
    flushes = [p for p in range(1, recording.length) if diary.flushed[p + 1] != diary.flushed[p]]
    cuts = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4:
            position = rng.randrange(recording.length + 1)
        elif kind < 0.7:
            position = rng.choice(answers)
        else:
            position = rng.choice(flushes)
        cuts.append((min(position, recording.length), rng.choice(FATES)))
    return [Cut(n, position, fate, f"{seed}/{n}") for n, (position, fate) in enumerate(sorted(cuts))]


class Machine:
    """Boots a disk image: mounts it and starts mnemed on it."""
    def __init__(self, folder, recording):
        self.recording = recording
        self.image = folder / "now"
        self.disk = Disk(folder / "disk", self.image)
        self.cluster, self.booted = None, 0

    def power_on(self):
        """Another boot, nothing in memory. False when the file system cannot be mounted."""
        BOOT_ID.write_text(f"{uuid.uuid4()}\n")
        self.cluster = Cluster(dim=DIM, settings=SETTINGS, dir=self.disk.files / "d")
        self.disk.start()
        return self.disk.mount(self.recording.file_system)

    def serve(self):
        """What `info` says when the store serves."""
        self.cluster.start(wait=False)
        info = self.cluster.await_state("ready", "degraded")
        self.booted = self.disk.position()
        return info

    def notes(self):
        """What recovery says of what it put aside, and its words."""
        notes = [path.read_text() for path in (self.cluster.dir / "quarantine").glob("*.json")]
        return "\n".join([*notes, self.cluster.log_tail()])

    def power_off(self):
        power_off(self.cluster, self.disk)


class Trial:
    """All states of one recording."""
    def __init__(self, folder, seed):
        self.folder, self.seed = folder, seed
        self.recording, self.diary = read_recording(folder), Diary(folder / "diary")
        self.machine = Machine(folder, self.recording)
        self.tally = dict.fromkeys(["states", "again", "whole_blocks", "in_doubt", "settled", "snapshots", "purged"], 0)

    def states(self, count, only=None):
        """Yields (cut, findings) of each."""
        flushed = Flushed(self.folder / "image", self.diary, self.folder / "flushed")
        for cut in choose_cuts(self.seed, self.recording, self.diary, count):
            if only in (None, cut.number):
                flushed.advance(cut.position)
                yield cut, self.try_cut(cut, State(cut, self.diary, flushed.path))

    def try_cut(self, cut, state):
        """Boots the state that the cut leaves; perhaps the power goes while it boots, and so on, until one comes up."""
        findings, rng = past.Findings(), cut.rng("again")
        unit = self.boot(cut, state, findings)
        while not findings and rng.random() < AGAIN:
            self.tally["again"] += 1
            state = self.cut_the_boot(state, unit, rng)
            unit = self.boot(cut, state, findings)
        return findings

    def boot(self, cut, state, findings):
        """Brings a state up and compares. Returns the unit that it was made with."""
        self.tally["states"] += 1
        try:
            unit = self.mount(state)
            info = self.machine.serve()
            self.compare(cut, findings)
            if info["state"] != "ready" and not findings:
                findings.add("wrong", f"nothing is lost, but the store says {info['degraded']}: {self.machine.notes()}")
            return unit
        except Exception:
            findings.add("crashes", f"{traceback.format_exc()}\n{self.machine.cluster.log_tail()}")
            return None
        finally:
            self.machine.power_off()

    def mount(self, state):
        """In sectors if that can be mounted at all, else in blocks."""
        state.make(self.machine.image, SECTOR)
        if self.machine.power_on():
            return SECTOR
        self.machine.power_off()
        self.tally["whole_blocks"] += 1
        state.make(self.machine.image, BLOCK)
        assert self.machine.power_on(), "not even with whole blocks can it be mounted"
        return BLOCK

    def cut_the_boot(self, state, unit, rng):
        """The state that a cut leaves in the middle of the last boot, which began with this one."""
        diary = Diary(self.machine.disk.diary)
        name = f"{state.cut.seed}/again"
        cut = Cut(state.cut.number, int(rng.integers(self.machine.booted + 1)), FATES[int(rng.integers(len(FATES)))], name)
        flushed = self.folder / f"flushed{name.count('again')}"
        state.make(flushed, unit)
        with mapped(flushed) as image:
            diary.apply(image, 0, diary.flushed[cut.position])
        return State(cut, diary, flushed)

    # ---- what must hold

    def compare(self, cut, findings):
        cluster, pasts = self.machine.cluster, []
        for space, deeds in self.recording.clients.items():
            held = past.Past(space, deeds, cut.position, DIM)
            self.tally["in_doubt"] += len(held.doubtful)
            held.compare(cluster, findings)
            self.tally["settled"] += len(held.settled)
            pasts.append(held)
        damaged = cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]
        if damaged:
            findings.add("wrong", f"verify: {damaged}")
        self.compare_purged(pasts, findings)
        if cut.rng("snapshot").random() < SNAPSHOTS:
            self.compare_snapshot(cut, findings)

    def compare_purged(self, pasts, findings):
        if not any(held.purged for held in pasts):
            return
        walked = os.walk(self.machine.cluster.dir)
        paths = [os.path.join(folder, name) for folder, _, names in walked for name in names]
        files = {path: contents_of(path) for path in paths}
        for held in pasts:
            self.tally["purged"] += len(held.purged)
            held.compare_purged(files, findings)

    def compare_snapshot(self, cut, findings):
        """The newest that was finished before the cut is the store as it was at its seq."""
        finished = [deed for deed in self.recording.snapshots if deed.acked <= cut.position]
        if not finished:
            return
        self.tally["snapshots"] += 1
        name = Path(finished[-1].request.fields["path"]).name
        copy = Cluster(dim=DIM, settings=SETTINGS, dir=self.machine.disk.files / name)
        try:
            copy.start()
            for space, deeds in self.recording.clients.items():
                model = past.as_of(deeds, space, past.seq_of(finished[-1]), DIM)
                listed = past.truth.list_all(copy.ok, space=space, limit=100, fields=past.ALL_FIELDS)
                past.truth.compare_list(model, listed, space)
        except AssertionError as difference:
            findings.add("lost", f"snapshot {name}: {difference}")
        finally:
            copy.kill_everything()
            copy.finish()


# ---- all of it


class Campaign:
    """Recordings and their states until enough were tried."""
    def __init__(self, work, wanted):
        self.work, self.wanted = work, wanted
        self.began, self.total, self.found, self.recordings = time.monotonic(), {}, past.Findings(), 0

    def enough(self):
        if self.wanted.seconds:
            return time.monotonic() - self.began > self.wanted.seconds
        return self.total.get("states", 0) >= self.wanted.count

    def run(self):
        systems = file_systems()
        while not self.enough():
            folder, seed = self.work / f"r{self.recordings}", f"{self.wanted.seed}/{self.recordings}"
            record(folder, systems[self.recordings % len(systems)], seed, self.wanted.load)
            self.recordings += 1
            self.try_recording(Trial(folder, seed))
            shutil.rmtree(folder)

    def again(self, folder, number):
        """One state of a recording that was kept, or all."""
        shutil.copytree(folder, self.work / "r")
        recording = read_recording(self.work / "r")
        self.try_recording(Trial(self.work / "r", recording.seed), number)

    def try_recording(self, trial, only=None):
        before, kept = dict(self.total), None
        for cut, findings in trial.states(STATES_A_RECORDING, only):
            self.total = {name: before.get(name, 0) + count for name, count in trial.tally.items()}
            print(f"\r{self.total['states']} states, {time.monotonic() - self.began:.0f} s ", end="", file=sys.stderr)
            if findings:
                kept = kept or self.keep(trial)
                print(f"\n{trial.recording.file_system}, {cut}: {findings}\n  tests/faults/power/states --again {kept} {cut.number}")
                for kind, what in findings.of.items():
                    self.found.of[kind] += what
            if only is None and self.enough():
                return

    def keep(self, trial):
        target = Path(os.environ["POWER_CACHE"]) / f"states-{trial.seed.replace('/', '-')}"
        shutil.rmtree(target, ignore_errors=True)
        keep(trial.folder, target)
        return target

    def report(self):
        print(file=sys.stderr)
        found = " ".join(f"{kind}={len(what)}" for kind, what in self.found.of.items())
        more = " ".join(f"{name}={count}" for name, count in self.total.items() if name != "states")
        print(f"report fuse tried={self.total.get('states', 0)} {found} recordings={self.recordings} {more}")


def arguments():
    parser = argparse.ArgumentParser(prog="states", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="states to try")
    parser.add_argument("--seconds", type=float, help="try for so long instead")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--load", type=float, default=LOAD_S, help="seconds that are recorded at a time")
    parser.add_argument("--again", nargs="+", metavar=("FOLDER", "NUMBER"), help="a kept recording, and which of its states")
    return parser.parse_args()


def main():
    wanted = arguments()
    campaign = Campaign(Path(os.environ["POWER_WORK"]), wanted)
    print(f"seed {wanted.seed}", file=sys.stderr)
    try:
        if wanted.again:
            campaign.again(Path(wanted.again[0]), int(wanted.again[1]) if len(wanted.again) > 1 else None)
        else:
            campaign.run()
    finally:
        campaign.report()
    return 1 if campaign.found else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
