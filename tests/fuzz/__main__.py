"""`python -m tests.fuzz --minutes N [PARSER...]`, from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

# The tests' modules name one another from the folder of the tests, as pytest lets them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.long_run import main

if __name__ == "__main__":
    sys.exit(main())
