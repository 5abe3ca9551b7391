"""What every task must do."""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from harness import losses, models, spec, study, tasks, trial, workers
from harness.errors import UserError
from harness.losses import all_losses
from harness.metrics import METRICS, Scorer
from harness.report import page, ranking, runs
from harness.report.blocks import BASELINES
from harness.tasks import TASKS, fields
from tests.data import layouts
from tests.real import CPU


@pytest.fixture(autouse=True, scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`labels` has no recordings that every machine has: a tiny folder stands in, whose bank lies apart from the real ones."""
    folder = tmp_path_factory.mktemp("labelled")
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")), pytest.MonkeyPatch.context() as patch:
        layouts.labelled(folder)
        patch.setattr(tasks.get("labels"), "corpus", str(folder))
        yield


@pytest.fixture(params=TASKS)
def task(request):
    return tasks.get(request.param)


@lru_cache
def opened(name: str) -> tasks.Scenes:
    task = tasks.get(name)
    return task.open(task.corpus, task.rule(), None, lambda line: None, lambda *_: None)


def examples(task: tasks.Task, count: int = 4) -> list[dict[str, torch.Tensor]]:
    return [opened(task.name).example(item) for item in opened(task.name).items("validation", count)]


def test_a_task_knows_its_name_and_is_found_by_it(task):
    assert TASKS[task.name] is task
    assert tasks.get(task.name) is task


def test_its_metrics_exist_and_selection_uses_watched_ones_only(task):
    assert set(task.watched) <= set(task.judged) <= set(METRICS)
    assert set(task.objectives) - {"quality", "both"} <= set(task.watched)
    controls = {name: dict.fromkeys(task.watched, value) for value, name in enumerate(task.controls)}
    means = dict.fromkeys(task.watched, 0.5)
    for objective in task.objectives:
        better = dict.fromkeys(task.watched, 0.75)
        assert task.selection(objective, better, controls) > task.selection(objective, means, controls)


def test_an_objective_is_made_of_the_metrics_that_its_score_follows(task):
    controls = {name: dict.fromkeys(task.watched, float(value)) for value, name in enumerate(task.controls)}
    means = dict.fromkeys(task.watched, 0.5)
    for objective in task.objectives:
        made_of, score = task.metrics_of(objective), task.selection(objective, means, controls)
        assert made_of
        rest = dict.fromkeys(set(task.watched) - set(made_of), 0.75)
        assert task.selection(objective, {**means, **rest}, controls) == score
        for name in made_of:
            assert task.selection(objective, {**means, name: 0.75}, controls) > score


def test_its_scenes_give_what_it_says_in_batches_and_in_items(task):
    scenes = opened(task.name)
    batch, (example, *_) = scenes.batch(0, 0, 3, CPU), examples(task)
    assert set(batch) == set(example) == set(task.given)
    for name in task.given:
        assert batch[name].shape[1:] == example[name].shape or name in ("noisy", "clean", "sources")
        assert batch[name].dtype == example[name].dtype
        assert len(batch[name]) == 3


def test_some_model_predicts_what_it_wants_and_takes_what_it_gives(task):
    able = [info for info in models.all_models().values() if set(task.predicted) <= set(info.gives)]
    assert models.get(task.model) in able
    assert all(set(info.fields) <= {*task.given, "channels"} for info in able)  # which rooms alone have
    net = models.build(task.model, sizes=task.sizes(opened(task.name)))
    noisy = opened(task.name).batch(0, 0, 2, CPU)["noisy"]
    assert set(net(noisy)) >= set(task.predicted)


def test_its_reference_loss_can_train_it(task):
    assert set(all_losses()[task.reference].fields) <= fields.available(task.offered)


def test_a_control_is_not_the_name_of_a_loss_and_gains_are_measured_from_the_first(task):
    assert not set(task.controls) & set(all_losses())
    assert task.controls[0] in BASELINES


def test_every_control_has_every_metric_of_every_item(task):
    scenes, few = opened(task.name), examples(task)
    names = [task.watched] * len(few)
    for control in task.controls:
        made = task.control(control, few, scenes, models.get(task.model).build)
        for values, floored in task.score(made, few, names, Scorer(1)):
            assert not floored
            assert all(np.isfinite(values[name]) for name in task.watched)


def test_an_output_that_is_not_finite_gets_the_floor_of_its_metrics(task):
    few = examples(task, 2)
    net = models.build(task.model, sizes=task.sizes(opened(task.name)))
    for parameter in net.parameters():
        parameter.data.fill_(torch.nan)
    made = task.outputs(net, few, CPU, lambda step: opened(task.name).batch(0, step, 8, CPU))
    for values, floored in task.score(made, few, [task.watched] * 2, Scorer(1)):
        assert set(floored) >= {task.watched[0]}
        assert all(values[name] == METRICS[name].floor for name in floored)


@pytest.mark.parametrize("name", TASKS)
def test_a_study_of_it_trains_judges_and_reports(name: str, tmp_path: Path) -> None:
    """The shipped study of two of its losses, with a few updates of a small batch."""
    task, shipped = tasks.get(name), spec.load(name)
    few = {"updates": {"tune": 2, "confirm": 4}, "batch": 32, "seeds": 2, "rates": [1e-3]}
    few["scenes"] = {"items": {"validation": 4, "matched": 6, "mismatched": 4, "training": 4}}
    if name == "labels":  # its recordings are of one kind
        few["scenes"]["items"]["mismatched"] = 0
    if name in ("denoise", "separate"):
        few["batch"] = 4
    if name == "denoise":
        few["scenes"]["items"]["dnsmos_every"] = 6
    few["losses"] = list(dict.fromkeys([task.reference, *shipped.losses]))[:2]
    options = workers.Options("cpu", 1, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    context = workers.open_study(spec.load(name, few), options, 1, lambda line: None)
    events: list[Any] = []
    study.work(context, study.open_storage(f"sqlite:///{tmp_path}/optuna.db"), events.append, datetime.now())
    assert all(row.settled == row.trials for row in study.plan(context))
    results = runs.read(context.tracker)
    analysis = ranking.analyse(results)
    assert set(analysis.ranking["test_set"]) == {"matched", "mismatched"} - (
        {"mismatched"} if name == "labels" else set()
    )
    assert set(task.judged) <= set(analysis.ranking["metric"])
    assert set(analysis.gains["baseline"]) == {task.controls[0]}
    text = page.render(results, analysis)
    assert f"over {task.controls[0]}" in text
    assert "What was learned by heart" in text
    trained = set(results.runs.loc[results.runs["role"] != "control", "run_id"])
    assert set(results.fitting["run_id"]) == trained
    counts = results.runs.loc[results.runs["loss"] == "ctc", "void"]
    assert results.runs["void"].count() == len(counts)
    assert (counts == 0).all()  # every string of the scenes fits its frames
    assert set(results.fitting["step"]) == {4}  # the curves are read once in so few updates
    assert np.isfinite(results.fitting["value"].astype(float)).all()


def test_the_conditions_of_a_loss_reach_its_training(tmp_path: Path) -> None:
    conditions = ("", " with dropout=0.9", " with weight_decay=1", " with clip_percentile=90", " with warmup=0.9")
    items = {"validation": 2, "matched": 2, "mismatched": 2, "dnsmos_every": 2}
    few = {"losses": ["snr"], "updates": {"tune": 6, "confirm": 6}, "batch": 2, "scenes": {"items": items}}
    options = workers.Options("cpu", 1, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    context = workers.open_study(spec.load("smoke", few | {"objective": "si_sdr"}), options, 1, lambda line: None)
    lost = []
    for condition in conditions:
        planned = trial.Planned(f"snr{condition}", "tune", 0, 1e-2)
        trial.run(context, planned, lambda *_: None)
        file = context.tracker.artifact(context.tracker.find(context.identity(planned)).info.run_id, "training.csv")
        lost.append(tuple(pd.read_csv(file)["total"]))
    assert len(set(lost)) == len(conditions)


def test_the_task_that_fits_a_loss_best_gives_its_fields_without_deriving_them() -> None:
    from harness.catalogue import best_task

    assert best_task(["si_sdr"]) == best_task(["mse + 1e-5*l2_penalty"]) == best_task(["sa_sdr"]) == "denoise"
    assert best_task(["cross_entropy"]) == best_task(["center"]) == best_task(["supcon"]) == "keywords"
    assert best_task(["bce_with_logits"]) == best_task(["multi_label_margin"]) == "tags"
    assert best_task(["ctc"]) == "digits"
    assert best_task(["poisson_nll"]) == best_task(["count_mse"]) == "count"
    assert best_task(["kl_box"]) == best_task(["boundary_mse"]) == best_task(["kl_box + cross_entropy"]) == "locate"
    assert best_task(["ctc", "mse"]) == "denoise"  # none has the fields of both: the check says so
    with pytest.raises(UserError, match="unknown loss"):
        best_task(["mmse"])
    for name, info in losses.all_losses().items():
        if set(info.fields) != {"parameters"}:
            spec.check_fit(name, best_task([name]))
