import numpy as np
import pytest
from scipy import stats

from harness.intervals import holm, interval, p_value, two_way, win_probability


def draw(rng, studies, seeds, sizes, seed_sd, cluster_sd, cross_sd, item_sd):
    """(studies, seeds, items) differences of mean 0.3 under the two-way model, and the clusters of the items."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    x = 0.3 + seed_sd * rng.standard_normal((studies, seeds, 1))
    x = x + (cluster_sd * rng.standard_normal((studies, 1, len(sizes))))[..., clusters]
    x = x + (cross_sd * rng.standard_normal((studies, seeds, len(sizes))))[..., clusters]
    return x + item_sd * rng.standard_normal((studies, seeds, len(clusters))), clusters


@pytest.mark.parametrize(
    ("seed_sd", "cluster_sd", "cross_sd"),
    [(0.0, 1.0, 0.0), (0.05, 1.0, 0.2), (0.1, 1.0, 0.5), (0.3, 1.0, 0.5), (1.0, 1.0, 0.0), (1.0, 0.1, 0.1)],
)
@pytest.mark.parametrize("sizes", [np.full(120, 1), np.full(40, 3)], ids=["120 prompts", "40 prompts"])
def test_nominal_95_percent_covers_between_92_and_98_at_5_seeds_and_120_items(seed_sd, cluster_sd, cross_sd, sizes):
    x, clusters = draw(np.random.default_rng(0), 1500, 5, sizes, seed_sd, cluster_sd, cross_sd, 1.0)
    low, high = interval(two_way(x, clusters))
    assert 0.92 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.98


def test_coverage_holds_with_clusters_of_unequal_size():
    sizes = np.random.default_rng(1).integers(1, 7, 36)
    x, clusters = draw(np.random.default_rng(2), 1500, 5, sizes, 0.1, 1.0, 0.3, 1.0)
    low, high = interval(two_way(x, clusters))
    assert 0.92 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.98


def test_mean_is_the_plain_mean_over_items_whatever_the_clusters():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 9))
    assert two_way(x, list("aaaaaabbc")).mean == pytest.approx(x.mean())


def test_closed_form_on_a_two_by_two_table():
    # Seeds differ by 2, clusters by 4, no interaction: MS_seed = 2*2*1/1 = 4, MS_cluster = 2*2*4/1 = 16.
    estimate = two_way([[0.0, 4.0], [2.0, 6.0]], ["p", "q"])
    assert estimate.mean == 3
    assert estimate.se == pytest.approx(np.sqrt((4 + 16) / 4))
    assert estimate.df == pytest.approx(20**2 / (4**2 + 16**2))


def test_items_that_alone_vary_give_the_one_sample_t_interval():
    x = np.random.default_rng(0).normal(0.2, 1, 40)
    estimate = two_way(np.stack([x, x]), np.arange(40))
    expected = stats.ttest_1samp(x, 0)
    assert p_value(estimate) == pytest.approx(expected.pvalue)
    assert interval(estimate) == pytest.approx(tuple(expected.confidence_interval()))


def test_seeds_that_alone_vary_give_the_one_sample_t_interval():
    x = np.random.default_rng(0).normal(0.2, 1, 5)
    estimate = two_way(np.repeat(x[:, None], 12, axis=1), np.arange(12))
    expected = stats.ttest_1samp(x, 0)
    assert p_value(estimate) == pytest.approx(expected.pvalue)
    assert interval(estimate) == pytest.approx(tuple(expected.confidence_interval()))


def test_items_of_one_cluster_count_once():
    x = np.random.default_rng(0).normal(size=(5, 10))
    doubled = two_way(np.repeat(x, 2, axis=1), np.repeat(np.arange(10), 2))
    assert doubled == pytest.approx(two_way(x, np.arange(10)))


def test_clusters_of_unequal_size_enter_linearised():
    # Cluster means 0 (one item) and 4 (three items): mean 3, y = 3 + (1/2)(0 - 3) = 1.5 and 3 + (3/2)(4 - 3) = 4.5.
    x = np.array([0.0, 4.0, 4.0, 4.0])
    estimate = two_way(np.stack([x, x]), list("pqqq"))
    assert estimate.mean == 3
    assert estimate.se == pytest.approx(np.std([1.5, 4.5], ddof=1) / np.sqrt(2))


def test_error_is_never_below_that_of_one_factor_even_where_a_component_would_be_negative():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3, 20))  # no seed effect: MS_seed is often below MS_interaction
    estimate = two_way(x, np.arange(20))
    by_item = x.mean(axis=1).std(axis=-1, ddof=1) / np.sqrt(20)
    assert (estimate.se >= by_item - 1e-12).all()
    assert (estimate.df >= 1).all()


@pytest.mark.parametrize("shape", [(1, 10), (5, 1)])
def test_one_seed_or_one_item_gives_a_mean_without_an_interval(shape):
    estimate = two_way(np.ones(shape), np.arange(shape[1]))
    assert estimate.mean == 1
    assert np.isnan(interval(estimate)).all()
    assert np.isnan(p_value(estimate))


def test_a_missing_item_is_dropped_for_all_seeds():
    x = np.random.default_rng(0).normal(size=(4, 8))
    holed = x.copy()
    holed[2, 5] = np.nan
    keep = np.arange(8) != 5
    assert two_way(holed, np.arange(8)) == pytest.approx(two_way(x[:, keep], np.arange(8)[keep]))
    assert np.isnan(two_way(np.full((2, 3), np.nan), np.arange(3)).mean)


def test_a_loss_against_itself_is_a_tie_and_a_constant_gap_is_not():
    assert p_value(two_way(np.zeros((3, 4)), np.arange(4))) == 1
    gap = two_way(np.ones((3, 4)), np.arange(4))
    assert p_value(gap) == 0
    assert interval(gap) == (1, 1)


def test_holm_adjusts_as_in_the_worked_example():
    adjusted, levels = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_holm_does_not_count_what_was_not_tested():
    adjusted, levels = holm([0.02, np.nan, 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan([adjusted[1], levels[1]]).all()
    assert holm([])[0].size == 0


def test_a_test_of_less_weight_takes_less_from_the_others():
    adjusted, levels = holm([0.02, 0.03, 0.001], weights=[1, 1, 0.1])
    assert adjusted == pytest.approx([0.04, 0.04, 0.021])  # at first 0.001 / 0.1 of all 2.1, then the two alone
    assert levels == pytest.approx([0.05 / 2, 0.05, 0.05 * 0.1 / 2.1])


def test_the_adjusted_interval_contains_zero_exactly_when_the_adjusted_p_is_at_least_5_percent():
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(0, 1.5, (300, 1, 1)), 1, (300, 4, 15))
    ties = []
    for group in x.reshape(20, 15, 4, 15):
        estimate = two_way(group, np.arange(15))
        adjusted, levels = holm(p_value(estimate), weights=rng.choice([0.1, 1.0], 15))
        low, high = interval(estimate, levels)
        contains = (low <= 0) & (high >= 0)
        assert (contains == (adjusted >= 0.05)).all()
        ties.extend(contains)
    assert 50 < sum(ties) < 250  # both answers were tested


def test_win_probability_counts_ties_half_and_skips_missing():
    assert win_probability([[1.0, -1.0], [0.0, np.nan]]) == 0.5
    assert win_probability([[2.0, 1.0]]) == 1
    assert np.isnan(win_probability([[np.nan]]))
