"""A headless Chromium on the page of a real server. Skipped, saying so, where there is no Chromium or no selenium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 300
"""For what takes a moment where the machine is not busy."""
PICTURES = Path(__file__).resolve().parents[3] / "build" / "page"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """What a person does with the page, in few words."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        self._wait = WebDriverWait(
            driver, SECONDS, poll_frequency=0.03, ignored_exceptions=(StaleElementReferenceException,)
        )

    def open(self, room: str = "") -> None:
        """The page anew, in one of its rooms."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#/{room}")
        self.until("document.documentElement.dataset.ready === 'yes'")

    def script(self, code: str, *words: Any) -> Any:
        return self.driver.execute_script(code, *words)

    def until(self, condition: str) -> Any:
        """Wait until an expression holds; its value."""
        return self._wait.until(lambda _: self.script(f"return ({condition})"), condition)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        """The first match, waited for."""
        return self._wait.until(lambda _: next((found for found in self.all(css) if found.is_displayed()), None), css)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that is not in the page."""
        self._wait.until(lambda _: condition())

    def hand(self, file: Path) -> None:
        """Choose a file to import."""
        self.driver.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(file))

    def keys(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def say(self, text: str) -> str:
        """Say something and wait for the end of the reply; its text."""
        before = len(self.all(".message"))
        self.one("#say").send_keys(text, Keys.ENTER)
        self.until(
            f"document.querySelectorAll('.message').length === {before + 2} && !document.querySelector('.caret')"
        )
        return self.all(".message.assistant .body")[-1].text

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Set media features, as in color_scheme="dark"."""
        told = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})

    def picture(self, name: str) -> None:
        """Keep a screenshot under build/."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(PICTURES / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the console holds of errors since last asked; what breaks the content policy is among them."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for the tests of a module."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_script_timeout(SECONDS)
    yield started
    started.quit()


@contextmanager
def serving(folder: Path, data: Path, *words: str) -> Iterator[str]:
    """The address of a server with conversations and keys of its own, in a process that ends with the block."""
    command = [sys.executable, "-m", "chatsmith", "serve", str(folder), "--port", "0", *words]
    environment = {**os.environ, "CHATSMITH_DATA": str(data)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://[^:]+:(\d+)/", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield f"http://localhost:{found[1]}"
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of a tiny model."""
    with serving(folder, tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture
def locked(folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a server that wants a key, and the key."""
    command = [sys.executable, "-m", "chatsmith", "keys", "new", "page"]
    made = subprocess.run(command, env={**os.environ, "CHATSMITH_DATA": str(tmp_path)}, capture_output=True, text=True)
    found = re.search(r"csk-[\w-]+", made.stdout + made.stderr)
    assert found, made
    with serving(folder, tmp_path, "--require-key") as url:
        yield url, found[0]


@pytest.fixture
def browser(chromium: webdriver.Chrome, served: str) -> Iterator[Browser]:
    """The page, wide and light; a test that leaves an error in the console fails."""
    page = Browser(chromium, served)
    page.size(1360, 860)
    page.prefer(color_scheme="light")
    page.open()
    page.script("localStorage.clear(); localStorage.setItem('chatsmith-settings', '{\"seed\": 1}')")
    page.open()
    page.complaints()
    yield page
    assert page.complaints() == []
