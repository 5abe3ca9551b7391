import numpy as np
import pytest

from harness.report import identities, words
from harness.report.page import render
from harness.report.ranking import analyse

GAINS = {"mse": 1.0, "snr": 1.5, "log_mse": 1.5, "l1": 0.5}


@pytest.fixture
def twins(make_results):
    def make(gains=GAINS, groups=(("snr", "log_mse"),), **more):
        results = make_results(gains, **more)
        results.identities = {"p1": list(groups)}
        return results

    return make


def test_equal_losses_tie_and_the_noise_is_their_largest_difference(twins):
    analysis = analyse(twins())
    table = analysis.identities
    assert set(table["metric"]) == {"pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"}
    assert set(table["ties"]) == {"yes"}
    assert set(table["losses"]) == {"snr = log_mse"}
    pairs = analysis.pairs.set_index(["test_set", "metric", "a", "b"])
    for row in table.itertuples():
        assert row.diff == pairs.loc[(row.test_set, row.metric, row.a, row.b), "diff"]
        assert row.low <= 0 <= row.high
    said = words.noise(analysis, "p1", "matched")
    assert said.startswith("Losses that must tie (snr = log_mse) differ by at most PESQ-WB 0.")
    assert said.endswith("all tie.")


def test_losses_that_were_said_to_tie_and_do_not_are_a_fault_in_words(twins):
    analysis = analyse(twins(groups=[("mse", "l1"), ("snr", "log_mse")]))
    verdicts = analysis.identities.groupby("losses")["ties"].unique().map(list).to_dict()
    assert verdicts == {"mse = l1": ["no"], "snr = log_mse": ["yes"]}
    assert "mse = l1 do not tie: something that should be equal" in words.noise(analysis, "p1", "matched")


def test_a_difference_that_rounding_hides_is_a_tie_however_sure_it_is():
    def ties(low, high, metric="si_sdr"):
        pair = {
            "protocol": "p1",
            "test_set": "matched",
            "metric": metric,
            "a": "snr",
            "b": "log_mse",
            "p_adjusted": 1e-9,
        }
        pair |= {"diff": (low + high) / 2, "low": low, "high": high}
        (row,) = identities.rows([pair], {"p1": [("snr", "log_mse")]})
        return row["ties"]

    assert ties(0.9e-5, 1.1e-5) == "yes"
    assert ties(0.004, 0.02) == "yes"  # it may be as little as 0.004 dB
    assert ties(0.006, 0.02) == "no"
    assert ties(-0.02, -0.006) == "no"
    assert ties(0.0006, 0.002, "estoi") == "no"


def test_twins_a_hair_apart_share_their_letters(twins):
    results = twins(noise=0.0)
    scores, hair = results.scores, results.scores["run_id"].str.startswith("p1-log_mse")
    for metric in ("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"):
        snr = scores[scores["run_id"].str.startswith("p1-snr")].set_index(["item", "run_id"])[metric]
        keys = zip(scores.loc[hair, "item"], scores.loc[hair, "run_id"].str.replace("log_mse", "snr"), strict=True)
        scores.loc[hair, metric] = [snr[key] + 1e-5 for key in keys]
    pairs = analyse(results)
    own = pairs.ranking[pairs.ranking["loss"].isin(["snr", "log_mse"]) & (pairs.ranking["metric"] == "si_sdr")]
    sure = pairs.pairs[(pairs.pairs["a"] == "log_mse") & (pairs.pairs["b"] == "snr")]
    assert (sure["p_adjusted"] < 0.05).all()
    assert (own.groupby("test_set")["tie_group"].nunique() == 1).all()


def test_one_seed_tells_a_difference_but_not_a_tie(twins):
    analysis = analyse(twins(seeds=1))
    assert set(analysis.identities["ties"]) == {"unknown"}
    assert words.noise(analysis, "p1", "matched").endswith("no interval tells whether they tie.")


def test_no_groups_no_noise(make_results, twins):
    assert words.noise(analyse(make_results(GAINS)), "p1", "matched") == ""
    # A group of which one loss alone was run says nothing.
    assert analyse(twins(groups=[("snr", "rmse")])).identities.empty


def test_twins_that_tie_share_a_rank_and_others_keep_theirs():
    order = ["a", "b", "c", "d"]
    beats = np.zeros((4, 4), dtype=bool)
    beats[0, 2] = beats[0, 3] = True  # a beats c, not b
    places = np.array([1, 1, 2, 2])
    assert identities.share(places, order, beats, [("b", "c")], np.min).tolist() == [1, 1, 1, 2]
    assert identities.share(places, order, beats, [("a", "c")], np.min).tolist() == [1, 1, 2, 2]  # they do not tie
    assert identities.share(places, order, beats, [("c", "x")], np.min).tolist() == [1, 1, 2, 2]


def test_ranks_and_overall_place_of_twins_are_equal(twins):
    # log_mse lies where it loses to mse for certain and snr does not: alone, its rank would be another.
    gains = {"mse": 1.09, "snr": 1.05, "log_mse": 1.0, "l1": 0.5}
    alone = analyse(twins(gains, groups=())).ranking
    shared = analyse(twins(gains)).ranking
    rows = shared[shared["loss"].isin(["snr", "log_mse"])]
    assert (rows.groupby(["test_set", "metric"])["rank"].nunique() == 1).all()
    before = alone[alone["loss"].isin(["snr", "log_mse"])]
    assert (before.groupby(["test_set", "metric"])["rank"].nunique() > 1).any()


def test_the_page_prints_the_noise_beside_the_ranking(twins):
    results = twins()
    page = render(results, analyse(results))
    assert page.count("The harness’s own noise. Losses that must tie (snr = log_mse) differ by at most") == 2
    assert "<td>yes</td>" in page
