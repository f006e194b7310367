"""guest.py - runs in a machine with several NUMA nodes, beside mnemed, and compares what it finds with what must be.

    guest.py DIR NODE...     the nodes whose CPUs mnemed was given; with `-` behind those without memory

Tells on stdout, a serial line, line by line:
    fact SENTENCE        something is as it must be
    bad KIND SENTENCE    it is not; KIND as in the report line
    checked              the end of the story
"""

import contextlib
import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import msgpack
import zmq

import mneme

DIM, FEW, MANY, QUERIES = 64, 600, 3000, 20  # MANY: so many more than FEW that the codebook is made anew
PATIENCE_S = 240.0  # an emulated machine is slow
SETTINGS = Path("/s/settings")
NODES = Path("/sys/devices/system/node")


def tell(*words):
    print(*words, flush=True)


def check(fine, sentence, kind="misplaced", found=""):
    tell("fact" if fine else f"bad {kind}", sentence, "" if fine else found)
    if not fine:
        sys.exit(1)


def until(sentence, wanted, seen):
    """Waits until wanted() is true; the sentence is a fact then. seen(): what there is instead."""
    end = time.monotonic() + PATIENCE_S
    while not wanted():
        if time.monotonic() > end:
            check(False, sentence, found=seen())
        time.sleep(0.05)
    check(True, sentence)


def numbers(path):
    """The numbers of a list as the kernel writes them: 0,2-3."""
    found = set()
    for stretch in (NODES / path).read_text().strip().split(","):
        first, _, last = stretch.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def cpus_of(node):
    return numbers(f"node{node}/cpulist")


@contextlib.contextmanager
def running_on(node):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus_of(node))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Story:
    def __init__(self, folder, nodes):
        self.dir = Path(folder)
        self.nodes = [int(node.rstrip("-")) for node in nodes]  # one worker on each
        self.homes = [int(node) for node in nodes if not node.endswith("-")]  # one copy on each
        self.client = mneme.open(folder, timeout_s=PATIENCE_S)
        self.random = random.Random(7)
        self.centres = [[self.random.gauss(0, 1) for _ in range(DIM)] for _ in range(12)]
        self.rows = 0
        self.queries = []  # the first memories themselves: each is what is nearest to it

    def embedding(self):
        return [x + self.random.gauss(0, 0.3) for x in self.random.choice(self.centres)]

    def fill(self, rows):
        """Up to so many memories, in columns."""
        while self.rows < rows:
            embeddings = [self.embedding() for _ in range(min(300, rows - self.rows))]
            self.client.remember_batch([
                dict(id=self.rows + i + 1, embedding=embedding, content=f"c{self.rows + i + 1}")
                for i, embedding in enumerate(embeddings)
            ])
            self.rows += len(embeddings)
            self.queries = self.queries or embeddings[:QUERIES]
        self.client.consolidate(timeout_s=PATIENCE_S)

    # ---- what is there

    def info(self):
        return self.client.info(timeout_s=PATIENCE_S)

    def workers(self):
        """The recall workers that are ready, by their node."""
        roles = self.info()["roles"]
        return {r["node"]: r for r in roles if r["role"] == "recall" and r["state"] == "ready"}

    def copies(self):
        """(segment, codebook, node) of each hot copy."""
        folder = Path((self.dir / "run" / "instance").read_text().strip())
        names = (re.fullmatch(r"hot\.(\d+)\.(\d+)\.(\d+)", name) for name in os.listdir(folder))
        return {tuple(map(int, name.groups())) for name in names if name}

    def copies_bytes(self):
        folder = Path((self.dir / "run" / "instance").read_text().strip())
        return sum((folder / f"hot.{s}.{c}.{n}").stat().st_blocks * 512 for s, c, n in self.copies())

    def copied(self):
        """True when every segment has its codes and its copy on each node, and nothing else has."""
        stats, copies = self.client.stats(), self.copies()
        files = {(segment, codebook) for segment, codebook, _ in copies}
        wanted = {(*file, node) for file in files for node in self.homes}
        return stats["ivf_rows"] == self.rows and stats["hot_refused"] == 0 and copies == wanted and \
            len(files) == stats["column_segments"] and len({segment for segment, _ in files}) == len(files)

    def state(self):
        """For whoever reads what was not as it must be."""
        stats = self.client.stats()
        names = ("ivf_rows", "column_segments", "hot_bytes", "hot_refused", "memory_budget_bytes")
        return self.rows, {name: stats[name] for name in names}, sorted(self.copies())

    def home_of(self, node):
        """Whose copies one takes who runs there."""
        return node if node in self.homes else min(self.homes)

    # ---- asking

    def ask_worker(self, index, query):
        """What one worker answers."""
        context = zmq.Context.instance()
        with context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(self.info()["endpoints"]["recall"][index])
            socket.send(msgpack.packb({"op": "recall", "embedding": query, "k": 10}))
            if not socket.poll(int(PATIENCE_S * 1000)):
                check(False, f"recall worker {index} answers", "crashes")
            reply = msgpack.unpackb(socket.recv())
        check(reply["ok"], f"recall worker {index} answers", "crashes", reply) if not reply["ok"] else None
        return [(hit["id"], hit["score"], hit["content"]) for hit in reply["hits"]]

    def truth(self):
        return [[(hit.id, hit.score, hit.content) for hit in self.client.recall(query, exact=True)]
                for query in self.queries]

    # ---- comparing

    def look_at_worker(self, node, worker):
        pid, cpus = worker["pid"], cpus_of(node)
        threads = {task: os.sched_getaffinity(int(task)) for task in os.listdir(f"/proc/{pid}/task")}
        check(all(allowed == cpus for allowed in threads.values()),
              f"the worker of node {node} keeps to its CPUs with its {len(threads)} threads", found=threads)
        preferred = set(re.findall(r"prefer:(\S+)", Path(f"/proc/{pid}/numa_maps").read_text()))
        check(str(node) in preferred if node in self.homes else True,
              f"the worker of node {node} prefers its memory", found=preferred)

    def look_at_maps(self, node, pid, who):
        """Every copy it has mapped is its node's and lies there; all there are."""
        home, mapped = self.home_of(node), set()
        for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
            name = re.search(r"file=\S*/hot\.(\d+)\.(\d+)\.(\d+)", line)
            if not name:
                continue
            pages = {int(n): int(count) for n, count in re.findall(r" N(\d+)=(\d+)", line)}
            mapped.add(tuple(map(int, name.groups())))
            # The page of its head was there before it had a place.
            strange = sum(count for n, count in pages.items() if n != home)
            check(int(name[3]) == home and strange <= 1 < pages.get(home, 0),
                  f"what {who} on node {node} has mapped lies on node {home}", found=line)
        wanted = {copy for copy in self.copies() if copy[2] == home}
        check(mapped == wanted, f"{who} on node {node} has mapped the {len(wanted)} copies of node {home}", found=mapped)

    def look(self):
        """All that must hold while nothing changes."""
        until("each segment has a hot copy on each node with memory, and nothing else has", self.copied, self.state)
        workers, truth = self.workers(), self.truth()
        check(sorted(workers) == self.nodes, f"there is a worker on each of the nodes {self.nodes}", found=workers)
        for node, worker in workers.items():
            answers = [self.ask_worker(worker["index"], query) for query in self.queries]
            check([answer[0] for answer in answers] == [answer[0] for answer in truth],
                  f"the worker of node {node} finds what is nearest", "wrong")
            found = sum(len(set(a) & set(b)) for a, b in zip(answers, truth))
            check(found >= 0.9 * sum(map(len, truth)), f"the worker of node {node} finds the others too", "wrong", found)
            first = answers if node == self.nodes[0] else first
            check(answers == first, f"the worker of node {node} answers as the first does", "wrong")
            self.look_at_worker(node, worker)
            self.look_at_maps(node, worker["pid"], "the worker")
        for node in numbers("has_cpu"):
            with running_on(node), mneme.attach(self.dir) as attached:
                hits = [[(h.id, h.score, h.content) for h in attached.recall(query).hits] for query in self.queries]
                check(hits == first, f"a program attached on node {node} finds what the workers do", "wrong")
                self.look_at_maps(node, os.getpid(), "an attached program")
        stats = self.client.stats()
        check(stats["hot_bytes"] == self.copies_bytes(), "hot_bytes are the bytes of the copies on all nodes",
              found=(stats["hot_bytes"], self.copies_bytes()))

    # ---- the story

    def kill_each(self):
        for node, worker in self.workers().items():
            os.kill(worker["pid"], signal.SIGKILL)
            for _ in range(4):  # of any worker: the client goes on to the next
                check(len(self.client.recall(self.queries[0])) == 10, "a recall while a worker is down is answered")
            until(f"the worker of node {node} comes back there",
                  lambda: self.workers().get(node, worker)["pid"] != worker["pid"], self.workers)
            check(self.workers()[node]["restarts"] == 1, f"its one restart is told")
        self.look()

    def renew(self):
        """New segments, on a new codebook: nothing that belonged to the old is left on any node."""
        old = self.copies()
        self.fill(MANY)
        until("the codebook is made anew, and the copies of what was coded with the old one are gone",
              lambda: not {codebook for _, codebook, _ in old} & {codebook for _, codebook, _ in self.copies()}, self.state)
        self.look()
        old = {segment for segment, _, _ in self.copies()}
        self.client.forget([self.rows], mode="purge", timeout_s=PATIENCE_S)
        self.rows -= 1
        check(old - {segment for segment, _, _ in self.copies()},
              "the copies of the segment that a purge has rewritten are gone when it is answered")
        self.look()

    def squeeze(self):
        """A budget that would hold the copies of one node, and not of all."""
        truth = self.truth()
        self.set_budget(self.copies_bytes() - 4096)
        until("a budget that is too small for the copies of all nodes is kept",
              lambda: self.client.stats()["hot_refused"] > 0 and self.copies_bytes() < self.budget, self.state)
        check(self.truth() == truth, "recalls through the files find the same", "wrong")
        self.set_budget(0)
        self.look()

    def set_budget(self, budget):
        self.budget = budget
        SETTINGS.write_text(f"[memory]\nbudget = {budget}\n")
        self.client.reload()

    def tell_all(self):
        self.fill(FEW)
        self.look()
        self.kill_each()
        self.renew()
        if len(self.homes) > 1:
            self.squeeze()
        state = self.info()["state"]
        check(state == "ready", "the store is ready at the end", "crashes", state)
        tell("checked")


if __name__ == "__main__":
    try:
        Story(sys.argv[1], sys.argv[2:]).tell_all()
    except Exception:  # pylint: disable=broad-except
        tell("bad crashes", traceback.format_exc().replace("\n", " | "))
