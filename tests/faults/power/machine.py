"""machine.py - a virtual machine of qemu, emulated, so that no KVM is needed, and what it tells over a serial line.

POWER_KERNEL and POWER_INITRAMFS say what boots; power.sh makes both. The guest's first serial line is for telling, line by
line; the second is its console.
"""

import os
import selectors
import subprocess
import time


class Machine:
    """One life: from power on to power off."""
    def __init__(self, hardware, words, console):
        """hardware: arguments of qemu: processors, memory, disks. words: for the guest, on the kernel's command line. console:
        the file that everybody's other words go to."""
        self.command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", *hardware, "-nographic", "-nodefaults",
            "-no-reboot", "-kernel", os.environ["POWER_KERNEL"], "-initrd", os.environ["POWER_INITRAMFS"], "-append",
            f"console=ttyS1 quiet panic=-1 {words}", "-serial", "stdio", "-serial", f"file:{console}"
        ]
        self.rest = b""

    def power_on(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def lines(self, until):
        """What the guest tells until that moment, or until the machine is off."""
        while time.monotonic() < until:
            if not self.selector.select(max(0.0, until - time.monotonic())):
                return
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                return
            yield from self.split(piece)

    def split(self, piece):
        *whole, self.rest = (self.rest + piece).split(b"\n")
        return [line.decode(errors="replace").strip() for line in whole]

    def cut(self):
        """The power goes. What the guest has told is still in the pipe."""
        self.process.kill()
        told = self.split(self.process.stdout.read())
        self.process.wait()
        self.selector.close()
        return told
