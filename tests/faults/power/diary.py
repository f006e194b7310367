"""diary.py - what a power cut leaves of a disk whose writes are known (disk.c): the images of crash states.

A cut at position P of the diary: all that stands before the last flush before P is on the disk. Of the writes between
that flush and P any sector of 512 bytes may have landed or not: a fate decides. Nothing after P has happened.

File systems trust a disk to write their own blocks of 4 KiB whole: half an ext4 superblock, or half an XFS folder, is for
fsck. So where a state cannot be mounted the same cut is made once more with blocks that are whole.
"""

import mmap
import os
import struct

import numpy as np

SECTOR, BLOCK = 512, 4096
HEADER = struct.Struct("<QII")
WRITE, FLUSH = 1, 2


class Diary:
    """A diary that is complete, entry by entry."""
    def __init__(self, path):
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self.bytes = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if self.size else b""
        self.entries = []  # (offset on the disk, length, kind, place of the bytes)
        self.flushed = [0]  # flushed[p]: entries before this one are on the disk, whatever happens, at a cut at p
        place = 0
        while place + HEADER.size <= self.size:
            offset, length, kind = HEADER.unpack_from(self.bytes, place)
            place += HEADER.size
            self.entries.append((offset, length, kind, place))
            self.flushed.append(len(self.entries) if kind == FLUSH else self.flushed[-1])
            place += length
        assert place == self.size, f"{path} ends in the middle of an entry"

    def __len__(self):
        return len(self.entries)

    def writes(self, first, end):
        """(offset, bytes) of the writes among entries first..end - 1."""
        view = memoryview(self.bytes)
        for offset, length, kind, place in self.entries[first:end]:
            if kind == WRITE:
                yield offset, view[place:place + length]

    def apply(self, image, first, end):
        for offset, piece in self.writes(first, end):
            image[offset:offset + len(piece)] = piece

    def cut(self, image, position, fate_name, rng, unit=SECTOR):
        """Turns an image that holds the flushed part into one that a cut at `position` may leave. `unit`: what lands
        whole or not at all."""
        first = self.flushed[position]
        fate = fate_of(fate_name, rng, position - first)
        for offset, piece in self.writes(first, position):
            head = -offset % unit  # up to the first boundary: a unit of its own, as is what remains at the end
            edges = [0, *range(head or unit, len(piece), unit), len(piece)]
            for run_first, run_end in fate(len(edges) - 1):
                image[offset + edges[run_first]:offset + edges[run_end]] = piece[edges[run_first]:edges[run_end]]


# ---- fates: what becomes of the sectors (or blocks) of a write that was not flushed, as runs (first, end) of those that
# land


def runs(landed):
    """The runs of true among booleans."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], landed.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def fate_of(name, rng, unsynced):
    """`rng` is numpy's, `unsynced` how many writes there are to decide on."""
    count = 0

    def number():
        nonlocal count
        count += 1
        return count - 1

    torn = int(rng.integers(unsynced)) if unsynced else 0
    share = {"few": 0.1, "half": 0.5, "most": 0.9}.get(name)
    return {
        "none": lambda sectors: [],
        "all": lambda sectors: [(0, sectors)],
        "few": lambda sectors: runs(rng.random(sectors) < share),
        "half": lambda sectors: runs(rng.random(sectors) < share),
        "most": lambda sectors: runs(rng.random(sectors) < share),
        # each write whole or not at all
        "whole": lambda sectors: [(0, sectors)] if rng.random() < 0.5 else [],
        # in order, and the last one torn at a sector
        "torn": lambda sectors: [(0, sectors if n < torn else int(rng.integers(sectors)) if n == torn else 0)]
        if (n := number()) <= torn else [],
        # the later ones, not the earlier ones
        "late": lambda sectors: [(0, sectors)] if number() > torn else [],
    }[name]


FATES = ["none", "all", "few", "half", "half", "most", "whole", "torn", "torn", "late"]


# ---- images


def copy_sparse(source, target):
    """A copy of a file with its holes."""
    with open(source, "rb") as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        place = 0
        while place < size:
            try:
                place = os.lseek(old.fileno(), place, os.SEEK_DATA)
            except OSError:
                return  # only a hole is left
            end = os.lseek(old.fileno(), place, os.SEEK_HOLE)
            os.lseek(new.fileno(), place, os.SEEK_SET)
            while place < end:
                place += os.sendfile(new.fileno(), old.fileno(), place, end - place)


class mapped:
    """A file's bytes, writable."""
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        with open(self.path, "r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 0)
        return self.bytes

    def __exit__(self, *_):
        self.bytes.close()


class Flushed:
    """The part of a diary that was flushed, applied to a copy of the image it began with; positions only grow."""
    def __init__(self, base, diary, path):
        copy_sparse(base, path)
        self.diary, self.path, self.done = diary, path, 0

    def advance(self, position):
        end = self.diary.flushed[position]
        assert end >= self.done, "positions only grow"
        with mapped(self.path) as image:
            self.diary.apply(image, self.done, end)
        self.done = end
