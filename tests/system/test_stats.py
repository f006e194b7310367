"""stats: the map, JSON, Prometheus text, and what is published each second."""

import json
import re
import unittest

import zmq

from cluster import ClusterCase, Peer, f32, poll_until

HISTOGRAM = {"count", "sum", "max", "p50", "p90", "p99", "p999"}


class Stats(ClusterCase):
    def stats(self):
        return self.cluster.ok("stats")["stats"]

    def test_map(self):
        for name, value in self.stats().items():
            self.assertIsInstance(name, str)
            if isinstance(value, dict):
                self.assertEqual(set(value), HISTOGRAM, name)
                self.assertLessEqual(value["p50"], value["p99"], name)
            else:
                self.assertIsInstance(value, (int, float), name)
        self.assertEqual(self.cluster.ok("stats", format="map")["stats"].keys(), self.stats().keys())

    def test_they_move(self):
        """Whatever the names, something counts each acknowledged write and each recall."""
        def plain():
            return {k: (v["count"] if isinstance(v, dict) else v) for k, v in self.stats().items()}

        before = plain()
        for _ in range(10):
            self.remember({})
        for _ in range(7):
            self.ok("recall", embedding=f32(self.vector()))

        def grown():
            after = plain()
            return {k
                    for k in after
                    if after[k] - before.get(k, 0) == 10}, {k
                                                            for k in after if after[k] - before.get(k, 0) == 7}

        poll_until("ten writes and seven recalls are counted", lambda: all(grown()))

    def test_json(self):
        text = self.cluster.ok("stats", format="json")["text"]
        self.assertEqual(set(json.loads(text)), set(self.stats()))

    def test_prometheus(self):
        text = self.cluster.ok("stats", format="prometheus")["text"]
        self.assertTrue(text.endswith("\n"))
        typed = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                self.assertIn(kind, ("counter", "gauge", "summary", "histogram"))
                self.assertNotIn(name, typed, "typed twice")
                typed.add(name)
            elif not line.startswith("#"):
                match = re.fullmatch(r'(mneme_[a-z0-9_]+)(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? (\S+)', line)
                self.assertTrue(match, line)
                float(match[4])
                base = re.sub(r"_(sum|count|max|bucket)$", "", match[1])
                self.assertTrue({match[1], base} & typed, f"no TYPE before {line}")
        self.assertTrue(typed)

    def test_bad_format(self):
        for format in ("xml", 7, ""):
            self.refused("bad_request", "stats", format=format)

    def test_published_each_second(self):
        with Peer(self.cluster.endpoint("stats.pub"), kind=zmq.SUB) as peer:
            peer.socket.subscribe(b"stats")
            uptimes = []
            for _ in range(3):
                frames = peer.receive_frames()
                self.assertIsNotNone(frames, "nothing was published")
                self.assertEqual(frames[0], b"stats")
                published = json.loads(frames[1])
                self.assertEqual(set(published), set(self.stats()))
                uptimes.append(published["uptime_s"])
            self.assertGreaterEqual(uptimes[2] - uptimes[0], 1, "far more often than each second")


if __name__ == "__main__":
    unittest.main()
