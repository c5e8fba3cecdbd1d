"""Answers in the shape of OpenAI's Batch API.

The shape: https://platform.openai.com/docs/api-reference/batch/request-output.
"""

from typing import Any

from pandacli.batch.formats.scored import record_id
from pandacli.batch.records import Record


def response(record: Record | None, line: dict[str, Any]) -> dict[str, Any]:
    """What came of a request.

    Args:
        record: The request; None for a line that is none.
        line: Its line in our own answers file.
    """
    name = line["digest"]
    written = line.get("custom_id") if record is None else record_id(record)
    said: dict[str, Any] = {
        "id": f"batch_req_{name}",
        "custom_id": f"line-{line['line']}" if written is None else str(written),
    }
    if "error" in line:
        error = {"code": line["error"]["kind"], "message": line["error"]["message"]}
        return said | {"response": None, "error": error}
    answered = {"status_code": 200, "request_id": f"req_{name}", "body": _completion(name, line)}
    return said | {"response": answered, "error": None}


def _completion(name: str, line: dict[str, Any]) -> dict[str, Any]:
    """A chat completion. The tokens of the prompt are not counted, as questions share them, and
    there is no time in it, so that the same answers make the same file.
    """
    message = {"role": "assistant", "content": line["answer"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None}
    tokens = line["tokens"]
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": 0,
        "model": line["model"],
        "choices": [choice | {"finish_reason": line["finish_reason"]}],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
    }
