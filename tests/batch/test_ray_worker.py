"""A worker of a run on Ray, called without Ray."""

import pickle
from pathlib import Path

import pytest

from pandacli.batch.clip_worker import Settings
from pandacli.batch.ray_board import DEALT_WITH
from pandacli.batch.ray_worker import ATTEMPTS, RayWorker, Result, Task
from pandacli.batch.records import BadLine, Question, Record

RECORD = Record(1, {}, "none.mp4", "What?")
SHARE: list[Question | BadLine] = [Question(RECORD, 1)]


class Unconnected(RayWorker):
    """One that hears of no stop, and has always begun as often before as it is told."""

    begun = 0

    def _hear_of_stop(self) -> None:
        pass

    def _begin(self, _number: int) -> int:
        return self.begun + 1


def deal(worker: RayWorker, share: bytes) -> Result:
    result = pickle.loads(worker({"number": [0], "share": [share]})["result"][0])
    assert isinstance(result, Result)
    return result


def task(model: str = "tiny", weights: str | None = None) -> Task:
    import torch

    settings = Settings(model, quant="none", engine="torch", device="cpu")
    return Task(settings, "tiny", weights, Path("/nowhere"), 448, torch.get_num_threads())


def test_a_share_without_a_video_fails_as_everywhere() -> None:
    result = deal(Unconnected(task(), None), pickle.dumps(SHARE))
    assert [(place, line["error"]["kind"]) for place, line in result.lines] == [(0, "clip")]


def test_a_share_that_ends_its_workers_is_given_up() -> None:
    worker = Unconnected(task(), None)
    worker.begun = ATTEMPTS
    result = deal(worker, pickle.dumps(SHARE))
    assert [line["error"]["kind"] for _, line in result.lines] == ["memory"]


def test_a_share_that_is_dealt_with_has_no_result() -> None:
    assert deal(Unconnected(task(), None), DEALT_WITH).lines == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"weights": "0" * 64}, "tiny on a worker has other weights than here"),
    ],
    ids=["missing", "another"],
)
def test_a_worker_without_the_model_says_so_with_its_first_share(
    wrong: dict[str, str], says: str
) -> None:
    error = deal(Unconnected(task(**wrong), None), pickle.dumps(SHARE)).error
    assert error is not None
    assert says in error.message
