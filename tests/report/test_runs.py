"""Tables read from a real store that holds more than one form of a loss, and one run twice."""

import json

import pytest

from harness import outbox
from harness.report import cautions, runs
from harness.report.blocks import AND, named
from harness.report.ranking import analyse
from harness.tracking import Tracker
from tests.stored import TAGS, write


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    return Tracker()


def study(tracker, home, losses, **more):
    for loss, gain in losses.items():
        for phase, seed in (("tune", 0), ("confirm", 1), ("confirm", 2)):
            folder = home / f"{loss}-{phase}-{seed}-{len(more)}"
            write(tracker, folder, loss, phase, seed, gain, 100, **more)


def test_of_two_forms_of_a_loss_the_later_is_reported_and_the_report_says_so(tracker, tmp_path):
    study(tracker, tmp_path, {"mse": 1.0, "hinge": 1.0})
    study(tracker, tmp_path, {"hinge": 3.0}, form=" with a new setting")
    results = runs.read(tracker)
    analysis = analyse(results)
    ranking = analysis.ranking[analysis.ranking["metric"] == "estoi"].set_index("loss")
    assert ranking.loc["hinge", "mean"] == pytest.approx(0.8, abs=0.002)
    assert results.tuning["loss"].tolist() == ["mse", "hinge"]
    (said,) = [line for line in cautions.cautions(results, analysis, "p1") if "Left out" in line]
    assert "hinge" in said
    assert "mse" not in said


def test_tuning_of_an_older_version_is_left_out_where_a_newer_one_was_judged(tracker, tmp_path):
    study(tracker, tmp_path, {"mse": 1.0})
    study(tracker, tmp_path, {"hinge": 1.0}, form=" of old", loss_versions='{"hinge": 0}')
    assert runs.read(tracker).tuning["loss"].tolist() == ["mse", "hinge"]
    study(tracker, tmp_path, {"hinge": 3.0})
    results = runs.read(tracker)
    assert results.tuning["loss"].tolist() == ["mse", "hinge"]
    assert not named(results.runs)["stale"].any()
    assert not [line for line in cautions.cautions(results, analyse(results), "p1") if "Left out" in line]


def test_a_run_that_was_made_twice_counts_once(tracker, tmp_path):
    study(tracker, tmp_path, {"mse": 1.0})
    write(tracker, tmp_path / "again", "mse", "confirm", 2, 1.0, 100)
    found = [run for run in tracker.search() if run.data.tags.get("phase") == "confirm"]
    assert len(found) == 3
    results = runs.read(tracker)
    assert results.runs["seed"].tolist() == [1, 2]
    assert results.runs["run_id"].tolist() == [run.info.run_id for run in found[:2]]


def test_weights_that_are_frozen_are_named_by_the_weighting_that_ended_on_them(tracker, tmp_path):
    study(tracker, tmp_path, {"mse + l1": 1.0}, form="dwa", weighting="dwa")
    study(tracker, tmp_path, {"mse + l1": 1.0}, form="frozen", weighting="frozen(weights=(1, 0.25))", again="")
    study(tracker, tmp_path, {"mse + l1": 1.0}, form="other", weighting="frozen(weights=(1, 3))", again="", once="")
    learned = outbox.Parent("mse + l1", "parent mse + l1dwa", TAGS | {"loss": "mse + l1", "weighting": "dwa"})
    outbox.mark(tracker, "denoise", learned, frozen=json.dumps({"setting": {}, "weights": [1.0, 0.25]}))
    for name in ("gradnorm", "uncertainty(rate=3, form='ratio')"):  # that ended there too
        other = outbox.Parent("mse + l1", f"parent of {name[:8]}", TAGS | {"loss": "mse + l1", "weighting": name})
        outbox.mark(tracker, "denoise", other, frozen=json.dumps({"setting": {}, "weights": [1.0, 0.25]}))
    ended = ["dwa", "gradnorm", "uncertainty(rate=3, form='ratio')"]
    made = runs.read(tracker).runs
    of = made.drop_duplicates("weighting").set_index("weighting")["frozen_of"]
    assert of.pop("frozen(weights=(1, 0.25))").split(AND) == ended
    assert of.to_dict() == {"dwa": "", "frozen(weights=(1, 3))": ""}
    assert set(named(made)["name"]) == {
        "mse + l1 (dwa)",
        f"mse + l1 (frozen, of {AND.join(ended)})",
        "mse + l1 (frozen(weights=(1, 3)))",
    }
