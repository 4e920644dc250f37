"""Consortia with dashboards, on both databases where that matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard.consortium import Consortium, Visitor
from postgres_server import Postgres, started

from coordinator.dashboard.accounts import Role


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with started() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Consortium]:
    """A dashboard without sites, on either database."""
    url = None
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    made = Consortium(tmp_path, url=url)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Consortium]]:
    """Return a function that makes a consortium."""
    made: list[Consortium] = []

    def one(**settings: Any) -> Consortium:
        made.append(Consortium(tmp_path / f"consortium-{len(made)}", **settings))
        return made[-1]

    yield one
    for consortium in made:
        consortium.close()


@pytest.fixture
def bare(make: Callable[..., Consortium]) -> Consortium:
    """A dashboard without sites, with a user of every role."""
    made = make()
    for role in Role:
        made.add_user(role.value, role)
    return made


@pytest.fixture
def lead(bare: Consortium) -> Visitor:
    """A browser in which a lead is signed in."""
    visitor = Visitor(bare)
    assert visitor.sign_in("lead").status_code == 303
    return visitor
