"""mneme restore: a damaged snapshot is refused before anything is made, or copied with a word on what is missing; nothing
is written over, and nothing is left behind."""
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import unittest

from cluster import PATIENCE, REPLY_S, Cluster, f32, poll_until, program
from test_damage import flip

IN_COLUMNS, IN_LOG = range(1, 101), range(101, 201)


def content(id):
    return f"content {id}."


def tree(folder):
    """Every path below a folder, with what the file holds."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class Restore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """One store, its snapshot of columns and log; each test works on a copy of that snapshot."""
        cls.cluster = Cluster(settings={"wal.segment_bytes": "1MiB"})
        cls.addClassCleanup(cls.cluster.finish)
        cls.cluster.start()
        cls.remember(IN_COLUMNS)
        cls.cluster.ok("consolidate", wait=True)
        cls.remember(IN_LOG)
        cls.made = cls.cluster.base / "made"
        cls.cluster.ok("snapshot", path=str(cls.made), timeout_s=60 * PATIENCE)

    @classmethod
    def remember(cls, ids):
        for id in ids:
            cls.cluster.ok("remember", memories=[{"id": id, "embedding": f32([id] * 8), "content": content(id)}])

    def setUp(self):
        self.folder = self.cluster.base / self._testMethodName
        self.snapshot, self.restored = self.folder / "snapshot", self.folder / "restored"
        shutil.copytree(self.made, self.snapshot)

    def command(self, *arguments, dir=None):
        return [program("MNEME"), "--dir", str(dir or self.restored), "restore", *map(str, arguments)]

    def restore(self, *arguments, dir=None, **how):
        return subprocess.run(self.command(*(arguments or (self.snapshot, )), dir=dir),
                              capture_output=True,
                              text=True,
                              timeout=REPLY_S,
                              env={**os.environ, **self.cluster.environment()},
                              **how)

    def assert_refused(self, done, *words):
        """Exit status 1 with these words, and nothing but the snapshot is in the folder."""
        self.assertEqual(done.returncode, 1, done)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["snapshot"])

    def start(self, *states):
        store = Cluster(dir=self.restored)
        self.addCleanup(store.finish)
        store.start(wait=False)
        store.await_state(*states)
        return {memory["id"]: memory["content"] for memory in store.ok("list", limit=1000, fields=["content"])["memories"]}

    def damage_the_log(self, id):
        (log, ) = [path for path in (self.snapshot / "wal").glob("*.wal") if content(id).encode() in path.read_bytes()]
        flip(log, log.read_bytes().index(content(id).encode()), 0xff)
        return log

    def test_a_whole_one(self):
        before = tree(self.snapshot)
        self.restored.mkdir()  # an empty folder will do, and so will a slash behind its name
        done = self.restore(self.snapshot, "--json", dir=f"{self.restored}/")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["damaged"], [])
        self.assertEqual(tree(self.snapshot), before)
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"snapshot", "restored"})
        self.assertEqual(self.start("ready"), {id: content(id) for id in (*IN_COLUMNS, *IN_LOG)})

    def test_a_damaged_one(self):
        log = self.damage_the_log(150)
        self.assert_refused(self.restore(), str(log), "missing then", "--force", "(corrupt)")
        done = self.restore(self.snapshot, "--json")
        self.assert_refused(done)
        told = json.loads(done.stdout)
        self.assertEqual((told["ok"], told["code"], [piece["file"] for piece in told["damaged"]]), (False, "corrupt", [str(log)]))
        done = self.restore(self.snapshot, "--force")
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(str(log), done.stderr)
        self.assertEqual(self.start("degraded"), {id: content(id) for id in (*IN_COLUMNS, *IN_LOG) if id != 150})

    def test_nothing_is_made_of_what_cannot_be_read(self):
        for harm in (lambda path: path.write_bytes(b"x" * 100), lambda path: path.unlink()):
            for name in ("MANIFEST", "STORE"):
                for copy in (name, f"{name}.copy"):
                    harm(self.snapshot / copy)
                for force in ((), ("--force", )):
                    self.assert_refused(self.restore(self.snapshot, *force), str(self.snapshot))
                for copy in (name, f"{name}.copy"):
                    shutil.copy(self.made / copy, self.snapshot / copy)
        self.assert_refused(self.restore(self.folder / "none"), "none")

    def test_nothing_is_written_over(self):
        self.restored.mkdir()
        (self.restored / "thesis").write_text("years")
        (self.folder / "file").write_text("mine")
        (self.folder / "link").symlink_to(self.folder / "nothing")
        before = tree(self.folder)
        for place in (self.restored, self.folder / "file", self.folder / "link", self.snapshot, "/proc"):
            for force in ((), ("--force", )):
                done = self.restore(self.snapshot, *force, dir=place)
                self.assertEqual(done.returncode, 1, (place, done))
                self.assertIn("(exists)", done.stderr)
        self.assertIn("mounted", done.stderr)
        self.assertEqual(tree(self.folder), before)

    def test_a_running_store_is_no_snapshot(self):
        self.assert_refused(self.restore(self.cluster.dir), "mnemed runs on", "(busy)")

    def test_a_full_disk_leaves_nothing(self):
        def small_files():  # a write above that fails as one to a full disk does; Python ignores SIGXFSZ
            resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, 512 << 10))

        done = self.restore(preexec_fn=small_files, restore_signals=False)
        self.assert_refused(done, os.strerror(27))

    def test_an_interrupted_one_leaves_nothing(self):
        (columns, ) = (self.snapshot / "columns").iterdir()
        os.mkfifo(columns / "slow")  # copied as all that lies there, and waits for us
        for number in (signal.SIGINT, signal.SIGTERM):
            running = subprocess.Popen(self.command(self.snapshot),
                                       stderr=subprocess.PIPE,
                                       text=True,
                                       env={**os.environ, **self.cluster.environment()})
            poll_until("the copy is being made", lambda: (self.folder / f"restored.mneme-copy/columns/{columns.name}").exists())
            running.send_signal(number)
            poll_until("the signal was taken", lambda: self.taken(running.pid, number))
            poll_until("it has ended", lambda: self.let_go(running, columns / "slow"))
            told = running.communicate(timeout=REPLY_S)[1]
            self.assert_refused(subprocess.CompletedProcess((), running.returncode, "", told), "interrupted")

    @staticmethod
    def let_go(running, fifo):
        """Ends the wait of who reads the fifo, if it has come that far. True when the process is gone."""
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass  # nobody reads
        return running.poll() is not None

    @staticmethod
    def taken(pid, number):
        """Not pending any more, and no longer caught: a second one would end the process at once."""
        with open(f"/proc/{pid}/status") as status:
            masks = dict(line.split(":\t") for line in status.read().splitlines() if ":\t" in line)
        bit = 1 << (number - 1)
        return not any(int(masks[name], 16) & bit for name in ("SigPnd", "ShdPnd", "SigCgt"))

    def test_progress_on_a_terminal(self):
        ours, theirs = pty.openpty()
        running = subprocess.Popen(self.command(self.snapshot), stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:
            pass  # the other side was closed
        os.close(ours)
        self.assertEqual(running.wait(REPLY_S), 0, shown)
        self.assertIn(b"restore  [", shown)
        self.assertTrue(shown.endswith(b"\x1b[K"), shown)


if __name__ == "__main__":
    unittest.main()
