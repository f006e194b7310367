"""The transport: forms of envelope, rid, junk frames, clients that vanish or never read, frames too large, order."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import unittest

import msgpack
import numpy as np
import zmq

from cluster import PATIENCE, REPLY_S, ClusterCase, Peer, f32, poll_until, resident_kib, scaled, unpack

SOCKETS = {"control": "ping", "write": "remember", "recall": "spaces", "stats": "stats"}
RIDS = [0, -1, 2**64 - 1, 1.5, "text", "", b"\0\xff", None, True, [1, [2]], {"a": {"b": 1}}, {1: 2}, "x" * 1000]


class Envelope(ClusterCase):
    def request(self, socket, **fields):
        extra = {"memories": [{"embedding": f32(self.vector())}], "space": self.space} if socket == "write" else {}
        return {"op": SOCKETS[socket], **extra, **fields}

    def test_each_form_on_each_socket(self):
        for socket in SOCKETS:
            for kind, delimiter in ((zmq.REQ, False), (zmq.DEALER, False), (zmq.DEALER, True)):
                with self.subTest(socket=socket, kind=kind, delimiter=delimiter), \
                        Peer(self.cluster.endpoint(socket), kind, delimiter) as peer:
                    for rid in (1, 2):
                        reply = peer.ask(self.request(socket, rid=rid))
                        self.assertTrue(reply["ok"], reply)
                        self.assertEqual(reply["rid"], rid)

    def test_refusals_keep_the_form(self):
        for socket in SOCKETS:
            for delimiter in (False, True):
                with Peer(self.cluster.endpoint(socket), delimiter=delimiter) as peer:
                    self.assertEqual(peer.ask({"op": "no such", "rid": 5})["code"], "bad_op")
                    peer.send_frames(peer.head + [b"\xc1"])
                    self.assertEqual(peer.receive()["code"], "bad_request")

    def test_rid_of_any_type_is_echoed(self):
        for socket in SOCKETS:
            with Peer(self.cluster.endpoint(socket)) as peer:
                for rid in RIDS:
                    for op in (SOCKETS[socket], "no such"):
                        reply = peer.ask(self.request(socket, rid=rid) | {"op": op})
                        self.assertIn("rid", reply)
                        self.assertEqual(reply["rid"], rid)
                        self.assertIs(type(reply["rid"]), type(rid))

    def test_a_req_socket_that_numbers_its_requests(self):
        """ZMQ_REQ_CORRELATE puts a frame before the empty one, and takes no reply without it."""
        for socket in SOCKETS:
            with zmq.Context() as context, context.socket(zmq.REQ) as req:
                req.setsockopt(zmq.REQ_CORRELATE, 1)
                req.setsockopt(zmq.REQ_RELAXED, 1)
                req.linger = 0
                req.connect(self.cluster.endpoint(socket))
                for rid in (1, 2):
                    req.send(msgpack.packb(self.request(socket, rid=rid)))
                    self.assertTrue(req.poll(int(1000 * REPLY_S)), socket)
                    self.assertEqual(unpack(req.recv())["rid"], rid)

    def test_without_rid(self):
        with Peer(self.cluster.endpoint("control")) as peer:
            self.assertIsNone(peer.ask({"op": "ping"}).get("rid"))

    def test_rid_of_a_bad_request_is_echoed_where_it_can_be_read(self):
        reply = self.cluster.call("recall", rid="mine", k="ten")
        self.assertEqual((reply["ok"], reply["rid"]), (False, "mine"))

    def test_frames_too_many(self):
        body = msgpack.packb({"op": "ping"})
        for frames in ([body, body], [b"", body, body], [b"", b"",
                                                         body], [b"x", body], [body, b""], [b""] * 50, [b"x"] * 200):
            with Peer(self.cluster.endpoint("control")) as peer:
                peer.send_frames(frames)
                peer.send({"op": "ping", "rid": "next"})
                replies = [unpack(peer.receive_frames()[-1])]
                if replies[0].get("rid") != "next":
                    self.assert_refusal(replies[0], "bad_request", f"{len(frames)} frames")
                    replies.append(unpack(peer.receive_frames()[-1]))
                self.assertEqual(replies[-1]["rid"], "next")

    def test_keys_in_any_order_and_unknown_ones(self):
        with Peer(self.cluster.endpoint("control")) as peer:
            self.assertTrue(peer.ask({"unknown": {"deep": [1]}, "rid": 1, "op": "ping", "another": b"\0"})["ok"])

    def test_an_operation_of_another_socket(self):
        for socket, op in (("control", "recall"), ("write", "get"), ("recall", "remember"), ("stats", "info")):
            with Peer(self.cluster.endpoint(socket)) as peer:
                self.assert_refusal(peer.ask({"op": op, "ids": [1]}), "bad_op", f"{op} on {socket}")

    def test_pipelined_requests_are_all_answered(self):
        """With fewer in flight than the high-water mark, every request gets its one reply."""
        count, in_flight = scaled(2000), 500
        replies = []
        with Peer(self.cluster.endpoint("write"), receive_limit=0) as peer:
            for rid in range(count):
                peer.send(self.request("write", rid=rid))
                if rid >= in_flight:
                    replies.append(peer.receive())
            replies += [peer.receive() for _ in range(count - len(replies))]
        self.assertEqual(sorted(r["rid"] for r in replies), list(range(count)))
        seqs = [r["seq"] for r in replies if r["ok"]]
        self.assertEqual(seqs, sorted(set(seqs)), "writes of one client are taken in order")
        self.assertEqual(self.ok("count")["count"], len(seqs))

    def test_deadline_in_the_past_is_answered_and_nothing_happens(self):
        with Peer(self.cluster.endpoint("write"), receive_limit=0) as peer:
            for rid in range(500):
                peer.send(self.request("write", rid=rid, deadline_ms=0))
            replies = [peer.receive() for _ in range(500)]
        refused = [r for r in replies if not r["ok"]]
        for reply in refused:
            self.assertIn(reply["code"], ("deadline", "busy"))
        self.assertEqual(self.ok("count")["count"], len(replies) - len(refused))


class Mutes(ClusterCase):
    def test_large_replies_that_nobody_reads_are_counted_in_bytes(self):
        """However many messages recall.high_water allows."""
        ids = list(range(1, 13))
        for i in ids:
            self.remember({"id": i, "content": "x" * (1 << 20)})
        pid = self.cluster.role("recall")["pid"]
        body = msgpack.packb({"op": "get", "space": self.space, "ids": ids})
        with contextlib.ExitStack() as stack:
            mutes = [
                stack.enter_context(Peer(self.cluster.endpoint("recall"), receive_limit=1)) for _ in range(3)
            ]
            for mute in mutes:
                mute.socket.rcvbuf = 4096
                for _ in range(60):  # 12 MiB each: 2 GiB in all
                    mute.send_frames([body])
            for _ in range(5):
                self.assertEqual(len(self.get(1)[0]["content"]), 1 << 20)
                self.assertLess(resident_kib(pid), 1_300_000)
            lost = lambda: self.ok("stats")["stats"]["recall_lost_replies"]
            poll_until("replies that cannot be kept are dropped", lambda: lost() > 0, 60 * PATIENCE)
            self.assertLess(resident_kib(pid), 1_300_000)


class Strangers(ClusterCase):
    """Clients that misbehave: the cluster serves the others, and its processes do not change."""

    settings = {"recall.high_water": 16}

    def setUp(self):
        super().setUp()
        self.before = self.cluster.identities()

    def tearDown(self):
        self.assertEqual(self.cluster.identities(), self.before, f"a process died\n{self.cluster.log_tail()}")

    def test_one_that_never_reads_its_replies(self):
        """Its replies are large and many; memory stays bounded and others are served."""
        self.remember({"id": 1, "content": "x" * (1 << 20)})
        pid = self.cluster.role("recall")["pid"]
        body = msgpack.packb({"op": "get", "space": self.space, "ids": [1]})
        with Peer(self.cluster.endpoint("recall"), receive_limit=1) as mute:
            mute.socket.rcvbuf = 4096
            mute.socket.sndtimeo = int(2000 * PATIENCE)
            sent = 0
            try:
                for sent in range(3000):
                    mute.send_frames([body])
            except zmq.Again:
                pass
            for _ in range(20):
                self.assertEqual(len(self.get(1)[0]["content"]), 1 << 20)
            poll_until("what is kept for the mute client is bounded", lambda: resident_kib(pid) < 300_000,
                       60 * PATIENCE)
        self.assertGreater(sent, 0)
        self.assertTrue(self.remember({})["ok"])

    def test_one_that_is_gone_before_the_acknowledgement(self):
        for i in range(scaled(50)):
            with Peer(self.cluster.endpoint("write")) as peer:
                peer.send(
                    {"op": "remember", "space": self.space, "memories": [{"id": i, "embedding": f32(self.vector())}]})
        last = self.remember({"id": 10_000})["ids"]
        rows = self.ok("list", limit=1000)["memories"]
        self.assertIn(last[0], self.ids_of(rows))
        self.assertEqual(len(rows), len(set(self.ids_of(rows))))

    def test_one_that_is_killed_in_the_middle_of_a_frame(self):
        for _ in range(5):
            script = ("import zmq,sys\ns=zmq.Context().socket(zmq.DEALER)\ns.sndhwm = 4\ns.connect(sys.argv[1])\n"
                      "while True: s.send(b'\\x82\\xa2op' + b'x' * (8 << 20))")
            child = subprocess.Popen([sys.executable, "-c", script, self.cluster.endpoint("write")])
            try:
                self.remember({})
                poll_until("the child sends", lambda: resident_kib(child.pid) > 8 << 10, 60 * PATIENCE)
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
            self.remember({})

    def test_a_frame_too_large_is_dropped(self):
        with Peer(self.cluster.endpoint("write")) as peer:
            peer.send_frames([b"\x81\xa1x\xc6" + (25 << 20).to_bytes(4, "big") + b"\0" * (25 << 20)])
            frames = peer.receive_frames(1.0)
            self.assertIsNone(frames, f"answered: {frames and frames[-1][:200]!r}")
        self.remember({})

    def test_the_largest_frame_is_read(self):
        """A body just below the limit is decoded and answered; as a batch over 16 MiB it is too large."""
        memories = [{"embedding": f32(self.vector()), "content": b"x" * (1 << 20)} for _ in range(23)]
        self.refused("too_large", "remember", memories=memories)

    def test_many_connections_at_once(self):
        count = scaled(200)
        peers = [Peer(self.cluster.endpoint("recall")) for _ in range(count)]
        try:
            for peer in peers:
                peer.send({"op": "spaces"})
            self.assertTrue(all(peer.receive()["ok"] for peer in peers))
        finally:
            for peer in peers:
                peer.close()

    def test_connections_that_come_and_go(self):
        pid = self.cluster.role("recall")["pid"]

        def descriptors():
            return len(os.listdir(f"/proc/{pid}/fd"))

        before = descriptors()
        for _ in range(scaled(200)):
            with Peer(self.cluster.endpoint("recall")) as peer:
                self.assertTrue(peer.ask({"op": "spaces"})["ok"])
        poll_until("descriptors are given back", lambda: descriptors() <= before + 10, 60 * PATIENCE)

    def test_readers_beside_a_heavy_writer(self):
        """While one client writes as fast as it can, each recall of another is answered, and all rows are there at the
        end."""
        batches, size = scaled(200), 200
        written = []

        def write():
            rng = np.random.default_rng(1)
            with Peer(self.cluster.endpoint("write")) as peer:
                for _ in range(batches):
                    rows = rng.standard_normal((size, self.dim)).astype("f4")
                    written.append(
                        peer.ask({
                            "op": "remember", "space": self.space, "memories": [{"embedding": f32(row)} for row in rows]
                        }))

        writer = threading.Thread(target=write)
        writer.start()
        reads = 0
        while writer.is_alive() or reads == 0:
            self.ok("recall", embedding=f32(self.vector()), k=5)
            reads += 1
        writer.join()
        self.assertTrue(all(reply["ok"] for reply in written))
        self.assertEqual(self.ok("count")["count"], batches * size)


if __name__ == "__main__":
    unittest.main()
