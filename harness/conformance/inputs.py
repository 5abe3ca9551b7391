"""Made-up inputs for any loss, one entry a field. A loss with a field that is not here needs one more entry.

A *leaf* is the tensor that is differentiated; `activate` turns it into the field (logits into log_probs).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.losses.registry import LossInfo, RegisteredLoss, build

BATCH, SOURCES, SYMBOLS, TOKENS, CLASSES, DIM = 4, 2, 6, 3, 3, 5
SIZES = {"classes": CLASSES, "dim": DIM}
LENGTHS = torch.tensor([1.0, 0.55, 0.8, 0.3])  # of the longest item
SAMPLES = 900  # of the longest item, unless a test or the loss wants another number
NEEDED = {"stoi": 20_000, "estoi": 20_000}  # where a shorter clip has no value

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Field:
    """make: (generator, samples or frames) -> leaf of BATCH items, float64 or integer.

    perfect: for what a model outputs, the leaf that a loss should like best, from the other leaves.
    length: the field that tells how much of it is valid, and the axis on which.
    """

    make: Callable[[torch.Generator, int], Tensor]
    perfect: Callable[[Leaves], Tensor] | None = None
    activate: Callable[[Tensor], Any] = lambda leaf: leaf
    length: tuple[str, int] | None = None


def normal(*shape: int) -> Callable[[torch.Generator, int], Tensor]:
    """Gaussian of (BATCH, *shape), with -1 for the number of samples or frames."""
    return lambda g, n: torch.randn(BATCH, *(n if k == -1 else k for k in shape), generator=g, dtype=torch.float64)


def aligned(leaves: Leaves) -> Tensor:
    """Logits that are sure of one alignment: each token once, then blanks."""
    symbols = torch.zeros(leaves["log_probs"].shape[:2], dtype=torch.long)
    spelt = torch.arange(TOKENS) < leaves["token_lengths"][:, None]
    symbols[:, : 2 * TOKENS : 2] = leaves["tokens"] * spelt
    return 20 * torch.nn.functional.one_hot(symbols, SYMBOLS).double()


def confident(leaves: Leaves) -> Tensor:
    """Logits that are sure of the target."""
    if "target_prob" in leaves:
        return leaves["target_prob"].clamp(min=1e-12).log()
    if "label" in leaves:
        return 20 * torch.eye(CLASSES, dtype=torch.float64)[leaves["label"]]
    return 20 * (2 * leaves["targets"] - 1)


def placed(leaves: Leaves) -> Tensor:
    """Embeddings on the axis of their class; on one axis, all of them, where pairs are given."""
    axes = torch.eye(CLASSES, DIM, dtype=torch.float64)
    return axes[leaves["label"]] if "label" in leaves else axes[:1].expand(BATCH, DIM)


def far_if_different(leaves: Leaves) -> Tensor:
    """Partners for `placed`: at the same place, or far away on the other side."""
    return placed(leaves) * torch.where(leaves["same"] > 0, 1.0, -100.0)[:, None]


def given(*rows: Any) -> Callable[[torch.Generator, int], Tensor]:
    """These rows, one for each of BATCH items."""
    return lambda g, n: torch.tensor(rows, dtype=torch.float64)


def constant(value: float, *shape: int) -> Callable[[Leaves], Tensor]:
    return lambda leaves: torch.full((BATCH, *shape), value, dtype=torch.float64)


FIELDS = {
    "estimate": Field(normal(-1), lambda leaves: leaves["clean"], length=("lengths", 1)),
    "clean": Field(normal(-1), length=("lengths", 1)),
    "noisy": Field(normal(-1), length=("lengths", 1)),
    "estimates": Field(normal(SOURCES, -1), lambda leaves: leaves["sources"], length=("lengths", 2)),
    "sources": Field(normal(SOURCES, -1), length=("lengths", 2)),
    "lengths": Field(lambda g, n: (n * LENGTHS).ceil().long()),
    # Never fewer frames than it takes to spell the tokens with a blank before each.
    "frame_lengths": Field(lambda g, n: (n * LENGTHS).ceil().long().clamp(min=2 * TOKENS)),
    "log_probs": Field(normal(-1, SYMBOLS), aligned, lambda leaf: leaf.log_softmax(-1), ("frame_lengths", 1)),
    # Neither the first symbol nor the last: both serve as blanks.
    "tokens": Field(
        lambda g, n: torch.randint(1, SYMBOLS - 1, (BATCH, TOKENS), generator=g), length=("token_lengths", 1)
    ),
    "token_lengths": Field(lambda g, n: torch.tensor([TOKENS, 1, 2, TOKENS])),
    "embedding": Field(normal(DIM), placed),
    "label": Field(lambda g, n: torch.tensor([0, 1, 0, 2])),
    "logits": Field(normal(CLASSES), confident),
    "prob": Field(normal(CLASSES), confident, torch.sigmoid),
    "targets": Field(given([1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1])),
    "target_prob": Field(given([1, 0, 0], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0, 0.5, 0.5])),
    "other": Field(normal(DIM), far_if_different),
    "same": Field(given(1, -1, -1, 1)),
    "distance": Field(normal(), lambda leaves: torch.where(leaves["same"] > 0, 0.0, 100.0).double(), torch.abs),
    "anchor": Field(normal(DIM), constant(0, DIM)),
    "positive": Field(normal(DIM), constant(0, DIM)),
    "negative": Field(normal(DIM), constant(100, DIM)),
    "score": Field(normal(), lambda leaves: 100 * leaves["order"]),
    "other_score": Field(normal(), constant(0)),
    "order": Field(given(1, -1, -1, 1)),
    "rate": Field(normal(), lambda leaves: leaves["count"].clamp(min=1e-4).log()),
    "count": Field(given(2, 0, 3, 1)),
    "boundary": Field(normal(2), lambda leaves: leaves["target_boundary"]),
    "log_variance": Field(normal(2), constant(-30, 2)),
    "target_boundary": Field(normal(2)),
    "parameters": Field(normal(7), lambda leaves: torch.zeros(BATCH, 7).double(), lambda leaf: [leaf[0], leaf[1:]]),
}

# A class is one of the whole item, where a string of tokens is spelt in frames.
OF_ITEMS = {"log_probs": Field(normal(CLASSES), confident, lambda leaf: leaf.log_softmax(-1))}
PER_CLASS = ("logits", "prob", "log_probs", "targets", "target_prob")


def field(name: str, beside: Collection[str]) -> Field:
    """How to make a field for a loss that takes these."""
    return OF_ITEMS[name] if name in OF_ITEMS and "label" in beside else FIELDS[name]


def make(info: LossInfo, seed: int = 0, samples: int | None = None, optional: bool = True) -> Leaves:
    """Leaves for all fields of a loss; without the optional ones on request."""
    names = info.fields + (info.optional_fields if optional else ())
    if missing := [name for name in names if name not in FIELDS]:
        raise UserError(f"loss {info.name}: say in {__file__} how to make the field {', '.join(missing)}")
    generator = torch.Generator().manual_seed(seed)
    samples = samples or NEEDED.get(info.name, SAMPLES)
    return {
        name: field(name, names).make(generator, 12 if name in ("log_probs", "frame_lengths") else samples)
        for name in names
    }


def learned(leaves: Leaves) -> list[str]:
    """The fields that a model outputs."""
    return [name for name in leaves if field(name, leaves).perfect]


def perfect(leaves: Leaves) -> Leaves:
    """The same targets with the output that a loss should like best."""
    known = {name: field(name, leaves).perfect for name in leaves}
    return leaves | {name: best(leaves) for name, best in known.items() if best}


def activate(leaves: Leaves) -> dict[str, Any]:
    return {name: field(name, leaves).activate(leaf) for name, leaf in leaves.items()}


def built(info: LossInfo, settings: dict | None = None) -> RegisteredLoss:
    """A new instance of a loss, each equal to the last. Class vectors lie where the perfect embeddings do."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        loss = build(info.name, settings, SIZES)
    for parameter in loss.parameters():
        if parameter.dim() == 2:
            nn.init.eye_(parameter)
    return loss


def evaluate(info: LossInfo, leaves: Leaves, settings: dict | None = None) -> Tensor:
    """Value of a new instance of the loss, in evaluation mode and in the precision of the leaves."""
    return built(info, settings).eval()(activate(leaves))


def alone(leaves: Leaves, item: int) -> Leaves:
    """One item of a batch, without its padding."""
    single = {}
    for name, leaf in leaves.items():
        single[name] = leaf[item : item + 1]
        if (length := field(name, leaves).length) and length[0] in leaves:
            length_field, axis = length
            single[name] = single[name].narrow(axis, 0, int(leaves[length_field][item]))
    return single


def spoil_padding(leaves: Leaves) -> Leaves:
    """The same items with nonsense behind their ends."""
    spoilt = dict(leaves)
    for name, leaf in leaves.items():
        if (length := field(name, leaves).length) and length[0] in leaves:
            length_field, axis = length
            position = torch.arange(leaf.shape[axis]).view(-1, *[1] * (leaf.dim() - 1 - axis))
            end = leaves[length_field].view(-1, *[1] * (leaf.dim() - 1))
            spoilt[name] = torch.where(position < end, leaf, torch.full_like(leaf, 3))
    return spoilt


def stress(info: LossInfo) -> dict[str, Leaves]:
    """The inputs that break losses, by name."""
    leaves = make(info, optional=False)
    for output, target in (("estimate", "clean"), ("estimates", "sources")):
        if output in leaves and target in leaves:
            cases = _waveforms(leaves, output, target)
            return {name: _cut(leaves | pair, pair[output].shape[-1]) for name, pair in cases.items()}
    outputs = learned(leaves)
    cases = {
        "zeros": leaves | {name: torch.zeros_like(leaves[name]) for name in outputs},
        "perfect": perfect(leaves),
        "extreme": leaves | {name: 1e4 * leaves[name].sign() for name in outputs},
        "tiny": leaves | {name: 1e-4 * leaves[name] for name in outputs},
        "one item": {name: leaf[:1] for name, leaf in leaves.items()},
        "all alike": leaves | {name: leaves[name][:1].expand_as(leaves[name]) for name in outputs},
    }
    if "label" in leaves:
        cases["one class"] = leaves | {"label": torch.zeros(BATCH, dtype=torch.long)}
        two = {name: leaf[:2] for name, leaf in leaves.items()}
        cases["no positive"] = two | {"label": torch.tensor([0, 1])}
    if "targets" in leaves:
        cases["no class"] = leaves | {"targets": torch.zeros_like(leaves["targets"])}
        cases["every class"] = leaves | {"targets": torch.ones_like(leaves["targets"])}
    if "tokens" in leaves:
        cases["empty target"] = leaves | {"token_lengths": torch.zeros_like(leaves["token_lengths"])}
        cases["impossible target"] = leaves | {"frame_lengths": torch.ones_like(leaves["frame_lengths"])}
    elif wide := [name for name in PER_CLASS if name in leaves]:
        narrow = {name: leaves[name][:, :1] if name in outputs else torch.ones(BATCH, 1).double() for name in wide}
        cases["a single class"] = leaves | narrow | {name: 0 * leaves[name] for name in leaves if name == "label"}
    return cases


def _cut(leaves: Leaves, samples: int) -> Leaves:
    """All waveforms as short as the one that a case is about."""
    waves = {name for name in leaves if (length := field(name, leaves).length) and length[0] == "lengths"}
    return {name: leaf[..., :samples] if name in waves else leaf for name, leaf in leaves.items()}


def _waveforms(leaves: Leaves, output: str, target: str) -> dict[str, Leaves]:
    e, s = leaves[output], leaves[target]
    click = torch.zeros_like(e)
    click[..., 100] = 0.5
    return {
        "silent target": {output: e, target: 0 * s},
        "silent estimate": {output: 0 * e, target: s},
        "both silent": {output: 0 * e, target: 0 * s},
        "perfect": {output: s, target: s},
        "inverted": {output: -s, target: s},
        "one sample": {output: e[..., :1], target: s[..., :1]},
        "one sample, perfect": {output: s[..., :1], target: s[..., :1]},
        "a click": {output: click, target: s},
        "a click to estimate": {output: e, target: click},
        "shorter than a window": {output: e[..., :100], target: s[..., :100]},
        "only an offset": {output: torch.full_like(e, 0.3), target: s},
        "only an offset to estimate": {output: e, target: torch.full_like(s, 0.3)},
        "quiet": {output: 1e-4 * e, target: 1e-4 * s},
        "loud": {output: 1e4 * e, target: 1e4 * s},
    }
