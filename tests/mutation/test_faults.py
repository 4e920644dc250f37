"""The mutation runner itself: which faults it plants, and how it keeps its record."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from mutation.operators import Faults
from mutation.record import KILLED, SURVIVED, Row, read, table, wilson, write

PATH = Path("room/module.py")


def faults(source: str) -> list[str]:
    """Return the module's text after each fault."""
    text = dedent(source)
    changed = []
    for at in range(len(Faults(PATH, ast.parse(text)).find())):
        tree = ast.parse(text)
        Faults(PATH, tree).find()[at].plant()
        changed.append(ast.unparse(ast.fix_missing_locations(tree)))
    return changed


def expressions(source: str) -> set[str]:
    """Return what stands instead of the expression that a function returns."""
    changed = faults(f"def f(a, b, c):\n    return {source}")
    return {text.split("return ")[1] for text in changed} - {"None"}


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a >= b", {"a > b", "a < b"}),
        ("a == b", {"a != b"}),
        ("a in b", {"a not in b"}),
        ("a and b", {"a or b", "a", "b"}),
        ("a or b or c", {"a and b and c", "b or c", "a or c", "a or b"}),
        ("not a", {"a"}),
        ("a + b", {"a - b"}),
        ("a | b", {"a & b"}),
        ("a + 5", {"a - 5", "a + 6", "a + 4"}),
        ("a * 0.5", {"a / 0.5", "a * 1.0", "a * 0.25"}),
        ("any(a)", {"all(a)"}),
        ("a[b:c]", {"a[:c]", "a[b:]"}),
        ("a if b else c", {"a", "c"}),
        ("f(a, k=b)", {"f(a)"}),
        ("[x for x in a if b]", {"[x for x in a if True]"}),
        # Texts are names and messages, and `strict` states what holds anyway.
        ("a['name']", set()),
        ("zip(a, b, strict=True)", set()),
    ],
)
def test_what_stands_instead_of_an_expression(source: str, instead: set[str]) -> None:
    assert expressions(source) == instead


def test_what_stands_instead_of_statements() -> None:
    changed = faults(
        '''
        def f(a) -> bool:
            """Say whether."""
            if a:
                raise ValueError(f"not {a + 1}")
            a += b
            a.append(b)
            return b
        '''
    )
    bodies = {text.split('"""')[2].strip() for text in changed}
    whole = (
        "if a:\n        raise ValueError(f'not {a + 1}')\n    a += b\n    a.append(b)\n    return b"
    )
    assert bodies == {
        whole.replace("if a", "if True"),
        whole.replace("if a", "if False"),
        whole.replace("raise ValueError(f'not {a + 1}')", "pass"),
        whole.replace("a += b", "pass"),
        whole.replace("a += b", "a -= b"),
        whole.replace("a.append(b)", "pass"),
        whole.replace("return b", "return True"),
        whole.replace("return b", "return False"),
    }


def test_constants_outside_functions_are_changed_where_they_are_values() -> None:
    changed = faults(
        """
        LIMIT = 3
        SHAPES = (A, B)
        Table = dict[str, tuple[int, ...]]
        class Limits:
            share: Annotated[float, Field(gt=0)]
            def f(self, n=7): ...
        """
    )
    original = ast.unparse(ast.parse(changed[0].replace("LIMIT = 4", "LIMIT = 3")))
    expected = [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 2"),
        ("(A, B)", "(B,)"),
        ("(A, B)", "(A,)"),
        ("gt=0", "gt=1"),
        ("gt=0", "gt=-1"),
        ("n=7", "n=8"),
        ("n=7", "n=6"),
    ]
    assert changed == [original.replace(old, new) for old, new in expected]


def test_a_method_with_super_is_tried_in_a_module_loaded_anew() -> None:
    source = (
        "class A(B):\n    def f(self):\n        super().f(1)\n    def g(self):\n        self.f(1)\n"
    )
    found = Faults(PATH, ast.parse(source)).find()
    loads = {mutant.place.function: mutant.place.outer is None for mutant in found}
    assert loads == {"A.f": True, "A.g": False}


def test_a_mutant_keeps_its_key_when_lines_are_added() -> None:
    source = "def f(a):\n    return a < 1 or a < 1\n"
    before, after = (
        [mutant.key for mutant in Faults(PATH, ast.parse(text)).find()]
        for text in (source, f"import os\n\n\n{source}")
    )
    assert before == after
    assert len(set(before)) == len(before)


def test_every_mutant_of_a_function_compiles() -> None:
    source = (Path(__file__).parent / "operators.py").read_text("utf-8")
    changed = Faults(PATH, ast.parse(source)).find()[::40]
    for at in range(0, len(changed), 5):
        tree = ast.parse(source)
        Faults(PATH, tree).find()[at * 40].plant()
        compile(ast.fix_missing_locations(tree), "mutant", "exec")


# Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_wilsons(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def row(line: int, outcome: str, **changes: Any) -> Row:
    return Row("room/module.py", line, "f", "comparison", f"a < {line} -> a <= {line}", 0, outcome)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    survivor = row(7, SURVIVED)
    survivor.reason = "the same, for every a"
    write(tmp_path / "record.csv", [survivor, row(3, KILLED)])
    again = read(tmp_path / "record.csv")
    assert list(again.values()) == [row(3, KILLED), survivor]
    assert read(tmp_path / "none.csv") == {}
    assert "| `room/module.py` | 2 | 2 | 1 | 0 | 1 | 1 | 50.0 % |" in table(again.values())
