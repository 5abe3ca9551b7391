import numpy as np
import pandas as pd
import pytest

from harness.report.blocks import blocks, named


def first_block(results):
    return next(iter(blocks(results)))


def test_an_item_missing_in_one_run_is_missing_for_all(make_results):
    results = make_results({"mse": 1.0, "si_sdr": 1.5}, items=12, seeds=2)
    hole = (results.scores["run_id"] == "p1-mse-1") & (results.scores["item"] == "matched-003")
    results.scores.loc[hole, "pesq_wb"] = np.nan
    block = first_block(results)
    assert block.missing == 1
    for table in (*block.losses.values(), *block.controls.values()):
        assert "matched-003" not in table.columns
        assert table.shape[1] == 11


def test_an_item_missing_in_all_runs_is_counted(make_results):
    results = make_results({"mse": 1.0}, items=12, seeds=2)
    results.scores.loc[results.scores["item"] == "matched-003", "pesq_wb"] = np.nan
    assert first_block(results).missing == 1


def test_an_item_that_a_metric_was_not_asked_for_is_neither_used_nor_missing(make_results):
    results = make_results({"mse": 1.0}, items=12, seeds=2)
    skipped = results.scores["item"].isin(["matched-003", "matched-004"])
    results.scores.loc[skipped, "pesq_wb"] = np.nan
    results.scores.loc[skipped, "unasked"] = "dnsmos_ovrl pesq_wb"
    block = first_block(results)
    assert block.missing == 0
    assert block.losses["mse"].shape[1] == 10


def test_a_diverged_seed_scores_what_the_unprocessed_recording_scores(make_results):
    block = first_block(make_results({"mse": 1.0, "si_sdr": 1.5}, items=12, diverged=(("si_sdr", 1),)))
    assert block.losses["si_sdr"].loc[1].to_numpy() == pytest.approx(block.controls["unprocessed"].iloc[0].to_numpy())
    assert len(block.losses["si_sdr"]) == 5


def test_without_the_control_a_diverged_seed_scores_the_floor(make_results):
    results = make_results({"mse": 1.0}, items=12, diverged=(("mse", 0),))
    results.runs = results.runs[results.runs["role"] != "control"]
    assert (first_block(results).losses["mse"].loc[0] == 1.0).all()


def test_differences_pair_by_seed_not_by_position(make_results):
    results = make_results({"mse": 1.0, "si_sdr": 1.5}, items=12, seeds=3)
    results.runs = results.runs[~results.runs["run_id"].isin(["p1-mse-0", "p1-si_sdr-2"])]
    block = first_block(results)
    expected = block.losses["si_sdr"].loc[1] - block.losses["mse"].loc[1]
    assert block.difference("si_sdr", "mse") == pytest.approx(expected.to_numpy()[None])


def test_stale_runs_are_kept_apart_and_yield_to_fresh_ones(make_results):
    results = make_results({"mse": 1.0, "old": 1.5}, items=12, stale=("old",))
    block = first_block(results)
    assert set(block.losses) == {"mse"}
    assert set(block.stale) == {"old"}
    results.runs.loc[results.runs["run_id"] == "p1-old-0", "stale"] = False
    block = first_block(results)
    assert len(block.losses["old"]) == 1
    assert not block.stale


def test_items_that_only_stale_runs_judged_are_neither_used_nor_missing(make_results):
    results = make_results({"mse": 1.0, "old": 1.5}, items=12, stale=("old",))
    stale = results.scores["run_id"].str.startswith("p1-old")
    results.scores = results.scores[stale | (results.scores["item"] != "matched-003")]
    block = first_block(results)
    assert block.missing == 0
    assert block.losses["mse"].shape[1] == 11


def test_one_loss_under_two_weightings_gets_two_names(make_results):
    results = make_results({"mse": 1.0, "a + b": 1.5, "c": 1.0}, items=6, seeds=2)
    results.runs.loc[results.runs["loss"] == "a + b", "weighting"] = "fixed"
    results.runs.loc[results.runs["loss"] == "c", ["loss", "weighting"]] = ["a + b", "uncertainty"]
    assert {"mse", "a + b (fixed)", "a + b (uncertainty)"} <= set(named(results.runs)["name"])


def test_two_runs_of_one_seed_are_an_error(make_results):
    results = make_results({"mse": 1.0}, items=6)
    results.runs = pd.concat([results.runs, results.runs.tail(1).assign(run_id="again")])
    with pytest.raises(ValueError, match="two runs of 'mse' with seed 4"):
        named(results.runs)


def test_one_loss_with_two_networks_of_one_name_gets_two_names(make_results):
    results = make_results({"mse": 1.0, "deep_feature": 1.5, "c": 1.0}, items=6, seeds=2)
    runs = results.runs
    runs.loc[runs["loss"] == "deep_feature", ["variant", "parent"]] = ["3f2a91", "one"]
    runs.loc[runs["loss"] == "c", ["loss", "variant", "parent"]] = ["deep_feature", "77aa00", "other"]
    assert {"mse", "deep_feature (network 3f2a91)", "deep_feature (network 77aa00)"} <= set(named(runs)["name"])


def test_of_stale_runs_of_two_versions_the_later_ones_are_shown(make_results):
    results = make_results({"mse": 1.0, "old": 1.5, "older": 1.0}, items=6, seeds=2, stale=("old", "older"))
    runs = results.runs
    runs.loc[runs["loss"] == "older", ["loss", "parent"]] = ["old", "second"]
    assert set(named(runs).loc[named(runs)["name"] == "old", "parent"]) == {"second"}
