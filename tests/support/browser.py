"""Drives Debian's Chromium through Selenium, by the texts and selectors of the page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

# Seconds.
TIMEOUT = 30
POLL_INTERVAL = 0.05

# Elements that reach over the edges of the window, except inside a scrolling element.
_OVERFLOWING = """
const scrolls = (e) =>
  e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
const overflows = (e) => {
  const { left, right, width, height } = e.getBoundingClientRect();
  return width && height && (left < -1 || right > innerWidth + 1) && !scrolls(e.parentElement);
};
return [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }))
  .filter((e) => !e.closest(".unseen") && overflows(e))
  .map((e) => `${e.tagName} ${e.id} ${e.getAttribute("class")}`);
"""


@dataclass
class Browser:
    """One browser window."""

    driver: webdriver.Chrome

    def speak(self, language: str) -> None:
        """Set the browser's language, as `navigator.language` tells it."""
        agent = self.run("return navigator.userAgent")
        self.driver.execute_cdp_cmd(
            "Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": language}
        )

    def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def visit(self, url: str) -> None:
        """Load a page with empty storage, and wait until it is ready."""
        self.driver.get(url)
        if self.run(
            "const stored = sessionStorage.length + localStorage.length;"
            "if (stored) Storage.prototype.setItem = () => {};"  # The page stores what it restored.
            "sessionStorage.clear(); localStorage.clear(); return stored"
        ):
            self.driver.get(url)
        self.wait("#examples button")

    def wait(self, css: str) -> WebElement:
        """The first displayed element that matches."""
        element: WebElement = self._until(
            lambda: next((e for e in self.all(css) if e.is_displayed()), None), css
        )
        return element

    def wait_for(self, css: str, text: str) -> WebElement:
        """The first matching element that contains a text."""

        def first() -> WebElement | None:
            return next((e for e in self.all(css) if text in e.text), None)

        element: WebElement = self._until(first, f"{text!r} in {css}")
        return element

    def _until(self, condition: Callable[[], Any], description: str) -> Any:
        wait = WebDriverWait(
            self.driver, TIMEOUT, POLL_INTERVAL, ignored_exceptions=[StaleElementReferenceException]
        )
        return wait.until(lambda _: condition(), f"not found: {description}")

    def overflowing(self) -> list[str]:
        """Elements that reach over the edges of the window."""
        elements: list[str] = self.run(_OVERFLOWING)
        return elements

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def write(self, field: str, text: str) -> None:
        """Replace the text of a field, as pasting does."""
        self.driver.execute_script(
            "const [field, text] = arguments; field.value = text;"
            "field.dispatchEvent(new Event('input', { bubbles: true }));",
            self.wait_for_hidden(f"#{field}"),
            text,
        )

    def write_key(self, key: str) -> None:
        field = self.wait("#key")
        field.clear()
        field.send_keys(key)
        self.press("Use it")

    def wait_for_hidden(self, css: str) -> WebElement:
        """The first element that matches, displayed or not."""
        element: WebElement = self._until(lambda: next(iter(self.all(css)), None), css)
        return element

    def wait_for_value(self, css: str, text: str) -> None:
        """Wait until a field has this value, apart from blanks at its ends."""
        script = "return document.querySelector(arguments[0]).value.trim()"
        self._until(lambda: self.run(script, css) == text, f"{text!r} in {css}")

    def press(self, label: str) -> None:
        button = self._until(
            lambda: next((b for b in self.all("button") if b.text == label), None), label
        )
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def rank(self, query: str, documents: str) -> None:
        self.write("query", query)
        self.write("documents", documents)
        self.press("Rerank")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def findings(self, axe: Path) -> list[str]:
        """Serious accessibility faults of the page as it is now, found by axe-core.

        Args:
            axe: its script.
        """
        self.run(axe.read_text(encoding="utf-8"))
        violations: list[dict[str, Any]] = self.driver.execute_async_script(
            "axe.run().then((found) => arguments[0](found.violations))"
        )
        return [
            f"{fault['id']}: {node['html'][:120]}"
            for fault in violations
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    def fetched_urls(self) -> list[str]:
        """URLs that the browser fetched since the last call."""
        messages = [
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        ]
        return [
            str(message["params"]["request"]["url"])
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def console_messages(self) -> list[str]:
        """Messages in the console since the last call."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [str(entry["message"]) for entry in log]

    def screenshot(self, folder: Path | None, name: str) -> None:
        """Save a picture for the documentation; `folder=None` saves none."""
        if folder is None:
            return
        self._until(lambda: self.texts("#count")[0], "the number of documents")
        # No focus, no hover, and no running animation.
        self.run("scrollTo(0, 0); document.activeElement.blur()")
        pointer = {"type": "mouseMoved", "x": 0, "y": 0}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", pointer)
        script = "return document.getAnimations().every((a) => a.playState !== 'running')"
        self._until(lambda: self.run(script), "the end of all animations")
        picture = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        # Other quantization methods drop colours of small areas.
        reduced = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
        reduced.save(folder / f"ui-{name}.png", optimize=True)


def need(program: str) -> str:
    """The path of a program; without it the test is skipped, or fails in CI."""
    # Debian installs servers in /usr/sbin, which is not in every user's PATH.
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"needs {program}")
        pytest.skip(f"needs {program} (apt-get install chromium chromium-driver nginx-light)")
    return path


@contextmanager
def browsing() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = need("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(need("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    # No file dialogs: tests set the file themselves.
    driver.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": True})
    try:
        yield Browser(driver)
    finally:
        driver.quit()
