"""The registry of weightings: how the K terms of a combination become the one number that is minimised.

A weighting is a class derived from `Weighting`. Its `__init__` takes the combination and, keyword-only, its settings, with
their ranges as those of a loss. Its `forward` takes the terms, (K,) raw batch means with their graph, and returns the total;
the parameters that it has are learned beside the model's. What else it wants, it names:

    forward(terms, shared_gradients)   (K,) norms of each raw term's gradient at the model's shared parameters, in this update:
                                       one backward pass a term down to there, part of the cost of a step
    begin(terms, output_gradients, updates)   before the first update any of: (K,) means of the raw terms on a few training
                                       batches of the untrained net, of their gradients' norms at the model's outputs, and
                                       how many updates there will be
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from harness.errors import UserError, unknown
from harness.losses.combination import Combination
from harness.losses.expressions import call, plain, tree, written
from harness.settings import Setting, read_settings, resolved

SEE = "harness losses"
EXAMPLE = (
    "expected the name of a weighting, with its settings if they are not the defaults, such as 'dwa(temperature=3)'"
)
BEGINS = ("terms", "output_gradients", "updates")
TAKES = ("terms", "shared_gradients")
LEAST, MOST = 1e-20, 1e20  # of an initial value that a term can be divided by in single precision

W = TypeVar("W", bound="type[Weighting]")

_WEIGHTINGS: dict[str, WeightingInfo] = {}


def _nothing(self: Weighting) -> None:
    """A weighting that is to be told nothing."""


class Weighting(nn.Module):
    """What every weighting is. K: the terms of the combination.

    written: (K,) weights in front of the terms; minima: (K,) lower bounds of the raw terms, NaN where none is known.
    """

    written: Tensor
    minima: Tensor

    def __init__(self, combination: Combination) -> None:
        super().__init__()
        minima = [float("nan") if minimum is None else minimum for minimum in combination.minima]
        self.register_buffer("written", torch.tensor([term.weight for term in combination.terms]), persistent=False)
        self.register_buffer("minima", torch.tensor(minima), persistent=False)

    # `forward` and `begin` take what they name: see above.
    begin: Callable[..., None] = _nothing

    def learning_rate(self, lr: float) -> float:
        """That of its parameters, where the model's is `lr`; both follow one schedule."""
        return lr

    def curves(self) -> dict[str, Tensor]:
        """Beside the weights, what is worth a curve for each term, (K,), by name."""
        return {}

    def above_minimum(self, terms: Tensor) -> Tensor:
        """How far each term is above its minimum, times the weight in front of it, (K,)."""
        return self.written * (terms - self.minima)


@dataclass(frozen=True)
class WeightingInfo:
    """What is known of a weighting."""

    name: str
    function: type[Weighting]
    settings: Mapping[str, Setting]
    begins: tuple[str, ...]  # what `begin` wants to be told
    takes: tuple[str, ...]  # what `forward` does
    minima: bool
    scale_free: bool
    unless: Mapping[str, Any]  # by setting, the value with which it is not scale free
    reference: str
    version: int
    summary: str

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All settings, the given ones checked and the rest at their defaults; UserError for an unknown or bad one."""
        return resolved(self.name, self.settings, settings, SEE)

    @property
    def ordered(self) -> bool:
        """Whether a setting has a value for each term, so that the order of the terms has a meaning."""
        return any(setting.each for setting in self.settings.values())


@dataclass(frozen=True)
class Chosen:
    """A weighting with its settings. settings: all of them, resolved and checked."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def info(self) -> WeightingInfo:
        return get(self.name)

    @property
    def expression(self) -> str:
        """The shortest text that means it."""
        return written(self.info, self.settings)

    def build(self, combination: Combination) -> Weighting:
        """The weighting of these terms; UserError naming the term that it cannot weigh."""
        info = self.info
        for term, minimum in zip(combination.terms, combination.minima, strict=True):
            if info.minima and minimum is None:
                raise UserError(
                    f"weighting {self.name} needs terms with a known minimum, and {term.name} has none, so that the total would "
                    f"have no lower bound: take a weighting that needs none ({', '.join(_without_minima())}), or another loss"
                )
        return info.function(combination, **self.settings)

    def key(self, combination: Combination) -> Any:
        """What makes it the same weighting in the identity of a run, as JSON types."""
        if self.name == "fixed":
            return "fixed"
        key = {"name": self.name, "settings": dict(sorted(self.settings.items())), "version": self.info.version}
        return key | ({"order": [term.expression for term in combination.terms]} if self.info.ordered else {})


@overload
def weighting(cls: W, /) -> W: ...
@overload
def weighting(
    *,
    minima: bool = False,
    scale_free: bool = False,
    unless: Mapping[str, Any] | None = None,
    reference: str = "",
    version: int = 1,
) -> Callable[[W], W]: ...
def weighting(
    cls: Any = None,
    /,
    *,
    minima: bool = False,
    scale_free: bool = False,
    unless: Mapping[str, Any] | None = None,
    reference: str = "",
    version: int = 1,
) -> Any:
    """Register a class derived from `Weighting`. `EqualGrad` is registered as `equal_grad`.

    minima: whether it needs every term to have a known minimum; it is then refused for those that have none. scale_free:
    whether a term times a constant leaves its part in the gradient as it was. unless: settings with which it does not, such as
    {"s0": "zero"}. reference: the paper. version: raise it when the numbers change.
    """
    said = {
        "minima": minima,
        "scale_free": scale_free,
        "unless": dict(unless or {}),
        "reference": reference,
        "version": version,
    }
    return functools.partial(_register, **said) if cls is None else _register(cls, **said)


def get(name: str) -> WeightingInfo:
    """The weighting of that name; UserError with the nearest name if there is none."""
    if name not in _WEIGHTINGS:
        raise unknown("weighting", name, _WEIGHTINGS, SEE)
    return _WEIGHTINGS[name]


def all_weightings() -> dict[str, WeightingInfo]:
    """Every registered weighting by name, in the order in which they were registered."""
    return dict(_WEIGHTINGS)


def get_weighting(expression: str) -> Chosen:
    """The weighting that an expression means, `dwa(temperature=3)`; UserError, with the column, if it means none."""
    text = plain(expression, "weighting", EXAMPLE)
    info, settings = call(text, tree(text, text, EXAMPLE), get, EXAMPLE)
    return Chosen(info.name, settings)


def usable(values: Tensor) -> Tensor:
    """Initial values that a term can be divided by; 1 for those that are 0, or beyond single precision."""
    return torch.where((values > LEAST) & (values < MOST), values, torch.ones_like(values))


def _without_minima() -> list[str]:
    return [name for name, info in _WEIGHTINGS.items() if not info.minima and not info.ordered]


def _register(cls: Any, **said: Any) -> Any:
    """said: what `weighting` was told."""
    if not (inspect.isclass(cls) and issubclass(cls, Weighting)):
        raise UserError(f"@weighting stands above a class derived from harness.losses.Weighting, and not above {cls!r}")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    owner = _WEIGHTINGS.get(name)
    # Running a notebook cell again replaces the weighting; another module's is never shadowed.
    if owner and owner.function.__module__ != cls.__module__:
        raise UserError(
            f"two weightings are called {name!r}: one in {owner.function.__module__}, one in {cls.__module__}; rename one"
        )
    _WEIGHTINGS[name] = WeightingInfo(
        name=name,
        function=cls,
        settings=read_settings(name, cls.__init__),
        begins=_named(name, cls.begin, BEGINS),
        takes=_named(name, cls.forward, TAKES),
        summary=(inspect.getdoc(cls) or "").partition("\n")[0] if cls.__doc__ else "",
        **said,
    )
    return cls


def _named(name: str, method: Callable[..., Any], known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(inspect.signature(method).parameters)[1:]
    if strange := [each for each in names if each not in known]:
        raise UserError(
            f"weighting {name}: {method.__name__} takes {', '.join(strange)}; it may take: {', '.join(known)}"
        )
    return names
