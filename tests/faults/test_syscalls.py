"""System calls that fail, are slow or are interrupted, in the real processes, through strace's injection.

For each row of CASES a cluster runs under load; strace is attached to one role and makes a call of it fail as the row
says; then it is taken away. Whatever happened meanwhile: what was acknowledged is there bit for bit, what was not is
there whole or not at all, what was forgotten does not rise, writes resume by themselves, verify finds no damage, and a
restart changes nothing. Numbers are the scenarios of durability: 20 EIO on a sync, 21 once, 22 on a write, 25 on the sync of a
folder, 27 EINTR, 28 a disk that hangs, 29 slow syncs, 30 no space for a segment, 31 none for a compaction, 34 no inodes,
35 no file descriptors. Skipped where strace may not attach.
"""

import re
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

from cluster import READY_S, SLOW, Cluster, poll_until, scaled  # noqa: E402  (the path is set above)
from fault_load import Load  # noqa: E402

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "compact.interval": "50ms", "compact.min_rows": 64,
    "compact.fanout": 2, "history.window": "100ms", "supervisor.backoff_min": "10ms", "supervisor.backoff_max": "100ms",
    "disk.reserve": 0
}
STRIKE_S = 6.0  # how long the load goes on under the fault
HANGS = 28  # the one scenario that waits for the supervisor to lose its patience; else nobody shall who was merely slow

# name: (scenario, role, its threads, system calls, what strace injects, whether the role is replaced: None for either).
# The writer's main thread commits; its keeper prepares log segments and writes the mark.
MAIN, ALL = "main thread", "all threads"
CASES = {
    "sync_fails": (20, "wal-writer", MAIN, "fdatasync", "error=EIO", True),
    "sync_fails_once": (21, "wal-writer", MAIN, "fdatasync", "error=EIO:when=1", True),
    "sync_fails_later": (21, "wal-writer", MAIN, "fdatasync", "error=EIO:when=5", True),
    "keeper_sync_fails": (20, "wal-writer", ALL, "fdatasync", "error=EIO:when=2", None),
    "write_fails": (22, "wal-writer", MAIN, "pwrite64,pwritev", "error=EIO:when=3", None),
    "folder_sync_fails": (25, "compactor", ALL, "fsync", "error=EIO:when=2", False),
    "interrupted_writes": (27, "wal-writer", ALL, "pwrite64,pwritev", "error=EINTR:when=1+2", False),
    "interrupted_syncs": (27, "wal-writer", MAIN, "fdatasync", "error=EINTR:when=3", None),
    "hung_disk": (28, "wal-writer", MAIN, "fdatasync", "delay_enter=9000000:when=3", None),
    "slow_syncs": (29, "wal-writer", MAIN, "fdatasync", "delay_enter=300000:when=1..8", False),
    "no_space_for_segments": (30, "wal-writer", ALL, "fallocate,pwrite64,pwritev", "error=ENOSPC:when=20+1", None),
    "no_space_in_compaction": (31, "compactor", ALL, "pwrite64,fallocate", "error=ENOSPC", False),
    "compaction_write_fails": (31, "compactor", ALL, "pwrite64", "error=EIO:when=7", False),
    "compaction_sync_fails": (31, "compactor", ALL, "fdatasync", "error=EIO:when=3", False),
    "no_inodes": (34, "compactor", ALL, "openat,mkdir", "error=ENOSPC:when=8+1", None),
    "no_descriptors_compactor": (35, "compactor", ALL, "openat", "error=EMFILE", None),
    "no_descriptors_writer": (35, "wal-writer", ALL, "openat", "error=EMFILE", None),
    "no_descriptors_recall": (35, "recall", ALL, "openat", "error=EMFILE", False),
    "mappings_fail_recall": (35, "recall", ALL, "mmap", "error=ENOMEM:when=1..20", None),  # libzmq ends the process
}


def may_attach():
    """True when strace can attach to a process that is not its child."""
    if not shutil.which("strace"):
        return False
    with subprocess.Popen(["sleep", "5"]) as sleeper:
        tried = subprocess.Popen(["strace", "-p", str(sleeper.pid)], stderr=subprocess.PIPE, text=True)
        line = tried.stderr.readline()
        tried.kill()
        tried.wait()
        tried.stderr.close()
        sleeper.kill()
    return "attached" in line


class StruckCluster(Cluster):
    """A cluster of which one role is struck by a fault of its system calls."""
    def __init__(self, **more):
        super().__init__(settings={**SETTINGS, **more})
        self.tracer, self.told = None, self.base / "strace"
        self.restarts_expected = True

    def strike(self, role, threads, calls, fault):
        pid = poll_until(f"{role} alive", lambda: self.role(role))["pid"]
        self.tracer = subprocess.Popen(
            ["strace", "-qq", "-y", "-p", str(pid), "-o", str(self.told), "-e", f"trace={calls}"] + ["-f"] * (threads == ALL) +
            [f"--inject={call}:{fault}" for call in calls.split(",")], stderr=subprocess.DEVNULL)
        tracer_of = re.compile(r"^TracerPid:\t(\d+)", re.M)
        status = Path(f"/proc/{pid}/status")
        poll_until("strace attached", lambda: tracer_of.search(status.read_text())[1] != "0" or self.tracer.poll())
        return pid

    def fired(self):
        """Requests that are not answered from now on are in doubt: before the first call has failed, or the role has
        ended over one, silence is slowness."""
        return self.tracer is not None and (self.tracer.poll() is not None or self.struck() > 0)

    def struck(self):
        """How often a call was made to fail or wait."""
        told = self.told.read_text(errors="replace") if self.told.exists() else ""
        return told.count("(INJECTED)") + told.count("(DELAYED)")

    def struck_nothing_but(self, name):
        """Whether every call that was made to fail was one on files with this in their names."""
        told = self.told.read_text(errors="replace") if self.told.exists() else ""
        struck = [line for line in told.splitlines() if "(INJECTED)" in line]
        return all(f"/{name}" in line for line in struck)

    def relieve(self):
        """From here on silence is slowness again."""
        if self.tracer and self.tracer.poll() is None:
            self.tracer.terminate()
        if self.tracer:
            self.tracer.wait()
        self.tracer = None

    def finish(self):
        self.relieve()
        super().finish()


@unittest.skipIf(SLOW, "LeakSanitizer cannot do its work under strace")
@unittest.skipUnless(may_attach(), "strace may not attach to processes here")
class Syscalls(unittest.TestCase):
    def test_cases(self):
        tried = 0
        for round_ in range(scaled(1)):
            for name in CASES:
                with self.subTest(name):
                    tried += self.try_case(name, seed=round_)
        print(f"{len(CASES)} faults of system calls, {tried} calls that failed", file=sys.stderr)

    def try_case(self, name, seed):
        scenario, role, threads, calls, fault, replaced = CASES[name]
        cluster = StruckCluster(**({"supervisor.stall": "3s"} if scenario == HANGS else {}))
        load = Load(cluster, seed)
        self.addCleanup(cluster.finish)
        try:
            cluster.start()
            self.work(load)
            pid = cluster.strike(role, threads, calls, fault)
            self.work_until_struck(cluster, load)
            struck = cluster.struck() + len(load.doubtful)
            if load.doubtful and "delay" in fault:
                time.sleep(STRIKE_S)  # longer than the supervisor waits for a heartbeat
            cluster.relieve()
            self.assertGreater(struck, 0, f"{name}: the load never made the call {calls}")
            self.check(cluster, load)
            if replaced and cluster.struck_nothing_but("MANIFEST"):
                replaced = None  # the second copy: it lives on; the first: nobody knows if the edit stands, it ends
            if replaced is not None:
                self.assertEqual(cluster.role(role)["pid"] != pid, replaced, f"{name}: {role} replaced")
            self.work(load)
            cluster.restart()
            self.check(cluster, load)
        except AssertionError as error:
            raise AssertionError(f"scenario {scenario}, {role}: {calls} {fault}: {error}\n{cluster.log_tail()}") from None
        finally:
            cluster.finish()
        return struck

    def work(self, load):
        for _ in range(4):
            load.burst()
            load.fill()
            load.settle()

    def work_until_struck(self, cluster, load):
        """Until the fault has struck and had its time; requests that get no answer are settled after it."""
        end, give_up = time.monotonic() + STRIKE_S, time.monotonic() + READY_S
        while time.monotonic() < (end if cluster.fired() else give_up) and not load.doubtful:
            try:
                load.burst()
                if not load.doubtful:
                    load.fill()
                cluster.call("recall", space="a", embedding=load.memories.vector().tobytes(), k=5)
            except AssertionError:
                if not cluster.fired():
                    raise
                load.hang_up()
            if cluster.struck() and time.monotonic() > end - STRIKE_S / 2:
                break
            time.sleep(0.02)

    def check(self, cluster, load):
        cluster.drop_peers()
        cluster.await_state("ready")
        cluster.note_instance()
        load.settle()
        load.check()
        self.assertEqual(cluster.ok("verify", timeout_s=60)["damaged"], [])


if __name__ == "__main__":
    unittest.main()
