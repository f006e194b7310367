"""Each error code of the protocol, reached on a real cluster.

`unknown`, `corrupt` and `internal` need a disk that fails or a program that does; the fault tests reach those.
"""

import unittest

from cluster import Cluster, ClusterCase, Peer, f32, poll_until

RETRY = {
    "bad_request": False, "bad_op": False, "bad_dim": False, "bad_value": False, "not_found": False, "exists": False,
    "version_mismatch": False, "too_large": False, "busy": True, "read_only": True, "unknown": True,
    "unavailable": True, "deadline": True, "unauthorized": False, "corrupt": False, "internal": False
}
NAN, INF = float("nan"), float("inf")


class Refusals(ClusterCase):
    def table(self):
        """(code, op, fields) for everything that a client can get wrong; memory 1 exists."""
        good = f32(self.vector())

        def remember(**memory):
            return "remember", {"memories": [{"embedding": good, **memory}]}

        return [
            ("bad_op", "no such", {}),
            ("bad_op", "REMEMBER", {}),
            ("bad_request", "remember", {}),
            ("bad_request", "remember", {"memories": []}),
            ("bad_request", "remember", {"memories": {}}),
            ("bad_request", "remember", {"memories": [7]}),
            ("bad_request", "remember", {"memories": [{}]}),
            ("bad_request", *remember(contents="a typo")),
            ("bad_request", *remember(embedding="text")),
            ("bad_request", *remember(embedding=None)),
            ("bad_request", *remember(id="not a uuid")),
            ("bad_request", *remember(id=2**63)),
            ("bad_request", *remember(id=-1)),
            ("bad_request", *remember(content=7)),
            ("bad_request", *remember(meta=[])),
            ("bad_request", *remember(meta={1: 2})),
            ("bad_request", *remember(tags="t")),
            ("bad_request", *remember(tags=[1])),
            ("bad_request", *remember(at="now")),
            ("bad_request", *remember(at=0.5)),
            ("bad_request", *remember(at=2**63)),
            ("bad_request", *remember(expires="never")),
            ("bad_request", *remember(confidence="high")),
            ("bad_request", *remember(supersedes=1)),
            ("bad_request", *remember(supersedes=["x"])),
            ("bad_request", *remember(if_version=-1)),
            ("bad_request", *remember(if_absent="yes")),
            ("bad_request", "remember", {"memories": [{"embedding": good}], "idem": 7}),
            ("bad_request", "remember", {"memories": [{"embedding": good}], "deadline_ms": -1}),
            ("bad_request", "revise", {"id": 1}),
            ("bad_request", "revise", {"set": {}}),
            ("bad_request", "forget", {}),
            ("bad_request", "get", {}),
            ("bad_request", "recall", {}),
            ("bad_request", "recall", {"embedding": good, "k": 0}),
            ("bad_dim", *remember(embedding=good + good)),
            ("bad_dim", *remember(embedding=good[:-4])),
            ("bad_dim", *remember(embedding=[1.0] * (self.dim + 1))),
            ("bad_dim", "recall", {"embedding": good[:-4]}),
            ("bad_value", *remember(embedding=f32([NAN] * self.dim))),
            ("bad_value", *remember(embedding=f32([INF] * self.dim))),
            ("bad_value", *remember(embedding=[1e300] * self.dim)),
            ("bad_value", *remember(embedding=f32([0] * self.dim))),
            ("bad_value", *remember(confidence=1.5)),
            ("bad_value", *remember(confidence=-0.5)),
            ("bad_value", *remember(confidence=NAN)),
            ("bad_value", "recall", {"embedding": f32([0] * self.dim)}),
            ("bad_value", "recall", {"embedding": f32([NAN] * self.dim)}),
            ("not_found", "revise", {"id": 404, "set": {"content": "x"}}),
            ("not_found", "recall", {"like": 404}),
            ("exists", *remember(id=1, if_absent=True)),
            ("version_mismatch", *remember(id=1, if_version=10**9)),
            ("version_mismatch", "revise", {"id": 1, "set": {"content": "x"}, "if_version": 10**9}),
            ("version_mismatch", "forget", {"ids": [1], "if_version": 10**9}),
            ("too_large", *remember(content="x" * (1 << 20) + "y")),
            ("too_large", *remember(tags=["x" * 129])),
            ("too_large", *remember(meta={"m": "x" * (1 << 16)})),
            ("too_large", "remember", {"memories": [{"embedding": good}] * 4097}),
            ("deadline", "recall", {"embedding": good, "min_seq": 2**40, "deadline_ms": 50}),
        ]

    def test_table(self):
        self.remember({"id": 1})
        for code, op, fields in self.table():
            with self.subTest(code=code, op=op):
                reply = self.refused(code, op, **fields)
                self.assertEqual(reply["retry"], RETRY[code])
        self.assertEqual(self.ok("count")["count"], 1, "a refused request wrote something")

    def test_zero_vectors_are_fine_where_length_has_no_meaning(self):
        for metric in ("ip", "l2"):
            cluster = Cluster(metric=metric)
            self.addCleanup(cluster.finish)
            cluster.start()
            cluster.ok("remember", memories=[{"id": 1, "embedding": f32([0] * 8)}])
            self.assertEqual(cluster.ok("recall", embedding=f32([0] * 8))["hits"][0]["score"], 0.0)


class Busy(ClusterCase):
    settings = {"write.queue_max": 16}

    def test_a_full_queue_answers_busy(self):
        def flood():
            with Peer(self.cluster.endpoint("write"), receive_limit=0) as peer:
                for rid in range(900):
                    peer.send({
                        "op": "remember", "rid": rid, "space": self.space,
                        "memories": [{"embedding": f32(self.vector())}]
                    })
                return [peer.receive() for _ in range(900)]

        replies = []

        def refused():
            replies.extend(flood())
            return [r for r in replies if not r["ok"]]

        for reply in poll_until("a write is refused", refused):
            self.assert_refusal(reply, "busy", "flood")
            self.assertIs(reply["retry"], True)
        self.assertEqual(self.ok("count")["count"], len([r for r in replies if r["ok"]]))


class ReadOnly(unittest.TestCase):
    def test_a_disk_that_is_full(self):
        """Told by the reserve: with more asked than the disk has, it counts as full."""
        cluster = Cluster()
        self.addCleanup(cluster.finish)
        cluster.start()
        cluster.ok("remember", memories=[{"id": 1, "embedding": f32([1] * 8)}])
        cluster.check_stop(cluster.terminate())
        cluster.settings["disk.reserve"] = "1048576GiB"
        cluster.start(wait=False)
        cluster.await_state("ready", "degraded")
        cluster.note_instance()
        reply = cluster.call("remember", memories=[{"id": 2, "embedding": f32([1] * 8)}])
        self.assertEqual((reply["ok"], reply["code"], reply["retry"]), (False, "read_only", True), reply)
        self.assertEqual([h["id"] for h in cluster.ok("recall", embedding=f32([1] * 8))["hits"]], [1])


class Unavailable(unittest.TestCase):
    def test_history_that_is_gone(self):
        cluster = Cluster(settings={"history.window": "0"})
        self.addCleanup(cluster.finish)
        cluster.start()
        first = cluster.ok("remember", memories=[{"id": 1, "embedding": f32([1] * 8)}])["seq"]

        def let_go():
            cluster.ok("remember", memories=[{"id": 1, "embedding": f32([1] * 8)}])
            cluster.ok("consolidate", wait=True)
            return cluster.info()["oldest_seq"] > first

        poll_until("compaction lets history go", let_go)
        for op, fields in (("get", {"ids": [1]}), ("recall", {"embedding": f32([1] * 8)})):
            reply = cluster.call(op, as_of=first, **fields)
            self.assertEqual((reply["ok"], reply["code"]), (False, "unavailable"), reply)


if __name__ == "__main__":
    unittest.main()
