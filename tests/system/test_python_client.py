"""The Python client, clients/python/mneme.py: every call on a real cluster, and its patience against a false server."""

import array
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import msgpack
import numpy as np
import zmq

CLIENT_FOLDER = Path(__file__).resolve().parents[2] / "clients" / "python"
sys.path.insert(0, str(CLIENT_FOLDER))

import mneme  # noqa: E402
from cluster import PATIENCE, REPLY_S, Cluster, ClusterCase, f32, kill, program  # noqa: E402


class Calls(ClusterCase):
    settings = {"recall.workers": 2}

    def setUp(self):
        super().setUp()
        self.client = mneme.open(self.cluster.dir, timeout_s=REPLY_S)
        self.addCleanup(self.client.close)

    def test_remember_get_recall(self):
        vector = self.vector()
        stored = self.client.remember(vector,
                                      content="c",
                                      meta={"a": [1]},
                                      tags=["t"],
                                      confidence=0.5,
                                      at=5,
                                      expires=2**62,
                                      space=self.space)
        self.assertEqual((stored.id, stored.versions), (1, [stored.seq]))
        found = self.client.get(1,
                                space=self.space,
                                fields=["content", "meta", "tags", "confidence", "at", "expires", "embedding"])
        self.assertEqual((found.content, found.meta, found.tags, found.confidence, found.at, found.expires),
                         ("c", {"a": [1]}, ["t"], 0.5, 5, 2**62))
        self.assertEqual(found.embedding.tobytes(), f32(vector))
        answer = self.client.recall(vector, k=3, space=self.space, exact=True, context=1)
        self.assertEqual((len(answer), answer[0].id, answer[0].content, answer.exact), (1, 1, "c", True))
        self.assertAlmostEqual(answer[0].score, 1.0, places=5)
        self.assertEqual((answer[0].before, answer[0].after), ([], []))
        self.assertGreaterEqual(answer.seq, stored.seq)

    def test_embeddings_in_every_form(self):
        numbers = [0.5, -1.25, 2.0, 0.0, 3.5, 1.0, -8.0, 0.25]  # exact in half precision too
        forms = [
            numbers,
            tuple(numbers),
            f32(numbers),
            bytearray(f32(numbers)),
            array.array("f", numbers),
            array.array("d", numbers),
            memoryview(array.array("f", numbers)),
            np.array(numbers),
            np.array(numbers, "f4"),
            np.array(numbers, "f2"),
            np.array(numbers, ">f4"),
            np.array(numbers * 2, "f4")[:8],
            np.array(numbers, "f4").repeat(2)[::2]
        ]
        ids = self.client.remember_batch([{"embedding": form} for form in forms], space=self.space).ids
        for memory in self.client.get_many(ids, space=self.space, fields=["embedding"]):
            self.assertEqual(memory.embedding.tolist(), numbers)
        for form in forms:
            self.assertEqual(len(self.client.recall(form, space=self.space, k=100)), len(forms))
        matrix = np.array([numbers, numbers], "f8")
        for batch in (matrix, matrix.tolist(), [np.array(numbers, "f2")] * 2, f32(matrix)):
            answers = self.client.recall_batch(batch, space=self.space, k=4)
            self.assertEqual([len(a) for a in answers], [4, 4])

    def test_revise_forget_restore(self):
        id = self.client.remember(self.vector(), content="old", space=self.space).id
        seq = self.client.revise(id, content="new", space=self.space)
        self.assertEqual((self.client.get(id, space=self.space).content, self.client.get(id, space=self.space).version),
                         ("new", seq))
        self.assertEqual(self.client.forget(id, mode="suppress", space=self.space).count, 1)
        self.assertIsNone(self.client.get(id, space=self.space))
        self.assertEqual(self.client.forget([id], mode="restore", space=self.space).count, 1)
        self.assertEqual(self.client.forget(filter={"ids": [id]}, space=self.space).count, 1)
        self.client.remember(self.vector(), space=self.space)
        gone = self.client.forget(all=True, mode="purge", space=self.space, timeout_s=120)
        self.assertEqual(gone.count, 1)
        self.assertIsNotNone(gone.receipt)

    def test_list_follows_cursors(self):
        self.client.remember_batch(({"embedding": self.vector(), "at": i} for i in range(25)), space=self.space)
        self.assertEqual([m.at for m in self.client.list(space=self.space, page=4, order="oldest")], list(range(25)))
        self.assertEqual([m.at for m in self.client.list(space=self.space, page=4, after=20, before=23)], [22, 21, 20])
        self.assertEqual(self.client.count(space=self.space, after=20), 5)

    def test_spaces(self):
        for name in ("x", "y"):
            self.client.remember(self.vector(), space=f"{self.space}.{name}")
        both = [f"{self.space}.x", f"{self.space}.y"]
        self.assertEqual(self.client.count(space=both), 2)
        self.assertEqual({h.space for h in self.client.recall(self.vector(), space=both)}, set(both))
        self.assertGreaterEqual(self.client.count(space=None), 2)
        self.assertLessEqual(set(both), set(self.client.spaces()))

    def test_what_was_read_can_be_written_again(self):
        fields = ["content", "meta", "tags", "confidence", "at", "embedding"]
        self.client.remember_batch([{"embedding": self.vector(), "content": str(i)} for i in range(3)],
                                   space=self.space)
        self.client.remember_batch(self.client.list(space=self.space, fields=fields), space=self.space + ".copy")
        copies = {m.id: m.content for m in self.client.list(space=self.space + ".copy")}
        self.assertEqual(copies, {1: "0", 2: "1", 3: "2"})

    def test_rank_and_like(self):
        vector = self.vector()
        self.client.remember_batch([{"embedding": vector, "confidence": c} for c in (0.1, 0.9)], space=self.space)
        hits = self.client.recall(vector, space=self.space, rank={"confidence_weight": 1.0})
        self.assertEqual([h.id for h in hits], [2, 1])
        self.assertAlmostEqual(hits[1].parts["confidence"], 0.1, places=5)
        self.assertEqual([h.id for h in self.client.recall(like=1, space=self.space)], [2])

    def test_control(self):
        self.client.ping()
        self.client.consolidate()
        path = self.cluster.base / "copy"
        self.assertGreater(self.client.snapshot(path)["files"], 0)
        self.assertTrue(path.is_dir())
        self.assertEqual(self.client.verify()["damaged"], [])
        self.client.reload()
        self.assertIsInstance(self.client.stats(), dict)
        self.assertIn("mneme_", self.client.stats("prometheus"))
        self.assertEqual(self.client.info()["dim"], self.dim)

    def test_errors_have_classes(self):
        id = self.client.remember(self.vector(), space=self.space).id
        for cls, call in ((mneme.Exists,
                           lambda: self.client.remember(self.vector(), id=id, if_absent=True, space=self.space)),
                          (mneme.VersionMismatch,
                           lambda: self.client.revise(id, content="x", if_version=10**9, space=self.space)),
                          (mneme.NotFound, lambda: self.client.revise(404, content="x", space=self.space)),
                          (mneme.BadDim, lambda: self.client.recall([1.0], space=self.space)),
                          (mneme.BadValue, lambda: self.client.remember([0.0] * self.dim, space=self.space)),
                          (mneme.BadRequest, lambda: self.client.recall(self.vector(), k=0, space=self.space))):
            with self.assertRaises(cls) as caught:
                call()
            self.assertIsInstance(caught.exception, mneme.MnemeError)
            self.assertTrue(str(caught.exception))

    def test_a_misspelled_option_is_no_option(self):
        for call, about in ((self.client.recall, self.vector()), (self.client.recall_batch, [self.vector()])):
            with self.assertRaisesRegex(TypeError, "no option 'filtre'.*filter"):
                call(about, filtre={"ids": []}, space=self.space)
        with self.assertRaises(mneme.BadRequest):
            self.client.recall(self.vector(), like=1, space=self.space)

    def test_a_closed_client_says_so(self):
        client = mneme.open(self.cluster.dir)
        client.close()
        client.close()
        with self.assertRaisesRegex(ValueError, "closed"):
            client.count()

    def test_clients_that_are_dropped_are_closed(self):
        """In a cycle, too, where Python may collect a client's context before its sockets."""
        dropped = """if True:
            import gc, os, sys, mneme
            for i in range(10):
                client = mneme.open(sys.argv[1])
                client.itself = client
                del client
                gc.collect()
            assert len(os.listdir("/proc/self/task")) < 5, "threads of clients that are gone"
            """
        environment = dict(os.environ, PYTHONPATH=str(CLIENT_FOLDER))
        subprocess.run([sys.executable, "-c", dropped, self.cluster.dir], env=environment, timeout=REPLY_S, check=True)

    def test_idem_over_two_clients(self):
        with mneme.open(self.cluster.dir) as other:
            first = self.client.remember(f32([1] * self.dim), space=self.space, idem=self.space)
            again = other.remember(f32([1] * self.dim), space=self.space, idem=self.space)
        self.assertEqual(first, again)
        self.assertEqual(self.client.count(space=self.space), 1)

    def test_threads_share_a_client(self):
        def work(number):
            for i in range(50):
                self.client.remember(f32([1 + i] * self.dim), id=number * 100 + i, space=self.space)
                self.assertEqual(self.client.get(number * 100 + i, space=self.space).id, number * 100 + i)

        threads = [threading.Thread(target=work, args=(n, )) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.client.count(space=self.space), 200)

    def test_example(self):
        for where in (["--dir", str(self.cluster.dir)], ["--mnemed", program("MNEMED")]):
            done = subprocess.run([sys.executable, str(CLIENT_FOLDER / "example.py"), *where],
                                  capture_output=True,
                                  text=True,
                                  timeout=60 * PATIENCE,
                                  env=self.cluster.environment())
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("ada likes her tea", done.stdout)
            self.assertIn("left in the space: 0", done.stdout)


class Failures(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(settings={"recall.workers": 2})
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.client = mneme.open(self.cluster.dir, timeout_s=REPLY_S)
        self.addCleanup(self.client.close)
        self.client.remember(f32([1] * 8), id=1)

    def test_it_falls_over_to_another_worker(self):
        for index in (1, 0, 1):
            pid = self.cluster.kill_role("recall", index)
            for _ in range(6):
                self.assertEqual(len(self.client.recall(f32([1] * 8))), 1)
            self.cluster.await_replaced("recall", pid, index)

    def test_it_passes_over_a_worker_that_hangs(self):
        self.cluster.restarts_expected = True
        pid = self.cluster.role("recall", 0)["pid"]
        kill(pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                self.assertEqual(len(self.client.recall(f32([1] * 8))), 1)
        finally:
            kill(pid, signal.SIGCONT)

    def test_writes_over_the_death_of_the_writer_happen_once(self):
        for number in range(5):
            self.cluster.kill_role("wal-writer")
            self.client.remember(f32([2] * 8), space="once", content=str(number))
        contents = [m.content for m in self.client.list(space="once", order="oldest")]
        self.assertEqual(contents, [str(n) for n in range(5)])

    def test_it_finds_the_cluster_again_after_a_restart(self):
        self.cluster.check_stop(self.cluster.terminate())
        self.cluster.settings["recall.workers"] = 1
        self.cluster.start()
        for _ in range(4):
            self.assertEqual(len(self.client.recall(f32([1] * 8))), 1)
        self.client.remember(f32([1] * 8), id=2)


class FalseServer(threading.Thread):
    """A server that answers from a script: each op has a list of replies; None stands for silence, the last one
    repeats."""
    def __init__(self, folder, script):
        super().__init__(daemon=True)
        (folder / "run").mkdir(parents=True)
        self.script, self.seen, self.finished = script, [], threading.Event()
        self.endpoints = {name: f"ipc://{folder}/run/{name}" for name in ("control", "write", "recall.0", "stats")}
        self.sockets = []
        for endpoint in self.endpoints.values():
            self.sockets.append(zmq.Context.instance().socket(zmq.ROUTER))
            self.sockets[-1].linger = 0
            self.sockets[-1].bind(endpoint)

    def run(self):
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        while not self.finished.is_set():
            for socket, _ in poller.poll(20):
                self.serve(socket)
        for socket in self.sockets:
            socket.close()

    def serve(self, socket):
        *head, body = socket.recv_multipart()
        request = msgpack.unpackb(body)
        if request["op"] == "info":
            reply = {
                "ok": True, "endpoints": {
                    "write": self.endpoints["write"], "recall": [self.endpoints["recall.0"]],
                    "stats": self.endpoints["stats"]
                }
            }
        else:
            self.seen.append(request)
            replies = self.script[request["op"]]
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply is not None:
            socket.send_multipart([*head, msgpack.packb({**reply, "rid": request.get("rid")})])


def refusal(code):
    return {"ok": False, "code": code, "error": "as the script says", "retry": mneme.ERROR_CODES[code]}


class Patience(unittest.TestCase):
    WRITTEN = {"ok": True, "ids": [1], "seq": 7, "versions": [7]}

    def open(self, **script):
        folder = tempfile.TemporaryDirectory(prefix="ms", dir=os.environ.get("MNEME_TEST_DIR", "/tmp"))
        self.addCleanup(folder.cleanup)
        self.server = FalseServer(Path(folder.name) / "d", script)
        self.server.start()
        self.addCleanup(self.server.join)
        self.addCleanup(self.server.finished.set)
        client = mneme.open(Path(folder.name) / "d", timeout_s=REPLY_S)
        self.addCleanup(client.close)
        return client

    def test_busy_is_tried_again(self):
        client = self.open(remember=[refusal("busy")] * 3 + [self.WRITTEN])
        self.assertEqual(client.remember([1.0]).seq, 7)
        self.assertEqual(len(self.server.seen), 4)
        self.assertEqual(len({r["idem"] for r in self.server.seen}), 1, "each try has the same key")

    def test_busy_to_the_end(self):
        """A last try that is not answered in time is of unknown fate: then once more."""
        client = self.open(remember=[refusal("busy")])
        for _ in range(20):
            with self.assertRaises((mneme.Busy, mneme.Unknown)) as caught:
                client.remember([1.0], timeout_s=1.5 * PATIENCE)
            if isinstance(caught.exception, mneme.Busy):
                return
        self.fail(f"never busy: {caught.exception}")

    def test_unknown_is_asked_again_with_the_same_key(self):
        client = self.open(forget=[refusal("unknown"), {"ok": True, "seq": 3, "count": 1}])
        self.assertEqual(client.forget(1).seq, 3)
        self.assertEqual(len({r["idem"] for r in self.server.seen}), 1)

    def test_silence_ends_in_unknown_for_a_write(self):
        client = self.open(remember=[None])
        with self.assertRaises(mneme.Unknown) as caught:
            client.remember([1.0], timeout_s=3 * PATIENCE)
        self.assertEqual(caught.exception.idem, self.server.seen[0]["idem"])

    def test_silence_ends_in_unavailable_for_a_read(self):
        client = self.open(count=[None])
        with self.assertRaises(mneme.Unavailable):
            client.count(timeout_s=0.5)

    def test_other_refusals_are_final(self):
        client = self.open(get=[refusal("bad_request"), {"ok": True, "memories": []}], remember=[refusal("read_only")])
        with self.assertRaises(mneme.BadRequest):
            client.get_many([1])
        with self.assertRaises(mneme.ReadOnly):
            client.remember([1.0])
        self.assertEqual(len(self.server.seen), 2)

    def test_a_reply_to_an_earlier_request_is_not_taken(self):
        client = self.open(count=[{"ok": True, "count": 5, "seq": 1}])
        self.assertEqual([client.count() for _ in range(3)], [5, 5, 5])
        self.assertEqual(len({r["rid"] for r in self.server.seen}), 3)

    def test_nobody_there(self):
        with self.assertRaisesRegex(mneme.Unavailable, "start one with `mnemed --dir /tmp/no-such-store`"):
            mneme.open("/tmp/no-such-store", timeout_s=0.4)

    def test_a_code_of_the_future_is_still_an_error(self):
        client = self.open(count=[{"ok": False, "code": "not_yet_invented", "error": "x", "retry": False}])
        with self.assertRaises(mneme.MnemeError) as caught:
            client.count()
        self.assertEqual(caught.exception.code, "not_yet_invented")

    def test_after_a_fork_it_says_so(self):
        client = self.open(count=[{"ok": True, "count": 5, "seq": 1}])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.count()
            except RuntimeError:
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)


if __name__ == "__main__":
    unittest.main()
