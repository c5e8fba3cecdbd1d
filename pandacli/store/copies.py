"""Quantised copies of checkpoints: what panda made once, to load it quickly ever after.

    PANDA_HOME/copies/<start of the digest>-<form>/
        manifest.json                     written last: without it a copy is not finished
        config.json, tokenizer.model ...  as in the checkpoint
        model-00001-of-0000N.safetensors  and, in the forms of llama.cpp, model.gguf

Nothing here imports torch.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pandacli.errors import ModelError
from pandacli.store.places import home

Form = Literal["int8", "nf4", "q8_0", "q4_k_m"]

QUANTS: dict[str, str] = {"int8": "8bit", "nf4": "4bit", "q8_0": "8bit", "q4_k_m": "4bit"}
"""Of each form, what `--quant` calls it."""

FORMAT = 1
"""Version of what a copy's folder holds; it grows when older programs cannot read a newer copy."""

MANIFEST = "manifest.json"

GGUF_FILE = "model.gguf"
"""The Llama in a copy for llama.cpp; its other files hold what makes the embeddings."""


@dataclass(frozen=True)
class Copy:
    """One finished quantised copy of a checkpoint.

    Args:
        model: The name or folder it was made from.
        form: How its weights are stored: "int8" (rows with a scale each), "nf4" (bitsandbytes), or
            what llama.cpp calls "q8_0" and "q4_k_m".
        folder: Where it lies.
        commit: The commit of the repository that published the checkpoint, where there is one.
        digest: sha256 of the checkpoint, see `pandacli.store.digest`.
        bytes: What its files take on the disk.
    """

    model: str
    form: str
    folder: Path
    commit: str | None
    digest: str
    bytes: int

    @property
    def quant(self) -> str:
        """What `--quant` calls its form."""
        return QUANTS[self.form]


def copies_folder() -> Path:
    """Where all copies lie."""
    return home() / "copies"


def copy_folder(digest: str, form: str) -> Path:
    """Where the copy in a form of a checkpoint lies, or would."""
    return copies_folder() / f"{digest[:16]}-{form}"


def find_copy(digest: str, form: str) -> Copy | None:
    """The finished copy in a form of a checkpoint, if there is one.

    Raises:
        ModelError: There is one that is damaged, or made by a newer panda.
    """
    folder = copy_folder(digest, form)
    return read_copy(folder) if (folder / MANIFEST).is_file() else None


def all_copies() -> list[Copy]:
    """Every finished copy that this panda can read."""
    copies = []
    for manifest in sorted(copies_folder().glob(f"*/{MANIFEST}")):
        try:
            copies.append(read_copy(manifest.parent))
        except ModelError:
            continue
    return copies


def copies_of(model: str) -> list[Copy]:
    """The finished copies that were made from a model, by its name or folder."""
    return [copy for copy in all_copies() if copy.model == model]


def read_copy(folder: Path) -> Copy:
    """The copy in a folder, its files looked at from outside.

    Raises:
        ModelError: It is damaged, or made by a newer panda.
    """
    again = f"remove the folder {folder}, and panda makes it anew"
    damaged = ModelError(f"the quantised copy in {folder} is damaged", again)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ModelError(
                f"the quantised copy in {folder} was made by another version of panda", again
            )
        sizes: dict[str, int] = manifest["files"]
        copy = Copy(
            model=str(manifest["model"]),
            form=str(manifest["form"]),
            folder=folder,
            commit=manifest["commit"],
            digest=str(manifest["digest"]),
            bytes=sum(sizes.values()),
        )
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged from error
    if not whole or copy.form not in QUANTS:
        raise damaged
    return copy


def write_manifest(
    folder: Path,
    *,
    model: str,
    form: str,
    commit: str | None,
    digest: str,
    source_files: dict[str, str],
) -> Copy:
    """Declare the copy in a folder finished.

    Args:
        folder: Its folder, with all other files in place.
        model: The name or folder it was made from.
        form: See `Copy`.
        commit: See `Copy`.
        digest: See `Copy`.
        source_files: The sha256 of each file of the checkpoint, by name.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    copy = Copy(model, form, folder, commit, digest, sum(sizes.values()))
    fields: dict[str, Any] = asdict(copy)
    del fields["folder"], fields["bytes"]
    manifest = {"format": FORMAT, **fields, "source_files": source_files, "files": sizes}
    partial = folder.with_name(folder.name + ".manifest")
    partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return copy


def remove_copy(copy: Copy) -> None:
    """Delete a copy from the disk.

    Raises:
        ModelError: It may not be deleted.
    """
    try:
        (copy.folder / MANIFEST).unlink(missing_ok=True)  # first: half a copy must not look whole
        shutil.rmtree(copy.folder)
    except OSError as error:
        raise ModelError(f"cannot remove {copy.folder}: {error.strerror}") from error
