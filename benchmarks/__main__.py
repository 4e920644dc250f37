"""`python -m benchmarks [NAME...]`: run the named benchmarks, or all, and record their numbers.

Machines are shared and noisy, so each pair is timed in turn, A B A B, and the ratio of each pair
is what counts: its median, least and greatest are recorded with the machine and the versions. What
other benchmarks recorded before stays. It ends with one table of every figure, and writes
`docs/studies/benchmarks.md` anew.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

from benchmarks.page import table_of_figures, write_page
from benchmarks.registry import BENCHMARKS, named
from benchmarks.side_by_side import Spread, record, record_machine, recorded_results


def _recorded(name: str) -> Mapping[str, Mapping[str, Spread]]:
    # Imported here: one may need what another does not, such as Flower or torch.
    module = importlib.import_module(f"benchmarks.{name}")
    found: Mapping[str, Mapping[str, Spread]] = module.recorded()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run what was named, write the results and the page, and print every figure."""
    names = "\n".join(f"  {one.name:18} {one.compares}" for one in BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Run benchmarks; without a name all.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run")
    arguments = parser.parse_args(argv)
    known = [benchmark.name for benchmark in BENCHMARKS]
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; --help lists them")
    chosen = arguments.names or known
    for number, name in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {named(name).compares}", flush=True)
        for kind, spreads in _recorded(name).items():
            record(kind, spreads)
        record_machine(name, named(name).packages)
    write_page()
    print("\n".join(table_of_figures(recorded_results())))


if __name__ == "__main__":
    main()
