import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.report.critical import Critical, critical_difference, friedman, of_losses


@pytest.mark.parametrize(("losses", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_the_quantiles_of_demsars_table(losses, q):
    assert critical_difference(losses, 14) == pytest.approx(q * np.sqrt(losses * (losses + 1) / (6 * 14)), abs=2e-3)


@pytest.mark.parametrize(("seeds", "ranks"), [(3, 21), (5, 16), (10, 11.5)])
def test_with_24_losses_it_spans_as_many_ranks_as_the_protocol_says(seeds, ranks):
    assert critical_difference(24, seeds) == pytest.approx(ranks, abs=0.5)


def test_losses_that_rank_alike_differ_by_more_in_one_study_of_twenty():
    rng = np.random.default_rng(0)
    ranks = rng.standard_normal((4000, 20, 6)).argsort(axis=2).argsort(axis=2).mean(axis=1)
    assert (np.ptp(ranks, axis=1) > critical_difference(6, 20)).mean() == pytest.approx(0.05, abs=0.015)


def test_the_friedman_test_is_that_of_the_textbook_on_ranks():
    scores = np.random.default_rng(1).standard_normal((8, 4)) + np.array([0, 0.5, 1, 2])
    ranks = stats.rankdata(scores, axis=1).mean(axis=0)
    chi = 12 * 8 / (4 * 5) * (ranks**2).sum() - 3 * 8 * 5
    assert friedman(scores) == pytest.approx(stats.chi2.sf(chi, 3))
    assert np.isnan(friedman(np.ones((5, 4))))


def test_seeds_are_the_blocks_and_the_best_comes_first():
    tables = {
        name: pd.DataFrame(np.full((3, 4), value) + np.arange(3)[:, None])
        for name, value in zip("abc", (0, 2, 1), strict=True)
    }
    tables["a"].loc[7] = 9.0  # a seed that the others do not have
    found = of_losses(tables)
    assert found.losses == ["b", "c", "a"]
    assert found.ranks == [1, 2, 3]
    assert found.seeds == 3
    assert of_losses({name: tables[name] for name in "ab"}) is None


def test_bars_join_the_widest_runs_within_the_critical_difference():
    found = Critical(list("abcd"), [1.0, 1.5, 2.4, 4.0], 1.0, 5, 0.01)
    assert found.groups == [(0, 1), (1, 2)]
    assert found.useful
    assert not Critical(list("abcd"), [1.0, 1.5, 2.4, 4.0], 1.5, 5, 0.01).useful
