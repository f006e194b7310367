"""revise: a new version with the same embedding."""

import time
import unittest

from cluster import ClusterCase, f32

FIELDS = ["content", "meta", "tags", "confidence", "at", "expires", "embedding"]


class Revise(ClusterCase):
    def setUp(self):
        super().setUp()
        self.original = {
            "content": "old", "meta": {"a": 1}, "tags": ["t"], "confidence": 0.5, "at": 1000, "expires": 2**62
        }
        self.embedding = f32(self.vector())
        self.born = self.remember({"id": 1, "embedding": self.embedding, **self.original})["seq"]

    def read(self, **fields):
        return self.get(1, fields=FIELDS, **fields)[0]

    def test_each_field_alone(self):
        state = dict(self.original)
        for name, value in {
                "content": b"new", "meta": {"b": [2]}, "tags": ["u", "v"], "confidence": 0.75, "at": 5, "expires": 2**61
        }.items():
            seq = self.ok("revise", id=1, set={name: value})["seq"]
            state[name] = value
            found = self.read()
            self.assertEqual({k: found[k] for k in state}, state, f"after a change of {name}")
            self.assertEqual(found["version"], seq)
            self.assertEqual(found["embedding"], self.embedding)

    def test_the_new_state_is_what_filters_see(self):
        self.ok("revise", id=1, set={"tags": ["u"], "meta": {"a": 2}, "confidence": 0.9, "at": 2000})

        def count(**selection):
            return self.ok("count", **selection)["count"]

        self.assertEqual(count(filter={"tags_any": ["t"]}), 0)
        self.assertEqual(count(filter={"tags_any": ["u"]}), 1)
        self.assertEqual(count(filter={"meta": [{"key": "a", "eq": 2}]}), 1)
        self.assertEqual(count(min_confidence=0.9 - 1e-6), 1)
        self.assertEqual(count(after=2000), 1)
        self.assertEqual(count(before=2000), 0)

    def test_it_is_found_once(self):
        self.ok("revise", id=1, set={"content": "new"})
        hits = self.ok("recall", embedding=self.embedding, exact=True)["hits"]
        self.assertEqual([(h["id"], h["content"]) for h in hits], [(1, "new")])

    def test_the_old_version_stands_in_history(self):
        self.ok("revise", id=1, set={"content": "new"})
        then = self.read(as_of=self.born)
        self.assertEqual((then["content"], then["version"]), ("old", self.born))

    def test_if_version(self):
        second = self.ok("revise", id=1, set={"content": "second"}, if_version=self.born)["seq"]
        self.refused("version_mismatch", "revise", id=1, set={"content": "third"}, if_version=self.born)
        self.assertEqual((self.read()["content"], self.read()["version"]), ("second", second))

    def test_idem(self):
        request = {"id": 1, "set": {"content": "new"}, "idem": self.space}
        first = self.ok("revise", **request)["seq"]
        self.ok("revise", id=1, set={"content": "newer"})
        self.assertEqual(self.ok("revise", **request)["seq"], first)
        self.assertEqual(self.read()["content"], "newer")
        self.refused("bad_request", "revise", id=1, set={"content": "other"}, idem=self.space)

    def test_what_is_not_there(self):
        self.refused("not_found", "revise", id=404, set={"content": "x"})
        self.refused("not_found", "revise", id=1, set={"content": "x"}, space=self.space + ".none")
        self.ok("forget", ids=[1])
        self.refused("not_found", "revise", id=1, set={"content": "x"})

    def test_a_suppressed_memory_is_not_there(self):
        self.ok("forget", ids=[1], mode="suppress")
        self.refused("not_found", "revise", id=1, set={"content": "x"})

    def test_revised_expiry(self):
        self.ok("revise", id=1, set={"expires": time.time_ns() - 1})
        self.assertIsNone(self.read())

    def test_bad_changes(self):
        for code, change in (("bad_value", {"confidence": 1.5}), ("bad_request", {"confidence": "high"}),
                             ("bad_request", {"tags": "t"}), ("bad_request", {"tags": [1]}), ("bad_request",
                                                                                              {"meta": [1]}),
                             ("bad_request", {"at": 0.5}), ("too_large", {"content": "x" * (1 << 20) + "y"}),
                             ("too_large", {"tags": ["x" * 129]}), ("too_large", {"meta": {"m": "x" * 65537}})):
            self.refused(code, "revise", id=1, set=change)
        self.refused("bad_request", "revise", id=1)
        self.refused("bad_request", "revise", set={"content": "x"})
        self.refused("bad_request", "revise", id=1, set="content")
        self.assertEqual(self.read()["version"], self.born)

    def test_after_consolidation(self):
        self.cluster.ok("consolidate", wait=True)
        seq = self.ok("revise", id=1, set={"content": "new"})["seq"]
        self.cluster.ok("consolidate", wait=True)
        found = self.read()
        self.assertEqual((found["content"], found["version"], found["embedding"]), ("new", seq, self.embedding))
        self.assertEqual(self.ok("count")["count"], 1)


if __name__ == "__main__":
    unittest.main()
