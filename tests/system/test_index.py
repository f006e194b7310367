"""The index of column segments in a running cluster: it comes by itself, it may rot or vanish at any time, and recall
gives the same answers with it, without it and while it is made anew."""
import unittest

import numpy as np

from cluster import PATIENCE, Cluster, f32, poll_until

ROWS = 600
DIM = 8
SETTINGS = {
    "recall.workers": 1, "compact.interval": "20ms", "compact.min_rows": 64, "index.rows_min": 200, "compact.fanout": 64,
    "scrub.interval": "1s"
}


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x20]))


class Index(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(dim=DIM, settings=SETTINGS)
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.rng = np.random.default_rng(7)
        self.vectors = {}

    def remember(self, first, count=ROWS):
        rows = self.rng.standard_normal((count, DIM)).astype(np.float32)
        self.vectors.update({first + i: row for i, row in enumerate(rows)})
        self.cluster.ok("remember", memories=[{"id": first + i, "embedding": f32(row)} for i, row in enumerate(rows)])
        self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)

    def stat(self, name):
        return self.cluster.ok("stats")["stats"][name]

    def files(self):
        return sorted((self.cluster.dir / "columns").glob("*/ivf.*.col"))

    def coded(self, rows):
        poll_until(f"{rows} rows have codes", lambda: self.stat("ivf_rows") == rows, 60 * PATIENCE)

    def sound(self):
        """Nothing is degraded, and verify finds nothing."""
        poll_until("the index is sound", lambda: not self.cluster.info()["degraded"], 60 * PATIENCE)
        self.assertEqual(self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"], [])

    def check_recall(self):
        """Exact answers, whatever state the index is in."""
        ids = np.array(list(self.vectors))
        rows = np.stack([self.vectors[i] for i in ids])
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for query in self.rng.standard_normal((5, DIM)).astype(np.float32):
            best = ids[np.argsort(-(units @ (query / np.linalg.norm(query))), kind="stable")[:5]]
            reply = self.cluster.ok("recall", embedding=f32(query), k=5, exact=True)
            self.assertEqual([hit["id"] for hit in reply["hits"]], list(best))

    def test_an_index_comes_by_itself(self):
        self.remember(1, 150)
        self.assertEqual(self.files(), [])
        self.remember(1001)
        self.coded(150 + ROWS)
        self.assertEqual(len(self.files()), 2)
        self.assertEqual(self.stat("codebook_gen"), 1)
        self.assertGreater(self.stat("ivf_bytes"), 0)
        self.assertEqual(self.stat("ivf_failures"), 0)
        self.check_recall()
        self.sound()
        self.cluster.restart()
        self.check_recall()
        self.coded(150 + ROWS)

    def test_growth_gives_a_new_codebook(self):
        self.remember(1, 250)
        for i in range(1, 6):
            self.remember(1000 * i, 250)
            self.check_recall()
        def followed():
            newest = self.stat("codebook_gen")
            return newest > 1 and [file.name for file in self.files()] == [f"ivf.{newest}.col"] * 6

        poll_until("all is on a newer codebook", followed, 60 * PATIENCE)
        self.check_recall()
        self.sound()

    def rot(self, harm):
        """The same, whether it happens to a cluster that runs or to one that is stopped."""
        self.remember(1)
        self.coded(ROWS)
        (file,) = self.files()
        self.cluster.check_stop(self.cluster.terminate())
        harm(file)
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        self.cluster.note_instance()
        self.check_recall()
        poll_until("the file is made anew", lambda: self.files() == [file] and self.stat("ivf_coded") >= ROWS,
                   60 * PATIENCE)
        self.check_recall()
        self.sound()

    def test_a_lost_index(self):
        self.rot(lambda file: file.unlink())

    def test_a_damaged_index(self):
        self.rot(lambda file: flip(file, 5000))

    def test_a_cut_index(self):
        self.rot(lambda file: file.write_bytes(file.read_bytes()[:3000]))

    def test_rot_under_a_running_cluster_is_found_by_the_scrubber(self):
        self.remember(1)
        self.coded(ROWS)
        (file,) = self.files()
        flip(file, -2000)  # codes of 8 bits
        poll_until("the scrubber found it", lambda: self.stat("scrub_damage") > 0, 60 * PATIENCE)
        poll_until("the file is made anew", lambda: self.stat("ivf_coded") >= 2 * ROWS, 60 * PATIENCE)
        self.check_recall()
        self.sound()

    def test_a_lost_codebook(self):
        self.remember(1)
        self.coded(ROWS)
        self.cluster.check_stop(self.cluster.terminate())
        (self.cluster.dir / "codebooks" / "1.col").unlink()
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        self.cluster.note_instance()
        self.check_recall()
        poll_until("a new codebook", lambda: [file.name for file in self.files()][-1:] == ["ivf.2.col"], 60 * PATIENCE)
        self.check_recall()
        self.sound()

    def test_no_index_is_made_where_none_is_wanted(self):
        self.cluster.check_stop(self.cluster.terminate())
        self.cluster.settings["index.rows_min"] = 0
        self.cluster.start()
        self.remember(1)
        self.remember(1001)
        self.assertEqual(self.files(), [])
        self.check_recall()
        self.sound()

    def test_an_index_that_is_not_wanted_any_more(self):
        self.remember(1)
        self.coded(ROWS)
        self.cluster.check_stop(self.cluster.terminate())
        self.cluster.settings["index.rows_min"] = 0
        self.cluster.start()
        poll_until("the index is gone", lambda: self.files() == [], 60 * PATIENCE)
        self.check_recall()
        self.sound()
        self.cluster.check_stop(self.cluster.terminate())
        self.cluster.settings["index.rows_min"] = 200
        self.cluster.start()
        self.coded(ROWS)
        self.check_recall()


if __name__ == "__main__":
    unittest.main()
