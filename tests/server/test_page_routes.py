"""The routes of the page: its files, videos that may be played, frames, and searches."""

import base64
import io
import re
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pandacli import Panda
from pandacli.server import page, search
from tests.server.page_server import FILM_SECONDS, SEEN, RunningServer, serving, write_circle_film

KEY = "a secret"
BEARER = {"Authorization": f"Bearer {KEY}"}
PAGE = Path(page.__file__).with_name("page")
FILES = ("", *(f"panda/page/{file.name}" for file in sorted(PAGE.iterdir())))


@pytest.fixture(scope="module")
def tiny() -> Panda:
    return Panda.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film, one in a folder, and files that are no videos."""
    folder = tmp_path_factory.mktemp("media")
    film = write_circle_film(folder)
    (folder / "more").mkdir()
    (folder / "more" / "second film.mp4").write_bytes(film.read_bytes())
    (folder / "page.html").write_text("<script>alert(1)</script>")
    return folder


@pytest.fixture(scope="module")
def server(tiny: Panda, media: Path) -> Iterator[RunningServer]:
    with serving(tiny, media=[media]) as running:
        yield running


@pytest.fixture(scope="module")
def with_key(tiny: Panda, media: Path) -> Iterator[RunningServer]:
    with serving(tiny, media=[media], api_key=KEY) as running:
        yield running


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_page_are_strict_and_name_no_outside_address(
    server: RunningServer, name: str
) -> None:
    with server.open(f"/{name}") as response:
        text, headers = response.read().decode(), response.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.", text) == []
    assert re.findall(r"\son\w+=|<style|style=|innerHTML|insertAdjacentHTML|eval\(", text) == []


@pytest.mark.parametrize("name", ["none.js", "..%2fpage.py", "%2e%2e%2fapp.py", "__init__.py"])
def test_other_files_are_not_served(server: RunningServer, name: str) -> None:
    assert server.open(f"/panda/page/{name}").status == 404


def test_media_are_the_videos_below_the_folders(server: RunningServer) -> None:
    assert server.json("/panda/media")["videos"] == ["circle.mp4", "more/second film.mp4"]


def test_frames_are_pictures_at_times_within_the_range(server: RunningServer) -> None:
    found = server.json("/panda/frames", {"video": {"url": "circle.mp4"}, "from": 4, "to": "0:06"})
    assert found["duration"] == pytest.approx(FILM_SECONDS, abs=0.2)
    assert (found["width"], found["height"]) == (320, 180)
    times = [frame["time"] for frame in found["frames"]]
    assert len(times) == 8
    assert times == sorted(times)
    assert 4 <= times[0] <= times[-1] <= 6
    data = found["frames"][0]["picture"].removeprefix("data:image/jpeg;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    red, green, _ = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert red > green + 10, "the red circle is in it"


def test_video_plays_from_the_address_that_was_given_out(
    server: RunningServer, media: Path
) -> None:
    address = server.json("/panda/frames", {"video": {"url": "more/second film.mp4"}})["video"]
    content = (media / "circle.mp4").read_bytes()
    with server.open(address, Range="bytes=100-199") as part:
        assert part.status == 206
        assert part.headers["content-type"] == "video/mp4"
        assert part.read() == content[100:200]


@pytest.mark.parametrize("name", ["page.html", "circle.mp4", "../circle.mp4", ""])
def test_video_is_refused_without_the_proof_for_its_name(server: RunningServer, name: str) -> None:
    given = server.json("/panda/frames", {"video": {"url": "more/second film.mp4"}})["video"]
    proof = urllib.parse.parse_qs(given.partition("?")[2])["proof"][0]
    other = base64.urlsafe_b64encode(f"\0{name}".encode()).decode()
    query = urllib.parse.urlencode({"name": other, "proof": proof})
    assert server.open(f"/panda/video?{query}").status == 403
    assert server.open("/panda/video?proof=%ff&name=%ff").status == 403


def test_without_the_key_only_the_page_itself_is_served(with_key: RunningServer) -> None:
    frames = {"video": {"url": "circle.mp4"}}
    assert all(with_key.open(f"/{name}").status == 200 for name in FILES)
    assert with_key.open("/panda/media").status == 401
    assert with_key.open("/panda/frames", frames).status == 401
    assert with_key.open("/panda/when", frames | {"question": "?"}).status == 401
    address = with_key.json("/panda/frames", frames, **BEARER)["video"]
    with with_key.open(address) as video:
        assert video.status == 200, "a video cannot send the key: its address has a proof"
        assert "sandbox" in video.headers["content-security-policy"]


def test_search_streams_windows_and_the_segments_of_the_film(server: RunningServer) -> None:
    asked = {"video": {"url": "circle.mp4"}, "question": "a red circle"}
    begun, *progress, result = server.events("/panda/when", asked)
    assert begun["question"] == "Does the video show this: a red circle?"
    assert (begun["start"], begun["end"]) == (0.0, pytest.approx(FILM_SECONDS, abs=0.2))
    windows = [window for event in progress for window in event["windows"]]
    assert [window["start"] for window in windows] == [float(at) for at in range(11)]
    assert progress[-1]["done"] == progress[-1]["total"] > len(windows)
    (segment,) = result["segments"]
    assert (segment["start"], segment["end"]) == pytest.approx(SEEN, abs=0.6)


def test_search_of_a_range_stays_in_it(server: RunningServer) -> None:
    asked = {"video": {"url": "circle.mp4"}, "question": "Is there a red circle?"}
    begun, *progress, result = server.events("/panda/when", asked | {"from": 8, "window": 1})
    assert begun["start"] == 8
    assert all(window["start"] >= 8 for event in progress for window in event["windows"])
    assert result["segments"] == []


@pytest.mark.parametrize(
    ("wrong", "status", "named"),
    [
        ({"question": " "}, 400, "question"),
        ({"threshold": 1.5}, 400, "threshold"),
        ({"window": 0}, 400, "window"),
        ({"stride": "1"}, 400, "stride"),
        ({"at": [1]}, 400, "range"),
        ({"colour": 1}, 400, "colour"),
        ({"from": 70}, 400, "past the end"),
        ({"video": {"url": "/etc/passwd"}}, 403, "/etc/passwd"),
        ({"video": None}, 400, "video"),
    ],
)
def test_search_that_cannot_be_made_is_an_error_before_it_begins(
    server: RunningServer, wrong: dict[str, Any], status: int, named: str
) -> None:
    asked = {"video": {"url": "circle.mp4"}, "question": "Is it red?"} | wrong
    with server.open("/panda/when", asked) as response:
        text = response.read().decode()
    assert (response.status, named in text) == (status, True), text


def test_search_whose_client_goes_gives_its_place_back(server: RunningServer) -> None:
    asked = {"video": {"url": "circle.mp4"}, "question": "Is it red?", "stride": 0.1}
    response = server.open("/panda/when", asked)
    response.readline()
    assert server.engine.requests == 1
    response.close()
    deadline = time.monotonic() + 20
    while server.engine.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.engine.requests == 0


def test_searches_beyond_the_limit_are_told_to_retry(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_MOST", 0)
    asked = {"video": {"url": "circle.mp4"}, "question": "Is it red?"}
    with server.open("/panda/when", asked) as response:
        assert response.status == 429
        assert response.headers["retry-after"]


@pytest.mark.parametrize("route", ["frames", "when"])
def test_full_server_reads_no_frames(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(server.engine, "_most", 0)
    question = {"question": "Is it red?"} if route == "when" else {}
    with server.open(f"/panda/{route}", {"video": {"url": "circle.mp4"}} | question) as response:
        assert response.status == 429


def test_search_takes_a_window_at_a_time_while_others_wait(
    server: RunningServer, tiny: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def look_together(clips: Any, *rest: Any) -> Any:
        sizes.append(len(clips))
        return Panda.look_together(tiny, clips, *rest)

    monkeypatch.setattr(tiny, "look_together", look_together)
    asked = {"video": {"url": "circle.mp4"}, "question": "Is it green?", "from": 3}
    with server.engine.place():
        server.events("/panda/when", asked)
    assert set(sizes) == {1}
    sizes.clear()
    server.events("/panda/when", asked)
    assert sizes[0] == tiny.windows_at_once > 1


def test_answer_and_search_take_turns(server: RunningServer) -> None:
    video = {"type": "video_url", "video_url": {"url": "circle.mp4"}}
    content = [video, {"type": "text", "text": "What happens?"}]
    chat = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    asked = {"video": {"url": "circle.mp4"}, "question": "Is it red?", "stride": 0.5}
    response = server.open("/panda/when", asked)
    response.readline()
    answer = server.json("/v1/chat/completions", chat)["choices"][0]["message"]["content"]
    events = response.read().decode()
    response.close()
    assert "circle" in answer
    assert events.count("panda.search.progress") > 1, "the search goes on after the answer"
