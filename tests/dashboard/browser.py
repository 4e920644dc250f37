"""A dashboard on a free port of loopback, and a headless Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from dashboard.consortium import Consortium

__all__ = ["Pressed", "browser_or_skip", "chromium", "served"]

_BROWSER, _DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
_LIMIT_S = 240.0


def browser_or_skip() -> None:
    """Skip without Chromium and its driver, but fail in continuous integration."""
    if shutil.which(_BROWSER) and shutil.which(_DRIVER):
        return
    reason = "Chromium is not installed: apt-get install chromium chromium-driver"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def served(consortium: Consortium, port: int) -> Iterator[str]:
    """Serve a dashboard until the block ends, and yield its address."""
    server = uvicorn.Server(
        uvicorn.Config(
            consortium.app,
            port=port,
            access_log=False,
            log_level="error",
            ws="none",
            lifespan="off",
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + _LIMIT_S
    while not server.started:
        assert thread.is_alive(), "the dashboard did not start"
        assert time.monotonic() < limit, "the dashboard did not start"
        time.sleep(0.02)
    try:
        yield f"http://localhost:{port}"
    finally:
        server.should_exit = True
        thread.join(_LIMIT_S)


@contextmanager
def chromium(folder: Path, width: int = 1280) -> Iterator[Any]:
    """Yield a driver of a browser with a profile of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},1000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Pressed:
    """Does everything with keys: tab to what is wanted, then press."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str, most: int = 120) -> Any:
        """Press the tabulator until the focus is on what a CSS selector names."""
        from selenium.webdriver.common.keys import Keys

        for _ in range(most):
            focused = self.driver.switch_to.active_element
            is_it = "return arguments[0].matches(arguments[1])"
            if self.driver.execute_script(is_it, focused, selector):
                return focused
            self.keys(Keys.TAB)
        raise AssertionError(f"the keyboard does not reach {selector}")

    def press(self, selector: str) -> None:
        """Tab to a link or a button, press Enter, and wait for the next page."""
        from selenium.webdriver.common.keys import Keys

        before = self.driver.find_element("tag name", "html")
        self.tab_to(selector)
        self.keys(Keys.ENTER)
        self.wait(lambda: self._is_gone(before), f"{selector} led nowhere")

    def _is_gone(self, element: Any) -> bool:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            element.is_enabled()
        except StaleElementReferenceException:
            return bool(self.driver.execute_script("return document.readyState") == "complete")
        return False

    def wait(self, is_so: Any, complaint: str) -> None:
        limit = time.monotonic() + _LIMIT_S
        while not is_so():
            assert time.monotonic() < limit, f"{complaint}: {self.driver.current_url}"
            time.sleep(0.05)
