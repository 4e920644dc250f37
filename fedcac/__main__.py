"""Entry point of the `fedcac` command."""

from __future__ import annotations

import sys

from fedcac.cli import main

if __name__ == "__main__":
    sys.exit(main())
