"""One trial: train a model under an objective. The loop never waits for the device but where curves are read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from harness.losses import Objective
from harness.losses.objective import Example
from harness.tasks.fields import complete

Batches = Callable[[int], dict[str, torch.Tensor]]
READ_EVERY = 20  # updates between two looks at the loss: each look waits for the device
UNTRAINED_BATCHES = 4  # that initial values of the terms are means of


@dataclass(frozen=True)
class Recipe:
    """How a trial is trained: the same for every loss but for the learning rate."""

    updates: int
    lr: float
    weight_decay: float
    warmup: float
    clip_percentile: float
    bf16: bool = False

    def rate(self, step: int) -> float:
        """Learning rate of an update: a linear warm-up, then a cosine that ends at zero after the last one."""
        rising = max(1, round(self.warmup * self.updates))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.updates - rising)))


@dataclass
class Curves:
    """What happened so far. rows: one per update read: step, seconds of training, then `columns`.

    Those are total, each raw term, of several terms `weight/<term>`, what else the weighting has (`log_variance/<term>`) and
    `product/<term>` of weight and raw term, gradient_norm and lr.
    """

    columns: list[str]
    rows: list[list[float]] = field(default_factory=list)
    train_seconds: float = 0.0  # forward, backward, update, and the batches
    data_seconds: float = 0.0  # the batches alone


class Diverged(Exception):
    """The loss or a gradient was not finite: the trial ends here, the study goes on."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"{reason} at update {step + 1}")
        self.step = step


def weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a penalty applies to: matrices and kernels, no biases, no norm layers."""
    return [parameter for parameter in model.parameters() if parameter.dim() > 1]


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    recipe: Recipe,
    device: torch.device,
    *,
    inputs: tuple[str, ...],
    watch: Callable[[int, Curves], None] = lambda step, curves: None,
) -> Curves:
    """Train in place; the last weights are the result.

    batches: fields of update `step`, on the device. inputs: the fields that the model takes. watch: told after every read
    of the curves how many updates are done; time spent in it is not training time. Raises Diverged.
    """
    trained = [{"params": list(model.parameters())}, *objective.parameter_groups(recipe.lr)]
    optimiser = torch.optim.AdamW(
        [*trained, *objective.weight_groups(recipe.lr)],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        eps=1e-12,  # the usual 1e-8 is not small beside the gradients of a quiet waveform's MSE
    )
    scales = [group["lr"] / recipe.lr for group in optimiser.param_groups]
    # Weights of terms are learned beside, at their own pace: how far the model moves is not for their gradients to say.
    parameters = [p for group in trained for p in group["params"]]
    penalised = {"parameters": weights(model)}
    names = objective.combination.names
    needed = _needed(objective)
    norms = torch.zeros(recipe.updates, device=device)
    record = torch.zeros(recipe.updates, 1 + len(names) * (1 + len(objective.followed)), device=device)
    precision = torch.autocast(device.type, torch.bfloat16) if recipe.bf16 else nullcontext()
    products = ["product"] if objective.followed else []
    beside = [f"{what}/{name}" for what in (*objective.followed, *products) for name in names]
    curves, read = Curves(["total", *names, *beside, "gradient_norm", "lr"]), 0
    model.train()
    clock = time.perf_counter()
    if objective.prepares:
        shared = model.shared_parameters() if "shared_gradients" in objective.takes else []  # type: ignore[operator]
        with unchanged(model, objective.losses):
            objective.prepare(untrained(model, objective, batches, inputs, precision), shared, recipe.updates)
    for step in range(recipe.updates):
        started = time.perf_counter()
        fields = batches(step)
        curves.data_seconds += time.perf_counter() - started
        with precision:
            fields = complete(fields | model(*(fields[name] for name in inputs)) | penalised, needed)
            total, terms = objective(fields)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        norms[step] = _clip(parameters, norms, step, recipe.clip_percentile)
        record[step, 0], record[step, 1:] = total.detach(), torch.cat([terms, *objective.curves()])
        for group, scale in zip(optimiser.param_groups, scales, strict=True):
            group["lr"] = recipe.rate(step) * scale
        optimiser.step()
        if (step + 1) % READ_EVERY == 0 or step + 1 == recipe.updates:
            values = torch.cat(
                [record[read : step + 1], norms[read : step + 1, None]], 1
            ).tolist()  # waits for the device
            passed = time.perf_counter() - clock
            for place, row in enumerate(values, read):
                if not all(map(math.isfinite, row)):
                    raise Diverged(place, "gradient not finite" if math.isfinite(row[0]) else f"loss {row[0]}")
                seconds = curves.train_seconds + passed * (place + 1 - read) / (step + 1 - read)
                raw, weight = row[1 : 1 + len(names)], row[1 + len(names) : -1][: len(names)]
                row[-1:-1] = [a * b for a, b in zip(raw, weight, strict=False)]  # none of a single loss
                curves.rows.append([place + 1, seconds, *row, recipe.rate(place)])
            read, curves.train_seconds = step + 1, curves.train_seconds + passed
            watch(step + 1, curves)
            clock = time.perf_counter()
    return curves


def initial(
    model: nn.Module, objective: Objective, batches: Batches, inputs: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """The raw terms on the untrained net, and their gradients at its outputs, each (K,): see `Objective.initial`. Leaves the
    model, what the losses have seen and all random states as they were."""
    with unchanged(model, objective.losses):
        return objective.initial(untrained(model, objective, batches, inputs))


def untrained(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    inputs: tuple[str, ...],
    precision: AbstractContextManager[object] | None = None,
) -> Iterator[Example]:
    """What a model makes of the first batches, ready for gradients at its outputs. precision: in which it is asked."""
    for step in range(UNTRAINED_BATCHES):
        given = batches(step)
        with torch.no_grad(), precision or nullcontext():
            outputs = model(*(given[name] for name in inputs))
        learned = [output.requires_grad_() for output in outputs.values() if output.is_floating_point()]
        yield complete(given | outputs | {"parameters": weights(model)}, _needed(objective)), learned


@contextmanager
def unchanged(*modules: nn.Module) -> Iterator[None]:
    """Whatever is done meanwhile, the state of these modules and the random states are as before."""
    states = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    devices = {tensor.device for module in modules for tensor in module.parameters() if tensor.is_cuda}
    with torch.random.fork_rng(devices=devices):
        yield
    for module, state in zip(modules, states, strict=True):
        module.load_state_dict(state)


def _needed(objective: Objective) -> tuple[str, ...]:
    return (*objective.combination.fields, *objective.combination.optional_fields)


def _clip(parameters: list[nn.Parameter], norms: torch.Tensor, step: int, percentile: float) -> torch.Tensor:
    """Scale gradients down to a percentile of the run's own norms (AutoClip, Seetharaman et al. 2020); returns the norm.

    A fixed norm would clip a loss in dB at every step and an MSE never.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norms[step] = norm
    limit = torch.quantile(norms[: step + 1], percentile / 100)
    torch._foreach_mul_(gradients, (limit / norm.clamp(min=1e-30)).clamp(max=1.0))
    return norm
