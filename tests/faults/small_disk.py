"""small_disk.py - file systems of a few MiB, seen by this process and its children alone, that can be filled and emptied.

Mounts live in a mount namespace of our own: they end with the process, however that ends, and so do the loop devices under
them. Importing this makes the namespace, so it comes before any thread; possible() says why there is none.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)


def enter_namespace():
    """Why there is no mount namespace of our own; "" when there is one."""
    if os.geteuid() != 0:
        return "small file systems are mounted by root alone"
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}"
    return ""


missing = enter_namespace()


def possible(kind="tmpfs"):
    """Why a file system of this kind cannot be mounted; "" when it can."""
    if missing:
        return missing
    with tempfile.TemporaryDirectory(prefix="ms") as folder:
        try:
            SmallDisk(Path(folder) / "try", 8, kind).unmount()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no {kind} can be mounted: {error}"
    return ""


def run(*words):
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class SmallDisk:
    """A file system of `mib` MiB at `path`, with a file of our own on it that takes its room away."""
    def __init__(self, path, mib, kind="tmpfs", inodes=None):
        self.path, self.kind, self.mib = Path(path), kind, mib
        self.filler, self.inode_folder = self.path / "filler", self.path / "inodes"
        self.path.mkdir(parents=True, exist_ok=True)
        if kind == "tmpfs":
            options = f"size={mib}m" + (f",nr_inodes={inodes}" if inodes else "")
            run("mount", "-t", "tmpfs", "-o", options, "none", str(self.path))
            return
        self.image = self.path.with_suffix(".img")
        with open(self.image, "wb") as image:
            image.truncate(mib << 20)
        run(f"mkfs.{kind}", "-q", "-F", "-m", "0", str(self.image))
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", str(self.image), str(self.path))

    def remount(self, option):
        run("mount", "-o", f"remount,{option}", str(self.path))

    def unmount(self):
        run("umount", str(self.path))

    def free(self):
        st = os.statvfs(self.path)
        return st.f_bavail * st.f_frsize

    def fill(self, leave=0):
        """Takes all room but `leave` bytes. Whoever else writes meanwhile may get some of it."""
        with open(self.filler, "ab") as filler:
            for piece in (1 << 20, 1 << 16, 1 << 12):
                while self.free() >= leave + piece:
                    end = filler.seek(0, os.SEEK_END)
                    try:
                        os.posix_fallocate(filler.fileno(), end, piece)
                    except OSError:
                        break

    def empty(self):
        self.filler.unlink(missing_ok=True)

    def take_inodes(self):
        self.inode_folder.mkdir(exist_ok=True)
        for number in range(1 << 20):
            try:
                (self.inode_folder / str(number)).touch()
            except OSError:
                return

    def give_inodes(self):
        for entry in self.inode_folder.iterdir():
            entry.unlink()
