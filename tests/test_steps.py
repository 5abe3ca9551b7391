"""The step of a training, for every loss and every model: no GPU is waited for in it, and half precision changes little.

Each is asked twice: on this CPU, by the calls that would make a GPU wait, and on a GPU, which says so itself, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from harness import catalogue, losses, models, scale, spec, tasks, train, workers
from harness.context import Context
from harness.losses import Objective, permutation
from tests.waits import forbidden

STEPS = 4  # of a training: what is kept is made in the first, and behind the last the curves are read, which may wait
ITEMS = 4
FEW = {"validation": 2, "matched": 2, "mismatched": 2}
TASKS = [
    name for name in tasks.TASKS if name != "labels"
]  # which has no recordings of its own, and the net of `keywords`
STUDIES = {
    "denoise": "quick",
    "gru_mask_stereo": "rooms_stereo",
}  # of a task or a model, where not the study of its name
SETTINGS = {"deep_feature": "deep_feature(network='random')"}  # to train its network takes minutes
# Half precision beside float32, in the first step of a training: how far off its loss may be, and its gradient, as a vector. On
# this CPU the losses were 0.2 % off at most, the gradients from 0.4 % (the nets with masks) to 10 % (`ds_cnn`, of many layers).
LOSS_OFF, GRADIENT_OFF = 0.01, 0.2
WEIGHTINGS = {"frozen": "frozen(weights=(1, 2, 3))"}  # those that cannot do without a setting
ON = [
    pytest.param("cpu", id="cpu"),
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")],
        id="cuda",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[None]:
    with scale.own_home():
        yield


@dataclass(frozen=True)
class Setting:
    """What steps are made of: a model, a loss that trains it, what they are built for, a batch."""

    model: str
    loss: str
    sizes: dict[str, int]
    batch: dict[str, torch.Tensor]
    weighting: str = "fixed"

    def built(self, device: torch.device) -> tuple[nn.Module, Objective]:
        torch.manual_seed(1)
        model = models.build(self.model, sizes=self.sizes).to(device)
        return model, Objective(losses.parse(self.loss), self.weighting, self.sizes).to(device)


@cache
def opened(name: str, **changes: Any) -> Context:
    study = spec.load(STUDIES.get(name, name), {"scenes": {"items": FEW}, "batch": ITEMS, **changes})
    return workers.open_study(study, workers.Options("cpu", 1), 1, lambda line: None)


def of(context: Context, loss: str) -> Setting:
    batch = context.scenes.batch(1, 0, ITEMS, torch.device("cpu"))
    return Setting(context.study.model, loss, context.sizes, batch)


def of_loss(name: str) -> Setting:
    """A loss on the first task that it trains; a penalty beside the reference of one."""
    trains = [task for task in TASKS if name in catalogue.trainable(task)]
    if not trains:
        return of(opened("denoise"), f"mse + {name}")
    return of(opened(trains[0]), SETTINGS.get(name, name))


def of_model(name: str) -> Setting:
    """A model under the reference of a task that it fits."""
    gives = set(models.get(name).gives)
    fitting = [task for task in TASKS if tasks.get(task).model == name]
    fitting += [task for task in TASKS if set(tasks.get(task).predicted) <= gives]
    context = opened(name) if name in STUDIES else opened(fitting[0], model=name)
    assert context.study.model == name
    return of(context, context.study.reference.loss)


def fitted(setting: Setting, on: str, steps: int = STEPS, bf16: bool = False) -> tuple[nn.Module, train.Curves]:
    """The loop of every training. Between its first step and its last whatever would wait is an error."""
    device = torch.device(on)
    model, objective = setting.built(device)
    batch = {name: field.to(device) for name, field in setting.batch.items()}
    with ExitStack() as watching:

        def batches(step: int) -> dict[str, torch.Tensor]:
            if step == 1:
                watching.enter_context(forbidden(device))
            if step == steps - 1:
                watching.close()
            return batch

        recipe = train.Recipe(steps, 1e-3, 0.01, 0.05, 10.0, bf16)
        curves = train.fit(model, objective, batches, recipe, device, inputs=models.get(setting.model).fields)
    return model, curves


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", losses.all_losses())
def test_no_step_with_a_loss_waits_for_a_gpu(name: str, on: str) -> None:
    if on == "cuda" and "frame_lengths" in losses.get(name).fields:
        pytest.skip("torch's own CTC reads lengths on the CPU")
    fitted(of_loss(name), on)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", ["snr", "sa_sdr"])
def test_no_step_that_looks_for_the_order_of_talkers_waits_for_a_gpu(name: str, on: str) -> None:
    permutation._orders.cache_clear()
    fitted(of(opened("separate"), name), on)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", losses.all_weightings())
def test_no_step_under_a_weighting_waits_for_a_gpu(name: str, on: str) -> None:
    setting = of(opened("denoise"), "snr + multi_res_stft + l1")
    fitted(replace(setting, weighting=WEIGHTINGS.get(name, name)), on)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", models.all_models())
def test_no_step_of_a_model_waits_for_a_gpu(name: str, bf16: bool, on: str) -> None:
    setting = of_model(name)
    if on == "cuda" and "frame_lengths" in losses.parse(setting.loss).fields:
        pytest.skip("torch's own CTC reads lengths on the CPU")
    fitted(setting, on, bf16=bf16)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", models.all_models())
def test_a_step_in_half_precision_is_close_to_one_in_single(name: str, on: str) -> None:
    setting, totals, gradients = of_model(name), [], []
    for bf16 in (False, True):
        model, curves = fitted(setting, on, steps=1, bf16=bf16)
        totals.append(curves.rows[0][2])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    off = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert totals[1] == pytest.approx(totals[0], rel=LOSS_OFF)
    assert off < GRADIENT_OFF


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", [*TASKS, *STUDIES.values(), "separate_rooms", "silence"])
def test_a_batch_is_sent_without_waiting_for_a_gpu(name: str, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context, device = opened(name), torch.device(on)
    context.scenes.batch(1, 0, ITEMS, device)  # what is kept is made
    sent, to = [], torch.Tensor.to

    def recorded(tensor: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        sent.extend([how.get("non_blocking")] if isinstance(where[0], torch.device) else [])
        return to(tensor, *where, **how)

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    with (
        forbidden(device) if on == "cuda" else nullcontext()
    ):  # on a CPU numbers are drawn, and lists made, as they please
        context.scenes.batch(1, 1, ITEMS, device)
    assert sent
    assert all(sent)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: 1 if x.sum() > 0 else 2,
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_would_wait_is_seen(wait: Any, on: str) -> None:
    values = torch.ones(4, device=on)
    with forbidden(torch.device(on)), pytest.raises(RuntimeError):
        wait(values)
    wait(values)
