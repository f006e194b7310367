"""numa.py - starts machines with NUMA nodes and listens to what guest.py finds on them. The command `numa` has made what
boots."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from machine import Machine

STORY_MAX_S = 1800
KINDS = ("lost", "risen", "wrong", "undetected", "crashes", "misplaced")


def node(number, cpu=None, memory=None):
    """Arguments of qemu for one node; memory in MiB."""
    words = f"node,nodeid={number}"
    if cpu is not None:
        words += f",cpus={cpu}"
    if memory is None:
        return ["-numa", words]
    return ["-object", f"memory-backend-ram,size={memory}M,id=m{number}", "-numa", f"{words},memdev=m{number}"]


# name: qemu's arguments; the CPUs that mnemed may use, as a mask; the nodes that it must find, one without memory with a "-".
# (Linux counts nodes with CPUs first.)
MACHINES = {
    "two": (["-smp", "2", "-m", "1024", *node(0, 0, 512), *node(1, 1, 512)], "3", "0,1"),
    # A node that mnemed may not use, CPUs without memory, memory without CPUs.
    "odd": (["-smp", "4", "-m", "1280", *node(0, 0, 512), *node(1, 1, 256), *node(2, 2, 256), *node(3, 3),
             *node(4, None, 256)], "d", "0,2,3-"),
}


def live(name, work, tally, found):
    """One machine, from power on to its last word."""
    hardware, cpus, nodes = MACHINES[name]
    console = work / f"console.{name}"
    machine = Machine(hardware, f"cpus={cpus} nodes={nodes}", console)
    machine.power_on()
    ended = False
    try:
        for line in machine.lines(time.monotonic() + STORY_MAX_S):
            word, *rest = line.split(" ", 2)
            print(f"{name}: {line}", file=sys.stderr)
            tally["tried"] += word == "fact"
            ended = ended or word in ("checked", "bad")
            if word == "bad":
                found[rest[0] if rest[0] in KINDS else "crashes"].append(f"{name}: {line}")
                print(console.read_text(errors="replace"), file=sys.stderr)
    finally:
        machine.cut()
    if not ended:
        found["crashes"].append(f"{name}: the machine did not end its story:\n{console.read_text(errors='replace')[-3000:]}")


def main():
    parser = argparse.ArgumentParser(prog="numa", description=__doc__)
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"of {', '.join(MACHINES)}; all without")
    wanted = parser.parse_args().machines or list(MACHINES)
    if set(wanted) - set(MACHINES):
        parser.error(f"there are the machines {', '.join(MACHINES)}")
    found, tally, began = {kind: [] for kind in KINDS}, {"tried": 0}, time.monotonic()
    for name in wanted:
        live(name, Path(os.environ["POWER_WORK"]), tally, found)
    bad = [what for several in found.values() for what in several]
    print(*bad, sep="\n", end="\n" if bad else "")
    counts = {**tally, **{kind: len(found[kind]) for kind in KINDS}, "machines": len(wanted)}
    print("report numa", *(f"{name}={count}" for name, count in counts.items()),
          f"seconds={time.monotonic() - began:.0f}")
    return 1 if bad else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
