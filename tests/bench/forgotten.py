"""forgotten.py - what forgetting costs a recall: half of the memories forgotten or replaced, at random and in clusters,
against a store that was built from the living ones alone.

    MNEMED=build/release/bin/mnemed python3 tests/bench/forgotten.py BASE.f32 DIM [rows = 100000] [QUERIES.f32]

For each way of forgetting: a store takes all rows, half of them go (deleted in batches, or replaced by a later row under
their id), `consolidate`; another store takes only what lives. Both are asked the same queries, in turns, round by round;
the table shows recall@10 against exact recall of the same store, and the worker's own microseconds (the reply's `us`)
with the client's beside it. With and without compaction in between, to see what compaction gives back.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

from cluster import Cluster, f32  # noqa: E402  (the path is set above)

BATCH = 64
ROUNDS = 5
ROWS_MIN = 4096  # index.rows_min
TARGETS = (0.95, 0.99)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tell(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def make_store(dim):
    return Cluster(dim=dim, settings={"history.window": "0s"}).start()


def remember(store, rows, ids):
    for begin in range(0, len(ids), BATCH):
        some = ids[begin:begin + BATCH]
        memories = [{"id": int(i) + 1, "embedding": f32(rows[i])} for i in some]
        while not store.call("remember", memories=memories).get("ok"):
            time.sleep(0.05)


def replace(store, rows, ids, by):
    """The memories of `ids` become those of `by`."""
    for begin in range(0, len(ids), BATCH):
        memories = [{"id": int(i) + 1, "embedding": f32(rows[j])}
                    for i, j in zip(ids[begin:begin + BATCH], by[begin:begin + BATCH])]
        while not store.call("remember", memories=memories).get("ok"):
            time.sleep(0.05)


def forget(store, ids):
    for begin in range(0, len(ids), 1024):
        store.ok("forget", ids=[int(i) + 1 for i in ids[begin:begin + 1024]])


def consolidate(store):
    store.ok("consolidate", wait=True, timeout_s=900)
    store.await_index()


def doomed_at_random(rows, random):
    return np.sort(random.permutation(len(rows))[:len(rows) // 2])


def doomed_in_clusters(rows, random):
    """Half of the rows, neighbours together: those of 64 random seeds' surroundings, nearest first."""
    seeds = rows[random.choice(len(rows), 64, replace=False)]
    near = np.concatenate([(rows[b:b + 8192] @ seeds.T).max(axis=1) for b in range(0, len(rows), 8192)])
    return np.sort(np.argsort(-near)[:len(rows) // 2])


def ask(store, query, **how):
    begin = time.perf_counter_ns()
    reply = store.ok("recall", embedding=f32(query), k=10, fields=[], **how)
    return [hit["id"] for hit in reply["hits"]], reply["us"], (time.perf_counter_ns() - begin) / 1000


def measure(stores, queries, target):
    """Per store: recall@10, and the medians over the rounds of p50 and p99, of the worker and of the client."""
    truth = [[ask(store, q, exact=True)[0] for q in queries] for store in stores]
    found = [[] for _ in stores]
    times = [[] for _ in stores]
    for _ in range(ROUNDS):
        for s, store in enumerate(stores):
            answers = [ask(store, q, target=target) for q in queries]
            found[s] = [len(set(a[0]) & set(t)) / max(1, len(t)) for a, t in zip(answers, truth[s])]
            us = np.array([a[1:] for a in answers])
            times[s].append(np.percentile(us, (50, 99), axis=0).ravel())
    return [(np.mean(found[s]), *np.median(times[s], axis=0)) for s in range(len(stores))]


def report(what, rows):
    for target, name, (recall, p50, client50, p99, client99) in rows:
        print(f"{what:34} {target:5.2f} {name:16} {recall:8.4f} {p50:8.0f} {p99:8.0f} {client50:10.0f} {client99:10.0f}",
              flush=True)


def compare(what, rows, queries, stores, names):
    for target in TARGETS:
        results = measure(stores, queries, target)
        report(what, [(target, name, result) for name, result in zip(names, results)])


def try_forgetting(what, rows, queries, doomed, replaced):
    """replaced: the doomed ids get the embedding of a living row, slightly moved, instead of going away."""
    living = np.setdiff1d(np.arange(len(rows)), doomed)
    worn = make_store(rows.shape[1])
    fresh = make_store(rows.shape[1])
    try:
        tell(f"{what}: filling")
        remember(worn, rows, np.arange(len(rows)))
        consolidate(worn)
        if replaced:
            moved = unit(rows[living[:len(doomed)]] + np.float32(0.01) * np.roll(rows[living[:len(doomed)]], 1, axis=0))
            everything = np.concatenate([rows, moved.astype(np.float32)])
            by = np.arange(len(rows), len(everything))
            replace(worn, everything, doomed[:len(by)], by)
            remember(fresh, rows, living)
            replace(fresh, everything, doomed[:len(by)], by)
        else:
            forget(worn, doomed)
            remember(fresh, rows, living)
        consolidate(fresh)
        compare(f"{what}, not compacted", rows, queries, [worn], ["half forgotten"])
        consolidate(worn)
        compare(f"{what}, compacted", rows, queries, [worn, fresh], ["half forgotten", "built anew"])
    finally:
        worn.finish()
        fresh.finish()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    dim = int(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100000
    rows = np.fromfile(sys.argv[1], "<f4", count=count * dim).reshape(-1, dim)
    random = np.random.default_rng(1)
    if len(sys.argv) > 4:
        queries = np.fromfile(sys.argv[4], "<f4").reshape(-1, dim)[:1000]
    else:
        queries, rows = rows[-1000:], rows[:-1000]
    if len(rows) // 2 < ROWS_MIN:
        sys.exit(f"{len(rows)} rows are too few: half of them must be {ROWS_MIN}, or there is no index to look at")
    rows = unit(rows)
    print(f"{len(rows)} rows x {dim}, {len(queries)} queries, {ROUNDS} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'forgotten':34} {'goal':>5} {'store':16} {'recall':>8} {'us p50':>8} {'us p99':>8} "
          f"{'client p50':>10} {'client p99':>10}")
    try_forgetting("at random", rows, queries, doomed_at_random(rows, random), False)
    try_forgetting("in clusters", rows, queries, doomed_in_clusters(rows, random), False)
    try_forgetting("replaced at random", rows, queries, doomed_at_random(rows, random), True)


if __name__ == "__main__":
    main()
