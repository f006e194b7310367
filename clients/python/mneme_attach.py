"""mneme_attach.py - recall inside the Python process: libmneme through ctypes, no socket. Reached as mneme.attach.

    import mneme
    with mneme.attach("/var/lib/mneme") as m:
        for hit in m.recall(vector, k=5):
            print(hit.score, hit.content)

The store is mapped read-only and searched here; hits, scores and order are those of a recall worker, bit for bit, and
come in the same classes as from mneme.open. Writing stays with mneme.open. What a program may rely on:
  embeddings  a contiguous numpy array or array.array of 32-bit floats is searched with as it lies, without a copy; other
              forms are converted. Answers are copies: they stay good after the next call, and after close.
  restarts    a handle outlives the store's processes. While the store is down calls raise mneme.Unavailable; after its
              next start they attach again by themselves.
  threads     calls of several threads take turns, without the GIL while they search; for searches side by side attach
              once per thread. After a fork, attach anew.
  library     libmneme.so.0 is looked for where the system keeps libraries; MNEME_LIBRARY names another file. It must be
              of the same build as the mnemed that serves the store.
"""

from __future__ import annotations

import array
import ctypes
import ctypes.util
import os
import sys
import threading
from ctypes import POINTER, byref, c_bool, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, List, Mapping, Optional, Sequence, Union

import msgpack

import mneme

DEFAULT_FIELDS = ("content", "meta", "tags", "at", "confidence")

# ---- the structs of mneme.h


class _Id(ctypes.Structure):
    _fields_ = [("number", c_uint64), ("uuid", c_char * 37)]


class _Condition(ctypes.Structure):
    _fields_ = [("key", c_char_p), ("comparison", c_int), ("value", c_char_p), ("value_size", c_size_t)]


class _Filter(ctypes.Structure):
    _fields_ = [("tags_any", POINTER(c_char_p)), ("tags_any_count", c_size_t), ("tags_all", POINTER(c_char_p)),
                ("tags_all_count", c_size_t), ("tags_none", POINTER(c_char_p)), ("tags_none_count", c_size_t),
                ("ids", POINTER(_Id)), ("id_count", c_size_t), ("meta", POINTER(_Condition)), ("meta_count", c_size_t)]


class _Where(ctypes.Structure):
    _fields_ = [("spaces", POINTER(c_char_p)), ("space_count", c_size_t), ("all", c_bool), ("filter", POINTER(_Filter)),
                ("after", POINTER(c_int64)), ("before", POINTER(c_int64)), ("min_confidence", POINTER(c_double))]


class _Rank(ctypes.Structure):
    _fields_ = [("half_life_s", POINTER(c_double)), ("now", POINTER(c_int64)), ("confidence_weight", POINTER(c_double)),
                ("floor", POINTER(c_double))]


class _Query(ctypes.Structure):
    _fields_ = [("where", _Where), ("embeddings", c_void_p), ("count", c_size_t), ("like", POINTER(_Id)),
                ("k", c_uint32), ("min_score", POINTER(c_double)), ("target", POINTER(c_double)), ("exact", c_bool),
                ("rank", POINTER(_Rank)), ("context", c_uint32), ("as_of", POINTER(c_uint64)),
                ("min_seq", POINTER(c_uint64)), ("fields", POINTER(c_char_p)), ("field_count", c_size_t)]


class _Answer(ctypes.Structure):
    _fields_ = [("results", c_void_p), ("count", c_size_t), ("seq", c_uint64), ("exact", c_bool), ("scanned", c_uint64),
                ("us", c_uint64)]


class _Memories(ctypes.Structure):
    _fields_ = [("memory", c_void_p), ("count", c_size_t), ("seq", c_uint64)]


_COMPARISONS = {"eq": 0, "ne": 1, "in": 2, "gt": 3, "gte": 4, "lt": 5, "lte": 6, "exists": 7}


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    code, handle, pack = c_int, c_void_p, [POINTER(c_void_p), POINTER(c_size_t)]
    for name, result, arguments in (
        ("mneme_attach", code, [POINTER(c_void_p), c_char_p, c_int]),
        ("mneme_detach", None, [handle]),
        ("mneme_open_error", c_char_p, []),
        ("mneme_code_word", c_char_p, [code]),
        ("mneme_attached_error", c_char_p, [handle]),
        ("mneme_attached_dim", c_uint32, [handle]),
        ("mneme_attached_uuid", c_char_p, [handle]),
        ("mneme_attached_metric", c_char_p, [handle]),
        ("mneme_attached_release", None, [handle]),
        ("mneme_attached_recall", code, [handle, POINTER(_Query), POINTER(_Answer)]),
        ("mneme_attached_get", code, [
            handle, c_char_p, POINTER(_Id), c_size_t,
            POINTER(c_char_p), c_size_t,
            POINTER(c_uint64),
            POINTER(_Memories)
        ]),
        ("mneme_attached_pack_answer", code, [handle, POINTER(_Answer)] + pack),
        ("mneme_attached_pack_memories", code, [handle, POINTER(_Memories)] + pack),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _library() -> ctypes.CDLL:
    path = os.environ.get("MNEME_LIBRARY") or ctypes.util.find_library("mneme") or "libmneme.so.0"
    try:
        return _declare(ctypes.CDLL(path))
    except (OSError, AttributeError) as error:
        raise mneme.ERRORS["unavailable"](
            f"libmneme cannot be loaded ({error}): install it, or set MNEME_LIBRARY to its file") from None


# ---- values on their way in


def _bad(sentence: str) -> mneme.MnemeError:
    return mneme.ERRORS["bad_request"](sentence)


def _some(kind: Any, value: Any) -> Any:
    """A pointer to an optional number; None is not given."""
    return None if value is None else ctypes.pointer(kind(value))


def _texts(texts: Optional[Sequence[str]]) -> Any:
    """A `const char *const *` and its count."""
    if texts is None:
        return None, 0
    if isinstance(texts, (str, bytes)):
        raise _bad("a list of strings is wanted, not one string")
    encoded = [text.encode() for text in texts]
    return (c_char_p * max(len(encoded), 1))(*encoded), len(encoded)


def _one_id(id: mneme.Id) -> _Id:
    if isinstance(id, str):
        encoded = id.lower().encode()
        if len(encoded) != 36:
            raise _bad(f"the id {id!r} is no UUID")
        return _Id(0, encoded)
    if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < 2**63:
        raise _bad(f"the id {id!r} is neither an integer from 0 to 2^63 - 1 nor a UUID")
    return _Id(id, b"")


def _ids(ids: Sequence[mneme.Id]) -> Any:
    return (_Id * max(len(ids), 1))(*map(_one_id, ids))


def _only(what: str, given: Mapping[str, Any], *known: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise _bad(f"{what} has no {unknown[0]!r}; it has {', '.join(known)}")


def _condition(condition: Mapping[str, Any]) -> _Condition:
    _only("a condition", condition, "key", *_COMPARISONS)
    tests = [name for name in condition if name != "key"]
    if "key" not in condition or len(tests) != 1:
        raise _bad("a condition must have a key and one of eq, ne, in, gt, gte, lt, lte, exists")
    value = msgpack.packb(condition[tests[0]], use_bin_type=True)
    return _Condition(condition["key"].encode(), _COMPARISONS[tests[0]], value, len(value))


def _filter(given: Optional[Mapping[str, Any]]) -> Any:
    if given is None:
        return None
    _only("filter", given, "tags_any", "tags_all", "tags_none", "ids", "meta")
    out = _Filter()
    for name in ("tags_any", "tags_all", "tags_none"):
        texts, count = _texts(given.get(name))
        setattr(out, name, texts)
        setattr(out, name + "_count", count)
    if given.get("ids") is not None:
        out.ids, out.id_count = _ids(given["ids"]), len(given["ids"])
    conditions = given.get("meta") or ()
    out.meta, out.meta_count = (_Condition * max(len(conditions), 1))(*map(_condition, conditions)), len(conditions)
    return ctypes.pointer(out)


def _rank(given: Optional[Mapping[str, Any]]) -> Any:
    if given is None:
        return None
    _only("rank", given, "half_life_s", "now", "confidence_weight", "floor")
    return ctypes.pointer(
        _Rank(_some(c_double, given.get("half_life_s")), _some(c_int64, given.get("now")),
              _some(c_double, given.get("confidence_weight")), _some(c_double, given.get("floor"))))


class _Floats:
    """Embeddings as the library reads them: an address and a number of floats; `keep` holds the memory."""
    def __init__(self, given: Any):
        if sys.byteorder == "little" and hasattr(given, "__array_interface__"):
            shape = given.__array_interface__
            if shape["typestr"] == "<f4" and shape.get("strides") is None:
                self.keep, self.address, self.floats = given, shape["data"][0], given.size
                return
        if isinstance(given, array.array) and given.typecode == "f":
            self.keep, (self.address, self.floats) = given, given.buffer_info()
            return
        self.keep = mneme._f32(given)
        self.address, self.floats = ctypes.cast(c_char_p(self.keep), c_void_p).value, len(self.keep) // 4


# ---- the handle


def attach(dir: Union[str, os.PathLike], wait_s: float = 0.0) -> "Attached":
    """Attaches to the store that is served on data folder `dir`. `wait_s`: how long to wait for one that is not up yet.
    Raises Unavailable, Unauthorized, Busy (no reader slot is free) or Corrupt (another build)."""
    return Attached(os.fspath(dir), wait_s)


class Attached:
    """A store, mapped into this process; see the module's opening for what it promises."""
    def __init__(self, dir: str, wait_s: float):
        self._lock = threading.Lock()
        self._lib = _library()
        self._handle = c_void_p()
        code = self._lib.mneme_attach(byref(self._handle), os.fsencode(dir), int(wait_s * 1000))
        if code != 0:
            raise self._error(code, self._lib.mneme_open_error())
        self.dim = self._lib.mneme_attached_dim(self._handle)
        self.uuid = self._lib.mneme_attached_uuid(self._handle).decode()
        self.metric = self._lib.mneme_attached_metric(self._handle).decode()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def close(self) -> None:
        """Unmaps the store and gives the reader slot back."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle:
            self._lib.mneme_detach(handle)

    def release(self) -> None:
        """Gives mappings and slot back until the next call: for a process that will be idle for long."""
        with self._lock:
            self._lib.mneme_attached_release(self._open())

    def recall(self,
               embedding: mneme.Embedding = None,
               *,
               like: Optional[mneme.Id] = None,
               k: int = 10,
               space: mneme.Space = "default",
               **options: Any) -> mneme.Recalled:
        """As Client.recall, with the same `options`: filter, after, before, min_confidence, min_score, target, exact,
        rank, context, as_of, min_seq, fields."""
        floats = None if embedding is None else _Floats(embedding)
        self._check_length(floats, 1)
        reply = self._ask(floats, like, k, space, options)
        return mneme.Recalled([mneme._hit(h) for h in reply["hits"]], reply["seq"], reply["exact"], reply["scanned"],
                              reply["us"])

    def recall_batch(self,
                     embeddings: Any,
                     *,
                     k: int = 10,
                     space: mneme.Space = "default",
                     **options: Any) -> List[mneme.Recalled]:
        """recall for each of `embeddings` (a matrix, a sequence of embeddings, or bytes of n × dim f32)."""
        whole = hasattr(embeddings, "__array_interface__") or isinstance(embeddings, (bytes, bytearray))
        floats = _Floats(embeddings if whole else mneme._f32_rows(embeddings))
        self._check_length(floats, None)
        reply = self._ask(floats, None, k, space, options)
        results = reply["results"] if "results" in reply else [reply["hits"]]
        rest = (reply["seq"], reply["exact"], reply["scanned"], reply["us"])
        return [mneme.Recalled([mneme._hit(h) for h in hits], *rest) for hits in results]

    def get(self,
            id: mneme.Id,
            *,
            space: str = "default",
            fields: Optional[Sequence[str]] = None,
            as_of: Optional[int] = None) -> Optional[mneme.Memory]:
        """The memory with this id, or None. `fields` may include "embedding"."""
        return self.get_many([id], space=space, fields=fields, as_of=as_of)[0]

    def get_many(self,
                 ids: Sequence[mneme.Id],
                 *,
                 space: str = "default",
                 fields: Optional[Sequence[str]] = None,
                 as_of: Optional[int] = None) -> List[Optional[mneme.Memory]]:
        """As get, for several: the answer has their order, with None for each that is absent."""
        found, (names, count) = _Memories(), _texts(fields)
        with self._lock:
            handle = self._open()
            self._check(
                self._lib.mneme_attached_get(handle, space.encode(), _ids(ids), len(ids), names, count,
                                             _some(c_uint64, as_of), byref(found)))
            reply = self._unpack(self._lib.mneme_attached_pack_memories, found)
        return [None if m is None else mneme._memory(m) for m in reply["memories"]]

    # ---- how a call is made

    def _open(self) -> c_void_p:
        if not self._handle:
            raise ValueError("this handle is closed")
        return self._handle

    def _check_length(self, floats: Optional[_Floats], count: Optional[int]) -> None:
        if floats is None:
            return
        if floats.floats == 0 or floats.floats % self.dim or count not in (None, floats.floats // self.dim):
            raise mneme.ERRORS["bad_dim"](f"{floats.floats} numbers were given; this store has {self.dim} dimensions")

    def _ask(self, floats: Optional[_Floats], like: Optional[mneme.Id], k: int, space: mneme.Space,
             options: Mapping[str, Any]) -> Mapping[str, Any]:
        query, answer = self._query(floats, like, k, space, **options), _Answer()
        with self._lock:
            handle = self._open()
            self._check(self._lib.mneme_attached_recall(handle, byref(query), byref(answer)))
            return self._unpack(self._lib.mneme_attached_pack_answer, answer)

    def _query(self,
               floats: Optional[_Floats],
               like: Optional[mneme.Id],
               k: int,
               space: mneme.Space,
               filter: Optional[Mapping[str, Any]] = None,
               after: Optional[int] = None,
               before: Optional[int] = None,
               min_confidence: Optional[float] = None,
               min_score: Optional[float] = None,
               target: Optional[float] = None,
               exact: Optional[bool] = None,
               rank: Optional[Mapping[str, Any]] = None,
               context: Optional[int] = None,
               as_of: Optional[int] = None,
               min_seq: Optional[int] = None,
               fields: Optional[Sequence[str]] = None) -> _Query:
        if not 1 <= k <= 10_000 or not 0 <= (context or 0) <= 1000:
            raise _bad(f"k is {k} and context {context or 0}; they must be from 1 to 10000 and from 0 to 1000")
        names = [space] if isinstance(space, str) else None if space is None else [*space]
        if names is not None and not names:
            raise _bad("space is an empty list; name a space, or say None for all")
        if names is not None and not isinstance(space, str):  # a list of one asks for the name in each hit
            fields = [*(DEFAULT_FIELDS if fields is None else fields), "space"]
        spaces, space_count = _texts(names)
        field_names, field_count = _texts(fields)
        where = _Where(spaces, space_count, names is None, _filter(filter), _some(c_int64, after), _some(c_int64, before),
                       _some(c_double, min_confidence))
        query = _Query(where, floats.address if floats else None, floats.floats // self.dim if floats else 0,
                       None if like is None else ctypes.pointer(_one_id(like)), k, _some(c_double, min_score),
                       _some(c_double, target), bool(exact), _rank(rank), context or 0, _some(c_uint64, as_of),
                       _some(c_uint64, min_seq), field_names, field_count)
        query.keep = floats
        return query

    def _unpack(self, pack: Any, found: Any) -> Mapping[str, Any]:
        data, size = c_void_p(), c_size_t()
        self._check(pack(self._handle, byref(found), byref(data), byref(size)))
        return msgpack.unpackb((c_char * size.value).from_address(data.value), raw=False, strict_map_key=False)

    def _check(self, code: int) -> None:
        if code != 0:
            raise self._error(code, self._lib.mneme_attached_error(self._handle))

    def _error(self, code: int, sentence: Optional[bytes]) -> mneme.MnemeError:
        word = self._lib.mneme_code_word(code).decode()
        return mneme._error({
            "code": word,
            "error": (sentence or b"").decode(errors="replace"),
            "retry": mneme.ERROR_CODES.get(word, False)
        }, None)
