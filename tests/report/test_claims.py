"""Every claim holds, fails and cannot be told of results that are made to say so, and real runs go through the command."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.report import claims
from harness.report.blocks import blocks
from harness.report.claims import weights, write
from harness.report.claims.claim import FAILS, HOLDS, NO_RUNS, UNSURE, Finding, Part, verdict
from harness.report.claims.evidence import Evidence
from harness.report.claims.statistics import mean_ranks, resampled_means, trend
from harness.report.ranking import RANKING, Analysis, analyse
from harness.report.view import View
from tests.conftest import Smoke, here

CLAIMS = {claim.id: claim for claim in claims.CLAIMS}


def evidence(results, model="gru_mask", task="denoise"):
    """Without the rankings that claims do not ask for."""
    runs = results.runs
    runs["model"], runs["task"] = model, task
    runs["weighting"] = np.where(runs["role"] == "control", "", "fixed")
    results.scores = results.scores[results.scores["test_set"] == "matched"].drop(
        columns="dnsmos_ovrl", errors="ignore"
    )
    found, empty = list(blocks(results)), pd.DataFrame(columns=RANKING)
    return Evidence(View(results, Analysis(empty, empty, empty, empty, empty, empty, {}, found), "p1"))


def told(name, e):
    """The verdict of one protocol, and its parts."""
    parts = CLAIMS[name].check(e)
    return verdict(parts, CLAIMS[name].several), parts


FAMILY = {"si_sdr": 3.0, "snr": 3.0, "log_mse": 3.0}
PLAIN = {"mse": 1.4, "spectral_mag": 1.2, "stoi": 1.0, "estoi": 0.8, "pmsqe": 0.6}
DOSES = ["si_sdr", "si_sdr + 0.3*pmsqe", "si_sdr + pmsqe", "si_sdr + 3*pmsqe", "pmsqe"]
BY_GAINS = [  # claim, model, loss -> gain in steps (0.3 PESQ, 0.06 ESTOI, 2 dB), verdict
    ("C1", "gru_mask", {"mse": 1.0, "estoi": 2.0, "si_sdr": 1.5}, HOLDS),
    ("C1", "gru_mask", {"mse": 1.0, "estoi": 1.0, "si_sdr": 2.0}, FAILS),
    ("C1", "gru_mask", {"mse": 1.0, "estoi": 1.5, "si_sdr": 1.5}, UNSURE),
    ("C2", "gru_mask", FAMILY | {"pmsqe": 1.5}, HOLDS),
    ("C2", "gru_mask", FAMILY | {"pmsqe": 4.5}, FAILS),
    ("C2", "gru_mask", FAMILY | {"snr": 1.0, "pmsqe": 0.0}, FAILS),  # on top, but no tie
    ("C2", "gru_mask", FAMILY | {"pmsqe": 3.0}, UNSURE),
    ("C3", "gru_mask", {"mse": 1.0, "si_sdr": 1.0, "pmsqe": 2.0}, HOLDS),
    ("C3", "gru_mask", {"mse": 1.0, "si_sdr": 2.0, "pmsqe": 1.0}, FAILS),
    ("C3", "conv_tasnet", {"mse": 1.0, "si_sdr": 2.0, "pmsqe": 0.0}, HOLDS),
    ("C3", "conv_tasnet", {"mse": 1.0, "si_sdr": 2.0, "pmsqe": 3.0}, FAILS),
    ("C3", "conv_tasnet", {"mse": 1.0, "si_sdr": 2.0, "pmsqe": 1.5}, UNSURE),
    ("C5", "conv_tasnet", {"l1": 2.0, "spectral_mag": 0.0}, HOLDS),
    ("C5", "conv_tasnet", {"l1": 2.0, "spectral_mag": 2.5}, FAILS),
    ("C6", "gru_mask", {"l1": 1.0, "l1 + spectral_mag": 2.0}, HOLDS),
    ("C6", "gru_mask", {"l1": 1.0, "l1 + spectral_mag": 0.2}, FAILS),
    ("C6", "gru_mask", {"l1": 1.0, "l1 + spectral_mag": 1.1}, UNSURE),  # the draw of the seeds takes the tenth back
    ("C10", "gru_mask", {"log_mse": 2.0, "si_sdr": 2.0}, HOLDS),
    ("C10", "gru_mask", {"log_mse": 2.0, "si_sdr": 3.0}, FAILS),
    ("C10", "gru_mask", {"log_mse": 2.0, "si_sdr": 2.35}, UNSURE),
    ("C12", "gru_mask", {"deep_feature": 2.0, "deep_feature(network='random')": 1.0, "mel_l1": 2.0}, HOLDS),
    ("C12", "gru_mask", {"deep_feature": 1.0, "deep_feature(network='random')": 2.0}, FAILS),
    ("C12", "gru_mask", {"deep_feature": 1.0, "deep_feature(network='random')": 1.1}, UNSURE),
]


@pytest.mark.parametrize(("name", "model", "gains", "expected"), BY_GAINS)
def test_paired_differences_decide(make_results, name, model, gains, expected):
    found, parts = told(name, evidence(make_results(gains, items=15, noise=0.1), model))
    assert found == expected, parts
    assert parts[0].seeds == 5
    assert parts[0].low < parts[0].value < parts[0].high


def test_losses_that_a_claim_does_not_speak_of_say_nothing_of_it(make_results):
    made = make_results({"mse": 1.0, "rmse": 2.0}, seeds=2, items=6)
    made.throughput, made.tuning = made.throughput.iloc[:0], made.tuning.iloc[:0]
    e = evidence(made)
    assert {name: claim.check(e) for name, claim in CLAIMS.items()} == {name: [] for name in CLAIMS}


@pytest.mark.parametrize(
    ("name", "model"), [("C1", "gru_mask"), ("C3", "gru_mask"), ("C4", "gru_mask"), ("C5", "conv_tasnet")]
)
def test_one_seed_tells_nothing(make_results, name, model):
    made = make_results(PLAIN | {"si_sdr": 3.0, "l1": 2.0}, seeds=1, items=12)
    made.scores["stoi"] = made.scores["estoi"]
    found, parts = told(name, evidence(made, model))
    assert found == UNSURE
    assert np.isnan([parts[0].low, parts[0].high]).all()


def test_pmsqe_has_to_win_with_the_phase_and_to_lose_without_before_the_claim_holds(make_results):
    given, without = (
        told("C3", evidence(make_results({"mse": 1.0, "si_sdr": 2.0, "pmsqe": gain}, items=15), model))
        for model, gain in (("gru_mask", 3.0), ("conv_tasnet", 0.0))
    )
    both = [Finding("p1", "title", found, tuple(parts)) for found, parts in (given, without)]
    assert claims.summed(CLAIMS["C3"], both) == HOLDS
    assert claims.summed(CLAIMS["C3"], both[:1]) == UNSURE
    assert claims.summed(CLAIMS["C3"], []) == NO_RUNS


@pytest.mark.parametrize(("gain", "expected"), [(3.0, HOLDS), (0.0, FAILS)])
def test_the_all_rounder_is_first_or_second_on_average_in_four_of_five_resamples(make_results, gain, expected):
    made = make_results(PLAIN | {"si_sdr": gain}, items=12, noise=0.1)
    made.scores["stoi"] = made.scores["estoi"]
    found, parts = told("C4", evidence(made))
    assert found == expected
    assert parts[0].value == (1 if expected == HOLDS else 6)


def test_mean_ranks_count_ties_half_and_resamples_share_their_seeds_and_prompts_over_metrics():
    assert mean_ranks([[3.0, 1.0, 1.0], [2.0, 1.0, 0.0]]).tolist() == [1, 2.25, 2.75]
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 4, 30))
    prompts = np.repeat(np.arange(10), 3)
    drawn = resampled_means([scores, 2 * scores], [prompts, prompts])
    assert drawn.shape == (2000, 2, 2)
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0])
    assert drawn[:, 0].mean(0) == pytest.approx(scores.mean((1, 2)), abs=0.02)


@pytest.mark.parametrize(
    ("pesq", "si_sdr", "expected"), [(0.5, -0.5, HOLDS), (-0.5, 0.5, FAILS), (0.0, 0.0, UNSURE), (0.5, 0.5, UNSURE)]
)
def test_a_dose_has_a_response_where_pesq_rises_and_si_sdr_falls_with_the_weight(make_results, pesq, si_sdr, expected):
    shift = {(name, "pesq_wb"): pesq * k for k, name in enumerate(DOSES)}
    shift |= {(name, "si_sdr"): si_sdr * k for k, name in enumerate(DOSES)}
    found, parts = told("C7", evidence(make_results(dict.fromkeys(DOSES, 2.0), items=12, shift=shift)))
    assert found == expected
    assert parts[0].value == pytest.approx(0.3 * pesq, abs=0.03)  # a step
    assert "5 weights" in parts[0].what


def test_the_trend_is_the_slope_over_the_order():
    scores = np.arange(4.0)[:, None, None] * np.array([[1.0, 2.0]])
    assert trend(scores).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("learned", "expected"), [(2.95, HOLDS), (1.0, FAILS), (2.6, UNSURE)])
def test_learned_weights_are_held_to_equal_ones_and_to_a_quarter_of_the_gain(make_results, learned, expected):
    grid = {"si_sdr + 0.1*pmsqe": 1.0, "si_sdr + pmsqe": 3.0, "si_sdr + 10*pmsqe": 2.0}
    made = make_results(grid | {"equal": 1.5, "uncertainty": learned}, items=12, noise=0.05)
    made.runs["weighting"] = np.where(made.runs["role"] == "control", "", "fixed")
    for name in ("equal", "uncertainty"):
        made.runs.loc[made.runs["loss"] == name, ["weighting", "loss"]] = [name, "si_sdr + pmsqe"]
    found, parts = told("C8", Evidence(View(made, analyse(made), "p1")))
    assert found == expected, parts
    assert parts[1].value == pytest.approx((3 - learned) / 1.5, abs=0.1)


def _tuned(make_results, tops, height, spread):
    """Losses whose best rate is the given one of three; height: of the best above the worst; spread: of seeds."""
    made = make_results({"mse": 1.0, "l1": 1.0, "si_sdr": 1.0}, seeds=3, items=6)
    rates = [1e-3, 3e-3, 1e-2]
    rows = [
        {"protocol": "p1", "loss": loss, "lr": rate, "score": 0.5 - height * abs(place - top) + 0.001 * k}
        for k, (loss, top) in enumerate(tops.items())
        for place, rate in enumerate(rates)
    ]
    made.tuning = pd.DataFrame(rows)
    trained = made.runs[made.runs["role"] != "control"]
    last = [
        (run, "score", 800, 80.0, 0.5 + spread * (seed - 1)) for run, seed in trained[["run_id", "seed"]].to_numpy()
    ]
    made.curves = pd.DataFrame(last, columns=["run_id", "metric", "step", "seconds", "value"])
    return evidence(made)


@pytest.mark.parametrize(
    ("tops", "height", "spread", "expected"),
    [
        ({"mse": 0, "l1": 1, "si_sdr": 2}, 0.1, 0.01, HOLDS),
        ({"mse": 1, "l1": 1, "si_sdr": 1}, 0.01, 0.1, FAILS),
        ({"mse": 1, "l1": 1, "si_sdr": 1}, 0.1, 0.01, UNSURE),  # rates matter, but one is best for all
        ({"mse": 0, "l1": 1, "si_sdr": 2}, 0.01, 0.1, UNSURE),  # best rates differ by less than seeds do
    ],
)
def test_rates_belong_to_losses_where_each_is_worse_at_the_others_by_more_than_seeds_differ(
    make_results, tops, height, spread, expected
):
    found, parts = told("C9", _tuned(make_results, tops, height, spread))
    assert found == expected, parts
    assert parts[-1].value == pytest.approx(spread)


def test_a_search_in_which_every_draw_has_a_rate_of_its_own_says_nothing_of_rates(make_results):
    of = _tuned(make_results, {"mse": 0, "l1": 1, "si_sdr": 2}, 0.1, 0.01)
    of.view.results.tuning = of.view.results.tuning.assign(searched=True)
    assert weights.rate_matters(of) == []


@pytest.mark.parametrize(("diverged", "expected"), [((), HOLDS), ((("snr", 1),), FAILS)])
def test_a_training_that_met_a_batch_that_was_not_finite_refutes_the_guards(make_results, diverged, expected):
    made = make_results({"mse": 1.0, "snr": 2.0}, seeds=2, items=6, diverged=diverged)
    assert CLAIMS["C11"].check(evidence(made)) == []  # nobody heard noise alone
    made.scores["attenuation"] = made.scores["si_sdr"]
    found, parts = told("C11", evidence(made))
    assert found == expected
    assert parts[0].value == (0.25 if diverged else 0)
    assert ("(snr)" in parts[0].what) == bool(diverged)


@pytest.mark.parametrize(("gain", "expected"), [(0.0, HOLDS), (0.1, FAILS), (0.0102, UNSURE)])
def test_focal_and_cross_entropy_are_compared_where_it_is_least_noisy(make_results, gain, expected):
    made = make_results({"cross_entropy": 0.0, "focal": 0.0}, items=30, noise=0.01)
    clean, focal = made.scores["input_snr"] == 10, made.scores["run_id"].str.contains("focal")
    made.scores["accuracy"] = 0.9 + 0.02 * np.sin(np.arange(len(made.scores))) * ~clean + gain * (clean & focal)
    made.scores["accuracy"] += 0.003 * np.random.default_rng(0).standard_normal(len(made.scores))
    e = evidence(made, "ds_cnn", "keywords")
    found, parts = told("C13", e)
    assert found == expected, parts
    assert parts[0].value == pytest.approx(gain, abs=0.002)
    assert "the cleanest 10 items" in parts[0].what
    e.view.results.imbalance["p1"] = 100.0
    assert CLAIMS["C13"].check(e) == []


@pytest.mark.parametrize(
    ("ratio", "threads", "expected"), [(1.0, 1, HOLDS), (2.0, 1, FAILS), (1.3, 1, UNSURE), (1.0, 2, UNSURE)]
)
def test_costs_are_held_to_published_ones_on_one_thread(make_results, ratio, threads, expected):
    made = make_results({"mse": 1.0, "si_sdr": 1.0, "pmsqe": 1.0}, seeds=2, items=6)
    ratios = {"mse": 1.0, "si_sdr": 3.3, "pmsqe": 53.0 * ratio}
    made.throughput = made.throughput.assign(
        model="gru_mask",
        threads=threads,
        ratio_to_mse=made.throughput["loss"].map(ratios),
        loss_ms=1.0,
        loss_ms_iqr=0.1,
    )
    found, parts = told("C14", evidence(made))
    assert found == expected
    assert parts[0].value == pytest.approx(ratio)
    assert ("beyond 1.3: pmsqe" in parts[0].what) == (ratio == 2.0)


def test_a_verdict_fails_with_any_part_and_with_several_only_with_all():
    one, other, beside = (
        Part("a", FAILS, "pesq_wb", 0.0),
        Part("b", HOLDS, "pesq_wb", 0.0),
        Part("c", "", "pesq_wb", 0.0),
    )
    assert verdict([one, other, beside]) == FAILS
    assert verdict([one, other], several=True) == UNSURE
    assert verdict([one, beside], several=True) == FAILS
    assert verdict([other, beside]) == HOLDS
    assert verdict([beside]) == UNSURE


def test_a_stale_loss_is_no_evidence(make_results):
    made = make_results({"mse": 1.0, "estoi": 2.0}, seeds=2, items=6, stale=("estoi",))
    assert CLAIMS["C1"].check(evidence(made)) == []


def test_page_and_data_tell_verdict_effect_interval_seeds_and_protocol(make_results):
    made = make_results({"mse": 1.0, "log_mse": 2.0, "si_sdr": 3.0}, seeds=3, items=12)
    checked = claims.check(made, analyse(made))
    text = write.page(checked)
    assert "## C10: fails" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| fails ")]
    assert "log\\_mse − si\\_sdr" in row
    assert "denoise / prompts / gru\\_small p1 (preliminary)" in row
    data = {claim["id"]: claim for claim in json.loads(json.dumps(write.data(checked), allow_nan=False))}
    (part,) = data["C10"]["findings"][0]["parts"]
    assert f"−{-part['value']:.2f} SI-SDR dB" in row
    assert part["low"] < part["value"] < part["high"] < 0
    assert part["seeds"] == 3
    assert data["C1"]["verdict"] == NO_RUNS
    spoken = write.lines(checked)
    assert "    no runs: make study STUDY=perceptual" in spoken
    assert any(line.startswith("    fails: log_mse − si_sdr: −") and "; 3 seeds; denoise" in line for line in spoken)
    assert "1 fails, " in write.counted(checked)


@pytest.mark.parametrize("gain", [3.0, 0.0])
def test_a_likely_reason_is_given_where_a_claim_fails_and_only_there(make_results, gain):
    made = make_results(PLAIN | {"si_sdr": gain}, items=12, noise=0.1)
    made.scores["stoi"] = made.scores["estoi"]
    checked = claims.check(made, analyse(made))
    (of,) = [one for one in write.data(checked) if one["id"] == "C4"]
    for text in (of["reason"], write.page(checked), "\n".join(write.lines(checked))):
        assert ("Likely reason: " in text) == (of["verdict"] == FAILS) == (gain == 0.0)


def test_the_command_holds_real_runs_against_the_claims(smoke: Smoke) -> None:
    done = here("claims", "--json", home=smoke.home)
    assert done.returncode == 0, done.stderr
    found = {claim["id"]: claim for claim in json.loads(done.stdout)}
    assert list(found) == [f"C{k}" for k in range(1, 15)]
    assert {claim["verdict"] for claim in found.values()} <= {HOLDS, FAILS, UNSURE, NO_RUNS}
    assert found["C9"]["findings"][0]["title"] == "denoise / prompts / gru_mask"
