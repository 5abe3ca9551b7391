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

from harness import exchange, outbox, paths, trial
from harness.context import Context, Outcome, Planned, Report
from harness.entrants import Entrant
from harness.report import ranking
from harness.report import runs as report_runs
from harness.report.cautions import cautions
from harness.study import racing
from harness.tracking import Tracker
from tests.conftest import blank
from tests.study import races
from tests.study.conftest import runs, work

Maker = Callable[..., Context]
SEEDS, PROMPTS, ITEMS = 10, 40, 120
NAMES = [f"huber(delta={k})" for k in range(1, 9)]
CLUSTERS = [f"prompt {k // 3}" for k in range(ITEMS)]


def table(
    gain: float, rng: np.random.Generator, prompts: np.ndarray, seeds: int = SEEDS, spread: float = 0.1
) -> np.ndarray:
    """(seeds, items) of a loss: its gain, what the prompt is worth, what the loss makes of each prompt, seed and item. spread: of
    the seeds."""
    own = 0.2 * rng.standard_normal(PROMPTS)
    noise = spread * rng.standard_normal((seeds, 1)) + 0.3 * rng.standard_normal((seeds, ITEMS))
    return gain + (prompts + own)[np.arange(ITEMS) // 3] + noise


def test_looks_begin_at_three_seeds_and_end_where_little_is_left_to_save() -> None:
    found = {seeds: racing.looks(seeds) for seeds in (3, 4, 5, 6, 10, 20)}
    assert found == {3: [], 4: [], 5: [3], 6: [3, 4], 10: [3, 4, 6], 20: [3, 4, 6, 9, 13]}


def test_nobody_beats_who_is_first_and_what_one_has_no_score_for_counts_for_nobody() -> None:
    rng, names = np.random.default_rng(1), [Entrant(name) for name in ("mse", "snr", "l1")]
    prompts = rng.standard_normal(PROMPTS)
    tables = {e: table(g, rng, prompts, 3) for e, g in zip(names, (0.0, 1.0, -1.0), strict=True)}

    def found() -> tuple[Entrant, set[Entrant]]:
        first, others = racing.beaten(tables, CLUSTERS, 0.025)
        assert all(0 < p < 0.025 for p in others.values())
        return first, set(others)

    assert found() == (names[1], {names[0], names[2]})
    assert racing.beaten({names[0]: tables[names[0]]}, CLUSTERS, 0.025) == (names[0], {})
    tables[names[1]][:, :60] = np.nan
    assert found() == (names[1], {names[0], names[2]})
    tables[names[1]][:, :] = np.nan
    assert found()[1] == set()


def test_a_loss_that_another_than_the_first_beats_contends_on() -> None:
    rng, names = np.random.default_rng(1), [Entrant(loss) for loss in NAMES]
    prompts = rng.standard_normal(PROMPTS)
    tables = {e: table(-0.7 * (e == names[7]), rng, prompts, 3, 0.0) for e in names}
    tables[names[0]] += np.array([[-0.15], [0.1], [0.35]])  # the first, but of unsteady seeds
    assert racing.beaten(tables, CLUSTERS, 0.05) == (
        names[0],
        {},
    )  # the report would print the last as tied with the first
    steady = {e: tables[e] for e in names[1:]}
    assert set(racing.beaten(steady, CLUSTERS, 0.05)[1]) == {names[7]}


def test_a_metric_is_open_while_several_contend_and_who_was_beaten_on_it_contends_no_more() -> None:
    rng, (mse, snr, l1, l2) = np.random.default_rng(1), [Entrant(name) for name in ("mse", "snr", "l1", "l2")]
    prompts = rng.standard_normal(PROMPTS)

    def scores(**gains: float) -> dict[Entrant, np.ndarray]:
        return {Entrant(name): table(gain, rng, prompts, 3) for name, gain in gains.items()}

    before = {"pesq_wb": [mse, snr, l1, l2], "stoi": [mse, snr, l1, l2]}
    first = {"pesq_wb": scores(mse=0, snr=2, l1=-2, l2=-4), "stoi": scores(mse=2, snr=0, l1=2, l2=-2)}
    left, lost = racing.narrowed(before, first, CLUSTERS, 2)
    assert left == {"stoi": [mse, l1]}  # snr has won the one and lost the other, l2 lost both
    assert {loss: set(own) for loss, own in lost.items()} == {
        mse: {"pesq_wb"}, l1: {"pesq_wb"}, snr: {"stoi"}, l2: {"pesq_wb", "stoi"}
    }  # fmt: skip
    later = {"pesq_wb": scores(mse=4, l1=0), "stoi": scores(mse=0, l1=2)}
    assert racing.narrowed(left, later, CLUSTERS, 2)[0] == {}


def test_the_looks_of_a_race_share_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two losses that are apart at 3 seeds with 5 % to spend, and not with a third or a fifth of that."""
    wave = np.resize([1.0, -1.0], ITEMS)
    stopped = {}
    for seeds in (5, 10, 20):
        gaps = np.resize([0.12, 0.17, 0.22], (seeds, 1)) + 0.001 * wave
        told = races.run(races.Staged({"stoi": {"snr": gaps, "mse": 0 * gaps}}, CLUSTERS), monkeypatch)
        stopped[seeds] = told["mse"]["seeds"]
        assert told["mse"]["beaten"]["stoi"][:2] == ["snr", "fixed"]
        assert told["mse"]["beaten"]["stoi"][2] < 0.05  # adjusted for the looks, as the report reads it
    assert stopped == {5: 3, 10: 4, 20: 4}


@pytest.mark.parametrize("seeds", [10, 20])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
def test_of_equal_losses_a_race_stops_one_in_a_twentieth_of_the_cases_at_most(
    seeds: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And race and report together part some of them in a tenth."""
    rng, repeats, stops, parted = np.random.default_rng(2), 60, 0, 0
    for _ in range(repeats):
        prompts = rng.standard_normal(PROMPTS)
        tables = {loss: table(0.0, rng, prompts, seeds, spread) for loss in NAMES}
        told = races.run(races.Staged({"stoi": tables}, CLUSTERS), monkeypatch)
        stops += any(own["beaten"] for own in told.values())
        parted += bool(races.compare(tables, CLUSTERS, "stoi", told)[2].any())
    assert stops / repeats < 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)
    assert parted / repeats < 0.10 + 2 * np.sqrt(0.10 * 0.90 / repeats)


def test_a_race_of_eight_has_the_first_group_and_the_order_of_the_whole_study_at_half_its_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses that lie apart by a third of the spread over prompts, each tuned by five trainings of a third of the length. The
    groups are those that the report prints of both."""
    rng, cost, tau, same, tuning = np.random.default_rng(3), [], [], 0, 8 * 5 / 3
    for _ in range(50):
        prompts = rng.standard_normal(PROMPTS)
        tables = {loss: table(-0.3 * k, rng, prompts) for k, loss in enumerate(NAMES)}
        told = races.run(races.Staged({"stoi": tables}, CLUSTERS), monkeypatch)
        tied, first, beats, order = races.compare(tables, CLUSTERS, "stoi", None)
        same += (tied, first) == races.compare(tables, CLUSTERS, "stoi", told)[:2]
        seeds = races.had(told)
        cost.append((tuning + sum(seeds.values())) / (tuning + 8 * SEEDS))
        tau.append(races.agreement(tables, seeds, beats, order))
    assert same >= 49
    assert np.mean(cost) <= 0.5
    assert np.mean(tau) >= 0.9


def test_of_the_published_denoisers_a_race_has_the_first_groups_of_the_whole_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve losses of five seeds: under a race that asks only whether anyone is better for certain complex_compressed stops and
    is printed as tied for the first PESQ."""
    scores, clusters = published("denoise")
    told = races.run(races.Staged(scores, clusters), monkeypatch)
    seeds = races.had(told)
    assert sum(own < 5 for own in seeds.values()) >= 5
    for metric, tables in scores.items():
        tied, first, beats, order = races.compare(tables, clusters, metric, None)
        assert races.compare(tables, clusters, metric, told)[:2] == (tied, first)
        assert races.agreement(tables, seeds, beats, order) >= 0.9


def published(study: str) -> tuple[dict[str, races.Tables], list[str]]:
    """metric -> loss -> (seeds, items) of the matched test of a published study, and the cluster of each item."""
    folder = paths.RESULTS / "runs" / study
    made = [run for run in json.loads((folder / "runs.json").read_text())["runs"] if run["tags"]["phase"] == "confirm"]
    seeds = sorted({int(run["tags"]["seed"]) for run in made})
    of = {(run["tags"]["loss"], int(run["tags"]["seed"])): run["tags"]["identity"] for run in made}
    assert len(of) == len(made)
    table = pd.read_parquet(folder / "scores.parquet")
    table = table[table["test_set"] == racing.SET]
    metrics = ("pesq_wb", "estoi", "si_sdr")
    wide = {metric: table.pivot(index="identity", columns="item", values=metric) for metric in metrics}
    losses = dict.fromkeys(loss for loss, _ in of)
    found = {
        metric: {loss: own.loc[[of[loss, seed] for seed in seeds]].to_numpy() for loss in losses}
        for metric, own in wide.items()
    }
    clusters = table.drop_duplicates("item").set_index("item")["cluster"]
    return found, clusters.reindex(wide["estoi"].columns).tolist()


def test_a_look_for_which_a_run_is_missing_stops_nobody_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    prompts = rng.standard_normal(PROMPTS)
    tables = {"snr": table(0.0, rng, prompts), "mse": table(-5.0, rng, prompts)}
    told = races.run(races.Staged({"stoi": tables}, CLUSTERS, failed=("mse",)), monkeypatch)
    assert told["snr"] == told["mse"]
    assert told["snr"]["void"] == {"3": ["mse"], "4": ["mse"], "6": ["mse"]}
    assert races.had(told) == {"snr": 10, "mse": 10}


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
    told = json.loads(marks["l1"] or "")
    (first, weighting, p) = told.pop("beaten")["si_sdr"]
    assert (first in ("snr", "mse"), weighting) == (True, "fixed")
    assert 0 < p < 0.05
    assert told == {"seeds": 3, "of": 8, "looks": [3, 4], "taken": [3], "void": {}}
    for loss in ("snr", "mse"):
        to_the_end = {"of": 8, "looks": [3, 4], "taken": [3, 4], "void": {}, "beaten": {}}
        assert json.loads(marks[loss] or "") == to_the_end
    assert work(race) == []  # asked again, nothing is left

    results = report_runs.read(race.tracker)
    said = " ".join(cautions(results, ranking.analyse(results), race.protocol_digest))
    assert "2 looks of 2 (after 3 and 4 of 8 seeds), each at 2.5 %. Stopped: l1 after 3 seeds." in said
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
    assert "seeds" not in json.loads(known["snr"] or "{}")
    for run in other.search("tags.loss = 'l1' and tags.phase = 'parent'"):  # as where l1 was still in the race
        MlflowClient(other.uri).delete_tag(run.info.run_id, "raced")
    assert imported() == known
