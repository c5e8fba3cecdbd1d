"""The engine: same answers, shared batches, turns, memory within the budget, and ends."""

import gc
import random
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pandacli import Panda
from pandacli.errors import DeviceError, ModelError, PandaError, UsageError
from pandacli.inference import likelihood
from pandacli.inference.backends import torch as torch_backend
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Answer, GenerationOptions, Request, ScoreRequest
from pandacli.server.engine import BusyError, Engine, StoppedError
from pandacli.video import Clip
from pandacli.video.prefetch import read_fitted
from tests.inference.batches import QUESTIONS
from tests.server.conftest import IMAGE_SIZE, Asked, Gate, question, wait_until


def test_answers_at_once_are_those_of_panda_ask(
    engine: Engine, panda: Panda, clips: list[Path]
) -> None:
    draw = random.Random(3)
    wanted = [(draw.choice(clips), draw.choice(QUESTIONS), draw.randint(1, 30)) for _ in range(12)]
    asked = [Asked(engine, path, question(text, tokens)) for path, text, tokens in wanted]
    for each, (path, text, tokens) in zip(asked, wanted, strict=True):
        assert each.answer() == panda.ask(path, text, max_tokens=tokens).text


def test_pieces_join_to_the_answer(engine: Engine, clip: Path) -> None:
    asked = Asked(engine, clip, question(QUESTIONS[0], 20))
    pieces = []
    while isinstance(result := asked.results.get(timeout=20), str):
        pieces.append(result)
    assert isinstance(result, Answer)
    assert "".join(pieces) == result.text
    assert len(pieces) > 1


def test_requests_about_one_clip_share_a_batch(engine: Engine, clip: Path, gate: Gate) -> None:
    gate.close()
    asked = [Asked(engine, clip, question(QUESTIONS[0], 20))]
    gate.wait()
    asked += [Asked(engine, clip, question(text, 20)) for text in QUESTIONS[1:6]]
    gate.opened.set()
    assert all(each.answer() for each in asked)
    assert len(gate.passes) < 3 * 20, "and not 6 times 20"


def test_a_short_answer_does_not_wait_for_a_long_one_about_another_clip(
    engine: Engine, clips: list[Path], gate: Gate
) -> None:
    gate.close()
    long = Asked(engine, clips[0], question(QUESTIONS[0], 200))
    gate.wait()
    short = Asked(engine, clips[1], question(QUESTIONS[1], 3))
    gate.opened.set()
    assert short.answer()
    assert not any(isinstance(result, Answer) for result in [*long.results.queue])
    changes = sum(
        one is not other for one, other in zip(gate.passes, gate.passes[1:], strict=False)
    )
    assert changes >= 4, "they took turns"
    long.ticket.cancel()


def test_a_cancelled_answer_stops_within_a_token(
    engine: Engine, clip: Path, gate: Gate, panda: Panda
) -> None:
    gate.close()
    asked = Asked(engine, clip, question(QUESTIONS[0], 200))
    gate.wait()
    asked.ticket.cancel()
    given, passes = asked.results.qsize(), len(gate.passes)
    gate.opened.set()
    wait_until(lambda: all(each.is_idle for each in [*engine._clips.values()]))
    assert len(gate.passes) <= passes + 2, "the end of the generation, without a forward pass"
    other = Asked(engine, clip, question(QUESTIONS[1], 3)).answer()
    assert asked.results.qsize() == given
    assert other == panda.ask(clip, QUESTIONS[1], max_tokens=3).text


def test_cancelling_one_of_a_batch_leaves_the_others_as_they_are(
    engine: Engine, clip: Path, panda: Panda, gate: Gate
) -> None:
    gate.close()
    asked = [Asked(engine, clip, question(text, 12)) for text in QUESTIONS[:4]]
    gate.wait()
    asked[2].ticket.cancel()
    gate.opened.set()
    for number in (0, 1, 3):
        assert asked[number].answer() == panda.ask(clip, QUESTIONS[number], max_tokens=12).text
    assert not any(isinstance(result, Answer) for result in [*asked[2].results.queue])


def test_a_request_cancelled_before_its_turn_costs_nothing(
    engine: Engine, clip: Path, clips: list[Path], gate: Gate
) -> None:
    gate.close()
    first = Asked(engine, clip, question(QUESTIONS[0], 4))
    gate.wait()
    waiting = [Asked(engine, path, question(QUESTIONS[1], 50)) for path in clips]
    for each in waiting:
        each.ticket.cancel()
    gate.opened.set()
    first.answer()
    wait_until(lambda: all(clip.is_idle for clip in [*engine._clips.values()]))
    assert not any(
        other.session and other.session._prefix for other in [*engine._clips.values()][1:]
    )
    assert all(each.results.empty() for each in waiting)


def test_scores_between_answers_are_those_of_the_session(
    engine: Engine, clip: Path, panda: Panda
) -> None:
    choices = ("red", "blue", "a green square")
    asked = [
        Asked(engine, clip, question(QUESTIONS[0], 10)),
        Asked(engine, clip, ScoreRequest("which colour?", choices)),
        Asked(engine, clip, ScoreRequest("which?", choices)),
        Asked(engine, clip, question(QUESTIONS[1], 10)),
    ]
    session = panda.open(clip)
    assert asked[0].answer() == session.ask(QUESTIONS[0], max_tokens=10).text
    for each, text in zip(asked[1:3], ("which colour?", "which?"), strict=True):
        expected = session.score(text, choices)
        got = [choice.logprob for choice in each.scores().choices]
        assert got == pytest.approx([choice.logprob for choice in expected.choices], abs=1e-4)
    assert asked[3].answer() == session.ask(QUESTIONS[1], max_tokens=10).text


def test_scoring_for_clients_that_have_gone_stops(
    engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, score = threading.Semaphore(0), likelihood._score_paths
    counted: list[int] = []

    def counting(*arguments: Any) -> Any:
        counted.append(1)
        assert passes.acquire(timeout=20)
        return score(*arguments)

    monkeypatch.setattr(likelihood, "_score_paths", counting)
    monkeypatch.setattr(likelihood, "_MAX_NODES", 1)
    requests = [ScoreRequest(f"which {n}?", ("red", "blue")) for n in range(5)]
    asked = [Asked(engine, clip, request) for request in requests]
    wait_until(lambda: bool(counted))
    for each in asked:
        each.ticket.cancel()
    passes.release(100)
    wait_until(lambda: all(clip.is_idle for clip in [*engine._clips.values()]))
    assert len(counted) <= 2, "of ten passes, those of one request"
    assert Asked(engine, clip, question(QUESTIONS[0])).answer()


def test_history_system_and_seed_are_used(engine: Engine, clip: Path, panda: Panda) -> None:
    options = GenerationOptions(max_tokens=9, temperature=1.5, seed=11)
    turns = [(QUESTIONS[0], "left"), (QUESTIONS[1], "right")]
    asked = Asked(engine, clip, Request("and now?", turns, options), system="Be brief.")
    session = panda.open(clip, system="Be brief.")
    expected = session.ask("and now?", history=turns, max_tokens=9, temperature=1.5, seed=11)
    assert asked.answer() == expected.text


def test_a_request_too_long_for_the_context_fails_alone(engine: Engine, clip: Path) -> None:
    asked = [Asked(engine, clip, question(text)) for text in ("what?", "what? " * 999, "which?")]
    assert asked[0].answer()
    assert isinstance(asked[1].last(), UsageError)
    assert asked[2].answer()


@pytest.mark.parametrize("fault", [DeviceError("no memory"), RuntimeError("a fault")])
def test_a_fault_in_one_clip_does_not_hurt_others(
    engine: Engine,
    clips: list[Path],
    panda: Panda,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
) -> None:
    victim = read_fitted(Clip(clips[0]), 8, IMAGE_SIZE).pixels.tobytes()
    prepare = VideoSession.shared_prefix

    def failing(session: VideoSession) -> Any:
        if session.frames.pixels.tobytes() == victim:
            raise fault
        return prepare(session)

    with monkeypatch.context() as patch:
        patch.setattr(VideoSession, "shared_prefix", failing)
        hurt = Asked(engine, clips[0], question(QUESTIONS[0]))
        well = Asked(engine, clips[1], question(QUESTIONS[0]))
        error = hurt.last()
        assert isinstance(error, PandaError)
        assert type(error) is (DeviceError if isinstance(fault, DeviceError) else PandaError)
        assert well.answer() == panda.ask(clips[1], QUESTIONS[0], max_tokens=8).text
    again = Asked(engine, clips[0], question(QUESTIONS[0]))
    assert again.answer() == panda.ask(clips[0], QUESTIONS[0], max_tokens=8).text


def test_a_result_that_cannot_be_delivered_costs_its_request_only(
    engine: Engine, clip: Path, panda: Panda
) -> None:
    first = Asked(engine, clip, question(QUESTIONS[0], 30))
    second = Asked(engine, clip, question(QUESTIONS[1], 12))

    def fail(_: object) -> None:
        raise ValueError("the loop is gone")

    first.ticket.deliver = fail
    assert second.answer() == panda.ask(clip, QUESTIONS[1], max_tokens=12).text
    assert first.ticket.cancelled


def test_clips_asked_longest_ago_are_evicted_and_answer_the_same_later(
    panda: Panda, clips: list[Path]
) -> None:
    with Engine(lambda: panda) as measured:
        Asked(measured, clips[0], question(QUESTIONS[0])).answer()
        wait_until(lambda: all(clip.is_idle for clip in measured._clips.values()))
        (kept,) = measured._clips.values()
        assert kept.session is not None
        size = kept.frames.pixels.nbytes + kept.session.held_bytes
    with Engine(lambda: panda, budget=int(2.5 * size)) as engine:
        answers = [Asked(engine, path, question(QUESTIONS[0])).answer() for path in clips]
        wait_until(lambda: engine.clips == 2)
        assert [key.clip.path for key in engine._clips] == clips[1:]
        again = [Asked(engine, path, question(QUESTIONS[0])).answer() for path in clips]
    assert again == answers


def test_a_clip_that_changes_on_disk_is_read_again(
    engine: Engine, panda: Panda, clips: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    answers = []
    for source in clips[:2]:
        path.write_bytes(source.read_bytes())
        answers.append(Asked(engine, path, question(QUESTIONS[0], 20)).answer())
    assert answers == [panda.ask(p, QUESTIONS[0], max_tokens=20).text for p in clips[:2]]


def test_an_idle_model_is_freed_and_loaded_again_with_the_same_answer(
    checkpoint: Path, clip: Path
) -> None:
    loaded: list[weakref.ref[Panda]] = []

    def load() -> Panda:
        panda = Panda.load(checkpoint, device="cpu")
        loaded.append(weakref.ref(panda))
        return panda

    with Engine(load, keep_alive=0.05) as engine:
        with engine.place():
            first = Asked(engine, clip, question(QUESTIONS[0])).answer()
            time.sleep(0.15)
            assert engine.panda is not None, "a request has its place: it is not idle"
        wait_until(lambda: engine.panda is None)
        wait_until(lambda: loaded[0]() is None)
        gc.collect()
        assert engine.clips == 0
        assert Asked(engine, clip, question(QUESTIONS[0])).answer() == first
    assert len(loaded) == 2


def test_a_model_that_cannot_be_loaded_is_an_error_and_loaded_later(
    panda: Panda, clip: Path
) -> None:
    broken = [ModelError("it is damaged"), RuntimeError("of a library"), None]

    def load() -> Panda:
        if (error := broken.pop(0)) is not None:
            raise error
        return panda

    with Engine(load, preload=True) as engine:
        assert "its log" in str(Asked(engine, clip, question(QUESTIONS[0])).last())
        assert Asked(engine, clip, question(QUESTIONS[0])).answer()


def test_places_are_limited_and_given_back(engine: Engine) -> None:
    engine._most = 2
    with engine.place():
        with engine.place():
            assert engine.requests == 2
            with pytest.raises(BusyError, match="2 requests"), engine.place():
                pass
        with engine.place():
            assert engine.requests == 2
    assert engine.requests == 0


def test_closing_delivers_an_error_to_all(panda: Panda, clips: list[Path], gate: Gate) -> None:
    gate.close()
    with Engine(lambda: panda) as engine:
        asked = [Asked(engine, path, question(QUESTIONS[0], 200)) for path in clips]
        asked.append(Asked(engine, clips[0], ScoreRequest("which?", ("red", "blue"))))
        gate.wait()
        threading.Timer(0.1, gate.opened.set).start()
    assert all(isinstance(each.last(), StoppedError) for each in asked)
    with pytest.raises(StoppedError):
        Asked(engine, clips[0], question(QUESTIONS[0]))
    with pytest.raises(StoppedError), engine.place():
        pass


def test_a_fault_of_the_engine_itself_ends_all_requests(
    engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fail(_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(engine, "_step", fail)
    assert isinstance(Asked(engine, clip, question(QUESTIONS[0])).last(), StoppedError)


def test_the_lock_is_not_held_during_a_pass(engine: Engine, clip: Path, gate: Gate) -> None:
    gate.close()
    asked = Asked(engine, clip, question(QUESTIONS[0]))
    gate.wait()
    assert engine._changed.acquire(timeout=5)
    engine._changed.release()
    gate.opened.set()
    assert asked.answer()


def test_the_lock_is_not_held_while_weights_are_loaded_or_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[bool] = []
    engine = Engine(lambda: try_lock(), keep_alive=0.01, preload=True)  # type: ignore[arg-type]

    def try_lock(*_: object) -> object:
        def acquire() -> None:
            free = engine._changed.acquire(timeout=5)
            held.append(not free)
            if free:
                engine._changed.release()

        other = threading.Thread(target=acquire)
        other.start()
        other.join()
        return SimpleNamespace()

    monkeypatch.setattr("pandacli.server.engine.gc", SimpleNamespace(collect=try_lock))
    with engine:
        wait_until(lambda: len(held) >= 2)
    assert not any(held)


def test_torch_is_used_on_the_thread_of_the_engine_only(
    engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    sequence = torch_backend.TorchBackend.new_sequence

    def noted(backend: Any) -> Any:
        names.add(threading.current_thread().name)
        return sequence(backend)

    monkeypatch.setattr(torch_backend.TorchBackend, "new_sequence", noted)
    Asked(engine, clip, question(QUESTIONS[0])).answer()
    assert names == {"panda engine"}
