import re

import numpy as np
import pandas as pd
import pytest

from harness.report import cost, verdict
from harness.report.ranking import analyse
from harness.report.view import View

GAINS = {"mse": 1.0, "si_sdr": 2.0, "twin": 2.0, "dear": 1.0}
STEPS = {"mse": 20.0, "si_sdr": 26.0, "twin": 20.0, "dear": 62.0}


@pytest.fixture(scope="module")
def view(make_results):
    results = make_results(GAINS, items=18, seeds=4, noise=0.05)
    results.scores.loc[
        results.scores["run_id"].eq("p1-dear-1") & results.scores["item"].eq("matched-003"), "floored"
    ] = "pesq_wb"
    steps = results.throughput["loss"].map(STEPS)
    results.throughput = results.throughput.assign(step_ms=steps, step_ratio=steps / STEPS["mse"], model="gru_small")
    other = results.throughput.assign(model="another", step_ms=1.0)  # of another net: no word of it
    results.throughput = pd.concat([results.throughput, other], ignore_index=True)
    results.runs.loc[results.runs["loss"] == "twin", "commit"] = "fff"
    return View(results, analyse(results), "p1")


def test_the_best_is_named_with_its_gain_and_what_ties_with_it(view):
    said = verdict.sentences(view)[0]
    best, other = ("si_sdr", "twin") if "is si_sdr (" in said else ("twin", "si_sdr")
    gains = view.analysis.gains.set_index(["test_set", "metric", "loss"])["gain"]
    gain = f"+{gains['matched', 'pesq_wb', best]:.2f}"
    assert said == (
        f"On denoise / prompts / gru_small the best loss for PESQ-WB is {best} ({gain} over unprocessed); {other} is tied with it."
    )


def test_ties_are_told_of_every_metric_and_where_all_tie_none_is_called_the_first(view, make_results):
    said = " ".join(verdict.sentences(view))
    assert re.search(r"for SI-SDR it is (si_sdr|twin) \(\+\d\.\d\d over unprocessed\), tied with (twin|si_sdr)", said)
    same = make_results(dict.fromkeys(("mse", "l1", "l2"), 1.0), seeds=3, items=12, noise=2.0)
    told = " ".join(verdict.sentences(View(same, analyse(same), "p1")))
    assert "for ESTOI it is" in told or "For ESTOI it is" in told
    assert ", tied with 2 others" in told
    assert "Nothing parts the losses over PESQ-WB, " in told
    assert "first" not in told


def test_what_costs_more_is_said_with_what_it_brought(view):
    said = " ".join(verdict.sentences(view))
    assert "dear costs 3.1 × the step for no measurable gain over mse" in said
    assert "1.0 ×" not in said  # what costs nothing more is not worth a word


def test_what_is_missing_is_counted(view):
    assert verdict.sentences(view)[-1] == (
        "To bear in mind: the ranking is preliminary, 1 score that fell to its floor and 2 versions of the code."
    )


def test_without_scores_there_is_no_answer(make_results):
    results = make_results({"mse": 1.0}, items=6, seeds=1, diverged=(("mse", 0),))
    results.runs = results.runs[results.runs["role"] != "control"]
    assert verdict.sentences(View(results, analyse(results), "p1")) == []


def test_ratios_are_to_the_pages_own_reference_on_the_same_device():
    rows = [("cross_entropy", "cpu", 4.0, 10.0), ("focal", "cpu", 6.0, 15.0), ("focal", "NVIDIA H100", 2.0, 1.0)]
    table = pd.DataFrame(rows, columns=["loss", "device", "ratio_to_mse", "step_ms"]).assign(
        threads="2", dtype="float32", model="ds_cnn", step_ratio=[2.0, 3.0, 1.5]
    )
    found = cost.measured(table, "ds_cnn", "cross_entropy").set_index(["device", "loss"])
    assert found.loc[("cpu", "focal"), ["loss_ratio", "step_ratio", "rank"]].tolist() == [1.5, 1.5, 2]
    assert np.isnan(found.loc[("NVIDIA H100", "focal"), "step_ratio"])
    assert cost.measured(table, "crnn", "cross_entropy").empty


def test_devices_stand_side_by_side_and_a_missing_gpu_is_said():
    rows = [("a", "NVIDIA H100", 1.0), ("a", "cpu", 9.0), ("b", "cpu", 8.0)]
    table = pd.DataFrame(rows, columns=["loss", "device", "step_ms"]).assign(
        threads=1, dtype="float32", ratio_to_mse=1.0
    )
    for name in ("loss_ms", "updates_per_s", "audio_s_per_s", "peak_mib"):
        table[name] = 1.0
    made = cost.table(cost.measured(table, "any", ""), "")
    assert made["places"] == ["cpu, 1 thread, float32", "NVIDIA H100, 1 thread, float32"]
    assert [loss for loss, _ in made["rows"]] == ["b", "a"]
    width = len(made["heads"])
    assert dict(made["rows"])["a"][0::width] == ["2", "1"]  # places on the one and on the other
    assert dict(made["rows"])["b"][width:] == ["–"] * width
    assert made["gpu"]
    assert not cost.table(cost.measured(table[table["device"] == "cpu"], "any", ""), "")["gpu"]
