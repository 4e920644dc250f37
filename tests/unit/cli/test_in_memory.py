"""A round in one process ends, or says which site could not take part and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcac.cli.in_memory import InMemorySite, SignedPackage, run_round
from fedcac.disclosure import load_policy
from fedcac.errors import RoundError
from fedcac.models import demonstration_package_folder, seal_package
from fedcac.phantom import write_cohort
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from site_agent.exams.dicom_source import DicomFiles, DicomSource
from site_agent.state.store import SiteStore


def test_a_site_that_refuses_the_package_is_named_with_its_code(tmp_path: Path) -> None:
    (name,) = write_cohort(tmp_path / "exams", n_sites=1, n_patients=1, seed=1, hybrid_share=0.0)
    exams = tmp_path / "exams" / name
    files = DicomFiles(exams / "manifest.csv", exams / "clinical.csv", secret=bytes(32))
    store = SiteStore(":memory:")
    source = DicomSource(files, store, device="cpu")
    site = InMemorySite(name, source, store, tmp_path / "sites" / "ledger.jsonl", bytes(32))
    # Somebody else than the lead signed it.
    package = seal_package(demonstration_package_folder(), SigningKey.generate())
    with pytest.raises(RoundError) as caught:
        run_round(
            load_shipped("demo-nongated"),
            [site],
            load_policy("open"),
            SigningKey.generate(),
            SignedPackage(package.digest, package.files()),
        )
    assert caught.value.code == "round.failed"
    assert caught.value.message == f"No site could take part ({name}: package_invalid)."
    assert "docs/reference/codes.md" in caught.value.cure
