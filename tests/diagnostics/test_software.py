"""Libraries and backends: installed, missing, broken."""

from importlib import metadata

import pytest

from pandacli.diagnostics import Fact, Section
from pandacli.diagnostics import software as software_module
from pandacli.diagnostics.software import backends, ready, requirements, software_facts
from pandacli.errors import UsageError
from pandacli.quantization import llama_library


def fact(section: Section, name: str) -> Fact:
    (found,) = (fact for fact in section.facts if fact.name == name)
    return found


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the distribution pandacli says it requires."""
    lines: list[str] = []
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    return lines


def test_working_library_reports_version() -> None:
    assert fact(software_facts(), "torch") == Fact("torch", metadata.version("torch"))


def test_unsupported_version_is_a_problem(requires: list[str]) -> None:
    requires.append("torch>=99")
    assert fact(software_facts(), "torch").problem == "panda needs torch>=99"


def test_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software_module.LIBRARIES, "no-such-library", "nothing")
    problem = fact(software_facts(), "no-such-library").problem
    assert problem == "not installed: pip install no-such-library"


def test_broken_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software_module.LIBRARIES, "av", "no_such_module")
    found = fact(software_facts(), "av")
    assert found.value == metadata.version("av")
    assert found.problem == "ModuleNotFoundError: No module named 'no_such_module'"


def test_extras_are_not_required(requires: list[str]) -> None:
    requires += ["torch>=2", "pytest; extra == 'dev'", "tomli; python_version < '3'"]
    assert [requirement.name for requirement in requirements()] == ["torch"]


def test_working_backends_are_ready() -> None:
    assert ready(backends()) >= {"torch", "bitsandbytes"}


def test_missing_optional_backend_is_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(software_module, "find_spec", lambda _: None)
    found = fact(backends(), "llama")
    assert found == Fact("llama", f"no xllamacpp and no gguf: {llama_library.INSTALL_COMMAND}")


def test_broken_optional_backend_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UsageError("xllamacpp 1.0 is not the 2.0 that panda can use")

    monkeypatch.setattr(software_module, "find_spec", lambda _: object())
    monkeypatch.setattr(llama_library, "llama_library", fail)
    problem = "xllamacpp 1.0 is not the 2.0 that panda can use"
    assert fact(backends(), "llama") == Fact("llama", None, problem)
