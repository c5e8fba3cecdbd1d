"""The models that panda knows by name, what is known of their files, and where these may be."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class KnownFile:
    """A published file, as far as the hub's own pages show it.

    Args:
        name: Its name in the model's folder.
        bytes: Its size.
        exact: Whether the size is exact; the hub rounds those of large files.
        sha256: Its digest, where it is known.
    """

    name: str
    bytes: int
    exact: bool = True
    sha256: str | None = None


@dataclass(frozen=True)
class KnownModel:
    """A model that has a name.

    Args:
        name: What `--model` takes.
        summary: What it is, in a few words.
        licence: What is known of the terms of its weights.
        repo: The Hugging Face repository that publishes it; None for one shipped with panda.
        subfolder: The folder of the repository that holds the checkpoint.
        download_bytes: About the size of a download, known without the network.
        known_commit: The commit in which its weights were published, where that is known.
        known_files: What is known of its files in that commit; it may publish others.
    """

    name: str
    summary: str
    licence: str
    repo: str | None = None
    subfolder: str | None = None
    download_bytes: int = 0
    known_commit: str | None = None
    known_files: tuple[KnownFile, ...] = ()

    @property
    def download_command(self) -> str:
        """The command that downloads the model."""
        return f"panda pull {self.name}"

    @property
    def published_in(self) -> str:
        """The repository, with the folder of it that holds the checkpoint."""
        return f"{self.repo}, {self.subfolder}" if self.subfolder else str(self.repo)

    def published(self, name: str) -> str:
        """The path, in the repository, of a file of the checkpoint."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    @property
    def known_digests(self) -> dict[str, str]:
        """The known sha256 of its files, by name."""
        return {file.name: file.sha256 for file in self.known_files if file.sha256}

    def has_known_weights(self, digests: Mapping[str, str]) -> bool | None:
        """Whether files with these sha256 are the known ones; None where none is known."""
        known = self.known_digests
        return known.items() <= digests.items() if known else None


_OFFICIAL = "jh-yi/Video-Panda-7B"
_OFFICIAL_LICENCE = "apache-2.0 by its card; derived from Vicuna and Llama 2"
_OFFICIAL_BYTES = 16_700_000_000  # with the tensors of the teacher, which only training needs
_OFFICIAL_COMMIT = "6e2080cb41ca99c43eae3433068fecf3fd85ecb9"
_FITU_FILES = (
    KnownFile("config.json", 1_550),
    KnownFile(
        "pytorch_model-00001-of-00002.bin",
        9_980_000_000,
        exact=False,
        sha256="295d0055a90975f83e76a76479aa460c562d1e2e36fca47b95dc5a629ffe3dc8",
    ),
    KnownFile(
        "pytorch_model-00002-of-00002.bin",
        6_690_000_000,
        exact=False,
        sha256="839292103f724a4067a4cdc76674654d641659b37fc4ca5c30db78a7d6525abc",
    ),
)
_PRTR1_FILES = (
    KnownFile("config.json", 1_666),
    KnownFile("special_tokens_map.json", 438),
    KnownFile("tokenizer_config.json", 749),
)

DEFAULT_MODEL = "video-panda-7b"

MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            "video-panda-7b",
            "the paper's instruction-tuned model",
            _OFFICIAL_LICENCE,
            _OFFICIAL,
            "videopanda_fitu",
            _OFFICIAL_BYTES,
            _OFFICIAL_COMMIT,
            _FITU_FILES,
        ),
        KnownModel(
            "video-panda-7b-pretrained",
            "the paper's stage-2 weights",
            _OFFICIAL_LICENCE,
            _OFFICIAL,
            "videopanda_prtr1",
            _OFFICIAL_BYTES,
            _OFFICIAL_COMMIT,
            _PRTR1_FILES,
        ),
        KnownModel(
            "tiny", "our own small model of moving shapes, shipped with panda", "Apache-2.0"
        ),
    )
}


def panda_home() -> Path:
    """The folder of panda's own files: `PANDA_HOME`, or the platform's data folder."""
    named = os.environ.get("PANDA_HOME")
    return expand_user(named) if named else platformdirs.user_data_path("panda")


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Expand a leading `~`; that of an unknown user is literal."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises)


def home_folder(model: KnownModel) -> Path:
    """Where users may put the checkpoint of a known model themselves."""
    return panda_home() / "models" / model.name


def home_checkpoint(model: KnownModel) -> Path | None:
    """The checkpoint in `home_folder`, or in its subfolder as `hf download --local-dir` leaves it.

    A folder that is not empty is returned even if it is not a checkpoint, to be reported.
    """
    folder = home_folder(model)
    candidates = [folder, folder / model.subfolder] if model.subfolder else [folder]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def hub_cache() -> Path:
    """The folder of the Hugging Face cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_checkpoint(model: KnownModel, commit: str | None = None) -> Path | None:
    """The checkpoint in the Hugging Face cache, without the network.

    Args:
        model: The model.
        commit: The commit; None for the newest that another program has asked for by branch.
    """
    if model.repo is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.repo, model.published("config.json"), revision=commit)
    return Path(config).parent if isinstance(config, str) else None


def cached_commit(folder: Path) -> str | None:
    """The commit of a checkpoint folder in the Hugging Face cache."""
    commits = (path.name for path in (folder, *folder.parents) if path.parent.name == "snapshots")
    return next(commits, None)


def bundled_checkpoint(model: KnownModel) -> Path:
    """The checkpoint folder of a model that is shipped with the package."""
    return Path(str(resources.files("pandacli"))) / "assets" / model.name
