"""No installation brings a package under a licence of the GPL family, or one that states none."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
COPYLEFT = re.compile(r"\b(?:A|L)?GPL|GNU|EUPL|SSPL|Commons Clause", re.IGNORECASE)


@pytest.mark.parametrize("extra", ["", "publishing", "site", "coordinator", "flower"])
def test_every_dependency_is_under_a_permissive_licence(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    dependencies = importlib.import_module("dependencies")
    names = dependencies.dependencies_of(extra)
    assert "numpy" in names
    for name in names:
        try:
            licence = dependencies.licence_of(name)
        except PackageNotFoundError:
            # Needed on another system alone.
            continue
        assert licence, f"{name} states no licence"
        assert not COPYLEFT.search(licence), f"{name} is under {licence}"
