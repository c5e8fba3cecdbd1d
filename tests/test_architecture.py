"""The order of the packages, and how much of them one question enters."""

import ast
from pathlib import Path

import pytest

import pandacli

ROOT = Path(pandacli.__file__).parent
ORDER = (
    "cli",
    "terminal",
    "diagnostics",
    "chat",
    "batch",
    "inference",
    "prefix_cache",
    "quantization",
    "checkpoints",
    "modeling",
    "video",
    "checkpoint_files",
    "background",
    "file_io",
    "units",
    "errors",
)
"""A package imports only from those after it; modules of one package may import each other."""

PUBLIC = {"pandacli.Panda", "pandacli.__version__"}


def imports(path: Path) -> list[str]:
    """The modules of `pandacli` that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pandacli"):
            if node.module == "pandacli":
                found += [f"pandacli.{alias.name}" for alias in node.names]
            else:
                found.append(str(node.module))
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.startswith("pandacli")]
    return found


@pytest.mark.parametrize("package", ORDER)
def test_package_imports_only_from_packages_below_it(package: str) -> None:
    folder = ROOT / package
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    allowed = ORDER[ORDER.index(package) :]
    upward = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in imports(path)
        if module not in PUBLIC and module.split(".")[1] not in allowed
    ]
    assert upward == []


def test_every_package_has_its_place_in_the_order() -> None:
    names = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__main__", "__pycache__", "assets", "py.typed"} == set(ORDER)
