"""What many clients get from one server, beside one request at a time.

    python -m benchmarks.serving tiny --clients 32 --seconds 60

Starts `panda serve`, and clients in a process of their own that ask about four clips: all of them
at once, then one after the other, in turns. A client sends a request when it has the answer to the
one before. What is reported as memory is that of the server's process after the first requests, and
at the end.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console, Group
from rich.table import Table

import pandacli

VIDEO = Path(pandacli.__file__).parent / "assets" / "demo.mp4"
CLIPS = ((0.0, 2.0), (0.0, 3.0), (1.0, 3.0), (1.0, 4.0))  # ranges of the video
QUESTIONS = (
    "what happens?",
    "Is there a red circle?",
    "What colour is the square?",
    "How many shapes are there?",
    "Which way does the circle move?",
)
TOGETHER, ONE_BY_ONE = "together", "one by one"
_WARMING = 5.0  # seconds before memory is measured


@contextmanager
def running_server(model: str, device: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server on a free port, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", "--port", str(port), "--media-dir", str(VIDEO.parent), "--quiet"]
    command = [sys.executable, "-m", "pandacli", *words, "--model", model, "--device", device]
    process = subprocess.Popen(command)
    try:
        while not is_loaded(port):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def is_loaded(port: int) -> bool:
    """Whether the server answers, and has loaded its model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return bool(json.loads(connection.getresponse().read())["weights"] == "loaded")
    except OSError:
        return False
    finally:
        connection.close()


def asked(number: int, model: str) -> bytes:
    """The body of a request; the clip and the question go by its number."""
    start, end = CLIPS[number % len(CLIPS)]
    question = QUESTIONS[number // len(CLIPS) % len(QUESTIONS)]
    video = {"type": "video_url", "video_url": {"url": VIDEO.name}}
    content = [{"type": "text", "text": question}, video]
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "from": start, "to": end}).encode()


def client(port: int, model: str, seconds: float, first: int) -> tuple[int, int, list[float]]:
    """Answers and errors of one client, and how long it waited for each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    answers, errors, waits = 0, 0, []
    end = monotonic() + seconds
    for number in count(first):
        started = monotonic()
        if started >= end:
            break
        try:
            connection.request("POST", "/v1/chat/completions", asked(number, model))
            response = connection.getresponse()
            content = json.loads(response.read())
            is_answer = response.status == 200 and bool(content["choices"][0]["message"]["content"])
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            is_answer = False
            connection.close()
        answers, errors = answers + is_answer, errors + (not is_answer)
        waits.append(monotonic() - started)
    connection.close()
    return answers, errors, waits


def clients(port: int, model: str, seconds: float, number: int) -> dict[str, Any]:
    """What a number of clients got together."""
    with ThreadPoolExecutor(number) as threads:
        each = [threads.submit(client, port, model, seconds, first) for first in range(number)]
        found = [future.result() for future in each]
    waits = sorted(wait for *_, some in found for wait in some)
    return {
        "answers": sum(answers for answers, *_ in found),
        "errors": sum(errors for _, errors, _ in found),
        "answers_per_second": sum(answers for answers, *_ in found) / seconds,
        "median_seconds": waits[len(waits) // 2] if waits else 0.0,
        "longest_seconds": waits[-1] if waits else 0.0,
    }


def measure(model: str, device: str, number: int, seconds: float, turns: int) -> dict[str, Any]:
    """Both ways, each for `seconds` in all, in turns; and the memory of the server."""
    name = Path(model).name
    found: dict[str, list[dict[str, Any]]] = {TOGETHER: [], ONE_BY_ONE: []}
    with (
        running_server(model, device) as (port, process),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others,
    ):
        others.submit(clients, port, name, _WARMING, number).result()
        before = process.memory_info().rss
        for _ in range(turns):
            for way, many in ((TOGETHER, number), (ONE_BY_ONE, 1)):
                each = others.submit(clients, port, name, seconds / turns, many).result()
                found[way].append(each)
        after = process.memory_info().rss
    ways = {
        way: {
            "answers": sum(each["answers"] for each in some),
            "errors": sum(each["errors"] for each in some),
            "answers_per_second": sum(each["answers_per_second"] for each in some) / turns,
            "median_seconds": sorted(each["median_seconds"] for each in some)[turns // 2],
            "longest_seconds": max(each["longest_seconds"] for each in some),
        }
        for way, some in found.items()
    }
    memory = {"start_bytes": before, "end_bytes": after}
    return {"model": name, "clients": number, "seconds": seconds, "ways": ways, "memory": memory}


def group_of(found: dict[str, Any]) -> Group:
    """A table with a row for each way, and the ratio."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in (
        f"{found['clients']} clients",
        "answers/s",
        "errors",
        "median, s",
        "longest, s",
    ):
        table.add_column(heading, justify="right")
    for way, each in found["ways"].items():
        rates = (f"{each['answers_per_second']:.1f}", str(each["errors"]))
        waits = (f"{each[name]:.3f}" for name in ("median_seconds", "longest_seconds"))
        table.add_row(way, *rates, *waits)
    ways, memory = found["ways"], found["memory"]
    ratio = ways[TOGETHER]["answers_per_second"] / ways[ONE_BY_ONE]["answers_per_second"]
    start, end = (f"{memory[name] / 2**20:.0f} MB" for name in ("start_bytes", "end_bytes"))
    last = f"{ratio:.1f} times as many; memory {start} at the start, {end} at the end"
    return Group(table, last)


def main() -> None:
    """Measure what the command line names."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads of torch take turns with the rest
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each way")
    parser.add_argument("--repeats", type=int, default=3, help="turns into which they are cut")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    found = measure(wanted.model, wanted.device, wanted.clients, wanted.seconds, wanted.repeats)
    if wanted.json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(group_of(found))


if __name__ == "__main__":
    main()
