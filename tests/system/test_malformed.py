"""Bytes that are no request: each is answered or dropped, and no process dies, restarts or grows for it."""

import random
import unittest

import msgpack
import zmq

from cluster import SLOW, ClusterCase, Peer, f32, resident_kib, scaled, unpack

SOCKETS = ("control", "write", "recall", "stats")
OPS = {
    "control": ("info", "ping", "consolidate", "snapshot", "verify", "reload"),
    "write": ("remember", "revise", "forget"), "recall": ("recall", "get", "list", "count", "spaces"),
    "stats": ("stats", )
}
WRONG = [
    None, True, -1, 2**64 - 1, 1.5,
    float("nan"), "text", "", b"bin", [], [[]], {}, {"a": {"b": []}},
    msgpack.ExtType(5, b"x"), "x" * 5000
]


def bodies():
    """Frames that are not a request, each with a name."""
    sound = msgpack.packb({"op": "ping"})
    yield "empty", b""
    yield "never used byte", b"\xc1"
    yield "a number", b"\x01"
    yield "a string", msgpack.packb("ping")
    yield "an array", msgpack.packb(["op", "ping"])
    yield "nil", b"\xc0"
    yield "an empty map", b"\x80"
    yield "a map without op", msgpack.packb({"rid": 1})
    yield "op is no string", msgpack.packb({"op": 7})
    yield "op is empty", msgpack.packb({"op": ""})
    yield "keys are no strings", msgpack.packb({1: "ping", "op": 2})
    yield "two bodies", sound + sound
    yield "a byte behind", sound + b"\0"
    for cut in range(1, len(sound)):
        yield f"cut at {cut}", sound[:cut]
    for name, head in (("map32", b"\xdf"), ("array32", b"\xdd"), ("str32", b"\xdb"), ("bin32", b"\xc6"), ("ext32",
                                                                                                          b"\xc9")):
        yield f"{name} of 2^32-1", head + b"\xff\xff\xff\xff"
        yield f"{name} of 2^31", head + b"\x80\0\0\0" + b"\0" * 16
        yield f"rid is {name} of 2^32-1", b"\x82\xa2op\xa4ping\xa3rid" + head + b"\xff\xff\xff\xff"
    for name, one in (("arrays", b"\x91"), ("maps", b"\x81\xa1a")):
        yield f"5,000 nested {name}", one * 5000 + b"\xc0"
        yield f"rid of 5,000 nested {name}", b"\x82\xa2op\xa4ping\xa3rid" + one * 5000 + b"\xc0"
    yield "invalid UTF-8 as op", b"\x81\xa2op\xa4\xff\xfe\xfd\xfc"
    yield "a NUL in op", msgpack.packb({"op": "ping\0"})
    yield "a very long op", msgpack.packb({"op": "p" * 100_000})


class Malformed(ClusterCase):
    def setUp(self):
        super().setUp()
        self.before = self.cluster.identities()
        self.random = random.Random(self._testMethodName)

    def tearDown(self):
        self.assertEqual(self.cluster.identities(), self.before, f"a process died\n{self.cluster.log_tail()}")
        reply = self.remember({"content": "still here"}, space="alive")
        self.assertEqual(self.get(reply["ids"][0], space="alive")[0]["content"], "still here")

    def answer(self, peer, frame, what):
        peer.send_frames([frame])
        frames = peer.receive_frames()
        self.assertIsNotNone(frames, f"no reply to {what}")
        return unpack(frames[-1])

    def test_each_body_on_each_socket(self):
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for name, body in bodies():
                    if name.startswith("rid of 5,000") or name == "empty":
                        continue  # below: these may be answered in more than one way
                    with self.subTest(socket=socket, body=name):
                        self.assert_refusal(self.answer(peer, body, name), ("bad_request", "bad_op"), name)

    def test_a_lone_empty_frame(self):
        """It could be a delimiter without a body: bad_request or silence, and the next request is answered."""
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                peer.send_frames([b""])
                peer.send_frames([msgpack.packb({"op": "no such", "rid": "next"})])
                replies = [unpack(peer.receive_frames()[-1])]
                if replies[0].get("rid") != "next":
                    self.assert_refusal(replies[0], "bad_request", "an empty frame")
                    replies.append(unpack(peer.receive_frames()[-1]))
                self.assertEqual(replies[-1]["rid"], "next")

    def test_several_frames(self):
        """One answer in one wording on every socket, and the next request is answered."""
        answers = set()
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                peer.send_frames([b"", msgpack.packb({"op": "ping"}), b"more"])
                refusal = unpack(peer.receive_frames()[-1])
                self.assert_refusal(refusal, "bad_request", f"several frames on {socket}")
                answers.add(refusal["error"])
                peer.send_frames([msgpack.packb({"op": "no such", "rid": "next"})])
                self.assertEqual(unpack(peer.receive_frames()[-1])["rid"], "next")
        self.assertEqual(len(answers), 1, answers)

    def test_a_rid_nested_without_end(self):
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for name, body in bodies():
                    if name.startswith("rid of 5,000"):
                        peer.send_frames([body])
                        self.assertIsNotNone(peer.receive_frames(), f"{name} got no reply on {socket}")

    def sound_request(self, op):
        vector = f32(self.vector())
        return {
            "op": op, **{
                "remember": {
                    "space": self.space, "idem": "k", "ack": "durable", "memories": [{
                        "id": 1, "embedding": vector, "content": "c", "meta": {"a": 1}, "tags": ["t"],
                        "confidence": 0.5, "at": 1, "expires": 2**62, "if_absent": False, "supersedes": [9]
                    }]
                },
                "revise": {"space": self.space, "id": 1, "set": {"content": "c"}, "if_version": 1, "idem": "k"},
                "forget": {"space": self.space, "ids": [404], "mode": "delete", "if_version": 1, "idem": "k"},
                "recall": {
                    "space": self.space, "embedding": vector, "k": 3, "filter": {"tags_any": ["t"]}, "after": 0,
                    "before": 9, "min_confidence": 0.1, "min_score": 0.1, "target": 0.9, "rank": {"floor": 0.1},
                    "context": 1, "as_of": 1, "min_seq": 0, "fields": ["content"]
                },
                "get": {"space": self.space, "ids": [1], "fields": ["content"], "as_of": 1},
                "list": {
                    "space": self.space, "filter": {}, "after": 0, "before": 9, "order": "newest", "limit": 5,
                    "fields": []
                },
                "count": {"space": self.space, "filter": {}, "after": 0, "before": 9, "min_confidence": 0.5},
                "snapshot": {"path": "/no/such/place"},
                "stats": {"format": "map"},
                "consolidate": {"wait": False},
            }.get(op, {}), "deadline_ms": 1000
        }

    def test_each_field_with_each_wrong_type(self):
        """Every answer is a reply in due form; a refusal names a code for the client's fault."""
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for op in OPS[socket]:
                    for request in self.mutations(self.sound_request(op)):
                        reply = self.answer(peer, msgpack.packb(request, use_bin_type=True), str(request)[:200])
                        if not reply["ok"]:
                            self.assertIn(reply["code"],
                                          ("bad_request", "bad_value", "bad_dim", "bad_op", "not_found", "too_large",
                                           "version_mismatch", "exists", "unavailable", "deadline"),
                                          f"{str(request)[:200]}: {reply}")

    def mutations(self, request):
        """Copies of a request with one value, at any depth, replaced by something of the wrong type."""
        for path in self.paths(request):
            for wrong in WRONG:
                yield self.replaced(request, path, wrong)

    def paths(self, value, above=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            if (*above, key) != ("op", ):
                yield (*above, key)
                yield from self.paths(inner, (*above, key))

    def replaced(self, value, path, new):
        if not path:
            return new
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = self.replaced(copy[path[0]], path[1:], new)
        return copy

    def test_certainly_wrong_types_are_bad_request(self):
        for op, field in (("remember", "memories"), ("remember", "space"), ("forget", "ids"), ("revise", "set"),
                          ("recall", "k"), ("recall", "embedding"), ("recall", "filter"), ("recall", "fields"),
                          ("get", "ids"), ("list", "order"), ("count", "filter"), ("recall", "rank")):
            for wrong in (True, "\0", {"x": 1}, [{}], 1.5):
                if (field, wrong) == ("space", "\0"):
                    continue  # a string is what it should be
                request = {**self.sound_request(op), field: wrong}
                reply = self.answer(self.cluster.peer(op), msgpack.packb(request), f"{op} {field}")
                self.assert_refusal(reply, "bad_request", f"{op} with {field} = {wrong!r}")

    def test_random_bytes(self):
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for _ in range(scaled(300)):
                    self.answer(peer, self.random.randbytes(self.random.randrange(1, 200)), "random bytes")

    def test_damaged_requests(self):
        """Sound requests with a few bytes changed, cut out or doubled."""
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for _ in range(scaled(300)):
                    op = self.random.choice([op for op in OPS[socket] if op not in ("verify", "reload")])
                    body = bytearray(msgpack.packb(self.sound_request(op), use_bin_type=True))
                    for _ in range(self.random.randrange(1, 4)):
                        self.damage(body)
                    if body:
                        self.answer(peer, bytes(body), f"damaged {op}")

    def damage(self, body):
        if not body:
            return
        place = self.random.randrange(len(body))
        kind = self.random.randrange(3)
        if kind == 0:
            body[place] = self.random.randrange(256)
        elif kind == 1:
            del body[place:place + self.random.randrange(1, 9)]
        else:
            body[place:place] = body[place:place + self.random.randrange(1, 9)]

    @unittest.skipIf(SLOW, "a sanitizer's quarantine grows by design")
    def test_no_memory_is_lost(self):
        def pids():
            return {row["role"]: row["pid"] for row in self.cluster.info()["roles"]}

        def batter(rounds):
            for socket in SOCKETS:
                with Peer(self.cluster.endpoint(socket), kind=zmq.DEALER) as peer:
                    for _ in range(rounds):
                        for name, body in bodies():
                            if name != "empty":
                                self.answer(peer, body, name)

        self.cluster.ok("consolidate", wait=True)  # what the other tests asked for is over
        batter(10)
        before = {role: resident_kib(pid) for role, pid in pids().items()}
        batter(scaled(40))
        for role, pid in pids().items():
            growth = resident_kib(pid) - before[role]
            self.assertLess(growth, 2048, f"{role} grew by {growth} KiB")


if __name__ == "__main__":
    unittest.main()
