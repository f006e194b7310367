"""Many client processes change the same memories at once; the acknowledgements, put in order of seq, must explain the
store.

One writer makes order: so the final state equals a replay of all acknowledged changes by seq, and each answer (ids,
counts) equals what the replay gives at that point.
"""

import multiprocessing
import unittest

import numpy as np

import model as truth
from cluster import PATIENCE, ClusterCase, Peer, die_with_parent, scaled
from workload import ALL_FIELDS, Memories

CLIENTS = 8
SHARED = list(range(10**6, 10**6 + 40))
SPACE = "shared"


def work(endpoints, number, count, dim, log):
    """One client: random changes and reads; sends its log of acknowledged changes at the end."""
    die_with_parent()
    rng = np.random.default_rng(number)
    memories = Memories(rng, dim)
    memories.serial = number * 10**6  # contents and times unlike those of the others
    acknowledged = []
    with Peer(endpoints["write"]) as write, Peer(endpoints["recall"][number % len(endpoints["recall"])]) as read:
        for _ in range(count):
            request = change(rng, memories)
            reply = write.ask({**request, "space": SPACE})
            if reply["ok"]:
                acknowledged.append((reply["seq"], request, reply))
            elif reply["code"] not in ("not_found", "exists", "busy"):
                log.send(f"{request['op']} was refused: {reply}")
                return
            seen = read.ask({"op": "get", "space": SPACE, "ids": SHARED[:3], "min_seq": reply.get("seq", 0)})
            if not seen["ok"]:
                log.send(f"get was refused: {seen}")
                return
    log.send(acknowledged)


def change(rng, memories):
    move, id = rng.random(), int(rng.choice(SHARED))
    if move < 0.4:
        ids = list(dict.fromkeys(int(i) for i in rng.choice(SHARED, 3)))
        return {"op": "remember", "memories": [memories.make(id=i) for i in ids] + [memories.make()]}
    if move < 0.5:
        return {"op": "remember", "memories": [memories.make(id=id, if_absent=True)]}
    if move < 0.6:
        return {"op": "remember", "memories": [memories.make(supersedes=[id])]}
    if move < 0.8:
        return {"op": "revise", "id": id, "set": {"content": f"revised {memories.serial} {rng.integers(10**9)}"}}
    return {"op": "forget", "ids": [id], "mode": str(rng.choice(["delete", "suppress", "restore"]))}


def changes_nothing(row):
    """A forget that met nothing takes no seq of its own: it answers with the one it looked at, and stands behind it."""
    seq, request, reply = row
    return request["op"] == "forget" and reply["count"] == 0


class Concurrent(ClusterCase):
    settings = {"recall.workers": 2, "wal.segment_bytes": "1MiB", "compact.interval": "50ms", "compact.min_rows": 64}

    def run_clients(self, count):
        """The acknowledged changes of all clients, in order of seq."""
        context = multiprocessing.get_context("spawn")
        endpoints = self.cluster.info()["endpoints"]
        clients, logs = [], []
        for number in range(CLIENTS):
            here, there = context.Pipe(duplex=False)
            clients.append(context.Process(target=work, args=(endpoints, number, count, self.dim, there)))
            logs.append(here)
            clients[-1].start()
            there.close()
        try:
            merged = []
            for log in logs:
                self.assertTrue(log.poll(240 * PATIENCE), "a client hangs")
                outcome = log.recv()
                self.assertIsInstance(outcome, list, outcome)
                merged += outcome
        finally:
            for client in clients:
                client.terminate()
                client.join()
        return sorted(merged, key=lambda row: (row[0], changes_nothing(row)))

    def replay(self, changes):
        model = truth.Model(self.dim, self.metric)
        for seq, request, reply in changes:
            if request["op"] == "remember":
                self.foresee_conditions(model, request, reply)
                model.remember(SPACE, request["memories"], reply["ids"], seq)
            elif request["op"] == "revise":
                self.assertIsNotNone(model.get(SPACE, request["id"]),
                                     f"revise of an absent memory was acknowledged: {reply}")
                model.revise(SPACE, request["id"], request["set"], seq)
            else:
                expected = model.forget(SPACE, request["mode"], seq, ids=request["ids"])
                self.assertEqual(reply["count"], expected, f"{request} at seq {seq}")
        return model

    def foresee_conditions(self, model, request, reply):
        for memory, id in zip(request["memories"], reply["ids"]):
            if "id" not in memory:
                self.assertFalse(model.holds(SPACE, id), "an assigned id was in use")
            elif memory.get("if_absent"):
                self.assertIsNone(model.get(SPACE, id), f"if_absent was acknowledged for a visible memory: {reply}")

    def test_the_log_of_acknowledgements_explains_the_store(self):
        changes = self.run_clients(scaled(150))
        writing = [row[0] for row in changes if not changes_nothing(row)]
        self.assertEqual(len(set(writing)), len(writing), "one seq was given to two changes")
        model = self.replay(changes)
        ids = list(model.spaces[SPACE])
        for worker in (0, 1):
            reply = self.ok("get", worker=worker, space=SPACE, ids=ids, fields=ALL_FIELDS)
            truth.compare_get(model, reply, SPACE, ids)
            truth.compare_count(model, self.ok("count", worker=worker, space=SPACE), SPACE)
            rows = truth.list_all(self.ok, worker=worker, space=SPACE, limit=300, fields=ALL_FIELDS)
            truth.compare_list(model, rows, SPACE)


if __name__ == "__main__":
    unittest.main()
