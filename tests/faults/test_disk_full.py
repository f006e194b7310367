"""Disks without space, inodes or permission, under real processes: small file systems that are filled at every stage.

A story each: a cluster on a disk of a few MiB works, then something takes the room away, for a while or again and again;
the load goes on, and so must recalls; then the room is given back. Whatever the stage: what was acknowledged is there bit
for bit, what was refused is not, writes resume by themselves, verify finds no damage, and a restart changes nothing.
Numbers are the scenarios of durability. Small file systems need root and a mount namespace; without, this is skipped.
MNEME_TEST_SCALE tells each story so many times, from 2 on also on ext4.
"""

import resource
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

import small_disk  # noqa: E402  (the path is set above; before anything that starts threads)
from cluster import PATIENCE, SCALE, Cluster, NoReply, kill, poll_until, scaled  # noqa: E402
from fault_load import Load  # noqa: E402
from small_disk import SmallDisk  # noqa: E402

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "wal.prepared": 2, "compact.interval": "50ms",
    "compact.min_rows": 64, "compact.fanout": 2, "history.window": "100ms", "supervisor.backoff_min": "10ms",
    "supervisor.backoff_max": "200ms", "disk.reserve": 0, "index.rows_min": 32
}
DISK_MIB = 48
REFUSALS, REFUSALS_S = 12, 5.0  # answers that say no, or one and so much time, and then the room is given back
PATIENCE_S = 60.0 * PATIENCE
PROBE_BYTES = 200_000
NOT_TAKEN = ("read_only", "busy", "unavailable", "unknown", "deadline")


class FullLoad(Load):
    """Counts what is refused, and with which words."""
    refused, words = 0, ""  # of all refusals, a line each

    def note(self, reply):
        if not reply["ok"] and reply["code"] in NOT_TAKEN:
            self.refused += 1
            self.words += reply["error"] + "\n"

    def take_reply(self, request, reply):
        self.note(reply)
        super().take_reply(request, reply)


class Story:
    """A cluster on a small disk, its load, and what every story has in common."""
    def __init__(self, kind, seed, disk_mib=DISK_MIB, inodes=None, **settings):
        self.cluster = Cluster(settings={**SETTINGS, **settings})
        self.disk = SmallDisk(self.cluster.base / "disk", disk_mib, kind, inodes)
        self.cluster.dir = self.disk.path / "d"
        self.cluster.restarts_expected = True
        self.cluster.fired = lambda: self.struck  # from then on a request without an answer is in doubt
        self.struck = False
        self.load = FullLoad(self.cluster, seed)
        self.recalls = 0

    def begin(self):
        self.cluster.start()
        self.work()
        return self

    def work(self, rounds=4):
        for _ in range(rounds):
            self.load.burst()
            self.load.fill()
            self.load.settle()

    def recall(self):
        self.cluster.ok("recall", space="a", embedding=self.load.memories.vector().tobytes(), k=5)
        self.recalls += 1

    def strain(self, until, timeout_s=PATIENCE_S):
        """Writes and recalls go on until(); after a request that nobody answered only a probe is written."""
        self.struck, end = True, time.monotonic() + timeout_s
        while not until() and time.monotonic() < end:
            if not self.load.doubtful:
                self.load.burst()
            if not self.load.doubtful:
                self.load.fill()
            else:
                self.patient(self.probe)(0.3 * PATIENCE)
            self.recall()
            time.sleep(0.01)

    def refuse(self):
        """Until enough was refused; recalls go on all the while."""
        before, end = self.load.refused, time.monotonic() + REFUSALS_S
        self.strain(lambda: self.load.refused - before >= (REFUSALS if time.monotonic() < end else 1))
        assert self.load.refused > before, "nothing was refused: the disk was not full"
        for _ in range(3):
            self.recall()

    def resume(self):
        """Writes are taken again, and what could not be written is made up for, by themselves."""
        self.await_serving()
        poll_until("writes are taken again", self.patient(self.probe), pause_s=0.05)
        self.await_serving()
        self.cluster.ok("forget", space="probe", mode="delete", ids=[1])
        self.struck = False
        self.load.settle()

    def probe(self, timeout_s=2 * PATIENCE):
        """One write, of which it does not matter what becomes; whether it was taken. Large: it fills the disk as well,
        when a machine is so slow that the load takes its silence for a death."""
        memory = {**self.load.memory("probe", id=1), "content": self.load.rng.bytes(PROBE_BYTES)}
        reply = self.cluster.call("remember", timeout_s=timeout_s, space="probe", memories=[memory])
        self.load.note(reply)
        assert reply["ok"] or reply["code"] in NOT_TAKEN, reply
        return reply["ok"]

    def patient(self, condition):
        def met(*given):
            try:
                return condition(*given)
            except NoReply:
                return None

        return met

    def await_serving(self):
        self.cluster.drop_peers()
        self.cluster.await_state("ready")
        self.cluster.note_instance()

    def check(self):
        self.load.check()
        damaged = self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]
        assert damaged == [], f"verify: {damaged}"

    def end(self):
        """The room is back: everything as it should be, now and after a restart."""
        self.resume()
        self.check()
        self.work(2)
        self.cluster.restart()
        self.check()
        return self.load.refused

    def close(self):
        try:
            self.cluster.finish()
        finally:
            self.disk.unmount()


def reclaims(story):
    """Compaction is let work until all that it can drop is dropped."""
    story.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)


def full_by_an_outside_file(story):  # 30
    story.begin()
    story.disk.fill()
    story.refuse()
    story.disk.empty()
    return story.end()


def full_below_the_reserve(story):  # 30
    story.begin()
    story.disk.fill(leave=3 << 20)
    story.refuse()
    assert "disk" in story.load.words, story.load.words
    assert story.disk.free() > 1 << 20, "the reserve was used up"
    story.disk.empty()
    return story.end()


def full_by_writing(story):  # 30
    story.begin()
    story.disk.fill(leave=5 << 20)
    story.refuse()
    story.disk.empty()
    refused = story.end()
    reclaims(story)
    story.check()
    return refused


def full_in_compaction(story):  # 31
    story.begin()
    story.work(8)
    story.disk.fill(leave=300 << 10)
    reply = story.cluster.call("consolidate", wait=True, timeout_s=60 * PATIENCE)
    assert not reply["ok"] and reply["code"] in ("read_only", "busy", "internal", "unavailable"), reply
    story.recall()
    story.disk.empty()
    reclaims(story)
    story.end()
    return 1


def full_again_and_again(story):  # 31, 32: at whatever stage log, compaction, liveness, manifest and ledger are
    story.begin()
    for _ in range(12):
        story.disk.fill(leave=int(story.load.rng.integers(0, 600 << 10)))
        story.strain(lambda: False, timeout_s=0.12)
        story.disk.empty()
        story.strain(lambda: False, timeout_s=0.05)
    return story.end() + 12


def full_in_quarantine(story):  # 33: damage that loses nothing, and no room to copy it aside
    story.begin()
    cluster = story.cluster
    cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
    story.work(2)
    story.load.settle()
    kill_with_a_spare(cluster)
    harm_padding(cluster.dir)
    story.disk.fill()
    cluster.start(wait=False)
    cluster.await_state("degraded")
    story.recall()
    story.disk.empty()
    poll_until("room", lambda: cluster.call("consolidate", wait=True, timeout_s=60 * PATIENCE)["ok"], pause_s=0.1)
    for note in (cluster.dir / "quarantine").iterdir():
        note.unlink()
    cluster.restart()
    story.end()
    return 1


def kill_with_a_spare(cluster):
    """All at once, with a prepared log segment left: that pays for a start on a full disk. A statistic is a little old."""
    def left():
        return any(not any(path.read_bytes()) for path in (cluster.dir / "wal").glob("*.wal"))

    while True:
        poll_until("a prepared segment", lambda: cluster.ok("stats")["stats"]["wal_prepared"] > 0, pause_s=0.05)
        cluster.kill_everything()
        if left():
            return
        cluster.start()


def harm_padding(folder):
    """A byte behind the records of a batch, where zeros are, in the newest log segment that has one."""
    for path in sorted((folder / "wal").glob("*.wal"), reverse=True):
        with open(path, "r+b") as segment:
            segment.seek(4096)
            header = segment.read(128)
            size, footer_at, _, footer_bytes = (int.from_bytes(header[at:at + 4], "little") for at in (48, 52, 56, 60))
            if size > footer_at + footer_bytes + 64:
                segment.seek(4096 + size - 32)
                segment.write(b"rot" * 9)
                return
    raise AssertionError("no batch has padding")


def no_inodes(story):  # 34
    story.begin()
    story.disk.take_inodes()
    story.refuse()
    story.disk.give_inodes()
    return story.end()


def read_only_while_running(story):  # 36: as ext4 does it after an error of the disk
    story.begin()
    story.disk.remount("abort")
    before = story.load.refused
    story.strain(lambda: story.load.doubtful or story.load.refused > before)
    assert story.load.doubtful or story.load.refused > before, "writes went on"
    for _ in range(20):
        story.recall()
        time.sleep(0.02)
    story.cluster.kill_everything()
    story.disk.unmount()
    story.disk.mount()
    story.cluster.start()
    return story.end()


def read_only_at_start(story):  # 37
    story.begin()
    story.cluster.terminate()
    story.disk.remount("ro")
    story.cluster.start(wait=False)
    status = story.cluster.wait()
    told = story.cluster.log_tail(1)
    assert status not in (0, -6, -11) and "ead-only" in told, f"{status}: {told}"
    story.disk.remount("rw")
    story.cluster.start()
    story.end()
    return 1


def files_too_large(story):  # 38
    story.begin()
    limit(story.cluster, 256 << 10)
    story.refuse()
    limit(story.cluster, resource.RLIM_INFINITY)
    return story.end()


def limit(cluster, size):
    """For what the supervisor starts later, and then for all that live."""
    limit_one(cluster.process.pid, size)
    for pid in cluster.processes():
        limit_one(pid, size)


def limit_one(pid, size):
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    except ProcessLookupError:
        pass  # it has ended meanwhile


def no_shared_memory(story):  # 40
    """Writes are refused, with the reason; or, when a compaction met it first, no writer can begin and nobody answers."""
    def met():
        deaths = [death["role"] for death in story.cluster.info()["last_words"]]
        return "/dev/shm" in story.load.words or "wal-writer" in deaths

    shm = SmallDisk("/dev/shm", 48)
    try:
        story.begin()
        shm.fill()
        story.strain(met)
        assert met(), f"{story.load.words}\n{story.cluster.log_tail()}"
        writer = story.cluster.role("wal-writer")  # None: it has ended over it, and the next one is on its way
        if writer:
            kill(writer["pid"])  # one that must begin without any
        story.strain(lambda: False, timeout_s=0.5)
        shm.empty()
        return story.end()
    finally:
        story.cluster.finish()
        shm.unmount()


# name: (scenarios, kinds of file systems, what the cluster is given)
STORIES = {
    full_by_an_outside_file: ("30", ("tmpfs", "ext4"), {}),
    full_below_the_reserve: ("30", ("tmpfs", "ext4"), {"disk.reserve": "4MiB", "compact.enabled": "no"}),
    full_by_writing: ("30", ("ext4", "tmpfs"), {"compact.enabled": "no"}),
    full_in_compaction: ("31", ("tmpfs", "ext4"), {"compact.enabled": "no"}),
    full_again_and_again: ("31 32", ("ext4", "tmpfs"), {}),
    full_in_quarantine: ("33", ("tmpfs", "ext4"), {}),
    no_inodes: ("34", ("tmpfs", ), {"inodes": 400}),
    read_only_while_running: ("36", ("ext4", ), {}),
    read_only_at_start: ("37", ("tmpfs", "ext4"), {}),
    files_too_large: ("38", ("tmpfs", ), {}),
    no_shared_memory: ("40", ("tmpfs", ), {}),
}


@unittest.skipIf(small_disk.possible(), small_disk.possible())
class DiskFull(unittest.TestCase):
    tried, told = 0, 0

    @classmethod
    def tearDownClass(cls):
        if cls.told == len(STORIES):
            print(f"report disk_full tried={cls.tried} lost=0 risen=0 wrong=0 undetected=0 crashes=0 stories={cls.told}",
                  file=sys.stderr)

    def tell(self, story):
        scenarios, kinds, given = STORIES[story]
        kinds = [kind for kind in kinds if not small_disk.possible(kind)]
        if not kinds:
            self.skipTest(small_disk.possible(STORIES[story][1][0]))
        for seed in range(scaled(1)):
            for kind in kinds if SCALE >= 2 else kinds[:1]:
                self.tell_on(story, kind, seed, dict(given))
        DiskFull.told += 1

    def tell_on(self, story, kind, seed, given):
        told = Story(kind, seed, inodes=given.pop("inodes", None), **given)
        try:
            DiskFull.tried += story(told)
            told.struck = False
        except (AssertionError, subprocess.CalledProcessError) as error:
            raise AssertionError(f"{story.__name__} on {kind}, seed {seed}: {error}\n{told.cluster.log_tail()}") from error
        finally:
            told.close()


def add_test(story):
    setattr(DiskFull, f"test_{story.__name__}", lambda self: self.tell(story))


for each in STORIES:
    add_test(each)

if __name__ == "__main__":
    unittest.main()
