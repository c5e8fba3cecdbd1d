"""Limits of containers, in both versions of Linux's control groups."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pandacli.inference.planning import devices
from pandacli.inference.planning.devices import Memory, core_limit, memory_limit, usable_memory

Limit = Callable[[dict[str, str]], tuple[Path, Path]]


@pytest.fixture
def groups(tmp_path: Path) -> Limit:
    """Lays out a mounted hierarchy; returns the list of our groups and the mount."""

    def lay_out(files: dict[str, str]) -> tuple[Path, Path]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "cgroup", tmp_path / "mount"

    return lay_out


VERSION_2 = {
    "cgroup": "0::/job/step\n",
    "mount/job/memory.max": "8000\n",
    "mount/job/memory.current": "5000\n",
    "mount/job/memory.stat": "anon 3000\nactive_file 100\ninactive_file 1500\n",
    "mount/job/step/memory.max": "max\n",
    "mount/job/cpu.max": "150000 100000\n",
    "mount/job/step/cpu.max": "max 100000\n",
}
VERSION_1 = {
    "cgroup": "9:memory:/box\n3:cpu,cpuacct:/box\n0::/\n",
    "mount/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "mount/memory/box/memory.limit_in_bytes": "8000\n",
    "mount/memory/box/memory.usage_in_bytes": "5000\n",
    "mount/memory/box/memory.stat": "cache 7\ntotal_inactive_file 1500\n",
    "mount/cpu,cpuacct/box/cpu.cfs_quota_us": "150000\n",
    "mount/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
    "mount/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "mount/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_droppable_file_pages_count_as_free(groups: Limit, files: dict[str, str]) -> None:
    assert memory_limit(*groups(files)) == Memory(total=8000, free=4500)


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_cpu_quota_is_number_of_cores(groups: Limit, files: dict[str, str]) -> None:
    assert core_limit(*groups(files)) == 1.5


def test_container_may_see_its_group_as_root(groups: Limit) -> None:
    files = VERSION_1 | {"cgroup": "9:memory:/kubepods/pod1\n"}
    files["mount/memory/memory.limit_in_bytes"] = "6000\n"
    assert memory_limit(*groups(files)) == Memory(total=6000, free=6000)


@pytest.mark.parametrize("files", [{}, {"cgroup": "0::/\n"}], ids=["no groups", "no limits"])
def test_no_limits_without_cgroups(groups: Limit, files: dict[str, str]) -> None:
    where = groups(files)
    assert memory_limit(*where) is None
    assert core_limit(*where) is None


@pytest.mark.parametrize("limit", [None, Memory(2**50, 2**50)], ids=["none", "a wide one"])
def test_limit_never_exceeds_machine(monkeypatch: pytest.MonkeyPatch, limit: Memory | None) -> None:
    monkeypatch.setattr(devices, "memory_limit", lambda: limit)
    assert usable_memory().total == psutil.virtual_memory().total


def test_tight_limit_overrides_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_limit", lambda: Memory(1000, 10))
    assert usable_memory() == Memory(1000, 10)
