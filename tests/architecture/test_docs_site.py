"""The documentation builds as a site without a warning, and its links lead somewhere.

The build takes about 7 seconds of processor time; one build serves every test.
"""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FORGE = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
FORGE.append(DOCS / "README.md")


class Page(HTMLParser):
    """What a page loads, where it leads, and what can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = {name: value or "" for name, value in attrs}
        self.anchors |= {words[name] for name in ("id", "name") if name in words}
        if tag == "a" and "href" in words:
            self.links.append(words["href"])
        elif tag == "link" and words.get("rel") not in ("next", "prev", "search", "author"):
            self.loads.append(words.get("href", ""))
        elif "src" in words:
            self.loads.append(words["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
    finished = subprocess.run(
        [*command, "-d", str(out / "trees"), str(DOCS), str(out / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = sorted(site.rglob("*.html"))
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def test_every_page_and_notebook_is_in_the_site(site: Path) -> None:
    sources = {*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")} - {DOCS / "README.md"}
    for source in sources:
        assert (site / source.relative_to(DOCS)).with_suffix(".html").exists(), source


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for loaded in page.loads:
            assert "//" not in loaded, (path.name, loaded)
            assert (path.parent / unquote(loaded.partition("?")[0])).exists(), loaded
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8"))


def test_links_and_their_anchors_lead_somewhere(pages: dict[Path, Page]) -> None:
    n_checked = 0
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            assert target.exists(), (path.name, link)
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].anchors, (path.name, link)
            n_checked += 1
    assert n_checked > 1000


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings as code forges make them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [*FORGE, *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_lead_somewhere_on_a_code_forge_too(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"(?<!`)\]\(([^)\s]+)\)", text):
        address, anchor = urldefrag(link)
        if re.match(r"[a-z]+:", address):
            continue
        target = (page.parent / unquote(address)).resolve() if address else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


def test_the_index_for_code_forges_names_every_page() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    named = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", text)}
    # A folder is named by itself or by its index.
    folders = {path.parent if path.name == "index.md" else path for path in named}
    inside = {path for folder in folders if folder.is_dir() for path in folder.rglob("*.md")}
    for path in DOCS.rglob("*.md"):
        if path.name not in ("README.md", "index.md"):
            assert path in named | inside, path.relative_to(DOCS)
