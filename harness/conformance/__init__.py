"""What every loss, model and weighting must do: one suite, which the tests hold ours to and `harness check` a user's own.

`check` has what a check is, `of_losses`, `of_models` and `of_weightings` have the checks, `inputs` the made-up fields that losses
are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from harness import losses, models
from harness.conformance import of_losses, of_models, of_weightings
from harness.conformance.check import Check
from harness.errors import UserError
from harness.plugins import load_plugins

__all__ = ["Check", "of_file"]

Held = tuple[str, Check, list[str]]  # the loss, model or weighting, what it was held to, what does not hold


def of_file(file: Path) -> Iterator[Held]:
    """Hold everything that a file of a user's own registers to its checks; those that need a GPU only where there is one.

    UserError where the file cannot be loaded or registers nothing.
    """
    known = {*losses.all_losses(), *models.all_models(), *losses.all_weightings()}
    load_plugins([file])
    own_losses = [info for name, info in losses.all_losses().items() if name not in known]
    own_models = [info for name, info in models.all_models().items() if name not in known]
    own_weightings = [info for name, info in losses.all_weightings().items() if name not in known]
    if not (own_losses or own_models or own_weightings):
        raise UserError(
            f"{file}: registers no loss, no model and no weighting; put @loss, @model or @weighting above one. See: README.md"
        )
    for info in own_losses:
        yield from _held(info.name, of_losses.CHECKS, info)
    for model in own_models:
        yield from _held(model.name, of_models.CHECKS, model, of_models.made_up())
    for weighting in own_weightings:
        yield from _held(weighting.name, of_weightings.CHECKS, weighting)


def _held(name: str, checks: list[Check], *subject: Any) -> Iterator[Held]:
    for check in checks:
        if check.possible() and check.applies(subject[0]):
            faults = check.faults(*subject)
            yield name, check, faults
            if faults and check.decides:
                return


def without_gpu() -> str:
    """What to add to a verdict where no GPU could be asked."""
    return "" if torch.cuda.is_available() else "; on the CPU alone, as there is no GPU"
