"""Files that rot while the store is stopped: what is whole stays available, what is not is told, nothing is thrown away."""
import json
import unittest

from cluster import Cluster, f32

ROWS = 100


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xff]))


class Damage(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(settings={"compact.enabled": "yes"})
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

    def ids(self):
        return {memory["id"] for memory in self.cluster.ok("list", limit=10000, fields=[])["memories"]}

    def test_a_missing_manifest_is_no_new_store(self):
        folder = self.columns(1)
        self.stop()
        manifest = self.cluster.dir / "MANIFEST"
        kept = manifest.read_bytes()
        manifest.unlink()
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
        flip(folder / "born.col", 300)
        (folder / "parity.col").unlink()
        self.cluster.start(wait=False)
        info = self.cluster.await_state("degraded")
        self.assertTrue(info["degraded"])
        ids = self.ids()
        self.assertLessEqual(set(range(1001, 1001 + ROWS)) | set(range(2001, 2001 + ROWS)), ids)
        self.assertTrue(any("born.col" in str(piece) for piece in self.cluster.ok("verify", timeout_s=60)["damaged"]))
        self.cluster.ok("remember", memories=[{"id": 5000, "embedding": f32([1] * 8)}])
        self.cluster.ok("consolidate", wait=True)
        self.assertIn(5000, self.ids())
        self.assertTrue((folder / "ids.col").exists(), "what is damaged is kept for a person to look at")

    def test_a_damaged_block_of_embeddings(self):
        folder = self.columns(1)
        self.remember(1001)
        self.stop()
        flip(folder / "embeddings.col", 300)
        self.cluster.start()
        reply = self.cluster.ok("recall", embedding=f32([1] * 8), k=10 * ROWS, fields=[])
        self.assertFalse(reply["exact"])
        self.assertLessEqual(set(range(1001, 1001 + ROWS)), {hit["id"] for hit in reply["hits"]})
        self.assertTrue(self.cluster.await_state("degraded")["degraded"])
        self.assertGreater(self.cluster.ok("stats")["stats"]["column_damage"], 0)

    def test_a_damaged_record_of_the_log(self):
        self.remember(1)
        self.stop()
        (log,) = [path for path in (self.cluster.dir / "wal").glob("*.wal") if b"content 50" in path.read_bytes()]
        flip(log, log.read_bytes().index(b"content 50"))
        self.cluster.start(wait=False)
        self.cluster.await_state("degraded")
        self.assertEqual(self.ids(), set(range(1, 1 + ROWS)) - {50})
        notes = [json.loads(path.read_text()) for path in (self.cluster.dir / "quarantine").glob("*.json")]
        self.assertTrue(any(note["first_seq"] <= 50 <= note["last_seq"] for note in notes), notes)
        self.assertTrue(any(key.endswith("/50") for note in notes for key in note["ids"]), notes)


if __name__ == "__main__":
    unittest.main()
