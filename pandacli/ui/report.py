"""What an answer cost and what it looked at: as rows for people, as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pandacli.units import size as size
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.engine import Answer, Panda
    from pandacli.video import Frames


def answers_json(
    video: str, model: str, frames: "Frames", answers: Sequence["Answer"], *, pretty: bool
) -> str:
    """Returns one JSON object with the frames looked at and every answer.

    It is pure ASCII, so no terminal that shows it can be made to act on what is in it.
    """
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
    return json.dumps(record, indent=2 if pretty else None)


def stats_rows(answer: "Answer", frames: "Frames") -> list[tuple[str, str]]:
    """Returns the named values of `--stats`."""
    stats = answer.stats
    return [
        ("frames", f"{len(frames.times)} at {times_line(frames)}"),
        (
            "tokens",
            f"{stats.prefix_tokens} prefix, {stats.question_tokens} question, "
            f"{stats.answer_tokens} answer; {stats.prefilled_tokens} computed before it",
        ),
        (
            "time",
            f"{stats.load_seconds:.2f} s load, {stats.frames_seconds:.2f} s frames, "
            f"{stats.prefill_seconds:.2f} s prefill, {stats.decode_seconds:.2f} s decode",
        ),
        ("first token", f"{stats.first_token_seconds:.2f} s"),
        ("speed", f"{stats.tokens_per_second:.1f} tokens/s"),
        ("memory", size(stats.peak_memory_bytes)),
    ]


def choice(panda: "Panda", quant: str) -> str | None:
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


def times_line(frames: "Frames") -> str:
    """Returns the times of `frames`, one after the other."""
    return ", ".join(format_time(time) for time in frames.times)
