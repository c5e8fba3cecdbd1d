"""What is handed out at a time: never two clips together, and never too much of one."""

import json
from pathlib import Path

from pandacli.batch.readers.questions import read_questions
from pandacli.batch.record_index import Index
from pandacli.batch.records import Question
from pandacli.batch.shares import Share, shares


def cut(folder: Path, videos: str, largest: int) -> list[Share]:
    """The shares of a file with a question about each video of a text, one letter each."""
    path = folder / "q.jsonl"
    entries = ({"video": video, "question": str(n)} for n, video in enumerate(videos))
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with read_questions(path) as questions:
        return list(shares(Index(questions.records, {}), largest))


def asked(share: Share) -> str:
    return "".join(q.record.question for q in share.questions if isinstance(q, Question))


def test_a_share_is_about_one_clip(tmp_path: Path) -> None:
    assert [asked(share) for share in cut(tmp_path, "abacb", 9)] == ["02", "14", "3"]


def test_a_long_clip_is_cut(tmp_path: Path) -> None:
    assert [asked(share) for share in cut(tmp_path, "aaabaa", 2)] == ["01", "24", "5", "3"]


def test_a_clip_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    assert [asked(share) for share in cut(tmp_path, "aaa", 3)] == ["012"]


def test_a_share_knows_how_many_its_clip_has(tmp_path: Path) -> None:
    found = [(share.clip, share.parts) for share in cut(tmp_path, "aaab", 2)]
    assert found == [(0, 2), (0, 2), (1, 1)]
