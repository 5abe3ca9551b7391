"""What a report says of losses that a race has stopped."""

from harness.report import raced, words
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
    page = render(made, analyse(made))
    assert "race decided after 3 of 5 seeds" in page
    assert (
        "at 1 look (after 3 of 5 seeds), each at 5 %. Stopped: l1 after 3 seeds. 2 of 15 confirming runs were saved"
        in page
    )


def test_a_ranking_is_not_preliminary_for_the_seeds_that_a_race_has_saved():
    made = results()
    assert words.preliminary(made, analyse(made), "p1") == []
    made.runs["raced"] = None
    assert words.preliminary(made, analyse(made), "p1") == ["3 seeds; a full study has 5"]


def test_a_loss_with_more_seeds_than_the_race_gave_it_counts_as_never_dropped():
    runs = named(results(had=4).runs)
    assert raced.notes(runs) == {}
    assert raced.sentence(runs) == ""
