"""Runs the tests that reach a mutant in a forked process, and says whether one of them failed.

Three stages, all forked from one process that has pytest and the libraries loaded:

1. every test runs once, so that it is known which lines it reaches and how long it takes;
2. mutants of constants, defaults and class bodies: the child loads the mutated module anew;
3. mutants of functions: tests are already collected, and the child exchanges the function's code.

Nothing is ever written into the sources. What has to be fixed once and for all: hypothesis neither
shrinks nor stores what it found, and its examples are the same in every run.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from .operators import Mutant
from .record import KILLED, SURVIVED, TIMEOUT

ROOT = Path(__file__).parents[2]
OPTIONS = ["-p", "no:cacheprovider", "-p", "no:cov", "-q", "-s", "--no-header", "--no-summary"]
MEMORY_BYTES = 6 << 30

_SURVIVED, _KILLED = 0, 1
_GRACE_SECONDS = 5.0
_COLLECTING_SECONDS = 120.0


@dataclass
class Baseline:
    """What the tests reach when nothing is wrong."""

    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    quick: float = float("inf")
    """Seconds: tests that take longer are run only where no quicker one reaches a mutant."""

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach a mutant's line, the quickest first."""
        lines = self.reached.get(mutant.path.as_posix(), {})
        if mutant.place.outer is None:
            # Whatever imports a constant may depend on it; its own module's tests go first.
            own = {test for tests in lines.values() for test in tests}
            found = sorted(self.seconds, key=lambda test: (test not in own, self.seconds[test]))
        else:
            reaching = {test for line in mutant.place.lines for test in lines.get(line, ())}
            found = sorted(reaching, key=self.seconds.__getitem__)
        return [test for test in found if self.seconds[test] <= self.quick] or found


class Steady:
    """Makes tests the same in every run."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutation",
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutation")


class Measuring(Steady):
    """Runs every test once under coverage and writes what each reached."""

    def __init__(self, sources: Sequence[Path], out: Path) -> None:
        from coverage import Coverage

        self._sources = [(ROOT / path).as_posix() for path in sources]
        self._out = out
        self._coverage = Coverage(data_file=None, include=self._sources, config_file=False)
        self._coverage.start()
        self._baseline = Baseline()
        self._failed: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        start = time.process_time()
        yield
        self._baseline.seconds[item.nodeid] = time.process_time() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        for name in data.measured_files():
            lines = {
                line: [test for test in tests if test]
                for line, tests in data.contexts_by_lineno(name).items()
            }
            self._baseline.reached[Path(name).relative_to(ROOT).as_posix()] = lines
        plugins = {
            name.split(".")[0].split("/")[0]
            for point in entry_points(group="pytest11")
            for name in (point.value, *(str(f) for f in (point.dist and point.dist.files) or ()))
        }
        self._baseline.libraries = sorted(
            name
            for name, module in sys.modules.items()
            if name.split(".")[0] not in plugins and _is_library(module)
        )
        text = json.dumps({**vars(self._baseline), "failed": self._failed})
        self._out.write_text(text, encoding="utf-8")


def _is_library(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None) or ""
    return bool(file) and ("site-packages" in file or not file.startswith(f"{ROOT}/"))


def measure(tests: Sequence[str], sources: Sequence[Path], store: Path) -> Baseline:
    """Return what the tests reach, from an earlier run if nothing has changed since."""
    files = sorted({*(ROOT / path for path in sources), *_test_files(tests)})
    digest = sha256(b"".join(path.read_bytes() for path in files) + repr(tests).encode())
    if not (
        store.exists() and json.loads(store.read_text("utf-8")).get("digest") == digest.hexdigest()
    ):
        store.parent.mkdir(parents=True, exist_ok=True)
        store.unlink(missing_ok=True)
        _forked(lambda: int(pytest.main([*tests, *OPTIONS], plugins=[Measuring(sources, store)])))
        if not store.exists():
            raise SystemExit("The tests could not be run.")
        told = json.loads(store.read_text("utf-8"))
        if told["failed"]:
            store.unlink()
            raise SystemExit(f"These fail before anything is changed: {told['failed']}")
        store.write_text(json.dumps({**told, "digest": digest.hexdigest()}), encoding="utf-8")
    told = json.loads(store.read_text("utf-8"))
    reached = {
        name: {int(line): found for line, found in lines.items()}
        for name, lines in told["reached"].items()
    }
    return Baseline(told["seconds"], reached, told["libraries"])


def _test_files(tests: Sequence[str]) -> Iterator[Path]:
    for name in tests:
        if name.startswith("-"):
            continue
        path = ROOT / name.split("::")[0]
        yield from path.rglob("*.py") if path.is_dir() else [path]
    yield from (ROOT / "tests").glob("*.py")


def _forked(run: Callable[[], int], is_quiet: bool = False) -> int:
    """Run something in a child and return its status as `os.waitpid` gives it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 2
    try:
        if is_quiet:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
        code = run()
    finally:
        os._exit(code)


def _limit(seconds: float) -> None:
    # Of processor time, so that a busy machine kills no mutant; of wall time against deadlocks.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 30 * seconds)


def _outcome(status: int) -> str:
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM) else KILLED
    return SURVIVED if os.WEXITSTATUS(status) == _SURVIVED else KILLED


class Ordered(Steady):
    """Runs chosen tests in a given order and ends the process at the first failure."""

    def __init__(self, order: Sequence[str], seconds: Mapping[str, float]) -> None:
        self._order = order
        self._seconds = seconds

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(_KILLED)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.run({item.nodeid: item for item in session.items})
        os._exit(_SURVIVED)

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(test.split("::")[0] for test in self._order))

    def run(self, items: Mapping[str, pytest.Item]) -> None:
        chosen = [items[test] for test in self._order if test in items]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            _limit(_GRACE_SECONDS + 10 * self._seconds[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


class _MutatedLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class _MutatedFinder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name = name
        self._path = path
        self._code = code

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _MutatedLoader(fullname, str(self._path), self._code)
        folder = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=loader, submodule_search_locations=folder
        )


def module_name(path: Path) -> str:
    """Return the dotted name of a module from its path in the repository."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _compiled(mutant: Mutant, tree: ast.Module) -> CodeType:
    mutant.plant()
    ast.fix_missing_locations(tree)
    return compile(tree, str(ROOT / mutant.path), "exec")


Mutants = Sequence[tuple[Mutant, ast.Module]]
Tell = Callable[[Mutant, str], None]


def run_reloading(mutants: Mutants, baseline: Baseline, tell: Tell) -> None:
    """Try mutants for which the module has to be loaded anew."""
    for name in baseline.libraries:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: S112 - only to save time; the child imports what it needs
            continue
    for mutant, tree in mutants:
        order = baseline.tests_of(mutant)

        run = partial(_reload, mutant, tree, Ordered(order, baseline.seconds))
        tell(mutant, _outcome(_forked(run, is_quiet=True)))


def _reload(mutant: Mutant, tree: ast.Module, tests: Ordered) -> int:
    _bound_memory()
    _limit(_COLLECTING_SECONDS)
    code = _compiled(mutant, tree)
    sys.meta_path.insert(0, _MutatedFinder(module_name(mutant.path), ROOT / mutant.path, code))
    return int(pytest.main([*tests.files, *OPTIONS], plugins=[tests]))


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


class Exchanging(Steady):
    """Collects the tests once; then a child per mutant exchanges one function's code."""

    def __init__(self, mutants: Mutants, baseline: Baseline, tell: Tell) -> None:
        self._mutants = mutants
        self._baseline = baseline
        self._tell = tell
        self._last: dict[tuple[Path, str], str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for path in {mutant.path for mutant, _ in self._mutants}:
            importlib.import_module(module_name(path))
        items = {item.nodeid: item for item in session.items}
        functions = _functions({str(ROOT / mutant.path) for mutant, _ in self._mutants})
        gc.freeze()
        for mutant, tree in self._mutants:
            self._tell(mutant, self._try(mutant, tree, items, functions))
        return True

    def _try(
        self,
        mutant: Mutant,
        tree: ast.Module,
        items: Mapping[str, pytest.Item],
        functions: Mapping[tuple[str, str, int], list[FunctionType]],
    ) -> str:
        order = self._baseline.tests_of(mutant)
        if not order:
            return SURVIVED
        # What found the last fault of a function is likely to find the next.
        place = (mutant.path, mutant.place.function)
        if self._last.get(place) in order:
            order = [self._last[place], *(t for t in order if t != self._last[place])]
        reading, writing = os.pipe()

        def run() -> int:
            _bound_memory()
            code = _compiled(mutant, tree)
            _exchange(mutant, code, functions)
            tests = _Telling(order, self._baseline.seconds, writing)
            session = next(iter(items.values())).session
            session.config.pluginmanager.unregister(self)
            session.config.pluginmanager.register(tests)
            tests.run(items)
            return _SURVIVED

        status = _forked(run, is_quiet=True)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            killer = stream.read().decode()
        if killer:
            self._last[place] = killer
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 2:
            raise SystemExit(f"This mutant could not be planted: {mutant}")
        return _outcome(status)


class _Telling(Ordered):
    def __init__(self, order: Sequence[str], seconds: Mapping[str, float], pipe: int) -> None:
        super().__init__(order, seconds)
        self._pipe = pipe

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self._pipe, report.nodeid.encode())
            os._exit(_KILLED)


def _functions(files: set[str]) -> dict[tuple[str, str, int], list[FunctionType]]:
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename in files:
            code = thing.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def _exchange(
    mutant: Mutant, module: CodeType, functions: Mapping[tuple[str, str, int], list[FunctionType]]
) -> None:
    outer = mutant.place.outer
    if outer is None:
        raise ValueError(mutant)
    for code in _codes(module):
        is_it = code.co_firstlineno in (outer.lineno, *(d.lineno for d in outer.decorator_list))
        if is_it and code.co_name == outer.name:
            for function in functions[code.co_filename, code.co_qualname, code.co_firstlineno]:
                function.__code__ = code
            return
    raise ValueError(mutant)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def run_exchanging(mutants: Mutants, baseline: Baseline, tests: Sequence[str], tell: Tell) -> None:
    """Try mutants of functions."""
    plugin = Exchanging(mutants, baseline, tell)
    pytest.main([*tests, *OPTIONS], plugins=[plugin])
