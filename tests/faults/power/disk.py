"""disk.py - a power_disk that runs: its diary, the loop mount of the file system on it, and the sectors it cannot read."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

from cluster import SHM, STOP_S, poll_until

# name: (mkfs, options of mount, size of the disk). xfs refuses to be smaller.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"], "loop", 192 << 20),
    "ext4-writeback": (["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"], "loop,data=writeback", 192 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], "loop", 320 << 20),
}


def file_systems():
    """Those that this machine can make and mount."""
    known = Path("/proc/filesystems").read_text().split()
    return [name for name, (mkfs, *_) in FILE_SYSTEMS.items() if shutil.which(mkfs[0]) and name.split("-")[0] in known]


def make_image(path, file_system):
    mkfs, _, size = FILE_SYSTEMS[file_system]
    with open(path, "wb") as image:
        image.truncate(size)
    subprocess.run([*mkfs, str(path)], check=True, capture_output=True)


def try_umount(folder):
    return subprocess.run(["umount", folder], capture_output=True).returncode == 0


def power_off(cluster, disk):
    """Everything in memory is gone: the machine's, as /dev/shm and all processes are its own (see README.md)."""
    if cluster.process:
        cluster.kill_everything()
    cluster.finish()
    disk.stop()
    for entry in SHM.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class Disk:
    """`folder` is made, and holds the diary, the control page and the two mount points; `image` stands anywhere."""
    def __init__(self, folder, image):
        self.folder, self.image = Path(folder), Path(image)
        self.diary, self.files = self.folder / "diary", self.folder / "f"
        self.device = self.folder / "m" / "disk"
        self.process, self.is_mounted = None, False

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("m", "f"):
            (self.folder / name).mkdir(parents=True)
        control = self.folder / "control"
        words = [os.environ["POWER_DISK"], self.image, self.diary, control, self.folder / "m"]
        self.process = subprocess.Popen(words)
        poll_until("power_disk serves", lambda: self.process.poll() is None and self.device.exists(), pause_s=0.002)
        with open(control, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), 0)
        return self

    def mount(self, file_system):
        """The file system's own recovery happens here. False when it finds itself beyond that."""
        options = FILE_SYSTEMS[file_system][1]
        words = ["mount", "-t", file_system.split("-")[0], "-o", options, self.device, self.files]
        self.is_mounted = subprocess.run(words, capture_output=True).returncode == 0
        return self.is_mounted

    def unmount(self):
        """Whoever had files open on it has been killed; the kernel needs a moment to close them."""
        if self.is_mounted:
            poll_until("the file system is not in use", lambda: try_umount(self.files), pause_s=0.005)
        self.is_mounted = False

    def stop(self):
        """The loop device, too, lets go of its file a moment after the unmount."""
        self.unmount()
        if self.process and self.process.poll() is None:
            poll_until("power_disk is not in use", lambda: try_umount(self.folder / "m"), pause_s=0.005)
            self.process.wait(STOP_S)

    def position(self):
        """How many entries the diary has now."""
        return struct.unpack_from("<Q", self.control, 0)[0]

    def refused(self):
        """How many reads met a bad range."""
        return struct.unpack_from("<Q", self.control, 8)[0]

    def set_bad(self, ranges):
        """Reads that touch one of these (first byte, byte behind the last) fail from now on."""
        struct.pack_into("<Q", self.control, 16, 0)
        for number, pair in enumerate(ranges):
            struct.pack_into("<QQ", self.control, 24 + 16 * number, *pair)
        struct.pack_into("<Q", self.control, 16, len(ranges))
