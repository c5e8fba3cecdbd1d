"""Hardware facts from the system and torch."""

from pathlib import Path

import pytest
import torch

from pandacli.diagnostics import Fact
from pandacli.diagnostics import machine as machine_module
from pandacli.diagnostics.machine import machine_facts
from pandacli.inference.planning.devices import cpu_flags


def facts(title: str) -> dict[str, Fact]:
    (section,) = (section for section in machine_facts() if section.title == title)
    return {fact.name: fact for fact in section.facts}


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n", {"fpu", "avx2"}),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", {"fp", "asimd", "sve"}),
        ("something else", None),
    ],
    ids=["x86", "ARM", "other"],
)
def test_cpu_flags_of_first_processor_are_read(
    tmp_path: Path, text: str, flags: set[str] | None
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_flags(tmp_path / "cpuinfo") == flags


def test_missing_cpuinfo_has_no_flags(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") is None


def test_present_and_missing_instructions_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(machine_module, "cpu_flags", lambda: {"avx2", "avx512f", "sse"})
    found = facts("Processor")
    assert found["instructions"] == Fact("instructions", ["avx2", "avx512f"])
    assert found["it lacks"].value == ["avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"]


def test_cpu_without_vector_instructions_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(machine_module, "cpu_flags", lambda: {"sse"})
    assert facts("Processor")["instructions"].problem == "no avx2: the model will be very slow"


def test_gpus_are_listed_with_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20_000, 24_000))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 4090")
    assert facts("CUDA")["cuda:0"].value == {
        "name": "RTX 4090",
        "total": 24_000,
        "free": 20_000,
        "architecture": "sm_89",
    }


def test_failing_gpu_query_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert facts("CUDA")["cuda:0"].problem == "RuntimeError: device-side assert"


@pytest.mark.parametrize(
    ("driver", "built", "problem"),
    [
        (None, None, None),
        ("550.54", None, "this torch is built without CUDA"),
        ("550.54", "12.8", "torch sees no card"),
    ],
)
def test_driver_without_gpu_in_torch_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, built: str | None, problem: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(machine_module, "_driver", lambda: driver)
    found = facts("CUDA")["cards"].problem
    assert found is None if problem is None else problem in (found or "")
