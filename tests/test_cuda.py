"""What holds on a GPU for every task, beside what the conformance suites hold losses, models and weightings to there, and
`test_steps` a step of each.

Nothing here runs without one: each test says so by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import losses, models, scale, spec, tasks, throughput, train, workers
from harness.context import Context
from harness.losses import Objective
from tests.conftest import harness, settled

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
NAMES = sorted(set(tasks.TASKS) - {"labels"})  # which has no recordings of its own, and the net of `keywords`
UPDATES = 12  # fewer than lie between two looks at the loss
FEW = {"validation": 2, "matched": 2, "mismatched": 2}


@pytest.fixture(scope="module", params=NAMES)
def opened(request: pytest.FixtureRequest) -> Iterator[Context]:
    """A study of the task with its own model and reference, and hardly any items."""
    name = "quick" if request.param == "denoise" else request.param
    study = spec.load(name, {"scenes": {"items": FEW}, "batch": 4})
    with scale.own_home():
        yield workers.open_study(study, workers.Options("cuda", 1), 1, lambda line: None)


def fitted(context: Context, updates: int = UPDATES, bf16: bool = False) -> train.Curves:
    study, device = context.study, context.device
    torch.manual_seed(1)
    model = models.build(study.model, {}, context.sizes).to(device)
    objective = Objective(losses.parse(study.reference.loss), "fixed", context.sizes).to(device)
    optimiser = study.optimiser
    recipe = train.Recipe(updates, 1e-3, optimiser.weight_decay, optimiser.warmup, optimiser.clip_percentile, bf16)
    return train.fit(
        model, objective, lambda step: context.scenes.batch(1, step, study.batch, device), recipe, device,
        inputs=models.get(study.model).fields,
    )  # fmt: skip


def test_batches_are_those_of_the_cpu(opened: Context) -> None:
    here = opened.scenes.batch(1, 3, 4, torch.device("cpu"))
    there = opened.scenes.batch(1, 3, 4, opened.device)
    assert set(here) == set(there)
    for name, field in there.items():
        assert field.is_cuda
        torch.testing.assert_close(
            field.cpu(), here[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_model_and_its_loss_have_the_value_of_the_cpu(opened: Context) -> None:
    study, found = opened.study, []
    fields = opened.scenes.batch(1, 0, 4, torch.device("cpu"))
    torch.manual_seed(1)
    model = models.build(study.model, {}, opened.sizes).eval()
    objective = Objective(losses.parse(study.reference.loss), "fixed", opened.sizes).eval()
    for device in (torch.device("cpu"), opened.device):
        given = {name: field.to(device) for name, field in fields.items()}
        with torch.no_grad():
            outputs = model.to(device)(*(given[name] for name in models.get(study.model).fields))
            total, _ = objective.to(device)(train.complete(given | outputs, train._needed(objective)))
        found.append(float(total))
    assert found[1] == pytest.approx(found[0], rel=1e-2, abs=1e-3)


def test_no_update_waits_for_the_gpu(opened: Context) -> None:
    """But for one read of the curves, at the end."""
    fitted(opened, 2)  # what is kept from the first call on is made
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            fitted(opened)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(w.filename) + f":{w.lineno}" for w in seen if "synchron" in str(w.message)]
    needed = losses.parse(opened.study.reference.loss).fields
    allowed = 1 + (2 if "frame_lengths" in needed else 0) * UPDATES  # torch's CTC reads lengths on the CPU
    assert len(waits) <= allowed, waits


def test_half_precision_trains(opened: Context) -> None:
    assert all(math.isfinite(value) for row in fitted(opened, bf16=True).rows for value in row)


def test_what_a_loss_holds_is_measured_as_the_gpu_counts_it() -> None:
    device, size = torch.device("cuda", 0), 2**22

    def hold() -> None:
        (torch.ones(size, device=device) + 1).sum()

    assert throughput.peak_memory(hold, device) == pytest.approx(2 * size * 4 / 2**20, rel=0.2)


def test_two_workers_on_one_card_make_the_runs_of_one(tiny: Path, tmp_path: Path) -> None:
    values: list[Any] = []
    for workers_ in ("1", "2"):
        home = tmp_path / workers_
        done = harness("study", str(tiny), "--device", "cuda:0", "--workers", workers_, home=home)
        assert done.returncode == 0, done.stdout + done.stderr
        values.append(sorted((tags["loss"], tags["phase"], tags["state"]) for tags in settled(home)))
    assert values[0] == values[1]


def test_a_training_on_a_gpu_repeats(opened: Context) -> None:
    first, second = (fitted(opened).rows[-1] for _ in range(2))
    assert second[2] == pytest.approx(first[2], rel=1e-3)
