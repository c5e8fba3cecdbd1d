"""Randomly damaged checkpoints in every layout: unchanged weights load, or a `ModelError`.

Each draw takes a whole folder, damages one thing in it, and looks at it as loading does. What is
drawn depends on the seed and nothing else, so a failure names the draw that makes it again.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pandacli.checkpoints import resolve
from pandacli.checkpoints.artifacts import GGUF_FILE
from pandacli.errors import ModelError
from pandacli.inference.backends import quiet_libraries
from pandacli.inference.planning.loader import load_artifact
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.modeling.bitsandbytes_weights import read_quantised
from pandacli.modeling.checkpoint import (
    check_values,
    read_config,
    read_eos_ids,
    read_tensors,
    read_tokenizer,
)
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import empty_model
from pandacli.quantization import conversion as converting
from pandacli.quantization.conversion import convert, describe_source

LAYOUTS = ("plain", "sharded", "bin", "old bin", "int8", "nf4", "quantised bin", "q8_0")
needs_llama = pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp")
each_layout = pytest.mark.parametrize(
    "layout",
    [pytest.param(layout, marks=needs_llama if layout == "q8_0" else ()) for layout in LAYOUTS],
)

JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    3,
    7,
    2**31,
    2**62,
    10**30,
    1.5,
    -0.5,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "evil/repo",
    "../../x",
    "\x1b[31m",
    "\ud800",
    [],
    [[]],
    [1, "2"],
    {},
    {"a": {"b": []}},
]
TEXTS = [
    b"",
    b"null",
    b"[]",
    b"3",
    b'"x"',
    b"NaN",
    b"\xff\xfe",
    b"\0",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"{} {}",
    b'{"hidden_size": ' + b"9" * 5000 + b"}",
]
FIELDS = [
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "trust_remote_code",
    "num_labels",
    "id2label",
    "torch_dtype",
    "dtype",
    "rope_scaling",
    "rope_theta",
    "hidden_act",
    "quantization_config",
    "mm_projector_type",
    "mm_hidden_size",
    "architectures",
    "per_layer_config",
    "is_encoder_decoder",
    "pretraining_tp",
    "model_type",
    "problem_type",
    "name_or_path",
    "use_cache",
    "tie_word_embeddings",
]


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes
) -> Callable[[str], Path]:
    """An undamaged folder of a tiny model in each layout."""
    root = tmp_path_factory.mktemp("whole")
    config = VideoPandaConfig(
        image_size=56,
        patch_size=14,
        video_hidden_size=16,
        video_num_heads=2,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=400,
        max_position_embeddings=64,
    )
    torch.manual_seed(3)
    model = VideoPandaForConditionalGeneration(config)

    @cache
    def folder(layout: str) -> Path:
        path = root / layout.replace(" ", "-")
        if layout in ("int8", "nf4", "q8_0"):
            made = convert(describe_source(resolve(folder("plain"))), layout)  # type: ignore[arg-type]
            shutil.copytree(made.folder, path)
            (path / "manifest.json").unlink()
        elif layout == "quantised bin":
            shutil.copytree(folder("int8"), path)
            rewrite(path, weights_of(path), "pytorch_model.bin")
        else:
            shard = "100KB" if layout == "sharded" else "5GB"
            model.save_pretrained(path, max_shard_size=shard)
            (path / "tokenizer.model").write_bytes(tokenizer_model)
            (path / "tokenizer_config.json").write_text('{"legacy": false}')
            if "bin" in layout:
                rewrite(path, weights_of(path), "pytorch_model.bin", zipped=layout == "bin")
        return path

    with pytest.MonkeyPatch.context() as patch, quiet_libraries():
        patch.setenv("PANDA_HOME", str(root / "home"))
        patch.setattr(converting, "_FILE_PARAMETERS", 1 << 20)
        return {
            layout: folder(layout)
            for layout in LAYOUTS
            if layout != "q8_0" or find_spec("xllamacpp")
        }.__getitem__


def weights_of(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    for file in sorted(folder.glob("*.bin")):
        tensors |= torch.load(file)
    return tensors


def rewrite(folder: Path, tensors: dict[str, Tensor], name: str, *, zipped: bool = True) -> None:
    """Replace the weights by a single file."""
    for file in (*folder.glob("*.safetensors*"), *folder.glob("*.bin")):
        file.unlink()
    if name.endswith(".bin"):
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=zipped)
    else:
        save_file(tensors, folder / name, {"format": "pt"})


@cache
def expected_of(config: str) -> dict[str, Tensor]:
    return empty_model(ModelConfig.from_dict(json.loads(config))).state_dict()


def look(folder: Path, layout: str) -> dict[str, Tensor]:
    """All that loading reads and checks, without building a model."""
    config = read_config(folder)
    read_tokenizer(folder, config)
    read_eos_ids(folder, config)
    stored = config.quantization_config
    expected = expected_of(json.dumps(config.to_dict() | {"quantization_config": None}))
    if layout == "q8_0":
        from pandacli.quantization.gguf import check_gguf

        check_gguf(folder / GGUF_FILE, config)
        front = ("model.video_", "model.embed_tokens")
        expected = {name: tensor for name, tensor in expected.items() if name.startswith(front)}
    if stored:
        tensors, _ = read_quantised(folder, expected, 8 if stored["load_in_8bit"] else 4)
    else:
        tensors = read_tensors(folder, expected)
    check_values(folder, tensors)
    return tensors


def load(folder: Path, layout: str) -> dict[str, Tensor]:
    """The weights of a model loaded as by `Panda.load`."""
    read_tokenizer(folder, read_config(folder))
    with quiet_libraries():
        if layout in ("int8", "nf4"):
            load_artifact(folder, "")
        if layout == "q8_0":
            return look(folder, layout) | dict(
                load_artifact(folder, "", layers=False).named_parameters()
            )
        model = VideoPandaForConditionalGeneration.from_pretrained(folder)
    weights: dict[str, Tensor] = model.state_dict()
    return weights


def damage(folder: Path, layout: str, draw: Random) -> str:
    """Damage one thing in a folder; returns a description."""
    kinds = [damage_config, damage_json, damage_tensor, damage_bytes, damage_tokenizer]
    return draw.choices(kinds, (4, 2, 5, 4, 1))[0](folder, layout, draw)


def damage_config(folder: Path, _: str, draw: Random) -> str:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    inside = draw.choice((fields, *[value for value in fields.values() if isinstance(value, dict)]))
    name = draw.choice((*inside, *FIELDS))
    value = inside[name] = draw.choice(JUNK)
    if draw.random() < 0.1:
        del inside[name]
    path.write_text(json.dumps(fields))
    return f"config.json: {name} = {value!r}"


def damage_json(folder: Path, _: str, draw: Random) -> str:
    path = draw.choice(sorted(folder.glob("*.json")))
    if draw.random() < 0.5 or path.name == "config.json":
        content = draw.choice(TEXTS)
    else:
        fields = json.loads(path.read_text())
        name = draw.choice([*fields, "weight_map", "legacy", "eos_token_id", "temperature"])
        fields[name] = draw.choice(JUNK)
        content = json.dumps(fields).encode()
    path.write_bytes(content)
    return f"{path.name}: {content[:80]!r}"


def damage_tensor(folder: Path, layout: str, draw: Random) -> str:
    tensors = weights_of(folder)
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    kind = draw.choice(("drop", "rename", "cast", "shape", "values", "state"))
    if kind == "drop":
        del tensors[name]
    elif kind == "rename":
        new = draw.choice(
            (f"{name}2", f"model.{name}", f"{name}.SCB", f"{name}.absmax", "x", "\x1b")
        )
        tensors[new] = tensors.pop(name)
    elif kind == "cast":
        wanted = draw.choice((torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn))
        if wanted == tensor.dtype:
            wanted = torch.int16
        tensors[name] = tensor.to(wanted)
    elif kind == "shape":
        tensors[name] = draw.choice((tensor[None], tensor.flatten()[:-1], tensor.new_zeros(0)))
    elif kind == "values" and tensor.is_floating_point():
        tensors[name] = torch.full_like(tensor, draw.choice((float("nan"), float("-inf"))))
    elif kind == "state" and (states := [key for key in tensors if ".quant_state." in key]):
        name = draw.choice(states)
        state = json.loads(bytes(tensors[name].tolist()))
        del state["nested_offset"]  # as arbitrary as the weights
        state[draw.choice([*state, "x"])] = draw.choice(JUNK)
        tensors[name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    else:
        kind = "odd"
        name = sorted(tensors)[0]
        tensors[name] = odd(tensors[name], draw) if "bin" in layout else tensors[name][:0]
    file = "pytorch_model.bin" if "bin" in layout else "model.safetensors"
    rewrite(folder, tensors, file, zipped=layout != "old bin")
    return f"{kind} {name}"


def odd(tensor: Tensor, draw: Random) -> Any:
    """Objects that only a pickle can hold."""
    kinds: list[Callable[[], Any]] = [
        lambda: tensor.float().to_sparse(),
        lambda: tensor.to("meta"),
        lambda: torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape),
        lambda: torch.zeros(1, dtype=torch.complex64).expand(tensor.shape),
        lambda: torch.nested.nested_tensor([tensor.float(), tensor.float()], layout=torch.jagged),
        lambda: {"a": 1},
        lambda: "text",
    ]
    return draw.choice(kinds)()


def damage_bytes(folder: Path, _: str, draw: Random) -> str:
    """Truncate a weight file, or change a byte outside of the numbers."""
    path = draw.choice(
        sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf")))
    )
    content = bytearray(path.read_bytes())
    if draw.random() < 0.3:
        del content[int(len(content) * draw.random()) :]
        path.write_bytes(content)
        return f"{path.name} cut off at {len(content)}"
    if draw.random() < 0.1:
        path.write_bytes(content + bytes(draw.randrange(1, 9000)))
        return f"{path.name} with zeros behind it"
    place = draw.choice([p for p in header(path, content) if p < len(content)])
    before, content[place] = content[place], draw.randrange(256)
    path.write_bytes(content)
    return f"{path.name}: byte {place} {before} -> {content[place]}"


def header(path: Path, content: bytearray) -> list[int]:
    """Offsets outside of the weights' numbers, changes of which only digests find."""
    if path.suffix == ".safetensors":
        return list(range(8 + struct.unpack("<Q", content[:8])[0]))
    if path.suffix == ".gguf":
        return list(range(content.find(b"output_norm.weight")))
    if content[:2] == b"PK":
        ends = content.find(b"byteorder")
        return [*range(ends), *range(content.find(b"PK\x01\x02"), len(content))]
    return list(range(600))


def damage_tokenizer(folder: Path, _: str, draw: Random) -> str:
    path = folder / "tokenizer.model"
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] = draw.randrange(256)
    path.write_bytes(content)
    return f"tokenizer.model: byte {place}"


def draws(
    whole: Path,
    layout: str,
    place: Path,
    numbers: range,
    read: Callable[[Path, str], dict[str, Tensor]],
) -> Iterator[tuple[str, bool]]:
    """The damage drawn and whether it loaded, then with unchanged weights."""
    weights = read(whole, layout)
    for number in numbers:
        draw = Random(f"{layout} {number}")
        folder = place / str(number)
        shutil.copytree(whole, folder)
        done = damage(folder, layout, draw)
        try:
            loaded = read(folder, layout)
        except ModelError as error:
            if "\n" in error.message:
                pytest.fail(f"draw {number} of {layout}, {done}: more than a line")
            yield done, False
        except Exception as error:
            pytest.fail(f"draw {number} of {layout}, {done}: {type(error).__name__}: {error}")
        else:
            # an unknown name is only logged
            assert loaded.keys() >= weights.keys(), (number, done)
            for name, tensor in weights.items():
                assert tensor.equal(loaded[name]), (number, done, name)
            yield done, True
        finally:
            shutil.rmtree(folder)


@each_layout
def test_damaged_checkpoint_is_refused_or_unchanged(
    whole: Callable[[str], Path], layout: str, tmp_path: Path
) -> None:
    loaded = [done for _, done in draws(whole(layout), layout, tmp_path, range(60), look)]
    assert 0 < sum(loaded) < len(loaded) / 2


@pytest.mark.slow
@each_layout
def test_damaged_weights_build_no_model(
    whole: Callable[[str], Path], layout: str, tmp_path: Path
) -> None:
    loaded = [done for _, done in draws(whole(layout), layout, tmp_path, range(1000, 1100), load)]
    assert any(loaded)
