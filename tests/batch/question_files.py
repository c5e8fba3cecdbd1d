"""Write files of questions for tests, and read them."""

import io
import json
from pathlib import Path

from pandacli.batch.readers.questions import Questions, read_questions
from pandacli.batch.records import BadLine, Record

OURS = '{"video": "a.mp4", "question": "What?", "id": 7, "from": "1:02.5", "mine": [1]}'
REQUEST = {
    "custom_id": "r-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "any",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "video_url", "video_url": {"url": "file:///videos/a%20b.mp4"}},
                    {"type": "text", "text": "What?"},
                ],
            },
        ],
        "max_tokens": 20,
    },
}


def written(folder: Path, name: str, content: str | bytes | object) -> Path:
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(questions: Questions) -> list[tuple[int, Record | str]]:
    """The line of each record with the record, or with the error of a bad line."""
    return [
        (each.line, each.error.message if isinstance(each, BadLine) else each)
        for each in questions.records
    ]


def records(path: Path, kind: str = "auto", answers: Path | None = None) -> list[Record]:
    with read_questions(path, kind, answers) as questions:
        found = [record for _, record in read(questions)]
    assert not [each for each in found if isinstance(each, str)]
    return [each for each in found if isinstance(each, Record)]


def problem(raw: str | bytes, kind: str = "jsonl") -> str:
    """The error of a file of one bad line."""
    raw = raw.encode() if isinstance(raw, str) else raw
    with read_questions(io.BytesIO(raw), kind) as questions:
        [(_, found)] = read(questions)
    assert isinstance(found, str)
    assert "\n" not in found
    return found


def request(*messages: object, **body: object) -> str:
    video = {"type": "video_url", "video_url": {"url": "a.mp4"}}
    user = {"role": "user", "content": [video, {"type": "text", "text": "What?"}]}
    return json.dumps(REQUEST | {"body": {"messages": [user, *messages]} | body})
