"""The same operations, the same answers, wherever the memories are: tail, columns, both, and after each way to stop."""

import unittest

from cluster import PATIENCE, Cluster, scaled
from workload import Workload

STEPS = scaled(120)
SEED = 20_260


class Stages(unittest.TestCase):
    def begin(self):
        """A cluster that compacts only when told, and the one script of operations that all stages share."""
        self.cluster = Cluster(settings={"compact.enabled": "no", "history.window": "1h"})
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.workload = Workload(self.cluster, SEED)

    def consolidate(self):
        self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)

    def crash(self):
        self.cluster.kill_everything()
        self.cluster.start()

    def perform(self, *between):
        """Runs the script in as many parts as there are disturbances, one after each part, with a check after each."""
        self.begin()
        for disturbance in between:
            self.workload.run(STEPS // len(between))
            self.workload.check()
            disturbance()
            self.workload.check()

    def nothing(self):
        pass

    def test_in_the_tail(self):
        self.perform(self.nothing)

    def test_in_columns(self):
        self.perform(self.consolidate)

    def test_half_and_half(self):
        self.perform(self.consolidate, self.nothing)

    def test_many_segments(self):
        self.perform(*[self.consolidate] * 6)

    def test_after_a_restart(self):
        self.perform(lambda: self.cluster.restart())

    def test_after_kill_9_of_everything(self):
        self.perform(self.crash)

    def test_columns_after_a_restart(self):
        self.perform(self.consolidate, lambda: self.cluster.restart())

    def test_columns_after_kill_9(self):
        self.perform(self.consolidate, self.crash)

    def test_everything_in_turn(self):
        self.perform(self.consolidate, self.crash, lambda: self.cluster.restart(), self.consolidate, self.crash)

    def test_a_crash_right_after_a_crash(self):
        self.perform(self.crash, self.crash)
        self.crash()
        self.workload.check()


class Counters(unittest.TestCase):
    """What must survive besides memories: the id counter and idem keys."""
    def test_over_every_kind_of_stop(self):
        cluster = Cluster(settings={"compact.enabled": "no"})
        self.addCleanup(cluster.finish)
        cluster.start()
        request = {"memories": [{"embedding": [1.0] * 8}], "idem": "once"}
        first = cluster.ok("remember", **request)
        self.assertEqual(first["ids"], [1])
        last = cluster.ok("remember", memories=[{"embedding": [1.0] * 8}] * 3)["ids"]
        cluster.ok("forget", ids=last)

        def consolidate():
            cluster.ok("consolidate", wait=True)

        def crash():
            cluster.kill_everything()
            cluster.start()

        expected = 5
        for disturbance in (crash, consolidate, cluster.restart, crash, consolidate, consolidate, crash):
            disturbance()
            again = cluster.ok("remember", **request)
            self.assertEqual((again["ids"], again["seq"]), (first["ids"], first["seq"]))
            self.assertEqual(cluster.ok("remember", memories=[{"embedding": [1.0] * 8}])["ids"], [expected])
            expected += 1


if __name__ == "__main__":
    unittest.main()
