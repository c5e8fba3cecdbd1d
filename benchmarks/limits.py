"""What this machine can do at most, to compare ours with: `python -m benchmarks.limits`.

    python -m benchmarks.limits
    python -m benchmarks.limits --device cuda --repeats 10
    TMPDIR=/data python -m benchmarks.limits       # the disk that holds /data

Memory is read, and matrices of the size of a prefill are multiplied, in the fastest of a few ways
that torch offers on all threads. The disk is read with several threads after the page cache of the
file has been dropped; what the hypervisor or the disk itself caches is out of reach. Each figure is
the best of the repeats, not the median: whatever interrupts a run can only make it slower, and a
limit is what the machine reaches undisturbed.
"""

import argparse
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.report import Row, table_of

HIDDEN, INTERMEDIATE = 4096, 11008  # of the 7B
_TOKENS = {"cpu": 1232, "cuda": 8192}  # a clip's prefix; a card needs more rows to be busy
_READ_BYTES = 2 << 30  # far more than the caches of any processor
_FILE_BYTES = 1 << 30
_CHUNK_BYTES = 8 << 20
_READERS = 8  # threads: what keeps the queue of an NVMe disk filled
_CALLS = {"cpu": 1, "cuda": 10}  # timed together, so that launching a kernel counts little
_TYPES = {
    "cpu": (torch.float32, torch.bfloat16, torch.int8),
    "cuda": (torch.float32, torch.bfloat16, torch.float16, torch.int8),
}


@dataclass(frozen=True)
class Limits:
    """The best rates that were reached.

    Attributes:
        device: "cpu" or "cuda".
        memory: Reading the device's memory, GB/s.
        products: Matrix products by the name of their type ("float32", "int8"), in GFLOP/s, or in
            GOP/s of integers; a multiply-add counts as two. What torch cannot multiply is absent.
        disk: Reading a file, GB/s.
        disk_is_cold: Whether the file was out of the page cache; else `disk` is the rate of that.
        copy: Copying from pinned memory of the host to the device, GB/s; None on a CPU.
    """

    device: str
    memory: float
    products: dict[str, float]
    disk: float
    disk_is_cold: bool
    copy: float | None = None

    def rows(self) -> Iterator[Row]:
        """The limits as rows of a table, with nothing beside them."""
        group = "limits"
        yield Row(group, "reading memory", self.memory, "GB/s")
        for name, rate in self.products.items():
            unit = "GOP/s" if name.startswith("int") else "GFLOP/s"
            yield Row(group, f"matrix product, {name}", rate, unit)
        if self.copy is not None:
            yield Row(group, "copying from the host", self.copy, "GB/s")
        how = "cold" if self.disk_is_cold else "from the page cache, which cannot be dropped"
        yield Row(group, f"reading the disk, {how}", self.disk, "GB/s")


def measure(device: str, repeats: int) -> Limits:
    """Measure this machine on all threads.

    Args:
        device: "cpu" or "cuda".
        repeats: How often each way is tried, after a run to warm up.

    Raises:
        OSError: The temporary folder has no room for a file of 1 GiB.
    """
    disk, is_cold = _disk_rate(repeats)
    return Limits(
        device=device,
        memory=_memory_rate(device, repeats),
        products=dict(_product_rates(device, repeats)),
        disk=disk,
        disk_is_cold=is_cold,
        copy=_copy_rate(repeats) if device == "cuda" else None,
    )


def drop_from_page_cache(paths: Iterable[Path]) -> bool:
    """Write files back and drop them from the page cache.

    Returns:
        Whether all of them are out of it: False where the system cannot do this or does not say.
    """
    gone = [_drop(path) for path in paths]
    return all(gone)


def _drop(path: Path) -> bool:
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # dirty pages would stay
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return error.errno == errno.EAGAIN  # the first byte would have to be read from the disk
    finally:
        os.close(file)
    return False


def _disk_rate(repeats: int) -> tuple[float, bool]:
    """GB/s from a file made for it, and whether it was cold each time."""
    with tempfile.NamedTemporaryFile() as file:
        block = os.urandom(_CHUNK_BYTES)  # nothing that a file system could compress
        for _ in range(_FILE_BYTES // _CHUNK_BYTES):
            file.write(block)
        file.flush()
        path = Path(file.name)
        rounds = [(drop_from_page_cache([path]), _read_seconds(path)) for _ in range(repeats)]
    return _FILE_BYTES / min(seconds for _, seconds in rounds) / 1e9, all(c for c, _ in rounds)


def _read_seconds(path: Path) -> float:
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(_READERS) as pool:
        number = file.fileno()

        def read(reader: int) -> None:
            chunk = bytearray(_CHUNK_BYTES)
            for start in range(reader * _CHUNK_BYTES, _FILE_BYTES, _READERS * _CHUNK_BYTES):
                os.preadv(number, [chunk], start)

        started = perf_counter()
        list(pool.map(read, range(_READERS)))
        return perf_counter() - started


def _memory_rate(device: str, repeats: int) -> float:
    """GB/s of the fastest of a few reductions."""
    numbers = torch.ones(_READ_BYTES // 8, dtype=torch.int64, device=device)
    floats = numbers.view(torch.float32)
    ways: list[Callable[[], Any]] = [numbers.sum, numbers.max, floats.sum, floats.max]
    return _READ_BYTES / _best_seconds(ways, device, repeats) / 1e9


def _product_rates(device: str, repeats: int) -> Iterator[tuple[str, float]]:
    """The name of each type, and 10^9 operations a second in the faster of both orientations."""
    tokens = _TOKENS[device]
    x = torch.randn(tokens, HIDDEN, device=device)
    w = torch.randn(INTERMEDIATE, HIDDEN, device=device)
    for dtype in _TYPES[device]:
        product: Callable[[Tensor, Tensor], Tensor] = torch.mm
        scale = 1
        if dtype == torch.int8:
            product, scale = torch._int_mm, 20
        a, b = ((values * scale).to(dtype) for values in (x, w))
        ways = [lambda f=product, p=p, q=q: f(p, q.t()) for p, q in ((a, b), (b, a))]
        with suppress(RuntimeError):  # no kernel for the type on this device
            seconds = _best_seconds(ways, device, repeats)
            operations = 2 * tokens * HIDDEN * INTERMEDIATE
            yield str(dtype).removeprefix("torch."), operations / seconds / 1e9


def _copy_rate(repeats: int) -> float:
    host = torch.ones(_FILE_BYTES, dtype=torch.uint8, pin_memory=True)
    device = torch.empty_like(host, device="cuda", pin_memory=False)
    return _FILE_BYTES / _best_seconds([lambda: device.copy_(host)], "cuda", repeats) / 1e9


def _best_seconds(ways: Iterable[Callable[[], Any]], device: str, repeats: int) -> float:
    """The seconds of one call, in the best run of the fastest way."""
    calls = _CALLS[device]
    return min(_seconds(way, device, calls) / calls for way in ways for _ in range(repeats + 1))


def _seconds(way: Callable[[], Any], device: str, calls: int) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = perf_counter()
    for _ in range(calls):
        way()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - started


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    limits = measure(wanted.device, wanted.repeats)
    if wanted.json:
        print(json.dumps(asdict(limits), indent=2))
        return
    Console(width=max(110, Console().width)).print(table_of(list(limits.rows())))


if __name__ == "__main__":
    main()
