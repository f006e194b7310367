"""The log kept twice (store.copies = 2): kill -9 of everything under load, damage to either copy while nobody runs, and a
copy that goes away and comes back under the running cluster. What was acknowledged is there bit for bit each time, the
store is not degraded once both copies are whole again, and verify finds no damage in either.
"""

import shutil
import unittest

import numpy as np
from cluster import PATIENCE, Cluster, contents_of, poll_until, scaled
from fault_load import Load

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "compact.enabled": "no", "supervisor.backoff_min": "10ms",
    "store.copies": 2
}
BLOCK = 4096


class CopiedCluster(Cluster):
    def __init__(self):
        super().__init__(settings=SETTINGS)
        self.copy = self.base / "copy"
        self.settings["store.copy_dir"] = self.copy
        self.restarts_expected = True

    def fired(self):
        return False

    def folders(self):
        return [self.dir / "wal", self.copy / "wal"]


def begun(folder):
    """Log segments that hold something."""
    return [path for path in sorted(folder.glob("*.wal")) if any(contents_of(path)[:BLOCK])]


class Copies(unittest.TestCase):
    def setUp(self):
        self.cluster = CopiedCluster()
        self.addCleanup(self.cluster.finish)
        self.load = Load(self.cluster, 1)
        self.rng = np.random.default_rng(7)
        self.cluster.start()

    def work(self, rounds=4):
        for _ in range(rounds):
            self.load.burst()
            self.load.fill()
            self.load.settle()

    def await_whole(self):
        """Both copies are whole, and the store says so."""
        poll_until("not degraded", lambda: self.cluster.info()["degraded"] == [])
        self.cluster.await_state("ready")
        self.cluster.note_instance()
        self.load.check()
        self.assertEqual(self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"], [])
        ours, theirs = (begun(folder) for folder in self.cluster.folders())
        self.assertEqual([p.name for p in ours], [p.name for p in theirs])
        for one, other in zip(ours, theirs):
            self.assertEqual(one.read_bytes(), other.read_bytes(), one.name)

    def pick(self, folder):
        paths = begun(folder)
        return paths[int(self.rng.integers(len(paths)))]

    def scribble(self, folder):
        """Junk over a few blocks."""
        with open(self.pick(folder), "r+b") as segment:
            for _ in range(3):
                segment.seek(int(self.rng.integers(1, 150)) * BLOCK + int(self.rng.integers(2000)))
                segment.write(self.rng.bytes(700))

    def scribble_header(self, folder):
        with open(self.pick(folder), "r+b") as segment:
            segment.write(self.rng.bytes(BLOCK))

    def cut(self, folder):
        with open(self.pick(folder), "r+b") as segment:
            segment.truncate(int(self.rng.integers(3, 100)) * BLOCK + 17)

    def remove(self, folder):
        self.pick(folder).unlink()

    def remove_all(self, folder):
        for path in folder.glob("*.wal"):
            path.unlink()

    def test_killed_and_damaged(self):
        harms = (self.scribble, self.scribble_header, self.cut, self.remove, self.remove_all)
        for _ in range(scaled(1)):
            for harm in harms:
                for folder in self.cluster.folders():
                    with self.subTest(harm=harm.__name__, folder=str(folder)):
                        self.work(2)
                        self.cluster.kill_everything()
                        harm(folder)
                        self.cluster.start(wait=False)
                        self.await_whole()

    def mended(self):
        return self.cluster.ok("stats")["stats"]["wal_copy_mended"]

    def lose_copy(self):
        """At once: the writer makes files in it meanwhile."""
        gone = self.cluster.copy.with_name("gone")
        self.cluster.copy.rename(gone)
        shutil.rmtree(gone)

    def test_a_lost_copy_is_made_anew(self):
        self.work()
        mended = self.mended()
        self.lose_copy()  # under the running writer
        # It is told, unless the copy is whole again before anybody looks.
        poll_until("degraded", lambda: any("second copy" in why for why in self.cluster.info()["degraded"]) or self.mended() > mended)
        self.work()
        self.await_whole()
        self.cluster.kill_everything()
        self.lose_copy()
        self.cluster.start(wait=False)
        self.await_whole()
        self.work()
        self.await_whole()

    def test_the_copy_of_another_store_is_refused(self):
        self.work(1)
        other = Cluster(settings={**SETTINGS, "store.copy_dir": self.cluster.copy})
        self.addCleanup(other.finish)
        other.start(wait=False)
        self.assertNotEqual(other.wait(), 0)
        self.assertIn("another store", other.log_tail())
        self.await_whole()


if __name__ == "__main__":
    unittest.main()
