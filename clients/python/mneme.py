"""mneme.py - the Python client of Mneme, a storage engine for memories: one file over pyzmq and msgpack.

    import mneme
    with mneme.open("/var/lib/mneme") as m:
        m.remember(vector, content="the kettle is on", tags=["kitchen"])
        for hit in m.recall(vector, k=5):
            print(hit.score, hit.content)

What a program may rely on:
  discovery   only the data folder (or a control endpoint) is given; `info` names the other endpoints, and is asked
              again when one falls silent.
  writes      each carries an `idem` key. A lost reply is asked for again with the same key, so a write happens once.
              When its fate is still not known at the time-out, Unknown is raised with `idem` set: call again with that
              key.
  reads       go round the recall workers; a worker that dies is passed over, its request is asked of the next.
  busy        is tried again with back-off until the time-out.
  errors      are subclasses of MnemeError, one per code of the protocol: mneme.NotFound, mneme.VersionMismatch, ...
  embeddings  bytes of little-endian f32, or a list, an array.array, a numpy array of any float type.
  times       nanoseconds since the Unix epoch, as int (time.time_ns()).
  threads     a client may be shared by threads; its requests to one endpoint are sent one after the other.
              After a fork, open a new one.
  closing     `with`, or close(); a client that is dropped without is closed when Python collects it.
"""

from __future__ import annotations

import array
import dataclasses
import itertools
import os
import random
import sys
import threading
import time
import uuid
import weakref
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import msgpack
import zmq

Id = Union[int, str]
Space = Union[str, Sequence[str], None]
Key = Union[bytes, str]
Embedding = Any  # bytes, list of float, array.array, memoryview or numpy array


class MnemeError(Exception):
    """A request was refused, or got no answer. `code` is the protocol's word, `retry` whether the same may succeed
    later."""

    code = "internal"
    retry = False

    def __init__(self, sentence: str, idem: Optional[str] = None):
        super().__init__(sentence)
        self.idem = idem


# >>> generated: error codes
ERROR_CODES = {
    "bad_request": False,
    "bad_op": False,
    "bad_dim": False,
    "bad_value": False,
    "not_found": False,
    "exists": False,
    "version_mismatch": False,
    "too_large": False,
    "busy": True,
    "read_only": True,
    "unknown": True,
    "unavailable": True,
    "deadline": True,
    "unauthorized": False,
    "corrupt": False,
    "internal": False,
}
# <<< generated

# >>> generated: operations
OPERATIONS = {
    "info": "control",
    "ping": "control",
    "consolidate": "control",
    "snapshot": "control",
    "verify": "control",
    "reload": "control",
    "drain": "control",
    "remember": "write",
    "revise": "write",
    "forget": "write",
    "recall": "recall",
    "get": "recall",
    "list": "recall",
    "count": "recall",
    "spaces": "recall",
    "stats": "stats",
}
# <<< generated


def _class_of(code: str, retry: bool) -> type:
    name = "".join(word.capitalize() for word in code.split("_"))
    return type(name, (MnemeError, ), {"code": code, "retry": retry, "__module__": __name__})


ERRORS = {code: _class_of(code, retry) for code, retry in ERROR_CODES.items()}
globals().update({cls.__name__: cls for cls in ERRORS.values()})


@dataclasses.dataclass
class Memory:
    """A memory as the engine returns it; fields that were not asked for are None. `damaged` names those that cannot be
    read until the store is mended: they are None, though the memory may have them."""

    id: Id
    version: int
    space: Optional[str] = None
    embedding: Optional[array.array] = None
    content: Union[str, bytes, None] = None
    meta: Optional[Dict[str, Any]] = None
    tags: Optional[List[str]] = None
    confidence: Optional[float] = None
    at: Optional[int] = None
    expires: Optional[int] = None
    damaged: Optional[List[str]] = None


@dataclasses.dataclass
class Hit(Memory):
    """A memory that a recall found. `before` and `after` are its neighbours in time when `context` was asked."""

    score: float = 0.0
    similarity: float = 0.0
    parts: Optional[Dict[str, float]] = None
    before: Optional[List[Memory]] = None
    after: Optional[List[Memory]] = None


class Remembered(NamedTuple):
    ids: List[Id]
    seq: int
    versions: List[int]

    @property
    def id(self) -> Id:
        return self.ids[0]


class Forgotten(NamedTuple):
    seq: int
    count: int
    receipt: Optional[Dict[str, Any]]


@dataclasses.dataclass
class Recalled:
    """The answer to one query: iterate it for its hits."""

    hits: List[Hit]
    seq: int
    exact: bool
    scanned: int
    us: int

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]


def open(dir: Union[str, os.PathLike],
         timeout_s: float = 10.0,
         curve: Optional[Tuple[Key, Key, Key]] = None) -> "Client":
    """A client of the cluster on data folder `dir` (or of a control endpoint, "ipc://..." or "tcp://...").

    `timeout_s` bounds each call as a whole, retries included. `curve` is (server key, own public key, own secret key)
    as `mneme keys` prints them, for TCP. Raises Unavailable when nobody answers.
    """
    where = os.fspath(dir)
    if "://" not in where:
        where = "ipc://" + os.path.join(os.path.abspath(where), "run", "control")
    client = Client(where, timeout_s, curve)
    try:
        client.info()
    except BaseException:
        client.close()
        raise
    return client


def attach(dir: Union[str, os.PathLike], wait_s: float = 0.0) -> Any:
    """The store served on data folder `dir`, mapped into this process: recall and get with no socket, by the calls and
    in the classes of a Client. See mneme_attach.py; it needs libmneme of the same build as the store's mnemed."""
    import mneme_attach  # here: a program that only uses sockets needs no library
    return mneme_attach.attach(dir, wait_s)


class Client:
    """A connection to one cluster; see the module's opening for what it promises."""
    def __init__(self, control: str, timeout_s: float, curve: Optional[Tuple[Key, Key, Key]] = None):
        self._pid = os.getpid()
        self._context = zmq.Context()
        self._timeout_s = timeout_s
        self._curve = None if curve is None else [key.encode() if isinstance(key, str) else key for key in curve]
        self._lock = threading.Lock()
        self._channels: Dict[str, _Channel] = {}
        self._turn = itertools.count(random.randrange(1 << 16))
        self._endpoints: Dict[str, List[str]] = {"control": [control]}
        # A context that is collected before its sockets would wait for them without end.
        self._release = weakref.finalize(self, _release, self._channels, self._context, self._pid)
        self._release.atexit = False  # then nobody waits for a context, and a thread may still be asking

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops the connections. Unanswered requests are abandoned; a later call raises ValueError."""
        with self._lock:
            self._release()

    # ---- writes

    def remember(self,
                 embedding: Embedding,
                 *,
                 id: Optional[Id] = None,
                 content: Union[str, bytes, None] = None,
                 meta: Optional[Mapping[str, Any]] = None,
                 tags: Optional[Sequence[str]] = None,
                 confidence: Optional[float] = None,
                 at: Optional[int] = None,
                 expires: Optional[int] = None,
                 if_absent: Optional[bool] = None,
                 if_version: Optional[int] = None,
                 supersedes: Optional[Sequence[Id]] = None,
                 space: str = "default",
                 idem: Optional[str] = None,
                 ack: Optional[str] = None,
                 timeout_s: Optional[float] = None) -> Remembered:
        """Stores one memory, or replaces the one with this id."""
        memory = dict(id=id,
                      embedding=embedding,
                      content=content,
                      meta=meta,
                      tags=tags,
                      confidence=confidence,
                      at=at,
                      expires=expires,
                      if_absent=if_absent,
                      if_version=if_version,
                      supersedes=supersedes)
        return self.remember_batch([memory], space=space, idem=idem, ack=ack, timeout_s=timeout_s)

    def remember_batch(self,
                       memories: Iterable[Union[Memory, Mapping[str, Any]]],
                       *,
                       space: str = "default",
                       idem: Optional[str] = None,
                       ack: Optional[str] = None,
                       timeout_s: Optional[float] = None) -> Remembered:
        """Stores several in one atomic change: all or none. Each is a mapping with remember's names, or a Memory."""
        reply = self._write("remember",
                            idem,
                            timeout_s,
                            space=space,
                            memories=[_outgoing(m) for m in memories],
                            ack=ack)
        return Remembered(reply["ids"], reply["seq"], reply["versions"])

    def revise(self,
               id: Id,
               *,
               space: str = "default",
               if_version: Optional[int] = None,
               idem: Optional[str] = None,
               timeout_s: Optional[float] = None,
               **changes: Any) -> int:
        """A new version with the same embedding; `changes`: confidence, content, meta, tags, at, expires. Returns its
        seq."""
        return self._write("revise", idem, timeout_s, space=space, id=id, set=changes, if_version=if_version)["seq"]

    def forget(self,
               ids: Union[Id, Sequence[Id], None] = None,
               *,
               filter: Optional[Mapping[str, Any]] = None,
               all: bool = False,
               mode: str = "delete",
               space: str = "default",
               if_version: Optional[int] = None,
               idem: Optional[str] = None,
               timeout_s: Optional[float] = None) -> Forgotten:
        """Forgets by ids, by filter, or a whole space. `mode`: delete, suppress (restorable), restore, purge (from
        every file; the answer comes when no file of the store holds the bytes, so give it a time-out to match)."""
        if isinstance(ids, (int, str)):
            ids = [ids]
        reply = self._write("forget",
                            idem,
                            timeout_s,
                            space=space,
                            ids=ids,
                            filter=filter,
                            all=all or None,
                            mode=mode,
                            if_version=if_version)
        return Forgotten(reply["seq"], reply["count"], reply.get("receipt"))

    # ---- reads

    def recall(self,
               embedding: Embedding = None,
               *,
               like: Optional[Id] = None,
               k: int = 10,
               space: Space = "default",
               timeout_s: Optional[float] = None,
               **options: Any) -> Recalled:
        """The `k` memories most like `embedding`, or like the stored memory `like`. `space`: one, several, or None for
        all.

        `options`: filter, after, before, min_confidence, min_score, target, exact, rank, context, as_of, min_seq,
        fields.
        """
        query = None if embedding is None else _f32(embedding)
        reply = self._read("recall",
                           timeout_s,
                           space=_space(space),
                           k=k,
                           embedding=query,
                           like=like,
                           **_checked(options))
        return Recalled([_hit(h) for h in reply["hits"]], reply["seq"], reply["exact"], reply["scanned"], reply["us"])

    def recall_batch(self,
                     embeddings: Union[bytes, Sequence[Embedding]],
                     *,
                     k: int = 10,
                     space: Space = "default",
                     timeout_s: Optional[float] = None,
                     **options: Any) -> List[Recalled]:
        """recall for each of `embeddings` (a sequence, a matrix, or bytes of n × dim f32), in one request."""
        reply = self._read("recall",
                           timeout_s,
                           space=_space(space),
                           k=k,
                           embeddings=_f32_rows(embeddings),
                           **_checked(options))
        rest = (reply["seq"], reply["exact"], reply["scanned"], reply["us"])
        return [Recalled([_hit(h) for h in hits], *rest) for hits in reply["results"]]

    def get(self,
            id: Id,
            *,
            space: str = "default",
            fields: Optional[Sequence[str]] = None,
            as_of: Optional[int] = None,
            timeout_s: Optional[float] = None) -> Optional[Memory]:
        """The memory with this id, or None. `fields` may include "embedding"."""
        return self.get_many([id], space=space, fields=fields, as_of=as_of, timeout_s=timeout_s)[0]

    def get_many(self,
                 ids: Sequence[Id],
                 *,
                 space: str = "default",
                 fields: Optional[Sequence[str]] = None,
                 as_of: Optional[int] = None,
                 timeout_s: Optional[float] = None) -> List[Optional[Memory]]:
        """As get, for several: the answer has their order, with None for each that is absent."""
        reply = self._read("get", timeout_s, space=space, ids=[*ids], fields=fields, as_of=as_of)
        return [None if m is None else _memory(m) for m in reply["memories"]]

    def list(self,
             *,
             space: Space = "default",
             filter: Optional[Mapping[str, Any]] = None,
             after: Optional[int] = None,
             before: Optional[int] = None,
             order: str = "newest",
             fields: Optional[Sequence[str]] = None,
             page: int = 100,
             timeout_s: Optional[float] = None) -> Iterator[Memory]:
        """All that match, in order of time, fetched `page` at a time. Never skips or repeats one that was there
        throughout."""
        cursor = None
        while True:
            reply = self._read("list",
                               timeout_s,
                               space=_space(space),
                               filter=filter,
                               after=after,
                               before=before,
                               order=order,
                               limit=page,
                               cursor=cursor,
                               fields=fields)
            yield from map(_memory, reply["memories"])
            cursor = reply.get("cursor")
            if cursor is None:
                return

    def count(self,
              *,
              space: Space = "default",
              filter: Optional[Mapping[str, Any]] = None,
              after: Optional[int] = None,
              before: Optional[int] = None,
              min_confidence: Optional[float] = None,
              timeout_s: Optional[float] = None) -> int:
        """How many memories match."""
        return self._read("count",
                          timeout_s,
                          space=_space(space),
                          filter=filter,
                          after=after,
                          before=before,
                          min_confidence=min_confidence)["count"]

    def spaces(self, *, timeout_s: Optional[float] = None) -> Dict[str, int]:
        """The spaces with a visible memory, and how many each has."""
        return {s["space"]: s["count"] for s in self._read("spaces", timeout_s)["spaces"]}

    # ---- control and statistics

    def info(self, *, timeout_s: Optional[float] = None) -> Dict[str, Any]:
        """What the cluster says of itself; also refreshes the endpoints."""
        reply = self._control("info", timeout_s)
        found = reply["endpoints"]
        self._endpoints.update(write=[found["write"]], recall=[*found["recall"]], stats=[found["stats"]])
        return reply

    def ping(self, *, timeout_s: Optional[float] = None) -> None:
        """Returns when the supervisor answers."""
        self._control("ping", timeout_s)

    def consolidate(self, *, wait: bool = True, timeout_s: float = 600.0) -> Dict[str, Any]:
        """Compacts now; with `wait`, returns when that is done."""
        return self._control("consolidate", timeout_s, wait=wait)

    def snapshot(self, path: Union[str, os.PathLike], *, timeout_s: float = 600.0) -> Dict[str, Any]:
        """A consistent copy at `path` on the server's host: {seq, bytes, files}. `mnemed --dir path` opens it."""
        return self._control("snapshot", timeout_s, path=os.path.abspath(os.fspath(path)))

    def verify(self, *, timeout_s: float = 600.0) -> Dict[str, Any]:
        """Checks every checksum: {files, bytes, damaged}."""
        return self._control("verify", timeout_s)

    def reload(self, *, timeout_s: Optional[float] = None) -> Dict[str, Any]:
        """Reads the settings marked reloadable again."""
        return self._control("reload", timeout_s)

    def drain(self, *, timeout_s: Optional[float] = None) -> Dict[str, Any]:
        """Asks the cluster to finish what it admitted, then to stop."""
        return self._control("drain", timeout_s)

    def stats(self, format: str = "map", *, timeout_s: Optional[float] = None) -> Union[Dict[str, Any], str]:
        """The statistics: a map, or as text in "json" or "prometheus"."""
        reply = self._ask("stats", self._deadline(timeout_s), dict(format=format))
        return reply["stats"] if format == "map" else reply["text"]

    # ---- how a request travels

    def _write(self, op: str, idem: Optional[str], timeout_s: Optional[float], **fields: Any) -> Dict[str, Any]:
        key = idem or uuid.uuid4().hex
        return self._ask(op, self._deadline(timeout_s), dict(fields, idem=key), idem=key)

    def _read(self, op: str, timeout_s: Optional[float], **fields: Any) -> Dict[str, Any]:
        return self._ask(op, self._deadline(timeout_s), fields)

    def _control(self, op: str, timeout_s: Optional[float], **fields: Any) -> Dict[str, Any]:
        return self._ask(op, self._deadline(timeout_s), fields)

    def _deadline(self, timeout_s: Optional[float]) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

    def _ask(self, op: str, deadline: float, fields: Dict[str, Any], idem: Optional[str] = None) -> Dict[str, Any]:
        """Sends until an answer stands or the deadline passes; a refusal that may pass is tried again with back-off."""
        fields = {name: value for name, value in fields.items() if value is not None}
        if fields.get("space") is _EVERY_SPACE:
            fields["space"] = None
        sent, refusal = False, None
        for attempt, pause_s in enumerate(_pauses()):
            try:
                reply = self._channel(OPERATIONS[op]).ask(dict(fields, op=op), self._patience(op, attempt, deadline))
                if reply.get("ok"):
                    return reply
                refusal = _error(reply, idem)
                if not self._passes(refusal, fields):
                    raise refusal
                sent = sent or refusal.code == "unknown"
            except _Silence as silence:
                sent = sent or silence.sent
                refusal = None
                self._rediscover(op, deadline)
            if time.monotonic() + pause_s >= deadline:
                break
            time.sleep(pause_s)
        if idem is not None and sent:
            raise ERRORS["unknown"](f"{op}: no answer in time; ask again with the same idem to learn its fate", idem)
        raise refusal or ERRORS["unavailable"](
            f"{op}: nobody answered at {', '.join(self._endpoints.get(OPERATIONS[op], ()))} in time{self._advice()}")

    def _advice(self) -> str:
        """On this host the socket's file may be missing; over TCP a key that is not welcome gets no answer at all."""
        transport, _, place = self._endpoints["control"][0].partition("://")
        if transport == "ipc":
            if os.path.exists(place):
                return ""
            folder = place[:-len("/run/control")] if place.endswith("/run/control") else "DIR"
            return f"; no store is served there: start one with `mnemed --dir {folder}`"
        if self._curve is None:
            return "; over TCP a store wants keys: curve=(server key, own public key, own secret key)"
        return "; is the server's key right, and is this one on the store's list of clients (`mneme keys NAME --add`)?"

    def _patience(self, op: str, attempt: int, deadline: float) -> float:
        """Until when one attempt may take: a read leaves a worker that hangs to itself, where there is another."""
        if len(self._endpoints.get(OPERATIONS[op], ())) < 2:
            return deadline
        return min(deadline, time.monotonic() + 2.0**attempt)

    @staticmethod
    def _passes(refusal: MnemeError, fields: Mapping[str, Any]) -> bool:
        """Whether waiting helps: history that compaction has let go stays gone."""
        if refusal.code == "unavailable":
            return "as_of" not in fields
        return refusal.code == "busy" or (refusal.code == "unknown" and "idem" in fields)

    def _rediscover(self, op: str, deadline: float) -> None:
        """After silence: the endpoints may have changed, with the cluster that stood behind them."""
        if op == "info":
            return
        try:
            self.info(timeout_s=min(0.5, max(0.0, deadline - time.monotonic())))
        except MnemeError:
            pass  # still away: the caller's loop goes on until its own deadline

    def _channel(self, group: str) -> "_Channel":
        if os.getpid() != self._pid:
            raise RuntimeError("this client was opened before a fork: open a new one in the child")
        endpoints = self._endpoints.get(group)
        if endpoints is None:
            self.info()
            endpoints = self._endpoints[group]
        # Turns are for those between whom there is a choice: one taken by `info` would lead back to a worker that
        # hangs.
        endpoint = endpoints[next(self._turn) % len(endpoints) if len(endpoints) > 1 else 0]
        with self._lock:
            if not self._release.alive:
                raise ValueError("this client is closed")
            if endpoint not in self._channels:
                self._channels[endpoint] = _Channel(self._context, endpoint, self._curve)
            return self._channels[endpoint]


def _release(channels: Dict[str, "_Channel"], context: zmq.Context, pid: int) -> None:
    """What a client holds, given back by close() or when the client is collected; a forked child leaves it alone."""
    if pid != os.getpid():
        return
    for channel in channels.values():
        channel.close()
    channels.clear()
    context.destroy(linger=0)


class _Silence(Exception):
    """No answer came; `sent` says whether the request may have arrived."""
    def __init__(self, sent: bool):
        super().__init__()
        self.sent = sent


class _Channel:
    """One endpoint's DEALER socket. It is thrown away after a silence, so that a late reply meets nobody."""

    CONNECT_S = 0.25  # how long a peer may take to accept a connection before the next one is tried

    def __init__(self, context: zmq.Context, endpoint: str, curve: Optional[List[bytes]]):
        self._context, self._endpoint, self._curve = context, endpoint, curve
        self._lock = threading.Lock()
        self._rid = itertools.count(1)
        self._socket: Optional[zmq.Socket] = None
        self._monitor: Optional[zmq.Socket] = None

    def ask(self, request: Dict[str, Any], deadline: float) -> Dict[str, Any]:
        with self._lock:
            if self._socket is None:
                self._connect()
            rid = next(self._rid)
            wait_ms = _left_ms(deadline)
            if not self._socket.poll(min(wait_ms, int(self.CONNECT_S * 1000)), zmq.POLLOUT):
                self._drop()
                raise _Silence(sent=False)
            self._socket.send(msgpack.packb(dict(request, rid=rid, deadline_ms=wait_ms), use_bin_type=True))
            return self._receive(rid, deadline)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _receive(self, rid: int, deadline: float) -> Dict[str, Any]:
        """The reply with this rid. A broken connection ends the wait: what was in flight on it will not be answered."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(_left_ms(deadline) + 50))  # the server's own `deadline` comes first
            if self._socket in ready:
                reply = msgpack.unpackb(self._socket.recv_multipart()[-1], raw=False, strict_map_key=False)
                if reply.get("rid") == rid:
                    return reply
            else:
                self._drop()
                raise _Silence(sent=True)

    def _connect(self) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.immediate = True  # queue only on a live connection
        socket.reconnect_ivl, socket.reconnect_ivl_max = 10, 200
        if self._curve is not None:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = self._curve
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.connect(self._endpoint)
        self._socket = socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            self._socket = self._monitor = None


_EVERY_SPACE = object()  # stands for the protocol's `space: null` among fields where None means "not given"


def _space(space: Space) -> Any:
    if space is None:
        return _EVERY_SPACE
    return space if isinstance(space, str) else [*space]


RECALL_OPTIONS = frozenset(("filter", "after", "before", "min_confidence", "min_score", "target", "exact", "rank",
                            "context", "as_of", "min_seq", "fields"))


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """`options` of a recall; a name that the protocol does not have would be passed over, and change the answer."""
    for name in options:
        if name not in RECALL_OPTIONS:
            raise TypeError(f"recall has no option {name!r}; it has {', '.join(sorted(RECALL_OPTIONS))}")
    return options


def _pauses() -> Iterator[float]:
    """Back-off in seconds: doubles from 2 ms to 500 ms, spread at random so that clients do not march in step."""
    for step in itertools.count():
        yield min(0.5, 0.002 * 2**min(step, 10)) * random.uniform(0.5, 1.0)


def _left_ms(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000))


def _error(reply: Mapping[str, Any], idem: Optional[str]) -> MnemeError:
    error = ERRORS.get(reply.get("code", ""), MnemeError)(reply.get("error", "refused without a reason"), idem)
    error.code, error.retry = reply.get("code", error.code), bool(reply.get("retry"))
    return error


def _f32(embedding: Embedding) -> bytes:
    """Any accepted form of one embedding as little-endian f32."""
    if isinstance(embedding, (bytes, bytearray)):
        return bytes(embedding)
    if hasattr(embedding, "astype"):
        return embedding.astype("<f4").tobytes()
    values = array.array("f", embedding)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _f32_rows(embeddings: Union[bytes, Sequence[Embedding]]) -> Any:
    if isinstance(embeddings, (bytes, bytearray)) or hasattr(embeddings, "astype"):
        return _f32(embeddings)
    return b"".join(_f32(row) for row in embeddings)


def _outgoing(memory: Union[Memory, Mapping[str, Any]]) -> Dict[str, Any]:
    """A memory as the wire wants it: what is None is left out, as are the fields that only replies carry."""
    if isinstance(memory, Memory):
        memory = {
            f.name: getattr(memory, f.name)
            for f in dataclasses.fields(Memory) if f.name not in ("version", "space")
        }
    given = {name: value for name, value in memory.items() if value is not None}
    if "embedding" in given:
        given["embedding"] = _f32(given["embedding"])
    return given


def _memory_fields(wire: Mapping[str, Any]) -> Dict[str, Any]:
    known = {f.name for f in dataclasses.fields(Memory)}
    fields = {name: value for name, value in wire.items() if name in known}
    if isinstance(fields.get("embedding"), bytes):
        values = array.array("f", fields["embedding"])
        if sys.byteorder == "big":
            values.byteswap()
        fields["embedding"] = values
    return fields


def _memory(wire: Mapping[str, Any]) -> Memory:
    return Memory(**_memory_fields(wire))


def _neighbours(wire: Optional[Sequence[Mapping[str, Any]]]) -> Optional[List[Memory]]:
    return None if wire is None else [_memory(m) for m in wire]


def _hit(wire: Mapping[str, Any]) -> Hit:
    return Hit(**_memory_fields(wire),
               score=wire["score"],
               similarity=wire["similarity"],
               parts=wire.get("parts"),
               before=_neighbours(wire.get("before")),
               after=_neighbours(wire.get("after")))
