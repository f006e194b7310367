"""What keeps a cluster of processes alive and honest: dying and looping children, memory that others left or scribbled
on, clocks that jump, readers beyond the table's end, a machine that is short of memory."""

import mmap
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

import mneme
from cluster import PATIENCE, SHM, SLOW, Cluster, NoReply, f32, kill, poll_until

# A clock that a file moves: seconds, added to what CLOCK_REALTIME says.
JUMPING_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    long offset_s = 0;
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *path = getenv("MNEME_TEST_CLOCK");
    FILE *file = clock == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &offset_s) == 1)
            now->tv_sec += offset_s;
        fclose(file);
    }
    return result;
}
"""


class Supervised(unittest.TestCase):
    def begin(self, cluster=None, **settings):
        self.cluster = cluster or Cluster(settings={"supervisor.backoff_min": "10ms", **settings})
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.cluster.restarts_expected = True
        self.rng = np.random.default_rng(1)
        return self.cluster

    def remember(self, first, count=20):
        memories = [{"id": first + i, "embedding": f32(self.rng.standard_normal(8)), "content": str(first + i)}
                    for i in range(count)]
        return self.cluster.ok("remember", memories=memories)

    def assert_there(self, *ids):
        rows = self.cluster.ok("get", ids=list(ids), fields=["content"])["memories"]
        self.assertEqual([row and row["content"] for row in rows], [str(id) for id in ids])

    def instance(self):
        return SHM / Path((self.cluster.dir / "run" / "instance").read_text().strip()).name


class Children(Supervised):
    def test_a_child_that_keeps_dying(self):
        """Its socket's place is taken: it cannot start. Tried again and again with pauses, told of, and well as soon as
        it can be."""
        self.begin(**{"supervisor.backoff_max": "50ms"})
        self.remember(1)
        place = self.cluster.dir / "run" / "recall.0"
        pid = self.cluster.role("recall")["pid"]
        place.unlink()
        place.mkdir()
        kill(pid)
        info = self.cluster.await_state("degraded")
        self.assertIn("a role keeps dying", str(info["degraded"]))
        self.remember(21)  # the writer does not mind
        before, began = len(self.cluster.log.read_text().splitlines()), time.monotonic()
        time.sleep(1)
        lines = len(self.cluster.log.read_text().splitlines()) - before
        self.assertLess(lines, 150 * (time.monotonic() - began), "it is started without a pause")
        place.rmdir()
        self.cluster.await_state("ready")
        self.cluster.drop_peers()
        self.assert_there(1, 40)

    def test_a_worker_killed_in_a_query(self):
        """Its client hears nothing, its pin is gone, the next worker answers."""
        self.begin(**{"recall.threads": 1})
        for n in range(40):
            self.remember(1 + 1000 * n, 1000)
        peer = self.cluster.peer("recall")
        many = f32(self.rng.standard_normal(8 * 4000))
        pid = self.cluster.role("recall")["pid"]
        poll_until("caught in a query", lambda: self.is_caught(pid, peer, many))
        kill(pid)
        self.assertIsNone(peer.receive_frames(0.5))
        self.cluster.drop_peers()
        self.cluster.await_replaced("recall", pid)
        poll_until("its slots cleared", lambda: pid not in self.pins())
        self.assert_there(1, 9001)

    def is_caught(self, pid, peer, queries):
        """Stops the worker some time after it was given many queries. True: before it answered; else it goes on, and
        its answer is read. What is pinned has not been answered yet."""
        peer.send({"op": "recall", "embeddings": queries, "k": 10, "exact": True, "fields": []})
        time.sleep(0.05)
        kill(pid, signal.SIGSTOP)
        poll_until("it has stopped", lambda: all(state == "T" for state in self.thread_states(pid)))
        if any(self.pins().get(pid, ())):
            return True
        kill(pid, signal.SIGCONT)
        self.assertTrue(peer.receive()["ok"])
        return False

    @staticmethod
    def thread_states(pid):
        return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]

    def pins(self):
        """{pid: pinned epochs} of the claimed reader slots."""
        table = (self.instance() / "readers").read_bytes()
        pins = {}
        for at in range(128, len(table), 64):
            owner, _, epoch = struct.unpack_from("<QQQ", table, at)
            if owner:
                pins.setdefault(owner >> 32, []).append(epoch)
        return pins

    def test_a_worker_that_is_killed_for_want_of_memory(self):
        """By the kernel, in a control group that is too small for a large answer; the others do not notice."""
        group = Path("/sys/fs/cgroup/memory") / f"mneme-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            self.skipTest(f"no control group for memory can be made here ({error})")
        self.addCleanup(self.remove_group, group)
        self.begin()
        content = "x" * 40_000
        for n in range(300):
            self.cluster.ok("remember", memories=[{"id": n, "embedding": f32(self.rng.standard_normal(8)), "content": content}])
        pid = self.cluster.role("recall")["pid"]
        (group / "memory.limit_in_bytes").write_text(str(2 << 20))
        (group / "memory.swappiness").write_text("0")
        (group / "cgroup.procs").write_text(str(pid))
        try:
            self.cluster.call("recall", timeout_s=10 * PATIENCE, embedding=f32([1] * 8), k=300, fields=["content"])
        except NoReply:
            pass
        words = dict(line.split()[:2] for line in (group / "memory.oom_control").read_text().splitlines())
        if words.get("oom_kill") == "0":
            self.skipTest("the kernel found memory for it all the same")
        self.cluster.drop_peers()
        self.cluster.await_replaced("recall", pid)
        self.remember(1000)
        self.assert_there(1000, 1019)
        self.assertEqual(len(self.cluster.ok("recall", embedding=f32([1] * 8), k=300, fields=["content"])["hits"]), 300)

    @staticmethod
    def remove_group(group):
        for _ in range(100):
            try:
                return group.rmdir()
            except OSError:
                time.sleep(0.05)


class Shared(Supervised):
    def test_what_another_boot_left(self):
        """A folder in /dev/shm with this store's name on it and another boot's: nobody attaches to it, and the next
        start serves from a new one."""
        self.begin()
        self.remember(1)
        old = self.instance()
        copy = SHM / (old.name[:-4] + "0000")
        self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        for name in ("control", "readers", "stats"):
            shutil.copy(old / name, copy / name)
            self.change_boot(copy / name)
        self.cluster.kill_everything()
        (self.cluster.dir / "run" / "instance").write_text(f"{copy}\n")
        with self.assertRaisesRegex(mneme.MnemeError, "another boot"):
            mneme.attach(self.cluster.dir).recall(np.ones(8, "f4"))
        self.cluster.start()
        self.assertNotEqual(self.instance(), copy)
        self.assert_there(1, 20)

    @staticmethod
    def change_boot(path):
        """The boot id stands in each segment's header."""
        boot = bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
        with open(path, "r+b") as file:
            file.seek(file.read(128).index(boot))
            file.write(bytes(16))

    def test_scribbled_control_words(self):
        """Whatever another process of the same user writes over the shared counters and the roles, what is on disk
        stays right: after a restart all that was acknowledged is there, and writes go on."""
        for seed in range(3):
            with self.subTest(seed=seed):
                self.begin()
                self.remember(1, 200)
                self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
                self.remember(201, 50)
                self.scribble(np.random.default_rng(seed))
                self.cluster.drop_peers()
                try:
                    self.cluster.call("remember", timeout_s=1, memories=[{"id": 999, "embedding": f32([1] * 8)}])
                except NoReply:
                    pass
                self.cluster.kill_everything()
                shutil.rmtree(self.instance())  # nobody can tell any more whose it was
                self.cluster.start(wait=False).await_state("ready", "degraded")
                self.cluster.note_instance()
                self.assert_there(1, 200, 201, 250)
                self.remember(300)
                self.assert_there(300)
                self.cluster.finish()

    def scribble(self, rng):
        with open(self.instance() / "control", "r+b") as file, mmap.mmap(file.fileno(), 0) as control:
            for at in range(128, len(control) - 8, 8):
                if rng.random() < 0.3:
                    control[at:at + 8] = rng.bytes(8)

    def test_more_readers_than_slots(self):
        """The next one is told which setting to raise; the workers and those before it go on."""
        self.begin(**{"reader.slots": 16})
        self.remember(1, 50)
        readers = []
        with self.assertRaises(mneme.MnemeError) as full:
            for _ in range(17):
                readers.append(mneme.attach(self.cluster.dir))
                readers[-1].recall(np.ones(8, "f4"), k=1)
        self.assertIn("reader.slots", str(full.exception))
        self.assert_there(1)
        for reader in readers[:-1]:
            self.assertEqual(len(reader.recall(np.ones(8, "f4"), k=3)), 3)
            reader.close()
        with mneme.attach(self.cluster.dir) as again:
            self.assertEqual(len(again.recall(np.ones(8, "f4"), k=3)), 3)


@unittest.skipIf(SLOW, "a sanitizer's runtime must be loaded before anything else")
class Clock(Supervised):
    def test_a_clock_that_jumps(self):
        """Order comes from seq, waiting from a clock that cannot be set: a wall clock that goes back an hour, or ahead
        a day, changes what `at` defaults to and nothing else."""
        folder = Path(tempfile.mkdtemp(prefix="mc"))
        self.addCleanup(shutil.rmtree, folder)
        source, library, offset = folder / "clock.c", folder / "clock.so", folder / "offset"
        source.write_text(JUMPING_CLOCK)
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"no compiler here: {error}")
        offset.write_text("0")

        class Jumping(Cluster):
            def environment(self):
                return {**super().environment(), "LD_PRELOAD": str(library), "MNEME_TEST_CLOCK": str(offset)}

        self.begin(Jumping(settings={"history.window": "1h", "wal.segment_bytes": "1MiB"}))
        request = {"memories": [{"id": 7, "embedding": f32([1] * 8), "content": "once"}], "idem": "key"}
        first = self.cluster.ok("remember", **request)
        seqs = []
        for round_, jump_s in enumerate((0, -3600, 86400, -86400, 0)):
            offset.write_text(str(jump_s))
            before = time.time_ns() + jump_s * 10**9
            seqs.append(self.remember(100 * (round_ + 1))["seq"])
            row = self.cluster.ok("get", ids=[100 * (round_ + 1)], fields=["at"])["memories"][0]
            self.assertLess(abs(row["at"] - before), 60 * 10**9)
            self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
            self.cluster.await_replaced("wal-writer", self.cluster.kill_role("wal-writer"))
            self.cluster.drop_peers()
            self.assert_there(*[100 * (n + 1) + 19 for n in range(round_ + 1)])
            if jump_s <= 0:
                self.assertEqual(self.cluster.ok("remember", **request)["seq"], first["seq"])
            else:
                first = poll_until("a day later the key is let go", lambda: self.remembered_anew(request, first))
        self.assertEqual(seqs, sorted(seqs))
        self.cluster.restart()
        self.assert_there(119, 519)
        self.assertEqual(self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"], [])

    def remembered_anew(self, request, first):
        """The outcome, when it is not the kept one of the first time."""
        again = self.cluster.ok("remember", **request)
        return again if again["seq"] != first["seq"] else None


if __name__ == "__main__":
    unittest.main()
