"""What a form of a model does on a card, as one JSON line: the work of `benchmarks.cuda`.

    python -m benchmarks.form_on_card MODEL QUANT DEVICE TOKENS QUESTIONS
    python -m benchmarks.form_on_card MODEL QUANT DEVICE    # makes the quantised copy, and no more

Nothing is measured at its first use, when kernels are loaded and memory is allocated. A card runs
behind the host, so each measured time ends with a token that the host has got.
"""

import json
import sys
from time import perf_counter
from typing import Any

from benchmarks.one_form import CLIP, QUESTION, ask, load
from pandacli.inference.backends.torch import TorchBackend
from pandacli.inference.planning.loader import make_artifact
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Answer, GenerationOptions, Request, RunSpec


def measure(model: str, quant: str, device: str, tokens: int, questions: int) -> dict[str, Any]:
    """Load a form, and ask in every way.

    Args:
        model: A checkpoint folder, or a model's name.
        quant: What `--quant` takes, as `device` is what `--device` takes.
        device: Where.
        tokens: The length of an answer.
        questions: About one clip, in a batch.

    Raises:
        PandaError: The form cannot be loaded, or fails.
    """
    panda, measured = load(model, quant, "auto", device)
    ask(panda, tokens)
    measured |= ask(panda, tokens)
    session = panda.open(CLIP)
    measured["decode_tokens_per_second"] = _decode_rate(session, tokens)
    backend = panda.backend
    if isinstance(backend, TorchBackend) and (decoder := backend.decoder):
        backend.decoder = None
        measured["eager_decode_tokens_per_second"] = _decode_rate(session, tokens)
        measured["graphs_problem"] = decoder.problem
        backend.decoder = decoder
    _seconds_of_batch(session, tokens, questions)
    seconds = _seconds_of_batch(session, tokens, questions)
    return measured | {
        "batch_questions": questions,
        "batch_answers_per_second": questions / seconds,
        "peak_bytes": panda.peak_memory,
    }


def _decode_rate(session: VideoSession, tokens: int) -> float:
    """Tokens a second after the first of an answer, in the second of two answers."""
    rates = [session.ask(QUESTION, max_tokens=tokens).stats.tokens_per_second for _ in range(2)]
    return rates[-1]


def _seconds_of_batch(session: VideoSession, tokens: int, questions: int) -> float:
    requests = [Request(f"{QUESTION} Say it in {number + 3} words.") for number in range(questions)]
    started = perf_counter()
    with session.generate(requests, GenerationOptions(max_tokens=tokens), stream=False) as answers:
        for _, answer in answers.results():
            if not isinstance(answer, Answer):
                raise answer
    return perf_counter() - started


def main() -> None:
    """Measure what the command line names, or make its quantised copy."""
    model, quant, device, *counts = sys.argv[1:]
    if counts:
        print(json.dumps(measure(model, quant, device, *map(int, counts))))
    else:
        make_artifact(resolve_run(RunSpec(model, quant, device=device)))


if __name__ == "__main__":
    main()
