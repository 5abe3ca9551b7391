"""Expressions such as `si_sdr(max_db=20) + 0.5*mse`: several losses, their weights and settings, as text and as data.

The text is parsed, never evaluated: a sum of losses, each a name with an optional weight in front and optional settings
in brackets, which are literals. Behind `with` stand numbers that the training is told besides, `mse with dropout=0.3`:
what they mean is not known here.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from harness.errors import UserError
from harness.losses import registry

EXAMPLE = "expected a sum of losses such as 'si_sdr(max_db=20) + 0.5*mse'"
LONGEST = 2000  # characters; a guard for Python's parser, which gives up on deep nesting


@dataclass(frozen=True)
class Term:
    """One loss of a combination. settings: all of them, resolved and checked."""

    weight: float
    name: str
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def info(self) -> registry.LossInfo:
        return registry.get(self.name)

    @property
    def expression(self) -> str:
        """The shortest text that means this term: no weight of 1, no default setting, no alias."""
        defaults = self.info.settings
        changed = [f"{key}={literal(value)}" for key, value in self.settings.items() if value != defaults[key].default]
        call = f"{self.name}({', '.join(changed)})" if changed else self.name
        return call if self.weight == 1 else f"{literal(self.weight)}*{call}"


@dataclass(frozen=True)
class Combination:
    """A weighted sum of losses, in the order in which it was written."""

    terms: tuple[Term, ...]
    conditions: Mapping[str, float] = field(default_factory=dict, hash=False)  # by name, in alphabetical order

    @property
    def expression(self) -> str:
        """Canonical text: expressions that mean the same terms in the same order have the same text."""
        conditions = ", ".join(f"{name}={literal(value)}" for name, value in self.conditions.items())
        return " + ".join(term.expression for term in self.terms) + (f" with {conditions}" if conditions else "")

    @property
    def families(self) -> tuple[str, ...]:
        """Families of its losses, each once."""
        return tuple(dict.fromkeys(term.info.family for term in self.terms))

    @property
    def versions(self) -> dict[str, int]:
        """Version of each loss by name."""
        return {term.name: term.info.version for term in self.terms}

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that some term requires."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.info.fields))

    @property
    def optional_fields(self) -> tuple[str, ...]:
        """Fields that some term uses if they are given, and none requires."""
        names = dict.fromkeys(name for term in self.terms for name in term.info.optional_fields)
        return tuple(name for name in names if name not in self.fields)

    @property
    def targets(self) -> tuple[str, ...]:
        """Metrics that some term optimises directly."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.info.targets))

    @property
    def minima(self) -> tuple[float | None, ...]:
        """Lower bound of each term, before its weight; None where none is known."""
        return tuple(term.info.minimum(term.settings) for term in self.terms)

    @property
    def named(self) -> dict[str, str]:
        """For each thing that some term names (`network='trained'`), what tells it from others of that name."""
        return {
            term.settings[name]: setting.register[term.settings[name]].key()
            for term in self.terms
            for name, setting in term.info.settings.items()
            if setting.register is not None
        }

    def canonical(self) -> dict[str, Any]:
        """Everything that defines the combination, as JSON types, for hashing. A sum is the same in any order."""
        terms = [
            {"loss": term.name, "settings": dict(sorted(term.settings.items())), "weight": term.weight}
            for term in sorted(self.terms, key=lambda term: term.expression)
        ]
        return {"terms": terms} | ({"with": dict(self.conditions)} if self.conditions else {})


def parse(expression: str) -> Combination:
    """The combination that an expression means; UserError, with the column, if it means none."""
    text = " ".join(expression.split())
    if not text or len(text) > LONGEST:
        raise UserError(f"{'an empty' if not text else 'too long an'} loss expression: {EXAMPLE}")
    sum_, behind, conditions = text.partition(" with ")
    terms: list[Term] = []
    for node in _addends(_tree(text, sum_, EXAMPLE)):
        term = _term(text, node)
        if any((term.name, term.settings) == (other.name, other.settings) for other in terms):
            _fail(
                text, node, f"{term.name} is there twice with the same settings: add their weights, as in 2*{term.name}"
            )
        terms.append(term)
    return Combination(tuple(terms), _conditions(text, len(sum_ + behind), conditions) if behind else {})


def _tree(text: str, part: str, expected: str) -> ast.expr:
    """Python's tree of a part of the text, whose columns are those of the text."""
    try:
        return ast.parse(part, mode="eval").body
    except SyntaxError as error:
        _fail_at(text, error.offset or len(part), expected)  # 0 or None: it stops too early
    except (ValueError, RecursionError, MemoryError):
        _fail_at(text, 1, expected)


def _conditions(text: str, start: int, part: str) -> dict[str, float]:
    expected = "expected names and numbers such as 'mse with weight_decay=0, dropout=0.3'"
    call = _tree(text, f"({' ' * (start - 3)}f({part}))", expected)
    if not isinstance(call, ast.Call) or call.args or not call.keywords:
        _fail_at(text, start + 1, expected)
    found: dict[str, float] = {}
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if keyword.arg is None or keyword.arg in found or not number:
            _fail(text, keyword, expected)
        found[keyword.arg] = float(value)  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def _addends(node: ast.expr) -> list[ast.expr]:
    # The tree of a + b + c leans to the left; a loop, because a long sum would exhaust the stack.
    addends = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        addends.append(node.right)
        node = node.left
    return [node, *reversed(addends)]


def _term(text: str, node: ast.expr) -> Term:
    weight = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight, node = _weight(text, node.left), node.right
    if isinstance(node, ast.Name):
        return Term(weight, _info(text, node).name, _info(text, node).resolve())
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        _fail(text, node, EXAMPLE)
    info = _info(text, node.func)
    if node.args:
        _fail(text, node.args[0], f"settings of {info.name} are named, as in {info.name}({_usage(info)})")
    settings: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in settings:
            _fail(text, keyword, f"each setting of {info.name} is given once, by its name")
        settings[keyword.arg] = _setting(text, info, keyword.arg, keyword)
    return Term(weight, info.name, info.resolve(settings))


def _weight(text: str, node: ast.expr) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        _fail(text, node, "a weight is one number in front of a loss, as in 0.5*mse")
    # Compared before it becomes a float, which a very long integer cannot.
    if not 0 < value < sys.float_info.max:
        _fail(text, node, "a weight is a finite number above 0")
    return float(value)


def _info(text: str, node: ast.Name) -> registry.LossInfo:
    try:
        return registry.get(node.id)
    except UserError as error:
        _fail(text, node, str(error))


def _setting(text: str, info: registry.LossInfo, name: str, keyword: ast.keyword) -> Any:
    try:
        value = ast.literal_eval(keyword.value)
    except (ValueError, TypeError, RecursionError):
        _fail(text, keyword.value, f"{info.name}.{name} must be a literal: a number, 'text', True, False or a tuple")
    try:
        return info.resolve({name: value})[name]
    except UserError as error:
        _fail(text, keyword if name not in info.settings else keyword.value, str(error))


def _usage(info: registry.LossInfo) -> str:
    return ", ".join(f"{name}={literal(setting.default)}" for name, setting in info.settings.items())


def _fail(text: str, node: ast.expr | ast.keyword, message: str) -> NoReturn:
    # ast counts bytes of UTF-8 from 0; people count characters from 1.
    _fail_at(text, len(text.encode()[: node.col_offset].decode()) + 1, message)


def _fail_at(text: str, column: int, message: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"…{text[max(0, column - 20) : column + 20]}…"
    raise UserError(f"{message} (column {column} of {shown!r})") from None


def literal(value: Any) -> str:
    """A literal, numbers in their shortest form: 20.0 is 20, 1e-05 is 1e-5."""
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return repr(value)
    short = f"{value:g}"
    # An exponent without padding, and every digit where six do not tell the number.
    return re.sub(r"e([+-]?)0*", lambda m: "e" + m[1].strip("+"), short if float(short) == value else repr(value))
