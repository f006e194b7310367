"""kill -9 at each of the kill points of engine/fault.h in a real cluster under load, and at random ones.

Whatever dies, wherever: what was acknowledged is there bit for bit, what was not is there whole or not at all, what was
forgotten does not rise, verify finds no damage, and a further restart changes nothing. MNEME_TEST_SCALE tries more
passes of each point and more random rounds; MNEME_TEST_SEED gives another random run. MNEME_FAULT_POINTS is the program
that prints the points (tests/fault_points.c). Without points in mnemed there is nothing to try.
"""

import random
import shutil
import signal
import subprocess
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from cluster import PATIENCE, READY_S, SHM, Cluster, Peer, a_seed, f32, poll_until, program, scaled
from fault_load import Load, Request

SETTINGS = {
    "recall.workers": 1, "wal.segment_bytes": "1MiB", "compact.interval": "50ms", "compact.min_rows": 64,
    "compact.fanout": 2, "history.window": "100ms", "supervisor.backoff_min": "10ms", "supervisor.backoff_max": "100ms",
    "index.rows_min": 32
}
STAYING = {"compact.fanout": 64, "history.window": "1h"}  # column segments live on, with rows that have died
AT_ONCE = 2  # clusters beside each other: most of the time they wait for a disk or for each other
STEPS_MAX = 60
ROLES = {
    "wal_": "wal-writer", "writer_": "wal-writer", "manifest_": "wal-writer", "publish_": "wal-writer",
    "limbo_": "wal-writer", "columns_": "compactor", "died_": "compactor", "compact_": "compactor",
    "codebook_": "compactor", "ivf_": "compactor", "codes_": "compactor", "repair_": "compactor",
    "copy_": "wal-writer", "hot_": "compactor", "purge_": "compactor", "snapshot_": "compactor", "reader_": "recall", "recovery_": "recovery"
}
ONCE_A_LIFE = ("recovery_", "instance_", "store_")  # points that a process passes once


def points():
    return subprocess.run([program("MNEME_FAULT_POINTS")], capture_output=True, text=True, check=True).stdout.split()


class FaultCluster(Cluster):
    """A cluster with one kill point that goes off once, when it is armed. `fault` counts from the next start."""
    def __init__(self, fault=None, settings=None, **more):
        super().__init__(settings={**SETTINGS, **(settings or {})}, **more)
        self.fault, self.fuse, self.was_armed = fault, self.base / "fuse", False
        self.told = set()  # pids of deaths that are not the fault's
        self.restarts_expected = True

    def environment(self):
        return {**super().environment(), "MNEME_FAULT": self.fault or "", "MNEME_FAULT_ONCE": str(self.fuse)}

    def arm(self):
        self.was_armed = True
        self.fuse.touch()

    def disarm(self):
        self.was_armed = False
        self.fuse.unlink(missing_ok=True)

    def fired(self):
        return self.was_armed and not self.fuse.exists()

    def start_and_die(self):
        """A start that does not outlive the armed point."""
        self.start(wait=False)
        assert self.wait() == -signal.SIGKILL and self.fired(), f"{self.fault} did not end the start\n{self.log_tail()}"

    def kill_role(self, role, index=None):
        pid = super().kill_role(role, index)
        self.told.add(pid)
        return pid

    def victim(self, info):
        """The role that died of the fault, once the supervisor has seen it."""
        deaths = [death for death in info["last_words"] if death["pid"] not in self.told and "signal 9" in death["how"]]
        return deaths[0]["role"] if deaths else None

    def recover(self, state="ready"):
        """Waits until every role plays again; returns the one that the fault has killed."""
        states = (state, ) if isinstance(state, str) else state

        def recovered():
            info = self.info_or_none()
            if not info or info["state"] not in states or not self.victim(info):
                return None
            playing = {row["role"] for row in info["roles"]}
            return playing >= {"wal-writer", "compactor", "recall"} and self.victim(info)

        try:
            return poll_until("the cluster recovered", recovered, READY_S)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.info_or_none()}\n{self.log_tail()}") from None

    def shared_memory(self):
        """Also of an instance whose supervisor died before it had noted it: its control segment names the store."""
        try:
            uuid = (self.dir / "STORE").read_text().partition("uuid=")[2][:36]
        except FileNotFoundError:
            return super().shared_memory()
        held = bytes.fromhex(uuid.replace("-", ""))
        return [entry for entry in SHM.iterdir() if holds(entry / "control", held)]


def holds(path, wanted):
    try:
        return wanted in path.read_bytes()
    except OSError:
        return False


class Trial:
    """One life of a store with one kill."""
    def __init__(self, point, nth=1, seed=0, stage="running", settings=None):
        self.point, self.nth, self.stage = point, nth, stage
        self.cluster = FaultCluster(f"{point}:{nth}", settings)
        if stage in ("copy", "heal"):
            self.cluster.settings.update({"store.copies": 2, "store.copy_dir": self.cluster.base / "copy"})
        self.load = Load(self.cluster, seed)
        self.snapshots = 0
        self.rng = random.Random(seed)

    def __str__(self):
        return f"{self.point}:{self.nth} {self.stage}"

    def run(self):
        """True when the point was reached."""
        try:
            reached = self.try_it()
            if reached:
                self.come_back()
            return reached
        finally:
            self.load.hang_up()
            self.cluster.finish()

    def try_it(self):
        cluster = self.cluster
        if self.stage == "birth":
            cluster.arm()
            cluster.start_and_die()
            cluster.start()
            self.prepare()
            return True
        cluster.start()
        self.prepare()
        return {"start": self.die_at_start, "damage": self.die_over_damage,
                "mend": self.die_undoing_rot, "purge_damage": self.die_purging_damage, "rot": self.die_mending,
                "copy": self.die_copying, "heal": self.die_healing,
                "running": self.die_under_load,
                "purge": self.die_under_load, "recall": self.die_under_load}[self.stage]()

    def prepare(self):
        """Something in columns, and more behind it in the log."""
        for _ in range(6):
            self.load.burst()
        self.cluster.ok("consolidate", wait=True, timeout_s=60 * PATIENCE)
        for _ in range(3):
            self.load.burst()

    # ---- ways to die

    def die_at_start(self):
        """The supervisor itself, when it starts over what its killed predecessor left."""
        self.cluster.kill_everything()
        self.cluster.arm()
        self.cluster.start_and_die()
        self.cluster.start()
        return True

    def die_under_load(self):
        self.cluster.arm()
        for step in range(STEPS_MAX):
            self.stimulate(step)
            if self.cluster.fired():
                break
        else:
            return False
        victim = self.cluster.recover()
        role = next((role for prefix, role in ROLES.items() if self.point.startswith(prefix)), victim)
        assert victim == role, f"{self} killed the {victim}"
        return True

    def stimulate(self, step):
        """One move that leads to the point; the order is such that a plain point is reached at once."""
        if self.point.startswith("snapshot_"):
            self.snapshot()
        elif self.point.startswith("recovery_"):
            self.cluster.kill_role("wal-writer")
            poll_until("the fault in the recovery", self.cluster.fired)
        elif self.stage == "purge":
            (self.load.burst, self.load.purge)[step % 2]()
        elif self.stage == "recall":
            (self.load.burst, self.recall, self.replace_worker)[step % 3]()
        else:
            moves = (self.load.burst, self.load.fill, self.consolidate, self.load.burst, self.load.purge)
            moves[step % len(moves)]()

    def beside_writes(self, op, **fields):
        """A request to control that the death may swallow, and bursts of writes until it is answered."""
        with Peer(self.cluster.endpoint("control")) as peer:
            peer.send({"op": op, **fields})
            give_up = time.monotonic() + READY_S
            while not self.cluster.fired() and peer.receive_frames(0) is None:
                assert time.monotonic() < give_up, f"{self}: {op} was not answered\n{self.cluster.log_tail()}"
                self.load.burst()

    def consolidate(self):
        self.beside_writes("consolidate", wait=True)

    def recall(self):
        """A recall that its worker may not live to answer."""
        endpoint = self.cluster.info()["endpoints"]["recall"][0]
        with Peer(endpoint) as peer:
            peer.send({"op": "recall", "space": "a", "embedding": f32(self.load.memories.vector()), "k": 3})
            give_up = time.monotonic() + READY_S
            while not self.cluster.fired() and peer.receive_frames(0) is None:
                assert time.monotonic() < give_up, f"{self}: a recall was not answered\n{self.cluster.log_tail()}"
                time.sleep(0.001)

    def replace_worker(self):
        """A worker that begins claims a reader's slot."""
        pid = self.cluster.kill_role("recall")

        def replaced():
            row = self.cluster.role("recall")
            return self.cluster.fired() or (row and row["pid"] != pid and row["state"] == "ready")

        poll_until("another recall worker", replaced)

    def snapshot_path(self):
        return self.cluster.base / f"s{self.snapshots}"

    def snapshot(self):
        self.snapshots += 1
        self.beside_writes("snapshot", path=str(self.snapshot_path()))

    def damage(self, bits=48):
        """Rot in the log of a stopped store, in one memory of three: one bit can be mended, more cannot. Returns its id."""
        for _ in ("the old version", "the new one"):
            victims = [self.load.memory("a", id=i) for i in (30001, 30002, 30003)]
            self.load.send([Request("remember", self.load.idem(), space="a", memories=victims)])
        self.load.known["a"].update((30001, 30002, 30003))
        self.load.burst()
        self.cluster.kill_everything()
        bend(self.cluster.dir / "wal", victims[1]["content"].encode(), bits)
        if bits > 1:
            self.load.model.spaces["a"].pop(30002)
            self.load.answered = []
        return 30002

    def die_over_damage(self):
        """A recovery that meets rot: one memory is lost and told of, all others are there, its old version is not."""
        self.damage()
        self.cluster.arm()
        self.cluster.start(wait=False)
        self.cluster.recover("degraded")
        assert self.cluster.fired(), f"{self} was not reached\n{self.cluster.log_tail()}"
        notes = [path.read_text() for path in (self.cluster.dir / "quarantine").glob("*.json")]
        assert any("/30002" in note for note in notes), f"no note tells of the memory that is lost: {notes}"
        return True

    def die_undoing_rot(self):
        """A recovery that undoes a flipped bit: nothing is lost."""
        self.damage(bits=1)
        self.cluster.arm()
        self.cluster.start(wait=False)
        self.cluster.recover(("ready", "degraded"))
        assert self.cluster.fired(), f"{self} was not reached\n{self.cluster.log_tail()}"
        return True

    def die_purging_damage(self):
        """The piece of a damaged memory lies in quarantine/; a purge of the memory takes it from there too."""
        lost = self.damage()
        self.cluster.start(wait=False).await_state("degraded")
        self.cluster.note_instance()
        assert list((self.cluster.dir / "quarantine").glob("wal-*.bin")), "there is no quarantined piece"
        self.cluster.arm()
        self.load.send([Request("forget", self.load.idem(), space="a", mode="purge", ids=[lost])])
        poll_until("the fault in the purge", self.cluster.fired)
        self.cluster.recover(("ready", "degraded"))
        self.load.settle()
        poll_until("the note is gone", lambda: not list((self.cluster.dir / "quarantine").glob("wal-*")))
        return True

    def die_mending(self):
        """Rot in a column file under a running store: it is mended, also by the next compactor."""
        self.consolidate()
        path = max((self.cluster.dir / "columns").glob("*/confidence.col"))
        self.cluster.arm()
        with open(path, "r+b") as file:
            file.seek(260)
            byte = file.read(1)
            file.seek(260)
            file.write(bytes([byte[0] ^ 1]))
        poll_until("the fault in the repair", self.cluster.fired)
        self.cluster.recover(("ready", "degraded"))
        poll_until("the file is whole", lambda: not self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"])
        self.cluster.await_state("ready")
        return True

    def die_copying(self):
        """The folder with the log's second copy is gone: it is made anew, also by the next writer."""
        copy = self.cluster.settings["store.copy_dir"]
        gone = copy.with_name("gone")
        self.cluster.arm()
        copy.rename(gone)  # at once: the writer makes files in it
        shutil.rmtree(gone)
        poll_until("the fault in the copying", self.cluster.fired)
        self.cluster.recover(("ready", "degraded"))
        self.await_copied()
        return True

    def die_healing(self):
        """A recovery that heals a damaged log segment from its twin."""
        self.damage(bits=1)
        self.cluster.arm()
        self.cluster.start(wait=False)
        self.cluster.recover(("ready", "degraded"))
        assert self.cluster.fired(), f"{self} was not reached\n{self.cluster.log_tail()}"
        self.await_copied()
        return True

    def await_copied(self):
        poll_until("the log is kept twice", lambda: not self.cluster.info()["degraded"])
        self.cluster.note_instance()
        self.cluster.await_state("ready")

    # ---- what must hold afterwards

    def come_back(self):
        whole = not self.stage.endswith("damage")
        self.load.settle()
        self.load.check()
        self.verify(whole)
        if self.point.startswith("snapshot_"):
            self.try_snapshot()
        self.load.burst()
        self.load.settle()
        if whole and self.stage != "mend":
            self.cluster.restart()
        else:
            self.cluster.check_stop(self.cluster.terminate())
            self.cluster.start(wait=False).await_state("ready" if self.stage == "purge_damage" else "degraded")
            self.cluster.note_instance()
        self.load.check()
        self.load.check_purged()
        self.verify(whole)
        self.cluster.check_stop(self.cluster.terminate())

    def verify(self, whole):
        damaged = self.cluster.ok("verify", timeout_s=60 * PATIENCE)["damaged"]
        assert not damaged if whole else all("wal" in d["file"] for d in damaged), f"{self}: {damaged}"

    def try_snapshot(self):
        """The path of the snapshot that died takes a new one, and that is the store."""
        path = self.snapshot_path()
        named = self.point == "snapshot_renamed"
        assert path.exists() == named, f"{path}: there {path.exists()}, its maker was killed at {self.point}"
        if named:  # it is whole, but older than the model
            Cluster(settings=SETTINGS, dir=path).start().finish()
            self.snapshots += 1
            path = self.snapshot_path()
        self.cluster.ok("snapshot", path=str(path), timeout_s=60 * PATIENCE)
        copy = Cluster(settings=SETTINGS, dir=path)
        try:
            self.load.cluster = copy.start()
            self.load.check()
        finally:
            self.load.cluster = self.cluster
            copy.finish()


def bend(folder, wanted, bits):
    """Flips so many bits of what a log segment holds."""
    for path in sorted(folder.glob("*.wal")):
        at = path.read_bytes().find(wanted)
        if at >= 0:
            bent = bytearray(wanted)
            for bit in range(bits):
                bent[2 + bit // 8] ^= 1 << bit % 8
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(bent)
            return
    raise AssertionError(f"no log segment holds {wanted}")


def trials():
    for number, point in enumerate(points()):
        if point.startswith("recovery_quarantine"):
            yield Trial(point, stage="damage", settings={"compact.enabled": "no"})
            continue
        if point.startswith("repair_"):
            yield Trial(point, stage="rot", settings={"scrub.interval": "1s", "compact.enabled": "no"})
            continue
        if point.startswith("copy_"):
            yield Trial(point, stage="copy", settings={"compact.enabled": "no"})
            continue
        if point.startswith("recovery_healed"):
            yield Trial(point, stage="heal", settings={"compact.enabled": "no"})
            continue
        if point.startswith("recovery_mended"):
            yield Trial(point, stage="mend", settings={"compact.enabled": "no"})
            continue
        if point.startswith("purge_piece"):
            yield Trial(point, stage="purge_damage")
            continue
        if point.startswith("reader_"):
            yield Trial(point, seed=number, stage="recall", settings={"compact.enabled": "no"})
            continue
        merging = STAYING if point.startswith("died_") else {}
        stages = ["start"] if point.startswith("instance_") else [] if point.startswith("store_") else ["running"]
        if point.startswith(("instance_", "replace_", "store_")):
            stages.append("birth")
        if point.startswith(("manifest_", "publish_", "limbo_")):
            yield Trial(point, seed=number, stage="purge", settings={"compact.enabled": "no"})
        for stage in stages:
            most = 1 if stage != "running" or point.startswith(ONCE_A_LIFE) else scaled(2)
            for nth in range(1, most + 1):
                yield Trial(point, nth, seed=number * 100 + nth, stage=stage, settings=merging)


def setUpModule():
    """A point that every start passes tells whether this mnemed has any."""
    probe = FaultCluster("instance_created")
    try:
        probe.arm()
        probe.start(wait=False)
        poll_until("the probe has died or serves", lambda: probe.process.poll() is not None or probe.info_or_none(),
                   READY_S)
        if not probe.fired():
            raise unittest.SkipTest("this mnemed was built without MNEME_FAULTS: it has no kill points")
    finally:
        if probe.process.poll() is None:
            probe.await_ready()
        probe.finish()


class RandomTrial(Trial):
    """A store that lives on through one random kill after the other."""
    def __init__(self, seed):
        super().__init__("none", seed=seed)
        rare = ("recovery_quarantine", "recovery_mended", "recovery_healed", "copy_", "purge_piece", "store_",
                "repair_")  # not reached by these moves
        self.points = [p for p in points() if not p.startswith(rare)]
        self.kills = 0

    def live(self, rounds):
        try:
            for _ in range(rounds):
                self.round()
        finally:
            self.load.hang_up()
            self.cluster.finish()

    def round(self):
        self.point, self.nth = self.rng.choice(self.points), self.rng.randint(1, 6)
        self.stage = self.rng.choice(("start", "running", "running"))
        if self.point.startswith(ONCE_A_LIFE):
            self.nth, self.stage = 1, "start"
        self.cluster.fault = f"{self.point}:{self.nth}"
        if self.stage == "start":
            self.cluster.arm()
        supervisor_died = self.start()
        if not self.cluster.fired():
            self.cluster.arm()
            self.move_on()
        fired = self.cluster.fired()
        victim = "supervisor" if supervisor_died else self.cluster.recover() if fired else "nobody"
        self.cluster.disarm()
        self.kills += fired
        print(f"{self}: killed {victim}", flush=True)
        self.load.settle()
        self.load.check()
        self.verify(True)
        self.end_life()

    def start(self):
        """True when it took two attempts, as the first supervisor was killed."""
        self.cluster.told.clear()
        self.cluster.start(wait=False)

        def begun():
            info = self.cluster.info_or_none()
            return self.cluster.process.poll() is not None or (info and info["state"] == "ready")

        poll_until("the cluster ready, or the supervisor dead", begun)
        if self.cluster.process.poll() is None:
            self.cluster.note_instance()
            return False
        assert self.cluster.fired() and self.cluster.wait() == -signal.SIGKILL, f"{self}\n{self.cluster.log_tail()}"
        self.cluster.start()
        return True

    def move_on(self):
        moves = [self.load.burst, self.load.fill, self.consolidate, self.load.purge, self.snapshot, self.kill_writer]
        for _ in range(30):
            self.rng.choices(moves, (8, 3, 3, 1, 1, 0.5))[0]()
            if self.cluster.fired():
                return

    def kill_writer(self):
        pid = self.cluster.kill_role("wal-writer")

        def replaced():
            row = self.cluster.role("wal-writer")
            return self.cluster.fired() or (row and row["pid"] != pid)

        poll_until("another writer", replaced)
        self.load.hang_up()

    def end_life(self):
        if self.rng.random() < 0.5:
            self.cluster.kill_everything()
        else:
            self.cluster.check_stop(self.cluster.terminate())


class Points(unittest.TestCase):
    def test_each_point(self):
        failures, missed, tried = [], [], set()

        def run(trial):
            began = time.monotonic()
            try:
                reached = trial.run()
            except Exception as failure:  # told below, with all others
                failures.append(f"{trial}: {type(failure).__name__}: {failure}")
                return
            print(
                f"{trial}: {'killed and recovered' if reached else 'not reached'}, "
                f"{trial.load.repeated} repeated, {trial.load.looked_at} looked at, "
                f"{time.monotonic() - began:.1f} s",
                flush=True)
            tried.add(trial.point) if reached else missed.append(trial)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run, trials()))
        print(f"{len(tried)} of {len(points())} kill points were tried", flush=True)
        self.assertEqual(failures, [], "\n\n".join(failures))
        self.assertEqual([str(t) for t in missed if t.nth == 1], [], "points that no load reached")
        self.assertEqual(tried, set(points()))

    def test_random_points(self):
        seed = a_seed()
        print(f"seed {seed}", flush=True)
        trial = RandomTrial(seed)
        try:
            trial.live(scaled(8))
        except Exception as failure:
            raise AssertionError(f"MNEME_TEST_SEED={seed}, {trial}: {failure}") from failure
        print(f"{trial.kills} random kills", flush=True)


if __name__ == "__main__":
    unittest.main()
