"""fault_load.py - writes to a cluster that dies on the way, and a model of what must be there afterwards.

Requests go out in bursts on one connection, so that the writer commits several in one batch. No request of a burst
touches an id of another one. A request that was not answered is in doubt: settle() either repeats it with its idem key
until there is an answer, or looks what became of it. Both find it whole or absent, and the model is told.
"""

import time
import uuid

import numpy as np

import model as truth
from cluster import PATIENCE, REPLY_S, NoReply, Peer, contents_of, f32, files_below
from workload import ALL_FIELDS, TIME_0, Memories

SILENCE_S = 0.3 * PATIENCE  # after the fault: no more answers come
NOT_DONE = ("busy", "unavailable", "deadline", "read_only")
SPACES = ("a", "b")
BARRIER = 20004  # only settle() writes it: a write in doubt that touches it could be older than the barrier, or newer


class Request:
    """One write, as it goes over the wire, and what the model does when it has happened."""
    def __init__(self, op, idem, **fields):
        self.op, self.fields = op, {**fields, "idem": idem}
        self.space = fields["space"]

    def wire(self, rid):
        return {"op": self.op, "rid": rid, **self.fields}

    def ids(self):
        """Those it names; an assigned one is not known before the answer."""
        if self.op == "remember":
            return [m["id"] for m in self.fields["memories"] if "id" in m]
        return self.fields["ids"] if self.op == "forget" else [self.fields["id"]]

    def apply(self, model, reply):
        if self.op == "remember":
            model.remember(self.space, self.fields["memories"], reply["ids"], reply["seq"])
        elif self.op == "revise":
            model.revise(self.space, self.fields["id"], self.fields["set"], reply["seq"])
        else:
            changed = model.forget(self.space, self.fields["mode"], reply["seq"], ids=self.fields["ids"])
            assert reply.get("count", changed) == changed, f"{self.fields}: {reply}, the model says {changed}"


class Load:
    def __init__(self, cluster, seed, spaces=SPACES):
        self.cluster, self.spaces = cluster, spaces
        self.rng = np.random.default_rng(seed)
        self.model = truth.Model(cluster.dim, cluster.metric)
        self.memories = Memories(self.rng, cluster.dim)
        # Beyond those that the store assigns: two requests of a burst must not meet by such an id.
        self.pool = [*range(10**4, 10**4 + 60), *(str(uuid.UUID(bytes=self.rng.bytes(16))) for _ in range(20))]
        self.known = {space: set(self.pool) for space in spaces}  # every id that there ever was
        self.contents = {}  # (space, id) -> every content it was given
        self.purged, self.purged_ids = [], set()  # contents; (space, id)
        self.peer, self.serial = None, 0
        self.doubtful, self.answered = [], []
        self.repeated = self.looked_at = 0

    # ---- making requests

    def idem(self):
        self.serial += 1
        return f"i{self.serial}"

    def memory(self, space, **fields):
        """Its content is like no other's, so that its bytes can be told apart and searched for."""
        made = self.memories.make(**fields)
        made["content"] = f"<{self.serial}.{self.memories.serial}.{self.rng.bytes(8).hex()}>"
        if "id" in made:
            self.contents.setdefault((space, made["id"]), []).append(made["content"])
        return made

    def take(self, options, most):
        """Up to `most` of these, which no other request of the burst takes."""
        free = [i for i in options if i not in self.taken]
        chosen = [free[i] for i in self.rng.permutation(len(free))[:1 + int(self.rng.integers(most))]]
        self.taken.update(chosen)
        return chosen

    def make(self, space):
        entries = self.model.spaces.get(space, {})
        visible = [v.id for v in self.model.visible(space) if v.id != BARRIER]
        hidden = [id for id, entry in entries.items() if entry.suppressed]
        move = self.rng.random()
        if move < 0.1 and hidden:
            chosen = self.take(hidden, 3)
            return chosen and Request("forget", self.idem(), space=space, mode="restore", ids=chosen)
        if move < 0.35 and visible:
            mode = "delete" if self.rng.random() < 0.5 else "suppress"
            chosen = self.take(visible, 3)
            return chosen and Request("forget", self.idem(), space=space, mode=mode, ids=chosen)
        if move < 0.55 and visible:
            return self.make_revise(space, visible)
        named = [self.memory(space, id=id) for id in self.take(self.pool, 5)]
        nameless = [self.memory(space) for _ in range(int(self.rng.integers(3)))] if move > 0.85 else []
        return named + nameless and Request("remember", self.idem(), space=space, memories=named + nameless)

    def make_revise(self, space, visible):
        chosen = self.take(visible, 1)
        if not chosen:
            return None
        changes = {"content": self.memory(space, id=chosen[0])["content"], "tags": ["revised"]}
        return Request("revise", self.idem(), space=space, id=chosen[0], set=changes)

    # ---- sending them

    def burst(self, count=8):
        """Several requests at once, in one space: the ids are taken once each."""
        space, self.taken = self.spaces[int(self.rng.integers(len(self.spaces)))], set()
        self.send([r for r in (self.make(space) for _ in range(count)) if r])

    def fill(self):
        """The better part of a log segment of 1 MiB, of no other interest."""
        big = [{**self.memory("a", id=id), "content": self.rng.bytes(220_000)} for id in (20001, 20002, 20003)]
        self.known["a"].update((20001, 20002, 20003))
        self.send([Request("remember", self.idem(), space="a", memories=big)])

    def purge(self):
        space = self.spaces[int(self.rng.integers(len(self.spaces)))]
        visible = [v.id for v in self.model.visible(space)
                   if isinstance(v.content, str) and v.id != BARRIER]
        if visible:
            chosen = visible[int(self.rng.integers(len(visible)))]
            self.send([Request("forget", self.idem(), space=space, mode="purge", ids=[chosen])])

    def send(self, requests):
        assert not self.doubtful, "settle first"
        self.peer = self.peer or Peer(self.cluster.endpoint("write"))
        for number, request in enumerate(requests):
            self.peer.send(request.wire(number))
        waiting, silent_since = dict(enumerate(requests)), time.monotonic()
        replies = []
        while waiting:
            try:
                reply = self.peer.receive(SILENCE_S)
                replies.append((waiting.pop(reply["rid"]), reply))
                silent_since = time.monotonic()
            except NoReply:
                if self.cluster.fired():
                    break
                if time.monotonic() > silent_since + REPLY_S:
                    raise
        for request, reply in sorted(replies, key=lambda pair: pair[1].get("seq", 0)):
            self.take_reply(request, reply)
        self.doubtful += waiting.values()

    def take_reply(self, request, reply):
        if reply["ok"]:
            self.acknowledge(request, reply)
        elif reply["code"] == "unknown" or self.is_purge(request):
            self.doubtful.append(request)
        else:
            assert reply["code"] in NOT_DONE, f"{request.op} {request.space} {request.ids()}: {reply}"

    @staticmethod
    def is_purge(request):
        return request.fields.get("mode") == "purge"

    def acknowledge(self, request, reply):
        request.apply(self.model, reply)
        if request.op == "remember":
            self.known[request.space].update(reply["ids"])
            for memory, id in zip(request.fields["memories"], reply["ids"]):
                if "id" not in memory:
                    self.contents.setdefault((request.space, id), []).append(memory["content"])
        if self.is_purge(request):
            self.purged_ids.update((request.space, id) for id in request.ids())
            self.purged += [c for id in request.ids() for c in self.contents.pop((request.space, id), ())]
        self.answered = [*self.answered[-4:], (request, reply)]

    # ---- after a death

    def settle(self):
        """Clears up what became of the requests in doubt; the cluster is ready again."""
        self.hang_up()
        if not self.doubtful:
            return
        self.barrier()
        doubtful, self.doubtful = self.doubtful, []
        for request in doubtful:
            visible = len(request.ids()) == len(request.fields.get("memories", request.ids()))
            if visible and not self.is_purge(request) and self.rng.random() < 0.5:
                self.look_at(request)
            else:
                self.repeat(request)
        self.check_purged()  # at once: a purge that was answered after the death of a role is as good as any

    def hang_up(self):
        if self.peer:
            self.peer.close()
        self.peer = None

    def barrier(self):
        """What the new writer was sent before has its effect when two later requests, one after the other, have
        theirs."""
        for _ in range(2):
            self.repeat(Request("remember", self.idem(), space="a", memories=[self.memory("a", id=BARRIER)]))
        self.known["a"].add(BARRIER)

    def repeat(self, request):
        """Until it has happened, once."""
        self.repeated += 1
        give_up = time.monotonic() + 4 * REPLY_S
        while time.monotonic() < give_up:
            with Peer(self.cluster.endpoint("write")) as peer:
                try:
                    reply = peer.ask(request.wire(0), 2.0 * PATIENCE)
                except NoReply:
                    continue
            if reply["ok"]:
                return self.acknowledge(request, reply)
            assert reply["code"] in (*NOT_DONE, "unknown"), f"{request.fields}: {reply}"
            time.sleep(0.01)
        raise AssertionError(f"{request.op} {request.ids()} was never answered")

    def look_at(self, request):
        """All of it, or nothing of it."""
        self.looked_at += 1
        ids = request.ids()
        rows = self.cluster.ok("get", space=request.space, ids=ids, fields=["content"])["memories"]
        if request.op == "forget":
            there = request.fields["mode"] == "restore"
            done = [(row is not None) == there for row in rows]
        else:
            new = [m["content"] for m in request.fields.get("memories", [request.fields.get("set")])]
            done = [row is not None and row["content"] == content for row, content in zip(rows, new)]
        assert all(done) or not any(done), f"{request.op} of {ids} in {request.space} is there by half: {rows}"
        if all(done):
            versions = {row["version"] for row in rows if row} or {self.model.seq}
            assert len(versions) == 1, f"one request, several versions: {rows}"
            request.apply(self.model, {"ids": ids, "seq": versions.pop()})

    # ---- what must hold

    def check(self):
        """Everything a client can see against the model, and the acknowledged idem keys."""
        for space in self.spaces:
            ids = [*self.known[space], 10**9]
            truth.compare_get(self.model, self.cluster.ok("get", space=space, ids=ids, fields=ALL_FIELDS), space, ids)
            rows = truth.list_all(self.cluster.ok, space=space, limit=50, fields=ALL_FIELDS)
            truth.compare_list(self.model, rows, space)
            query = self.memories.vector()
            hits = self.cluster.ok("recall", space=space, embedding=f32(query), k=30, exact=True)["hits"]
            truth.compare_recall(self.model, hits, query, space, 30, now=TIME_0)
        truth.compare_spaces(self.model, self.cluster.ok("spaces"))
        for request, reply in self.answered:
            again = self.cluster.ok(request.op, **request.fields)
            for key in ("ids", "seq", "count"):
                assert again.get(key) == reply.get(key), f"idem {request.fields['idem']}: {again} after {reply}"

    def check_purged(self):
        """No file of the store holds a byte of what was purged."""
        marks = [content.encode() for content in self.purged]
        for path in files_below(self.cluster.dir) if marks else ():
            held = contents_of(path)
            for mark in marks:
                assert mark not in held, f"{path} still holds {mark}, which was purged"
