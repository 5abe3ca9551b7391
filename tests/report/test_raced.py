"""What a report says of losses that a race has stopped."""

import re

import numpy as np
import pytest

from harness.intervals import holm
from harness.report import cautions, page, raced, words
from harness.report.blocks import named
from harness.report.page import render
from harness.report.ranking import analyse
from tests.report.conftest import synthetic


def results(had: int = 3):
    made = synthetic({"mse": 1.0, "snr": 1.4, "l1": -1.0}, seeds=5, items=6)
    late = (made.runs["loss"] == "l1") & (made.runs["seed"] > had - 1)
    gone = made.runs.loc[late, "run_id"]
    made.runs, made.scores = made.runs[~late.fillna(False)].copy(), made.scores[~made.scores["run_id"].isin(gone)]
    told = {"seeds": 3, "of": 5, "looks": [3]}
    made.runs["raced"] = [told if loss == "l1" else None for loss in made.runs["loss"]]
    return made


def test_who_is_out_is_marked_and_what_that_saved_is_told():
    made = results()
    shown = render(made, analyse(made))
    assert "race decided after 3 of 5 seeds" in shown
    assert (
        "1 look of 1 (after 3 of 5 seeds), each at 5 %. Stopped: l1 after 3 seeds. 2 of 15 confirming runs were saved"
        in shown
    )


def test_a_ranking_is_not_preliminary_for_the_seeds_that_a_race_has_saved():
    made = results()
    assert words.preliminary(made, analyse(made), "p1") == []
    made.runs["raced"] = None
    assert words.few_seeds(made, "p1") == {"l1": 3}


def test_of_a_table_in_which_some_have_all_seeds_those_with_fewer_are_preliminary_alone(make_results, tmp_path):
    made = make_results({"mse": 1.0, "snr": 1.2, "l1": 1.1}, items=12)
    drop = made.runs["run_id"].isin(["p1-l1-3", "p1-l1-4"])
    made.runs, made.scores = made.runs[~drop], made.scores[~made.scores["run_id"].isin(["p1-l1-3", "p1-l1-4"])]
    analysis = analyse(made)
    assert words.preliminary(made, analysis, "p1") == []
    (said,) = [line for line in cautions.cautions(made, analysis, "p1") if line.startswith("Preliminary")]
    assert said.startswith("Preliminary is what the table says of l1: 3 seeds, where the others have 5 or more")
    page.write_report(made, tmp_path, analysis)
    (text,) = (path.read_text("utf-8") for path in tmp_path.glob("denoise-*.md"))
    assert "(preliminary)" not in text
    assert re.search(r"^\| l1 +\| finished; preliminary, 3 seeds +\|", text, re.M)
    assert re.search(r"^\| mse +\| finished; reference, not retuned +\|", text, re.M)
    made.runs = made.runs[made.runs["seed"].isna() | (made.runs["seed"] < 3)]
    assert words.preliminary(made, analyse(made), "p1") == ["3 seeds; a full study has 5"]


def test_a_loss_with_more_seeds_than_the_race_gave_it_counts_as_never_dropped():
    runs = named(results(had=4).runs)
    assert raced.notes(runs) == {}
    assert raced.sentences(runs) == []
    assert raced.decided(runs) is None


def told_to_all(made, **of_all):
    """The same where nobody was stopped, as each entrant of the race was told."""
    made.runs["raced"] = [
        {"of": 10, "looks": [3, 4, 6], "taken": [3, 4, 6], "void": {}, "beaten": {}} | of_all
        if role != "control"
        else None
        for role in made.runs["role"]
    ]
    return made


def test_a_race_that_stopped_nobody_is_told_too_and_which_looks_saw_nothing():
    made = told_to_all(synthetic({"mse": 1.0, "snr": 1.1}, seeds=10, items=6), void={"3": ["snr"], "4": []})
    said = " ".join(cautions.cautions(made, analyse(made), "p1"))
    assert (
        "3 looks of 3 (after 3, 4 and 6 of 10 seeds), each at 1.7 %. Stopped: nobody. 0 of 20 confirming runs" in said
    )
    assert "The look after 3 seeds was void: no finished runs of snr." in said
    assert "The look after 4 seeds was void: no scores to compare." in said
    assert "tenth" not in said  # nothing in the tables rests on it


def test_what_rests_on_the_seeds_of_a_stopped_reference_is_told():
    made = results()
    made.runs["raced"] = [
        {"seeds": 3, "of": 5, "looks": [3]} if loss in ("l1", "mse") else None for loss in made.runs["loss"]
    ]
    late = (made.runs["loss"] == "mse") & (made.runs["seed"] > 2)
    made.runs = made.runs[~late.fillna(False)].copy()
    shown = render(made, analyse(made))
    assert "reference, not retuned; race decided after 3 of 5 seeds" in shown
    said = raced.sentences(named(made.runs))[1]
    assert said.endswith("What is said against the reference mse rests on its 3 seeds.")
    assert "false of a metric in at most 10 % of studies" in said


def test_a_raced_study_has_its_reliability_of_the_pairs_with_seeds_enough():
    made = results()
    analysis = analyse(made)
    rows = analysis.reliability[analysis.reliability["metric"] == "estoi"]
    assert (rows["tau"] > 0.9).all()  # mse and snr, who have their five seeds
    assert (rows["judged"] < rows["separated"]).all()
    assert "of them with at least 4 seeds in common)" in render(made, analysis)
    made.runs = made.runs[made.runs["loss"] != "snr"].copy()
    said = " ".join(cautions.cautions(made, analyse(made), "p1"))
    assert "of no pair that is apart the race has left 4 seeds in common" in said


def race(looks=3, **beaten):
    return raced.Decided(looks, frozenset("cd"), {"estoi": {("a", loss): p for loss, p in beaten.items()}})


PAIRS = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
P = np.array([0.012, 0.004, 0.02, 0.04, 0.3, 0.2])


def test_a_pair_that_the_race_decided_keeps_its_verdict_and_leaves_the_family():
    adjusted, levels = raced.judged(P, PAIRS, race(c=0.03), "matched", "estoi")
    assert adjusted[1] == 0.03
    assert levels[1] == pytest.approx(0.05 * 0.004 / 0.03)  # at which an interval of p = 0.004 just excludes 0 as much
    assert adjusted[0] == pytest.approx(0.012 * 4.1)  # of four whole pairs and one of a tenth; 0.072 of all six
    assert (levels < P).tolist() == [False, False, True, True, True, True]


def test_a_decided_pair_is_judged_with_the_rest_where_later_seeds_have_made_it_uncertain():
    adjusted, _ = raced.judged(P, PAIRS, race(d=0.03), "matched", "estoi")
    assert adjusted[2] == pytest.approx(0.02 * 3.1)  # 3 looks at 0.02 are above 5 %: like any other pair


@pytest.mark.parametrize(("test_set", "metric"), [("matched", "pesq_wb"), ("mismatched", "estoi")])
def test_what_was_not_raced_on_is_judged_as_ever(test_set, metric):
    assert np.array_equal(raced.judged(P, PAIRS, race(c=0.03), test_set, metric), holm(P))
    assert np.array_equal(raced.judged(P, PAIRS, None, "matched", "estoi"), holm(P))
