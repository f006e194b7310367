"""recording.py - a store at work on a disk that keeps a diary, and what its clients were told, and when.

Several clients, each a process with a space of its own, write in bursts; one more consolidates and takes snapshots. Each
deed is noted with the position of the diary when it was sent and when its answer was there: in every state that is cut at
or after that second position the deed has happened.
"""

import dataclasses
import multiprocessing
import pickle
import random
import time
import traceback

from cluster import REPLY_S, Cluster, Peer
from diary import copy_sparse
from disk import Disk, make_image
from fault_load import Load, Request

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "wal.prepared": 2, "compact.interval": "50ms",
    "compact.min_rows": 64, "compact.fanout": 2, "history.window": "100ms", "index.rows_min": 200, "disk.reserve": 0
}
CLIENTS = 3
DIM = 24


@dataclasses.dataclass
class Deed:
    """A request and its answer. Between `sent` and `acked` nobody knows whether it has happened."""

    sent: int
    acked: int
    request: Request
    reply: dict


@dataclasses.dataclass
class Recording:
    """All there is to know about one run. The folder also holds `image`, what the disk was before, and `diary`."""

    seed: str
    file_system: str
    length: int  # entries of the diary while the load went on
    clients: dict  # space -> its deeds, in their order
    snapshots: list  # deeds
    consolidations: int


class Client(Load):
    def __init__(self, cluster, disk, number, seed):
        super().__init__(cluster, seed, (f"c{number}", ))
        self.disk, self.deeds = disk, []

    def idem(self):
        """Keys are the store's, not the space's."""
        return f"{self.spaces[0]}.{super().idem()}"

    def memory(self, space, **fields):
        """Some are so long that a torn write can cut them anywhere."""
        made = super().memory(space, **fields)
        if self.rng.random() < 0.1:
            made["content"] += "." * int(self.rng.integers(20000))
            self.contents.get((space, made.get("id")), [None])[-1] = made["content"]
        return made

    def send(self, requests):
        assert not self.doubtful, f"not answered: {self.doubtful[0].fields}"
        self.peer = self.peer or Peer(self.cluster.endpoint("write"))
        sent = self.disk.position()
        for number, request in enumerate(requests):
            self.peer.send(request.wire(number))
        replies = []
        while len(replies) < len(requests):
            reply = self.peer.receive(REPLY_S)
            replies.append((self.disk.position(), requests[reply["rid"]], reply))
        for acked, request, reply in sorted(replies, key=lambda row: row[2].get("seq", 0)):
            self.take_reply(request, reply)
            if reply["ok"]:
                self.deeds.append(Deed(sent, acked, request, reply))

    def live(self, until):
        while time.monotonic() < until:
            self.purge() if self.rng.random() < 0.03 else self.burst(1 + int(self.rng.integers(8)))
        self.hang_up()
        return self.deeds


class Keeper:
    """Consolidates now and then, and takes snapshots."""
    def __init__(self, cluster, disk, seed):
        self.cluster, self.disk, self.rng = cluster, disk, random.Random(seed)

    def live(self, until):
        snapshots, consolidations = [], 0
        with Peer(self.cluster.endpoint("control")) as peer:
            while time.monotonic() < until:
                time.sleep(self.rng.random() * 0.2)
                if self.rng.random() < 0.6:
                    assert peer.ask({"op": "consolidate", "wait": True})["ok"]
                    consolidations += 1
                    continue
                sent, path = self.disk.position(), str(self.cluster.dir.parent / f"s{len(snapshots)}")
                reply = peer.ask({"op": "snapshot", "path": path})
                assert reply["ok"], f"snapshot: {reply}"
                snapshots.append(Deed(sent, self.disk.position(), Request("snapshot", "", space="", path=path), reply))
        return snapshots, consolidations


def work(actor, until, results, name):
    try:
        results.put((name, actor.live(until), None))
    except BaseException:
        results.put((name, None, traceback.format_exc()))


def record(folder, file_system, seed, seconds):
    """Lets a new store work for so long. Leaves the recording in `folder`, with the files that keep() names."""
    folder.mkdir()
    make_image(folder / "image", file_system)
    copy_sparse(folder / "image", folder / "used")
    disk = Disk(folder / "disk", folder / "used").start()
    cluster = Cluster(dim=DIM, settings=SETTINGS, dir=disk.files / "d")
    try:
        assert disk.mount(file_system), f"a fresh {file_system} cannot be mounted"
        cluster.start()
        done = act(cluster, disk, seed, seconds)
        length = disk.position()
    finally:
        if cluster.process:
            cluster.kill_everything()
        cluster.finish()
        disk.stop()
    snapshots, consolidations = done.pop("keeper")
    recording = Recording(seed, file_system, length, done, snapshots, consolidations)
    (folder / "deeds").write_bytes(pickle.dumps(recording))
    disk.diary.rename(folder / "diary")
    (folder / "used").unlink()
    return recording


def act(cluster, disk, seed, seconds):
    """Everyone at work at once; name -> what came of it."""
    rng = random.Random(seed)
    actors = {f"c{n}": Client(cluster, disk, n, rng.randrange(2**32)) for n in range(CLIENTS)}
    actors["keeper"] = Keeper(cluster, disk, rng.random())
    until, results, done = time.monotonic() + seconds, multiprocessing.Queue(), {}
    workers = [multiprocessing.Process(target=work, args=(a, until, results, n), daemon=True) for n, a in actors.items()]
    for worker in workers:
        worker.start()
    for _ in workers:
        name, outcome, trouble = results.get(timeout=seconds + 4 * REPLY_S)
        assert not trouble, f"{name}: {trouble}\n{cluster.log_tail()}"
        done[name] = outcome
    for worker in workers:
        worker.join()
    return done


def read_recording(folder):
    return pickle.loads((folder / "deeds").read_bytes())


def keep(folder, target):
    """What is needed to make the states of a recording again."""
    target.mkdir(parents=True)
    for name in ("image", "diary", "deeds"):
        copy_sparse(folder / name, target / name)
