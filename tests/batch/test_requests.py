"""Requests of OpenAI's Batch API as records."""

import itertools
import json
from pathlib import Path

import pytest

from tests.batch.question_files import REQUEST, problem, records, request, written


def test_request_is_a_record(tmp_path: Path) -> None:
    [record] = records(written(tmp_path, "q.jsonl", REQUEST))
    assert (record.video, record.question) == ("/videos/a b.mp4", "What?")
    assert (record.system, record.max_tokens) == ("Be brief.", 20)
    assert record.fields == REQUEST


def test_max_completion_tokens_overrides_max_tokens(tmp_path: Path) -> None:
    line = request(max_tokens=3, max_completion_tokens=5)
    assert records(written(tmp_path, "q.jsonl", line))[0].max_tokens == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (request({"role": "assistant", "content": "Hm."}), "an earlier answer"),
        (request({"role": "tool", "content": "Hm."}), "the role 'tool'"),
        (request({"role": []}), "the role"),
        (request(3), "a message is a number"),
        (request(messages="a"), "'messages' is a string, not a list"),
        (request(messages=[]), "no videos"),
        (request(messages=[{"role": "user", "content": "What?"}]), "no videos"),
        (request(messages=[{"role": "user"}]), "'content' is missing"),
        (request(*json.loads(request())["body"]["messages"]), "2 videos"),
        (request({"role": "user", "content": [{"type": "image_url"}]}), "type 'image_url'"),
        (request({"role": "user", "content": ["a"]}), "a part of a message is a string"),
        (request(n=2), "several answers"),
        (request(max_tokens="a"), "'max_tokens' is not a whole number"),
        (json.dumps(REQUEST | {"body": 3}), "'body' is a number, not an object"),
        (json.dumps(REQUEST | {"url": "/v1/embeddings"}), "/v1/chat/completions"),
        (json.dumps(REQUEST | {"custom_id": {}}), "'custom_id' is an object"),
        ('{"custom_id": "a", "url": "/v1/chat/completions"}', "'body' is missing"),
    ],
    ids=itertools.count(),
)
def test_bad_request_has_its_error(line: str, message: str) -> None:
    assert message in problem(line, "openai")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://a.b/c.mp4", "not a file on this machine"),
        ("data:video/mp4;base64,AAAA", "not a file on this machine"),
        ("file://other/a.mp4", "not a file on this machine"),
        ("file://[/a.mp4", "not a file on this machine"),
        ("file:///a%00.mp4", "NUL"),
        ("file://", "not a file on this machine"),
    ],
)
def test_remote_video_is_an_error(url: str, message: str) -> None:
    part = {"type": "video_url", "video_url": {"url": url}}
    line = request(messages=[{"role": "user", "content": [part, {"type": "text", "text": "?"}]}])
    assert message in problem(line, "openai")
