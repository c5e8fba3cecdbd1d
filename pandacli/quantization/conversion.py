"""Convert a checkpoint to a quantised artifact, streaming tensors and resuming after interruption.

The Llama's linear layers are quantised. STAB, projector, embeddings and head, a hundredth of the
weights, stay in half precision, as every token depends on them. For llama.cpp the Llama goes into a
GGUF file, with only the embedding modules beside it. Weight files are written atomically, and the
next attempt keeps complete ones; the folder gets its final name at the end.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pandacli.checkpoints import artifacts
from pandacli.checkpoints.artifacts import GGUF_FILE, Artifact, Form
from pandacli.checkpoints.registry import cached_commit
from pandacli.checkpoints.resolve import ResolvedModel, checkpoint_digests
from pandacli.checkpoints.staging import staging_folder
from pandacli.errors import ModelError
from pandacli.file_io import replace_durably
from pandacli.modeling import checkpoint
from pandacli.modeling.bitsandbytes_weights import read_quantised
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import empty_model
from pandacli.quantization.gguf import check_gguf, export_gguf
from pandacli.quantization.int8 import quantize_rows
from pandacli.units import size

Report = Callable[[int, int], None]  # takes the parameters done and their total

# the modules that compute the embeddings of frames and ids
_EMBEDDING = ("model.video_tower", "model.video_projector", "model.embed_tokens")
_GGUF_FORMS = ("q8_0", "q4_k_m")
_FILE_PARAMETERS = 1 << 28  # approximately, per file: half a gigabyte in float16
_BYTES = {"int8": 1.0, "nf4": 0.53, "q8_0": 1.07, "q4_k_m": 0.65}  # per weight, with scales

_COPIED = (
    *("tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "generation_config.json"),
)


@dataclass(frozen=True)
class Source:
    """A checkpoint to convert."""

    model: str  # its name, or its folder
    folder: Path
    commit: str | None  # that published it, if known
    digest: str  # sha256
    files: dict[str, str]  # the sha256 of each file, by name


def describe_source(resolved: ResolvedModel) -> Source:
    """Identify a checkpoint; hashes all of it the first time."""
    digest, files = checkpoint_digests(resolved)
    commit = cached_commit(resolved.folder) if resolved.kind == "cache" else None
    name = str(resolved.folder) if resolved.kind == "folder" else resolved.name
    return Source(name, resolved.folder, commit, digest, files)


def convert(source: Source, form: Form, report: Report | None = None) -> Artifact:
    """Make the artifact of a checkpoint in a form, or finish one that was begun.

    Raises:
        ModelError: The checkpoint is damaged, the disk is full or cannot be written, or another
            panda is making the same artifact.
    """
    try:
        with staging_folder(source.digest, form, source.model) as work:
            if finished := artifacts.find_artifact(source.digest, form):
                return finished
            _delete_unusable(work)
            config = checkpoint.read_config(source.folder)
            target = work / GGUF_FILE
            if not target.exists():
                _check_room(config, form, work)
            if form == "q8_0" or form == "q4_k_m":
                if not target.exists():
                    export_gguf(source.folder, target, form, torch.get_num_threads(), report)
                report = None  # it has been called for the Llama
            _write_weights(source, config, form, work, report)
            _write_config(source.folder, config, form, work)
            _check_made(form, work)
            made = artifacts.write_manifest(
                work,
                model=source.model,
                form=form,
                commit=source.commit,
                digest=source.digest,
                source_files=source.files,
            )
            return artifacts.publish_artifact(made)
    except OSError as error:
        place, reason = artifacts.artifacts_folder(), error.strerror or error
        hint = "make room there, and the same command goes on where it stopped - or set PANDA_HOME"
        message = f"cannot write the quantised copy in {place}: {reason}"
        raise ModelError(message, f"{hint} to a folder elsewhere") from error


def copy_bytes(config: ModelConfig, form: Form) -> int:
    """Estimate the size of an artifact on disk."""
    sizes = (
        tensor.numel() * (_BYTES[form] if checkpoint.is_quantisable(name, tensor) else 2)
        for name, tensor in empty_model(config).state_dict().items()
    )
    return int(sum(sizes))


def _delete_unusable(work: Path) -> None:
    """Delete everything that an interrupted conversion cannot resume from."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or not (path.is_file() and _is_resumable(path)):
            path.unlink()


def _is_resumable(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return file.name in (GGUF_FILE, f"{GGUF_FILE}.partial")
    try:
        return bool(_names(file))
    except (OSError, SafetensorError):
        return False


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _check_made(form: Form, work: Path) -> None:
    """Check a new artifact as loading does, and delete its files if some are foreign."""
    config = checkpoint.read_config(work)
    expected = empty_model(config).state_dict()
    try:
        if form in _GGUF_FORMS:
            check_gguf(work / GGUF_FILE, config)
            embedding = {name: t for name, t in expected.items() if name.startswith(_EMBEDDING)}
            checkpoint.read_tensors(work, embedding)
        else:
            read_quantised(work, expected, 8 if form == "int8" else 4)
    except ModelError as error:
        for path in work.iterdir():
            path.unlink()
        message = f"a file in {work} was no part of this copy: {error.message}"
        hint = "the folder has been emptied: run the same command again"
        raise ModelError(message, hint) from error


def _check_room(config: ModelConfig, form: Form, work: Path) -> None:
    needed = copy_bytes(config, form) - sum(file.stat().st_size for file in work.iterdir())
    free = shutil.disk_usage(work).free
    if needed > free:
        sizes = f"takes {size(needed)} more, and {size(free)} are free"
        hint = "make room there, or set PANDA_HOME to a folder elsewhere"
        raise ModelError(f"the quantised copy {sizes} in {artifacts.artifacts_folder()}", hint)


def _write_weights(
    source: Source, config: ModelConfig, form: Form, work: Path, report: Report | None
) -> None:
    expected = empty_model(config).state_dict()
    total = sum(tensor.numel() for tensor in expected.values())
    count = total // _FILE_PARAMETERS + 1
    pending: dict[str, Tensor] = {}
    done, number = 0, 1

    def path() -> Path:
        return work / f"model-{number:05}-of-{count:05}.safetensors"

    _, tensors = checkpoint.stream_tensors(source.folder, expected)
    for name, tensor in tensors:
        if form in _GGUF_FORMS and not name.startswith(_EMBEDDING):
            continue
        if done // _FILE_PARAMETERS + 1 != number:
            _save(pending, path())
            number = done // _FILE_PARAMETERS + 1
        if not path().exists():
            checkpoint.check_values(source.folder, {name: tensor})
            if checkpoint.is_quantisable(name, tensor):
                pending |= _int8(name, tensor) if form == "int8" else _nf4(name, tensor)
            else:
                pending[name] = _halved(tensor)
        done += tensor.numel()
        if report:
            report(done, total)
    _save(pending, path())
    places = {name: file.name for file in work.glob("*.safetensors") for name in _names(file)}
    index = {"metadata": {}, "weight_map": dict(sorted(places.items()))}
    (work / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save(pending: dict[str, Tensor], path: Path) -> None:
    """Write the pending tensors to a file atomically, and clear them."""
    if pending:
        partial = path.with_suffix(".writing")
        try:
            save_file(pending, partial, metadata={"format": "pt"})
        except SafetensorError as error:  # which hides an OSError
            raise OSError(str(error)) from error
        replace_durably(partial, path)
        pending.clear()


def _halved(tensor: Tensor) -> Tensor:
    """Convert to float16, or to bfloat16 if that overflows; keep half precision as it is."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.contiguous()
    half = tensor.half()
    return half if half.isfinite().all() else tensor.bfloat16()


def _int8(name: str, weight: Tensor) -> dict[str, Tensor]:
    """Quantise to int8, in the layout of bitsandbytes."""
    rows, scale = quantize_rows(weight)
    layer = name.removesuffix("weight")
    layout = torch.zeros((), dtype=torch.uint8)  # row by row
    return {name: rows, f"{layer}SCB": scale * 127, f"{layer}weight_format": layout}


def _nf4(name: str, weight: Tensor) -> dict[str, Tensor]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        weight.float(), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    parts = {f"{name}.{part}": value for part, value in state.as_dict(packed=True).items()}
    return {name: packed, **parts}


def _write_config(folder: Path, config: ModelConfig, form: Form, work: Path) -> None:
    if form not in _GGUF_FORMS:
        config.quantization_config = {
            "quant_method": "bitsandbytes",
            "load_in_8bit": form == "int8",
            "load_in_4bit": form == "nf4",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "llm_int8_skip_modules": [*_EMBEDDING, "lm_head"],
        }
    written = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    (work / "config.json").write_text(written + "\n")
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, work / name)
