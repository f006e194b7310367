"""Acknowledged means visible: a read by another process right after the acknowledgement always finds the memory.

The writer process hands each acknowledged id through a pipe to a reader process, which at once asks a recall worker.
The reader never waits and never asks twice: one miss fails the test.
"""

import multiprocessing
import threading
import time
import unittest

import numpy as np

from cluster import PATIENCE, ClusterCase, Peer, die_with_parent, f32, scaled

SPACES = 4


def embedding(number, dim):
    """A vector of its own for each number, far enough from all others that only itself scores 1."""
    return np.random.default_rng(number).standard_normal(dim).astype("f4")


def write(endpoint, handover, tries, dim):
    die_with_parent()
    with Peer(endpoint) as peer:
        for number in range(tries):
            reply = peer.ask({
                "op": "remember", "space": f"v{number % SPACES}",
                "memories": [{"id": number, "embedding": f32(embedding(number, dim)), "content": str(number)}]
            })
            handover.send((number, reply.get("seq"), reply))
    handover.send(None)


def read(endpoints, handover, verdict, dim):
    """Takes ids as they come; puts the number of reads, or the first miss, into `verdict`."""
    die_with_parent()
    peers = [Peer(endpoint) for endpoint in endpoints]
    reads = 0
    while (given := handover.recv()) is not None:
        number, seq, written = given
        peer = peers[number % len(peers)]
        space = f"v{number % SPACES}"
        if number % 3 == 0:
            reply = peer.ask({"op": "get", "space": space, "ids": [number]})
            found = bool(reply["ok"]) and reply["memories"][0] is not None and reply["memories"][0]["version"] == seq
        elif number % 3 == 1:
            reply = peer.ask({"op": "recall", "space": space, "embedding": f32(embedding(number, dim)), "k": 1})
            found = bool(reply["ok"]) and [h["id"] for h in reply["hits"]] == [number]
        else:
            reply = peer.ask({"op": "count", "space": space, "filter": {"ids": [number]}})
            found = bool(reply["ok"]) and reply["count"] == 1
        if not (written["ok"] and found):
            verdict.send(f"memory {number}, acknowledged as {written}, was not found: {str(reply)[:500]}")
            return
        reads += 1
    verdict.send(reads)


class Visibility(ClusterCase):
    dim = 32
    settings = {"recall.workers": 2, "wal.segment_bytes": 1 << 20}

    def run_pair(self, tries):
        context = multiprocessing.get_context("spawn")
        taken, given = context.Pipe(duplex=False)
        outcome, verdict = context.Pipe(duplex=False)
        workers = [self.cluster.endpoint("recall", n) for n in (0, 1)]
        pair = [
            context.Process(target=write, args=(self.cluster.endpoint("write"), given, tries, self.dim)),
            context.Process(target=read, args=(workers, taken, verdict, self.dim))
        ]
        for process in pair:
            process.start()
        try:
            self.consolidate_until(lambda: outcome.poll(0.2) or not pair[1].is_alive())
            self.assertTrue(outcome.poll(1), "the reader died without a verdict")
            self.assertEqual(outcome.recv(), tries)
        finally:
            for process in pair:
                process.terminate()
                process.join()

    def consolidate_until(self, done):
        """Compaction in the background, so that hand-overs from tail to columns fall between write and read."""
        give_up = time.monotonic() + 3600
        while not done():
            self.assertLess(time.monotonic(), give_up)
            self.cluster.ok("consolidate", wait=True, timeout_s=120 * PATIENCE)

    def test_another_process_sees_each_acknowledged_memory(self):
        self.run_pair(scaled(2000))


class SameProcess(ClusterCase):
    settings = {"recall.workers": 2}

    def test_forgotten_means_gone(self):
        vector = f32(self.vector())
        for i in range(scaled(200)):
            self.ok("remember", memories=[{"id": 1, "embedding": vector, "content": str(i)}])
            self.assertEqual(self.ok("recall", embedding=vector, worker=i % 2)["hits"][0]["content"], str(i))
            self.ok("forget", ids=[1])
            self.assertEqual(self.ok("recall", embedding=vector, worker=i % 2)["hits"], [])

    def test_versions_never_go_back(self):
        """A reader that asks while one memory is replaced again and again sees its versions grow, and always one."""
        stop, trouble = threading.Event(), []

        def watch(worker):
            last = 0
            with Peer(self.cluster.endpoint("recall", worker)) as peer:
                while not stop.is_set():
                    found = peer.ask({"op": "get", "space": self.space, "ids": [1]})["memories"][0]
                    if found is None or found["version"] < last or found["content"] != str(found["meta"]["n"]):
                        trouble.append((last, found))
                        return
                    last = found["version"]

        self.remember({"id": 1, "content": "0", "meta": {"n": 0}})
        watchers = [threading.Thread(target=watch, args=(worker, )) for worker in (0, 1)]
        for watcher in watchers:
            watcher.start()
        try:
            for n in range(1, scaled(500)):
                self.remember({"id": 1, "content": str(n), "meta": {"n": n}})
                if n % 100 == 0:
                    self.cluster.ok("consolidate", wait=True)
        finally:
            stop.set()
            for watcher in watchers:
                watcher.join()
        self.assertEqual(trouble, [])


if __name__ == "__main__":
    unittest.main()
