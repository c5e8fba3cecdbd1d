"""A model on a server gives what it gives here, over its Unix socket and over TCP."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.chat.conversation import Conversation
from pandacli.errors import ClipError, DeviceError, PandaError, UsageError
from pandacli.inference.spec import GenerationOptions, Request, ScoreRequest
from pandacli.server import app as server_app
from pandacli.server.client import Client
from pandacli.server.media import Limits
from pandacli.server.remote import RemotePanda, RemoteSession
from pandacli.video import Clip, sample_frames
from pandacli.video.prefetch import read_fitted
from tests.server.page_server import TINY_SIZE, RunningServer, listening_at, serving

CHOICES = ("Yes.", "No.", "Blue.")
QUESTION = "What happens?"


@pytest.fixture(scope="module")
def tiny() -> Panda:
    return Panda.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def server(tiny: Panda, place: Path) -> Iterator[RunningServer]:
    with listening_at(place) as listening, serving(tiny, listening) as running:
        yield running


@pytest.fixture(params=["socket", "tcp"])
def remote(request: pytest.FixtureRequest, server: RunningServer, place: Path) -> RemotePanda:
    return RemotePanda.connect(Client(place if request.param == "socket" else server.url))


@pytest.fixture
def local(server: RunningServer, place: Path) -> RemotePanda:
    del server
    return RemotePanda.connect(Client(place))


@pytest.fixture(scope="module")
def film(make_clip: Callable[..., Path]) -> Path:
    return make_clip("remote film.mp4", seconds=8)


def exact(answer: Any) -> Any:
    """What of an answer does not depend on time and memory."""
    assert not isinstance(answer, PandaError), answer
    return answer.question, answer.text, answer.ids, answer.logprobs, answer.finish_reason


def test_facts_are_those_of_the_model(remote: RemotePanda, tiny: Panda) -> None:
    names = ("name", "quant", "engine", "devices", "dtype", "context", "image_size", "identity")
    assert all(getattr(remote, name) == getattr(tiny, name) for name in names)
    assert remote.peak_memory > 0


@pytest.mark.parametrize("as_frames", [False, True])
def test_answer_and_tokens_are_those_of_the_model_here(
    remote: RemotePanda, tiny: Panda, film: Path, as_frames: bool
) -> None:
    clip = Clip(film, 1, 6)
    video = sample_frames(clip, 8) if as_frames else clip
    expected = tiny.open(clip)
    session = remote.open(video)
    assert session.frames.indices == expected.frames.indices
    assert session.frames.times == expected.frames.times
    assert session.prefix_tokens == expected.prefix_tokens
    stream = session.stream(QUESTION, logprobs=True)
    assert "".join(stream) == stream.answer.text
    known = expected.ask(QUESTION, logprobs=True)
    assert exact(stream.answer) == exact(known)
    assert stream.answer.stats.question_tokens == known.stats.question_tokens
    history = [(QUESTION, known.ids), ("Is it red?", "Yes.")]
    sampled = {"temperature": 0.9, "seed": 5, "max_tokens": 9}
    assert exact(session.ask("And then?", history=history, **sampled)) == exact(
        expected.ask("And then?", history=history, **sampled)
    )


def test_many_requests_are_answered_by_their_numbers(
    remote: RemotePanda, tiny: Panda, film: Path
) -> None:
    lengths = random.Random(3).sample(range(1, 30), 9)
    requests = [Request(f"Question {n}?", options=GenerationOptions(n)) for n in lengths]
    found = dict(remote.open(film).generate(iter(requests), batch_size=4, stream=False).results())
    expected = dict(tiny.open(film).generate(requests, stream=False).results())
    assert {n: exact(each) for n, each in found.items()} == {
        n: exact(each) for n, each in expected.items()
    }


def test_scores_are_those_of_the_model_here(remote: RemotePanda, tiny: Panda, film: Path) -> None:
    requests = [ScoreRequest(text, CHOICES) for text in ("Is it red?", "Which colour?")]
    scoring = remote.open(film).score_all(requests)
    assert dict(scoring) == dict(tiny.open(film).score_all(requests))
    assert scoring.stats.passes > 0
    with pytest.raises(UsageError, match="given twice"):
        remote.open(film).score(QUESTION, ("Yes.", "Yes."))


def test_windows_get_the_answers_and_scores_of_the_model_here(
    remote: RemotePanda, tiny: Panda, film: Path
) -> None:
    clips = [read_fitted(Clip(film, start, start + 2), 8, TINY_SIZE) for start in (0, 3, 5)]
    there, here = remote.look_together(clips), tiny.look_together(clips)
    assert there.score_all([QUESTION], CHOICES) == here.score_all([QUESTION], CHOICES)
    options = GenerationOptions(max_tokens=6)
    answers = [here.ask([QUESTION], options), there.ask([QUESTION], options)]
    assert [[exact(each) for each in row] for row in answers[0]] == [
        [exact(each) for each in row] for row in answers[1]
    ]
    assert remote.look_together([]).ask([QUESTION]) == []


def test_windows_are_looked_at_one_by_one_while_others_wait(
    local: RemotePanda,
    server: RunningServer,
    tiny: Panda,
    film: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = [read_fitted(Clip(film, start, start + 2), 8, TINY_SIZE) for start in (0, 3, 5)]
    expected = tiny.look_together(clips).score_all([QUESTION], CHOICES)
    sizes, look = [], Panda.look_together

    def watched(panda: Panda, clips: Any, *rest: Any) -> Any:
        sizes.append(len(clips))
        return look(panda, clips, *rest)

    monkeypatch.setattr(Panda, "look_together", watched)
    with server.engine.place():
        scores = local.look_together(clips).score_all([QUESTION], CHOICES)
    assert sizes == [1, 1, 1]
    for (there,), (here,) in zip(scores, expected, strict=True):
        assert [choice.logprob for choice in there.choices] == pytest.approx(
            [choice.logprob for choice in here.choices], abs=1e-3
        )
    local.look_together(clips).score_all([QUESTION], CHOICES)
    assert sizes == [1, 1, 1, 3]


def test_conversation_drops_the_turns_it_drops_here(
    local: RemotePanda, tiny: Panda, film: Path
) -> None:
    long = "Is it a red circle or a blue square? " * 40
    talks = [Conversation(each.open(film)) for each in (local, tiny)]
    for question in (QUESTION, *[long] * 5, QUESTION):
        texts = ["".join(talk.ask(question, GenerationOptions(8))) for talk in talks]
        assert texts[0] == texts[1]
    assert talks[0].dropped == talks[1].dropped > 0
    assert talks[0].tokens() == talks[1].tokens()
    assert talks[0].score("Is it red?", CHOICES)[0] == talks[1].score("Is it red?", CHOICES)[0]


def test_frames_that_the_server_dropped_are_sent_again(
    tiny: Panda, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_app, "_READ_BYTES", 0)  # only the latest frames are kept
    sent = []
    send = RemoteSession._send_frames
    monkeypatch.setattr(RemoteSession, "_send_frames", lambda own: sent.append(own) or send(own))
    with serving(tiny, budget=0) as running:
        remote = RemotePanda.connect(Client(running.url))
        first, second = (remote.open(sample_frames(Clip(film, n, n + 2), 8)) for n in (1, 4))
        expected = exact(first.ask(QUESTION))
        other = first.with_system("Answer in one word.")
        assert other.prefix_tokens != first.prefix_tokens
        assert exact(second.ask(QUESTION)) != expected
        assert exact(first.ask(QUESTION)) == expected
    assert sent == [first, other, first, second, first]


def test_a_file_is_uploaded_once(
    server: RunningServer, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = Client._send_file
    monkeypatch.setattr(Client, "_send_file", lambda *given: sent.append(1) or send(*given))
    film = make_clip('odd "name"\r\n ü.mp4', seconds=3)
    remote = RemotePanda.connect(Client(server.url))
    assert exact(remote.open(film).ask(QUESTION)) == exact(remote.open(film).ask(QUESTION))
    assert len(sent) == 1


def test_frames_go_in_place_of_a_file_that_is_too_large(
    tiny: Panda, make_clip: Callable[..., Path]
) -> None:
    film = make_clip("large.mp4", seconds=3, width=1280, height=960)
    limit = 8 * TINY_SIZE * TINY_SIZE * 3 + 10_000  # of frames and what is said of them
    assert film.stat().st_size > limit
    with serving(tiny, limits=Limits(upload=limit)) as running:
        remote = RemotePanda.connect(Client(running.url))
        assert exact(remote.open(film).ask(QUESTION)) == exact(tiny.open(film).ask(QUESTION))


def test_errors_keep_their_kind_and_name_the_file_as_the_user_did(
    remote: RemotePanda, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.mp4").write_text("no video")
    Path("empty.mp4").touch()
    for name in ("missing.mp4", "notes.mp4", "empty.mp4", "."):
        with pytest.raises(ClipError) as here:
            sample_frames(Clip(Path(name)), 8)
        with pytest.raises(ClipError) as there:
            remote.open(name)
        assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)
    with pytest.raises(UsageError, match="past the end"):
        remote.open(Clip(film, 100))
    with pytest.raises(UsageError, match="temperature"):
        remote.open(film).ask(QUESTION, temperature=-1)


def test_a_stream_that_is_closed_stops_the_answer(
    remote: RemotePanda, server: RunningServer, film: Path
) -> None:
    options = {"temperature": 50.0, "seed": 1, "max_tokens": 1500}  # of noise, which has no end
    stream = remote.open(film).stream(QUESTION, **options)
    next(stream)
    assert server.engine.requests == 1
    stream.close()
    until = time.monotonic() + 5
    while server.engine.requests and time.monotonic() < until:
        time.sleep(0.01)
    assert server.engine.requests == 0


def answer_partly(listening: socket.socket, reply: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(reply)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\ndata: ",
        b'HTTP/1.1 200 OK\r\n\r\ndata: {"index": 0, "text": "A"}\n\n',
    ],
)
def test_a_server_that_dies_midway_is_one_clear_error(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer_partly, args=(listening, reply))
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(DeviceError, match="ended before the answer did"):
            list(Client(f"http://127.0.0.1:{port}").events("/panda/answers", {}))
        thread.join()


@pytest.mark.parametrize("status", ["404 Not Found", "200 OK"])
@pytest.mark.parametrize("body", ['{"error": {"message": "no"}}', "<html>", "[]"])
def test_another_server_is_no_server_of_panda(status: str, body: str) -> None:
    reply = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer_partly, args=(listening, reply))
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(DeviceError, match="is no server of panda"):
            RemotePanda.connect(Client(f"http://127.0.0.1:{port}"))
        thread.join()


def test_a_server_that_is_not_there_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is not there"):
        RemotePanda.connect(Client(tmp_path / "none"))
