"""Shared fixtures: recorded vectors and a SentencePiece model."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from torch import Tensor

from benchmarks.official_layout import config_of, write_config
from pandacli.modeling.checkpoint import tensor_name
from tests.modeling.official_layout import (
    SMALL,
    tensors_of,
    write_bin_shards,
)

PARITY = Path(__file__).parent.parent / "data" / "parity"


@pytest.fixture(scope="session")
def prompt_vectors() -> dict[str, Any]:
    """Prompts, ids and decoded answers of the official code, with the Llama tokenizer."""
    vectors: dict[str, Any] = json.loads((PARITY / "prompt.json").read_text(encoding="utf-8"))
    return vectors


@pytest.fixture(scope="session")
def sentencepiece_file() -> Path:
    """A 32,000-piece model of Llama's kind: byte fallback, no stripping."""
    spec = find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "tokenizer.model.v1"


@pytest.fixture(scope="session")
def processor(sentencepiece_file: Path) -> sentencepiece.SentencePieceProcessor:
    """The model of `sentencepiece_file`, loaded."""
    return sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_file))


@pytest.fixture(scope="module")
def small_tensors() -> dict[str, Tensor]:
    return tensors_of(config_of(**SMALL))


@pytest.fixture
def folder(tmp_path: Path, small_tensors: dict[str, Tensor]) -> Path:
    """A small checkpoint in two `.bin` shards."""
    write_config(tmp_path, config_of(**SMALL))
    write_bin_shards(tmp_path, small_tensors)
    return tmp_path


@pytest.fixture
def unshared(tmp_path: Path, small_tensors: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    """A folder without weights, and the weights under our names."""
    write_config(tmp_path, config_of(**SMALL))
    needed = {name: t for name, t in small_tensors.items() if tensor_name(name) == name}
    return tmp_path, needed
