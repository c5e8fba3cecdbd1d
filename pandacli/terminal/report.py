"""What an answer looked at and cost: lines and rows for people, records for JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pandacli.terminal.text import sanitize_line
from pandacli.units import size
from pandacli.video.clip import Clip, format_time, format_times

if TYPE_CHECKING:
    from pandacli.inference import Answer, Panda
    from pandacli.inference.spec import Scores, ScoringStats, Stats
    from pandacli.video import Frames, VideoInfo

Record = dict[str, Any]  # for JSON

_SHOWN_WAIT = 0.05  # seconds: shorter waits are not listed
_SPARSE_STEP = 10.0  # seconds between frames from which a notice is due


def answers_record(video: str, model: str, frames: "Frames", answers: "list[Answer]") -> Record:
    """Return the sampled frames and every answer, for JSON."""
    records = [
        {
            "question": answer.question,
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            **({"logprobs": answer.logprobs_record} if answer.logprobs else {}),
            "stats": _stats_record(answer.stats),
        }
        for answer in answers
    ]
    return {"video": video, "model": model, "frames": _frame_records(frames), "answers": records}


def scores_record(
    video: str,
    model: str,
    frames: "Frames",
    scored: list["Scores"],
    stats: "ScoringStats | None" = None,
) -> Record:
    """Return the sampled frames, the choices of every question, and statistics, for JSON."""
    answers = [
        {"question": scores.question, "answer": scores.best.text, **scores.record}
        for scores in scored
    ]
    return {
        "video": video,
        "model": model,
        "frames": _frame_records(frames),
        "answers": answers,
        **({"stats": _stats_record(stats)} if stats else {}),
    }


def _stats_record(stats: "Stats | ScoringStats") -> Record:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in asdict(stats).items()
    }


def frames_record(video: str, clip: Clip, frames: "Frames", canvas: dict[str, int]) -> Record:
    """Return the file, the range, the canvas in pixels and every frame, for JSON."""
    info = frames.info
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    return {
        "video": video,
        "width": info.width,
        "height": info.height,
        "duration": round(info.duration, 6),
        "fps": round(info.fps, 6),
        "frame_count": info.frame_count,
        "codec": info.codec,
        "range": {"from": round(clip.start or 0.0, 6), "to": round(end, 6)},
        "canvas": canvas,
        "frames": _frame_records(frames),
    }


def _frame_records(frames: "Frames") -> list[Record]:
    moments = zip(frames.indices, frames.times, strict=True)
    return [{"index": int(index), "time": round(float(time), 6)} for index, time in moments]


def clip_line(clip: Clip, info: "VideoInfo") -> str:
    """Return a clip in one line: name, range, duration, size, frame rate and codec."""
    length = format_time(info.duration)
    if clip.start is not None or clip.end is not None:
        end = "the end" if clip.end is None else format_time(clip.end)
        length = f"{format_time(clip.start or 0.0)} to {end} of {length}"
    shape = f"{info.width}x{info.height}, {info.fps:.4g} fps, {info.codec}"
    return f"{sanitize_line(clip.path.name)}: {length}, {shape}"


class Stopwatch:
    """Wall-clock time a user waits for the first token, by cause; `since` as of `perf_counter`."""

    def __init__(self, since: float | None = None) -> None:
        self._since = perf_counter() if since is None else since
        self._parts: dict[str, float] = {}
        self._before = 0.0

    @contextmanager
    def measure(self, cause: str) -> Iterator[None]:
        """Count the time of the block under `cause`."""
        began = perf_counter()
        try:
            yield
        finally:
            self._parts[cause] = self._parts.get(cause, 0.0) + perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block, such as the user's typing."""
        began = perf_counter()
        try:
            yield
        finally:
            self._since += perf_counter() - began

    def start_answer(self) -> None:
        """Mark that the question goes to the model; its stats take over from here."""
        self._before = perf_counter() - self._since

    def end_answer(self) -> None:
        """Reset, so that the next answer is not charged for earlier waits."""
        self._since, self._before, self._parts = perf_counter(), 0.0, {}

    def waited(self, own: dict[str, float]) -> str:
        """Return the time waited and its causes, with those of the answer itself."""
        whole = self._before + sum(own.values())
        parts = self._parts | own
        rest = whole - sum(parts.values())
        parts |= {"other": rest} if rest >= _SHOWN_WAIT else {}
        shown = [f"{seconds:.2f} s {cause}" for cause, seconds in parts.items() if seconds >= 0.005]
        return f"{whole:.2f} s" + (f": {', '.join(shown)}" if len(shown) > 1 else "")


def stats_rows(stats: "Stats", frames: "Frames", watch: Stopwatch) -> list[tuple[str, str]]:
    """Return the named values of `--stats`; `watch` adds the wait before the answer."""
    prompt = stats.prefix_tokens + stats.history_tokens + stats.question_tokens
    history = f"{stats.history_tokens} history, " if stats.history_tokens else ""
    new = min(stats.prefilled_tokens, prompt)
    tokens = (
        f"{stats.prefix_tokens} prefix, {history}{stats.question_tokens} question,"
        f" {stats.answer_tokens} answer; {new} new, {prompt - new} reused"
    )
    return [
        ("frames", _moments(frames)),
        ("tokens", tokens),
        ("first token", watch.waited({"prefill": stats.first_token_seconds})),
        ("decode", f"{stats.decode_seconds:.2f} s, {stats.tokens_per_second:.1f} tokens/s"),
        ("memory", size(stats.peak_memory_bytes)),
    ]


def scoring_rows(
    stats: "ScoringStats", frames: "Frames", watch: Stopwatch
) -> list[tuple[str, str]]:
    """Return the named values of `--stats` for choices that were scored together."""
    passes = f"{stats.passes} {'pass' if stats.passes == 1 else 'passes'}"
    tokens = f"{stats.tokens} questions and choices, in {passes}"
    own = {"prefill": stats.prefix_seconds, "scoring": stats.scoring_seconds}
    return [
        ("frames", _moments(frames)),
        ("tokens", f"{stats.prefix_tokens} prefix, {tokens}"),
        ("scores", watch.waited(own)),
        ("memory", size(stats.peak_memory_bytes)),
    ]


def _moments(frames: "Frames") -> str:
    return f"{len(frames.times)} at {', '.join(format_times(frames.times))}"


def truncation_notice(answer: "Answer", max_tokens: int, remedy: str) -> str | None:
    """Return the notice for an answer that was cut off, with `remedy` if by `max_tokens`."""
    if answer.finish_reason != "length":
        return None
    length = answer.stats.answer_tokens
    why = remedy if length >= max_tokens else "the context is full"
    return f"the answer was cut off after {length} tokens: {why}"


def sparse_sampling_notice(frames: "Frames", remedy: str) -> str | None:
    """Return the notice for frames that lie far apart, with what to do about it; else None."""
    count, length = len(frames.times), frames.times[-1] - frames.times[0]
    step = length / (count - 1) if count > 1 else 0.0
    if step < _SPARSE_STEP:
        return None
    whole = format_time(round(length + step))
    return f"{count} frames from {whole}, one frame each {step:.0f} s; {remedy} looks closer"


def placement_notice(panda: "Panda", quant: str) -> str | None:
    """Return what was chosen for the user, who asked for `quant`; None for one device as asked."""
    *others, last = panda.devices
    where = f"{', '.join(others)} and {last}" if others else last.replace("cpu", "the CPU")
    if quant == "auto" and panda.quant != "none":
        bits = panda.quant.removesuffix("bit")
        return f"in {bits} bits on {where} ({panda.engine}); see --quant and --device"
    return f"on {where}; see --device" if others else None
