"""Masked sums of four sites over Flower, while a site's courier dies in mid-exchange."""

from __future__ import annotations

from pathlib import Path

from flower.deployment import Deployment
from flower.small_tables import (
    answers_given_twice,
    estimates_in_memory,
    estimates_of,
    paired_tables,
)

from fedcac.cli.in_memory import pooled_by
from fedcac.protocol.catalogue import load_protocol_or_shipped

SITES = ("north", "east", "south", "west")


def test_masked_sums_outlive_a_site_s_courier(tmp_path: Path) -> None:
    protocol = pooled_by(load_protocol_or_shipped("eng2021-nongated"), "masked")
    tables = paired_tables(tmp_path / "tables", *SITES)
    deployment = Deployment(tmp_path / "deployment", tables)
    try:
        deployment.start_all()
        round_id = deployment.launch(protocol)
        box = deployment.sites["west"].spool / "outbox"

        def has_masked() -> bool:
            deployment.revive()
            deployment.step(round_id)
            return (box / f"{round_id}.masked-0001").exists()

        deployment.wait_for(has_masked, "nothing is masked", 600)
        deployment.kill("run:west")
        # The others go on, as far as they can without it.
        for _ in range(3):
            deployment.step(round_id)
        deployment.start("run:west")
        deployment.finish(round_id)
        found = estimates_of(deployment, round_id, tmp_path / "found")
    finally:
        deployment.stop()
    assert found == estimates_in_memory(tables, protocol, tmp_path / "memory")
    assert found.count(b",pooled,") > 50
    assert answers_given_twice(deployment, round_id, SITES) == []
