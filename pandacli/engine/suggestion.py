"""The form of Video-Panda-7B that suits this machine: on which device, in how many bits, by what.

On a card the first of none, 8 and 4 bits that fits its free memory. On a CPU 8 bits before none,
because single precision takes four times the memory and is read whole for every token: 8 bits in
torch lose little and decode more than twice as fast. 4 bits are for llama.cpp there, whose kernels
are made for it; bitsandbytes widens every weight anew for each token unless it has AVX-512.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandacli.engine.facts import Bytes, Fact, Section, find_all
from pandacli.store import DEFAULT_MODEL

if TYPE_CHECKING:
    from pandacli.engine.quantize import Quant

    _Ways = tuple[tuple[Quant, str], ...]


@dataclass(frozen=True)
class Form:
    """A way to run the model.

    Attributes:
        device: What `--device` takes.
        quant: What `--quant` takes.
        engine: What `--engine` takes.
        needs: Bytes of memory, with a KV cache of the full context.
    """

    device: str
    quant: "Quant"
    engine: str
    needs: int


def suggestion(ready: set[str], flags: set[str] | None) -> Section:
    """What to call panda with on this machine, and why.

    Args:
        ready: The engines that work here.
        flags: The instruction sets of the processor, None where they are not known.
    """
    return Section(f"For {DEFAULT_MODEL}", find_all("suggestion", lambda: _facts(ready, flags)))


def first_that_fits(forms: list[Form], free: Callable[[str], int]) -> Form | None:
    """The first of `forms` that the free memory of its device holds."""
    return next((form for form in forms if form.needs <= free(form.device)), None)


def forms(devices: list[str], ready: set[str], needed: "Callable[[str, Quant], int]") -> list[Form]:
    """The forms that the engines here can run, best first.

    Args:
        devices: "cpu" or "cuda:N", the one to be preferred first.
        ready: The engines that work here.
        needed: Bytes that a quantisation needs on a device.
    """
    on_cuda: _Ways = (("none", "torch"), ("8bit", "bitsandbytes"), ("4bit", "bitsandbytes"))
    on_cpu: _Ways = (("8bit", "torch"), ("4bit", "llama"), ("4bit", "bitsandbytes"))
    return [
        Form(device, quant, engine, needed(device, quant))
        for device in devices
        for quant, engine in (on_cpu if device == "cpu" else on_cuda)
        if engine in ready
    ]


def reason(form: Form, free: int, flags: set[str] | None) -> str:
    """Why this form, in a sentence."""
    where = "memory" if form.device == "cpu" else f"the memory of {form.device}"
    fits = f"{free / 1e9:.1f} GB of {where} are free"
    match form.device, form.quant, form.engine:
        case "cpu", "8bit", _:
            return f"{fits}; on a CPU faster than no quantisation, and nearly as exact"
        case "cpu", _, "llama":
            return f"{fits}; 8 bits do not fit, and llama.cpp is fastest in 4"
        case "cpu", _, _:
            slow = "" if flags and "avx512f" in flags else ", but slow without AVX-512"
            return f"{fits}{slow}; with pandacli[llama] installed, --engine llama is faster"
        case _, "none", _:
            return f"{fits}; the weights as they were published"
    return f"{fits}; the most bits that fit"


def _facts(ready: set[str], flags: set[str] | None) -> Iterator[Fact]:
    if "torch" not in ready:
        yield Fact("suggestion", None, "without torch no model can be run")
        return
    import torch

    from pandacli.engine.device import free_memory, pick_dtype
    from pandacli.engine.quantize import needed_bytes
    from pandacli.model.config import VideoPandaConfig

    def needed(device: str, quant: "Quant") -> int:
        return needed_bytes(VideoPandaConfig(), quant, pick_dtype(torch.device(device)))

    def free(device: str) -> int:
        return free_memory(torch.device(device))

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = sorted((f"cuda:{number}" for number in range(cards)), key=free, reverse=True)
    known = forms([*devices, "cpu"], ready, needed)
    form = first_that_fits(known, free)
    if form is None:
        least = min(known, key=lambda form: form.needs - free(form.device))
        yield Fact("suggestion", "--model tiny", _too_little(least, free(least.device)))
        return
    yield Fact("--device", form.device)
    yield Fact("--quant", form.quant)
    yield Fact("--engine", form.engine)
    yield Fact("needs", Bytes(form.needs))
    yield Fact("because", reason(form, free(form.device), flags))


def _too_little(form: Form, free: int) -> str:
    return (
        f"{DEFAULT_MODEL} needs {form.needs / 1e9:.1f} GB with --quant {form.quant}, and"
        f" {free / 1e9:.1f} GB are free on {form.device}: close other programs"
    )
