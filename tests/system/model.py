"""model.py - what Mneme must answer, in plain Python and numpy: the protocol's meaning with nothing of its machinery.

A Model is fed each change that the server acknowledged, with the seq it was given, and then answers reads by brute
force. The compare_* functions hold a reply of the server against it. Scores are compared with a tolerance (the server
computes in f32 and may sum in any order); which memories come back, and in what order, is compared strictly, except
between memories whose scores are closer than that tolerance.
"""

import dataclasses
import operator
from typing import Any, Dict, List, Optional

import numpy as np

TOLERANCE = 2e-5
NEVER = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Version:
    """One state of one memory: visible at seq S when born <= S < died."""

    space: str
    id: Any
    born: int
    embedding: np.ndarray
    content: Any = None
    meta: Optional[dict] = None
    tags: tuple = ()
    confidence: float = 1.0
    at: int = 0
    expires: Optional[int] = None


@dataclasses.dataclass
class Entry:
    """The history of one id. `died[i]` ends `versions[i]`; `suppressed` is what a restore would bring back."""

    versions: List[Version] = dataclasses.field(default_factory=list)
    died: List[int] = dataclasses.field(default_factory=list)
    suppressed: Optional[Version] = None

    def at(self, seq) -> Optional[Version]:
        for version, died in zip(reversed(self.versions), reversed(self.died)):
            if version.born <= seq < died:
                return version
        return None

    def end(self, seq):
        if self.died and self.died[-1] == NEVER:
            self.died[-1] = seq

    def begin(self, version):
        self.end(version.born)
        self.versions.append(version)
        self.died.append(NEVER)
        self.suppressed = None


def id_order(id):
    """UUIDs sort after integers."""
    return (isinstance(id, str), id)


class Model:
    def __init__(self, dim, metric="cosine"):
        self.dim, self.metric = dim, metric
        self.spaces: Dict[str, Dict[Any, Entry]] = {}
        self.seq = 0

    # ---- changes, as the server acknowledged them

    def remember(self, space, memories, ids, seq):
        """One atomic change; `memories` as in the request, each with `at`; `ids` as in the reply."""
        entries = self.spaces.setdefault(space, {})
        for memory in memories:
            for old in memory.get("supersedes", ()):
                self._delete(entries, old, seq)
        for memory, id in zip(memories, ids):
            fields = {
                k: memory[k]
                for k in ("content", "meta", "confidence", "at", "expires") if memory.get(k) is not None
            }
            version = Version(space,
                              id,
                              seq,
                              as_vector(memory["embedding"]),
                              tags=tuple(memory.get("tags", ())),
                              **fields)
            entries.setdefault(id, Entry()).begin(version)
        self.seq = max(self.seq, seq)

    def revise(self, space, id, changes, seq):
        entry = self.spaces[space][id]
        changes = {k: tuple(v) if k == "tags" else v for k, v in changes.items()}
        entry.begin(dataclasses.replace(entry.versions[-1], born=seq, **changes))
        self.seq = max(self.seq, seq)

    def forget(self, space, mode, seq, ids=None, filter=None, now=0):
        """Returns how many changed their state. Neither ids nor filter: all."""
        entries = self.spaces.get(space, {})
        targets = self._targets(entries, mode, ids, filter, now)
        for id in [*targets, *(ids or ())] if mode == "purge" else targets:
            if mode == "restore":
                entries[id].begin(dataclasses.replace(entries[id].suppressed, born=seq))
            elif mode == "suppress":
                visible = entries[id].at(NEVER - 1)
                entries[id].end(seq)
                entries[id].suppressed = visible
            elif mode == "purge":
                entries.pop(id, None)
            else:
                self._delete(entries, id, seq)
        self.seq = max(self.seq, seq)
        return len(targets)

    def _targets(self, entries, mode, ids, filter, now):
        def subject(entry):
            """What the mode works on: delete and purge also end what is suppressed, so that nothing can bring it
            back."""
            version = entry.suppressed if mode == "restore" else entry.at(NEVER - 1)
            if mode in ("delete", "purge"):
                version = version or entry.suppressed
            return version if version and not expired(version, now) else None

        named = entries.keys() if ids is None else [id for id in dict.fromkeys(ids) if id in entries]
        subjects = {id: subject(entries[id]) for id in named}
        return [id for id, version in subjects.items() if version and matches(filter or {}, version)]

    @staticmethod
    def _delete(entries, id, seq):
        if id in entries:
            entries[id].end(seq)
            entries[id].suppressed = None

    # ---- reads

    def visible(self, space, as_of=NEVER - 1, now=0):
        """Versions seen in `space` (a name, several, or None for all)."""
        names = list(self.spaces) if space is None else [space] if isinstance(space, str) else dict.fromkeys(space)
        seen = (entry.at(as_of) for name in names for entry in self.spaces.get(name, {}).values())
        return [v for v in seen if v is not None and not expired(v, now)]

    def select(self, space, now=0, as_of=NEVER - 1, filter=None, after=None, before=None, min_confidence=None):
        return [
            v for v in self.visible(space, as_of, now)
            if (after is None or v.at >= after) and (before is None or v.at < before) and (
                min_confidence is None or v.confidence >= min_confidence) and matches(filter or {}, v)
        ]

    def get(self, space, id, as_of=NEVER - 1, now=0):
        entry = self.spaces.get(space, {}).get(id)
        version = entry.at(as_of) if entry else None
        return None if version is None or expired(version, now) else version

    def holds(self, space, id):
        """Whether an id is taken: by a memory that is visible, or by one that is suppressed."""
        entry = self.spaces.get(space, {}).get(id)
        return entry is not None and (entry.suppressed is not None or entry.at(NEVER - 1) is not None)

    def counts(self, now=0):
        found = {name: len(self.visible(name, now=now)) for name in self.spaces}
        return {name: count for name, count in found.items() if count}

    def similarities(self, query, versions):
        return similarities(self.metric, query, np.array([v.embedding for v in versions], dtype="f8"))

    def scores(self, query, versions, rank=None, now=0):
        """(score, parts) of each version; parts is None without rank."""
        found = self.similarities(query, versions) if versions else []
        if rank is None:
            return [(s, None) for s in found]
        return [ranked(s, v, rank, now) for s, v in zip(found, versions)]


def expired(version, now):
    return version.expires is not None and version.expires <= now


def as_vector(embedding):
    if isinstance(embedding, bytes):
        return np.frombuffer(embedding, dtype="<f4")
    return np.asarray(embedding, dtype="<f4")


def similarities(metric, query, rows):
    query = np.asarray(as_vector(query), dtype="f8")
    if metric == "ip":
        return rows @ query
    if metric == "l2":
        return -((rows - query)**2).sum(axis=1)
    return rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))


def ranked(similarity, version, rank, now):
    weight, floor, half_life_s = rank.get("confidence_weight", 0.0), rank.get("floor", 0.0), rank.get("half_life_s")
    confidence = 1.0 - weight + weight * version.confidence
    age_s = max(0, rank.get("now", now) - version.at) / 1e9
    decay = 1.0 if half_life_s is None else floor + (1.0 - floor) * 2.0**(-age_s / half_life_s)
    clamped = max(0.0, similarity)
    return clamped * confidence * decay, {"similarity": clamped, "confidence": confidence, "decay": decay}


# ---- filters

MISSING = object()
ORDERINGS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def matches(filter, version):
    tags = set(version.tags)
    return (("tags_any" not in filter or bool(tags & set(filter["tags_any"])))
            and tags >= set(filter.get("tags_all", ())) and not tags & set(filter.get("tags_none", ()))
            and ("ids" not in filter or version.id in filter["ids"])
            and all(meets(condition, version.meta or {}) for condition in filter.get("meta", ())))


def meets(condition, meta):
    value = look_up(meta, condition["key"])
    (test, operand), = [(k, v) for k, v in condition.items() if k != "key"]
    if test == "exists":
        return (value is not MISSING) == operand
    if value is MISSING:
        return test == "ne"
    if test == "in":
        return any(same(value, one) for one in operand)
    if test in ("eq", "ne"):
        return same(value, operand) == (test == "eq")
    return comparable(value, operand) and ORDERINGS[test](value, operand)


def look_up(meta, dotted):
    for key in dotted.split("."):
        if not isinstance(meta, dict) or key not in meta:
            return MISSING
        meta = meta[key]
    return meta


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def comparable(a, b):
    return (is_number(a) and is_number(b)) or (isinstance(a, str) and isinstance(b, str))


def same(a, b):
    if is_number(a) and is_number(b):
        return a == b
    return type(a) is type(b) and a == b


# ---- holding replies against the model


def assert_memory(row, version, what=""):
    """A memory of a reply, field by field; embedding, content and meta bit for bit."""
    assert row is not None, f"{what}: missing, the model has {version}"
    assert row["id"] == version.id and row["version"] == version.born, f"{what}: {row} is not {version}"
    if "embedding" in row:
        assert as_vector(row["embedding"]).tobytes() == version.embedding.tobytes(), f"{what}: embedding of {row['id']}"
    for name, empty in (("content", None), ("meta", {}), ("tags", [])):
        if name in row:
            expected = list(version.tags) if name == "tags" else getattr(version, name)
            found = row[name]
            assert (found or empty) == (expected
                                        or empty), f"{what}: {name} of {row['id']}: {found!r}, not {expected!r}"
            assert type(found or empty) is type(expected or empty), f"{what}: type of {name} of {row['id']}: {found!r}"
    if "at" in row:
        assert row["at"] == version.at, f"{what}: at of {row['id']}: {row['at']}, not {version.at}"
    if "confidence" in row:
        assert abs(row["confidence"] - version.confidence) < 1e-6, f"{what}: confidence of {row['id']}"
    if "expires" in row:
        assert row["expires"] == version.expires, f"{what}: expires of {row['id']}"


def compare_get(model, reply, space, ids, **when):
    assert len(reply["memories"]) == len(ids), f"get of {len(ids)} ids answered {len(reply['memories'])}"
    for id, row in zip(ids, reply["memories"]):
        version = model.get(space, id, **when)
        if version is None:
            assert row is None, f"get {space}/{id}: {row}, but the model has none"
        else:
            assert_memory(row, version, f"get {space}/{id}")


def compare_list(model, rows, space, order="newest", now=0, **selection):
    """`rows` of all pages. Memories of the same time may stand in any order."""
    expected = model.select(space, now=now, **selection)
    by_key = {(v.space, v.id): v for v in expected}
    keys = [(row.get("space", space), row["id"]) for row in rows]
    assert len(set(keys)) == len(keys), f"list repeats: {sorted(keys, key=str)}"
    assert set(keys) == set(by_key), difference("list", set(keys), set(by_key))
    for row, key in zip(rows, keys):
        assert_memory(row, by_key[key], f"list {key}")
    times = [by_key[key].at for key in keys]
    assert times == sorted(times, reverse=order == "newest"), f"list is not in order {order}: {times}"


def compare_recall(model, hits, query, space, k, rank=None, now=0, min_score=None, without=None, **selection):
    """The hits of one exact recall. `without` is the memory that `like` leaves out."""
    candidates = [v for v in model.select(space, now=now, **selection) if v is not without]
    scored = [(v, *s) for v, s in zip(candidates, model.scores(query, candidates, rank, now))]
    if min_score is not None:
        scored = [row for row in scored if row[1] >= min_score - TOLERANCE]
    by_key = {(v.space, v.id): (v, score, parts) for v, score, parts in scored}
    keys = [(hit.get("space", space), hit["id"]) for hit in hits]
    assert len(set(keys)) == len(keys), f"recall repeats: {keys}"
    assert set(keys) <= set(by_key), difference("recall", set(keys), set(by_key))
    for hit, key in zip(hits, keys):
        assert_hit(hit, *by_key[key], model.metric)
    assert_complete(hits, keys, by_key, k, min_score)
    assert_order(hits, keys, by_key)


def assert_hit(hit, version, score, parts, metric):
    what = f"hit {version.space}/{version.id}"
    assert_memory(hit, version, what)
    slack = TOLERANCE * max(1.0, abs(score))
    assert abs(hit["score"] - score) <= slack, f"{what}: score {hit['score']}, the model says {score}"
    if parts is None:
        assert abs(hit["similarity"] - hit["score"]) <= slack, f"{what}: without rank, score is similarity: {hit}"
        return
    for name, value in parts.items():
        assert abs(hit["parts"][name] - value) <= TOLERANCE, f"{what}: part {name} {hit['parts'][name]}, not {value}"


def assert_complete(hits, keys, by_key, k, min_score):
    """min(k, matches) hits, and none left out that is better than one that came."""
    sure = {key for key, (_, score, _) in by_key.items() if min_score is None or score >= min_score + TOLERANCE}
    assert len(hits) <= k, f"{len(hits)} hits for k = {k}"
    assert len(hits) >= min(k, len(sure)), f"{len(hits)} hits of {len(sure)} that match, k = {k}"
    missing = sure - set(keys)
    if hits and missing:
        worst = by_key[keys[-1]][1]
        best = max(missing, key=lambda key: by_key[key][1])
        lead = by_key[best][1] - worst
        assert lead <= 2 * TOLERANCE * max(1.0,
                                           abs(worst)), f"{best} is better by {lead} than the last hit, but left out"


def assert_order(hits, keys, by_key):
    """Descending by the server's own scores; ties: later at, then id, then space."""
    def order(place):
        version = by_key[keys[place]][0]
        return (-hits[place]["score"], -version.at, id_order(version.id), version.space)

    places = [order(i) for i in range(len(hits))]
    assert places == sorted(places), f"hits out of order: {places}"


def compare_count(model, reply, space, now=0, **selection):
    expected = len(model.select(space, now=now, **selection))
    assert reply["count"] == expected, f"count of {space} {selection}: {reply['count']}, the model has {expected}"


def compare_spaces(model, reply, now=0, prefix=""):
    found = {row["space"]: row["count"] for row in reply["spaces"] if row["space"].startswith(prefix)}
    expected = {name: count for name, count in model.counts(now).items() if name.startswith(prefix)}
    assert found == expected, f"spaces: {found}, the model has {expected}"


def difference(what, found, expected):
    return (
        f"{what}: {len(found)} found, {len(expected)} expected; too many: {sorted(found - expected, key=str)[:10]}; "
        f"missing: {sorted(expected - found, key=str)[:10]}")


def list_all(ask, **request):
    """All rows of a list, following its cursors. `ask` is Cluster.ok or the like."""
    rows, cursor = [], None
    while True:
        page = ask("list", **request, **({} if cursor is None else {"cursor": cursor}))
        rows += page["memories"]
        cursor = page.get("cursor")
        if cursor is None:
            return rows
