"""How near ours come to the machine's limits: what each step needs, over what the machine can do.

A step needs the multiply-adds of its matrix products, or the bytes of the weights that it reads,
counted from the sizes of the model that was measured. What a form does beyond that (attention over
the KV cache in decoding, quantising the inputs, norms, second passes) is not counted, so a share is
what a user gets out of the machine. Embeddings are looked up by row, so they count for nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from benchmarks.limits import Limits
from benchmarks.report import THE_LIMIT, Row
from pandacli.inference.planning.devices import sizes_of
from pandacli.modeling.configuration import ModelConfig

PRODUCT_GOAL = 0.6  # of the best matrix product in the type that a step uses
DECODE_GOAL = 0.6  # of reading memory
LOADING_GOAL = 0.5  # of reading the disk
_WHOLE = 0.9  # of a file, from which it counts as read
_LARGE = 2e9  # bytes of a file, from which reading it takes longer than everything else of a load

CELLS = {"1:1": 16 * 16, "16:9": 16 * 9}  # of 2x2 patches in a frame, by its shape
_FRAMES = 8
_STAB_GROUP = re.compile(r"STAB, (\d+) threads?")

# The type of the products in the decoder layers; the others compute in the type of the model.
_INTEGERS = {
    *(("8bit", "torch"), ("8bit", "bitsandbytes"), ("8bit", "llama")),
    *(("4bit", "torch"), ("4bit", "llama")),
}
# Bytes of a weight of the decoder layers and of the head; elsewhere they have the model's type.
# Q8_0 has 8.5 bits, Q4_K 4.5 and Q6_K 6.5625; Q4_K_M has Q6_K in the head, and in half of the value
# and down projections, which is 4.82 bits in the layers of the 7B's width.
_LAYER_BYTES = {
    ("8bit", "torch"): 1.0,
    ("8bit", "bitsandbytes"): 1.0,
    ("8bit", "llama"): 8.5 / 8,
    ("4bit", "torch"): 1.0,  # widened at load
    ("4bit", "bitsandbytes"): 0.5,
    ("4bit", "llama"): 4.82 / 8,
}
_HEAD_BYTES = {("8bit", "llama"): 8.5 / 8, ("4bit", "llama"): 6.5625 / 8}
_TYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_HAVE_GOALS = {
    "prefill": {("none", "torch"), ("8bit", "torch")},
    "decode": {("8bit", "torch"), ("8bit", "llama"), ("4bit", "llama")},
}


def stab_multiply_adds(config: ModelConfig, cells: int, frames: int = _FRAMES) -> int:
    """STAB with the projector for frames with `cells` of 2x2 patches each.

    W_k of LSD is applied to its query, as `fused_stab` does: the plain form needs more.
    """
    width, hidden, heads = config.video_hidden_size, config.hidden_size, config.video_num_heads
    pixels, inner = 3 * config.patch_size**2, width * 2 // 3
    grid = (config.image_size // config.patch_size) ** 2
    patches, blocks = frames * cells * 4, frames * cells
    embedding = patches * pixels * (width + inner)  # the second without an embedding in between
    mixing = patches * inner * (3 + width) + frames * grid * 27 * width
    attention = 2 * heads * width * patches  # of GSTRA
    attention += blocks * (4 * width * width + 8 * heads * width)  # of LSD
    attention += 2 * heads * width * blocks  # of FSRA
    tokens = blocks + frames + 1  # and the split token once
    return embedding + mixing + attention + tokens * (width * hidden + hidden * hidden)


def prefill_multiply_adds(config: ModelConfig, tokens: int) -> int:
    """The Llama over `tokens` new positions, with causal attention and one row of logits."""
    sizes = sizes_of(config)
    pairs = tokens * (tokens + 1) // 2
    attention = 2 * config.num_attention_heads * config.head_dim * pairs
    head = config.vocab_size * config.hidden_size
    return sizes.layers * (tokens * sizes.linears + attention) + head


def decode_bytes(config: ModelConfig, quant: str, engine: str, dtype: str) -> float:
    """The bytes of the weights that one token reads.

    Args:
        config: The sizes.
        quant: Of the form, as is `engine`.
        dtype: The type of what is not quantised.
    """
    sizes, width = sizes_of(config), _TYPE_BYTES[dtype]
    layer = _LAYER_BYTES.get((quant, engine), width)
    head = _HEAD_BYTES.get((quant, engine), width)
    weights: float = sizes.layers * sizes.linears * layer
    return weights + config.vocab_size * config.hidden_size * head


def stab_shares(found: Sequence[Mapping[str, Any]], limits: Limits) -> Iterator[Row]:
    """STAB with projector on all threads, of `benchmarks.stab`."""
    threads = {m[0]: int(m[1]) for row in found if (m := _STAB_GROUP.fullmatch(row["group"]))}
    group = max(threads, key=lambda name: threads[name], default="")
    seconds = {row["name"]: row["ours"] for row in found if row["group"] == group}
    for shape, cells in CELLS.items():
        if (ours := seconds.get(f"{shape} projected")) is not None:
            needed = 2e-9 * stab_multiply_adds(ModelConfig(), cells)
            limit = needed / limits.products["float32"]
            yield Row(group, f"{shape} projected", ours, "s", THE_LIMIT, limit, PRODUCT_GOAL)


def forms_shares(found: Mapping[str, Any], limits: Limits) -> Iterator[Row]:
    """Prefill, decode and cold loading of each form, of `benchmarks.forms`."""
    measured = [form for form in found["forms"] if form["runs"]]
    rows = ([*_form_shares(form, limits), *_loading_share(form, limits)] for form in measured)
    yield from sorted(chain.from_iterable(rows), key=lambda row: row.group, reverse=True)


def _form_shares(form: Mapping[str, Any], limits: Limits) -> Iterator[Row]:
    run, key = form["runs"][-1], (form["quant"], form["engine"])
    config, dtype = ModelConfig(**run["config"]), run["dtype"]
    product = limits.products.get("int8" if key in _INTEGERS else dtype)
    rates = {"decode": limits.memory * 1e9 / decode_bytes(config, *key, dtype)}
    if product and dtype in limits.products:
        tokens = run["prefill_tokens"]
        seconds = 2e-9 * prefill_multiply_adds(config, tokens) / product
        stab = stab_multiply_adds(config, run["cells"], run["frames"])
        seconds += 2e-9 * stab / limits.products[dtype]
        rates["prefill"] = tokens / seconds
    for what, limit in rates.items():
        ours = median(run[f"{what}_tokens_per_second"] for run in form["runs"])
        goals = {"prefill": PRODUCT_GOAL, "decode": DECODE_GOAL}
        goal = goals[what] if key in _HAVE_GOALS[what] else None
        yield Row(what, " ".join(key), ours, "tokens/s", THE_LIMIT, limit, goal)


def _loading_share(form: Mapping[str, Any], limits: Limits) -> Iterator[Row]:
    """The file over the seconds of a cold load.

    There is a goal for large files that were read to the end. A form that maps its file may read
    the rest in its first passes: its row says what was read by the end of the load.
    """
    if not form["cold"] or not limits.disk_is_cold:
        return
    size = form["file_bytes"]
    seconds = median(run["load_seconds"] - run["import_seconds"] for run in form["cold"])
    read = median(run["load_read_bytes"] for run in form["cold"]) / size
    whole = read >= _WHOLE
    name = f"{form['quant']} {form['engine']}" + ("" if whole else f", {read:.0%} of it read")
    goal = LOADING_GOAL if whole and size >= _LARGE else None
    yield Row("loading", name, size / seconds / 1e9, "GB/s", THE_LIMIT, limits.disk, goal)
