"""Batches killed at random moments, each resuming the last.

Run as a script with a folder of clips, a checkpoint, a file of questions, a results file and a
number of kills. The model is loaded once and each batch is forked. The first batch runs to its end,
to measure how long it takes; later ones are killed within that time. When all questions are
answered before there were enough kills, the results file is renamed and the next round begins.
Prints JSON: the rounds, the number of results at each kill, and how many worker processes were
left.
"""

import json
import os
import random
import signal
import sys
import time
from math import inf
from pathlib import Path

import psutil
import torch

from pandacli import Panda
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.inference.spec import GenerationOptions, RunSpec


def resume(panda: Panda, job: Job) -> None:
    """Answer the open questions."""
    with Batch(job) as batch:
        for _ in batch.plan().outcomes(lambda: panda):
            pass


def killed(panda: Panda, job: Job, seconds: float) -> tuple[bool, list[psutil.Process]]:
    """Whether a batch was killed before its end, and the processes that it had started."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resume(panda, job)
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"a batch has failed with {status}"
            return False, []
        time.sleep(0.005)
    started = psutil.Process(child).children(recursive=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True, started


def main(clips: str, checkpoint: str, questions: str, answers: str, kills: str) -> None:
    """Kill batches `kills` times, then let one end."""
    torch.set_num_threads(1)  # threads do not survive a fork
    chance = random.Random(5)
    panda = Panda.load(checkpoint, device="cpu")
    path, rounds = Path(answers), 0
    settings = Settings(RunSpec(checkpoint), GenerationOptions(max_tokens=12), batch_size=4)
    job = Job(questions, settings, output=answers, video_dir=Path(clips))
    killed_at: list[int] = []
    started: list[psutil.Process] = []

    def run_for(seconds: float) -> float:
        """Run a batch and kill it after so long; the seconds of a complete run, else inf."""
        nonlocal rounds
        began, from_start = time.monotonic(), not path.exists()
        was_killed, children = killed(panda, job, seconds)
        if was_killed:
            killed_at.append(path.read_bytes().count(b"\n") if path.exists() else 0)
            started.extend(children)
        else:
            path.rename(f"{path}.{rounds}")
            rounds += 1
        return inf if was_killed or not from_start else time.monotonic() - began

    longest = run_for(inf)
    while len(killed_at) < int(kills):
        longest = min(longest, run_for(chance.uniform(0, longest)))
    run_for(inf)
    _, alive = psutil.wait_procs(started, timeout=20)
    print(json.dumps({"rounds": rounds, "killed_at": killed_at, "orphans": len(alive)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
