#!/usr/bin/env python3
"""example.py - Mneme from Python in one page: remember, recall, revise, forget.

    python3 example.py --dir DIR               uses the cluster that runs on DIR (any dimension)
    python3 example.py --mnemed PATH/mnemed    starts one of its own in a temporary folder, and stops it at the end

The embeddings are made by hashing words, so that the example needs no model; put your own in their place.
"""

import argparse
import contextlib
import hashlib
import subprocess
import tempfile
import time

import mneme

SPACE = "example"
DAY_NS = 86_400 * 10**9


def embed(text: str, dim: int) -> list:
    """A bag of words as a vector: each word adds one to a few coordinates of its own."""
    vector = [0.0] * dim
    for word in text.lower().split():
        digest = hashlib.sha256(word.encode()).digest()
        for place in range(0, 16, 4):
            vector[int.from_bytes(digest[place:place + 4], "little") % dim] += 1.0
    return vector


@contextlib.contextmanager
def own_cluster(mnemed: str, dim: int):
    """A cluster in a temporary folder; yields the folder once it is ready."""
    with tempfile.TemporaryDirectory(prefix="mneme-") as folder:
        server = subprocess.Popen([mnemed, "--dir", folder + "/store", "--dim", str(dim)])
        try:
            wait_until_ready(folder + "/store", server)
            yield folder + "/store"
        finally:
            server.terminate()
            server.wait()


def wait_until_ready(folder: str, server: subprocess.Popen, patience_s: float = 30.0) -> None:
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up and server.poll() is None:
        with contextlib.suppress(mneme.MnemeError), mneme.open(folder, timeout_s=0.5) as m:
            if m.info()["state"] == "ready":
                return
        time.sleep(0.05)
    raise SystemExit("mnemed did not become ready; its own output says why")


def tour(folder: str) -> None:
    with mneme.open(folder) as m:
        dim, now = m.info()["dim"], time.time_ns()

        notes = [
            "the kettle is on the left shelf", "ada likes her tea without sugar", "the train to york leaves at nine"
        ]
        stored = m.remember_batch([
            dict(embedding=embed(text, dim),
                 content=text,
                 tags=["note"],
                 meta={"words": len(text.split())},
                 at=now - age * DAY_NS) for age, text in enumerate(notes)
        ],
                                  space=SPACE)
        print("remembered", stored.ids, "at seq", stored.seq)

        print("\nwhat do we know of tea?")
        for hit in m.recall(embed("how does ada like tea", dim), space=SPACE, k=2):
            print(f"  {hit.score:.3f}  {hit.content}")

        print("\nthe same, fresh memories first")
        rank = {"half_life_s": 86_400, "now": now}
        for hit in m.recall(embed("how does ada like tea", dim), space=SPACE, k=2, rank=rank):
            print(f"  {hit.score:.3f}  decay {hit.parts['decay']:.2f}  {hit.content}")

        m.revise(stored.ids[1], space=SPACE, content="ada takes one sugar now", confidence=0.8)
        print("\nrevised:", m.get(stored.ids[1], space=SPACE).content)

        try:
            m.remember(embed("too late", dim), id=stored.ids[0], if_absent=True, space=SPACE)
        except mneme.Exists as refused:
            print("refused as it should be:", refused)

        gone = m.forget(space=SPACE, filter={"tags_any": ["note"]})
        print("forgot", gone.count, "- left in the space:", m.count(space=SPACE))


def main() -> None:
    parser = argparse.ArgumentParser(description="Mneme from Python in one page")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--dir", help="data folder of a running cluster")
    where.add_argument("--mnemed", help="the mnemed program, to start a cluster with")
    arguments = parser.parse_args()
    if arguments.dir:
        tour(arguments.dir)
    else:
        with own_cluster(arguments.mnemed, dim=256) as folder:
            tour(folder)


if __name__ == "__main__":
    main()
