"""get, list, count, spaces: what they return, order, cursors that hold while writes go on."""

import unittest
import uuid

import msgpack

from cluster import ClusterCase, f32
from model import id_order, list_all

TIME_0 = 10**18


class Get(ClusterCase):
    def test_order_and_absence(self):
        self.remember({"id": 5}, {"id": 1})
        self.assertEqual([m and m["id"] for m in self.get(1, 404, 5, 1)], [1, None, 5, 1])
        self.assertEqual(self.get(1, space=self.space + ".none"), [None])

    def test_fields(self):
        self.remember({"id": 1, "content": "c", "meta": {"a": 1}, "tags": ["t"], "at": 5})
        self.assertEqual(set(self.get(1)[0]), {"id", "version", "content", "meta", "tags", "at", "confidence"})
        for fields in ([], ["content"], ["embedding", "at"], ["expires"]):
            found = set(self.get(1, fields=fields)[0])
            self.assertLessEqual({"id", "version", *(f for f in fields if f != "expires")}, found)
            self.assertLessEqual(found, {"id", "version", *fields})

    def test_as_of(self):
        first = self.remember({"id": 1, "content": "first"})["seq"]
        second = self.remember({"id": 1, "content": "second"})["seq"]
        third = self.ok("forget", ids=[1])["seq"]
        seen = [self.get(1, as_of=seq)[0] for seq in (first - 1, first, second - 1, second, third - 1, third)]
        self.assertEqual([m and m["content"] for m in seen], [None, "first", "first", "second", "second", None])

    def test_bad_requests(self):
        for fields in ({}, {"ids": []}, {"ids": 1}, {"ids": [None]}, {"ids": [1], "fields": "content"},
                       {"ids": [1], "as_of": "x"}, {"ids": [1], "space": ["a"]}):
            self.refused("bad_request", "get", **fields)

    def test_a_reply_that_would_be_too_large(self):
        for id in range(1, 19):
            self.remember({"id": id, "content": b"x" * (1 << 20)})
        self.refused("too_large", "get", ids=list(range(1, 19)))
        self.assertEqual(len(self.get(*range(1, 15))), 14)


class List(ClusterCase):
    def fill(self, count, at=lambda i: TIME_0 + i):
        self.remember(*({"id": i + 1, "at": at(i), "content": f"c{i}", "tags": ["even" if i % 2 == 0 else "odd"]}
                        for i in range(count)))

    def everything(self, **request):
        return self.ids_of(list_all(self.ok, **request))

    def test_orders(self):
        self.fill(25)
        upwards = list(range(1, 26))
        for limit in (1, 7, 25, 100):
            self.assertEqual(self.everything(limit=limit, order="oldest"), upwards)
            self.assertEqual(self.everything(limit=limit, order="newest"), upwards[::-1])
        self.assertEqual(self.everything(), upwards[::-1])

    def test_order_is_by_time_not_by_arrival(self):
        self.fill(10, at=lambda i: TIME_0 + (i * 7) % 10)
        times = [m["at"] for m in self.ok("list", order="oldest")["memories"]]
        self.assertEqual(times, [TIME_0 + i for i in range(10)])

    def test_one_time_for_all(self):
        self.fill(50, at=lambda i: TIME_0)
        for order in ("newest", "oldest"):
            found = self.everything(limit=7, order=order)
            self.assertEqual(sorted(found), list(range(1, 51)))
            self.assertEqual(len(found), 50)

    def test_times_before_the_epoch(self):
        self.remember({"id": 1, "at": -2**62}, {"id": 2, "at": 0}, {"id": 3, "at": 2**62})
        self.assertEqual(self.everything(order="oldest", limit=1), [1, 2, 3])
        self.assertEqual(self.everything(after=-1, order="oldest"), [2, 3])
        self.assertEqual(self.everything(before=0), [1])

    def test_after_is_inclusive_before_is_not(self):
        self.fill(10)
        self.assertEqual(self.everything(after=TIME_0 + 3, before=TIME_0 + 7, order="oldest"), [4, 5, 6, 7])

    def test_filter(self):
        self.fill(10)
        self.assertEqual(self.everything(filter={"tags_any": ["even"]}, limit=2, order="oldest"), [1, 3, 5, 7, 9])

    def test_the_last_page_has_no_cursor(self):
        self.fill(3)
        self.assertIsNone(self.ok("list", limit=4).get("cursor"))
        self.assertEqual(len(self.everything(limit=3)), 3)
        self.assertEqual(self.everything(space=self.space + ".none"), [])

    def test_a_cursor_holds_while_writes_go_on(self):
        """Memories there throughout come exactly once; those that come or go meanwhile may be seen or not, never
        twice."""
        self.fill(60)
        seen, cursor, next_id = [], None, 1000
        while True:
            page = self.ok("list", limit=5, order="oldest", **({} if cursor is None else {"cursor": cursor}))
            seen += self.ids_of(page["memories"])
            cursor = page.get("cursor")
            if cursor is None:
                break
            self.remember({"id": next_id, "at": TIME_0 - 1}, {"id": next_id + 1, "at": TIME_0 + 30})
            self.ok("forget", ids=[60 - len(seen) // 5])
            if next_id % 10 == 0:
                self.cluster.ok("consolidate", wait=True)
            next_id += 2
        throughout = set(self.everything()) & set(range(1, 61))
        self.assertLess(len(throughout), 60)
        self.assertEqual(len(seen), len(set(seen)), "repeated")
        self.assertLessEqual(throughout, set(seen), "skipped")

    def test_a_cursor_survives_the_memory_it_stands_on(self):
        self.fill(10)
        page = self.ok("list", limit=4, order="oldest")
        self.ok("forget", ids=[4, 5])
        rest = self.ok("list", limit=100, order="oldest", cursor=page["cursor"])
        self.assertEqual(self.ids_of(page["memories"] + rest["memories"]), [1, 2, 3, 4, 6, 7, 8, 9, 10])

    def test_a_cursor_survives_a_restart(self):
        self.fill(10)
        page = self.ok("list", limit=4, order="oldest")
        self.cluster.restart()
        rest = self.ok("list", order="oldest", cursor=page["cursor"])
        self.assertEqual(self.ids_of(rest["memories"]), [5, 6, 7, 8, 9, 10])

    def test_a_cursor_is_opaque_but_checked(self):
        for cursor in ("", "nonsense", b"\0" * 5, 7, "A" * 10_000):
            self.refused("bad_request", "list", cursor=cursor)

    def test_bounds_of_limit(self):
        self.fill(3)
        self.assertEqual(len(self.ok("list", limit=10_000)["memories"]), 3)
        for limit in (0, -1, 10_001, "10", 1.5):
            self.refused("bad_request", "list", limit=limit)
        self.refused("bad_request", "list", order="sideways")

    def test_fields_and_shape(self):
        self.fill(1)
        self.assertEqual(
            set(self.ok("list")["memories"][0]) | {"meta"},
            {"id", "version", "content", "meta", "tags", "at", "confidence"})
        row = self.ok("list", fields=["embedding"])["memories"][0]
        self.assertEqual(len(row["embedding"]), 4 * self.dim)
        self.assertNotIn("content", row)

    def test_a_page_too_large(self):
        for id in range(1, 19):
            self.remember({"id": id, "content": b"x" * (1 << 20), "at": id})
        self.refused("too_large", "list", limit=18)
        self.assertEqual(self.everything(limit=8, order="oldest"), list(range(1, 19)))


class Count(ClusterCase):
    def test_selection(self):
        self.remember(*({"id": i, "at": TIME_0 + i, "confidence": i / 10, "tags": ["t"] if i < 4 else []}
                        for i in range(1, 11)))
        for expected, selection in ((10, {}), (3, {"filter": {"tags_any": ["t"]}}), (4, {"after": TIME_0 + 7}),
                                    (6, {"before": TIME_0 + 7}), (6, {"min_confidence": 0.5}),
                                    (2, {"filter": {"tags_all": ["t"]}, "after": TIME_0 + 2,
                                         "min_confidence": 0.1}), (0, {"after": TIME_0 + 7, "before": TIME_0 + 7})):
            reply = self.ok("count", **selection)
            self.assertEqual(reply["count"], expected, selection)
            self.assertIsInstance(reply["seq"], int)

    def test_replaced_and_forgotten(self):
        self.remember({"id": 1}, {"id": 2})
        self.remember({"id": 1})
        self.assertEqual(self.ok("count")["count"], 2)
        self.ok("forget", ids=[1])
        self.assertEqual(self.ok("count")["count"], 1)


class Spaces(ClusterCase):
    def names(self):
        return {s["space"]: s["count"] for s in self.ok("spaces")["spaces"] if s["space"].startswith(self.space)}

    def test_counts_what_is_visible(self):
        self.remember({}, {}, space=self.space + ".a")
        self.remember({}, space=self.space + ".b")
        self.assertEqual(self.names(), {self.space + ".a": 2, self.space + ".b": 1})
        self.ok("forget", space=self.space + ".b", all=True)
        self.assertEqual(self.names(), {self.space + ".a": 2})

    def test_several_and_all(self):
        a, b, c = (f"{self.space}.{x}" for x in "abc")
        for at, name in enumerate((a, b, c)):
            self.remember({"at": TIME_0 + at}, space=name)
        self.assertEqual(self.ok("count", space=[a, b])["count"], 2)
        self.assertEqual(self.ok("count", space=[a, a, b])["count"], 2, "a space named twice is one space")
        self.assertEqual(self.ok("count", space=[a, self.space + ".none"])["count"], 1)
        self.assertGreaterEqual(self.ok("count", space=None)["count"], 3)
        rows = list_all(self.ok, space=[c, a, b], order="oldest", limit=2)
        self.assertEqual([(m["space"], m["id"]) for m in rows], [(a, 1), (b, 1), (c, 1)])
        every = list_all(self.ok, space=None, limit=50)
        self.assertLessEqual({a, b, c}, {m["space"] for m in every})
        self.assertEqual(len({(m["space"], id_order(m["id"])) for m in every}), len(every))

    def test_bad_spaces(self):
        for op in ("count", "list"):
            for space in ("", 7, [""], [7], {"a": 1}, "x" * 129):
                self.refused("bad_request", op, space=space)

    def test_many_small_spaces(self):
        names = [f"{self.space}.{i}" for i in range(500)]
        peer = self.cluster.peer("remember")
        for rid, name in enumerate(names):
            peer.send({
                "op": "remember", "rid": rid, "space": name,
                "memories": [{"embedding": f32(self.vector()), "content": name}]
            })
        self.assertTrue(all(peer.receive()["ok"] for _ in names))
        self.assertEqual(self.names(), dict.fromkeys(names, 1))
        for name in names[::50]:
            hits = self.ok("recall", space=name, embedding=f32(self.vector()), k=3)["hits"]
            self.assertEqual([h["content"] for h in hits], [name])


class Uuids(ClusterCase):
    def test_they_live_beside_integers(self):
        named = sorted(str(uuid.uuid4()) for _ in range(3))
        self.remember(*({"id": id, "embedding": f32([1] * self.dim), "at": TIME_0}
                        for id in [named[2], 2, named[0], 1, named[1]]))
        hits = self.ok("recall", embedding=f32([1] * self.dim), exact=True)["hits"]
        self.assertEqual(self.ids_of(hits), [1, 2, *named], "ties: integers first, then UUIDs in order")
        self.assertEqual(self.ids_of(self.get(*named)), named)
        self.assertEqual(self.ok("count", filter={"ids": [named[0], 2]})["count"], 2)
        self.assertEqual(self.ok("forget", ids=[named[1]])["count"], 1)
        self.assertEqual(self.get(named[1]), [None])


class Deadlines(ClusterCase):
    def test_min_seq_waits_no_longer_than_the_deadline(self):
        future = self.remember({})["seq"] + 10**6
        self.refused("deadline", "recall", embedding=f32(self.vector()), min_seq=future, deadline_ms=100)

    def test_min_seq_of_the_past_costs_nothing(self):
        seq = self.remember({})["seq"]
        reply = self.ok("recall", embedding=f32(self.vector()), min_seq=seq)
        self.assertGreaterEqual(reply["seq"], seq)

    def test_min_seq_is_met_when_the_write_comes(self):
        seq = self.remember({})["seq"]
        peer = self.cluster.peer("recall")
        request = {
            "op": "recall", "space": self.space, "embedding": f32(self.vector()), "min_seq": seq + 1,
            "deadline_ms": 15_000
        }
        peer.send_frames([msgpack.packb(request)])
        self.assertIsNone(peer.receive_frames(0.1), "answered before the write was there")
        later = self.remember({"content": "later"})
        reply = peer.receive()
        self.assertTrue(reply["ok"], reply)
        self.assertIn(later["ids"][0], self.ids_of(reply["hits"]))


if __name__ == "__main__":
    unittest.main()
