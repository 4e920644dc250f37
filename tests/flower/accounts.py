"""A host's folders and users as its sysusers and tmpfiles rules make them, under another root.

The rules are carried out by systemd's own programs; the machine's users are left alone. Processes
run under the numbers of those users, with the groups and the umask of their units.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

__all__ = ["Accounts", "needs_accounts", "open_to_all"]

REPOSITORY = Path(__file__).parents[2]
_TOOLS = ("systemd-sysusers", "systemd-tmpfiles", "setpriv", "nsenter", "unshare")
_TRY = """
import json, os, sys, tempfile
found = {}
for path in sys.argv[2:]:
    try:
        if sys.argv[1] == "read":
            open(path, "rb").read(1)
        elif os.path.isdir(path):
            tempfile.NamedTemporaryFile(dir=path, prefix=".part-").close()
        else:
            open(path, "ab").close()
        found[path] = True
    except PermissionError:
        found[path] = False
print(json.dumps(found))
"""
# A name space of mounts in which every user reaches the interpreter: where it lies in a closed
# home folder, an open one with nothing else in it is put over that.
_OPEN = """
set -e
aside=$1 closed=$2 needed=$3
if [ -n "$closed" ]; then
  mount --bind "$needed" "$aside"
  mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$needed"
  mount --bind "$aside" "$needed"
  umount "$aside"
fi
echo ready
exec sleep 3600
"""


def needs_accounts() -> None:
    """Skip where processes cannot be given other users."""
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or absent:
        pytest.skip(f"other users' processes need root and {', '.join(absent) or 'nothing else'}")


def _closed_parent(path: Path) -> Path | None:
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


@contextmanager
def open_to_all(aside: Path) -> Iterator[list[str]]:
    """Yield the words before a command by which any user may run this interpreter."""
    needed = Path(sys.base_prefix).resolve()
    closed = _closed_parent(needed)
    if _closed_parent(REPOSITORY) or _closed_parent(Path(sys.prefix)):
        pytest.skip("the code lies in a folder that is closed to other users")
    aside.mkdir()
    holder = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _OPEN, "sh"),
            *(str(aside), str(closed or ""), str(needed)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            reason = holder.stderr.read().decode(errors="replace").strip()
            pytest.skip(f"this machine permits no name spaces of mounts ({reason})")
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    finally:
        holder.kill()
        holder.communicate()


class Accounts:
    """One host.

    Parameters
    ----------
    root
        Stands for the host's `/`.
    rules
        The folder of its units, sysusers and tmpfiles.
    first_id
        Users and groups are numbered from here, away from the machine's own.
    enter
        As `open_to_all` yields.
    """

    def __init__(self, root: Path, rules: Path, first_id: int, enter: Sequence[str]) -> None:
        self.root = root
        self._rules = rules
        self._enter = list(enter)
        (root / "etc").mkdir(parents=True)
        numbers = iter(range(first_id, first_id + 100))
        (found,) = rules.glob("*.sysusers")
        text = re.sub(
            r"^([ug] +\S+ +)-",
            lambda match: f"{match[1]}{next(numbers)}",
            found.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        numbered = root.parent / f"{root.name}.sysusers.conf"
        numbered.write_text(text, encoding="utf-8")
        self._must("systemd-sysusers", f"--root={root}", str(numbered))
        self.make_folders()

    def make_folders(self) -> None:
        """Carry out the tmpfiles rules, as at every start of the machine."""
        (rules,) = self._rules.glob("*.tmpfiles")
        told = self._must("systemd-tmpfiles", f"--root={self.root}", "--create", str(rules))
        assert "unsafe" not in told, told

    def _must(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def at(self, path: str) -> Path:
        """Return where a path of the host lies."""
        return self.root / path.lstrip("/")

    def number(self, user: str) -> int:
        return self._lines("passwd", user)[2]

    def _lines(self, table: str, name: str) -> Any:
        rows = (row.split(":") for row in self.at(f"/etc/{table}").read_text().splitlines())
        (found,) = (row for row in rows if row[0] == name)
        return [int(part) if part.isdigit() else part for part in found]

    def _groups(self, user: str) -> list[int]:
        rows = [row.split(":") for row in self.at("/etc/group").read_text().splitlines()]
        return [int(row[2]) for row in rows if row[0] == user or user in row[3].split(",")]

    def become(self, user: str, groups: Sequence[int] | None = None) -> list[str]:
        """Return the words before a command that is to run as a user."""
        joined = ",".join(map(str, self._groups(user) if groups is None else groups))
        return [
            *(*self._enter, "setpriv", f"--reuid={self.number(user)}"),
            *(f"--regid={self._lines('group', user)[2]}", f"--groups={joined}"),
            *("--no-new-privs", "--"),
        ]

    def environment(self, user: str) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.at(self._lines("passwd", user)[5])),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, user: str, *words: str) -> Any:
        """Run a command as a user with the usual umask, and return the JSON that it prints."""
        done = subprocess.run(
            [*self.become(user), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=self.environment(user),
            umask=0o022,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return json.loads(done.stdout)

    def start(self, unit: str, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command with the user, groups and umask of a unit.

        `words` stand in the place of the unit's program; its options are kept, with the host's
        folders in them.
        """
        parser = configparser.RawConfigParser(strict=False)
        parser.read(self._rules / f"{unit}.service", encoding="utf-8")
        service = parser["Service"]
        kept = shlex.split(service["ExecStart"])
        kept = kept[kept.index("--home") :]
        groups = [
            self._lines("group", name)[2]
            for name in (service["Group"], *service.get("SupplementaryGroups", "").split())
        ]
        folders = [str(self.at(word)) if word.startswith("/srv/") else word for word in kept]
        with log.open("ab") as stream:
            return subprocess.Popen(
                [*self.become(service["User"], groups), *words, *folders],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self.environment(service["User"]),
                umask=int(service["UMask"], 8),
            )

    def allowed(self, user: str, act: Literal["read", "write"], paths: Iterable[str]) -> set[str]:
        """Try to read files, or to write to files and folders, as a user; return what is let."""
        by_path = {str(self.at(path)): path for path in paths}
        absent = [path for path in by_path if not os.path.lexists(path)]
        assert not absent, absent
        found = self.run(user, sys.executable, "-c", _TRY, act, *by_path)
        return {by_path[path] for path, is_let in found.items() if is_let}
