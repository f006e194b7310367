"""Column files that rot, are cut or vanish, under a running store and a stopped one: nothing that can be made whole is lost,
nothing is served that nobody wrote, no worker dies, and info says degraded as long as it is true."""
import json
import os
import subprocess
import time
import unittest

import mneme
import mneme_attach

from cluster import PATIENCE, Cluster, f32, flip, poll_until, program

ROWS = 300
SETTINGS = {"compact.enabled": "no", "scrub.interval": "1s", "scrub.rate": "1GiB"}
IDLE = {**SETTINGS, "scrub.interval": "1h"}  # nobody looks for rot but those who meet it


def vector(i):
    return f32([i, 1, 2, i % 7, 0, 0, 0, i % 3])


class Rot(unittest.TestCase):
    def begin(self, settings, where=None):
        self.cluster = Cluster(settings=settings, dir=where)
        self.addCleanup(self.cluster.finish)
        self.cluster.start()
        for first in range(1, 1 + ROWS, 100):
            self.cluster.ok("remember", memories=[
                {"id": i, "embedding": vector(i), "content": f"content {i} " * 60, "tags": [f"t{i % 5}"]}
                for i in range(first, first + 100)])
        before = set((self.cluster.dir / "columns").iterdir())
        self.cluster.ok("consolidate", wait=True)
        (folder,) = set((self.cluster.dir / "columns").iterdir()) - before
        return folder

    def memories(self):
        found = self.cluster.ok("list", limit=10000, fields=["content", "tags", "embedding"])["memories"]
        return {m["id"]: (m["content"], m["tags"], m["embedding"]) for m in found}

    def everything_is_there(self, ids=range(1, 1 + ROWS)):
        self.assertEqual(self.memories(), {i: (f"content {i} " * 60, [f"t{i % 5}"], vector(i)) for i in ids})

    def becomes_whole(self):
        poll_until("verify finds nothing", lambda: not self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"], 60 * PATIENCE)
        self.cluster.await_state("ready")
        self.assertEqual(self.cluster.info()["degraded"], [])
        self.everything_is_there()

    def stat(self, name):
        return self.cluster.ok("stats")["stats"][name]

    def test_rot_under_a_running_store_is_mended(self):
        folder = self.begin(SETTINGS)
        for name in ("ids", "content", "embeddings", "idhash", "parity"):
            mended = self.stat("scrub_mended")
            flip(folder / f"{name}.col", 300)
            poll_until(f"{name}.col is mended", lambda: self.stat("scrub_mended") > mended, 60 * PATIENCE)
            self.becomes_whole()
        self.assertGreater(self.stat("scrub_bytes"), 0)
        self.assertGreater(self.stat("scrub_round_s"), time.time() - 3600)

    def test_damage_of_a_stopped_store_is_mended_after_the_start(self):
        folder = self.begin(SETTINGS)
        for name, hurt in (("born", lambda p: flip(p, 300)), ("strings", lambda p: p.unlink()),
                           ("times", lambda p: os.truncate(p, 100)), ("metaindex", lambda p: flip(p, 20)),
                           ("postings", lambda p: flip(p, p.stat().st_size - 2)), ("died", lambda p: flip(p, 2000))):
            self.cluster.check_stop(self.cluster.terminate())
            hurt(folder / f"{name}.col")
            self.cluster.start(wait=False)
            self.cluster.await_state("ready", "degraded")
            self.cluster.note_instance()
            self.everything_is_there()
            self.becomes_whole()

    def test_a_large_file_that_is_met_damaged_is_mended_at_once(self):
        folder = self.begin(IDLE)
        self.cluster.restart()
        flip(folder / "content.col", 3000)
        memories = self.cluster.ok("list", limit=10000, fields=["content"])["memories"]
        self.assertEqual(len(memories), ROWS)
        self.assertIn(["content"], [memory.get("damaged") for memory in memories])
        self.assertEqual(len(self.cluster.ok("list", limit=10000, fields=["tags"])["memories"]), ROWS)
        self.becomes_whole()

    def cut_under(self, ask):
        """A column is cut to nothing while workers have it mapped: calls fail with corrupt, or leave its rows out."""
        folder = self.begin(IDLE)
        self.cluster.ok("remember", memories=[{"id": 1000, "embedding": vector(5), "content": "fresh"}])
        self.assertEqual(len(self.memories()), ROWS + 1)
        worker = self.cluster.role("recall")["pid"]
        os.truncate(folder / "times.col", 0)
        ask()
        poll_until("served again", lambda: self.cluster.call("get", ids=[1000]).get("memories", [None])[0], 30 * PATIENCE)
        self.assertEqual(self.cluster.role("recall")["pid"], worker, "the worker died")
        self.cluster.ok("forget", ids=[1000])
        self.becomes_whole()
        self.assertEqual(self.cluster.role("recall")["pid"], worker, "the worker died")

    def test_a_column_cut_while_it_is_mapped(self):
        def ask():
            for _ in range(20):
                for op, fields in (("recall", {"embedding": vector(5), "k": 5}), ("list", {"limit": 1000, "fields": []}),
                                   ("count", {}), ("recall", {"embedding": vector(5), "k": 5, "exact": True})):
                    reply = self.cluster.call(op, **fields)
                    self.assertTrue(reply["ok"] or reply["code"] == "corrupt", reply)

        self.cut_under(ask)
        self.assertGreater(self.stat("recall_faults"), 0)

    def test_a_column_cut_while_a_program_is_attached(self):
        attached = []

        def ask():
            codes = set()
            for _ in range(20):
                try:
                    attached[0].recall(vector(5), k=5)
                    codes.add("ok")
                except mneme.MnemeError as error:
                    codes.add(error.code)
            self.assertLessEqual(codes, {"ok", "corrupt"})
            self.assertIn("ok", codes)

        plain_begin = self.begin

        def begin(settings, where=None):
            folder = plain_begin(settings, where)
            attached.append(mneme_attach.attach(str(self.cluster.dir)))
            self.addCleanup(attached[0].close)
            attached[0].recall(vector(5), k=5)
            return folder
        self.begin = begin
        self.cut_under(ask)

    def test_verify_says_what_it_means_and_what_to_do(self):
        folder = self.begin(IDLE)
        self.cluster.check_stop(self.cluster.terminate())
        told = subprocess.run([program("MNEME"), "--dir", self.cluster.dir, "verify"], capture_output=True, text=True)
        self.assertEqual(told.returncode, 0, told)
        flip(folder / "idhash.col", 300)
        flip(folder / "content.col", 300)
        quarantine = self.cluster.dir / "quarantine"
        quarantine.mkdir(exist_ok=True)
        (quarantine / "columns-9.json").write_text(json.dumps({"file": "columns/9", "reason": "it was rotten", "ids": []}))
        told = subprocess.run([program("MNEME"), "--dir", self.cluster.dir, "verify"], capture_output=True, text=True)
        self.assertEqual(told.returncode, 1, told)
        for word in ("idhash.col", "content.col", "what to do", "it was rotten"):
            self.assertIn(word, told.stdout)
        told = subprocess.run([program("MNEME"), "--dir", self.cluster.dir, "--json", "verify"], capture_output=True, text=True)
        pieces = {piece["file"].rsplit("/", 1)[1]: piece for piece in json.loads(told.stdout)["damaged"]}
        self.assertEqual(set(pieces), {"idhash.col", "content.col", "columns-9.json"}, "a note without its checksum is told of")
        self.assertTrue(all(piece["means"] and piece["next"] for piece in pieces.values()))
        (quarantine / "columns-9.json").unlink()
        self.cluster.start(wait=False)
        self.cluster.await_state("ready", "degraded")
        self.cluster.note_instance()
        self.becomes_whole()


if __name__ == "__main__":
    unittest.main()
