"""A model on a server, with all that the commands use of one that is loaded here.

A clip is named to the server, which reads its frames, or the frames that were read here are sent.
Nothing in this module imports torch.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack, cast

from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.inference.panda import Panda
from pandacli.inference.spec import (
    Answer,
    AnswerStream,
    ClosableIterator,
    GenerationOptions,
    History,
    OptionFields,
    Request,
    ScoreRequest,
    Scores,
    ScoringStats,
    Seconds,
)
from pandacli.server import wire
from pandacli.server.client import Client, NotFoundError, TooLargeError
from pandacli.server.wire import Fields
from pandacli.video.clip import Clip, local_file

if TYPE_CHECKING:
    from pandacli.inference.session import VideoSession
    from pandacli.inference.windows import WindowBatch
    from pandacli.video import Frames

_AT_ONCE = 64  # requests that are sent together
_TRIES = 3  # for a clip whose frames the server may drop for those of other clients

Event = tuple[int, str | Answer | PandaError]


class RemotePanda(Panda):
    """A model that is loaded on a server; made of what `GET /panda/model` says of it."""

    def __init__(self, client: Client, facts: Fields) -> None:
        self.client, self._facts = client, facts
        self.name, self.quant, self.engine = facts["name"], facts["quant"], facts["engine"]
        self.devices, self.device = tuple(facts["devices"]), facts["devices"][0]
        self.dtype, self.memory_hint = facts["dtype"], facts["memory_hint"]
        self.load_seconds = 0.0  # of this command

    @classmethod
    def connect(cls, client: Client) -> "RemotePanda":
        """Ask a server for its model; a DeviceError if it does not answer, or is another one."""
        try:
            return cls(client, client.get("/panda/model"))
        except (NotFoundError, LookupError, TypeError) as error:
            raise DeviceError(f"{client.shown} is no server of panda") from error

    @cached_property
    def identity(self) -> str:
        return str(self.client.get("/panda/identity")["sha256"])

    @property
    def context(self) -> int:
        return int(self._facts["context"])

    @property
    def image_size(self) -> int:
        return int(self._facts["image_size"])

    @cached_property
    def windows_at_once(self) -> int:
        return int(self.client.get("/panda/memory")["windows_at_once"])

    @property
    def peak_memory(self) -> int:
        return int(self.client.get("/panda/memory")["peak"])

    def open(
        self,
        video: Any,
        *,
        start: float | None = None,
        end: float | None = None,
        at: Sequence[float] = (),
        num_frames: int = 8,
        system: str | None = None,
        frames_seconds: float = 0.0,
        cache: Any = False,
    ) -> "VideoSession":
        """As of `Panda`; the server keeps clips in memory, and `cache` is not used."""
        del cache
        if hasattr(video, "pixels"):
            opened = self._send(video, num_frames, system)
        else:
            if not isinstance(video, Clip):
                video = Clip(local_file(video), start, end, at=tuple(at))
            opened = self._open_clip(video, num_frames, system)
        opened.frames_seconds = frames_seconds
        return cast("VideoSession", opened)  # it has what is used of one

    def _open_clip(self, clip: Clip, num_frames: int, system: str | None) -> "RemoteSession":
        fields: Fields = {"from": clip.start, "to": clip.end, "at": clip.at}
        path = clip.path.absolute()
        try:
            if self.client.is_local:
                fields["path"] = str(path)
            else:
                fields["file_id"] = _send_file(self.client, clip)
            named = fields | {"frames": num_frames, "system": system}
            facts = self.client.post("/panda/open", {"clip": named})
        except TooLargeError:
            from pandacli.video.prefetch import read_fitted

            frames = read_fitted(clip, num_frames, self.image_size)
            return self._send(frames, num_frames, system)
        except PandaError as error:  # as the user has named the file
            for name in (str(path), str(fields.get("file_id", path))):
                error.message = error.message.replace(name, str(clip.path))
            raise
        return RemoteSession(self, named, wire.read_frame_facts(facts))

    def _send(self, frames: "Frames", num_frames: int, system: str | None) -> "RemoteSession":
        sent = fitted(frames, self.image_size)
        named = {"id": wire.frames_id(sent), "frames": num_frames, "system": system}
        return RemoteSession(self, named, frames, sent)

    def look_together(
        self, clips: "Sequence[Frames]", num_frames: int = 8, system: str | None = None
    ) -> "WindowBatch":
        return cast("WindowBatch", RemoteWindows(self, clips, num_frames, system))


class RemoteSession:
    """A clip on a server; see `VideoSession`."""

    def __init__(
        self,
        panda: RemotePanda,
        clip: Fields,
        frames: "Frames | wire.FrameFacts",
        sent: "Frames | None" = None,  # as the model sees them, where the server has no file
    ) -> None:
        self.panda, self.frames, self.frames_seconds = panda, frames, 0.0
        self._clip, self._sent = clip, sent
        self._prefix_tokens: int | None = None

    @property
    def prefix_tokens(self) -> int:
        if self._prefix_tokens is None:
            self._prefix_tokens = int(self._post("/panda/prefix", {"compute": False})["tokens"])
        return self._prefix_tokens

    def with_system(self, system: str | None) -> "RemoteSession":
        other = RemoteSession(self.panda, self._clip | {"system": system}, self.frames, self._sent)
        other.frames_seconds = self.frames_seconds
        return other

    def generate(
        self,
        requests: Iterable[Request],
        options: GenerationOptions = GenerationOptions(),  # noqa: B008  (frozen)
        *,
        batch_size: int | None = None,
        stream: bool = True,
    ) -> "RemoteGeneration":
        options.check()
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"a batch size cannot be {batch_size}", "use at least 1")
        return RemoteGeneration(self, requests, options, batch_size or _AT_ONCE, stream)

    def ask(
        self, question: str, *, history: History = (), **options: Unpack[OptionFields]
    ) -> Answer:
        stream = self.stream(question, history=history, **options)
        for _ in stream:
            pass
        return stream.answer

    def stream(
        self, question: str, *, history: History = (), **options: Unpack[OptionFields]
    ) -> AnswerStream:
        request = Request(question, history)
        generation = self.generate([request], GenerationOptions(**options), batch_size=1)

        def pieces() -> Generator[str, None, Answer]:
            with generation:
                for _, event in generation:
                    if isinstance(event, PandaError):
                        raise event
                    if isinstance(event, Answer):
                        return event
                    yield event
            raise RuntimeError("a stream ends with an answer or an error")

        return AnswerStream(pieces(), lambda: None)

    def score(self, question: str, choices: Sequence[str], *, history: History = ()) -> Scores:
        ((_, scores),) = self.score_all([ScoreRequest(question, tuple(choices), history)])
        if isinstance(scores, PandaError):
            raise scores
        return scores

    def score_all(self, requests: Iterable[ScoreRequest]) -> "RemoteScoring":
        return RemoteScoring(self, [*requests])

    def prepare(self) -> None:
        self._prefix_tokens = int(self._post("/panda/prefix", {"compute": True})["tokens"])

    def keep(self) -> None:
        """The server keeps the prefix in memory, while there is room."""

    def tokens_left(self, question: str, history: History = ()) -> int:
        fields = wire.request_fields(Request(question, history))
        return int(self._post("/panda/room", {"request": fields})["tokens"])

    def encode_choice(self, request: ScoreRequest, choice: str) -> tuple[list[int], list[int]]:
        fields = {"request": wire.request_fields(request), "choice": choice}
        found = self._post("/panda/choice", fields)
        return found["prompt"], found["answer"]

    def events(self, path: str, fields: Fields) -> Generator[Fields, None, None]:
        """The events that answer a request about this clip."""
        fields = {"clip": self._clip} | fields
        for _ in range(_TRIES - 1):
            with closing(self._client.events(path, fields)) as events:
                try:
                    yield from events
                    return
                except NotFoundError:
                    self._send_frames()
        with closing(self._client.events(path, fields)) as events:
            yield from events

    @property
    def _client(self) -> Client:
        return self.panda.client

    def _post(self, path: str, fields: Fields) -> Fields:
        fields = {"clip": self._clip} | fields
        for _ in range(_TRIES - 1):
            try:
                return self._client.post(path, fields)
            except NotFoundError:
                self._send_frames()
        return self._client.post(path, fields)

    def _send_frames(self) -> None:
        """Send the frames, which the server does not have yet or no longer."""
        if self._sent is None:
            raise UsageError("the server has dropped the video meanwhile", "ask again")
        body = wire.pack({"clip": self._clip}, [self._sent])
        self._client.post_bytes("/panda/clips", body)


class RemoteGeneration(ClosableIterator[Event]):
    """The events of requests, as of `Generation`; those that are sent together share a batch."""

    def __init__(
        self,
        session: RemoteSession,
        requests: Iterable[Request],
        options: GenerationOptions,
        at_once: int,
        stream: bool,
    ) -> None:
        super().__init__(self._run(session, enumerate(requests), at_once))
        self.seconds = Seconds()
        self._options, self._stream = options, stream

    def results(self) -> Iterator[tuple[int, Answer | PandaError]]:
        return ((index, event) for index, event in self if not isinstance(event, str))

    def _run(
        self, session: RemoteSession, requests: Iterator[tuple[int, Request]], at_once: int
    ) -> Generator[Event, None, None]:
        while group := list(islice(requests, at_once)):
            started, prefill = perf_counter(), 0.0
            sent = [self._fields(request) for _, request in group]
            events = session.events("/panda/answers", {"requests": sent, "stream": self._stream})
            with closing(events):
                for fields in events:
                    result = wire.read_result(fields)
                    assert not isinstance(result, Scores)
                    if isinstance(result, Answer):
                        prefill += result.stats.prefill_seconds
                    yield group[fields["index"]][0], result
            self.seconds.prefill += prefill
            self.seconds.decode += max(0.0, perf_counter() - started - prefill)

    def _fields(self, request: Request) -> Fields:
        options = request.options or self._options
        return wire.request_fields(Request(request.question, request.history, options))


class RemoteScoring(ClosableIterator[tuple[int, Scores | PandaError]]):
    """The scores of requests, as of `Scoring`."""

    def __init__(self, session: RemoteSession, requests: Sequence[ScoreRequest]) -> None:
        super().__init__(self._run(session, requests))
        self._stats: ScoringStats | None = None

    @property
    def stats(self) -> ScoringStats:
        """A RuntimeError before the scores have been read to their end."""
        if self._stats is None:
            raise RuntimeError("the scores were not read to the end")
        return self._stats

    def _run(
        self, session: RemoteSession, requests: Sequence[ScoreRequest]
    ) -> Generator[tuple[int, Scores | PandaError], None, None]:
        sent = [wire.request_fields(request) for request in requests]
        events = session.events("/panda/answers", {"requests": sent, "stream": False})
        with closing(events):
            for fields in events:
                result = wire.read_result(fields)
                assert isinstance(result, Scores | PandaError)
                if fields.get("scoring"):
                    self._stats = wire.read_scoring(fields["scoring"])
                yield fields["index"], result


class RemoteWindows:
    """Clips that get the same questions, as of `WindowBatch`."""

    def __init__(
        self, panda: RemotePanda, clips: "Sequence[Frames]", num_frames: int, system: str | None
    ) -> None:
        self._panda, self._clips = panda, clips
        self._fields: Fields = {"frames": num_frames, "system": system}

    def ask(
        self, questions: Sequence[str], options: GenerationOptions | None = None
    ) -> list[list[Answer | PandaError]]:
        options = options or GenerationOptions()
        options.check()
        given = wire.request_fields(Request("", options=options))["options"]
        return self._post({"questions": questions, "options": given})

    def score(self, question: str, choices: Sequence[str]) -> list[Scores | PandaError]:
        return [scores for (scores,) in self.score_all([question], choices)]

    def score_all(
        self, questions: Sequence[str], choices: Sequence[str]
    ) -> list[list[Scores | PandaError]]:
        return self._post({"questions": questions, "choices": choices})

    def _post(self, fields: Fields) -> list[list[Any]]:
        if not self._clips:
            return []
        sent = [fitted(frames, self._panda.image_size) for frames in self._clips]
        body = wire.pack(self._fields | fields, sent)
        found = self._panda.client.post_bytes("/panda/windows", body)
        return [[wire.read_result(each) for each in row] for row in found["results"]]


def fitted(frames: "Frames", image_size: int) -> "Frames":
    """Frames in the size in which the model sees them."""
    from dataclasses import replace

    from pandacli.video import fit_to_box

    return replace(frames, pixels=fit_to_box(frames.pixels, image_size=image_size))


def _send_file(client: Client, clip: Clip) -> str:
    """The id of a file on the server; a ClipError if it cannot be read here."""
    try:
        if clip.path.stat().st_size:
            return client.file_id(clip.path)
    except OSError:
        pass  # the check says why
    from pandacli.video.container import check_file

    check_file(clip.path)
    raise UsageError(f"{clip.path} changed while it was read")
