"""The models that panda knows by name, where their files may be, and which commit was pulled.

The branches in the Hugging Face cache move. So the record of a pull names the commit that was
taken; that of an unfinished pull leads to its partial files.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path, PurePosixPath

import platformdirs

from pandacli.errors import ModelError
from pandacli.file_io import atomic_write_text, read_object

COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_FILE_BYTES = 1 << 50
_RECORD_FORMAT = 1


@dataclass(frozen=True)
class KnownFile:
    """A published file, as far as the hub's own pages show it."""

    name: str
    bytes: int
    exact: bool = True  # the hub rounds the sizes of large files
    sha256: str | None = None


@dataclass(frozen=True)
class KnownModel:
    name: str  # what `--model` takes
    summary: str
    licence: str
    repo: str | None = None  # the Hugging Face repository; None for a model shipped with panda
    subfolder: str | None = None  # of the repository, with the checkpoint
    download_bytes: int = 0  # about, known without the network
    known_commit: str | None = None  # in which its weights were published
    known_files: tuple[KnownFile, ...] = ()  # of that commit, which may publish others

    @property
    def download_command(self) -> str:
        return f"panda pull {self.name}"

    @property
    def published_in(self) -> str:
        """The repository, with the folder of it that holds the checkpoint."""
        return f"{self.repo}, {self.subfolder}" if self.subfolder else str(self.repo)

    @property
    def known_digests(self) -> dict[str, str]:
        return {file.name: file.sha256 for file in self.known_files if file.sha256}

    def has_known_weights(self, digests: Mapping[str, str]) -> bool | None:
        """Whether files with these sha256 are the known ones; None where none is known."""
        known = self.known_digests
        return known.items() <= digests.items() if known else None


DEFAULT_MODEL = "video-panda-7b"

_SHARD = "pytorch_model-0000{}-of-00002.bin"
_FIRST = "295d0055a90975f83e76a76479aa460c562d1e2e36fca47b95dc5a629ffe3dc8"
_SECOND = "839292103f724a4067a4cdc76674654d641659b37fc4ca5c30db78a7d6525abc"
_FITU_FILES = (
    KnownFile("config.json", 1_550),
    KnownFile(_SHARD.format(1), 9_980_000_000, exact=False, sha256=_FIRST),
    KnownFile(_SHARD.format(2), 6_690_000_000, exact=False, sha256=_SECOND),
)
_PRTR1_FILES = (
    KnownFile("config.json", 1_666),
    KnownFile("special_tokens_map.json", 438),
    KnownFile("tokenizer_config.json", 749),
)
_OFFICIAL = KnownModel(
    DEFAULT_MODEL,
    "the paper's instruction-tuned model",
    "apache-2.0 by its card; derived from Vicuna and Llama 2",
    "jh-yi/Video-Panda-7B",
    "videopanda_fitu",
    16_700_000_000,  # with the tensors of the teacher, which only training needs
    "6e2080cb41ca99c43eae3433068fecf3fd85ecb9",
    _FITU_FILES,
)
_PRETRAINED = replace(
    _OFFICIAL,
    name="video-panda-7b-pretrained",
    summary="the paper's stage-2 weights",
    subfolder="videopanda_prtr1",
    known_files=_PRTR1_FILES,
)
_TINY = KnownModel("tiny", "our own small model of moving shapes, shipped with panda", "Apache-2.0")
MODELS = {model.name: model for model in (_OFFICIAL, _PRETRAINED, _TINY)}


@contextmanager
def os_errors(action: str, what: object) -> Iterator[None]:
    """Turn an OSError into a ModelError: "cannot <action> <file or what>: <reason>"."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot {action} {error.filename or what}: {reason}") from error


def panda_home() -> Path:
    """The folder of panda's own files: `PANDA_HOME`, or the platform's data folder."""
    named = os.environ.get("PANDA_HOME")
    return expand_user(named) if named else platformdirs.user_data_path("panda")


def servers_folder() -> Path:
    """Where servers have their sockets: in `PANDA_HOME`, or where the system keeps a user's."""
    home = panda_home() if os.environ.get("PANDA_HOME") else None
    return home / "servers" if home else platformdirs.user_runtime_path("panda")


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Expand a leading `~`; that of an unknown user is literal."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises)


def bundled_checkpoint(model: KnownModel) -> Path:
    return Path(str(resources.files("pandacli"))) / "assets" / model.name


def home_folder(model: KnownModel) -> Path:
    """Where users may put the checkpoint of a known model themselves."""
    return panda_home() / "models" / model.name


def home_checkpoint(model: KnownModel) -> Path | None:
    """The checkpoint in `home_folder`, or in its subfolder as `hf download --local-dir` has it."""
    folder = home_folder(model)
    for candidate in (folder, folder / (model.subfolder or "")):
        if (candidate / "config.json").is_file():
            return candidate
    # a folder that holds something else is to be reported
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def hub_cache() -> Path:
    """The folder of the Hugging Face cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_checkpoint(model: KnownModel, commit: str | None = None) -> Path | None:
    """The checkpoint in the Hugging Face cache; by default that of the main branch."""
    from huggingface_hub import try_to_load_from_cache

    name = f"{model.subfolder}/config.json" if model.subfolder else "config.json"
    config = try_to_load_from_cache(str(model.repo), name, revision=commit)
    return Path(config).parent if isinstance(config, str) else None


def cached_commit(folder: Path) -> str | None:
    commits = (path.name for path in (folder, *folder.parents) if path.parent.name == "snapshots")
    return next(commits, None)


@dataclass(frozen=True)
class PublishedFile:
    """A file of a repository, at one commit; ValueError if the size or the digest is not valid."""

    path: str  # in the repository
    bytes: int
    digest: str  # the name of its content in the cache: sha256 of a large file, else git's own

    def __post_init__(self) -> None:
        is_text = isinstance(self.path, str) and isinstance(self.digest, str)
        if not (is_text and _DIGEST.fullmatch(self.digest)):
            raise ValueError("invalid path or digest")
        if type(self.bytes) is not int or not 0 <= self.bytes <= _MAX_FILE_BYTES:
            raise ValueError("invalid size")

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def sha256(self) -> str | None:
        """The sha256 of the content, which is published for large files only."""
        return self.digest if len(self.digest) == 64 else None


def repo_folder(model: KnownModel) -> Path:
    return hub_cache() / f"models--{str(model.repo).replace('/', '--')}"


def blob_path(model: KnownModel, file: PublishedFile) -> Path:
    return repo_folder(model) / "blobs" / file.digest


def partial_path(model: KnownModel, file: PublishedFile) -> Path:
    """The path of an unfinished file, under a name that the tools of Hugging Face recognise."""
    return blob_path(model, file).with_name(f"{file.digest}.incomplete")


def snapshot_path(model: KnownModel, commit: str, file: PublishedFile) -> Path:
    return repo_folder(model) / "snapshots" / commit / file.path


@dataclass(frozen=True)
class Pull:
    """The record of a `panda pull`; if it is finished, each file was compared with its digest."""

    commit: str
    files: tuple[PublishedFile, ...]


def read_pull(model: KnownModel, *, finished: bool = True) -> Pull | None:
    """The last finished pull of a model, or the one that is under way or was interrupted."""
    try:
        record = read_object(_pull_path(model, finished=finished))
        files = tuple(PublishedFile(**file) for file in record["files"])
        commit = str(record["commit"])
        is_valid = record["format"] == _RECORD_FORMAT and COMMIT.fullmatch(commit)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # also for a damaged record: pulling again repairs it
    return Pull(commit, files) if is_valid else None


def partial_files(model: KnownModel) -> list[Path]:
    pull = read_pull(model, finished=False)
    paths = [partial_path(model, file) for file in pull.files] if pull else []
    return [path for path in paths if path.is_file()]


def record_pull(model: KnownModel, pull: Pull, *, finished: bool) -> None:
    """Record a download that begins, or one whose files are all here and verified."""
    path = _pull_path(model, finished=finished)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps({"format": _RECORD_FORMAT, **asdict(pull)}, indent=1))
    if finished:
        _pull_path(model, finished=False).unlink(missing_ok=True)


def remove_pull_records(model: KnownModel) -> None:
    for finished in (True, False):
        _pull_path(model, finished=finished).unlink(missing_ok=True)


def _pull_path(model: KnownModel, *, finished: bool) -> Path:
    return panda_home() / "pulls" / f"{model.name}{'' if finished else '.unfinished'}.json"
