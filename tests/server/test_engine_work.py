"""Work of other threads on the engine's: it takes turns, keeps the model loaded, and ends."""

import threading
import time
from typing import Any

import pytest

from pandacli.errors import ModelError, PandaError
from pandacli.server.engine import BusyError, Engine, StoppedError


class Model:
    """A model that is loaded when it is made."""

    loads = 0

    def __init__(self) -> None:
        Model.loads += 1


@pytest.fixture(autouse=True)
def _no_loads() -> None:
    Model.loads = 0


def engine(load: Any = Model, **options: Any) -> Engine:
    return Engine(load, **options)


def test_work_runs_on_the_thread_of_the_engine_and_returns_its_result() -> None:
    with engine() as running, running.hold() as model:
        name, used = running.run(lambda panda: (threading.current_thread().name, panda))
    assert name == "panda engine"
    assert used is model


def test_work_that_fails_raises_its_error_and_the_engine_goes_on() -> None:
    def fail(_: object) -> None:
        raise ValueError("of the work")

    with engine() as running:
        with pytest.raises(ValueError, match="of the work"):
            running.run(fail)
        assert running.run(lambda _: 7) == 7


def test_an_idle_model_stays_loaded_while_it_is_held() -> None:
    with engine(keep_alive=0.02) as running:
        with running.hold() as model:
            time.sleep(0.1)
            assert running.run(lambda panda: panda) is model
        deadline = time.monotonic() + 10
        while running.panda and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.panda is None, "and is freed afterwards"
    assert Model.loads == 1


def test_a_hold_counts_as_a_request() -> None:
    with engine(most_requests=1) as running, running.hold():
        assert running.requests == 1
        with pytest.raises(BusyError), running.hold():
            pass


def test_a_model_that_cannot_be_loaded_is_the_error_of_the_holder() -> None:
    def load() -> None:
        raise ModelError("it is damaged")

    with engine(load) as running:
        with pytest.raises(ModelError, match="damaged"), running.hold():
            pass
        assert running.requests == 0


def test_work_that_waits_when_the_engine_closes_is_ended() -> None:
    running, errors, begun = engine(), [], threading.Event()
    release = threading.Event()

    def block(_: object) -> None:
        begun.set()
        release.wait()

    def wait() -> None:
        try:
            running.run(lambda _: None)
        except PandaError as error:
            errors.append(error)

    with running:
        first = threading.Thread(target=running.run, args=(block,))
        first.start()
        begun.wait()
        second = threading.Thread(target=wait)
        second.start()
        closing = threading.Timer(0.05, release.set)
        closing.start()
    for thread in (first, second, closing):
        thread.join()
    assert [type(error) for error in errors] == [StoppedError]
    with pytest.raises(StoppedError):
        running.run(lambda _: None)
