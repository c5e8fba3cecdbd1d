"""The Ray that a run works on: one of our own, or a cluster to join; and what fits on it."""

import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pandacli.errors import DeviceError, UsageError

DEFAULT_PORT = 6379

_ENVIRONMENT = {  # heard when Ray is imported, and by all that it starts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers run in this very environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that it hides the cards
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # or the part of Ray that is C++ writes on stderr
    "RAY_worker_niceness": "0",  # the workers are what the machine is wanted for
}
_OBJECT_STORE = 256 * 2**20  # bytes; what lies in it are texts
_NEXT_TO_NOTHING = 0.001  # cores; with none at all, Ray takes the feed for a part of the workers
_PATIENCE = 5.0  # seconds, for a machine to answer


@dataclass(frozen=True)
class Placement:
    """The workers of a run, and what each is given.

    Attributes:
        workers: How many.
        device: What they compute on: "cpu" or "cuda".
        cpus: Cores of each, as Ray counts them.
        gpus: Cards of each.
        threads: Threads that each computes with.
    """

    workers: int
    device: str
    cpus: float
    gpus: int
    threads: int


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Ray's module, with a cluster behind it until the context ends.

    Args:
        address: Of a cluster: "auto", a host, or host:port; None starts one on this machine, which
            ends with the context. Where this process is on a cluster already, that one is used.

    Raises:
        UsageError: Ray is not installed.
        DeviceError: There is no such cluster, or none can be started.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    own = tempfile.mkdtemp(prefix="panda-", dir=_short_folder()) if address is None else None
    from ray._private import worker

    try:
        # stdout is for answers, and Ray writes there that it calls a lost worker again
        worker._worker_logs_enabled = False
        _connect(ray, address, own)
        yield ray
    finally:
        ray.shutdown()
        worker._worker_logs_enabled = True
        if own:
            shutil.rmtree(own, ignore_errors=True)


def place(nodes: list[dict[str, Any]], device: str, workers: int | None) -> Placement:
    """Find room for the workers.

    Args:
        nodes: The machines of a cluster, as `ray.nodes()` tells of them.
        device: "auto", "cpu" or "cuda".
        workers: How many there are to be; None for one on each card, or on each machine.

    Raises:
        UsageError: A certain card is asked for, or no device is called so.
        DeviceError: There are not so many cards.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device} does not go with Ray", "use auto, cpu or cuda")
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [int(has.get("CPU", 0)) for has in resources]
    cards = sum(int(has.get("GPU", 0)) for has in resources)
    if device == "cpu" or (device == "auto" and not cards):
        return _place_on_cores(cores, workers)
    if not cards:
        raise DeviceError("no CUDA device found: the Ray cluster has no GPU", "use --device cpu")
    if workers and workers > cards:
        raise DeviceError(
            f"there are fewer cards ({cards}) than workers ({workers}), which take one each",
            f"use --workers {cards}",
        )
    return Placement(workers or cards, "cuda", 0, 1, max(1, sum(cores) // cards))


def _place_on_cores(cores: list[int], workers: int | None) -> Placement:
    """As many cores for each as leave room for all."""
    wanted = workers or sum(has > 0 for has in cores) or 1
    for each in range(max(cores, default=0), 0, -1):
        if sum(has // each for has in cores) >= wanted:
            return Placement(wanted, "cpu", each, 0, each)
    return Placement(wanted, "cpu", _NEXT_TO_NOTHING, 0, 1)


def _import_ray() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray, which is not installed",
            "install it with: pip install 'pandacli[ray]'",
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\.")
    return ray


def _connect(ray: Any, address: str | None, own: str | None) -> None:
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if own:
        how |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE, "_temp_dir": own}
    try:
        where = "local" if own else _reachable(str(address))
        with _silence():
            ray.init(where, **how)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        if own:
            raise DeviceError(f"Ray cannot be started: {_first_line(error)}") from error
        raise _no_cluster(str(address), _first_line(error)) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what is written on stderr: the C++ of Ray says that it will be quiet."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _reachable(address: str) -> str:
    """An address as Ray takes it, of a machine that answers; Ray itself would try for minutes."""
    if address == "auto":
        return address
    scheme, separator, place = address.rpartition("://")
    host, _, port = place.partition(":")
    if not port.isdigit():
        port = str(DEFAULT_PORT)
    with socket.create_connection((host, int(port)), _PATIENCE):
        return f"{scheme}{separator}{host}:{port}"


def _no_cluster(address: str, why: str) -> DeviceError:
    if address == "auto":
        return DeviceError(
            "no Ray cluster runs here", "start one with:", command="ray start --head"
        )
    return DeviceError(
        f"no Ray cluster at {address}: {why}", "start one with:", command="ray start --head"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip().rstrip(".")


def _short_folder() -> str | None:
    """Where temporary folders have short names, as those of sockets must be."""
    return "/tmp" if os.path.isdir("/tmp") else None  # noqa: PTH112
