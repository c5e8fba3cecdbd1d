"""Train the SentencePiece model of `tiny` on its questions and answers."""

from pathlib import Path

import numpy as np
import sentencepiece

from pandacli.modeling.tokenization_videopanda import DEFAULT_SYSTEM
from training.questions import QUESTION_KINDS, random_dialogue
from training.scenes import random_scene

VOCABULARY_SIZE = 640
_SCENES = 1500


def train_vocabulary(folder: Path, seed: int) -> Path:
    """Train a BPE model with byte fallback, as Llama has; returns its `tokenizer.model`."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(_SCENES):
        scene = random_scene(rng, width=320, height=240)
        for kind in QUESTION_KINDS:
            turns = random_dialogue(scene, kind, rng).turns
            texts.append(" ".join(f"USER: {q} ASSISTANT: {a}" for q, a in turns))
    texts += [f"{DEFAULT_SYSTEM} USER:"] * (len(texts) // 20)
    prefix = folder / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(prefix),
        vocab_size=VOCABULARY_SIZE,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    prefix.with_suffix(".vocab").unlink()
    return prefix.with_suffix(".model")
