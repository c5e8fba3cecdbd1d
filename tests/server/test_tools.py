"""The tools of `panda mcp`, called in memory by the client of the package `mcp`."""

import asyncio
import base64
import io
import re
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from mcp import Client
from mcp.types import CallToolResult
from PIL import Image

from pandacli import Panda
from pandacli.server import media
from pandacli.server.app import ServerSettings, Service
from pandacli.server.clips import OpenClip
from pandacli.server.mcp import make_server
from pandacli.server.media import Limits
from pandacli.server.tools import Tools
from tests.server import failing_decoder

DEMO = Path(media.__file__).parents[1] / "assets" / "demo.mp4"
WHAT = "A red circle moves right. A blue square stays still. A yellow star appears."
ASK = {"path": "demo.mp4", "question": "What happens?"}
STAR = {"path": "demo.mp4", "question": "Is there a star?"}

PLACES = [
    *("../secret.mp4", "{outside}", "file://{outside}", "link.mp4", "folder/secret.mp4"),
    *("..", "/", "missing.mp4"),
]

Work = Callable[[Client, Service], Coroutine[Any, Any, Any]]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def tiny() -> Panda:
    return Panda.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A media folder: the bundled clip, a text, links out of the folder, and failing files."""
    folder = tmp_path_factory.mktemp("media") / "videos"
    folder.mkdir()
    for path in ("demo.mp4", "hanging.mp4", "crashing.mp4", "../secret.mp4"):
        shutil.copy(DEMO, folder / path)
    (folder / "notes.mp4").write_text("no video\n" * 1000)
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "folder").symlink_to(folder.parent)
    return folder


async def serve(folder: Path, model: Panda, image_size: int, work: Work, **limits: Any) -> Any:
    """Await `work` with a client of a server of the folder."""
    settings = ServerSettings("tiny", image_size, [folder], limits=Limits(**limits), preload=False)
    with Service(settings, lambda: model) as service:
        async with Client(make_server(Tools(service)), mode="legacy") as client:
            return await work(client, service)


@pytest.fixture(scope="module")
def run(folder: Path, tiny: Panda) -> Iterator[Run]:
    """Runs `work(client, service)` with the server of this module."""
    ready: Future[tuple[Client, Service, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def until_stopped(client: Client, service: Service) -> None:
        stopped = asyncio.Event()
        ready.set_result((client, service, asyncio.get_running_loop(), stopped))
        await stopped.wait()

    serving = threading.Thread(target=lambda: asyncio.run(serve(folder, tiny, 168, until_stopped)))
    serving.start()
    client, service, loop, stopped = ready.result(20)

    def run(work: Work) -> Any:
        return asyncio.run_coroutine_threadsafe(work(client, service), loop).result(60)

    yield run
    loop.call_soon_threadsafe(stopped.set)
    serving.join()


@pytest.fixture
def call(run: Run) -> Callable[..., CallToolResult]:
    """Calls a tool."""

    def call(name: str, arguments: dict[str, Any]) -> Any:
        return run(lambda client, _: client.call_tool(name, arguments))

    return call


def texts(result: CallToolResult) -> list[str]:
    return [content.text for content in result.content if content.type == "text"]


def error(result: CallToolResult) -> str:
    assert result.is_error, result
    (text,) = texts(result)
    return text


def test_tools_are_described_with_their_folder_and_schemas_that_every_client_takes(
    run: Run, folder: Path
) -> None:
    listed = run(lambda client, _: client.list_tools())
    assert [tool.name for tool in listed.tools] == ["ask_video", "look_at_frames", "find_moment"]
    for tool in listed.tools:
        schema = tool.input_schema
        assert str(folder) in schema["properties"]["path"]["description"]
        assert schema["additionalProperties"] is False
        for each in (schema, tool.output_schema or schema):
            jsonschema.Draft202012Validator.check_schema(each)
            for part in parts(each):
                assert isinstance(part.get("type", ""), str)
                assert ("items" in part) == (part.get("type") == "array")
        for name, argument in schema["properties"].items():
            assert argument["description"].endswith((".", '".')), name


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A JSON schema and those in it."""
    if "type" in schema or "anyOf" in schema:
        yield schema
    for inner in [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]:
        yield from parts(inner)
    if "items" in schema:
        yield from parts(schema["items"])


def test_answer_is_that_of_the_model_with_the_times_of_the_frames(call: Any) -> None:
    result = call("ask_video", ASK)
    assert texts(result) == [WHAT, "(tiny looked at 8 frames, from 0:00 to 0:07.)"]
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert result.structured_content == {"answer": WHAT, "model": "tiny", "frame_times": times}


def test_answer_about_one_frame_names_its_time(call: Any, tiny: Panda) -> None:
    answer, note = texts(call("ask_video", ASK | {"frames": 1, "from": "0:02"}))
    assert answer == tiny.ask(DEMO, "What happens?", start=2, num_frames=1).text
    assert note == "(tiny looked at a frame, at 0:02.)"


@pytest.mark.parametrize(("start", "end"), [(1, "3"), ("0:01", 3.0)])
def test_part_may_be_given_in_seconds_or_as_a_clock_shows_it(
    call: Any, tiny: Panda, start: object, end: object
) -> None:
    result = call("ask_video", ASK | {"from": start, "to": end, "frames": 4})
    asked = tiny.ask(DEMO, "What happens?", start=1, end=3, num_frames=4)
    assert texts(result)[0] == asked.text != WHAT
    assert len(result.structured_content["frame_times"]) == 4


def test_earlier_turns_are_part_of_the_question(call: Any, tiny: Panda) -> None:
    turns = [("Which shape appears?", "A yellow star."), ("What happens?", WHAT)]
    history = [{"question": question, "answer": answer} for question, answer in turns]
    question = "And which shape moves?"
    result = call("ask_video", ASK | {"question": question, "history": history})
    assert texts(result)[0] == tiny.ask(DEMO, question, history=turns).text


def test_choices_are_ranked_by_their_probabilities(call: Any, tiny: Panda) -> None:
    choices = ["A blue square.", "A yellow star.", "A red circle."]
    question = "Which shape appears?"
    result = call("ask_video", ASK | {"question": question, "choices": choices})
    scores = tiny.open(DEMO).score(question, choices)
    expected = sorted(scores.choices, key=lambda choice: -choice.probability)
    assert expected[0].text == "A yellow star." == result.structured_content["answer"]
    got = result.structured_content["choices"]
    assert [choice["text"] for choice in got] == [choice.text for choice in expected]
    probabilities = [choice.probability for choice in expected]
    assert [each["probability"] for each in got] == pytest.approx(probabilities, abs=1e-5)
    lines = texts(result)[0].splitlines()
    assert lines[0] == f"{probabilities[0]:.2f}  A yellow star."


def test_pictures_are_the_frames_that_a_question_is_about(call: Any, tiny: Panda) -> None:
    result = call("look_at_frames", {"path": "demo.mp4", "from": 2, "to": "0:04"})
    frames = tiny.open(DEMO, start=2, end=4).frames
    facts, seen, *lines = texts(result)[0].splitlines()
    assert facts == ("demo.mp4: 0:08 long, 200 frames, 640x360 pixels, 25 frames per second, h264.")
    assert seen == "8 of the frames, as tiny sees them:"
    times = [0, *frames.times]
    assert lines == [
        f"{number}. frame {index}, at 0:{times[number]:05.2f}"
        for number, index in enumerate(frames.indices, 1)
    ]
    pictures = [content for content in result.content if content.type == "image"]
    assert {picture.mime_type for picture in pictures} == {"image/jpeg"}
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p.data)))) for p in pictures]
    for picture, pixels in zip(shown, frames.pixels, strict=True):
        side = max(picture.shape)
        expected = Image.fromarray(pixels).resize((picture.shape[1], picture.shape[0]))
        assert side == 168
        assert np.abs(np.asarray(expected).astype(int) - picture).mean() < 4
    assert result.structured_content is None  # in place of which clients would show no picture


def test_control_characters_of_a_name_are_escaped(call: Any, folder: Path) -> None:
    name = "odd\x1b[31m\n.mp4"
    shutil.copy(DEMO, folder / name)
    facts = texts(call("look_at_frames", {"path": name, "frames": 1}))[0]
    assert facts.startswith(r"'odd\x1b[31m\n.mp4': 0:08 long")
    (folder / name).rename(folder / "odd\x1b.mp4")
    assert r"'odd\x1b.mp4'" in error(call("look_at_frames", {"path": name}))
    (folder / "odd\x1b.mp4").unlink()


def test_moment_is_found_with_progress_that_only_increases(run: Run) -> None:
    progress: list[tuple[float, float | None, str | None]] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        progress.append((done, total, message))

    async def work(client: Client, _: Service) -> Any:
        described = {tool.name: tool for tool in (await client.list_tools()).tools}
        result = await client.call_tool("find_moment", STAR, progress_callback=note)
        jsonschema.validate(result.structured_content, described["find_moment"].output_schema)
        return result

    result = run(work)
    found = result.structured_content
    (segment,) = found["segments"]
    assert segment["start"] == pytest.approx(4.5, abs=0.5)
    assert segment["end"] == 8.0
    assert segment["probability"] > 0.9
    first, *lines = texts(result)[0].splitlines()
    assert first == 'tiny answers "Is there a star?" with yes at these times of 0:00 - 0:08:'
    assert re.fullmatch(r"0:04\.\d - 0:08\.0  probability 0\.9\d", lines[0])
    done = [number for number, _, _ in progress]
    assert done == sorted(set(done))
    windows, total, message = progress[-1]
    assert windows == total > found["windows"]
    assert message == f"{windows:.0f} of {total:.0f} windows"


def test_statement_that_is_never_true_is_found_nowhere_with_the_likeliest_window(call: Any) -> None:
    arguments = {"path": "demo.mp4", "question": "a green triangle spins", "to": 3, "window": 1}
    result = call("find_moment", arguments)
    found = result.structured_content
    assert found["segments"] == []
    assert found["question"] == "Does the video show this: a green triangle spins?"
    assert 0 <= found["highest"]["probability"] < 0.9
    assert texts(result)[0].startswith(f'tiny does not answer "{found["question"]}" with yes')


REFUSED = {
    "a tool that is not there": ("watch", ASK, "there is no tool 'watch'"),
    "an argument that is not there": ("look_at_frames", ASK, "has no argument 'question'"),
    "no path": ("ask_video", {"question": "What?"}, "path is missing"),
    "a path that is no text": ("ask_video", ASK | {"path": 7}, "path must be a string"),
    "an address": ("ask_video", ASK | {"path": "https://a.b/c.mp4"}, "download it first"),
    "no question": ("ask_video", ASK | {"question": " "}, "question is missing"),
    "a time that is none": ("ask_video", ASK | {"from": "noon"}, "'noon' is not a time"),
    "a range that ends before it starts": ("ask_video", ASK | {"from": 3, "to": 2}, "not after"),
    "a range past the end": ("look_at_frames", {"path": "demo.mp4", "from": 9}, "past the end"),
    "frames that are too many": ("ask_video", ASK | {"frames": 9}, "9 frames; 8 or 10 would do"),
    "one choice": ("ask_video", ASK | {"choices": ["yes"]}, "only one is given"),
    "choices that are numbers": ("ask_video", ASK | {"choices": [1, 2]}, "list of strings"),
    "a turn without its answer": ("ask_video", ASK | {"history": [{"question": "?"}]}, "history"),
    "a threshold above 1": ("find_moment", ASK | {"threshold": 2}, "a threshold cannot be 2"),
    "a window of no length": ("find_moment", ASK | {"window": 0}, "window is 0.1 seconds or more"),
}


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_a_tool_error_of_one_sentence(
    call: Any, name: str, arguments: dict[str, Any], message: str
) -> None:
    text = error(call(name, arguments))
    assert message in text
    assert "\n" not in text
    assert "--" not in text, "options of the command line are not arguments of tools"


@pytest.mark.parametrize("name", ["ask_video", "look_at_frames", "find_moment"])
def test_file_outside_of_the_folder_is_refused_with_those_that_may_be_read(
    run: Run, folder: Path, name: str
) -> None:
    outside = folder.parent / "secret.mp4"
    question = {} if name == "look_at_frames" else {"question": "What happens?"}
    places = [place.format(outside=outside) for place in PLACES]

    async def work(client: Client, _: Service) -> Any:
        calls = [client.call_tool(name, {"path": place} | question) for place in places]
        return await asyncio.gather(*calls)

    for place, result in zip(places, run(work), strict=True):
        expected = f"no file {place!r} below the folders that the server may read"
        assert error(result).startswith(f"{expected}; videos there: ")
        assert error(result).endswith(f"(in {folder})")
        assert "demo.mp4" in error(result)
        assert "link.mp4, " not in error(result), "it leads out of the folder"


def test_file_that_is_no_video_is_a_tool_error(call: Any) -> None:
    for name in ("ask_video", "find_moment"):
        assert "notes.mp4 is not a video" in error(call(name, ASK | {"path": "notes.mp4"}))


def test_hanging_or_crashing_decoder_costs_its_call_only(
    folder: Path, tiny: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "read_limited", failing_decoder.read_limited)
    names = ["hanging.mp4", "demo.mp4", "crashing.mp4", "demo.mp4"]

    async def work(client: Client, _: Service) -> Any:
        calls = [client.call_tool("ask_video", ASK | {"path": name}) for name in names]
        return [*await asyncio.gather(*calls), await client.call_tool("ask_video", ASK)]

    results = asyncio.run(serve(folder, tiny, 168, work, read_seconds=2.0))
    hanging, first, crashing, second, third = results
    assert error(hanging) == "the video decoder does not finish reading hanging.mp4"
    assert error(crashing) == "the video decoder crashed on crashing.mp4"
    assert [texts(result)[0] for result in (first, second, third)] == [WHAT] * 3


@pytest.mark.slow
def test_calls_at_once_get_the_results_that_each_gets_alone(run: Run, call: Any) -> None:
    calls = [
        ("ask_video", ASK),
        ("find_moment", STAR),
        ("ask_video", ASK | {"question": "Which shape appears?"}),
        ("ask_video", ASK | {"choices": ["A star.", "A circle."]}),
        ("look_at_frames", {"path": "demo.mp4", "to": 5}),
    ]

    async def at_once(client: Client, _: Service) -> Any:
        return await asyncio.gather(*(client.call_tool(*each) for each in calls))

    assert run(at_once) == [call(*each) for each in calls]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_cancelled_call_stops_its_answer(
    folder: Path, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[float] = []
    step = OpenClip.step

    def slow(clip: OpenClip, model: Panda) -> None:
        passes.append(time.monotonic())
        time.sleep(0.01)
        step(clip, model)

    monkeypatch.setattr(OpenClip, "step", slow)

    async def work(client: Client, service: Service) -> None:
        call = asyncio.create_task(client.call_tool("ask_video", ASK))  # a whole one has over 200
        await until(lambda: len(passes) > 3)
        call.cancel()
        await until(lambda: service.engine.requests == 0)
        await until(lambda: time.monotonic() - passes[-1] > 0.3)
        assert len(passes) < 100

    asyncio.run(serve(folder, panda, 112, work))


@pytest.mark.slow
def test_cancelled_search_ends(run: Run) -> None:
    async def work(client: Client, service: Service) -> None:
        reported = asyncio.Event()

        async def note(done: float, _total: float | None, _message: str | None) -> None:
            if done >= 1:
                reported.set()

        arguments = {"path": "demo.mp4", "question": "a star", "window": 0.1}
        search = client.call_tool("find_moment", arguments, progress_callback=note)
        call = asyncio.create_task(search)
        await asyncio.wait_for(reported.wait(), 20)
        call.cancel()
        await until(lambda: service.engine.requests == 0)
        assert texts(await client.call_tool("ask_video", ASK))[0] == WHAT

    run(work)
