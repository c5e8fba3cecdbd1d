"""The page in a real Chromium: upload, ask, stream, go on asking, ranges, searches, errors."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from pandacli import Panda
from tests.server.browser import Page, chromium, needs_chromium, seconds
from tests.server.page_server import FILM_SECONDS, SEEN, RunningServer, serving, write_circle_film

pytestmark = needs_chromium

MARKUP = "<img src=x onerror=alert(1)>.mp4"


@pytest.fixture(scope="module")
def tiny() -> Panda:
    return Panda.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    film = write_circle_film(folder)
    (folder / MARKUP).write_bytes(film.read_bytes())
    write_circle_film(folder, "avi")
    (folder / os.fsdecode(b"no text \xff.mp4")).write_bytes(film.read_bytes())
    return folder


@pytest.fixture(scope="module")
def server(tiny: Panda, media: Path) -> Iterator[RunningServer]:
    with serving(tiny, media=[media]) as running:
        yield running


@pytest.fixture
def page(driver: Any, server: RunningServer) -> Iterator[Page]:
    opened = Page(driver, server.url)
    server.engine.asked.clear()
    yield opened
    assert opened.console() == [], "no error of a script, and nothing that the policy blocked"


def test_uploaded_clip_is_shown_and_a_question_about_it_answered(page: Page, media: Path) -> None:
    page.upload(media / "circle.mp4")
    times = page.frame_times()
    assert len(times) == 8
    assert times == sorted(times)
    assert page.ask("What happens?") == "A red circle moves right."


@pytest.mark.slow
def test_second_question_goes_with_the_turn_before(page: Page, server: RunningServer) -> None:
    page.choose("circle.mp4")
    first = page.ask("What happens?")
    second = page.ask("What colour is it?")
    assert "red" in second.lower()
    assert page.texts(".question .words") == ["What happens?", "What colour is it?"]
    before, after = server.engine.questions
    assert list(before.history) == []
    assert list(after.history) == [("What happens?", first)]


@pytest.mark.slow
def test_answer_is_shown_as_it_comes_and_stops_on_a_click(
    page: Page, server: RunningServer
) -> None:
    page.choose("circle.mp4")
    with server.engine.held_up() as passes:
        page.type("What happens?" + Keys.ENTER)
        page.find("#stop")
        assert page.find("#log").get_attribute("aria-busy") == "true"
        shown = ""
        while not shown:
            passes.release()
            shown = "".join(page.texts(".turn .text"))
        assert "A red circle moves right.".startswith(shown.strip())
        assert shown.strip() != "A red circle moves right."
        page.find("#stop").click()
        assert page.answer().endswith("Stopped.")
        passes.release(4)
        page.wait(lambda: server.engine.requests == 0, "the server goes on answering")
    assert page.find("#log").get_attribute("aria-busy") == "false"
    page.ask("What colour is it?")
    assert server.engine.questions[-1].history[0][1].startswith(shown.strip())


@pytest.mark.slow
def test_range_is_chosen_by_keyboard_pointer_and_text(page: Page, server: RunningServer) -> None:
    page.choose("circle.mp4")
    start, end = page.find(".handle.start"), page.find(".handle.end")
    start.send_keys(Keys.PAGE_UP, Keys.PAGE_UP, Keys.ARROW_RIGHT)
    assert page.find("#from").get_property("value") == "0:02.1"
    assert start.get_attribute("aria-valuetext") == "0:02.1"
    page.wait(lambda: page.frame_times()[0] >= 2.1, "the frames stay those before")
    width = page.find("#track").size["width"]
    ActionChains(page.driver).drag_and_drop_by_offset(end, -width // 2, 0).perform()
    assert seconds(page.find("#to").get_property("value")) == pytest.approx(6, abs=0.3)
    page.wait(lambda: page.frame_times()[-1] <= 6.3, "the frames stay those before")
    field = page.find("#from")
    field.clear()
    field.send_keys("0:04" + Keys.ENTER)
    page.wait(lambda: page.frame_times()[0] >= 4, "the frames stay those before")
    page.ask("What happens?")
    clip, _ = server.engine.asked[-1]
    assert (clip.start, clip.end) == (4.0, pytest.approx(6, abs=0.3))
    page.find("#whole").click()
    page.wait(lambda: page.frame_times()[0] < 1, "the frames stay those before")
    page.ask("What happens?")
    clip, request = server.engine.asked[-1]
    assert (clip.start, clip.end, list(request.history)) == (None, None, [])
    assert page.texts(".divider") == ["Now about the whole film"]


@pytest.mark.slow
def test_range_that_is_no_time_is_said_so_and_not_taken(page: Page) -> None:
    page.choose("circle.mp4")
    field = page.find("#to")
    for wrong in ("soon", "0:00"):
        field.clear()
        field.send_keys(wrong + Keys.ENTER)
        assert field.get_attribute("aria-invalid") == "true"
        assert "0:12.5" in field.get_property("validationMessage")
    assert seconds(page.find(".handle.end").get_attribute("aria-valuetext")) > 10


@pytest.mark.slow
def test_search_draws_the_curve_and_its_segments_play(page: Page) -> None:
    page.choose("circle.mp4")
    page.type("Is there a red circle?")
    page.find("#when").click()
    page.answer()
    (play,) = page.all(".found .play")
    begins, ends = map(seconds, play.text.split(" \N{EN DASH} "))
    assert (begins, ends) == pytest.approx(SEEN, abs=0.6)
    assert "P(yes)" in page.find(".curve").get_attribute("aria-label")
    assert page.find(".curve .line").get_attribute("d").count(",") > 10
    (bar,) = page.all(".segments span")
    track = page.find("#track").rect
    share = (bar.rect["x"] - track["x"]) / track["width"]
    assert share * FILM_SECONDS == pytest.approx(begins, abs=0.2)
    play.click()
    position = "return document.getElementById('player').currentTime"
    page.wait(lambda: begins + 0.1 < page.run(position) < ends, "it does not play")
    page.run("document.getElementById('player').playbackRate = 8")
    paused = "return document.getElementById('player').paused"
    page.wait(lambda: page.run(paused), "it plays on after the end of the segment")
    assert page.run(position) == pytest.approx(ends, abs=1.0)
    page.find(".found .quiet").click()
    page.wait(lambda: page.frame_times()[0] >= begins - 0.1, "the frames stay those before")
    assert page.frame_times()[-1] <= ends + 0.1
    page.type("Is there a blue square?")
    page.find("#when").click()
    assert "Nothing found" in page.answer()


@pytest.mark.slow
def test_film_that_the_browser_cannot_play_is_searched_all_the_same(page: Page) -> None:
    page.choose("circle.avi")
    assert "cannot play" in page.find("#no-player").text
    page.type("Is there a red circle?")
    page.find("#when").click()
    page.answer()
    page.find(".found .play").click()
    page.wait(lambda: page.frame_times()[0] > 2, "the segment is not chosen instead")


@pytest.mark.slow
def test_dropped_file_is_opened_and_one_too_large_refused(page: Page, media: Path) -> None:
    content = base64.b64encode((media / "circle.mp4").read_bytes()).decode()
    drop = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const file = new File([bytes], "dropped.mp4");
        if (arguments[1]) Object.defineProperty(file, "size", { value: arguments[1] });
        const event = new DragEvent("drop", { bubbles: true, cancelable: true });
        const value = { types: ["Files"], files: [file] };
        Object.defineProperty(event, "dataTransfer", { value });
        document.body.dispatchEvent(event);
    """
    page.find("#media button")
    page.run(drop, content, 900_000_000)
    assert page.find("#choose-error").text == (
        "dropped.mp4 has 900 MB; this server takes files up to 537 MB."
    )
    page.run(drop, content, 0)
    assert page.find("#film-name").text == "dropped.mp4"
    assert len(page.frame_times()) == 8


@pytest.mark.slow
def test_errors_are_shown_and_the_page_goes_on(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("this is no video")
    page.upload(text)
    assert "video" in page.find("#choose-error").text
    page.console()  # the refusal is in the browser's log
    page.choose("circle.mp4")
    page.run("window.fetchBefore = fetch; window.fetch = () => Promise.reject(new TypeError())")
    assert "cannot be reached" in page.ask("What happens?")
    assert page.find("#log [role=alert]")
    assert page.find("#question").get_property("value") == "What happens?"
    page.run("window.fetch = fetchBefore")
    page.find("#ask").click()
    assert page.answer() == "A red circle moves right."


@pytest.mark.slow
def test_names_and_questions_are_text_and_never_markup(page: Page) -> None:
    page.choose(MARKUP)
    assert page.find("#film-name").text == MARKUP
    question = "<b onclick=alert(1)>bold</b>"
    page.ask(question)
    assert page.texts(".question .words") == [question]
    assert page.run("return document.querySelectorAll('#log b, #film-name img').length") == 0


@pytest.mark.slow
def test_file_whose_name_is_no_text_is_chosen_and_plays(page: Page) -> None:
    page.choose("no text \N{REPLACEMENT CHARACTER}.mp4")
    page.wait(lambda: page.run("return document.getElementById('player').readyState > 0"))
    assert page.ask("What happens?") == "A red circle moves right."


@pytest.mark.slow
def test_all_is_reached_by_the_keyboard(page: Page) -> None:
    page.find("#media button")
    active = "return document.activeElement.id || document.activeElement.className"
    reached = []

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            reached.append(page.run(active))
            if reached[-1] == wanted:
                return
        raise AssertionError(f"{wanted} is not among {reached}")

    tab_to("file")
    ActionChains(page.driver).send_keys(Keys.TAB, Keys.ENTER).perform()
    page.find("#frames img")
    for wanted in ("player", "handle start", "handle end", "from", "to", "question", "when"):
        tab_to(wanted)
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        assert page.run(outline) != "none", f"{wanted} shows that it has the focus"
    names = "return [...document.querySelectorAll('button, input, textarea, [role=slider]')]"
    unnamed = page.run(
        f"{names}.filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == [], "each control has a name"


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 375, 1440])
def test_page_fits_a_narrow_and_a_wide_window(page: Page, width: int) -> None:
    page.resize(width, 800)
    fits = "return document.documentElement.scrollWidth <= innerWidth"
    assert page.run(fits)
    page.choose(MARKUP)
    page.type("Is there a red circle?")
    page.find("#when").click()
    page.answer()
    assert page.run(fits)
    composer = page.find("#composer").rect
    bottom = page.run("return innerHeight + scrollY")
    assert composer["y"] + composer["height"] <= bottom + 1, "a question can always be typed"


@pytest.mark.slow
def test_page_asks_for_the_key_of_the_server(driver: Any, tiny: Panda, media: Path) -> None:
    with serving(tiny, media=[media], api_key="right") as server:
        page = Page(driver, server.url)
        page.find("#key").send_keys("wrong" + Keys.ENTER)
        page.wait(lambda: "wrong" in page.find("#key-text").text, "it does not say so")
        page.find("#key").send_keys("right" + Keys.ENTER)
        page.choose("circle.mp4")
        assert page.ask("What happens?") == "A red circle moves right."
        page.wait(lambda: page.run("return document.getElementById('player').readyState > 0"))
        page.driver.refresh()
        page.choose("circle.mp4")
        assert all("401" in line for line in page.console())
