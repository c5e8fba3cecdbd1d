"""All benchmarks, one after the other, as one table of ratios: `python -m benchmarks`.

    python -m benchmarks                         # or: make bench
    python -m benchmarks --only stab,startup --repeats 3
    python -m benchmarks --folder runs/bench     # bench.json and bench.png go there
    python -m benchmarks --only limits,forms --checkpoint FOLDER

Both sides of each ratio are measured in the same run of the same benchmark, in turns, and are
medians. The machine's limits are measured first, as the best of the repeats, and what is bound by
one of them stands beside it: that ratio is the share of the limit that is used. Where a model of
the 7B's width is needed, one of four layers with random weights is made, in a store of its own that
is deleted with it: 12 GB, where TMPDIR says; `--checkpoint` takes another. A benchmark that cannot
run here is named with the reason. CUDA has rows of its own where it is. Ctrl-C ends it; what has
been measured until then is shown.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks import scale, served
from benchmarks.limits import Limits
from benchmarks.report import Row, draw, table_of
from benchmarks.shares import forms_shares, stab_shares
from benchmarks.startup import IMPORTS
from pandacli.diagnostics.machine import machine_facts

_LAYERS = 4  # of the 7B's 32
_DECODE_GOAL = 1 / 1.2  # of the torch engine beside llama.cpp, as is the next
_PREFILL_GOAL = 1.0
_FILM_GOAL = 1 / 1.2  # of reading windows beside the fastest plain reader
_INTERRUPTED = 130


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        module: Its module in this package.
        words: Its arguments; "WIDE" stands for the folder of the wide model.
        rows: What its JSON says.
        on: What it runs on, where others of its name run on something else.
        shares: What its JSON says beside the limits of that, where they were measured before.
    """

    module: str
    words: tuple[str, ...]
    rows: Callable[[Any], Iterator[Row]]
    on: str = ""
    shares: Callable[[Any, Limits], Iterator[Row]] | None = None


def limits_rows(found: dict[str, Any]) -> Iterator[Row]:
    """What the machine can do at most."""
    return Limits(**found).rows()


def stab_rows(found: list[dict[str, Any]]) -> Iterator[Row]:
    """STAB beside a plain one, and beside ViT-L/14."""
    for row in found:
        yield Row(**{name: value for name, value in row.items() if name != "ratio"})


def frames_rows(found: dict[str, Any]) -> Iterator[Row]:
    """Eight frames of each file, beside each reader that can read it."""
    for file in found["files"]:
        taken = {name: median(seconds) for name, seconds in file["seconds"].items() if seconds}
        ours = taken.pop("ours", None)
        for rival, seconds in taken.items() if ours else ():
            goal = 1.0 if rival == "decord" else None
            right = file["exact"][rival]
            beside = rival if right == file["frames"] else f"{rival}, {right} of 8 right"
            yield Row("frames", file["file"], ours, "s", beside, seconds, goal)


def films_rows(found: dict[str, Any]) -> Iterator[Row]:
    """The frames of all windows of a film, beside the fastest plain way to read them."""
    for film in found["films"]:
        taken = {n: median(s["cpu"] for s in each) for n, each in film["seconds"].items()}
        seconds = taken.pop("FilmReader")
        fastest = min(taken, key=lambda name: taken[name])
        yield Row("films", film["film"], seconds, "CPU s", fastest, taken[fastest], _FILM_GOAL)


def prefix_rows(found: dict[str, Any]) -> Iterator[Row]:
    """The first token where the prefix is there already."""
    cold, how = found["cold_seconds"], f"{found['quant']} {found['engine']}"
    for name, seconds in (("disk", found["disk_seconds"]), ("memory", found["warm_seconds"])):
        yield Row("prefix", f"from {name}, {how}", seconds, "s", "cold", cold, 10.0)


def turns_rows(found: dict[str, Any]) -> Iterator[Row]:
    """The first token of the later turns of a conversation."""
    first, *later = (turn["first_token_seconds"] for turn in found["turns"])
    for number, seconds in enumerate(later, 2):
        yield Row("conversation", f"turn {number}", seconds, "s", "turn 1", first, 10.0)


def batch_rows(found: dict[str, Any]) -> Iterator[Row]:
    """A batch beside asking one by one."""
    rates = found["answers_per_second"]
    name = f"{found['model']}, {found['questions']} questions"
    yield Row("batch", name, rates["batch"], "answers/s", "one by one", rates["one by one"], 8.0)


def choices_rows(found: dict[str, Any]) -> Iterator[Row]:
    """Scoring choices together beside one by one, and beside plain passes."""
    rates, name = found["choices_per_second"], f"{found['model']} {found['engine']}"
    ours, theirs = rates["together"], rates["one_by_one"]
    yield Row("choices", name, ours, "choices/s", "one by one", theirs, 8.0)
    if "plain" in rates:
        with_prefix = f"{name}, prefix counted"
        yield Row(
            "choices", with_prefix, rates["with_prefix"], "choices/s", "plain", rates["plain"]
        )


def windows_rows(found: dict[str, Any]) -> Iterator[Row]:
    """The windows of a film together beside one by one."""
    for name, way in found["ways"].items():
        goal = 3.0 if "film" in name else None
        what = f"{found['model']}, {name}"
        yield Row(
            "windows", what, way["together"], "windows/s", "one by one", way["one_by_one"], goal
        )


def find_rows(found: dict[str, Any]) -> Iterator[Row]:
    """A second search of a folder beside the first."""
    first, *later = found["seconds"].items()
    for name, seconds in later:
        what = f"{found['model']}, {found['clips']} clips, {name}"
        yield Row("find", what, seconds, "s", first[0], first[1])


def serving_rows(found: dict[str, Any]) -> Iterator[Row]:
    """Many clients of a server beside one, and the memory at the end beside the start."""
    rates = {way: each["answers_per_second"] for way, each in found["ways"].items()}
    name, memory = f"{found['model']}, {found['clients']} clients", found["memory"]
    together, alone = rates["together"], rates["one by one"]
    yield Row("serving", name, together, "answers/s", "one by one", alone, 4.0)
    start, end = (memory[f"{which}_bytes"] / 2**20 for which in ("start", "end"))
    yield Row("serving", f"{name}, memory at the end", end, "MB", "at the start", start)


def forms_rows(found: dict[str, Any]) -> Iterator[Row]:
    """Tokens a second of each form, beside llama.cpp in as many bits or the unquantised model."""
    forms = {(form["quant"], form["engine"]): form for form in found["forms"] if form["runs"]}
    whole = forms.get(("none", "torch"))
    for what, goal in (("prefill", _PREFILL_GOAL), ("decode", _DECODE_GOAL)):
        for (quant, engine), form in forms.items():
            beside, name = forms.get((quant, "llama")), "llama.cpp"
            if beside is None or engine == "llama":
                beside, name = whole, "none torch"
            if beside is None or form is whole:
                continue
            measure = f"{what}_tokens_per_second"
            ours, theirs = (median(r[measure] for r in f["runs"]) for f in (form, beside))
            wanted = goal if (quant, engine, name) == ("8bit", "torch", "llama.cpp") else None
            yield Row(what, f"{quant} {engine}", ours, "tokens/s", name, theirs, wanted)


def startup_rows(found: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """What is waited for, beside the imports that a program pays for which has them at its top."""
    imports = found[IMPORTS]["seconds"]
    for name, row in found.items():
        if name.startswith("panda"):
            yield Row("start-up", name, row["seconds"], "s", IMPORTS, imports)


def served_rows(found: dict[str, float]) -> Iterator[Row]:
    """The first word of an answer with a server, beside a model loaded for it."""
    here = found[served.HERE]
    for name in served.SERVED:
        yield Row("panda ask", name, found[name], "s", served.HERE, here, here / served.GOAL)


def parts(cuda: bool, repeats: int) -> list[Part]:
    """Every benchmark, as it is run here."""
    times = ("--repeats", str(repeats))
    quantised = ("WIDE", "--quant", "8bit", "--engine", "torch", "--device", "cpu", *times)
    found = [
        Part("limits", times, limits_rows),
        Part("startup", times, startup_rows),
        Part("served", times, served_rows),
        Part("frames", ("--repeats", str(2 * repeats + 1)), frames_rows),  # they are short
        Part("films", times, films_rows),
        Part("stab", times, stab_rows, shares=stab_shares),
        Part("batch", ("tiny", "--device", "cpu", *times), batch_rows),
        Part("choices", ("tiny", "--device", "cpu", *times), choices_rows),
        Part("windows", ("tiny", "--device", "cpu", *times), windows_rows),
        Part("find", ("tiny", *times), find_rows),
        Part("scale", times, scale.rows_of),
        Part("serving", ("tiny", "--device", "cpu", *times), serving_rows),
        Part("prefix", quantised, prefix_rows),
        Part("turns", quantised, turns_rows),
        Part("forms", ("WIDE", "--device", "cpu", "--cold", *times), forms_rows, "", forms_shares),
    ]
    if cuda:
        card = ("WIDE", "--quant", "none", "--device", "cuda", *times)
        found += [
            Part("limits", ("--device", "cuda", *times), limits_rows, "CUDA"),
            Part("batch", ("tiny", "--device", "cuda", *times), batch_rows, "CUDA"),
            Part("choices", ("tiny", "--device", "cuda", *times), choices_rows, "CUDA"),
            Part("windows", ("tiny", "--device", "cuda", *times), windows_rows, "CUDA"),
            Part("prefix", card, prefix_rows, "CUDA"),
            Part("turns", card, turns_rows, "CUDA"),
            Part(
                "forms",
                ("WIDE", "--device", "cuda", "--cold", *times),
                forms_rows,
                "CUDA",
                forms_shares,
            ),
        ]
    return found


def run(part: Part, wide: Callable[[], Path], home: Path) -> dict[str, Any] | list[Any]:
    """What a benchmark finds, in a process of its own.

    Args:
        part: The benchmark.
        wide: Gives the folder of the wide model.
        home: Where quantised copies are put.

    Raises:
        RuntimeError: It ended with an error; the message is its last line.
    """
    words = [str(wide()) if word == "WIDE" else word for word in part.words]
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *words, "--json"]
    variables = os.environ | {"PANDA_HOME": str(home)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"ended {done.returncode}")
    found: dict[str, Any] | list[Any] = json.loads(done.stdout)
    return found


def rows_of(
    part: Part, found: dict[str, Any] | list[Any], limits: Limits | None = None
) -> Iterator[Row]:
    """What a benchmark has found, with what it ran on, and beside the limits of that if given."""
    shares = part.shares(found, limits) if part.shares and limits else ()
    for row in chain(part.rows(found), shares):
        yield replace(row, group=f"{row.group}, {part.on}") if part.on else row


def failures(found: dict[str, Any] | list[Any]) -> Iterator[str]:
    """What could not be measured of what a benchmark was to measure, and why."""
    for form in found.get("forms", ()) if isinstance(found, dict) else ():
        if form["problem"]:
            yield f"{form['quant']} {form['engine']}: {form['problem']}"


def wide_model(folder: Path) -> Path:
    """A checkpoint of the 7B's width with few layers, made if it is not there."""
    if not (folder / "config.json").exists():
        words = [str(folder), "--layers", str(_LAYERS)]
        command = [sys.executable, "-m", "benchmarks.big_checkpoint", *words]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return folder


def measure(
    wanted: Sequence[Part], screen: Console, checkpoint: Path | None = None
) -> tuple[list[Row], bool]:
    """The rows of all benchmarks that can run here, and whether they were run to the end.

    Args:
        wanted: The benchmarks.
        screen: Where each is named.
        checkpoint: What stands for the wide model; None for one that is made.
    """
    rows: list[Row] = []
    limits: dict[str, Limits] = {}
    with tempfile.TemporaryDirectory() as folder:
        wide, home = checkpoint or Path(folder) / "wide", Path(folder) / "home"
        for part in wanted:
            started = perf_counter()
            try:
                with screen.status(f"measuring: {part.module}"):
                    found = run(part, lambda: wide_model(wide), home)
                if part.module == "limits" and isinstance(found, dict):
                    limits[part.on] = Limits(**found)
                rows += rows_of(part, found, limits.get(part.on))
                said = [f"{perf_counter() - started:.0f} s", *failures(found)]
            except (RuntimeError, subprocess.CalledProcessError) as error:
                said = [str(error)]
            except KeyboardInterrupt:
                return rows, False
            for words in said:
                screen.print(f"{part.module}: {words}", markup=False, highlight=False)
    return rows, True


def described(facts: dict[str, dict[str, Any]]) -> str:
    """The machine in a few words."""
    told = {name: value for section in facts.values() for name, value in section.items()}
    words = [str(told.get("model") or "this machine")]
    if cores := told.get("cores", {}).get("usable"):
        words.append(f"{cores} cores")
    if memory := told.get("total"):
        words.append(f"{memory / 2**30:.0f} GiB")
    words += [card["name"] for name, card in told.items() if name.startswith("cuda:") and card]
    return ", ".join([*words, f"Python {platform.python_version()}", f"torch {version('torch')}"])


def main() -> None:
    """Measure what the command line names."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", help="some of them, with commas between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="in place of the wide model of four layers")
    parser.add_argument("--folder", type=Path, help="where to leave bench.json and bench.png")
    wanted = parser.parse_args()
    every = parts(torch.cuda.is_available(), wanted.repeats)
    named = wanted.only.split(",") if wanted.only else [part.module for part in every]
    if unknown := set(named) - {part.module for part in every}:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    screen = Console(stderr=True)
    chosen = [part for part in every if part.module in named]
    rows, complete = measure(chosen, screen, wanted.checkpoint)
    facts = {s.title: {fact.name: fact.value for fact in s.facts} for s in machine_facts()}
    console = Console(width=max(110, Console().width))
    console.print(described(facts))
    console.print(table_of(rows))
    if wanted.folder and rows:
        wanted.folder.mkdir(parents=True, exist_ok=True)
        found = {"machine": facts, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        (wanted.folder / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
        draw(rows, wanted.folder / "bench.png", f"panda, {described(facts)}")
        screen.print(f"bench.json and bench.png are in {wanted.folder}", markup=False)
    if not complete:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
