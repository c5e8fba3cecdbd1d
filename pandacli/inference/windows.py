"""Windows looked at together: many clips pass STAB and the Llama as the rows of one batch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Answer, GenerationOptions, Request, ScoreRequest, Scores

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.video import Frames


class WindowBatch:
    """Clips that get the same questions; answers are those of a `VideoSession` for each."""

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
        requests = [Request(question) for question in questions]
        found: list[list[Answer | PandaError]] = []
        for session in self._sessions():
            if isinstance(session, PandaError):
                found.append([session for _ in questions])
                continue
            generation = session.generate(requests, options or GenerationOptions(), stream=False)
            answers = dict(generation.results())
            found.append([answers[number] for number in range(len(questions))])
        return found

    def score(self, question: str, choices: Sequence[str]) -> list[Scores | PandaError]:
        """Score the choices for each clip."""
        found: list[Scores | PandaError] = []
        for session in self._sessions():
            if not isinstance(session, PandaError):
                request = ScoreRequest(question, tuple(choices))
                ((_, scores),) = session.score_all([request])
                found.append(scores)
            else:
                found.append(session)
        return found

    def _sessions(self) -> Iterator[VideoSession | PandaError]:
        for frames in self._frames:
            try:
                yield self._panda.open(frames, num_frames=self._num_frames, system=self._system)
            except PandaError as error:
                yield error


def windows_at_once(panda: "Panda") -> int:
    """How many clips are looked at together: as memory allows, and it is faster."""
    return 8 if panda.engine == "torch" else 1
