"""Write `docs/command-line.md` from the help texts of the program.

python docs/generate.py            write it
python docs/generate.py --check    exit with 1 if it is not current
"""

import os
import subprocess
import sys
from pathlib import Path

from pandacli.cli.help import COMMANDS

PAGE = Path(__file__).with_name("command-line.md")
INTRODUCTION = Path(__file__).with_name("command-line.introduction.md")


def help_text(*words: str) -> str:
    """Return what `panda WORDS --help` prints at 80 columns, without colour."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PANDA_", "XDG_"))
    }
    environment |= {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pandacli", *words, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.replace(str(Path.home()), "~").rstrip()


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION.read_text("utf-8").rstrip()]
    for name, words in (("panda", ()), *((f"panda {name}", (name,)) for name in COMMANDS)):
        parts.append(f"## {name}\n\n```text\n{help_text(*words)}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    current = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(current, "utf-8")
        return 0
    if PAGE.read_text("utf-8") == current:
        return 0
    print(f"{PAGE.name} is not current: run make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
