"""Results as responses of OpenAI's Batch API.

https://platform.openai.com/docs/api-reference/batch/request-output
"""

import json
from typing import Any, BinaryIO, TextIO

from pandacli.batch.records import Record
from pandacli.batch.writers import Line, Results, record_id
from pandacli.batch.writers.benchmarks import has_keys


def is_responses(file: BinaryIO) -> bool:
    """Whether a file begins with a response."""
    return has_keys({"id", "custom_id", "response", "error"}, lines=True)(file)


def write_responses(results: Results, out: TextIO) -> None:
    """Write a response a line, or an error."""
    for record, line in results:
        out.write(json.dumps(_response(record, line)) + "\n")


def _response(record: Record | None, line: Line) -> dict[str, Any]:
    digest = line["digest"]
    written = line.get("custom_id") if record is None else record_id(record)
    response: dict[str, Any] = {
        "id": f"batch_req_{digest}",
        "custom_id": f"line-{line['line']}" if written is None else str(written),
    }
    if "error" in line:
        error = {"code": line["error"]["kind"], "message": line["error"]["message"]}
        return response | {"response": None, "error": error}
    body = {"status_code": 200, "request_id": f"req_{digest}", "body": _completion(digest, line)}
    return response | {"response": body, "error": None}


def _completion(digest: str, line: Line) -> dict[str, Any]:
    """A chat completion.

    Questions share the prompt, whose tokens are not counted, and there is no time in it, so that
    the same answers make the same file.
    """
    message = {"role": "assistant", "content": line["answer"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None}
    tokens = line["tokens"]
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": line["model"],
        "choices": [choice | {"finish_reason": line["finish_reason"]}],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
    }
