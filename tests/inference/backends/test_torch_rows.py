"""Rows of the torch backend give the logits of single sequences."""

import pytest
import torch

from pandacli import Panda
from pandacli.inference.backends.torch import TorchBackend, TorchRows, TorchSequence

TREE = [5, 6, 7, 8], [-1, 0, 0, 2], [1, 2, 3]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def backend(panda: Panda) -> TorchBackend:
    return TorchBackend(panda.model)


@pytest.fixture
def embeddings(panda: Panda) -> torch.Tensor:
    """Of five rows."""
    width = panda.model.config.hidden_size
    return torch.randn(5, 30, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def rows(backend: TorchBackend, embeddings: torch.Tensor) -> TorchRows:
    return backend.rows(embeddings)


@pytest.fixture
def single(backend: TorchBackend, embeddings: torch.Tensor) -> list[TorchSequence]:
    """Each row by itself."""
    sequences = [backend.new_sequence() for _ in embeddings]
    for sequence, row in zip(sequences, embeddings, strict=True):
        sequence.prefill(row)
    return sequences


def test_rows_are_computed_as_single_sequences(
    rows: TorchRows, single: list[TorchSequence]
) -> None:
    batch = rows.batch()
    for step in ([5, 6, 7], [8], [9]):
        texts = {row: [token + row for token in step] for row in range(5)}
        expected = torch.stack([single[row].append(ids) for row, ids in texts.items()])
        assert_close(batch.append(texts), expected)


def test_the_others_continue_when_rows_are_removed(
    rows: TorchRows, single: list[TorchSequence]
) -> None:
    batch = rows.batch()
    for left in ([0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 3, 4], [3, 4], [3, 4], [4]):
        texts = {row: [7 + row] for row in left}
        expected = torch.stack([single[row].append(ids) for row, ids in texts.items()])
        assert_close(batch.append(texts), expected)


def test_closing_restores_all_rows(rows: TorchRows, single: list[TorchSequence]) -> None:
    batch = rows.batch()
    batch.append({row: [5, 6] for row in range(5)})
    batch.append({2: [5]})
    batch.close()
    again = rows.batch().append({row: [9] for row in range(5)})
    assert_close(again, torch.stack([sequence.append([9]) for sequence in single]))


def test_a_tree_is_computed_behind_each_row(rows: TorchRows, single: list[TorchSequence]) -> None:
    expected = torch.stack([sequence.tree(*TREE) for sequence in single])
    assert_close(rows.tree(*TREE), expected)
    assert_close(rows.tree(*TREE), expected)


def test_rows_round_their_prefix_to_half_precision(panda: Panda, embeddings: torch.Tensor) -> None:
    backend = TorchBackend(panda.model, half_prefix=True)
    sequence = backend.new_sequence()
    sequence.prefill(embeddings[1])
    found = backend.rows(embeddings).batch().append({row: [5] for row in range(5)})
    torch.testing.assert_close(found[1], sequence.append([5]), rtol=1e-3, atol=1e-3)
    layer = backend.rows(embeddings)._cache.layers[1]
    torch.testing.assert_close(layer.keys, layer.keys.half().float(), rtol=0, atol=0)
