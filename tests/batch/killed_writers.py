"""Writers killed at random moments, one after another, on one results file.

Run as a script with a file and a number of kills, it prints the digests of all lines whose `write`
returned. Each writer is forked.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pandacli.batch.results_file import ResultsFile

LONGEST = 30_000


def write_lines(path: Path, first: int, returned: int) -> None:
    """Write lines until killed; send the digest of each once `write` has returned."""
    chance = random.Random(first)
    with ResultsFile(path) as answers:
        for digest in range(first, first + 1_000_000):
            text = "a" * chance.randrange(LONGEST)
            answers.write({"digest": f"{digest:016x}", "answer": text})
            os.write(returned, digest.to_bytes(8))


def killed_writer(path: Path, first: int, seconds: float) -> list[int]:
    """The digests that a writer sent before it was killed."""
    reading, returned = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        write_lines(path, first, returned)
    os.close(returned)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        sent = file.read()
    return [int.from_bytes(sent[at : at + 8]) for at in range(0, len(sent), 8)]


if __name__ == "__main__":
    kept: list[int] = []
    for number in range(int(sys.argv[2])):
        kept += killed_writer(Path(sys.argv[1]), number * 1_000_000, random.uniform(0.005, 0.06))
    print(json.dumps(kept))
