"""Equal time, read from a real store into which the runs were written as a study writes them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.report import equal_time, page, runs
from harness.report.ranking import analyse
from harness.report.view import View
from harness.tracking import Tracker
from tests.stored import write

INF = float("inf")
GAINS = {"confirm": {"mse": 1.0, "si_sdr": 2.0}, "equal_time": {"mse": 2.0, "si_sdr": 0.5}}
UPDATES = {"confirm": {"mse": 100, "si_sdr": 100}, "equal_time": {"mse": 100, "si_sdr": 40}}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    home = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(home))
        (home / "runs").mkdir()
        tracker = Tracker()
        write(tracker, home / "0", "unprocessed", "control", None, 0.0, 0)
        for phase, gains in GAINS.items():
            for loss, gain in gains.items():
                for seed in (1, 2) if phase == "confirm" else (11, 12):
                    folder = home / f"{phase}-{loss}-{seed}"
                    write(
                        tracker,
                        folder,
                        loss,
                        phase,
                        seed,
                        gain,
                        UPDATES[phase][loss],
                        "other" if seed == 2 else "quick",
                    )
        write(tracker, home / "other-rate", "mse", "equal_time", 11, 9.0, 100, lr=0.01)  # not what was selected
        return runs.read(tracker)


@pytest.fixture(scope="module")
def shown(results):
    return equal_time.section(View(results, analyse(results), "p1", analyse(results.equal_time)))


def test_runs_of_equal_time_are_ranked_apart_and_by_the_selected_setting(results):
    assert sorted(results.runs["seed"].dropna()) == [1, 1, 2, 2]
    assert sorted(results.equal_time.runs["seed"].dropna()) == [11, 11, 12, 12]
    ranking = analyse(results.equal_time).ranking
    means = ranking[ranking["metric"] == "estoi"].set_index("loss")["mean"]
    assert means["mse"] == pytest.approx(0.7, abs=0.002)
    assert {"unprocessed", "mse", "si_sdr"} == set(means.index)


def test_both_rankings_stand_side_by_side_with_what_changes(shown):
    (matched,) = shown["sets"]
    assert matched["words"] == "At equal time mse rises from place 2 to 1; si_sdr falls from place 1 to 2."
    rows = {row["loss"]: row for row in matched["rows"]}
    assert [rows["mse"][key] for key in ("was", "now", "change")] == [2, 1, "▲ 1"]
    assert rows["si_sdr"]["updates"] == ["100", "40"]
    assert [float(score) for score in rows["si_sdr"]["scores"]] == pytest.approx([0.7, 0.55], abs=0.002)


def test_the_time_to_the_references_final_score_is_that_of_its_updates_at_the_measured_step(results):
    steps = {"mse": 20.0, "si_sdr": 30.0}
    rows = [{"loss": loss, "step_ms": ms, "step_ratio": ms / 20, "ratio_to_mse": 1.0} for loss, ms in steps.items()]
    timed = pd.DataFrame(rows).assign(model="gru_mask", device="cpu", threads=1, dtype="float32")
    own = replace(results, throughput=timed)
    shown = equal_time.section(View(own, analyse(own), "p1", analyse(results.equal_time)))
    assert shown["goal"] == "1.000"
    assert shown["place"] == "cpu, 1 thread, float32"
    cells = dict(shown["times"])
    assert cells["mse"] == [["100", "2.0", "1.00", "2 of 2"], ["50", "1.0", "0.50", "2 of 2"]]
    assert cells["si_sdr"] == [["50", "1.5", "0.75", "2 of 2"], ["∞", "∞", "–", "0 of 2"]]


def test_without_a_measured_step_only_updates_are_told(shown):
    assert dict(shown["times"])["si_sdr"][0] == ["50", "–", "–", "2 of 2"]
    assert "no step was timed" in shown["told"]


def test_the_page_and_a_file_hold_both(results, tmp_path):
    results.curves = results.curves[results.curves["metric"] == "score"]  # nothing to draw
    page.write_report(results, tmp_path)
    text = next(tmp_path.glob("denoise-*.html")).read_text(encoding="utf-8")
    assert "At equal time mse rises from place 2 to 1" in text
    assert "Time to a target" in text
    assert "mse rises from place 2 to 1" in next(tmp_path.glob("denoise-*.md")).read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "equal_time.csv")
    assert set(table["loss"]) == {"mse", "si_sdr", "unprocessed"}


def test_reads_of_a_test_list_are_counted_by_study_and_by_loss(results):
    mse = results.runs[results.runs["loss"] == "mse"].iloc[0]
    assert (mse["studies_read"], mse["losses_read"]) == (2, 2)


def test_every_row_leads_to_its_runs(results):
    view = View(results, analyse(results), "p1")
    own = results.runs[results.runs["loss"] == "si_sdr"].sort_values("seed")
    expected = [
        f"http://127.0.0.1:5000/#/experiments/{e}/runs/{r}"
        for e, r in zip(own["experiment"], own["run_id"], strict=True)
    ]
    assert [address for _, address in view.again["si_sdr"]["runs"]] == expected


def test_a_goal_is_reached_at_a_look_or_never():
    assert equal_time.first_at([1, 2, 3], [0.1, 0.6, 0.4], 0.5) == 2
    assert equal_time.first_at([1, 2, 3], [0.1, 0.6, 0.4], 0.7) == INF
    assert equal_time.first_at([1, 2], [np.nan, 0.7], 0.7) == 2


def test_a_loss_of_which_a_seed_diverged_reaches_nothing_for_certain():
    curves = pd.DataFrame({"loss": "a", "seed": [1, 1, 2, 2], "step": [1, 2, 1, 2], "value": [0.0, 1.0, 0.0, 0.6]})
    table = equal_time.updates_to(curves, 0.8, {}).iloc[0]
    assert table.to_dict() == {"loss": "a", "updates": 2.0, "reached": 1, "seeds": 2}  # the mean of the second looks
    table = equal_time.updates_to(curves, 0.8, {"a": 1, "b": 2}).set_index("loss")
    assert table["updates"].tolist() == [INF, INF]
    assert table["seeds"].to_dict() == {"a": 3, "b": 2}
