"""remember: ids, atomic batches, upsert, compare-and-set, supersedes, idempotence, limits."""

import time
import unittest
import uuid

import msgpack
import numpy as np

from cluster import REPLY_S, ClusterCase, f32, poll_until

MIB = 1 << 20


class Ids(ClusterCase):
    def test_engine_counts_from_one_in_each_space(self):
        for space in (self.space + ".a", self.space + ".b"):
            self.assertEqual(self.remember({}, {}, {}, space=space)["ids"], [1, 2, 3])
            self.assertEqual(self.remember({}, space=space)["ids"], [4])

    def test_counter_skips_ids_that_clients_took(self):
        self.remember({"id": 2}, {"id": 4})
        self.assertEqual(self.remember({}, {}, {})["ids"], [1, 3, 5])

    def test_counter_skips_an_id_of_the_same_request(self):
        ids = self.remember({}, {"id": 1}, {})["ids"]
        self.assertEqual(ids[1], 1)
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual(len([m for m in self.get(*ids) if m]), 3)

    def test_a_large_client_id_does_not_move_the_counter(self):
        self.remember({"id": 2**63 - 1})
        self.assertEqual(self.remember({})["ids"], [1])

    def test_assigned_ids_are_never_reused(self):
        first = self.remember({}, {})["ids"]
        self.ok("forget", ids=first)
        self.assertEqual(self.remember({})["ids"], [3])

    def test_purged_ids_are_not_reused(self):
        first = self.remember({}, {})["ids"]
        self.ok("forget", ids=first, mode="purge")
        self.assertEqual(self.remember({})["ids"], [3])

    def test_bounds_of_integers(self):
        self.assertEqual(self.remember({"id": 0}, {"id": 2**63 - 1})["ids"], [0, 2**63 - 1])
        self.assertEqual(self.ids_of(self.get(0, 2**63 - 1)), [0, 2**63 - 1])
        for bad in (2**63, 2**64 - 1, -1, 1.0, True):
            self.refused("bad_request", "remember", memories=[{"id": bad, "embedding": f32(self.vector())}])

    def test_uuids(self):
        name = str(uuid.uuid4())
        self.assertEqual(self.remember({"id": name, "content": "named"})["ids"], [name])
        self.assertEqual(self.get(name)[0]["content"], "named")
        for bad in (name[:-1], name + "0", name.replace("-", "_"), name[:-1] + "g", ""):
            self.refused("bad_request", "remember", memories=[{"id": bad, "embedding": f32(self.vector())}])

    def test_a_uuid_in_upper_case_is_refused_or_the_same_id(self):
        name = str(uuid.uuid4())
        reply = self.cluster.call("remember",
                                  space=self.space,
                                  memories=[{"id": name.upper(), "embedding": f32(self.vector())}])
        if reply["ok"]:
            self.assertEqual(reply["ids"], [name])
            self.assertEqual(self.ids_of(self.get(name)), [name])
        else:
            self.assert_refusal(reply, "bad_request", "a UUID in upper case")

    def test_ids_are_unique_per_space(self):
        self.remember({"id": 7, "content": "here"})
        self.remember({"id": 7, "content": "there"}, space=self.space + ".other")
        self.assertEqual(self.get(7)[0]["content"], "here")
        self.assertEqual(self.get(7, space=self.space + ".other")[0]["content"], "there")

    def test_default_space(self):
        reply = self.cluster.ok("remember", memories=[{"embedding": f32(self.vector()), "content": self.space}])
        found = self.get(*reply["ids"], space="default")
        self.assertEqual(found[0]["content"], self.space)


class Batches(ClusterCase):
    def test_one_seq_for_all(self):
        reply = self.remember({}, {}, {})
        self.assertEqual(reply["versions"], [reply["seq"]] * 3)
        self.assertEqual([m["version"] for m in self.get(*reply["ids"])], reply["versions"])

    def test_seqs_grow(self):
        seqs = [self.remember({})["seq"] for _ in range(5)]
        self.assertEqual(seqs, sorted(set(seqs)))

    def test_one_bad_memory_refuses_all(self):
        self.refused("bad_dim",
                     "remember",
                     memories=[{"id": 1, "embedding": f32(self.vector())},
                               {"id": 2, "embedding": f32(self.vector(self.dim + 1))}])
        self.assertEqual(self.get(1, 2), [None, None])

    def test_one_failed_condition_refuses_all(self):
        self.remember({"id": 1, "content": "old"})
        embedding = f32(self.vector())
        self.refused("exists",
                     "remember",
                     memories=[{"id": 2, "embedding": embedding}, {"id": 1, "embedding": embedding, "if_absent": True}])
        self.assertIsNone(self.get(2)[0])
        self.assertEqual(self.get(1)[0]["content"], "old")

    def test_an_id_twice_in_one_request(self):
        self.refused("bad_request", "remember", memories=[{"id": 1, "embedding": f32(self.vector())}] * 2)
        self.assertIsNone(self.get(1)[0])

    def test_the_largest_batch(self):
        reply = self.remember(*[{}] * 4096)
        self.assertEqual(reply["ids"], list(range(1, 4097)))
        self.assertEqual(self.ok("count")["count"], 4096)

    def test_no_memory_at_all(self):
        self.refused("bad_request", "remember", memories=[])


class Replacement(ClusterCase):
    def test_upsert_is_a_new_version_of_everything(self):
        old = self.remember({"id": 1, "content": "old", "tags": ["t"], "meta": {"a": 1}, "confidence": 0.5})
        vector = self.vector()
        new = self.remember({"id": 1, "embedding": f32(vector)})
        self.assertGreater(new["seq"], old["seq"])
        found = self.get(1, fields=["content", "tags", "meta", "confidence", "embedding"])[0]
        self.assertEqual(found["version"], new["seq"])
        self.assertEqual(found["embedding"], f32(vector))
        self.assertFalse(found.get("content") or found.get("tags") or found.get("meta"))
        self.assertEqual(found["confidence"], 1.0)
        self.assertEqual(self.ok("count")["count"], 1)

    def test_if_absent(self):
        first = {"id": 1, "embedding": f32(self.vector()), "if_absent": True}
        self.ok("remember", memories=[first])
        self.refused("exists", "remember", memories=[first])

    def test_what_is_hidden_is_absent(self):
        past = time.time_ns() - 10**9
        self.remember({"id": 1}, {"id": 2}, {"id": 3}, {"id": 4, "expires": past})
        self.ok("forget", ids=[1])
        self.ok("forget", ids=[2], mode="suppress")
        self.remember({"id": 5, "supersedes": [3]})
        for id in (1, 2, 3, 4):
            self.remember({"id": id, "if_absent": True, "content": "again"})
            self.assertEqual(self.get(id)[0]["content"], "again")

    def test_if_absent_false_replaces(self):
        self.remember({"id": 1})
        self.remember({"id": 1, "if_absent": False, "content": "new"})
        self.assertEqual(self.get(1)[0]["content"], "new")

    def test_if_version(self):
        first = self.remember({"id": 1})["seq"]
        second = self.remember({"id": 1, "if_version": first, "content": "second"})["seq"]
        self.refused("version_mismatch",
                     "remember",
                     memories=[{"id": 1, "embedding": f32(self.vector()), "if_version": first}])
        found = self.get(1)[0]
        self.assertEqual((found["version"], found["content"]), (second, "second"))

    def test_if_version_of_nothing(self):
        self.refused(("version_mismatch", "not_found"),
                     "remember",
                     memories=[{"id": 1, "embedding": f32(self.vector()), "if_version": 1}])

    def test_supersedes_hides_in_the_same_change(self):
        old = self.remember({}, {}, {})
        new = self.remember({"supersedes": old["ids"][:2], "content": "sum"})
        self.assertEqual(self.get(*old["ids"])[:2], [None, None])
        self.assertEqual(self.ids_of(self.get(old["ids"][2])), [3])
        before = self.get(*old["ids"], as_of=new["seq"] - 1)
        self.assertEqual(self.ids_of(before), old["ids"])
        self.assertEqual(self.ok("count")["count"], 2)

    def test_the_counter_comes_to_a_superseded_number_that_nothing_has(self):
        first = self.remember({})["ids"][0]
        following = list(range(first + 1, first + 4))
        ids = self.remember({"supersedes": following, "content": "a"}, {"content": "b"})["ids"]
        self.assertEqual([m["content"] for m in self.get(*ids)], ["a", "b"])
        self.cluster.restart()
        self.assertEqual([m["content"] for m in self.get(*ids)], ["a", "b"])

    def test_superseded_is_deleted_not_suppressed(self):
        old = self.remember({})["ids"]
        self.remember({"supersedes": old})
        self.assertEqual(self.ok("forget", ids=old, mode="restore")["count"], 0)
        self.assertIsNone(self.get(*old)[0])

    def test_supersedes_of_unknown_ids_is_harmless(self):
        self.remember({"supersedes": [404, str(uuid.uuid4())], "content": "new"})
        self.assertEqual(self.ok("count")["count"], 1)

    def test_superseding_in_a_refused_batch_hides_nothing(self):
        old = self.remember({})["ids"]
        self.refused("bad_dim",
                     "remember",
                     memories=[{"embedding": f32(self.vector()), "supersedes": old}, {"embedding": b"\0\0\0\0"}])
        self.assertEqual(self.ids_of(self.get(*old)), old)


class Idempotence(ClusterCase):
    def test_the_same_key_answers_the_first_outcome(self):
        request = {"memories": [{"embedding": f32(self.vector())}], "idem": self.space}
        first = self.ok("remember", **request)
        again = self.ok("remember", **request)
        for field in ("ids", "seq", "versions"):
            self.assertEqual(first[field], again[field], field)
        self.assertEqual(self.ok("count")["count"], 1)

    def test_the_same_key_for_another_request(self):
        self.remember({"content": "one"}, idem=self.space)
        self.refused("bad_request",
                     "remember",
                     idem=self.space,
                     memories=[{"embedding": f32(self.vector()), "content": "two"}])
        self.refused("bad_request", "forget", idem=self.space, ids=[1])
        self.assertEqual(self.ok("count")["count"], 1)

    def test_keys_are_store_wide(self):
        vector = f32(self.vector())
        self.ok("remember", memories=[{"embedding": vector}], idem=self.space)
        self.refused("bad_request",
                     "remember",
                     memories=[{"embedding": vector}],
                     idem=self.space,
                     space=self.space + ".other")

    def test_failures_are_not_kept(self):
        memory = {"id": 1, "embedding": f32(self.vector()), "if_absent": True}
        self.remember({"id": 1})
        self.refused("exists", "remember", memories=[memory], idem=self.space)
        self.ok("forget", ids=[1])
        self.ok("remember", memories=[memory], idem=self.space)

    def test_a_retry_after_the_memory_was_replaced_writes_nothing(self):
        vector = f32(self.vector())
        first = self.ok("remember", memories=[{"id": 1, "embedding": vector, "content": "first"}], idem=self.space)
        self.remember({"id": 1, "content": "second"})
        again = self.ok("remember", memories=[{"id": 1, "embedding": vector, "content": "first"}], idem=self.space)
        self.assertEqual(again["seq"], first["seq"])
        self.assertEqual(self.get(1)[0]["content"], "second")

    def test_length_of_a_key(self):
        self.remember({}, idem=self.space.ljust(64, "x")[:64])
        self.refused(("bad_request", "too_large"),
                     "remember",
                     memories=[{"embedding": f32(self.vector())}],
                     idem="x" * 65)


class ShortIdempotence(ClusterCase):
    settings = {"write.idem_window": "1s"}

    def test_a_key_is_let_go_after_its_window(self):
        request = {"memories": [{"embedding": f32(self.vector())}], "idem": self.space}
        first = self.ok("remember", **request)["seq"]
        poll_until("the key is free again", lambda: self.ok("remember", **request)["seq"] != first, pause_s=0.1)


class Acknowledgement(ClusterCase):
    def test_accepted_answers_with_a_seq_and_becomes_visible(self):
        reply = self.remember({"content": "soon"}, ack="accepted")
        self.assertEqual(reply["versions"], [reply["seq"]])
        seen = self.ok("recall", embedding=f32(self.vector()), k=1, min_seq=reply["seq"], deadline_ms=int(1000 * REPLY_S))
        self.assertEqual(self.ids_of(seen["hits"]), reply["ids"])

    def test_durable_is_the_default_and_can_be_named(self):
        reply = self.remember({}, ack="durable")
        self.assertEqual(self.ids_of(self.get(*reply["ids"])), reply["ids"])

    def test_another_word(self):
        self.refused("bad_request", "remember", memories=[{"embedding": f32(self.vector())}], ack="maybe")


class Values(ClusterCase):
    def test_everything_comes_back_bit_for_bit(self):
        vector = self.vector()
        meta = {
            "int": -5, "big": 2**63, "float": 0.1, "one": 1.0, "yes": True, "no": False, "nil": None, "str": "ü\0x",
            "bin": b"\x00\xff", "list": [1, [2.5, "x", None]], "map": {"deep": {"er": 1}}, "": "empty key"
        }
        given = {
            "content": "naïve ☕ \0 text", "meta": meta, "tags": ["a", "ß", "a b"], "confidence": 0.25, "at": -1,
            "expires": 2**62
        }
        self.remember({"id": 1, "embedding": f32(vector), **given})
        found = self.get(1, fields=["content", "meta", "tags", "confidence", "at", "expires", "embedding"])[0]
        self.assertEqual(found["embedding"], f32(vector))
        for name, value in given.items():
            self.assertEqual(found[name], value, name)
        self.assertIs(type(found["meta"]["one"]), float)
        self.assertIs(type(found["meta"]["yes"]), bool)

    def test_binary_content_stays_binary(self):
        for id, content in enumerate((b"\x00\xff\xfe", "text", b"", ""), start=1):
            self.remember({"id": id, "content": content})
            found = self.get(id)[0].get("content")
            self.assertEqual(found or type(content)(), content)
        self.assertIs(type(self.get(1)[0]["content"]), bytes)

    def test_embedding_as_an_array_of_numbers(self):
        numbers = [1, -2.5, 0, 3, 0.5, 7, 1e-3, 2]
        self.remember({"id": 1, "embedding": numbers})
        self.assertEqual(self.get(1, fields=["embedding"])[0]["embedding"], f32(numbers))

    def test_odd_floats_survive(self):
        vector = np.array([1e-45, -0.0, 3.4028235e38 / 1e20, 1.1754944e-38, 1, -1, 0.1, 1e-30], "f4")
        self.remember({"id": 1, "embedding": f32(vector)})
        self.assertEqual(self.get(1, fields=["embedding"])[0]["embedding"], f32(vector))

    def test_at_defaults_to_now(self):
        start = time.time_ns()
        self.remember({"id": 1})
        self.assertTrue(start - 10**9 <= self.get(1)[0]["at"] <= time.time_ns() + 10**9)

    def test_expiry(self):
        now = time.time_ns()
        self.remember({"id": 1, "expires": now + 400_000_000}, {"id": 2, "expires": now - 1},
                      {"id": 3, "expires": now + 10**15})
        self.assertIsNone(self.get(2)[0])
        poll_until("the memory expires", lambda: self.get(1)[0] is None)
        self.assertGreaterEqual(time.time_ns(), now + 400_000_000)
        self.assertEqual(self.ids_of(self.ok("list")["memories"]), [3])
        self.assertEqual(self.ok("count")["count"], 1)
        hits = self.ok("recall", embedding=f32(self.vector()), exact=True)["hits"]
        self.assertEqual(self.ids_of(hits), [3])


class Limits(ClusterCase):
    def one(self, **fields):
        return [{"embedding": f32(self.vector()), **fields}]

    def test_what_just_fits(self):
        largest = {"content": "x" * MIB, "tags": ["t" * 127 + chr(97 + i % 26) for i in range(26)], "confidence": 0}
        self.remember({"id": 1, **largest}, {"id": 2, "content": b"\1" * MIB},
                      {"id": 3, "tags": [f"t{i}" for i in range(64)]})
        found = self.get(1, 2, 3)
        self.assertEqual(found[0]["content"], largest["content"])
        self.assertEqual(found[1]["content"], b"\1" * MIB)
        self.assertEqual(len(found[2]["tags"]), 64)

    def test_what_is_too_large(self):
        for fields in ({"content": "x" * (MIB + 1)}, {"content": b"x" * (MIB + 1)}, {"meta": {"m": "x" * 65536}},
                       {"tags": ["t" * 129]}, {"tags": [f"t{i}" for i in range(65)]}):
            self.refused("too_large", "remember", memories=self.one(**fields))
        self.refused("too_large", "remember", memories=self.one() * 4097)
        self.refused("too_large", "remember", memories=self.one(content="x" * MIB) * 17)
        self.assertEqual(self.ok("count")["count"], 0)

    def test_meta_just_below_its_limit(self):
        self.remember({"id": 1, "meta": {"m": "x" * 65000}})
        self.assertEqual(self.get(1)[0]["meta"], {"m": "x" * 65000})

    def test_meta_at_its_limit(self):
        """64 KiB are those of the request, whatever form the store gives them."""
        text = {"m": "x" * (65536 - 6)}
        empty = {"k": [{}] * (65536 - 6)}
        small = {f"{i:04d}": {"a": [1, -1, None]} for i in range(5000)}
        for id, meta in enumerate((text, empty, small), 1):
            self.assertLessEqual(len(msgpack.packb(meta)), 65536)
            self.remember({"id": id, "meta": meta})
        self.assertEqual([len(msgpack.packb(m)) for m in (text, empty)], [65536, 65536])
        for restarted in (False, True):
            self.assertEqual([m["meta"] for m in self.get(1, 2, 3)], [text, empty, small])
            if not restarted:
                self.ok("consolidate", wait=True)
                self.assertEqual([m["meta"] for m in self.get(1, 2, 3)], [text, empty, small])
                self.cluster.restart()
        self.assertEqual(self.ok("count", filter={"meta": [{"key": "4999.a", "eq": [1, -1, None]}]})["count"], 1)
        for meta in ({"m": "x" * (65536 - 5)}, {"k": [{}] * (65536 - 5)}):
            self.refused("too_large", "remember", memories=self.one(meta=meta))

    def test_a_refusal_names_the_memory(self):
        good, bad = f32(self.vector()), f32([float("nan")] * self.dim)
        for wrong in ({"embedding": bad}, {"embedding": good, "id": 1, "if_version": 7}, {"embedding": good[:-1]}):
            reply = self.refused(("bad_value", "version_mismatch", "bad_dim"), "remember",
                                 memories=[{"embedding": good}, {"embedding": good}, wrong])
            self.assertIn("memories[2]", reply["error"])

    def test_names_of_spaces(self):
        for name in ("s", "x" * 128, "ü" * 64, "a/b c\n\"'"):
            self.remember({"content": name}, space=name)
            self.assertEqual(self.get(1, space=name)[0]["content"], name)
        for name in ("", "x" * 129, 7, None, ["a"]):
            self.refused("bad_request", "remember", memories=self.one(), space=name)

    def test_confidence(self):
        self.remember({"id": 1, "confidence": 0}, {"id": 2, "confidence": 1})
        for bad in (-0.001, 1.001, 2, float("nan"), float("inf")):
            self.refused("bad_value", "remember", memories=self.one(confidence=bad))


if __name__ == "__main__":
    unittest.main()
