"""A few updates of every loss and of every task from a fixed seed: when the numbers move, a version must move with them.

Runs are reused and ranked together as long as `version=` of their losses and `RESULT_VERSION` stay, so a change that moves
results without raising either would mix numbers that do not belong together. After raising one:

    python -m tests.test_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness import catalogue, keys, losses, models, tasks, train
from harness.conformance.inputs import activate, built, learned, make
from harness.data.scenes import MixtureRule, Scenes, open_scenes
from harness.models.features import NETWORKS

FILE = Path(__file__).parent / "golden.json"
UPDATES = 4
# `denoise` is trained by the losses on waveforms already; `labels` has no recordings of its own, and the trunk of `keywords`.
RECOGNISED = [name for name in tasks.TASKS if name not in ("denoise", "labels")]


def trained(
    name: str, scenes: tasks.Scenes, model: str = "gru_mask", sizes: dict[str, int] | None = None
) -> list[float]:
    """The loss after each of a few updates of a small model on real scenes."""
    torch.manual_seed(0)
    net = models.build(model, sizes=sizes)
    objective = losses.Objective(losses.parse(name), sizes=sizes)
    recipe = train.Recipe(UPDATES, 3e-3, 0.01, 0.05, 10.0)
    cpu = torch.device("cpu")
    curves = train.fit(net, objective, lambda step: scenes.batch(0, step, 2, cpu), recipe, cpu, inputs=("noisy",))
    return [row[2] for row in curves.rows]


def of_task(name: str) -> list[float]:
    """The same of a task's reference loss and model on its own scenes."""
    task = tasks.get(name)
    scenes = task.open(task.corpus, task.rule(), None, lambda line: None, lambda *_: None)
    return trained(task.reference, scenes, task.model, task.sizes(scenes))


def descended(name: str) -> list[float]:
    """The loss at a few points of a descent on made-up fields, for losses that no task feeds yet."""
    loss = built(losses.get(name))
    leaves = make(losses.get(name))
    free = {key: leaves[key].requires_grad_() for key in learned(leaves)}
    values = []
    for _ in range(UPDATES):
        value = loss(activate(leaves)).mean()
        gradients = torch.autograd.grad(value, list(free.values()))
        with torch.no_grad():
            for leaf, gradient in zip(free.values(), gradients, strict=True):
                leaf -= 0.1 * gradient
        values.append(value.item())
    return values


def numbers(name: str, scenes: Scenes) -> list[float]:
    return trained(name, scenes) if name in catalogue.trainable("denoise") else descended(name)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return open_scenes("prompts", MixtureRule(seconds=1))


@pytest.mark.parametrize("name", losses.all_losses())
def test_numbers_move_only_with_a_version(name: str, scenes: Scenes) -> None:
    golden = json.loads(FILE.read_text())
    again = "run `python -m tests.test_golden` and commit tests/golden.json"
    assert golden["result_version"] == keys.RESULT_VERSION, f"RESULT_VERSION was raised: {again}"
    assert name in golden["losses"], f"{name} is new: {again}"
    assert golden["losses"][name]["version"] == losses.get(name).version, f"the version of {name} was raised: {again}"
    message = f"results of {name} moved: raise its version= (or RESULT_VERSION, if others moved too), then {again}"
    assert numbers(name, scenes) == pytest.approx(golden["losses"][name]["values"], rel=2e-3, abs=1e-6), message


@pytest.mark.parametrize("name", RECOGNISED)
def test_numbers_of_a_task_move_only_with_the_version_of_results(name: str) -> None:
    golden = json.loads(FILE.read_text())["tasks"][name]
    message = f"results of {name} moved: raise RESULT_VERSION, then run `python -m tests.test_golden`"
    assert of_task(name) == pytest.approx(golden, rel=2e-3, abs=1e-6), message


def test_no_golden_numbers_are_left_of_what_is_gone() -> None:
    golden = json.loads(FILE.read_text())
    assert set(golden["losses"]) == set(losses.all_losses())
    assert set(golden["tasks"]) == set(RECOGNISED)


def rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


if __name__ == "__main__":
    NETWORKS["trained"] = NETWORKS["random"]  # as in the tests
    real = open_scenes("prompts", MixtureRule(seconds=1))
    entries = {
        name: {"version": info.version, "values": rounded(numbers(name, real))}
        for name, info in losses.all_losses().items()
    }
    of_tasks = {name: rounded(of_task(name)) for name in RECOGNISED}
    written = {"result_version": keys.RESULT_VERSION, "losses": entries, "tasks": of_tasks}
    FILE.write_text(json.dumps(written, indent=1) + "\n")
