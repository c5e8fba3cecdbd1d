"""A SentencePiece model of the Llama kind and size: byte fallback, 32,000 pieces.

A few hundred pieces are learnt from the sentences below; the others are fillers, which no text
needs and which a model with random weights will mostly say.
"""

import io

import sentencepiece

from pandacli.modeling.tokenization_videopanda import DEFAULT_SYSTEM

_LEARNT = 500  # pieces, 256 bytes among them
_SENTENCES = (
    DEFAULT_SYSTEM,
    "USER: What happens in this video? Who is there, and what are they doing? ASSISTANT:",
    "A panda sits in the grass and eats bamboo while another one climbs a tree behind it.",
    "How many people are in the picture? Is it day or night? Which colour is the car?",
    "Yes, no; one, two, three: a woman opens the door, walks to the left and waves her hand.",
)


def tokenizer_model(pieces: int = 32_000) -> bytes:
    """The contents of a `tokenizer.model` with so many pieces, the same at every call."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES),
        model_writer=model,
        vocab_size=pieces,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[f"<{number:05}>" for number in range(pieces - _LEARNT)],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()
