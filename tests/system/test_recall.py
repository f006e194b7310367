"""recall: three metrics against brute force, filters, ranking, context, history, batches, ties, bounds."""

import time
import unittest

import numpy as np

import model as truth
from cluster import ClusterCase, f32, scaled
from workload import FILTERS, TIME_0, Memories

DAY_NS = 86_400 * 10**9


class Against(ClusterCase):
    """Tests that hold the cluster against a model, filled through `fill`."""
    def setUp(self):
        super().setUp()
        self.model = truth.Model(self.dim, self.metric)
        self.memories = Memories(self.rng, self.dim)

    def memory(self, **fields):
        return self.memories.make(**fields)

    def store(self, *memories, space=None):
        """Remembers them on the server and in the model; returns the reply."""
        space = space or self.space
        reply = self.ok("remember", memories=list(memories), space=space)
        self.model.remember(space, memories, reply["ids"], reply["seq"])
        return reply

    def fill(self, count, space=None):
        for start in range(0, count, 500):
            self.store(*(self.memory() for _ in range(start, min(count, start + 500))), space=space)

    def check(self,
              query=None,
              k=10,
              space=None,
              fields=("content", "meta", "tags", "at", "confidence", "embedding"),
              **request):
        """One exact recall held against the model; returns its hits."""
        query = self.vector() if query is None else query
        space = self.space if space is None else space
        reply = self.ok("recall", space=space, embedding=f32(query), k=k, exact=True, fields=list(fields), **request)
        self.assertIs(reply["exact"], True)
        truth.compare_recall(self.model, reply["hits"], query, space, k, now=time.time_ns(), **request)
        return reply["hits"]


class EachMetric:
    """What holds under every metric; each class below names one."""
    def test_exact_is_the_true_top_k(self):
        self.fill(300)
        for k in (1, 10, 299, 300, 301, 1000):
            self.check(k=k)

    def test_exact_in_columns_and_half_and_half(self):
        self.fill(200)
        self.cluster.ok("consolidate", wait=True)
        self.check(k=50)
        self.fill(100)
        self.check(k=50)
        self.cluster.ok("consolidate", wait=True)
        self.check(k=50)

    def test_approximate_reaches_its_target(self):
        count, queries, k = scaled(4000), 100, 10
        self.fill(count)
        self.cluster.ok("consolidate", wait=True)
        found = 0
        for _ in range(queries):
            query = self.vector()
            exact = {h["id"] for h in self.check(query, k=k)}
            hits = self.ok("recall", embedding=f32(query), k=k, target=0.95)["hits"]
            self.assertEqual(len(hits), k, "recall never under-returns")
            found += len(exact & {h["id"] for h in hits})
        self.assertGreaterEqual(found / (queries * k), 0.93)

    def test_min_score(self):
        self.fill(100)
        query = self.vector()
        middle = self.check(query, k=100)[50]["score"]
        hits = self.check(query, k=100, min_score=middle + 1e-4)
        self.assertLess(len(hits), 60)

    def test_approximate_scores_are_true_scores(self):
        self.fill(500)
        self.cluster.ok("consolidate", wait=True)
        query = self.vector()
        scores = {h["id"]: h["score"] for h in self.check(query, k=500)}
        for hit in self.ok("recall", embedding=f32(query), k=20)["hits"]:
            self.assertAlmostEqual(hit["score"], scores[hit["id"]], delta=1e-4 * max(1, abs(hit["score"])))


class Cosine(EachMetric, Against):
    def test_length_does_not_matter(self):
        vector = self.vector()
        self.store(self.memory(embedding=f32(vector * 100)), self.memory(embedding=f32(-vector)))
        hits = self.check(vector)
        self.assertAlmostEqual(hits[0]["score"], 1.0, places=5)
        self.assertAlmostEqual(hits[1]["score"], -1.0, places=5)


class InnerProduct(EachMetric, Against):
    metric = "ip"

    def test_length_matters_and_zero_is_a_vector(self):
        vector = self.vector()
        self.store(self.memory(embedding=f32(vector)), self.memory(embedding=f32(vector * 2)),
                   self.memory(embedding=f32(vector * 0)))
        self.assertEqual(self.ids_of(self.check(vector)), [2, 1, 3])
        self.assertEqual({h["score"] for h in self.check(vector * 0)}, {0.0})


class Distance(EachMetric, Against):
    metric = "l2"

    def test_nearest_first(self):
        vector = self.vector()
        self.store(self.memory(embedding=f32(vector + 2)), self.memory(embedding=f32(vector)),
                   self.memory(embedding=f32(vector + 1)))
        hits = self.check(vector)
        self.assertEqual(self.ids_of(hits), [2, 3, 1])
        self.assertAlmostEqual(hits[1]["score"], -float(self.dim), places=4)


class WideVectors(Against):
    """The default dimension."""

    dim = 768

    def test_exact_and_approximate(self):
        self.fill(400)
        self.cluster.ok("consolidate", wait=True)
        self.fill(100)
        query = self.vector()
        self.check(query, k=20)
        self.assertEqual(len(self.ok("recall", embedding=f32(query), k=50)["hits"]), 50)


class OddDimension(Against):
    dim = 13

    def test_exact(self):
        self.fill(200)
        self.check(k=20)
        self.cluster.ok("consolidate", wait=True)
        self.check(k=20)


class Selection(Against):
    def assert_filters_hold(self):
        for filter in FILTERS:
            with self.subTest(filter=filter):
                self.check(k=1000, filter=filter)
                self.check(k=5, filter=filter)
                matching = len(self.model.select(self.space, filter=filter))
                for k in (5, 1000):
                    hits = self.ok("recall", embedding=f32(self.vector()), k=k, filter=filter)["hits"]
                    self.assertEqual(len(hits), min(k, matching), "an approximate recall under-returned")
                truth.compare_count(self.model, self.ok("count", filter=filter), self.space, filter=filter)

    def test_filters_in_the_tail(self):
        self.fill(200)
        self.assert_filters_hold()

    def test_filters_in_columns(self):
        self.fill(150)
        self.cluster.ok("consolidate", wait=True)
        self.fill(50)
        self.assert_filters_hold()

    def test_numbers_compare_by_value(self):
        big = 2**53
        values = [
            1, 1.0, 0.5, -1, big, big + 1,
            float(big), 2**63, 2**64 - 1, -2**63,
            float(2**63), 1e300,
            float("inf")
        ]
        self.store(*(self.memory(meta={"v": v}) for v in values))
        for operand in values:
            for test in ("eq", "ne", "gt", "gte", "lt", "lte"):
                filter = {"meta": [{"key": "v", test: operand}]}
                with self.subTest(filter=filter):
                    truth.compare_count(self.model, self.ok("count", filter=filter), self.space, filter=filter)

    def test_dotted_paths(self):
        self.store(self.memory(meta={"a": {"b": {"c": 1}}}), self.memory(meta={"a": {"b": 1}}),
                   self.memory(meta={"a": 1}), self.memory(meta={}), self.memory(meta={"b": {"c": 1}}))
        for key, expected in (("a", 3), ("a.b", 2), ("a.b.c", 1), ("a.b.c.d", 0)):
            count = self.ok("count", filter={"meta": [{"key": key, "exists": True}]})["count"]
            self.assertEqual(count, expected, key)
            absent = self.ok("count", filter={"meta": [{"key": key, "exists": False}]})["count"]
            self.assertEqual(absent, 5 - expected, key)

    def test_time_and_confidence(self):
        self.fill(60)
        times = sorted(v.at for v in self.model.visible(self.space))
        for selection in ({"after": times[20]}, {"before": times[20]}, {"after": times[10], "before": times[30]},
                          {"after": times[10],
                           "before": times[10]}, {"min_confidence": 0.5}, {"min_confidence": 0}, {"min_confidence": 1},
                          {"after": times[10], "min_confidence": 0.25, "filter": {"tags_any": ["alpha"]}}):
            with self.subTest(selection=selection):
                self.check(k=100, **selection)

    def test_one_match_in_many_is_found(self):
        self.fill(scaled(3000))
        needle = self.store(self.memory(tags=["needle"]))["ids"]
        self.cluster.ok("consolidate", wait=True)
        for _ in range(10):
            hits = self.ok("recall", embedding=f32(self.vector()), k=10, filter={"tags_any": ["needle"]})["hits"]
            self.assertEqual(self.ids_of(hits), needle)

    def test_unknown_keys_are_refused_where_they_would_change_an_answer(self):
        query = f32(self.vector())
        for filter in ({"tag": ["a"]}, {"meta": [{"key": "a",
                                                  "equals": 1}]}, {"meta": [{"eq": 1}]}, {"meta": [{"key": "a"}]},
                       {"meta": {"key": "a",
                                 "eq": 1}}, {"tags_any": "a"}, {"tags_any": [1]}, {"ids": 1}, {"ids": [-1]}, [], "x"):
            self.refused("bad_request", "recall", embedding=query, filter=filter)
        self.refused("bad_request", "recall", embedding=query, rank={"half_life": 1})
        self.ok("recall", embedding=query, unheard_of=1)


class Ranking(Against):
    def test_scores_and_parts(self):
        self.fill(150)
        now = TIME_0 + 150_000
        for rank in ({"half_life_s": 1e-4, "now": now}, {"half_life_s": 5e-5, "now": now,
                                                         "floor": 0.25}, {"confidence_weight": 1.0},
                     {"confidence_weight": 0.5, "half_life_s": 1e-4, "now": now,
                      "floor": 0.1}, {"now": now}, {"floor": 1.0}, {"half_life_s": 1e9,
                                                                    "now": now}, {"half_life_s": 1e-4, "now": TIME_0}):
            with self.subTest(rank=rank):
                for hit in self.check(k=20, rank=rank):
                    self.assertEqual(set(hit["parts"]), {"similarity", "confidence", "decay"})
                self.check(k=1000, rank=rank)

    def test_now_is_the_time_of_the_request(self):
        vector = f32(self.vector())
        now = time.time_ns()
        self.store(*(self.memory(embedding=vector, at=now - age * DAY_NS) for age in (2, 0, 1)))
        hits = self.ok("recall", embedding=vector, exact=True, rank={"half_life_s": 86_400})["hits"]
        self.assertEqual(self.ids_of(hits), [2, 3, 1])
        for hit, decay in zip(hits, (1, 0.5, 0.25)):
            self.assertAlmostEqual(hit["parts"]["decay"], decay, places=3)

    def test_the_future_does_not_count_more_than_now(self):
        vector = f32(self.vector())
        self.store(self.memory(embedding=vector, at=TIME_0 + 10**15))
        hit = self.check(np.frombuffer(vector, "f4"), rank={"half_life_s": 1, "now": TIME_0})[0]
        self.assertAlmostEqual(hit["parts"]["decay"], 1.0, places=6)

    def test_negative_similarity_is_clamped(self):
        vector = self.vector()
        self.store(self.memory(embedding=f32(-vector)))
        hit = self.check(vector, rank={"confidence_weight": 0.5})[0]
        self.assertEqual((hit["score"], hit["parts"]["similarity"]), (0.0, 0.0))

    def test_a_ranked_recall_finds_the_fresh_among_many(self):
        """A far better-ranked memory must not be lost because it is not among the most similar."""
        query = self.vector()
        stale = [
            self.memory(embedding=f32(query + 0.05 * self.vector()), at=TIME_0 - 10**6 * 10**9) for _ in range(400)
        ]
        self.store(*stale)
        fresh = self.store(self.memory(embedding=f32(query + self.vector()), at=TIME_0))["ids"][0]
        self.cluster.ok("consolidate", wait=True)
        rank = {"half_life_s": 1000, "now": TIME_0}
        self.assertEqual(self.check(query, k=1, rank=rank)[0]["id"], fresh)
        hits = self.ok("recall", embedding=f32(query), k=1, rank=rank)["hits"]
        self.assertEqual(self.ids_of(hits), [fresh])

    def test_without_rank_there_are_no_parts(self):
        self.fill(1)
        self.assertNotIn("parts", self.check()[0])

    def test_with_filter_and_min_score(self):
        self.fill(100)
        self.check(k=30, rank={"confidence_weight": 0.7}, filter={"tags_any": ["alpha"]}, min_score=0.1)

    def test_bounds(self):
        for rank in ({"confidence_weight": 1.5}, {"confidence_weight": -0.1}, {"floor": 2}, {"half_life_s": 0},
                     {"half_life_s": -1}, {"half_life_s": "x"}, [], 1):
            self.refused(("bad_request", "bad_value"), "recall", embedding=f32(self.vector()), rank=rank)


class Context(Against):
    def setUp(self):
        super().setUp()
        self.store(*(self.memory(id=i + 1, at=TIME_0 + i, tags=["odd"] if i % 2 else []) for i in range(20)))

    def recall(self, id, **fields):
        hits = self.ok("recall", like=id, k=1, filter={"ids": [10]}, exact=True, **fields)["hits"]
        self.assertEqual(self.ids_of(hits), [10])
        return hits[0]

    def test_neighbours_in_time_order(self):
        hit = self.recall(1, context=3)
        self.assertEqual(self.ids_of(hit["before"]), [7, 8, 9])
        self.assertEqual(self.ids_of(hit["after"]), [11, 12, 13])
        for row in hit["before"] + hit["after"]:
            truth.assert_memory(row, self.model.get(self.space, row["id"]))
            self.assertIn("content", row)

    def test_it_ends_with_the_space(self):
        self.remember({"id": 1, "at": TIME_0 + 9}, {"id": 2, "at": TIME_0 + 11}, space=self.space + ".other")
        hit = self.recall(1, context=100)
        self.assertEqual(self.ids_of(hit["before"]), list(range(1, 10)))
        self.assertEqual(self.ids_of(hit["after"]), list(range(11, 21)))

    def test_forgotten_neighbours_are_not_seen(self):
        self.ok("forget", ids=[9, 11])
        self.cluster.ok("consolidate", wait=True)
        hit = self.recall(1, context=1)
        self.assertEqual((self.ids_of(hit["before"]), self.ids_of(hit["after"])), ([8], [12]))

    def test_zero_or_none_asks_for_nothing(self):
        for fields in ({}, {"context": 0}):
            hit = self.recall(1, **fields)
            self.assertFalse(hit.get("before") or hit.get("after"))


class History(Against):
    def test_as_of_each_seq(self):
        vector = self.vector()
        seqs = [self.store(self.memory(id=1 + i % 3, embedding=f32(vector)))["seq"] for i in range(6)]
        forget = self.ok("forget", ids=[1])["seq"]
        self.model.forget(self.space, "delete", forget, ids=[1])
        for consolidated in (False, True):
            if consolidated:
                self.cluster.ok("consolidate", wait=True)
            for seq in [seqs[0] - 1, *seqs, forget]:
                with self.subTest(seq=seq, consolidated=consolidated):
                    self.check(vector, as_of=seq)

    def test_before_the_oldest(self):
        oldest = self.cluster.info()["oldest_seq"]
        if oldest > 0:
            self.refused("unavailable", "recall", embedding=f32(self.vector()), as_of=oldest - 1)
        self.ok("recall", embedding=f32(self.vector()), as_of=oldest)


class Like(Against):
    def test_the_memory_itself_is_left_out(self):
        self.fill(50)
        for stage in ("tail", "columns"):
            if stage == "columns":
                self.cluster.ok("consolidate", wait=True)
            me = self.model.get(self.space, 7)
            hits = self.ok("recall", like=7, k=10, exact=True)["hits"]
            truth.compare_recall(self.model, hits, me.embedding, self.space, 10, without=me)

    def test_of_nothing(self):
        self.refused("not_found", "recall", like=404)


class Batch(Against):
    def test_the_same_as_one_by_one(self):
        self.fill(100)
        queries = [self.vector() for _ in range(5)]
        request = {"k": 7, "exact": True, "filter": {"tags_any": ["alpha", "beta"]}}
        for embeddings in (b"".join(map(f32,
                                        queries)), [f32(q) for q in queries], [[float(x) for x in q] for q in queries]):
            reply = self.ok("recall", embeddings=embeddings, **request)
            self.assertEqual(len(reply["results"]), 5)
            for query, hits in zip(queries, reply["results"]):
                truth.compare_recall(self.model, hits, query, self.space, 7, filter=request["filter"])

    def test_ragged(self):
        whole = f32(self.vector())
        self.refused(("bad_request", "bad_dim"), "recall", embeddings=whole + whole[:-4])
        self.refused(("bad_request", "bad_dim"), "recall", embeddings=[whole, whole[:-4]])
        self.refused(("bad_request", "bad_dim"), "recall", embeddings=b"")
        self.refused(("bad_request", "bad_dim"), "recall", embeddings=[])


class Spaces(Against):
    def test_one_several_all(self):
        a, b, c = (f"{self.space}.{x}" for x in "abc")
        for name in (a, b, c):
            self.fill(30, space=name)
        self.check(space=a)
        for several in ([a, b], [a], [a, a, c], [a, self.space + ".none"], [self.space + ".none"]):
            hits = self.check(space=several, k=50)
            self.assertTrue(all("space" in h for h in hits) or len(several) == 1)
        self.check(space=self.space + ".none")
        hits = self.ok("recall", space=None, embedding=f32(self.vector()), k=1000, exact=True)["hits"]
        self.assertLessEqual({a, b, c}, {h["space"] for h in hits})

    def test_ties_between_spaces(self):
        vector = self.vector()
        for name in ("b", "a"):
            self.store(self.memory(id=1, embedding=f32(vector), at=TIME_0), space=f"{self.space}.{name}")
        hits = self.check(vector, space=[self.space + ".b", self.space + ".a"])
        self.assertEqual([h["space"][-1] for h in hits], ["a", "b"])


class Ties(Against):
    def test_later_then_id(self):
        vector = f32(self.vector())
        self.store(*(self.memory(id=i, embedding=vector, at=TIME_0 + (i % 3)) for i in (9, 2, 4, 7, 3, 8)))
        expected = [2, 8, 4, 7, 3, 9]
        for consolidated in (False, True):
            if consolidated:
                self.cluster.ok("consolidate", wait=True)
            for exact in ({"exact": True}, {}):
                hits = self.ok("recall", embedding=vector, k=10, **exact)["hits"]
                self.assertEqual(self.ids_of(hits), expected)
                self.assertEqual(self.ids_of(self.ok("recall", embedding=vector, k=3, **exact)["hits"]), expected[:3])


class Shape(Against):
    def test_reply(self):
        self.fill(5)
        reply = self.ok("recall", embedding=f32(self.vector()))
        for field in ("seq", "scanned", "us"):
            self.assertIsInstance(reply[field], int, field)
        self.assertIsInstance(reply["exact"], bool)
        self.assertEqual(set(reply["hits"][0]),
                         {"id", "score", "similarity", "version", "content", "meta", "tags", "at", "confidence"})

    def test_fields(self):
        self.store(self.memory(expires=2**62))
        for fields in ([], ["content"], ["embedding", "expires"], ["at", "tags", "meta"]):
            hit = self.ok("recall", embedding=f32(self.vector()), fields=fields)["hits"][0]
            self.assertEqual(set(hit), {"id", "score", "similarity", "version", *fields})

    def test_bounds_of_k(self):
        self.fill(3)
        query = f32(self.vector())
        for k in (1, 10_000):
            self.assertEqual(len(self.ok("recall", embedding=query, k=k)["hits"]), min(k, 3))
        for k in (0, -1, 10_001, "10", 1.5):
            self.refused("bad_request", "recall", embedding=query, k=k)

    def test_bad_queries(self):
        good = f32(self.vector())
        for code, request in (("bad_request", {}), ("bad_dim", {"embedding": good[:-4]}), ("bad_dim",
                                                                                           {"embedding": good + good}),
                              (("bad_dim", "bad_request"), {"embedding": good[:-1]
                                                            }), ("bad_value", {"embedding": f32([np.nan] * self.dim)}),
                              ("bad_value", {"embedding": f32([np.inf] * self.dim)
                                             }), ("bad_value", {"embedding": f32([0] * self.dim)}),
                              ("bad_request", {"embedding": "text"}), ("bad_request", {"embedding": good, "like": 1}),
                              ("bad_request", {"embedding": good,
                                               "exact": 1}), ("bad_request", {"embedding": good, "after": "x"}),
                              ("bad_request", {"embedding": good,
                                               "context": -1}), ("bad_request", {"embedding": good, "space": [""]})):
            self.refused(code, "recall", **request)
        for target in (-1, 2, "x"):
            self.refused(("bad_request", "bad_value"), "recall", embedding=good, target=target)


class FarAway(ClusterCase):
    """Scores are numbers: what could be farther than a float reaches is refused on the way in."""

    metric = "l2"

    def test_the_longest_embeddings(self):
        for sign, id in ((1, 1), (-1, 2)):
            self.remember({"id": id, "embedding": f32([sign * 2.0**60] * self.dim)})
        hits = self.ok("recall", embedding=f32([2.0**60] * self.dim), exact=True)["hits"]
        self.assertEqual(self.ids_of(hits), [1, 2])
        self.assertTrue(np.isfinite([h["score"] for h in hits]).all(), hits)

    def test_longer_ones_are_refused(self):
        beyond = f32([2.0**62] * self.dim)
        self.refused("bad_value", "remember", memories=[{"embedding": beyond}])
        self.refused("bad_value", "recall", embedding=beyond)
        self.refused("bad_value", "recall", embeddings=f32(self.vector()) + beyond)


class FarAwayToo(FarAway):
    metric = "ip"


class RankNeedsCosine(ClusterCase):
    metric = "ip"

    def test_rank_is_refused(self):
        self.refused("bad_request", "recall", embedding=f32(self.vector()), rank={"confidence_weight": 1})


class RankNeedsCosineToo(RankNeedsCosine):
    metric = "l2"


if __name__ == "__main__":
    unittest.main()
