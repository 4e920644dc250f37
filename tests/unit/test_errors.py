"""The exception tree: one family and one exit code each, and what a person reads."""

from __future__ import annotations

from fedcac import errors
from fedcac.errors import CohortError, DicomError, FedcacError, all_error_types


def test_every_error_is_in_the_tree_once_with_a_family_of_its_own() -> None:
    named = {value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)}
    found = all_error_types()
    own = [error_type for error_type in found if error_type.__module__ == errors.__name__]
    assert own[0] is FedcacError
    assert len(set(found)) == len(found)
    assert set(own) == named
    assert len({error_type.family for error_type in own}) == len(own)


def test_families_share_an_exit_code_only_with_the_error_they_are_a_kind_of() -> None:
    own = [one for one in all_error_types() if one.__module__ == errors.__name__]
    codes = [one.exit_code for one in own if one is not DicomError]
    assert sorted(codes) == list(range(1, len(codes) + 1))
    assert DicomError.exit_code == CohortError.exit_code


def test_a_person_reads_what_happened_the_code_and_the_cure() -> None:
    error = DicomError("No file there is DICOM.", code="no_dicom", cure="Give the folder.")
    assert str(error) == (
        "No file there is DICOM. [dicom.no_dicom]\n  What to do: Give the folder."
    )
    assert str(FedcacError("It broke.", code="broken")) == "It broke. [internal.broken]"
