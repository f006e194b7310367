"""workload.py - made-up memories, filters, and random operations that keep a cluster and a model in step.

A Workload issues one random operation at a time, feeds the model what the cluster acknowledged, and fails when the
answer is not what the model foresees: ids, counts, refusals. check() then holds every kind of read against the model.
All randomness comes from one generator, so a seed repeats a run.
"""

import time
import uuid

import numpy as np

import model as truth
from cluster import f32

TIME_0 = 10**18
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]
ALL_FIELDS = ["content", "meta", "tags", "at", "confidence", "expires", "embedding"]

FILTERS = [
    {"tags_any": ["alpha", "beta"]},
    {"tags_all": ["alpha", "beta"]},
    {"tags_none": ["alpha"]},
    {"tags_any": ["unheard of"]},
    {"tags_any": ["alpha"], "tags_none": ["beta"], "tags_all": ["gamma"]},
    {"ids": [1, 5, 9, 404]},
    {"meta": [{"key": "n", "eq": 3}]},
    {"meta": [{"key": "n", "eq": 3.0}]},
    {"meta": [{"key": "n", "ne": 3}]},
    {"meta": [{"key": "x", "in": [0, 0.5, 99]}]},
    {"meta": [{"key": "x", "eq": 1}]},
    {"meta": [{"key": "n", "gt": 3}]},
    {"meta": [{"key": "n", "gte": 3}, {"key": "n", "lt": 7.5}]},
    {"meta": [{"key": "n", "lte": 2}]},
    {"meta": [{"key": "who", "eq": "alpha"}]},
    {"meta": [{"key": "who", "gt": "beta"}]},
    {"meta": [{"key": "who", "eq": 3}]},
    {"meta": [{"key": "who", "ne": 3}]},
    {"meta": [{"key": "n", "gt": "3"}]},
    {"meta": [{"key": "rare.deep", "exists": True}]},
    {"meta": [{"key": "rare.deep", "eq": True}]},
    {"meta": [{"key": "rare", "exists": False}]},
    {"meta": [{"key": "none", "ne": 1}]},
    {"meta": [{"key": "none", "eq": 1}]},
    {"meta": [{"key": "none.deeper", "exists": False}]},
    {"meta": [{"key": "n", "in": []}]},
    {"tags_none": [], "meta": []},
    {
        "ids": list(range(1, 200)), "tags_any": ["delta"], "meta": [{"key": "n", "gt": 1},
                                                                    {"key": "who", "in": ["alpha", "beta"]}]
    },
]


class Memories:
    """Makes memories; each has a time of its own and a content that names it."""
    def __init__(self, rng, dim):
        self.rng, self.dim, self.serial = rng, dim, 0

    def vector(self):
        return self.rng.standard_normal(self.dim).astype("f4")

    def make(self, **fields):
        self.serial += 1
        i, rng = self.serial, self.rng
        return {
            "embedding": f32(self.vector()), "content": f"content {i}",
            "at": TIME_0 + i * 1000 + int(rng.integers(1000)), "tags": [w for w in WORDS if rng.random() < 0.3],
            "confidence": float(rng.integers(0, 9)) / 8, "meta": {
                "n": int(rng.integers(10)), "x": float(rng.integers(4)) / 2, "who": WORDS[int(rng.integers(5))],
                **({"rare": {"deep": True}} if rng.random() < 0.1 else {})
            }, **fields
        }


class Workload:
    """Random operations on a few spaces of one cluster. `cluster` answers `ok` and `call`."""
    def __init__(self, cluster, seed, spaces=("a", "b"), pool=60):
        self.cluster, self.seed, self.spaces = cluster, seed, spaces
        self.rng = np.random.default_rng(seed)
        self.model = truth.Model(cluster.dim, cluster.metric)
        self.memories = Memories(self.rng, cluster.dim)
        self.assigned = {space: set() for space in spaces}
        self.pool = [*range(1, pool), *(str(uuid.UUID(bytes=self.rng.bytes(16))) for _ in range(pool // 4))]
        self.seqs = []
        self.steps = [(self.remember, 10), (self.revise, 3), (self.forget_ids, 3), (self.forget_filter, 1),
                      (self.restore, 2), (self.supersede, 2), (self.compare_and_set, 2), (self.repeat_idem, 1),
                      (self.purge, 0.3), (self.forget_all, 0.1)]

    # ---- changes

    def step(self):
        moves, weights = zip(*self.steps)
        move = self.rng.choice(len(moves), p=np.array(weights) / sum(weights))
        moves[move](self.pick(self.spaces))

    def run(self, count):
        for _ in range(count):
            self.step()

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def write(self, op, **fields):
        reply = self.cluster.ok(op, **fields)
        self.seqs.append(reply["seq"])
        return reply

    def visible_ids(self, space):
        return [v.id for v in self.model.visible(space)]

    def some_ids(self, space):
        """A few ids, some visible, some perhaps unknown; each once."""
        options = self.visible_ids(space) + [self.pick(self.pool)]
        return list(dict.fromkeys(self.pick(options) for _ in range(int(self.rng.integers(1, 5)))))

    def remember(self, space, superseding=False):
        named = list(dict.fromkeys(self.pick(self.pool) for _ in range(int(self.rng.integers(0, 6)))))
        memories = [self.memories.make(id=id) for id in named]
        memories += [self.memories.make() for _ in range(int(self.rng.integers(0 if named else 1, 4)))]
        if superseding:
            memories[0]["supersedes"] = [id for id in self.some_ids(space) if id not in named]
        self.apply_remember(space, memories, self.write("remember", space=space, memories=memories))

    def apply_remember(self, space, memories, reply):
        for memory, id in zip(memories, reply["ids"]):
            if "id" in memory:
                assert id == memory["id"], f"asked for id {memory['id']}, got {id}"
            else:
                taken = self.model.holds(space, id) or id in self.assigned[space]
                assert not taken, f"the engine gave out id {id} again in {space}"
                self.assigned[space].add(id)
        assert len(set(reply["ids"])) == len(memories) and reply["versions"] == [reply["seq"]] * len(memories), reply
        self.model.remember(space, memories, reply["ids"], reply["seq"])

    def supersede(self, space):
        self.remember(space, superseding=True)

    def revise(self, space):
        source = self.memories.make()
        names = [n for n in ("content", "meta", "tags", "confidence", "at") if self.rng.random() < 0.4] or ["content"]
        changes = {name: source[name] for name in names}
        id = self.pick(self.some_ids(space))
        if self.model.get(space, id) is None:
            self.expect("not_found", "revise", space=space, id=id, set=changes)
        else:
            self.model.revise(space, id, changes, self.write("revise", space=space, id=id, set=changes)["seq"])

    def forget(self, space, mode, **what):
        reply = self.write("forget", space=space, mode=mode, **({"all": True} if not what else what))
        expected = self.model.forget(space, mode, reply["seq"], **what)
        assert reply[
            "count"] == expected, f"forget {mode} {what} in {space}: count {reply['count']}, the model says {expected}"

    def forget_ids(self, space):
        self.forget(space, self.pick(["delete", "suppress", "suppress"]), ids=self.some_ids(space))

    def forget_filter(self, space):
        narrow = {**self.pick(FILTERS), "ids": self.some_ids(space) * 2}
        self.forget(space, self.pick(["delete", "suppress"]), filter=narrow)

    def forget_all(self, space):
        self.forget(space, self.pick(["delete", "suppress"]))

    def restore(self, space):
        hidden = [id for id, entry in self.model.spaces.get(space, {}).items() if entry.suppressed]
        self.forget(space, "restore", ids=self.some_ids(space) + hidden[:3])

    def purge(self, space):
        visible = self.visible_ids(space)
        if visible:
            self.forget(space, "purge", ids=[self.pick(visible)])

    def compare_and_set(self, space):
        id = self.pick(self.some_ids(space))
        old = self.model.get(space, id)
        memory = self.memories.make(id=id)
        if old is None:
            memory["if_absent"] = True
            self.apply_remember(space, [memory], self.write("remember", space=space, memories=[memory]))
        elif self.rng.random() < 0.5:
            self.expect("exists", "remember", space=space, memories=[{**memory, "if_absent": True}])
            self.expect("version_mismatch", "remember", space=space, memories=[{**memory, "if_version": old.born + 1}])
        else:
            memory["if_version"] = old.born
            self.apply_remember(space, [memory], self.write("remember", space=space, memories=[memory]))

    def repeat_idem(self, space):
        request = {"space": space, "memories": [self.memories.make()], "idem": self.rng.bytes(8).hex()}
        reply = self.write("remember", **request)
        self.apply_remember(space, request["memories"], reply)
        again = self.cluster.ok("remember", **request)
        assert (again["ids"], again["seq"]) == (reply["ids"], reply["seq"]), f"idem: {again} after {reply}"

    def expect(self, code, op, **fields):
        reply = self.cluster.call(op, **fields)
        assert not reply["ok"] and reply[
            "code"] == code, f"{op} {str(fields)[:300]} should be refused as {code}: {reply}"

    # ---- reads

    def check(self, queries=6):
        """Everything a client can read, against the model."""
        for space in self.spaces:
            self.check_get(space)
            order = self.pick(["newest", "oldest"])
            rows = truth.list_all(self.cluster.ok,
                                  space=space,
                                  order=order,
                                  limit=7 + len(self.seqs) % 90,
                                  fields=ALL_FIELDS)
            truth.compare_list(self.model, rows, space, order=order)
        truth.compare_spaces(self.model, self.cluster.ok("spaces"))
        for _ in range(queries):
            self.check_query()
        self.check_history()

    def check_get(self, space):
        ids = list(self.model.spaces.get(space, {})) + [10**9]
        reply = self.cluster.ok("get", space=space, ids=ids, fields=ALL_FIELDS)
        truth.compare_get(self.model, reply, space, ids)

    def selection(self):
        """Random conditions, as both the wire and the model take them."""
        chosen = {}
        if self.rng.random() < 0.5:
            chosen["filter"] = self.pick(FILTERS)
        if self.rng.random() < 0.3:
            chosen["after"] = TIME_0 + int(self.rng.integers(self.memories.serial + 1)) * 1000
        if self.rng.random() < 0.3:
            chosen["before"] = TIME_0 + int(self.rng.integers(self.memories.serial + 2)) * 1000
        if self.rng.random() < 0.3:
            chosen["min_confidence"] = float(self.rng.integers(0, 9)) / 8
        return chosen

    def some_space(self):
        return self.pick([*self.spaces, *self.spaces, list(self.spaces), None])

    def rank(self):
        if self.model.metric != "cosine" or self.rng.random() < 0.5:
            return {}
        return {
            "rank": {
                "half_life_s": float(self.rng.random()) * 1e-3 + 1e-6, "now": TIME_0 + self.memories.serial * 1000,
                "confidence_weight": float(self.rng.random()), "floor": float(self.rng.random())
            }
        }

    def check_query(self):
        space, selection, k = self.some_space(), self.selection(), int(self.rng.integers(1, 40))
        query, rank, now = self.memories.vector(), self.rank(), time.time_ns()
        request = {"space": space, "embedding": f32(query), "k": k, **selection, **rank}
        exact = self.cluster.ok("recall", exact=True, fields=ALL_FIELDS, **request)
        truth.compare_recall(self.model, exact["hits"], query, space, k, now=now, **selection, **rank)
        matching = len(self.model.select(space, now=now, **selection))
        hits = self.cluster.ok("recall", fields=[], **request)["hits"]
        assert len(hits) == min(k, matching), f"{request}: {len(hits)} hits of {matching} that match"
        truth.compare_count(self.model, self.cluster.ok("count", space=space, **selection), space, **selection)

    def check_history(self):
        """Reads as of a few past states that the store still promises."""
        oldest = self.cluster.ok("info")["oldest_seq"]
        held = [seq for seq in self.seqs[-200:] if seq >= oldest]
        for _ in range(3 if held else 0):
            seq, space = self.pick(held), self.pick(self.spaces)
            ids = list(self.model.spaces.get(space, {})) or [1]
            reply = self.cluster.ok("get", space=space, ids=ids, as_of=seq, fields=ALL_FIELDS)
            truth.compare_get(self.model, reply, space, ids, as_of=seq)
            query = self.memories.vector()
            found = self.cluster.ok("recall", space=space, embedding=f32(query), k=15, exact=True, as_of=seq)["hits"]
            truth.compare_recall(self.model, found, query, space, 15, now=time.time_ns(), as_of=seq)
