"""control: info's shape, ping, consolidate, snapshot and opening it, verify, reload, drain."""

import json
import os
import signal
import subprocess
import threading
import unittest
import uuid

import model as truth
from cluster import PATIENCE, Cluster, ClusterCase, Peer, f32, files_below, poll_until, program, unpack

ROLES = {"supervisor", "recovery", "wal-writer", "recall", "compactor"}


class Info(ClusterCase):
    settings = {"recall.workers": 2}

    def test_shape(self):
        info = self.cluster.info()
        self.assertEqual(info["protocol"], 1)
        self.assertEqual((info["dim"], info["metric"], info["state"]), (self.dim, self.metric, "ready"))
        self.assertEqual(str(uuid.UUID(info["uuid"])), info["uuid"])
        self.assertIsInstance(info["version"], str)
        self.assertIsInstance(info["seq"], int)
        self.assertLessEqual(info["oldest_seq"], info["seq"] + 1)

    def test_endpoints_are_where_the_protocol_says(self):
        endpoints = self.cluster.info()["endpoints"]
        self.assertEqual(
            endpoints, {
                "write": self.cluster.endpoint("write"), "stats": self.cluster.endpoint("stats"),
                "recall": [self.cluster.endpoint("recall", n)
                           for n in (0, 1)], "stats_pub": self.cluster.endpoint("stats.pub")
            })

    def test_roles(self):
        rows = self.cluster.info()["roles"]
        names = sorted(row["role"] for row in rows if row["role"] != "recovery")
        self.assertEqual(names, ["compactor", "recall", "recall", "supervisor", "wal-writer"])
        for row in rows:
            self.assertLessEqual({"role", "node", "pid", "state", "restarts"}, set(row))
            self.assertIn(row["role"], ROLES)
            self.assertIn(row["pid"], self.cluster.processes())
        self.assertEqual(sorted(row["index"] for row in rows if row["role"] == "recall"), [0, 1])

    def test_seq_follows_writes(self):
        seq = self.remember({})["seq"]
        self.assertGreaterEqual(self.cluster.info()["seq"], seq)

    def test_ping(self):
        self.assertEqual(self.cluster.ok("ping", rid="p")["rid"], "p")

    def test_the_uuid_outlives_a_restart(self):
        before = self.cluster.info()["uuid"]
        self.cluster.restart()
        self.assertEqual(self.cluster.info()["uuid"], before)


class Scheduling(unittest.TestCase):
    """priority.realtime: the writer and the workers go before others where they may; no worker where it would leave no
    CPU to anybody else."""
    def classes(self, **settings):
        cluster = Cluster(settings={name.replace("__", "."): value for name, value in settings.items()})
        self.addCleanup(cluster.finish)
        return {role["role"]: role["scheduling"] for role in cluster.start().info()["roles"]}

    def test_off(self):
        off = self.classes(priority__realtime="no")
        self.assertNotIn("fifo", off.values(), off)

    def test_on(self):
        on = self.classes()
        self.assertEqual(on["recall"] == "fifo", on["wal-writer"] == "fifo" and len(os.sched_getaffinity(0)) > 1, on)
        self.assertNotEqual(on["compactor"], "fifo")

    def test_more_workers_than_processors(self):
        self.assertNotEqual(self.classes(recall__workers=len(os.sched_getaffinity(0)))["recall"], "fifo")


class Consolidate(ClusterCase):
    def test_nothing_changes_but_the_place(self):
        vectors = [self.vector() for _ in range(50)]
        self.remember(*({"embedding": f32(v), "content": str(i)} for i, v in enumerate(vectors)))

        def answers():
            return ([self.ok("recall", embedding=f32(v), exact=True)["hits"]
                     for v in vectors[:5]], truth.list_all(self.ok), self.ok("count")["count"])

        before = answers()
        self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
        self.assertEqual(repr(answers()), repr(before))

    def test_it_makes_columns(self):
        self.remember({})
        self.cluster.ok("consolidate", wait=True)
        self.assertTrue([path for path in files_below(self.cluster.dir / "columns") if path.suffix == ".col"])

    def test_twice_and_on_nothing(self):
        for _ in range(3):
            self.cluster.ok("consolidate", wait=True)

    def test_without_waiting(self):
        self.remember({})
        self.cluster.ok("consolidate")
        self.cluster.ok("consolidate", wait=False)
        self.assertEqual(self.ok("count")["count"], 1)

    def test_info_after_a_consolidation(self):
        """Who waited for it sees it at once."""
        for total in (300, 600):
            self.remember(*({} for _ in range(300)))
            self.cluster.ok("consolidate", wait=True)
            info = self.cluster.info()
            self.assertEqual(info["tail_rows"], 0)
            self.assertGreaterEqual(info["index"]["column_rows"], total)

    def test_writes_go_on_meanwhile(self):
        self.remember(*[{}] * 1000)
        with Peer(self.cluster.endpoint("control")) as control:
            control.send({"op": "consolidate", "wait": True})
            for i in range(20):
                self.remember({"id": 5000 + i})
            self.assertTrue(control.receive()["ok"])
        self.assertEqual(self.ok("count")["count"], 1020)


class Snapshot(ClusterCase):
    def setUp(self):
        super().setUp()
        self.path = self.cluster.base / self._testMethodName

    def open_copy(self):
        """A cluster that serves the copy, beside its origin."""
        copy = Cluster(self.dim, self.metric, dir=self.path)
        self.addCleanup(copy.finish)
        return copy

    def test_mnemed_opens_it(self):
        vectors = [self.vector() for _ in range(20)]
        self.remember(*({"embedding": f32(v), "content": "in columns"} for v in vectors[:10]))
        self.cluster.ok("consolidate", wait=True)
        self.remember(*({"embedding": f32(v), "content": "in the tail"} for v in vectors[10:]))
        self.ok("forget", ids=[1])
        before = truth.list_all(self.ok, fields=["content", "embedding", "at"])
        reply = self.cluster.ok("snapshot", path=str(self.path), timeout_s=60 * PATIENCE)
        self.assertGreaterEqual(reply["seq"], before[0]["version"])
        self.assertGreater(reply["bytes"], 0)
        self.assertGreater(reply["files"], 0)
        self.remember({"content": "after the snapshot"})
        copy = self.open_copy().start()
        after = truth.list_all(copy.ok, space=self.space, fields=["content", "embedding", "at"])
        self.assertEqual(repr(after), repr(before))
        copy.ok("remember", space=self.space, memories=[{"embedding": f32(self.vector())}])
        self.assertEqual(self.ok("count")["count"], 20)
        self.assertEqual(copy.ok("count", space=self.space)["count"], 20)

    def test_it_is_consistent_under_writes(self):
        """Each write puts the same number into two memories; a copy in which they differ is torn."""
        stop, writes = threading.Event(), []

        def write():
            with Peer(self.cluster.endpoint("write")) as peer:
                while not stop.is_set():
                    n = len(writes)
                    writes.append(
                        peer.ask({
                            "op": "remember", "space": self.space,
                            "memories": [{"id": id, "embedding": f32([1 + n] * self.dim), "content": str(n)}
                                         for id in (1, 2)]
                        }))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            poll_until("writes under way", lambda: len(writes) > 20)
            reply = self.cluster.ok("snapshot", path=str(self.path), timeout_s=60 * PATIENCE)
        finally:
            stop.set()
            writer.join()
        self.assertTrue(all(w["ok"] for w in writes))
        copy = self.open_copy().start()
        first, second = copy.ok("get", space=self.space, ids=[1, 2])["memories"]
        self.assertEqual((first["content"], first["version"]), (second["content"], second["version"]))
        self.assertLessEqual(first["version"], reply["seq"])

    def test_where_it_may_not_go(self):
        (self.cluster.base / "taken").mkdir(exist_ok=True)
        for path in (str(self.cluster.base / "taken"), "/etc/mneme-test-snapshot", "relative/path", "",
                     str(self.cluster.base / ".." / ".." / "etc" / "mneme-test-snapshot"), 7, None):
            reply = self.cluster.call("snapshot", path=path)
            self.assert_refusal(reply, ("bad_request", "exists", "unauthorized"), f"snapshot to {path!r}")
        self.assertEqual(list((self.cluster.base / "taken").iterdir()), [])


class Verify(ClusterCase):
    def test_a_sound_store(self):
        self.remember(*[{}] * 50)
        self.cluster.ok("consolidate", wait=True)
        self.remember(*[{}] * 50)
        reply = self.cluster.ok("verify", timeout_s=60 * PATIENCE)
        self.assertEqual(reply["damaged"], [])
        self.assertGreater(reply["files"], 0)
        self.assertGreater(reply["bytes"], 0)


class VerifyDamage(unittest.TestCase):
    def test_a_flipped_byte_is_found_and_said(self):
        cluster = Cluster()
        self.addCleanup(cluster.finish)
        cluster.start()
        memories = [{"embedding": f32([i + 1] * 8), "content": f"content {i}"} for i in range(100)]
        cluster.ok("remember", memories=memories)
        cluster.ok("consolidate", wait=True)
        (column, ) = [path for path in files_below(cluster.dir / "columns") if path.name == "content.col"]
        column.with_name("parity.col").unlink()  # nothing is left to mend it with: it stays degraded
        place = column.read_bytes().index(b"content 50")
        with open(column, "r+b") as file:
            file.seek(place)
            file.write(b"C")
        damaged = cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]
        self.assertEqual({piece["file"].rpartition("/")[2] for piece in damaged}, {"content.col", "parity.col"}, damaged)
        cluster.await_state("degraded")
        hits = cluster.ok("recall", embedding=f32([1] * 8), k=5, fields=[])["hits"]
        self.assertEqual(len(hits), 5, "what is not damaged stays available")
        reply = cluster.call("get", ids=[51])
        if reply["ok"]:
            self.assertNotEqual((reply["memories"][0] or {}).get("content"), "Content 50", "wrong bytes were returned")
        else:
            self.assertEqual(reply["code"], "corrupt")


class Reload(unittest.TestCase):
    """Settings come from the defaults, then the file, then --set; a reload takes up what it may and says what it may not."""
    def setUp(self):
        self.cluster = Cluster(settings={"write.idem_window": "3min"})
        self.addCleanup(self.cluster.finish)
        self.file = self.cluster.base / "mneme.conf"
        plain = self.cluster.arguments()
        self.cluster.arguments = lambda: plain + ["--config", str(self.file)]

    def in_effect(self, key):
        done = subprocess.run([program("MNEME"), "--dir", str(self.cluster.dir), "--json", "config", key],
                              capture_output=True, text=True, check=True, timeout=60 * PATIENCE)
        return json.loads(done.stdout)[key]["value"]

    def test_reload(self):
        self.file.write_text("[write]\nidem_window = 2min\n[history]\nwindow = 4min\n[wal]\nprepared = 2\n")
        self.cluster.start()
        self.assertEqual([self.in_effect(key) for key in ("write.idem_window", "history.window", "wal.prepared")],
                         ["3min", "4min", "2"])
        self.file.write_text("[history]\nwindow = 5min\n[wal]\nprepared = 3\n")
        reply = self.cluster.ok("reload")
        self.assertEqual((reply["changed"], reply["needs_restart"]), ("history.window", "wal.prepared"))
        self.assertEqual([self.in_effect(key) for key in ("write.idem_window", "history.window", "wal.prepared")],
                         ["3min", "5min", "2"])
        self.file.write_text("[wal]\nprepared = many\n")
        self.assertFalse(self.cluster.call("reload")["ok"])
        self.assertEqual(self.in_effect("history.window"), "5min")


class Drain(unittest.TestCase):
    def test_it_finishes_and_stops(self):
        cluster = Cluster()
        self.addCleanup(cluster.finish)
        cluster.start()
        with Peer(cluster.endpoint("write")) as peer:
            for rid in range(200):
                peer.send({"op": "remember", "rid": rid, "memories": [{"id": rid, "embedding": f32([1 + rid] * 8)}]})
            first = peer.receive()
            self.assertTrue(cluster.call("drain")["ok"])
            acked = {first["rid"]} | self.acked(peer)
        cluster.drop_peers()
        cluster.check_stop(cluster.wait())
        cluster.start()
        there = {m["id"] for m in truth.list_all(cluster.ok, limit=1000)}
        self.assertLessEqual(acked, there, "an acknowledged memory is gone after a drain")

    @staticmethod
    def acked(peer):
        """Replies that come before the sockets close; what was not admitted may be refused or get none."""
        found = set()
        while True:
            frames = peer.receive_frames(1.0)
            if frames is None:
                return found
            reply = unpack(frames[-1])
            if reply["ok"]:
                found.add(reply["rid"])


class State(unittest.TestCase):
    def test_recovering_while_no_writer_serves(self):
        cluster = Cluster()
        self.addCleanup(cluster.finish)
        cluster.start()
        for _ in range(3):
            cluster.ok("remember", memories=[{"embedding": f32([1] * 8)}])
        pid = cluster.kill_role("wal-writer")
        states = set()

        def seen():
            info = cluster.info()
            states.add(info["state"])
            rows = [r for r in info["roles"] if r["role"] == "wal-writer"]
            return info["state"] == "ready" and rows and rows[0]["pid"] != pid

        poll_until("the writer is back", seen, pause_s=0)
        self.assertLessEqual(states, {"recovering", "ready", "degraded"})
        self.assertEqual(cluster.ok("count")["count"], 3)

    def test_a_killed_supervisor_takes_its_children_along(self):
        cluster = Cluster()
        self.addCleanup(cluster.finish)
        cluster.start()
        cluster.ok("remember", memories=[{"embedding": f32([1] * 8)}])
        cluster.drop_peers()
        cluster.restarts_expected = True
        cluster.process.send_signal(signal.SIGKILL)
        cluster.process.wait()
        poll_until("the children exit", lambda: not cluster.processes())
        cluster.start()
        self.assertEqual(cluster.ok("count")["count"], 1)


if __name__ == "__main__":
    unittest.main()
