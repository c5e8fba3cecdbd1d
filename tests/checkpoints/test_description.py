"""Facts of a checkpoint, read without loading it."""

import json
from pathlib import Path

import pytest

from pandacli.checkpoints.resolve import describe_checkpoint
from pandacli.errors import ModelError


def write_safetensors(path: Path, **shapes: list[int]) -> None:
    header = json.dumps({name: {"dtype": "F16", "shape": shapes[name]} for name in shapes})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())


def test_parameters_are_counted_from_safetensors_headers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 64, "num_hidden_layers": 2}')
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", a=[3, 4], b=[5])
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", c=[2, 2, 2], scalar=[])
    description = describe_checkpoint(tmp_path)
    assert (description.parameters, description.exact) == (26, True)
    assert description.sizes == {"width": 64, "layers": 2}


def test_parameters_of_bin_files_are_estimated_from_their_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 100)
    description = describe_checkpoint(tmp_path)
    assert (description.parameters, description.exact) == (50, False)


def test_parameters_are_none_if_nothing_tells(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 100)
    assert describe_checkpoint(tmp_path).parameters is None


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        header("[1,2]"),
        header("[" * 100_000),
        header('{"a": 5}'),
        header('{"a": {"shape": [0.5]}}'),
        header('{"a": {"shape": [-1]}}'),
        header(json.dumps({"a": {"shape": [10**4000] * 3}})),
    ],
)
def test_damaged_header_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        describe_checkpoint(tmp_path)


def test_oversized_header_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((10**12).to_bytes(8, "little"))
        file.truncate(2 * 10**12)
    with pytest.raises(ModelError, match="is damaged"):
        describe_checkpoint(tmp_path)


@pytest.mark.parametrize("config", ["[]", "3", "[" * 100_000])
def test_invalid_configuration_is_reported(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="is damaged"):
        describe_checkpoint(tmp_path)
