"""Likelihoods of given answers ("choices"), behind the shared prefix of a clip.

The log-probability of a choice is that of the model giving this answer and ending it there:

    log P(choice) = sum over k of log p(t_k | prefix, question, t_1 ... t_(k-1)) + log p(</s> | ...)

where t_1 ... t_n are its tokens behind the prompt. Choices are different texts that end, so their
probabilities are of exclusive events: `coverage` is their sum, and a probability is a share of it.

The tokens of all questions and choices are the paths of a tree behind the prefix; common beginnings
are one path, and a forward pass computes as many nodes as there is room for.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, takewhile
from math import exp, fsum, log
from operator import eq
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.inference.planning.devices import memory_errors, peak_memory
from pandacli.inference.spec import (
    Choice,
    ClosableIterator,
    ScoreRequest,
    Scores,
    ScoringStats,
)

if TYPE_CHECKING:
    from pandacli.inference.backends import Rows
    from pandacli.inference.panda import Panda
    from pandacli.inference.session import VideoSession

_Tree = Callable[[list[int], list[int], list[int]], Tensor]  # `Sequence.tree` or `Rows.tree`

_MAX_NODES = 1024  # of a pass: its mask grows with the square
_ROWS = 64  # of logits that are made float64 at a time


@dataclass(frozen=True)
class _Path:
    """A choice of a request: its tokens behind the prefix, and how many of them are the prompt."""

    request: int
    choice: int
    ids: tuple[int, ...]
    prompt: int
    history: int  # of the prompt: earlier turns


class TokenTree:
    """Token sequences with their common beginnings merged; every node comes after its parent."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def add(self, ids: Iterable[int]) -> list[int]:
        """The nodes of a sequence, from the first token on."""
        nodes, parent = [], -1
        for token in ids:
            node = self._children.setdefault((parent, token), len(self.ids))
            if node == len(self.ids):
                self.ids.append(token)
                self.parents.append(parent)
            nodes.append(node)
            parent = node
        return nodes


class Scoring(ClosableIterator[tuple[int, Scores | PandaError]]):
    """The index of each request with its `Scores`, or why there are none, as they are complete.

    The first `next` starts the work.
    """

    def __init__(self, session: "VideoSession", requests: Iterable[ScoreRequest]) -> None:
        super().__init__(self._run(requests))
        self._session = session
        self._tokens = self._passes = 0
        self._prefix_seconds = self._seconds = 0.0

    @property
    def stats(self) -> ScoringStats:
        """What all of it took so far."""
        session = self._session
        return ScoringStats(
            frames=len(session.frames.indices),
            prefix_tokens=session.prefix_tokens,
            tokens=self._tokens,
            passes=self._passes,
            load_seconds=session.panda.load_seconds,
            frames_seconds=session.frames_seconds,
            prefix_seconds=self._prefix_seconds,
            scoring_seconds=self._seconds,
            peak_memory_bytes=peak_memory(session.panda.devices),
        )

    def _run(
        self, requests: Iterable[ScoreRequest]
    ) -> Generator[tuple[int, Scores | PandaError], None, None]:
        session = self._session
        held: dict[int, tuple[ScoreRequest, list[float | None]]] = {}
        paths: list[_Path] = []
        for index, request in enumerate(requests):
            try:
                paths += _paths(session, index, request)
                held[index] = request, [None] * len(request.choices)
            except UsageError as error:
                yield index, error
        if not paths:
            return
        history, paths = _behind_history(paths)
        session.turn = turn = session.turn + 1  # takes over the session's sequence
        started = perf_counter()
        with memory_errors(session.panda.memory_hint):
            prefix, _ = session.shared_prefix()
        self._prefix_seconds = perf_counter() - started
        room = min(_MAX_NODES, session.batch_positions())
        while paths:
            if session.turn != turn:
                raise RuntimeError("a newer question on this clip was asked meanwhile")
            count, nodes = _that_fit(paths, room)
            chunk = paths[:count]
            started, before = perf_counter(), prefix.prefilled
            try:
                with memory_errors(session.panda.memory_hint):
                    compute = partial(prefix.tree, history=history)
                    logprobs = _score_paths(session.panda, compute, chunk)[0]
            except DeviceError as error:
                if count > 1:
                    room = max(nodes // 2, 1)
                    continue
                failed = chunk[0].request
                paths = [path for path in paths if path.request != failed]
                del held[failed]
                yield failed, error
                continue
            self._seconds += perf_counter() - started
            self._tokens += prefix.prefilled - before
            self._passes += 1
            for path, logprob in zip(chunk, logprobs, strict=True):
                held[path.request][1][path.choice] = logprob
            paths = paths[count:]
            for index in dict.fromkeys(path.request for path in chunk):
                request, found = held[index]
                if None not in found:
                    del held[index]
                    yield index, _scores(request, [each for each in found if each is not None])


def _behind_history(paths: Sequence[_Path]) -> tuple[list[int], list[_Path]]:
    """The earlier turns that all paths begin with, and the paths without them.

    They are computed before, and stay in the KV cache for the next turn of a chat.
    """
    histories = [path.ids[: path.history] for path in paths]
    # what the first and the last in order have in common, all have
    start = sum(takewhile(bool, map(eq, min(histories), max(histories))))
    behind = [replace(p, ids=p.ids[start:], prompt=p.prompt - start) for p in paths]
    return list(histories[0][:start]), behind


def _that_fit(paths: Sequence[_Path], room: int) -> tuple[int, int]:
    """How many of the first paths have at most `room` nodes, at least one, and their nodes."""
    tree, nodes = TokenTree(), 0
    for count, path in enumerate(paths):
        tree.add(path.ids[:-1])
        if count and len(tree.ids) > room:
            return count, nodes
        nodes = len(tree.ids)
    return len(paths), nodes


def _paths(session: "VideoSession", index: int, request: ScoreRequest) -> list[_Path]:
    if not request.choices or not all(map(str.strip, request.choices)):
        raise UsageError("a choice is empty" if request.choices else "there are no choices")
    found = []
    for number, choice in enumerate(request.choices):
        prompt, answer = session.encode_choice(request, choice)
        history = session.history_tokens(prompt)
        found.append(_Path(index, number, (*prompt, *answer), len(prompt), history))
    found.sort(key=lambda path: path.ids)  # so that the order of the choices changes no sum
    for one, other in pairwise(found):
        if one.ids == other.ids:
            raise UsageError(f"the choice {request.choices[other.choice][:80]!r} is given twice")
    return found


def score_rows(
    sessions: Sequence["VideoSession"], rows: "Rows", request: ScoreRequest
) -> list[Scores | PandaError]:
    """Score the choices of a request, without earlier turns, behind each row of a batch.

    The sessions are those of the rows. Raises a DeviceError if memory runs out.
    """
    try:
        paths = _paths(sessions[0], 0, request)
    except UsageError as error:
        return [error for _ in sessions]
    found = [[0.0] * len(request.choices) for _ in sessions]
    with memory_errors(sessions[0].panda.memory_hint):
        while paths:
            count, _ = _that_fit(paths, _MAX_NODES)
            chunk, paths = paths[:count], paths[count:]
            scored = _score_paths(sessions[0].panda, rows.tree, chunk)
            for held, logprobs in zip(found, scored, strict=True):
                for path, logprob in zip(chunk, logprobs, strict=True):
                    held[path.choice] = logprob
    return [_scores(request, logprobs) for logprobs in found]


def _score_paths(panda: "Panda", compute: _Tree, paths: Sequence[_Path]) -> list[list[float]]:
    """The log-probability of each path behind its prompt, for each row, in one forward pass."""
    tree = TokenTree()
    # the last token, which ends the answer, is predicted and not computed
    nodes = [tree.add(path.ids[:-1]) for path in paths]
    answers = [held[path.prompt - 1 :] for path, held in zip(paths, nodes, strict=True)]
    wanted = sorted(set().union(*answers))
    rows = {node: row for row, node in enumerate(wanted)}
    with panda.step("scoring", len(tree.ids), "tokens"):
        logits = compute(tree.ids, tree.parents, wanted)
    at = torch.tensor([rows[node] for held in answers for node in held])
    tokens = torch.tensor([token for path in paths for token in path.ids[path.prompt :]])
    owners = torch.tensor([number for number, held in enumerate(answers) for _ in held])
    sums = torch.zeros(len(paths), dtype=torch.float64)
    return [
        sums.index_add(0, owners, token_logprobs(row, at, tokens)).tolist()
        for row in logits.view(-1, len(wanted), logits.shape[-1])
    ]


@torch.inference_mode()
def token_logprobs(logits: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """The log-probabilities (n,) float64 of tokens (n,), each in a row of logits (m, vocab)."""
    totals = torch.cat([part.double().logsumexp(-1) for part in logits.split(_ROWS)]).cpu()
    picked = logits[rows.to(logits.device), tokens.to(logits.device)].double().cpu()
    return picked - totals[rows]


def _scores(request: ScoreRequest, logprobs: list[float]) -> Scores:
    highest = max(logprobs)
    # relative to the likeliest: all of them may be too small for a float
    weights = [exp(logprob - highest) for logprob in logprobs]
    total = fsum(weights)
    choices = [
        Choice(text, logprob, weight / total)
        for text, logprob, weight in zip(request.choices, logprobs, weights, strict=True)
    ]
    return Scores(request.question, tuple(choices), min(exp(highest + log(total)), 1.0))
