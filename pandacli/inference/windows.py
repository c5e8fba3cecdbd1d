"""Windows looked at together: many clips pass STAB and the Llama as the rows of one batch.

Rows of a batch are prefilled and decoded at the same pace, so that those of one layout (as many
tokens of frames) form a batch. A greedy answer is that of a `VideoSession` alone: what rounding may
have decided is computed again by itself, as in continuous batching.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.inference.continuous_batching import RowGeneration
from pandacli.inference.likelihood import score_rows
from pandacli.inference.planning.devices import free_memory, memory_errors, position_bytes
from pandacli.inference.session import VideoSession, encode_together
from pandacli.inference.spec import Answer, GenerationOptions, Request, ScoreRequest, Scores

if TYPE_CHECKING:
    from pandacli.inference.backends import Rows
    from pandacli.inference.panda import Panda
    from pandacli.video import Frames

_MOST = {"cpu": 8, "cuda": 32}  # rows; more are hardly faster, and answers come later
_ANSWER = 256  # positions of question and answer that memory is reserved for

_Result = TypeVar("_Result")
_Together = Callable[[list[VideoSession], "Rows", float], "list[_Result]"]
"""The results of sessions from their rows, which were prefilled in so many seconds."""


class WindowBatch:
    """Clips that get the same questions; answers are those of a `VideoSession` for each.

    A clip that cannot be used has its error as the answer. Where memory runs out, half as many are
    looked at together; only if it does not suffice for one, a `DeviceError` is raised.
    """

    def __init__(
        self,
        panda: "Panda",
        frames: "Sequence[Frames]",
        num_frames: int = 8,
        system: str | None = None,
    ) -> None:
        self._panda, self._num_frames, self._system = panda, num_frames, system
        self._frames = frames

    def ask(
        self, questions: Sequence[str], options: GenerationOptions | None = None
    ) -> list[list[Answer | PandaError]]:
        """Ask all questions, each on its own, about each clip; a list for each clip."""
        options = options or GenerationOptions()
        options.check()
        requests = [Request(question) for question in questions]

        def together(
            sessions: list[VideoSession], rows: "Rows", seconds: float
        ) -> list[list[Answer | PandaError]]:
            answers = []
            for number, request in enumerate(requests):
                prefilled = 0.0 if number else seconds
                answers.append(_ask_rows(sessions, rows, request, options, prefilled))
            return [list(row) for row in zip(*answers, strict=True)]

        def alone(session: VideoSession) -> list[Answer | PandaError]:
            answers = dict(session.generate(requests, options, stream=False).results())
            return [answers[number] for number in range(len(requests))]

        found = self._look(together, alone)
        return [[e for _ in requests] if isinstance(e, PandaError) else e for e in found]

    def score(self, question: str, choices: Sequence[str]) -> list[Scores | PandaError]:
        """Score the choices for each clip."""
        return [scores for (scores,) in self.score_all([question], choices)]

    def score_all(
        self, questions: Sequence[str], choices: Sequence[str]
    ) -> list[list[Scores | PandaError]]:
        """Score the choices of all questions for each clip; a list for each clip."""
        requests = [ScoreRequest(question, tuple(choices)) for question in questions]

        def together(
            sessions: list[VideoSession], rows: "Rows", _: float
        ) -> list[list[Scores | PandaError]]:
            scored = [score_rows(sessions, rows, request) for request in requests]
            return [list(row) for row in zip(*scored, strict=True)]

        def alone(session: VideoSession) -> list[Scores | PandaError]:
            scored = dict(session.score_all(requests))
            return [scored[number] for number in range(len(requests))]

        found = self._look(together, alone)
        return [[e for _ in requests] if isinstance(e, PandaError) else e for e in found]

    def _look(
        self, together: "_Together[_Result]", alone: Callable[[VideoSession], _Result]
    ) -> list[_Result | PandaError]:
        """The result of each clip, those of one layout together, or why it has none."""
        found: dict[int, _Result | PandaError] = {}
        layouts: dict[int, dict[int, VideoSession]] = {}
        for number, frames in enumerate(self._frames):
            try:
                session = self._panda.open(frames, num_frames=self._num_frames, system=self._system)
                layouts.setdefault(session.prefix_tokens, {})[number] = session
            except PandaError as error:
                found[number] = error
        for sessions in layouts.values():
            results = self._in_rows([*sessions.values()], together, alone)
            found.update(zip(sessions, results, strict=True))
        return [found[number] for number in range(len(self._frames))]

    def _in_rows(
        self,
        sessions: list[VideoSession],
        together: "_Together[_Result]",
        alone: Callable[[VideoSession], _Result],
    ) -> list[_Result]:
        if len(sessions) == 1:
            return [alone(sessions[0])]
        try:
            return self._at_once(sessions, together, alone)
        except DeviceError:
            pass  # its traceback holds the rows until here
        middle = len(sessions) // 2
        halves = sessions[:middle], sessions[middle:]
        return [result for half in halves for result in self._in_rows(half, together, alone)]

    def _at_once(
        self,
        sessions: list[VideoSession],
        together: "_Together[_Result]",
        alone: Callable[[VideoSession], _Result],
    ) -> list[_Result]:
        import torch

        started = perf_counter()
        with memory_errors(self._panda.memory_hint):
            encode_together(sessions)
            embeddings = torch.stack([session.embed() for session in sessions])
            tokens = embeddings.shape[:2].numel()
            with self._panda.step("reading the prompts", tokens, "tokens"):
                rows = self._panda.backend.rows(embeddings)
        if rows is None:
            return [alone(session) for session in sessions]
        return together(sessions, rows, perf_counter() - started)


def windows_at_once(panda: "Panda") -> int:
    """How many clips are looked at together: as many as is faster and half of memory allows."""
    import torch

    most = _MOST["cpu" if panda.device == "cpu" else "cuda"]
    config = panda.model.config
    each = position_bytes(config, panda.engine, panda.model.dtype)
    cells = config.image_size // config.patch_size // 2  # a token each, and one for each line
    prefix = config.all_num_frames * (1 + cells * (cells + 1))
    row = each * (min(prefix + _ANSWER, panda.context) + _ANSWER)
    free = min(free_memory(torch.device(device)) for device in panda.devices)
    return max(1, min(most, free // 2 // row))


def _ask_rows(
    sessions: list[VideoSession],
    rows: "Rows",
    request: Request,
    options: GenerationOptions,
    prefill_seconds: float,  # 0 for a prefix that was counted
) -> list[Answer | PandaError]:
    try:
        states = [each.request_state(n, request, options) for n, each in enumerate(sessions)]
    except UsageError as error:
        return [error for _ in sessions]
    for session, state in zip(sessions, states, strict=True):
        state.prefill_seconds = prefill_seconds
        state.prefilled = session.prefix_tokens if prefill_seconds else 0
    found = dict(RowGeneration(sessions, rows, states).results())
    return [found[number] for number in range(len(sessions))]
