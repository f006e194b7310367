"""cluster.py - a real mnemed on a temporary store, for black-box tests: start, ask, kill, restart, and a strict stop.

Nothing here knows more than the wire protocol: bare ZeroMQ frames with MessagePack maps. The environment says what
runs:
  MNEMED            path of the mnemed program (required)
  MNEME             path of the mneme command (tests of the command need it)
  MNEME_TEST_SCALE  multiplies loop counts (default 1)
  MNEME_TEST_SEED   of random runs (see a_seed)
  MNEME_TEST_SLOW   1 for sanitized or valgrind builds: patience × 8
  MNEME_TEST_DIR    where stores are made (default /tmp; keep it short, socket paths have a limit)
  MNEME_TEST_KEEP   1 keeps the stores for a look afterwards

A stop is only good when mnemed exits with status 0 and leaves no process and nothing in /dev/shm behind; finish()
asserts that. Whatever happens, finish() ends every process of the cluster: each carries a mark in its environment.
"""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import zlib
from pathlib import Path

import msgpack
import numpy as np
import zmq

SCALE = float(os.environ.get("MNEME_TEST_SCALE", "1"))
SLOW = os.environ.get("MNEME_TEST_SLOW") == "1"
PATIENCE = 8.0 if SLOW else 1.0
REPLY_S = 30.0 * PATIENCE  # far more than is ever needed: a machine may be slow, and busy with other things
READY_S = 60.0 * PATIENCE
STOP_S = 60.0 * PATIENCE
PATIENT = {"supervisor.stall": "60s"}  # a role that a busy machine or disk keeps waiting is not killed for it
MARK = "MNEME_TEST_CLUSTER"
SHM = Path("/dev/shm")

ENDPOINT_OF = {
    **dict.fromkeys(("info", "ping", "consolidate", "snapshot", "verify", "reload", "drain"), "control"),
    **dict.fromkeys(("remember", "revise", "forget"), "write"),
    **dict.fromkeys(("recall", "get", "list", "count", "spaces"), "recall"),
    "stats": "stats",
}


def scaled(count):
    """`count` loops at scale 1."""
    return max(1, int(count * SCALE))


def a_seed():
    """The same one in every run, so that what a change breaks is told from what was always so; MNEME_TEST_SEED is another,
    and the longer runs of a greater scale take a new one each time. Whoever takes it prints it."""
    given = os.environ.get("MNEME_TEST_SEED", "1" if SCALE == 1 else "")
    return int(given) if given else random.SystemRandom().randrange(2**32)


def program(variable):
    """The path in an environment variable that names a program; without it the tests mean nothing."""
    path = os.environ.get(variable)
    if not path or not os.access(path, os.X_OK):
        raise RuntimeError(f"set {variable} to the program under test (it is {path!r})")
    return path


def poll_until(what, condition, timeout_s=READY_S, pause_s=0.01):
    """The first true value of condition(), or an AssertionError that says what never came about."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")
        time.sleep(pause_s)


def f32(vector):
    """An embedding as the wire's bin."""
    return np.asarray(vector, dtype="<f4").tobytes()


class NoReply(AssertionError):
    """The server kept silent."""


class Peer:
    """One bare client socket. A DEALER sends the body alone, or behind an empty delimiter frame; a REQ does so by
    itself."""
    def __init__(self, endpoint, kind=zmq.DEALER, delimiter=False, receive_limit=1000):
        self.socket = zmq.Context.instance().socket(kind)
        self.socket.linger = 0
        self.socket.rcvhwm = receive_limit
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = 5, 50
        self.socket.connect(endpoint)
        self.head = [b""] if delimiter else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close(linger=0)

    def send_frames(self, frames):
        self.socket.send_multipart(frames)

    def receive_frames(self, timeout_s=REPLY_S):
        """All frames of the next message, or None when none comes."""
        if not self.socket.poll(int(timeout_s * 1000), zmq.POLLIN):
            return None
        return self.socket.recv_multipart()

    def send(self, request):
        self.send_frames(self.head + [msgpack.packb(request, use_bin_type=True)])

    def receive(self, timeout_s=REPLY_S):
        """The next reply. Its frames must come in the form that the request had."""
        frames = self.receive_frames(timeout_s)
        if frames is None:
            raise NoReply(f"no reply in {timeout_s:.1f} s")
        if frames[:-1] != self.head:
            raise AssertionError(f"the reply has other frames than the request: {frames!r}")
        return unpack(frames[-1])

    def ask(self, request, timeout_s=REPLY_S):
        self.send(request)
        return self.receive(timeout_s)


def unpack(frame):
    return msgpack.unpackb(frame, raw=False, strict_map_key=False)


class Cluster:
    """One mnemed and the folder it serves: `<base>/d`, or a given one. Snapshots may go beside it, under `base`."""
    def __init__(self, dim=8, metric="cosine", settings=None, dir=None):
        self.dim, self.metric, self.settings = dim, metric, {**PATIENT, **(settings or {})}
        self.base = Path(tempfile.mkdtemp(prefix="ms", dir=os.environ.get("MNEME_TEST_DIR", "/tmp")))
        self.dir = Path(dir) if dir else self.base / "d"
        self.log = self.base / "log"
        self.process = None
        self.instances = set()
        self.sessions = set()
        self.peers = {}
        self.restarts_expected = False

    # ---- life

    def arguments(self, *more, dim=None, metric=None):
        words = [
            program("MNEMED"), "--dir",
            str(self.dir), "--dim",
            str(dim or self.dim), "--metric", metric or self.metric
        ]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        return words + list(more)

    def start(self, wait=True):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.arguments(),
                                            stdin=subprocess.DEVNULL,
                                            stdout=log,
                                            stderr=log,
                                            start_new_session=True,
                                            env=self.environment())
        self.sessions.add(self.process.pid)
        return self.await_ready() if wait else self

    def environment(self):
        return {**os.environ, MARK: str(self.base)}

    def await_ready(self):
        self.await_state("ready")
        self.note_instance()
        return self

    def await_state(self, *states, timeout_s=READY_S):
        """The `info` that first shows one of these states."""
        def arrived():
            if self.process.poll() is not None:
                raise AssertionError(f"mnemed exited with {self.process.returncode}:\n{self.log_tail()}")
            info = self.info_or_none()
            return info if info and info["state"] in states else None

        try:
            return poll_until(f"state {' or '.join(states)}", arrived, timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\nlast info: {self.info_or_none()}\n{self.log_tail()}") from None

    def await_index(self, timeout_s=300):
        """Waits until recall is calibrated for about as many rows as the columns hold."""
        def calibrated():
            index = self.info()["index"]
            rows = index["column_rows"]  # 0: the gauges of a compaction that has just ended are not there yet
            return rows > 0 and abs(index["calibrated_rows"] - rows) <= 0.25 * rows

        poll_until("recall calibrated", calibrated, timeout_s, 0.1)

    def info_or_none(self, timeout_s=1.0 * PATIENCE):
        """info, or None while the supervisor does not answer (it may be down: a fresh connection each time)."""
        if not (self.dir / "run" / "control").exists():
            return None
        with Peer(self.endpoint("control")) as peer:
            try:
                return peer.ask({"op": "info"}, timeout_s)
            except NoReply:
                return None

    def note_instance(self):
        """Remembers the shared folder of this start, to see at the stop that it is gone."""
        self.instances.add(Path((self.dir / "run" / "instance").read_text().strip()).name)

    def terminate(self):
        """SIGTERM, wait, and the exit status."""
        self.drop_peers()
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"mnemed did not stop in {STOP_S:.0f} s\n{self.log_tail()}") from None

    def restart(self):
        """A clean stop, checked, and a new start on the same folder."""
        self.check_stop(self.terminate())
        return self.start()

    def kill_everything(self):
        """kill -9 of every process at once, as a power cut would, but for the page cache."""
        self.drop_peers()
        for pid in self.processes():
            kill(pid)
        self.process.wait()
        self.await_end()
        self.restarts_expected = True

    def await_end(self):
        """No process is left. The numbers of the sessions are free from here on: another's may have one of them next."""
        poll_until("no process of the cluster left", lambda: not self.processes(), STOP_S)
        self.sessions.clear()

    def finish(self):
        """The end of a cluster: a strict stop if it still runs; in any case no process and no file is left."""
        try:
            if self.process is not None and self.process.poll() is None:
                if not self.restarts_expected:
                    self.assert_no_restarts()
                self.check_stop(self.terminate())
        finally:
            self.drop_peers()
            for pid in self.processes():
                kill(pid)
            if self.process is not None:
                self.process.wait()
            for leftover in self.shared_memory():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if os.environ.get("MNEME_TEST_KEEP") != "1":
                shutil.rmtree(self.base, ignore_errors=True)

    def check_stop(self, status):
        """What is true after every clean stop."""
        told = f"\n{self.log_tail()}"
        assert status == 0, f"mnemed exited with {status}{told}"
        self.await_end()
        assert not self.shared_memory(), f"left in /dev/shm: {self.shared_memory()}"
        for complaint in ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:"):
            assert complaint not in self.log.read_text(errors="replace"), f"{complaint} in the log{told}"

    def assert_no_restarts(self):
        info = self.info()
        assert all(role["restarts"] == 0 for role in info["roles"]), f"a role died: {info['roles']}\n{self.log_tail()}"

    def log_tail(self, lines=30):
        if not self.log.exists():
            return "(no log)"
        return "\n".join(["mnemed's own words:"] + self.log.read_text(errors="replace").splitlines()[-lines:])

    # ---- what is left of it on the machine

    def processes(self):
        """Pids of this cluster's processes, zombies included, except those that wait for init to reap them."""
        mark = f"{MARK}={self.base}".encode()
        return [
            pid for pid, ppid, state, session in process_table()
            if (session in self.sessions or mark in environment_of(pid)) and not (state == "Z" and ppid == 1)
            and not (state == "Z" and ppid == os.getpid())
        ]

    def shared_memory(self):
        """Entries of /dev/shm that belong to any instance this cluster had."""
        return [entry for entry in SHM.iterdir() if entry.name in self.instances]

    # ---- asking

    def endpoint(self, name, worker=0):
        return f"ipc://{self.dir}/run/" + (f"recall.{worker}" if name == "recall" else name)

    def peer(self, op, worker=0):
        """The kept connection for this operation."""
        endpoint = self.endpoint(ENDPOINT_OF.get(op, "control"), worker)
        if endpoint not in self.peers:
            self.peers[endpoint] = Peer(endpoint)
        return self.peers[endpoint]

    def drop_peers(self):
        for peer in self.peers.values():
            peer.close()
        self.peers = {}

    def call(self, op, worker=0, timeout_s=REPLY_S, **fields):
        """One request, one reply, whatever it says. After silence the connection is dropped: a late reply meets
        nobody."""
        peer = self.peer(op, worker)
        try:
            return peer.ask({"op": op, **fields}, timeout_s)
        except NoReply as silence:
            self.drop_peers()
            raise NoReply(f"{op}: {silence}\n{self.log_tail()}") from None

    def ok(self, op, worker=0, timeout_s=REPLY_S, **fields):
        reply = self.call(op, worker, timeout_s, **fields)
        assert reply.get("ok") is True, f"{op} {brief(fields)} was refused: {reply}"
        return reply

    def info(self):
        return self.ok("info")

    # ---- roles

    def role(self, role, index=None):
        """The row of info.roles, or None while no such process lives."""
        rows = [r for r in self.info()["roles"] if r["role"] == role and index in (None, r["index"])]
        return rows[0] if rows else None

    def kill_role(self, role, index=None):
        """kill -9 of one role's process; returns its pid. Others carry on."""
        self.restarts_expected = True
        pid = poll_until(f"{role} alive", lambda: self.role(role, index))["pid"]
        kill(pid)
        return pid

    def await_replaced(self, role, pid, index=None):
        """Waits until another process plays the role and the cluster is ready again."""
        def replaced():
            info = self.info()
            rows = [r for r in info["roles"] if r["role"] == role and index in (None, r["index"])]
            return info["state"] == "ready" and rows and rows[0]["pid"] != pid

        poll_until(f"{role} restarted", replaced)

    def identities(self):
        """Who plays which role, and how often each was restarted."""
        return sorted((r["role"], r["index"], r["pid"], r["restarts"]) for r in self.info()["roles"])


def kill(pid, with_signal=signal.SIGKILL):
    try:
        os.kill(pid, with_signal)
    except ProcessLookupError:
        pass


def process_table():
    """(pid, parent, state, session) of every process."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # gone meanwhile
        yield int(entry.name), int(words[1]), words[0], int(words[3])


def environment_of(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def resident_kib(pid):
    """Private resident memory of a process in KiB: shared mappings of the store would blur a leak."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0])


def brief(fields, limit=300):
    """A request for an error message, without its bulk."""
    text = repr({k: (f"<{len(v)} bytes>" if isinstance(v, bytes) and len(v) > 64 else v) for k, v in fields.items()})
    return text if len(text) <= limit else text[:limit] + "..."


def files_below(folder):
    """Every file below a folder in which others make and remove files meanwhile."""
    return sorted(Path(top) / name for top, _, names in os.walk(folder) for name in names)


def contents_of(path):
    """The bytes of a file; nothing of a socket, or of one that has just been removed."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def flip(path, at, mask=1):
    """Changes the bits of `mask` in one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ mask]))


def die_with_parent():
    """For helper processes: SIGKILL when the test that made them ends, however it ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ClusterCase(unittest.TestCase):
    """Tests that share one cluster a class, each in a space of its own. Any role that dies on the way fails the
    class."""

    dim = 8
    metric = "cosine"
    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.dim, cls.metric, cls.settings)
        cls.addClassCleanup(cls.cluster.finish)
        cls.cluster.start()

    def setUp(self):
        self.space = self._testMethodName[:128]
        self.rng = np.random.default_rng(zlib.crc32(self._testMethodName.encode()))

    def vector(self, dim=None):
        return self.rng.standard_normal(dim or self.dim).astype("f4")

    def ok(self, op, **fields):
        return self.cluster.ok(op, **self.placed(op, fields))

    def refused(self, code, op, **fields):
        """Asserts a refusal with this code (or one of these), in the form every refusal has."""
        reply = self.cluster.call(op, **self.placed(op, fields))
        self.assert_refusal(reply, code, f"{op} {brief(fields)}")
        return reply

    def assert_refusal(self, reply, code, what):
        codes = (code, ) if isinstance(code, str) else code
        self.assertIs(reply.get("ok"), False, f"{what} was not refused: {brief(reply)}")
        self.assertIn(reply.get("code"), codes, f"{what}: {brief(reply)}")
        self.assertIsInstance(reply.get("error"), str, what)
        self.assertTrue(reply["error"].strip(), what)
        self.assertIsInstance(reply.get("retry"), bool, what)

    def placed(self, op, fields):
        """The fields, in this test's space unless they name one."""
        spaceless = ENDPOINT_OF.get(op) not in ("write", "recall") or op == "spaces"
        return fields if spaceless or "space" in fields else {"space": self.space, **fields}

    def remember(self, *memories, **fields):
        """Stores memories (an embedding is made up where none is given) and returns the reply."""
        filled = [{"embedding": f32(self.vector()), **memory} for memory in memories]
        return self.ok("remember", memories=filled, **fields)

    def get(self, *ids, **fields):
        return self.ok("get", ids=list(ids), **fields)["memories"]

    def ids_of(self, rows):
        return [row["id"] for row in rows]
