"""Balances of combinations and searches: what is read from MLflow, and what the page says of it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness import outbox
from harness.report import cautions, page, search, searched
from harness.report.ranking import analyse
from harness.report.view import View
from harness.tracking import Tracker
from tests.report.test_page import Tags

GRID = {"si_sdr + 0.1*pmsqe": 1.0, "si_sdr + pmsqe": 3.0, "si_sdr + 10*pmsqe": 2.0}
PAIR = "si_sdr + pmsqe"


@pytest.fixture(scope="module")
def results(make_results):
    """A grid of fixed weights, the same pair made equal (worse than the best) and learned (nearly as good), and a search."""
    learned = {"equal": 1.5, "uncertainty": 2.7}
    made = make_results({"mse": 0.5, **GRID, **learned}, seeds=3, items=12, noise=0.02)
    runs = made.runs
    runs["weighting"] = np.where(runs["role"] == "control", "", "fixed")
    for name in learned:
        runs.loc[runs["loss"] == name, ["weighting", "loss"]] = [name, PAIR]
    weights = []
    for run in runs[runs["weighting"] == "uncertainty"]["run_id"]:
        for step in range(20, 801, 20):
            moved = 0.1 if step > 720 else 1.0  # the last tenth
            weights += [(run, step, "weight", "si_sdr", 0.02), (run, step, "weight", "pmsqe", 0.2 * moved)]
            weights += [(run, step, "log_variance", "si_sdr", 3.0), (run, step, "log_variance", "pmsqe", 1.0)]
    of = {"protocol": "p1", "loss": "mse", "weighting": "fixed"}
    trials = [
        of | {"trial": k, "name": name, "value": value, "score": np.nan if k == 3 else 0.1 * k, "chosen": k == 2}
        for k in range(4)
        for name, value in (("lr", 10.0**-k), ("w2", 2.0**k))
    ]
    made.search = searched.Found(
        weights=pd.DataFrame(weights, columns=searched.COLUMNS["weights"].split()),
        trials=pd.DataFrame(trials),
        importances=pd.DataFrame([of | {"name": "lr", "share": 0.8}, of | {"name": "w2", "share": 0.2}]),
        edges=pd.DataFrame([of | {"name": "w2"}]),
        fronts=pd.DataFrame(
            [
                of | {"setting": "lr=0.01", "objective": name, "value": v}
                for name, v in (("pesq_wb", 2.5), ("stoi", 0.9))
            ]
        ),
    )
    return made


@pytest.fixture(scope="module")
def view(results):
    return View(results, analyse(results), "p1")


def test_fixed_weights_lie_where_they_are_written_and_learned_ones_where_they_end(view):
    table = search.balances(view)
    ratio = table.drop_duplicates("name").set_index("name")["ratio"]
    assert ratio["si_sdr + 0.1*pmsqe"] == pytest.approx(0.1)
    assert ratio["si_sdr + 10*pmsqe"] == pytest.approx(10)
    assert ratio[f"{PAIR} (fixed)"] == 1
    assert ratio[f"{PAIR} (uncertainty)"] == pytest.approx(0.02 / 0.02)
    assert np.isnan(ratio[f"{PAIR} (equal)"])  # whose weights nobody followed
    assert set(table["group"]) == {PAIR}
    assert "mse" not in ratio


def test_the_page_shows_sensitivity_regret_weights_trials_importances_and_front(results, view, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", [section for section in page.SECTIONS if section.name == "balance"])
    text = Tags(page.render(results, view.analysis)).text
    for words in (
        "Weights and searches", "weight of pmsqe over that of si_sdr", "Regret", "quality", "log-variance", "Search: mse",
        "lr 80 %, w2 20 %", "lr 0.01, w2 4", "Front: mse",
        "The best w2 lies at an end of what was searched for mse.", "lr=0.01", "2.50",
    ):  # fmt: skip
        assert words in text, words


def test_settings_of_a_weighting_that_were_not_searched_are_told_until_they_are(results, view):
    def said(found):
        return [line for line in cautions.cautions(found, view.analysis, "p1") if line.startswith("Not searched")]

    assert said(results) == ["Not searched, but left as shipped: rate of uncertainty."]
    row = {
        "protocol": "p1",
        "loss": PAIR,
        "weighting": "uncertainty",
        "trial": 9,
        "name": "weighting.rate",
        "value": 3.0,
    }
    trials = pd.concat([results.search.trials, pd.DataFrame([row])])
    assert said(replace(results, search=replace(results.search, trials=trials))) == []


def test_a_page_without_combinations_and_searches_has_no_such_section(make_results):
    made = make_results({"mse": 1.0, "si_sdr": 2.0}, seeds=2, items=6)
    assert search.section(View(made, analyse(made), "p1")) == {}


def test_weights_and_trials_are_read_from_the_store(tmp_path):
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    shared = {"protocol": "p", "loss": "mse + l1", "weighting": "searched", "study": "s"}
    parent = outbox.Parent("mse + l1", "parent", shared)
    for number, (lr, state) in enumerate(((0.01, "finished"), (0.1, "pruned"))):
        tags = shared | {"phase": "tune", "identity": f"tune {number}"}
        record = outbox.Record(tracker, "denoise", "tune", parent, tags, {"lr": lr, "w2": 3.0, "seed": 0})
        record.log([("validation/score", 0.4, 10)])
        record.close(state if state in searched.SETTLED else "diverged")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    steps = np.arange(1, 121)
    table = pd.DataFrame({"step": steps, "total": 1.0, "mse": 1.0, "weight/mse": 1.0, "weight/l1": steps / 120})
    table.to_csv(folder / "training.csv", index=False)
    tags = shared | {"phase": "confirm", "identity": "confirm", "seed": "1"}
    record = outbox.Record(tracker, "denoise", "confirm", parent, tags, {"lr": 0.01, "w2": 3.0})
    record.close("finished", folder)
    front = [{"values": {"lr": 0.01, "w2": 3.0}, "objectives": {"stoi": 0.9}}]
    selected = {"lr": 0.01, "tuning": "tuned", "scores": {}, "values": {"w2": 3.0}, "front": front}
    outbox.mark(tracker, "denoise", parent, selected=json.dumps(selected))

    runs = [run for run in tracker.search() if run.data.tags.get("phase")]
    found = searched.read(tracker, runs, [run for run in runs if run.data.tags["phase"] == "confirm"])
    trials = found.trials.set_index(["name", "value"])
    assert trials.loc[("lr", 0.01), "score"] == 0.4
    assert np.isnan(trials.loc[("lr", 0.1), "score"])
    assert list(trials.loc["lr", "chosen"]) == [value == 0.01 for value in trials.loc["lr"].index]
    assert set(found.trials["name"]) == {"lr", "w2"}
    weights = found.weights[found.weights["term"] == "l1"].sort_values("step")
    assert len(weights) == searched.POINTS
    assert weights["value"].iloc[-1] == pytest.approx(119.5 / 120)
    assert set(found.weights["what"]) == {"weight"}
    assert found.fronts.to_dict("records") == [
        {
            "protocol": "p",
            "loss": "mse + l1",
            "weighting": "searched",
            "setting": "lr=0.01, w2=3",
            "objective": "stoi",
            "value": 0.9,
        }
    ]
