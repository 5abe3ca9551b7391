"""Whether a weighting beats equal weights, and a learned one its own end: pairs, intervals and what the page says of them."""

import numpy as np
import pytest

from harness.report import markdown, page, regret, search, versus_equal
from harness.report.ranking import analyse
from harness.report.view import View

PAIR, THREE = "si_sdr + pmsqe", "si_sdr + pmsqe + mel_l1"
ENDED = "frozen(weights=(1, 0.4))"


def view_of(make_results, gains, noise=0.02):
    """gains: (loss, weighting) -> gain."""
    made = make_results({f"{loss}|{how}": gain for (loss, how), gain in gains.items()}, seeds=3, items=24, noise=noise)
    runs = made.runs
    trained = runs["role"] != "control"
    runs["weighting"] = np.where(trained, runs["loss"].str.split("|").str[-1], "")
    runs.loc[trained, "loss"] = runs.loc[trained, "loss"].str.split("|").str[0]
    runs["frozen_of"] = np.where(runs["weighting"] == ENDED, "uncertainty", "")
    made.curves = made.tuning = made.curves.iloc[:0]
    return View(made, analyse(made), "p1")


@pytest.fixture(scope="module")
def view(make_results):
    of_two = {"fixed": 1.0, "equal": 4.0, "uncertainty": 7.0, "dwa": 4.0, ENDED: 10.0, "uncertainty(rate=3)": 7.0}
    gains = {(PAIR, how): gain for how, gain in of_two.items()} | {("si_sdr + 10*pmsqe", "fixed"): 12.0}
    return view_of(make_results, gains | {(THREE, "equal"): 1.0, (THREE, "searched"): 4.0, ("mse", "fixed"): 0.5})


@pytest.fixture(scope="module")
def rows(view):
    return versus_equal.table(search.balances(view), regret.blocks(view))


def test_each_weighting_and_the_plain_sum_are_held_to_equal_and_a_learned_one_to_the_weights_it_ended_on(rows):
    found = rows.drop_duplicates(["a", "b"])
    equal = set(found.loc[(found["judges"] == "equal") & (found["group"] == PAIR), "a"])
    others = ["fixed", "uncertainty", "dwa", "frozen, of uncertainty", "uncertainty(rate=3)"]
    assert equal == {f"{PAIR} ({how})" for how in others}  # and not 10*pmsqe, of a grid
    (frozen,) = found[found["judges"] == "frozen"].itertuples()
    assert (frozen.a, frozen.b) == (f"{PAIR} (uncertainty)", f"{PAIR} (frozen, of uncertainty)")
    (three,) = found[found["group"] == THREE].itertuples()  # which has no grid, and so no regret
    assert (three.a, three.b, three.judges) == (f"{THREE} (searched)", f"{THREE} (equal)", "equal")


def test_differences_are_those_that_were_put_in_with_their_signs(rows):
    steps = rows[(rows["metric"] == "si_sdr") & (rows["test_set"] == "matched")].set_index(["a", "judges"])
    unit = steps.loc[(f"{THREE} (searched)", "equal"), "diff"]  # three steps
    wanted = {"fixed": -1.0, "uncertainty": 1.0, "dwa": 0.0, "frozen, of uncertainty": 2.0}
    for how, gain in wanted.items():
        row = steps.loc[(f"{PAIR} ({how})", "equal")]
        assert row["diff"] / unit == pytest.approx(gain, abs=0.2), how
        assert row["sure"] == (gain != 0), how
        assert (row["low"] > 0 or row["high"] < 0) == row["sure"]
    assert steps.loc[(f"{PAIR} (uncertainty)", "frozen"), "diff"] / unit == pytest.approx(-1, abs=0.2)


def test_it_is_said_what_beats_equal_and_what_cannot_be_told_from_it(view, rows):
    balanced = search.balances(view)
    said = versus_equal.sentences(rows, dict(zip(balanced["name"], balanced["shown"], strict=True)))
    assert said == [
        "si_sdr + pmsqe, beside equal weights (quality, matched items): uncertainty, frozen, of uncertainty and "
        "uncertainty(rate=3) are better for certain; fixed is worse for certain; dwa cannot be told from them.",
        "si_sdr + pmsqe, beside the weights that it ended on, frozen from the start (quality, matched items): uncertainty is "
        "worse for certain.",
        "si_sdr + pmsqe + mel_l1, beside equal weights (quality, matched items): searched is better for certain.",
    ]


def test_one_seed_tells_nothing_for_certain(make_results):
    view = view_of(make_results, {(PAIR, "equal"): 1.0, (PAIR, "dwa"): 3.0, ("mse", "fixed"): 0.5})
    view.results.runs = view.results.runs[~(view.results.runs["seed"] > 0).fillna(False)]
    alone = View(view.results, analyse(view.results), "p1")
    found = versus_equal.as_text(versus_equal.table(search.balances(alone), regret.blocks(alone)))
    assert {(row["verdict"], row["interval"]) for row in found} == {("cannot tell", "unknown")}


def test_the_page_shows_it_as_html_and_as_markdown(view):
    html = page.render(view.results, view.analysis)
    (made,) = page.pages_of(view.results, view.analysis, None)
    text = markdown.protocol(made)
    pair = f"{PAIR} (uncertainty) − {PAIR} (frozen, of uncertainty)"
    assert pair in html
    assert markdown.escaped(pair) in text
    assert "searched is better for certain" in html
    assert "searched is better for certain" in text
    assert ENDED not in text


def test_every_weighting_has_a_mark_of_its_own_in_the_picture_of_sensitivity(view):
    names = [
        "fixed",
        "equal",
        "equal_grad",
        "searched",
        "uncertainty",
        "dwa",
        "gradnorm",
        "frozen, of dwa",
        "frozen, of gradnorm",
    ]
    rows = search.balances(view)
    rows = (
        rows[rows["metric"] == "si_sdr"]
        .iloc[[0] * len(names)]
        .assign(shown=names, ratio=np.geomspace(0.1, 10, len(names)))
    )
    rows["weighting"] = [name.partition(",")[0] for name in names]
    drawn = search.search_plots.sensitivity(rows.assign(group=PAIR)).decode()
    for name in names:
        assert f">{name}<" in drawn, name
