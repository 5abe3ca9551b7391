"""Derived fields: tensors that a loss may ask for and that follow from what a task gives. Made only when asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from harness.losses.precision import in_float32

FAR = 1e6  # beyond all embeddings, and its square within single precision

_DERIVED: dict[str, Callable[..., torch.Tensor]] = {}


def derived(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Register a field under the function's name; its parameters are the fields that it is made from."""
    # As losses are: one minus a probability in half precision is 0 long before the logit is sure.
    _DERIVED[function.__name__] = in_float32(function)
    return function


@derived
def estimates(estimate: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Estimated speech and what is left of the mixture, (batch, 2, samples)."""
    return torch.stack([estimate, noisy - estimate], 1)


@derived
def sources(clean: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Speech and noise, (batch, 2, samples)."""
    return torch.stack([clean, noisy - clean], 1)


@derived
def log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the classes, (batch, classes)."""
    return logits.log_softmax(-1)


@derived
def prob(logits: torch.Tensor) -> torch.Tensor:
    """Probability of each class by itself, (batch, classes)."""
    return logits.sigmoid()


@derived
def targets(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """1 for the class of the item and 0 for the others, (batch, classes)."""
    # torch's one_hot looks at the labels, for which a GPU has to be waited for.
    return (torch.arange(logits.shape[-1], device=label.device) == label[:, None]).to(logits.dtype)


@derived
def target_prob(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The probabilities that an item's class is sure of, (batch, classes). Several classes at once are no distribution."""
    return targets(label, logits)


@derived
def score(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Logit of the item's class, (batch,)."""
    return logits.gather(1, label[:, None])[:, 0]


@derived
def other_score(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Logit of a wrong class, (batch,): of each in turn along the batch. The lowest number if there is but one class.

    Not the highest: against that one, nets stay where all logits are alike.
    """
    wrong = logits.shape[-1] - 1
    if not wrong:
        return torch.full_like(logits[:, 0], torch.finfo(logits.dtype).min)
    step = 1 + torch.arange(len(label), device=label.device) % wrong
    return logits.gather(1, ((label + step) % (wrong + 1))[:, None])[:, 0]


@derived
def order(score: torch.Tensor) -> torch.Tensor:
    """1 for each item, (batch,): `score` shall be above `other_score`."""
    return torch.ones_like(score)


@derived
def partner(label: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Place in the batch of the item that each is paired with, (batch,).

    Every second item is paired with the next of its own class, counted around the end of the batch; the others with their
    semi-hard negative (see `negative`): of classes taken blindly most pairs are far apart already and teach nothing. With
    one of the other kind where there is none, and with itself if it is alone.
    """
    kin, itself = label[:, None] == label, _itself(label)
    own = _next(kin & ~itself)
    with torch.no_grad():
        foreign = _semi_hard(embedding, kin, own)
    wants_own = (torch.arange(len(label), device=label.device) % 2 == 0) & (kin & ~itself).any(-1)
    return torch.where(~wants_own & (~kin).any(-1), foreign, own)


@derived
def other(embedding: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """Embedding of the item that each is paired with, (batch, dim)."""
    return embedding[partner]


@derived
def same(label: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """1 for a pair of one class and -1 for a pair of two, (batch,). An item alone is of its own class, at no distance."""
    return torch.where(label == label[partner], 1.0, -1.0)


@derived
def distance(embedding: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of each pair, (batch,)."""
    # Its slope between two equal embeddings is 0, by definition.
    return torch.linalg.vector_norm(embedding - other, dim=-1)


@derived
def anchor(embedding: torch.Tensor) -> torch.Tensor:
    """Each item is the anchor of one triplet, (batch, dim)."""
    return embedding


@derived
def positive(embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The next item of the anchor's class, counted around the end of the batch, (batch, dim); the anchor if none."""
    return embedding[_next((label[:, None] == label) & ~_itself(label))]


@derived
def negative(embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The semi-hard negative of each anchor (Schroff et al. 2015), (batch, dim).

    That is the nearest item of another class that is further away than the positive, or the furthest where all are nearer:
    the nearest of all would have a young model map everything to one point. An anchor without a positive or without a
    negative gets a place so far away that a triplet is worth 0 and has no gradient, whatever the margin.
    """
    kin = label[:, None] == label
    with torch.no_grad():
        chosen = _semi_hard(embedding, kin, _next(kin & ~_itself(label)))
        complete_triplet = (kin & ~_itself(label)).any(-1) & (~kin).any(-1)
    return torch.where(complete_triplet[:, None], embedding[chosen], embedding + FAR)


def _semi_hard(embedding: torch.Tensor, kin: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Place of the nearest of another class beyond each item's positive, or of the furthest of them, (batch,)."""
    apart = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
    beyond = ~kin & (apart > apart.gather(1, positive[:, None]))
    nearest = apart.masked_fill(~beyond, torch.inf).argmin(-1)
    return torch.where(beyond.any(-1), nearest, apart.masked_fill(kin, -1.0).argmax(-1))


def _itself(label: torch.Tensor) -> torch.Tensor:
    return torch.eye(len(label), dtype=torch.bool, device=label.device)


def _next(wanted: torch.Tensor) -> torch.Tensor:
    """Place of the next wanted item after each, around the end, (batch,); its own where none is. wanted: (batch, batch)."""
    place = torch.arange(len(wanted), device=wanted.device)
    ahead = (place - place[:, None] - 1) % len(wanted)  # steps to each item less one; those to itself are the most
    return ahead.masked_fill(~(wanted | _itself(place)), len(wanted)).argmin(-1)


def available(given: Collection[str]) -> set[str]:
    """All fields that can be had from the given ones."""
    names = set(given)
    while more := {
        name for name, f in _DERIVED.items() if name not in names and names >= set(inspect.signature(f).parameters)
    }:
        names |= more
    return names


def complete(fields: Mapping[str, Any], needed: Collection[str]) -> dict[str, Any]:
    """The fields with those of `needed` that have to be derived, and can be."""
    result = dict(fields)
    for name in needed:
        if name not in result and name in _DERIVED:
            parts = list(inspect.signature(_DERIVED[name]).parameters)
            result = complete(result, parts)
            if result.keys() >= set(parts):
                result[name] = _DERIVED[name](*(result[part] for part in parts))
    return result
