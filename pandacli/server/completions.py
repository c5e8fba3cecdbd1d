"""The objects that answer a chat completion, whole or streamed."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from pandacli.inference.spec import Answer, Scores
from pandacli.server.protocol import ChatRequest


def completion(asked: ChatRequest, model: str, result: Answer | Scores) -> dict[str, Any]:
    """The object of a whole answer."""
    whole = _envelope("chat.completion", model)
    if isinstance(result, Scores):
        choice: dict[str, Any] = {"finish_reason": "stop", "logprobs": None}
        choice["message"] = {"role": "assistant", "content": result.best.text, "refusal": None}
        whole["panda"] = result.record
    else:
        choice = {"finish_reason": result.finish_reason, "logprobs": _logprobs(asked, result)}
        choice["message"] = {"role": "assistant", "content": result.text, "refusal": None}
        whole["usage"] = usage(result)
    return {**whole, "choices": [{"index": 0, **choice}]}


class Chunks:
    """The objects of an answer that is streamed."""

    def __init__(self, asked: ChatRequest, model: str) -> None:
        self._asked = asked
        self._envelope = _envelope("chat.completion.chunk", model)

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def last(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield self._chunk({}, answer.finish_reason, _logprobs(self._asked, answer))
        if self._asked.include_usage:
            yield {**self._envelope, "choices": [], "usage": usage(answer)}

    def _chunk(
        self, delta: dict[str, str], reason: str | None = None, logprobs: object = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return {**self._envelope, "choices": [choice]}


def usage(answer: Answer) -> dict[str, Any]:
    """The numbers of tokens; the frames of the video are a part of the prompt."""
    stats = answer.stats
    prompt = stats.total_tokens - stats.answer_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": stats.answer_tokens,
        "total_tokens": stats.total_tokens,
        "prompt_tokens_details": {"cached_tokens": max(0, prompt - stats.prefilled_tokens)},
    }


def _envelope(kind: str, model: str) -> dict[str, Any]:
    created = int(time.time())
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": created, "model": model}


def _logprobs(asked: ChatRequest, answer: Answer) -> dict[str, Any] | None:
    if not asked.options.logprobs:
        return None
    tokens = [
        {
            "token": token,
            "logprob": logprob,
            "bytes": list(token.encode("utf-8", "surrogatepass")),
            "top_logprobs": [],
        }
        for token, logprob in answer.logprobs
    ]
    return {"content": tokens, "refusal": None}
