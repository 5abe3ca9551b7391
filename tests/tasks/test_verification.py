import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from harness import tasks
from harness.tasks.task import Judged
from harness.tasks.verification import auroc, equal_error_rate, pairs

KEYWORDS = tasks.get("keywords")


def scored(count: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of pairs of two classes around 0 and of one class around `apart`, both with spread 1, scaled into [-1, 1]."""
    score = np.random.default_rng(0).normal([[0.0], [apart]], 1, (2, count))
    return score.ravel() / 10, np.repeat([False, True], count)


def judged(label, embedding, logits=None, away=None, cluster=None, test_set="matched") -> Judged:
    outputs = [{"embedding": np.array(e, np.float32), "logits": np.zeros(2), "away": np.array(0.0)} for e in embedding]
    for place, output in enumerate(outputs):
        output |= {} if logits is None else {"logits": np.array(logits[place], np.float32)}
        output |= {} if away is None else {"away": np.array(away[place])}
    clusters = cluster or [str(place) for place in range(len(outputs))]
    return Judged(test_set, 1, clusters, clusters, [{"label": torch.tensor(k)} for k in label], outputs)


@pytest.mark.parametrize("apart", [0.5, 2.0])
def test_the_equal_error_rate_of_two_normal_distributions_is_the_closed_form(apart):
    assert equal_error_rate(*scored(200_000, apart)) == pytest.approx(norm.cdf(-apart / 2), abs=2e-3)


def test_the_equal_error_rate_is_where_scikit_learns_curve_crosses_the_diagonal():
    score, same = scored(40, 1.0)
    score = score.round(2)  # with ties
    accepted, kept, _ = roc_curve(same, score, drop_intermediate=False)
    rates = np.linspace(0, 1, 100_001)
    crossing = rates[np.abs(np.interp(rates, accepted, kept) - (1 - rates)).argmin()]
    assert equal_error_rate(score, same) == pytest.approx(crossing, abs=1e-4)


def test_the_equal_error_rate_is_interpolated_between_points():
    # Accepting the three pairs of one class that score highest accepts one of five of two classes; refused is one of four.
    score = np.array([0.9, 0.8, 0.7, 0.7, 0.1, 0.1, 0.05, 0.03, 0.0])
    same = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    # From there to 0.4 and 0, where the next two are accepted: 0.2 + 0.2 t = 0.25 - 0.25 t.
    assert equal_error_rate(score, same) == pytest.approx(0.2 + 0.2 * 0.05 / 0.45)


@pytest.mark.parametrize(("score", "rate"), [([1, 1, 0, 0], 0), ([0, 0, 1, 1], 1), ([0.3] * 4, 0.5)])
def test_a_perfect_a_perverse_and_a_deaf_score(score, rate):
    assert equal_error_rate(np.array(score, float), np.array([True, True, False, False])) == rate


def test_auroc_is_scikit_learns_also_with_ties_and_below_zero():
    rng = np.random.default_rng(1)
    known, unknown = rng.normal(0.2, 0.4, 70).round(1), rng.normal(0, 0.4, 30).round(1)
    expected = roc_auc_score(np.repeat([1, 0], [70, 30]), np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected, abs=1e-6)


def test_pairs_are_balanced_of_different_items_and_clusters_and_always_the_same():
    label, cluster = np.arange(60) % 5, np.arange(60) // 5 % 6
    one, other, same = pairs(label, cluster, 90)
    assert len(one) == 180
    assert same.sum() == 90
    np.testing.assert_array_equal(same, label[one] == label[other])
    assert (cluster[one] != cluster[other]).all()
    assert len({frozenset(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)}) == 180
    for first, again in zip((one, other, same), pairs(label, cluster, 90), strict=True):
        np.testing.assert_array_equal(first, again)


def test_the_rarer_kind_of_pair_sets_how_many_there_are_of_both():
    label = np.array([0, 0, 1, 2, 3])
    one, other, same = pairs(label, np.arange(5))
    assert same.tolist() == [True, False]
    assert (one[0], other[0]) == (0, 1)
    assert len(pairs(label, np.zeros(5))[0]) == 0


def test_pairs_are_verified_by_the_direction_of_the_embedding():
    rng = np.random.default_rng(0)
    label = np.arange(40) % 4
    embedding = np.eye(4)[label] * rng.uniform(0.01, 100, (40, 1))
    assert KEYWORDS.across({"matched": judged(label, embedding)}) == {"matched/equal_error_rate": 0}
    deaf = KEYWORDS.across({"mismatched": judged(label, np.ones((40, 3)))})
    assert deaf == {"mismatched/equal_error_rate": 0.5}


def test_the_open_set_is_told_by_confidence_and_by_closeness():
    known = judged([0, 1, 1], np.eye(3), [[9, 0], [0, 2], [0, 0.5]], [0.1, 0.4, 0.2])
    unknown = judged([-1, -1], np.eye(3)[:2], [[1, 0], [0, 0]], [0.3, 0.5], test_set="open_set")
    found = KEYWORDS.across({"matched": known, "open_set": unknown})
    assert found["matched/open_set_auroc"] == pytest.approx(5 / 6)
    assert found["matched/open_set_centroid_auroc"] == pytest.approx(5 / 6)
    assert set(found) == {"matched/equal_error_rate", "matched/open_set_auroc", "matched/open_set_centroid_auroc"}


def test_what_is_not_finite_is_told_nothing_of():
    bad = judged([0, 0, 1], [[1, 0], [np.nan, 0], [0, 1]], [[1, 0], [np.nan, 0], [0, 0]], [0.1, np.nan, 0.2])
    fine = judged([-1], [[1, 0]], test_set="open_set")
    assert KEYWORDS.across({"matched": bad, "open_set": fine}) == {}


def test_controls_do_no_better_than_deaf():
    from torch import nn

    from tests.real import word_scenes

    scenes = word_scenes("keywords")
    for name in KEYWORDS.controls:
        sets = {}
        for test_set in ("matched", "open_set"):
            items = scenes.items(test_set, 60)
            examples = [scenes.example(item) for item in items]
            made = KEYWORDS.control(name, examples, scenes, nn.Module)
            ids, clusters = [item.id for item in items], [item.cluster for item in items]
            sets[test_set] = Judged(test_set, None, ids, clusters, examples, made)
        assert set(KEYWORDS.across(sets).values()) == {0.5}


def test_the_answer_to_a_word_that_no_class_is_of_is_not_measured():
    output = {"logits": np.array([3.0, 0.0]), "nearest": np.array(1)}
    assert KEYWORDS.score([output, {"chance": 2}], [{"label": torch.tensor(-1)}] * 2, [()] * 2, None) == [({}, [])] * 2
