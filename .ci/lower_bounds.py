"""Print the lower bound of every requirement in pyproject.toml, as a constraints file for pip."""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?[>=]=([\w.]+)")

if __name__ == "__main__":
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    matches = [REQUIREMENT.match(requirement) for group in groups for requirement in group]
    print(*sorted({f"{match[1]}=={match[2]}" for match in matches if match}), sep="\n")
