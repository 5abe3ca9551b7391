"""Permutation-invariant training (Kolbaek et al. 2017, arXiv 1703.06306): which output is which talker is left to the model.

An item costs what it costs under the order that suits the loss best. A loss of one estimate is the mean over the talkers; one
that takes all of them at once (`sa_sdr`) is asked as it is, once an order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError

HELD = {"estimate", "clean", "estimates", "sources"}  # fields of one talker, and those of all
Compute = Callable[[Mapping[str, Any]], Tensor]


def invariant(compute: Compute, fields: Mapping[str, Any], needed: Collection[str]) -> Tensor:
    """A loss at its best order of the outputs, (batch,); one that no output enters, as it is.

    compute: the loss, of fields by name. fields: estimates and sources, (batch, talkers, samples), in any order, and whatever else
    an item has, (batch, ...). needed: the fields that the loss takes.
    """
    if not {"estimate", "estimates"} & set(needed):
        return compute(fields)
    if missing := [name for name in ("estimates", "sources") if fields.get(name) is None]:
        raise UserError(
            f"permutation-invariant training needs the field {', '.join(missing)}; given: {', '.join(fields)}"
        )
    batch, talkers = fields["sources"].shape[:2]
    orders = _orders(talkers, fields["sources"].device)
    jointly = "estimates" in needed
    times = len(orders) if jointly else talkers**2
    rest = {name: _repeated(fields[name], times) for name in needed if name in fields and name not in HELD}
    if jointly:
        given = {
            "estimates": fields["estimates"][:, orders].flatten(0, 1),
            "sources": _repeated(fields["sources"], times),
        }
        each = compute(rest | given).unflatten(0, (batch, times))
    else:
        given = {
            "estimate": fields["estimates"].repeat_interleave(talkers, 1).flatten(0, 1),
            "clean": fields["sources"].repeat(1, talkers, 1).flatten(0, 1),
        }
        table = compute(rest | given).unflatten(0, (batch, talkers, talkers))  # every output against every talker
        each = table[:, orders, torch.arange(talkers, device=table.device)].mean(-1)
    return each.min(1).values


@functools.lru_cache(maxsize=32)
def _orders(talkers: int, device: torch.device) -> Tensor:
    """All orders of so many, one a row. Kept: a GPU is waited for where a list is copied to it."""
    with torch.inference_mode(False):  # a tensor made in it could not be used in a training later
        return torch.tensor(list(itertools.permutations(range(talkers))), device=device)


def _repeated(field: Any, times: int) -> Any:
    """What an item has, once for each time that it is asked about; what belongs to no item as it is."""
    return field.repeat_interleave(times, 0) if isinstance(field, Tensor) else field
