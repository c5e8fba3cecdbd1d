"""The public Python names of `docs/python.md`: importable, with the documented parameters."""

import inspect
from importlib import import_module

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from pandacli.inference.spec import OptionFields

PARAMETERS = {
    "pandacli.Panda.load": ("model", "device", "quant", "engine"),
    "pandacli.Panda.ask": (
        "video",
        "question",
        "start",
        "end",
        "num_frames",
        "system",
        "history",
        "max_tokens",
        "temperature",
        "seed",
        "stop",
    ),
    "pandacli.Panda.open": ("video", "start", "end", "num_frames", "system"),
    "pandacli.video.Clip": ("path", "start", "end", "at"),
    "pandacli.video.sample_frames": ("clip", "num_frames"),
    "pandacli.video.sample_indices": ("fps", "frame_count", "num_frames"),
    "pandacli.video.read_frames": ("path", "indices"),
    "pandacli.video.preprocess": ("frames", "image_size", "patch_size", "num_frames"),
    "pandacli.modeling.VideoPandaConfig": (
        "image_size",
        "patch_size",
        "video_hidden_size",
        "video_num_heads",
        "num_frames",
        "all_num_frames",
    ),
    "pandacli.modeling.VideoPandaForConditionalGeneration": ("config",),
    "pandacli.modeling.VideoPandaForConditionalGeneration.get_video_features": ("pixel_values",),
    "pandacli.modeling.VideoPandaProcessor.__call__": (
        "text",
        "videos",
        "pixel_values",
        "system",
        "num_frames",
    ),
    "pandacli.modeling.build_prompt": ("turns", "system", "num_frames"),
    "pandacli.modeling.encode_prompt": ("turns", "tokenizer", "system", "num_frames", "legacy"),
}


def resolve(name: str) -> object:
    """The object of a dotted name."""
    module = next(m for m in ("pandacli.modeling", "pandacli.video", "pandacli") if m in name)
    found: object = import_module(module)
    for part in name.removeprefix(f"{module}.").split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", PARAMETERS)
def test_public_name_takes_documented_parameters(name: str) -> None:
    found = resolve(name)
    assert callable(found)
    parameters = set(inspect.signature(found).parameters)
    if "options" in parameters:  # **options: Unpack[OptionFields]
        parameters |= set(OptionFields.__annotations__)
    assert [p for p in PARAMETERS[name] if p not in parameters] == []


@pytest.mark.parametrize("module", ["pandacli", "pandacli.video", "pandacli.modeling"])
def test_every_exported_name_exists(module: str) -> None:
    imported = import_module(module)
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []
    assert set(imported.__all__) <= set(dir(imported))


def test_auto_classes_know_video_panda() -> None:
    modeling = import_module("pandacli.modeling.modeling_videopanda")
    config = AutoConfig.for_model("videopanda")
    assert isinstance(config, modeling.VideoPandaConfig)
    assert modeling.VideoPandaConfig in AutoModelForImageTextToText._model_mapping
    assert callable(AutoProcessor.from_pretrained)
