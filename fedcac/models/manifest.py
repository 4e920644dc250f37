"""The manifest of a model package: what its weights are, and what they must reproduce."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from fedcac.canonical import Digest, canonical_bytes, digest_of, require_canonical

__all__ = [
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "ONNX_FILE",
    "PAYLOAD_TYPE",
    "SECOND_STAGE_FILE",
    "WEIGHTS_FILE",
    "FileName",
    "ModelCard",
    "PackageManifest",
    "Precision",
]

PAYLOAD_TYPE = "application/vnd.fedcac.package-manifest+json"
"""DSSE payload type of a signed manifest."""

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE: Final = "weights.safetensors"
GOLDEN_FILE: Final = "golden.safetensors"
ONNX_FILE: Final = "model.onnx"
SECOND_STAGE_FILE: Final = "second_stage.json"

FileName = Literal["weights.safetensors", "golden.safetensors", "model.onnx", "second_stage.json"]
"""Every file a package may hold beside its manifest."""

Precision = Literal["float32", "reduced"]
"""`reduced` allows bfloat16 or float16 arithmetic where the golden case still agrees."""

_VERSION_2 = frozenset({"precision"})
_FILES_OF_VERSION_1 = frozenset({WEIGHTS_FILE, GOLDEN_FILE})

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
    the SHA-256 digest of each other file; `tensors` every tensor of the weights (none where the
    network is an ONNX graph). Every output of the golden case must come out within
    `golden_tolerance` (largest absolute difference of a probability).

    Version 2 adds the files `model.onnx`, in the place of the weights, and `second_stage.json`,
    and the policy `precision`. Version 1 is still read, and keeps the digest it always had.
    """

    schema_version: Literal[1, 2]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,59}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$")]
    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    architecture: Annotated[dict[str, JsonValue], AfterValidator(require_canonical)]
    input: InputSpec
    calcium_threshold: Annotated[float, Field(gt=0, lt=1)]
    files: dict[FileName, DigestWord]
    tensors: dict[str, TensorSpec]
    golden_tolerance: Annotated[float, Field(gt=0, le=0.1)]
    precision: Precision = "float32"
    licence: Sentence
    card: ModelCard

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if self.schema_version == 1 and (
            _VERSION_2 & self.model_fields_set or set(self.files) - _FILES_OF_VERSION_1
        ):
            raise ValueError("this needs schema_version 2")
        return self

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return canonical_bytes(self._document())

    def digest(self) -> Digest:
        """Return the digest that identifies the package; it covers every file through `files`."""
        return digest_of(self._document())

    def _document(self) -> dict[str, JsonValue]:
        # What a version does not know is not in its bytes: digests of version 1 stay what they are.
        later = set(_VERSION_2) if self.schema_version == 1 else set()
        return self.model_dump(mode="json", exclude=later)
