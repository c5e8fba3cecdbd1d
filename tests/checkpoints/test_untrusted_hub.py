"""Downloads from a hub that lists or sends something wrong: bounded, compared, refused."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from pandacli import checkpoints
from pandacli.checkpoints import MODELS
from pandacli.checkpoints import hub as hub_module
from pandacli.checkpoints.download import plan_download
from pandacli.checkpoints.inventory import find_model, plan_removal, remove
from tests.checkpoints.downloads import MODEL, NEEDED, SHARD, pull, refusal
from tests.fake_hub import (
    ENDLESS,
    FIRST,
    KNOWN,
    REPO,
    SECOND,
    FakeHub,
    checkpoint,
)
from tests.fake_hub import published as published_7b

pytestmark = pytest.mark.usefixtures("hub")


@pytest.mark.parametrize("model", [MODEL, MODELS["video-panda-7b-pretrained"]])
def test_plan_of_the_published_layout_matches_the_known_files(
    hub: FakeHub, model: checkpoints.KnownModel
) -> None:
    hub.commits[KNOWN] = published_7b() | checkpoint("videopanda_prtr1")
    plan = plan_download(model)
    sizes = {file.name: file.bytes for file in plan.files}
    for file in model.known_files:
        assert sizes[file.name] == file.bytes
    assert plan.is_known
    assert plan.has_known_weights is (True if model is MODEL else None)
    assert sizes.keys() == NEEDED


def test_other_weights_for_the_known_commit_are_refused_before_any_download(hub: FakeHub) -> None:
    other = checkpoint()[f"videopanda_fitu/{SHARD}"]
    hub.commits[KNOWN] = published_7b() | {f"videopanda_fitu/{SHARD}": other}
    error = refusal()
    assert f"lists another {SHARD} for commit 6e2080cb41ca" in error.message
    assert hub.fetched() == []


def test_other_weight_format_for_the_known_commit_is_refused(hub: FakeHub) -> None:
    hub.commits[KNOWN] = published_7b() | {"videopanda_fitu/model.safetensors": b"other"}
    assert "for commit 6e2080cb41ca than was published in it" in refusal().message


def test_content_of_the_known_commit_must_have_the_known_digest(hub: FakeHub) -> None:
    last = "videopanda_fitu/pytorch_model-00002-of-00002.bin"
    first = f"videopanda_fitu/{SHARD}"
    known = published_7b()
    hub.commits[KNOWN] = {
        path: replace(known[path], size=1000) if path in (first, last) else content
        for path, content in known.items()
    }
    error = refusal()
    assert error.message.endswith(
        "was damaged, and is deleted: its digest is not the published one"
    )
    refusal(lambda: checkpoints.resolve(MODEL.name))


def test_unknown_commit_with_known_weights_is_recognised(hub: FakeHub) -> None:
    assert plan_download(MODEL).has_known_weights is False
    hub.commits[SECOND] = published_7b()
    plan = plan_download(MODEL)
    assert (plan.is_known, plan.has_known_weights) == (False, True)


@pytest.mark.parametrize("etag", ["/{outside}/evil", "../../../evil", "{digest}"])
def test_file_offered_with_another_digest_is_refused_before_any_download(
    hub: FakeHub, tmp_path: Path, etag: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    value = etag.format(outside=str(outside).lstrip("/"), digest="0" * 40)
    hub.headers["videopanda_fitu/config.json"] = {"ETag": f'"{value}"'}
    before = set(tmp_path.rglob("*"))
    error = refusal()
    assert error.message.endswith("serves config.json with another content than it lists")
    assert hub.fetched() == []
    assert not [path for path in set(tmp_path.rglob("*")) - before if "evil" in path.name]


def test_file_offered_from_another_commit_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.headers[f"videopanda_fitu/{SHARD}"] = {"X-Repo-Commit": SECOND}
    assert refusal().message.endswith(f"serves {SHARD} from another commit than it lists")
    assert hub.fetched() == []
    assert not list(tmp_path.rglob(SECOND))


def test_altered_small_file_is_refused(hub: FakeHub) -> None:
    hub.altered.add("videopanda_fitu/config.json")
    assert refusal().message.startswith("config.json was damaged, and is deleted")


@pytest.mark.parametrize("name", ["config.json", SHARD])
def test_endless_file_is_read_to_its_listed_size(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.endless.add(f"videopanda_fitu/{name}")
    assert refusal().message.endswith(f"serves {name} with more bytes than it lists")
    hub.close()
    assert hub.sent < ENDLESS  # counted once sent, so it may still be 0
    assert sum(p.stat().st_size for p in (tmp_path / "hub").rglob("*") if p.is_file()) < 400_000


def test_endless_listing_is_abandoned(hub: FakeHub) -> None:
    hub.endless.add("listing")
    assert "does not answer as Hugging Face does" in refusal().message
    hub.close()
    assert 0 < hub.sent < ENDLESS


@pytest.mark.parametrize("size", [-5, True, "5", None, 10**400])
def test_invalid_listed_size_is_refused(hub: FakeHub, size: object) -> None:
    hub.listed["videopanda_fitu/config.json"] = {"size": size}
    assert "does not answer as Hugging Face does" in refusal().message
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("wait", "waits"), [("1000000000", []), ("3", [3.0] * 4), ("soon", [1.0] * 4)]
)
def test_retry_after_of_a_busy_server_is_limited(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, wait: str, waits: list[float]
) -> None:
    place = f"GET /{REPO}/resolve/{FIRST}/videopanda_fitu/{SHARD}"
    hub.statuses[place] = 429
    hub.headers[place] = {"Retry-After": wait}
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    assert "too many requests from here (429)" in refusal().message
    assert slept == waits


def test_login_in_the_hub_address_is_not_shown(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = hub.url.rpartition(":")[2]
    hub.close()
    monkeypatch.setattr(
        huggingface_hub.constants,
        "ENDPOINT",
        f"http://user:pa@SECRET@127.0.0.1:{port}/?token=SECRET",
    )
    error = refusal()
    assert error.message == f"cannot reach 127.0.0.1:{port}"
    assert "SECRET" not in str(error.hint)


@pytest.mark.parametrize(
    "endpoint", ["notaurl", "notaurl:SECRET@host", "http://", "ftp://SECRET@x", "http://x:SECRET"]
)
def test_invalid_endpoint_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    error = refusal()
    assert error.message == "HF_ENDPOINT is not the address of a hub"
    assert "SECRET" not in str(error.hint)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_token_with_invalid_character_is_reported(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv(name, "hf_ä")
    assert refusal().message == f"{name} holds a character that is in no token"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_socks_proxy_without_socksio_hints_at_the_package(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "socks5://user:SECRET@127.0.0.1:1080")
    monkeypatch.setattr(hub_module, "find_spec", lambda _: None)
    error = refusal()
    assert error.message.startswith(f"{name} names a SOCKS proxy (socks5://)")
    assert error.hint == "install it with: pip install socksio"


@pytest.mark.parametrize("proxy", ["foo://host:1", "http://host:port", "http://[::1"])
def test_invalid_proxy_is_reported(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert refusal().message.startswith("HTTP_PROXY is not the address of a proxy")


def test_repository_without_subfolder_is_pulled_found_and_removed(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = replace(MODEL, name="root", subfolder=None)
    monkeypatch.setitem(MODELS, "root", root)
    hub.commits[FIRST] |= {
        path.removeprefix("videopanda_fitu/"): content for path, content in checkpoint().items()
    }
    downloaded = pull(model=root)
    state = find_model("root")
    assert (state.state, state.commit) == ("here", FIRST)
    assert checkpoints.resolve("root").folder == downloaded
    remove(plan_removal("root"))
    assert find_model("root").state == "absent"
