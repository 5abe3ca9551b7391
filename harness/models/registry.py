"""The registry of models, read from their signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from harness import plugins
from harness.errors import UserError, unknown
from harness.settings import Setting, read_settings

M = TypeVar("M", bound=type[nn.Module])


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model. fields: what its `forward` takes; gives: the fields it returns; settings: what its
    `__init__` lets a study choose; sizes: what only a task knows (`classes`); build: makes one; source: hash of the user's own
    file that it comes from, "" of ours, whose numbers have a version."""

    name: str
    fields: tuple[str, ...]
    gives: tuple[str, ...]
    settings: Mapping[str, Setting]
    build: Callable[..., nn.Module]
    module: str
    summary: str
    sizes: tuple[str, ...] = ()
    source: str = ""


_MODELS: dict[str, ModelInfo] = {}


def model(*, gives: tuple[str, ...]) -> Callable[[M], M]:
    """Register an nn.Module class. `GruMask` becomes `gru_mask`; gives: the fields that its `forward` returns as a dict.

    It must be buildable without arguments, but for the *sizes* that only a task knows (`classes`), keyword-only parameters
    without a default. Keyword-only parameters annotated as the settings of a loss are (`*, dropout: Annotated[float,
    Range(0, 0.9)] = 0.0`) are settings, which a study may choose. It must have `shared_parameters()`, the last parameters
    that all of its outputs depend on (weightings that balance gradients need them).
    """

    def register(cls: M) -> M:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if name in _MODELS and _MODELS[name].module != cls.__module__:
            raise UserError(
                f"two models are called {name!r}: one in {_MODELS[name].module}, one in {cls.__module__}; rename one"
            )
        if not hasattr(cls, "shared_parameters"):
            raise UserError(f"model {name}: needs a method shared_parameters()")
        fields = inputs(cls)
        sizes = tuple(
            p.name
            for p in inspect.signature(cls).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        )
        summary = (inspect.getdoc(cls) or "").partition("\n")[0]
        settings = read_settings(f"model {name}", cls.__init__)
        _MODELS[name] = ModelInfo(
            name, fields, gives, settings, cls, cls.__module__, summary, sizes, plugins.source_of(cls.__module__)
        )
        return cls

    return register


def inputs(model: nn.Module | type[nn.Module]) -> tuple[str, ...]:
    """The fields that the `forward` of a model, or of a class of models, takes."""
    return tuple(name for name in inspect.signature(model.forward).parameters if name != "self")


def get(name: str) -> ModelInfo:
    """The model of that name; UserError with the nearest name if there is none."""
    if name not in _MODELS:
        raise unknown("model", name, _MODELS, "harness losses")
    return _MODELS[name]


def all_models() -> dict[str, ModelInfo]:
    return dict(sorted(_MODELS.items()))


def build(name: str, settings: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None) -> nn.Module:
    """A new model of that name. sizes: all that the task knows (`classes`); the model takes what it needs. UserError for a
    setting that it does not have, or a bad value of one."""
    info = get(name)
    for setting, value in (settings or {}).items():
        if setting not in info.settings:
            raise unknown(f"setting of {name}", setting, info.settings, "harness losses")
        info.settings[setting].check(value)
    if missing := [size for size in info.sizes if size not in (sizes or {})]:
        raise UserError(f"model {name} needs the sizes {', '.join(info.sizes)}; missing: {', '.join(missing)}")
    needed = {size: (sizes or {})[size] for size in info.sizes}
    return info.build(**(settings or {}), **needed)
