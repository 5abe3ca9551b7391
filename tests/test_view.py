"""The live view: what it counts, and what it prints of a finished trial."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.context import Outcome
from harness.study import Event, PlanRow
from harness.view import View

PLAN = [
    PlanRow("unprocessed", "control", 1, 1, 0),
    PlanRow("snr", "tune", 2, 1, 40),
    PlanRow("snr", "confirm", 1, 0, 100),
]


@pytest.fixture
def view() -> View:
    return View(Console(file=io.StringIO(), width=200), PLAN)


def state(view: View) -> list[tuple[str, float, float | None, str]]:
    return [(t.description, t.completed, t.total, t.fields["score"]) for t in view._progress.tasks]


def test_all_begins_with_what_is_reused(view: View) -> None:
    assert state(view) == [("trials 2/4", 40, 180, "")]


def test_updates_of_two_workers_add_up_and_scores_stand_beside_them(view: View) -> None:
    view.show(Event(0, "snr tune lr 0.01", 20, 40))
    view.show(Event(1, "snr confirm seed 1", 50, 100, 0.25))
    view.show(Event(0, "snr tune lr 0.01", 40, 40, 0.125))
    assert state(view) == [
        ("trials 2/4", 130, 180, ""),
        ("snr tune lr 0.01", 40, 40, "score 0.125"),
        ("snr confirm seed 1", 50, 100, "score 0.250"),
    ]


def test_a_trial_that_diverged_counts_as_done_and_a_rate_that_was_not_foreseen_widens_the_bar(view: View) -> None:
    view.show(Event(0, "snr tune lr 0.01", 10, 40))
    view.show(Event(0, "snr tune lr 0.01", outcome=Outcome("diverged", None, "loss nan"), seconds=3))
    assert state(view)[0] == ("trials 3/4", 80, 180, "")
    view.show(Event(0, "snr confirm seed 1", 100, 100))
    view.show(Event(0, "snr confirm seed 1", outcome=Outcome("finished", 0.5)))
    view.show(Event(0, "snr tune lr 0.03", 40, 40))
    view.show(Event(0, "snr tune lr 0.03", outcome=Outcome("finished", 0.5)))
    assert state(view)[0] == ("trials 5/5", 220, 220, "")


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome("finished", 0.25), "snr tune lr 0.01: finished, score 0.250 (3 s)\n"),
        (Outcome("finished", 0.25, reused=True), ""),
        (Outcome("diverged", None, "loss nan at update 1"), "snr tune lr 0.01: diverged (3 s): loss nan at update 1\n"),
        (Outcome("finished", 0.25, note="waits"), "snr tune lr 0.01: finished, score 0.250 (3 s): waits\n"),
    ],
)
def test_a_finished_trial_is_a_line_and_a_reused_one_is_none(view: View, outcome: Outcome, line: str) -> None:
    view.show(Event(0, "snr tune lr 0.01", outcome=outcome, seconds=3))
    assert view.console.file.getvalue() == line
    assert view.failures == []


def test_a_failed_trial_is_kept_for_the_end(view: View) -> None:
    view.show(Event(0, "snr tune lr 0.01", outcome=Outcome("failed", None, "RuntimeError: no"), seconds=3))
    assert view.failures == ["snr tune lr 0.01: failed (3 s): RuntimeError: no"]
