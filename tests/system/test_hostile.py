"""Hostile clients: each limit of settings section `limit` against one who tries it, while others are served.

The bounds on memory are stated where they are asserted. A frame has at most 24 MiB (FRAME); of one connection at most
limit.requests frames wait in a socket, and one more is on its way in; the writer's queue holds at most 256 MiB beside.
"""

import errno
import os
import random
import resource
import socket
import struct
import threading
import time
import unittest

import msgpack
import zmq

from cluster import PATIENCE, SLOW, Cluster, Peer, f32, poll_until, resident_kib

MIB = 1 << 20
FRAME = 24 * MIB
ONE = f32([1, 0, 0, 0])
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
# A sanitizer keeps what was freed for a while, and blows up every allocation.
SANITIZER_KIB = (1 << 20) if SLOW else 0
OPS = {"control": {"op": "ping"}, "write": {"op": "remember", "memories": [{"embedding": ONE}]},
       "recall": {"op": "recall", "embedding": ONE, "space": "default", "k": 1}, "stats": {"op": "stats"}}
ROLE_OF = {"control": "supervisor", "stats": "supervisor", "write": "wal-writer", "recall": "recall"}


def ready(kind):
    """The second half of the handshake, as a socket of this kind."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return b"\x04" + bytes([len(body)]) + body


def connect(path):
    """A bare connection to a socket's path, with nothing said on it."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(10 * PATIENCE)
    while raw.connect_ex(str(path)) == errno.EAGAIN:  # so many wait to be accepted
        time.sleep(0.001)
    return raw


def shake_hands(raw, kind=b"DEALER"):
    """ZMTP 3.0, far enough to send messages."""
    raw.sendall(GREETING)
    left = 64
    while left:
        part = raw.recv(left)
        if not part:
            raise ConnectionResetError("closed in the handshake")
        left -= len(part)
    raw.sendall(ready(kind))
    if not raw.recv(256):
        raise ConnectionResetError("closed in the handshake")
    return raw


def is_closed(raw):
    """The other side has ended it; what it said before is read away."""
    raw.setblocking(False)
    try:
        while raw.recv(4096):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


class Hostile(unittest.TestCase):
    def start(self, **settings):
        cluster = Cluster(4, settings={key.replace("__", "."): value for key, value in settings.items()})
        self.addCleanup(cluster.finish)
        cluster.start()
        self.cluster = cluster
        cluster.ok("remember", memories=[{"embedding": ONE}])
        return cluster

    def connect(self, name):
        raw = connect(self.cluster.endpoint(name)[len("ipc://"):])
        self.addCleanup(raw.close)
        return raw

    def greet(self, name, kind=b"DEALER"):
        """Tried again where limit.handshake was over before this machine came to it."""
        while True:
            try:
                return shake_hands(self.connect(name), kind)
            except ConnectionError:
                continue

    def pid(self, name):
        return self.cluster.role(ROLE_OF[name])["pid"]

    def stat(self, name):
        return self.cluster.ok("stats")["stats"][name]

    def assert_served(self):
        """One who was there before is answered on each socket; busy is an answer."""
        for name, request in OPS.items():
            reply = self.cluster.call(request["op"], **{k: v for k, v in request.items() if k != "op"})
            self.assertTrue(reply["ok"] or reply["code"] == "busy", (name, reply))

    def assert_strangers_served(self):
        """A new connection comes through, though its first attempt may be dropped."""
        for name, request in OPS.items():
            with Peer(self.cluster.endpoint(name)) as peer:
                self.assertTrue(peer.ask(request)["ok"], name)


class Connections(Hostile):
    def test_half_open_handshakes(self):
        """limit.handshake: who connects and says nothing, or not enough, is gone after that time."""
        self.start(limit__handshake="500ms")
        silent = [self.connect(name) for name in OPS for _ in range(50)]
        for i, raw in enumerate(silent):
            try:
                raw.sendall(GREETING[:i % 64])
            except OSError:
                pass  # its time was over before this machine came to it
        self.assert_served()
        self.assert_strangers_served()
        poll_until("silent ones dropped", lambda: all(is_closed(raw) for raw in silent))

    def test_a_handshake_that_trickles(self):
        """A byte now and then does not prolong it."""
        self.start(limit__handshake="500ms")
        raw, taken = self.connect("write"), 0
        with self.assertRaises(OSError):
            for byte in GREETING + ready(b"DEALER"):
                raw.sendall(bytes([byte]))
                taken += 1
                time.sleep(0.1)
        self.assertLess(taken, len(GREETING))
        self.assert_served()

    def test_more_connections_than_the_limit(self):
        """limit.connections: those who have been there for long stay, and there is room again when the crowd is gone."""
        self.start(limit__connections=32, limit__handshake="200ms")
        self.assert_served()
        time.sleep(0.3 * PATIENCE)  # now the kept connections are old
        crowd = [self.greet(name) for name in OPS for _ in range(31)]
        poll_until("the house is full", lambda: self.stat("peers_connected") >= 32 * len(OPS))
        time.sleep(0.3 * PATIENCE)  # since they were counted
        more = [self.connect(name) for name in OPS for _ in range(100)]
        self.assert_served()
        poll_until("those too many dropped", lambda: sum(map(is_closed, more)) >= len(more) - len(OPS))
        poll_until("those are counted", lambda: self.stat("peers_dropped") >= len(more) - len(OPS))
        for raw in crowd + more:
            raw.close()
        self.assert_strangers_served()

    def test_a_crowd_that_never_finishes_its_handshake_leaves_room(self):
        """It pushes out itself: a new client gets through while the house is full of the silent."""
        self.start(limit__connections=32, limit__handshake="5s")
        crowd = [self.connect(name) for name in OPS for _ in range(100)]
        self.assert_strangers_served()
        poll_until("those dropped are counted", lambda: self.stat("peers_dropped") > 0)
        for raw in crowd:
            raw.close()

    def test_descriptors_do_not_run_out(self):
        """With 1,024 open files for a process, 1,500 connections to the writer do not keep it from making log files."""
        class Few(Cluster):
            def arguments(self, *more, **kinds):
                return ["prlimit", "--nofile=1024:1024", *super().arguments(*more, **kinds)]

        cluster = Few(4, settings={"wal.segment_bytes": "1MiB", "compact.enabled": "no"})
        self.addCleanup(cluster.finish)
        self.cluster = cluster.start()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 4096:
            self.skipTest("this user may not open enough files itself")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
        before = self.stat("wal_rotations")
        crowd = []
        for _ in range(1500):
            crowd.append(self.connect("write"))
        for _ in range(8):
            cluster.ok("remember", memories=[{"embedding": ONE, "content": bytes(900_000)}])
        self.assertGreater(self.stat("wal_rotations"), before + 3)
        descriptors = f"/proc/{self.pid('write')}/fd"
        poll_until("those too many are let go", lambda: len(os.listdir(descriptors)) < 700)
        for raw in crowd:
            raw.close()


class Frames(Hostile):
    def test_one_that_is_gone_in_the_middle_of_a_frame(self):
        """Scenario 92, by hand: a frame of 24 MiB is announced, half of it comes, then nothing."""
        self.start()
        names = list(OPS)
        before = {name: resident_kib(self.pid(name)) for name in names}
        for _ in range(20):
            for name in names:
                raw = self.greet(name)
                raw.sendall(b"\x02" + struct.pack(">Q", FRAME) + bytes(MIB))
                raw.close()
        self.assert_served()
        # Given back: less than two of the forty frames of a process.
        for name in names:
            poll_until(f"the frames of {name} let go",
                       lambda: resident_kib(self.pid(name)) - before[name] < 2 * FRAME // 1024 + SANITIZER_KIB)

    def test_frames_that_never_end(self):
        """A frame that is announced costs what has come of it, not what was announced."""
        self.start(limit__connections=64)
        before = {name: resident_kib(self.pid(name)) for name in OPS}
        raws = [self.greet(name) for name in OPS for _ in range(40)]
        for raw in raws:
            raw.sendall(b"\x02" + struct.pack(">Q", FRAME) + b"x" * 1000)
        self.assert_served()
        for name in OPS:
            self.assertLess(resident_kib(self.pid(name)) - before[name], 2 * FRAME // 1024 + SANITIZER_KIB)
        for raw in raws:
            raw.close()

    def test_a_flood_of_the_largest_frames(self):
        """limit.requests: two peers send frames of 24 MiB to a socket as fast as they are taken, and read nothing.

        Bound of a process: for each hostile connection limit.requests frames and one more on its way in, one or two
        that are being worked on, and the writer's queue of 256 MiB with the frame that passed it.
        """
        waiting, peers = 2, 2
        self.start(limit__requests=waiting)
        count = FRAME - 100  # of nils, each of which is looked at: they come faster than they are refused
        body = b"\x82\xa2op\xa4none\xa4junk\xdd" + struct.pack(">I", count) + b"\xc0" * count
        frame = b"\x02" + struct.pack(">Q", len(body)) + body
        for name in OPS:
            pid, stop = self.pid(name), threading.Event()
            before = peak = resident_kib(pid)

            def flood():
                raw = self.greet(name)
                while not stop.is_set():
                    raw.sendall(frame)

            threads = [threading.Thread(target=flood) for _ in range(peers)]
            for thread in threads:
                thread.start()
            give_up = time.monotonic() + 1
            try:
                while time.monotonic() < give_up:
                    self.assert_served()
                    peak = max(peak, resident_kib(pid))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            bound = (peers * (waiting + 1) + 2) * FRAME + (256 * MIB if name == "write" else 0)
            self.assertLess(peak - before, bound // 1024 + SANITIZER_KIB, name)

    def test_replies_that_nobody_reads(self):
        """Scenario 99. limit.reply_bytes: at most that much waits for one who does not read, and the rest is dropped."""
        self.start(limit__reply_bytes="32MiB", limit__replies_bytes="48MiB")
        self.cluster.ok("remember", memories=[{"embedding": ONE, "content": bytes(1_000_000)} for _ in range(8)])
        before, pid = resident_kib(self.pid("recall")), self.pid("recall")
        raws = [self.greet("recall") for _ in range(12)]
        ask = msgpack.packb({"op": "list", "space": None, "limit": 8})
        for raw in raws:
            for _ in range(12):
                raw.sendall(bytes([0, len(ask)]) + ask)
        poll_until("replies dropped", lambda: self.stat("recall_lost_replies") > 0)
        self.assert_served()
        # 48 MiB wait in all, beside the reply in the making (16 MiB at most, as msgpack and as its copy) for each thread.
        self.assertLess(resident_kib(pid) - before, (48 + 4 * 2 * 16) * 1024 + SANITIZER_KIB)
        for raw in raws:
            raw.close()


class Subscribers(Hostile):
    def test_one_that_never_reads(self):
        """A few messages wait for it; the supervisor's memory does not grow with the time."""
        self.start(stats__interval="100ms")
        before, pid = resident_kib(self.pid("stats")), self.pid("stats")
        raws = []
        for _ in range(20):
            raw = self.greet("stats.pub", b"SUB")
            raw.sendall(b"\x00\x01\x01")
            raws.append(raw)
        time.sleep(2)
        self.assert_served()
        # Some 30 KiB a message, five for each of twenty in libzmq: 3 MiB.
        self.assertLess(resident_kib(pid) - before, 16 * 1024 + SANITIZER_KIB)
        for raw in raws:
            raw.close()

    def test_prefixes_without_end(self):
        """limit.subscriptions: past it all connections begin anew, an honest one without noticing much."""
        self.start(stats__interval="100ms", limit__subscriptions=1000)
        pid = self.pid("stats")
        before = peak = resident_kib(pid)
        stop = threading.Event()

        def subscribe():
            draw = random.Random(1)
            while not stop.is_set():
                try:
                    raw = self.greet("stats.pub", b"SUB")
                    while not stop.is_set():
                        raw.sendall(b"".join(b"\x00\xc9\x01" + draw.randbytes(200) for _ in range(100)))
                except OSError:
                    time.sleep(0.01)

        with Peer(self.cluster.endpoint("stats.pub"), zmq.SUB) as honest:
            honest.socket.subscribe(b"stats")
            self.assertTrue(honest.receive_frames())
            thread = threading.Thread(target=subscribe)
            thread.start()
            try:
                enough = time.monotonic() + 3

                def dropped():
                    nonlocal peak
                    self.assert_served()
                    peak = max(peak, resident_kib(pid))
                    return time.monotonic() > enough and self.stat("peers_dropped") > 0

                poll_until("dropped", dropped, pause_s=0)
            finally:
                stop.set()
                thread.join()
            while honest.socket.poll(0):
                honest.socket.recv()
            self.assertTrue(honest.receive_frames(), "an honest subscriber hears no more")
        # 200 nodes a prefix; a tick's worth of them may come before the count is looked at.
        self.assertLess(peak - before, 128 * 1024 + SANITIZER_KIB)


if __name__ == "__main__":
    unittest.main()
