"""Shared fixtures: recorded vectors and a SentencePiece model."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

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
