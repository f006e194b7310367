"""Fresh memories: what was just remembered is found at once, whether the compactor's coder has seen it, is stopped, dies
or starts again; and the codes in shared memory come and go with the tail that they belong to."""

import signal
import time
import unittest
from pathlib import Path

import numpy as np

from cluster import PATIENCE, SHM, Cluster, f32, kill, poll_until, scaled

DIM = 32
SETTINGS = {
    "compact.enabled": "no",  # the tail stays
    "wal.segment_bytes": 1 << 20,
    "supervisor.stall": "120s",  # a stopped compactor is left alone
    "history.window": "0s",
}


class Tail(unittest.TestCase):
    """A store, what is in it, and what can be seen of its tail."""
    metric = "cosine"

    def setUp(self):
        self.cluster = Cluster(DIM, self.metric, SETTINGS)
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.rng = np.random.default_rng(5)
        self.vectors = {}  # by id
        self.next_id = 1
        self.in_tail = 0

    # ---- doing

    def remember(self, count):
        """New memories; their ids."""
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        self.in_tail += count
        for id in ids:
            self.vectors[id] = self.rng.standard_normal(DIM).astype("f4")
        for at in range(0, count, 500):
            memories = [{"id": id, "embedding": f32(self.vectors[id])} for id in ids[at:at + 500]]
            self.cluster.ok("remember", memories=memories)
        return ids

    def find(self, ids):
        """Each is the first hit for its own embedding."""
        for id in ids:
            hits = self.cluster.ok("recall", embedding=f32(self.vectors[id]), k=3)["hits"]
            self.assertEqual(hits[0]["id"], id)
            self.assertAlmostEqual(hits[0]["similarity"], 1.0, places=5)

    def remember_and_find(self, rounds, each):
        for _ in range(scaled(rounds)):
            ids = self.remember(each)
            self.find([ids[0], ids[-1], int(self.rng.choice(ids))])

    def compare(self, queries=30):
        """Near everything that an exact search finds is found, wherever it lies."""
        found = wanted = 0
        for _ in range(queries):
            query = f32(self.rng.standard_normal(DIM))
            exact = self.cluster.ok("recall", embedding=query, k=10, exact=True)
            self.assertTrue(exact["exact"])
            truth = {hit["id"] for hit in exact["hits"]}
            found += len(truth & {hit["id"] for hit in self.cluster.ok("recall", embedding=query, k=10)["hits"]})
            wanted += len(truth)
        self.assertEqual(wanted, queries * min(10, len(self.vectors)))
        self.assertGreater(found, 0.8 * wanted)

    # ---- looking

    def statistic(self, name):
        return self.cluster.ok("stats")["stats"][name]

    def await_coded(self):
        """All rows of the tail but the last of each chunk have codes."""
        def coded():
            stats = self.cluster.ok("stats")["stats"]  # which may be a while old
            tail = stats["tail_rows"]
            return tail == self.in_tail and stats["tail_coded_rows"] > tail - 32 * (stats["wal_segments"] + 1)

        poll_until("the tail is coded", coded)

    @staticmethod
    def stopped(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def files(self):
        folder, = [SHM / name for name in self.cluster.instances]
        return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("codes."))


class Fresh(Tail):
    def test_found_at_once_while_the_coder_follows(self):
        self.remember_and_find(40, 97)
        self.await_coded()
        self.assertTrue(self.files())
        self.find(list(self.vectors)[::50])
        self.compare()
        self.assertEqual(self.statistic("tail_code_failures"), 0)

    def test_found_while_the_coder_is_stopped(self):
        self.remember_and_find(5, 100)
        self.await_coded()
        pid = self.cluster.role("compactor")["pid"]
        kill(pid, signal.SIGSTOP)
        try:
            poll_until("the compactor stopped", lambda: self.stopped(pid))
            coded = self.statistic("tail_coded_rows")
            self.remember_and_find(40, 97)
            self.assertEqual(self.statistic("tail_coded_rows"), coded)
            self.compare()
        finally:
            kill(pid, signal.SIGCONT)
        self.await_coded()
        self.find(list(self.vectors)[::50])

    def test_found_while_the_coder_dies_again_and_again(self):
        for _ in range(scaled(3)):
            pid = self.cluster.kill_role("compactor")
            self.remember_and_find(10, 61)
            self.cluster.await_replaced("compactor", pid)
            self.remember_and_find(10, 61)
            self.await_coded()
        self.find(list(self.vectors)[::20])
        self.compare()

    def test_a_recovered_tail_is_coded_anew(self):
        self.remember_and_find(20, 100)
        self.await_coded()
        before = self.files()
        pid = self.cluster.kill_role("wal-writer")
        self.cluster.await_replaced("wal-writer", pid)
        poll_until("no codes of the old tail", lambda: not set(before) & set(self.files()))
        self.remember_and_find(5, 100)
        self.await_coded()
        self.find(list(self.vectors)[::50])
        self.compare()

    def test_codes_go_when_the_tail_is_compacted(self):
        self.remember_and_find(20, 200)
        self.await_coded()
        self.cluster.ok("consolidate", wait=True, timeout_s=120 * PATIENCE)
        poll_until("no codes left", lambda: not self.files())
        self.in_tail = 0
        self.find(list(self.vectors)[::50])
        ids = self.remember(1000)
        self.await_coded()
        self.assertGreater(self.statistic("tail_coded_rows"), 900)
        self.find(ids[::50])
        self.compare()

    def test_without_an_index_there_are_no_codes(self):
        self.cluster.settings["index.rows_min"] = 0
        self.remember_and_find(5, 100)
        self.await_coded()
        self.cluster.restart()
        self.remember_and_find(5, 100)
        time.sleep(0.1)
        self.assertEqual(self.statistic("tail_coded_rows"), 0)
        self.find(list(self.vectors)[::50])

    def test_forgotten_ones_are_gone_from_coded_rows_too(self):
        ids = self.remember(500)
        self.await_coded()
        for id in ids[::10]:
            self.cluster.ok("forget", ids=[id])
            hits = self.cluster.ok("recall", embedding=f32(self.vectors[id]), k=10)["hits"]
            self.assertEqual(len(hits), 10)
            self.assertNotIn(id, [hit["id"] for hit in hits])


class FreshUnderInnerProduct(Fresh):
    metric = "ip"

    def find(self, ids):
        """The largest product is not always the memory's own: it is among the best, or no worse than they are."""
        for id in ids:
            query = self.vectors[id]
            hits = self.cluster.ok("recall", embedding=f32(query), k=50)["hits"]
            own = float(query @ query)
            self.assertTrue(id in [hit["id"] for hit in hits] or own < hits[-1]["similarity"] + 1e-3)


class FreshUnderDistance(Fresh):
    metric = "l2"

    def find(self, ids):
        for id in ids:
            hits = self.cluster.ok("recall", embedding=f32(self.vectors[id]), k=3)["hits"]
            self.assertEqual(hits[0]["id"], id)
            self.assertEqual(hits[0]["similarity"], 0)


class Calibrated(Tail):
    """Recall keeps its target over the rows that are searched: those of a long tail count."""
    def test_a_tail_asks_for_calibration(self):
        self.cluster.settings.update({"compact.enabled": "yes", "compact.min_rows": 1000000, "index.rows_min": 1000})
        self.cluster.restart()
        self.remember(3000)
        self.cluster.ok("consolidate", wait=True, timeout_s=120 * PATIENCE)
        calibrated = lambda: self.cluster.info()["index"]["calibrated_rows"]
        poll_until("recall is calibrated", lambda: calibrated() == 3000, 300 * PATIENCE)
        self.remember(3000)
        poll_until("recall is calibrated with the tail", lambda: calibrated() > 5000, 300 * PATIENCE)
        self.assertEqual(self.cluster.info()["index"]["column_rows"], 3000)


if __name__ == "__main__":
    unittest.main()
