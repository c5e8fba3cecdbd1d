"""Likelihoods of given answers ("choices"), behind the shared prefix of a clip.

The log-probability of a choice is that of the model giving this answer and ending it there:

    log P(choice) = sum over k of log p(t_k | prefix, question, t_1 ... t_(k-1)) + log p(</s> | ...)

where t_1 ... t_n are its tokens behind the prompt. Choices are different texts that end, so their
probabilities are of exclusive events: `coverage` is their sum, and a probability is a share of it.

The tokens of all questions and choices are the paths of a tree behind the prefix; common beginnings
are one path, and a forward pass computes as many nodes as there is room for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, fsum, log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.inference.planning.devices import memory_errors
from pandacli.inference.spec import Choice, ScoreRequest, Scores

if TYPE_CHECKING:
    from pandacli.inference.session import SharedPrefix, VideoSession

_MAX_NODES = 1024  # of a pass: its mask grows with the square
_ROWS = 64  # of logits that are made float64 at a time


@dataclass(frozen=True)
class _Path:
    """A choice of a request: the tokens behind the prefix, and how many of them are the prompt."""

    request: int
    choice: int
    ids: tuple[int, ...]
    prompt: int


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


def score(
    session: "VideoSession", requests: Iterable[ScoreRequest]
) -> Iterator[tuple[int, Scores | PandaError]]:
    """Score requests; yields the index of each with its `Scores`, or why there are none."""
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
    session.turn += 1  # takes over the session's sequence
    with memory_errors(session.panda.memory_hint):
        prefix, _ = session.shared_prefix()
    room = min(_MAX_NODES, session.batch_positions())
    while paths:
        nodes, count = TokenTree(), 0
        for path in paths:  # sorted, so that the order of choices changes no sum
            nodes.add(path.ids[:-1])
            if count and len(nodes.ids) > room:
                break
            count += 1
        chunk = paths[:count]
        try:
            with memory_errors(session.panda.memory_hint):
                logprobs = _score_paths(prefix, chunk)
        except DeviceError as error:
            if count > 1:
                room = max(len(nodes.ids) // 2, 1)
                continue
            failed = chunk[0].request
            paths = [path for path in paths if path.request != failed]
            del held[failed]
            yield failed, error
            continue
        for path, logprob in zip(chunk, logprobs, strict=True):
            held[path.request][1][path.choice] = logprob
        paths = paths[count:]
        for index in dict.fromkeys(path.request for path in chunk):
            request, found = held[index]
            if None not in found:
                del held[index]
                yield index, _scores(request, [each for each in found if each is not None])


def _paths(session: "VideoSession", index: int, request: ScoreRequest) -> list[_Path]:
    if not request.choices or not all(map(str.strip, request.choices)):
        raise UsageError("a choice is empty" if request.choices else "there are no choices")
    found = []
    for number, choice in enumerate(request.choices):
        prompt, answer = session.encode_choice(request, choice)
        found.append(_Path(index, number, (*prompt, *answer), len(prompt)))
    for one, other in pairwise(sorted(found, key=lambda path: path.ids)):
        if one.ids == other.ids:
            raise UsageError(f"the choice {request.choices[other.choice]!r} is there twice")
    return sorted(found, key=lambda path: path.ids)


def _score_paths(prefix: "SharedPrefix", paths: Sequence[_Path]) -> list[float]:
    """The log-probability of each path behind its prompt, in one forward pass."""
    tree = TokenTree()
    # the last token, which ends the answer, is predicted and not computed
    nodes = [tree.add(path.ids[:-1]) for path in paths]
    answers = [held[path.prompt - 1 :] for path, held in zip(paths, nodes, strict=True)]
    wanted = sorted(set().union(*answers))
    rows = {node: row for row, node in enumerate(wanted)}
    logits = prefix.tree(tree.ids, tree.parents, wanted)
    at = [rows[node] for held in answers for node in held]
    tokens = [token for path in paths for token in path.ids[path.prompt :]]
    owners = [number for number, held in enumerate(answers) for _ in held]
    picked = token_logprobs(logits, torch.tensor(at), torch.tensor(tokens))
    sums = torch.zeros(len(paths), dtype=torch.float64)
    return sums.index_add_(0, torch.tensor(owners), picked).tolist()


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
