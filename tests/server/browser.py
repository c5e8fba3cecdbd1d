"""Chromium, driven by its own driver, with what a test does on the page."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
PATIENCE = 60.0  # seconds

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The Chromium of this machine, without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The page in a tab."""

    def __init__(self, driver: Any, url: str, width: int = 1440, height: int = 900) -> None:
        self.driver = driver
        self.resize(width, height)
        driver.get(url)
        driver.execute_script("sessionStorage.clear()")
        self.console()  # of the page before
        driver.get(url)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Set media features, such as `color_scheme="dark"`."""
        named = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def find(self, selector: str) -> WebElement:
        """The first element that is shown, once there is one."""
        return self.wait(lambda: next(iter(self.all(selector)), None), f"no {selector} is shown")

    def all(self, selector: str) -> list[WebElement]:
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in found if element.is_displayed()]

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], failure: str = "it did not happen") -> Any:
        """What the condition gives, once it is true."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if result := condition():
                    return result
            except WebDriverException:  # the element was replaced meanwhile
                pass
            if time.monotonic() > deadline:
                log = self.run("return document.body.innerText")
                raise AssertionError(f"{failure}\n{log}\n{self.console()}")
            time.sleep(0.03)

    def upload(self, path: Path) -> None:
        self.find("label[for=file]")
        self.driver.find_element(By.ID, "file").send_keys(str(path))

    def choose(self, name: str) -> None:
        """Choose a video of the server, and wait for its frames."""
        self.find("#media button")
        next(each for each in self.all("#media button") if each.text == name).click()
        self.find("#frames img")

    def type(self, text: str) -> None:
        self.find("#question").send_keys(text)

    def ask(self, text: str) -> str:
        """Ask, and wait for the whole answer."""
        self.type(text)
        self.find("#ask").click()
        return self.answer()

    def answer(self) -> str:
        """The last answer, once it is whole."""
        self.wait(lambda: self.all("#log .turn:last-child.done"), "the answer does not end")
        return self.find("#log .turn:last-child .answer").text

    def frame_times(self) -> list[float]:
        """Of the frames that are shown, once they are those of the range."""
        shown = "#frames:not([aria-busy]) img"
        self.wait(lambda: self.all(shown), "the frames do not come")
        return [seconds(text) for text in self.texts("#frames span")]

    def console(self) -> list[str]:
        """What the browser has complained about since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


def seconds(text: str) -> float:
    minutes, _, rest = text.partition(":")
    return int(minutes) * 60 + float(rest)
