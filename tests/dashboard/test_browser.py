"""A lead with a keyboard and a real browser: from signing in to the report, and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dashboard.browser import Pressed, browser_or_skip, chromium, served
from dashboard.consortium import PASSWORD, Consortium
from flower.deployment import free_port

SITES = ("north", "east", "south")
# What a screen reader needs: everything that can be filled in or pressed has a name.
NAMELESS = """
return [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, iframe, [role=region]"
)].filter((one) => !(one.labels && one.labels.length) && !one.getAttribute("aria-label") &&
    !one.textContent.trim() && !one.title).map((one) => one.outerHTML);
"""
TOO_WIDE = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


def assert_is_sound(driver: Any) -> None:
    assert driver.execute_script(NAMELESS) == [], driver.current_url
    assert not driver.execute_script(TOO_WIDE), driver.current_url
    assert len(driver.find_elements("tag name", "h1")) == 1, driver.current_url


def test_a_round_by_keyboard(tmp_path: Path) -> None:
    browser_or_skip()
    port = free_port()
    made = Consortium(tmp_path / "consortium", sites=SITES, port=port)
    made.add_user("lead")
    try:
        with served(made, port) as url, chromium(tmp_path) as driver:
            walk(made, driver, url)
            messages = [one["message"] for one in driver.get_log("browser")]
            assert [text for text in messages if "Content Security Policy" in text] == []
            assert [text for text in messages if "SEVERE" in text] == []
    finally:
        made.close()


def walk(made: Consortium, driver: Any, url: str) -> None:
    from selenium.webdriver.common.keys import Keys

    pressed = Pressed(driver)
    driver.get(url)
    assert driver.current_url.endswith("/sign-in")
    assert_is_sound(driver)
    pressed.tab_to("#name")
    pressed.keys("lead")
    pressed.tab_to("#password")
    pressed.keys(PASSWORD)
    pressed.press("form.stack button")
    assert driver.current_url.endswith("/rounds")
    assert_is_sound(driver)
    # The first stop on a page skips the navigation.
    pressed.tab_to("a.skip")
    pressed.press("a.button[href='/launch']")
    assert_is_sound(driver)
    pressed.tab_to("#shipped")
    pressed.keys("eng2021-non")
    pressed.press("form.stack p.actions button")
    assert "What every site will see" in driver.page_source
    assert_is_sound(driver)
    pressed.press("form.stack p.actions button")
    assert "/rounds/eng2021-nongated-" in driver.current_url
    assert_is_sound(driver)

    def is_shown() -> bool:
        made.step()
        # The page follows the round by itself.
        found = driver.execute_script("return document.querySelector('#state').textContent")
        return bool(found == "State: pooled")

    pressed.wait(is_shown, "the page does not show the end of the round")
    pressed.press("a.button[href$='/report']")
    assert_is_sound(driver)
    frame = driver.find_element("tag name", "iframe")
    driver.switch_to.frame(frame)
    assert "external validation" in driver.find_element("tag name", "h1").text
    driver.switch_to.default_content()
    for path in ("/sites", "/users", "/audit", "/account", "/comparison", "/nowhere"):
        driver.get(url + path)
        assert_is_sound(driver)
    # On a telephone nothing but tables needs to be moved sideways.
    driver.set_window_size(500, 900)
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for path in ("/rounds", "/launch", "/sites", "/users", "/account"):
        driver.get(url + path)
        assert_is_sound(driver)
    pressed.tab_to("header form button")
    before = driver.find_element("tag name", "html")
    pressed.keys(Keys.ENTER)
    pressed.wait(lambda: pressed._is_gone(before), "signing out led nowhere")
    assert driver.current_url.endswith("/sign-in")
    driver.get(url + "/rounds")
    assert driver.current_url.endswith("/sign-in")
