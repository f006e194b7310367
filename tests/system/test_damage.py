"""Files that rot while the store is stopped: what is whole stays available, what is not is told, nothing is thrown away."""
import json
import os
import re
import shutil
import subprocess
import unittest

from cluster import PATIENCE, REPLY_S, Cluster, contents_of, f32, files_below, flip, poll_until, program

ROWS = 100


def cut(path, length):
    os.truncate(path, length)


class Damage(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(settings={"compact.enabled": "yes", "wal.segment_bytes": "4MiB"})
        self.addCleanup(self.cluster.finish)
        self.cluster.start()

    def remember(self, first):
        """Ids first .. first + ROWS - 1, one batch of the log each."""
        for i in range(first, first + ROWS):
            self.cluster.ok("remember", memories=[{"id": i, "embedding": f32([i, 1, 0, 0, 0, 0, 0, 0]), "content": f"content {i}"}])

    def columns(self, first):
        """The same, in a column segment; returns its folder."""
        before = set((self.cluster.dir / "columns").iterdir())
        self.remember(first)
        self.cluster.ok("consolidate", wait=True)
        (folder,) = set((self.cluster.dir / "columns").iterdir()) - before
        return folder

    def stop(self):
        self.cluster.check_stop(self.cluster.terminate())

    def mneme(self, *arguments, dir=None):
        return subprocess.run([program("MNEME"), "--dir", str(dir or self.cluster.dir), *map(str, arguments)],
                              capture_output=True,
                              text=True,
                              timeout=REPLY_S,
                              env={**os.environ, **self.cluster.environment()})

    def verified(self):
        """The names of the files that the stopped store's verify lists."""
        done = self.mneme("verify", "--offline", "--json")
        damaged = json.loads(done.stdout)["damaged"]
        self.assertEqual(done.returncode, 1 if damaged else 0, done)
        return {piece["file"].rpartition("/")[2] for piece in damaged}

    def notes(self):
        return [json.loads(path.read_text()) for path in (self.cluster.dir / "quarantine").glob("*.json")]

    def ids(self):
        return {memory["id"] for memory in self.cluster.ok("list", limit=10000, fields=[])["memories"]}

    def test_a_missing_manifest_is_no_new_store(self):
        folder = self.columns(1)
        self.stop()
        manifest = self.cluster.dir / "MANIFEST"
        kept = manifest.read_bytes()
        manifest.unlink()
        (self.cluster.dir / "MANIFEST.copy").unlink()
        self.cluster.start(wait=False)
        info = self.cluster.await_state("recovering", "degraded")
        self.assertNotIn("wal-writer", [role["role"] for role in info["roles"]])
        self.cluster.kill_everything()
        self.assertTrue((folder / "ids.col").exists(), "a column segment was taken for rubbish")
        manifest.write_bytes(kept)
        self.cluster.start()
        self.assertEqual(self.ids(), set(range(1, 1 + ROWS)))

    def test_a_segment_that_cannot_be_opened(self):
        folder = self.columns(1)
        self.columns(1001)
        self.remember(2001)
        self.stop()
        flip(folder / "born.col", 300, 0xff)
        (folder / "parity.col").unlink()  # nothing is left to mend it with
        self.cluster.start(wait=False)
        info = self.cluster.await_state("degraded")
        self.assertTrue(info["degraded"])
        ids = self.ids()
        self.assertLessEqual(set(range(1001, 1001 + ROWS)) | set(range(2001, 2001 + ROWS)), ids)
        self.assertTrue(any("born.col" in str(piece) for piece in self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]))
        self.cluster.ok("remember", memories=[{"id": 5000, "embedding": f32([1] * 8)}])
        self.cluster.ok("consolidate", wait=True)
        self.assertIn(5000, self.ids())
        self.assertTrue((folder / "ids.col").exists(), "what is damaged is kept for a person to look at")

    def test_a_segment_that_is_lost_for_good(self):
        """A forget by filter is refused, and says what to do: without the segment the store goes on in a new folder."""
        folder = self.columns(1)
        self.remember(1001)
        self.stop()
        shutil.rmtree(folder)
        self.cluster.start(wait=False)
        self.cluster.await_state("degraded")
        refused = self.cluster.call("forget", filter={"tags_none": ["x"]})
        self.assertEqual(refused["code"], "corrupt", refused)
        for words in (f"columns/{folder.name}", "mneme export", "mneme import"):
            self.assertIn(words, refused["error"])
        lines = self.cluster.base / "what is there.jsonl"
        done = self.mneme("export", lines)
        self.assertEqual(done.returncode, 0, done)
        rest = Cluster(settings={"compact.enabled": "yes"})
        self.addCleanup(rest.finish)
        rest.start()
        self.assertEqual(self.mneme("import", lines, dir=rest.dir).returncode, 0)
        self.assertEqual(rest.ok("forget", all=True)["count"], ROWS)
        self.assertEqual(rest.ok("count")["count"], 0)

    def test_what_is_forgotten_in_a_segment_that_cannot_be_opened(self):
        """It does not rise when the segment is whole again; a purge says that it could not search it, and is carried out then."""
        folder = self.columns(1)
        self.remember(1001)
        self.stop()
        flip(folder / "born.col", 300, 0xff)
        (folder / "parity.col").rename(self.cluster.base / "parity.col")
        self.cluster.start(wait=False)
        self.cluster.await_state("degraded")
        reply = self.cluster.ok("recall", embedding=f32([1] * 8), k=10 * ROWS, fields=[])
        self.assertFalse(reply["exact"])
        self.cluster.ok("forget", ids=[1])
        self.cluster.ok("forget", ids=[2], mode="suppress")
        self.cluster.ok("remember", memories=[{"id": 3, "embedding": f32([1] * 8), "content": "new", "supersedes": [4]}])
        self.assertEqual(self.cluster.call("forget", all=True)["code"], "corrupt")
        refused = self.cluster.call("forget", ids=[5], mode="purge")
        self.assertEqual(refused["code"], "corrupt", refused)
        self.assertIn(f"segment {folder.name}", refused["error"])
        self.assertEqual(self.cluster.ok("stats")["stats"]["purges_pending"], 1)
        for _ in range(2):
            self.remember(2001)
            self.cluster.ok("consolidate", wait=True)
        self.stop()
        flip(folder / "born.col", 300, 0xff)
        (self.cluster.base / "parity.col").rename(folder / "parity.col")
        self.cluster.start(wait=False)
        self.cluster.await_state("degraded", "ready")
        self.assertEqual(self.ids(), set(range(1, 1 + ROWS)) - {1, 2, 4, 5} | set(range(1001, 1001 + ROWS)) | set(range(2001, 2001 + ROWS)))
        self.assertEqual(self.cluster.ok("get", ids=[3])["memories"][0]["content"], "new")
        poll_until("the purge is carried out", lambda: not self.holds(b"content 5"))
        poll_until("the purge is done", lambda: self.cluster.ok("stats")["stats"]["purges_pending"] == 0)
        self.assertEqual(self.cluster.ok("forget", ids=[2], mode="restore")["count"], 1)
        self.assertEqual(self.cluster.ok("get", ids=[2])["memories"][0]["content"], "content 2")

    def holds(self, content):
        """Whether any file of the store has it, and no digit behind it."""
        pattern = re.compile(content + rb"(?![0-9])")
        return any(pattern.search(contents_of(path)) for path in files_below(self.cluster.dir))

    def test_a_damaged_block_of_embeddings(self):
        folder = self.columns(1)
        self.remember(1001)
        self.stop()
        flip(folder / "embeddings.col", 300, 0xff)
        (folder / "parity.col").unlink()  # or it is mended, and degraded no more, before anybody looks
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        reply = self.cluster.ok("recall", embedding=f32([1] * 8), k=10 * ROWS, fields=[])
        self.assertFalse(reply["exact"])
        self.assertLessEqual(set(range(1001, 1001 + ROWS)), {hit["id"] for hit in reply["hits"]})
        self.assertTrue(self.cluster.await_state("degraded")["degraded"])
        self.assertGreater(self.cluster.ok("stats")["stats"]["column_damage"], 0)

    def test_a_damaged_block_of_contents(self):
        """Who asks for many hears of the others; what cannot be read is named, and is no answer to who asks for it alone."""
        folder = self.columns(1)
        self.remember(1001)
        self.stop()
        flip(folder / "content.col", 300, 0xff)
        (folder / "parity.col").unlink()
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        whole, hurt = set(range(1001, 1001 + ROWS)), set(range(1, 1 + ROWS))
        for op, key in (("list", "memories"), ("recall", "hits")):
            asked = {"list": {"limit": 1000}, "recall": {"embedding": f32([1] * 8), "k": 1000, "context": 1}}[op]
            found = self.cluster.ok(op, fields=["content", "tags"], **asked)[key]
            self.assertEqual({memory["id"] for memory in found}, whole | hurt)
            for memory in found + [other for hit in found for other in hit.get("before", [])]:
                if memory["id"] in hurt:
                    self.assertNotIn("content", memory)
                    self.assertEqual(memory["damaged"], ["content"])
                else:
                    self.assertEqual(memory["content"], f"content {memory['id']}")
                    self.assertNotIn("damaged", memory)
        self.assertTrue(self.cluster.await_state("degraded")["degraded"])
        self.assertGreaterEqual(self.cluster.ok("stats")["stats"]["column_damage"], 2 * ROWS)
        self.assertEqual(self.cluster.call("get", ids=[1001, 1])["code"], "corrupt")
        self.assertEqual(self.cluster.ok("get", ids=[1], fields=["at"])["memories"][0]["id"], 1)
        exported = self.mneme("export", self.cluster.base / "lines.jsonl")
        self.assertEqual(exported.returncode, 1, exported)
        self.assertFalse((self.cluster.base / "lines.jsonl").exists())

    def test_a_damaged_record_of_the_log(self):
        self.remember(1)
        self.stop()
        (log,) = [path for path in (self.cluster.dir / "wal").glob("*.wal") if b"content 50" in path.read_bytes()]
        flip(log, log.read_bytes().index(b"content 50"), 0xff)
        self.cluster.start(wait=False)
        self.cluster.await_state("degraded")
        self.assertEqual(self.ids(), set(range(1, 1 + ROWS)) - {50})
        notes = self.notes()
        self.assertTrue(any(note["first_seq"] <= 50 <= note["last_seq"] for note in notes), notes)
        self.assertTrue(any(key.endswith("/50") for note in notes for key in note["ids"]), notes)

    def test_one_copy_of_the_small_files_is_enough(self):
        """STORE, MANIFEST and the high-water mark: each damaged in another way, told of, and whole after the next start."""
        self.columns(1)
        self.columns(1001)
        self.stop()
        harms = (("STORE", lambda path: flip(path, 30, 0xff)), ("STORE.copy", lambda path: path.unlink()),
                 ("MANIFEST", lambda path: path.write_bytes(bytes(path.stat().st_size))),
                 ("MANIFEST.copy", lambda path: path.unlink()), ("wal/MARK", lambda path: cut(path, 512)))
        for name, harm in harms:
            harm(self.cluster.dir / name)
            self.assertEqual(self.verified(), {name.rpartition("/")[2]})
            self.cluster.start()
            self.assertEqual(self.ids(), set(range(1, 1 + ROWS)) | set(range(1001, 1001 + ROWS)))
            self.stop()
            self.assertEqual(self.verified(), set())
            self.assertTrue(list((self.cluster.dir / "quarantine").glob(f"healed-{name.rpartition('/')[2]}*.json")), name)

    def test_columns_that_are_cut_or_gone_are_made_again(self):
        cut_short, gone = self.columns(1), self.columns(1001)
        self.remember(2001)
        self.stop()
        cut(cut_short / "embeddings.col", (cut_short / "embeddings.col").stat().st_size - 1)
        (gone / "times.col").unlink()
        self.assertLessEqual({"embeddings.col", "times.col"}, self.verified())
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        for first in (1, 1001, 2001):
            reply = self.cluster.ok("get", ids=list(range(first, first + ROWS)), fields=["content"])
            self.assertEqual([memory["content"] for memory in reply["memories"]],
                             [f"content {i}" for i in range(first, first + ROWS)])

    def test_log_segments_that_are_gone_or_another_store_s(self):
        self.cluster.finish()
        self.cluster = Cluster(settings={"wal.segment_bytes": "1MiB", "compact.enabled": "no"})
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        for first in range(1, 10 * ROWS, ROWS):
            self.remember(first)
        self.stop()
        logs = sorted(path for path in (self.cluster.dir / "wal").glob("*.wal") if b"content" in path.read_bytes())
        self.assertGreater(len(logs), 2)
        lost = {int(number) for number in re.findall(rb"content (\d+)", logs[1].read_bytes())}
        logs[1].write_bytes(logs[0].read_bytes())
        self.assertIn(logs[1].name, self.verified())
        self.cluster.start(wait=False)
        self.assertTrue(self.cluster.await_state("degraded")["degraded"])
        ids = self.ids()
        self.assertEqual(ids, set(range(1, 1 + 10 * ROWS)) - lost)
        self.stop()
        logs[1].unlink()
        for note in (self.cluster.dir / "quarantine").iterdir():
            note.unlink()
        self.assertIn(logs[1].name, self.verified())
        self.cluster.start(wait=False)
        self.assertTrue(self.cluster.await_state("degraded")["degraded"])
        self.assertEqual(self.ids(), ids)
        self.assertTrue(any(note.get("first_seq", 0) <= min(lost) <= note.get("last_seq", 0) for note in self.notes()), self.notes())

    def test_a_snapshot_of_a_damaged_store_says_so(self):
        folder = self.columns(1)
        self.remember(1001)
        flip(folder / "content.col", 300, 0xff)
        copy, restored = self.cluster.base / "copy", self.cluster.base / "restored"
        self.assertGreater(self.cluster.ok("snapshot", path=str(copy), timeout_s=60 * PATIENCE)["damaged"], 0)
        refused = self.mneme("restore", copy, dir=restored)
        self.assertEqual(refused.returncode, 1, refused)
        self.assertIn("content.col", refused.stderr)
        self.assertFalse(restored.exists())
        taken = self.mneme("restore", "--force", copy, dir=restored)
        self.assertEqual(taken.returncode, 0, taken)
        self.assertIn("content.col", taken.stderr)


if __name__ == "__main__":
    unittest.main()
