"""Print the lower bound of every requirement in pyproject.toml, as a constraints file for pip."""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?[>=]=([\w.]+)")

if __name__ == "__main__":
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = {match[1]: match[2] for group in groups for match in map(REQUIREMENT.match, group) if match}
    for name, version in sorted(found.items()):
        print(f"{name}=={version}")
