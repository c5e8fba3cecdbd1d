"""Downloading: at one commit, only what is needed, resumable, and checked to the last byte."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from pandacli import store
from pandacli.errors import ModelError
from pandacli.store import published
from pandacli.store.published import blob_path, partial_path
from tests.fake_hub import FIRST, REPO, SECOND, FakeHub, checkpoint
from tests.store.downloads import MODEL, SHARD, Log, interrupted_pull, pull, shard_file

pytestmark = pytest.mark.usefixtures("hub")

NEEDED = {
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "pytorch_model.bin.index.json",
    SHARD,
    "pytorch_model-00002-of-00002.bin",
}


def refusal(act: Callable[[], object] = pull) -> ModelError:
    with pytest.raises(ModelError) as caught:
        act()
    error = caught.value
    assert "\n" not in error.message + (error.hint or "")
    return error


def test_what_was_downloaded_is_the_model_from_then_on() -> None:
    downloaded = pull()
    assert store.resolve(MODEL.name).folder == downloaded.folder
    assert (downloaded.folder / SHARD).read_bytes() == checkpoint()[f"videopanda_fitu/{SHARD}"]


def test_only_what_inference_needs_of_this_model_is_downloaded() -> None:
    downloaded = pull()
    assert {path.name for path in downloaded.folder.iterdir()} == NEEDED
    assert [path.name for path in downloaded.folder.parent.iterdir()] == ["videopanda_fitu"]


def test_safetensors_are_taken_where_both_kinds_are_published(hub: FakeHub) -> None:
    hub.commits[FIRST]["videopanda_fitu/model.safetensors"] = b"tensors"
    downloaded = pull()
    weights = {path.name for path in downloaded.folder.iterdir() if "model" in path.name}
    assert weights == {"model.safetensors", "tokenizer.model"}


def test_a_name_that_leads_out_of_the_folder_is_not_taken(hub: FakeHub, tmp_path: Path) -> None:
    hub.commits[FIRST]["videopanda_fitu/../../../config.json"] = b"evil"
    hub.commits[FIRST]["/config.json"] = b"evil"
    pull()
    assert hub.fetched().count("config.json") == 1
    assert not (tmp_path / "hub" / "config.json").exists()


def test_every_request_for_a_file_names_the_commit(hub: FakeHub) -> None:
    pull()
    files = [path for _, path, _ in hub.requests if "/resolve/" in path]
    assert all(path.startswith(f"/{REPO}/resolve/{FIRST}/") for path in files)


def test_a_model_stays_at_its_commit_when_another_program_downloads_a_newer_one(
    hub: FakeHub,
) -> None:
    old = pull()
    hub.commits[SECOND] = checkpoint(shard=b"newer")
    hub.commits["main"] = hub.commits.pop(SECOND)
    huggingface_hub.hf_hub_download(REPO, "videopanda_fitu/config.json", revision="main")
    assert store.resolve(MODEL.name).folder == old.folder


def test_pulling_again_brings_what_has_changed(hub: FakeHub) -> None:
    pull()
    hub.commits[SECOND] = checkpoint(shard=b"newer")
    hub.requests.clear()
    newer = pull()
    assert newer.commit == SECOND
    assert store.resolve(MODEL.name).folder == newer.folder
    assert SHARD in hub.fetched()
    assert "pytorch_model-00002-of-00002.bin" not in hub.fetched()


def test_pulling_again_without_a_change_fetches_and_reads_nothing(hub: FakeHub) -> None:
    pull()
    hub.requests.clear()
    log = Log()
    pull(log)
    assert hub.fetched() == []
    assert log.checked == []


def test_the_size_is_known_before_the_first_byte(hub: FakeHub) -> None:
    plan = store.plan_download(MODEL)
    assert plan.bytes == plan.missing_bytes == sum(file.bytes for file in plan.files)
    assert hub.fetched() == []


def test_a_file_that_is_cut_off_is_resumed(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut = 150_000
    log = Log()
    pull(log)
    ranges = [wanted for _, path, wanted in hub.requests if path.endswith(SHARD) and wanted]
    assert ranges == ["bytes=150000-", "bytes=300000-"]
    assert log.done[SHARD] == 320_000


def test_what_an_interrupted_download_left_is_not_fetched_again(hub: FakeHub) -> None:
    interrupted_pull(b"weights " * 25_000)
    hub.requests.clear()
    log = Log()
    pull(log)
    asked = [wanted for method, path, wanted in hub.requests if path.endswith(SHARD)]
    assert asked[0] == "bytes=200000-"
    assert hub.fetched() == [SHARD]
    assert log.done[SHARD] == 320_000


def test_a_model_that_is_partly_here_is_said_to_be_incomplete() -> None:
    interrupted_pull(b"weights")
    error = refusal(lambda: store.resolve(MODEL.name))
    assert "is incomplete" in error.message
    assert error.hint == "get the rest with: panda pull video-panda-7b"


def test_a_hub_that_cannot_resume_is_read_from_the_start(hub: FakeHub) -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"other bytes")
    hub.ranges = False
    log = Log()
    assert (pull(log).folder / SHARD).read_bytes().startswith(b"weights ")
    assert log.done[SHARD] == 320_000


def test_a_part_that_is_longer_than_the_file_is_thrown_away() -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 400_000)
    assert (pull().folder / SHARD).stat().st_size == 320_000


def test_a_file_with_another_sha256_is_deleted_and_named(hub: FakeHub) -> None:
    hub.altered.add(f"videopanda_fitu/{SHARD}")
    error = refusal()
    assert error.message.startswith(f"{SHARD} was damaged, and is deleted")
    assert error.hint == "get it again with: panda pull video-panda-7b"
    assert not partial_path(MODEL, shard_file()).exists()
    hub.altered.clear()
    pull()
    assert store.resolve(MODEL.name).kind == "cache"


def test_a_damaged_file_that_another_program_downloaded_is_found() -> None:
    blob = blob_path(MODEL, shard_file())
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"?" * 320_000)
    assert refusal().message.startswith(f"{SHARD} was damaged")
    assert not blob.exists()


def test_too_small_a_disk_is_told_before_the_first_byte(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    error = refusal()
    assert "needs 0.0 GB more, and 0.0 GB are free in" in error.message
    assert error.hint is not None
    assert "HF_HOME" in error.hint
    assert hub.fetched() == []


def test_a_copy_on_another_disk_needs_its_room_there(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_disk", str)
    plan = replace(store.plan_download(MODEL), copy_bytes=10**18)
    error = refusal(lambda: store.download(plan, Log()))
    assert error.message.startswith(f"the quantised copy of {MODEL.name} needs 1000000000.0 GB")
    assert "PANDA_HOME" in (error.hint or "")
    assert hub.fetched() == []


def test_what_is_here_already_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    partial = partial_path(MODEL, shard_file())
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"weights " * 39_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert store.plan_download(MODEL).missing_bytes < 1000
    pull()


def test_two_downloads_at_once_do_not_mix() -> None:
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
def test_an_answer_that_is_an_error_is_one_line_and_a_hint(
    hub: FakeHub, status: int, words: str, place: str
) -> None:
    hub.statuses[place] = status
    error = refusal()
    assert words in error.message
    assert error.hint


def test_no_network_is_told_with_what_to_do(hub: FakeHub) -> None:
    hub.close()
    error = refusal()
    assert error.message == f"cannot reach {hub.url.removeprefix('http://')}"
    assert error.hint is not None
    assert "goes on where it stopped" in error.hint


def test_a_network_that_goes_away_in_the_middle_is_told(hub: FakeHub) -> None:
    plan = store.plan_download(MODEL)
    hub.close()
    huggingface_hub.utils.close_session()
    assert refusal(lambda: store.download(plan, Log())).message.startswith("cannot reach")


def test_a_server_that_is_no_hub_is_told(hub: FakeHub) -> None:
    hub.statuses["/api/models"] = 200
    assert "does not answer as Hugging Face does" in refusal().message


def test_a_proxy_that_does_not_work_is_told(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    huggingface_hub.utils.close_session()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://hub.invalid")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, hub.url)
    assert "hub.invalid" in refusal().message


def test_offline_asks_nothing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = refusal()
    assert error.message == "video-panda-7b cannot be downloaded: this is offline mode"
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_is_told() -> None:
    Path(huggingface_hub.constants.HF_HUB_CACHE).write_text("a file where a folder should be")
    assert refusal().message.startswith("cannot write")


@pytest.mark.parametrize("lost", ["config.json", SHARD])
def test_a_repository_without_the_model_is_told(hub: FakeHub, lost: str) -> None:
    kept = {path: content for path, content in checkpoint().items() if not path.endswith(lost)}
    hub.commits[FIRST] = {k: v for k, v in kept.items() if lost != SHARD or ".bin" not in k}
    what = "config.json" if lost == "config.json" else "weights"
    assert refusal().message == f"the repository {REPO} holds no {what} in videopanda_fitu"


def test_a_damaged_record_of_a_pull_is_as_none() -> None:
    pull()
    record = store.home() / "pulls" / "video-panda-7b.json"
    record.write_text("{")
    assert "not on this machine" in refusal(lambda: store.resolve(MODEL.name)).message
    pull()
    assert store.resolve(MODEL.name).kind == "cache"
