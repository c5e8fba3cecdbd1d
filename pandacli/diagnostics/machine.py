"""Check the hardware: processor, memory and CUDA devices."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from pandacli.diagnostics import Bytes, Fact, Section, Value, find, find_all
from pandacli.inference.planning.devices import core_limit, cpu_flags, usable_memory

# extensions that speed up quantised arithmetic, in Linux's names; asimd is NEON
INSTRUCTIONS = {
    "x86_64": ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    "aarch64": ("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
}
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def machine_facts() -> list[Section]:
    processor = [
        find("model", cpu_model),
        find("cores", _cores),
        *find_all("instructions", _instructions),
        find("torch uses", _torch_kernels),
    ]
    memory = Section("Memory", find_all("memory", _memory))
    cuda = Section("CUDA", [find("driver", _driver), *find_all("cards", _cards)])
    return [Section("Processor", processor), memory, cuda]


def cpu_model() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    line = re.search(r"^model name\s*:\s*(.+)", text, re.MULTILINE)
    return line[1] if line else platform.processor() or platform.machine()


def _cores() -> Value:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = core_limit()
    limited = {"allowed by its limits": round(limit, 2)} if limit else {}
    return {"present": os.cpu_count(), "usable": usable, **limited}


def _instructions() -> Iterator[Fact]:
    wanted = INSTRUCTIONS.get(platform.machine().lower().replace("amd64", "x86_64"), ())
    flags = cpu_flags()
    if flags is None or not wanted:
        yield Fact("instructions", "not listed by this system")
        return
    has = [name for name in wanted if name in flags]
    slow = None if wanted[0] in has else f"no {wanted[0]}: the model will be very slow"
    yield Fact("instructions", has, slow)
    yield Fact("it lacks", [name for name in wanted if name not in flags])


def _torch_kernels() -> str:
    import torch

    int8 = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    return f"{torch.backends.cpu.get_cpu_capability()}, and for int8 {', '.join(int8) or 'nothing'}"


def _memory() -> Iterator[Fact]:
    usable, whole = usable_memory(), psutil.virtual_memory().total
    yield Fact("total", Bytes(usable.total))
    yield Fact("free", Bytes(usable.free))
    if usable.total < whole:
        yield Fact("of the machine", Bytes(whole))


def _driver() -> str | None:
    if tool := shutil.which("nvidia-smi"):
        command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0 and (version := done.stdout.split("\n")[0].strip()):
            return version
    if _DRIVER.exists():
        found = re.search(r"\d+\.\d[\d.]*", _DRIVER.read_text())
        return found[0] if found else "of an unknown version"
    return None


def _cards() -> Iterator[Fact]:
    import torch

    built = torch.version.cuda
    yield Fact("torch has", f"CUDA {built}" if built else "no CUDA")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield find(f"cuda:{number}", partial(_card, number))
    elif _driver() is None:
        yield Fact("cards")
    elif built is None:
        problem = "NVIDIA's driver is here, but this torch is built without CUDA: see pytorch.org"
        yield Fact("cards", problem=problem)
    else:
        failure = find("cards", torch.cuda.init).problem
        yield Fact("cards", problem=failure or "NVIDIA's driver is here, but torch sees no card")


def _card(number: int) -> Value:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    major, minor = torch.cuda.get_device_capability(number)
    memory = {"total": Bytes(total), "free": Bytes(free)}
    name, architecture = torch.cuda.get_device_name(number), f"sm_{major}{minor}"
    return {"name": name, **memory, "architecture": architecture}
