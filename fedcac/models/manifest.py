"""The manifest of a model package: what its weights are, and what they must reproduce."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from fedcac.canonical import Digest, canonical_bytes, digest_of

__all__ = [
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "PAYLOAD_TYPE",
    "WEIGHTS_FILE",
    "ModelCard",
    "PackageManifest",
]

PAYLOAD_TYPE = "application/vnd.fedcac.package-manifest+json"
"""DSSE payload type of a signed manifest."""

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
GOLDEN_FILE = "golden.safetensors"

DigestWord = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Sentence = Annotated[str, Field(min_length=3, max_length=2000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TensorSpec(_Part):
    """Shape and dtype of one tensor of the weights file."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    dtype: Literal["float32", "float16", "int64"]


class InputSpec(_Part):
    """How Hounsfield units become network input: (clip(hu) - centre_hu) / scale_hu.

    A network trained on cardiac reconstructions knows nothing of a whole chest: of slices wider
    than `field_of_view_mm` only the middle is looked at. None looks at all of every slice.
    """

    clip_hu: tuple[float, float]
    centre_hu: float
    scale_hu: Annotated[float, Field(gt=0)]
    field_of_view_mm: Annotated[float, Field(ge=32)] | None = None


class Measurement(_Part):
    """One measured figure of the model card, with its interval and the number of exams."""

    name: Sentence
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n_exams: Annotated[int, Field(ge=1)]


class ModelCard(_Part):
    """What a reader must know before trusting a score."""

    intended_use: Sentence
    is_demonstration: bool
    training_data: Sentence
    limitations: Sentence
    measurements: tuple[Measurement, ...] = ()


class PackageManifest(_Part):
    """Everything about a package but its tensors.

    `family` names an architecture of the registry and `architecture` its parameters. `files` holds
    the SHA-256 digest of each other file; `tensors` every tensor of the weights. The golden case
    must come out within `golden_tolerance` (largest absolute difference of a probability).
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,59}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$")]
    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    architecture: dict[str, JsonValue]
    input: InputSpec
    calcium_threshold: Annotated[float, Field(gt=0, lt=1)]
    files: dict[Literal["weights.safetensors", "golden.safetensors"], DigestWord]
    tensors: dict[str, TensorSpec]
    golden_tolerance: Annotated[float, Field(gt=0, le=0.1)]
    licence: Sentence
    card: ModelCard

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return canonical_bytes(self.model_dump(mode="json"))

    def digest(self) -> Digest:
        """Return the digest that identifies the package; it covers every file through `files`."""
        return digest_of(self.model_dump(mode="json"))
