"""Races: who stops, that nobody does by chance, and what a study then leaves undone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy.stats import kendalltau

from harness import exchange, outbox, trial
from harness.context import Context, Outcome, Planned, Report
from harness.entrants import Entrant
from harness.report import ranking
from harness.report import runs as report_runs
from harness.report.words import cautions
from harness.study import racing
from harness.tracking import Tracker
from tests.conftest import blank
from tests.study.conftest import runs, work

Maker = Callable[..., Context]
SEEDS, PROMPTS, ITEMS = 10, 40, 120
CLUSTERS = [f"prompt {k // 3}" for k in range(ITEMS)]


def table(gain: float, rng: np.random.Generator, prompts: np.ndarray, seeds: int = SEEDS) -> np.ndarray:
    """(seeds, items) of a loss: its gain, what the prompt is worth, what the loss makes of each prompt, seed and item."""
    own = 0.2 * rng.standard_normal(PROMPTS)
    noise = 0.1 * rng.standard_normal((seeds, 1)) + 0.3 * rng.standard_normal((seeds, ITEMS))
    return gain + (prompts + own)[np.arange(ITEMS) // 3] + noise


def test_looks_begin_at_three_seeds_and_end_where_little_is_left_to_save() -> None:
    found = {seeds: racing.looks(seeds) for seeds in (3, 4, 5, 6, 10, 20)}
    assert found == {3: [], 4: [], 5: [3], 6: [3, 4], 10: [3, 4, 6], 20: [3, 4, 6, 9, 13]}


def test_nobody_beats_who_is_first_and_what_one_has_no_score_for_counts_for_nobody() -> None:
    rng, names = np.random.default_rng(1), [Entrant(name) for name in ("mse", "snr", "l1")]
    prompts = rng.standard_normal(PROMPTS)
    tables = {e: table(g, rng, prompts, 3) for e, g in zip(names, (0.0, 1.0, -1.0), strict=True)}
    assert racing.unbeaten(tables, CLUSTERS, 0.025) == [names[1]]
    assert racing.unbeaten({names[0]: tables[names[0]]}, CLUSTERS, 0.025) == [names[0]]
    tables[names[1]][:, :60] = np.nan
    assert racing.unbeaten(tables, CLUSTERS, 0.025) == [names[1]]
    tables[names[1]][:, :] = np.nan
    assert racing.unbeaten(tables, CLUSTERS, 0.025) == names


def test_a_metric_is_open_while_several_contend_and_who_was_beaten_on_it_contends_no_more() -> None:
    rng, (mse, snr, l1, l2) = np.random.default_rng(1), [Entrant(name) for name in ("mse", "snr", "l1", "l2")]
    prompts = rng.standard_normal(PROMPTS)

    def scores(**gains: float) -> dict[Entrant, np.ndarray]:
        return {Entrant(name): table(gain, rng, prompts, 3) for name, gain in gains.items()}

    before = {"pesq_wb": [mse, snr, l1, l2], "stoi": [mse, snr, l1, l2]}
    first = {"pesq_wb": scores(mse=0, snr=2, l1=-2, l2=-4), "stoi": scores(mse=2, snr=0, l1=2, l2=-2)}
    left = racing.narrowed(before, first, CLUSTERS, 0.025)
    assert left == {"stoi": [mse, l1]}  # snr has won the one and lost the other, l2 lost both
    later = {"pesq_wb": scores(mse=4, l1=0), "stoi": scores(mse=0, l1=2)}
    assert racing.narrowed(left, later, CLUSTERS, 0.025) == {}


def test_of_equal_losses_a_race_stops_one_in_a_twentieth_of_the_cases_at_most() -> None:
    rng, wrong, repeats = np.random.default_rng(2), 0, 200
    names = [Entrant(f"huber(delta={k})") for k in range(1, 9)]
    for _ in range(repeats):
        prompts = rng.standard_normal(PROMPTS)
        wrong += bool(raced({e: table(0.0, rng, prompts, SEEDS) for e in names}, 5)[0])
    assert wrong / repeats < 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)


def raced(tables: dict[Entrant, np.ndarray], of: int = SEEDS) -> tuple[dict[Entrant, int], list[Entrant]]:
    """Seeds of each that a race stops, and who contended last."""
    looks, left = racing.looks(of), list(tables)
    had: dict[Entrant, int] = {}
    last, contenders = left, {"stoi": left}
    for look in looks:
        scores = {"stoi": {e: tables[e][:look] for e in left}}
        last = racing.unbeaten({e: scores["stoi"][e] for e in contenders["stoi"]}, CLUSTERS, 0.05 / len(looks))
        contenders = racing.narrowed(contenders, scores, CLUSTERS, 0.05 / len(looks))
        had |= dict.fromkeys([e for e in left if e not in contenders.get("stoi", [])], look)
        left = contenders.get("stoi", [])
        if not left:
            break
    return had, last


def test_a_race_of_eight_keeps_the_first_group_and_the_order_of_the_whole_study_at_half_its_cost() -> None:
    """Losses that lie apart by a third of the spread over prompts, each tuned by five trainings of a third of the length."""
    rng, cost, tau = np.random.default_rng(3), [], []
    names, tuning = [Entrant(f"huber(delta={k})") for k in range(1, 9)], 8 * 5 / 3
    for _ in range(20):
        prompts, gains = rng.standard_normal(PROMPTS), -0.3 * np.arange(8)
        tables = {e: table(g, rng, prompts) for e, g in zip(names, gains, strict=True)}
        stopped, first = raced(tables)
        had = dict.fromkeys(names, SEEDS) | stopped
        assert set(racing.unbeaten(tables, CLUSTERS, 0.05)) <= set(first)
        cost.append((tuning + sum(had.values())) / (tuning + 8 * SEEDS))
        means = [(tables[e][: had[e]].mean(), tables[e].mean()) for e in names]
        tau.append(kendalltau(*zip(*means, strict=True)).statistic)
    assert np.mean(cost) <= 0.5
    assert np.mean(tau) >= 0.9


def judged(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
    """What a run comes to where l1 is far behind and the others are alike: its scores of every item."""
    if planned.phase == "tune":
        record.log([("validation/score", -abs(np.log10((planned.lr or 1.0) / 3e-3)), 1)])
        return Outcome("finished", -abs(float(np.log10((planned.lr or 1.0) / 3e-3))))
    items = context.sets["matched"]
    rng = np.random.default_rng([planned.seed or 0, len(planned.loss), sum(planned.loss.encode())])
    gain = {"l1": -5.0, "unprocessed": -9.0, "oracle_mask": 9.0, "oracle_psm": 9.0}.get(planned.loss, 0.0)
    own = gain + 0.1 * rng.standard_normal() + 0.5 * rng.standard_normal(len(items))
    rows = [
        {"test_set": "matched", "item": item.id, "cluster": item.cluster, "input_snr": item.snr, "noise": item.noise}
        | {"speaker": item.speaker, "floored": "", "unasked": "", "si_sdr": 10 + k % 5 + value}
        for k, (item, value) in enumerate(zip(items, own, strict=True))
    ]
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    trial._write_spec(context, planned, folder, {})
    record.log([("validation/score", 0.5, 1), ("validation/si_sdr", 10.0, 1), ("updates", 1, 1)])
    return Outcome("finished", 0.5)


@pytest.fixture
def race(made: Maker, opened: Context) -> Context:
    scenes: dict[str, Any] = opened.study.model_dump(mode="json")["scenes"]
    scenes["items"] |= {"matched": 24}
    return made(
        judged, losses=["snr", "mse", "l1"], rates=[1e-3, 3e-3, 1e-2], seeds=8, racing=True, scenes=scenes,
        updates={"tune": 2, "confirm": 4},
    )  # fmt: skip


def test_a_loss_far_behind_gets_three_seeds_and_the_report_says_so(race: Context) -> None:
    work(race)
    assert Counter(run.data.tags["loss"] for run in runs(race, "confirm")) == {"snr": 8, "mse": 8, "l1": 3}
    marks = {r.data.tags["loss"]: r.data.tags.get("raced") for r in runs(race, "parent") if "selected" in r.data.tags}
    assert json.loads(marks["l1"] or "") == {"seeds": 3, "of": 8, "looks": [3, 4]}
    assert marks["snr"] is None
    assert marks["mse"] is None
    assert work(race) == []  # asked again, nothing is left

    results = report_runs.read(race.tracker)
    said = " ".join(cautions(results, ranking.analyse(results), race.protocol_digest))
    assert "at 2 looks (after 3 and 4 of 8 seeds), each at 2.5 %. Stopped: l1 after 3 seeds." in said
    assert "5 of 24 confirming runs were saved (21 %)" in said


def test_the_same_study_without_the_race_makes_what_it_left_undone(race: Context) -> None:
    work(race)
    whole = replace(race, study=race.study.model_copy(update={"racing": False}), controls={})
    assert whole.protocol_digest == race.protocol_digest
    assert Counter(event.title.split()[0] for event in work(whole)) == {"l1": 5}
    results = report_runs.read(whole.tracker)
    assert "Raced" not in " ".join(cautions(results, ranking.analyse(results), whole.protocol_digest))


def test_who_is_out_is_known_wherever_the_runs_are_imported(race: Context, tmp_path: Path) -> None:
    work(race)
    exchange.write(race.tracker, "", tmp_path / "export", lambda *_: None)
    shutil.copytree(blank() / "runs", tmp_path / "other")
    other = Tracker(f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")

    def imported() -> dict[str, str | None]:
        exchange.read(other, tmp_path / "export", lambda *_: None)
        parents = {run.data.tags["loss"]: run for run in other.search("tags.phase = 'parent'")}
        return {loss: run.data.tags.get("raced") for loss, run in parents.items()}

    known = imported()
    assert json.loads(known["l1"] or "{}").get("seeds") == 3
    assert known["snr"] is None
    for run in other.search("tags.loss = 'l1' and tags.phase = 'parent'"):  # as where l1 was still in the race
        MlflowClient(other.uri).delete_tag(run.info.run_id, "raced")
    assert imported() == known
