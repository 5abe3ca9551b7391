"""Regret with its interval: against the closed form, in a simulation with a known answer, and as the report shows it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.report import markdown, page, quality, regret, search
from harness.report.ranking import analyse
from harness.report.view import View

GRID = {"si_sdr + 0.1*pmsqe": 1.0, "si_sdr + pmsqe": 3.0, "si_sdr + 10*pmsqe": 2.0}
PAIR = "si_sdr + pmsqe"


def made_of(make_results, learned, noise=0.05, seeds=3):
    """A grid of fixed weights beside the same pair under other weightings. learned: weighting -> gain."""
    made = make_results({"mse": 0.5, **GRID, **learned}, seeds=seeds, items=24, noise=noise)
    made.runs["weighting"] = np.where(made.runs["role"] == "control", "", "fixed")
    for name in learned:
        made.runs.loc[made.runs["loss"] == name, ["weighting", "loss"]] = [name, PAIR]
    made.curves = made.tuning = made.curves.iloc[:0]
    return View(made, analyse(made), "p1")


@pytest.fixture(scope="module")
def view(make_results):
    return made_of(make_results, {"equal": 1.5, "uncertainty": 2.7})


def test_with_one_random_factor_the_interval_is_the_textbook_one_of_fieller():
    rng = np.random.default_rng(3)
    part, whole = 0.3 + rng.standard_normal(40), 2.0 + rng.standard_normal(40)
    found = regret.share(np.stack([part, part]), np.stack([whole, whole]), np.arange(40))
    t2 = stats.t.ppf(0.975, 39) ** 2 / 40
    (pp, pw), (_, ww) = np.cov(part, whole)
    a, b, c = whole.mean() ** 2 - t2 * ww, part.mean() * whole.mean() - t2 * pw, part.mean() ** 2 - t2 * pp
    root = np.sqrt(b * b - a * c)
    assert found.value == pytest.approx(part.mean() / whole.mean())
    assert (found.low, found.high) == pytest.approx(((b - root) / a, (b + root) / a), abs=1e-5)


def test_without_any_variance_the_interval_is_the_ratio():
    found = regret.share(np.full((3, 6), 0.5), np.full((3, 6), 2.0), np.arange(6))
    assert found == pytest.approx((0.25, 0.25, 0.25))


def test_one_seed_gives_a_ratio_and_no_interval():
    value, low, high = regret.share(np.full((1, 6), 0.5), np.full((1, 6), 2.0), np.arange(6))
    assert value == 0.25
    assert np.isnan([low, high]).all()


def test_there_is_no_ratio_to_what_may_be_nothing():
    rng = np.random.default_rng(0)
    part, whole = rng.standard_normal((2, 5, 30))
    assert np.isnan(regret.share(part, whole, np.arange(30))).all()
    assert np.isnan(regret.share(part, whole - 5, np.arange(30))).all()  # the grid is worse than equal
    assert np.isfinite(regret.share(part, whole + 5, np.arange(30))).all()


def test_the_interval_holds_the_true_ratio_nineteen_times_in_twenty():
    """Seeds and prompts shift each of three trainings by themselves; the best of the grid is the same in truth as in the draw."""
    rng, held, count = np.random.default_rng(11), 0, 250
    prompts = np.repeat(np.arange(40), 3)
    gains = np.array([2.0, 1.7, 0.8])  # best, learned, equal: a regret of 0.25
    for _ in range(count):
        by_seed = 0.25 * rng.standard_normal((3, 5, 1))
        by_prompt = 0.4 * rng.standard_normal((3, 1, 40))[..., prompts]
        top, mine, zero = gains[:, None, None] + by_seed + by_prompt + 0.5 * rng.standard_normal((3, 5, 120))
        _, low, high = regret.share(top - mine, top - zero, prompts)
        held += low <= 0.25 <= high
    assert 0.92 <= held / count <= 0.98


def test_a_row_tells_what_is_left_behind_of_what_the_best_weight_wins_over_equal(view):
    rows = regret.table(view, search.balances(view))
    assert set(rows["name"]) == {f"{PAIR} (uncertainty)"}
    assert set(rows["best"]) == {f"{PAIR} (fixed)"}
    assert rows["metric"].tolist() == 2 * [quality.QUALITY, *view.headline]
    means = view.ranking.set_index(["test_set", "metric", "loss"])["mean"]
    own = rows[rows["metric"] == "si_sdr"].set_index("test_set").loc["matched"]
    best, learned, equal = (means["matched", "si_sdr", f"{PAIR} ({w})"] for w in ("fixed", "uncertainty", "equal"))
    assert own["regret"] == pytest.approx((best - learned) / (best - equal))
    assert own["low"] < 0.2 < own["high"]  # the truth: (3 - 2.7) / (3 - 1.5)
    assert own["seeds"] == 3


def test_quality_counts_each_metric_as_its_share_of_the_way_to_the_oracle(view):
    own = {b.metric: b for b in view.analysis.blocks if b.test_set == "matched"}
    block = quality.quality(list(own.values()), "denoise")
    shares = [
        (own[m].losses["mse"].mean(axis=None) - own[m].controls["unprocessed"].mean(axis=None))
        / (own[m].controls[oracle].mean(axis=None) - own[m].controls["unprocessed"].mean(axis=None))
        for m, oracle in (("pesq_wb", "oracle_mask"), ("estoi", "oracle_mask"), ("si_sdr", "oracle_psm"))
    ]
    assert block.losses["mse"].to_numpy().mean() == pytest.approx(np.mean(shares))
    assert quality.quality([own["pesq_wb"], own["estoi"]], "denoise") is None


def test_where_the_grid_does_not_beat_equal_regret_is_undefined_and_said_to_be(make_results):
    tied = made_of(make_results, {"equal": 3.0, "dwa": 1.9}, noise=0.3)
    rows = regret.as_text(regret.table(tied, search.balances(tied)))
    assert rows
    assert {row["share"] for row in rows} == {"undefined: the grid does not beat equal"}


def test_html_markdown_and_a_file_of_numbers_show_it(view, tmp_path):
    page.write_report(view.results, tmp_path, view.analysis)
    (text,) = [path.read_text() for path in tmp_path.glob("denoise-*.md")]
    lines = [line for line in text.splitlines() if line.startswith("| si\\_sdr + pmsqe ") and "| matched " in line]
    row = next(line for line in lines if "| SI-SDR " in line and " − " not in line.split("|")[1])
    numbers = pd.read_csv(tmp_path / "regret.csv").set_index(["test_set", "metric"]).loc[("matched", "si_sdr")]
    shown = f"{numbers['regret']:.2f} [{numbers['low']:.2f}, {numbers['high']:.2f}]".replace("-", "−")
    assert markdown.escaped(shown) in row
    assert shown in next(tmp_path.glob("denoise-*.html")).read_text()
