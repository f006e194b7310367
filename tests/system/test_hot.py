"""Hot copies of codes: made by themselves, within the budget, taken by workers and attached programs, gone with the
segments they belong to; and answers that do not depend on them."""

import os
import sys
import unittest
from pathlib import Path

import numpy as np

CLIENT_FOLDER = Path(__file__).resolve().parents[2] / "clients" / "python"
sys.path.insert(0, str(CLIENT_FOLDER))

import mneme  # noqa: E402
from cluster import PATIENCE, SHM, Cluster, poll_until  # noqa: E402

ROWS, DIM = 6000, 512


class HotCopies(unittest.TestCase):
    def start(self, **settings):
        self.cluster = Cluster(DIM, settings={
            "history.window": "0",
            "compact.interval": "50ms",
            **{key.replace("__", "."): value
               for key, value in settings.items()}
        })
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.client = mneme.open(self.cluster.dir, timeout_s=60 * PATIENCE)
        self.addCleanup(self.client.close)
        rng = np.random.default_rng(3)
        centres = rng.standard_normal((40, DIM))
        self.rows = (centres[rng.integers(0, 40, ROWS)] + rng.standard_normal((ROWS, DIM)) / 2).astype("f4")
        for start in range(0, ROWS, 1000):
            self.client.remember_batch([
                dict(id=start + i + 1, embedding=row, content=f"c{start + i + 1}")
                for i, row in enumerate(self.rows[start:start + 1000])
            ])
        self.client.consolidate()

    def stats(self):
        return self.client.stats()

    def await_coded(self):
        """And calibrated: answers change with that."""
        poll_until("the rows coded", lambda: self.stats()["ivf_rows"] == ROWS, 60 * PATIENCE)
        self.cluster.await_index()

    def await_copies(self):
        def copied():
            stats = self.stats()
            return stats["hot_bytes"] >= stats["ivf_bytes"] * 9 // 10 > 0 and len(self.copies()) == stats["column_segments"]

        poll_until("hot copies of all segments", copied, 60 * PATIENCE)

    def copies(self):
        """What there are copies of; on which nodes is the business of tests/faults/numa."""
        shared = SHM / (self.cluster.dir / "run" / "instance").read_text().strip()
        return sorted({name.rpartition(".")[0] for name in os.listdir(shared) if name.startswith("hot.")})

    def mapped(self, pid):
        return "/hot." in Path(f"/proc/{pid}/maps").read_text()

    def check_answers(self):
        """Through codes and exactly: the memory itself first, and what an attached program finds is the same."""
        with mneme.attach(self.cluster.dir) as attached:
            for i in range(0, ROWS, 397):
                through_codes, exact = self.client.recall(self.rows[i]), self.client.recall(self.rows[i], exact=True)
                self.assertEqual((through_codes[0].id, through_codes[0].score), (exact[0].id, exact[0].score))
                self.assertEqual(exact[0].id, i + 1)
                self.assertEqual(len(through_codes), 10)
                self.assertEqual(attached.recall(self.rows[i]).hits, through_codes.hits)
            return self.mapped(os.getpid())

    def test_they_come_by_themselves_and_follow_the_segments(self):
        self.start()
        self.await_coded()
        self.await_copies()
        first = self.copies()
        stats = self.stats()
        self.assertEqual(stats["hot_refused"], 0)
        self.assertLessEqual(stats["hot_huge_bytes"], stats["hot_bytes"])
        self.assertLess(stats["hot_bytes"], stats["memory_budget_bytes"])
        self.assertTrue(self.check_answers())
        self.assertTrue(self.mapped(self.cluster.role("recall")["pid"]))
        # A purge takes the copies of what it rewrites along before it is done.
        self.client.forget([5, 7], mode="purge")
        self.assertFalse(set(first) & set(self.copies()))
        # After a start they are made anew, in another folder.
        self.client.close()
        self.cluster.restart()
        self.client = mneme.open(self.cluster.dir, timeout_s=60 * PATIENCE)
        self.addCleanup(self.client.close)
        self.await_copies()

    def test_a_budget_is_kept(self):
        self.start(memory__budget="64KiB", recall__lock_hot="yes")
        self.await_coded()
        poll_until("a refusal", lambda: self.stats()["hot_refused"] == self.stats()["column_segments"])
        self.assertEqual((self.copies(), self.stats()["hot_bytes"]), ([], 0))
        self.assertEqual(self.stats()["memory_budget_bytes"], 64 << 10)
        self.assertFalse(self.check_answers())

    def test_a_locked_copy_serves_like_any_other(self):
        self.start(recall__lock_hot="yes")
        self.await_coded()
        self.await_copies()
        self.assertTrue(self.check_answers())


if __name__ == "__main__":
    unittest.main()
