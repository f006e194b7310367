"""`mneme bench`: each measurement, made small, ends well, reports what it says it measures, and leaves nothing behind."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np

from cluster import PATIENCE, program

RUN_S = 120 * PATIENCE
DIM = 16


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ms", dir=os.environ.get("MNEME_TEST_DIR", "/tmp")))
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", str(self.folder)], check=True))

    def bench(self, *words, status=0):
        done = subprocess.run([program("MNEME"), "--json", "bench", *map(str, words), "--tmp", self.folder, "--mnemed",
                               program("MNEMED")],
                              capture_output=True,
                              text=True,
                              timeout=RUN_S)
        self.assertEqual(done.returncode, status, f"{words}: {done}")
        return json.loads(done.stdout) if status == 0 else done.stdout + done.stderr

    def bench_until(self, measured, seconds, *words):
        """A machine that is slow or busy may get nothing done in so short a time, and is given more."""
        while True:
            report = self.bench(*words, "--seconds", seconds)
            if measured(report) or seconds > 20:
                return report
            seconds *= 4

    def tearDown(self):
        self.assertEqual(list(self.folder.glob("mneme*")), [])

    def assert_quantiles(self, quantiles):
        self.assertLessEqual(0, quantiles["p50"])
        self.assertLessEqual(quantiles["p50"], quantiles["p99"])
        self.assertLessEqual(quantiles["p99"], quantiles["max"])

    def test_ingest(self):
        report = self.bench_until(lambda report: report["memories_per_s"] > 0, 0.3, "ingest", "--dim", DIM, "--warmup",
                                  0.1, "--floor")
        self.assertGreater(report["memories_per_s"], 0)
        self.assert_quantiles(report["ack_ms"])

    def test_recall(self):
        report = self.bench("recall", "--dim", DIM, "--rows", 1000, "--queries", 50, "--check", 20, "--targets",
                            "0.9,0.99", "--echo")
        self.assertEqual(report["rows"], 1000)
        for target in ("target_0.9", "target_0.99"):
            self.assertGreaterEqual(report[target]["queries"], 50)
            self.assertEqual(report[target]["recall_at_k"], 1.0)  # so few rows are searched exactly
            self.assert_quantiles(report[target]["client_ms"])
            self.assert_quantiles(report[target]["worker_us"])

    def test_mixed(self):
        rows = np.random.default_rng(1).standard_normal((1200, DIM)).astype("<f4")
        rows.tofile(self.folder / "rows.f32")
        parts = ("alone_before", "beside_writers", "alone_after")

        def measured(report):
            return report["memories_per_s"] > 0 and all(report[name]["queries"] > 0 for name in parts)

        report = self.bench_until(measured, 0.5, "mixed", "--dim", DIM, "--rows", 1000, "--vectors",
                                  self.folder / "rows.f32", "--warmup", 0.2, "--rate", 640, "--probe")
        self.assertEqual(report["probe_misses"], 0)
        self.assertGreater(report["memories_per_s"], 0)
        self.assert_quantiles(report["ack_ms"])
        for name in parts:
            self.assertGreater(report[name]["queries"], 0)
            self.assert_quantiles(report[name]["client_ms"])
        for name, key in (("client", "client_ms"), ("worker", "worker_us")):
            before, beside, after = (report[part][key]["p99"] for part in parts)
            self.assertAlmostEqual(report[f"times_slower_{name}"]["p99"], beside / ((before + after) / 2), places=6)

    def test_recovery(self):
        report = self.bench("recovery", "--dim", DIM, "--gib", 0.002)
        self.assertTrue(report["bit_for_bit"])
        self.assertEqual(report["found"], report["acknowledged"])

    def test_no_whole_rows(self):
        (self.folder / "rows.f32").write_bytes(bytes(DIM * 4 + 1))
        self.assertIn("--dim", self.bench("mixed", "--dim", DIM, "--vectors", self.folder / "rows.f32", status=1))


if __name__ == "__main__":
    unittest.main()
