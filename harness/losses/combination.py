"""Expressions such as `si_sdr(max_db=20) + 0.5*mse`: several losses, their weights and settings, as text and as data.

The text is parsed, never evaluated: a sum of losses, each a name with an optional weight in front and optional settings
in brackets, which are literals. Behind `with` stand numbers that the training is told besides, `mse with dropout=0.3`:
what they mean is not known here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.losses import registry
from harness.losses.expressions import call, fail, fail_at, literal, plain, tree, written

EXAMPLE = "expected a sum of losses such as 'si_sdr(max_db=20) + 0.5*mse'"


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
        called = written(self.info, self.settings)
        return called if self.weight == 1 else f"{literal(self.weight)}*{called}"


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
    def names(self) -> tuple[str, ...]:
        """A short name for each term, numbered where a loss is there twice: MLflow takes no brackets or stars."""
        plain = [term.name for term in self.terms]
        return tuple(f"{name}_{at}" if plain.count(name) > 1 else name for at, name in enumerate(plain, 1))

    @property
    def penalties(self) -> tuple[Term, ...]:
        """Those of its terms that are penalties on the weights: the number in front of one is its strength."""
        return tuple(term for term in self.terms if term.info.penalises)

    @property
    def balances(self) -> bool:
        """Whether it has several losses, so that there is something to weigh."""
        return len(self.terms) - len(self.penalties) > 1

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
    text = plain(expression, "loss", EXAMPLE)
    sum_, behind, conditions = text.partition(" with ")
    terms: list[Term] = []
    for node in _addends(tree(text, sum_, EXAMPLE)):
        term = _term(text, node)
        if any((term.name, term.settings) == (other.name, other.settings) for other in terms):
            fail(
                text, node, f"{term.name} is there twice with the same settings: add their weights, as in 2*{term.name}"
            )
        terms.append(term)
    return Combination(tuple(terms), _conditions(text, len(sum_ + behind), conditions) if behind else {})


def _conditions(text: str, start: int, part: str) -> dict[str, float]:
    expected = "expected names and numbers such as 'mse with weight_decay=0, dropout=0.3'"
    asked = tree(text, f"({' ' * (start - 3)}f({part}))", expected)
    if not isinstance(asked, ast.Call) or asked.args or not asked.keywords:
        fail_at(text, start + 1, expected)
    found: dict[str, float] = {}
    for keyword in asked.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if keyword.arg is None or keyword.arg in found or not number:
            fail(text, keyword, expected)
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
    info, settings = call(text, node, registry.get, EXAMPLE)
    return Term(weight, info.name, settings)


def _weight(text: str, node: ast.expr) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        fail(text, node, "a weight is one number in front of a loss, as in 0.5*mse")
    # Compared before it becomes a float, which a very long integer cannot.
    if not 0 < value < sys.float_info.max:
        fail(text, node, "a weight is a finite number above 0")
    return float(value)
