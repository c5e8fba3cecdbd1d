"""What the second question of a conversation costs beside the first: `python -m benchmarks.turns`.

    python -m benchmarks.big_checkpoint /tmp/wide --layers 4
    python -m benchmarks.turns /tmp/wide --quant 8bit --engine torch

The first answer waits for the prefix (system prompt and frames), the second only for its question.
Medians over conversations that each begin with a clip nothing is known of.
"""

import argparse
import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.one_form import CLIP
from pandacli import Panda
from pandacli.chat.conversation import Conversation
from pandacli.inference.spec import GenerationOptions

QUESTIONS = ("What happens in this video?", "What does the largest of them do?", "And why?")


def measure(panda: Panda, repeats: int, tokens: int) -> list[dict[str, Any]]:
    """Of each turn, the tokens that were read for it and the seconds to its first token."""
    measured: list[list[tuple[int, float]]] = [[] for _ in QUESTIONS]
    for _ in range(repeats):
        conversation = Conversation(panda.open(CLIP))
        for turn, question in zip(measured, QUESTIONS, strict=True):
            stream = conversation.ask(question, GenerationOptions(max_tokens=tokens))
            for _ in stream:
                pass
            stats = stream.answer.stats
            turn.append((stats.prefilled_tokens, stats.first_token_seconds))
    return [
        {
            "prefilled_tokens": median(tokens for tokens, _ in turn),
            "first_token_seconds": median(seconds for _, seconds in turn),
        }
        for turn in measured
    ]


def table_of(turns: Sequence[dict[str, Any]]) -> Table:
    """One row a turn; the last column is the share of what the first turn took."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("turn", "tokens read", "first token, s", "of the first turn"):
        table.add_column(heading, justify="right")
    first = turns[0]["first_token_seconds"]
    for number, turn in enumerate(turns, 1):
        seconds = turn["first_token_seconds"]
        read = f"{turn['prefilled_tokens']:.0f}"
        table.add_row(str(number), read, f"{seconds:.3g}", f"{seconds / first:.1%}")
    return table


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="a checkpoint folder, or a model's name")
    parser.add_argument("--quant", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=8, help="of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    panda = Panda.load(
        wanted.checkpoint, quant=wanted.quant, engine=wanted.engine, device=wanted.device
    )
    turns = measure(panda, wanted.repeats, wanted.tokens)
    if wanted.json:
        print(json.dumps({"quant": panda.quant, "engine": panda.engine, "turns": turns}, indent=2))
    else:
        Console().print(table_of(turns))


if __name__ == "__main__":
    main()
