"""past.py - what a store must hold after a cut at some position of the diary, and how what it holds differs from that.

Deeds that were acknowledged before the cut have happened; those that were sent after it have not; of those between,
looking at the store tells, and then all of such a deed must be there, or nothing of it.
"""

import model as truth
from workload import ALL_FIELDS, TIME_0

UNKNOWN = 10**9  # an id that no memory has
PURGED_MAX = 12  # contents of purged memories that are searched for in the files: the newest


class Findings:
    """What is wrong with one state, by kind."""
    KINDS = ("lost", "risen", "wrong", "undetected", "crashes")

    def __init__(self):
        self.of = {kind: [] for kind in self.KINDS}

    def add(self, kind, what):
        self.of[kind].append(what)

    def __bool__(self):
        return any(self.of.values())

    def __str__(self):
        return "\n".join(f"{kind}: {what}" for kind, found in self.of.items() for what in found[:10])


class Past:
    """One client's deeds up to a cut."""
    def __init__(self, space, deeds, position, dim):
        self.space, self.model = space, truth.Model(dim)
        self.happened = [d for d in deeds if d.acked <= position]
        self.doubtful = [d for d in deeds if d.sent <= position < d.acked]
        self.ids = {UNKNOWN}
        for deed in deeds:
            self.ids.update(deed.reply["ids"] if deed.request.op == "remember" else deed.request.ids())
        self.ids = list(self.ids)
        self.contents, self.purged, self.settled = {}, [], []
        for deed in sorted(self.happened, key=seq_of):
            self.take(deed)
        self.purged = self.purged[-PURGED_MAX:]  # a purge in doubt has promised nothing about bytes

    def take(self, deed):
        request = deed.request
        request.apply(self.model, deed.reply)
        if request.op == "forget":
            if request.fields["mode"] == "purge":
                self.purged += [c for id in request.ids() for c in self.contents.pop(id, ())]
            return
        given = request.fields["memories"] if request.op == "remember" else [request.fields["set"]]
        for id, memory in zip(deed.reply.get("ids", request.ids()), given):
            self.contents.setdefault(id, []).append(memory["content"])

    def settle(self, rows):
        """Takes what was in doubt and has happened. `rows`: id -> what the store holds. Requests in flight together have
        no id in common, so each can be told by itself."""
        settled = [d for d in self.doubtful if self.is_done(d, rows)]
        for deed in sorted(settled, key=seq_of):
            deed.request.apply(self.model, deed.reply)
        return settled

    def is_done(self, deed, rows):
        """Whether anything of it is there; if only a part is, the comparison will tell."""
        request, seq = deed.request, deed.reply["seq"]
        if request.op == "forget" and request.fields["mode"] != "restore":
            return any(self.model.get(self.space, id) is not None and rows[id] is None for id in request.ids())
        ids = deed.reply["ids"] if request.op == "remember" else request.ids()
        return any(rows[id] is not None and rows[id]["version"] == seq for id in ids)

    # ---- holding a store against it

    def compare(self, cluster, findings):
        """Everything a client can see of this space."""
        found = cluster.ok("get", space=self.space, ids=self.ids, fields=ALL_FIELDS)["memories"]
        rows = dict(zip(self.ids, found))
        self.settled = self.settle(rows)
        for id, row in rows.items():
            self.compare_one(id, row, findings)
        try:
            listed = truth.list_all(cluster.ok, space=self.space, limit=100, fields=ALL_FIELDS)
            truth.compare_list(self.model, listed, self.space)
            truth.compare_count(self.model, cluster.ok("count", space=self.space), self.space)
            self.compare_recall(cluster)
        except AssertionError as difference:
            findings.add("wrong", difference)
        self.repeat(cluster, [d for d in self.happened[-3:] + self.settled if d.request.fields.get("mode") != "purge"], findings)

    def compare_one(self, id, row, findings):
        version, place = self.model.get(self.space, id), f"{self.space}/{id}"
        if version is None:
            if row is not None:
                findings.add("risen", f"{place}: {row}")
        elif row is None:
            findings.add("lost", f"{place}: {version}")
        elif row["version"] < version.born:
            findings.add("risen", f"{place}: version {row['version']} instead of {version.born}")
        else:
            try:
                truth.assert_memory(row, version, place)
            except AssertionError as difference:
                findings.add("wrong", difference)

    def compare_recall(self, cluster):
        visible = self.model.visible(self.space)
        for version in visible[::max(1, len(visible) // 2)]:
            query = version.embedding
            hits = cluster.ok("recall", space=self.space, embedding=query.tobytes(), k=20, exact=True)["hits"]
            truth.compare_recall(self.model, hits, query, self.space, 20, now=TIME_0)

    def repeat(self, cluster, deeds, findings):
        """The same request with the same idem key has the same outcome, over a power cut too; unless the cut came
        before an older one was durable, which can only be one in doubt."""
        for deed in deeds:
            again = cluster.call(deed.request.op, **deed.request.fields)
            for key in ("ids", "seq", "count"):
                if again.get(key) != deed.reply.get(key):
                    findings.add("wrong", f"idem {deed.request.fields['idem']}: {again} after {deed.reply}")

    def compare_purged(self, files, findings):
        """No file of the store holds a byte of what was purged. `files`: name -> bytes."""
        for content in self.purged:
            for name, held in files.items():
                if content.encode() in held:
                    findings.add("risen", f"{name} holds {content[:60]}, which was purged")


def seq_of(deed):
    return deed.reply["seq"]


def as_of(deeds, space, seq, dim):
    """The model of a space as of a seq, from all deeds."""
    model = truth.Model(dim)
    for deed in sorted(deeds, key=seq_of):
        if seq_of(deed) <= seq:
            deed.request.apply(model, deed.reply)
    return model
