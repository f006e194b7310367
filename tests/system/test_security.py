"""Who may connect and what they may do: keys and the list of clients over TCP, the kernel's word over ipc."""

import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import unittest
from pathlib import Path

import zmq

from cluster import PATIENCE, REPLY_S, Cluster, ClusterCase, Peer, f32, poll_until, program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))
import mneme  # noqa: E402

SILENCE_S = 0.7 * PATIENCE  # a connection that is refused gets no answer at all
TURNS = itertools.count()  # of those who look for ports
ONE = f32([1, 0, 0, 0])
REMEMBER = {"op": "remember", "memories": [{"embedding": ONE}]}
NEEDS = {
    "any": [{"op": "info"}, {"op": "ping"}],
    "read": [{"op": "recall", "embedding": ONE}, {"op": "get", "ids": [1]}, {"op": "list"}, {"op": "count"},
             {"op": "spaces"}, {"op": "stats"}],
    "write": [REMEMBER, {"op": "revise", "id": 1, "set": {"confidence": 0.5}}, {"op": "forget", "ids": [99]}],
    "admin": [{"op": "consolidate"}, {"op": "verify"}, {"op": "reload"}, {"op": "snapshot", "path": "/none"}],
}
PORT_OF = {**dict.fromkeys(("remember", "revise", "forget"), 1), "stats": 2,
           **dict.fromkeys(("recall", "get", "list", "count", "spaces"), 4)}


class Key:
    """A client's pair, and its line in the list."""
    def __init__(self, name, rights, spaces="*"):
        self.public, self.secret = zmq.curve_keypair()
        self.line = f"{self.public.decode()} {name} {rights} {spaces}\n"


class KeyedPeer(Peer):
    """A Peer over TCP, with a key or without."""
    def __init__(self, endpoint, server=None, key=None, kind=zmq.DEALER):
        self.socket, self.head = zmq.Context.instance().socket(kind), []
        self.socket.linger = 0
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = 20, 100
        if key:
            self.socket.curve_serverkey, self.socket.curve_publickey, self.socket.curve_secretkey = \
                server, key.public, key.secret
        self.socket.connect(endpoint)


class TcpCluster(Cluster):
    """A cluster that listens on TCP to those keys."""
    def __init__(self, keys, settings=None):
        self.port = free_ports()
        super().__init__(4, settings={"tcp.bind": "127.0.0.1", "tcp.port": self.port, **(settings or {})})
        self.dir.mkdir(mode=0o700)
        self.allow(*keys)

    def allow(self, *keys, text=""):
        path = self.dir / "clients"
        path.write_text("# key name rights spaces\n\n" + text + "".join(key.line for key in keys))
        path.chmod(0o600)

    def server_key(self):
        return zmq.curve_public((self.dir / "server.key").read_text().strip().encode())

    def tcp(self, key, op="info", server=None, kind=zmq.DEALER, port=None):
        port = self.port + (PORT_OF.get(op, 0) if port is None else port)
        return KeyedPeer(f"tcp://127.0.0.1:{port}", key and (server or self.server_key()), key, kind)

    def ask_tcp(self, key, request):
        with self.tcp(key, request["op"]) as peer:
            return peer.ask(request)

    def stat(self, name):
        return self.ok("stats")["stats"][name]


def free_ports(count=10, below=32768):
    """The first of so many ports beside each other that nobody holds, of those that the kernel gives to no connection."""
    blocks = range(10000, below - count, count)
    for turn in range(len(blocks)):
        first = blocks[(os.getpid() * 7 + next(TURNS) + turn) % len(blocks)]
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def with_cluster(case, *keys, settings=None):
    cluster = TcpCluster(keys, settings)
    case.addCleanup(cluster.finish)
    return cluster.start()


class Rights(unittest.TestCase):
    def test_each_operation_needs_its_right(self):
        keys = {right: Key(f"may-{right}", right) for right in ("read", "write", "admin")}
        cluster = with_cluster(self, *keys.values())
        self.assertTrue(cluster.ok("remember", memories=[{"embedding": ONE}]))
        for right, key in keys.items():
            for needed, requests in NEEDS.items():
                for request in requests:
                    reply = cluster.ask_tcp(key, request)
                    with self.subTest(right=right, op=request["op"]):
                        if needed in ("any", right):
                            self.assertNotIn("needs the right", reply.get("error", ""))
                        else:
                            self.assertEqual(reply["code"], "unauthorized", reply)
                            self.assertIn(f"needs the right {needed}", reply["error"])
        self.assertEqual(cluster.ok("count")["count"], 2)  # ours, and that of the one who may write

    def test_spaces(self):
        """Every way to name or imply a space that is not one's own."""
        key = Key("ada", "read,write", "mine,with%2Ccomma")
        cluster = with_cluster(self, key)
        for space in ("mine", "theirs"):
            cluster.ok("remember", space=space, memories=[{"embedding": ONE, "id": 1}])
        allowed = [{**REMEMBER, "space": "with,comma"}, {"op": "recall", "embedding": ONE, "space": "mine"},
                   {"op": "recall", "like": 1, "space": "mine"}, {"op": "count", "space": ["mine", "with,comma"]}]
        for request in allowed:
            self.assertTrue(cluster.ask_tcp(key, request)["ok"], request)
        refused = [REMEMBER, {"op": "spaces"}]  # without a space: the default one; spaces: all
        for space in ("theirs", ["mine", "theirs"], None, ["theirs", 7]):
            refused += [{"op": "recall", "embedding": ONE, "space": space}, {"op": "recall", "like": 1, "space": space},
                        {"op": "list", "space": space}, {"op": "count", "space": space}]
        refused += [{"space": "theirs", **request} for request in (
            REMEMBER, {"op": "get", "ids": [1]}, {"op": "revise", "id": 1, "set": {"confidence": 0.1}},
            {"op": "forget", "ids": [1]}, {"op": "forget", "all": True}, {"op": "forget", "filter": {"ids": [1]}},
            {"op": "remember", "memories": [{"embedding": ONE, "supersedes": [1]}]})]
        for request in refused:
            reply = cluster.ask_tcp(key, request)
            self.assertEqual(reply.get("code"), "unauthorized", (request, reply))
        self.assertEqual(cluster.ok("count", space="theirs")["count"], 1)
        self.assertGreaterEqual(cluster.stat("requests_unauthorized"), len(refused))

    def test_a_space_of_a_wrong_type_opens_nothing(self):
        key = Key("ada", "read", "mine")
        cluster = with_cluster(self, key)
        for space in (7, True, {"a": 1}, b"theirs", 1.5, [[]], [None]):
            reply = cluster.ask_tcp(key, {"op": "count", "space": space})
            self.assertIn(reply.get("code"), ("bad_request", "unauthorized"), (space, reply))
        twice = b"\x83\xa2op\xa5count\xa5space\xa4mine\xa5space\xa6theirs"
        with cluster.tcp(key, "count") as peer:
            peer.send_frames([twice])
            self.assertEqual(peer.receive()["code"], "bad_request")


class Keys(unittest.TestCase):
    def test_strangers_get_no_answer_and_are_counted(self):
        key, stranger = Key("ada", "read"), Key("eve", "read")
        cluster = with_cluster(self, key)
        another_server = zmq.curve_keypair()[0]
        for peer in (cluster.tcp(stranger), cluster.tcp(None), cluster.tcp(key, server=another_server)):
            with peer:
                peer.socket.sndtimeo = int(SILENCE_S * 1000)
                try:
                    peer.send({"op": "ping"})
                except zmq.Again:
                    continue  # refused before that: there is no connection to send it on
                self.assertIsNone(peer.receive_frames(SILENCE_S))
        poll_until("they are counted", lambda: cluster.stat("peers_refused") >= 1)
        self.assertTrue(cluster.ask_tcp(key, {"op": "ping"})["ok"])

    def test_one_that_is_taken_off_the_list_is_cut_off(self):
        ada, bob = Key("ada", "read,write"), Key("bob", "read,write")
        cluster = with_cluster(self, ada, bob, settings={"stats.interval": "100ms"})
        with cluster.tcp(ada, "count") as reads, cluster.tcp(ada, "remember") as writes, \
                cluster.tcp(ada, kind=zmq.SUB, port=3) as hears, cluster.tcp(bob, "count") as other:
            hears.socket.subscribe(b"stats")
            self.assertTrue(hears.socket.poll(1000 * REPLY_S))
            self.assertTrue(reads.ask({"op": "count"})["ok"])
            self.assertTrue(writes.ask(REMEMBER)["ok"])
            cluster.allow(bob)
            cluster.ok("reload")
            for peer, request in ((reads, {"op": "count"}), (writes, REMEMBER)):
                poll_until("refused", lambda: peer.ask(request).get("code") == "unauthorized")
                self.assertIn("not on the list", peer.ask(request)["error"])
            poll_until("hears the statistics no more", lambda: not self.heard(hears))
            self.assertTrue(other.ask({"op": "count"})["ok"])

    @staticmethod
    def heard(peer):
        """Whether anything is published to it still; what was on its way is read away."""
        while peer.socket.poll(0):
            peer.socket.recv()
        return peer.socket.poll(int(SILENCE_S * 1000))

    def test_a_reload_of_a_bad_list_changes_nothing(self):
        key = Key("ada", "read")
        cluster = with_cluster(self, key)
        cluster.allow(key, text="nonsense\n")
        reply = cluster.call("reload")
        self.assertEqual(reply["code"], "bad_request")
        self.assertIn("clients:3:", reply["error"])
        self.assertTrue(cluster.ask_tcp(key, {"op": "count"})["ok"])

    def test_published_statistics_need_the_right_to_read(self):
        reader, writer = Key("ada", "read"), Key("bob", "write")
        cluster = with_cluster(self, reader, writer, settings={"stats.interval": "100ms"})
        with cluster.tcp(reader, kind=zmq.SUB, port=3) as one, cluster.tcp(writer, kind=zmq.SUB, port=3) as other:
            for peer in (one, other):
                peer.socket.subscribe(b"")
            self.assertTrue(one.socket.poll(1000 * REPLY_S))
            self.assertEqual(one.socket.recv_multipart()[0], b"stats")
            self.assertFalse(other.socket.poll(int(SILENCE_S * 1000)))

    def test_endpoints_are_told_in_the_asker_s_own_terms(self):
        key = Key("ada", "read,write")
        cluster = with_cluster(self, key, settings={"tcp.host": "localhost", "recall.workers": 2})
        base = f"tcp://localhost:{cluster.port}"[:-len(str(cluster.port))]
        told = cluster.ask_tcp(key, {"op": "info"})["endpoints"]
        self.assertEqual(told, {"write": f"{base}{cluster.port + 1}", "stats": f"{base}{cluster.port + 2}",
                                "stats_pub": f"{base}{cluster.port + 3}",
                                "recall": [f"{base}{cluster.port + 4}", f"{base}{cluster.port + 5}"]})
        local = cluster.info()["endpoints"]
        self.assertTrue(all(e.startswith("ipc://") for e in [local["write"], local["stats"], *local["recall"]]))
        with mneme.open(f"tcp://127.0.0.1:{cluster.port}", timeout_s=REPLY_S,
                        curve=(cluster.server_key(), key.public, key.secret)) as client:
            client.remember([1, 0, 0, 0], content="from afar")
            self.assertEqual(client.recall([1, 0, 0, 0], k=1)[0].content, "from afar")
            with self.assertRaises(mneme.Unauthorized):
                client.consolidate()
        printed = [part.decode() for part in (cluster.server_key(), key.public, key.secret)]
        with mneme.open(f"tcp://127.0.0.1:{cluster.port}", timeout_s=REPLY_S, curve=printed) as client:
            self.assertEqual(client.count(), 1)
        for curve in (None, (cluster.server_key(), *zmq.curve_keypair())):
            with self.assertRaisesRegex(mneme.Unavailable, "key"):
                mneme.open(f"tcp://127.0.0.1:{cluster.port}", timeout_s=1, curve=curve)

    def test_plain_tcp_serves_everybody_only_where_it_is_allowed(self):
        cluster = with_cluster(self, settings={"security.allow_plain_tcp": "yes"})
        self.assertTrue(cluster.ask_tcp(None, REMEMBER)["ok"])
        self.assertTrue(cluster.ask_tcp(None, {"op": "count"})["ok"])
        self.assertTrue(cluster.ask_tcp(None, {"op": "info"})["endpoints"]["write"].startswith("tcp://"))
        self.assertFalse((cluster.dir / "server.key").exists())


class Starts(unittest.TestCase):
    """What mnemed refuses to start with, in one line."""
    def setUp(self):
        self.cluster = TcpCluster([Key("ada", "read")])
        self.addCleanup(self.cluster.finish)

    def refusal(self):
        done = subprocess.run(self.cluster.arguments(), capture_output=True, text=True, timeout=30 * PATIENCE,
                              env=self.cluster.environment())
        self.assertIn(done.returncode, (1, 2), done)
        return [line for line in done.stderr.splitlines() if line.startswith("mnemed: ")][0]

    def test_a_list_with_mistakes_names_the_line(self):
        key = Key("ada", "read")
        for text, sentence in (("short ada read *\n", "40 characters"), (key.line + key.line, "on line 3 already"),
                               (key.line.replace(" read ", " reed "), "read, write, admin"),
                               (key.line.replace(" *\n", "\n"), "four words"), (key.line.replace(" *", " a,,b"), "space")):
            self.cluster.allow(text=text)
            told = self.refusal()
            self.assertIn(sentence, told)
            self.assertRegex(told, r"/clients:\d+: ")

    def test_a_list_that_others_can_write(self):
        (self.cluster.dir / "clients").chmod(0o666)
        self.assertIn("others can write the list", self.refusal())

    def test_no_list(self):
        (self.cluster.dir / "clients").unlink()
        self.assertIn("no list of those who may connect", self.refusal())

    def test_a_key_that_others_can_read(self):
        self.cluster.start()
        self.assertEqual(stat.S_IMODE((self.cluster.dir / "server.key").stat().st_mode), 0o600)
        before = self.cluster.server_key()
        self.cluster.restart()
        self.assertEqual(self.cluster.server_key(), before)
        self.cluster.check_stop(self.cluster.terminate())
        (self.cluster.dir / "server.key").chmod(0o640)
        self.assertIn("others may read the server's key", self.refusal())

    def test_a_key_that_is_none(self):
        path = self.cluster.dir / "server.key"
        for text in ("", "short\n", "x" * 42, "\n" * 41):
            path.write_text(text)
            path.chmod(0o600)
            self.assertIn("holds no key", self.refusal())

    def test_an_address_that_is_not_ours(self):
        self.cluster.settings["tcp.bind"] = "203.0.113.1"
        self.assertIn("cannot bind tcp://203.0.113.1", self.refusal())


class Command(unittest.TestCase):
    def run_keys(self, *words):
        return subprocess.run([program("MNEME"), *words], capture_output=True, text=True, timeout=30 * PATIENCE)

    def test_from_nothing_to_a_client_that_is_served(self):
        cluster = TcpCluster([])
        self.addCleanup(cluster.finish)
        server = self.run_keys("--dir", str(cluster.dir), "keys").stdout.strip()
        self.assertEqual(server, cluster.server_key().decode())
        made = self.run_keys("--dir", str(cluster.dir), "keys", "ada", "--rights", "write", "--spaces", "notes",
                             "--add", "--json")
        pair = json.loads(made.stdout)
        self.assertEqual((cluster.dir / "clients").read_text().splitlines()[-1], pair["line"])
        cluster.start()
        key = Key("ada", "write")
        key.public, key.secret = pair["public"].encode(), pair["secret"].encode()
        self.assertTrue(cluster.ask_tcp(key, {**REMEMBER, "space": "notes"})["ok"])
        self.assertEqual(cluster.ask_tcp(key, {"op": "count", "space": "notes"})["code"], "unauthorized")

    def test_what_makes_no_line(self):
        for words in (["a b"], ["ada", "--rights", "all"], ["ada", "--spaces", ""], ["ada", "bob"]):
            self.assertEqual(self.run_keys("keys", *words).returncode, 2, words)


@unittest.skipUnless(os.geteuid() == 0, "another user is needed, so root")
class Users(ClusterCase):
    """ipc: even where the folders are open, a stranger's process gets no answer."""
    dim = 4
    STRANGER = """
import os, sys, zmq
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
    socket.linger = 0
    socket.connect(sys.argv[1])
    socket.send(b"\\x81\\xa2op" + bytes([0xa0 + len(sys.argv[4])]) + sys.argv[4].encode())
    print(socket.poll(int(float(sys.argv[5]) * 1000)))
"""

    def ask_as(self, uid, gid, name, op, patience_s=SILENCE_S):
        done = subprocess.run([sys.executable, "-c", self.STRANGER, self.cluster.endpoint(name), str(uid), str(gid), op,
                               str(patience_s)], capture_output=True, text=True, timeout=60 * PATIENCE)
        self.assertEqual(done.stderr, "")
        return int(done.stdout) != 0

    def test_another_user_is_refused_and_counted(self):
        for folder in (self.cluster.base, self.cluster.dir, self.cluster.dir / "run"):
            folder.chmod(0o755)
        for path in (self.cluster.dir / "run").iterdir():
            if path.is_socket():
                path.chmod(0o777)
        before = self.ok("stats")["stats"]["peers_refused"]
        for name, op in (("control", "ping"), ("recall", "spaces"), ("stats", "stats"), ("role.compactor", "wake"),
                         ("role.wal-writer", "seal")):
            self.assertFalse(self.ask_as(65534, 65534, name, op), name)
        poll_until("they are counted", lambda: self.ok("stats")["stats"]["peers_refused"] >= before + 5)
        self.assertTrue(self.ask_as(0, 0, "control", "ping", REPLY_S))


if __name__ == "__main__":
    unittest.main()
