"""Small faults that a mutation run plants into a module, one at a time."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.MatMult: ast.Mult,
}
_CALLS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "intersection": "union",
    "union": "intersection",
    "minimum": "maximum",
    "maximum": "minimum",
}
_SKIPPED_FIELDS = {"decorator_list", "returns", "annotation", "ctx", "type_comment"}

Change = tuple[Any, str, int | None, ast.AST]
"""A node, its field, the place in that field if it is a list, and what to put there."""


@dataclass(frozen=True)
class Place:
    """Where a node stands."""

    function: str = ""
    outer: ast.FunctionDef | None = None
    """The outermost function around it, whose code is exchanged; None: the module runs anew."""
    lines: range = range(0)
    returns_bool: bool = False
    is_exact: bool = False
    """Inside an annotation only numbers of calls are changed, as in `Field(ge=0)`."""


@dataclass(frozen=True)
class Mutant:
    """One fault. `plant` puts it into the module's tree, for good."""

    path: Path
    line: int
    place: Place
    operator: str
    before: str
    after: str
    change: Change = field(compare=False, repr=False)
    number: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What stays the same when lines are added elsewhere."""
        return (
            self.path.as_posix(),
            self.place.function,
            self.operator,
            self.text,
            self.number,
        )

    @property
    def text(self) -> str:
        return f"{self.before} -> {self.after}"

    def plant(self) -> None:
        parent, name, at, new = self.change
        if at is None:
            setattr(parent, name, new)
        else:
            getattr(parent, name)[at] = new


class Faults:
    """Finds the faults of one module."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path = path
        self._tree = tree
        self._found: list[Mutant] = []
        self._seen: dict[tuple[str, str, str, str], int] = {}

    def find(self) -> list[Mutant]:
        self._statements(self._tree, "body", self._tree.body, Place())
        return self._found

    def _add(self, change: Change, old: ast.AST, operator: str, place: Place) -> None:
        before, after = _text(old), _text(change[3])
        line = getattr(old, "lineno", place.lines.start)
        key = (self._path.as_posix(), place.function, operator, f"{before} -> {after}")
        number = self._seen[key] = self._seen.get(key, -1) + 1
        self._found.append(Mutant(self._path, line, place, operator, before, after, change, number))

    def _statements(self, parent: ast.AST, name: str, body: list[ast.stmt], place: Place) -> None:
        for at, statement in enumerate(body):
            if not _is_left_alone(statement):
                self._statement(parent, name, at, statement, place)

    def _statement(self, parent: ast.AST, name: str, at: int, node: ast.stmt, place: Place) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._definition(node, place)
            return
        place = _at(place, node)
        for operator, new in _instead_of_statement(node, place):
            self._add((parent, name, at, new), node, operator, place)
        if isinstance(node, ast.If | ast.While):
            for value in (True, False) if isinstance(node, ast.If) else (False,):
                fixed = ast.copy_location(ast.Constant(value), node.test)
                self._add((node, "test", None, fixed), node.test, "condition", place)
        self._fields(node, place)

    def _definition(self, node: ast.FunctionDef | ast.ClassDef, place: Place) -> None:
        name = f"{place.function}.{node.name}".lstrip(".")
        if isinstance(node, ast.ClassDef):
            self._statements(node, "body", node.body, Place(name, place.outer))
            return
        # Defaults belong to what is around the function.
        around = Place(name, place.outer, range(node.lineno, node.body[0].lineno))
        for given in ("defaults", "kw_defaults"):
            for i, value in enumerate(getattr(node.args, given)):
                if value is not None:
                    self._expression(node.args, given, i, value, around)
        is_bool = isinstance(node.returns, ast.Name) and node.returns.id == "bool"
        # `super()` binds the class to the code, which then cannot be exchanged.
        is_bound = any(isinstance(n, ast.Name) and n.id == "super" for n in ast.walk(node))
        outer = place.outer or (None if is_bound else node)
        inside = Place(name, outer, returns_bool=is_bool)
        self._statements(node, "body", node.body, inside)

    def _fields(self, node: ast.AST, place: Place) -> None:
        for name, value in ast.iter_fields(node):
            if name == "annotation" and place.outer is None:
                exact = Place(place.function, None, place.lines, is_exact=True)
                self._expression(node, name, None, value, exact)
            if name in _SKIPPED_FIELDS or (isinstance(node, ast.Raise) and name == "exc"):
                continue
            if isinstance(value, list):
                if value and isinstance(value[0], ast.stmt):
                    self._statements(node, name, value, place)
                else:
                    for at, item in enumerate(value):
                        self._child(node, name, at, item, place)
            else:
                self._child(node, name, None, value, place)

    def _child(
        self, parent: ast.AST, name: str, at: int | None, node: object, place: Place
    ) -> None:
        if isinstance(node, ast.expr):
            self._expression(parent, name, at, node, place)
        elif isinstance(node, ast.comprehension):
            for i, test in enumerate(node.ifs):
                self._add((node, "ifs", i, ast.Constant(True)), test, "condition", place)
            self._fields(node, place)
        elif isinstance(node, ast.keyword):
            self._expression(node, "value", None, node.value, place)
        elif isinstance(node, ast.ExceptHandler | ast.match_case | ast.withitem):
            self._fields(node, place)

    def _expression(
        self, parent: ast.AST, name: str, at: int | None, node: ast.expr, place: Place
    ) -> None:
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.Subscript) and place.outer is None:
            # The name of a type.
            place = replace(place, is_exact=True)
        is_number = isinstance(node, ast.Constant) and not isinstance(node.value, bool)
        if not place.is_exact or is_number:
            for operator, new in _instead_of(node, place):
                self._add((parent, name, at, new), node, operator, place)
        if isinstance(node, ast.Call):
            self._call(node, place)
        else:
            self._fields(node, place)

    def _call(self, node: ast.Call, place: Place) -> None:
        is_zip = isinstance(node.func, ast.Name) and node.func.id == "zip"
        for at, argument in enumerate(node.args):
            self._expression(node, "args", at, argument, place)
        for keyword in node.keywords:
            # `strict` of zip states what holds anyway.
            if not is_zip:
                self._expression(keyword, "value", None, keyword.value, place)
        if isinstance(node.func, ast.Attribute):
            self._expression(node.func, "value", None, node.func.value, place)


def _is_left_alone(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    is_export = isinstance(node, ast.Assign) and _text(node.targets[0]) == "__all__"
    return is_export or (isinstance(node, ast.If) and _text(node.test) == "TYPE_CHECKING")


def _at(place: Place, node: ast.stmt) -> Place:
    inner: Sequence[ast.stmt] = getattr(node, "body", None) or getattr(node, "cases", None) or ()
    end = node.end_lineno or node.lineno
    if inner:
        first = inner[0]
        end = max(node.lineno, getattr(first, "lineno", node.lineno + 1) - 1)
    lines = range(node.lineno, end + 1)
    return Place(place.function, place.outer, lines, place.returns_bool)


def _instead_of_statement(node: ast.stmt, place: Place) -> Iterator[tuple[str, ast.stmt]]:
    nothing = ast.copy_location(ast.Pass(), node)
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield "statement", nothing
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) if place.outer:
            yield "statement", nothing
        case ast.Continue():
            yield "loop", ast.copy_location(ast.Break(), node)
        case ast.Break():
            yield "loop", ast.copy_location(ast.Continue(), node)
        case ast.Return(value=ast.expr() as value):
            given = (True, False) if place.returns_bool else (None,)
            for other in given:
                if not (isinstance(value, ast.Constant) and value.value is other):
                    new = ast.Return(ast.Constant(other))
                    yield "return", ast.copy_location(new, node)
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        turned = ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
        yield "arithmetic", ast.copy_location(turned, node)


def _instead_of(node: ast.expr, place: Place) -> Iterator[tuple[str, ast.expr]]:
    for makers in _MAKERS.get(type(node), ()):
        for operator, new in makers(node, place):
            yield operator, ast.copy_location(new, node)


def _of_comparison(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    for at, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
            yield "comparison", ast.Compare(node.left, ops, node.comparators)


def _of_boolean(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield "boolean", ast.BoolOp(other, node.values)
    for at in range(len(node.values)):
        rest = [*node.values[:at], *node.values[at + 1 :]]
        yield "operand", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _of_unary(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node.op, ast.USub):
        yield "arithmetic", node.operand


def _of_arithmetic(node: Any, place: Place) -> Iterator[tuple[str, ast.expr]]:
    # Outside functions `|` joins types.
    is_type = isinstance(node.op, ast.BitOr) and place.outer is None
    if type(node.op) in _ARITHMETIC and not is_type:
        yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)


def _of_constant(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value + 1)
        yield "constant", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(value * 2 if value else 1.0)
        yield "constant", ast.Constant(value / 2 if value else -1.0)


def _of_choice(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    yield "condition", node.body
    yield "condition", node.orelse


def _of_call(node: Any, place: Place) -> Iterator[tuple[str, ast.expr]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else _text(node.func)
    if name in _CALLS:
        func: ast.expr
        if isinstance(node.func, ast.Attribute):
            func = ast.Attribute(node.func.value, _CALLS[name], ast.Load())
        else:
            func = ast.Name(_CALLS[name], ast.Load())
        yield "call", ast.Call(func, node.args, node.keywords)
    if name == "zip":
        return
    for at in range(len(node.keywords)):
        rest = [*node.keywords[:at], *node.keywords[at + 1 :]]
        yield "argument", ast.Call(node.func, node.args, rest)


def _of_slice(node: Any, _: Place) -> Iterator[tuple[str, ast.expr]]:
    if node.lower is not None:
        yield "slice", ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield "slice", ast.Slice(node.lower, None, node.step)


def _of_members(node: Any, place: Place) -> Iterator[tuple[str, ast.expr]]:
    # A constant's members; elsewhere a tuple is mostly taken apart at once.
    if place.outer is None and len(node.elts) > 1 and isinstance(node.ctx, ast.Load):
        for at in range(len(node.elts)):
            yield "member", ast.Tuple([*node.elts[:at], *node.elts[at + 1 :]], ast.Load())


_Maker = Callable[[Any, Place], Iterator[tuple[str, ast.expr]]]
_MAKERS: dict[type[ast.expr], tuple[_Maker, ...]] = {
    ast.Compare: (_of_comparison,),
    ast.BoolOp: (_of_boolean,),
    ast.UnaryOp: (_of_unary,),
    ast.BinOp: (_of_arithmetic,),
    ast.Constant: (_of_constant,),
    ast.IfExp: (_of_choice,),
    ast.Call: (_of_call,),
    ast.Slice: (_of_slice,),
    ast.Tuple: (_of_members,),
}


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Pass):
        return "pass"
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} ... {text[-25:]}"
