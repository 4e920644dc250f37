"""The methods section: every analysis by its name, and what several share said once."""

from __future__ import annotations

import pytest
from plans import SPECS, plan

from fedcac.protocol import CoxSpec
from fedcac.protocol.catalogue import load_shipped, shipped_protocols
from fedcac.report.analysis_methods import describe_analysis
from fedcac.report.methods import write_methods
from fedcac.vocabulary import TieMethod


@pytest.mark.parametrize("name", shipped_protocols())
def test_every_analysis_is_named(name: str) -> None:
    protocol = load_shipped(name)
    text = "\n".join(write_methods(protocol))
    assert [spec.id for spec in protocol.analyses if spec.id not in text] == []


def test_models_that_are_fitted_alike_share_a_paragraph() -> None:
    protocol = load_shipped("miller2023-ctac")
    models = [spec for spec in protocol.analyses if isinstance(spec, CoxSpec)]
    assert len(models) == 13
    (shared,) = (text for text in write_methods(protocol) if "Newton's method" in text)
    assert all(spec.id in shared for spec in models)
    for endpoint in {spec.endpoint for spec in models}:
        assert protocol.endpoint(endpoint).definition.rstrip(".") in shared
    # What one model has alone is said of that model.
    assert "one covariate each" not in shared
    assert "cox_unadjusted_model (each covariate by itself)" in shared
    tested = ", ".join(spec.id for spec in models if spec.proportionality)
    assert f"linear in time ({tested})." in shared


def test_models_with_other_ties_have_paragraphs_of_their_own() -> None:
    efron = SPECS["cox"].model_copy(update={"id": "a"})
    breslow = efron.model_copy(update={"id": "b", "ties": TieMethod.BRESLOW})
    protocol = plan([efron, breslow])
    found = [text for text in write_methods(protocol) if "Newton's method" in text]
    assert found == [describe_analysis(spec, protocol) for spec in (efron, breslow)]
