"""larger_than_memory.py - a store whose embeddings are several times what memory holds: does it still answer, and how fast?

    MNEMED=build/release/bin/mnemed python3 tests/bench/larger_than_memory.py [--limit-mib 256] [--times 4] [--dim 768]
                                                                              [--queries 2000] [--rows FILE.f32] [--dir DIR]

Builds a store whose embeddings take `times` x the limit, stops it as soon as all is coded, drops its files from the
page cache, and starts it again in a control group that may use `limit` bytes, shared memory and page cache included
(memory.max, without swap; of version 1 memory.limit_in_bytes). Then asks, twice: while the compactor trains the codebook
that so many rows want, codes them anew and calibrates, where the first queries find everything on disk; and when it has
settled. Printed are recall@10 against brute force, latencies, bytes read, and what the group says of its memory. A process that
was killed for memory, or an answer that is short, ends it with status 1; where no control group can be made (it needs
root), it says so and ends with status 0.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

from cluster import Cluster, f32  # noqa: E402  (the path is set above)

BATCH = 64
K = 10
COLD = 200  # the first queries, told apart
TRUTH = 200  # queries that brute force answers too
QUIET_S = 20  # without a change: the compactor has settled
SETTLE_MAX_S = 3600


def tell(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Group:
    """A control group with a limit on memory, of whichever version the machine has."""
    ROOTS = ((Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
             (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"))

    def __init__(self, limit):
        why = "none is mounted"
        for root, limit_file, self.peak_file in self.ROOTS:
            self.path = root / f"mneme-bench-{os.getpid()}"
            try:
                if root.name == "cgroup" and "memory" not in (root / "cgroup.controllers").read_text().split():
                    raise OSError("version 2 without the memory controller")
                self.path.mkdir()
            except OSError as error:
                why = error
                continue
            try:
                (self.path / limit_file).write_text(str(limit))
                if (self.path / "memory.swap.max").exists():
                    (self.path / "memory.swap.max").write_text("0")
                return
            except OSError as error:
                why = error
                self.path.rmdir()
        raise OSError(f"no control group with a limit on memory can be made here ({why})")

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        file = self.path / self.peak_file
        return int(file.read_text()) if file.exists() else 0

    def killed(self):
        """Processes that were killed for memory."""
        for name in ("memory.events", "memory.oom_control"):
            if (self.path / name).exists():
                words = dict(line.split()[:2] for line in (self.path / name).read_text().splitlines())
                return int(words.get("oom_kill", 0))
        return 0

    def remove(self):
        for _ in range(100):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.05)


def rows_of(options, first, count):
    """Rows of a file, or of a mixture: 1,000 centres on a slope of variances, as embeddings of text have."""
    if options.rows:
        return np.fromfile(options.rows, "<f4").reshape(-1, options.dim)[first:first + count]
    slope = (1 + np.arange(options.dim))**-0.5
    centres = np.random.default_rng(7).standard_normal((1000, options.dim), "f4") * slope.astype("f4")
    rng = np.random.default_rng(8 + first)
    rows = np.empty((count, options.dim), "f4")
    for begin in range(0, count, 50_000):
        part = rows[begin:begin + 50_000]
        part[:] = rng.standard_normal(part.shape, "f4") * (0.7 * slope).astype("f4")
        part += centres[rng.integers(0, len(centres), len(part))]
    return rows


def build(options, rows):
    kept = options.dir and (Path(options.dir) / "STORE").exists()
    store = Cluster(dim=options.dim, settings={"history.window": "0s"}, dir=options.dir).start()
    if kept:
        tell(f"{options.dir} holds {store.ok('count', space=None)['count']} rows already")
        return store
    for begin in range(0, len(rows), BATCH):
        memories = [{"id": begin + i + 1, "embedding": f32(row)} for i, row in enumerate(rows[begin:begin + BATCH])]
        while not store.call("remember", memories=memories).get("ok"):
            time.sleep(0.05)
    tell(f"{len(rows)} rows stored; making columns and codes")
    store.ok("consolidate", wait=True, timeout_s=1800)
    give_up = time.monotonic() + 1800
    while store.ok("stats")["stats"]["ivf_rows"] < len(rows) and time.monotonic() < give_up:
        time.sleep(1)
    return store


def drop_cached(folder):
    os.sync()
    for path in Path(folder).rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def read_bytes(store):
    """What the recall worker has read from disk."""
    return int(dict(line.split(": ") for line in Path(f"/proc/{store.role('recall')['pid']}/io").read_text().splitlines())
               ["read_bytes"])


def ask(store, queries, **options):
    """(ids of each answer, the worker's microseconds, the client's)."""
    ids, us, client_us = [], [], []
    for query in queries:
        begin = time.perf_counter()
        reply = store.ok("recall", embedding=f32(query), k=K, fields=[], timeout_s=120, **options)
        client_us.append((time.perf_counter() - begin) * 1e6)
        us.append(reply["us"])
        ids.append([hit["id"] for hit in reply["hits"]])
    return ids, us, client_us


def truth_of(rows, queries):
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    best = np.full((len(unit), K), -np.inf)
    ids = np.zeros((len(unit), K), "i8")
    for begin in range(0, len(rows), 50_000):
        part = rows[begin:begin + 50_000]
        scores = unit @ (part / np.linalg.norm(part, axis=1, keepdims=True)).T
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        both = np.hstack([best, np.take_along_axis(scores, top, 1)])
        which = np.hstack([ids, top + begin + 1])
        order = np.argsort(-both, axis=1)[:, :K]
        best, ids = np.take_along_axis(both, order, 1), np.take_along_axis(which, order, 1)
    return ids


def row_of(name, us, client_us):
    quantile = lambda list, q: float(np.quantile(list, q))  # noqa: E731
    print(f"{name:<26} {len(us):>7} {quantile(us, .5):>9.0f} {quantile(us, .99):>9.0f} {max(us):>9.0f}"
          f" {quantile(client_us, .5):>9.0f} {quantile(client_us, .99):>9.0f}")


def start_within(store, group):
    store.process = None
    store.environment = lambda: {**os.environ, "MNEME_TEST_CLUSTER": str(store.base)}
    popen = subprocess.Popen
    subprocess.Popen = lambda *args, **named: popen(*args, preexec_fn=group.enter, **named)
    try:
        store.start()
    finally:
        subprocess.Popen = popen


def look(store):
    """What the compactor has come to, and the process that works on it."""
    index, stats = store.info()["index"], store.ok("stats")["stats"]
    return (index["codebook"], index["coded_rows"], index["calibrated_rows"], stats["compact_runs"],
            stats["ivf_failures"], store.role("compactor")["pid"])


def await_settled(store, rows):
    """Until all rows are coded and recall is calibrated for them, and nothing has moved for a while."""
    begin = since = time.monotonic()
    last = None
    while time.monotonic() - since < QUIET_S:
        now = look(store)
        if now != last or now[1] < rows or abs(now[2] - rows) > rows / 5:
            last, since = now, time.monotonic()
        if time.monotonic() - begin > SETTLE_MAX_S:
            raise AssertionError(f"not settled after {SETTLE_MAX_S} s: {last}\n{store.log_tail()}")
        time.sleep(0.2)
    return since - begin, last[0]


def phase(store, name, queries, **options):
    """Asks, prints a line of the table and what was read; gives the answers."""
    before = read_bytes(store)
    ids, us, client_us = ask(store, queries, **options)
    row_of(name, us, client_us)
    print(f"{'':<26} {(read_bytes(store) - before) / len(queries) / 1024:.0f} KiB read a query", flush=True)
    return ids


def recall_of(answers, truth):
    return np.mean([len(set(a) & set(t)) / len(t) for a, t in zip(answers, truth)])


def measure(options, store, group, rows, queries):
    limit = options.limit_mib << 20
    truth = truth_of(rows, queries[:TRUTH])
    start_within(store, group)
    print(f"{len(rows)} x {options.dim}: embeddings {rows.nbytes >> 20} MiB, {rows.nbytes / limit:.1f} x the limit of "
          f"{options.limit_mib} MiB; load {os.getloadavg()[0]:.1f}")
    print(f"{'':<26} {'queries':>7} {'p50 us':>9} {'p99 us':>9} {'max us':>9} {'client p50':>9} {'p99':>9}")
    working = phase(store, "compactor works: cold", queries[:COLD]) + phase(store, "then", queries[COLD:])
    print(f"{'':<26} recall@10 {recall_of(working, truth):.3f}; killed for memory {group.killed()}", flush=True)
    seconds, codebook = await_settled(store, len(rows))
    print(f"settled after another {seconds:.0f} s, codebook {codebook}; killed for memory {group.killed()}; "
          f"load {os.getloadavg()[0]:.1f}", flush=True)
    settled = phase(store, "settled", queries)
    again = phase(store, "the same again", queries)
    exact = phase(store, "exact", queries[:3], exact=True)
    stats = store.ok("stats")["stats"]
    exact_recall = recall_of(exact, truth)
    print(f"recall@10 {recall_of(settled, truth):.3f}, exact {exact_recall:.3f}; peak of the group "
          f"{group.peak() >> 20} MiB; hot copies {stats['hot_bytes'] >> 20} MiB of a budget of "
          f"{stats['memory_budget_bytes'] >> 20} MiB, {stats['hot_refused']} segments without; killed for memory "
          f"{group.killed()}; load {os.getloadavg()[0]:.1f}")
    short = sum(len(answer) != K for answer in working + settled + again)
    return group.killed() == 0 and short == 0 and exact_recall > 0.99 and all(r["restarts"] == 0
                                                                              for r in store.info()["roles"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, value in (("limit-mib", 256), ("times", 4), ("dim", 768), ("queries", 2000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dir", help="keep the store in this folder, and use what is there")
    parser.add_argument("--rows", help="raw little-endian f32 instead of made-up rows")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through what tidies up
    try:
        group = Group(options.limit_mib << 20)
    except OSError as error:
        print(f"skipped: {error}")
        return 0
    store = None
    try:
        count = (options.limit_mib << 20) * options.times // (4 * options.dim)
        rows, queries = rows_of(options, 0, count), rows_of(options, count, options.queries)
        store = build(options, rows)
        store.check_stop(store.terminate())
        drop_cached(store.dir)
        return 0 if measure(options, store, group, rows, queries) else 1
    finally:
        try:
            if store:
                store.finish()
        finally:
            group.remove()


if __name__ == "__main__":
    sys.exit(main())
