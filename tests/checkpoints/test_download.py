"""Downloads: pinned to a commit, only needed files, resumable, verified."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from pandacli import checkpoints
from pandacli.checkpoints import download as download_module
from pandacli.checkpoints.download import download, plan_download
from pandacli.checkpoints.inventory import find_model
from pandacli.checkpoints.registry import blob_path, panda_home, partial_path, read_pull
from tests.checkpoints.downloads import (
    MODEL,
    NEEDED,
    SHARD,
    Log,
    interrupted_pull,
    pull,
    refusal,
    shard_file,
)
from tests.fake_hub import (
    FIRST,
    REPO,
    SECOND,
    FakeHub,
    checkpoint,
)

pytestmark = pytest.mark.usefixtures("hub")


def test_downloaded_model_is_resolved() -> None:
    downloaded = pull()
    assert checkpoints.resolve(MODEL.name).folder == downloaded
    assert (downloaded / SHARD).read_bytes() == checkpoint()[f"videopanda_fitu/{SHARD}"]


def test_only_files_for_inference_are_downloaded() -> None:
    downloaded = pull()
    assert {path.name for path in downloaded.iterdir()} == NEEDED
    assert [path.name for path in downloaded.parent.iterdir()] == ["videopanda_fitu"]


def test_safetensors_are_preferred_over_bin(hub: FakeHub) -> None:
    hub.commits[FIRST]["videopanda_fitu/model.safetensors"] = b"tensors"
    downloaded = pull()
    weights = {path.name for path in downloaded.iterdir() if "model" in path.name}
    assert weights == {"model.safetensors", "tokenizer.model"}


def test_name_outside_the_folder_is_not_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    hub.commits[FIRST]["videopanda_fitu/../../../config.json"] = b"evil"
    hub.commits[FIRST]["/config.json"] = b"evil"
    pull()
    assert hub.fetched().count("config.json") == 1
    assert not (tmp_path / "hub" / "config.json").exists()


def test_every_file_is_requested_at_the_commit(hub: FakeHub) -> None:
    pull()
    files = [path for _, path, _ in hub.requests if "/resolve/" in path]
    assert all(path.startswith(f"/{REPO}/resolve/{FIRST}/") for path in files)


def test_newer_commit_downloaded_by_another_program_is_not_used(
    hub: FakeHub,
) -> None:
    old = pull()
    hub.commits[SECOND] = checkpoint(shard=b"newer")
    hub.commits["main"] = hub.commits.pop(SECOND)
    huggingface_hub.hf_hub_download(REPO, "videopanda_fitu/config.json", revision="main")
    assert checkpoints.resolve(MODEL.name).folder == old


def test_second_pull_fetches_changed_files(hub: FakeHub) -> None:
    pull()
    hub.commits[SECOND] = checkpoint(shard=b"newer")
    hub.requests.clear()
    newer = pull()
    assert newer.parent.name == SECOND
    assert checkpoints.resolve(MODEL.name).folder == newer
    assert SHARD in hub.fetched()
    assert "pytorch_model-00002-of-00002.bin" not in hub.fetched()


def test_second_pull_without_changes_verifies_everything_and_fetches_nothing(hub: FakeHub) -> None:
    pull()
    hub.requests.clear()
    log = Log()
    pull(log)
    assert hub.fetched() == []
    assert set(log.checked) == NEEDED
    assert log.replaced == []


def test_plan_has_the_size_before_any_download(hub: FakeHub) -> None:
    plan = plan_download(MODEL)
    assert plan.bytes == plan.missing_bytes == sum(file.bytes for file in plan.files)
    assert hub.fetched() == []


def test_interrupted_response_is_resumed(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut = 150_000
    log = Log()
    pull(log)
    ranges = [wanted for _, path, wanted in hub.requests if path.endswith(SHARD) and wanted]
    assert ranges == ["bytes=150000-", "bytes=300000-"]
    assert log.done[SHARD] == 320_000


def test_interrupted_download_is_resumed(hub: FakeHub) -> None:
    interrupted_pull(b"weights " * 25_000)
    hub.requests.clear()
    log = Log()
    pull(log)
    asked = [(method, wanted) for method, path, wanted in hub.requests if path.endswith(SHARD)]
    assert asked == [("HEAD", None), ("GET", "bytes=200000-")]
    assert hub.fetched() == [SHARD]
    assert log.done[SHARD] == 320_000


def test_interrupted_download_is_incomplete() -> None:
    interrupted_pull(b"weights")
    error = refusal(lambda: checkpoints.resolve(MODEL.name))
    assert "is incomplete" in error.message
    assert error.hint == "get the rest with: panda pull video-panda-7b"


def test_server_without_ranges_restarts_the_file(hub: FakeHub) -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"other bytes")
    hub.ranges = False
    log = Log()
    assert (pull(log) / SHARD).read_bytes().startswith(b"weights ")
    assert log.done[SHARD] == 320_000


def test_server_without_ranges_that_cuts_every_response_is_given_up(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 20, "it is retried forever"

    monkeypatch.setattr("time.sleep", sleep)
    hub.ranges, hub.cut = False, 150_000
    refusal()
    assert len(slept) < 10


def test_oversized_partial_file_is_discarded() -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 400_000)
    assert (pull() / SHARD).stat().st_size == 320_000


def test_file_with_wrong_sha256_is_deleted_and_reported(hub: FakeHub) -> None:
    hub.altered.add(f"videopanda_fitu/{SHARD}")
    error = refusal()
    assert error.message.startswith(f"{SHARD} was damaged, and is deleted")
    assert error.hint == "get it again with: panda pull video-panda-7b"
    assert not partial_path(MODEL, shard_file()).exists()
    hub.altered.clear()
    pull()
    assert checkpoints.resolve(MODEL.name).kind == "cache"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_byte_keeping_mtime(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"?" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, empty, flip_byte_keeping_mtime])
@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_second_pull_repairs_a_damaged_file(
    hub: FakeHub, damage: Callable[[Path], None], name: str
) -> None:
    path = pull() / name
    damage(path.resolve())
    hub.requests.clear()
    log = Log()
    pull(log)
    assert (log.replaced, hub.fetched()) == ([name], [name])
    assert path.read_bytes() == checkpoint()[f"videopanda_fitu/{name}"]


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_truncated_file_makes_the_model_incomplete(name: str) -> None:
    folder = pull()
    resolved = (folder / name).resolve()
    resolved.write_bytes(
        resolved.read_bytes().rstrip()[:-1]
    )  # of config.json, which is JSON no more
    error = refusal(lambda: checkpoints.resolve(MODEL.name))
    assert "panda pull video-panda-7b" in (error.hint or "")
    assert find_model(MODEL.name).state == "incomplete"
    pull()
    assert checkpoints.resolve(MODEL.name).folder == folder


def test_flipped_byte_of_a_pulled_model_is_found_on_use() -> None:
    folder = pull()
    first = checkpoints.model_digest(checkpoints.resolve(MODEL.name))
    flip_byte_keeping_mtime((folder / SHARD).resolve())
    error = refusal(lambda: checkpoints.model_digest(checkpoints.resolve(MODEL.name)))
    assert error.message.endswith(
        f"{SHARD} is damaged: its sha256 is another than when it was pulled"
    )
    assert error.hint == "repair it with: panda pull video-panda-7b"
    pull()
    assert checkpoints.model_digest(checkpoints.resolve(MODEL.name)) == first


def test_damaged_file_of_another_program_is_downloaded_again() -> None:
    blob = blob_path(MODEL, shard_file())
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"?" * 320_000)
    log = Log()
    assert (pull(log) / SHARD).read_bytes().startswith(b"weights ")
    assert log.replaced == [SHARD]


def test_full_disk_is_reported_before_any_download(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    error = refusal()
    assert "needs 323 kB more, and 1 kB are free in" in error.message
    assert (error.hint or "").startswith("free 322 kB, or ")
    assert error.hint is not None
    assert "HF_HOME" in error.hint
    assert hub.fetched() == []


def test_artifact_on_another_disk_needs_room_there(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_disk", str)
    plan = replace(plan_download(MODEL), artifact_bytes=10**18)
    error = refusal(lambda: download(plan, Log()))
    assert error.message.startswith(f"the quantised copy of {MODEL.name} needs 1,000,000,000.0 GB")
    assert "PANDA_HOME" in (error.hint or "")
    assert hub.fetched() == []


def test_partial_files_need_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"weights " * 39_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    assert plan_download(MODEL).missing_bytes < 10_000
    pull()


def test_concurrent_download_is_refused() -> None:
    from filelock import FileLock

    lock = Path(huggingface_hub.constants.HF_HUB_CACHE, ".locks", "models--jh-yi--Video-Panda-7B")
    lock.mkdir(parents=True)
    with FileLock(lock / f"{shard_file().digest}.lock"):
        assert refusal().message == f"{SHARD} is being downloaded already"


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "does not let us see"), (403, "refuses"), (404, "has no"), (500, "error 500")],
)
@pytest.mark.parametrize("place", ["/api/models", f"/{REPO}/resolve"])
def test_http_error_is_one_line_and_a_hint(
    hub: FakeHub, status: int, words: str, place: str
) -> None:
    hub.statuses[place] = status
    error = refusal()
    assert words in error.message
    assert error.hint


def test_unreachable_hub_is_reported_with_a_hint(hub: FakeHub) -> None:
    hub.close()
    error = refusal()
    assert error.message == f"cannot reach {hub.url.removeprefix('http://')}"
    assert error.hint is not None
    assert "resumes where it stopped" in error.hint


def test_hub_lost_between_plan_and_download_is_reported(hub: FakeHub) -> None:
    plan = plan_download(MODEL)
    hub.close()
    huggingface_hub.utils.close_session()
    assert refusal(lambda: download(plan, Log())).message.startswith("cannot reach")


def test_server_that_is_not_a_hub_is_reported(hub: FakeHub) -> None:
    hub.statuses["/api/models"] = 200
    assert "does not answer as Hugging Face does" in refusal().message


def test_failing_proxy_is_reported(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    huggingface_hub.utils.close_session()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://hub.invalid")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, hub.url)
    assert "hub.invalid" in refusal().message


def test_offline_sends_no_request(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = refusal()
    assert error.message == "video-panda-7b cannot be downloaded: this is offline mode"
    assert hub.requests == []


def test_unwritable_cache_is_reported() -> None:
    Path(huggingface_hub.constants.HF_HUB_CACHE).write_text("a file where a folder should be")
    assert refusal().message.startswith("cannot write")


@pytest.mark.parametrize("lost", ["tokenizer.model", "pytorch_model.bin.index.json"])
def test_repository_without_a_needed_file_is_refused_before_any_download(
    hub: FakeHub, lost: str
) -> None:
    hub.commits[FIRST] = {k: v for k, v in checkpoint().items() if not k.endswith(lost)}
    assert "holds no" in refusal().message
    assert hub.fetched() == []


@pytest.mark.parametrize("lost", ["config.json", SHARD])
def test_repository_without_the_model_is_reported(hub: FakeHub, lost: str) -> None:
    kept = {path: content for path, content in checkpoint().items() if not path.endswith(lost)}
    hub.commits[FIRST] = {k: v for k, v in kept.items() if lost != SHARD or ".bin" not in k}
    what = "config.json" if lost == "config.json" else "weights"
    assert refusal().message == f"the repository {REPO} holds no {what} in videopanda_fitu"


def test_record_with_invalid_digest_is_ignored() -> None:
    pull()
    record = panda_home() / "pulls" / "video-panda-7b.unfinished.json"
    evil = {"path": "config.json", "bytes": 1, "digest": "../../x"}
    record.write_text(json.dumps({"format": 1, "commit": FIRST, "files": [evil]}))
    assert read_pull(MODEL, finished=False) is None


def test_damaged_pull_record_is_ignored() -> None:
    pull()
    record = panda_home() / "pulls" / "video-panda-7b.json"
    record.write_text("{")
    assert "not on this machine" in refusal(lambda: checkpoints.resolve(MODEL.name)).message
    pull()
    assert checkpoints.resolve(MODEL.name).kind == "cache"
