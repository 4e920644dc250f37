"""Score distributions are those that the sites released, and nothing finer."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from fedcac.cli import main
from fedcac.report.figures.distributions import MixRow, draw_mix
from fedcac.report.released_scores import ScoreBins, pooled_bins, released_scores

SITES = ("north", "east", "south")
COLUMNS = ("index_score", "reference_score")


def write_table(path: Path, seed: int, n: int = 160) -> Path:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.4, 0.0, np.exp(rng.normal(4, 1.7, n)))
    index = np.where(reference > 0, reference * np.exp(rng.normal(0, 0.3, n)), 0.0)
    lines = [f"P{i},{index[i]:.2f},{reference[i]:.2f}" for i in range(n)]
    path.write_text("patient_id,index_score,reference_score\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scores")
    tables = {site: write_table(folder / f"{site}.csv", i) for i, site in enumerate(SITES)}
    for policy in ("open", "research"):
        arguments = ["analyze", "eng2021-gated", "--policy", policy, "--out", str(folder / policy)]
        for site, table in tables.items():
            arguments += ["--site", f"{site}={table}"]
        assert main(arguments) == 0
    return {"tables": folder, "open": folder / "open", "research": folder / "research"}


def scores(folder: Path, site: str) -> list[np.ndarray]:
    with (folder / f"{site}.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [np.array([float(row[column]) for row in rows]) for column in COLUMNS]


def released(folder: Path) -> dict[str, tuple[ScoreBins | None, ScoreBins | None]]:
    return released_scores((folder / "releases.jsonl").read_bytes())["distribution"]


@pytest.mark.parametrize("policy", ["open", "research"])
def test_bins_are_the_tables_own_counts(folders: dict[str, Path], policy: str) -> None:
    found = released(folders[policy])
    assert set(found) == set(SITES)
    n_shown = 0
    for site, pair in found.items():
        for bins, own in zip(pair, scores(folders["tables"], site), strict=True):
            if bins is None:
                continue
            n_shown += 1
            logs = np.log1p(own)
            assert bins.n == len(own)
            for count, low, high in zip(bins.counts, bins.edges, bins.edges[1:], strict=False):
                inside = (logs >= low - 1e-9) & (logs < high - 1e-9)
                # A score on an edge may fall to either side of a rounded logarithm.
                assert abs(count - int(inside.sum())) <= int(np.isclose(logs, high).sum()) + int(
                    np.isclose(logs, low).sum()
                )
            if bins.n_zero is not None:
                assert bins.n_zero == int((own == 0).sum())
            if policy == "research":
                assert min(count for count in bins.counts if count) >= 5
    assert n_shown > 0


def test_pooled_bins_hold_every_patient_on_bins_that_all_sites_have(
    folders: dict[str, Path],
) -> None:
    sites = [pair[0] for pair in released(folders["research"]).values() if pair[0] is not None]
    pooled = pooled_bins(sites)
    assert pooled is not None
    assert pooled.n == sum(site.n for site in sites)
    assert all(set(pooled.starts) <= set(site.starts) for site in sites)
    assert pooled_bins([]) is None


def test_the_page_shows_them_with_the_share_of_zeros(folders: dict[str, Path]) -> None:
    svg = (folders["open"] / "figures" / "distribution_distribution.svg").read_text("utf-8")
    index, reference = scores(folders["tables"], "north")
    zeros = ", ".join(f"{100 * np.mean(x == 0):.0f}%" for x in (index, reference))
    assert f"north: 160; {zeros}" in svg
    page = (folders["open"] / "report.html").read_text(encoding="utf-8")
    assert "Score distributions, distribution" in page
    assert svg.strip() in page


def test_a_protocol_without_histograms_has_no_such_figure(tmp_path: Path) -> None:
    arguments = ["analyze", "eng2021-nongated", "--policy", "open", "--out", str(tmp_path / "o")]
    for number, site in enumerate(SITES):
        arguments += ["--site", f"{site}={write_table(tmp_path / f'{site}.csv', number)}"]
    assert main(arguments) == 0
    names = {path.name for path in (tmp_path / "o" / "figures").iterdir()}
    assert "distribution_distribution.svg" not in names
    assert "categories_agreement.svg" in names


def test_shares_of_categories_are_those_of_the_margins() -> None:
    rows = (MixRow("a", (10, 30), (20, 20)), MixRow("b", gap="suppressed (<5)"))
    figure = draw_mix("x", ("0", ">0"), rows, ("Index test", "Reference standard"))
    assert "a: 0 25%, >0 75%" in figure.alt
    assert "b: suppressed (<5)" in figure.alt
    assert re.search(r">suppressed \(&lt;5\)<", figure.svg)
