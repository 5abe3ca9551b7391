"""Descriptions for MLflow's UI: the ranking so far, in Markdown that names cannot break."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from harness.report.notes import notes
from harness.report.ranking import analyse
from harness.report.runs import Results

HOSTILE = "mse + 0.5*mine(name='a|b')"


def test_an_experiment_has_a_table_a_protocol_and_a_parent_its_own_row(make_results: Callable[..., Results]) -> None:
    results = make_results({"mse": 1.0, "snr": 2.0, HOSTILE: 0.5}, seeds=2, items=12)
    experiments, parents = notes(results, analyse(results))
    assert list(experiments) == ["denoise"]
    lines = experiments["denoise"].splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert rows[0].startswith("| `snr` | 1 |")
    assert {line.replace("\\|", "").count("|") for line in rows} == {rows[0].count("|")}
    assert "Preliminary" in experiments["denoise"]
    mine = parents["p1", HOSTILE, ""]
    assert mine.startswith("### `mse + 0.5*mine(name='a\\|b')`, place 3 of 3")
    assert "The order: `snr`, `mse`, " in mine
    assert ("p1", "unprocessed", "") in parents


def test_a_store_without_runs_has_nothing_to_say(make_results: Callable[..., Results]) -> None:
    results = make_results({"mse": 1.0}, seeds=1, items=4)
    results.runs = results.runs.iloc[:0]
    results.scores = results.scores.iloc[:0]
    assert notes(results, analyse(results)) == ({}, {})
    assert isinstance(results.runs, pd.DataFrame)
