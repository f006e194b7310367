"""fresh.py - what memories that were just written cost a recall.

    MNEMED=build/release/bin/mnemed python3 tests/bench/fresh.py BASE.f32 DIM QUERIES.f32 [base rows = 100000]

The first table: a compacted base, and 0, 1k, 10k, 100k memories in the tail over it, which compaction is told to leave
there; asked as soon as they are acknowledged, and again when the coder has settled and recall is calibrated. The second: the quiet store, the same
with a stream of memories coming in for half a minute (as fast as 10,000/s, in requests of 100) while compaction runs,
and the store that this has made, quiet again. `best`: the worker's own microseconds (the reply's `us`), of each query the fastest of all rounds, which is what the
search costs; `worker` and `client` are what was seen: the median over rounds of their p50 and p99, whatever else the
machine had to do. The rows of the tail are the file's next ones, from the beginning again (with a little noise) when it
ends.
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

from cluster import Cluster, Peer, f32, poll_until  # noqa: E402  (the path is set above)

BATCH = 100
ROUNDS = 5
TAILS = (0, 1000, 10000, 100000)
STREAM_RATE = int(os.environ.get("FRESH_RATE", "10000"))
STREAM_S = float(os.environ.get("FRESH_SECONDS", "30"))


def tell(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Rows:
    def __init__(self, path, dim):
        self.all = np.memmap(path, dtype="<f4", mode="r").reshape(-1, dim)

    def row(self, i):
        x = self.all[i % len(self.all)]
        if i < len(self.all):
            return x
        rng = np.random.default_rng(i)
        return x + rng.standard_normal(len(x)).astype("f4") * (0.1 * np.linalg.norm(x) / len(x)**0.5)

    def request(self, first, count):
        return {"op": "remember", "memories": [{"id": i + 1, "embedding": f32(self.row(i))} for i in
                                               range(first, first + count)]}


def remember(store, rows, first, count):
    with Peer(store.endpoint("write")) as peer:
        for at in range(first, first + count, BATCH):
            while not peer.ask(rows.request(at, min(BATCH, first + count - at)), 60)["ok"]:
                time.sleep(0.02)


def stats(store):
    return store.ok("stats")["stats"]


class Asked:
    """Rounds of queries: p50 and p99 of both clocks, recall."""
    def __init__(self):
        self.us, self.client, self.found, self.wanted = [], [], 0, 0

    def round(self, peer, queries, truth=None):
        us, client = [], []
        for q, query in enumerate(queries):
            began = time.perf_counter()
            reply = peer.ask({"op": "recall", "embedding": f32(query), "k": 10}, 60)
            client.append((time.perf_counter() - began) * 1e6)
            us.append(reply["us"])
            if truth:
                self.found += len(truth[q] & {hit["id"] for hit in reply["hits"]})
                self.wanted += len(truth[q])
        self.us.append(us)
        self.client.append(client)

    def line(self):
        def pair(rounds):
            p50, p99 = (np.median([np.percentile(r, p) for r in rounds]) for p in (50, 99))
            return f"{p50:7.0f} {p99:7.0f}"

        recall = f"{self.found / self.wanted:6.3f}" if self.wanted else "     -"
        best = np.min([us[:min(map(len, self.us))] for us in self.us], axis=0)
        return f"{recall} | {pair([best])} | {pair(self.us)} | {pair(self.client)}"


def ask(store, queries, with_truth=True, rounds=ROUNDS):
    asked, truth = Asked(), None
    with Peer(store.endpoint("recall")) as peer:
        if with_truth:
            few = queries[:200]
            truth = [{hit["id"] for hit in peer.ask({"op": "recall", "embedding": f32(q), "k": 10, "exact": True},
                                                    60)["hits"]} for q in few]
        for n in range(rounds):
            if truth and n == 0:
                counted = Asked()
                counted.round(peer, few, truth)
                asked.found, asked.wanted = counted.found, counted.wanted
            asked.round(peer, queries)
    return asked


def await_coded(store):
    def coded():
        now = stats(store)
        return now["tail_coded_rows"] > now["tail_rows"] - 32 * (now["wal_segments"] + 1)

    poll_until("coded", coded, 60)


def await_clustered(store):
    """As many rows as will be by cluster, are."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 2:
        now = stats(store)["tail_clustered_rows"]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.1)


def await_calibrated(store):
    """Recall is calibrated for what is searched, on a codebook that stays."""
    last, since, until = None, time.monotonic(), time.monotonic() + 180
    while time.monotonic() - since < 3:
        index, tail = store.info()["index"], stats(store)["tail_clustered_rows"]
        rows = index["column_rows"] + tail
        good = abs(index["calibrated_rows"] - rows) <= 0.2 * index["calibrated_rows"]
        if not good or last != (index["codebook"], index["calibrated_rows"]):
            last, since = (index["codebook"], index["calibrated_rows"]), time.monotonic()
        if time.monotonic() > until:
            tell(f"not calibrated for {rows} rows: {index}")
            break
        time.sleep(0.1)


def stream(endpoint, path, dim, first, stop, sent):
    """A steady stream, paced by the clock; what comes back is read as it comes."""
    rows, begun, at, waits = Rows(path, dim), time.perf_counter(), first, []
    ready = [rows.request(first + i * BATCH, BATCH) for i in range(200)]
    with Peer(endpoint) as peer:
        while not stop.is_set():
            due = begun + (at - first) / STREAM_RATE
            pause = due - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            request = ready[(at - first) // BATCH % len(ready)]
            for i, memory in enumerate(request["memories"]):
                memory["id"] = at + i + 1
            asked = time.perf_counter()
            if peer.ask(request, 60)["ok"]:
                at += BATCH
                waits.append((time.perf_counter() - asked) * 1e6)
    sent.send((at - first, time.perf_counter() - begun, waits))


def tails(store, rows, queries, base):
    print(f"\n{'tail':>8} {'':14} recall | best p50    p99 | worker p50  p99 | client p50  p99 (us)")
    written = 0
    for tail in TAILS:
        remember(store, rows, base + written, tail - written)
        written = tail
        if tail:
            at_once = ask(store, queries, with_truth=False, rounds=3)
            print(f"{tail:8} {'at once':14} {at_once.line()}", flush=True)
        await_coded(store)
        await_clustered(store)
        await_calibrated(store)
        print(f"{tail:8} {'settled':14} {ask(store, queries).line()}", flush=True)


def streaming(store, path, dim, queries, first):
    print(f"\n{'stream':>23} recall | best p50    p99 | worker p50  p99 | client p50  p99 (us)")
    print(f"{'none':>23} {ask(store, queries, with_truth=False).line()}", flush=True)
    context = multiprocessing.get_context("spawn")
    stop, (taken, given) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=stream, args=(store.endpoint("write"), path, dim, first, stop, given))
    before = stats(store)
    process.start()
    time.sleep(3)
    asked = Asked()
    end = time.monotonic() + STREAM_S
    with Peer(store.endpoint("recall")) as peer:
        while time.monotonic() < end:
            asked.round(peer, queries)
    stop.set()
    count, seconds, waits = taken.recv()
    process.join()
    after = stats(store)
    print(f"{f'{count / seconds:.0f}/s':>23} {asked.line()}", flush=True)
    print(f"acknowledged after p50 {np.percentile(waits, 50):.0f}, p99 {np.percentile(waits, 99):.0f} us; "
          f"{after['compact_runs'] - before['compact_runs']} compactions; tail {after['tail_rows']} rows, "
          f"{after['tail_coded_rows']} coded; rows without codes at a look of the coder: "
          f"p50 {after['tail_code_lag']['p50']}, p99 {after['tail_code_lag']['p99']}", flush=True)
    store.ok("consolidate", wait=True, timeout_s=600)
    await_calibrated(store)
    print(f"{'none, all of these rows':>23} {ask(store, queries, with_truth=False).line()}", flush=True)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    path, dim, query_path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    base = int(sys.argv[4]) if len(sys.argv) > 4 else 100000
    rows = Rows(path, dim)
    queries = np.fromfile(query_path, dtype="<f4").reshape(-1, dim)[:500]
    store = Cluster(dim=dim, settings={"history.window": "0s"})
    try:
        store.start()
        tell(f"{base} rows")
        remember(store, rows, 0, base)
        tell("consolidate")
        store.ok("consolidate", wait=True, timeout_s=600)
        await_calibrated(store)
        leave = {"compact.min_rows": 16000000, "tail.high_rows": 1000000}
        store.settings.update(leave)
        store.restart()
        time.sleep(2)
        tell("ask")
        tails(store, rows, queries, base)
        for name in leave:
            del store.settings[name]
        store.restart()
        tell("consolidate")
        store.ok("consolidate", wait=True, timeout_s=600)
        await_calibrated(store)
        streaming(store, path, dim, queries, base + TAILS[-1])
    finally:
        store.restarts_expected = True
        store.finish()


if __name__ == "__main__":
    main()
