"""A site's agent over its own folder, with a table in the place of images: HOME TABLE."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from site_agent.exams.table_source import TableSource
from site_agent.opening import opened

if __name__ == "__main__":
    with opened(Path(sys.argv[1]), guard=lambda _: TableSource(Path(sys.argv[2]))) as (agent, _):
        while True:
            agent.step()
            for problem in agent.problems.values():
                raise problem
            time.sleep(0.3)
