"""A site's disclosure policy: strict YAML that fails closed.

A policy has no defaults. A missing file, a misspelt key or a value outside its range is a
PolicyError, and without a policy nothing leaves.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedcac.canonical import Digest, digest_of
from fedcac.errors import DAMAGED_YAML, PolicyError
from fedcac.exchange.messages import PolicySummary
from fedcac.protocol import DisclosureMinimum

__all__ = ["LikelihoodLimits", "Policy", "load_policy", "shipped_profiles", "stricter_of"]

SMALLEST_MINIMUM_CELL = 3
"""Below three, one patient of a cell can tell who the other is (DataSHIELD's tabulation floor)."""

_PROFILES = ("research", "cms", "open")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LikelihoodLimits(_Part):
    """Limits on log-likelihoods, gradients and informations (the Cox model foremost).

    Attributes
    ----------
    minimum_events
        Patients with the event.
    minimum_per_category
        Patients on either side of every indicator of the design.
    maximum_parameters_per_patient
        Parameters divided by patients.
    maximum_exchanges
        Different parameter values at which one analysis of one cohort is answered.
    maximum_parameter_norm
        Largest absolute coefficient a query may ask at, per standard deviation of its covariate.
    budget_share
        Numbers released about a cohort, as a share of patients times columns.
    """

    minimum_events: Annotated[int, Field(ge=0)]
    minimum_per_category: Annotated[int, Field(ge=0)]
    maximum_parameters_per_patient: Annotated[float, Field(gt=0, le=1)]
    maximum_exchanges: Annotated[int, Field(ge=1)]
    maximum_parameter_norm: Annotated[float, Field(gt=0)]
    budget_share: Annotated[float, Field(gt=0, le=1)]


class Policy(_Part):
    """What a site's gate enforces.

    `minimum_cell` is k: a count from 1 to k - 1 is small, and 0 too where `zero_is_small`. The
    profile `open` switches suppression and limits off, for public or synthetic tables only.
    `review` says whether a person releases each reply (`hold`) or the agent does (`auto`).
    """

    profile: Literal["research", "cms", "open", "custom"]
    minimum_cell: Annotated[int, Field(ge=1)]
    minimum_patients: Annotated[int, Field(ge=1)]
    zero_is_small: bool
    significant_digits: Annotated[int, Field(ge=3, le=17)]
    review: Literal["hold", "auto"]
    cox: LikelihoodLimits

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.is_open:
            return self
        if self.minimum_cell < SMALLEST_MINIMUM_CELL:
            raise ValueError(
                f"minimum_cell is {self.minimum_cell}, below {SMALLEST_MINIMUM_CELL}; "
                "only the profile 'open' releases such cells"
            )
        for name, number in (
            ("minimum_patients", self.minimum_patients),
            ("cox.minimum_events", self.cox.minimum_events),
            ("cox.minimum_per_category", self.cox.minimum_per_category),
        ):
            if number < self.minimum_cell:
                raise ValueError(
                    f"{name} is {number}, below minimum_cell, which is {self.minimum_cell}"
                )
        return self

    @property
    def is_open(self) -> bool:
        """Say whether suppression and limits are off."""
        return self.profile == "open"

    def is_small(self, count: int) -> bool:
        """Say whether a number of patients may not be shown."""
        return (0 < count or self.zero_is_small) and count < self.minimum_cell

    def digest(self) -> Digest:
        """Return the digest of the policy's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))

    def summary(self) -> PolicySummary:
        """Return what a reply tells the coordinator about this policy."""
        return PolicySummary(
            profile=self.profile,
            minimum_cell=self.minimum_cell,
            minimum_patients=self.minimum_patients,
            digest=self.digest(),
        )


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: the later one must not win silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing repeated keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [str(key) for index, key in enumerate(keys) if key in keys[:index]]
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {repeated[0]}")
        return super().construct_mapping(node, deep=deep)


def shipped_profiles() -> tuple[str, ...]:
    """Return the names that `load_policy` accepts instead of a path."""
    return _PROFILES


def load_policy(source: str | Path | None) -> Policy:
    """Return the policy of a shipped profile's name or of a YAML file.

    Parameters
    ----------
    source
        `research`, `cms`, `open`, or the path of a YAML file that gives every key.

    Raises
    ------
    PolicyError
        If there is no policy (`missing`), it cannot be read (`unreadable`), a key is unknown
        (`unknown_key`) or absent (`missing_key`), a value is out of range (`bad_value`), or a
        file bears a shipped profile's name with other values (`mislabelled`).
    """
    if source is None or str(source) == "":
        raise PolicyError(
            "No disclosure policy is set.",
            code="missing",
            cure=f"Name a profile ({', '.join(_PROFILES)}) or a policy file.",
        )
    if isinstance(source, str) and source in _PROFILES:
        return _shipped(source)
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PolicyError(
            f"There is no disclosure policy at {path}.",
            code="missing",
            cure=f"Name a profile ({', '.join(_PROFILES)}) or the path of an existing file.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"The disclosure policy at {path} cannot be read.",
            code="unreadable",
            cure="Check that it is a UTF-8 text file this user may read.",
        ) from error
    policy = _parse(text, str(path))
    if policy.profile in _PROFILES and policy != _shipped(policy.profile):
        raise PolicyError(
            f"{path} calls itself '{policy.profile}' but differs from that profile.",
            code="mislabelled",
            cure="Write 'profile: custom', or name the shipped profile instead of a file.",
        )
    return policy


def _shipped(name: str) -> Policy:
    resource = files("fedcac.disclosure") / "policies" / f"{name}.yaml"
    return _parse(resource.read_text(encoding="utf-8"), f"profile '{name}'")


def _parse(text: str, origin: str) -> Policy:
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, *DAMAGED_YAML) as error:
        raise PolicyError(
            f"The disclosure policy in {origin} is not readable YAML: {error}",
            code="unreadable",
            cure="Correct the line, or start again from a shipped profile.",
        ) from error
    if not isinstance(document, dict):
        raise PolicyError(
            f"The disclosure policy in {origin} is empty or not a list of keys.",
            code="unreadable",
            cure="Start from a shipped profile.",
        )
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        raise _explain(error, origin) from error


def _explain(error: ValidationError, origin: str) -> PolicyError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = [*Policy.model_fields, *(f"cox.{name}" for name in LikelihoodLimits.model_fields)]
        return PolicyError(
            f"{origin} has the unknown key '{key}'.",
            code="unknown_key",
            cure=f"Correct or remove it. The keys are: {', '.join(known)}.",
        )
    if first["type"] == "missing":
        return PolicyError(
            f"{origin} lacks the key '{key}'.",
            code="missing_key",
            cure="Give every key; a policy has no defaults.",
        )
    where = f"the value of '{key}'" if key else "a combination of values"
    return PolicyError(
        f"{origin} has {where} that cannot be used: {first['msg']}.",
        code="bad_value",
        cure="Correct the value; docs/explanation/disclosure.md lists every key.",
    )


def stricter_of(policy: Policy, minimum: DisclosureMinimum) -> Policy:
    """Return the policy with each cell raised to the protocol's minimum where that is higher.

    A protocol can never lower a cell. A policy that becomes stricter than its shipped profile is
    `custom`. `open` stays open: the site has declared that its table holds no patient, so there
    is nobody for the protocol's minimum to protect.
    """
    if policy.is_open:
        return policy
    cell = max(policy.minimum_cell, minimum.minimum_cell)
    document = policy.model_dump()
    document["minimum_cell"] = cell
    document["minimum_patients"] = max(policy.minimum_patients, minimum.minimum_patients, cell)
    for name in ("minimum_events", "minimum_per_category"):
        document["cox"][name] = max(document["cox"][name], cell)
    raised = Policy.model_validate(document)
    return policy if raised == policy else raised.model_copy(update={"profile": "custom"})
