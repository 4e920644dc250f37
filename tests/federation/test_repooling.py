"""A third party pools a round again from its releases: the same bytes, or a coded error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from federation.test_every_analysis import write_site_table
from federation.test_masked_rounds import AGREEMENT, Consortium
from plans import BASE, SPECS, plan

from coordinator.__main__ import main as coordinator_main
from coordinator.reports.release_reading import read_releases
from coordinator.reports.releases import releases_jsonl
from coordinator.reports.repooling import repool
from coordinator.rounds.views import RoundView
from coordinator.state.store import RoundState
from fedcac.canonical import canonical_bytes, digest_of
from fedcac.cli import main
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.errors import FedcacError
from fedcac.protocol import Pooling, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.report import estimates_csv
from fedcac.signing import SigningKey
from fedcac.vocabulary import RowStatus
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

QUICK = ("agreement", "accuracy", "auc", "comparison", "kaplan_meier")
KINDS = {kind: SPECS[kind].model_copy(update={"id": kind}) for kind in QUICK}
PROTOCOL = plan([*KINDS.values(), BASE])
MASKED = plan(
    [KINDS["agreement"], KINDS["accuracy"], KINDS["kaplan_meier"]],
    pooling=Pooling(mode="masked", least_sites=3, per_site=("agreement",)),
)
SHORT = plan(
    [AGREEMENT, SPECS["distribution"].model_copy(update={"id": "distribution"})],
    pooling=Pooling(mode="masked", least_sites=3),
)
SIZES = {"north": 300, "east": 260, "south": 240}

Lines = list[dict[str, Any]]


def in_memory(protocol: Protocol, tables: dict[str, Path], policy: str, folder: Path) -> RoundView:
    sites = [
        InMemorySite(
            name=name,
            source=TableSource(path),
            store=SiteStore(":memory:"),
            ledger_path=folder / name / "ledger.jsonl",
            secret=name.encode(),
        )
        for name, path in tables.items()
    ]
    view = run_round(protocol, sites, load_policy(policy), SigningKey.generate())
    for site in sites:
        site.store.close()
    return view


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    return {
        name: write_site_table(folder / f"{name}.csv", seed, n)
        for seed, (name, n) in enumerate(SIZES.items())
    }


@pytest.mark.parametrize(
    ("policy", "protocol"),
    [("open", PROTOCOL), ("research", PROTOCOL), ("research", MASKED)],
    ids=["open", "research", "masked"],
)
def test_the_same_numbers_without_any_site(
    tables: dict[str, Path], policy: str, protocol: Protocol, tmp_path: Path
) -> None:
    view = in_memory(protocol, tables, policy, tmp_path)
    path = tmp_path / "releases.jsonl"
    path.write_bytes(releases_jsonl(view, None, None))
    again = repool(read_releases(path))
    assert estimates_csv(again.estimates) == estimates_csv(view.estimates)
    # Not an empty agreement: something was pooled, and something refused where a policy refuses.
    assert sum(row.status is RowStatus.OK for row in view.estimates) > 50
    assert again.sites == view.sites
    assert again.sums == view.sums


def test_a_study_as_large_as_millers(tmp_path: Path) -> None:
    whole = load_shipped("miller2023-ctac")
    wanted = {"agreement", "cox_unadjusted_model", "survival_model"}
    protocol = whole.model_copy(
        update={"analyses": tuple(spec for spec in whole.analyses if spec.id in wanted)}
    )
    assert {spec.id for spec in protocol.analyses} == wanted
    assert main(["phantom", "tables", "miller2023", "--out", str(tmp_path / "tables")]) == 0
    found = {path.stem: path for path in sorted((tmp_path / "tables").glob("*.csv"))}
    view = in_memory(protocol, found, "open", tmp_path)
    path = tmp_path / "releases.jsonl"
    path.write_bytes(releases_jsonl(view, None, None))
    again = repool(read_releases(path))
    assert estimates_csv(again.estimates) == estimates_csv(view.estimates)
    counts = [row for row in view.estimates if row.analysis == "agreement" and row.n]
    assert max(row.n or 0 for row in counts) == 2271


# --- signed rounds --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A masked round on disk, and the folder that `fedcac-coordinator report` wrote of it."""

    out: Path
    lead_key: Path
    consortium: Consortium

    def lines(self) -> Lines:
        text = (self.out / "releases.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    home = tmp_path_factory.mktemp("lead")
    consortium = Consortium(home, {"north": 40, "east": 35, "south": 50})
    (home / "keys").mkdir()
    consortium.lead.save(home / "keys" / "lead.key")
    round_id = consortium.launch(SHORT)
    view = consortium.run(round_id)
    assert view.record.state is RoundState.POOLED
    assert view.n_exchanges == 2
    out = home / "out"
    arguments = ["--home", str(home), "report", round_id, "--out", str(out), "--tables"]
    assert coordinator_main(arguments) == 0
    return Published(out, home / "keys" / "lead.pub", consortium)


def rewritten(folder: Path, lines: Lines) -> Path:
    path = folder / "altered.jsonl"
    path.write_bytes(b"".join(canonical_bytes(line) + b"\n" for line in lines))
    return path


def index_of(lines: Lines, what: str) -> int:
    return next(number for number, line in enumerate(lines) if line["what"] == what)


def consistent(lines: Lines) -> Lines:
    """Mend every digest, as somebody would who wants an alteration to pass."""
    for number, line in enumerate(lines[1:]):
        line["digest"] = digest_of(line["document"])
        lines[0]["document"]["parts"][number]["digest"] = line["digest"]
    lines[0]["digest"] = digest_of(lines[0]["document"])
    return lines


def test_the_signed_file_gives_the_whole_folder_again(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    arguments = ["report", "--from", str(published.out), "--out", str(out), "--tables"]
    assert main([*arguments, "--format", "json", "--lead-key", str(published.lead_key)]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["is_identical"] is True
    lead = published.consortium.lead.public
    assert told["lead_fingerprint"] == lead.fingerprint
    # Everything but the sums: those are in the signed first line.
    assert told["signatures"] == sum(line["what"] != "sums" for line in published.lines())
    given, made = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (published.out, out)
    )
    assert "tables/performance.tex" in given
    assert made == given


def test_a_site_that_never_answered_is_left_out_again(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, {"north": 60, "east": 60, "south": 60, "west": 60}, "open")
    round_id = consortium.launch(plan([AGREEMENT]))
    awake = ("north", "south", "west")
    consortium.turn(round_id, awake)
    consortium.now += timedelta(days=11)
    for _ in range(10):
        view = consortium.turn(round_id, awake)
        if view.is_finished:
            break
    assert view.record.state is RoundState.POOLED
    path = tmp_path / "releases.jsonl"
    path.write_bytes(releases_jsonl(view, None, None))
    again = repool(read_releases(path))
    assert again.sites == view.sites
    assert again.estimates == view.estimates
    silent = next(site for site in again.sites if site.name == "east")
    assert (silent.is_accepting, silent.replies) == (None, ())


def test_no_site_of_a_masked_round_is_told_apart(published: Published) -> None:
    for line in published.lines():
        if line["what"] == "reply":
            answers = line["document"]["answers"].values()
            assert all(answer["release"] is None for answer in answers)
    sums = [line for line in published.lines() if line["what"] == "sums"]
    assert sums[0]["document"]["agreement"]["sites"] == ["east", "north", "south"]


def _alter_flow(lines: Lines) -> None:
    release = lines[index_of(lines, "reply")]["document"]["flow"]["release"]
    release["n_patients"] += 1


def _alter_sum(lines: Lines) -> None:
    lines[index_of(lines, "sums")]["document"]["agreement"]["payload"]["matrix"][0][0] += 1


def _alter_protocol(lines: Lines) -> None:
    lines[index_of(lines, "protocol")]["document"]["categories"]["cut_offs"] = [1, 10, 100, 300]


def _alter_header(lines: Lines) -> None:
    lines[0]["document"]["minimum_sites"] = 1


@pytest.mark.parametrize("alter", [_alter_flow, _alter_sum, _alter_protocol, _alter_header])
def test_an_altered_number_is_noticed_by_its_digest(
    published: Published, tmp_path: Path, alter: Callable[[Lines], None]
) -> None:
    lines = published.lines()
    alter(lines)
    with pytest.raises(FedcacError) as caught:
        read_releases(rewritten(tmp_path, lines))
    assert caught.value.code == "integrity.releases_altered"


@pytest.mark.parametrize("alter", [_alter_flow, _alter_sum, _alter_protocol, _alter_header])
def test_mended_digests_do_not_help_without_the_keys(
    published: Published, tmp_path: Path, alter: Callable[[Lines], None]
) -> None:
    lines = published.lines()
    alter(lines)
    with pytest.raises(FedcacError) as caught:
        read_releases(rewritten(tmp_path, consistent(lines)))
    assert caught.value.code == "signature.bad_signature"


def unsigned(lines: Lines) -> Lines:
    """Return the same round as somebody without any key would publish it."""
    for number, line in enumerate(lines):
        line["signature"] = None
        if number:
            lines[0]["document"]["parts"][number - 1]["key_id"] = None
    lines[0]["document"]["lead_key"] = None
    return consistent(lines)


def test_signatures_that_were_taken_off_are_missed(published: Published, tmp_path: Path) -> None:
    lines = published.lines()
    lines[index_of(lines, "reply")]["signature"] = None
    with pytest.raises(FedcacError) as caught:
        read_releases(rewritten(tmp_path, lines))
    assert caught.value.code == "integrity.releases_altered"
    path = rewritten(tmp_path, unsigned(published.lines()))
    # Digests alone: whoever does not know the lead's key sees that nobody signed.
    assert read_releases(path).lead_key is None
    with pytest.raises(FedcacError) as caught:
        read_releases(path, published.consortium.lead.public)
    assert caught.value.code == "signature.unsigned_releases"


def test_another_lead_is_not_the_one_that_is_known(published: Published) -> None:
    with pytest.raises(FedcacError) as caught:
        read_releases(published.out, SigningKey.generate().public)
    assert caught.value.code == "signature.untrusted_key"


@pytest.mark.parametrize("what", ["protocol", "offer", "request", "reply", "sums"])
def test_a_missing_part_is_named(published: Published, tmp_path: Path, what: str) -> None:
    lines = published.lines()
    del lines[index_of(lines, what)]
    with pytest.raises(FedcacError, match=rf"missing: {what}") as caught:
        read_releases(rewritten(tmp_path, lines))
    assert caught.value.code == "integrity.releases_incomplete"


def test_a_part_that_is_not_listed_is_named(published: Published, tmp_path: Path) -> None:
    lines = published.lines()
    extra = {**lines[index_of(lines, "reply")], "site": "west"}
    with pytest.raises(FedcacError, match="not listed: reply of west, exchange 1") as caught:
        read_releases(rewritten(tmp_path, [*lines, extra]))
    assert caught.value.code == "integrity.releases_incomplete"


def without_last_exchange(lines: Lines) -> Lines:
    last = lines[0]["document"]["exchanges"]
    header, *rest = lines
    rest = [line for line in rest if line["exchange"] != last]
    header["document"]["exchanges"] = last - 1
    header["document"]["parts"] = [
        part for part in header["document"]["parts"] if part["exchange"] != last
    ]
    return [header, *rest]


def test_a_round_cut_short_is_not_pooled(published: Published, tmp_path: Path) -> None:
    lines = consistent(without_last_exchange(unsigned(published.lines())))
    releases = read_releases(rewritten(tmp_path, lines))
    with pytest.raises(FedcacError) as caught:
        repool(releases)
    assert caught.value.code == "integrity.releases_incomplete"


def test_exchanges_that_nobody_answered_are_not_counted(
    published: Published, tmp_path: Path
) -> None:
    lines = unsigned(published.lines())
    lines[0]["document"]["exchanges"] = 10**12
    with pytest.raises(FedcacError, match="replies up to") as caught:
        read_releases(rewritten(tmp_path, consistent(lines)))
    assert caught.value.code == "integrity.releases_incomplete"


def test_a_statistician_needs_neither_torch_nor_pydicom(
    published: Published, tmp_path: Path
) -> None:
    arguments = ["report", "--from", str(published.out), "--out", str(tmp_path / "out")]
    blocked = ("torch", "monai", "pydicom", "highdicom", "safetensors")
    program = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}:\n"
        "            raise ImportError('not installed here: ' + name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from fedcac.cli import main\n"
        f"sys.exit(main({arguments!r}))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_other_questions_are_noticed(published: Published, tmp_path: Path) -> None:
    lines = unsigned(published.lines())
    query = lines[index_of(lines, "request")]["document"]["queries"]["distribution"]
    query["step"] = "another"
    releases = read_releases(rewritten(tmp_path, consistent(lines)))
    with pytest.raises(FedcacError) as caught:
        repool(releases)
    assert caught.value.code == "integrity.releases_other_questions"


def _of_another_round(lines: Lines) -> None:
    lines[index_of(lines, "offer")]["document"]["round_id"] = "another-round"


def _by_another_site(lines: Lines) -> None:
    lines[index_of(lines, "reply")]["document"]["site"] = "east"


def _of_a_site_that_promised_nothing(lines: Lines) -> None:
    reply = lines[index_of(lines, "reply")]["document"]
    reply["answers"]["agreement"] = {"release": None, "layout": None, "refusal": "internal"}


@pytest.mark.parametrize(
    "alter", [_of_another_round, _by_another_site, _of_a_site_that_promised_nothing]
)
def test_documents_of_different_rounds_do_not_pass(
    published: Published, tmp_path: Path, alter: Callable[[Lines], None]
) -> None:
    lines = unsigned(published.lines())
    alter(lines)
    with pytest.raises(FedcacError) as caught:
        read_releases(rewritten(tmp_path, consistent(lines)))
    assert caught.value.code == "integrity.releases_altered"


@pytest.mark.parametrize(
    "payload", [b"", b"{}\n", b"\xff\xfe\n", b'{"what":"reply"}\n'], ids=["empty", "{}", "b", "r"]
)
def test_something_else_is_not_read(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "releases.jsonl").write_bytes(payload)
    with pytest.raises(FedcacError) as caught:
        read_releases(tmp_path)
    assert caught.value.code == "integrity.releases_malformed"


def test_a_folder_without_releases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", "--from", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "usage.no_releases" in capsys.readouterr().err
    assert main([*arguments, "--lead-key", str(tmp_path / "no.pub")]) == 2
    assert "usage.no_key_file" in capsys.readouterr().err


def test_other_numbers_end_in_another_exit_code(published: Published, tmp_path: Path) -> None:
    lines = unsigned(published.lines())
    lines[0]["document"]["estimates_digest"] = "sha256:" + "0" * 64
    path = rewritten(tmp_path, consistent(lines))
    assert main(["report", "--from", str(path), "--out", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "estimates.csv").exists()
