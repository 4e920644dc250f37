"""The tutorials and README run from first command to last, and print what they show.

About a minute on a quiet machine of two cores, most of it in generating and scoring exams.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.pages import PageError, commands_of, run_page

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("first-*.md"))
HOW_TO = [
    page
    for page in sorted((ROOT / "docs" / "how-to").glob("*.md"))
    if "\n```console\n" in page.read_text(encoding="utf-8")
]
PAGES = [*TUTORIALS, *HOW_TO, ROOT / "README.md"]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "96")
    monkeypatch.delenv("FEDCAC_CA_PASSPHRASE", raising=False)
    former = os.umask(0o022)
    yield
    os.umask(former)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0


def test_each_role_has_its_tutorial() -> None:
    assert len(TUTORIALS) == 3


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def block(*lines: str) -> str:
    return "\n".join(["words", "", "```console", *lines, "```", ""])


def test_an_output_that_differs_is_found(tmp_path: Path) -> None:
    good = block(
        "$ echo one two",
        "one two",
        "$ printf 'a\\nb\\nc\\n'",
        "a",
        "...",
        "$ false",
        "[exit code 1]",
    )
    assert run_page(page(tmp_path, good), tmp_path) == 3
    for wrong in (
        block("$ echo one", "two"),
        block("$ echo one", "one", "two"),
        block("$ printf 'a\\nb\\n'", "a"),
        block("$ printf 'a\\nb\\n'", "b"),
        block("$ false"),
        block("$ true", "[exit code 1]"),
        block("$ fedcac protocol check nothing", "nothing is valid.", "[exit code 2]"),
        block("words"),
    ):
        with pytest.raises(PageError):
            run_page(page(tmp_path, wrong), tmp_path)


def test_an_example_stands_for_what_was_printed(tmp_path: Path) -> None:
    shown, real = "0123 4567 89ab cdef " * 2, "fedc ba98 7654 3210 " * 2
    text = block(
        f"$ echo fingerprint {real}",
        f"fingerprint {shown}",
        f"$ echo {shown}",
        f"{real}",
        "$ echo sha256:00112233445566778899",
        "sha256:aabbccddeeff00112233",
        "$ test sha256:aabbccddeeff = sha256:001122334455",
        "$ echo sha256:aabbccddeeff",
        "sha256:001122334455",
    )
    assert run_page(page(tmp_path, text), tmp_path) == 5
    other = block(f"$ echo {real}", shown, "$ echo 9999" + real[4:], shown)
    with pytest.raises(PageError):
        run_page(page(tmp_path, other), tmp_path)


def test_commands_know_their_line_and_their_folder(tmp_path: Path) -> None:
    text = "<!-- file: a.txt -->\n```text\nin a\n```\n\n" + block("$ cat \\", "    a.txt", "in a")
    found = list(commands_of(text))
    assert [(command.line, command.shown) for command in found] == [(9, ("in a",))]
    assert run_page(page(tmp_path, text), tmp_path) == 1
