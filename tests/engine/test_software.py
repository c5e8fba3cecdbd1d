"""What is installed, and what is said where it is not, or does not work."""

from importlib import metadata

import pytest

from pandacli.engine import software as software_module
from pandacli.engine.facts import Fact, Section
from pandacli.engine.software import engines, ready, requirements, software

LLAMA = "some_llama>=1; extra == 'llama'"


def fact(section: Section, name: str) -> Fact:
    (found,) = (fact for fact in section.facts if fact.name == name)
    return found


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the distribution pandacli says it requires."""
    lines: list[str] = []
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    return lines


def test_a_working_library_is_its_version() -> None:
    assert fact(software(), "torch") == Fact("torch", metadata.version("torch"))


def test_a_version_that_panda_cannot_use_is_a_problem(requires: list[str]) -> None:
    requires.append("torch>=99")
    assert fact(software(), "torch").problem == "panda needs torch>=99"


def test_a_library_that_is_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software_module.LIBRARIES, "no-such-library", "nothing")
    problem = fact(software(), "no-such-library").problem
    assert problem == "not installed: pip install no-such-library"


def test_a_library_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software_module.LIBRARIES, "av", "no_such_module")
    found = fact(software(), "av")
    assert found.value == metadata.version("av")
    assert found.problem == "ModuleNotFoundError: No module named 'no_such_module'"


def test_the_requirements_of_an_extra_are_apart(requires: list[str]) -> None:
    requires += ["torch>=2", LLAMA, "pytest; extra == 'dev'"]
    assert [r.name for r in requirements()] == ["torch"]
    assert [r.name for r in requirements("llama")] == ["some_llama"]


def test_engines_that_work_are_ready() -> None:
    assert ready(engines()) >= {"torch", "bitsandbytes"}


def test_an_optional_engine_that_is_not_installed_is_no_problem(requires: list[str]) -> None:
    requires.append(LLAMA)
    assert fact(engines(), "llama") == Fact("llama", "no some-llama: pip install 'pandacli[llama]'")


def test_an_optional_engine_that_is_broken_is_a_problem(
    requires: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires.append(LLAMA)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"llama_x": ["Some-Llama"]})
    monkeypatch.setattr(metadata, "version", lambda _: "1.0")
    found = fact(engines(), "llama")
    assert found.value == "some-llama 1.0"
    assert found.problem == "ModuleNotFoundError: No module named 'llama_x'"
