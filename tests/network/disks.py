"""Disks that are slow, and disks that are full."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator

SHIM = pathlib.Path(__file__).parent / "slow_disk.c"


class SlowDisk:
    """What makes the disk of some processes slow, when it is told to.

    Device mapper and cgroups could do so below the file system, where a kernel has them; a library
    that is loaded before the C library does it for one process on any machine with a C compiler.
    """

    def __init__(self, folder: pathlib.Path):
        self.library = folder / "slow_disk.so"
        flags = "-shared -fPIC -O2 -Wall -Werror".split()
        subprocess.run(["cc", *flags, "-o", str(self.library), str(SHIM), "-ldl"], check=True)

    @staticmethod
    def is_possible() -> bool:
        return shutil.which("cc") is not None

    def command(self, home: pathlib.Path, *words: str) -> list[str]:
        delay = f"COCO_DISK_DELAY_FILE={home / 'disk_delay_us'}"
        return ["env", f"LD_PRELOAD={self.library}", delay, *words]


@contextlib.contextmanager
def slow(home: pathlib.Path, delay_us: int) -> Iterator[None]:
    """While the node of this folder waits so much longer for each write and each sync."""
    file = home / "disk_delay_us"
    partial = file.with_suffix(".new")
    partial.write_text(str(delay_us))
    partial.rename(file)
    try:
        yield
    finally:
        file.unlink()


class SmallDisk:
    """A file system in memory that can be filled."""

    def __init__(self, folder: pathlib.Path, size_mb: int):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self):
        # A process that still holds a file keeps it until it ends.
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """While whatever becomes free is taken at once."""
        filler, ends = self.folder / "filler", threading.Event()

        def fill():
            with open(filler, "ab", buffering=0) as file:
                while not ends.wait(0.001):
                    with contextlib.suppress(OSError):
                        while not ends.is_set():
                            file.write(bytes(4096))

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
            filler.unlink()
