"""The same losses after fewer updates beside a page: read from a real store into which the runs were written as a study does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import spec
from harness.report import page, runs, settled
from harness.report.ranking import analyse
from harness.report.runs import Results
from harness.report.view import View
from harness.tracking import Tracker
from tests.stored import write

GAINS = {
    "half": {"mse": 1.0, "snr": 1.5, "l1": 3.0},
    "whole": {"mse": 1.2, "snr": 2.5, "l1": 2.0},
    "other": {"mse": 1.0},
}
CONTENTS = {
    "half": {"task": "denoise", "updates": {"tune": 20, "confirm": 50}},
    "whole": {"task": "denoise", "updates": {"tune": 40, "confirm": 100}},
    "other": {"task": "denoise", "batch": 4, "updates": {"tune": 20, "confirm": 50}},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    home = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(home))
        (home / "runs").mkdir()
        tracker = Tracker()
        for protocol, gains in GAINS.items():
            content = {"protocol": CONTENTS[protocol], "study": spec.load("denoise").model_dump(mode="json")}
            more = {"protocol": protocol, "content": content}
            write(tracker, home / protocol, "unprocessed", "control", None, 0.0, 0, form=protocol, **more)
            for loss, gain in gains.items():
                for seed in (1, 2, 3):
                    folder = home / f"{protocol}-{loss}-{seed}"
                    updates = CONTENTS[protocol]["updates"]["confirm"]
                    write(tracker, folder, loss, "confirm", seed, gain, updates, form=protocol, **more)
        return runs.read(tracker)


def test_only_what_is_the_same_but_for_fewer_updates_stands_beside_it(results: Results) -> None:
    assert results.shorter == {"half": (), "whole": ("half",), "other": ()}
    assert settled.section(View(results, analyse(results), "half")) == {}


def test_places_scores_and_pairs_that_turn_round_are_told(results: Results) -> None:
    (found,) = settled.section(View(results, analyse(results), "whole"))["found"]
    assert (found["before"], found["after"]) == ("50", "100")
    (matched,) = found["sets"]
    assert [(row["loss"], row["was"], row["now"]) for row in matched["rows"]] == [
        ("snr", 2, 1), ("l1", 1, 2), ("mse", 3, 3),
    ]  # fmt: skip
    assert [float(score) for score in matched["rows"][0]["scores"]] == pytest.approx([0.65, 0.75], abs=0.002)
    said = matched["words"]
    assert "From 50 to 100 updates snr rises from place 2 to 1; l1 falls from place 1 to 2." in said
    assert "ESTOI 0.33 (3 pairs). The order has not settled (at least 0.7)." in said  # two pairs agree, one does not
    assert "the other way round after 50: l1 over snr on ESTOI." in said
    assert "Another loss is first than after 50: overall snr instead of l1 and on ESTOI snr instead of l1." in said
    assert "learning rate" not in said  # which is the same


def test_the_answer_in_brief_tells_that_fewer_updates_had_another_first(results: Results) -> None:
    assert settled.in_brief(View(results, analyse(results), "whole")) == [
        "After 50 updates another loss was first: overall l1 and on ESTOI l1; the order of matched items was another."
    ]
    assert settled.in_brief(View(results, analyse(results), "half")) == []


def test_a_rate_that_was_tuned_anew_and_differs_is_told(results: Results) -> None:
    runs = results.runs.copy()
    runs.loc[(runs["protocol"] == "half") & (runs["loss"] == "snr"), "lr"] = 0.01
    own = replace(results, runs=runs)
    (found,) = settled.section(View(own, analyse(own), "whole"))["found"]
    assert "Tuned for 50 and for 100, the learning rate of snr is 0.01 and 0.001." in found["sets"][0]["words"]


def test_pages_of_both_say_it_and_are_told_apart(results: Results, tmp_path: Path) -> None:
    results.curves = results.curves[results.curves["metric"] == "score"]  # nothing to draw
    page.write_report(results, tmp_path)
    pages = {path.suffix: path.read_text("utf-8") for path in tmp_path.glob("denoise-*-whole.*")}
    for text in pages.values():
        assert "Has it settled?" in text
        assert "snr rises from place 2 to 1" in text
    shorter = next(tmp_path.glob("denoise-*-half.md")).read_text("utf-8")
    assert shorter.startswith("# denoise / prompts / gru\\_mask (denoise, 50 updates)")
