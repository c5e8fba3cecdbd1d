"""The benchmark of many clients of one server."""

from collections.abc import Iterator

import pytest

from benchmarks.__main__ import serving_rows
from benchmarks.serving import ONE_BY_ONE, TOGETHER, VIDEO, clients, group_of, is_loaded, measure
from pandacli import Panda
from tests.inference.conftest import panda as panda
from tests.server.live import MODEL, Live


@pytest.fixture(scope="module")
def server(panda: Panda) -> Iterator[Live]:
    with Live(lambda: panda, VIDEO.parent) as running:
        yield running


def test_answers_of_all_clients_are_counted(server: Live) -> None:
    assert is_loaded(server.port)
    found = clients(server.port, MODEL, 0.5, 3)
    assert found["errors"] == 0
    assert found["answers"] >= 3
    assert found["answers_per_second"] == found["answers"] / 0.5
    assert 0 < found["median_seconds"] <= found["longest_seconds"]


def test_an_error_is_no_answer(server: Live) -> None:
    found = clients(server.port, "another model", 0.1, 2)
    assert found["answers"] == 0
    assert found["errors"] >= 2


def test_a_server_that_is_not_there_is_not_loaded() -> None:
    assert not is_loaded(1)


@pytest.mark.slow
def test_both_ways_and_the_memory_are_measured() -> None:
    found = measure("tiny", "cpu", 4, 1.0, 1)
    assert found["ways"].keys() == {TOGETHER, ONE_BY_ONE}
    assert all(way["answers"] and not way["errors"] for way in found["ways"].values())
    assert min(found["memory"].values()) > 50 * 2**20
    table, ratio = group_of(found).renderables
    assert table.row_count == 2
    assert "times as many" in ratio
    (together, memory) = serving_rows(found)
    assert (together.unit, memory.unit) == ("answers/s", "MB")
