import numpy as np
import pandas as pd
import pytest

from harness.intervals import interval, two_way
from harness.report import fit, markdown
from harness.report.blocks import HEARD
from harness.report.page import pages_of, render
from harness.report.ranking import analyse
from harness.report.runs import TRAINING_LOSS, WEIGHTS

GAINS = {"mse": 1.0, "snr": 1.5}
SCALE = 2.0  # dB of SI-SDR in a step of gain


@pytest.fixture
def heard(make_results):
    """Results whose mismatched set is what training hears, with gains that are greater there by some steps."""

    def make(more: dict[str, float], **options):
        shift = {
            name: dict.fromkeys(("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"), value) for name, value in more.items()
        }
        results = make_results(GAINS, **options)
        scores = results.scores
        scores.loc[scores["test_set"] == "mismatched", "test_set"] = HEARD
        loss = scores["run_id"].map(results.runs.set_index("run_id")["loss"])
        for name in shift:
            rows = (scores["test_set"] == HEARD) & (loss == name)
            scores.loc[rows, "si_sdr"] += SCALE * more[name]
        return results

    return make


def test_the_gap_is_the_difference_of_the_gains_and_its_change_that_to_the_reference(heard):
    rows = {row["loss"]: row for row in fit.gaps(heard({"mse": 2.0, "snr": 1.0}), "p1") if row["metric"] == "si_sdr"}
    assert rows["mse"]["gap"] == pytest.approx(SCALE * 2.0, abs=0.15)
    assert rows["snr"]["gap"] == pytest.approx(SCALE * 1.0, abs=0.15)
    assert rows["snr"]["gap"] == pytest.approx(rows["snr"]["heard"] - rows["snr"]["unheard"])
    assert rows["snr"]["change"] == pytest.approx(rows["snr"]["gap"] - rows["mse"]["gap"])
    assert rows["snr"]["change_high"] < 0
    assert np.isnan(rows["mse"]["change"])  # the reference itself


def test_without_a_set_of_what_training_hears_there_are_no_gaps(make_results):
    results = make_results(GAINS)
    assert fit.gaps(results, "p1") == []
    assert "learned by heart" not in render(results, analyse(results))


def test_what_training_hears_is_never_ranked(heard):
    analysis = analyse(heard({"mse": 2.0}))
    assert set(analysis.ranking["test_set"]) == {"matched"}
    assert set(analysis.pairs["test_set"]) == {"matched"}


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    seeds, items, rounds, truth, held = 5, 120, 400, 0.7, 0
    clusters = np.arange(items) // 2
    for _ in range(rounds):
        seed = rng.standard_normal((2, seeds, 1))
        prompt = rng.standard_normal((2, 1, items // 2)).repeat(2, axis=2)
        scores = 0.5 * seed + prompt + rng.standard_normal((2, seeds, items)) + np.array([truth, 0])[:, None, None]
        low, high = interval(fit.gap(*(two_way(one, clusters) for one in scores)))
        held += bool(low <= truth <= high)
    assert 0.92 <= held / rounds <= 0.98


def test_the_page_tells_the_gaps_and_draws_loss_and_weights(heard):
    results = heard({"mse": 2.0, "snr": 1.0})
    runs = results.runs[results.runs["role"] != "control"]["run_id"]
    results.fitting = pd.DataFrame(
        [(run, metric, step, 1.0) for run in runs for metric in (TRAINING_LOSS, WEIGHTS) for step in (10, 20)],
        columns=["run_id", "metric", "step", "value"],
    )
    page = render(results, analyse(results))
    assert "What was learned by heart" in page
    assert TRAINING_LOSS in page
    assert WEIGHTS in page
    narrower = [row for row in fit.table(results, "p1") if row["narrower"]]
    assert [row["loss"] for row in narrower if row["metric"] == "SI-SDR"] == ["snr"]


def test_the_words_name_the_losses_that_narrow_the_gap_and_the_metrics_on_which_none_does():
    def row(metric, loss, narrower):
        return {"metric": metric, "loss": loss, "narrower": narrower}

    rows = [
        row("SI-SDR", "mse", False),
        row("SI-SDR", "snr", True),
        row("SI-SDR", "l1", True),
        row("ESTOI", "snr", False),
    ]
    words = fit.words(rows)
    assert "on SI-SDR under snr and l1; on ESTOI no loss narrows it." in words
    assert fit.words([rows[0], rows[3]]) == "No loss narrows the gap for certain (95 %)."


def test_a_page_in_markdown_tells_the_gaps_too(heard):
    results = heard({"mse": 2.0, "snr": 1.0})
    (page,) = pages_of(results, analyse(results), None)
    text = markdown.protocol(page)
    _, found = text.split("## What was learned by heart")
    words, rest = found.strip().split("\n", 1)
    assert "under the reference loss on SI-SDR under snr" in words
    row = next(one for one in fit.table(results, "p1") if one["narrower"] and one["metric"] == "SI-SDR")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest.splitlines() if line.startswith("| snr")]
    keys = ("heard", "unheard", "gap", "interval", "change", "change_interval")
    assert ["snr", "SI-SDR", *(markdown.escaped(row[key]) for key in keys)] in cells
