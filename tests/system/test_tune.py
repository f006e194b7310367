"""mneme tune: what a running store says of its index, its targets and their cost."""

import json
import os
import subprocess
import unittest

from cluster import PATIENCE, ClusterCase, f32, poll_until, program, scaled

ROWS = scaled(6000)


class Tuned(ClusterCase):
    """Each class below has a cluster of its own."""
    dim = 32

    def tune(self, *words, status=0, dir=None):
        done = subprocess.run([program("MNEME"), "--dir", str(dir or self.cluster.dir), "tune", *words],
                              capture_output=True, text=True, timeout=120 * PATIENCE,
                              env={**os.environ, "MNEME_DIR": ""})
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def fill(self, rows):
        vectors = self.rng.standard_normal((rows, self.dim)).astype("<f4")
        for start in range(0, rows, 1000):
            self.remember(*({"embedding": f32(v)} for v in vectors[start:start + 1000]))


class Empty(Tuned):
    def test_an_empty_store(self):
        told = json.loads(self.tune("--json"))
        self.assertEqual((told["rows"], told["tail_rows"], told["queries"], told["codebook"]), (0, 0, 0, 0))
        shown = self.tune()
        self.assertIn("none yet", shown)
        self.assertNotIn("0.0000", shown)  # nothing was measured

    def test_what_is_wrong_is_said(self):
        self.assertIn("--targets", self.tune("--targets", "0.9,x", status=2))
        self.assertIn("--targets", self.tune("--targets", "1.5", status=2))
        self.tune("a-word", status=2)
        self.tune(status=1, dir=self.cluster.base)


class Tail(Tuned):
    def test_the_tail_is_asked_too(self):
        self.fill(300)
        told = json.loads(self.tune("--json", "--targets", "0.5,1", "--queries", "20", "-k", "3"))
        self.assertEqual([p["target"] for p in told["points"]], [0.5, 1])
        self.assertEqual(told["points"][1]["recall"], 1, "a target of 1 is exact")
        self.assertEqual((told["tail_rows"], told["queries"], told["k"]), (300, 20, 3))


class Coded(Tuned):
    def test_with_codes(self):
        self.fill(ROWS)
        self.cluster.ok("consolidate", wait=True)
        coded = lambda: self.cluster.info()["index"]["coded_rows"] == ROWS
        poll_until("all rows have codes", coded, 60 * PATIENCE)
        told = json.loads(self.tune("--json", "--targets", "0.3,0.8,0.95,1", "--queries", "100"))
        self.assertEqual((told["rows"], told["coded_rows"]), (ROWS, ROWS))
        self.assertEqual(told["codebook"], self.cluster.info()["index"]["codebook"])
        self.assertGreater(told["clusters"], 1)
        calibrated = lambda: self.cluster.info()["index"]["calibrated_rows"] == ROWS
        poll_until("recall is calibrated", calibrated, 120 * PATIENCE)
        self.assertEqual(json.loads(self.tune("--json", "--queries", "1"))["calibrated_rows"], ROWS)
        points = told["points"]
        self.assertEqual(points[-1]["recall"], 1, "a target of 1 is exact")
        self.assertLess(points[0]["recall"], points[2]["recall"])
        self.assertLess(points[0]["scanned"], points[3]["scanned"])
        for point in points:
            self.assertLessEqual(point["p50_us"], point["p99_us"])
        table = self.tune("--queries", "10")
        self.assertIn("codebook", table)
        self.assertIn("0.950", table)


if __name__ == "__main__":
    unittest.main()
