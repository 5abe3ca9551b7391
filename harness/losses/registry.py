"""The registry of losses: a loss is a function whose signature says what it needs.

Positional parameters are *fields*, the named tensors of a batch or of a model's output: no default = required,
default None = optional. Keyword-only parameters are *settings*. A loss with state is an nn.Module whose `forward`
takes the fields and whose `__init__` takes the settings and, as keyword-only parameters without a default, the
*sizes* that only a task knows (`classes`, `dim`). Everything is read from there, so nothing is declared twice.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import nn

from harness.errors import UserError, unknown
from harness.losses.permutation import invariant
from harness.losses.precision import in_float32
from harness.settings import Range, Setting, read_signature, resolved

__all__ = ["LossInfo", "Range", "RegisteredLoss", "Setting", "all_losses", "build", "get", "loss"]

SEE = "harness losses"

Bound = float | Callable[..., float | None] | None
F = TypeVar("F", bound=Callable[..., Any])

_LOSSES: dict[str, LossInfo] = {}
_ALIASES: dict[str, str] = {}


@dataclass(frozen=True)
class LossInfo:
    """What is known of a loss. `function`: the function, or the nn.Module class of a loss with state."""

    name: str
    aliases: tuple[str, ...]
    family: str  # the module it was written in
    function: Callable[..., Any]
    fields: tuple[str, ...]
    optional_fields: tuple[str, ...]
    settings: Mapping[str, Setting]
    sizes: tuple[str, ...]
    bound: Bound
    unit: str
    targets: tuple[str, ...]  # names in harness.metrics.METRICS
    reference: str
    version: int
    batchwise: bool  # an item's value depends on the rest of the batch
    void: Callable[..., torch.Tensor] | None  # which items it can say nothing of
    summary: str

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All settings, the given ones checked and the rest at their defaults; UserError for an unknown or bad one."""
        return resolved(self.name, self.settings, settings, SEE)

    @property
    def classifies(self) -> bool:
        """Whether it judges a choice among classes, and not a value, a distance or a count."""
        return not {"logits", "log_probs", "prob", "score"}.isdisjoint(self.fields)

    @property
    def penalises(self) -> bool:
        """Whether it is a penalty on the weights, and says nothing of what they do."""
        return "parameters" in self.fields

    def minimum(self, settings: Mapping[str, Any] | None = None) -> float | None:
        """The greatest known lower bound of the loss under these settings, in `unit`; None if there is none."""
        least = self.bound(**self.resolve(settings)) if callable(self.bound) else self.bound
        return None if least is None else float(least)


class RegisteredLoss(nn.Module):
    """A loss with its settings fixed: takes a mapping of fields, returns (batch,), or a scalar for a penalty.

    Where a task has the size `talkers`, its sources are in no order, and the loss is that of the best one.
    """

    def __init__(self, info: LossInfo, settings: Mapping[str, Any] | None, sizes: Mapping[str, int] | None) -> None:
        super().__init__()
        self.info = info
        self.settings = info.resolve(settings)
        self.minimum = info.minimum(self.settings)
        if missing := [size for size in info.sizes if size not in (sizes or {})]:
            raise UserError(f"loss {info.name} needs the sizes {', '.join(info.sizes)}; missing: {', '.join(missing)}")
        needed = {size: (sizes or {})[size] for size in info.sizes}
        make = functools.partial(info.function, **needed, **self.settings)
        # A module is registered as a child here, so its buffers join the checkpoint and its parameters the optimiser.
        self.compute: Callable[..., Any] = make() if inspect.isclass(info.function) else make
        self.talkers = (sizes or {}).get("talkers", 1)
        self.register_buffer("seen", torch.zeros(2), persistent=False)  # void items and all, in training so far
        self.seen: torch.Tensor

    def forward(self, fields: Mapping[str, Any]) -> torch.Tensor:
        if self.talkers > 1:
            return invariant(self._of, fields, (*self.info.fields, *self.info.optional_fields))
        return self._of(fields)

    def _of(self, fields: Mapping[str, Any]) -> torch.Tensor:
        if missing := [name for name in self.info.fields if fields.get(name) is None]:
            raise UserError(f"loss {self.info.name} needs the field {', '.join(missing)}; given: {', '.join(fields)}")
        names = self.info.fields + tuple(name for name in self.info.optional_fields if name in fields)
        if self.info.void is not None and self.training:
            void = self.info.void(*(fields[name] for name in inspect.signature(self.info.void).parameters))
            self.seen[0] += void.sum()  # added up on the device: nothing waits for it
            self.seen[1] += len(void)
        return self.compute(**{name: fields[name] for name in names})

    @property
    def void_share(self) -> float | None:
        """Share of the training items so far that the loss could say nothing of; None where that cannot be."""
        if self.info.void is None:
            return None
        void, items = self.seen.tolist()
        return void / max(items, 1)


@overload
def loss(function: F, /) -> F: ...
@overload
def loss(
    *,
    minimum: Bound = None,
    unit: str = "",
    targets: tuple[str, ...] = (),
    reference: str = "",
    version: int = 1,
    aliases: tuple[str, ...] = (),
    batchwise: bool = False,
    void: Callable[..., torch.Tensor] | None = None,
) -> Callable[[F], F]: ...
def loss(
    function: Any = None,
    /,
    *,
    minimum: Bound = None,
    unit: str = "",
    targets: tuple[str, ...] = (),
    reference: str = "",
    version: int = 1,
    aliases: tuple[str, ...] = (),
    batchwise: bool = False,
    void: Callable[..., torch.Tensor] | None = None,
) -> Any:
    """Register a function, or an nn.Module class, as a loss. It stays callable as it was, in anybody's loop.

    minimum: the true lower bound, a number or a function of the settings (`lambda max_db, **_: -max_db`); None if none
        is known. unit: of the value. targets: the metrics that the loss optimises directly, which therefore cannot
        judge it. reference: the paper. version: raise it when the numbers change. batchwise: an item's value depends
        on the other items. void: from some of the fields, the items, (batch,) bool, that it can say nothing of: they are worth 0
    without a gradient, and are counted in training. A class `AamSoftmax` is registered as `aam_softmax`.
    """
    if function is None:
        return functools.partial(
            _register,
            minimum=minimum,
            unit=unit,
            targets=targets,
            reference=reference,
            version=version,
            aliases=aliases,
            batchwise=batchwise,
            void=void,
        )
    return _register(function, minimum, unit, targets, reference, version, aliases, batchwise, void)


def get(name: str) -> LossInfo:
    """The loss of that name or alias; UserError with the nearest name if there is none."""
    resolved = _ALIASES.get(name, name)
    if resolved not in _LOSSES:
        raise unknown("loss", name, [*_LOSSES, *_ALIASES], SEE)
    return _LOSSES[resolved]


def all_losses() -> dict[str, LossInfo]:
    """Every registered loss by name, in alphabetical order, aliases left out."""
    return dict(sorted(_LOSSES.items()))


def build(
    name: str, settings: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None
) -> RegisteredLoss:
    """The loss `name` as a module. sizes: all that the task knows (`classes`, `dim`); the loss takes what it needs."""
    return RegisteredLoss(get(name), settings, sizes)


def _register(
    function: Any,
    minimum: Bound,
    unit: str,
    targets: tuple[str, ...],
    reference: str,
    version: int,
    aliases: tuple[str, ...],
    batchwise: bool,
    void: Callable[..., torch.Tensor] | None,
) -> Any:
    name = function.__name__
    stateful = inspect.isclass(function)
    if stateful:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        function.forward = in_float32(function.forward)
        fields, optional, _, _ = read_signature(name, function.forward)
        plain = function.__init__ is nn.Module.__init__  # which takes anything and declares nothing
        _, _, settings, sizes = ((), (), {}, ()) if plain else read_signature(name, function.__init__)
        registered = function
    else:
        fields, optional, settings, sizes = read_signature(name, function)
        if sizes:
            raise UserError(f"loss {name}: the setting {sizes[0]} needs a default")
        registered = in_float32(function)
    info = LossInfo(
        name=name,
        aliases=tuple(aliases),
        family=function.__module__.rpartition(".")[2],
        function=registered,
        fields=fields,
        optional_fields=optional,
        settings=settings,
        sizes=sizes,
        bound=minimum,
        unit=unit,
        targets=tuple(targets),
        reference=reference,
        version=version,
        batchwise=batchwise,
        void=void,
        summary=(inspect.getdoc(function) or "").partition("\n")[0],
    )
    _claim(info)
    return registered


def _claim(info: LossInfo) -> None:
    for name in (info.name, *info.aliases):
        owner = _LOSSES.get(_ALIASES.get(name, name))
        # Running a notebook cell or reloading a file again replaces the loss; another module's loss is never shadowed.
        if owner and (owner.name, owner.function.__module__) != (info.name, info.function.__module__):
            raise UserError(
                f"two losses are called {name!r}: one in {owner.function.__module__}, "
                f"one in {info.function.__module__}; rename one"
            )
    _LOSSES[info.name] = info
    _ALIASES.update(dict.fromkeys(info.aliases, info.name))
