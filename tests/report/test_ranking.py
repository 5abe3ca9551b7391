import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from harness.report.ranking import GAINS, PAIRS, RANKING, analyse
from harness.report.runs import Results


def rows(analysis, metric="pesq_wb", test_set="matched"):
    table = analysis.ranking
    return table[(table["metric"] == metric) & (table["test_set"] == test_set)].set_index("loss")


@pytest.fixture(scope="module")
def clear(make_results):
    """Three losses well apart, one twin, and one that trades ESTOI for its target PESQ."""
    gains = {"mse": 1.0, "si_sdr": 2.0, "twin": 2.0, "pmsqe": 2.0}
    shift = {("pmsqe", "pesq_wb"): 1.5, ("pmsqe", "estoi"): -2.0}
    targets = {"si_sdr": ("si_sdr",), "pmsqe": ("pesq_wb",)}
    return analyse(make_results(gains, shift=shift, targets=targets, noise=0.05))


def test_the_ranking_finds_the_true_order_and_the_true_ties(clear):
    table = rows(clear)
    assert table.loc[["pmsqe", "si_sdr", "twin", "mse"], "rank"].tolist() == [1, 2, 2, 4]
    assert table.loc["si_sdr", "tie_group"] == table.loc["twin", "tie_group"] == "b"
    assert table.loc["pmsqe", "tie_group"] == "a"


def test_columns_are_those_of_the_protocol(clear):
    assert list(clear.ranking.columns) == RANKING
    assert RANKING[:5] == ["task", "corpus", "model", "loss", "weighting"]
    assert RANKING[-3:] == ["protocol", "device", "run_id"]
    assert list(clear.pairs.columns)[:9] == PAIRS[:9]


def test_controls_are_rows_without_a_rank_or_a_seed(clear):
    table = rows(clear).loc[["unprocessed", "oracle_mask", "oracle_psm"]]
    assert table["rank"].isna().all()
    assert (table["state"] == "control").all()
    assert (table["seeds"] == 0).all()
    assert table["low"].notna().all()


def test_targets_are_marked_and_none_is_removed(clear):
    table = rows(clear)
    assert table["target"].to_dict()["pmsqe"]
    assert not table["target"].to_dict()["si_sdr"]
    assert len(table) == 7


def test_every_pair_is_compared_once_with_the_better_first(clear):
    pairs = clear.pairs[(clear.pairs["metric"] == "pesq_wb") & (clear.pairs["test_set"] == "matched")]
    assert len(pairs) == 6
    assert (pairs["diff"] >= 0).all()
    tied = pairs[pairs["p_adjusted"] >= 0.05]
    assert {frozenset(p) for p in zip(tied["a"], tied["b"], strict=True)} == {frozenset(("si_sdr", "twin"))}
    assert ((tied["low"] <= 0) & (tied["high"] >= 0)).all()


def test_the_overall_rank_uses_only_metrics_that_no_loss_targets(clear):
    assert clear.referees["p1", "matched"] == ["estoi", "dnsmos_ovrl"]
    table = rows(clear, "overall")
    assert table.loc["si_sdr", "mean"] == pytest.approx(np.mean([1.5, 2.0]))
    assert table["rank"].to_dict() == {"si_sdr": 1, "twin": 1, "pmsqe": 3, "mse": 4}


def test_a_loss_with_fewer_seeds_takes_no_referee_from_those_that_have_all(make_results):
    results = make_results({"mse": 1.0, "b": 2.0, "few": 3.0}, items=12, noise=0.05, targets={"few": ("estoi",)})
    assert analyse(results).referees["p1", "matched"] == [
        "pesq_wb",
        "si_sdr",
        "dnsmos_ovrl",
    ]  # with all its seeds it does
    late = (results.runs["loss"] == "few") & (results.runs["seed"] > 2)
    results.runs = results.runs[~late.fillna(False)].copy()
    analysis = analyse(results)
    assert analysis.referees["p1", "matched"] == ["pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"]
    assert rows(analysis, "overall")["rank"].to_dict() == {
        "b": 1,
        "mse": 2,
    }  # by a metric that it optimises it has no place
    assert rows(analysis, "estoi").loc["few", "rank"] == 1
    results.runs["raced"] = [{"seeds": 3, "of": 5, "looks": [3]} if n == "few" else None for n in results.runs["loss"]]
    assert "estoi" not in analyse(results).referees["p1", "matched"]  # a race has saved its other seeds: they count


def test_dnsmos_is_always_a_referee_and_its_trio_counts_once(make_results):
    results = make_results({"mse": 1.0, "b": 2.0}, items=12, seeds=2, targets={"b": ("dnsmos_ovrl", "pesq_wb")})
    results.scores["dnsmos_sig"] = results.scores["dnsmos_bak"] = results.scores["dnsmos_ovrl"]
    assert analyse(results).referees["p1", "matched"] == ["estoi", "si_sdr", "dnsmos_ovrl"]


def test_goodhart_is_flagged_against_the_reference(clear):
    flag = clear.goodhart[clear.goodhart["test_set"] == "matched"].iloc[0]
    assert (flag["loss"], flag["gained"], flag["lost"]) == ("pmsqe", "pesq_wb", "estoi")
    assert set(clear.goodhart["loss"]) == {"pmsqe"}


def test_gains_are_paired_with_the_unprocessed_recording(clear):
    gain = clear.gains[(clear.gains["loss"] == "si_sdr") & (clear.gains["metric"] == "si_sdr")].iloc[0]
    marginal = rows(clear, "si_sdr").loc["si_sdr"]
    assert gain["gain"] == pytest.approx(marginal["mean"] - rows(clear, "si_sdr").loc["unprocessed", "mean"])
    assert gain["high"] - gain["low"] < marginal["high"] - marginal["low"]


def test_a_diverged_seed_is_counted_and_costs(make_results):
    gains = {"mse": 1.0, "b": 2.0}
    whole = rows(analyse(make_results(gains, seeds=3, items=12))).loc["b"]
    broken = rows(analyse(make_results(gains, seeds=3, items=12, diverged=(("b", 1),)))).loc["b"]
    assert broken["state"] == "1 of 3 diverged"
    assert broken["seeds"] == 3
    assert broken["mean"] < whole["mean"] - 0.1


def test_a_loss_that_always_diverges_ties_with_doing_nothing(make_results):
    dead = tuple(("b", seed) for seed in range(3))
    table = rows(analyse(make_results({"mse": 1.0, "b": 2.0}, seeds=3, items=12, diverged=dead)))
    assert table.loc["b", "state"] == "diverged"
    assert table.loc["b", "mean"] == pytest.approx(table.loc["unprocessed", "mean"])
    assert table.loc["b", "rank"] == 2


def test_stale_losses_are_shown_without_a_rank(make_results):
    analysis = analyse(make_results({"mse": 1.0, "old": 9.0}, items=12, stale=("old",)))
    assert rows(analysis).loc["old", "state"] == "stale"
    assert pd.isna(rows(analysis).loc["old", "rank"])
    assert rows(analysis).loc["mse", "rank"] == 1
    assert not (analysis.pairs["a"] == "old").any()


def test_floored_scores_are_counted_per_loss_and_metric(make_results):
    results = make_results({"mse": 1.0}, items=12, seeds=2)
    results.scores.loc[results.scores["run_id"] == "p1-mse-0", "floored"] = "pesq_wb estoi"
    analysis = analyse(results)
    assert rows(analysis).loc["mse", "floored"] == 12
    assert rows(analysis, "si_sdr").loc["mse", "floored"] == 0


def test_protocols_are_never_ranked_together(make_results):
    one, other = make_results({"mse": 1.0}, items=6), make_results({"b": 9.0}, items=6, protocol="p2")
    both = Results(
        pd.concat([one.runs, other.runs]), pd.concat([one.scores, other.scores]), one.curves, one.tuning,
        one.throughput, one.audio, {},
    )  # fmt: skip
    analysis = analyse(both)
    assert analysis.pairs.empty
    ranked = analysis.ranking[analysis.ranking["rank"].notna()]
    assert (ranked["rank"] == 1).all()
    assert set(ranked["protocol"]) == {"p1", "p2"}


def test_one_seed_ranks_nothing_apart_and_gives_no_interval(make_results):
    analysis = analyse(make_results({"mse": 1.0, "b": 9.0}, seeds=1, items=12))
    table = rows(analysis).loc[["b", "mse"]]
    assert table["rank"].tolist() == [1, 1]
    assert table[["low", "high"]].isna().all(axis=None)
    assert analysis.pairs["p_adjusted"].isna().all()


def test_devices_and_run_ids_of_all_seeds_are_joined(make_results):
    results = make_results({"mse": 1.0}, seeds=2, items=6)
    results.runs.loc[results.runs["run_id"] == "p1-mse-1", "device"] = "cuda"
    row = rows(analyse(results)).loc["mse"]
    assert row["device"] == "cpu (16 cores);cuda"
    assert row["run_id"] == "p1-mse-0;p1-mse-1"


def test_one_loss_works_without_reference_and_without_controls(make_results):
    results = make_results({"b": 1.0}, items=12)
    results.runs = results.runs[results.runs["role"] == "loss"]
    analysis = analyse(results)
    assert rows(analysis).loc["b", ["rank", "tie_group"]].tolist() == [1, "a"]
    assert analysis.gains.empty
    assert analysis.goodhart.empty


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame(columns=["run_id", "loss"])])
def test_zero_runs_give_empty_tables_with_columns(frame):
    analysis = analyse(Results(frame, frame, frame, frame, frame, frame, {}))
    assert list(analysis.ranking.columns) == RANKING
    assert list(analysis.pairs.columns) == PAIRS
    assert list(analysis.gains.columns) == GAINS
    assert analysis.ranking.empty


def test_importing_the_statistics_does_not_import_plotting():
    code = "import sys, harness.report.ranking; assert not {'matplotlib', 'seaborn', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
