"""Small inputs that would become enormous: refused in a child whose memory and time are limited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fuzz import bombs
from fuzz.engine import PARSERS, Failure, tried
with open("/proc/self/statm", encoding="ascii") as stream:
    size = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
told = {}
for name, (parser, made, _) in bombs.BOMBS.items():
    try:
        told[name] = tried(PARSERS[parser], made(), Path(sys.argv[2]))
    except Failure as failure:
        told[name] = failure.what
sys.stdout.write(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of every bomb in one child, which may take 1 GiB more than its imports did."""
    arguments = [str(Path(__file__).resolve().parents[1]), str(tmp_path_factory.mktemp("bombs"))]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    found: dict[str, str] = json.loads(child.stdout)
    return found


def test_no_bomb_takes_more_memory_or_time_than_there_is(told: dict[str, str]) -> None:
    from fuzz.bombs import BOMBS

    assert told == {name: expected for name, (_, _, expected) in BOMBS.items()}
