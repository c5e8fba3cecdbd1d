"""What an answer cost and what it looked at: as rows for people, as JSON for programs."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pandacli.terminal.text import sanitize_json
from pandacli.units import size as size
from pandacli.video.clip import format_time, format_times

if TYPE_CHECKING:
    from pandacli.inference import Answer, Panda
    from pandacli.inference.answer import Stats
    from pandacli.video import Frames

_WORTH_SAYING = 0.05  # seconds
_LONG_STEP = 10.0  # seconds between two frames


def answers_json(
    video: str, model: str, frames: "Frames", answers: Sequence["Answer"], *, pretty: bool
) -> str:
    """Returns one JSON object with the frames looked at and every answer."""
    record = {
        "video": video,
        "model": model,
        "frames": [
            {"index": int(index), "time": round(float(time), 6)}
            for index, time in zip(frames.indices, frames.times, strict=True)
        ],
        "answers": [
            {
                "question": answer.question,
                "answer": answer.text,
                "finish_reason": answer.finish_reason,
                "stats": {
                    name: round(value, 6) if isinstance(value, float) else value
                    for name, value in asdict(answer.stats).items()
                },
            }
            for answer in answers
        ],
    }
    return json_text(record, pretty=pretty)


def json_text(record: Any, *, pretty: bool = False) -> str:
    """Returns JSON for stdout, on one line or indented, on which no terminal can be made to act.

    It is in the characters that stdout can take; what is left of them is escaped.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    ascii_only = not encoding.startswith("utf")
    return sanitize_json(json.dumps(record, indent=2 if pretty else None, ensure_ascii=ascii_only))


class Stopwatch:
    """What a user waits for until an answer begins, in seconds of the clock on the wall.

    Args:
        since: When the waiting began, on the clock of `perf_counter`; None for now.
    """

    def __init__(self, since: float | None = None) -> None:
        self._since = perf_counter() if since is None else since
        self._parts: dict[str, float] = {}
        self._before = 0.0

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """The time of the block is spent on `what`."""
        began = perf_counter()
        try:
            yield
        finally:
            self._parts[what] = self._parts.get(what, 0.0) + perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time of the block does not count, such as that in which the user types."""
        began = perf_counter()
        try:
            yield
        finally:
            self._since += perf_counter() - began

    def start_answer(self) -> None:
        """A question goes to the model now."""
        self._before = perf_counter() - self._since

    def end_answer(self) -> None:
        """An answer is over: what was waited for before it does not count for the next."""
        self._since, self._before, self._parts = perf_counter(), 0.0, {}

    def first_token(self, stats: "Stats") -> str:
        """Returns how long the first token took, and what it was waited for."""
        whole = self._before + stats.first_token_seconds
        parts = self._parts | {"prefill": stats.first_token_seconds}
        rest = whole - sum(parts.values())
        parts |= {"other": rest} if rest >= _WORTH_SAYING else {}
        shown = [f"{seconds:.2f} s {what}" for what, seconds in parts.items() if seconds >= 0.005]
        return f"{whole:.2f} s" + (f": {', '.join(shown)}" if len(shown) > 1 else "")


def stats_rows(
    stats: "Stats", frames: "Frames", waited: Stopwatch | None = None
) -> list[tuple[str, str]]:
    """Returns the named values of `--stats`.

    Args:
        stats: What the answer took.
        frames: What was looked at.
        waited: What was waited for before; None where that was nothing.
    """
    before = stats.prefix_tokens + stats.history_tokens + stats.question_tokens
    parts = [f"{stats.prefix_tokens} prefix"]
    parts += [f"{stats.history_tokens} history"] if stats.history_tokens else []
    parts += [f"{stats.question_tokens} question", f"{stats.answer_tokens} answer"]
    new = min(stats.prefilled_tokens, before)
    return [
        ("frames", f"{len(frames.times)} at {frame_times(frames)}"),
        ("tokens", f"{', '.join(parts)}; {new} new, {before - new} reused"),
        ("first token", (waited or Stopwatch()).first_token(stats)),
        ("decode", f"{stats.decode_seconds:.2f} s, {stats.tokens_per_second:.1f} tokens/s"),
        ("memory", size(stats.peak_memory_bytes)),
    ]


def truncation_notice(answer: "Answer", max_tokens: int, remedy: str) -> str | None:
    """Returns what is said of an answer that was cut off; None of one that was not.

    Args:
        answer: The answer.
        max_tokens: How many tokens it might have.
        remedy: What to do where that were too few.
    """
    if answer.finish_reason != "length":
        return None
    length = answer.stats.answer_tokens
    why = remedy if length >= max_tokens else "the context is full"
    return f"the answer was cut off after {length} tokens: {why}"


def sparse_sampling_notice(frames: "Frames", closer: str) -> str | None:
    """Returns what the user should know where few frames stand for a long film; else None.

    Args:
        frames: What was sampled.
        closer: How to look closer.
    """
    times = frames.times
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    if step < _LONG_STEP:
        return None
    length = format_time(round(times[-1] - times[0] + step))
    return f"{len(times)} frames sampled from {length} (one every {step:.0f} s); {closer}"


def placement_notice(panda: "Panda", quant: str) -> str | None:
    """Returns in words what was chosen for the user; None where the model is whole in one place.

    Args:
        panda: The model.
        quant: What the user asked for.
    """
    *others, last = panda.devices
    where = f"{', '.join(others)} and {last}" if others else last.replace("cpu", "the CPU")
    if quant == "auto" and panda.quant != "none":
        bits = panda.quant.removesuffix("bit")
        return f"in {bits} bits on {where} ({panda.engine}); see --quant and --device"
    return f"on {where}; see --device" if others else None


def frame_times(frames: "Frames") -> str:
    """Returns the times of `frames`, one after the other."""
    return ", ".join(format_times(frames.times))
