"""A site's own settings: `site.yaml` in the site's folder. Unknown keys are errors."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedcac.errors import DAMAGED_YAML, UsageError
from fedcac.signing import PublicKey, SigningKey
from site_agent.pacs.settings import PacsSettings

__all__ = ["SiteFolder", "SiteSettings", "create_site_folder"]


class SiteSettings(BaseModel):
    """What site IT decides. Paths are relative to the site's folder unless absolute.

    Attributes
    ----------
    name
        The site's name in the consortium.
    lead_key
        The consortium lead's public key, pinned; its fingerprint is compared out of band.
    manifest, clinical_table
        The exams to score and the site's reference scores, endpoints and covariates.
    scored_table
        A table of exams that were scored elsewhere (`fedcac analyze` reads the same), from which
        rounds without a model package are answered. None refuses such rounds.
    annotation_labels
        What the labels of NIfTI annotations stand for: `calcium`, or pairs such as `1=lm 2=lad`.
    policy
        `research`, `cms`, `open`, or the path of a policy file.
    approval
        `manual`: a person approves each round before anything is read (the default).
        `auto`: a round whose signatures hold is approved at once.
    maximum_excluded_share
        Above this share of excluded patients the round waits for a person to confirm.
    device
        `auto` uses a GPU when there is one.
    accept_onnx
        Whether packages of any ONNX graph may run here, and not only the architectures of this
        release. Graphs are checked and hold no code, but their networks are nobody's here.
    exam_time_limit_s
        An exam that has not been read and scored after so many seconds is given up.
    artefacts
        What is written of every scored exam for the site's own physicians, under `artefacts/`:
        `none`, `overlay` (a page without identifiers), or `all` (DICOM SEG and SR too).
    pacs
        Where `fedcac-site pacs` pulls exams from; None where files come another way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
    lead_key: str
    manifest: str = "manifest.csv"
    clinical_table: str = "clinical.csv"
    scored_table: str | None = None
    annotation_labels: Annotated[str, Field(max_length=400)] = ""
    policy: str = "research"
    approval: Literal["manual", "auto"] = "manual"
    maximum_excluded_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    accept_onnx: bool = False
    exam_time_limit_s: Annotated[float, Field(gt=0)] = 600.0
    artefacts: Literal["none", "overlay", "all"] = "none"
    pacs: PacsSettings | None = None


class SiteFolder:
    """The files of one site: settings, key, secret, database, ledger and spool."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def settings_path(self) -> Path:
        """`site.yaml`."""
        return self.root / "site.yaml"

    @property
    def key_path(self) -> Path:
        """The site's signing key."""
        return self.root / "keys" / "site.key"

    @property
    def secret_path(self) -> Path:
        """The secret of pseudonyms and resampling; `secret` makes it."""
        return self.root / "keys" / "pseudonym.secret"

    @property
    def lock_path(self) -> Path:
        """Held by the agent that works on the folder; see `service.lock`."""
        return self.root / "agent.lock"

    @property
    def peers_path(self) -> Path:
        """The confirmed signing keys of other sites, one `NAME.pub` each."""
        return self.root / "keys" / "peers"

    @property
    def database_path(self) -> Path:
        """The site's SQLite database."""
        return self.root / "state.sqlite"

    @property
    def ledger_path(self) -> Path:
        """The hash-chained ledger of everything that left."""
        return self.root / "ledger.jsonl"

    @property
    def spool_path(self) -> Path:
        """The only folder a courier may see."""
        return self.root / "spool"

    @property
    def artefacts_path(self) -> Path:
        """The review artefacts of scored exams; nothing of it ever leaves."""
        return self.root / "artefacts"

    def resolve(self, path: str) -> Path:
        """Return a path of the settings, relative to the site's folder."""
        return self.root / path

    def secret(self) -> bytes:
        """Return the site's secret for pseudonyms and resampling, made at the first call.

        It never leaves.
        """
        path = self.secret_path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(32))
        return path.read_bytes()

    def settings(self) -> SiteSettings:
        """Read `site.yaml`.

        Raises
        ------
        UsageError
            If it is missing, is not YAML, or holds an unknown or wrong key.
        """
        try:
            document = yaml.safe_load(self.settings_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.root} is not a site's folder: it has no site.yaml.",
                code="no_site_folder",
                cure="Make one with `fedcac-site init`.",
            ) from error
        except (yaml.YAMLError, *DAMAGED_YAML) as error:
            raise UsageError(
                f"{self.settings_path} is not YAML: {error}",
                code="bad_settings",
                cure="Mend the line named, or compare with docs/reference/settings.md.",
            ) from error
        try:
            return SiteSettings.model_validate(document)
        except ValidationError as error:
            lines = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'site.yaml'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise UsageError(
                f"{self.settings_path} has problems: {lines}",
                code="bad_settings",
                cure="Mend the named keys; docs/reference/settings.md describes each.",
            ) from error


def create_site_folder(root: Path, settings: SiteSettings) -> PublicKey:
    """Make a site's folder with its own key and return the public key to enrol.

    Raises
    ------
    UsageError
        If the folder already holds a site.
    """
    folder = SiteFolder(root)
    if folder.settings_path.exists():
        raise UsageError(
            f"{root} already holds a site.",
            code="site_exists",
            cure="Use it as it is, or give another folder.",
        )
    PublicKey.from_text(settings.lead_key)
    folder.key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = SigningKey.generate()
    key.save(folder.key_path)
    folder.secret()
    folder.settings_path.write_text(
        yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
    )
    return key.public
