from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fedcac.disclosure import Policy, load_policy, shipped_profiles, stricter_of
from fedcac.errors import PolicyError
from fedcac.protocol import DisclosureMinimum


def _document(**changes: object) -> dict[str, object]:
    document = load_policy("research").model_dump()
    document["profile"] = "custom"
    document.update(changes)
    return document


def _write(folder: Path, document: object) -> Path:
    path = folder / "policy.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_shipped_profiles_hold_the_documented_minima() -> None:
    research, cms, public = (load_policy(name) for name in shipped_profiles())
    assert (research.minimum_cell, research.minimum_patients, research.zero_is_small) == (
        5,
        20,
        True,
    )
    assert (research.cox.minimum_events, research.cox.minimum_per_category) == (10, 5)
    assert (research.cox.maximum_exchanges, research.cox.budget_share) == (15, 0.33)
    assert research.cox.maximum_parameters_per_patient == 0.1
    assert cms.minimum_cell == 11
    assert cms.cox.minimum_per_category == 11
    assert public.is_open
    assert not research.is_open


def test_a_complete_file_is_read(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path, _document(minimum_cell=4)))
    assert (policy.profile, policy.minimum_cell) == ("custom", 4)
    assert policy.summary().digest == policy.digest()
    assert load_policy(_write(tmp_path, load_policy("cms").model_dump())) == load_policy("cms")


@pytest.mark.parametrize("source", [None, "", "no/such/policy.yaml", "reserach"])
def test_no_policy_is_an_error(source: str | None) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(source)
    assert caught.value.code == "policy.missing"
    assert caught.value.cure


@pytest.mark.parametrize(
    ("document", "code", "word"),
    [
        ("", "policy.unreadable", "empty"),
        ("- a\n- b\n", "policy.unreadable", "list of keys"),
        ("profile: [", "policy.unreadable", "YAML"),
        ("profile: custom\nprofile: open\n", "policy.unreadable", "twice"),
        (_document(minimum_cel=5), "policy.unknown_key", "minimum_cel"),
        (_document(minimum_cell="5"), "policy.bad_value", "minimum_cell"),
        (_document(minimum_cell=2), "policy.bad_value", "minimum_cell is 2"),
        (_document(minimum_cell=0), "policy.bad_value", "minimum_cell"),
        (_document(minimum_patients=4), "policy.bad_value", "minimum_patients is 4"),
        (_document(zero_is_small=1), "policy.bad_value", "zero_is_small"),
        (_document(review="never"), "policy.bad_value", "review"),
        (_document(profile="secret"), "policy.bad_value", "profile"),
        (_document(profile="research", minimum_cell=4), "policy.mislabelled", "research"),
        (_document(profile="open"), "policy.mislabelled", "open"),
    ],
)
def test_every_defect_fails_closed(tmp_path: Path, document: object, code: str, word: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(_write(tmp_path, document))
    assert caught.value.code == code
    assert word in caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize("key", list(Policy.model_fields))
def test_every_key_must_be_given(tmp_path: Path, key: str) -> None:
    document = _document()
    del document[key]
    with pytest.raises(PolicyError, match=key) as caught:
        load_policy(_write(tmp_path, document))
    assert caught.value.code == "policy.missing_key"


def test_the_first_of_several_defects_is_explained(tmp_path: Path) -> None:
    # In the order in which the keys are documented.
    document = _document(minimum_cell="5", zero_is_small=1)
    with pytest.raises(PolicyError, match="the value of 'minimum_cell'"):
        load_policy(_write(tmp_path, document))
    with pytest.raises(PolicyError, match="a combination of values that cannot be used"):
        load_policy(_write(tmp_path, _document(minimum_patients=4)))
    del document["minimum_cell"]
    with pytest.raises(PolicyError, match="lacks the key 'minimum_cell'") as caught:
        load_policy(_write(tmp_path, document))
    assert caught.value.cure == "Give every key; a policy has no defaults."


def test_an_unknown_or_missing_nested_key_is_named(tmp_path: Path) -> None:
    cox = dict(load_policy("research").cox.model_dump())
    with pytest.raises(PolicyError, match=r"cox\.minimum_event'"):
        load_policy(_write(tmp_path, _document(cox={**cox, "minimum_event": 3})))
    del cox["budget_share"]
    with pytest.raises(PolicyError, match=r"cox\.budget_share"):
        load_policy(_write(tmp_path, _document(cox=cox)))


def test_a_folder_and_binary_are_unreadable(tmp_path: Path) -> None:
    binary = tmp_path / "policy.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(PolicyError) as caught:
            load_policy(path)
        assert caught.value.code == "policy.unreadable"


def test_a_protocol_raises_cell_by_cell_and_never_lowers() -> None:
    research = load_policy("research")
    lower = DisclosureMinimum(minimum_cell=1, minimum_patients=1)
    assert stricter_of(research, lower) == research
    raised = stricter_of(research, DisclosureMinimum(minimum_cell=8, minimum_patients=10))
    assert (raised.profile, raised.minimum_cell, raised.minimum_patients) == ("custom", 8, 20)
    assert (raised.cox.minimum_per_category, raised.cox.minimum_events) == (8, 10)
    higher = stricter_of(research, DisclosureMinimum(minimum_cell=40, minimum_patients=30))
    assert (higher.minimum_cell, higher.minimum_patients) == (40, 40)


def test_open_stays_open() -> None:
    public = load_policy("open")
    assert stricter_of(public, DisclosureMinimum(minimum_cell=11)) == public


def test_small_counts() -> None:
    research = load_policy("research")
    assert [research.is_small(count) for count in (0, 1, 4, 5)] == [True, True, True, False]
    lenient = Policy.model_validate(_document(zero_is_small=False))
    assert [lenient.is_small(count) for count in (0, 1, 4, 5)] == [False, True, True, False]


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_policy("research").minimum_cell = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "lowest", "below"),
    [
        ("minimum_cell", 1, 0),
        ("minimum_patients", 1, 0),
        ("significant_digits", 3, 2),
        ("cox.minimum_events", 0, -1),
        ("cox.minimum_per_category", 0, -1),
        ("cox.maximum_parameters_per_patient", 1e-6, 0.0),
        ("cox.maximum_exchanges", 1, 0),
        ("cox.maximum_parameter_norm", 1e-6, 0.0),
        ("cox.budget_share", 1e-6, 0.0),
    ],
)
def test_the_lowest_value_of_every_limit(name: str, lowest: float, below: float) -> None:
    assert _given(name, lowest).is_open
    with pytest.raises(ValidationError):
        _given(name, below)


@pytest.mark.parametrize(
    ("name", "highest", "above"),
    [
        ("significant_digits", 17, 18),
        ("cox.maximum_parameters_per_patient", 1.0, 1.01),
        ("cox.budget_share", 1.0, 1.01),
        ("cox.maximum_parameter_norm", 1e300, float("inf")),
    ],
)
def test_the_highest_value_of_limits(name: str, highest: float, above: float) -> None:
    assert _given(name, highest).is_open
    with pytest.raises(ValidationError):
        _given(name, above)


def _given(name: str, value: float) -> Policy:
    """Return the open policy, whose numbers are bound by nothing but their range."""
    document = load_policy("open").model_dump()
    part = document["cox"] if name.startswith("cox.") else document
    part[name.removeprefix("cox.")] = value
    return Policy.model_validate(document)


@pytest.mark.parametrize("k", [3, 4])
def test_a_cell_of_three_is_the_smallest_that_protects(k: int) -> None:
    assert Policy.model_validate(_document(minimum_cell=k)).minimum_cell == k
    with pytest.raises(ValidationError, match="minimum_cell is 2"):
        Policy.model_validate(_document(minimum_cell=2))


@pytest.mark.parametrize("name", ["minimum_events", "minimum_per_category"])
def test_no_limit_of_a_likelihood_is_below_k(name: str) -> None:
    cox = load_policy("research").cox.model_dump()
    for value, is_allowed in ((5, True), (4, False)):
        document = _document(cox={**cox, name: value})
        if is_allowed:
            assert Policy.model_validate(document).minimum_cell == 5
        else:
            with pytest.raises(ValidationError, match=rf"cox\.{name} is 4"):
                Policy.model_validate(document)


def test_the_limits_of_a_likelihood_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_policy("research").cox.minimum_events = 1  # type: ignore[misc]


def test_the_names_of_the_shipped_profiles() -> None:
    assert shipped_profiles() == ("research", "cms", "open")
    assert [load_policy(name).profile for name in shipped_profiles()] == list(shipped_profiles())
