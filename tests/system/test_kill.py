"""kill -9 of each role, again and again, under mixed load: nothing acknowledged is lost, nothing else is half there.

Writers (threads, each with a space of its own) never give up on a request: when no answer comes they ask again with the
same idem key until one stands, so that the model of each knows exactly what must be there. While a role is down that
recall does not need, recall goes on: each round counts reads that were answered meanwhile.
"""

import signal
import threading
import time
import unittest

import numpy as np

import model as truth
from cluster import PATIENCE, SLOW, Cluster, NoReply, Peer, f32, kill, poll_until, scaled
from workload import ALL_FIELDS, Memories

UNKNOWN = 2**62  # an id that no memory has
PASSING = ("busy", "unknown", "unavailable", "deadline", "read_only")


class Writer(threading.Thread):
    """Changes one space until told to stop, and keeps the model of what was acknowledged."""
    def __init__(self, cluster, number):
        super().__init__(name=f"writer {number}")
        self.endpoint, self.space = cluster.endpoint("write"), f"w{number}"
        self.rng = np.random.default_rng(number)
        self.model = truth.Model(cluster.dim, cluster.metric)
        self.memories = Memories(self.rng, cluster.dim)
        self.peer, self.requests, self.repeats, self.trouble = Peer(self.endpoint), 0, 0, None
        self.stopped = threading.Event()
        self.between = threading.Lock()  # held while a request is in flight: whoever takes it sees a settled model

    def run(self):
        try:
            while not self.stopped.is_set():
                with self.between:
                    self.step()
                time.sleep(0)
        except Exception as trouble:  # told by finish(), in the thread of the test
            self.trouble = trouble

    def finish(self):
        self.stopped.set()
        self.join()
        self.peer.close()
        if self.trouble:
            raise AssertionError(f"{self.name}: {self.trouble!r}") from self.trouble

    def settle(self, op, **fields):
        """The one answer of a request, however often it must be asked for."""
        self.requests += 1
        request = {"op": op, "space": self.space, "idem": f"{self.space}.{self.requests}", **fields}
        give_up = time.monotonic() + 60 * PATIENCE
        while time.monotonic() < give_up:
            try:
                reply = self.peer.ask(request, 1.0 * PATIENCE)
                if reply["ok"]:
                    return reply
                assert reply["code"] in PASSING, f"{op}: {reply}"
                time.sleep(0.01)
            except NoReply:
                self.peer.close()
                self.peer = Peer(self.endpoint)
            self.repeats += 1
        raise AssertionError(f"{op} was never answered")

    def step(self):
        visible = [v.id for v in self.model.visible(self.space)]
        move = self.rng.random()
        if move < 0.6 or len(visible) < 10:
            self.remember()
        elif move < 0.8:
            self.forget(visible)
        else:
            self.revise(visible)

    def remember(self):
        ids = list(dict.fromkeys(int(i) for i in self.rng.integers(10**6, 10**6 + 300, int(self.rng.integers(1, 5)))))
        memories = [self.memories.make(id=id)
                    for id in ids] + [self.memories.make() for _ in range(int(self.rng.integers(3)))]
        reply = self.settle("remember", memories=memories)
        fresh = reply["ids"][len(ids):]
        assert reply["ids"][:len(ids)] == ids and not set(fresh) & set(self.model.spaces.get(self.space, {})), reply
        self.assert_newer(reply)
        self.model.remember(self.space, memories, reply["ids"], reply["seq"])

    def forget(self, visible):
        ids = [int(self.rng.choice(visible)), UNKNOWN]
        mode = "delete" if self.rng.random() < 0.5 else "suppress"
        reply = self.settle("forget", ids=ids, mode=mode)
        self.assert_newer(reply)
        assert reply["count"] == self.model.forget(self.space, mode, reply["seq"], ids=ids) == 1, reply

    def revise(self, visible):
        id, changes = int(self.rng.choice(visible)), {"content": f"revised {self.requests}", "tags": ["r"]}
        reply = self.settle("revise", id=id, set=changes)
        self.assert_newer(reply)
        self.model.revise(self.space, id, changes, reply["seq"])

    def assert_newer(self, reply):
        assert reply["seq"] > self.model.seq, f"seq {reply['seq']} after {self.model.seq} was acknowledged"


class Kills(unittest.TestCase):
    WRITERS = 2

    def setUp(self):
        self.cluster = Cluster(
            settings={
                "recall.workers": 2, "wal.segment_bytes": "1MiB", "compact.interval": "50ms", "compact.min_rows": 64,
                "compact.fanout": 2
            })
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.stable = [Memories(np.random.default_rng(99), 8).make(id=id) for id in range(1, 51)]
        self.stable_seq = self.cluster.ok("remember", space="stable", memories=self.stable)["seq"]
        self.writers = [Writer(self.cluster, n) for n in range(self.WRITERS)]
        self.addCleanup(self.finish_writers)
        for writer in self.writers:
            writer.start()

    def finish_writers(self):
        writers, self.writers = self.writers, []
        for writer in writers:
            writer.finish()

    def check(self):
        """Every memory of every writer and the stable ones, bit for bit, on both workers; the writers pause
        meanwhile."""
        for worker in (0, 1):
            self.check_stable(worker)
            for writer in self.writers:
                with writer.between:
                    self.check_space(writer, worker)

    def check_space(self, writer, worker):
        ids = [*writer.model.spaces.get(writer.space, {}), UNKNOWN]
        reply = self.cluster.ok("get", worker, space=writer.space, ids=ids, fields=ALL_FIELDS)
        truth.compare_get(writer.model, reply, writer.space, ids)
        rows = truth.list_all(self.cluster.ok, worker=worker, space=writer.space, limit=500, fields=ALL_FIELDS)
        truth.compare_list(writer.model, rows, writer.space)
        query = writer.memories.vector()
        hits = self.cluster.ok("recall", worker, space=writer.space, embedding=f32(query), k=20, exact=True)["hits"]
        truth.compare_recall(writer.model, hits, query, writer.space, 20, now=time.time_ns())

    def check_stable(self, worker):
        reply = self.cluster.ok("get", worker, space="stable", ids=list(range(1, 51)), fields=ALL_FIELDS)
        for row, memory in zip(reply["memories"], self.stable):
            version = truth.Version("stable", memory["id"], self.stable_seq,
                                    truth.as_vector(memory["embedding"]), memory["content"], memory["meta"],
                                    tuple(memory["tags"]), memory["confidence"], memory["at"])
            truth.assert_memory(row, version, "stable")

    def kill_and_watch(self, role, index, serving):
        """Kills one role; until it is replaced, the `serving` workers must answer each read."""
        pid = self.cluster.kill_role(role, index)
        reads = 0

        def replaced():
            nonlocal reads
            for worker in serving:
                self.check_stable(worker)
                reads += 1
            info = self.cluster.info()
            rows = [r for r in info["roles"] if r["role"] == role and index in (None, r["index"])]
            return info["state"] == "ready" and rows and rows[0]["pid"] != pid

        poll_until(f"{role} replaced", replaced, 60 * PATIENCE)
        self.assertGreater(reads, 0)

    def kill_supervisor(self):
        self.cluster.restarts_expected = True
        self.cluster.drop_peers()
        kill(self.cluster.process.pid)
        self.cluster.process.wait()
        self.cluster.start()

    def kill_everything(self):
        self.cluster.kill_everything()
        self.cluster.start()

    def kill_recovery(self):
        """The writer dies, and so does the recovery that follows it, if it lives long enough to be caught."""
        self.cluster.kill_role("wal-writer")

        def caught():
            row = self.cluster.role("recovery")
            if row:
                kill(row["pid"])
            return row or self.cluster.role("wal-writer")

        poll_until("recovery or its end", caught, pause_s=0)
        self.cluster.await_state("ready")

    def rounds(self):
        return [
            lambda: self.kill_and_watch("wal-writer", None, (0, 1)), lambda: self.kill_and_watch("recall", 1, (0, )),
            lambda: self.kill_and_watch("recall", 0, (1, )), lambda: self.kill_and_watch("compactor", None, (0, 1)),
            self.kill_recovery, self.kill_everything, self.kill_supervisor
        ]

    def progress(self):
        return [writer.requests for writer in self.writers]

    def try_round(self, disturb):
        before = self.progress()

        def under_way():
            moved = all(now > then + 5 for now, then in zip(self.progress(), before))
            return moved or any(w.trouble for w in self.writers)

        poll_until("all writers make progress", under_way, 60 * PATIENCE)
        disturb()
        self.check()
        self.assertEqual([w.trouble for w in self.writers if w.trouble], [])

    def bitten(self):
        """How many requests were interrupted."""
        return sum(writer.repeats for writer in self.writers)

    def test_each_role_in_turn(self):
        rounds = self.rounds()
        for number in range(scaled(10)):
            self.try_round(rounds[number % len(rounds)])
        more = 20
        while more and not self.bitten():  # each kill may chance to fall between two requests
            more -= 1
            self.try_round(rounds[0])
        writers = self.writers
        self.check()
        self.finish_writers()
        self.assertGreater(sum(w.repeats for w in writers), 0,
                           "no request was ever interrupted: the kills did not bite")
        self.writers = writers
        self.cluster.restart()
        self.check()
        self.assertEqual(self.cluster.ok("verify", timeout_s=120 * PATIENCE)["damaged"], [])
        self.writers = []


class Stopped(unittest.TestCase):
    def test_a_stopped_worker_does_not_block_writes(self):
        """SIGSTOP one worker: writes, compaction and the other worker go on; the stalled one is replaced in the end."""
        stall = "10s" if SLOW else "5s"  # nobody else shall seem to stall
        cluster = Cluster(settings={"recall.workers": 2, "supervisor.stall": stall, "supervisor.heartbeat": "100ms"})
        self.addCleanup(cluster.finish)
        cluster.start()
        cluster.restarts_expected = True
        pid = cluster.role("recall", 1)["pid"]
        kill(pid, signal.SIGSTOP)
        for number in range(20):
            cluster.ok("remember", memories=[{"id": number, "embedding": f32([1 + number] * 8)}])
            self.assertEqual(cluster.ok("count")["count"], number + 1)
        cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
        cluster.await_replaced("recall", pid, 1)
        self.assertEqual(cluster.ok("count", worker=1)["count"], 20)

    def test_a_long_recall_is_no_stall(self):
        """One worker thread, busy for several times supervisor.stall with one request, is left to answer it."""
        cluster = Cluster(settings={"recall.threads": 1, "supervisor.stall": "1s", "supervisor.heartbeat": "50ms"})
        self.addCleanup(cluster.finish)
        cluster.start()
        cluster.restarts_expected = True  # of others: a busy machine may stall them in truth
        pid = cluster.role("recall")["pid"]
        writer = Writer(cluster, 0)  # asks until it is answered
        self.addCleanup(writer.peer.close)
        took_s, queries = 0, 4000
        while took_s < 2.5:  # the more there is, the longer
            for _ in range(10):
                writer.settle("remember", memories=[{"embedding": f32(writer.memories.vector())} for _ in range(2000)])
            start = time.monotonic()
            reply = cluster.ok("recall",
                               space=writer.space,
                               embeddings=f32(writer.memories.vector()) * queries,
                               k=1,
                               exact=True,
                               fields=[],
                               timeout_s=60 * PATIENCE)
            took_s = time.monotonic() - start
            self.assertEqual(len(reply["results"]), queries)
        self.assertEqual(cluster.role("recall")["pid"], pid)


if __name__ == "__main__":
    unittest.main()
