"""Texts that llama.cpp reads together get what each gets alone."""

import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from pandacli.errors import DeviceError
from pandacli.inference.backends import Sequence, SequenceBatch
from pandacli.inference.backends.llama_cpp import model as llama_module
from pandacli.inference.backends.llama_cpp.batch import MOST_TEXTS, LlamaCppSequenceBatch
from pandacli.inference.backends.llama_cpp.context import SLICE
from pandacli.inference.backends.llama_cpp.model import LlamaCppBackend, LlamaCppSequence
from pandacli.inference.planning.devices import Memory
from pandacli.quantization.gguf import export_gguf
from pandacli.quantization.llama_library import llama_library
from tests.small_llama import save_small_llama

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

PAST = [(7 * place) % 400 for place in range(60)]

ROUNDING = 3e-3
"""Relative error of logits where attention is rounded to half precision, in another order."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("branches")
    save_small_llama(folder / "checkpoint")
    export_gguf(folder / "checkpoint", folder / "model.gguf", "f32")
    return folder / "model.gguf"


@pytest.fixture
def llama(gguf: Path) -> LlamaCppBackend:
    return LlamaCppBackend(gguf, context=1024, threads=1)


@pytest.fixture
def reading(llama: LlamaCppBackend) -> LlamaCppSequence:
    reading = llama.new_sequence()
    reading.append(PAST)
    return reading


def text(number: int, length: int) -> list[int]:
    return [(number * 31 + place * 13) % 400 for place in range(length)]


def alone(llama: LlamaCppBackend, ids: list[int]) -> Tensor:
    return llama.new_sequence().append(PAST + ids)


def error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm())


def unchanged(llama: LlamaCppBackend, reading: LlamaCppSequence) -> bool:
    return reading.length == len(PAST) and error(reading.append([5]), alone(llama, [5])) < ROUNDING


@contextmanager
def interrupted_decode(
    llama: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch, call: int
) -> Iterator[None]:
    """A Ctrl-C comes in the given call of llama.cpp, from 0, which it stops."""
    library, calls = llama_library(), iter(range(1000))
    decode: Callable[..., int] = library.llama_decode

    def interrupted(*arguments: object) -> int:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
            assert llama._weights._stop.wait(60)
        return decode(*arguments)

    # a shell that starts the tests in the background has them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(library, "llama_decode", interrupted)
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_they_are_branches_of_a_reading(reading: LlamaCppSequence) -> None:
    given: Sequence = reading
    branches: SequenceBatch = given.batch(10)
    branches.close()


def test_texts_of_all_lengths_get_what_each_gets_alone(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    texts = {number: text(number, 1 + 5 * number) for number in range(10)}
    logits = reading.batch(400).append(texts)
    assert logits.shape == (10, 400)
    for number, given in enumerate(logits):
        assert error(given, alone(llama, texts[number])) < ROUNDING


def test_logits_come_in_the_order_of_the_texts_whatever_their_numbers(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    branches = reading.batch(100)
    texts = {10**12: text(1, 4), -5: text(2, 9), 0: text(3, 2)}
    branches.append(texts)
    again = {0: [8], 10**12: [9], -5: [10, 11]}
    for number, given in zip(again, branches.append(again), strict=True):
        assert error(given, alone(llama, texts[number] + again[number])) < ROUNDING


def test_a_text_that_begins_late_gets_what_it_gets_alone(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    branches = reading.batch(100)
    branches.append({1: text(1, 7)})
    branches.append({1: [3]})
    old, new = branches.append({1: [4], 2: text(2, 12)})
    assert error(old, alone(llama, [*text(1, 7), 3, 4])) < ROUNDING
    assert error(new, alone(llama, text(2, 12))) < ROUNDING


def test_a_number_whose_text_has_ended_begins_another(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    branches = reading.batch(40)
    for _ in range(2 * MOST_TEXTS):
        branches.append({1: text(1, 20), 2: text(2, 5)})
        branches.remove(1)
        (given,) = branches.append({1: text(3, 30)})
        (other,) = branches.append({2: [6]})
        branches.remove(1)
        branches.remove(2)
    assert error(given, alone(llama, text(3, 30))) < ROUNDING
    assert error(other, alone(llama, [*text(2, 5), 6])) < ROUNDING


def test_more_ids_than_a_slice_are_read_in_several(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    texts = {number: text(number, 90) for number in range(10)}
    assert sum(map(len, texts.values())) > SLICE
    for number, given in enumerate(reading.batch(900).append(texts)):
        assert error(given, alone(llama, texts[number])) < ROUNDING


def test_greedy_tokens_are_those_of_each_text_alone(reading: LlamaCppSequence) -> None:
    """Texts join and leave all the time, as questions do whose answers differ in length."""
    starts = {number: text(number, 2 + number % 7) for number in range(80)}
    lengths = {number: 3 + number % 5 for number in starts}
    waiting, given = list(starts), {number: list[int]() for number in starts}
    branches, unread = reading.batch(MOST_TEXTS * 16), dict[int, list[int]]()
    while waiting or unread:
        joining = [waiting.pop() for _ in range(min(9, len(waiting), MOST_TEXTS - len(unread)))]
        unread |= {number: starts[number] for number in joining}
        for number, logits in zip(list(unread), branches.append(unread), strict=True):
            given[number].append(int(logits.argmax()))
            unread[number] = given[number][-1:]
            if len(given[number]) == lengths[number]:
                branches.remove(number)
                del unread[number]
    branches.close()
    for number, ids in starts.items():
        fork = reading.fork()
        for token in given[number]:
            logits = fork.append(ids)
            lead = logits.max() - logits[token]
            assert lead <= ROUNDING * logits.abs().max()  # 0 where it is the same token
            ids = [token]


def test_the_past_is_shared_where_the_context_has_room(reading: LlamaCppSequence) -> None:
    context = reading._context
    before = context.free
    branches = reading.batch(500)
    branches.append({number: text(number, 10) for number in range(20)})
    assert branches._context is context
    assert context.free == before - 200
    branches.remove(3)
    assert context.free == before - 190


def test_a_context_that_is_too_small_is_left_for_another(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    room = 2000
    branches = reading.batch(room)
    context = weakref.ref(branches._opened())
    assert context() is not reading._context
    texts = {number: text(number, 50) for number in range(40)}
    for number, given in enumerate(branches.append(texts)):
        assert error(given, alone(llama, texts[number])) < ROUNDING
    branches.close()
    assert context() is None
    assert unchanged(llama, reading)


def test_forks_that_fill_the_context_are_counted(reading: LlamaCppSequence) -> None:
    forks = [reading.fork() for _ in range(3)]
    for number, fork in enumerate(forks):
        fork.append(text(number, 200))
    assert reading._context.free == 1024 - 60 - 600
    assert reading.batch(300)._context is reading._context
    assert reading.batch(400)._context is not reading._context


def test_closed_branches_leave_the_reading_as_it_was(
    llama: LlamaCppBackend, reading: LlamaCppSequence
) -> None:
    for _ in range(5):
        branches = reading.batch(900)
        assert branches._context is reading._context
        branches.append({number: text(number, 14) for number in range(MOST_TEXTS)})
        branches.close()
        branches.close()
    assert unchanged(llama, reading)


def test_closed_branches_read_no_more(reading: LlamaCppSequence) -> None:
    branches = reading.batch(10)
    branches.close()
    with pytest.raises(ValueError, match="the branches are closed"):
        branches.append({1: [2]})


def test_branches_that_are_dropped_give_back_what_they_hold(reading: LlamaCppSequence) -> None:
    free = reading._context.free
    for _ in range(5):
        branches = reading.batch(900)
        branches.append({1: text(1, 700)})
        assert branches._context is reading._context
        del branches
    assert reading._context.free == free


def test_branches_outlive_their_reading(llama: LlamaCppBackend) -> None:
    def branch() -> LlamaCppSequenceBatch:
        reading = llama.new_sequence()
        reading.append(PAST)
        return reading.batch(50)

    branches = branch()
    branches.append({1: [4]})
    for number, given in zip((5, 6), branches.append({1: [5], 2: [6]}), strict=True):
        assert error(given, alone(llama, [4, 5] if number == 5 else [6])) < ROUNDING


def test_a_reading_of_nothing_branches_too(llama: LlamaCppBackend) -> None:
    (given,) = llama.new_sequence().batch(100).append({1: PAST})
    assert error(given, alone(llama, [])) < ROUNDING


@pytest.mark.parametrize("call", [0, 1])
def test_an_interrupted_read_leaves_the_texts_as_they_were(
    llama: LlamaCppBackend, reading: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    branches = reading.batch(900)
    branches.append({1: text(1, 7), 2: text(2, 8)})
    free = reading._context.free
    with interrupted_decode(llama, monkeypatch, call), pytest.raises(KeyboardInterrupt):
        branches.append({1: text(4, 400), 3: text(3, 400)})
    assert reading._context.free == free
    first, third = branches.append({1: [3], 3: [4]})
    assert error(first, alone(llama, [*text(1, 7), 3])) < ROUNDING
    assert error(third, alone(llama, [4])) < ROUNDING


@pytest.mark.parametrize("room", [900, 2000])
def test_closing_after_an_interrupt_gives_the_reading_back(
    llama: LlamaCppBackend, reading: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    branches = reading.batch(room)
    with interrupted_decode(llama, monkeypatch, 0), pytest.raises(KeyboardInterrupt):
        branches.append({number: text(number, 80) for number in range(10)})
    branches.close()
    assert unchanged(llama, reading)


def test_a_failure_of_llama_cpp_is_told(
    reading: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = reading.batch(100)
    monkeypatch.setattr(llama_library(), "llama_decode", lambda *_: -3)
    with pytest.raises(DeviceError, match="could not compute: it gave status -3"):
        branches.append({1: [2]})


def test_a_context_that_others_have_filled_is_told(reading: LlamaCppSequence) -> None:
    branches, fork = reading.batch(900), reading.fork()
    fork.append(text(1, 600))
    with pytest.raises(DeviceError, match="others have filled it"):
        branches.append({number: text(number, 100) for number in range(9)})


def test_too_little_memory_is_told_before_it_is_taken(
    reading: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(llama_module, "usable_memory", lambda: Memory(2**30, 2**21))
    monkeypatch.setattr(llama_module, "LlamaContext", lambda *sizes: opened.append(sizes[1]))
    with pytest.raises(DeviceError, match="no room for a KV cache of 4060 tokens"):
        reading.batch(4000)
    assert not opened


def test_memory_that_llama_cpp_does_not_get_is_told(
    llama: LlamaCppBackend, reading: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(llama_library(), "llama_init_from_model", lambda *_: None)
        with pytest.raises(DeviceError, match="no room for a KV cache of 4060 tokens"):
            reading.batch(4000)
    assert unchanged(llama, reading)


def test_there_are_no_more_texts_than_sequences(reading: LlamaCppSequence) -> None:
    branches = reading.batch(900)
    branches.append({number: [number] for number in range(MOST_TEXTS)})
    with pytest.raises(ValueError, match=f"more than {MOST_TEXTS} texts"):
        branches.append({MOST_TEXTS: [1]})
    branches.remove(7)
    assert branches.append({MOST_TEXTS: [1]}).shape == (1, 400)


def test_there_are_no_more_positions_than_room(reading: LlamaCppSequence) -> None:
    branches = reading.batch(20)
    branches.append({1: text(1, 10)})
    with pytest.raises(DeviceError, match="no room in the KV cache for 21 tokens"):
        branches.append({1: [1], 2: text(2, 10)})
    branches.remove(1)
    branches.append({2: text(2, 20)})


def test_no_more_memory_is_taken_than_short_texts_need(reading: LlamaCppSequence) -> None:
    assert reading.batch(10**9)._opened().free == 64 * MOST_TEXTS


def test_a_text_is_no_longer_than_a_reading_may_be(reading: LlamaCppSequence) -> None:
    branches = reading.batch(2000)
    with pytest.raises(ValueError, match="1025 positions are more than the context's 1024"):
        branches.append({1: text(1, 965)})


@pytest.mark.parametrize("ids", [[], [400], [-1, 3], [2**40]])
def test_what_is_no_token_is_refused(reading: LlamaCppSequence, ids: list[int]) -> None:
    branches = reading.batch(100)
    with pytest.raises(ValueError, match="wanted ids from 0 to 399, at least one"):
        branches.append({1: [3], 2: ids})


def test_no_texts_have_no_logits(reading: LlamaCppSequence) -> None:
    assert reading.batch(10).append({}).shape == (0, 400)
