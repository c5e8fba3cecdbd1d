"""Batches that are killed at random moments, one after another, each going on from the last.

Run as a script with a folder of clips, a checkpoint, a file of questions, a file of answers and a
number of kills. The model is loaded once, and each batch forked: starting a Python for each would
take hours. The first is let alone, to see how long it takes; those that are to be killed live no
longer. When all is answered before enough were killed, the answers are set aside under a number,
and another round begins. It prints, as JSON, how many rounds there were, at how many answers each
batch was killed, and how many processes that read frames were still there a while after.
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


def go_on(panda: Panda, job: Job) -> None:
    """Answer what is open."""
    with Batch(job) as batch:
        for _ in batch.plan().outcomes(lambda: panda):
            pass


def killed(panda: Panda, job: Job, seconds: float) -> tuple[bool, list[psutil.Process]]:
    """Whether a batch was killed before it had ended, and the processes that it had started."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            go_on(panda, job)
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
    """Kill so many batches, and let the last one end."""
    torch.set_num_threads(1)  # threads do not survive a fork
    chance = random.Random(5)
    panda = Panda.load(checkpoint, device="cpu")
    path, rounds = Path(answers), 0
    settings = Settings(RunSpec(checkpoint), GenerationOptions(max_tokens=12), batch_size=4)
    job = Job(questions, settings, output=answers, video_dir=Path(clips))
    killed_at: list[int] = []
    started: list[psutil.Process] = []

    def lives(seconds: float) -> float:
        """Let a batch live so long; the seconds that it took if it did all of it, else inf."""
        nonlocal rounds
        began, anew = time.monotonic(), not path.exists()
        was_killed, children = killed(panda, job, seconds)
        if was_killed:
            killed_at.append(path.read_bytes().count(b"\n") if path.exists() else 0)
            started.extend(children)
        else:
            path.rename(f"{path}.{rounds}")
            rounds += 1
        return inf if was_killed or not anew else time.monotonic() - began

    longest = lives(inf)
    while len(killed_at) < int(kills):
        longest = min(longest, lives(chance.uniform(0, longest)))
    lives(inf)
    _, alive = psutil.wait_procs(started, timeout=20)
    print(json.dumps({"rounds": rounds, "killed_at": killed_at, "orphans": len(alive)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
