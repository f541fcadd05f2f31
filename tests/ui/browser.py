"""Debian's Chromium, driven as a person would: by what stands on the page."""

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

# Of a machine that is busy: Gradio alone takes ten seconds of a core at a server's first visit.
PATIENCE = 30
GLANCE = 0.05

# What stands over the edges of the window; what is scrolled inside its own frame is not cut.
_CUT = """
const frames = (e) =>
  e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || frames(e.parentElement));
const cut = (e) => {
  const { left, right, width, height } = e.getBoundingClientRect();
  return width && height && (left < -1 || right > innerWidth + 1) && !frames(e.parentElement);
};
return [...document.querySelectorAll("gradio-app *")]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }))
  .filter((e) => !e.closest(".visually-hidden, .sr-only") && cut(e))
  .map((e) => `${e.tagName} ${e.id} ${e.getAttribute("class")}`);
"""

# Gradio measures its tabs by copies of them, which nobody sees.
_BUTTONS = "button:not([tabindex='-1']), button[role=tab]"


@dataclass
class Browser:
    """One window."""

    driver: webdriver.Chrome

    def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def visit(self, url: str) -> None:
        """A page that is ready to be used, by somebody who was never there."""
        self.driver.get(url)
        if self.run(
            "const kept = sessionStorage.length + localStorage.length;"
            "sessionStorage.clear(); localStorage.clear(); return kept"
        ):
            self.driver.get(url)
        self.wait("#rk-run")

    def wait(self, css: str) -> WebElement:
        """The first element that fits and is shown."""
        element: WebElement = self._until(
            lambda: next((e for e in self.all(css) if e.is_displayed()), None), css
        )
        return element

    def wait_for(self, css: str, text: str) -> WebElement:
        """The first element that fits and says this."""

        def found() -> WebElement | None:
            return next((e for e in self.all(css) if text in e.text), None)

        element: WebElement = self._until(found, f"{text!r} in {css}")
        return element

    def _until(self, found: Callable[[], Any], what: str) -> Any:
        waiting = WebDriverWait(
            self.driver, PATIENCE, GLANCE, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: found(), f"no {what}")

    def cut(self) -> list[str]:
        """What reaches over the window's edges."""
        found: list[str] = self.run(_CUT)
        return found

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def write(self, field: str, text: str) -> None:
        """Into a field of the page, in place of what is there, as a paste does."""
        element = self.wait(f"#{field} textarea, #{field} input")
        self.driver.execute_script(
            "const field = arguments[0], text = arguments[1];"
            "Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value')"
            ".set.call(field, text);"
            "field.dispatchEvent(new Event('input', { bubbles: true }));",
            element,
            text,
        )

    def write_key(self, key: str) -> None:
        field = self.wait("#rk-key")
        field.clear()
        field.send_keys(key)
        self.press("Use it")

    def wait_for_hidden(self, css: str) -> WebElement:
        """The first element that fits, shown or not."""
        element: WebElement = self._until(lambda: next(iter(self.all(css)), None), css)
        return element

    def wait_for_value(self, css: str, text: str) -> None:
        """Until a field holds exactly this, but for blanks at its ends."""
        script = "return document.querySelector(arguments[0]).value.trim()"
        self._until(lambda: self.run(script, css) == text, f"{text!r} in {css}")

    def press(self, label: str) -> None:
        button = self._until(
            lambda: next((b for b in self.all(_BUTTONS) if b.text == label), None), label
        )
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def take(self, example: str) -> None:
        """Let a button fill in the fields."""
        self.press(example)
        script = "return document.querySelector('#rk-documents textarea').value"
        self._until(lambda: self.run(script), example)

    def ask(self, query: str, documents: str) -> None:
        self.write("rk-query", query)
        self.write("rk-documents", documents)
        self.press("Rerank")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def asked(self) -> list[str]:
        """Every address that the browser fetched since it was last asked."""
        messages = [
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        ]
        return [
            str(message["params"]["request"]["url"])
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """What stands in its console."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [str(entry["message"]) for entry in log]

    def shoot(self, folder: Path | None, name: str, *, top: bool = True) -> None:
        """A picture for the documentation, where one is wanted."""
        if folder is None:
            return
        # Nothing is pointed at, and nothing is half on its way.
        self.run("if (arguments[0]) scrollTo(0, 0); document.activeElement.blur()", top)
        pointer = {"type": "mouseMoved", "x": 0, "y": 0}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", pointer)
        script = "return document.getAnimations().every(a => a.playState != 'running')"
        self._until(lambda: self.run(script), "rest")
        picture = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        # The other ways lose colours of which there is little.
        few = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
        few.save(folder / f"ui-{name}.png", optimize=True)


def need(program: str) -> str:
    """Where a program lies; without it the test is skipped, but not where all must run."""
    # Debian has servers where only root looks.
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
    # Nobody is there to choose a file: the tests hand it over themselves.
    driver.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": True})
    try:
        yield Browser(driver)
    finally:
        driver.quit()
