"""Batched sequences of the llama.cpp backend give the logits of single ones."""

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
from pandacli.inference.backends.llama_cpp.context import SLICE
from pandacli.inference.backends.llama_cpp.model import (
    MAX_TEXTS,
    LlamaCppBackend,
    LlamaCppSequence,
    LlamaCppSequenceBatch,
)
from pandacli.inference.planning.devices import Memory
from pandacli.quantization.gguf import export_gguf
from pandacli.quantization.llama_library import llama_library
from tests.small_llama import save_small_llama

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

PREFIX = [(7 * place) % 400 for place in range(60)]

ROUNDING = 3e-3
"""Relative error of logits where attention is rounded to half precision, in another order."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    save_small_llama(folder / "checkpoint")
    export_gguf(folder / "checkpoint", folder / "model.gguf", "f32")
    return folder / "model.gguf"


@pytest.fixture
def llama(gguf: Path) -> LlamaCppBackend:
    return LlamaCppBackend(gguf, context=1024, threads=1)


@pytest.fixture
def sequence(llama: LlamaCppBackend) -> LlamaCppSequence:
    sequence = llama.new_sequence()
    sequence.append(PREFIX)
    return sequence


def text(number: int, length: int) -> list[int]:
    return [(number * 31 + place * 13) % 400 for place in range(length)]


def single(llama: LlamaCppBackend, ids: list[int]) -> Tensor:
    return llama.new_sequence().append(PREFIX + ids)


def error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm())


def unchanged(llama: LlamaCppBackend, sequence: LlamaCppSequence) -> bool:
    return (
        sequence.length == len(PREFIX)
        and error(sequence.append([5]), single(llama, [5])) < ROUNDING
    )


@contextmanager
def interrupted_decode(
    llama: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch, call: int
) -> Iterator[None]:
    """Send SIGINT in a call of llama_decode, counted from 0, which aborts it."""
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


def test_sequence_and_batch_satisfy_the_protocol(sequence: LlamaCppSequence) -> None:
    given: Sequence = sequence
    batch: SequenceBatch = given.batch(10)
    batch.close()


def test_sequences_of_all_lengths_match_single_ones(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    texts = {number: text(number, 1 + 5 * number) for number in range(10)}
    logits = sequence.batch(400).append(texts)
    assert logits.shape == (10, 400)
    for number, given in enumerate(logits):
        assert error(given, single(llama, texts[number])) < ROUNDING


def test_logits_are_in_the_order_given_whatever_the_numbers(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    batch = sequence.batch(100)
    texts = {10**12: text(1, 4), -5: text(2, 9), 0: text(3, 2)}
    batch.append(texts)
    again = {0: [8], 10**12: [9], -5: [10, 11]}
    for number, given in zip(again, batch.append(again), strict=True):
        assert error(given, single(llama, texts[number] + again[number])) < ROUNDING


def test_a_sequence_that_starts_late_matches_a_single_one(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    batch = sequence.batch(100)
    batch.append({1: text(1, 7)})
    batch.append({1: [3]})
    old, new = batch.append({1: [4], 2: text(2, 12)})
    assert error(old, single(llama, [*text(1, 7), 3, 4])) < ROUNDING
    assert error(new, single(llama, text(2, 12))) < ROUNDING


def test_the_number_of_a_removed_sequence_can_be_reused(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    batch = sequence.batch(40)
    for _ in range(2 * MAX_TEXTS):
        batch.append({1: text(1, 20), 2: text(2, 5)})
        batch.remove(1)
        (given,) = batch.append({1: text(3, 30)})
        (other,) = batch.append({2: [6]})
        batch.remove(1)
        batch.remove(2)
    assert error(given, single(llama, text(3, 30))) < ROUNDING
    assert error(other, single(llama, [*text(2, 5), 6])) < ROUNDING


def test_more_ids_than_a_slice_are_decoded_in_several(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    texts = {number: text(number, 90) for number in range(10)}
    assert sum(map(len, texts.values())) > SLICE
    for number, given in enumerate(sequence.batch(900).append(texts)):
        assert error(given, single(llama, texts[number])) < ROUNDING


def test_greedy_tokens_match_those_of_single_sequences(sequence: LlamaCppSequence) -> None:
    """Sequences join and leave, as requests do whose answers differ in length."""
    starts = {number: text(number, 2 + number % 7) for number in range(80)}
    lengths = {number: 3 + number % 5 for number in starts}
    waiting, given = list(starts), {number: list[int]() for number in starts}
    batch, unread = sequence.batch(MAX_TEXTS * 16), dict[int, list[int]]()
    while waiting or unread:
        joining = [waiting.pop() for _ in range(min(9, len(waiting), MAX_TEXTS - len(unread)))]
        unread |= {number: starts[number] for number in joining}
        for number, logits in zip(list(unread), batch.append(unread), strict=True):
            given[number].append(int(logits.argmax()))
            unread[number] = given[number][-1:]
            if len(given[number]) == lengths[number]:
                batch.remove(number)
                del unread[number]
    batch.close()
    for number, ids in starts.items():
        fork = sequence.fork()
        for token in given[number]:
            logits = fork.append(ids)
            lead = logits.max() - logits[token]
            assert lead <= ROUNDING * logits.abs().max()  # 0 where it is the same token
            ids = [token]


def test_the_prefix_is_shared_where_the_context_has_room(sequence: LlamaCppSequence) -> None:
    context = sequence._context
    before = context.free
    batch = sequence.batch(500)
    batch.append({number: text(number, 10) for number in range(20)})
    assert batch._context is context
    assert context.free == before - 200
    batch.remove(3)
    assert context.free == before - 190


def test_a_batch_larger_than_the_context_gets_its_own(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    room = 2000
    batch = sequence.batch(room)
    context = weakref.ref(batch._opened())
    assert context() is not sequence._context
    texts = {number: text(number, 50) for number in range(40)}
    for number, given in enumerate(batch.append(texts)):
        assert error(given, single(llama, texts[number])) < ROUNDING
    batch.close()
    assert context() is None
    assert unchanged(llama, sequence)


def test_forks_count_against_the_free_room(sequence: LlamaCppSequence) -> None:
    forks = [sequence.fork() for _ in range(3)]
    for number, fork in enumerate(forks):
        fork.append(text(number, 200))
    assert sequence._context.free == 1024 - 60 - 600
    assert sequence.batch(300)._context is sequence._context
    assert sequence.batch(400)._context is not sequence._context


def test_closing_leaves_the_sequence_unchanged(
    llama: LlamaCppBackend, sequence: LlamaCppSequence
) -> None:
    for _ in range(5):
        batch = sequence.batch(900)
        assert batch._context is sequence._context
        batch.append({number: text(number, 14) for number in range(MAX_TEXTS)})
        batch.close()
        batch.close()
    assert unchanged(llama, sequence)


def test_a_closed_batch_refuses_to_append(sequence: LlamaCppSequence) -> None:
    batch = sequence.batch(10)
    batch.close()
    with pytest.raises(ValueError, match="the batch is closed"):
        batch.append({1: [2]})


def test_an_unreferenced_batch_frees_its_cells(sequence: LlamaCppSequence) -> None:
    free = sequence._context.free
    for _ in range(5):
        batch = sequence.batch(900)
        batch.append({1: text(1, 700)})
        assert batch._context is sequence._context
        del batch
    assert sequence._context.free == free


def test_a_batch_outlives_its_sequence(llama: LlamaCppBackend) -> None:
    def branch() -> LlamaCppSequenceBatch:
        sequence = llama.new_sequence()
        sequence.append(PREFIX)
        return sequence.batch(50)

    batch = branch()
    batch.append({1: [4]})
    for number, given in zip((5, 6), batch.append({1: [5], 2: [6]}), strict=True):
        assert error(given, single(llama, [4, 5] if number == 5 else [6])) < ROUNDING


def test_an_empty_sequence_can_be_batched(llama: LlamaCppBackend) -> None:
    (given,) = llama.new_sequence().batch(100).append({1: PREFIX})
    assert error(given, single(llama, [])) < ROUNDING


@pytest.mark.parametrize("call", [0, 1])
def test_an_interrupted_append_changes_nothing(
    llama: LlamaCppBackend, sequence: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    batch = sequence.batch(900)
    batch.append({1: text(1, 7), 2: text(2, 8)})
    free = sequence._context.free
    with interrupted_decode(llama, monkeypatch, call), pytest.raises(KeyboardInterrupt):
        batch.append({1: text(4, 400), 3: text(3, 400)})
    assert sequence._context.free == free
    first, third = batch.append({1: [3], 3: [4]})
    assert error(first, single(llama, [*text(1, 7), 3])) < ROUNDING
    assert error(third, single(llama, [4])) < ROUNDING


@pytest.mark.parametrize("room", [900, 2000])
def test_closing_after_an_interrupt_releases_the_sequence(
    llama: LlamaCppBackend, sequence: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    batch = sequence.batch(room)
    with interrupted_decode(llama, monkeypatch, 0), pytest.raises(KeyboardInterrupt):
        batch.append({number: text(number, 80) for number in range(10)})
    batch.close()
    assert unchanged(llama, sequence)


def test_a_failure_of_llama_cpp_is_a_device_error(
    sequence: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = sequence.batch(100)
    monkeypatch.setattr(llama_library(), "llama_decode", lambda *_: -3)
    with pytest.raises(DeviceError, match="could not compute: it gave status -3"):
        batch.append({1: [2]})


def test_a_full_context_is_a_device_error(sequence: LlamaCppSequence) -> None:
    batch, fork = sequence.batch(900), sequence.fork()
    fork.append(text(1, 600))
    with pytest.raises(DeviceError, match="other sequences have filled it"):
        batch.append({number: text(number, 100) for number in range(9)})


def test_too_little_memory_is_refused_before_allocation(
    sequence: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(llama_module, "usable_memory", lambda: Memory(2**30, 2**21))
    monkeypatch.setattr(llama_module, "LlamaContext", lambda *sizes: opened.append(sizes[1]))
    with pytest.raises(DeviceError, match="no room for a KV cache of 4060 tokens"):
        sequence.batch(4000)
    assert not opened


def test_a_failed_allocation_of_llama_cpp_is_a_device_error(
    llama: LlamaCppBackend, sequence: LlamaCppSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(llama_library(), "llama_init_from_model", lambda *_: None)
        with pytest.raises(DeviceError, match="no room for a KV cache of 4060 tokens"):
            sequence.batch(4000)
    assert unchanged(llama, sequence)


def test_more_than_the_maximum_of_sequences_is_refused(sequence: LlamaCppSequence) -> None:
    batch = sequence.batch(900)
    batch.append({number: [number] for number in range(MAX_TEXTS)})
    with pytest.raises(ValueError, match=f"more than {MAX_TEXTS} texts"):
        batch.append({MAX_TEXTS: [1]})
    batch.remove(7)
    assert batch.append({MAX_TEXTS: [1]}).shape == (1, 400)


def test_more_positions_than_room_are_refused(sequence: LlamaCppSequence) -> None:
    batch = sequence.batch(20)
    batch.append({1: text(1, 10)})
    with pytest.raises(DeviceError, match="no room in the KV cache for 21 tokens"):
        batch.append({1: [1], 2: text(2, 10)})
    batch.remove(1)
    batch.append({2: text(2, 20)})


def test_room_is_limited_to_the_useful(sequence: LlamaCppSequence) -> None:
    assert sequence.batch(10**9)._opened().free == 64 * MAX_TEXTS


def test_a_sequence_longer_than_the_context_is_refused(sequence: LlamaCppSequence) -> None:
    batch = sequence.batch(2000)
    with pytest.raises(ValueError, match="1025 positions are more than the context's 1024"):
        batch.append({1: text(1, 965)})


@pytest.mark.parametrize("ids", [[], [400], [-1, 3], [2**40]])
def test_ids_that_are_not_tokens_are_refused(sequence: LlamaCppSequence, ids: list[int]) -> None:
    batch = sequence.batch(100)
    with pytest.raises(ValueError, match="wanted ids from 0 to 399, at least one"):
        batch.append({1: [3], 2: ids})


def test_appending_nothing_returns_no_logits(sequence: LlamaCppSequence) -> None:
    assert sequence.batch(10).append({}).shape == (0, 400)
