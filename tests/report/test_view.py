import pandas as pd

from harness.report.ranking import analyse
from harness.report.view import View


def test_pages_of_one_title_are_told_apart_by_the_studies_that_asked_for_their_runs(make_results):
    one, other = make_results({"mse": 1.0, "l1": 1.0}, items=6), make_results({"b": 9.0}, items=6, protocol="p2")
    one.runs.loc[one.runs["loss"] == "l1", "asked"] = "perceptual"
    one.runs.loc[(one.runs["loss"] == "l1") & (one.runs["seed"] == 0), "asked"] = ""
    assert View(one, analyse(one), "p1").heading == "denoise / prompts / gru_small"
    one.runs = pd.concat([one.runs, other.runs.assign(asked="goodhart")])
    one.scores = pd.concat([one.scores, other.scores])
    analysis = analyse(one)
    views = [View(one, analysis, protocol) for protocol in ("p1", "p2")]
    assert [view.heading.removeprefix(view.title) for view in views] == [" (quick and perceptual)", " (goodhart)"]
    assert views[0].stem == "denoise-prompts-gru_small-p1"
