"""What a run on Ray and its workers tell each other, without Ray."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from pandacli.batch.ray_board import DEALT_WITH, Board


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def test_a_share_is_waited_for() -> None:
    async def taking() -> tuple[bool, bytes | None]:
        board = Board()
        taken = asyncio.create_task(board.take(0))
        await asyncio.sleep(0.01)
        early = taken.done()
        await board.pin(b"share")
        return early, await taken

    assert run(taking()) == (False, b"share")


def test_after_the_last_share_comes_none() -> None:
    async def taking() -> list[bytes | None]:
        board = Board()
        await board.pin(b"share")
        await board.complete()
        return [await board.take(number) for number in (0, 1)]

    assert run(taking()) == [b"share", None]


def test_a_share_can_be_taken_again() -> None:
    async def taking() -> list[bytes | None]:
        board = Board()
        await board.pin(b"share")
        return [await board.take(0), await board.take(0)]

    assert run(taking()) == [b"share", b"share"]


def test_a_settled_share_keeps_its_number_and_nothing_else() -> None:
    async def taking() -> list[bytes | None]:
        board = Board()
        await board.pin(b"first")
        await board.pin(b"second")
        await board.settle(0)
        return [await board.take(0), await board.take(1)]

    assert run(taking()) == [DEALT_WITH, b"second"]


def test_what_is_begun_is_counted() -> None:
    async def beginning() -> list[int]:
        board = Board()
        return [await board.begin(7), await board.begin(8), await board.begin(7)]

    assert run(beginning()) == [1, 1, 2]


def test_what_is_begun_and_not_settled_is_under_way() -> None:
    async def beginning() -> list[int]:
        board = Board()
        await board.begin(7)
        await board.begin(8)
        await board.settle(7)
        return await board.under_way()

    assert run(beginning()) == [8]


def test_a_stop_is_heard() -> None:
    async def stopping() -> None:
        board = Board()
        heard = asyncio.create_task(board.wait_for_stop())
        await board.stop()
        await asyncio.wait_for(heard, 5)

    run(stopping())


def test_nothing_follows_a_stop() -> None:
    async def stopping() -> bytes | None:
        board = Board()
        await board.stop()
        return await board.take(0)

    assert run(stopping()) is None
