"""Chromium without a window: prints the report, and draws its figures as pixels.

Both come from the very page and figures that are in the folder. Nothing is loaded from a network:
the page forbids it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedcac.errors import UsageError

__all__ = ["PDF_FILE", "find_browser", "photograph", "print_pdf"]

PDF_FILE: Final = "report.pdf"

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
_TIMEOUT_S = 300


def find_browser() -> str:
    """Return the path of a Chromium browser; UsageError `no_browser` if there is none."""
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UsageError(
        "No Chromium browser is installed here, which PDF and PNG files are made with.",
        code="no_browser",
        cure="Install chromium or google-chrome, or open report.html in any browser and print it.",
    )


def print_pdf(page: Path, pdf: Path) -> None:
    """Print an HTML file to PDF (A4, numbered pages, as the page's own style sheet says).

    Raises
    ------
    UsageError
        If there is no browser (`no_browser`), or it wrote nothing (`browser_failed`).
    """
    _run([f"--print-to-pdf={pdf}", "--no-pdf-header-footer", page.resolve().as_uri()], pdf)


def photograph(page: Path, png: Path, width: int, height: int) -> None:
    """Write what a window of `width` × `height` pixels shows of an HTML file as PNG.

    Raises
    ------
    UsageError
        As `print_pdf`.
    """
    window = [f"--window-size={width},{height}", "--force-device-scale-factor=1"]
    _run([*window, "--hide-scrollbars", f"--screenshot={png}", page.resolve().as_uri()], png)


def _run(arguments: Sequence[str], made: Path) -> None:
    command = [find_browser(), "--headless=new", "--disable-gpu", "--no-first-run"]
    if os.geteuid() == 0:
        # Chromium's sandbox does not start for root, as in a container. The page has no script.
        command.append("--no-sandbox")
    with tempfile.TemporaryDirectory(prefix="fedcac-browser-") as profile:
        command += ["--disable-dev-shm-usage", f"--user-data-dir={profile}", *arguments]
        try:
            finished = subprocess.run(  # noqa: S603 - a browser found above, our own page
                command, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(f"it did not end within {_TIMEOUT_S} s") from error
    if finished.returncode or not made.exists():
        raise _failed(f"exit code {finished.returncode}")


def _failed(why: str) -> UsageError:
    return UsageError(
        f"The browser wrote no file: {why}.",
        code="browser_failed",
        cure="Open report.html in a browser and print it from there.",
    )
