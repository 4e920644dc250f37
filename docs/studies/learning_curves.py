"""`python docs/studies/learning_curves.py`: learning curves of three small training runs.

Trains the reduced networks after Eng 2021 and Miller 2023 on generated exams through
`python -m fedcac.training`, and writes learning_curves.{md,csv,svg} from the curves. Runs are kept
in the folder given by --runs and are resumed there; --draw only writes the page and the figure
from the committed CSV.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# One thread: sums are taken in one order on every machine of one kind.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fedcac.report.figures.canvas import BLUE, GREY, ORANGE, VERMILLION, canvas, to_svg

HERE = Path(__file__).parent
SEED = 1
COLUMNS = (
    "run",
    "epoch",
    "step",
    "phase",
    "loss",
    "heart_dice",
    "dice",
    "kappa_linear",
    "misclassified",
    "empty_in_training",
    "n_held_out",
)
BEGIN, END = "<!-- table: written by learning_curves.py -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Arm:
    """One run; its words go to `python -m fedcac.training`."""

    name: str
    family: str
    title: str
    words: tuple[str, ...] = ()

    def train(self, runs: Path) -> None:
        """Train, or go on where a stopped run ended."""
        from fedcac.training.__main__ import main as train

        words = ["--family", self.family, "--data", "generated", "--seed", str(SEED)]
        words += [word.format(runs=runs) for word in self.words]
        if train([*words, "--out", str(runs / self.name), "--device", "cpu", "--resume"]):
            sys.exit(f"{self.name} was not trained")


ARMS = (
    Arm("eng", "eng2021", "after Eng 2021"),
    Arm("miller", "miller2023", "after Miller 2023", ("--patients", "40")),
    Arm(
        "miller_all",
        "miller2023",
        "the same, all background",
        ("--patients", "40", "--background-per-calcium", "0", "--heart", "{runs}/miller/package"),
    ),
)

Row = Mapping[str, str]


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def collect(runs: Path) -> list[dict[str, str]]:
    """Return the curves of every arm, three digits: the last ones depend on the processor."""
    rows = []
    for arm in ARMS:
        for row in read(runs / arm.name / "curves.csv"):
            found = {name: row.get(name, "") for name in COLUMNS} | {"run": arm.name}
            for name in ("loss", "heart_dice", "dice", "kappa_linear"):
                found[name] = f"{float(found[name]):.3f}" if found[name] else ""
            found["phase"] = found["phase"] or "calcium"
            rows.append(found)
    return rows


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the results."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table."""
    lines = [
        "| run | epoch | steps | trains | loss | heart Dice | calcium Dice | linear kappa | "
        "empty slices misread |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        names = ("epoch", "step", "phase", "loss", "heart_dice", "dice", "kappa_linear")
        cells = [row["run"], *(row[name] or "-" for name in names), row["misclassified"] or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(rows: Sequence[Row]) -> str:
    """Return the figure: training loss above, held-out figures below, one column per arm."""
    with canvas(820, 440) as sheet:
        grid = sheet.subplots(2, len(ARMS), sharex="col", gridspec_kw={"height_ratios": (1, 1.4)})
        for column, arm in enumerate(ARMS):
            own = [row for row in rows if row["run"] == arm.name]
            loss, held_out = grid[0][column], grid[1][column]
            title = f"{arm.title}\n{own[0]['n_held_out']} exams held out"
            loss.set_xticks([int(row["epoch"]) for row in own])
            loss.set_title(title, fontsize=11, loc="left")
            for phase, colour in (("heart", ORANGE), ("calcium", BLUE)):
                part = [row for row in own if row["phase"] == phase]
                _line(
                    loss, part, "loss", colour, phase if len({r["phase"] for r in own}) > 1 else ""
                )
            loss.set_ylim(bottom=0)
            for name, label, colour in (
                ("heart_dice", "Dice, heart", ORANGE),
                ("dice", "Dice, calcium", BLUE),
                ("kappa_linear", "linear kappa", VERMILLION),
            ):
                _line(held_out, own, name, colour, label)
            held_out.set_ylim(-0.05, 1.05)
            held_out.axhline(0, color=GREY, linewidth=0.6)
            held_out.set_xlabel("epoch")
            held_out.set_xticks([int(row["epoch"]) for row in own])
            for axes in (loss, held_out):
                if axes.get_legend_handles_labels()[1]:
                    axes.legend(frameon=False, fontsize=9)
        grid[0][0].set_ylabel("training loss")
        grid[1][0].set_ylabel("held out")
        sheet.tight_layout()
        alt = "Training loss and held-out Dice and linear kappa by epoch of three small runs"
        return to_svg(sheet, "learning_curves", alt)


def _line(axes: object, rows: Sequence[Row], name: str, colour: str, label: str) -> None:
    points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.6, label=label)  # type: ignore[attr-defined]


def write_page(rows: Sequence[Row]) -> None:
    """Put the table into the page and draw the figure."""
    page = HERE / "learning_curves.md"
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{after}", encoding="utf-8")
    (HERE / "learning_curves.svg").write_text(figure(rows), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("learning-curves"), help="kept runs")
    parser.add_argument("--draw", action="store_true", help="only draw what the CSV holds")
    arguments = parser.parse_args(argv)
    path = HERE / "learning_curves.csv"
    if not arguments.draw:
        for arm in ARMS:
            arm.train(arguments.runs)
        write_csv(collect(arguments.runs), path)
    write_page(read(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
