"""The two commands as a person runs them: mnemed's exit statuses and stops; every command of mneme, for people and
with --json."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import numpy as np

import model as truth
from cluster import MARK, PATIENCE, Cluster, ClusterCase, Peer, f32, poll_until, program, unpack

RUN_S = 60 * PATIENCE
BEHIND_S = 1.0  # so long the command waits for a store to be there


class Mnemed(unittest.TestCase):
    """Starts that fail, and what they say: one line on stderr, and an exit status that tells whose fault it was."""
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ms", dir=os.environ.get("MNEME_TEST_DIR", "/tmp")))
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", str(self.folder)], check=True))

    def mnemed(self, *arguments):
        return subprocess.run([program("MNEMED"), *map(str, arguments)],
                              capture_output=True,
                              text=True,
                              timeout=RUN_S,
                              stdin=subprocess.DEVNULL,
                              env={**os.environ, MARK: str(self.folder)})

    def assert_fails(self, status, *arguments):
        done = self.mnemed(*arguments)
        self.assertEqual(done.returncode, status, f"{arguments}: {done}")
        self.assertTrue(done.stderr.strip(), arguments)
        return done.stderr

    def assert_says_why(self, *arguments):
        told = self.assert_fails(1, *arguments)
        self.assertEqual(len(told.strip().splitlines()), 1, told)

    def test_bad_usage(self):
        place = self.folder / "d"
        for arguments in ((), ("--dir", ), ("--dir", place, "--dimension", 4), ("--dir", place, "--dim", 0),
                          ("--dir", place, "--dim", "x"), ("--dir", place, "--metric",
                                                           "manhattan"), ("--dir", place, "--set", "no.such=1"),
                          ("--dir", place, "--set", "recall.workers"), ("--dir", place, "--set", "recall.workers=many"),
                          ("--dir", place, "--set", "recall.workers=100000"), ("--dir", place, "a word")):
            with self.subTest(arguments=arguments):
                self.assert_fails(2, *arguments)
        self.assertFalse(place.exists(), "a bad command line made a store")

    def test_help_and_version(self):
        for option in ("--help", "--version"):
            done = self.mnemed(option)
            self.assertEqual(done.returncode, 0, done)
            self.assertTrue(done.stdout.strip())

    def test_a_place_that_cannot_be(self):
        (self.folder / "file").write_text("not a store")
        deep = self.folder / ("x" * 60) / ("y" * 60)
        deep.mkdir(parents=True)
        for place in (self.folder / "file", self.folder / "file" / "below", deep):
            self.assert_says_why("--dir", place, "--dim", 4)

    def test_settings_that_are_not_there(self):
        self.assert_says_why("--dir", self.folder / "d", "--dim", 4, "--config", self.folder / "none.conf")
        self.assertFalse((self.folder / "d").exists())

    def test_a_folder_that_is_no_store_is_left_alone(self):
        (self.folder / "thesis.txt").write_text("years of work")
        done = subprocess.Popen([program("MNEMED"), "--dir", str(self.folder), "--dim", "4"],
                                stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        try:
            poll_until("started or refused",
                       lambda: done.poll() is not None or (self.folder / "run" / "control").exists())
        finally:
            done.terminate()
            done.wait(RUN_S)
        self.assertEqual((self.folder / "thesis.txt").read_text(), "years of work")


class OneStore(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.cluster.ok("remember", memories=[{"id": 1, "embedding": f32([1] * 8)}])

    def start_another(self, **differs):
        return subprocess.run(self.cluster.arguments(**differs),
                              capture_output=True,
                              text=True,
                              timeout=RUN_S,
                              stdin=subprocess.DEVNULL,
                              env=self.cluster.environment())

    def test_a_second_one_is_refused(self):
        before = self.cluster.identities()
        done = self.start_another()
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertEqual(self.cluster.identities(), before)
        self.cluster.ok("remember", memories=[{"id": 2, "embedding": f32([1] * 8)}])

    def test_what_differs_from_the_store_is_refused(self):
        self.cluster.check_stop(self.cluster.terminate())
        for differs in ({"dim": 9}, {"metric": "l2"}):
            done = self.start_another(**differs)
            self.assertEqual(done.returncode, 1, done)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.cluster.start()
        self.assertEqual(self.cluster.ok("count")["count"], 1)

    def test_a_command_may_come_right_behind_the_start(self):
        """As on two lines of a shell: `mnemed &` and then `mneme`."""
        words = [program("MNEME"), "--dir", str(self.cluster.dir), "get", "1", "--json"]
        for _ in range(10):
            self.cluster.check_stop(self.cluster.terminate())
            began = time.time()
            self.cluster.start(wait=False)
            done = subprocess.run(words, capture_output=True, text=True, timeout=RUN_S)
            self.cluster.await_ready()
            if done.returncode == 0 or (self.cluster.dir / "run" / "control").stat().st_mtime < began + BEHIND_S:
                break  # else this machine takes longer over a start than the command waits
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["memories"][0]["id"], 1)

    def test_dim_and_metric_need_not_be_repeated(self):
        self.cluster.check_stop(self.cluster.terminate())
        self.cluster.arguments = lambda: [program("MNEMED"), "--dir", str(self.cluster.dir)]
        self.cluster.start()
        self.assertEqual((self.cluster.info()["dim"], self.cluster.info()["metric"]), (8, "cosine"))

    def test_settings_from_a_file(self):
        self.cluster.check_stop(self.cluster.terminate())
        file = self.cluster.base / "mneme.conf"
        file.write_text("# two of them\n[recall]\nworkers = 2\n")
        plain = self.cluster.arguments()
        self.cluster.arguments = lambda: plain + ["--config", str(file)]
        self.cluster.start()
        self.assertEqual(len(self.cluster.info()["endpoints"]["recall"]), 2)


class Stops(unittest.TestCase):
    """SIGTERM under load: what was acknowledged is there at the next start."""
    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        self.acked, self.stopping = [], threading.Event()
        self.writers = [threading.Thread(target=self.write, args=(n, )) for n in range(3)]
        for writer in self.writers:
            writer.start()
        self.addCleanup(self.stop_writers)

    def write(self, number):
        with Peer(self.cluster.endpoint("write")) as peer:
            for i in range(10**6):
                if self.stopping.is_set():
                    return
                id = number * 10**6 + i
                peer.send({"op": "remember", "memories": [{"id": id, "embedding": f32([1 + i] * 8), "content": str(id)}]})
                while (frames := peer.receive_frames(0.2)) is None:
                    if self.stopping.is_set():
                        return
                if unpack(frames[-1])["ok"]:
                    self.acked.append(id)

    def stop_writers(self):
        self.stopping.set()
        for writer in self.writers:
            writer.join()

    def assert_nothing_is_lost(self):
        self.stop_writers()
        self.cluster.start()
        there = {m["id"]: m["content"] for m in truth.list_all(self.cluster.ok, limit=5000)}
        self.assertEqual([id for id in self.acked if there.get(id) != str(id)], [])

    def load(self):
        poll_until("load", lambda: len(self.acked) > 200)

    def test_sigterm_drains(self):
        self.load()
        self.cluster.check_stop(self.cluster.terminate())
        self.assert_nothing_is_lost()

    def test_sigint_is_the_same(self):
        self.load()
        self.cluster.process.send_signal(signal.SIGINT)
        self.cluster.check_stop(self.cluster.wait())
        self.assert_nothing_is_lost()

    def test_a_second_sigterm_stops_at_once(self):
        self.load()
        self.cluster.process.send_signal(signal.SIGTERM)
        self.cluster.process.send_signal(signal.SIGTERM)
        self.cluster.check_stop(self.cluster.wait())
        self.assert_nothing_is_lost()

    def test_a_hang_up_of_the_terminal_changes_nothing_acknowledged(self):
        self.load()
        self.cluster.process.send_signal(signal.SIGHUP)
        poll_until("more load, or a stop", lambda: len(self.acked) > 400 or self.cluster.process.poll() is not None)
        if self.cluster.process.poll() is None:
            self.cluster.check_stop(self.cluster.terminate())
        self.assert_nothing_is_lost()


class Mneme(ClusterCase):
    """The command `mneme`. Each call is tried as people see it and with --json."""

    dim = 4

    def command(self, *words, status=0, text=None, dir=None):
        done = subprocess.run(
            [program("MNEME"), "--dir", str(dir or self.cluster.dir), *map(str, words)],
            capture_output=True,
            input=text,
            text=True,
            timeout=RUN_S,
            env={**os.environ, MARK: str(self.cluster.base)})
        self.assertEqual(done.returncode, status, f"{words}: {done}")
        return done.stderr if status else done.stdout

    def json(self, *words, status=0, text=None):
        out = subprocess.run(
            [program("MNEME"), "--dir", str(self.cluster.dir), "--json", *map(str, words)],
            capture_output=True,
            input=text,
            text=True,
            timeout=RUN_S)
        self.assertEqual(out.returncode, status, f"{words}: {out}")
        return json.loads(out.stdout)

    def put(self, content, *more, vector="[1, 0.5, 0, 0.25]"):
        return self.json("remember", "-s", self.space, "-e", vector, "-c", content, *more)["ids"][0]

    def test_remember(self):
        printed = self.command("remember", "-s", self.space, "-e", "[1, 2, 3, 4]", "--content", "tea", "--meta",
                               '{"who": {"name": "ada"}}', "--tag", "a", "--tag", "b", "--confidence", "0.5", "--at",
                               "5000").strip()
        self.assertEqual(printed, "1")
        found = self.get(1, fields=["content", "meta", "tags", "confidence", "at", "embedding"])[0]
        self.assertEqual(
            (found["content"], found["meta"], found["tags"], found["confidence"], found["at"], found["embedding"]),
            ("tea", {"who": {"name": "ada"}}, ["a", "b"], 0.5, 5000, f32([1, 2, 3, 4])))
        self.assertEqual(self.json("remember", "-s", self.space, "-e", "-", text="[4, 3, 2, 1]")["ids"], [2])
        self.assertEqual(self.get(2, fields=["embedding"])[0]["embedding"], f32([4, 3, 2, 1]))

    def test_embeddings_from_files(self):
        vector = np.array([1, 2, 3, 4], "f4")
        for name, data in (("v.f32", vector.tobytes()), ("v.f16", vector.astype("f2").tobytes()), ("v.json",
                                                                                                   b"[1, 2, 3, 4]")):
            path = self.cluster.base / name
            path.write_bytes(data)
            id = self.put("from a file", vector=f"@{path}")
            self.assertEqual(self.get(id, fields=["embedding"])[0]["embedding"], f32(vector))

    def test_recall(self):
        for content in ("alpha", "beta"):
            self.put(content, "--tag", content)
        for words in (("recall", "-s", self.space, "-e", "[1, 0.5, 0, 0.25]"), ("recall", "-s", self.space, "--like",
                                                                                "1", "--exact")):
            self.assertIn("beta", self.command(*words))
        reply = self.json("recall", "-s", self.space, "-e", "[1, 0.5, 0, 0.25]", "-k", 1, "--exact", "--context", 1)
        self.assertTrue(reply["exact"])
        self.assertEqual(len(reply["hits"]), 1)
        self.assertAlmostEqual(reply["hits"][0]["score"], 1.0, places=5)
        ranked = self.json("recall", "-s", self.space, "-e", "[1, 0, 0, 0]", "--half-life", "7d", "--confidence-weight",
                           0.5, "--floor", 0.1)
        self.assertEqual(set(ranked["hits"][0]["parts"]), {"similarity", "confidence", "decay"})

    def test_get_list_count_spaces(self):
        for content in ("one", "two", "three"):
            self.put(content)
        self.assertIn("two", self.command("get", "-s", self.space, 2))
        self.assertEqual([m and m["content"] for m in self.json("get", "-s", self.space, 1, 3, 404)["memories"]],
                         ["one", "three", None])
        self.assertEqual(self.command("get", "-s", self.space, 2, "--raw"), "two")
        self.assertIn("three", self.command("list", "-s", self.space))
        page = self.json("list", "-s", self.space, "--oldest", "--limit", 2)
        self.assertEqual([m["content"] for m in page["memories"]], ["one", "two"])
        rest = self.json("list", "-s", self.space, "--oldest", "--cursor", page["cursor"])
        self.assertEqual([m["content"] for m in rest["memories"]], ["three"])
        self.assertEqual(self.command("count", "-s", self.space).strip(), "3")
        self.assertEqual(self.json("count", "-s", self.space)["count"], 3)
        self.assertIn(self.space, self.command("spaces"))
        self.assertIn({"space": self.space, "count": 3}, self.json("spaces")["spaces"])

    def test_revise_and_forget(self):
        id = self.put("old")
        self.command("revise", id, "-s", self.space, "--content", "new")
        self.assertEqual(self.get(id)[0]["content"], "new")
        self.assertEqual(self.json("forget", id, "-s", self.space, "--mode", "suppress")["count"], 1)
        self.assertEqual(self.json("forget", id, "-s", self.space, "--mode", "restore")["count"], 1)
        self.assertIn("1", self.command("forget", id, "-s", self.space))
        self.put("x")
        self.assertEqual(self.json("forget", "--all", "-s", self.space, "--mode", "purge")["count"], 1)
        self.assertEqual(self.get(id), [None])

    def test_control_and_statistics(self):
        info = self.command("info")
        self.assertIn("ready", info)
        self.assertNotRegex(info, r"[{}\[\]]", "a document, not text for people")
        self.assertEqual(self.json("info")["dim"], self.dim)
        self.command("ping")
        self.command("consolidate", "--wait")
        self.assertEqual(self.json("verify")["damaged"], [])
        self.command("verify")
        self.command("reload")
        self.assertTrue(self.command("stat").strip())
        self.assertIn("no_such*", self.command("stat", "no_such*", status=1))
        self.assertTrue(self.json("stat"))
        self.assertIn("mneme_", self.command("stat", "--prometheus"))

    def test_config(self):
        listed = self.command("config")
        for key in ("recall.workers", "wal.segment_bytes", "write.idem_window"):
            self.assertIn(key, listed)
        self.assertTrue(self.json("config"))
        self.assertEqual(list(self.json("config", "wal.prepared")), ["wal.prepared"])
        self.assertIn("no.such", self.command("config", "wal.*", "no.such", status=1))

    def test_snapshot_and_restore(self):
        self.put("kept")
        copy, restored = self.cluster.base / "snap", self.cluster.base / "restored"
        self.command("snapshot", copy)
        self.command("restore", copy, dir=restored)
        second = Cluster(self.dim, self.metric, dir=restored)
        self.addCleanup(second.finish)
        second.start()
        self.assertEqual(second.ok("get", space=self.space, ids=[1])["memories"][0]["content"], "kept")

    def test_bad_lines(self):
        for words in (("no such", ), ("recall", "--no-such"), ("recall", ), ("remember", "-c", "x"), ("get", ),
                      ("forget", ), ("list", "--limit", "many"), ("count", "surplus"),
                      ("recall", "-e", "[1,2,3,4]", "-k", "0"), ("remember", "-e", "[1, 2, 3, 4]", "--meta",
                                                                 "{not json")):
            self.assertTrue(self.command(*words, status=2).strip(), words)
        for typo, meant in (("inof", "info"), ("snap", "snapshot"), ("remebmer", "remember")):
            self.assertIn(f"did you mean `{meant}`?", self.command(typo, status=2))
        self.assertTrue(self.command("--help").strip())
        for name in ("recall", "import", "top", "bench"):
            self.assertIn(name, self.command(name, "--help"))

    def test_refusals(self):
        self.put("x")
        for words, code in ((("remember", "-e", "[1]"), "bad_dim"), (("revise", "404", "-c", "x", "-s", self.space),
                                                                     "not_found"),
                            (("remember", "-e", "[1, 2, 3, 4]", "-i", "1", "--if-absent", "-s", self.space),
                             "exists"), (("remember", "-e", "[0, 0, 0, 0]"), "bad_value")):
            self.assertIn(code, self.command(*words, status=1))
            self.assertEqual(self.json(*words, status=1)["code"], code)

    def test_nobody_there(self):
        self.assertTrue(self.command("--timeout", "300ms", "info", status=1, dir="/tmp/no-such-store").strip())

    def test_export_and_import(self):
        rng = np.random.default_rng(3)
        memories = [{
            "id": i + 1, "embedding": f32(rng.standard_normal(4)),
            "content": f"naïve\n\"{i}\"" if i % 3 else b"\x00\xff%d" % i,
            "meta": {"n": i, "deep": {"list": [1, 2.5, None, "x"]}} if i % 5 else {}, "tags": [f"t{i % 4}"], "confidence": i % 5 / 4,
            "at": 10**18 + i, **({"expires": 2**62} if i % 7 == 0 else {})
        } for i in range(300)]
        self.remember(*memories)
        fields = ["content", "meta", "tags", "confidence", "at", "expires", "embedding"]
        original = self.rows(self.space, fields)
        lines = [json.loads(line) for line in self.command("export", "-s", self.space).splitlines()]
        self.assertEqual({line["space"] for line in lines}, {self.space})
        file = self.cluster.base / "export.jsonl"
        file.write_text("".join(json.dumps({**line, "space": self.space + ".copy"}) + "\n" for line in lines))
        for _ in range(2):  # an import done twice is the same as once
            self.command("import", file)
            self.assertEqual(self.rows(self.space + ".copy", fields), original)

    def rows(self, space, fields):
        rows = truth.list_all(self.ok, space=space, fields=fields, order="oldest")
        return [{name: row.get(name) for name in ("id", *fields)} for row in rows]

    def test_an_import_that_was_killed_goes_on(self):
        """Killed half-way and run again, an import ends with each memory once."""
        count = 20_000
        lines = [json.dumps({"embedding": [1, i % 97, i % 89, 1], "content": f"{i:300}"}) + "\n" for i in range(count)]
        words = [program("MNEME"), "--dir", str(self.cluster.dir), "import", "-s", self.space, "-"]
        first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        try:
            first.stdin.write("".join(lines[:count // 2]))  # it reads a MiB at a time
            first.stdin.flush()
            poll_until("the import is under way", lambda: self.ok("count")["count"] > 500)
            self.assertIsNone(first.poll(), "it ended before it had all lines")
        finally:
            first.kill()
            first.wait()
            first.stdin.close()
        self.assertLess(self.ok("count")["count"], count)
        self.command("import", "-s", self.space, "-", text="".join(lines))
        self.assertEqual(self.ok("count")["count"], count)


if __name__ == "__main__":
    unittest.main()
