"""What a process may use of the machine, within the limits of a container or batch job.

The limits are those of Linux's control groups, both versions (cgroups(7)); elsewhere there are
none to be found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_CPUINFO = Path("/proc/cpuinfo")
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 writes a number near 2**63 where there is no limit


@dataclass(frozen=True)
class Memory:
    """An amount of memory, and what is free of it, in bytes."""

    total: int
    free: int


def usable_memory() -> Memory:
    """The main memory that this process may use."""
    here = psutil.virtual_memory()
    limit = memory_limit() or Memory(here.total, here.available)
    return Memory(min(here.total, limit.total), min(here.available, limit.free))


def memory_limit(groups: Path = _GROUPS, mount: Path = _MOUNT) -> Memory | None:
    """The limit that leaves the least free, or None where there is none.

    File pages that the kernel would give up count as free.
    """
    limits = []
    for version, folder in _folders("memory", groups, mount):
        limit, usage, cached = _MEMORY_FILES[version]
        total = _number(folder / limit)
        if total is not None and total < _UNLIMITED:
            used = (_number(folder / usage) or 0) - _field(folder / "memory.stat", cached)
            limits.append(Memory(total, max(0, total - used)))
    return min(limits, key=lambda limit: limit.free, default=None)


def core_limit(groups: Path = _GROUPS, mount: Path = _MOUNT) -> float | None:
    """The cores' worth of time a second that may be used, or None where there is no limit."""
    limits = []
    for version, folder in _folders("cpu", groups, mount):
        if version == 2:
            words = _words(folder / "cpu.max")
        else:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit():  # neither "max" nor -1
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def cpu_flags(cpuinfo: Path = _CPUINFO) -> set[str] | None:
    """The instruction sets of the CPU in Linux's names; None where they are not listed."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)", text, re.MULTILINE)
    return set(line[1].split()) if line else None


def _folders(controller: str, groups: Path, mount: Path) -> Iterator[tuple[int, Path]]:
    """The version and folder of our group and of each above it, whose limits hold for us too."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield (1 if controllers else 2), folder


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _field(path: Path, name: str) -> int:
    words = _words(path)
    return int(words[words.index(name) + 1]) if name in words else 0
