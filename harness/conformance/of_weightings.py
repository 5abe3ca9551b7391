"""What every weighting must do: stay finite, reach the model, mean the same in any order and after a restart, never wait for a
device, and neither lose a term nor run away."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.conformance.check import Suite, shown, unlike
from harness.errors import UserError
from harness.losses import WeightingInfo, parse
from harness.losses.objective import norms
from harness.losses.weightings import Chosen

CHECKS = Suite()
TERMS = ("mse", "0.5*cross_entropy", "si_sdr")  # a value, a class, a level in dB; with minima of 0, 0 and -30
SUM = " + ".join(TERMS)
CASES = {
    "ordinary terms": (0.3, 2.0, 20.0),
    "terms at their minimum": (0.0, 0.0, 0.0),
    "one term at its minimum": (0.0, 2.0, 20.0),
    "huge terms": (1e6, 1e6, 1e6),
    "equal terms": (1.0, 1.0, 1.0),
    "terms of very different size": (1e-6, 1.0, 1e4),
}
LR = 0.02
LONG = 300  # updates in which a weight falls by six, or rises a thousandfold, if nothing holds it


class Toy:
    """Terms of a shared parameter, each a parabola above its minimum, under a weighting; trained as a model is.

    heights: of the terms above their minima at the start; scales: factors on top of them; order: of the terms.
    """

    def __init__(
        self,
        info: WeightingInfo,
        heights: Sequence[float] = CASES["ordinary terms"],
        terms: Sequence[str] = TERMS,
        scales: Sequence[float] = (1.0, 1.0, 1.0),
        order: Sequence[int] = (0, 1, 2),
        settings: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.info = info
        order = order[: len(terms)]
        combination = parse(" + ".join(terms[k] for k in order))
        chosen = Chosen(info.name, info.resolve(given(info, combination.names) | (settings or {})))
        self.weighting = chosen.build(combination).to(device)
        floors = [0.0 if minimum is None else minimum for minimum in combination.minima]
        self.floors = torch.tensor(floors, device=device)
        self.heights = torch.tensor([heights[k] * scales[k] for k in order], device=device)
        # Each pulls another way.
        self.places = torch.tensor([[[-1.0, 0.2], [1.0, 0.5], [0.1, -1.0]][k] for k in order], device=device)
        self.shared = torch.zeros(2, device=device, requires_grad=True)
        self.optimiser = torch.optim.AdamW([{"params": [self.shared]}, *self.groups()], lr=LR, eps=1e-12)
        terms_now = self.terms()
        told = {
            "terms": terms_now.detach(),
            "output_gradients": norms(list(terms_now), [self.shared]),
            "updates": 40,
        }
        with torch.no_grad():
            self.weighting.begin(**{name: told[name] for name in info.begins})

    def groups(self) -> list[dict[str, Any]]:
        learned = list(self.weighting.parameters())
        return [{"params": learned, "lr": self.weighting.learning_rate(LR), "weight_decay": 0.0}] if learned else []

    def terms(self) -> Tensor:
        distance = (self.shared - self.places).square().sum(-1) / self.places.square().sum(-1)
        return self.floors + self.heights * distance

    def update(self) -> tuple[Tensor, Tensor]:
        """One update: the total, and the (K,) weights of the raw terms in it."""
        terms = self.terms()
        terms.retain_grad()
        more = {"shared_gradients": norms(list(self.terms()), [self.shared])} if len(self.info.takes) > 1 else {}
        total = self.weighting(terms, **more)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        assert terms.grad is not None
        return total.detach(), terms.grad

    def weights(self, updates: int = 1) -> Tensor:
        """Those of some updates, (updates, K)."""
        return torch.stack([self.update()[1] for _ in range(updates)])


def given(info: WeightingInfo, names: Sequence[str]) -> dict[str, Any]:
    """Values for the settings that have one for each term."""
    values = {"mse": 1.0, "cross_entropy": 0.5, "si_sdr": 0.25}
    return {
        name: tuple(values.get(term, 1.0) for term in names) for name, setting in info.settings.items() if setting.each
    }


def ends(info: WeightingInfo) -> Iterator[tuple[str, Any]]:
    """Each setting with the ends of its range, or each of its choices."""
    for name, setting in info.settings.items():
        for value in (setting.range.low, setting.range.high) if setting.range else tuple(setting.choices):
            yield name, value


def learns(info: WeightingInfo) -> bool:
    return any(True for _ in Toy(info).weighting.parameters())


@CHECKS.add(mend="give the class a docstring, whose first line the tables show, and version= of at least 1")
def it_documents_itself(info: WeightingInfo) -> Iterator[str]:
    if not info.summary:
        yield "no docstring"
    if info.version < 1:
        yield f"version {info.version}"


@CHECKS.add(mend="return the sum of weighted terms: a tensor without axes, in the terms' dtype", decides=True)
def the_total_is_a_scalar(info: WeightingInfo) -> Iterator[str]:
    total, _ = Toy(info).update()
    if total.shape != ():
        yield f"shape {tuple(total.shape)}"
    elif total.dtype != torch.float32:
        yield f"a total in {total.dtype}"


@CHECKS.add(mend="keep what is divided by, rooted or logged above 0: harness.losses.weightings.registry.usable does")
def total_weights_and_gradients_are_finite(info: WeightingInfo) -> Iterator[str]:
    for case, heights in CASES.items():
        toy = Toy(info, heights)
        for update in range(6):
            total, weights = toy.update()
            learned = [parameter.grad for parameter in toy.weighting.parameters() if parameter.grad is not None]
            found = {"total": total, "weights": weights, "gradient": toy.shared.grad}
            found |= {f"gradient of parameter {at}": gradient for at, gradient in enumerate(learned)}
            if broken := [name for name, value in found.items() if value is None or not value.isfinite().all()]:
                yield f"{case}, update {update + 1}: {', '.join(broken)}"
                break


@CHECKS.add(mend="weigh each term by more than 0, without detach(), and never turn one upside down")
def the_gradient_of_every_term_reaches_the_model(info: WeightingInfo) -> Iterator[str]:
    weights = Toy(info).weights(45)
    if not (weights > 0).all():
        yield f"weights fall to {shown(weights.amin(0))}"


@CHECKS.add(mend="compute at the ends of every setting's range as anywhere, or make the range narrower")
def every_end_of_a_setting_s_range_works(info: WeightingInfo) -> Iterator[str]:
    for name, value in ends(info):
        weights = Toy(info, settings={name: value}).weights(10)
        if not weights.isfinite().all():
            yield f"{name}={value}: weights {shown(weights[-1])}"


@CHECKS.add(
    mend="divide by what the term was at the start (begin(terms)), name the settings with which it does not hold in `unless`, or "
    "register it without scale_free",
    applies=lambda info: info.scale_free,
)
def a_term_times_1000_keeps_its_part_in_the_gradient(info: WeightingInfo) -> Iterator[str]:
    yield from _scaled(info, {})
    for name, value in ends(info):
        if (name, value) not in info.unless.items():
            for fault in _scaled(info, {name: value}):
                yield f"{name}={value}: {fault}"


def _scaled(info: WeightingInfo, settings: dict[str, Any]) -> Iterator[str]:
    """The raw terms times 1000, and the weights in front of them. A setting may weigh a level in dB as the ratio that it stands
    for, where a factor on the level is a power and no scale: that one is tried at the defaults alone."""
    expected = Toy(info, settings=settings).weights(12)[-1]
    terms = parse(SUM).terms
    for place, term in enumerate(terms):
        factors = [1000.0 if k == place else 1.0 for k in range(len(TERMS))]
        if not settings or term.info.unit != "dB":
            actual = Toy(info, scales=factors, settings=settings).weights(12)[-1] * torch.tensor(factors)
            if fault := unlike(actual, expected, rtol=1e-3, atol=0):
                yield f"the raw {TERMS[place]} times 1000: {fault}"
        loud = [f"{factor * each.weight}*{each.name}" for factor, each in zip(factors, terms, strict=True)]
        actual = Toy(info, terms=loud, settings=settings).weights(12)[-1]
        if fault := unlike(actual, expected, rtol=1e-3, atol=0):
            yield f"{loud[place]}: {fault}"


@CHECKS.add(mend="treat all terms alike: what tells them apart is in the combination")
def terms_in_another_order_have_the_same_weights(info: WeightingInfo) -> Iterator[str]:
    order = [2, 0, 1]
    expected = Toy(info).weights(12)[:, order]
    if fault := unlike(Toy(info, order=order).weights(12), expected, rtol=1e-4, atol=1e-6):
        yield fault


@CHECKS.add(mend="take no random numbers but torch's, and keep no state outside of the module")
def two_trainings_from_one_seed_are_equal(info: WeightingInfo) -> Iterator[str]:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(Toy(info).weights(12))
    if not torch.equal(*found):
        yield f"weights of {shown(found[1][-1])} and {shown(found[0][-1])}"


@CHECKS.add(
    mend="register_buffer what `begin` and `forward` keep; plain numbers go through get_extra_state and set_extra_state"
)
def a_training_goes_on_from_a_saved_state_as_if_nothing_had_been(info: WeightingInfo) -> Iterator[str]:
    def whole() -> Toy:
        torch.manual_seed(0)
        toy = Toy(info)
        toy.weights(5)
        return toy

    toy, other = whole(), Toy(info, CASES["equal terms"])
    file = io.BytesIO()
    torch.save({"weighting": toy.weighting.state_dict(), "optimiser": toy.optimiser.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other.weighting.load_state_dict(state["weighting"])
    other.optimiser.load_state_dict(state["optimiser"])
    other.heights = toy.heights
    with torch.no_grad():
        other.shared.copy_(toy.shared)
    torch.manual_seed(1)
    expected = toy.weights(8)
    torch.manual_seed(1)
    if fault := unlike(other.weights(8), expected):
        yield fault


@CHECKS.add(
    mend="a weight that is learned as a factor alone falls to 0, the total's least value: add a term that grows as it falls, "
    "such as Kendall's log, or hold the sum of the weights",
    applies=learns,
)
def learned_weights_stay_on_terms_that_stay(info: WeightingInfo) -> Iterator[str]:
    toy = Toy(info)
    frozen = toy.terms().detach()
    toy.terms = lambda: frozen + 0 * toy.shared.sum()  # type: ignore[method-assign]
    weights = toy.weights(LONG)
    if not (weights[-1] > 0.1 * weights[0]).all():
        yield f"from {shown(weights[0])} to {shown(weights[-1])} in {LONG} updates"


@CHECKS.add(
    mend="register it with minima=True, so that such a term is refused, or weigh it without a total that has no lower bound"
)
def a_term_without_a_minimum_is_refused_or_does_no_harm(info: WeightingInfo) -> Iterator[str]:
    terms = ("mse", "poisson_nll")
    if info.minima:
        try:
            Toy(info, (0.3, 2.0), terms)
        except UserError as error:
            if "poisson_nll" not in str(error) or "\n" in str(error):
                yield f"its refusal does not name the term: {error}"
        else:
            yield "not refused"
        return
    toy = Toy(info, (0.3, 2.0), terms)
    toy.floors = torch.tensor([0.0, -10.0])
    weights, (total, _) = toy.weights(LONG), toy.update()
    if not total.isfinite():
        yield f"a total of {float(total)}: `minima` are NaN where none is known"
    if not (weights[-1] < 100 * weights[0]).all():
        yield f"below 0, weights run from {shown(weights[0])} to {shown(weights[-1])} in {LONG} updates"


# A tensor of the meta device has a shape and no values: where a weighting would wait for a GPU, it fails here.
@CHECKS.add(mend="no item(), float(), bool() or if on values (torch.where instead): each look makes a GPU wait")
def no_value_is_looked_at_on_the_way(info: WeightingInfo) -> Iterator[str]:
    toy = Toy(info, device="meta")
    for _ in range(6):
        total, _ = toy.update()
    if total.device.type != "meta":
        yield f"the total lies on {total.device}"


@CHECKS.add(mend="no item(), no copy to the CPU: each makes the GPU wait", cuda=True)
def a_gpu_is_never_waited_for_and_gives_the_same_weights(info: WeightingInfo) -> Iterator[str]:
    expected = Toy(info).weights(12)
    toy = Toy(info, device="cuda")
    toy.update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            toy.update()
    except RuntimeError as error:
        yield " ".join(str(error).split())[:160]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if fault := unlike(toy.update()[1].cpu(), expected[-1], rtol=1e-3, atol=1e-5):
        yield fault
