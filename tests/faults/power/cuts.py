"""cuts.py - switches a virtual machine off while mnemed works in it, and on again: see README.md. The command `cuts` has
made what boots.

The machine's disk is a power_disk: what the guest has not flushed when qemu is killed is lost in part, by a fate. Often
the disk was off a little before: at a position of its diary where much was undecided. The guest's clients (guest.c) tell of
each deed over a serial line; what was told before the cut must be there after it. The store lives on from cut to cut.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from diary import BLOCK, FATES, Diary, copy_sparse, mapped
from disk import Disk, make_image
from machine import Machine

CLIENTS = 3
BOOT_MAX_S = 240
LOAD_MAX_S = 6.0  # the power goes within so long after all clients have looked
EARLY = 0.25  # how often it goes before that, while the machine comes up
EARLY_MAX_S = 12.0
LATEST = 200  # entries of the diary: how much sooner than the machine the disk may be off
KINDS = ("lost", "risen", "wrong", "undetected", "crashes")


class Story:
    """One store, from cut to cut."""
    def __init__(self, work, seed):
        self.work, self.rng = work, random.Random(seed)
        self.fates = np.random.default_rng(seed)
        self.image, self.before, self.console = work / "image", work / "before", work / "console"
        make_image(self.image, "ext4")
        self.disk = Disk(work / "disk", self.image)
        self.known = [0] * CLIENTS  # the last deed of each client that was told before the disk went off
        self.told = []  # in this life: (position of the diary, client, deed)
        self.found = {kind: [] for kind in KINDS}
        self.tally = {"tried": 0, "deeds": 0, "early": 0, "undecided_writes": 0}

    def hear(self, line):
        """One line of the guest. Its first word."""
        word, *rest = line.split(" ", 2) if line else [""]
        if word == "bad":
            self.found[rest[0] if rest[0] in KINDS else "crashes"].append(line)
        elif word in ("at", "ack"):
            self.told.append((self.disk.position(), *map(int, rest)))
            self.tally["deeds"] += word == "ack"
        return word

    def live(self, last=False):
        """Boots; the power goes at some moment, if this is not the last life. Leaves the image as the cut did."""
        copy_sparse(self.image, self.before)
        self.disk.start()
        self.told = []
        words = (["check"] if last else []) + [str(n) for n in self.known]
        drive = f"file={self.disk.device},if=virtio,format=raw,cache=none"
        machine = Machine(["-smp", "2", "-m", "768", "-drive", drive], f"deeds={','.join(words)}", self.console)
        machine.power_on()
        early = not last and self.rng.random() < EARLY
        try:
            self.listen(machine, early, last)
        finally:
            for line in machine.cut():
                self.hear(line)
            self.disk.stop()
        self.tally["tried"] += not last
        self.tally["early"] += early
        if not any(self.found.values()):
            self.forget(Diary(self.disk.diary))

    def listen(self, machine, early, last):
        give_up = time.monotonic() + BOOT_MAX_S
        for line in machine.lines(give_up):
            word = self.hear(line)
            if word == "bad":
                return
            if word == "power" and early:
                return self.wait(machine, EARLY_MAX_S)
            if word == "checked":
                return None if last else self.wait(machine, LOAD_MAX_S)
        self.found["crashes"].append(f"the machine fell silent:\n{self.console.read_text(errors='replace')[-3000:]}")

    def wait(self, machine, most_s):
        for line in machine.lines(time.monotonic() + self.rng.random() * most_s):
            if self.hear(line) == "bad":
                return

    def forget(self, diary):
        """Makes the image what the cut leaves: what was flushed, and of the rest what fate lets land. Blocks are whole
        here: a guest has no fsck."""
        end = self.moment(diary)
        self.before.rename(self.image)
        with mapped(self.image) as image:
            diary.apply(image, 0, diary.flushed[end])
            diary.cut(image, end, self.rng.choice(FATES), self.fates, BLOCK)
        self.tally["undecided_writes"] += end - diary.flushed[end]
        for position, client, deed in self.told:
            if position <= end:
                self.known[client] = deed

    def moment(self, diary):
        """When the disk went off: with the machine, or at one of the last positions at which not all was flushed."""
        end = len(diary)
        undecided = [p for p in range(max(0, end - LATEST), end) if diary.flushed[p] < p]
        return self.rng.choice(undecided) if undecided and self.rng.random() < 0.7 else end

    def keep(self):
        """What the failing life began with, and all that it wrote."""
        target = Path(os.environ["POWER_CACHE"]) / "cuts"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in (self.before, self.disk.diary, self.console):
            copy_sparse(path, target / path.name)
        (target / "known").write_text(f"{self.known}\n")
        return target


def main():
    parser = argparse.ArgumentParser(prog="cuts", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="cuts to make")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", file=sys.stderr)
    story, began = Story(Path(os.environ["POWER_WORK"]), wanted.seed), time.monotonic()
    try:
        for number in range(wanted.count + 1):
            story.live(last=number == wanted.count)
            print(f"\r{story.tally['tried']} cuts, {time.monotonic() - began:.0f} s ", end="", file=sys.stderr)
            if any(story.found.values()):
                break
    finally:
        print(file=sys.stderr)
        bad = [what for found in story.found.values() for what in found]
        if bad:
            print("\n".join(bad), f"kept in {story.keep()}", sep="\n")
        counts = {"tried": story.tally.pop("tried"), **{kind: len(story.found[kind]) for kind in KINDS}, **story.tally}
        print("report qemu", *(f"{name}={count}" for name, count in counts.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
