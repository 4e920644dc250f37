"""`python -m benchmarks [NAME...]`: run the named benchmarks, or all, and record their numbers.

Machines are shared and noisy, so each pair is timed in turn, A B A B, and the ratio of each pair
is what counts: its median, least and greatest are recorded with the machine and the versions. What
other benchmarks recorded before stays.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

from benchmarks.side_by_side import Spread, record, record_machine

_BENCHMARKS = {
    "agatston_loop": "Agatston score against a per-lesion loop",
    "volume_building": "DICOM series to a volume against highdicom and SimpleITK",
    "inference_engine": "exams to scores against slice by slice",
    "cox_step": "a Newton step of the Cox model against survival::coxph",
    "miller_round": "Miller's whole protocol in memory",
    "deployment_rounds": "rounds over TLS against in memory and spool folders; memory; parity",
    "large_package": "250 MB to four sites over TLS against plain copies",
    "simulated_sites": "Eng's round with 25, 50 and 100 sites over spool folders",
    "joining": "from the lead's kit to a passed dry run, command by command",
    "hundred_sites": "Miller's round and its report with 100 sites in memory",
    "corrupted_cohort": "1,000 generated exams, 5 % of them corrupted",
}


def _recorded(name: str) -> Mapping[str, Mapping[str, Spread]]:
    # Imported here: one may need what another does not, such as Flower or torch.
    module = importlib.import_module(f"benchmarks.{name}")
    found: Mapping[str, Mapping[str, Spread]] = module.recorded()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run what was named and write the results."""
    names = "\n".join(f"  {name:18} {text}" for name, text in _BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Run benchmarks; without a name all.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(_BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; --help lists them")
    record_machine()
    for name in arguments.names or _BENCHMARKS:
        for kind, spreads in _recorded(name).items():
            record(kind, spreads)


if __name__ == "__main__":
    main()
