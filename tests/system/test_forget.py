"""forget: by ids, by filter, all; delete, suppress and restore, purge that leaves no bytes."""

import time
import unittest
import uuid

from cluster import PATIENCE, ClusterCase, f32, files_below, scaled


class Forget(ClusterCase):
    settings = {"recall.workers": 2}

    def setUp(self):
        super().setUp()
        self.vectors = [self.vector() for _ in range(6)]
        self.stored = self.remember(
            *({"embedding": f32(v), "tags": ["even" if i % 2 else "odd"], "content": f"c{i}", "at": 1000 + i}
              for i, v in enumerate(self.vectors)))

    def assert_visible(self, *ids):
        """The same set in every kind of read, on both workers."""
        expected = sorted(ids)
        for worker in (0, 1):
            got = self.ok("get", ids=[1, 2, 3, 4, 5, 6], worker=worker)["memories"]
            self.assertEqual([m["id"] for m in got if m], expected, "get")
            self.assertEqual(sorted(self.ids_of(self.ok("list", worker=worker)["memories"])), expected, "list")
            hits = self.ok("recall", embedding=f32(self.vectors[0]), worker=worker)["hits"]
            self.assertEqual(sorted(self.ids_of(hits)), expected, "recall")
            self.assertEqual(self.ok("count", worker=worker)["count"], len(expected), "count")
            counts = {s["space"]: s["count"] for s in self.ok("spaces", worker=worker)["spaces"]}
            self.assertEqual(counts.get(self.space, 0), len(expected), "spaces")

    def forget(self, **fields):
        reply = self.ok("forget", **fields)
        self.assertIsInstance(reply["seq"], int)
        return reply["count"]

    def test_a_filter_without_a_condition_is_no_way_to_say_all(self):
        for filter in ({}, {"tags_all": []}, {"tags_none": []}, {"meta": []}):
            self.refused("bad_request", "forget", filter=filter)
        self.assert_visible(1, 2, 3, 4, 5, 6)

    def test_what_has_expired_does_not_count(self):
        self.remember({"id": 7, "expires": time.time_ns()}, {"id": 8, "expires": time.time_ns()})
        self.assertEqual(self.forget(ids=[1, 7]), 1)
        self.assertEqual(self.forget(ids=[2, 8], mode="suppress"), 1)

    def test_ids(self):
        self.assertEqual(self.forget(ids=[1, 3]), 2)
        self.assert_visible(2, 4, 5, 6)

    def test_delete_is_the_default(self):
        self.forget(ids=[1])
        self.assertEqual(self.forget(ids=[1], mode="restore"), 0)
        self.forget(ids=[2], mode="delete")
        self.assertEqual(self.forget(ids=[2], mode="restore"), 0)
        self.assert_visible(3, 4, 5, 6)

    def test_unknown_ids_count_nothing(self):
        self.assertEqual(self.forget(ids=[404, str(uuid.uuid4())]), 0)
        self.assertEqual(self.forget(ids=[404, 1]), 1)
        self.assertEqual(self.forget(ids=[1]), 0)
        self.assertEqual(self.forget(ids=[2], space=self.space + ".none"), 0)
        self.assert_visible(2, 3, 4, 5, 6)

    def test_an_id_named_twice_counts_once(self):
        self.assertEqual(self.forget(ids=[1, 1]), 1)

    def test_filter(self):
        self.assertEqual(self.forget(filter={"tags_any": ["odd"]}), 3)
        self.assert_visible(2, 4, 6)
        self.assertEqual(self.forget(filter={"tags_any": ["odd"]}), 0)

    def test_all_of_one_space(self):
        other = self.space + ".other"
        self.remember({"id": 1}, space=other)
        self.assertEqual(self.forget(all=True), 6)
        self.assert_visible()
        self.assertEqual(self.ids_of(self.get(1, space=other)), [1])

    def test_what_comes_later_stays(self):
        self.forget(all=True)
        new = self.remember({"content": "after"})["ids"]
        self.assertEqual(new, [7])
        self.assertEqual(self.ok("count")["count"], 1)

    def test_suppress_and_restore(self):
        self.assertEqual(self.forget(ids=[1, 2], mode="suppress"), 2)
        self.assert_visible(3, 4, 5, 6)
        self.assertEqual(self.forget(ids=[2], mode="restore"), 1)
        self.assert_visible(2, 3, 4, 5, 6)
        found = self.get(2, fields=["content", "tags", "at", "embedding"])[0]
        self.assertEqual((found["content"], found["tags"], found["at"], found["embedding"]),
                         ("c1", ["even"], 1001, f32(self.vectors[1])))
        self.assertGreater(found["version"], self.stored["seq"])

    def test_restore_all(self):
        self.forget(all=True, mode="suppress")
        self.assert_visible()
        self.assertEqual(self.forget(all=True, mode="restore"), 6)
        self.assert_visible(1, 2, 3, 4, 5, 6)

    def test_restore_of_what_is_visible_changes_nothing(self):
        self.assertEqual(self.forget(ids=[1], mode="restore"), 0)
        self.assertEqual(self.get(1)[0]["version"], self.stored["seq"])

    def test_suppressed_then_deleted_stays_gone(self):
        self.forget(ids=[1], mode="suppress")
        self.forget(ids=[1])
        self.assertEqual(self.forget(ids=[1], mode="restore"), 0)
        self.assert_visible(2, 3, 4, 5, 6)

    def test_suppressed_then_replaced(self):
        self.forget(ids=[1], mode="suppress")
        self.remember({"id": 1, "content": "replacement"})
        self.assertEqual(self.forget(ids=[1], mode="restore"), 0)
        self.assertEqual(self.get(1)[0]["content"], "replacement")

    def test_restore_after_consolidation(self):
        self.forget(ids=[1, 2], mode="suppress")
        self.cluster.ok("consolidate", wait=True)
        self.assert_visible(3, 4, 5, 6)
        self.assertEqual(self.forget(ids=[1, 2], mode="restore"), 2)
        self.assert_visible(1, 2, 3, 4, 5, 6)
        self.assertEqual(self.get(1, fields=["embedding"])[0]["embedding"], f32(self.vectors[0]))

    def test_history_still_sees_it(self):
        self.forget(ids=[1])
        then = self.get(1, as_of=self.stored["seq"])[0]
        self.assertEqual(then["content"], "c0")

    def test_if_version(self):
        newer = self.remember({"id": 1, "content": "newer"})["seq"]
        self.refused("version_mismatch", "forget", ids=[1], if_version=self.stored["seq"])
        self.assert_visible(1, 2, 3, 4, 5, 6)
        self.assertEqual(self.forget(ids=[1], if_version=newer), 1)
        self.assert_visible(2, 3, 4, 5, 6)

    def test_idem(self):
        request = {"ids": [1], "idem": self.space}
        first = self.ok("forget", **request)
        self.remember({"id": 1, "content": "again"})
        second = self.ok("forget", **request)
        self.assertEqual((first["seq"], first["count"]), (second["seq"], second["count"]))
        self.assertEqual(self.get(1)[0]["content"], "again")
        self.refused("bad_request", "forget", ids=[2], idem=self.space)

    def test_exactly_one_way_to_say_what(self):
        self.refused("bad_request", "forget")
        self.refused("bad_request", "forget", ids=[])
        self.refused("bad_request", "forget", ids=1)
        self.refused("bad_request", "forget", ids=[1], all=True)
        self.refused("bad_request", "forget", ids=[1], filter={"tags_any": ["odd"]})
        self.refused("bad_request", "forget", ids=[1], mode="erase")
        self.refused("bad_request", "forget", filter={"tag_any": ["odd"]})
        self.assert_visible(1, 2, 3, 4, 5, 6)

    def test_many_by_filter(self):
        count = scaled(3000)
        for start in range(0, count, 1000):
            self.remember(*({"tags": ["many"]} for _ in range(start, min(count, start + 1000))))
        self.assertEqual(self.forget(filter={"tags_any": ["many"]}), count)
        self.assert_visible(1, 2, 3, 4, 5, 6)


class Purge(ClusterCase):
    """The reply to a purge comes when no file holds the bytes; each test looks through every file of the data
    folder."""

    dim = 16
    settings = {"wal.segment_bytes": "1MiB"}  # less to look through

    def setUp(self):
        super().setUp()
        self.secrets = []
        self.kept = {"embedding": f32(self.vector()), "content": f"kept {uuid.uuid4().hex}"}
        self.remember({"id": 1, **self.kept})

    def secret(self, **fields):
        """A memory whose content, meta and vector are noted; as bytes that cannot stand anywhere by chance."""
        vector, content, note = self.vector(), f"secret {uuid.uuid4().hex}", uuid.uuid4().hex
        self.secrets += [f32(vector), content.encode(), note.encode()]
        return {"embedding": f32(vector), "content": content, "meta": {"note": note}, **fields}

    def places(self, needles):
        """(file, which needle) wherever one of the byte strings stands, in files that were all there at one time."""
        while True:
            try:
                files = self.files()
                found = [(str(path), i) for path in files
                         for data in [path.read_bytes()]
                         for i, needle in enumerate(needles) if needle in data]
                if self.files() == files:
                    return found
            except FileNotFoundError:
                pass  # the compactor tidied up meanwhile

    def files(self):
        return [path for path in files_below(self.cluster.dir) if not path.is_socket()]

    def purge(self, **fields):
        self.assertTrue(self.places(self.secrets), "the secrets must be found on disk before the purge")
        reply = self.ok("forget", mode="purge", **fields)
        self.assertEqual(self.places(self.secrets), [], "bytes left after a purge")
        receipt = reply["receipt"]
        self.assertEqual(receipt["seq"], reply["seq"])
        self.assertIn("ids", receipt)
        return reply

    def assert_kept(self):
        found = self.get(1, fields=["content", "embedding"])[0]
        self.assertEqual((found["content"], found["embedding"]), (self.kept["content"], self.kept["embedding"]))
        self.assertTrue(self.places([self.kept["embedding"]]))

    def test_from_the_log(self):
        self.remember(self.secret(id=2), self.secret(id=3))
        reply = self.purge(ids=[2, 3])
        self.assertEqual(reply["count"], 2)
        self.assertEqual(sorted(reply["receipt"]["ids"]), [2, 3])
        self.assertEqual(self.get(2, 3), [None, None])
        self.assert_kept()

    def test_from_columns(self):
        self.remember(self.secret(id=2), self.secret(id=3))
        self.cluster.ok("consolidate", wait=True)
        self.purge(ids=[2, 3])
        self.assert_kept()

    def test_all_versions(self):
        self.remember(self.secret(id=2))
        self.cluster.ok("consolidate", wait=True)
        self.remember(self.secret(id=2))
        note = uuid.uuid4().hex
        self.secrets.append(note.encode())
        self.ok("revise", id=2, set={"content": note})
        self.purge(ids=[2])
        self.assertEqual(self.get(2), [None])
        self.assert_kept()

    def test_what_was_deleted_before(self):
        self.remember(self.secret(id=2))
        self.ok("forget", ids=[2])
        self.purge(ids=[2])
        self.assert_kept()

    def test_what_was_suppressed_before(self):
        self.remember(self.secret(id=2))
        self.ok("forget", ids=[2], mode="suppress")
        self.purge(ids=[2])
        self.assertEqual(self.ok("forget", ids=[2], mode="restore")["count"], 0)
        self.assert_kept()

    def test_by_filter(self):
        self.remember(self.secret(id=2, tags=["private"]), self.secret(id=3, tags=["private"]))
        reply = self.purge(filter={"tags_any": ["private"]})
        self.assertEqual(reply["count"], 2)
        self.assertEqual(sorted(reply["receipt"]["ids"]), [2, 3])
        self.assert_kept()

    def test_that_matches_nothing_is_answered(self):
        for target in ({"filter": {"tags_any": ["nobody has it"]}}, {"all": True, "space": self.space + ".empty"}):
            reply = self.ok("forget", mode="purge", **target)
            self.assertEqual((reply["count"], reply["receipt"]["ids"]), (0, []))
        self.assert_kept()

    def test_again_with_its_key(self):
        """The files are gone with the writer that counted them; the purge is still known to be done."""
        self.remember(self.secret(id=2))
        key = uuid.uuid4().hex
        first = self.purge(ids=[2], idem=key)
        for restart in (False, True):
            if restart:
                self.cluster.restart()
            again = self.ok("forget", ids=[2], mode="purge", idem=key)
            self.assertEqual((again["seq"], again["count"], again["receipt"]["ids"]), (first["seq"], 1, [2]))
        self.assert_kept()

    def test_a_whole_space(self):
        space = self.space + ".all"
        self.remember(*(self.secret() for _ in range(50)), space=space)
        self.assertEqual(self.purge(all=True, space=space)["count"], 50)
        self.assertEqual(self.ok("count", space=space)["count"], 0)
        self.assert_kept()

    def test_a_whole_space_with_what_it_held_before(self):
        """all: true leaves nothing behind of what was deleted, superseded, suppressed, replaced or has expired."""
        for consolidate in (False, True):
            space = f"{self.space}.before{consolidate}"
            self.remember(*(self.secret(id=i) for i in range(1, 6)), self.secret(id=6, expires=time.time_ns()),
                          self.secret(id=7), space=space)
            if consolidate:
                self.cluster.ok("consolidate", wait=True)
            self.ok("forget", ids=[1], space=space)
            self.ok("forget", ids=[2], space=space, mode="suppress")
            self.remember(self.secret(id=3), self.secret(id=8, supersedes=[4]), space=space)
            reply = self.purge(all=True, space=space)
            self.assertEqual(reply["count"], 5, "what was visible or suppressed")
            by_compaction = {6} if consolidate else set()  # expired: its bytes went before the purge came
            self.assertEqual(set(reply["receipt"]["ids"]), set(range(1, 9)) - by_compaction)
        self.assert_kept()

    def test_history_does_not_hold_it(self):
        seq = self.remember(self.secret(id=2))["seq"]
        self.purge(ids=[2])
        then = self.cluster.call("get", space=self.space, ids=[2], as_of=seq)
        if then["ok"]:
            self.assertEqual(then["memories"], [None])
        else:
            self.assertEqual(then["code"], "unavailable")

    def test_it_stays_gone_over_a_restart(self):
        self.remember(self.secret(id=2))
        self.purge(ids=[2])
        self.cluster.restart()
        self.assertEqual(self.get(2), [None])
        self.assertEqual(self.places(self.secrets), [])
        self.assert_kept()

    def test_the_store_is_sound_afterwards(self):
        self.remember(*(self.secret(id=i) for i in range(2, 40)))
        self.cluster.ok("consolidate", wait=True)
        self.purge(ids=list(range(2, 40)) + [404])
        self.secrets = []
        self.assertEqual(self.cluster.ok("verify", timeout_s=120 * PATIENCE)["damaged"], [])
        self.assertEqual(self.ok("count")["count"], 1)

    def test_writes_go_on_meanwhile(self):
        self.remember(self.secret(id=2))
        self.purge(ids=[2])
        self.remember({"id": 2, "content": "a new life", "at": time.time_ns()})
        self.assertEqual(self.get(2)[0]["content"], "a new life")


if __name__ == "__main__":
    unittest.main()
