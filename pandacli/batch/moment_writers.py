"""Results of moment retrieval in the layouts of QVHighlights and Charades-STA.

`standalone_eval/eval.py` of jayleicn/moment_detr, which scores QVHighlights and by the same fields
other data sets, looks up every query and takes the first window of each. So a query without a
segment, or one that has failed, has one of no length, which overlaps nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TextIO

from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.fields import id_in
from pandacli.batch.records import BadLine, Record
from pandacli.batch.results import Line
from pandacli.batch.writers import Results, video_name

CLIP_SECONDS = 2.0
"""The length of the clips of QVHighlights that have a saliency each."""

_NOTHING = {"start": 0.0, "end": 0.0, "probability": 0.0}
_CHARADES = re.compile(rb"[^\n]* \d+\.\d{3} \d+\.\d{3}##")  # data sets have times of one decimal


def write_highlights(results: Results, out: TextIO) -> None:
    """Write a line of QVHighlights' submission for each query."""
    for record, line in _retrieved(results):
        windows = [
            [round(each[name], 4) for name in ("start", "end", "probability")]
            for each in line.get("segments") or [_NOTHING]
        ]
        held = id_in(record.fields)
        entry = {
            "qid": record.line if held is None else held,
            "query": record.question,
            "vid": record.fields.get("vid", video_name(record)),
            "pred_relevant_windows": windows,
            "pred_saliency_scores": saliency(line.get("windows", ()), _clips(record, line)),
        }
        out.write(json.dumps(entry) + "\n")


def write_charades(results: Results, out: TextIO) -> None:
    """Write a line of Charades-STA with the best segment of each query."""
    for record, line in _retrieved(results):
        best = next(iter(line.get("segments", ())), _NOTHING)
        video, question = (" ".join(text.split()) for text in (record.video, record.question))
        out.write(f"{video} {best['start']:.3f} {best['end']:.3f}##{question}\n")


def is_charades_output(file: BinaryIO) -> bool:
    """Whether a file begins with a line that `write_charades` wrote."""
    return _CHARADES.match(file.readline(MOST_BYTES)) is not None


def _retrieved(results: Results) -> Iterator[tuple[Record, Line]]:
    """The queries that have a result, failed ones without segments; others are counted."""
    left_out = failed = 0
    for item, digest in zip(results.questions.records, results.digests, strict=True):
        if (line := results.find(digest)) is None:
            continue
        if isinstance(item, BadLine) or not item.when:
            left_out += 1
            continue
        failed += "error" in line
        yield item, {} if "error" in line else line
    if left_out:
        results.notices.append(f"{left_out:,} lines that ask for no segments are left out")
    if failed:
        results.notices.append(f"{failed:,} questions that failed are written without a segment")


def _clips(record: Record, line: Line) -> int:
    """How many clips a video has, by its duration in the data set or else its last window."""
    duration = record.fields.get("duration")
    if not isinstance(duration, int | float):
        duration = max((window["end"] for window in line.get("windows", ())), default=0.0)
    return max(1, int(duration / CLIP_SECONDS))


def saliency(windows: Iterable[dict[str, Any]], clips: int) -> list[float]:
    """The mean probability of the windows over each clip, weighted by how long they overlap it."""
    totals, weights = [0.0] * clips, [0.0] * clips
    for window in windows:
        first = int(window["start"] / CLIP_SECONDS)
        last = int(window["end"] / CLIP_SECONDS)
        for clip in range(first, min(last + 1, clips)):
            start, end = clip * CLIP_SECONDS, (clip + 1) * CLIP_SECONDS
            weight = max(0.0, min(end, window["end"]) - max(start, window["start"]))
            totals[clip] += weight * window["probability"]
            weights[clip] += weight
    return [
        round(total / weight, 4) if weight else 0.0
        for total, weight in zip(totals, weights, strict=True)
    ]
