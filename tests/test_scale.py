"""Bookkeeping at scale: what is measured, and that a trial asks the stores for no more when there are many of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from harness import cli, paths, scale, spec, study, throughput, trial, workers
from harness.entrants import Entrant
from harness.scale import PARTS, REPORT, Sample, Stopwatch, growth


@pytest.fixture(scope="module")
def context(tiny: Path) -> Iterator[trial.Context]:
    """A study of seconds, in a home of its own."""
    with scale.own_home():
        yield workers.open_study(spec.load(str(tiny)), workers.Options("cpu", 1), 1, lambda line: None)


@pytest.fixture(scope="module")
def kept(context: trial.Context, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    return scale.samples(context, tmp_path_factory.mktemp("samples"))


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """SQL statements by database, while it lasts."""
    counts: Counter[str] = Counter()

    def count(connection: Connection, *_: object) -> None:
        counts[Path(connection.engine.url.database or "").name] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def test_a_trial_asks_the_stores_no_more_often_when_there_are_many(
    context: trial.Context, kept: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "RATES", 3)
    monkeypatch.setattr(scale, "SEEDS", 1)
    monkeypatch.setattr(scale, "_report", lambda tracker: None)
    asked = {}
    for trials in (4, 8, 16):
        with statements() as counts:
            seconds = scale.bookkeeping(context, kept, trials)
        asked[trials] = dict(counts)
    assert set(seconds) == {*PARTS, REPORT}
    assert all(value > 0 for part, value in seconds.items() if part in PARTS)
    for name in ("mlflow.db", "optuna.db"):
        early, late = (asked[8][name] - asked[4][name]) / 4, (asked[16][name] - asked[8][name]) / 8
        assert early > 5
        assert late < 1.03 * early, name  # a statement on an empty table may be spared


def test_a_replayed_trial_leaves_what_a_real_one_does(context: trial.Context, kept: dict[str, Sample]) -> None:
    from harness.report import runs

    with scale.own_home():
        sized = scale.replayed(context, kept, context.study)
        study.work(sized, study.open_storage(), lambda event: None, datetime.now())
        results = runs.read(sized.tracker)
        confirm = [r for r in sized.tracker.search() if r.data.tags.get("phase") == "confirm"]
        curve = sized.tracker._client.get_metric_history(confirm[0].info.run_id, "train/total")
        files = {a.path for a in sized.tracker._client.list_artifacts(confirm[0].info.run_id)}
    assert set(results.runs["state"]) == {"finished"}
    assert set(results.runs["loss"]) > {"snr", "mse"}
    assert [point.step for point in curve] == list(range(1, context.study.updates.confirm + 1))
    assert files == {"audio", "model.pt", "scores.csv", "scores.json", "spec.json", "training.csv", "validation.csv"}
    logged = {name.replace("train/mse", "train/snr") for name, *_ in kept["confirm"].points}
    use = {
        name for name in confirm[0].data.metrics if name.startswith("system/")
    }  # of the machine, sampled beside the trial
    assert use
    assert logged == set(confirm[0].data.metrics) - use


def test_a_study_holds_the_asked_number_of_trials_and_no_rate_on_the_edge_adds_one(
    context: trial.Context, kept: dict[str, Sample]
) -> None:
    large = scale.enlarged(context.study, 1000)
    assert len(set(large.losses)) * (len(large.rates) + large.seeds) == 1000
    scores = {rate: -abs(rate - scale._middle(large.rates)) for rate in large.rates}
    assert study.next_edge(scores, large.rates) is None


def test_a_curve_has_as_many_points_whatever_the_updates_and_their_mean_is_that_of_the_training() -> None:
    from harness.train import Curves

    for updates in (400, 1000):
        rows = [[step, 0.0, float(step), float(step), 1.0, 0.1] for step in range(1, updates + 1)]
        curves = Curves(["total", "mse", "gradient_norm", "lr"], rows)
        points = [
            (value, step) for name, value, step in trial.curve_points(curves, 0, updates) if name == "train/total"
        ]
        assert len(points) == trial.CURVE_POINTS
        assert points[-1][1] == updates
        assert sum(value for value, _ in points) / len(points) == pytest.approx((updates + 1) / 2)


def test_of_many_plans_no_more_than_a_batch_waits_and_each_is_run_once(tmp_path: Path) -> None:
    store = study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    made = optuna.create_study(storage=store, study_name="q", direction="maximize")
    queue, since = study.Queue(Entrant("si_sdr"), "confirm", made), datetime.now()
    plans = [{"lr": 1e-3, "seed": seed} for seed in range(2 * study.BATCH + 5)]
    most, seeds = 0, []
    while not queue.over(plans, since):
        most = max(most, sum(t.state == optuna.trial.TrialState.WAITING for t in queue.trials))
        claimed = made.ask()
        seeds.append(claimed.user_attrs["planned"]["seed"])
        made.tell(claimed, 0.0)
    assert most <= study.BATCH
    assert sorted(seeds) == list(range(len(plans)))


def test_the_stopwatch_counts_a_functions_own_time_and_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scale.time, "perf_counter", lambda: now[0])

    class Work:
        def outer(self) -> None:
            now[0] += 1
            self.inner()
            now[0] += 2

        def inner(self) -> None:
            now[0] += 10

    before, clock = Work.outer, Stopwatch()
    with clock.watching((("outer", Work, "outer"), ("inner", Work, "inner"))):
        Work().outer()
    assert clock.seconds == {"outer": 3, "inner": 10}
    assert Work.outer is before


def test_linear_grows_by_one() -> None:
    assert growth(2.0, 20.0, (100, 1000)) == pytest.approx(1)
    assert growth(2.0, 200.0, (100, 1000)) == pytest.approx(2)


def test_a_home_of_its_own_leaves_the_users_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with scale.own_home() as home:
        assert paths.runs() == home / "runs"
    assert os.environ["HARNESS_HOME"] == str(tmp_path)
    assert not home.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_a_table_or_json_and_the_share_last(
    context: trial.Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    monkeypatch.setattr(workers, "open_study", lambda *_: context)
    parts = dict.fromkeys((*PARTS, REPORT), 2.0)
    monkeypatch.setattr(scale, "bookkeeping", lambda context, kept, trials: parts)
    monkeypatch.setattr(scale, "samples", lambda context, folder: {})
    monkeypatch.setattr(throughput, "training_step", lambda *_: 50.0)
    shared = {"trials": 30, "one": 30.0, "two": 16.0, "efficiency": 30 / 32, "busy": 0.97}
    shared |= {"per_hour": {"1": 3600.0, "2": 6750.0, "3": 7000.0}}
    monkeypatch.setattr(scale, "efficiency", lambda loaded, options: shared)
    monkeypatch.setattr(scale, "answers", lambda storage: {"sqlite": 250.0, "postgresql": 300.0})
    cli.app(["bench", str(tiny), "--scale", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["device"]
    assert found["growth"]["log"] == 0
    assert found["share"] == pytest.approx(4 * 2 / (1000 * 0.05 * 5))  # the tiny study's 4 and 6 updates
    cli.app(["bench", str(tiny), "--scale"], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "claim and tell" in text
    assert (
        "3600 by 1, 6750 by 2, 7000 by 3 workers; operations a second that a store answers to one process: sqlite "
        in text
    )
    assert text.endswith(
        "bookkeeping of 1,000 trials: 3.20 % of their training time (0.2 s a trial, at 50.0 ms an update)"
    )
