"""A randomized differential test: random operations, consolidations and restarts; every read is held against the model.

MNEME_TEST_SEED gives another run, as does a scale that is not 1; each failure names its seed.
"""

import unittest

from cluster import PATIENCE, Cluster, a_seed, scaled
from workload import Workload


class Differential(unittest.TestCase):
    def differ(self, metric, rounds=scaled(8), steps=40, **settings):
        seed = a_seed()
        print(f"seed {seed} ({metric})", flush=True)
        cluster = Cluster(dim=8, metric=metric, settings={"history.window": "1h", **settings})
        self.addCleanup(cluster.finish)
        cluster.start()
        workload = Workload(cluster, seed)
        for number in range(rounds):
            try:
                workload.run(steps)
                workload.check()
                self.disturb(cluster, workload)
                workload.check(queries=3)
            except AssertionError as difference:
                raise AssertionError(f"MNEME_TEST_SEED={seed}, round {number}: {difference}") from difference

    @staticmethod
    def disturb(cluster, workload):
        """What must not change any answer."""
        what = workload.rng.random()
        if what < 0.4:
            cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
        elif what < 0.6:
            cluster.restart()
        elif what < 0.8:
            cluster.kill_everything()
            cluster.start()

    def test_cosine(self):
        self.differ("cosine")

    def test_inner_product(self):
        self.differ("ip")

    def test_distance_with_eager_compaction(self):
        self.differ(
            "l2",
            **{"compact.interval": "10ms", "compact.min_rows": 1, "compact.fanout": 2, "wal.segment_bytes": "1MiB"})


if __name__ == "__main__":
    unittest.main()
