"""Attach: a program that maps the store and recalls by itself. Its answers are the workers'; dead, stopped or from
another user, it harms nobody; and a store that stops and comes back finds it again."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import numpy as np

CLIENT_FOLDER = Path(__file__).resolve().parents[2] / "clients" / "python"
sys.path.insert(0, str(CLIENT_FOLDER))

import mneme  # noqa: E402
import mneme_attach  # noqa: E402
from cluster import PATIENCE, SHM, Cluster, ClusterCase, die_with_parent, f32, poll_until  # noqa: E402

ROWS = 3000


def fill(client, vectors, first=0, version="first"):
    """Memories 1.. with these embeddings; everything about one follows from its id and `version`."""
    for start in range(0, len(vectors), 1000):
        client.remember_batch([
            dict(id=first + start + i + 1,
                 embedding=vector,
                 content=f"{version} {first + start + i + 1}",
                 meta={
                     "n": first + start + i,
                     "deep": {
                         "list": [1, -2, 2.5, None, True, "s", b"b"]
                     }
                 },
                 tags=[f"t{i % 7}", "all"],
                 confidence=(i % 10) / 10,
                 at=10**9 * ((i * 7919) % 5000)) for i, vector in enumerate(vectors[start:start + 1000])
        ])


class Answers(ClusterCase):
    """Bit for bit what a recall worker says, of rows in the tail and in columns."""

    dim = 24
    settings = {"compact.enabled": "no"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = mneme.open(cls.cluster.dir, timeout_s=60 * PATIENCE)
        cls.addClassCleanup(cls.client.close)
        cls.rows = np.random.default_rng(5).standard_normal((ROWS, cls.dim)).astype("f4")
        fill(cls.client, cls.rows[:ROWS // 2])
        cls.client.remember(cls.rows[0], id="0123ABCD-0000-4000-8000-000000000001".lower(), content=b"\0bin", space="two")
        cls.client.consolidate()
        fill(cls.client, cls.rows[ROWS // 2:], first=ROWS // 2)
        cls.client.forget(list(range(1, ROWS, 10)))
        cls.attached = mneme.attach(cls.cluster.dir)
        cls.addClassCleanup(cls.attached.close)

    def same(self, *embedding, **options):
        """The common answer of both, while nothing changes between."""
        ours, theirs = self.undisturbed(lambda m: m.recall(*embedding, **options))
        self.assertEqual(ours.hits, theirs.hits)
        self.assertEqual([f"{h.score!r} {h.similarity!r}" for h in ours],
                         [f"{h.score!r} {h.similarity!r}" for h in theirs])
        self.assertEqual((ours.seq, ours.exact, ours.scanned), (theirs.seq, theirs.exact, theirs.scanned))
        return ours

    def undisturbed(self, ask):
        """What the attached program and a worker say, asked while nothing changed: the compactor codes the tail."""
        def answer():
            answers = ask(self.attached)
            looked = [(a.scanned, a.exact, a.hits) for a in (answers if isinstance(answers, list) else [answers])]
            return answers, looked

        ours = answer()
        while True:
            theirs, again = ask(self.client), answer()
            if ours[1] == again[1]:
                return ours[0], theirs
            ours = again

    def test_every_option(self):
        options = [{}, {"k": 1}, {"k": 500}, {"exact": True}, {"target": 0.9}, {"min_score": 0.3}, {"context": 3},
                   {"after": 10**12, "before": 3 * 10**12}, {"min_confidence": 0.7}, {"space": None},
                   {"space": ["two", "default"]}, {"space": ["two"]}, {"space": "nowhere"}, {"fields": []},
                   {"fields": ["embedding", "expires", "space"]}, {"as_of": ROWS // 1000, "k": 50}, {"as_of": 0},
                   {"filter": {"tags_any": ["t1", "t3"]}}, {"filter": {"tags_all": ["t2", "all"], "tags_none": ["t3"]}},
                   {"filter": {"tags_any": []}}, {"filter": {"ids": [5, 6, 7, 8, 2**40]}}, {"filter": {}},
                   {"filter": {"meta": [{"key": "n", "gte": 100}, {"key": "n", "lt": 400.5}]}},
                   {"filter": {"meta": [{"key": "n", "in": [1, 2, 3, 2500]}]}},
                   {"filter": {"meta": [{"key": "deep.list", "exists": True}, {"key": "no", "exists": False}]}},
                   {"filter": {"meta": [{"key": "deep", "eq": {"list": [1, -2, 2.5, None, True, "s", b"b"]}}]}, "k": 3},
                   {"rank": {"half_life_s": 1000, "now": 5 * 10**12, "confidence_weight": 0.5, "floor": 0.1}},
                   {"rank": {"confidence_weight": 1.0, "now": 1}, "min_score": 0.2}]  # yapf: disable
        for option in options:
            with self.subTest(option):
                for vector in (self.rows[17], self.rng.standard_normal(self.dim).astype("f4")):
                    answer = self.same(vector, **option)
                    self.assertEqual(len(answer) > 0, option.get("space") != "nowhere"
                                     and option.get("filter") != {"tags_any": []} and option.get("as_of") != 0)

    def test_like_and_batches(self):
        self.assertNotIn(18, [hit.id for hit in self.same(like=18, k=20)])
        queries = self.rng.standard_normal((30, self.dim)).astype("f4")
        ours, theirs = self.undisturbed(lambda m: m.recall_batch(queries, k=7))
        self.assertEqual([answer.hits for answer in ours], [answer.hits for answer in theirs])
        self.assertEqual([answer.hits for answer in self.attached.recall_batch(queries[:1], exact=True)],
                         [self.attached.recall(queries[0], exact=True).hits])

    def test_exact_batches_are_recalls_one_by_one(self):
        queries = self.rng.standard_normal((70, self.dim)).astype("f4")
        queries[5::7] = self.rows[17:27]
        for options in ({"k": 30}, {"k": 3, "context": 2, "fields": ["at", "embedding"]}, {"as_of": ROWS // 1000},
                        {"filter": {"tags_all": ["t2"], "tags_none": ["t3"]}, "space": None},
                        {"rank": {"half_life_s": 1000, "now": 5 * 10**12, "confidence_weight": 0.5}, "min_score": 0.1}):
            for m in (self.attached, self.client):
                with self.subTest(options, by=type(m).__name__):
                    batch = m.recall_batch(queries, exact=True, **options)
                    alone = [m.recall(query, exact=True, **options) for query in queries]
                    self.assertEqual([answer.hits for answer in batch], [answer.hits for answer in alone])
                    self.assertEqual([[repr(hit.score) for hit in answer] for answer in batch],
                                     [[repr(hit.score) for hit in answer] for answer in alone])
                    self.assertTrue(all(answer.exact and answer.scanned >= max(a.scanned for a in alone)
                                        for answer in batch))

    def test_get(self):
        ids = [2, 404_404, 11, ROWS, 2]  # 11 was forgotten
        for options in ({}, {"fields": ["embedding", "meta"]}, {"fields": []}, {"as_of": ROWS // 1000}):
            self.assertEqual(self.attached.get_many(ids, **options), self.client.get_many(ids, **options))
        self.assertIsNone(self.attached.get(11))
        uuid = "0123abcd-0000-4000-8000-000000000001"
        self.assertEqual(self.attached.get(uuid, space="two"), self.client.get(uuid, space="two"))
        self.assertEqual(self.attached.get(uuid.upper(), space="two").content, b"\0bin")

    def test_embeddings_in_every_form(self):
        row = self.rows[30]
        expected = self.attached.recall(row, exact=True).hits
        wide = np.zeros((2, 2 * self.dim), "f4")
        wide[:, ::2] = row
        for form in (row.tolist(), f32(row), bytearray(f32(row)), row.astype("f8"), row.astype(">f4"), wide[1, ::2],
                     np.stack([row, row])[1], memoryview(row).cast("B").cast("f")):
            self.assertEqual(self.attached.recall(form, exact=True).hits, expected)

    def test_refusals_are_the_servers(self):
        row = self.rows[0]
        for error, options in (("BadDim", {"embedding": row[1:]}), ("BadValue", {"embedding": row * np.float32("nan")}),
                               ("BadValue", {"embedding": row * 0}), ("NotFound", {"like": 404_404}),
                               ("BadRequest", {}), ("BadRequest", {"embedding": row, "k": 0}), ("BadRequest", {"embedding": row, "space": []}),
                               ("BadRequest", {"embedding": row, "filter": {"tag_any": ["x"]}}),
                               ("BadRequest", {"embedding": row, "filter": {"meta": [{"key": "x", "eq": 1, "ne": 2}]}}),
                               ("BadRequest", {"embedding": row, "rank": {"halflife": 1}}),
                               ("BadRequest", {"embedding": row, "fields": ["contents"]}),
                               ("Unavailable", {"embedding": row, "as_of": 10**6})):
            for client in (self.attached, self.client):
                with self.assertRaises(getattr(mneme, error), msg=f"{options}"):
                    client.recall(**options)
        with self.assertRaises(mneme.Deadline):
            self.attached.recall(row, min_seq=10**6)

    def test_what_is_acknowledged_is_found(self):
        for i in range(200):
            vector = self.vector()
            stored = self.client.remember(vector, content=f"fresh {i}", space=self.space)
            answer = self.attached.recall(vector, k=1, space=self.space)
            self.assertEqual((answer[0].id, answer[0].content), (stored.id, f"fresh {i}"))
            self.assertGreaterEqual(answer.seq, stored.seq)
        stored = []
        later = threading.Timer(0.05, lambda: stored.append(self.client.remember(vector, space=self.space)))
        later.start()

        def seen():
            try:
                return self.attached.recall(vector, space=self.space, min_seq=answer.seq + 1).seq
            except mneme.Deadline:
                return None  # the later one was more than a second later

        self.assertEqual(poll_until("the later one is seen", seen), answer.seq + 1)
        later.join()

    def test_threads_take_turns(self):
        wrong = []

        def work(seed):
            for vector in np.random.default_rng(seed).standard_normal((40, self.dim)).astype("f4"):
                hits = self.attached.recall(vector, exact=True).hits
                if hits != own.recall(vector, exact=True).hits:
                    wrong.append(seed)

        with mneme.attach(self.cluster.dir) as own:
            threads = [threading.Thread(target=work, args=(seed, )) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])


# A program of its own: recalls in a loop and looks at every byte of the answers. It prints a line per batch: the seq, of
# which writing the hits are, and how many of them are among those that will be purged. A wrong answer ends it.
READER = """
import sys
import numpy as np
import mneme
folder, rows, dim, purged = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), set(map(int, sys.argv[4].split(",")))
vectors = np.random.default_rng(9).standard_normal((rows, dim)).astype("f4")
with mneme.attach(folder) as m:
    while True:
        words, doomed = set(), 0
        for answer in m.recall_batch(vectors[:40], k=30, exact=True, fields=["content", "embedding", "meta"]):
            assert len(answer) == 30 and answer.exact
            writings = {}
            for hit in answer:
                word, number = hit.content.split()
                assert number == str(hit.id), hit
                assert hit.embedding.tobytes() == vectors[hit.id - 1].tobytes(), hit.id
                assert hit.meta["n"] == hit.id - 1, hit
                assert writings.setdefault((hit.id - 1) // 1000, word) == word  # what was written at once is seen at once
                doomed += hit.id in purged
            words.update(writings.values())
        print(answer.seq, *words if len(words) == 1 else ["mixed"], doomed, flush=True)
"""


class Harmless(unittest.TestCase):
    """What an attached program does or suffers is its own affair."""

    ROWS, DIM = 12000, 32

    def setUp(self):
        self.cluster = Cluster(self.DIM,
                               settings={
                                   "reader.max_age": "1s",
                                   "history.window": "0",
                                   "compact.enabled": "no",
                                   "supervisor.heartbeat": "50ms"
                               })
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.client = mneme.open(self.cluster.dir, timeout_s=60 * PATIENCE)
        self.addCleanup(self.client.close)
        self.rows = np.random.default_rng(9).standard_normal((self.ROWS, self.DIM)).astype("f4")
        fill(self.client, self.rows)
        self.client.consolidate()
        self.purged = list(range(1, 40, 5))

    def reader(self):
        process = subprocess.Popen([
            sys.executable, "-c", READER,
            str(self.cluster.dir),
            str(self.ROWS),
            str(self.DIM), ",".join(map(str, self.purged))
        ],
                                   stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE,
                                   text=True,
                                   preexec_fn=die_with_parent,
                                   env={
                                       **os.environ, "PYTHONPATH": str(CLIENT_FOLDER)
                                   })
        self.addCleanup(self.end, process)
        self.line(process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.communicate()

    def line(self, process):
        """The next batch of a reader: (seq, "first", "second" or "mixed", hits that are or will be purged)."""
        words = process.stdout.readline().split()
        if not words:
            raise AssertionError(f"the reader died: {process.stderr.read()}")
        return int(words[0]), words[1], int(words[2])

    def slots(self):
        """{pid: pinned epoch} of the claimed reader slots."""
        table = (SHM / (self.cluster.dir / "run" / "instance").read_text().strip() / "readers").read_bytes()
        slots = [struct.unpack_from("<QQQ", table, at) for at in range(128, len(table), 64)]
        return {owner >> 32: epoch for owner, _, epoch in slots if owner}

    def stop_in_a_call(self, process):
        """SIGSTOP while it holds a pin."""
        def stopped():
            process.send_signal(signal.SIGSTOP)
            if self.slots().get(process.pid):
                return True
            process.send_signal(signal.SIGCONT)
            time.sleep(0.003)
            return False

        poll_until("the reader stopped with a pin", stopped, pause_s=0)

    def stat(self, name):
        return self.client.stats()[name]

    def change_everything(self):
        fill(self.client, self.rows, version="second")
        self.client.forget(self.purged)
        self.client.consolidate()
        receipt = self.client.forget(self.purged, mode="purge", timeout_s=60 * PATIENCE).receipt
        self.assertIsNotNone(receipt)

    def test_a_stopped_program_holds_nothing_back_for_long(self):
        process = self.reader()
        self.stop_in_a_call(process)
        before = self.client.info()["seq"]
        self.change_everything()
        poll_until("limbo drained", lambda: self.stat("limbo_files") == 0)
        columns = self.cluster.dir / "columns"
        poll_until("no other folder", lambda: len(os.listdir(columns)) == self.stat("column_segments"))
        self.assertIn(process.pid, self.slots())
        process.send_signal(signal.SIGCONT)
        seq, word, doomed = self.line(process)  # the call that was stopped: right, of its time
        self.assertEqual((seq, word), (before, "first"))
        self.assertGreaterEqual(doomed, len(self.purged))
        poll_until("the new state", lambda: self.line(process)[1] == "second")
        self.assertEqual(self.line(process), (self.client.info()["seq"], "second", 0))

    def test_a_killed_program_leaves_nothing(self):
        for stopped in (False, True):
            process = self.reader()
            if stopped:
                self.stop_in_a_call(process)
            process.kill()
            process.wait()
            poll_until("the slot cleared", lambda: process.pid not in self.slots())
        self.change_everything()
        poll_until("limbo drained", lambda: self.stat("limbo_files") == 0)

    def test_it_follows_changes_of_every_kind(self):
        process = self.reader()
        self.change_everything()
        for role in ("wal-writer", "compactor", "recall"):
            pid = self.cluster.kill_role(role)
            self.line(process)
            self.cluster.await_replaced(role, pid)
            self.line(process)
        new = ("second", 0)  # the pipe holds older ones
        poll_until("the new state", lambda: self.line(process)[1:] == new)
        self.assertEqual(self.line(process)[1:], new)

    def test_a_restart_is_found_again(self):
        with mneme.attach(self.cluster.dir) as attached:
            hits = attached.recall(self.rows[3], exact=True).hits
            self.client.close()
            self.cluster.check_stop(self.cluster.terminate())
            with self.assertRaises(mneme.Unavailable):
                attached.recall(self.rows[3])
            with self.assertRaises(mneme.Unavailable):
                mneme.attach(self.cluster.dir)
            self.cluster.start(wait=False)
            with mneme.attach(self.cluster.dir, wait_s=60 * PATIENCE) as patient:
                self.assertEqual(patient.recall(self.rows[3], exact=True).hits, hits)
            self.assertEqual(attached.recall(self.rows[3], exact=True).hits, hits)
            self.cluster.await_ready()
            self.cluster.kill_everything()
            self.cluster.start()
            self.assertEqual(attached.recall(self.rows[3], exact=True).hits, hits)

    def test_release_gives_the_slot_back(self):
        attached = mneme.attach(self.cluster.dir)
        self.assertIn(os.getpid(), self.slots())
        attached.release()
        self.assertNotIn(os.getpid(), self.slots())
        self.assertEqual(len(attached.recall(self.rows[0])), 10)
        attached.close()
        attached.close()
        self.assertNotIn(os.getpid(), self.slots())
        with self.assertRaises(ValueError):
            attached.recall(self.rows[0])


# Attaches as whoever runs it; tries to write what it maps; prints what became of it.
STRANGER = """
import os, sys
import mneme
folder, shared, gid = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.setgroups([gid] if gid else [])
os.setgid(65534)
os.setuid(65534)
try:
    with mneme.attach(folder) as m:
        print(len(m.recall([1.0] * m.dim, k=5)), m.get(1).content)
    for name in os.listdir(shared):
        if os.access(os.path.join(shared, name), os.W_OK):
            print("may write", name)
    for top, folders, files in os.walk(folder):
        for name in files:
            path = os.path.join(top, name)
            if os.path.isfile(path) and os.access(path, os.W_OK):  # the sockets are theirs to write
                print("may write", path)
            if name == "LOCK" and os.access(path, os.R_OK):
                print("may hold", path)
except mneme.MnemeError as error:
    print(type(error).__name__)
"""


@unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
class OtherUsers(unittest.TestCase):
    """security.group: its members may attach, and write nothing but the table of reader slots. Others may not."""
    def ask(self, cluster, gid):
        """What somebody in this group (0: in none) sees. Client and library lie where they may read them."""
        client, library = cluster.base / "client", cluster.base / "libmneme.so"
        if not client.exists():
            shutil.copytree(CLIENT_FOLDER, client)
            shutil.copy(mneme_attach._library()._name, library)
        shared = SHM / (cluster.dir / "run" / "instance").read_text().strip()
        environment = {**os.environ, "PYTHONPATH": str(client), "MNEME_LIBRARY": str(library)}
        return subprocess.run([sys.executable, "-c", STRANGER,
                               str(cluster.dir), str(shared),
                               str(gid)],
                              env=environment,
                              capture_output=True,
                              text=True,
                              timeout=60 * PATIENCE)

    def test_members_and_strangers(self):
        group = next(g for g in ("users", "daemon", "mail") if _has_group(g))
        gid = _gid(group)
        cluster = Cluster(4, settings={"security.group": group, "compact.enabled": "no"})
        self.addCleanup(cluster.finish)
        os.chmod(cluster.base, 0o755)
        cluster.start()
        with mneme.open(cluster.dir, timeout_s=60 * PATIENCE) as client:
            client.remember_batch([dict(embedding=[1.0, 2.0, 3.0, i], content=f"c{i}") for i in range(1, 9)])
            client.consolidate()  # files and folders that were not there when the group was given the rest
            client.remember([1.0, 0.0, 0.0, 0.0])
            member, stranger = self.ask(cluster, gid), self.ask(cluster, 0)
        self.assertEqual(member.stdout.splitlines(), ["5 c1", "may write readers"], member.stderr)
        self.assertEqual(stranger.stdout.splitlines(), ["Unauthorized"], stranger.stderr)

    def test_without_a_group_nobody_else_may(self):
        cluster = Cluster(4)
        self.addCleanup(cluster.finish)
        os.chmod(cluster.base, 0o755)
        cluster.start()
        self.assertEqual(self.ask(cluster, 0).stdout.splitlines(), ["Unauthorized"])


def _has_group(name):
    try:
        return bool(_gid(name))
    except KeyError:
        return False


def _gid(name):
    import grp
    return grp.getgrnam(name).gr_gid


if __name__ == "__main__":
    unittest.main()
