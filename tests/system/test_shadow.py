"""Shadows: recalls that are answered again, exactly, off the fast lane; what they found is a statistic."""

import unittest

from cluster import PATIENCE, ClusterCase, f32, poll_until, scaled

ROWS, QUERIES = scaled(6000), 40


class Shadowed(ClusterCase):
    """Each class below has a cluster of its own: the statistics are the cluster's."""
    dim = 32
    settings = {"recall.shadow_every": 1}

    def stats(self):
        return self.cluster.ok("stats")["stats"]

    def fill(self, rows):
        """Random directions: neighbours are spread over many clusters, so that a low target does miss some."""
        vectors = self.rng.standard_normal((rows, self.dim)).astype("<f4")
        for start in range(0, rows, 1000):
            self.remember(*({"id": start + i + 1, "embedding": f32(v)} for i, v in enumerate(vectors[start:start + 1000])))

    def ids(self, query, **how):
        reply = self.ok("recall", embedding=f32(query), fields=[], **how)
        return [hit["id"] for hit in reply["hits"]]

    def shadowed(self):
        return self.stats()["recall_shadowed"]

    def ask(self, query, **how):
        """One recall, and its shadow: a shadow that finds the slow lane at work is dropped, so each has its turn, and is
        over when one behind it is answered."""
        before = self.shadowed()
        ids = self.ids(query, **how)
        poll_until("the recall is shadowed", lambda: self.shadowed() > before, 60 * PATIENCE)
        self.ok("count")
        return ids


class Right(Shadowed):
    def test_exact_answers_are_all_right(self):
        """A recall with a target of 1 is exact: every shadow agrees, whatever the request."""
        self.fill(200)
        query = self.vector()
        for how in ({}, {"k": 1}, {"k": 250}, {"min_score": 0.2}, {"filter": {"ids": [1, 5, 9]}},
                    {"rank": {"half_life_s": 60.0}}):
            self.ask(query, target=1.0, **how)
        reply = self.ok("recall", like=7, target=1.0, fields=[])
        self.assertNotIn(7, [hit["id"] for hit in reply["hits"]])
        poll_until("a recall by example is shadowed", lambda: self.shadowed() == 7, 60 * PATIENCE)
        stats = self.stats()
        self.assertEqual(stats["recall_shadow_missed"], 0)
        observed = stats["recall_observed"]
        self.assertEqual((observed["count"], observed["sum"]), (7, 7000))
        info = self.cluster.info()
        self.assertEqual(info["observed"], {"recalls": 7, "recall": 1.0})


class Left(Shadowed):
    def test_what_is_not_shadowed(self):
        self.fill(50)
        seq = self.cluster.info()["visible_seq"]
        for how in ({"exact": True}, {"as_of": seq}, {"k": 5000}):
            self.ids(self.vector(), **how)
        self.ok("recall", embeddings=[self.vector().tolist()] * 3, fields=[])
        self.refused("bad_dim", "recall", embedding=[1.0])
        self.ask(self.vector())
        self.assertEqual(self.shadowed(), 1)


class Missed(Shadowed):
    def test_what_was_missed_is_seen(self):
        """The statistic says what the client finds out by itself."""
        self.fill(ROWS)
        self.cluster.ok("consolidate", wait=True)
        poll_until("all rows have codes", lambda: self.stats()["ivf_rows"] == ROWS, 60 * PATIENCE)
        found = 0
        before = self.stats()
        for _ in range(QUERIES):
            query = self.vector()
            guess = self.ask(query, target=0.3)
            found += len(set(guess) & set(self.ids(query, exact=True)))
        after = self.stats()
        missed = after["recall_shadow_missed"] - before["recall_shadow_missed"]
        self.assertEqual(missed, 10 * QUERIES - found)
        self.assertGreater(missed, 0, "a target of 0.3 finds everything: this test shows nothing")
        total = after["recall_observed"]["sum"] - before["recall_observed"]["sum"]
        self.assertEqual(total, found * 100)
        self.assertLess(self.cluster.info()["observed"]["recall"], 1)


class Seldom(ClusterCase):
    settings = {"recall.shadow_every": 5}

    def test_one_in_five(self):
        self.remember({})
        shadowed = lambda: self.cluster.ok("stats")["stats"]["recall_shadowed"]
        for turn in range(3):
            for _ in range(4):
                self.ok("recall", embedding=f32(self.vector()))
            self.ok("count")  # whatever the slow lane had to do before is done
            self.assertEqual(shadowed(), turn)
            self.ok("recall", embedding=f32(self.vector()))
            poll_until("the fifth is shadowed", lambda: shadowed() == turn + 1, 60 * PATIENCE)


class Never(ClusterCase):
    settings = {"recall.shadow_every": 0}

    def test_none(self):
        self.remember({})
        for _ in range(20):
            self.ok("recall", embedding=f32(self.vector()))
        self.ok("count")  # whatever the slow lane had to do before is done
        self.assertEqual(self.cluster.ok("stats")["stats"]["recall_shadowed"], 0)
        self.assertEqual(self.cluster.info()["observed"], {"recalls": 0})


if __name__ == "__main__":
    unittest.main()
